/**
 * One call of the command line, from arguments to exit code. Owns the top-level program, exit codes and how
 * errors are printed. Does not own any command, nor the process. Main thread.
 *
 *   0  done         1  it failed: one line on standard error, "streamhouse: what"
 *   2  the arguments or settings are wrong: one such line        130  stopped by Ctrl-C
 * With --json among the arguments the line is {"error":{"code","message"}}. STREAMHOUSE_DEBUG=1 adds the stack.
 */
import { Command, CommanderError } from 'commander';
import { RestError } from '../client/rest-error.ts';
import { StreamHouseError } from '../core/errors.ts';
import { packageVersion } from '../version.ts';
import { COMMANDS } from './commands.ts';
import { EXIT_INTERRUPTED, ExitError, type Shell, UsageError } from './shell.ts';

export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** Runs `streamhouse ARGS...` and returns the exit code; never throws. */
export async function run(args: readonly string[], shell: Shell): Promise<number> {
  try {
    const program = await buildProgram(args, shell);
    await program.parseAsync(args as string[], { from: 'user' });
    return 0;
  } catch (error) {
    return report(error, args, shell);
  }
}

async function buildProgram(args: readonly string[], shell: Shell): Promise<Command> {
  const program = new Command('streamhouse');
  program
    .description('A streaming broker on object storage, for tiny batches over very many partitions.')
    .version(packageVersion, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', '\n`streamhouse COMMAND --help` says more about a command.');
  quiet(program, shell);
  const called = args.find((arg) => !arg.startsWith('-'));
  for (const row of COMMANDS) {
    const command = program.command(row.name).summary(row.summary).description(row.summary);
    if (row.name === called) (await row.load()).define(command, shell);
  }
  visit(program, (command) => quiet(command, shell));
  return program;
}

/** Commander throws instead of ending the process, and prints help only; errors are printed here. */
function quiet(command: Command, shell: Shell): void {
  command.exitOverride();
  command.allowExcessArguments(false);
  command.configureOutput({
    writeOut: (text) => shell.stdout.write(text),
    writeErr: () => undefined,
    outputError: () => undefined,
    getOutHelpWidth: () => shell.stdout.columns ?? 110,
  });
}

function visit(command: Command, each: (command: Command) => void): void {
  for (const child of command.commands) {
    each(child);
    visit(child, each);
  }
}

function report(error: unknown, args: readonly string[], shell: Shell): number {
  if (error instanceof ExitError) return error.exitCode;
  if (error instanceof CommanderError && error.exitCode === 0) return 0;
  const { code, message, exitCode } = describe(error);
  if (shell.stop.aborted) return EXIT_INTERRUPTED;
  if (args.includes('--json')) shell.stderr.write(`${JSON.stringify({ error: { code, message } })}\n`);
  else shell.stderr.write(`streamhouse: ${message}\n`);
  if (shell.env.STREAMHOUSE_DEBUG === '1' && error instanceof Error) shell.stderr.write(`${error.stack}\n`);
  return exitCode;
}

/** Every error as code, one line and exit code. */
function describe(error: unknown): { code: string; message: string; exitCode: number } {
  if (error instanceof CommanderError && error.code === 'commander.help') {
    return { code: 'usage', message: 'which command? --help lists them', exitCode: EXIT_USAGE };
  }
  if (error instanceof CommanderError || error instanceof UsageError) {
    const message = oneLine(error.message.replace(/^error: /, ''));
    return { code: 'usage', message, exitCode: EXIT_USAGE };
  }
  if (error instanceof StreamHouseError) {
    const exitCode = error.code === 'invalid-setting' ? EXIT_USAGE : EXIT_FAILED;
    return { code: error.code, message: oneLine(error.message), exitCode };
  }
  if (error instanceof RestError) {
    return { code: error.code, message: oneLine(error.message), exitCode: EXIT_FAILED };
  }
  const system = error as NodeJS.ErrnoException;
  const code = typeof system?.code === 'string' ? system.code : 'internal';
  const message = error instanceof Error ? error.message : String(error);
  return { code, message: oneLine(message) || code, exitCode: EXIT_FAILED };
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, ' ');
}
