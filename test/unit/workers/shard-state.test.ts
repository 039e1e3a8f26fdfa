/**
 * The state of a shard: the fold of its log, and what an idempotent producer's batch deserves.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { partitionKey } from '../../../src/core/ids.ts';
import { decodeEntry, type Entry, encodeEntry } from '../../../workers/entry-codec.ts';
import {
  DELETED_TOPIC_EXPIRY_MS,
  decide,
  PRODUCER_EXPIRY_MS,
  PRODUCERS_PER_SHARD_MAX,
  type ProducerState,
  type ShardState,
  sequenceAfter,
} from '../../../workers/shard-state.ts';
import { anySteps, dumpState, logOf, stateOf } from '../../support/entry-samples.ts';

const KEY = partitionKey(1, 0);

function producer(batches: [number, number, number][], producerEpoch = 0): ProducerState {
  return {
    partitionKey: KEY,
    producerId: 9,
    producerEpoch,
    lastTimeMs: 0,
    batches: batches.map(([baseSequence, recordCount, baseOffset]) => ({
      baseSequence,
      recordCount,
      baseOffset,
    })),
  };
}

function stamp(baseSequence: number, producerEpoch = 0) {
  return { producerId: 9, producerEpoch, baseSequence };
}

/** An entry with one slice of partition 0 of topic 1, and a producer's stamp on all of it. */
function slice(
  state: ShardState,
  over: { producerId?: number; sequence?: number; timeMs?: number } = {},
): Entry {
  const recordCount = 2;
  const { producerId = 9, sequence = 0, timeMs = 1000 } = over;
  return {
    shard: 3,
    seq: state.seq + 1,
    epoch: state.epoch,
    timeMs,
    kind: 'slices',
    objects: [{ incarnation: 1, number: 1 }],
    slices: [
      {
        topicId: 1,
        partition: 0,
        objectIndex: 0,
        baseOffset: state.nextOffset(KEY),
        recordCount,
        position: 24,
        length: 100,
        maxTimestampMs: timeMs,
      },
    ],
    producerBatches: [
      { sliceIndex: 0, offsetInSlice: 0, recordCount, producerId, producerEpoch: 0, baseSequence: sequence },
    ],
  };
}

describe('decide', () => {
  it('lets an unknown producer begin at 0 only', () => {
    assert.equal(decide(undefined, stamp(0), 3).kind, 'accept');
    assert.deepEqual(pick(decide(undefined, stamp(3), 3)), ['refuse', 'out-of-order-sequence']);
  });

  it('accepts what follows, answers the last batches with their first offset, refuses gaps', () => {
    const known = producer([
      [0, 2, 10],
      [2, 3, 20],
    ]);
    assert.equal(decide(known, stamp(5), 1).kind, 'accept');
    assert.deepEqual(decide(known, stamp(0), 2), { kind: 'duplicate', baseOffset: 10 });
    assert.deepEqual(decide(known, stamp(2), 3), { kind: 'duplicate', baseOffset: 20 });
    assert.deepEqual(pick(decide(known, stamp(2), 2)), ['refuse', 'out-of-order-sequence']);
    assert.deepEqual(pick(decide(known, stamp(6), 1)), ['refuse', 'out-of-order-sequence']);
    assert.deepEqual(pick(decide(known, stamp(4), 1)), ['refuse', 'out-of-order-sequence']);
  });

  it('fences older epochs and begins newer ones at 0', () => {
    const known = producer([[7, 1, 0]], 4);
    assert.deepEqual(pick(decide(known, stamp(8, 3), 1)), ['refuse', 'producer-fenced']);
    assert.equal(decide(known, stamp(0, 5), 1).kind, 'accept');
    assert.deepEqual(pick(decide(known, stamp(8, 5), 1)), ['refuse', 'out-of-order-sequence']);
  });

  it('wraps sequence numbers to 0 after 2^31 - 1, also within a batch', () => {
    assert.equal(sequenceAfter(2147483647, 1), 0);
    assert.equal(sequenceAfter(2147483646, 5), 3);
    assert.equal(decide(producer([[2147483647, 1, 5]]), stamp(0), 1).kind, 'accept');
    assert.equal(decide(producer([[2147483646, 5, 5]]), stamp(3), 1).kind, 'accept');
    assert.equal(decide(producer([[2147483646, 5, 5]]), stamp(0), 1).kind, 'refuse');
  });
});

function pick(decision: ReturnType<typeof decide>): unknown[] {
  return decision.kind === 'refuse' ? [decision.kind, decision.code] : [decision.kind];
}

describe('shard state', () => {
  it('is the same for whoever replays the log, through its bytes too', () => {
    fc.assert(
      fc.property(anySteps, (steps) => {
        const log = logOf(steps);
        const replayed = log.map((entry) => decodeEntry(encodeEntry(entry)));
        assert.deepEqual(dumpState(stateOf(replayed)), dumpState(stateOf(log)));
      }),
      { numRuns: 150 },
    );
  });

  it('refuses entries that do not follow, and stays as it was', () => {
    const state = stateOf([]);
    state.apply({ shard: 3, seq: 1, epoch: 5, timeMs: 1, kind: 'takeover', incarnation: 1 });
    state.apply(slice(state));
    const before = dumpState(state);
    const good = slice(state, { sequence: 2 });
    const wrong: Entry[] = [
      { ...good, shard: 4 },
      { ...good, seq: state.seq },
      { ...good, seq: state.seq + 2 },
      { ...good, epoch: 4 },
    ];
    for (const entry of wrong) assert.throws(() => state.apply(entry), { code: 'corrupt-entry' });
    assert.deepEqual(dumpState(state), before);
    const overlapping = slice(state, { sequence: 2 });
    if (overlapping.kind === 'slices') overlapping.slices[0].baseOffset = 1;
    assert.throws(() => state.apply(overlapping), {
      code: 'corrupt-entry',
      message: /base 1, next offset 2/,
    });
  });

  it('keeps the last five batches of a producer', () => {
    const state = stateOf([]);
    for (let i = 0; i < 7; i++) state.apply(slice(state, { sequence: i * 2 }));
    const known = state.producer(KEY, 9) as ProducerState;
    assert.deepEqual(
      known.batches.map(({ baseSequence, baseOffset }) => [baseSequence, baseOffset]),
      [4, 6, 8, 10, 12].map((n) => [n, n]),
    );
  });

  it('forgets producers and deleted topics by the time of entries alone, which never goes back', () => {
    const state = stateOf([]);
    state.apply(slice(state, { timeMs: 1000 }));
    state.apply({ ...next(state, 1000), kind: 'topic-deleted', topicId: 77 });
    state.apply(slice(state, { producerId: 10, timeMs: 1000 + PRODUCER_EXPIRY_MS }));
    assert.ok(state.producer(KEY, 9));
    assert.ok(state.deletedTopics.has(77));
    state.apply(slice(state, { producerId: 11, timeMs: 1001 + PRODUCER_EXPIRY_MS }));
    assert.equal(state.producer(KEY, 9), undefined);
    assert.ok(state.producer(KEY, 10));
    assert.equal(PRODUCER_EXPIRY_MS, DELETED_TOPIC_EXPIRY_MS);
    assert.equal(state.deletedTopics.has(77), false);
    state.apply(slice(state, { producerId: 12, timeMs: 5 }));
    assert.equal(state.timeMs, 1001 + PRODUCER_EXPIRY_MS);
    assert.equal(state.producer(KEY, 12)?.lastTimeMs, state.timeMs);
  });

  it('forgets the producer unused for longest when there are too many', () => {
    const state = stateOf([]);
    const batches = 1024;
    for (let made = 0; made < PRODUCERS_PER_SHARD_MAX; ) {
      const entry = slice(state);
      if (entry.kind !== 'slices') return;
      entry.slices[0].recordCount = batches;
      entry.producerBatches = Array.from({ length: batches }, (_, i) => ({
        ...entry.producerBatches[0],
        offsetInSlice: i,
        recordCount: 1,
        producerId: made + i,
      }));
      made += batches;
      state.apply(entry);
    }
    state.apply(slice(state, { producerId: 0, sequence: 1 }));
    assert.equal(state.producers.size, PRODUCERS_PER_SHARD_MAX);
    state.apply(slice(state, { producerId: 1_000_000 }));
    assert.equal(state.producers.size, PRODUCERS_PER_SHARD_MAX);
    assert.ok(state.producer(KEY, 0), 'used lately');
    assert.equal(state.producer(KEY, 1), undefined);
  });

  it('drops what a deleted topic had, and lets the log start neither go back nor beyond the end', () => {
    const state = stateOf([]);
    state.apply(slice(state));
    const starts = (logStart: number): Entry => ({
      ...next(state),
      kind: 'log-start',
      starts: [
        { topicId: 1, partition: 0, logStart },
        { topicId: 5, partition: 9, logStart: 4 },
      ],
    });
    state.apply(starts(1));
    state.apply(starts(0));
    assert.equal(state.partitions.get(KEY)?.logStart, 1);
    state.apply(starts(100));
    assert.equal(state.partitions.get(KEY)?.logStart, 2);
    assert.equal(state.partitions.size, 1);
    state.apply({ ...next(state), kind: 'topic-deleted', topicId: 1 });
    assert.equal(state.partitions.size, 0);
    assert.equal(state.producers.size, 0);
    assert.equal(state.nextOffset(KEY), 0);
  });
});

function next(state: ShardState, timeMs = 1000) {
  return { shard: 3, seq: state.seq + 1, epoch: state.epoch, timeMs };
}
