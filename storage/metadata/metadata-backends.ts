/**
 * The one table of metadata backends by scheme. Owns: which schemes there are and where each is opened. Does not
 * own: any backend; a driver is loaded only when its scheme is called for. The thread that opens the store.
 *
 *   sqlite:PATH            one storing thread writes
 *   dynamodb://REGION/PREFIX?...   many brokers, single-item conditional writes
 *   memory:                for tests; hosted on the thread that opened it, gone with the process
 *   postgres://...         also postgresql://; one storing thread has all connections of a broker
 *   cockroachdb://...      likewise
 */
import { StreamHouseError } from '../../src/core/errors.ts';
import type { MetadataBackend } from './metadata-backend.ts';

interface BackendRow {
  /** How its URL looks, for messages. */
  urlForm: string;
  /** Opened as 'broker' it is opened by nobody else, whatever the others believe. */
  hasOneOwner?: true;
  load(): Promise<MetadataBackend>;
}

const BACKENDS = {
  sqlite: {
    urlForm: 'sqlite:PATH',
    hasOneOwner: true,
    load: async () => (await import('./sqlite/sqlite-backend.ts')).sqliteBackend,
  },
  postgres: {
    urlForm: 'postgres://USER:PASSWORD@HOST:PORT/DATABASE',
    load: async () => (await import('./postgres/postgres-backend.ts')).postgresBackend,
  },
  cockroachdb: {
    urlForm: 'cockroachdb://USER:PASSWORD@HOST:PORT/DATABASE',
    load: async () => (await import('./cockroach/cockroach-backend.ts')).cockroachBackend,
  },
  dynamodb: {
    urlForm: 'dynamodb://REGION/PREFIX',
    load: async () => (await import('./dynamodb/dynamodb-backend.ts')).dynamodbBackend,
  },
  memory: {
    urlForm: 'memory:',
    hasOneOwner: true,
    load: async () => (await import('./memory/memory-backend.ts')).memoryBackend,
  },
} as const satisfies Record<string, BackendRow>;

/** The schemes there are. The contract suite has a row for each. */
export type MetadataScheme = keyof typeof BACKENDS;

/** Other names of a scheme, which other clients of the same server know. */
const ALIASES: Readonly<Record<string, MetadataScheme>> = { postgresql: 'postgres' };

/** The scheme of a URL; 'invalid-setting' for one that is none of ours. */
export function schemeOf(url: string): MetadataScheme {
  const colon = url.indexOf(':');
  const given = url.slice(0, Math.max(colon, 0));
  const scheme = Object.hasOwn(ALIASES, given) ? ALIASES[given] : given;
  if (Object.hasOwn(BACKENDS, scheme)) return scheme as MetadataScheme;
  const known = Object.values(BACKENDS).map(({ urlForm }) => urlForm);
  // Not the whole URL: it may hold a password.
  const what = colon < 0 ? 'a metadata URL begins with a scheme' : `unknown metadata scheme '${scheme}:'`;
  throw new StreamHouseError('invalid-setting', `${what}; known are ${known.join(', ')}`);
}

/** Whether a store opened as 'broker' is proof that no broker runs on it. 'invalid-setting' as `schemeOf`. */
export function hasOneOwner(url: string): boolean {
  const row: BackendRow = BACKENDS[schemeOf(url)];
  return row.hasOneOwner === true;
}

/** 'invalid-setting' as `schemeOf`. */
export function loadBackend(url: string): Promise<MetadataBackend> {
  return BACKENDS[schemeOf(url)].load();
}
