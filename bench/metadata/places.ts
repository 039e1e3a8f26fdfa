/**
 * Where suites find every metadata backend: a real server or file of their own, and what the same place takes for the
 * least read and the least durable write that its driver can do, as measures of the place itself. Owns: the table by
 * scheme, so that a backend without benchmarks does not compile. Does not own: the servers. The suite's thread.
 */
import { join } from 'node:path';
import { MessageChannel } from 'node:worker_threads';
import { DynamoDBClient, GetItemCommand, UpdateItemCommand } from '@aws-sdk/client-dynamodb';
import Database from 'better-sqlite3';
import pg from 'pg';
import { parseDynamodbUrl } from '../../storage/metadata/dynamodb/dynamodb-url.ts';
import type { MetadataScheme } from '../../storage/metadata/metadata-backends.ts';
import { cockroachUrlOn } from '../../test/support/cockroach-on-postgres.ts';
import { startDynalite } from '../../test/support/dynalite-server.ts';
import { type PostgresServer, startPostgres } from '../../test/support/postgres-server.ts';

/** The least that a place does. Names are of tasks that others are compared with. */
export interface BareCalls {
  read: { name: string; run(): unknown };
  write: { name: string; run(): unknown };
  close(): Promise<void>;
}

export interface BenchPlace {
  /** The URL of a store with nothing in it, for `openMetadata` with `migrate`. */
  freshUrl(): string;
  /** On this thread, beside the store of this URL, which was opened. */
  bareCalls(url: string): Promise<BareCalls>;
  end(): Promise<void>;
}

/** A directory for what is a file. */
type StartPlace = (directory: string) => Promise<BenchPlace>;

export const BENCH_PLACES: Record<MetadataScheme, StartPlace> = {
  memory: memoryPlace,
  sqlite: sqlitePlace,
  postgres: async () => postgresPlace((server) => server.storeUrl({ durability: 'checked' })),
  cockroachdb: async () => postgresPlace((server) => cockroachUrlOn(server.storeUrl())),
  dynamodb: dynamodbPlace,
};

async function memoryPlace(): Promise<BenchPlace> {
  return { freshUrl: () => 'memory:', bareCalls: bareHop, end: async () => undefined };
}

/** A port whose other end answers on this thread, as the memory store's does. */
async function bareHop(): Promise<BareCalls> {
  const { port1, port2 } = new MessageChannel();
  port2.on('message', (message) => port2.postMessage(message));
  let answered: () => void = () => undefined;
  port1.on('message', () => answered());
  const hop = () =>
    new Promise<void>((resolve) => {
      answered = resolve;
      port1.postMessage(0);
    });
  const call = { name: 'bare port: a number there and back', run: hop };
  return { read: call, write: call, close: async () => port1.close() };
}

async function sqlitePlace(directory: string): Promise<BenchPlace> {
  let count = 0;
  return {
    freshUrl: () => `sqlite:${join(directory, `metadata-${++count}.db`)}`,
    bareCalls: async () => bareSqlite(join(directory, `bare-${++count}.db`)),
    end: async () => undefined,
  };
}

/** With the store's own pragmas. */
function bareSqlite(file: string): BareCalls {
  const db = new Database(file);
  db.pragma('page_size = 8192');
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  db.exec('CREATE TABLE bare (key INTEGER PRIMARY KEY, value INTEGER); INSERT INTO bare VALUES (1, 0)');
  const select = db.prepare('SELECT value FROM bare WHERE key = ?');
  const update = db.prepare('UPDATE bare SET value = value + 1 WHERE key = ?');
  return {
    read: { name: 'bare read: one row by its key', run: () => select.get(1) },
    write: { name: 'bare commit: one row', run: () => update.run(1) },
    close: async () => void db.close(),
  };
}

/** With fsync: what a commit takes is the measure. */
async function postgresPlace(freshUrl: (server: PostgresServer) => string): Promise<BenchPlace> {
  const server = await startPostgres({ isDurable: true });
  return {
    freshUrl: () => freshUrl(server),
    bareCalls: () => barePostgres(server.url),
    end: () => server.stop(),
  };
}

async function barePostgres(url: string): Promise<BareCalls> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query('CREATE TABLE bare (key int PRIMARY KEY, value bigint); INSERT INTO bare VALUES (1, 0)');
  const select = { name: 'select', text: 'SELECT value FROM bare WHERE key = $1', values: [1] };
  const update = { name: 'update', text: 'UPDATE bare SET value = value + 1 WHERE key = $1', values: [1] };
  return {
    read: { name: 'bare read: one row by its key', run: () => client.query(select) },
    write: { name: 'bare commit: one row', run: () => client.query(update) },
    close: () => client.end(),
  };
}

async function dynamodbPlace(): Promise<BenchPlace> {
  const server = await startDynalite();
  let count = 0;
  return {
    freshUrl: () => `dynamodb://us-east-1/bench-${++count}?endpoint=${encodeURIComponent(server.endpoint)}`,
    bareCalls: async (url) => bareDynamodb(url),
    end: () => server.close(),
  };
}

/** Items in the store's table that the store knows nothing of. */
function bareDynamodb(url: string): BareCalls {
  const { region, endpoint, table } = parseDynamodbUrl(url);
  const client = new DynamoDBClient({ region, endpoint });
  const key = { TableName: table, Key: { pk: { S: 'bare' }, sk: { S: 'bare' } } };
  const get = () => client.send(new GetItemCommand({ ...key, ConsistentRead: true }));
  const ExpressionAttributeValues = { ':one': { N: '1' } };
  const add = () =>
    client.send(new UpdateItemCommand({ ...key, UpdateExpression: 'ADD n :one', ExpressionAttributeValues }));
  return {
    read: { name: 'bare read: GetItem', run: get },
    write: { name: 'bare write: UpdateItem', run: add },
    close: async () => client.destroy(),
  };
}
