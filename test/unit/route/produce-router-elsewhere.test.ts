/**
 * Appends of shards that are not held here, and appends that other brokers forward: where they go and in which order,
 * what is counted while they wait, and that every record is answered once whatever becomes of them.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { type ErrorCode, StreamHouseError } from '../../../src/core/errors.ts';
import { shardOf } from '../../../src/core/ids.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import type { ProduceResult } from '../../../src/route/broker.ts';
import type { ForwardedAppend, ForwardedAppends } from '../../../src/route/peer-duties.ts';
import { ProduceRouter } from '../../../src/route/produce-router.ts';
import type { Topic } from '../../../storage/metadata/metadata-store.ts';
import {
  AnswerWriter,
  type AppendHeader,
  blankAppendHeader,
  forEachProduce,
  PRODUCE_HEADER_BYTES,
  readAppendHeader,
} from '../../../workers/append-codec.ts';
import { FakePlaces, peerPlace } from '../../support/fake-places.ts';
import { ManualClock, turn } from '../../support/manual-clock.ts';

const SHARDS = 4;
const KIB = 1024;
const MIB = 1024 * KIB;
const IN_FLIGHT_MAX = 3 * MIB;
const TOPIC: Topic = {
  topicId: 5,
  name: 'orders',
  partitionCount: 64,
  configs: {},
  createdAtMs: 0,
  version: 1,
};
/** By shard, some partition of it. */
const PARTITION = Array.from({ length: SHARDS }, (_, shard) => {
  for (let partition = 0; ; partition++)
    if (shardOf(TOPIC.topicId, partition, oneGroup(SHARDS)) === shard) return partition;
});
const PEER = peerPlace(0, 40);
const OTHER = peerPlace(0, 50);

interface Sent {
  peer: number;
  header: AppendHeader;
  value: string;
}

let clock: ManualClock;
let places: FakePlaces;
let router: ProduceRouter;
let messages: Uint8Array[];
let sent: Sent[];
let refuseSend: ErrorCode | null;
let counts: Record<string, number>;
let deletedTopics: number;

beforeEach(() => {
  clock = new ManualClock();
  places = new FakePlaces();
  messages = [];
  sent = [];
  refuseSend = null;
  counts = {};
  deletedTopics = 0;
  router = new ProduceRouter({
    settings: {
      laneCount: 1,
      layout: oneGroup(SHARDS),
      inFlightBytesMax: IN_FLIGHT_MAX,
      recordBytesMax: MIB,
      appendBytesMax: MIB,
    },
    clock,
    places,
    carrier: {
      send({ incarnation }, packed) {
        if (refuseSend !== null) return refuseSend;
        const header = blankAppendHeader();
        readAppendHeader(packed, 0, header);
        const value = packed.subarray(PRODUCE_HEADER_BYTES + header.recordCount * 8).toString();
        sent.push({ peer: incarnation, header, value });
        return null;
      },
    },
    counters: { add: (name, count = 1) => (counts[name] = (counts[name] ?? 0) + count) },
    topicDeleted: () => deletedTopics++,
    toLane: (_, bytes) => {
      messages.push(bytes);
      return true;
    },
  });
});

afterEach(() => router.close());

interface Submitted {
  result: ProduceResult | null;
}

function submit(shards: readonly number[], value = 'v', timeoutMs = 10_000): Submitted {
  const source = Buffer.from(value);
  const spans = shards.flatMap(() => [-1, -1, 0, source.length]);
  const partitions = shards.map((shard) => PARTITION[shard]);
  const submitted: Submitted = { result: null };
  router.submit({ topic: TOPIC, partitions, producer: null, source, spans, timeoutMs }, (result) => {
    assert.equal(submitted.result, null, 'answered once');
    submitted.result = result;
  });
  return submitted;
}

function codesOf({ result }: Submitted): (ErrorCode | null)[] | undefined {
  return result?.offsets.map((_, i) => result.errors?.[i]?.code ?? null);
}

function answerSent({ header: { slot, generation } }: Sent, code: ErrorCode | null, base = -1): void {
  router.answerElsewhere(slot, generation, code, base);
}

/** Values of all appends that went to the lane, in order. */
function laneValues(): string[] {
  const values: string[] = [];
  for (const message of messages) {
    let at = 0;
    forEachProduce(message, ({ recordCount, dataBytes }) => {
      const data = at + PRODUCE_HEADER_BYTES + recordCount * 8;
      at = data + dataBytes;
      values.push(Buffer.from(message.subarray(data, at)).toString());
    });
  }
  return values;
}

/** Answers everything that went to the lane with offsets from `base` on, and forgets the messages. */
function answerLane(base: number): void {
  const answers = new AnswerWriter();
  let next = base;
  for (const message of messages.splice(0)) {
    forEachProduce(message, ({ slot, generation }) => answers.add(slot, generation, null, next++));
  }
  const packed = answers.take();
  if (packed) router.answers(packed);
}

function idle(): void {
  assert.equal(router.outstanding, 0);
  assert.equal(router.inFlightBytes, 0);
  assert.deepEqual(router.parked, { shards: 0, bytes: 0 });
}

describe("appends of another broker's shards", () => {
  it('go to it, and the request is answered when here and there are', async () => {
    places.set(0, PEER);
    places.set(1, { kind: 'here' });
    const submitted = submit([0, 1]);
    await turn();
    assert.deepEqual([sent.length, messages.length], [1, 1]);
    assert.equal(sent[0].peer, 40);
    answerLane(7);
    assert.equal(submitted.result, null);
    answerSent(sent[0], null, 30);
    assert.deepEqual(submitted.result, { offsets: [30, 7], errors: null });
    assert.deepEqual(counts, { forwardedAppendsTotal: 1, forwardedBytesTotal: PRODUCE_HEADER_BYTES + 9 });
    idle();
  });

  it('are refused after submit when they cannot be sent, record by record', async () => {
    places.set(0, PEER);
    places.set(1, { kind: 'here' });
    refuseSend = 'not-leader';
    const submitted = submit([0, 1]);
    assert.equal(submitted.result, null);
    await turn();
    answerLane(1);
    assert.deepEqual(codesOf(submitted), ['not-leader', null]);
    assert.deepEqual(places.refusals, [PEER]);
    idle();
  });

  it('tell of a lease that does not hold, and of a deleted topic', async () => {
    places.set(0, PEER);
    const all = [submit([0]), submit([0]), submit([0]), submit([0])];
    await turn();
    const codes: ErrorCode[] = ['not-leader', 'peer-lost', 'topic-not-found', 'overloaded'];
    codes.forEach((code, i) => {
      answerSent(sent[i], code);
    });
    assert.deepEqual(all.map(codesOf), [['not-leader'], ['peer-lost'], ['append-abandoned'], ['overloaded']]);
    assert.deepEqual(places.refusals, [PEER, PEER]);
    assert.equal(deletedTopics, 1);
    assert.deepEqual([counts.forwardsLostTotal, counts.forwardsRefusedTotal], [1, 3]);
    idle();
  });

  it('are retried here, not at another broker, when the one that holds their shard stops', async () => {
    places.set(0, PEER);
    const submitted = submit([0]);
    await turn();
    answerSent(sent[0], 'shutting-down');
    assert.deepEqual(codesOf(submitted), ['not-leader']);
    assert.deepEqual(places.refusals, [PEER]);
    idle();
  });

  it('are not lost with a thread of this process', async () => {
    places.set(0, PEER);
    places.set(1, { kind: 'here' });
    const there = submit([0]);
    const here = submit([1]);
    const parked = submit([2]);
    await turn();
    messages.length = 0;
    router.laneLost(0);
    router.sequencerLost();
    assert.deepEqual([codesOf(here), there.result, parked.result], [['thread-lost'], null, null]);
    answerSent(sent[0], null, 3);
    assert.deepEqual(there.result, { offsets: [3], errors: null });
    places.set(2, { kind: 'here' });
    await turn();
    await turn();
    answerLane(9);
    assert.deepEqual(parked.result?.offsets, [9]);
    idle();
  });

  it('answered after the deadline give their bytes back then, not before', async () => {
    places.set(0, PEER);
    const submitted = submit([0], 'x'.repeat(KIB), 500);
    await clock.pass(600);
    assert.deepEqual(codesOf(submitted), ['deadline-exceeded']);
    assert.ok(router.inFlightBytes > 3 * KIB);
    answerSent(sent[0], null, 3);
    assert.equal(submitted.result?.offsets[0], -1);
    idle();
  });

  it('cannot be answered twice', async () => {
    places.set(0, PEER);
    submit([0]);
    await turn();
    answerSent(sent[0], null, 1);
    assert.throws(() => answerSent(sent[0], null, 2), /not outstanding/);
  });
});

describe('a broker that answers nothing', () => {
  const large = 'x'.repeat(50 * KIB);

  it('ends up with a third of the bytes, and others go on', async () => {
    places.set(0, PEER);
    places.set(1, { kind: 'here' });
    places.set(2, peerPlace(2, 50));
    const refused: Submitted[] = [];
    for (let i = 0; i < 100; i++) {
      const submitted = submit([0], large);
      await turn();
      if (submitted.result) refused.push(submitted);
    }
    const stuck = router.inFlightBytes;
    assert.ok(stuck > IN_FLIGHT_MAX * 0.25 && stuck < IN_FLIGHT_MAX * 0.37, `${stuck / IN_FLIGHT_MAX}`);
    assert.ok(refused.length > 80);
    for (const one of refused) assert.deepEqual(codesOf(one), ['overloaded']);
    const others = [submit([1], large), submit([2], large)];
    await turn();
    answerLane(1);
    answerSent(sent.at(-1) as Sent, null, 2);
    assert.deepEqual(
      others.map((one) => one.result?.offsets),
      [[1], [2]],
    );
    for (const one of sent.slice(0, -1)) answerSent(one, 'peer-lost');
    idle();
  });

  it('and a second one, and shards without a leader, still leave a part', async () => {
    places.set(0, PEER);
    places.set(2, peerPlace(2, 50));
    places.set(1, { kind: 'here' });
    for (let i = 0; i < 60; i++) {
      for (const shard of [0, 2, 3]) {
        submit([shard], large);
        await turn();
      }
    }
    assert.ok(router.inFlightBytes < IN_FLIGHT_MAX * 0.7, `${router.inFlightBytes / IN_FLIGHT_MAX}`);
    const here = submit([1], large);
    await turn();
    answerLane(1);
    assert.deepEqual(here.result?.offsets, [1]);
  });

  it('takes one append that is larger than its part', async () => {
    places.set(0, PEER);
    const submitted = submit([0], 'x'.repeat(700 * KIB));
    await turn();
    assert.equal(submitted.result, null);
    answerSent(sent[0], null, 0);
    assert.deepEqual(submitted.result, { offsets: [0], errors: null });
    idle();
  });
});

describe('appends of a shard whose place is not known', () => {
  it('wait, those of the shard behind each other, and go to a lane in order', async () => {
    submit([0], 'a');
    submit([0], 'b');
    await turn();
    assert.deepEqual(router.parked.shards, 1);
    places.set(0, { kind: 'here' });
    // The place is known, and the parked ones have not been sent yet: nobody may overtake them.
    submit([0], 'c');
    await turn();
    await turn();
    submit([0], 'd');
    await turn();
    assert.deepEqual(laneValues(), ['a', 'b', 'c', 'd']);
    answerLane(0);
    idle();
  });

  it('wait, and go to another broker in order', async () => {
    submit([0], 'a');
    submit([0], 'b');
    places.set(0, OTHER);
    submit([0], 'c');
    await turn();
    submit([0], 'd');
    assert.deepEqual(
      sent.map(({ peer, value }) => `${peer}${value}`),
      ['50a', '50b', '50c', '50d'],
    );
    sent.forEach((one, i) => {
      answerSent(one, null, i);
    });
    idle();
  });

  it('are refused when there is none: nothing of them happened', async () => {
    const all = [submit([0], 'a'), submit([0, 1], 'b')];
    await turn();
    places.set(1, { kind: 'here' });
    places.refuse(0, new StreamHouseError('not-leader', 'nobody'));
    await turn();
    await turn();
    answerLane(4);
    assert.deepEqual(all.map(codesOf), [['not-leader'], ['not-leader', null]]);
    assert.deepEqual(sent, []);
    idle();
  });

  it('are not sent when their request has met its deadline', async () => {
    const submitted = submit([0], 'a', 500);
    await clock.pass(600);
    assert.deepEqual(codesOf(submitted), ['deadline-exceeded']);
    assert.ok(router.inFlightBytes > 0);
    places.set(0, OTHER);
    await turn();
    await turn();
    assert.deepEqual(sent, []);
    idle();
  });

  it('are refused, and the lease told of, when the broker found for them takes none', async () => {
    const submitted = submit([0], 'a');
    refuseSend = 'not-leader';
    places.set(0, OTHER);
    await turn();
    await turn();
    assert.deepEqual(codesOf(submitted), ['not-leader']);
    assert.deepEqual(places.refusals, [OTHER]);
    idle();
  });
});

function forwarded(appends: readonly Partial<ForwardedAppend>[]): ForwardedAppends {
  const bytes = Buffer.concat([Buffer.from([255, 255, 255, 255, 1, 0, 0, 0]), Buffer.from('w')]);
  return {
    count: appends.length,
    bytes: appends.length * 50,
    forEach(each) {
      appends.forEach((append, i) => {
        const blank = { topicId: TOPIC.topicId, partition: 0, recordCount: 1, refusal: null, bytes };
        each({ ...blank, producerId: -1, producerEpoch: -1, baseSequence: -1, ...append }, i);
      });
    },
  };
}

describe('appends that another broker forwards', () => {
  it('go to the lanes in order, and are answered by their place', async () => {
    places.set(0, { kind: 'here' });
    places.set(1, PEER);
    const answers: unknown[] = [];
    router.submitForwarded(
      forwarded([
        { partition: PARTITION[0], producerId: 9, producerEpoch: 1, baseSequence: 7 },
        { partition: PARTITION[1] },
        { partition: PARTITION[0], refusal: 'record-too-large' },
        { partition: PARTITION[2] },
      ]),
      (...answer) => answers.push(answer),
    );
    assert.deepEqual(answers, [], 'never from inside');
    await turn();
    assert.deepEqual(answers, [
      [1, 'not-leader', -1],
      [2, 'record-too-large', -1],
      [3, 'not-leader', -1],
    ]);
    assert.deepEqual([sent.length, router.parked.shards], [0, 0], 'one hop at most');
    const header = blankAppendHeader();
    readAppendHeader(Buffer.from(messages[0]), 0, header);
    assert.deepEqual([header.producerId, header.producerEpoch, header.baseSequence], [9, 1, 7]);
    assert.deepEqual(laneValues(), ['w']);
    answerLane(88);
    assert.deepEqual(answers[3], [0, null, 88]);
    assert.deepEqual([counts.receivedAppendsTotal, counts.receivedRefusedTotal], [4, 3]);
    idle();
  });

  it('are refused as a whole when there is no room or the broker stops', () => {
    const message = { ...forwarded([{ partition: PARTITION[0] }]), bytes: IN_FLIGHT_MAX };
    const answer = () => assert.fail('nothing was taken');
    assert.throws(() => router.submitForwarded(message, answer), { code: 'overloaded' });
    idle();
    router.stop();
    assert.throws(() => router.submitForwarded(forwarded([{}]), answer), { code: 'shutting-down' });
  });

  it('are unknown when the thread that has them ends', async () => {
    places.set(0, { kind: 'here' });
    const answers: unknown[] = [];
    router.submitForwarded(forwarded([{ partition: PARTITION[0] }]), (...answer) => answers.push(answer));
    await turn();
    router.sequencerLost();
    assert.deepEqual(answers, [[0, 'thread-lost', -1]]);
    idle();
  });
});
