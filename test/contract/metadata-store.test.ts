/**
 * Runs the metadata store's contract suite on every backend, straight, through a port, and behind the cache. PostgreSQL
 * behind a real PgBouncer is one more row when STREAMHOUSE_TEST_PGBOUNCER=1 is set, and then that must start.
 * CockroachDB's code runs on PostgreSQL, in SERIALIZABLE; with COCKROACH_URL=cockroachdb://... on that cluster.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { systemClock } from '../../src/core/clock.ts';
import { seededRandom, systemRandom } from '../../src/core/random.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import { CachedMetadataStore } from '../../storage/metadata/cached-metadata-store.ts';
import { cockroachBackend } from '../../storage/metadata/cockroach/cockroach-backend.ts';
import { dynamodbBackend } from '../../storage/metadata/dynamodb/dynamodb-backend.ts';
import { InstrumentedMetadataStore } from '../../storage/metadata/instrumented-metadata-store.ts';
import { MemoryMetadataState } from '../../storage/metadata/memory/memory-metadata-state.ts';
import { MemoryMetadataStore } from '../../storage/metadata/memory/memory-metadata-store.ts';
import type { MetadataBackend } from '../../storage/metadata/metadata-backend.ts';
import type { MetadataScheme } from '../../storage/metadata/metadata-backends.ts';
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { attachMetadata, openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { postgresBackend } from '../../storage/metadata/postgres/postgres-backend.ts';
import { openSqliteConnection } from '../../storage/metadata/sqlite/sqlite-connection.ts';
import { SqliteMetadataStore } from '../../storage/metadata/sqlite/sqlite-metadata-store.ts';
import { StoreCounters } from '../../storage/metadata/store-counters.ts';
import { cockroachCluster, cockroachStoreUrl, onPostgres } from '../support/cockroach-store.ts';
import { newDynamodbTarget } from '../support/dynamodb-target.ts';
import { startPostgresWireProxy } from '../support/postgres-wire-proxy.ts';
import { SettlingMetadataStore } from '../support/settling-metadata-store.ts';
import { sharedPgbouncer, sharedPostgres } from '../support/shared-postgres.ts';
import { steadyFaults } from '../support/wire-faults.ts';
import { metadataStoreContract } from './metadata-store.ts';
import { type OpenedForContract, SHARD_COUNT } from './metadata-store-rig.ts';

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
    {
      name: 'postgres, through faults',
      open: async () => openThroughFaults(postgresBackend, (await sharedPostgres()).storeUrl()),
      raceRounds: 100,
      topicCount: 200,
    },
  ],
  cockroachdb: [
    {
      name: cockroachCluster() === null ? 'cockroachdb, on PostgreSQL' : 'cockroachdb',
      open: openCockroachHere,
      raceRounds: 200,
      topicCount: 500,
    },
    {
      name: 'cockroachdb, on PostgreSQL through faults',
      open: async () => openThroughFaults(cockroachBackend, (await onPostgres()).url),
      raceRounds: 100,
      topicCount: 200,
    },
  ],
  dynamodb: [
    { name: 'dynamodb', open: openDynamodbHere, raceRounds: 1000, topicCount: 300 },
    { name: 'dynamodb, on its thread', open: openDynamodbByUrl, raceRounds: 20, topicCount: 100 },
  ],
};

for (const variant of Object.values(VARIANTS).flat()) {
  metadataStoreContract(variant.name, variant);
  metadataStoreContract(`${variant.name}, cached and instrumented`, {
    open: async () => decorated(await variant.open()),
    raceRounds: Math.min(100, variant.raceRounds),
    topicCount: 300,
  });
}

if (process.env.STREAMHOUSE_TEST_PGBOUNCER === '1') {
  metadataStoreContract('postgres behind PgBouncer', {
    open: () => openPostgres({ pgbouncer: 'true' }, sharedPgbouncer),
    raceRounds: 200,
    topicCount: 500,
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
function openPostgresHere(): Promise<OpenedForContract> {
  return openPostgres({});
}

async function openPostgres(
  settings: Record<string, string>,
  bouncer?: () => Promise<{ port: number }>,
): Promise<OpenedForContract> {
  let url = (await sharedPostgres()).storeUrl(settings);
  if (bouncer) url = url.replace(/:\d+\//, `:${(await bouncer()).port}/`);
  return await openTwo(postgresBackend, url);
}

async function openPostgresByUrl(): Promise<OpenedForContract> {
  const url = (await sharedPostgres()).storeUrl();
  const opened = await openMetadata(url, { role: 'broker', migrate: true });
  const rival = attachMetadata(opened.threadHandle().handle);
  return { store: opened.store, rival, close: () => opened.close() };
}

/** On PostgreSQL, or on the cluster of COCKROACH_URL. */
async function openCockroachHere(): Promise<OpenedForContract> {
  const { url, drop } = await cockroachStoreUrl();
  const opened = await openTwo(cockroachBackend, url);
  const close = async () => {
    await opened.close();
    await drop();
  };
  return { ...opened, close };
}

/** Two stores, each with connections of its own, as two brokers have. */
async function openTwo(backend: MetadataBackend, url: string): Promise<OpenedForContract> {
  const parts = { clock: systemClock, random: systemRandom, counters: new StoreCounters() };
  const { store } = await backend.open(url, { ...parts, role: 'broker', migrate: true });
  const { store: rival } = await backend.open(url, { ...parts, role: 'broker', migrate: false });
  const close = async () => {
    await store.close();
    await rival.close();
  };
  return { store, rival, close };
}

/** Two clients with connections of their own, as two brokers have. */
async function openDynamodbHere(): Promise<OpenedForContract> {
  const target = await newDynamodbTarget();
  const open = async () => {
    const parts = { clock: systemClock, random: systemRandom, counters: new StoreCounters() };
    return (await dynamodbBackend.open(target.url, { role: 'broker', migrate: false, ...parts })).store;
  };
  const [store, rival] = [await open(), await open()];
  const close = async () => {
    await store.close();
    await rival.close();
    await target.dispose();
  };
  return { store, rival, close };
}

/** Of statements: three in a hundred collide, three more leave their outcome open. */
const FAULT_RATES = { collided: 0.03, denied: 0.01, lostBefore: 0.01, lostAfter: 0.01 };
const injected = { refuse: 0, deny: 0, 'cut-before': 0, 'cut-after': 0, delay: 0 };
let faultySeed = 0;

/** Behind a proxy that injects faults at a steady rate, and callers that do about them what is to be done. */
async function openThroughFaults(backend: MetadataBackend, direct: string): Promise<OpenedForContract> {
  const target = new URL(direct);
  const proxy = await startPostgresWireProxy({ host: target.hostname, port: Number(target.port) });
  const url = direct.replace(`:${target.port}/`, `:${proxy.port}/`);
  const opened = await openTwo(backend, url);
  proxy.setPlan(steadyFaults(seededRandom(++faultySeed), FAULT_RATES));
  const close = async () => {
    proxy.setPlan(null);
    await opened.close();
    await proxy.close();
    for (const [kind, count] of Object.entries(proxy.injected)) injected[kind as 'deny'] += count;
  };
  const settle = (store: MetadataStore) => new SettlingMetadataStore(store, systemClock, systemRandom);
  return { store: settle(opened.store), rival: settle(opened.rival), close };
}

describe('the faults on the wire', () => {
  it('were injected, each kind often', () => {
    for (const kind of ['refuse', 'deny', 'cut-before', 'cut-after'] as const) {
      assert(injected[kind] >= 40, `${injected[kind]} of '${kind}'`);
    }
  });
});

async function openDynamodbByUrl(): Promise<OpenedForContract> {
  const target = await newDynamodbTarget();
  const opened = await openByUrl(target.url);
  const close = async () => {
    await opened.close();
    await target.dispose();
  };
  return { ...opened, close };
}

function decorated(opened: OpenedForContract): OpenedForContract {
  const ignore = () => undefined;
  const observer = { hit: ignore, miss: ignore, eviction: ignore, staleFill: ignore, drop: ignore };
  const decorate = (store: MetadataStore) =>
    new CachedMetadataStore(new InstrumentedMetadataStore(store, systemClock, ignore), {
      clock: systemClock,
      observer,
      layout: oneGroup(SHARD_COUNT),
    });
  return { store: decorate(opened.store), rival: decorate(opened.rival), close: opened.close };
}
