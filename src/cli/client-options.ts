/**
 * What all client commands share: `--url`, `--json`, and a client that is closed whatever happens. Does not own
 * the client. Main thread.
 */
import type { Command } from 'commander';
import { RestClient } from '../client/rest-client.ts';
import { type Shell, UsageError } from './shell.ts';

export interface ClientOptions {
  url?: string;
  json?: boolean;
}

const DEFAULT_URL = 'http://127.0.0.1:8080';

export function addClientOptions(command: Command): Command {
  return command
    .option('--url <url>', `the broker (default: STREAMHOUSE_URL, else ${DEFAULT_URL})`)
    .option('--json', 'print JSON; errors too, on standard error');
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
  const url = options.url ?? (shell.env.STREAMHOUSE_URL || DEFAULT_URL);
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    const source = options.url === undefined ? 'environment STREAMHOUSE_URL' : '--url';
    throw new UsageError(`${source}: ${JSON.stringify(url.slice(0, 200))} is not an http:// or https:// URL`);
  }
  const client = new RestClient(url, { connectionsMax });
  const close = (): void => void client.close();
  if (closeOnStop) shell.stop.addEventListener('abort', close, { once: true });
  try {
    return await use(client);
  } finally {
    shell.stop.removeEventListener('abort', close);
    await client.close();
  }
}

/** A whole number from `min` to `max`, for commander's options and arguments. */
export function wholeNumber(what: string, min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw new UsageError(`${what}: ${JSON.stringify(text)} is not a whole number from ${min} to ${max}`);
  };
}
