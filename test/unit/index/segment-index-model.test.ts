/**
 * The index against a plain array: random entries, look-ups, page-outs that fail or arrive late, evictions,
 * retention, merges and takeovers, from a seed. After each step of note the index must answer exactly what the
 * array says; at the end the store must hold it too.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodePage, refsOfPage } from '../../../index/page-codec.ts';
import type { PartitionFold } from '../../../index/page-fold.ts';
import { LOCATE_REFS_MAX, SegmentIndex } from '../../../index/segment-index.ts';
import { SegmentRefList } from '../../../index/segment-ref.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import { shardOf } from '../../../src/core/ids.ts';
import { type Random, seededRandom } from '../../../src/core/random.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import { FakePageStore, turn, turnClock, unavailable } from './fake-page-store.ts';
import { applyEntry, endOf, type ModelPartition, type Op, ShardModel } from './index-model.ts';

const SHARD_COUNT = 2;
const PARTITIONS = 4;

class World {
  readonly random: Random;
  readonly store = new FakePageStore();
  readonly shards = Array.from({ length: SHARD_COUNT }, (_, shard) => new ShardModel(shard));
  /** What each shard's newest checkpoint holds. */
  readonly checkpoints: { seq: number; folds: PartitionFold[] }[] = [];
  index: SegmentIndex;
  topicIds = [1, 2];
  nextTopicId = 3;
  failEvery = 0;
  checks = 0;
  readonly running = new Set<Promise<unknown>>();
  readonly failures: unknown[] = [];

  constructor(seed: number) {
    this.random = seededRandom(seed);
    const flaky = async () => {
      for (let i = this.random.below(4); i > 0; i--) await turn();
      if (this.failEvery > 0 && this.random.below(this.failEvery) === 0) throw unavailable();
    };
    this.store.before = flaky;
    this.store.after = flaky;
    this.index = this.newIndex();
    for (let shard = 0; shard < SHARD_COUNT; shard++) {
      this.checkpoints[shard] = { seq: 0, folds: [] };
      this.index.openShard(shard, [], 0);
    }
  }

  newIndex(): SegmentIndex {
    const { findPages } = this.store;
    return new SegmentIndex({
      layout: oneGroup(SHARD_COUNT),
      budgetBytes: this.budget(),
      findPages,
      clock: turnClock,
    });
  }

  budget(): number {
    return [0, 3_000, 20_000, 100_000, 1e9][this.random.below(5)];
  }

  shardOf(topicId: number, partition: number): ShardModel {
    return this.shards[shardOf(topicId, partition, oneGroup(SHARD_COUNT))];
  }

  pick(): { model: ShardModel; of: ModelPartition } {
    const topicId = this.topicIds[this.random.below(this.topicIds.length)];
    const partition = this.random.below(PARTITIONS);
    const model = this.shardOf(topicId, partition);
    return { model, of: model.partition(topicId, partition) };
  }

  /** Runs in the background; what it throws fails the test. */
  spawn(work: Promise<unknown>): void {
    const done = work
      .catch((error: unknown) => this.failures.push(error))
      .finally(() => this.running.delete(done));
    this.running.add(done);
  }

  commit(model: ShardModel, ops: Op[]): void {
    model.commit(ops);
    applyEntry(this.index, model.shard, model.seq, ops);
  }

  appendSome(): void {
    const { model, of } = this.pick();
    const count = this.random.below(6) === 0 ? this.random.below(400) : 1 + this.random.below(5);
    for (let i = 0; i < count; i++) {
      const op = model.randomAppend(this.random, of.topicId, of.partition);
      this.commit(model, [op]);
    }
  }

  /** An entry of several slices, some for the same partition. */
  appendWide(): void {
    const { model } = this.pick();
    const ops: Op[] = [];
    for (const topicId of this.topicIds) {
      for (let partition = 0; partition < PARTITIONS; partition++) {
        if (this.shardOf(topicId, partition) !== model) continue;
        ops.push(model.randomAppend(this.random, topicId, partition));
      }
    }
    this.commit(model, ops);
  }

  merge(): void {
    const { model, of } = this.pick();
    const op = model.randomMerge(this.random, of);
    if (op !== null) this.commit(model, [op]);
  }

  setLogStart(): void {
    const { model, of } = this.pick();
    const room = endOf(of) - of.logStart;
    const bounds = of.pageBases.filter((base) => base >= of.logStart);
    const isAtBound = this.random.below(2) === 0 && bounds.length > 0;
    const logStart = isAtBound ? bounds[0] : of.logStart + this.random.below(room / 4 + 1);
    this.commit(model, [{ kind: 'log-start', topicId: of.topicId, partition: of.partition, logStart }]);
  }

  async retire(): Promise<void> {
    const { of } = this.pick();
    const base = await this.index.pageBaseOf(of.topicId, of.partition, of.logStart).catch(onlyStoreErrors);
    if (base === undefined) return;
    const expected = of.pageBases.filter((at) => at <= of.logStart).at(-1);
    // The log start may have moved on while the page was read.
    if (base <= of.logStart && expected !== undefined) assert.ok(base <= expected);
    this.store.deletePages(of.topicId, of.partition, base);
  }

  deleteTopic(): void {
    const at = this.random.below(this.topicIds.length);
    const topicId = this.topicIds[at];
    this.topicIds[at] = this.nextTopicId++;
    for (const model of this.shards) this.commit(model, [{ kind: 'delete', topicId }]);
  }

  async locate(): Promise<void> {
    const { of } = this.pick();
    const offset = of.logStart + this.random.below(endOf(of) - of.logStart + 1);
    const bytesMax = [0, 500, 5_000, 1e9][this.random.below(4)];
    await this.expectLocate(of, offset, bytesMax);
  }

  async expectLocate(of: ModelPartition, offset: number, bytesMax: number): Promise<number> {
    const out = new SegmentRefList();
    try {
      const pending = this.index.locate(of.topicId, of.partition, offset, bytesMax, out);
      // An answer from memory is compared at once: more entries may be committed in this same turn.
      if (pending !== undefined) await pending;
    } catch (error) {
      if (of.logStart > offset && codeOf(error) === 'offset-out-of-range') return offset;
      onlyStoreErrors(error);
      return offset;
    }
    this.checks++;
    const first = of.refs.findIndex((ref) => offset < ref.nextOffset);
    if (offset === endOf(of)) {
      assert.equal(out.count, 0);
      return offset;
    }
    assert.ok(out.count >= 1 && out.count <= LOCATE_REFS_MAX);
    assert.deepEqual(out.toArray(), of.refs.slice(first, first + out.count));
    const bytes = out.toArray().reduce((sum, ref) => sum + ref.length, 0);
    assert.ok(out.bytes === bytes && (bytes <= bytesMax || out.count === 1));
    return out.nextOffset;
  }

  async findByTimestamp(): Promise<void> {
    const { of } = this.pick();
    const around = of.refs[this.random.below(of.refs.length)]?.maxTimestampSoFarMs ?? 0;
    const timestampMs = around + this.random.below(3) - 1;
    const endAtStart = endOf(of);
    let found: unknown;
    try {
      found = this.index.findByTimestamp(of.topicId, of.partition, timestampMs);
      if (found instanceof Promise) found = await found;
    } catch (error) {
      onlyStoreErrors(error);
      return;
    }
    this.checks++;
    const expected = of.refs.find(
      (ref) => ref.nextOffset > of.logStart && ref.maxTimestampSoFarMs >= timestampMs,
    );
    if (found === null && expected !== undefined && expected.baseOffset >= endAtStart) return;
    // Refs may have been merged or retired while pages were read: then any answer of that time is right.
    if (found === null || expected === undefined) assert.equal(found ?? undefined, expected);
    else assert.ok((found as { maxTimestampSoFarMs: number }).maxTimestampSoFarMs >= timestampMs);
  }

  /** The same with nothing else going on: the answer is exact. */
  async expectTimes(of: ModelPartition): Promise<void> {
    for (let i = 0; i < 5; i++) {
      const around = of.refs[this.random.below(of.refs.length)]?.maxTimestampSoFarMs ?? 0;
      const timestampMs = around + this.random.below(3) - 1;
      const found = await this.index.findByTimestamp(of.topicId, of.partition, timestampMs);
      const isIt = (ref: { nextOffset: number; maxTimestampSoFarMs: number }) =>
        ref.nextOffset > of.logStart && ref.maxTimestampSoFarMs >= timestampMs;
      assert.deepEqual(found, of.refs.find(isIt) ?? null);
    }
  }

  /** Pages out and, if that went well, perhaps moves the checkpoint. */
  async pageOut(): Promise<void> {
    const model = this.shards[this.random.below(SHARD_COUNT)];
    const at = { seq: model.seq, folds: model.folds() };
    try {
      const result = await this.index.pageOut(model.shard, this.store.putPages);
      assert.ok(result.throughSeq >= at.seq);
    } catch (error) {
      onlyStoreErrors(error);
      return;
    }
    const movesPointer = this.random.below(3) > 0;
    if (movesPointer && at.seq > this.checkpoints[model.shard].seq) this.checkpoints[model.shard] = at;
  }

  /** Another holder: checkpoint and tail, look-ups in the middle of the replay allowed to be refused. */
  async takeOver(isNewProcess: boolean): Promise<void> {
    if (isNewProcess) {
      const old = this.index;
      this.index = this.newIndex();
      for (const model of this.shards) await this.replay(model);
      for (const model of this.shards) old.closeShard(model.shard);
    } else {
      const model = this.shards[this.random.below(SHARD_COUNT)];
      this.index.closeShard(model.shard);
      await this.replay(model);
    }
  }

  async replay(model: ShardModel): Promise<void> {
    const { seq, folds } = this.checkpoints[model.shard];
    this.index.openShard(model.shard, folds, seq);
    let now = seq;
    for (const ops of model.log.slice(seq)) {
      applyEntry(this.index, model.shard, ++now, ops);
      if (this.random.below(40) === 0) await this.lookDuringReplay(model);
    }
    this.index.advance(model.shard, model.seq);
  }

  async lookDuringReplay(model: ShardModel): Promise<void> {
    for (const of of model.partitions.values()) {
      const bounds = this.index.bounds(of.topicId, of.partition)!;
      // Pages below the log start of the log's end may be gone already.
      if (of.logStart >= bounds.nextOffset) continue;
      const offset = of.logStart + this.random.below(bounds.nextOffset - of.logStart);
      const out = new SegmentRefList();
      try {
        await this.index.locate(of.topicId, of.partition, offset, 1000, out);
      } catch (error) {
        onlyStoreErrors(error);
        continue;
      }
      const [first] = out.toArray();
      assert.ok(first.baseOffset <= offset && offset < first.nextOffset);
    }
  }

  /** Everything in the store and nothing in memory: the whole index must read back as the arrays are. */
  async expectAll(): Promise<void> {
    this.failEvery = 0;
    while (this.running.size > 0) await Promise.all(this.running);
    for (const { shard } of this.shards) await this.index.pageOut(shard, this.store.putPages);
    assert.equal(this.index.dirtyBytes, 0);
    this.index.budgetBytes = 0;
    assert.equal(this.index.bytes, 0);
    for (const model of this.shards) {
      for (const of of model.partitions.values()) await this.expectPartition(of);
    }
  }

  async expectPartition(of: ModelPartition): Promise<void> {
    const { topicId, partition, logStart } = of;
    assert.deepEqual(this.index.bounds(topicId, partition), { logStart, nextOffset: endOf(of) });
    for (let offset = logStart; offset < endOf(of); ) {
      const next = await this.expectLocate(of, offset, 1e9);
      assert.ok(next > offset);
      offset = next;
    }
    await this.expectTimes(of);
    const stored = this.store.list(topicId, partition).map((page) => decodePage(page.bytes));
    const live = stored.filter((page) => page.nextOffset > logStart);
    const bases = of.pageBases.filter((_, i) => (of.pageBases[i + 1] ?? endOf(of)) > logStart);
    assert.deepEqual(
      live.map((page) => page.baseOffset),
      endOf(of) > logStart ? bases : [],
    );
    const refs = of.refs.filter((ref) => ref.baseOffset >= bases[0]);
    if (live.length > 0) assert.deepEqual(live.flatMap(refsOfPage), refs);
  }
}

function codeOf(error: unknown): string {
  if (error instanceof StreamHouseError) return error.code;
  throw error;
}

/** What may fail here: the store, or a shard that went away meanwhile. */
function onlyStoreErrors(error: unknown): undefined {
  const expected = ['store-unavailable', 'not-leader', 'topic-not-found', 'offset-out-of-range'];
  if (!expected.includes(codeOf(error))) throw error;
  return undefined;
}

async function runWorld(seed: number, steps: number): Promise<number> {
  const world = new World(seed);
  const { random } = world;
  for (let i = 0; i < steps; i++) {
    const dice = random.below(100);
    if (dice < 30) world.appendSome();
    else if (dice < 36) world.appendWide();
    else if (dice < 46) world.merge();
    else if (dice < 50) world.setLogStart();
    else if (dice < 53) world.spawn(world.retire());
    else if (dice < 54) world.deleteTopic();
    else if (dice < 70) world.spawn(world.locate());
    else if (dice < 76) world.spawn(world.findByTimestamp());
    else if (dice < 86) world.spawn(world.pageOut());
    else if (dice < 90) world.index.budgetBytes = world.budget();
    else if (dice < 93) await world.takeOver(random.below(2) === 0).then(turn);
    else if (dice < 96) world.failEvery = [0, 3, 10][random.below(3)];
    else for (let n = random.below(10); n >= 0; n--) await turn();
    if (world.failures.length > 0) throw world.failures[0];
  }
  await world.expectAll();
  if (world.failures.length > 0) throw world.failures[0];
  return world.checks;
}

const SEEDS = Number(process.env.INDEX_SEEDS ?? 60);
const FIRST_SEED = Number(process.env.INDEX_SEED ?? 1);

test(`the index answers what a plain array says, ${SEEDS} random histories`, async () => {
  let checks = 0;
  for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
    try {
      checks += await runWorld(seed, 300);
    } catch (error) {
      throw new Error(`seed ${seed} (INDEX_SEED=${seed} INDEX_SEEDS=1 repeats it)`, { cause: error });
    }
  }
  assert.ok(checks > SEEDS * 30, `only ${checks} checks`);
});
