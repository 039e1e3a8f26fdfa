/**
 * What a metadata store's database counts of itself (pg_stat_database, pg_stat_statements): statements as the server
 * saw them, whoever sent them. Owns: the interface. Does not own any database's client (storage/metadata). Without one
 * a report has what the broker counted at its driver.
 */
export interface DatabaseCount {
  /** Where the numbers come from, for the report. */
  readonly source: string;
  /** Statements since some moment; rises only. */
  statements(): Promise<number>;
}
