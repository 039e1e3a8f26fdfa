/**
 * Where the tests find a DynamoDB: dynalite in this process, or the one that DYNAMODB_URL names. Owns: a fresh prefix
 * for every store, its schema, and deleting its table after.
 */
import { DeleteTableCommand, DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { applyMigrations } from '../../migrations/apply.ts';
import { systemClock } from '../../src/core/clock.ts';
import { systemRandom } from '../../src/core/random.ts';
import { dynamodbBackend } from '../../storage/metadata/dynamodb/dynamodb-backend.ts';
import { parseDynamodbUrl } from '../../storage/metadata/dynamodb/dynamodb-url.ts';
import { sharedDynalite } from './dynalite-server.ts';

export interface DynamodbTarget {
  readonly url: string;
  /** Deletes the table. */
  dispose(): Promise<void>;
}

/** A migrated store that nobody used. */
export async function newDynamodbTarget(): Promise<DynamodbTarget> {
  const url = await freshDynamodbUrl();
  await migrateDynamodb(url);
  return { url, dispose: () => deleteTable(url) };
}

/** Of a store without a table, where the tests are to find their DynamoDB. */
export async function freshDynamodbUrl(): Promise<string> {
  return freshUrl(process.env.DYNAMODB_URL ?? (await localUrl()));
}

export async function migrateDynamodb(url: string): Promise<void> {
  const parts = { clock: systemClock, random: systemRandom };
  const { target, known, close } = await dynamodbBackend.openMigrations(url, parts);
  try {
    await applyMigrations(target, known);
  } finally {
    await close();
  }
}

async function localUrl(): Promise<string> {
  return `dynamodb://us-east-1/test?endpoint=${encodeURIComponent((await sharedDynalite()).endpoint)}`;
}

/** The same place under a prefix of its own, unprotected: it is deleted soon. */
export function freshUrl(base: string): string {
  const url = new URL(base);
  url.pathname = `${url.pathname}-${systemRandom.hex(6)}`;
  url.searchParams.set('deletion-protection', 'off');
  url.searchParams.set('point-in-time-recovery', 'off');
  return url.href;
}

export async function deleteTable(url: string): Promise<void> {
  const { region, endpoint, table } = parseDynamodbUrl(url);
  const client = new DynamoDBClient({ region, endpoint });
  try {
    await client.send(new DeleteTableCommand({ TableName: table }));
  } finally {
    client.destroy();
  }
}
