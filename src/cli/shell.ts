/**
 * What a command sees of the process: streams, environment, time, and the wish to stop. Owns that interface
 * and the two ways of printing a result. Does not own the real process (process-shell.ts) nor any command.
 * Tests pass a shell of their own. Main thread.
 */
import type { Readable, Writable } from 'node:stream';
import type { Clock } from '../core/clock.ts';

export interface Shell {
  stdin: Readable & { isTTY?: boolean };
  stdout: Writable & { isTTY?: boolean; columns?: number };
  stderr: Writable & { isTTY?: boolean };
  env: Readonly<Record<string, string | undefined>>;
  clock: Clock;
  /** Aborts at the first SIGINT or SIGTERM; a command ends soon after it. */
  stop: AbortSignal;
}

/** As of a process that died of SIGINT. */
export const EXIT_INTERRUPTED = 130;

/** The arguments do not fit together in a way that commander cannot see. Exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** A command ran as it should and found something that must be seen in the exit code; nothing more is printed. */
export class ExitError extends Error {
  override readonly name = 'ExitError';
  readonly exitCode: number;

  constructor(exitCode: number) {
    super(`exit ${exitCode}`);
    this.exitCode = exitCode;
  }
}

/** Writes and waits while the reader is slow, so that a long output never piles up in memory. */
export async function print(out: Writable, text: string | Uint8Array): Promise<void> {
  if (out.write(text)) return;
  await new Promise<void>((resolve) => {
    const go = () => {
      out.off('drain', go);
      out.off('close', go);
      resolve();
    };
    out.on('drain', go);
    out.on('close', go);
  });
}

/** Columns, left-aligned texts and right-aligned numbers, as wide as they need to be. */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => String(row[column]).length)),
  );
  const line = (cells: readonly (string | number)[]): string =>
    cells
      .map((cell, i) =>
        typeof cell === 'number' ? String(cell).padStart(widths[i]) : cell.padEnd(widths[i]),
      )
      .join('  ')
      .trimEnd();
  return `${[line(head), ...rows.map(line)].join('\n')}\n`;
}
