/**
 * Which partition each record goes to: in rounds, every round one record for each partition in an order of its own
 * that the seed decides, so that no partition is ever written as a run. Owns: that sequence; whoever has the plan
 * (generator, verifier) computes the same. Pure.
 */
import { type Random, seededRandom } from '../core/random.ts';
import type { LoadPlan } from './load-plan.ts';

export class RecordOrder {
  readonly #round: Uint32Array;
  readonly #random: Random;
  #next: number;

  constructor(
    { partitions, generators, seed }: Pick<LoadPlan, 'partitions' | 'generators' | 'seed'>,
    generator: number,
  ) {
    const own = Math.ceil((partitions - generator) / generators);
    this.#round = Uint32Array.from({ length: own }, (_, i) => generator + i * generators);
    this.#random = seededRandom(seed * 1_000_003 + generator);
    this.#next = own;
  }

  /** The partition of the generator's next record. */
  next(): number {
    if (this.#next === this.#round.length) {
      this.#shuffle();
      this.#next = 0;
    }
    return this.#round[this.#next++];
  }

  /** Fisher and Yates. */
  #shuffle(): void {
    const round = this.#round;
    for (let last = round.length - 1; last > 0; last--) {
      const other = this.#random.below(last + 1);
      const partition = round[last];
      round[last] = round[other];
      round[other] = partition;
    }
  }
}
