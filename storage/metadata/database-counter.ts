/**
 * What a database itself counts of what it was asked. Owns: the interface. Does not own: any database's way of counting
 * (its backend's folder), nor what a broker counts at its driver (store-counters). For tools; any thread.
 */

/** What was counted, in words for a report. */
export interface StatementCount {
  /** Null: it could not be counted; `source` says why. */
  statements: number | null;
  unit: 'statements' | 'transactions' | 'requests' | 'calls';
  /** Who counted. */
  source: string;
}

/**
 * Counts from `start` to `count` whatever anybody asked of the database that a metadata URL names, other users of it
 * included; what the counter itself asks is taken off.
 */
export interface DatabaseCounter {
  /**
   * Once more: counts from there. What failed is told by `count`: a measurement goes on without it. May take as long
   * as the database's delay.
   */
  start(): Promise<void>;
  count(): Promise<StatementCount>;
  close(): Promise<void>;
}
