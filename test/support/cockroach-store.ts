/**
 * CockroachDB's code for tests: by default on the embedded PostgreSQL with the profile for it, in SERIALIZABLE; with
 * COCKROACH_URL (cockroachdb://...) on the cluster that it names, with the profile of CockroachDB. Every store has a
 * schema of its own; on a cluster it is dropped when the store is closed. Tests only.
 */
import pg from 'pg';
import { cockroachUrlOn } from './cockroach-on-postgres.ts';
import { sharedPostgres } from './shared-postgres.ts';

let storeCount = 0;

/** The cluster that COCKROACH_URL names; null without. */
export function cockroachCluster(): string | null {
  return process.env.COCKROACH_URL || null;
}

export interface CockroachStoreUrl {
  url: string;
  /** Removes what the store left. */
  drop(): Promise<void>;
}

/** A URL of a store of its own: the schema is made by whoever opens it with `migrate`. */
export async function cockroachStoreUrl(settings: Record<string, string> = {}): Promise<CockroachStoreUrl> {
  const cluster = cockroachCluster();
  return cluster === null ? await onPostgres(settings) : onCluster(cluster, settings);
}

/** CockroachDB's code on PostgreSQL, whatever COCKROACH_URL says. */
export async function onPostgres(settings: Record<string, string> = {}): Promise<CockroachStoreUrl> {
  // The server is thrown away with everything in it.
  return { url: cockroachUrlOn((await sharedPostgres()).storeUrl(), settings), drop: async () => undefined };
}

function onCluster(cluster: string, settings: Record<string, string>): CockroachStoreUrl {
  const schema = `streamhouse_test_${process.pid}_${++storeCount}`;
  const given = new URL(cluster);
  for (const [name, value] of Object.entries({ schema, ...settings })) given.searchParams.set(name, value);
  return { url: given.href, drop: () => dropSchema(cluster, given.searchParams.get('schema')!) };
}

async function dropSchema(cluster: string, schema: string): Promise<void> {
  const plain = new URL(cluster.replace(/^cockroachdb:/, 'postgres:'));
  plain.port ||= '26257';
  // Settings of ours mean nothing to the driver; those of TLS do.
  for (const name of [...plain.searchParams.keys()]) {
    if (!/^ssl/.test(name)) plain.searchParams.delete(name);
  }
  const client = new pg.Client({ connectionString: plain.href });
  await client.connect();
  try {
    await client.query(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`);
  } finally {
    await client.end();
  }
}
