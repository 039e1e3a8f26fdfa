/**
 * A real PgBouncer for tests, sharing its server connections by transaction. Used only where
 * STREAMHOUSE_TEST_PGBOUNCER=1 asks for it; then it must start, or the test fails. Needs Debian's pgbouncer. Owns its
 * process and files: stop() ends and removes them.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { freePort, serverUser } from './postgres-server.ts';

export interface Pgbouncer {
  readonly port: number;
  stop(): Promise<void>;
}

const START_MS_MAX = 10_000;

function configuration(server: URL, port: number): string {
  const database = server.pathname.slice(1);
  const { hostname, username, password } = server;
  return `
[databases]
${database} = host=${hostname} port=${server.port} dbname=${database} user=${username} password=${password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 500
default_pool_size = 10
max_prepared_statements = 0
`;
}

/** In front of the server at `url`, a superuser's. */
export async function startPgbouncer(url: string): Promise<Pgbouncer> {
  const directory = await mkdtemp(join(tmpdir(), 'streamhouse-pgbouncer-'));
  await chmod(directory, 0o755);
  const port = await freePort();
  const file = join(directory, 'pgbouncer.ini');
  // Setting for setting: an older one does not know the last.
  const text = configuration(new URL(url), port);
  await writeFile(file, supports('max_prepared_statements') ? text : text.replace(/^max_prepared.*$/m, ''));
  const log: string[] = [];
  const child = spawn('pgbouncer', [file], { stdio: ['ignore', 'pipe', 'pipe'], ...(await serverUser()) });
  child.on('error', (error) => log.push(String(error)));
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => log.push(String(bytes)));
  const stop = async () => {
    await end(child);
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await untilListening(port, child);
  } catch (error) {
    await stop();
    throw new Error(`PgBouncer did not start: ${log.join('').slice(-2000)}`, { cause: error });
  }
  return { port, stop };
}

function supports(setting: string): boolean {
  const [, major, minor] = /PgBouncer (\d+)\.(\d+)/.exec(
    execFileSync('pgbouncer', ['--version'], { encoding: 'utf8' }),
  ) as RegExpExecArray;
  return setting !== 'max_prepared_statements' || Number(major) > 1 || Number(minor) >= 21;
}

async function untilListening(port: number, child: ChildProcess): Promise<void> {
  for (let waitedMs = 0; waitedMs < START_MS_MAX && child.exitCode === null; waitedMs += 20) {
    const socket = connect({ port, host: '127.0.0.1' });
    const [event] = await Promise.race([
      once(socket, 'connect').then(() => ['connect']),
      once(socket, 'error').then(() => ['error']),
      once(socket, 'close').then(() => ['close']),
    ]).catch(() => ['error']);
    socket.destroy();
    if (event === 'connect') return;
    await sleepMs(20);
  }
  throw new Error('nothing listens');
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.pid === undefined) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  await exited;
}
