/** /metrics: every shared counter is shown once, caches by kind, and what the main thread reads. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { labelValues, metricSum } from '../../../bench/metrics-text.ts';
import { Metrics } from '../../../src/observe/metrics.ts';
import { StoreCounters } from '../../../storage/metadata/store-counters.ts';
import { countedCache, METADATA_CACHE_COUNTERS } from '../../../workers/counted-cache.ts';
import {
  allocateCounters,
  COUNTERS,
  type CounterName,
  ThreadCounters,
} from '../../../workers/shared-counters.ts';

function metricsOver(memory: SharedArrayBuffer, store = new StoreCounters()): Metrics {
  const gauges = [{ name: 'of_main', help: 'A value of the main thread', read: () => 8 }];
  return new Metrics(memory, store, gauges, (error) => assert.fail(String(error)));
}

describe('metrics', () => {
  it('show every shared counter exactly once, whatever its name', async () => {
    const memory = allocateCounters(1);
    const counters = new ThreadCounters(memory, 0);
    const names = Object.keys(COUNTERS) as CounterName[];
    // Values that no two of them share.
    for (const [i, name] of names.entries()) counters.add(name, 1_000_000 + i);
    const text = await metricsOver(memory).text();
    for (const [i, name] of names.entries()) {
      const shown = text.split('\n').filter((line) => line.endsWith(` ${1_000_000 + i}`));
      assert.equal(shown.length, 1, `${name}: ${shown}`);
    }
  });

  it('show the caches of metadata by kind, of all threads together', async () => {
    const memory = allocateCounters(2);
    const observer = countedCache(new ThreadCounters(memory, 1));
    observer.hit('lease');
    observer.hit('lease');
    observer.miss('partition');
    observer.eviction('topic');
    observer.staleFill('agent');
    observer.drop('lease');
    for (const thread of [0, 1]) new ThreadCounters(memory, thread).add('indexHitsTotal', 5);
    const text = await metricsOver(memory).text();
    const cache = 'streamhouse_metadata_cache';
    assert.equal(metricSum(text, `${cache}_hits_total`, { kind: 'lease' }), 2);
    assert.equal(metricSum(text, `${cache}_hits_total`, { kind: 'page' }), 10);
    assert.equal(metricSum(text, `${cache}_misses_total`, { kind: 'partition' }), 1);
    assert.equal(metricSum(text, `${cache}_evictions_total`, { kind: 'topic' }), 1);
    assert.equal(metricSum(text, `${cache}_stale_fills_total`, { kind: 'agent' }), 1);
    assert.equal(metricSum(text, `${cache}_drops_total`, { kind: 'lease' }), 1);
    const kinds = labelValues(text, `${cache}_hits_total`, 'kind');
    assert.deepEqual(kinds.sort(), Object.keys(METADATA_CACHE_COUNTERS.hits).sort());
  });

  it("show the metadata store's own counters, and what the main thread reads", async () => {
    const store = new StoreCounters();
    const metrics = metricsOver(allocateCounters(1), store);
    store.add('conflictRetries', 7);
    const text = await metrics.text();
    assert.match(text, /# TYPE streamhouse_metadata_store_conflict_retries_total counter\n.* 7\n/);
    for (const { name } of store.list()) {
      const snake = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
      assert.notEqual(metricSum(text, `streamhouse_metadata_store_${snake}_total`), null, name);
    }
    assert.match(text, /# TYPE streamhouse_of_main gauge\n.* 8\n/);
  });
});
