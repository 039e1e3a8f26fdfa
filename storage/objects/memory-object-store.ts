/**
 * Objects in memory, for tests and the simulation. Owns the objects of one store; `memory:NAME` stores are
 * shared by all who open that name on the same thread, until the last of them closes. Keeps copies: what a
 * caller does to its bytes afterwards changes nothing here. Not durable, not shared between threads.
 */
import type { Clock } from '../../src/core/clock.ts';
import {
  assertByteRange,
  type ByteRange,
  type CallOptions,
  checkObjectBytes,
  checkObjectKey,
  compareKeys,
  givenUp,
  type ListOptions,
  type ObjectListing,
  type ObjectStore,
  objectExists,
  objectNotFound,
  rangeWithin,
  storeClosed,
} from './object-store.ts';

interface StoredObject {
  readonly bytes: Buffer;
  readonly modifiedMs: number;
}

interface SharedObjects {
  readonly objects: Map<string, StoredObject>;
  openers: number;
}

/** The named stores of this thread; an entry lives as long as somebody has it open. */
const sharedByName = new Map<string, SharedObjects>();

function ownCopy(bytes: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}

export class MemoryObjectStore implements ObjectStore {
  readonly description: string;
  readonly #clock: Clock;
  readonly #name: string;
  readonly #objects: Map<string, StoredObject>;
  #closed = false;

  /** `name` shares the objects with all who open the same name on this thread; without it they are its own. */
  constructor(clock: Clock, name = '') {
    this.#clock = clock;
    this.#name = name;
    this.description = `memory:${name}`;
    if (name === '') {
      this.#objects = new Map();
      return;
    }
    const shared = sharedByName.get(name) ?? { objects: new Map(), openers: 0 };
    shared.openers++;
    sharedByName.set(name, shared);
    this.#objects = shared.objects;
  }

  async put(key: string, bytes: Uint8Array, options?: CallOptions): Promise<void> {
    this.#check(key, options?.signal, 'put');
    checkObjectBytes(key, bytes.length);
    const there = this.#objects.get(key);
    if (there !== undefined) {
      if (there.bytes.equals(bytes)) return;
      throw objectExists(key);
    }
    this.#objects.set(key, { bytes: ownCopy(bytes), modifiedMs: this.#clock.wallMs() });
  }

  async get(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    this.#check(key, options?.signal, 'get');
    if (range !== undefined) assertByteRange(range);
    const there = this.#objects.get(key);
    if (there === undefined) throw objectNotFound(key);
    const { position, length } = rangeWithin(key, there.bytes.length, range);
    return ownCopy(there.bytes.subarray(position, position + length));
  }

  async list(prefix: string, options: ListOptions): Promise<ObjectListing[]> {
    if (this.#closed) throw storeClosed(this.description);
    if (options.signal?.aborted) throw givenUp(`list ${prefix}`, 'no');
    const { after, limit } = options;
    const keys = [...this.#objects.keys()].filter(
      (key) => key.startsWith(prefix) && (after === undefined || compareKeys(key, after) > 0),
    );
    return keys
      .sort(compareKeys)
      .slice(0, limit)
      .map((key) => {
        const { bytes, modifiedMs } = this.#objects.get(key)!;
        return { key, bytes: bytes.length, modifiedMs };
      });
  }

  async delete(key: string, options?: CallOptions): Promise<void> {
    this.#check(key, options?.signal, 'delete');
    this.#objects.delete(key);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const shared = sharedByName.get(this.#name);
    if (this.#name !== '' && shared !== undefined && --shared.openers === 0) sharedByName.delete(this.#name);
  }

  #check(key: string, signal: AbortSignal | undefined, doing: string): void {
    if (this.#closed) throw storeClosed(this.description);
    checkObjectKey(key);
    if (signal?.aborted) throw givenUp(`${doing} ${key}`, 'no');
  }
}
