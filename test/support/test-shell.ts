/**
 * A Shell for tests: runs a command of the command line inside the test's process and gathers what it prints.
 */
import { Readable, Writable } from 'node:stream';
import { run } from '../../src/cli/run.ts';
import { systemClock } from '../../src/core/clock.ts';

export interface CliResult {
  code: number;
  stdout: string;
  stderr: string;
}

export interface CliInput {
  stdin?: string | Buffer | Readable;
  env?: Record<string, string>;
  /** Called with everything printed so far, after each piece. */
  onStdout?: (text: string) => void;
  stop?: AbortSignal;
}

class Sink extends Writable {
  readonly #chunks: Buffer[] = [];
  readonly #onText: ((text: string) => void) | undefined;

  constructor(onText?: (text: string) => void) {
    super();
    this.#onText = onText;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#chunks.push(chunk);
    this.#onText?.(this.text);
    done();
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString();
  }
}

/** `streamhouse ARGS...` */
export async function cli(args: readonly string[], input: CliInput = {}): Promise<CliResult> {
  const stdin =
    input.stdin instanceof Readable ? input.stdin : Readable.from([Buffer.from(input.stdin ?? '')]);
  const stdout = new Sink(input.onStdout);
  const stderr = new Sink();
  // Timers of the clock do not keep the process alive.
  const hold = setInterval(() => undefined, 1000);
  try {
    const code = await run(args, {
      stdin,
      stdout,
      stderr,
      env: input.env ?? {},
      clock: systemClock,
      stop: input.stop ?? new AbortController().signal,
    });
    return { code, stdout: stdout.text, stderr: stderr.text };
  } finally {
    clearInterval(hold);
  }
}
