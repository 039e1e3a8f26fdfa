/**
 * From a URL to a metadata store that every thread can use. Owns: where a backend runs (a storing thread of its
 * own; memory: on the thread that opened it) and how the store is reached from the others (a port that crosses to
 * them). Does not own: any backend, nor the table of them (metadata-backends).
 */
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { systemClock } from '../../src/core/clock.ts';
import { StreamHouseError } from '../../src/core/errors.ts';
import { withoutSecrets } from '../../src/core/printable-url.ts';
import { systemRandom } from '../../src/core/random.ts';
import type { HostedStore, OpenBackendOptions, OpenMetadataSettings } from './metadata-backend.ts';
import { loadBackend, schemeOf } from './metadata-backends.ts';
import type { MetadataStore } from './metadata-store.ts';
import { RemoteMetadataStore } from './remote-metadata-store.ts';
import { serveMetadataStore } from './served-metadata-store.ts';
import { startStoreThread } from './start-store-thread.ts';
import { StoreCounters } from './store-counters.ts';

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
  /** What the backend counts of itself. */
  readonly counters: StoreCounters;
  /** A new handle for one other thread; `transfer` goes into postMessage's transfer list. */
  threadHandle(): { handle: MetadataHandle; transfer: MessagePort[] };
  /** Rejects when the thread that hosts the store dies; else never settles. */
  readonly lost: Promise<never>;
  /** Ends the store; clients that are still open then fail as if it had died. */
  close(): Promise<void>;
}

/** 'invalid-setting' for a URL that cannot be; else the backend's errors. */
export async function openMetadata(
  url: string,
  settings: Pick<OpenMetadataSettings, 'role'> & Partial<OpenMetadataSettings>,
): Promise<OpenedMetadata> {
  const counters = new StoreCounters();
  const open = { migrate: false, ...settings };
  const hosted = await naming(
    url,
    settings.role,
    schemeOf(url) === 'memory'
      ? hostHere(url, { ...open, clock: systemClock, random: systemRandom, counters })
      : startStoreThread({ ...open, url, counters: counters.memory }),
  );
  const { description, bodyBytesMax } = hosted;
  const store = new RemoteMetadataStore(hosted.port(), hosted);
  return {
    store,
    counters,
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

/** Whoever finds the schema too old is told the very command that mends it. */
async function naming(
  url: string,
  role: OpenMetadataSettings['role'],
  opening: Promise<HostedStore>,
): Promise<HostedStore> {
  try {
    return await opening;
  } catch (error) {
    if (!(error instanceof StreamHouseError) || error.code !== 'schema-too-old') throw error;
    const shown = withoutSecrets(url);
    const message =
      `the metadata store ${shown} has schema ${error.detail?.schema}, this version of streamhouse needs ` +
      `${error.detail?.known}: run \`streamhouse migrate --metadata ${shown}\``;
    const orServe = role === 'broker' ? ', or serve with --migrate' : '';
    throw new StreamHouseError(error.code, message + orServe, error.detail);
  }
}

async function hostHere(url: string, options: OpenBackendOptions): Promise<HostedStore> {
  const { store } = await (await loadBackend(url)).open(url, options);
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
