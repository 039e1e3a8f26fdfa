/**
 * Stores on a PostgreSQL of tests, and a plain client beside them that plays whoever else is in the database. Owns:
 * opening both with everything that the tests of PostgreSQL share. Does not own: the server.
 */
import pg from 'pg';
import { systemClock } from '../../src/core/clock.ts';
import { systemRandom } from '../../src/core/random.ts';
import type { MetadataRole } from '../../storage/metadata/metadata-backend.ts';
import type { LogEntry, MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { postgresBackend } from '../../storage/metadata/postgres/postgres-backend.ts';
import { StoreCounters } from '../../storage/metadata/store-counters.ts';

export interface OpenedPostgres {
  store: MetadataStore;
  counters: StoreCounters;
}

export async function openPostgresStore(
  url: string,
  settings: { role?: MetadataRole; migrate?: boolean } = {},
): Promise<OpenedPostgres> {
  const counters = new StoreCounters();
  const parts = { clock: systemClock, random: systemRandom, counters };
  const { store } = await postgresBackend.open(url, { role: 'broker', migrate: true, ...settings, ...parts });
  return { store, counters };
}

/** A cluster of so many shards, each held by incarnation 1 under epoch 1. */
export async function prepareCluster(store: MetadataStore, shardCount = 8): Promise<void> {
  await store.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount, createdAtMs: 1 });
  const seen = Array.from({ length: shardCount }, (_, shard) => ({ shard, holder: 0, epoch: 0 }));
  await store.acquireLeases(1, seen);
}

export function entryAt(shard: number, seq: number, writer = 'w'): LogEntry {
  const body = new TextEncoder().encode(`${writer} ${shard}/${seq}`);
  return { shard, seq, epoch: 1, commitId: `${writer}-${shard}-${seq}`, body };
}

export async function plainClient(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  // A server that is stopped ends it too.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

export function schemaOf(url: string): string {
  return new URL(url).searchParams.get('schema') as string;
}
