/**
 * What an index counts, and to whom it tells. Owns: the kinds. Does not own: where the sums live (workers/ keeps
 * them in shared memory, one slot a thread). A lane's thread.
 */

export const INDEX_COUNTS = [
  /** Look-ups by offset or by time. */
  'lookups',
  /** Look-ups answered from memory. */
  'hits',
  /** Look-ups that needed a page from the store, whether they started its load or joined it. */
  'misses',
  /** Pages read from the store. */
  'pagedIn',
  /** Pages written to the store and confirmed. */
  'pagedOut',
  /** Clean blocks dropped to keep the budget. */
  'evicted',
  /** Waits for a page whose load was under way already. */
  'joined',
  /** Reads during which the page was written anew: nothing was kept of them. */
  'staleReads',
] as const;

export type IndexCount = (typeof INDEX_COUNTS)[number];

export interface IndexCounters {
  add(kind: IndexCount, count: number): void;
}

/** Counts for nobody. */
export const NO_COUNTERS: IndexCounters = { add: () => undefined };
