/**
 * Serves a metadata store to other threads, one MessagePort each. Owns: order and fairness (calls of one port start
 * in order; after every write another port may have its turn), the form of replies, and what happens when the
 * store fails as it must not. Does not own: the store. Runs on the thread that hosts the store.
 *
 * Calls of one port are started one after the other. A store that is synchronous inside (memory, SQLite) has then done
 * each before the next begins; with others (PostgreSQL, DynamoDB) they run side by side and end in any order: whoever
 * needs an order awaits the answer. Replies go out in one message per turn, but before the next write begins, whose
 * fsync they need not wait for.
 */
import type { MessagePort } from 'node:worker_threads';
import { StreamHouseError } from '../../src/core/errors.ts';
import { callMetadataStore, METADATA_METHODS } from './forwarding-metadata-store.ts';
import type { MetadataStore } from './metadata-store.ts';
import { moveResultBytes, type StoreReply, type StoreRequest } from './store-messages.ts';

export interface ServingHooks {
  /** Between calls, after a write: the store's own housekeeping. */
  afterWrite?: () => void;
  /**
   * The store threw something that is no operating error, so it is not known what it still is: the thread must
   * end. The caller's request is not answered; it fails when the port closes.
   */
  onBug: (error: unknown) => void;
}

/** Serves `store` on `port` until either end closes it. The port does not keep the thread alive. */
export function serveMetadataStore(store: MetadataStore, port: MessagePort, hooks: ServingHooks): void {
  const queue: StoreRequest[] = [];
  let isDraining = false;
  let replies: StoreReply[] = [];
  let moved: ArrayBuffer[] = [];

  const flush = () => {
    if (replies.length === 0) return;
    port.postMessage(replies, moved);
    replies = [];
    moved = [];
  };

  const serve = async ({ id, method, args }: StoreRequest): Promise<void> => {
    try {
      const result = await callMetadataStore(store, method, args);
      replies.push({ id, result: moveResultBytes(method, result, moved) as StoreReply['result'] });
    } catch (error) {
      if (error instanceof StreamHouseError) replies.push({ id, error: error.toPlain() });
      else hooks.onBug(error);
    }
    if (replies.length === 1) setImmediate(flush);
  };

  const drain = async (): Promise<void> => {
    isDraining = true;
    for (let request = queue.shift(); request; request = queue.shift()) {
      void serve(request);
      const isWrite = METADATA_METHODS[request.method] === 'write';
      const isBeforeWrite = queue.length > 0 && METADATA_METHODS[queue[0].method] === 'write';
      if (!isWrite && !isBeforeWrite) continue;
      await nextTurn();
      flush();
      if (isWrite) hooks.afterWrite?.();
    }
    isDraining = false;
  };

  port.on('message', (requests: StoreRequest[]) => {
    queue.push(...requests);
    if (!isDraining) void drain();
  });
  port.unref();
}

/** After the microtasks of this turn, and after other ports had theirs. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
