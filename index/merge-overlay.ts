/**
 * Merges of refs that are not in memory: they wait here until their page is. Owns: a waiting merge, and what it
 * does to a page's refs. Does not own: when pages are loaded (page-loader.ts, page-out.ts). Pure; a lane's
 * thread.
 */
import { StreamHouseError } from '../src/core/errors.ts';
import { blankRefs, packRef, REF_NUMBERS, type SegmentRef, searchRefs } from './segment-ref.ts';

/** By entry `seq`, these contiguous refs stand where others stood that covered exactly the same offsets. */
export interface MergeOverlay {
  seq: number;
  refs: SegmentRef[];
}

/** Packed refs and where they end. */
export interface PackedRefs {
  refs: number[];
  refCount: number;
  nextOffset: number;
}

/** What a waiting ref weighs in memory, about. */
export const OVERLAY_REF_BYTES = 128;

/**
 * Splits waiting merges: the refs that begin in [base, next) and those that do not. No ref crosses either
 * bound.
 */
export function splitOverlays(
  overlays: readonly MergeOverlay[],
  base: number,
  next: number,
): { inside: MergeOverlay[]; outside: MergeOverlay[] } {
  const inside: MergeOverlay[] = [];
  const outside: MergeOverlay[] = [];
  for (const { seq, refs } of overlays) {
    const below = refs.filter((ref) => ref.baseOffset < base);
    const within = refs.filter((ref) => ref.baseOffset >= base && ref.baseOffset < next);
    const above = refs.filter((ref) => ref.baseOffset >= next);
    if (below.length > 0) outside.push({ seq, refs: below });
    if (within.length > 0) inside.push({ seq, refs: within });
    if (above.length > 0) outside.push({ seq, refs: above });
  }
  return { inside, outside };
}

/**
 * The refs with `merged` in place of those that cover the same offsets; at the end the merged refs may reach
 * beyond what is there. 'corrupt-page' if their bounds are not bounds of refs.
 */
export function applyMerge(page: PackedRefs, merged: readonly SegmentRef[]): PackedRefs {
  const base = merged[0].baseOffset;
  const next = merged[merged.length - 1].nextOffset;
  const first = boundaryIndex(page, base);
  const after = next >= page.nextOffset ? page.refCount : boundaryIndex(page, next);
  const refCount = first + merged.length + (page.refCount - after);
  const refs = blankRefs(refCount);
  for (let i = 0; i < first * REF_NUMBERS; i++) refs[i] = page.refs[i];
  for (let i = 0; i < merged.length; i++) packRef(refs, first + i, merged[i]);
  let to = (first + merged.length) * REF_NUMBERS;
  for (let i = after * REF_NUMBERS; i < page.refCount * REF_NUMBERS; i++) refs[to++] = page.refs[i];
  return { refs, refCount, nextOffset: Math.max(page.nextOffset, next) };
}

/** The index of the ref that begins at `offset`; the count of refs if they end there. */
function boundaryIndex(page: PackedRefs, offset: number): number {
  if (offset === page.nextOffset) return page.refCount;
  if (offset < page.nextOffset && page.refCount > 0) {
    const index = searchRefs(page.refs, page.refCount, offset);
    if (page.refs[index * REF_NUMBERS] === offset) return index;
  }
  throw new StreamHouseError(
    'corrupt-page',
    `no ref of the page begins at offset ${offset}, where a merge does`,
  );
}
