/** A broker that is out of touch with the metadata store answers no reads: neither before a lane is asked nor after. */
import assert from 'node:assert/strict';
import { beforeEach, it } from 'node:test';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import { FetchRouter } from '../../../src/route/fetch-router.ts';
import type { Topic } from '../../../storage/metadata/metadata-store.ts';
import type { LaneRequest } from '../../../workers/messages.ts';
import { ManualClock, turn } from '../../support/manual-clock.ts';

const TOPIC: Topic = {
  topicId: 3,
  name: 'orders',
  partitionCount: 1,
  configs: {},
  createdAtMs: 0,
  version: 1,
};

let serves: boolean;
let asked: Exclude<LaneRequest, { type: 'produce' } | { type: 'close' }>[];
let clock: ManualClock;
let router: FetchRouter;

beforeEach(() => {
  serves = true;
  asked = [];
  clock = new ManualClock();
  router = new FetchRouter({
    laneCount: 1,
    layout: oneGroup(8),
    clock,
    mayServe: () => serves,
    confirmHolder: async () => true,
    stillThere: async () => true,
    topicDeleted: () => undefined,
    toLane: (_, request) => {
      if ('id' in request) asked.push(request);
      return true;
    },
  });
});

const empty = { logStart: 0, nextOffset: 5, position: 0, length: 0, error: null };

function answerFetch(): void {
  const { id } = asked[asked.length - 1];
  router.reply({ type: 'fetched', id, parts: [empty], bytes: new Uint8Array(0) });
}

const fetch = (waitMs: number) =>
  router.fetch([{ topic: TOPIC, partition: 0, offset: 5, bytesMax: 10 }], {
    bytesMax: 10,
    bytesMin: 1,
    waitMs,
  });

it('nothing is asked while the broker may not serve', async () => {
  serves = false;
  assert.equal((await fetch(0))[0].error?.code, 'not-leader');
  await assert.rejects(router.bounds(TOPIC, 0), { code: 'not-leader' });
  await assert.rejects(router.offsetForTimestamp(TOPIC, 0, 1), { code: 'not-leader' });
  assert.equal(asked.length, 0);
  serves = true;
  const answer = fetch(0);
  await turn();
  answerFetch();
  assert.equal((await answer)[0].error, null);
});

it('what was asked before is not answered after', async () => {
  const records = fetch(0);
  const bounds = router.bounds(TOPIC, 0);
  bounds.catch(() => undefined);
  await turn();
  serves = false;
  for (const { type, id } of asked) {
    if (type === 'bounds') router.reply({ type, id, logStart: 0, nextOffset: 9, error: null });
    else router.reply({ type: 'fetched', id, parts: [empty], bytes: new Uint8Array(0) });
  }
  assert.equal((await records)[0].error?.code, 'not-leader');
  await assert.rejects(bounds, { code: 'not-leader' });
  assert.equal(router.outstanding, 0);
});

it('a long poll is ended when the broker gets out of touch, and does not wait for its time', async () => {
  const polled = fetch(60_000);
  await turn();
  answerFetch();
  await turn();
  assert.equal(asked.at(-1)?.type, 'watch');
  serves = false;
  router.outOfTouch();
  await clock.pass(1);
  assert.equal((await polled)[0].error?.code, 'not-leader');
  assert.equal(router.outstanding, 0);
  assert.equal(clock.waiting, 0);
});

it('a long poll that ends then says so instead of that there is nothing', async () => {
  const polled = fetch(1000);
  await turn();
  answerFetch();
  await turn();
  assert.equal(asked.at(-1)?.type, 'watch');
  serves = false;
  await clock.pass(1001);
  assert.equal((await polled)[0].error?.code, 'not-leader');
});
