/**
 * What of the shards is held here, being taken or being handed over. Owns: that bookkeeping, how many move at a time,
 * the pauses between tries. Does not own: which shards should be here (agent-loop), how they are taken and handed over
 * (batching worker). No I/O, no timers. Main thread.
 *
 *   not held -> taking -> held -> releasing -> not held
 *      ^---------'--------'-- lost (again after a pause that grows with each loss in a row)
 */
import type { ShardHead } from '../../storage/metadata/metadata-store.ts';
import type { SeenLease } from '../../workers/messages.ts';
import type { HeldShard } from '../route/peer-duties.ts';

/** Between two tries to take a shard that was lost, ms: doubled with each loss in a row. */
const RETAKE_MS_FIRST = 50;
const RETAKE_MS_MAX = 5000;
/** Shards that are handed over at a time: each is unserved for a window and an upload, some 200 ms. */
const RELEASES_MAX = 8;
/** A release that got no answer is asked for again after this time, ms. */
const RELEASE_MS_MAX = 60_000;

export class OwnShards {
  readonly #held = new Map<number, HeldShard>();
  readonly #taking = new Set<number>();
  /** With the time when it was asked for. */
  readonly #releasing = new Map<number, number>();
  /** Shards that were lost: how often in a row, and when to try again. */
  readonly #losses = new Map<number, { count: number; againAtMs: number }>();

  /** The epoch under which a shard is served here; undefined: it is not, or is being handed over. */
  epochHere(shard: number): number | undefined {
    return this.#releasing.has(shard) ? undefined : this.#held.get(shard)?.epoch;
  }

  isHeld(shard: number): boolean {
    return this.#held.has(shard);
  }

  /** Whether a head with this epoch says that somebody has taken a shard over that is held here. */
  isOvertaken(shard: number, epoch: number): boolean {
    const held = this.#held.get(shard);
    return held !== undefined && held.epoch < epoch;
  }

  /** Held or being taken: something here serves, or may soon serve, under its lease. */
  isOurs(shard: number): boolean {
    return this.#held.has(shard) || this.#taking.has(shard);
  }

  /** What is held, being handed over or not. */
  list(): HeldShard[] {
    return [...this.#held.values()].sort((a, b) => a.shard - b.shard);
  }

  get heldCount(): number {
    return this.#held.size;
  }

  get takingCount(): number {
    return this.#taking.size;
  }

  get releasingCount(): number {
    return this.#releasing.size;
  }

  // -- What the batching worker tells ------------------------------------------------------------------

  /** `wallMs`: now. */
  held(shard: number, epoch: number, wallMs: number): void {
    this.#taking.delete(shard);
    this.#losses.delete(shard);
    if (this.#held.get(shard)?.epoch === epoch) return;
    this.#held.set(shard, { shard, epoch, sinceMs: Math.floor(wallMs) });
  }

  /** The time until the next try, ms. */
  lost(shard: number, nowMs: number): number {
    this.released(shard);
    const count = this.#losses.get(shard)?.count ?? 0;
    const delayMs = Math.min(RETAKE_MS_MAX, RETAKE_MS_FIRST * 2 ** Math.min(count, 10));
    this.#losses.set(shard, { count: count + 1, againAtMs: nowMs + delayMs });
    return delayMs;
  }

  released(shard: number): void {
    this.#held.delete(shard);
    this.#taking.delete(shard);
    this.#releasing.delete(shard);
  }

  /** The batching worker ended; the shards that were held. */
  forgetAll(): number[] {
    const held = [...this.#held.keys()];
    this.#held.clear();
    this.#taking.clear();
    this.#releasing.clear();
    this.#losses.clear();
    return held;
  }

  // -- What is to be done ------------------------------------------------------------------------------

  /** Begins to take those of `wanted` that are not here; `waitMs`: until the next of them may be tried. */
  take(wanted: readonly ShardHead[], nowMs: number): { leases: SeenLease[]; waitMs: number | null } {
    const leases: SeenLease[] = [];
    let waitMs: number | null = null;
    for (const { shard, holder, epoch } of wanted) {
      if (this.isOurs(shard)) continue;
      const leftMs = (this.#losses.get(shard)?.againAtMs ?? nowMs) - nowMs;
      if (leftMs > 0) {
        waitMs = Math.min(waitMs ?? leftMs, leftMs);
        continue;
      }
      this.#taking.add(shard);
      leases.push({ shard, holder, epoch });
    }
    return { leases, waitMs };
  }

  /** Begins to hand over those that are another's, as many as may move at a time. */
  release(isForeign: (shard: number) => boolean, nowMs: number): number[] {
    for (const [shard, askedMs] of this.#releasing) {
      if (nowMs - askedMs > RELEASE_MS_MAX) this.#releasing.delete(shard);
    }
    const shards: number[] = [];
    for (const shard of this.#held.keys()) {
      if (this.#releasing.has(shard) || !isForeign(shard)) continue;
      if (this.#releasing.size >= RELEASES_MAX) break;
      this.#releasing.set(shard, nowMs);
      shards.push(shard);
    }
    return shards;
  }
}
