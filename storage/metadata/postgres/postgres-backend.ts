/**
 * PostgreSQL as a backend: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?NAME=VALUE`. Owns: which of its parts make up
 * a store. Does not own: its URL (pg-wire/pg-url, postgres-open), the store. The storing thread.
 */

import type { MetadataBackend } from '../metadata-backend.ts';
import { StoreCounters } from '../store-counters.ts';
import { openPostgresMigrations, openPostgresStore } from './postgres-open.ts';

export const postgresBackend: MetadataBackend = {
  async open(url, options) {
    return { store: await openPostgresStore(url, options) };
  },

  openMigrations(url, { readOnly = false, ...parts }) {
    return openPostgresMigrations(url, { ...parts, readOnly, counters: new StoreCounters() });
  },
};
