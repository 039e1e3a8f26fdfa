/**
 * A place for metadata on every backend there is, for tests of the whole broker: real servers, and URLs in them
 * that nobody used yet. Owns: the table by scheme, so that a backend without its place does not compile. Does not
 * own: the servers. CockroachDB's code runs on PostgreSQL unless COCKROACH_URL names a cluster.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type { MetadataScheme } from '../../storage/metadata/metadata-backends.ts';
import { cockroachUrlOn } from './cockroach-on-postgres.ts';
import { type CockroachStoreUrl, cockroachCluster, cockroachStoreUrl } from './cockroach-store.ts';
import { sharedDynalite } from './dynalite-server.ts';
import { deleteTable, freshDynamodbUrl } from './dynamodb-target.ts';
import { startPostgres } from './postgres-server.ts';
import { sharedPostgres } from './shared-postgres.ts';

export interface MetadataPlace {
  /** The URL of a store of its own, with nothing in it. */
  freshUrl(): Promise<string>;
  /** What `serve` needs besides the URL, to create the schema. */
  args: readonly string[];
  /** For the processes that open it. */
  env: Readonly<Record<string, string>>;
  end(): Promise<void>;
}

/** What is in memory is gone with the thread that holds it: no broker can run on it. */
export type PlacedScheme = Exclude<MetadataScheme, 'memory'>;

export const METADATA_PLACES: Record<PlacedScheme, () => Promise<MetadataPlace>> = {
  sqlite: sqlitePlace,
  postgres: async () => sharedServerPlace(async () => (await sharedPostgres()).storeUrl()),
  cockroachdb: cockroachPlace,
  dynamodb: dynamodbPlace,
};

async function sqlitePlace(): Promise<MetadataPlace> {
  const folder = await mkdtemp(join(tmpdir(), 'streamhouse-'));
  let count = 0;
  return {
    freshUrl: async () => `sqlite:${join(folder, `metadata-${++count}.db`)}`,
    args: [],
    env: {},
    end: () => rm(folder, { recursive: true }),
  };
}

/** The server ends with the tests of the process, and all stores with it. */
function sharedServerPlace(freshUrl: () => Promise<string>): MetadataPlace {
  return { freshUrl, args: ['--migrate'], env: {}, end: async () => undefined };
}

/**
 * Places for measurements: servers of PostgreSQL are of their own, with fsync on and pg_stat_statements. CockroachDB's
 * code is on one of them too, unless COCKROACH_URL names a cluster.
 */
export const MEASURED_PLACES: Record<PlacedScheme, () => Promise<MetadataPlace>> = {
  ...METADATA_PLACES,
  postgres: () => durablePostgresPlace((url) => url),
  cockroachdb: () => (cockroachCluster() === null ? durablePostgresPlace(cockroachUrlOn) : cockroachPlace()),
};

async function durablePostgresPlace(urlOf: (postgresUrl: string) => string): Promise<MetadataPlace> {
  const server = await startPostgres({
    isDurable: true,
    flags: ['-c', 'shared_preload_libraries=pg_stat_statements'],
  });
  const client = new pg.Client({ connectionString: server.url });
  try {
    await client.connect();
    await client.query('CREATE EXTENSION pg_stat_statements');
  } finally {
    await client.end();
  }
  const freshUrl = async () => urlOf(server.storeUrl({ durability: 'checked' }));
  return { ...sharedServerPlace(freshUrl), end: () => server.stop() };
}

async function cockroachPlace(): Promise<MetadataPlace> {
  const made: CockroachStoreUrl[] = [];
  return {
    ...sharedServerPlace(async () => {
      const store = await cockroachStoreUrl();
      made.push(store);
      return store.url;
    }),
    async end() {
      for (const store of made) await store.drop();
    },
  };
}

async function dynamodbPlace(): Promise<MetadataPlace> {
  if (process.env.DYNAMODB_URL === undefined) await sharedDynalite();
  const made: string[] = [];
  return {
    async freshUrl() {
      const url = await freshDynamodbUrl();
      made.push(url);
      return url;
    },
    args: ['--migrate'],
    env: {},
    async end() {
      for (const url of made) await deleteTable(url);
    },
  };
}
