/**
 * How long acknowledgements of each partition stopped around a moment: a broker was killed, or one came. Owns: the last
 * acknowledgement of each partition and, for each moment, the gap that was open shortly after it. Does not own: which
 * partitions the moment concerned (cluster-story). A generator's process.
 *
 * The gap of a moment runs from a partition's last acknowledgement before SETTLED_MS after the moment to its first one
 * after that: answers that were on their way at the moment do not end it. The longest is of all that ended from then on
 * until the next moment.
 */
import type { PartitionGaps } from './messages.ts';

/** Answers that a broker sent before it was gone are in by then. */
const SETTLED_MS = 500;

interface Moment {
  atMs: number;
  gapMs: Float64Array;
  /** When the gap ended, after the moment; 0: it has not. */
  endMs: Float64Array;
  longestMs: Float64Array;
}

export class AckGaps {
  readonly #first: number;
  readonly #step: number;
  readonly #lastMs: Float64Array;
  readonly #moments: Moment[] = [];

  /** For the partitions `first`, `first + step`, ... below `partitions`. */
  constructor(partitions: number, first: number, step: number, nowMs: number) {
    this.#first = first;
    this.#step = step;
    this.#lastMs = new Float64Array(Math.ceil((partitions - first) / step)).fill(nowMs);
  }

  /** Whatever comes from now on is about this moment. */
  mark(atMs: number): void {
    const { length } = this.#lastMs;
    const [gapMs, endMs, longestMs] = [0, 1, 2].map(() => new Float64Array(length));
    this.#moments.push({ atMs, gapMs, endMs, longestMs });
  }

  acked(partition: number, nowMs: number): void {
    const i = (partition - this.#first) / this.#step;
    const moment = this.#moments.at(-1);
    if (moment !== undefined && nowMs >= moment.atMs + SETTLED_MS) {
      const gapMs = nowMs - this.#lastMs[i];
      if (moment.endMs[i] === 0) {
        moment.gapMs[i] = gapMs;
        moment.endMs[i] = nowMs - moment.atMs;
      }
      if (gapMs > moment.longestMs[i]) moment.longestMs[i] = gapMs;
    }
    this.#lastMs[i] = nowMs;
  }

  /** By moment. A partition without a later acknowledgement has -1. */
  gaps(): PartitionGaps[] {
    return this.#moments.map(({ gapMs, endMs, longestMs }) => {
      const known = (times: Float64Array) =>
        Array.from(times, (ms, i) => (endMs[i] === 0 ? -1 : Math.round(ms)));
      return { gapMs: known(gapMs), endMs: known(endMs), longestMs: known(longestMs) };
    });
  }
}
