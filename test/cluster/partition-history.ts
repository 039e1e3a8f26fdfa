/**
 * What is known of one partition from a history: which record was seen at which offset, since when, and how far the
 * partition was known to reach at any time. Owns: that. Does not own: what was sent (checker.ts). Any process.
 */
import type { ReadRow } from './history.ts';

export interface Slot {
  text: string | null;
  /** Of the first reader; null while only an acknowledgement named the offset. */
  timestamp: number | null;
  key: string | null;
  /** When anyone was first told that this record is here. */
  knownAt: number;
  isFinal: boolean;
}

export class PartitionHistory {
  readonly topic: string;
  readonly partition: number;
  readonly slots: (Slot | undefined)[] = [];
  /** From the final read; null without one. */
  finalEnd: number | null = null;
  /** The greatest known offset by time: both ascend. */
  readonly #knownAt: number[] = [];
  readonly #knownOffset: number[] = [];

  constructor(topic: string, partition: number) {
    this.topic = topic;
    this.partition = partition;
  }

  /** An acknowledgement; returns what stands there already, if that is something else. */
  acknowledge(offset: number, text: string, at: number): Slot | null {
    this.#reaches(offset, at);
    const slot = this.slots[offset];
    if (slot === undefined) {
      this.slots[offset] = { text, timestamp: null, key: null, knownAt: at, isFinal: false };
      return null;
    }
    return slot.text === text ? null : slot;
  }

  /** A record as read; returns what stands there already, if that differs in anything. */
  read([offset, timestamp, key, text]: ReadRow, at: number, isFinal: boolean): Slot | null {
    this.#reaches(offset, at);
    const slot = this.slots[offset];
    if (slot === undefined) {
      this.slots[offset] = { text, timestamp, key, knownAt: at, isFinal };
      return null;
    }
    const differs =
      slot.text !== text || (slot.timestamp !== null && (slot.timestamp !== timestamp || slot.key !== key));
    if (differs) return slot;
    slot.timestamp = timestamp;
    slot.key = key;
    slot.isFinal ||= isFinal;
    return null;
  }

  /** The greatest offset that anyone had been told of before `at`; -1 if none. */
  knownBefore(at: number): number {
    let low = 0;
    let high = this.#knownAt.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#knownAt[middle] < at) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? -1 : this.#knownOffset[low - 1];
  }

  #reaches(offset: number, at: number): void {
    if (offset <= (this.#knownOffset.at(-1) ?? -1)) return;
    this.#knownAt.push(at);
    this.#knownOffset.push(offset);
  }
}
