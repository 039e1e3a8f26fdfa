/**
 * The search for the first ref at or after a time in one partition. Owns: bisection by offset over pages, for
 * where pages begin is not known before they are read; every step rules out a whole page and half of the
 * offsets that are left, so it reads O(log n) pages. Does not own: reading pages. Pure; a lane's thread.
 */
import type { Block, PartitionIndex } from './partition-index.ts';
import { type SegmentRef, searchTimestamps, unpackRef } from './segment-ref.ts';

export class TimeSearch {
  readonly owner: PartitionIndex;
  readonly #timestampMs: number;
  /** All refs below `#low` are older; at and above `#high` lies none that comes before `found`. */
  #low: number;
  #high: number;
  /** The first ref known to be at or after the time; the answer once `run` has ended. */
  found: SegmentRef | null = null;

  constructor(owner: PartitionIndex, timestampMs: number) {
    this.owner = owner;
    this.#timestampMs = timestampMs;
    this.#low = owner.logStart;
    this.#high = owner.nextOffset;
  }

  /**
   * Goes on as far as blocks in memory allow. Returns an offset whose page must be loaded and handed to the next
   * call, or -1 when `found` is the answer.
   */
  run(loaded: Block | null): number {
    this.#low = Math.max(this.#low, this.owner.logStart);
    while (this.#low < this.#high) {
      const isFirst = this.#high === this.owner.nextOffset;
      const probe = isFirst ? this.#high - 1 : this.#low + Math.floor((this.#high - this.#low) / 2);
      const block =
        loaded !== null && probe >= loaded.base && probe < loaded.next ? loaded : this.owner.blockAt(probe);
      if (block === null || probe < block.from) return probe;
      this.#narrow(block);
    }
    return -1;
  }

  /** By the refs of a block that are in memory, of which at least one lies in [low, high). */
  #narrow(block: Block): void {
    const { refs, refCount } = block;
    const least = this.#low > block.from ? block.indexOf(this.#low) : 0;
    const index = Math.max(least, searchTimestamps(refs, refCount, this.#timestampMs));
    if (index === refCount) {
      this.#low = block.next;
      return;
    }
    this.found = unpackRef(refs, index, block.nextOffsetOf(index));
    this.#high = index > least || this.#low > block.from ? this.#low : block.from;
  }
}
