/**
 * When the agent loop looks: regularly, and soon when something calls for it, one look at a time. Owns: the timer and
 * the pace. Does not own: what a look is. Main thread.
 */
import type { Clock, Timer } from '../core/clock.ts';

/** Looks that something calls for begin so far apart, ms. */
const LOOK_PAUSE_MS = 50;

export interface LookPaceParts {
  clock: Clock;
  /** Never rejects. */
  look(): Promise<void>;
  /** From the beginning of the look that just ended to that of the next one, if nothing calls for it sooner, ms. */
  pauseMs(): number;
}

export class LookPace {
  readonly #parts: LookPaceParts;
  #timer: Timer | null = null;
  #nextAtMs = Number.POSITIVE_INFINITY;
  #looking = false;
  /** When something calls for another look, asked for during this one. */
  #againAtMs = Number.POSITIVE_INFINITY;
  #beganAtMs = Number.NEGATIVE_INFINITY;
  #stopped = false;

  constructor(parts: LookPaceParts) {
    this.#parts = parts;
  }

  /** Looks after `delayMs`, but not sooner than LOOK_PAUSE_MS after the last look began. */
  soon(delayMs = 0): void {
    if (this.#stopped) return;
    const nowMs = this.#parts.clock.monotonicMs();
    if (this.#looking) {
      this.#againAtMs = Math.min(this.#againAtMs, nowMs + delayMs);
      return;
    }
    this.#schedule(Math.max(delayMs, this.#beganAtMs + LOOK_PAUSE_MS - nowMs, 0), nowMs);
  }

  /** The next look is in `delayMs`, or when it was to be if that is sooner. */
  #schedule(delayMs: number, nowMs: number): void {
    if (this.#timer && this.#nextAtMs <= nowMs + delayMs) return;
    this.#timer?.cancel();
    this.#nextAtMs = nowMs + delayMs;
    this.#timer = this.#parts.clock.after(delayMs, () => {
      this.#timer = null;
      this.#nextAtMs = Number.POSITIVE_INFINITY;
      void this.#look();
    });
  }

  async #look(): Promise<void> {
    if (this.#stopped || this.#looking) return;
    const { clock, look, pauseMs } = this.#parts;
    this.#looking = true;
    this.#againAtMs = Number.POSITIVE_INFINITY;
    this.#beganAtMs = clock.monotonicMs();
    try {
      await look();
    } finally {
      this.#looking = false;
      // From beginning to beginning, so that a slow store makes no slow heartbeats, as long as one fits in.
      const atMs = Math.min(this.#beganAtMs + pauseMs(), this.#againAtMs);
      this.soon(atMs - clock.monotonicMs());
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#timer = null;
  }
}
