/**
 * Where requests for a shard go now: to the batching worker of this process, to another broker, or nowhere yet. Owns:
 * that answer, and who waits for one. Does not own: what is held here (agent loop), leases and agents (the metadata
 * caches). Main thread.
 *
 * Nothing here is certain, nor need it be: whoever asks the wrong broker is refused, and whoever holds a shard no more
 * cannot commit to it. A lease under which a broker refused, or could not be reached, is dropped; it counts again
 * only when a later look confirms it.
 *
 *   here      held, and not being handed over
 *   peer      another registered agent has the lease, as far as is known
 *   unknown   nobody has it; or we do, but do not serve it (being taken, or being handed over); or its holder is
 *             registered no more
 *
 * Who waits is woken by the agent loop, or by a look at the leases, one for all who wait and paced.
 */
import type { Lease } from '../../storage/metadata/cache/lease-cache.ts';
import type { CachedMetadataStore } from '../../storage/metadata/cached-metadata-store.ts';
import { type Clock, sleep } from '../core/clock.ts';
import { operatingError, StreamHouseError } from '../core/errors.ts';
import { PLACE_LOOK_MS, PLACE_WAITS_MAX } from '../core/limits.ts';

/** Another broker, as it registered. */
export interface PeerAddress {
  readonly agentId: string;
  readonly incarnation: number;
  /** HOST:PORT as advertised. */
  readonly address: string;
  readonly zone: string;
}

export interface PeerPlace {
  readonly kind: 'peer';
  readonly peer: PeerAddress;
  /** By which it is believed to hold the shard. */
  readonly lease: Lease;
}

export type ShardPlace = { readonly kind: 'here' } | PeerPlace | { readonly kind: 'unknown' };

export interface ShardPlacesParts {
  store: Pick<
    CachedMetadataStore,
    'peekLease' | 'dropLease' | 'refreshLeases' | 'peekAgentOf' | 'getAgentOf'
  >;
  clock: Clock;
  shardCount: number;
  /** Held here and not being released: the epoch. */
  epochHere(shard: number): number | undefined;
  /** This process's own, as of now; 0 before it has registered. */
  incarnation(): number;
}

const HERE: ShardPlace = Object.freeze({ kind: 'here' });
const UNKNOWN: ShardPlace = Object.freeze({ kind: 'unknown' });

export class ShardPlaces {
  readonly #parts: ShardPlacesParts;
  /** By shard, what was answered last, so that the same answer is the same object. */
  readonly #peers: (PeerPlace | undefined)[];
  /** By shard, those who wait. */
  readonly #waiting = new Map<number, Set<() => void>>();
  #waitCount = 0;
  #looking = false;
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  /** Why the last look failed; null: it did not. */
  #lookError: StreamHouseError | null = null;

  constructor(parts: ShardPlacesParts) {
    this.#parts = parts;
    this.#peers = new Array(parts.shardCount).fill(undefined);
  }

  /** Requests that wait for a place. */
  get waiting(): number {
    return this.#waitCount;
  }

  /** For the hot path. */
  isHere(shard: number): boolean {
    return this.#parts.epochHere(shard) !== undefined;
  }

  /** From memory alone. Asked again, the same broker under the same lease is the same object. */
  place(shard: number): ShardPlace {
    if (this.isHere(shard)) return HERE;
    const { store, incarnation } = this.#parts;
    const lease = store.peekLease(shard);
    if (!lease || lease.holder === incarnation()) return UNKNOWN;
    const agent = store.peekAgentOf(lease.holder);
    if (!agent) return UNKNOWN;
    const known = this.#peers[shard];
    // What an agent registered never changes under its incarnation.
    if (known?.lease === lease) return known;
    const { agentId, address, zone } = agent;
    const peer = { agentId, incarnation: agent.incarnation, address, zone };
    const place: PeerPlace = Object.freeze({ kind: 'peer', peer: Object.freeze(peer), lease });
    this.#peers[shard] = place;
    return place;
  }

  /** The place of a shard as soon as it has one. 'not-leader' after `waitMs`; 'overloaded' when too many wait. */
  async find(shard: number, waitMs: number): Promise<Exclude<ShardPlace, { kind: 'unknown' }>> {
    const { clock } = this.#parts;
    const deadlineMs = clock.monotonicMs() + waitMs;
    for (;;) {
      const place = this.place(shard);
      if (place.kind !== 'unknown') return place;
      const leftMs = deadlineMs - clock.monotonicMs();
      if (leftMs <= 0) throw this.#notFound(shard);
      if (this.#waitCount >= PLACE_WAITS_MAX) {
        throw new StreamHouseError('overloaded', `${PLACE_WAITS_MAX} requests wait for a leader; try again`);
      }
      await this.#wait(shard, leftMs);
    }
  }

  #notFound(shard: number): StreamHouseError {
    const why = this.#lookError ? `: ${this.#lookError.message}` : '';
    return new StreamHouseError('not-leader', `no broker serves the partition now${why}; try again`, {
      shard,
    });
  }

  /** Until something may have changed, at most `leftMs`. */
  #wait(shard: number, leftMs: number): Promise<void> {
    return new Promise((resolve) => {
      let waiting = this.#waiting.get(shard);
      if (!waiting) this.#waiting.set(shard, (waiting = new Set()));
      const set = waiting;
      const wake = () => {
        if (!set.delete(wake)) return;
        this.#waitCount--;
        if (set.size === 0 && this.#waiting.get(shard) === set) this.#waiting.delete(shard);
        timer.cancel();
        resolve();
      };
      set.add(wake);
      this.#waitCount++;
      const timer = this.#parts.clock.after(leftMs, wake);
      if (this.#looking) return;
      this.#looking = true;
      void this.#lookWhileWaiting();
    });
  }

  /** One look after another for all who wait; those are woken whose shard has a place by now. */
  async #lookWhileWaiting(): Promise<void> {
    const { clock, store } = this.#parts;
    while (this.#waitCount > 0) {
      const leftMs = this.#lookedAtMs + PLACE_LOOK_MS - clock.monotonicMs();
      if (leftMs > 0) await sleep(clock, leftMs);
      this.#lookedAtMs = clock.monotonicMs();
      try {
        await store.refreshLeases();
        await this.#findHolders();
        this.#lookError = null;
      } catch (error) {
        this.#lookError = operatingError(error);
      }
      for (const shard of [...this.#waiting.keys()]) {
        if (this.place(shard).kind !== 'unknown') this.changed(shard);
      }
    }
    // In the same turn as the last look at who waits.
    this.#looking = false;
  }

  /** Reads who the holders of the shards are that somebody waits for. */
  async #findHolders(): Promise<void> {
    const { store, incarnation } = this.#parts;
    const holders = new Map<number, Lease[]>();
    for (const shard of this.#waiting.keys()) {
      const lease = store.peekLease(shard);
      if (!lease || lease.holder === incarnation()) continue;
      const leases = holders.get(lease.holder);
      if (leases) leases.push(lease);
      else holders.set(lease.holder, [lease]);
    }
    for (const [holder, leases] of holders) {
      // Registered no more: until somebody takes the shard, nobody is to be asked.
      if ((await store.getAgentOf(holder)) !== null) continue;
      for (const lease of leases) store.dropLease(lease.shard, lease);
    }
  }

  /** The shard became held here, or something else is known of it: wakes who waits. */
  changed(shard: number): void {
    for (const wake of [...(this.#waiting.get(shard) ?? [])]) wake();
  }

  /** A broker refused under this lease or could not be reached. Nothing if a newer lease is known by now. */
  refused(place: ShardPlace): void {
    if (place.kind === 'peer') this.#parts.store.dropLease(place.lease.shard, place.lease);
  }
}
