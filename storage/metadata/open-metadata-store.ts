/**
 * From a URL to a metadata store that every thread can use. Owns: where a backend runs (a storing thread of its
 * own; memory: on the thread that opened it) and how the store is reached from the others (a port that crosses to
 * them). Does not own: any backend, nor the table of them (metadata-backends).
 */
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { systemClock } from '../../src/core/clock.ts';
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
  const hosted =
    schemeOf(url) === 'memory'
      ? await hostHere(url, { ...open, clock: systemClock, random: systemRandom, counters })
      : await startStoreThread({ ...open, url, counters: counters.memory });
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
