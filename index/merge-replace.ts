/**
 * Puts a committed merge into a partition's index. Owns: which of the merged refs go straight into blocks in
 * memory and which wait for their page. Does not own: what becomes of those that wait (page-join.ts). Changes
 * the partition it is given; a lane's thread.
 */
import assert from 'node:assert/strict';
import type { BlockLedger } from './block-ledger.ts';
import { applyMerge, type MergeOverlay } from './merge-overlay.ts';
import { setOverlays } from './page-join.ts';
import type { Block, PartitionIndex } from './partition-index.ts';
import { REF_NUMBERS, type SegmentRef } from './segment-ref.ts';

/** Replaces, by entry `seq`, the refs that cover just the offsets of `merged` (contiguous, none across a page base). */
export function replaceRefs(
  owner: PartitionIndex,
  seq: number,
  merged: readonly SegmentRef[],
  ledger: BlockLedger,
): void {
  for (let i = 0; i < merged.length; i++) {
    const { baseOffset, nextOffset } = merged[i];
    const isDense = i === 0 || baseOffset === merged[i - 1].nextOffset;
    assert(isDense && baseOffset < nextOffset && nextOffset <= owner.nextOffset, 'a merge that is not dense');
  }
  const waiting: MergeOverlay[] = [];
  for (let at = 0; at < merged.length; ) {
    const block = owner.blockAt(merged[at].baseOffset);
    const end = endOfRun(owner, merged, at, block);
    const run = merged.slice(at, end);
    const left = block === null ? run : replaceInBlock(block, seq, run, ledger);
    if (left.length > 0) waiting.push({ seq, refs: left });
    at = end;
  }
  if (waiting.length > 0) setOverlays(owner, [...(owner.overlays ?? []), ...waiting], ledger);
}

/** The end of the refs from `at` on that fall to the same block, or to pages that are all not in memory. */
function endOfRun(
  owner: PartitionIndex,
  refs: readonly SegmentRef[],
  at: number,
  block: Block | null,
): number {
  let end = at + 1;
  while (end < refs.length && owner.blockAt(refs[end].baseOffset) === block) end++;
  return end;
}

/** Merges in one block; returns those of the refs that lie in its part that is not in memory. */
function replaceInBlock(
  block: Block,
  seq: number,
  merged: readonly SegmentRef[],
  ledger: BlockLedger,
): SegmentRef[] {
  // The page this block was loaded from may have been newer than the log as applied here: then it has them.
  const refs = seq <= block.stamp ? merged.filter((ref) => ref.baseOffset >= block.storedNext) : merged;
  const stored = refs.filter((ref) => ref.baseOffset < block.from);
  const present = refs.filter((ref) => ref.baseOffset >= block.from);
  const from = stored.length > 0 ? Math.max(block.from, stored[stored.length - 1].nextOffset) : block.from;
  assert(refs.length === 0 || refs[refs.length - 1].nextOffset <= block.next, 'a merge across a page base');
  if (from > block.from) cutFront(block, from, ledger);
  if (present.length > 0) {
    const after = applyMerge({ refs: block.refs, refCount: block.refCount, nextOffset: block.next }, present);
    ledger.changed(block, block.setRefs(after.refs, after.refCount, block.from));
  }
  return stored;
}

/** Forgets the refs below `from`: a merged ref that begins in the stored part has taken their place. */
function cutFront(block: Block, from: number, ledger: BlockLedger): void {
  const index = from === block.next ? block.refCount : block.indexOf(from);
  assert(
    index === block.refCount || block.refs[index * REF_NUMBERS] === from,
    'a merge that ends inside a ref',
  );
  const refs = block.refs.slice(index * REF_NUMBERS, block.refCount * REF_NUMBERS);
  ledger.changed(block, block.setRefs(refs, block.refCount - index, from));
}
