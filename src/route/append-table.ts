/**
 * The table of outstanding appends, in columns: one append is a slot, which names its owner, where it went and what
 * it costs. Owns: slots and generations. Does not own: what an answer means (the owners). Main thread.
 *
 *   slot: free -> outstanding -> free (generation + 1)
 */
import type { ErrorCode } from '../core/errors.ts';
import type { PeerPlace } from './shard-places.ts';

/** Whoever submitted appends and is told of each answer. */
export interface AppendOwner {
  /** Appends not yet answered. */
  outstanding: number;
  /** Bytes admitted, given back when all are answered. */
  readonly cost: number;
  /** It waits no more, though answers may still come. */
  readonly isAnswered: boolean;
  /** Append `append` was answered. */
  note(append: number, code: ErrorCode | null, baseOffset: number): void;
  /** All are answered. */
  finish(): void;
}

/** Where an append is that no lane of this process has. */
export const ELSEWHERE = -1;

export class AppendTable {
  readonly #ownerOf: (AppendOwner | null)[] = [];
  readonly #appendOf: number[] = [];
  readonly #generationOf: number[] = [];
  readonly #laneOf: number[] = [];
  readonly #placeOf: (PeerPlace | null)[] = [];
  /** Of appends elsewhere: bytes counted for its destination. */
  readonly #costOf: number[] = [];
  readonly #free: number[] = [];
  #outstanding = 0;

  get outstanding(): number {
    return this.#outstanding;
  }

  /** Slots, free ones included. */
  get length(): number {
    return this.#ownerOf.length;
  }

  take(owner: AppendOwner, append: number, lane: number): number {
    let slot = this.#free.pop();
    if (slot === undefined) {
      slot = this.#ownerOf.length;
      this.#generationOf.push(0);
      this.#placeOf.push(null);
      this.#costOf.push(0);
    }
    this.#ownerOf[slot] = owner;
    this.#appendOf[slot] = append;
    this.#laneOf[slot] = lane;
    this.#outstanding++;
    return slot;
  }

  /** Whether a token still names an outstanding append. */
  isCurrent(slot: number, generation: number): boolean {
    return this.#generationOf[slot] === generation && this.#ownerOf[slot] != null;
  }

  generation(slot: number): number {
    return this.#generationOf[slot];
  }

  /** null: the slot is free. */
  owner(slot: number): AppendOwner | null {
    return this.#ownerOf[slot];
  }

  append(slot: number): number {
    return this.#appendOf[slot];
  }

  /** ELSEWHERE for appends of other brokers' shards, and of those whose place is not known. */
  lane(slot: number): number {
    return this.#laneOf[slot];
  }

  /** The broker that the append was sent to; null: none. */
  place(slot: number): PeerPlace | null {
    return this.#placeOf[slot];
  }

  cost(slot: number): number {
    return this.#costOf[slot];
  }

  /** The append goes to a lane after all. */
  moveToLane(slot: number, lane: number): void {
    this.#laneOf[slot] = lane;
    this.#placeOf[slot] = null;
    this.#costOf[slot] = 0;
  }

  /** The append goes to another broker (null: it waits for a place), and its bytes are counted there. */
  moveElsewhere(slot: number, place: PeerPlace | null, cost: number): void {
    this.#laneOf[slot] = ELSEWHERE;
    this.#placeOf[slot] = place;
    this.#costOf[slot] = cost;
  }

  free(slot: number): void {
    this.#ownerOf[slot] = null;
    this.#placeOf[slot] = null;
    this.#costOf[slot] = 0;
    this.#generationOf[slot] = (this.#generationOf[slot] + 1) >>> 0;
    this.#free.push(slot);
    this.#outstanding--;
  }
}
