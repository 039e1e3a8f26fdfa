/**
 * CockroachDB as a backend: `cockroachdb://USER:PASSWORD@HOST:PORT/DATABASE?NAME=VALUE`. Owns: which of its parts make
 * up a store. Does not own: its URL (pg-wire/pg-url, cockroach-open), the store. The storing thread.
 */
import type { MetadataBackend } from '../metadata-backend.ts';
import { StoreCounters } from '../store-counters.ts';
import { openCockroachMigrations, openCockroachStore } from './cockroach-open.ts';

export const cockroachBackend: MetadataBackend = {
  async open(url, options) {
    return { store: await openCockroachStore(url, options) };
  },

  openMigrations(url, { readOnly = false, ...parts }) {
    return openCockroachMigrations(url, { ...parts, readOnly, counters: new StoreCounters() });
  },
};
