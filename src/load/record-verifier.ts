/**
 * Compares what can be read with what was sent and what was told of it: the broker's promise, as a check. Owns: the
 * counts and what each means. Does not own: reading (read-back) or the log of answers (ack-log). Pure.
 *
 *   missing     acknowledged and not read
 *   duplicated  read a second time
 *   altered     no record of this run as it was sent to this partition: other bytes, another run's, another partition's
 *   reordered   read at another offset than it was acknowledged with; or before a record of its partition whose answer
 *               had come before it was sent; or within one request in another order
 *   refused     read, though the broker had said that nothing happened
 *   gaps        offsets that do not follow one another
 */
import { type AckColumns, REFUSED_OFFSET, UNKNOWN_OFFSET, UNSENT_OFFSET } from './ack-log.ts';
import type { LoadPlan } from './load-plan.ts';
import { RecordValues } from './record-value.ts';

export interface VerifyCounts {
  read: number;
  missing: number;
  duplicated: number;
  reordered: number;
  altered: number;
  refused_read: number;
  gaps: number;
  /** Of those whose outcome nobody knew, how many are there. */
  unknown_read: number;
}

export interface ReadRecord {
  offset: number;
  key: unknown;
  value: unknown;
}

/** Where the reading of a partition stands. */
interface PartitionState {
  nextOffset: number;
  /** The latest time at which any record read so far was sent. */
  sentTickMax: number;
  /** The record read last; -1: none, or one that is none of ours. */
  last: number;
}

export class RecordVerifier {
  readonly #plan: LoadPlan;
  readonly #acks: AckColumns;
  readonly #values: RecordValues;
  readonly #seen: Uint8Array;
  readonly #states = new Map<number, PartitionState>();
  readonly #examples: string[] = [];
  readonly counts: VerifyCounts = {
    read: 0,
    missing: 0,
    duplicated: 0,
    reordered: 0,
    altered: 0,
    refused_read: 0,
    gaps: 0,
    unknown_read: 0,
  };

  constructor(plan: LoadPlan, acks: AckColumns) {
    this.#plan = plan;
    this.#acks = acks;
    this.#values = new RecordValues(plan.seed, plan.valueBytes);
    this.#seen = new Uint8Array(Math.ceil(acks.offset.length / 8));
  }

  /** The first findings in words. */
  get examples(): readonly string[] {
    return this.#examples;
  }

  /** Whether anything is wrong; true only after `finish`. */
  get isClean(): boolean {
    const { missing, duplicated, reordered, altered, refused_read, gaps } = this.counts;
    return missing + duplicated + reordered + altered + refused_read + gaps === 0;
  }

  /** The next records of a partition, in the order in which they were read from offset 0. */
  read(partition: number, records: readonly ReadRecord[]): void {
    let state = this.#states.get(partition);
    if (!state) this.#states.set(partition, (state = { nextOffset: 0, sentTickMax: 0, last: -1 }));
    for (const record of records) this.#one(partition, state, record);
  }

  /** All of a partition was read: its state is let go. */
  endPartition(partition: number): void {
    this.#states.delete(partition);
  }

  /** Everything was read; counts what is missing. */
  finish(): VerifyCounts {
    const { offset } = this.#acks;
    for (let number = 0; number < offset.length; number++) {
      if (offset[number] >= UNSENT_OFFSET || this.#wasSeen(number)) continue;
      this.counts.missing++;
      this.#note('missing', `record ${number}, acknowledged at offset ${offset[number]}`);
    }
    return this.counts;
  }

  #one(partition: number, state: PartitionState, record: ReadRecord): void {
    const { counts } = this;
    const { offset, key, value } = record;
    const where = `partition ${partition} offset ${offset}`;
    counts.read++;
    if (offset !== state.nextOffset) {
      counts.gaps++;
      this.#note('gap', `${where} follows ${state.nextOffset - 1}`);
    }
    state.nextOffset = offset + 1;
    const number = this.#values.numberOf(value, partition);
    if (number === null || (key !== null && key !== undefined) || number >= this.#acks.offset.length) {
      counts.altered++;
      this.#note('altered', `${where}: ${JSON.stringify(value)?.slice(0, 60)}`);
      state.last = -1;
      return;
    }
    const told = this.#acks.offset[number];
    if (told === UNSENT_OFFSET) {
      counts.altered++;
      this.#note('altered', `${where}: record ${number} was not sent`);
      return;
    }
    if (this.#wasSeen(number)) {
      counts.duplicated++;
      this.#note('duplicated', `${where}: record ${number} is read again`);
      return;
    }
    this.#seen[number >> 3] |= 1 << (number & 7);
    if (told === REFUSED_OFFSET) {
      counts.refused_read++;
      this.#note('refused', `${where}: record ${number} was refused`);
    } else if (told === UNKNOWN_OFFSET) counts.unknown_read++;
    if (this.#isReordered(state, number, offset)) {
      counts.reordered++;
      this.#note('reordered', `${where}: record ${number}, acknowledged at ${told}`);
    }
    state.sentTickMax = Math.max(state.sentTickMax, this.#acks.sentTick[number]);
    state.last = number;
  }

  #isReordered(state: PartitionState, number: number, offset: number): boolean {
    const { offset: offsets, toldTick } = this.#acks;
    const told = offsets[number];
    if (told < UNSENT_OFFSET && told !== offset) return true;
    // One that was sent after this one's acknowledgement stands before it.
    if (told < UNSENT_OFFSET && toldTick[number] < state.sentTickMax) return true;
    return state.last > number && this.#requestOf(state.last) === this.#requestOf(number);
  }

  /** A generator's requests take so many records each, one after the other. */
  #requestOf(number: number): string {
    const { generators, perRequest } = this.#plan;
    return `${number % generators}/${Math.floor(Math.floor(number / generators) / perRequest)}`;
  }

  #wasSeen(number: number): boolean {
    return (this.#seen[number >> 3] & (1 << (number & 7))) !== 0;
  }

  #note(kind: string, what: string): void {
    if (this.#examples.length < EXAMPLES_MAX) this.#examples.push(`${kind}: ${what}`);
  }
}

const EXAMPLES_MAX = 10;
