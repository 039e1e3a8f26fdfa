/**
 * Counts and times the calls of any object store. Owns nothing but the telling: one call of the observer for
 * each call that ended, whatever its outcome. Does not own metrics (src/observe). Put it outside the retries to
 * see what callers see, inside to see each attempt. Any thread.
 */
import type { Clock } from '../../src/core/clock.ts';
import { type ErrorCode, StreamHouseError } from '../../src/core/errors.ts';
import type { ByteRange, CallOptions, ListOptions, ObjectListing, ObjectStore } from './object-store.ts';

export type ObjectCall = 'put' | 'get' | 'list' | 'delete';

/** `bytes` are those put or got; 0 for the other calls, and for a get that failed. */
export type ObjectCallObserver = (
  call: ObjectCall,
  outcome: 'ok' | ErrorCode,
  ms: number,
  bytes: number,
) => void;

export class InstrumentedObjectStore implements ObjectStore {
  readonly #inner: ObjectStore;
  readonly #clock: Clock;
  readonly #observe: ObjectCallObserver;

  constructor(inner: ObjectStore, clock: Clock, observe: ObjectCallObserver) {
    this.#inner = inner;
    this.#clock = clock;
    this.#observe = observe;
  }

  get description(): string {
    return this.#inner.description;
  }

  put(key: string, bytes: Uint8Array, options?: CallOptions): Promise<void> {
    return this.#timed('put', this.#inner.put(key, bytes, options), () => bytes.length, bytes.length);
  }

  get(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    return this.#timed('get', this.#inner.get(key, range, options), (bytes) => bytes.length, 0);
  }

  list(prefix: string, options: ListOptions): Promise<ObjectListing[]> {
    return this.#timed('list', this.#inner.list(prefix, options), () => 0, 0);
  }

  delete(key: string, options?: CallOptions): Promise<void> {
    return this.#timed('delete', this.#inner.delete(key, options), () => 0, 0);
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  async #timed<T>(
    call: ObjectCall,
    running: Promise<T>,
    bytesOf: (result: T) => number,
    bytesFailed: number,
  ): Promise<T> {
    const startMs = this.#clock.monotonicMs();
    let result: T;
    try {
      result = await running;
    } catch (error) {
      // Anything else is a bug on its way up; it is no outcome to count.
      if (error instanceof StreamHouseError) {
        this.#observe(call, error.code, this.#clock.monotonicMs() - startMs, bytesFailed);
      }
      throw error;
    }
    this.#observe(call, 'ok', this.#clock.monotonicMs() - startMs, bytesOf(result));
    return result;
  }
}
