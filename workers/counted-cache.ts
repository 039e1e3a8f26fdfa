/**
 * The metadata caches' events in this thread's shared counters. Owns: which event of which kind counts where. Does
 * not own: the caches, nor how the counts are shown (src/observe). Any thread.
 */
import type {
  MetadataCacheKind,
  MetadataCacheObserver,
} from '../storage/metadata/cache/metadata-cache-observer.ts';
import type { CounterName, ThreadCounters } from './shared-counters.ts';

/**
 * By event and kind. Pages are the index's (index/ counts them): its look-ups are look-ups of pages. What a kind has
 * no counter for cannot happen to it.
 */
export const METADATA_CACHE_COUNTERS = {
  hits: {
    topic: 'topicCacheHitsTotal',
    partition: 'partitionCacheHitsTotal',
    lease: 'leaseCacheHitsTotal',
    agent: 'agentCacheHitsTotal',
    page: 'indexHitsTotal',
  },
  misses: {
    topic: 'topicCacheMissesTotal',
    partition: 'partitionCacheMissesTotal',
    lease: 'leaseCacheMissesTotal',
    agent: 'agentCacheMissesTotal',
    page: 'indexMissesTotal',
  },
  evictions: { topic: 'topicCacheEvictionsTotal', page: 'indexEvictedTotal' },
  staleFills: {
    topic: 'topicCacheStaleFillsTotal',
    lease: 'leaseCacheStaleFillsTotal',
    agent: 'agentCacheStaleFillsTotal',
    page: 'indexStaleReadsTotal',
  },
  drops: { topic: 'topicCacheDropsTotal', lease: 'leaseCacheDropsTotal' },
} as const satisfies Record<string, Partial<Record<MetadataCacheKind | 'page', CounterName>>>;

export function countedCache(counters: ThreadCounters): MetadataCacheObserver {
  const { hits, misses, evictions, staleFills, drops } = METADATA_CACHE_COUNTERS;
  return {
    hit: (kind) => counters.add(hits[kind]),
    miss: (kind) => counters.add(misses[kind]),
    eviction: (kind) => counters.add(evictions[kind]),
    staleFill: (kind) => counters.add(staleFills[kind]),
    drop: (kind) => counters.add(drops[kind]),
  };
}
