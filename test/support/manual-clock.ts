/**
 * A clock that a test turns by hand. Owns: its time and its timers, which fire in the order of their times while it
 * is turned. Both its times are one and the same.
 */
import type { Clock, Timer } from '../../src/core/clock.ts';

interface Pending {
  atMs: number;
  fire: () => void;
}

export class ManualClock implements Clock {
  nowMs: number;
  readonly #pending = new Set<Pending>();

  constructor(nowMs = 1000) {
    this.nowMs = nowMs;
  }

  wallMs(): number {
    return this.nowMs;
  }

  monotonicMs(): number {
    return this.nowMs;
  }

  after(delayMs: number, fire: () => void): Timer {
    const pending = { atMs: this.nowMs + delayMs, fire };
    this.#pending.add(pending);
    return { cancel: () => void this.#pending.delete(pending) };
  }

  /** Timers that wait. */
  get waiting(): number {
    return this.#pending.size;
  }

  /** Time passes; then everything that it set going has had its turn. */
  async pass(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms;
    await turn();
    for (;;) {
      const due = [...this.#pending].filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (!due) break;
      this.#pending.delete(due);
      this.nowMs = Math.max(this.nowMs, due.atMs);
      due.fire();
      await turn();
    }
    this.nowMs = untilMs;
    await turn();
  }
}

/** Promises that are settled have had their callbacks. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
