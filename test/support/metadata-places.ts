/**
 * A place for metadata on every backend there is, for tests of the whole broker: real servers, and URLs in them
 * that nobody used yet. Owns: the table by scheme, so that a backend without its place does not compile. Does not
 * own: the servers.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MetadataScheme } from '../../storage/metadata/metadata-backends.ts';

export interface MetadataPlace {
  /** The URL of a store of its own, with nothing in it. */
  freshUrl(): Promise<string>;
  /** What `serve` needs besides the URL, to create the schema. */
  args: readonly string[];
  /** For the processes that open it. */
  env: Readonly<Record<string, string>>;
  end(): Promise<void>;
}

/** What is in memory is gone with the thread that holds it: no broker can run on it. */
export type PlacedScheme = Exclude<MetadataScheme, 'memory'>;

export const METADATA_PLACES: Record<PlacedScheme, () => Promise<MetadataPlace>> = {
  sqlite: sqlitePlace,
};

async function sqlitePlace(): Promise<MetadataPlace> {
  const folder = await mkdtemp(join(tmpdir(), 'streamhouse-'));
  let count = 0;
  return {
    freshUrl: async () => `sqlite:${join(folder, `metadata-${++count}.db`)}`,
    args: [],
    env: {},
    end: () => rm(folder, { recursive: true }),
  };
}
