/**
 * Uploads sealed objects: several at a time, a slow one hedged, one that misses its deadline given up. Owns: the
 * order of starting, the hedge, the deadline. Does not own: retries of single attempts (the object store's
 * decorator), commit order (sequencer). Runs in the batching worker.
 *
 * An upload slower than twice the median of the last ones is sent a second time under the same key with the same
 * bytes; a put is put-if-absent of exactly these bytes, so whichever arrives first serves both.
 */
import type { Clock, Timer } from '../src/core/clock.ts';
import { operatingError, StreamHouseError } from '../src/core/errors.ts';
import { batchObjectKey } from '../storage/objects/object-key.ts';
import type { ObjectStore } from '../storage/objects/object-store.ts';
import type { SealedObject } from './batch-builder.ts';

export interface UploaderSettings {
  /** Objects uploaded at the same time. */
  uploadsInFlightMax: number;
  /** From the start of an upload to its giving up, ms. */
  uploadDeadlineMs: number;
}

export interface UploaderObserver {
  uploaded(ms: number, bytes: number): void;
  failed(error: StreamHouseError): void;
  hedged(): void;
}

/** Uploads remembered for the median; and how many must be known before any is hedged. */
const SAMPLES_MAX = 64;
const SAMPLES_MIN = 16;
/** No hedge earlier than this: below it a second request costs more than it can win. */
const HEDGE_MS_MIN = 50;

/** A reason of its own: without one every abort would make an exception with a stack. */
const NO_LONGER_WANTED = 'the upload is over';

export class Uploader {
  readonly #store: ObjectStore;
  readonly #clock: Clock;
  readonly #settings: UploaderSettings;
  readonly #observer: UploaderObserver;
  readonly #waiting: { object: SealedObject; resolve: () => void; reject: (error: unknown) => void }[] = [];
  readonly #samples: number[] = [];
  #active = 0;
  #sample = 0;

  constructor(store: ObjectStore, clock: Clock, settings: UploaderSettings, observer: UploaderObserver) {
    this.#store = store;
    this.#clock = clock;
    this.#settings = settings;
    this.#observer = observer;
  }

  get active(): number {
    return this.#active;
  }

  /** Resolves when the object is stored; rejects when it was given up (it may be stored all the same). */
  upload(object: SealedObject): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ object, resolve, reject });
      this.#startNext();
    });
  }

  #startNext(): void {
    while (this.#active < this.#settings.uploadsInFlightMax) {
      const next = this.#waiting.shift();
      if (!next) return;
      this.#active++;
      this.#run(next.object).then(next.resolve, next.reject);
    }
  }

  async #run(object: SealedObject): Promise<void> {
    const startMs = this.#clock.monotonicMs();
    try {
      await this.#hedgedPut(object);
      const ms = this.#clock.monotonicMs() - startMs;
      this.#samples[this.#sample++ % SAMPLES_MAX] = ms;
      this.#observer.uploaded(ms, object.byteLength);
    } catch (error) {
      const failure = operatingError(error);
      this.#observer.failed(failure);
      throw failure;
    } finally {
      this.#active--;
      this.#startNext();
    }
  }

  #hedgedPut(object: SealedObject): Promise<void> {
    const key = batchObjectKey(object.id.incarnation, object.id.number);
    const giveUp = new AbortController();
    const timers: Timer[] = [];
    return new Promise<void>((resolve, reject) => {
      let outstanding = 0;
      const end = () => {
        for (const timer of timers) timer.cancel();
        giveUp.abort(NO_LONGER_WANTED);
      };
      const attempt = () => {
        outstanding++;
        this.#store.put(key, object.bytes, { signal: giveUp.signal }).then(
          () => {
            end();
            resolve();
          },
          (error) => {
            outstanding--;
            // Other bytes under our key are our bug or somebody's interference: no second attempt mends that.
            const hopeless = error instanceof StreamHouseError && error.code === 'object-exists';
            if (outstanding > 0 && !hopeless) return;
            end();
            reject(error);
          },
        );
      };
      timers.push(
        this.#clock.after(this.#settings.uploadDeadlineMs, () => {
          end();
          reject(new StreamHouseError('object-store-unknown', `upload of ${key} missed its deadline`));
        }),
      );
      const hedgeMs = this.#hedgeMs();
      if (hedgeMs !== null) {
        timers.push(
          this.#clock.after(hedgeMs, () => {
            this.#observer.hedged();
            attempt();
          }),
        );
      }
      attempt();
    });
  }

  /** null: too little is known yet. */
  #hedgeMs(): number | null {
    if (this.#samples.length < SAMPLES_MIN) return null;
    const sorted = [...this.#samples].sort((a, b) => a - b);
    return Math.max(HEDGE_MS_MIN, 2 * sorted[sorted.length >> 1]);
  }
}
