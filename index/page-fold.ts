/**
 * The small state of a partition that the log decides, and its steps. Owns: where a page begins, the running
 * maximum timestamp, the log start. The shard's state (workers/) and the index of a lane take the same steps,
 * so that they cannot disagree, and a checkpoint carries this state as it is. Frozen: stored pages depend on
 * it. Does not own: the refs themselves. Pure (steps change the state they are given); any thread.
 *
 * A page begins with its base offset and takes PAGE_REFS_MAX appended refs; the append after those begins the
 * next page. Only appended refs are counted, so that merging inside a page moves no page's base, and nothing
 * that happens at a moment of somebody's choosing (writing pages out, a restart) has a say.
 */
import type { PartitionId } from '../src/core/ids.ts';

/**
 * Appended refs of one page. 256 packed refs are some 4 KB in the store and 12 KB in memory: few enough to be
 * rewritten whole while the page is open, enough to make a million refs 4,000 pages.
 */
export const PAGE_REFS_MAX = 256;

/** The maximum timestamp of a partition without records; also Kafka's word for "no timestamp". */
export const NO_TIMESTAMP_MS = -1;

/** Invariants: logStart <= nextOffset, pageBase <= nextOffset, pageRefs <= PAGE_REFS_MAX, 0 only while empty. */
export interface PartitionFold extends PartitionId {
  /** Records below are gone for good. */
  logStart: number;
  /** The offset that the next record gets. */
  nextOffset: number;
  /** The base offset of the last page. */
  pageBase: number;
  /** Refs appended since pageBase. */
  pageRefs: number;
  /** The greatest record timestamp so far; NO_TIMESTAMP_MS before the first. Never falls, not by retention either. */
  maxTimestampMs: number;
}

/** A partition that nothing was ever appended to. */
export function emptyFold(topicId: number, partition: number): PartitionFold {
  return {
    topicId,
    partition,
    logStart: 0,
    nextOffset: 0,
    pageBase: 0,
    pageRefs: 0,
    maxTimestampMs: NO_TIMESTAMP_MS,
  };
}

/**
 * One slice of `recordCount` (>= 1) records is appended at nextOffset. True if it began a new page (the first of
 * all does not: page 0 is there from the beginning).
 */
export function foldAppend(fold: PartitionFold, recordCount: number, maxTimestampMs: number): boolean {
  const beginsPage = fold.pageRefs === PAGE_REFS_MAX;
  if (beginsPage) {
    fold.pageBase = fold.nextOffset;
    fold.pageRefs = 0;
  }
  fold.pageRefs++;
  fold.nextOffset += recordCount;
  if (maxTimestampMs > fold.maxTimestampMs) fold.maxTimestampMs = maxTimestampMs;
  return beginsPage;
}

/** The log start moves to `logStart`; it never goes back and never beyond the end. True if it moved. */
export function foldLogStart(fold: PartitionFold, logStart: number): boolean {
  const to = Math.min(logStart, fold.nextOffset);
  if (to <= fold.logStart) return false;
  fold.logStart = to;
  return true;
}
