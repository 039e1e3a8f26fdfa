/** The store that is as slow as a distant one: its distribution, its seed, its URL, calls given up meanwhile. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/core/clock.ts';
import { seededRandom, systemRandom } from '../../../../src/core/random.ts';
import { DelayedObjectStore, drawDelayMs } from '../../../../storage/objects/delayed-object-store.ts';
import { MemoryObjectStore } from '../../../../storage/objects/memory-object-store.ts';
import { openObjectStore } from '../../../../storage/objects/open-object-store.ts';

const S3 = { p50Ms: 40, p99Ms: 250, maxMs: 1000, seed: 1 };

function draws(seed: number, count: number): number[] {
  const random = seededRandom(seed);
  return Array.from({ length: count }, () => drawDelayMs(S3, random));
}

describe('a delayed object store', () => {
  it('waits by the distribution that was asked for', () => {
    const sorted = draws(7, 100_000).sort((a, b) => a - b);
    assert.ok(Math.abs(sorted[50_000] - 40) < 2, `median ${sorted[50_000]}`);
    assert.ok(Math.abs(sorted[99_000] - 250) < 25, `p99 ${sorted[99_000]}`);
    const slowest = sorted.filter((ms) => ms === 1000).length;
    assert.ok(slowest > 120 && slowest < 300, `${slowest} of 100,000 at 1 s`);
    assert.ok(sorted[0] > 0 && sorted[99_999] === 1000);
  });

  it('waits the same for the same seed', () => {
    assert.deepEqual(draws(3, 50), draws(3, 50));
    assert.notDeepEqual(draws(3, 50), draws(4, 50));
  });

  it('gives a waiting call up as one that never happened', async () => {
    const inner = new MemoryObjectStore(systemClock);
    const slow = { p50Ms: 60_000, p99Ms: 60_000, maxMs: 60_000, seed: 1 };
    const store = new DelayedObjectStore(inner, systemClock, slow);
    const giveUp = new AbortController();
    const put = store.put('key', new Uint8Array(3), { signal: giveUp.signal });
    giveUp.abort();
    await assert.rejects(put, { code: 'object-store-unavailable' });
    await assert.rejects(inner.get('key'), { code: 'object-not-found' });
  });

  it('is opened by its URL, over any other store', async () => {
    const options = { clock: systemClock, random: systemRandom };
    const store = await openObjectStore('delayed:1,2,3,9:memory:delayed-url', options);
    assert.match(store.description, /delayed by 1 ms \(p99 2 ms, at most 3 ms\)$/);
    await store.put('key', new Uint8Array(3));
    const inner = await openObjectStore('memory:delayed-url', options);
    assert.equal((await inner.get('key')).length, 3);
    await store.close();
    await inner.close();
    for (const url of [
      'delayed:memory:',
      'delayed:1,2:memory:',
      'delayed:3,2,1:memory:',
      'delayed:0,2,3:memory:',
      'delayed:1,2,99999:memory:',
      'delayed:1,2,3:delayed:1,2,3:memory:',
      'delayed:1,2,3:nothing:x',
      'delayed:1ms,2ms,3ms:memory:',
    ]) {
      await assert.rejects(openObjectStore(url, options), { code: 'invalid-setting' }, url);
    }
  });
});
