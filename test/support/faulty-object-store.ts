/**
 * Faults around any object store, for tests: errors before and after the call took effect, delays, calls that
 * never end, corrupt bytes. The test's hook decides for each call. Owns nothing but the faults.
 */
import { type Clock, sleep } from '../../src/core/clock.ts';
import { type ErrorCode, StreamHouseError } from '../../src/core/errors.ts';
import type { ObjectCall } from '../../storage/objects/instrumented-object-store.ts';
import {
  type ByteRange,
  type CallOptions,
  givenUp,
  type ListOptions,
  type ObjectListing,
  type ObjectStore,
} from '../../storage/objects/object-store.ts';

export interface FaultyCall {
  readonly call: ObjectCall;
  /** The key, or the prefix of a list. */
  readonly key: string;
  /** 1 for the first call of this kind. */
  readonly number: number;
}

export type ObjectFault =
  /** Nothing happens. Default code: object-store-unavailable. */
  | { readonly kind: 'error'; readonly code?: ErrorCode }
  | { readonly kind: 'delay'; readonly ms: number }
  /** It happens, and fails all the same. Default code: object-store-unknown. */
  | { readonly kind: 'error-after-success'; readonly code?: ErrorCode }
  /** Nothing happens, and the call ends only by its signal or the store's close. */
  | { readonly kind: 'hang' }
  | { readonly kind: 'hang-after-success' }
  /** One bit of what a get returns is flipped; `position` counts from the bytes' beginning. */
  | { readonly kind: 'corrupt'; readonly position?: number };

export type ObjectFaultHook = (call: FaultyCall) => ObjectFault | undefined;

export class FaultyObjectStore implements ObjectStore {
  /** Asked for each call; may be replaced at any time. */
  fault: ObjectFaultHook;
  readonly counts: Record<ObjectCall, number> = { put: 0, get: 0, list: 0, delete: 0 };
  readonly #inner: ObjectStore;
  readonly #clock: Clock;
  readonly #closing = new AbortController();

  constructor(inner: ObjectStore, clock: Clock, fault: ObjectFaultHook = () => undefined) {
    this.#inner = inner;
    this.#clock = clock;
    this.fault = fault;
  }

  get description(): string {
    return this.#inner.description;
  }

  put(key: string, bytes: Uint8Array, options?: CallOptions): Promise<void> {
    return this.#run('put', key, options, () => this.#inner.put(key, bytes, options));
  }

  get(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    return this.#run('get', key, options, () => this.#inner.get(key, range, options), flipBit);
  }

  list(prefix: string, options: ListOptions): Promise<ObjectListing[]> {
    return this.#run('list', prefix, options, () => this.#inner.list(prefix, options));
  }

  delete(key: string, options?: CallOptions): Promise<void> {
    return this.#run('delete', key, options, () => this.#inner.delete(key, options));
  }

  close(): Promise<void> {
    this.#closing.abort();
    return this.#inner.close();
  }

  async #run<T>(
    call: ObjectCall,
    key: string,
    options: CallOptions | undefined,
    perform: () => Promise<T>,
    spoil?: (result: T, position: number) => T,
  ): Promise<T> {
    const fault = this.fault({ call, key, number: ++this.counts[call] });
    const doing = `${call} ${key}`;
    switch (fault?.kind) {
      case undefined:
        return perform();
      case 'error':
        throw new StreamHouseError(fault.code ?? 'object-store-unavailable', `${doing}: injected`);
      case 'delay':
        await sleep(this.#clock, fault.ms, options?.signal);
        return perform();
      case 'error-after-success':
        await perform();
        throw new StreamHouseError(fault.code ?? 'object-store-unknown', `${doing}: injected after success`);
      case 'hang':
        return this.#hang(doing, call, options);
      case 'hang-after-success':
        await perform();
        return this.#hang(doing, call, options);
      case 'corrupt':
        if (spoil === undefined) throw new Error(`a ${call} has no bytes to corrupt`);
        return spoil(await perform(), fault.position ?? 0);
    }
  }

  #hang(doing: string, call: ObjectCall, options: CallOptions | undefined): Promise<never> {
    const signals = [this.#closing.signal, options?.signal].filter((signal) => signal !== undefined);
    const ended = AbortSignal.any(signals);
    return new Promise((_resolve, reject) => {
      const end = (): void => reject(givenUp(doing, call === 'put' || call === 'delete' ? 'maybe' : 'no'));
      if (ended.aborted) end();
      else ended.addEventListener('abort', end, { once: true });
    });
  }
}

function flipBit(bytes: Buffer, position: number): Buffer {
  if (bytes.length > 0) bytes[position % bytes.length] ^= 1;
  return bytes;
}
