/**
 * Measures every call of a metadata store. Owns: the timing and the outcome's name. Does not own: histograms
 * (src/observe makes them from the observer). That no method can be missed is ForwardingMetadataStore's doing.
 * Any thread.
 */
import type { Clock } from '../../src/core/clock.ts';
import { type ErrorCode, StreamHouseError } from '../../src/core/errors.ts';
import {
  callMetadataStore,
  ForwardingMetadataStore,
  type MetadataArguments,
  type MetadataMethod,
  type MetadataResult,
} from './forwarding-metadata-store.ts';
import type { MetadataStore } from './metadata-store.ts';

/**
 * Told once per call, when it ended. `outcome`: 'ok', the code of an operating error, or 'bug' for anything else
 * that was thrown.
 */
export type MetadataCallObserver = (
  method: MetadataMethod,
  outcome: 'ok' | 'bug' | ErrorCode,
  durationMs: number,
) => void;

export class InstrumentedMetadataStore extends ForwardingMetadataStore {
  readonly description: string;
  readonly bodyBytesMax: number;
  readonly #inner: MetadataStore;
  readonly #clock: Clock;
  readonly #observe: MetadataCallObserver;

  constructor(inner: MetadataStore, clock: Clock, observe: MetadataCallObserver) {
    super();
    this.description = inner.description;
    this.bodyBytesMax = inner.bodyBytesMax;
    this.#inner = inner;
    this.#clock = clock;
    this.#observe = observe;
  }

  protected override async forward<M extends MetadataMethod>(
    method: M,
    args: MetadataArguments<M>,
  ): Promise<MetadataResult<M>> {
    const startMs = this.#clock.monotonicMs();
    let outcome: 'ok' | 'bug' | ErrorCode = 'ok';
    try {
      return await callMetadataStore(this.#inner, method, args);
    } catch (error) {
      outcome = error instanceof StreamHouseError ? error.code : 'bug';
      throw error;
    } finally {
      this.#observe(method, outcome, this.#clock.monotonicMs() - startMs);
    }
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}
