/**
 * A broker of the harness's own: `serve` as a child process. Owns: starting it, its directory if it was made for the
 * run, what it uses, noticing that it died, ending it. Does not own: what is asked of it. Main thread.
 *
 * The child is the leader of a process group of its own, so that Ctrl-C on a terminal ends the harness first, which
 * still has something to ask of it; it is ended with this process in any case that a process can see.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Clock, sleep } from '../core/clock.ts';
import { StreamHouseError } from '../core/errors.ts';

export interface OwnBrokerOptions {
  /** Unique among the brokers of a cluster; null: as `serve` chooses. */
  agentId: string | null;
  /** Null: a temporary one, removed at the end. */
  data: string | null;
  metadata: string | null;
  objects: string | null;
  /** P50,P99,MAX in ms. */
  objectDelayMs: readonly [number, number, number] | null;
  objectPer: 'window' | 'partition';
  seed: number;
  serveArgs: readonly string[];
  /** Writes a CPU profile of the broker there. */
  profileDirectory: string | null;
  env: Readonly<Record<string, string | undefined>>;
  clock: Clock;
}

const READY_MS_MAX = 60_000;
const STOP_MS_MAX = 30_000;
const LOG_LINES_KEPT = 20;

function mainFile(): string {
  const name = import.meta.url.endsWith('.ts') ? 'main.ts' : 'main.js';
  return fileURLToPath(new URL(`../${name}`, import.meta.url));
}

interface Running {
  child: ChildProcess;
  url: string;
  log: string[];
  ended: Promise<string>;
}

export class OwnBroker {
  readonly #options: OwnBrokerOptions;
  readonly #directory: string;
  /** Any that is free, the first time. */
  #port = '0';
  #running: Running | null = null;
  /** From the start of the process to its ready line, ms. */
  readyMs = 0;
  /** Resolves with how, and its last words, when the process ends without having been told to. */
  readonly died: Promise<string>;
  #die: (how: string) => void = () => undefined;
  readonly #exit = (): void => void this.#running?.child.kill('SIGKILL');

  private constructor(options: OwnBrokerOptions, directory: string) {
    this.#options = options;
    this.#directory = directory;
    this.died = new Promise((resolve) => (this.#die = resolve));
    process.on('exit', this.#exit);
  }

  /** 'invalid-setting' for arguments that `serve` does not take; any other end before it serves is an Error. */
  static async start(options: OwnBrokerOptions): Promise<OwnBroker> {
    const directory = options.data ?? (await mkdtemp(join(tmpdir(), 'streamhouse-load-')));
    const broker = new OwnBroker(options, directory);
    try {
      await broker.#start();
    } catch (error) {
      await broker.close();
      throw error;
    }
    return broker;
  }

  get url(): string {
    if (this.#running === null) throw new Error('the broker of the harness is not running');
    return this.#running.url;
  }

  get pid(): number | undefined {
    return this.#running?.child.pid;
  }

  /** The most memory that it ever had, in bytes, as the system counts; null where the system does not tell. */
  rssMax(): number | null {
    try {
      const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
      const kib = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
      return kib === undefined ? null : Number(kib) * 1024;
    } catch {
      // Not Linux, or the process is gone: the caller has the samples of /metrics.
      return null;
    }
  }

  /** Ends it in order and starts it on the same data and the same port: clients find it where it was. */
  async restart(): Promise<void> {
    this.#port = new URL(this.url).port;
    await this.#stop();
    await this.#start();
  }

  /** Ends it where it stands, as if its machine were gone. */
  async kill(): Promise<void> {
    const running = this.#running;
    this.#running = null;
    running?.child.kill('SIGKILL');
    await running?.ended;
  }

  async close(): Promise<void> {
    process.off('exit', this.#exit);
    await this.#stop();
    if (this.#options.data === null) await rm(this.#directory, { recursive: true, force: true });
  }

  #args(): string[] {
    const { agentId, metadata, objects, objectDelayMs, objectPer, seed, serveArgs, profileDirectory } =
      this.#options;
    const args: string[] = [];
    if (profileDirectory !== null) args.push('--cpu-prof', `--cpu-prof-dir=${profileDirectory}`);
    args.push(
      mainFile(),
      'serve',
      '--listen',
      `127.0.0.1:${this.#port}`,
      '--log-level',
      'warn',
      '--data',
      this.#directory,
    );
    if (agentId !== null) args.push('--agent-id', agentId);
    if (metadata !== null) args.push('--metadata', metadata);
    const plain = objects ?? `file:${join(this.#directory, 'objects')}`;
    if (objectDelayMs !== null) args.push('--objects', `delayed:${objectDelayMs.join(',')},${seed}:${plain}`);
    else if (objects !== null) args.push('--objects', objects);
    if (objectPer === 'partition') args.push('--object-per', 'partition');
    return [...args, ...serveArgs];
  }

  async #start(): Promise<void> {
    const { clock, env } = this.#options;
    const beganMs = clock.monotonicMs();
    const child = spawn(process.execPath, this.#args(), {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      env: { ...env },
    });
    const log: string[] = [];
    createInterface(child.stderr as NodeJS.ReadableStream).on('line', (line) => {
      log.push(line);
      if (log.length > LOG_LINES_KEPT) log.shift();
    });
    const ready = new Promise<{ url: string }>((resolve) => {
      createInterface(child.stdout as NodeJS.ReadableStream).on('line', (line) => {
        const url = /^ready (http:\S+)$/.exec(line)?.[1];
        if (url !== undefined) resolve({ url });
      });
    });
    const ended = once(child, 'close').then(([code, signal]) => describeEnd(code, signal, log));
    this.#running = { child, url: '', log, ended };
    const over = new AbortController();
    const late = sleep(clock, READY_MS_MAX, over.signal).then(() => 'it was not ready in time');
    const first = await Promise.race([ready, ended, late]);
    over.abort();
    if (typeof first === 'string') throw startError(child.exitCode, first, log);
    this.#running = { child, url: first.url, log, ended };
    void ended.then((how) => {
      if (this.#running?.child === child) this.#die(how);
    });
    this.readyMs = clock.monotonicMs() - beganMs;
  }

  async #stop(): Promise<void> {
    const running = this.#running;
    this.#running = null;
    if (running === null) return;
    const { child, ended } = running;
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    const over = new AbortController();
    const late = sleep(this.#options.clock, STOP_MS_MAX, over.signal).then(() => void child.kill('SIGKILL'));
    await ended;
    over.abort();
    await late;
  }
}

function describeEnd(code: number | null, signal: string | null, log: readonly string[]): string {
  const last = log.at(-1);
  return `${signal ?? `exit code ${code}`}${last === undefined ? '' : `; it said last: ${last.slice(0, 300)}`}`;
}

const EXIT_USAGE = 2;

function startError(code: number | null, how: string, log: readonly string[]): Error {
  if (code === EXIT_USAGE) {
    return new StreamHouseError('invalid-setting', (log.at(-1) ?? how).replace(/^streamhouse: /, ''));
  }
  return new Error(`the broker did not start (${how})`);
}
