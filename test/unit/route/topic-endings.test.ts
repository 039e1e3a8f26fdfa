/** A deleted topic's end on its way to all shards, some of them elsewhere, some out of reach. */
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { StreamHouseError } from '../../../src/core/errors.ts';
import { oneGroup, type ShardLayout } from '../../../src/core/shard-layout.ts';
import { TopicEndings } from '../../../src/route/topic-endings.ts';
import type { Topic } from '../../../storage/metadata/metadata-store.ts';
import { FakePlaces, peerPlace } from '../../support/fake-places.ts';

const SHARDS = 5;

let places: FakePlaces;
let endings: TopicEndings;
let ended: [where: number, topicId: number, shards: readonly number[]][];
let failing: Set<number>;
let deleted: number[];

async function end(where: number, topicId: number, shards: readonly number[]): Promise<void> {
  ended.push([where, topicId, shards]);
  if (failing.has(where)) throw new StreamHouseError('not-leader', `not at ${where}`);
}

beforeEach(() => {
  ended = [];
  failing = new Set();
  deleted = [7, 9];
  places = new FakePlaces();
  for (const shard of [0, 1]) places.set(shard, { kind: 'here' });
  for (const shard of [2, 3]) places.set(shard, peerPlace(shard, 20));
  places.set(4, peerPlace(4, 30));
  endings = endingsIn(oneGroup(SHARDS));
});

function endingsIn(layout: ShardLayout): TopicEndings {
  return new TopicEndings({
    layout,
    places,
    store: {
      listDeletedTopics: async ({ afterTopicId, limit }) =>
        deleted
          .filter((topicId) => topicId > afterTopicId)
          .slice(0, limit)
          .map((topicId) => ({ topicId }) as Topic),
    },
    endHere: (topicId, shards) => end(0, topicId, shards),
    endAt: (peer, topicId, shards) => end(peer.incarnation, topicId, shards),
  });
}

describe('the end of a topic', () => {
  it('goes to every shard once, to each broker in one request', async () => {
    await endings.end(7);
    assert.deepEqual(ended, [
      [0, 7, [0, 1]],
      [20, 7, [2, 3]],
      [30, 7, [4]],
    ]);
    assert.deepEqual(places.refusals, []);
  });

  it('rejects when a broker does not have it, drops its leases, and asks only for what is missing', async () => {
    failing.add(20);
    await assert.rejects(endings.end(7), { code: 'not-leader' });
    assert.deepEqual(places.refusals, [places.place(2), places.place(3)]);
    ended = [];
    await assert.rejects(endings.end(7), { code: 'not-leader' });
    assert.deepEqual(ended, [[20, 7, [2, 3]]]);
    // One of them has moved here.
    places.set(2, { kind: 'here' });
    failing.clear();
    ended = [];
    await endings.end(7);
    assert.deepEqual(ended, [
      [0, 7, [2]],
      [20, 7, [3]],
    ]);
    // It is forgotten with the topic: another time it is all shards again.
    ended = [];
    await endings.end(7);
    assert.equal(ended.flatMap(([, , shards]) => shards).length, SHARDS);
  });

  it('rejects when a shard has no holder, and the others have it', async () => {
    places.set(4, { kind: 'unknown' });
    const ending = endings.end(7);
    places.refuse(4, new StreamHouseError('not-leader', 'nobody'));
    await assert.rejects(ending, { code: 'not-leader' });
    assert.deepEqual(ended.map(([where]) => where).sort(), [0, 20]);
  });

  it('is appended for another broker only when the catalogue has the topic as deleted', async () => {
    await endings.endForPeer(9, [1]);
    assert.deepEqual(ended, [[0, 9, [1]]]);
    for (const topicId of [8, 10, 1]) {
      await assert.rejects(endings.endForPeer(topicId, [1]), { code: 'topic-not-found' });
    }
    await assert.rejects(endings.endForPeer(9, [SHARDS]), { code: 'invalid-request' });
    assert.equal(ended.length, 1);
  });

  it("goes to the shards of the topic's group alone, and is taken for no other", async () => {
    const groups = [
      { name: 'light', shards: 3 },
      { name: 'heavy', shards: 2 },
    ];
    endings = endingsIn({ shardCount: SHARDS, groups });
    // Nobody holds what is heavy's; 7 is heavy, 8 light.
    for (const shard of [3, 4]) places.set(shard, { kind: 'unknown' });
    await endings.end(8);
    assert.deepEqual(ended, [
      [0, 8, [0, 1]],
      [20, 8, [2]],
    ]);
    ended = [];
    deleted = [7, 8];
    for (const [topicId, shards] of [
      [7, [2]],
      [7, [3, 2]],
      [8, [3]],
    ] as const) {
      await assert.rejects(endings.endForPeer(topicId, shards), { code: 'invalid-request' });
    }
    await endings.endForPeer(7, [3, 4]);
    await endings.endForPeer(8, [0, 2]);
    assert.deepEqual(ended, [
      [0, 7, [3, 4]],
      [0, 8, [0, 2]],
    ]);
  });
});
