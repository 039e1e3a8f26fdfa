/**
 * The storing thread: it hosts a backend's store, with all its connections. Owns: opening and closing the store
 * and giving every port that it is sent a server. It is a worker thread's entry; start-store-thread.ts starts it. A
 * bug of the store's ends the thread: its ports close, so that nobody waits for an answer.
 *
 *   parent -> thread   StoreThreadCommand
 *   thread -> parent   StoreThreadEvent: first 'ready' or 'failed', last 'closed'
 */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { systemClock } from '../../src/core/clock.ts';
import { type PlainError, StreamHouseError } from '../../src/core/errors.ts';
import { systemRandom } from '../../src/core/random.ts';
import type { OpenedBackend, OpenMetadataSettings } from './metadata-backend.ts';
import { loadBackend } from './metadata-backends.ts';
import { serveMetadataStore } from './served-metadata-store.ts';
import { StoreCounters } from './store-counters.ts';

export interface StoreThreadData extends OpenMetadataSettings {
  url: string;
  counters: SharedArrayBuffer;
}
export type StoreThreadCommand = { kind: 'serve'; port: MessagePort } | { kind: 'close' };
export type StoreThreadEvent =
  | { kind: 'ready'; description: string; bodyBytesMax: number }
  | { kind: 'failed'; error: PlainError }
  | { kind: 'closed' };

async function open(): Promise<OpenedBackend | null> {
  const { url, counters, ...settings } = workerData as StoreThreadData;
  try {
    const backend = await loadBackend(url);
    const parts = { clock: systemClock, random: systemRandom, counters: new StoreCounters(counters) };
    return await backend.open(url, { ...settings, ...parts });
  } catch (error) {
    if (!(error instanceof StreamHouseError)) throw error;
    tell({ kind: 'failed', error: error.toPlain() });
    return null;
  }
}

function tell(event: StoreThreadEvent): void {
  parentPort!.postMessage(event);
}

const opened = await open();
if (opened) {
  const { store, afterWrite } = opened;
  parentPort!.on('message', async (command: StoreThreadCommand) => {
    if (command.kind === 'serve') {
      serveMetadataStore(store, command.port, {
        afterWrite,
        // Out of every promise, so that it ends the thread and is told to the parent as it is.
        onBug: (error) =>
          process.nextTick(() => {
            throw error;
          }),
      });
      return;
    }
    await store.close();
    tell({ kind: 'closed' });
    process.exit();
  });
  tell({ kind: 'ready', description: store.description, bodyBytesMax: store.bodyBytesMax });
}
