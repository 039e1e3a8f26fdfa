/** Runs the metadata store's contract suite on every backend, straight, through a port, and behind the cache. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/core/clock.ts';
import { systemRandom } from '../../src/core/random.ts';
import { CachedMetadataStore } from '../../storage/metadata/cached-metadata-store.ts';
import { cockroachBackend } from '../../storage/metadata/cockroach/cockroach-backend.ts';
import { InstrumentedMetadataStore } from '../../storage/metadata/instrumented-metadata-store.ts';
import { MemoryMetadataState } from '../../storage/metadata/memory/memory-metadata-state.ts';
import { MemoryMetadataStore } from '../../storage/metadata/memory/memory-metadata-store.ts';
import type { MetadataScheme } from '../../storage/metadata/metadata-backends.ts';
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { attachMetadata, openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { postgresBackend } from '../../storage/metadata/postgres/postgres-backend.ts';
import { openSqliteConnection } from '../../storage/metadata/sqlite/sqlite-connection.ts';
import { SqliteMetadataStore } from '../../storage/metadata/sqlite/sqlite-metadata-store.ts';
import { StoreCounters } from '../../storage/metadata/store-counters.ts';
import { sharedPostgres } from '../support/postgres-server.ts';
import { metadataStoreContract } from './metadata-store.ts';
import type { OpenedForContract } from './metadata-store-rig.ts';

interface Variant {
  name: string;
  open: () => Promise<OpenedForContract>;
  raceRounds: number;
  topicCount: number;
}

/** A scheme without a row here does not compile. */
const VARIANTS: Record<MetadataScheme, readonly Variant[]> = {
  memory: [
    { name: 'memory', open: openMemory, raceRounds: 1000, topicCount: 10_000 },
    {
      name: 'memory, through a port',
      open: () => openByUrl('memory:'),
      raceRounds: 1000,
      topicCount: 10_000,
    },
  ],
  sqlite: [
    { name: 'sqlite', open: openSqliteHere, raceRounds: 1000, topicCount: 2000 },
    { name: 'sqlite, on its thread', open: openSqliteByUrl, raceRounds: 300, topicCount: 2000 },
  ],
  postgres: [
    { name: 'postgres', open: openPostgresHere, raceRounds: 200, topicCount: 500 },
    { name: 'postgres, on its thread', open: openPostgresByUrl, raceRounds: 200, topicCount: 500 },
  ],
  cockroachdb: [{ name: 'cockroachdb', open: openCockroachHere, raceRounds: 200, topicCount: 500 }],
};

for (const variant of Object.values(VARIANTS).flat()) {
  metadataStoreContract(variant.name, variant);
  metadataStoreContract(`${variant.name}, cached and instrumented`, {
    open: async () => decorated(await variant.open()),
    raceRounds: Math.min(100, variant.raceRounds),
    topicCount: 300,
  });
}

async function openMemory(): Promise<OpenedForContract> {
  const state = new MemoryMetadataState();
  const store = new MemoryMetadataStore(state);
  return { store, rival: new MemoryMetadataStore(state), close: () => store.close() };
}

async function openByUrl(url: string): Promise<OpenedForContract> {
  const opened = await openMetadata(url, { role: 'broker' });
  const rival = attachMetadata(opened.threadHandle().handle);
  return { store: opened.store, rival, close: () => opened.close() };
}

async function openSqliteHere(): Promise<OpenedForContract> {
  const folder = await mkdtemp(join(tmpdir(), 'streamhouse-'));
  const path = join(folder, 'metadata.sqlite');
  const store = new SqliteMetadataStore(
    await openSqliteConnection({ path, role: 'broker', clock: systemClock }),
  );
  const close = async () => {
    await store.close();
    await rm(folder, { recursive: true });
  };
  return { store, rival: store, close };
}

async function openSqliteByUrl(): Promise<OpenedForContract> {
  const folder = await mkdtemp(join(tmpdir(), 'streamhouse-'));
  const opened = await openByUrl(`sqlite:${join(folder, 'metadata.sqlite')}`);
  const close = async () => {
    await opened.close();
    await rm(folder, { recursive: true });
  };
  return { ...opened, close };
}

/** Two stores, each with connections of its own, as two brokers have. */
async function openPostgresHere(): Promise<OpenedForContract> {
  const url = (await sharedPostgres()).storeUrl();
  const parts = { clock: systemClock, random: systemRandom, counters: new StoreCounters() };
  const { store } = await postgresBackend.open(url, { ...parts, role: 'broker', migrate: true });
  const { store: rival } = await postgresBackend.open(url, { ...parts, role: 'broker', migrate: false });
  const close = async () => {
    await store.close();
    await rival.close();
  };
  return { store, rival, close };
}

async function openPostgresByUrl(): Promise<OpenedForContract> {
  const url = (await sharedPostgres()).storeUrl();
  const opened = await openMetadata(url, { role: 'broker', migrate: true });
  const rival = attachMetadata(opened.threadHandle().handle);
  return { store: opened.store, rival, close: () => opened.close() };
}

/** CockroachDB's code on a PostgreSQL server, in SERIALIZABLE, as two brokers have it. */
async function openCockroachHere(): Promise<OpenedForContract> {
  const base = new URL((await sharedPostgres()).storeUrl());
  base.searchParams.delete('durability');
  base.searchParams.set('profile', 'postgres');
  const url = base.href.replace(/^postgres:/, 'cockroachdb:');
  const parts = { clock: systemClock, random: systemRandom, counters: new StoreCounters() };
  const { store } = await cockroachBackend.open(url, { ...parts, role: 'broker', migrate: true });
  const { store: rival } = await cockroachBackend.open(url, { ...parts, role: 'broker', migrate: false });
  const close = async () => {
    await store.close();
    await rival.close();
  };
  return { store, rival, close };
}

function decorated(opened: OpenedForContract): OpenedForContract {
  const ignore = () => undefined;
  const observer = { hit: ignore, miss: ignore, eviction: ignore, staleFill: ignore };
  const decorate = (store: MetadataStore) =>
    new CachedMetadataStore(new InstrumentedMetadataStore(store, systemClock, ignore), systemClock, observer);
  return { store: decorate(opened.store), rival: decorate(opened.rival), close: opened.close };
}
