/**
 * Benchmarks of folding the log: ShardState.apply of entries of 100 to 10,000 slices, and with producers, beside
 * the least that any fold must do, one map update per slice. One thread.
 */
import { partitionKey } from '../../src/core/ids.ts';
import type { Entry, SlicesEntry } from '../../workers/entry-codec.ts';
import { ShardState } from '../../workers/shard-state.ts';
import { sliceBody, TOPIC_ID, upTo, WALL_MS } from '../sample-appends.ts';
import { type Suite, TaskSet } from '../suite.ts';

const SHARD = 3;

/** Makes the entry the one that follows, outside of the measured time. */
function advance(entry: Entry & SlicesEntry): void {
  entry.seq++;
  for (const slice of entry.slices) slice.baseOffset += slice.recordCount;
  for (const batch of entry.producerBatches) batch.baseSequence += batch.recordCount;
}

function addApply(tasks: TaskSet, count: number, producers: boolean): void {
  const state = new ShardState(SHARD);
  const body = sliceBody(1, upTo(count), -1);
  const entry: Entry & SlicesEntry = { shard: SHARD, seq: 0, epoch: 1, timeMs: WALL_MS, ...body };
  if (producers) {
    entry.producerBatches = upTo(count).map((sliceIndex) => ({
      sliceIndex,
      offsetInSlice: 0,
      recordCount: 1,
      producerId: 1000 + sliceIndex,
      producerEpoch: 0,
      baseSequence: -1,
    }));
  }
  const name = `apply, ${count} slices${producers ? ', each of a producer' : ''}`;
  tasks.add(name, () => state.apply(entry), {
    items: count,
    itemName: 'slice',
    against: `map update, ${count} keys`,
    hooks: { beforeEach: () => advance(entry) },
  });
}

function addMapUpdate(tasks: TaskSet, count: number): void {
  const next = new Map<number, number>();
  const task = () => {
    for (let partition = 0; partition < count; partition++) {
      const key = partitionKey(TOPIC_ID, partition);
      next.set(key, (next.get(key) ?? 0) + 1);
    }
  };
  tasks.add(`map update, ${count} keys`, task, { items: count, itemName: 'slice' });
}

export const applySuite: Suite = {
  name: 'apply',
  title: 'fold: ShardState.apply of one entry, per slice',
  run(options) {
    const tasks = new TaskSet('apply', options);
    for (const count of options.smoke ? [100] : [100, 1_000, 10_000]) {
      addMapUpdate(tasks, count);
      addApply(tasks, count, false);
      addApply(tasks, count, true);
    }
    return tasks.run();
  },
};
