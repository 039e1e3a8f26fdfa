/**
 * The main thread's side of the storing thread. Owns: starting it, giving out ports to it, noticing its death,
 * ending it. Does not own: what it does (store-thread).
 */
import { once } from 'node:events';
import { MessageChannel, Worker } from 'node:worker_threads';
import { StreamHouseError } from '../../src/core/errors.ts';
import type { HostedStore } from './metadata-backend.ts';
import type { StoreThreadCommand, StoreThreadData, StoreThreadEvent } from './store-thread.ts';

/** Starts the storing thread on a URL. Errors as the backend's `open`. */
export async function startStoreThread(settings: StoreThreadData): Promise<HostedStore> {
  // Beside this file, with its ending: .ts in the sources, .js in the compiled package.
  const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
  const thread = new Worker(new URL(`./store-thread${ending}`, import.meta.url), {
    name: 'metadata-store',
    workerData: settings,
  });
  // 'error' is emitted (and rejects here) if the thread throws before its first message.
  const [first] = (await once(thread, 'message')) as [StoreThreadEvent];
  if (first.kind !== 'ready') {
    await thread.terminate();
    if (first.kind === 'failed') throw StreamHouseError.fromPlain(first.error);
    throw new Error(`the storing thread began with '${first.kind}'`);
  }

  let isClosing = false;
  const exited = once(thread, 'exit').catch(() => undefined);
  const lost = new Promise<never>((_, reject) => {
    thread.on('error', (error) => reject(error));
    thread.on('exit', (code) => {
      if (!isClosing)
        reject(new StreamHouseError('thread-lost', `the storing thread ended with code ${code}`));
    });
  });
  // Whoever wants to know awaits `lost`; that nobody does must not end the process a second way.
  lost.catch(() => undefined);
  thread.unref();

  const command = (message: StoreThreadCommand, moved: StoreThreadPort[] = []) =>
    thread.postMessage(message, moved);
  return {
    description: first.description,
    bodyBytesMax: first.bodyBytesMax,
    lost,
    port() {
      const { port1, port2 } = new MessageChannel();
      command({ kind: 'serve', port: port1 }, [port1]);
      return port2;
    },
    async close() {
      if (!isClosing) {
        isClosing = true;
        thread.ref();
        command({ kind: 'close' });
      }
      await exited;
    },
  };
}

type StoreThreadPort = MessageChannel['port1'];
