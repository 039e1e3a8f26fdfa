/**
 * How long this broker has been out of touch with the metadata store, by its own monotonic clock. Owns: the moment of
 * the last confirmed heartbeat, the rule by which reads may be answered, and telling when that ends. Does not own:
 * heartbeats (agent-loop). Main thread.
 *
 * Others declare an agent dead no sooner than `msMax` after a heartbeat of which it knows (membership): until then
 * nobody else can have taken its shards.
 */
import type { Clock, Timer } from '../core/clock.ts';

export class StoreTouch {
  readonly #clock: Clock;
  readonly #msMax: number;
  readonly #lost: () => void;
  /** When the last confirmed heartbeat or registration was sent, monotonic ms. */
  #confirmedMs = Number.NEGATIVE_INFINITY;
  #timer: Timer | null = null;

  /** `lost` is called each time that a heartbeat was confirmed and `msMax` passed without another. */
  constructor(clock: Clock, msMax: number, lost: () => void) {
    this.#clock = clock;
    this.#msMax = msMax;
    this.#lost = lost;
  }

  get isKept(): boolean {
    return this.#clock.monotonicMs() - this.#confirmedMs <= this.#msMax;
  }

  /** What was sent then has been answered. */
  confirmed(sentMs: number): void {
    this.#confirmedMs = sentMs;
    this.#timer?.cancel();
    this.#watch(sentMs + this.#msMax - this.#clock.monotonicMs());
  }

  /** Timers may fire somewhat early. */
  #watch(leftMs: number): void {
    this.#timer = this.#clock.after(Math.max(1, leftMs + 1), () => {
      if (this.isKept) this.#watch(1);
      else this.#lost();
    });
  }

  stop(): void {
    this.#timer?.cancel();
  }
}
