/**
 * Retries around any object store. Owns: how often, how long an attempt may take, how long to wait between
 * them, and what the outcome of several attempts is. Does not own what is retriable (core/errors: unavailable
 * and unknown) or the caller's deadline (its signal). A put whose reply was lost is proven by putting the same
 * again: the store below compares the bytes. Any thread.
 *
 * The outcome of a put is `unavailable` only if *every* attempt was: an attempt that timed out or lost its
 * reply may have landed, or may land later, and so may the put.
 */
import { type Clock, sleep } from '../../src/core/clock.ts';
import { isRetriable, StreamHouseError } from '../../src/core/errors.ts';
import type { Random } from '../../src/core/random.ts';
import {
  type ByteRange,
  type CallOptions,
  givenUp,
  type ListOptions,
  type ObjectListing,
  type ObjectStore,
} from './object-store.ts';

export interface RetryPolicy {
  /** Attempts in all, the first included. */
  readonly attemptsMax: number;
  /** One attempt is given up after this long. */
  readonly attemptMsMax: number;
  /** Before the second attempt up to this long is waited, twice that before the third, and so on. */
  readonly backoffMsFirst: number;
  readonly backoffMsMax: number;
}

/** About 3 s of waiting over 6 attempts: rides out a restart or a throttled prefix, not an outage. */
export const RETRY_POLICY_DEFAULT: RetryPolicy = {
  attemptsMax: 6,
  attemptMsMax: 10_000,
  backoffMsFirst: 100,
  backoffMsMax: 2_000,
};

export interface RetryingObjectStoreOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly policy?: Partial<RetryPolicy>;
  /** Told of every attempt that failed and will be made again. */
  readonly onRetry?: (call: string, attempt: number, error: StreamHouseError) => void;
}

type Attempt<T> = (signal: AbortSignal) => Promise<T>;

function worthRetrying(error: unknown): error is StreamHouseError {
  // A full disk or a missing bucket is not mended in seconds.
  return (
    error instanceof StreamHouseError &&
    isRetriable(error) &&
    error.code !== 'disk-full' &&
    error.detail?.permanent !== true
  );
}

export class RetryingObjectStore implements ObjectStore {
  readonly #inner: ObjectStore;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #policy: RetryPolicy;
  readonly #onRetry: RetryingObjectStoreOptions['onRetry'];
  readonly #closing = new AbortController();

  constructor(inner: ObjectStore, options: RetryingObjectStoreOptions) {
    this.#inner = inner;
    this.#clock = options.clock;
    this.#random = options.random;
    this.#policy = { ...RETRY_POLICY_DEFAULT, ...options.policy };
    this.#onRetry = options.onRetry;
  }

  get description(): string {
    return this.#inner.description;
  }

  put(key: string, bytes: Uint8Array, options?: CallOptions): Promise<void> {
    return this.#run(`put ${key}`, true, options, (signal) => this.#inner.put(key, bytes, { signal }));
  }

  get(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    return this.#run(`get ${key}`, false, options, (signal) => this.#inner.get(key, range, { signal }));
  }

  list(prefix: string, options: ListOptions): Promise<ObjectListing[]> {
    return this.#run(`list ${prefix}`, false, options, (signal) =>
      this.#inner.list(prefix, { ...options, signal }),
    );
  }

  delete(key: string, options?: CallOptions): Promise<void> {
    return this.#run(`delete ${key}`, true, options, (signal) => this.#inner.delete(key, { signal }));
  }

  close(): Promise<void> {
    this.#closing.abort();
    return this.#inner.close();
  }

  async #run<T>(
    doing: string,
    changes: boolean,
    options: CallOptions | undefined,
    attempt: Attempt<T>,
  ): Promise<T> {
    // Listeners taken off again, not AbortSignal.any: the closing signal outlives every call.
    const stop = new AbortController();
    const onStop = (): void => stop.abort();
    const sources = [this.#closing.signal, options?.signal].filter((source) => source !== undefined);
    for (const source of sources) {
      if (source.aborted) stop.abort();
      else source.addEventListener('abort', onStop, { once: true });
    }
    try {
      return await this.#attempts(doing, changes, stop.signal, attempt);
    } finally {
      for (const source of sources) source.removeEventListener('abort', onStop);
    }
  }

  async #attempts<T>(doing: string, changes: boolean, stop: AbortSignal, attempt: Attempt<T>): Promise<T> {
    const { attemptsMax, backoffMsFirst, backoffMsMax } = this.#policy;
    // Whether an attempt so far may have taken effect; then the whole may have.
    let maybe = false;
    for (let number = 1; ; number++) {
      if (stop.aborted) throw givenUp(doing, maybe ? 'maybe' : 'no');
      try {
        return await this.#once(doing, changes, stop, attempt);
      } catch (error) {
        if (error instanceof StreamHouseError && error.kind === 'unknown') maybe = true;
        if (!worthRetrying(error)) throw maybe ? asUnknown(doing, error) : error;
        if (number >= attemptsMax) {
          throw maybe ? asUnknown(`${doing}, ${number} attempts`, error) : error;
        }
        if (!stop.aborted) this.#onRetry?.(doing, number, error);
      }
      const ceilingMs = Math.min(backoffMsMax, backoffMsFirst * 2 ** (number - 1));
      await sleep(this.#clock, ceilingMs * (0.5 + 0.5 * this.#random.unit()), stop);
    }
  }

  /** One attempt, given up when its time is over, also by a store that does not heed the signal. */
  async #once<T>(doing: string, changes: boolean, stop: AbortSignal, attempt: Attempt<T>): Promise<T> {
    const { attemptMsMax } = this.#policy;
    const attemptEnd = new AbortController();
    let giveUp: (error: StreamHouseError) => void;
    const late = new Promise<never>((_resolve, reject) => {
      giveUp = reject;
    });
    const onStop = (): void => {
      attemptEnd.abort();
      giveUp(givenUp(doing, changes ? 'maybe' : 'no'));
    };
    const timer = this.#clock.after(attemptMsMax, () => {
      attemptEnd.abort();
      const code = changes ? 'object-store-unknown' : 'object-store-unavailable';
      giveUp(new StreamHouseError(code, `${doing}: no answer within ${attemptMsMax} ms`));
    });
    stop.addEventListener('abort', onStop, { once: true });
    try {
      return await Promise.race([attempt(attemptEnd.signal), late]);
    } finally {
      timer.cancel();
      stop.removeEventListener('abort', onStop);
    }
  }
}

/**
 * The outcome when an earlier attempt may have taken effect: errors that say "nothing happened" speak for the
 * last attempt only. Those that tell what the store holds (`object-exists`) or that the request is wrong stand.
 */
function asUnknown(doing: string, error: unknown): unknown {
  if (!(error instanceof StreamHouseError) || error.kind !== 'unavailable') return error;
  const message = `${doing}: an attempt may have succeeded; the last one: ${error.message}`;
  return new StreamHouseError('object-store-unknown', message, error.detail, error);
}
