/**
 * Benchmarks of the segment index: a look-up by offset against the linear scan over ref objects that it
 * replaces, at 1,000, 100,000 and 1,000,000 segments in one partition; the same number over 10,000 partitions;
 * appends; the page codec. Owns: the data and the tasks. Does not own: how results are printed. One thread.
 *
 * One run of a task is one operation (of `linear scan` too), at a random place, so that percentiles are those of
 * single look-ups; the time of reading the clock is in them (tinybench takes its share out).
 */
import { decodePage, encodePage, type Page } from '../../index/page-codec.ts';
import { SegmentIndex } from '../../index/segment-index.ts';
import { blankRefs, packRef, type SegmentRef, SegmentRefList } from '../../index/segment-ref.ts';
import { systemClock } from '../../src/core/clock.ts';
import { shardOf } from '../../src/core/ids.ts';
import { seededRandom } from '../../src/core/random.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import { type Suite, TaskSet } from '../suite.ts';

const SHARD_COUNT = 64;
const LAYOUT = oneGroup(SHARD_COUNT);
const TOPIC_ID = 7;
const RECORDS = 3;

/** Random places to look up, drawn before the clock runs; a power of two. */
const PLACES = 1 << 16;

function newIndex(): SegmentIndex {
  const index = new SegmentIndex({
    layout: LAYOUT,
    budgetBytes: Number.MAX_SAFE_INTEGER,
    clock: systemClock,
    findPages: () => Promise.reject(new Error('everything is in memory here')),
  });
  for (let shard = 0; shard < SHARD_COUNT; shard++) index.openShard(shard, [], 0);
  return index;
}

/** Appends the `i`-th segment of a partition. */
function appendTo(index: SegmentIndex, partition: number, i: number): void {
  const shard = shardOf(TOPIC_ID, partition, LAYOUT);
  const seq = index.appliedSeq(shard)! + 1;
  index.append(shard, seq, TOPIC_ID, partition, i * RECORDS, RECORDS, 3, i, i * 80, 80, 1.7e12 + i);
}

/** An index of `segments` segments spread evenly over partitions 0 to partitions - 1. */
function filled(segments: number, partitions: number): SegmentIndex {
  const index = newIndex();
  for (let i = 0; i < segments / partitions; i++) {
    for (let partition = 0; partition < partitions; partition++) appendTo(index, partition, i);
  }
  return index;
}

function refsOf(segments: number): SegmentRef[] {
  return Array.from({ length: segments }, (_, i) => ({
    baseOffset: i * RECORDS,
    nextOffset: (i + 1) * RECORDS,
    incarnation: 3,
    number: i,
    position: i * 80,
    length: 80,
    maxTimestampSoFarMs: 1.7e12 + i,
  }));
}

function places(below: number): Int32Array {
  const random = seededRandom(1);
  return Int32Array.from({ length: PLACES }, () => random.below(below));
}

function scan(refs: readonly SegmentRef[], offset: number): SegmentRef {
  for (const ref of refs) if (offset < ref.nextOffset) return ref;
  throw new Error(`offset ${offset} is not there`);
}

function addLookUps(tasks: TaskSet, segments: number): void {
  const index = filled(segments, 1);
  const refs = refsOf(segments);
  const at = places(segments * RECORDS);
  const out = new SegmentRefList();
  let next = 0;
  tasks.add(
    `locate, ${segments} segments in 1 partition`,
    () => {
      index.locate(TOPIC_ID, 0, at[next++ & (PLACES - 1)], 1, out);
      if (out.count !== 1) throw new Error('not found');
    },
    { itemName: 'look-up', against: `linear scan, ${segments} segments in 1 partition` },
  );
  tasks.add(`linear scan, ${segments} segments in 1 partition`, () => {
    if (scan(refs, at[next++ & (PLACES - 1)]).length !== 80) throw new Error('not found');
  });
}

function addSpreadLookUps(tasks: TaskSet, segments: number, partitions: number): void {
  const index = filled(segments, partitions);
  const offsets = places((segments / partitions) * RECORDS);
  const of = places(partitions);
  const out = new SegmentRefList();
  let next = 0;
  tasks.add(`locate, ${segments} segments in ${partitions} partitions`, () => {
    const i = next++ & (PLACES - 1);
    index.locate(TOPIC_ID, of[PLACES - 1 - i], offsets[i], 1, out);
    if (out.count !== 1) throw new Error('not found');
  });
  tasks.add(`find by timestamp, ${segments} segments in ${partitions} partitions`, () => {
    const i = next++ & (PLACES - 1);
    const found = index.findByTimestamp(
      TOPIC_ID,
      of[PLACES - 1 - i],
      1.7e12 + Math.floor(offsets[i] / RECORDS),
    );
    if (found === null) throw new Error('not found');
  });
}

function addAppends(tasks: TaskSet, partitions: number): void {
  const index = newIndex();
  let next = 0;
  tasks.add(`append, round robin over ${partitions} partitions`, () => {
    appendTo(index, next % partitions, Math.floor(next / partitions));
    next++;
  });
}

function addCodec(tasks: TaskSet): void {
  const objects = refsOf(256);
  const refs = blankRefs(256);
  for (let i = 0; i < 256; i++) packRef(refs, i, objects[i]);
  const nextOffset = 256 * RECORDS;
  const page: Page = {
    topicId: TOPIC_ID,
    partition: 0,
    stamp: 900,
    baseOffset: 0,
    nextOffset,
    refCount: 256,
    refs,
  };
  const bytes = encodePage(page);
  tasks.add('encode a page of 256 refs', () => {
    encodePage(page);
  });
  tasks.add('decode a page of 256 refs', () => {
    decodePage(bytes);
  });
}

export const indexSuite: Suite = {
  name: 'index',
  title: 'segment index: look-up by offset against the linear scan it replaces',
  run(options) {
    const { smoke } = options;
    const tasks = new TaskSet('index', options);
    for (const segments of smoke ? [1_000, 3_000] : [1_000, 100_000, 1_000_000]) addLookUps(tasks, segments);
    addSpreadLookUps(tasks, smoke ? 3_000 : 1_000_000, smoke ? 100 : 10_000);
    addAppends(tasks, smoke ? 100 : 1_000);
    addCodec(tasks);
    return tasks.run();
  },
};
