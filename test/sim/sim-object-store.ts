/**
 * One thread's connection to the simulated object store: late, lost, very slow, executed after it was given up.
 * Owns: a request's way there and back. Does not own: the objects (the memory backend, shared by all
 * connections). The simulation's only thread.
 */
import { StreamHouseError } from '../../src/core/errors.ts';
import {
  type ByteRange,
  type CallOptions,
  givenUp,
  type ListOptions,
  type ObjectListing,
  type ObjectStore,
} from '../../storage/objects/object-store.ts';
import type { Faults } from './faults.ts';
import type { SimThread } from './host.ts';

/** How long one attempt waits for its reply, virtual ms. */
const OBJECT_TIMEOUT_MS = 400;

export class SimObjectStore implements ObjectStore {
  readonly description = 'simulated';
  readonly #inner: ObjectStore;
  readonly #faults: Faults;
  readonly #thread: SimThread;

  constructor(inner: ObjectStore, faults: Faults, thread: SimThread) {
    this.#inner = inner;
    this.#faults = faults;
    this.#thread = thread;
  }

  put(key: string, bytes: Uint8Array, options?: CallOptions): Promise<void> {
    return this.#call(`put ${key}`, true, options?.signal, () => this.#inner.put(key, bytes));
  }

  get(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    return this.#call(`get ${key}`, false, options?.signal, () => this.#inner.get(key, range));
  }

  list(prefix: string, options: ListOptions): Promise<ObjectListing[]> {
    return this.#call(`list ${prefix}`, false, undefined, () => this.#inner.list(prefix, options));
  }

  delete(key: string, options?: CallOptions): Promise<void> {
    return this.#call(`delete ${key}`, true, options?.signal, () => this.#inner.delete(key));
  }

  async close(): Promise<void> {
    // Connections of a dead thread need no ending.
  }

  #call<T>(
    doing: string,
    isWrite: boolean,
    signal: AbortSignal | undefined,
    execute: () => Promise<T>,
  ): Promise<T> {
    const thread = this.#thread;
    const { scheduler, random } = thread.host;
    const fate = this.#faults.draw(thread.host);
    const extraMs = random.unit() ** 4 * 20;
    return new Promise((resolve, reject) => {
      let settled = false;
      const settle = (how: () => void) =>
        thread.deliver(() => {
          if (settled) return;
          settled = true;
          timeout.cancelled = true;
          how();
        });
      const timeout = scheduler.after(OBJECT_TIMEOUT_MS, () => {
        const code = isWrite ? 'object-store-unknown' : 'object-store-unavailable';
        settle(() => reject(new StreamHouseError(code, `${doing}: no reply`)));
      });
      signal?.addEventListener('abort', () => {
        if (settled) return;
        settled = true;
        timeout.cancelled = true;
        reject(givenUp(doing, 'maybe'));
      });
      const { requestMs, replyMs } = fate;
      if (requestMs === null) return;
      const reply = (how: () => void) => {
        if (replyMs !== null) scheduler.after(replyMs, () => settle(how));
      };
      scheduler.after(requestMs + extraMs, () => {
        if (fate.refused) {
          reply(() => reject(new StreamHouseError('object-store-unavailable', `${doing}: refused`)));
          return;
        }
        execute().then(
          (result) => reply(() => resolve(result)),
          (error) => reply(() => reject(error)),
        );
      });
    });
  }
}
