/**
 * A metadata store whose calls are made again when the store did not answer. Owns: the number of tries and the time
 * between them. Only for calls that may be made twice, as all calls of a copy may; a reply that was lost is then as
 * good as none. Main thread.
 */
import {
  callMetadataStore,
  ForwardingMetadataStore,
  type MetadataArguments,
  type MetadataMethod,
  type MetadataResult,
} from '../../storage/metadata/forwarding-metadata-store.ts';
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { type Clock, sleep } from '../core/clock.ts';
import { StreamHouseError } from '../core/errors.ts';
import type { Random } from '../core/random.ts';

/** Some 12 s in all: a failover, not an outage. */
const TRIES_MAX = 8;
const BACKOFF_MS_FIRST = 100;
const BACKOFF_MS_MAX = 4000;

export class PatientStore extends ForwardingMetadataStore {
  readonly description: string;
  readonly bodyBytesMax: number;
  readonly #inner: MetadataStore;
  readonly #parts: { clock: Clock; random: Random; stop: AbortSignal };

  constructor(inner: MetadataStore, parts: { clock: Clock; random: Random; stop: AbortSignal }) {
    super();
    this.description = inner.description;
    this.bodyBytesMax = inner.bodyBytesMax;
    this.#inner = inner;
    this.#parts = parts;
  }

  protected override async forward<M extends MetadataMethod>(
    method: M,
    args: MetadataArguments<M>,
  ): Promise<MetadataResult<M>> {
    const { clock, random, stop } = this.#parts;
    for (let tried = 1; ; tried++) {
      stop.throwIfAborted();
      try {
        return await callMetadataStore(this.#inner, method, args);
      } catch (error) {
        const isTransient =
          error instanceof StreamHouseError &&
          (error.code === 'store-unavailable' || error.code === 'store-unknown');
        if (!isTransient || tried === TRIES_MAX) throw error;
        const limitMs = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_FIRST * 2 ** tried);
        await sleep(clock, limitMs * (0.5 + random.unit() / 2), stop);
      }
    }
  }

  /** The store belongs to whoever opened it, who closes it. */
  async close(): Promise<void> {
    throw new Error('a borrowed store was closed');
  }
}
