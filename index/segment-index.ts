/**
 * The segment index of one lane: for each partition of the shards held here that falls to this lane, where its
 * records lie. Owns: opening and closing shards, applying committed entries to the index, look-ups by offset and
 * by time, the byte budget. Does not own: offsets or decisions (the batching worker gives them; this index is
 * a fold of committed entries and nothing else), objects, the store's transport. A lane's thread.
 *
 * An entry's parts for this lane must be applied in one turn of the event loop, entries of a shard in the
 * order of their seq: pages are stamped with the seq that is applied when they are encoded.
 */
import assert from 'node:assert/strict';
import type { Clock } from '../src/core/clock.ts';
import { StreamHouseError } from '../src/core/errors.ts';
import { partitionKey, shardOf } from '../src/core/ids.ts';
import type { ShardLayout } from '../src/core/shard-layout.ts';
import { BlockLedger } from './block-ledger.ts';
import { type IndexCounters, NO_COUNTERS } from './index-counters.ts';
import { replaceRefs } from './merge-replace.ts';
import { PageBlock } from './page-block.ts';
import { foldAppend, foldLogStart, type PartitionFold } from './page-fold.ts';
import { setOverlays } from './page-join.ts';
import { failShard, PageLoader } from './page-loader.ts';
import { type PageOutResult, pageOutShard } from './page-out.ts';
import type { FindPages, PutPages } from './page-store.ts';
import { type Block, PartitionIndex, ShardIndex } from './partition-index.ts';
import { REF_LENGTH, REF_NUMBERS, type SegmentRef, type SegmentRefList } from './segment-ref.ts';
import { TimeSearch } from './time-search.ts';

/** Refs of one look-up; the next fetch goes on behind them. */
export const LOCATE_REFS_MAX = 1024;

export interface SegmentIndexOptions {
  /** The cluster's. */
  layout: ShardLayout;
  /** For the blocks in memory of this lane; see `budgetBytes`. */
  budgetBytes: number;
  findPages: FindPages;
  clock: Clock;
  counters?: IndexCounters;
  /** Called once when dirty blocks take more than half of the budget, and again only after they took less. */
  onPressure?: () => void;
}

export interface PartitionBounds {
  logStart: number;
  nextOffset: number;
}

export class SegmentIndex {
  readonly #layout: ShardLayout;
  readonly #clock: Clock;
  readonly #counters: IndexCounters;
  readonly #ledger: BlockLedger;
  readonly #loader: PageLoader;
  /** By shard; undefined where not open. */
  readonly #shards: (ShardIndex | undefined)[];

  constructor(options: SegmentIndexOptions) {
    this.#layout = options.layout;
    this.#clock = options.clock;
    this.#counters = options.counters ?? NO_COUNTERS;
    this.#ledger = new BlockLedger(
      options.budgetBytes,
      this.#counters,
      options.onPressure ?? (() => undefined),
    );
    this.#loader = new PageLoader(options.findPages, this.#ledger, this.#counters);
    this.#shards = new Array<ShardIndex | undefined>(options.layout.shardCount).fill(undefined);
  }

  // -- What it weighs ------------------------------------------------------------------------------------

  /** Bytes of the blocks in memory (the fold of a partition, some 200 bytes each, is not in it: it always stays). */
  get bytes(): number {
    return this.#ledger.bytes;
  }

  /** Those that cannot be evicted before they are paged out. */
  get dirtyBytes(): number {
    return this.#ledger.dirtyBytes;
  }

  get budgetBytes(): number {
    return this.#ledger.budgetBytes;
  }

  /** Takes effect at once. */
  set budgetBytes(bytes: number) {
    this.#ledger.budgetBytes = bytes;
  }

  // -- Shards --------------------------------------------------------------------------------------------

  isOpen(shard: number): boolean {
    return this.#shards[shard] !== undefined;
  }

  /**
   * Begins to hold a shard at `pointerSeq`: `folds` are this lane's partitions as of the checkpoint there, whose
   * refs so far lie in store pages (nothing for a shard without checkpoint, pointerSeq 0). The log's tail is
   * then applied by the methods below, closed by `advance` to the head, before anything is looked up. `deletedTopics`:
   * those whose deletion the checkpoint remembers, oldest first.
   */
  openShard(
    shard: number,
    folds: Iterable<PartitionFold>,
    pointerSeq: number,
    deletedTopics: Iterable<number> = [],
  ): void {
    assert(this.#shards[shard] === undefined, `shard ${shard} is open already`);
    const state = new ShardIndex(shard, pointerSeq);
    for (const fold of folds) {
      const { topicId, partition } = fold;
      assert(shardOf(topicId, partition, this.#layout) === shard, `${topicId}/${partition} not of ${shard}`);
      const owner = new PartitionIndex(state, topicId, partition);
      owner.logStart = fold.logStart;
      owner.nextOffset = fold.nextOffset;
      owner.pageBase = fold.pageBase;
      owner.pageRefs = fold.pageRefs;
      owner.maxTimestampMs = fold.maxTimestampMs;
      state.partitions.set(partitionKey(topicId, partition), owner);
    }
    for (const topicId of deletedTopics) state.noteDeleted(topicId);
    this.#shards[shard] = state;
  }

  /** Forgets a shard; what waits for its pages or its page-out fails with 'not-leader'. Nothing if not open. */
  closeShard(shard: number): void {
    const state = this.#shards[shard];
    if (state === undefined) return;
    this.#shards[shard] = undefined;
    state.isOpen = false;
    failShard(this.#loader, state, notHeld(shard));
    for (const owner of state.partitions.values()) this.#dropAll(owner);
    state.partitions.clear();
  }

  /**
   * The log of a shard is applied through `seq` as far as it concerns this lane: for entries that bring this lane
   * nothing, and at the end of a replay.
   */
  advance(shard: number, seq: number): void {
    this.#step(shard, seq);
  }

  /** The seq through which a shard's log is applied here; undefined where not open. */
  appliedSeq(shard: number): number | undefined {
    return this.#shards[shard]?.seq;
  }

  // -- Committed entries ---------------------------------------------------------------------------------

  /** A committed slice. Its base offset is the partition's next: anything else is a bug of ours and throws. */
  append(
    shard: number,
    seq: number,
    topicId: number,
    partition: number,
    baseOffset: number,
    recordCount: number,
    incarnation: number,
    number: number,
    position: number,
    length: number,
    maxTimestampMs: number,
  ): void {
    const state = this.#step(shard, seq);
    const owner = this.#ownerFor(state, topicId, partition);
    if (baseOffset !== owner.nextOffset || recordCount < 1) {
      assert.fail(
        `slice of ${recordCount} at ${baseOffset} of ${topicId}/${partition}, next is ${owner.nextOffset}`,
      );
    }
    if (foldAppend(owner, recordCount, maxTimestampMs)) owner.closeOpen();
    let block = owner.open;
    const isNew = block === null;
    if (block === null)
      block = owner.open = new PageBlock(owner, owner.pageBase, baseOffset, baseOffset, [], 0);
    const grownBytes = block.push(
      owner.nextOffset,
      incarnation,
      number,
      position,
      length,
      owner.maxTimestampMs,
    );
    if (isNew) this.#ledger.addDirty(block);
    else this.#ledger.changed(block, grownBytes);
  }

  /** A committed log start: records below are gone. Never goes back. */
  setLogStart(shard: number, seq: number, topicId: number, partition: number, logStart: number): void {
    const state = this.#step(shard, seq);
    const owner = state.partitions.get(partitionKey(topicId, partition));
    if (owner === undefined || !foldLogStart(owner, logStart)) return;
    for (;;) {
      const base = owner.closed?.minKey();
      const first = base === undefined ? undefined : owner.closed?.get(base);
      if (first === undefined || first.next > owner.logStart) break;
      this.#ledger.drop(first);
    }
  }

  /** A committed deletion: all of the topic's partitions of this shard are forgotten, look-ups that wait fail. */
  removeTopic(shard: number, seq: number, topicId: number): void {
    const state = this.#step(shard, seq);
    state.noteDeleted(topicId);
    for (const [key, owner] of state.partitions) {
      if (owner.topicId !== topicId) continue;
      state.partitions.delete(key);
      this.#loader.fail(owner, new StreamHouseError('topic-not-found', `topic ${topicId} was deleted`));
      this.#dropAll(owner);
    }
  }

  /**
   * A committed merge: these contiguous refs stand for those that covered the same offsets. None crosses a page
   * base; their maxTimestampSoFarMs is that of the last ref that each stands for.
   */
  replace(shard: number, seq: number, topicId: number, partition: number, refs: readonly SegmentRef[]): void {
    const state = this.#step(shard, seq);
    const owner = state.partitions.get(partitionKey(topicId, partition));
    assert(owner !== undefined, `merge in ${topicId}/${partition}, which shard ${shard} does not have`);
    replaceRefs(owner, seq, refs, this.#ledger);
  }

  // -- Look-ups ------------------------------------------------------------------------------------------

  /**
   * Whether the log of the partition's shard knows that its topic was deleted: then the partition only looks like an
   * empty one. False where the shard is not open.
   */
  isDeleted(topicId: number, partition: number): boolean {
    const state = this.#shards[shardOf(topicId, partition, this.#layout)];
    return state?.deletedTopics.has(topicId) ?? false;
  }

  /**
   * The offsets a partition has, [logStart, nextOffset): 0 and 0 for one that nothing was appended to (whether it
   * exists is the catalogue's to say); undefined if its shard is not open here.
   */
  bounds(topicId: number, partition: number): PartitionBounds | undefined {
    const state = this.#shards[shardOf(topicId, partition, this.#layout)];
    if (state === undefined) return undefined;
    const owner = state.partitions.get(partitionKey(topicId, partition));
    if (owner === undefined) return { logStart: 0, nextOffset: 0 };
    return { logStart: owner.logStart, nextOffset: owner.nextOffset };
  }

  /**
   * Puts into `out` the refs from the one that contains `offset` on, contiguous, as many as do not go beyond
   * `bytesMax` and LOCATE_REFS_MAX, but at least one (fewer than could be had where the following page is not in
   * memory). None for an offset at the partition's end.
   * Returns undefined when it is done, which is at once if the page is in memory; else a promise for that, and
   * `out` must be left alone until then.
   * Throws, or rejects with: 'offset-out-of-range' (detail: logStart, nextOffset), 'not-leader', 'corrupt-page',
   * 'overloaded', 'topic-not-found' (deleted while it waited), and what findPages fails with.
   */
  locate(
    topicId: number,
    partition: number,
    offset: number,
    bytesMax: number,
    out: SegmentRefList,
  ): Promise<void> | undefined {
    out.clear();
    this.#counters.add('lookups', 1);
    const owner = this.#ownerOf(topicId, partition, offset);
    if (owner === undefined || offset === owner.nextOffset) {
      this.#counters.add('hits', 1);
      return undefined;
    }
    const block = owner.blockAt(offset);
    if (block === null || offset < block.from) {
      this.#counters.add('misses', 1);
      return this.#locateSlow(owner, offset, bytesMax, out);
    }
    this.#counters.add('hits', 1);
    this.#collect(block, offset, bytesMax, out);
    return undefined;
  }

  async #locateSlow(
    owner: PartitionIndex,
    offset: number,
    bytesMax: number,
    out: SegmentRefList,
  ): Promise<void> {
    const loaded = await this.#load(owner, offset);
    this.#checkHeld(owner);
    checkRange(owner, offset);
    // A page that was loaded always covers the offset it was loaded for, unless the log start passed it.
    assert(loaded !== null, `offset ${offset} of ${owner.topicId}/${owner.partition} was not loaded`);
    this.#collect(loaded, offset, bytesMax, out);
  }

  /**
   * The first ref that may hold a record of timestampMs or later (the first whose running maximum is there), of
   * those above the log start; null if all records are older. Errors as `locate`.
   */
  findByTimestamp(
    topicId: number,
    partition: number,
    timestampMs: number,
  ): SegmentRef | null | Promise<SegmentRef | null> {
    this.#counters.add('lookups', 1);
    const owner = this.#ownerOf(topicId, partition, undefined);
    if (owner === undefined || timestampMs > owner.maxTimestampMs) {
      this.#counters.add('hits', 1);
      return null;
    }
    const search = new TimeSearch(owner, timestampMs);
    const missing = search.run(null);
    this.#counters.add(missing < 0 ? 'hits' : 'misses', 1);
    return missing < 0 ? search.found : this.#findSlow(search, missing);
  }

  async #findSlow(search: TimeSearch, firstMissing: number): Promise<SegmentRef | null> {
    for (let missing = firstMissing; missing >= 0; ) {
      const loaded = await this.#load(search.owner, missing);
      this.#checkHeld(search.owner);
      missing = search.run(loaded);
    }
    return search.found;
  }

  /**
   * The base of the page that covers `offset` (logStart <= offset < nextOffset, else out of range), for who
   * deletes pages below the log start: those below this base, given the log start, hold nothing of use.
   */
  async pageBaseOf(topicId: number, partition: number, offset: number): Promise<number> {
    const owner = this.#ownerOf(topicId, partition, offset);
    if (owner === undefined || offset >= owner.pageBase) return owner?.pageBase ?? 0;
    const block = owner.blockAt(offset) ?? (await this.#load(owner, offset));
    this.#checkHeld(owner);
    checkRange(owner, offset);
    assert(block !== null, `offset ${offset} of ${topicId}/${partition} was not loaded`);
    return block.base;
  }

  // -- Pages ---------------------------------------------------------------------------------------------

  /**
   * Writes out every page of a shard that is dirty when its turn comes (page-outs of one shard follow one
   * another) and resolves when all are confirmed. Appends go on meanwhile. If a put or a read fails it rejects
   * with that error, what was not confirmed stays dirty, and it may be called again. 'not-leader' if the shard is
   * not open or is closed meanwhile.
   */
  pageOut(shard: number, putPages: PutPages): Promise<PageOutResult> {
    const state = this.#shards[shard];
    if (state === undefined) return Promise.reject(notHeld(shard));
    const run = () =>
      pageOutShard(state, putPages, {
        loader: this.#loader,
        ledger: this.#ledger,
        counters: this.#counters,
        clock: this.#clock,
      });
    const result = state.pageOut.then(run, run);
    state.pageOut = result.catch(() => undefined);
    return result;
  }

  // -- Inside --------------------------------------------------------------------------------------------

  #step(shard: number, seq: number): ShardIndex {
    const state = this.#shards[shard];
    if (state === undefined) assert.fail(`an entry of shard ${shard}, which is not open`);
    if (seq < state.seq) assert.fail(`entry ${seq} of shard ${shard} after entry ${state.seq}`);
    state.seq = seq;
    return state;
  }

  #ownerFor(state: ShardIndex, topicId: number, partition: number): PartitionIndex {
    const key = partitionKey(topicId, partition);
    let owner = state.partitions.get(key);
    if (owner === undefined) {
      assert(shardOf(topicId, partition, this.#layout) === state.shard, `${topicId}/${partition} elsewhere`);
      owner = new PartitionIndex(state, topicId, partition);
      state.partitions.set(key, owner);
    }
    return owner;
  }

  /** For look-ups: undefined for a partition without records; the offset, if any, is in range. */
  #ownerOf(topicId: number, partition: number, offset: number | undefined): PartitionIndex | undefined {
    const shard = shardOf(topicId, partition, this.#layout);
    const state = this.#shards[shard];
    if (state === undefined) throw notHeld(shard);
    const owner = state.partitions.get(partitionKey(topicId, partition));
    if (offset !== undefined) checkRange(owner ?? EMPTY_BOUNDS, offset);
    return owner;
  }

  #checkHeld(owner: PartitionIndex): void {
    if (!owner.shard.isOpen) throw notHeld(owner.shard.shard);
    if (owner.isRemoved) throw new StreamHouseError('topic-not-found', `topic ${owner.topicId} was deleted`);
  }

  /** Loads the page that covers an offset: joins a read nearby once, for that may be the page, then its own. */
  async #load(owner: PartitionIndex, offset: number): Promise<Block | null> {
    if (owner.loads !== null) {
      try {
        const nearby = await this.#loader.load(owner, offset, true);
        if (nearby !== null && offset >= nearby.from && offset < nearby.next) return nearby;
      } catch (error) {
        const isOfThatPage = error instanceof StreamHouseError && error.kind === 'corrupt';
        if (!isOfThatPage) throw error;
      }
      this.#checkHeld(owner);
      const block = offset < owner.nextOffset ? owner.blockAt(offset) : null;
      if (block !== null && offset >= block.from) return block;
    }
    return this.#loader.load(owner, offset, false);
  }

  #collect(first: Block, offset: number, bytesMax: number, out: SegmentRefList): void {
    const owner = first.owner;
    let block: Block | null = first;
    let index = block.indexOf(offset);
    while (block !== null) {
      this.#ledger.touch(block);
      const { refs, refCount } = block;
      for (; index < refCount; index++) {
        const isEnough =
          out.count === LOCATE_REFS_MAX || out.bytes + refs[index * REF_NUMBERS + REF_LENGTH] > bytesMax;
        if (isEnough && out.count > 0) return;
        out.add(refs, index, block.nextOffsetOf(index));
      }
      const next: number = block.next;
      if (next >= owner.nextOffset) return;
      const following: Block | null = owner.blockAt(next);
      block = following?.isComplete ? following : null;
      index = 0;
    }
  }

  #dropAll(owner: PartitionIndex): void {
    if (owner.overlays !== null) setOverlays(owner, null, this.#ledger);
    if (owner.closed === null) {
      if (owner.open !== null) this.#ledger.drop(owner.open);
    } else {
      for (const block of owner.blocks()) this.#ledger.drop(block);
    }
  }
}

const EMPTY_BOUNDS: PartitionBounds = { logStart: 0, nextOffset: 0 };

function checkRange(bounds: PartitionBounds, offset: number): void {
  const { logStart, nextOffset } = bounds;
  if (offset >= logStart && offset <= nextOffset) return;
  throw new StreamHouseError(
    'offset-out-of-range',
    `offset ${offset} is not in [${logStart}, ${nextOffset}]`,
    {
      logStart,
      nextOffset,
    },
  );
}

function notHeld(shard: number): StreamHouseError {
  return new StreamHouseError('not-leader', `shard ${shard} is not held here`);
}
