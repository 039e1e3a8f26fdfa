/**
 * Which agent holds each shard, as far as it is known. Owns: what is remembered of the leases and which of two
 * sightings of a shard's head is the newer one. Does not own: the truth, which is the head alone: a lease here says
 * whom to ask, never who may write. What needs the holder for certain reads the head. Main thread.
 *
 * A head is only ever seen in states (epoch, holder) that follow one another: taking a shard raises the epoch and
 * names a holder, releasing it sets the holder to 0 under the same epoch, and nothing else touches either. So
 * (epoch, is released) orders all sightings exactly, whenever they were read and by whatever call:
 *
 *   (0, 0)  (1, 7)  (1, 0)  (2, 9)  (3, 7) ...
 *
 * The rules, each with its race:
 * - A sighting of a lower version never replaces a higher one: a slow read, or an answer that comes after a later
 *   one's, changes nothing. One of the same version confirms it as of its own beginning, if that is later.
 * - One read is for all shards, and one runs at a time.
 * - A lease that a request was refused under, or whose holder could not be reached, is dropped: it is not answered
 *   again before a sighting that began after the drop confirms it, or a higher version comes by whatever way. Who
 *   comes after the drop never waits for a read from before it; there the next read is queued behind it.
 * - That a shard has no holder is never answered from memory, nor is a dropped lease: both are read anew, but such
 *   reads begin `paceMs` apart, so that a dead agent's shards cause no storm before somebody takes them.
 * - Calls of ours that raise or release are sightings by their answers. Where the answer is lost, the shards are
 *   dropped.
 */
import type { Clock } from '../../../src/core/clock.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { MetadataStore, ShardHead } from '../metadata-store.ts';
import type { MetadataCacheObserver } from './metadata-cache-observer.ts';
import { type Beginning, PacedReads, type ReadTerms } from './paced-reads.ts';

/** A shard's lease as it was seen. */
export interface Lease {
  readonly shard: number;
  /** The holding agent's incarnation; 0 when nobody holds it. */
  readonly holder: number;
  readonly epoch: number;
  /** Monotonic time at which this was still so. */
  readonly asOfMs: number;
}

export interface LeaseCacheSettings {
  /** How long a lease is believed. */
  leaseMsMax: number;
  /** Between the beginnings of two reads that follow a drop or a shard without holder, ms. */
  paceMs: number;
}

/** What a head must tell to be a sighting. */
export type LeaseSighting = Pick<ShardHead, 'shard' | 'holder' | 'epoch'>;

interface CachedLease {
  lease: Lease;
  /** The event of its drop; 0 while it is good. Then only a sighting that began later confirms it. */
  droppedAt: number;
}

const ALL = 'all shards';

export class LeaseCache {
  readonly #shardCount: number;
  readonly #clock: Clock;
  readonly #observer: MetadataCacheObserver;
  readonly #settings: LeaseCacheSettings;
  /** By shard; at most `shardCount`. */
  readonly #leases = new Map<number, CachedLease>();
  readonly #reads: PacedReads<typeof ALL, ShardHead[]>;
  /** When the last read began. */
  #readAtMs = Number.NEGATIVE_INFINITY;

  constructor(
    store: MetadataStore,
    shardCount: number,
    clock: Clock,
    observer: MetadataCacheObserver,
    settings: LeaseCacheSettings,
  ) {
    this.#shardCount = shardCount;
    this.#clock = clock;
    this.#observer = observer;
    this.#settings = settings;
    this.#reads = new PacedReads({
      clock,
      read: async () => {
        this.#readAtMs = clock.monotonicMs();
        return store.listLeases();
      },
      land: (_all, heads, began) => this.see(heads, began),
      stale: () => observer.staleFill('lease'),
    });
  }

  /** The lease if it is in memory, not dropped, and has a holder; undefined says nothing. */
  remembered(shard: number): Lease | undefined {
    const cached = this.#leases.get(shard);
    if (!cached || cached.droppedAt > 0 || cached.lease.holder === 0) return undefined;
    const isFresh = this.#clock.monotonicMs() - cached.lease.asOfMs < this.#settings.leaseMsMax;
    return isFresh ? cached.lease : undefined;
  }

  /** Past the memory: the newest that is known of the lease after a read, which fills all shards. 'shard-not-found'. */
  async read(shard: number): Promise<Lease> {
    const asked = this.#reads.mark();
    const ticket = this.#reads.read(ALL, this.#terms(shard, asked));
    await ticket.answer;
    const isDropped = (this.#leases.get(shard)?.droppedAt ?? 0) > 0;
    // It was dropped meanwhile, or has no holder as far as a read knows that was on its way already.
    if (isDropped || (ticket.isOlder && !this.remembered(shard))) {
      await this.#reads.read(ALL, this.#terms(shard, asked)).answer;
    }
    const cached = this.#leases.get(shard);
    if (!cached) {
      throw new StreamHouseError('shard-not-found', `shard ${shard} is not in the metadata store`);
    }
    return cached.lease;
  }

  /** Whoever finds a lease dropped wants a read from after the drop, who finds no holder one from after now. */
  #terms(shard: number, asked: number): ReadTerms {
    const cached = this.#leases.get(shard);
    if (!cached || (cached.droppedAt === 0 && cached.lease.holder !== 0)) return {};
    const after = cached.lease.holder === 0 ? Math.max(asked, cached.droppedAt) : cached.droppedAt;
    return { after, notBeforeMs: this.#readAtMs + this.#settings.paceMs };
  }

  /** Reads all leases anew, or joins the read that is on its way. Rejects as listLeases does. */
  async refresh(): Promise<void> {
    await this.#reads.read(ALL).answer;
  }

  /** The moment from which on heads are going to be seen by a call other than a look-up here. */
  begin(): Beginning {
    return this.#reads.begin();
  }

  /** Heads as a call found or left them that began then. */
  see(heads: readonly LeaseSighting[], began: Beginning): void {
    for (const head of heads) this.#seeOne(head, began);
  }

  #seeOne({ shard, holder, epoch }: LeaseSighting, { order, atMs }: Beginning): void {
    if (shard >= this.#shardCount) return;
    const cached = this.#leases.get(shard);
    const newer = cached ? compareVersions({ holder, epoch }, cached.lease) : 1;
    if (newer < 0 || (newer === 0 && cached && order < cached.droppedAt)) {
      this.#observer.staleFill('lease');
      return;
    }
    const asOfMs = newer === 0 && cached ? Math.max(atMs, cached.lease.asOfMs) : atMs;
    this.#leases.set(shard, { lease: Object.freeze({ shard, holder, epoch, asOfMs }), droppedAt: 0 });
  }

  /**
   * A request was refused by the holder of this lease, or could not reach it. Nothing if a newer one is known by
   * now: many requests may have been on their way. Without `seen`: whatever is known of the shard is in doubt.
   */
  drop(shard: number, seen?: Lease): void {
    const cached = this.#leases.get(shard);
    if (!cached || (seen && compareVersions(cached.lease, seen) > 0)) return;
    if (cached.droppedAt === 0) this.#observer.drop('lease');
    cached.droppedAt = this.#reads.mark();
  }

  /** Everything may be another now. */
  forgetAll(): void {
    this.#reads.overtakeAll();
    this.#leases.clear();
  }
}

type LeaseVersion = Pick<Lease, 'holder' | 'epoch'>;

/** Above 0 if `a` comes after `b` in the life of the head. */
function compareVersions(a: LeaseVersion, b: LeaseVersion): number {
  return a.epoch - b.epoch || Number(a.holder === 0) - Number(b.holder === 0);
}
