/**
 * A process that the harness forks, from the sources or from the compiled package, as a partner for messages. Owns:
 * starting, waiting for a message, noticing its end, ending it. Does not own: what is said. Main thread.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** The file `name` beside this one. */
function fileOf(name: string): string {
  const ending = import.meta.url.endsWith('.ts') ? '.ts' : '.js';
  return fileURLToPath(new URL(`./${name}${ending}`, import.meta.url));
}

export class LoadChild<To extends object, From extends { type: string }> {
  readonly #name: string;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<string, { resolve: (message: From) => void; reject: (error: Error) => void }>();
  #failure: Error | null = null;
  #isEnding = false;

  /** `heard` gets every message that nobody waits for. */
  constructor(name: string, heard: (message: From) => void) {
    this.#name = name;
    this.#child = fork(fileOf(name), [], {
      execArgv: process.execArgv.filter((arg) => !/^--(cpu|heap)-prof/.test(arg)),
    });
    this.#child.on('message', (message: From) => {
      const waiting = this.#waiting.get(message.type);
      this.#waiting.delete(message.type);
      if (waiting) waiting.resolve(message);
      else heard(message);
    });
    this.#child.on('error', (error) => this.#fail(error));
    this.#child.on('exit', (code, signal) => {
      this.#fail(new Error(`the ${this.#name} process ended (${signal ?? `exit code ${code}`})`));
    });
  }

  send(message: To): void {
    if (this.#failure === null && this.#child.connected) this.#child.send(message);
  }

  /** The next message of this type; rejects when the process ends before. One waits for a type at a time. */
  next<T extends From['type']>(type: T): Promise<Extract<From, { type: T }>> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== null) reject(this.#failure);
      else this.#waiting.set(type, { resolve: resolve as (message: From) => void, reject });
    });
  }

  /** Ends it where it stands. */
  async kill(): Promise<void> {
    this.#isEnding = true;
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exited;
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting)
      reject(this.#isEnding ? new Error(`the ${this.#name} process was ended`) : error);
  }
}
