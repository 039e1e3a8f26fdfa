/**
 * Which fault comes when: every kind that a run can have once in each round, in an order of the seed's. Owns: that
 * order. Does not own: the faults. Pure.
 */
import { type Random, seededRandom } from '../../src/core/random.ts';

/** What comes as number `index` of the seed's schedule; its parameters come from `random`. */
export interface ScheduledFault {
  index: number;
  kind: string;
  random: Random;
}

export function* faultSchedule(seed: number, kinds: readonly string[]): Generator<ScheduledFault> {
  const order = seededRandom(seed);
  for (let index = 0; ; ) {
    const round = [...kinds];
    for (let i = round.length - 1; i > 0; i--) {
      const j = order.below(i + 1);
      [round[i], round[j]] = [round[j], round[i]];
    }
    // Each has a source of its own: however often one draws, the next is the same.
    for (const kind of round) yield { index: ++index, kind, random: seededRandom(seed + 7919 * index) };
  }
}
