/**
 * CockroachDB as a backend: `cockroachdb://USER:PASSWORD@HOST:PORT/DATABASE?NAME=VALUE`. Owns: which of its parts make
 * up a store. Does not own: its URL (pg-wire/pg-url, cockroach-open), the store. The storing thread.
 */
import type { MetadataBackend } from '../metadata-backend.ts';
import { PgDatabaseCounter } from '../pg-wire/pg-database-counter.ts';
import { StoreCounters } from '../store-counters.ts';
import { openCockroachMigrations, openCockroachStore, readCockroachUrl } from './cockroach-open.ts';

export const cockroachBackend: MetadataBackend = {
  ownCount: { unit: 'statements', source: 'the broker, at its driver' },

  async open(url, options) {
    return { store: await openCockroachStore(url, options) };
  },

  openMigrations(url, { readOnly = false, ...parts }) {
    return openCockroachMigrations(url, { ...parts, readOnly, counters: new StoreCounters() });
  },

  databaseCounter(url, options) {
    const { capabilities, url: server } = readCockroachUrl(url);
    // CockroachDB's own counts are kept by each node for itself, and pg_stat_database is empty there.
    return capabilities.profile === 'postgres' ? new PgDatabaseCounter(server, options) : null;
  },
};
