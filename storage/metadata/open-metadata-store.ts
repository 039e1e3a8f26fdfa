/**
 * From a URL to a metadata store. Owns: the one table of schemes, parsing, and how a store that is open on the
 * main thread is reached from the others (a handle that crosses to them). Does not own: any backend. A backend
 * that has its own connection in every thread gives a handle that is its URL instead of a port.
 *
 *   sqlite:PATH   the default; one storing thread writes, all others send it messages
 *   memory:       for tests; hosted on the thread that opened it, gone with the process
 */
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { StreamHouseError } from '../../src/core/errors.ts';
import type { HostedStore } from './hosted-store.ts';
import { MemoryMetadataStore } from './memory/memory-metadata-store.ts';
import type { MetadataStore } from './metadata-store.ts';
import { RemoteMetadataStore } from './remote-metadata-store.ts';
import { serveMetadataStore } from './served-metadata-store.ts';
import { openSqliteStore } from './sqlite/open-sqlite-store.ts';

/**
 * 'broker': owns the store, creates and migrates it ('conflict' if another broker owns it and the backend takes
 * one only). 'reader': for tools; never writes, and may open a store while a broker runs on it.
 */
export type MetadataRole = 'broker' | 'reader';

/** What crosses to another thread, once: the port in it moves. */
export interface MetadataHandle {
  kind: 'port';
  port: MessagePort;
  description: string;
  bodyBytesMax: number;
}

export interface OpenedMetadata {
  /** For the thread that opened it. Closing it closes this client only. */
  readonly store: MetadataStore;
  /** A new handle for one other thread; `transfer` goes into postMessage's transfer list. */
  threadHandle(): { handle: MetadataHandle; transfer: MessagePort[] };
  /** Rejects when the thread that hosts the store dies; else never settles. */
  readonly lost: Promise<never>;
  /** Ends the store; clients that are still open then fail as if it had died. */
  close(): Promise<void>;
}

type OpenBackend = (rest: string, role: MetadataRole) => Promise<HostedStore>;

/** By scheme; `rest` is what follows the colon. */
const BACKENDS = {
  sqlite: openSqlite,
  memory: openMemory,
} as const satisfies Record<string, OpenBackend>;

/** The schemes there are. The contract suite has a row for each. */
export type MetadataScheme = keyof typeof BACKENDS;

/** 'invalid-setting' for a URL that cannot be; else the backend's errors. */
export async function openMetadata(url: string, options: { role: MetadataRole }): Promise<OpenedMetadata> {
  const colon = url.indexOf(':');
  const scheme = url.slice(0, Math.max(colon, 0));
  if (!Object.hasOwn(BACKENDS, scheme)) {
    // Not the whole URL: a later scheme's may hold a password.
    throw wrongUrl(
      colon < 0 ? 'a metadata URL begins with a scheme' : `unknown metadata scheme '${scheme}:'`,
    );
  }
  const hosted = await BACKENDS[scheme as MetadataScheme](url.slice(colon + 1), options.role);
  const { description, bodyBytesMax } = hosted;
  const store = new RemoteMetadataStore(hosted.port(), hosted);
  return {
    store,
    lost: hosted.lost,
    threadHandle() {
      const port = hosted.port();
      return { handle: { kind: 'port', port, description, bodyBytesMax }, transfer: [port] };
    },
    async close() {
      await store.close();
      await hosted.close();
    },
  };
}

/** The store of a handle, on the thread that received it. */
export function attachMetadata(handle: MetadataHandle): MetadataStore {
  return new RemoteMetadataStore(handle.port, handle);
}

function wrongUrl(what: string): StreamHouseError {
  const known = Object.keys(BACKENDS).map((scheme) => (scheme === 'sqlite' ? 'sqlite:PATH' : `${scheme}:`));
  return new StreamHouseError('invalid-setting', `${what}; known are ${known.join(', ')}`);
}

async function openSqlite(rest: string, role: MetadataRole): Promise<HostedStore> {
  if (rest === '' || rest.startsWith('//')) throw wrongUrl(`'sqlite:${rest}' names no file`);
  return openSqliteStore({ path: rest, role });
}

async function openMemory(rest: string): Promise<HostedStore> {
  if (rest !== '') throw wrongUrl(`'memory:${rest}' has something after its colon`);
  const store = new MemoryMetadataStore();
  const ports: MessagePort[] = [];
  let lose: (error: unknown) => void = () => undefined;
  const lost = new Promise<never>((_, reject) => (lose = reject));
  lost.catch(() => undefined);
  const { description, bodyBytesMax } = store;
  const closePorts = () => {
    for (const port of ports.splice(0)) port.close();
  };
  const onBug = (error: unknown) => {
    closePorts();
    lose(error);
  };
  return {
    description,
    bodyBytesMax,
    lost,
    port() {
      const { port1, port2 } = new MessageChannel();
      ports.push(port1);
      serveMetadataStore(store, port1, { onBug });
      return port2;
    },
    async close() {
      await store.close();
      closePorts();
    },
  };
}
