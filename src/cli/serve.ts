/**
 * `streamhouse serve`: settings, a broker, one line when it serves, and an orderly end. Owns nothing of the
 * broker (compose.ts does). Main thread.
 */
import { type Command, Option } from 'commander';
import { SETTINGS, type SettingSpec } from '../setting-table.ts';
import {
  defaultTextOf,
  environmentOf,
  flagOf,
  readSettings,
  type Settings,
  settingNames,
} from '../settings.ts';
import { print, type Shell } from './shell.ts';

/** What serving needs of a running broker. */
export interface ServedBroker {
  /** http://HOST:PORT with the port that was bound. */
  url: string;
  /** Finishes what is open, within the grace time, and releases everything. */
  close(): Promise<void>;
  /** Rejects when the broker cannot go on; never resolves. */
  failed: Promise<never>;
}

export function define(command: Command, shell: Shell): void {
  command.description(
    'Runs a broker until SIGTERM or Ctrl-C, which end it in order; a second one ends it at once.\n' +
      'Prints `ready http://HOST:PORT` on standard output when it serves; logs go to standard error.\n' +
      'A setting is taken from its flag, else from the environment (--flush-window is\n' +
      'STREAMHOUSE_FLUSH_WINDOW), else from the --config file, else it has its default.',
  );
  command.addOption(new Option('--config <file>', 'JSON file of settings (environment: STREAMHOUSE_CONFIG)'));
  for (const name of settingNames()) {
    const spec: SettingSpec = SETTINGS[name];
    const help = `${spec.help} (default: ${defaultTextOf(spec)})`;
    const value = spec.type === 'flag' ? '' : ` <${spec.type}>`;
    command.addOption(new Option(`--${flagOf(name)}${value}`, help));
  }
  command.addHelpText(
    'after',
    `\nFor example: ${environmentOf('flushWindowMs')}=50ms streamhouse serve --data ./data`,
  );
  command.action(async () => {
    const flags: Record<string, string> = {};
    for (const option of command.options) {
      const value: unknown = command.getOptionValue(option.attributeName());
      if (value !== undefined && option.long !== '--config') flags[option.name()] = String(value);
    }
    const configPath = command.getOptionValue('config') as string | undefined;
    const settings = readSettings({ flags, env: shell.env, configPath });
    const { startBroker } = await import('../compose.ts');
    await serve(settings, startBroker, shell);
  });
}

/** Starts, says so, and serves until the shell wants to stop or the broker fails. */
export async function serve(
  settings: Settings,
  startBroker: (settings: Settings) => Promise<ServedBroker>,
  shell: Shell,
): Promise<void> {
  const broker = await startBroker(settings);
  try {
    if (!shell.stop.aborted) {
      await print(shell.stdout, `ready ${broker.url}\n`);
      await Promise.race([broker.failed, stopped(shell.stop)]);
    }
  } finally {
    await broker.close();
  }
}

function stopped(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
