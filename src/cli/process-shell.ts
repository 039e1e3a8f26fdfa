/**
 * The real process as a Shell: its streams and signals, and the end of it. Owns what happens on Ctrl-C (the
 * first asks the command to stop, the second ends the process at once) and when the reader of standard output
 * goes away (`| head`: the process ends quietly). Main thread.
 */
import { MessageChannel } from 'node:worker_threads';
import { systemClock } from '../core/clock.ts';
import { EXIT_FAILED, run } from './run.ts';
import { EXIT_INTERRUPTED } from './shell.ts';

/** Runs the command that the process was started with and ends the process with its exit code. */
export async function runProcess(): Promise<void> {
  const stopping = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (stopping.signal.aborted) process.exit(EXIT_INTERRUPTED);
      stopping.abort();
    });
  }
  const args = process.argv.slice(2);
  // A broker outlives the reader of its "ready" line.
  const ends = args[0] !== 'serve';
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') process.exitCode = EXIT_FAILED;
      if (ends) process.exit();
    });
  }
  // Timers of the clock do not keep the process alive, and a command may wait for nothing else.
  const { port1: hold } = new MessageChannel();
  hold.on('message', () => undefined);
  process.exitCode = await run(args, {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    clock: systemClock,
    stop: stopping.signal,
  });
  // What a command left open (a half-read stdin, sockets that wait for reuse) must not hold it either.
  hold.close();
  flushed(process.stdout, () => flushed(process.stderr, () => process.exit()));
}

function flushed(stream: NodeJS.WriteStream, then: () => void): void {
  if (stream.writableLength === 0 || stream.destroyed) then();
  else stream.write('', then);
}
