/**
 * A process of a measurement, forked with an IPC channel: a door's client, a sink for objects. Owns starting it, one
 * question with one answer at a time, and ending it. The suite's process.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

export class BenchChild {
  readonly #child: ChildProcess;

  constructor(file: string) {
    this.#child = fork(fileURLToPath(new URL(file, import.meta.url)));
  }

  /** Rejects when the process ends before it answers. */
  async ask<T>(question: unknown): Promise<T> {
    const gone = new AbortController();
    const ended = once(this.#child, 'exit', { signal: gone.signal }).then(([code, signal]) => {
      throw new Error(`a process of the benchmark ended (${signal ?? `exit code ${code}`})`);
    });
    const answered = once(this.#child, 'message', { signal: gone.signal });
    this.#child.send(question as object);
    try {
      const [answer] = await Promise.race([answered, ended]);
      return answer as T;
    } finally {
      gone.abort();
      await Promise.allSettled([answered, ended]);
    }
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exited;
  }
}
