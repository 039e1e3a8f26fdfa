/**
 * What befalls requests to the simulated stores. Owns: how often and how badly, for one seed, and outages. Does
 * not own: requests themselves (sim-metadata-store, sim-object-store). The simulation's only thread.
 */
import type { Random } from '../../src/core/random.ts';
import type { SimHost } from './host.ts';
import type { Scheduler } from './scheduler.ts';

/** One request's fate. */
export interface Fate {
  /** From sending to execution; null: it never arrives. */
  requestMs: number | null;
  /** From execution to the reply's arrival; null: it is lost. */
  replyMs: number | null;
  /** The store refuses it before anything happens. */
  refused: boolean;
}

export interface FaultRates {
  /** Each a probability per request. */
  refused: number;
  dropped: number;
  replyLost: number;
  /** Executed long after its sender stopped waiting. */
  late: number;
  slow: number;
}

export const CALM: FaultRates = { refused: 0, dropped: 0, replyLost: 0, late: 0, slow: 0.01 };

export class Faults {
  rates: FaultRates = CALM;
  #scheduler: Scheduler;
  #random: Random;
  #outageUntilMs = 0;
  readonly #partitionedUntilMs = new Map<SimHost, number>();

  constructor(scheduler: Scheduler, random: Random) {
    this.#scheduler = scheduler;
    this.#random = random;
  }

  /** The store is away for all. */
  beginOutage(ms: number): void {
    this.#outageUntilMs = this.#scheduler.nowMs + ms;
  }

  /** The store is away for one process. */
  partition(host: SimHost, ms: number): void {
    this.#partitionedUntilMs.set(host, this.#scheduler.nowMs + ms);
  }

  heal(): void {
    this.rates = CALM;
    this.#outageUntilMs = 0;
    this.#partitionedUntilMs.clear();
  }

  draw(host: SimHost): Fate {
    const random = this.#random;
    const { rates } = this;
    const now = this.#scheduler.nowMs;
    const awayUntil = Math.max(this.#outageUntilMs, this.#partitionedUntilMs.get(host) ?? 0);
    if (awayUntil > now) {
      const dice = random.below(4);
      if (dice === 0)
        return { requestMs: awayUntil - now + random.unit() * 30, replyMs: null, refused: false };
      if (dice === 1) return { requestMs: 1 + random.unit() * 3, replyMs: null, refused: false };
      return { requestMs: dice === 2 ? null : 1, replyMs: 1, refused: dice === 3 };
    }
    const requestMs = 0.2 + random.unit() * 2;
    const replyMs = 0.2 + random.unit() * 2;
    const dice = random.unit();
    let edge = rates.refused;
    if (dice < edge) return { requestMs, replyMs, refused: true };
    if (dice < (edge += rates.dropped)) return { requestMs: null, replyMs, refused: false };
    if (dice < (edge += rates.replyLost)) return { requestMs, replyMs: null, refused: false };
    if (dice < (edge += rates.late)) {
      return { requestMs: 100 + random.unit() ** 2 * 1400, replyMs, refused: false };
    }
    if (dice < edge + rates.slow) {
      const slowMs = random.unit() * 60;
      return { requestMs: requestMs + slowMs, replyMs: replyMs + 60 - slowMs, refused: false };
    }
    return { requestMs, replyMs, refused: false };
  }
}
