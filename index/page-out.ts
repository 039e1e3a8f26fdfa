/**
 * Writes out a shard's dirty pages. Owns: the order (merges that wait get their pages, incomplete pages get
 * their stored part, then all is encoded and put in bounded batches, the thread left free between them) and
 * what a confirmed or failed put means for a block. Does not own: when it happens. A lane's thread.
 *
 * A page is stamped with the seq applied at the moment that it is encoded: it holds just what committed entries
 * through that seq have put there. A page that changes while it is on its way stays dirty.
 */
import { type Clock, sleep } from '../src/core/clock.ts';
import { StreamHouseError } from '../src/core/errors.ts';
import type { BlockLedger } from './block-ledger.ts';
import type { IndexCounters } from './index-counters.ts';
import { DIRTY, WRITING } from './page-block.ts';
import { encodePage } from './page-codec.ts';
import { setOverlays } from './page-join.ts';
import type { PageLoader } from './page-loader.ts';
import type { PutPages, StoredPage } from './page-store.ts';
import type { Block, PartitionIndex, ShardIndex } from './partition-index.ts';

/** Pages of one put; also how many stored parts are read at a time. */
export const PAGE_OUT_PAGES_MAX = 256;

/** Bytes of one put, about 64 full pages: what a thread encodes in 2 ms or so before it looks up. */
export const PAGE_OUT_BYTES_MAX = 256 * 1024;

export interface PageOutResult {
  pages: number;
  bytes: number;
  /** All that entries through this seq put into pages is in the store. */
  throughSeq: number;
}

export interface PageOutParts {
  loader: PageLoader;
  ledger: BlockLedger;
  counters: IndexCounters;
  clock: Clock;
}

/**
 * Resolves when every page that is dirty now was confirmed; 'not-leader' if the shard is closed meanwhile. A page
 * whose stored part is damaged or cannot be read keeps none of the others from being written: it stays dirty, and
 * the first such error rejects at the end.
 */
export async function pageOutShard(
  state: ShardIndex,
  putPages: PutPages,
  parts: PageOutParts,
): Promise<PageOutResult> {
  checkOpen(state);
  const result = { pages: 0, bytes: 0, throughSeq: state.seq };
  await applyWaitingMerges(state, result.throughSeq, parts);
  const blocks = state.dirty.toArray();
  let failure: unknown = null;
  for (let at = 0; at < blocks.length; at += PAGE_OUT_PAGES_MAX) {
    const some = blocks.slice(at, at + PAGE_OUT_PAGES_MAX);
    const unread = await completeBlocks(some, parts.loader);
    failure ??= unread;
    const whole = some.filter((block) => block.isComplete || block.state !== DIRTY);
    for (let done = 0; done < whole.length; ) {
      if (at + done > 0) await sleep(parts.clock, 0);
      checkOpen(state);
      done += await putSome(whole.slice(done), putPages, parts, result);
    }
  }
  checkOpen(state);
  if (failure !== null) throw failure;
  return result;
}

function checkOpen(state: ShardIndex): void {
  if (!state.isOpen) throw new StreamHouseError('not-leader', `shard ${state.shard} is no longer held here`);
}

/** Loads the pages of merges through `throughSeq` that wait for theirs, which makes these pages dirty. */
async function applyWaitingMerges(state: ShardIndex, throughSeq: number, parts: PageOutParts): Promise<void> {
  const owners = [...state.overlaid];
  for (let at = 0; at < owners.length; at += PAGE_OUT_PAGES_MAX) {
    const some = owners.slice(at, at + PAGE_OUT_PAGES_MAX);
    await Promise.all(some.map((owner) => applyMergesOf(owner, throughSeq, parts)));
    checkOpen(state);
  }
}

async function applyMergesOf(owner: PartitionIndex, throughSeq: number, parts: PageOutParts): Promise<void> {
  for (;;) {
    const waiting = owner.overlays?.find(({ seq }) => seq <= throughSeq);
    if (waiting === undefined || !owner.shard.isOpen) return;
    const offset = waiting.refs[0].baseOffset;
    if (offset >= owner.logStart) await loadForWriting(owner, offset, parts.loader);
    else await dropDeadMerges(owner, parts);
  }
}

/**
 * The page of the log start takes its merges as any other, also those of refs below the log start; pages below
 * it may be gone, and merges in them wait for nothing.
 */
async function dropDeadMerges(owner: PartitionIndex, parts: PageOutParts): Promise<void> {
  const offset = Math.min(owner.logStart, owner.nextOffset - 1);
  const block = await loadForWriting(owner, offset, parts.loader);
  if (block === null || owner.overlays === null) return;
  const kept = owner.overlays.map(({ seq, refs }) => ({
    seq,
    refs: refs.filter((ref) => ref.baseOffset >= block.base),
  }));
  setOverlays(
    owner,
    kept.filter(({ refs }) => refs.length > 0),
    parts.ledger,
  );
}

/** Loads the stored parts of those blocks that are incomplete; the first error if any failed, else null. */
async function completeBlocks(blocks: readonly Block[], loader: PageLoader): Promise<unknown> {
  const incomplete = blocks.filter((block) => block.state === DIRTY && !block.isComplete);
  const loads = await Promise.allSettled(
    incomplete.map((block) => loadForWriting(block.owner, block.base, loader)),
  );
  return loads.find((load) => load.status === 'rejected')?.reason ?? null;
}

/** Partitions of deleted topics need no pages: a load that fails for that reason is none of ours. */
async function loadForWriting(
  owner: PartitionIndex,
  offset: number,
  loader: PageLoader,
): Promise<Block | null> {
  const present = owner.blockAt(offset);
  if (present?.isComplete) return present;
  try {
    return await loader.load(owner, offset, false);
  } catch (error) {
    if (!owner.isRemoved) throw error;
    return null;
  }
}

/** Encodes and puts as many of the blocks as one put takes; returns how many it has dealt with. */
async function putSome(
  blocks: readonly Block[],
  putPages: PutPages,
  parts: PageOutParts,
  result: PageOutResult,
): Promise<number> {
  const writing: Block[] = [];
  const pages: StoredPage[] = [];
  let bytes = 0;
  let done = 0;
  try {
    for (; done < blocks.length && bytes < PAGE_OUT_BYTES_MAX; done++) {
      const block = blocks[done];
      if (block.state !== DIRTY) continue;
      const page = pageOf(block);
      block.state = WRITING;
      writing.push(block);
      pages.push(page);
      bytes += page.bytes.length;
    }
    if (pages.length === 0) return done;
    await putPages(pages);
  } catch (error) {
    for (const block of writing) if (block.state === WRITING) block.state = DIRTY;
    throw error;
  }
  for (let i = 0; i < writing.length; i++) {
    const block = writing[i];
    parts.loader.pageWritten(block.owner, block.base, block.next);
    parts.ledger.written(block);
  }
  parts.counters.add('pagedOut', pages.length);
  result.pages += pages.length;
  result.bytes += bytes;
  return done;
}

function pageOf(block: Block): StoredPage {
  const { owner, base, next, refs, refCount } = block;
  const { topicId, partition, shard } = owner;
  if (!block.isComplete || refCount === 0) {
    throw new StreamHouseError('corrupt-page', `the stored part of page ${base} cannot be had`, {
      topicId,
      partition,
    });
  }
  const stamp = shard.seq;
  const bytes = encodePage({ topicId, partition, stamp, baseOffset: base, nextOffset: next, refCount, refs });
  return { shard: shard.shard, topicId, partition, baseOffset: base, stamp, bytes };
}
