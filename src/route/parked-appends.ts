/**
 * Appends of shards whose place is not known, in order, until it is. Owns: their bytes, and one search by shard. Does
 * not own: where they go then, nor how many bytes may wait (produce-router). Main thread.
 *
 *   (shard without place) -> parked, all of the shard's appends from then on behind the first
 *                         -> the place is found: all are sent on in one turn, and the shard is free again
 *                         -> it is not: all are refused, nothing of them happened
 */
import { type ErrorCode, operatingError } from '../core/errors.ts';
import { AppendOutbox } from './append-outbox.ts';
import type { ShardPlace, ShardPlaces } from './shard-places.ts';

export interface ParkedAppendsParts {
  places: Pick<ShardPlaces, 'find'>;
  /** All parked appends of the shard, packed one after the other, may go to this place. */
  found(shard: number, place: Exclude<ShardPlace, { kind: 'unknown' }>, appends: Buffer): void;
  /** They have no place. */
  refused(appends: Buffer, code: ErrorCode): void;
}

export class ParkedAppends {
  readonly #parts: ParkedAppendsParts;
  /** By shard. */
  readonly #parked = new Map<number, AppendOutbox>();

  constructor(parts: ParkedAppendsParts) {
    this.#parts = parts;
  }

  /** Shards that have any. */
  get shards(): number {
    return this.#parked.size;
  }

  /** Whether appends of the shard must wait behind others. For the hot path. */
  has(shard: number): boolean {
    return this.#parked.size > 0 && this.#parked.has(shard);
  }

  /** Takes a copy of one packed append; the first one's `waitMs` is for all of its shard. */
  park(shard: number, packed: Uint8Array, waitMs: number): void {
    let outbox = this.#parked.get(shard);
    if (!outbox) {
      this.#parked.set(shard, (outbox = new AppendOutbox()));
      void this.#find(shard, outbox, waitMs);
    }
    const at = outbox.reserve(packed.length);
    outbox.buffer.set(packed, at);
  }

  async #find(shard: number, outbox: AppendOutbox, waitMs: number): Promise<void> {
    try {
      const place = await this.#parts.places.find(shard, waitMs);
      this.#parked.delete(shard);
      this.#parts.found(shard, place, outbox.buffer.subarray(0, outbox.length));
    } catch (error) {
      const { code } = operatingError(error);
      this.#parked.delete(shard);
      this.#parts.refused(outbox.buffer.subarray(0, outbox.length), code);
    }
  }
}
