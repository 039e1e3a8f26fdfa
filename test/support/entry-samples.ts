/**
 * Log entries for tests: any that a writer could make (fast-check), and shard states that grew from them. Owns:
 * these samples. Does not own: the formats. Tests only.
 */
import fc from 'fast-check';
import { partitionKey } from '../../src/core/ids.ts';
import type { Entry, EntryProducerBatch, EntrySlice } from '../../workers/entry-codec.ts';
import { PRODUCER_BATCHES_MAX, ShardState } from '../../workers/shard-state.ts';

const small = fc.nat(300);
const safe = fc.oneof(small, fc.maxSafeNat());
const timeMs = fc.oneof(fc.constant(1_700_000_000_000), fc.nat(2 ** 31 - 1), fc.constant(-1));
const objectId = fc.record({ incarnation: safe, number: safe }, { noNullPrototype: true });

interface RawSlice {
  objectIndex: number;
  topicId: number;
  partition: number;
  baseOffset: number;
  recordCount: number;
  gap: number;
  length: number;
  timestampGapMs: number;
}

const rawSlice: fc.Arbitrary<RawSlice> = fc.record(
  {
    objectIndex: fc.nat(4),
    topicId: fc.oneof(fc.nat(3), fc.nat(2 ** 33 - 1)),
    partition: fc.oneof(fc.nat(3), fc.nat(2 ** 20 - 1)),
    baseOffset: fc.oneof(small, fc.nat(2 ** 40)),
    recordCount: fc.integer({ min: 1, max: 100_000 }),
    gap: fc.nat(1000),
    length: fc.nat(1_000_000),
    timestampGapMs: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
  },
  { noNullPrototype: true },
);

/** Slices as the planner makes them: by object, topic, partition, position. */
function placed(raw: RawSlice[], objectCount: number, at: number): EntrySlice[] {
  const sorted = raw
    .map((slice) => ({ ...slice, objectIndex: slice.objectIndex % objectCount }))
    .sort((a, b) => a.objectIndex - b.objectIndex || a.topicId - b.topicId || a.partition - b.partition);
  let end = 0;
  let objectIndex = 0;
  return sorted.map((slice) => {
    if (slice.objectIndex !== objectIndex) end = 0;
    objectIndex = slice.objectIndex;
    const position = end + slice.gap;
    end = position + slice.length;
    const { topicId, partition, baseOffset, recordCount, length, timestampGapMs } = slice;
    const maxTimestampMs = at + timestampGapMs;
    return { topicId, partition, objectIndex, baseOffset, recordCount, position, length, maxTimestampMs };
  });
}

const batchPlace = fc.tuple(fc.nat(), fc.nat(), safe, fc.nat(32767), fc.nat(2 ** 31 - 1));

function producerBatches(places: [number, number, number, number, number][], slices: EntrySlice[]) {
  if (slices.length === 0) return [];
  return places.map(([slice, offset, producerId, producerEpoch, baseSequence]): EntryProducerBatch => {
    const sliceIndex = slice % slices.length;
    const offsetInSlice = offset % slices[sliceIndex].recordCount;
    const recordCount = slices[sliceIndex].recordCount - offsetInSlice;
    return { sliceIndex, offsetInSlice, recordCount, producerId, producerEpoch, baseSequence };
  });
}

const head = fc.record({ shard: fc.nat(64), seq: safe, epoch: safe, timeMs }, { noNullPrototype: true });
const objects = fc.array(objectId, { minLength: 1, maxLength: 5 });
const slices = fc.array(rawSlice, { maxLength: 20 });

/** Any entry that can be written, whether or not a log could hold it. */
export const anyEntry: fc.Arbitrary<Entry> = fc.oneof(
  fc
    .tuple(head, objects, slices, fc.array(batchPlace, { maxLength: 10 }))
    .map(([at, ids, raw, places]): Entry => {
      const made = placed(raw, ids.length, at.timeMs);
      const batches = producerBatches(places, made);
      return { ...at, kind: 'slices', objects: ids, slices: made, producerBatches: batches };
    }),
  fc.tuple(head, safe).map(([at, incarnation]): Entry => ({ ...at, kind: 'takeover', incarnation })),
  fc
    .tuple(
      head,
      fc.array(fc.record({ topicId: safe, partition: safe, logStart: safe }, { noNullPrototype: true })),
    )
    .map(([at, starts]): Entry => ({ ...at, kind: 'log-start', starts })),
  fc.tuple(head, safe).map(([at, topicId]): Entry => ({ ...at, kind: 'topic-deleted', topicId })),
  fc
    .tuple(head, objects, slices, fc.array(objectId, { maxLength: 5 }))
    .map(([at, ids, raw, dropped]): Entry => {
      return { ...at, kind: 'merged', objects: ids, slices: placed(raw, ids.length, at.timeMs), dropped };
    }),
);

/** A slice of one record in partition `partition` of topic 1, with or without a producer's stamp. */
export interface Step {
  partition: number;
  recordCount: number;
  producerId: number;
  producerEpoch: number;
  advanceMs: number;
  kind: 'slices' | 'takeover' | 'log-start' | 'topic-deleted';
}

export const anySteps: fc.Arbitrary<Step[]> = fc.array(
  fc.record(
    {
      partition: fc.nat(4),
      recordCount: fc.integer({ min: 1, max: 50 }),
      producerId: fc.integer({ min: -1, max: 6 }),
      producerEpoch: fc.nat(2),
      advanceMs: fc.oneof(fc.nat(100), fc.constant(-50), fc.constant(20 * 3600 * 1000)),
      kind: fc.oneof(
        { arbitrary: fc.constant('slices' as const), weight: 12 },
        { arbitrary: fc.constant('takeover' as const), weight: 2 },
        { arbitrary: fc.constant('log-start' as const), weight: 1 },
        { arbitrary: fc.constant('topic-deleted' as const), weight: 1 },
      ),
    },
    { noNullPrototype: true },
  ),
  { maxLength: 60 },
);

/** A log that fits itself: every entry follows the state before it. */
export function logOf(steps: readonly Step[], shard = 3): Entry[] {
  const state = new ShardState(shard);
  const entries: Entry[] = [];
  let timeMs = 1_700_000_000_000;
  let topicId = 1;
  for (const step of steps) {
    timeMs += step.advanceMs;
    const { partition, recordCount, producerId } = step;
    const at = { shard, seq: state.seq + 1, epoch: Math.max(1, state.epoch), timeMs };
    const key = partitionKey(topicId, partition);
    const baseOffset = state.nextOffset(key);
    let entry: Entry;
    if (step.kind === 'takeover') entry = { ...at, epoch: state.epoch + 1, kind: 'takeover', incarnation: 5 };
    else if (step.kind === 'log-start') {
      entry = { ...at, kind: 'log-start', starts: [{ topicId, partition, logStart: baseOffset >> 1 }] };
    } else if (step.kind === 'topic-deleted') entry = { ...at, kind: 'topic-deleted', topicId: topicId++ };
    else {
      const known = state.producer(key, producerId);
      const last = known?.producerEpoch === step.producerEpoch ? known.batches.at(-1) : undefined;
      const stamp = {
        sliceIndex: 0,
        offsetInSlice: 0,
        recordCount,
        producerId,
        producerEpoch: step.producerEpoch,
        baseSequence: last ? last.baseSequence + last.recordCount : 0,
      };
      const slice = {
        topicId,
        partition,
        objectIndex: 0,
        baseOffset,
        recordCount,
        position: 24,
        length: 70 * recordCount,
        maxTimestampMs: timeMs - 5,
      };
      entry = {
        ...at,
        kind: 'slices',
        objects: [{ incarnation: 5, number: state.seq }],
        slices: [slice],
        producerBatches: producerId < 0 ? [] : [stamp],
      };
    }
    state.apply(entry);
    entries.push(entry);
  }
  return entries;
}

export function stateOf(entries: readonly Entry[], shard = 3): ShardState {
  const state = new ShardState(shard);
  for (const entry of entries) state.apply(entry);
  return state;
}

/** Everything a state holds, as plain data in its own order. */
export function dumpState(state: ShardState): unknown {
  const { shard, seq, epoch, timeMs } = state;
  const partitions = [...state.partitions.values()]
    .map((fold) => ({ ...fold }))
    .sort((a, b) => a.topicId - b.topicId || a.partition - b.partition);
  const producers = [...state.producers.values()].map((producer) => ({
    ...producer,
    batches: producer.batches.slice(-PRODUCER_BATCHES_MAX).map((batch) => ({ ...batch })),
  }));
  return { shard, seq, epoch, timeMs, partitions, producers, deletedTopics: [...state.deletedTopics] };
}
