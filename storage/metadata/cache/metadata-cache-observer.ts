/**
 * What the metadata caches tell of themselves. Owns: the kinds of look-up and the events. Does not own: where they
 * are counted (workers/counted-cache.ts). Any thread.
 *
 * Pages are cached in the lanes (index/), by the same discipline and under the same names, and counted there.
 */

/**
 * topic      a topic by name
 * partition  whether a topic has a partition, and with it the shard and the shard's lease
 * lease      a shard's lease
 * agent      an agent by its incarnation
 */
export type MetadataCacheKind = 'topic' | 'partition' | 'lease' | 'agent';

/** Every look-up is a hit or a miss of the kind that was asked for, once, whatever it was made of. */
export interface MetadataCacheObserver {
  /** Answered from memory. */
  hit(kind: MetadataCacheKind): void;
  /** The store had to be asked, or the read that another caller waits for. */
  miss(kind: MetadataCacheKind): void;
  /** Dropped because the cache was full. There are never more leases than shards, nor agents than registered. */
  eviction(kind: 'topic'): void;
  /** What a read or a call brought was overtaken by something newer, and not kept. */
  staleFill(kind: 'topic' | 'lease' | 'agent'): void;
  /** Dropped since a request that relied on it was refused. */
  drop(kind: 'topic' | 'lease'): void;
}
