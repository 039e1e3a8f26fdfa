/**
 * What all client commands share: `--url`, `--zone`, `--json`, and a client that is closed whatever happens. Does not
 * own the client. Main thread.
 */
import type { Command } from 'commander';
import { RestClient } from '../client/rest-client.ts';
import { systemRandom } from '../core/random.ts';
import { SETTINGS } from '../setting-table.ts';
import { type Shell, UsageError } from './shell.ts';

export interface ClientOptions {
  url?: string[];
  zone?: string;
  json?: boolean;
}

const DEFAULT_URL = 'http://127.0.0.1:8080';

/** Brokers that a command may be given; more are a mistake. */
const URLS_MAX = 64;

/** `--url` and `--json`. */
export function addUrlOptions(command: Command): Command {
  return command
    .option(
      '--url <url>',
      'a broker; may be repeated, or several by commas: the next ones are asked when the first cannot serve ' +
        `(default: STREAMHOUSE_URL, else ${DEFAULT_URL})`,
      (text: string, before: string[] | undefined) => [...(before ?? []), ...text.split(',')],
    )
    .option('--json', 'print JSON; errors too, on standard error');
}

/** The same and `--zone`, for commands to which it matters where their broker is. */
export function addClientOptions(command: Command): Command {
  return addUrlOptions(command).option(
    '--zone <zone>',
    'go to a broker of this zone if one is live',
    zoneName,
  );
}

/** A zone as `serve --zone` takes it, for commander. */
export function zoneName(text: string): string {
  const { pattern, patternText } = SETTINGS.zone;
  if (pattern.test(text)) return text;
  throw new UsageError(`--zone: ${JSON.stringify(text.slice(0, 200))} is not ${patternText}`);
}

/**
 * Runs `use` with a client that is closed afterwards, and by Ctrl-C, unless the command wants to hear the
 * answers to what is open.
 */
export async function withClient<T>(
  options: ClientOptions,
  shell: Shell,
  use: (client: RestClient) => Promise<T>,
  { connectionsMax = 16, closeOnStop = true } = {},
): Promise<T> {
  const client = new RestClient(urlsOf(options, shell), { connectionsMax });
  const close = (): void => void client.close();
  if (closeOnStop) shell.stop.addEventListener('abort', close, { once: true });
  try {
    if (options.zone !== undefined) await goToZone(client, options.zone, options, shell);
    return await use(client);
  } finally {
    shell.stop.removeEventListener('abort', close);
    await client.close();
  }
}

function urlsOf(options: ClientOptions, shell: Shell): string[] {
  const urls = options.url ?? (shell.env.STREAMHOUSE_URL || DEFAULT_URL).split(',');
  const source = options.url === undefined ? 'environment STREAMHOUSE_URL' : '--url';
  for (const url of urls) {
    if (URL.canParse(url) && /^https?:$/.test(new URL(url).protocol)) continue;
    throw new UsageError(`${source}: ${JSON.stringify(url.slice(0, 200))} is not an http:// or https:// URL`);
  }
  if (urls.length > URLS_MAX) throw new UsageError(`${source}: more than ${URLS_MAX} brokers`);
  return urls;
}

/** Says where it goes; to machines, which read standard error as JSON, nothing. */
async function goToZone(
  client: RestClient,
  zone: string,
  options: ClientOptions,
  shell: Shell,
): Promise<void> {
  const url = await client.useZone(zone, systemRandom);
  if (options.json) return;
  const found = url === null ? `no broker that can be reached; ${client.url} is used` : url;
  shell.stderr.write(`zone ${JSON.stringify(zone)}: ${found}\n`);
}

/** A whole number from `min` to `max`, for commander's options and arguments. */
export function wholeNumber(what: string, min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw new UsageError(`${what}: ${JSON.stringify(text)} is not a whole number from ${min} to ${max}`);
  };
}
