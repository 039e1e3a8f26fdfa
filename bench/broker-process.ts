/**
 * A broker as a process of its own, started from the sources: for the demo and the load. Owns starting, waiting
 * for its ready line, stopping it and what it said last. Does not own what is asked of it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const READY_MS_MAX = 30_000;
const STOP_MS_MAX = 20_000;
const LOG_LINES_KEPT = 40;

export class BrokerProcess {
  readonly url: string;
  readonly #child: ChildProcess;
  readonly #log: string[];

  constructor(url: string, child: ChildProcess, log: string[]) {
    this.url = url;
    this.#child = child;
    this.#log = log;
  }

  /** `serve` on a free port of loopback with these arguments; resolves when it serves. */
  static async start(args: readonly string[]): Promise<BrokerProcess> {
    const all = [MAIN, 'serve', '--listen', '127.0.0.1:0', ...args];
    const child = spawn(process.execPath, all, { stdio: ['ignore', 'pipe', 'pipe'] });
    const log: string[] = [];
    if (child.stdout === null || child.stderr === null) throw new Error('the broker has no pipes');
    createInterface(child.stderr).on('line', (line) => {
      log.push(line);
      if (log.length > LOG_LINES_KEPT) log.shift();
    });
    const lines = createInterface(child.stdout);
    const url = await new Promise<string>((resolve, reject) => {
      const fail = (what: string): void => reject(new Error([what, ...log].join('\n  ')));
      const timer = setTimeout(() => {
        child.kill('SIGKILL');
        fail(`the broker was not ready after ${READY_MS_MAX} ms`);
      }, READY_MS_MAX);
      child.once('exit', (code, signal) => {
        clearTimeout(timer);
        // What it wrote last may still be in the pipe.
        setImmediate(() => fail(`the broker ended (${signal ?? `exit code ${code}`}) before it was ready`));
      });
      lines.on('line', (line) => {
        const address = /^ready (http:\S+)$/.exec(line)?.[1];
        if (address === undefined) return;
        clearTimeout(timer);
        resolve(address);
      });
    });
    return new BrokerProcess(url, child, log);
  }

  /** The last lines of its log. */
  get log(): readonly string[] {
    return this.#log;
  }

  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** Resolves when the process is gone, whoever ended it. */
  async gone(): Promise<void> {
    if (!this.ended) await once(this.#child, 'exit');
  }

  /** SIGTERM, and SIGKILL when that does not do. */
  async stop(): Promise<void> {
    if (this.ended) return;
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MS_MAX);
    await this.gone();
    clearTimeout(timer);
  }
}
