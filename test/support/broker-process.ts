/**
 * A broker as a process of its own, started from the sources: for end-to-end tests, for days on which it is
 * killed, and for the demo. Owns starting, waiting for its ready line, ending it (in order or not) and what it
 * wrote. Does not own what is asked of it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
/** Compiled modules, kept between starts: they halve the CPU time of a start. Git ignores the place. */
const COMPILE_CACHE = fileURLToPath(new URL('../../node_modules/.cache/compile', import.meta.url));
const READY_MS_MAX = 60_000;
const STOP_MS_MAX = 20_000;
const LOG_LINES_KEPT = 200;

export interface BrokerProcessOptions {
  /** Besides this process's own environment. */
  env?: Readonly<Record<string, string>>;
  /** Address to listen on. Default: a free port of loopback. */
  listen?: string;
  /** Its whole log is appended to this file. */
  logFile?: string;
}

/** How a process ended, and the last lines that it wrote to standard error. */
export interface ProcessEnd {
  code: number | null;
  signal: NodeJS.Signals | null;
  log: readonly string[];
}

interface Spawned {
  child: ChildProcess;
  log: string[];
  /** Resolves when the process is gone and all that it wrote was read. */
  ended: Promise<ProcessEnd>;
}

export class BrokerProcess {
  readonly url: string;
  readonly #spawned: Spawned;

  constructor(url: string, spawned: Spawned) {
    this.url = url;
    this.#spawned = spawned;
  }

  /** `serve` with these arguments; resolves when it serves, rejects with its log when it ends before. */
  static async start(args: readonly string[], options: BrokerProcessOptions = {}): Promise<BrokerProcess> {
    const spawned = spawnBroker(args, options);
    const { child, log, ended } = spawned;
    const ready = new Promise<string>((resolve) => {
      createInterface(child.stdout as NodeJS.ReadableStream).on('line', (line) => {
        const address = /^ready (http:\S+)$/.exec(line)?.[1];
        if (address !== undefined) resolve(address);
      });
    });
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, READY_MS_MAX);
    const url = await Promise.race([ready, ended]);
    clearTimeout(timer);
    if (typeof url === 'string') return new BrokerProcess(url, spawned);
    const how = late ? `was not ready after ${READY_MS_MAX} ms` : `ended (${howItEnded(url)})`;
    throw new Error([`the broker ${how} before it was ready`, ...log].join('\n  '));
  }

  /** `serve` with arguments that must not work, or that is killed while it starts: resolves with how it ended. */
  static async startInVain(
    args: readonly string[],
    options: BrokerProcessOptions & { killAfterMs?: number } = {},
  ): Promise<ProcessEnd> {
    const { child, ended } = spawnBroker(args, options);
    child.stdout?.on('data', (text: Buffer) => {
      if (/^ready /m.test(text.toString())) child.kill('SIGKILL');
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), options.killAfterMs ?? READY_MS_MAX);
    const end = await ended;
    clearTimeout(timer);
    return end;
  }

  /** The last lines of its log. */
  get log(): readonly string[] {
    return this.#spawned.log;
  }

  get pid(): number {
    return this.#spawned.child.pid as number;
  }

  get ended(): boolean {
    const { child } = this.#spawned;
    return child.exitCode !== null || child.signalCode !== null;
  }

  /** Resolves when the process is gone, whoever ended it. */
  gone(): Promise<ProcessEnd> {
    return this.#spawned.ended;
  }

  /** SIGTERM, and SIGKILL when that does not do. */
  async stop(): Promise<ProcessEnd> {
    const { child, ended } = this.#spawned;
    if (!this.ended) child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX);
    const end = await ended;
    clearTimeout(timer);
    return end;
  }

  /** SIGKILL: it ends where it stands. */
  kill(): Promise<ProcessEnd> {
    const { child, ended } = this.#spawned;
    if (!this.ended) child.kill('SIGKILL');
    return ended;
  }
}

function spawnBroker(args: readonly string[], { env, listen, logFile }: BrokerProcessOptions): Spawned {
  const all = [MAIN, 'serve', '--listen', listen ?? '127.0.0.1:0', ...args];
  const child = spawn(process.execPath, all, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { NODE_COMPILE_CACHE: COMPILE_CACHE, ...process.env, ...env },
  });
  const log: string[] = [];
  if (logFile !== undefined) child.stderr?.pipe(createWriteStream(logFile, { flags: 'a' }));
  createInterface(child.stderr as NodeJS.ReadableStream).on('line', (line) => {
    log.push(line);
    if (log.length > LOG_LINES_KEPT) log.shift();
  });
  const ended = once(child, 'close').then(([code, signal]) => ({ code, signal, log }) as ProcessEnd);
  return { child, log, ended };
}

function howItEnded({ code, signal }: ProcessEnd): string {
  return signal ?? `exit code ${code}`;
}
