/**
 * PostgreSQL as a backend: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?NAME=VALUE`. Owns: which of its parts make up
 * a store. Does not own: its URL (pg-wire/pg-url, postgres-open), the store. The storing thread.
 */

import type { MetadataBackend } from '../metadata-backend.ts';
import { PgDatabaseCounter } from '../pg-wire/pg-database-counter.ts';
import { StoreCounters } from '../store-counters.ts';
import { openPostgresMigrations, openPostgresStore, readPostgresUrl } from './postgres-open.ts';

export const postgresBackend: MetadataBackend = {
  ownCount: { unit: 'statements', source: 'the broker, at its driver' },

  async open(url, options) {
    return { store: await openPostgresStore(url, options) };
  },

  openMigrations(url, { readOnly = false, ...parts }) {
    return openPostgresMigrations(url, { ...parts, readOnly, counters: new StoreCounters() });
  },

  databaseCounter(url, options) {
    const settings = readPostgresUrl(url);
    // Behind a pool its statements would go over several connections, and what it sent could not be taken off.
    return settings.behindPgbouncer ? null : new PgDatabaseCounter(settings.url, options);
  },
};
