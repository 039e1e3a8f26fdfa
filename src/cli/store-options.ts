/**
 * What the commands share that look into a cluster's stores by themselves, with or without a broker beside them:
 * the settings that name the stores, taken as `serve` takes them. Does not own the settings. Main thread.
 */
import { type Command, Option } from 'commander';
import { SETTINGS, type SettingSpec } from '../setting-table.ts';
import { defaultTextOf, flagOf, readSettings, type Settings } from '../settings.ts';
import type { Shell } from './shell.ts';

export interface StoreOptions {
  config?: string;
  data?: string;
  metadata?: string;
  objects?: string;
  json?: boolean;
}

const STORE_SETTINGS = ['data', 'metadata', 'objects'] as const;
type StoreSetting = (typeof STORE_SETTINGS)[number];

/** `names`: the settings that the command has a use for. */
export function addStoreOptions(command: Command, names: readonly StoreSetting[] = STORE_SETTINGS): Command {
  command.addOption(new Option('--config <file>', 'JSON file of settings (environment: STREAMHOUSE_CONFIG)'));
  for (const name of names) {
    const spec: SettingSpec = SETTINGS[name];
    const help = `${spec.help} (default: ${defaultTextOf(spec)})`;
    command.addOption(new Option(`--${flagOf(name)} <${spec.type}>`, help));
  }
  return command.option('--json', 'print JSON; errors too, on standard error');
}

/** The settings of the broker whose stores these are. 'invalid-setting'. */
export function storeSettings(options: StoreOptions, shell: Shell): Settings {
  const flags: Record<string, string> = {};
  for (const name of STORE_SETTINGS) {
    const value = options[name];
    if (value !== undefined) flags[name] = value;
  }
  return readSettings({ flags, env: shell.env, configPath: options.config });
}
