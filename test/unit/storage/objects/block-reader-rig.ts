/** What the tests of the block reader share: a store that is watched and held, and an observer that counts. */
import assert from 'node:assert/strict';
import { systemClock } from '../../../../src/core/clock.ts';
import { type ErrorCode, StreamHouseError } from '../../../../src/core/errors.ts';
import { seededRandom } from '../../../../src/core/random.ts';
import {
  BLOCK_KEEPING_BYTES,
  BlockReader,
  type BlockReaderObserver,
  type BlockReaderOptions,
} from '../../../../storage/objects/block-reader.ts';
import { MemoryObjectStore } from '../../../../storage/objects/memory-object-store.ts';
import {
  type ByteRange,
  type CallOptions,
  givenUp,
  type ListOptions,
  type ObjectListing,
  type ObjectStore,
} from '../../../../storage/objects/object-store.ts';

export const BLOCK = 1000;
export const KEPT = BLOCK + BLOCK_KEEPING_BYTES;

export interface Call {
  readonly key: string;
  /** `position+length`, `whole`, or `list`. */
  readonly what: string;
  readonly signal: AbortSignal | undefined;
  /** Lets the call go on, when the store is held. */
  readonly go: (error?: Error) => void;
  hasEnded: boolean;
}

/** Records the reads of a store, and holds them while `isHeld`. */
export class WatchedStore implements ObjectStore {
  readonly calls: Call[] = [];
  isHeld = false;
  /** A held call ends at once when its signal aborts. */
  heedsSignal = true;
  running = 0;
  runningMax = 0;
  isClosed = false;
  readonly #inner: ObjectStore;

  constructor(inner: ObjectStore) {
    this.#inner = inner;
  }

  get description(): string {
    return this.#inner.description;
  }

  get said(): string[] {
    return this.calls.map(({ key, what }) => `${key} ${what}`);
  }

  put(key: string, bytes: Uint8Array): Promise<void> {
    return this.#inner.put(key, bytes);
  }

  get(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    const what = range === undefined ? 'whole' : `${range.position}+${range.length}`;
    return this.#watch(key, what, options?.signal, () => this.#inner.get(key, range, options));
  }

  list(prefix: string, options: ListOptions): Promise<ObjectListing[]> {
    return this.#watch(prefix, 'list', options.signal, () => this.#inner.list(prefix, options));
  }

  delete(key: string): Promise<void> {
    return this.#inner.delete(key);
  }

  async close(): Promise<void> {
    this.isClosed = true;
    await this.#inner.close();
  }

  async #watch<T>(
    key: string,
    what: string,
    signal: AbortSignal | undefined,
    perform: () => Promise<T>,
  ): Promise<T> {
    const gate = Promise.withResolvers<void>();
    const go = (error?: Error): void => (error ? gate.reject(error) : gate.resolve());
    const call: Call = { key, what, signal, go, hasEnded: false };
    this.calls.push(call);
    this.running++;
    this.runningMax = Math.max(this.runningMax, this.running);
    const onAbort = (): void => {
      if (this.heedsSignal) gate.reject(givenUp(`get ${key}`, 'no'));
    };
    signal?.addEventListener('abort', onAbort);
    if (!this.isHeld) gate.resolve();
    try {
      await gate.promise;
      return await perform();
    } finally {
      signal?.removeEventListener('abort', onAbort);
      this.running--;
      call.hasEnded = true;
    }
  }
}

export class Told implements BlockReaderObserver {
  hits = 0;
  joins = 0;
  misses = 0;
  bypassedBytes = 0;
  reads = 0;
  readBytes = 0;
  failures: ErrorCode[] = [];
  evictedBytes = 0;
  refusals = 0;
  hit = (blocks: number): unknown => (this.hits += blocks);
  joined = (blocks: number): unknown => (this.joins += blocks);
  miss = (blocks: number): unknown => (this.misses += blocks);
  bypassed = (bytes: number): unknown => (this.bypassedBytes += bytes);
  read = (ms: number, bytes: number): void => {
    assert.ok(ms >= 0);
    this.reads++;
    this.readBytes += bytes;
  };
  failed = (_ms: number, code: ErrorCode): unknown => this.failures.push(code);
  evicted = (bytes: number): unknown => (this.evictedBytes += bytes);
  refused = (): unknown => this.refusals++;
}

export function patterned(length: number, seed: number): Buffer {
  const random = seededRandom(seed);
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = random.below(256);
  return bytes;
}

export async function setup(
  objects: Record<string, number>,
  options: Partial<Omit<BlockReaderOptions, 'store' | 'observer' | 'clock'>> = {},
  inner: ObjectStore = new MemoryObjectStore(systemClock),
) {
  const store = new WatchedStore(inner);
  const bodies: Record<string, Buffer> = {};
  for (const [key, length] of Object.entries(objects)) {
    bodies[key] = patterned(length, length);
    await store.put(key, bodies[key]);
  }
  const told = new Told();
  const reader = new BlockReader({
    store,
    clock: systemClock,
    blockBytes: BLOCK,
    budgetBytes: 100 * KEPT,
    readsInFlightMax: 4,
    readsWaitingMax: 100,
    ...options,
    observer: told,
  });
  const check = async (key: string, position: number, length: number): Promise<Buffer> => {
    const bytes = await reader.read(key, position, length);
    assert.ok(
      bytes.equals(bodies[key].subarray(position, position + length)),
      `${key} ${position}+${length}`,
    );
    return bytes;
  };
  return { store, reader, told, bodies, check };
}

export function withCode(code: ErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof StreamHouseError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  };
}

/** Until everything that can go on without the store has gone on. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
}

export const unavailable = (): StreamHouseError =>
  new StreamHouseError('object-store-unavailable', 'injected');
