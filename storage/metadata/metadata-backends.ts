/**
 * The one table of metadata backends by scheme. Owns: which schemes there are and where each is opened. Does not
 * own: any backend; a driver is loaded only when its scheme is called for. The thread that opens the store.
 *
 *   sqlite:PATH            one storing thread writes
 *   dynamodb://REGION/PREFIX?...   many brokers, single-item conditional writes
 *   memory:                for tests; hosted on the thread that opened it, gone with the process
 */
import { StreamHouseError } from '../../src/core/errors.ts';
import type { MetadataBackend } from './metadata-backend.ts';

interface BackendRow {
  /** How its URL looks, for messages. */
  urlForm: string;
  load(): Promise<MetadataBackend>;
}

const BACKENDS = {
  sqlite: {
    urlForm: 'sqlite:PATH',
    load: async () => (await import('./sqlite/sqlite-backend.ts')).sqliteBackend,
  },
  dynamodb: {
    urlForm: 'dynamodb://REGION/PREFIX',
    load: async () => (await import('./dynamodb/dynamodb-backend.ts')).dynamodbBackend,
  },
  memory: {
    urlForm: 'memory:',
    load: async () => (await import('./memory/memory-backend.ts')).memoryBackend,
  },
} as const satisfies Record<string, BackendRow>;

/** The schemes there are. The contract suite has a row for each. */
export type MetadataScheme = keyof typeof BACKENDS;

/** The scheme of a URL; 'invalid-setting' for one that is none of ours. */
export function schemeOf(url: string): MetadataScheme {
  const colon = url.indexOf(':');
  const scheme = url.slice(0, Math.max(colon, 0));
  if (Object.hasOwn(BACKENDS, scheme)) return scheme as MetadataScheme;
  const known = Object.values(BACKENDS).map(({ urlForm }) => urlForm);
  // Not the whole URL: it may hold a password.
  const what = colon < 0 ? 'a metadata URL begins with a scheme' : `unknown metadata scheme '${scheme}:'`;
  throw new StreamHouseError('invalid-setting', `${what}; known are ${known.join(', ')}`);
}

/** 'invalid-setting' as `schemeOf`. */
export function loadBackend(url: string): Promise<MetadataBackend> {
  return BACKENDS[schemeOf(url)].load();
}
