/** Runs the metadata store's contract suite on every backend, straight, through a port, and behind the cache. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/core/clock.ts';
import { systemRandom } from '../../src/core/random.ts';
import { CachedMetadataStore } from '../../storage/metadata/cached-metadata-store.ts';
import { dynamodbBackend } from '../../storage/metadata/dynamodb/dynamodb-backend.ts';
import { InstrumentedMetadataStore } from '../../storage/metadata/instrumented-metadata-store.ts';
import { MemoryMetadataState } from '../../storage/metadata/memory/memory-metadata-state.ts';
import { MemoryMetadataStore } from '../../storage/metadata/memory/memory-metadata-store.ts';
import type { MetadataScheme } from '../../storage/metadata/metadata-backends.ts';
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { attachMetadata, openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { openSqliteConnection } from '../../storage/metadata/sqlite/sqlite-connection.ts';
import { SqliteMetadataStore } from '../../storage/metadata/sqlite/sqlite-metadata-store.ts';
import { StoreCounters } from '../../storage/metadata/store-counters.ts';
import { newDynamodbTarget } from '../support/dynamodb-target.ts';
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
  const observer = { hit: ignore, miss: ignore, eviction: ignore, staleFill: ignore };
  const decorate = (store: MetadataStore) =>
    new CachedMetadataStore(new InstrumentedMetadataStore(store, systemClock, ignore), systemClock, observer);
  return { store: decorate(opened.store), rival: decorate(opened.rival), close: opened.close };
}
