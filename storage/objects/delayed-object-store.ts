/**
 * Makes any object store as slow as a distant one, for load tests: every call waits first, by a distribution that
 * is drawn from a seed. Owns: the distribution and the waiting. Does not own: the store, or its URL
 * (open-object-store). Any thread.
 *
 * Waits are log-normal through the given median and 99th percentile, as answer times of S3 are to a good
 * approximation, and one call in 500 waits `maxMs`.
 */
import { type Clock, sleep } from '../../src/core/clock.ts';
import { type Random, seededRandom } from '../../src/core/random.ts';
import {
  type ByteRange,
  type CallOptions,
  givenUp,
  type ListOptions,
  type ObjectListing,
  type ObjectStore,
} from './object-store.ts';

export interface DelayProfile {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly seed: number;
}

/** Share of calls that wait `maxMs`. */
const SLOWEST_SHARE = 1 / 500;
/** How many standard deviations above the median 1 % of all calls begin, those that wait `maxMs` counted in. */
const P99_DEVIATIONS = 2.408;

/** The next wait, ms. */
export function drawDelayMs({ p50Ms, p99Ms, maxMs }: DelayProfile, random: Random): number {
  if (random.unit() < SLOWEST_SHARE) return maxMs;
  // Box-Muller; 1 - unit() is never 0.
  const normal = Math.sqrt(-2 * Math.log(1 - random.unit())) * Math.cos(2 * Math.PI * random.unit());
  const sigma = Math.log(p99Ms / p50Ms) / P99_DEVIATIONS;
  return Math.min(maxMs, p50Ms * Math.exp(sigma * normal));
}

export class DelayedObjectStore implements ObjectStore {
  readonly description: string;
  readonly #inner: ObjectStore;
  readonly #clock: Clock;
  readonly #profile: DelayProfile;
  readonly #random: Random;

  constructor(inner: ObjectStore, clock: Clock, profile: DelayProfile) {
    this.#inner = inner;
    this.#clock = clock;
    this.#profile = profile;
    this.#random = seededRandom(profile.seed);
    const { p50Ms, p99Ms, maxMs } = profile;
    this.description = `${inner.description}, delayed by ${p50Ms} ms (p99 ${p99Ms} ms, at most ${maxMs} ms)`;
  }

  async put(key: string, bytes: Uint8Array, options?: CallOptions): Promise<void> {
    await this.#wait(`put of ${key}`, options);
    return this.#inner.put(key, bytes, options);
  }

  async get(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    await this.#wait(`get of ${key}`, options);
    return this.#inner.get(key, range, options);
  }

  async list(prefix: string, options: ListOptions): Promise<ObjectListing[]> {
    await this.#wait(`list of ${prefix}`, options);
    return this.#inner.list(prefix, options);
  }

  async delete(key: string, options?: CallOptions): Promise<void> {
    await this.#wait(`delete of ${key}`, options);
    return this.#inner.delete(key, options);
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  /** Given up while it waits, a call never reached the store. */
  async #wait(doing: string, options: CallOptions | undefined): Promise<void> {
    await sleep(this.#clock, drawDelayMs(this.#profile, this.#random), options?.signal);
    if (options?.signal?.aborted) throw givenUp(doing, 'no');
  }
}
