/** Counting: one call of the observer for each call that ended, with its outcome, time and bytes. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type Clock, systemClock } from '../../../../src/core/clock.ts';
import { InstrumentedObjectStore } from '../../../../storage/objects/instrumented-object-store.ts';
import { MemoryObjectStore } from '../../../../storage/objects/memory-object-store.ts';

it('tells of every call, and changes nothing of it', async () => {
  let nowMs = 0;
  const clock: Clock = { ...systemClock, monotonicMs: () => (nowMs += 5) };
  const seen: unknown[] = [];
  const inner = new MemoryObjectStore(systemClock);
  const store = new InstrumentedObjectStore(inner, clock, (...told) => seen.push(told));
  assert.equal(store.description, inner.description);
  await store.put('k', new Uint8Array(100));
  assert.equal((await store.get('k')).length, 100);
  assert.equal((await store.get('k', { position: 10, length: 20 })).length, 20);
  assert.equal((await store.list('', { limit: 5 })).length, 1);
  await assert.rejects(store.put('k', new Uint8Array(50)), { code: 'object-exists' });
  await assert.rejects(store.get('other'), { code: 'object-not-found' });
  await store.delete('k');
  await store.close();
  await assert.rejects(store.get('k'), { code: 'object-store-unavailable' });
  assert.deepEqual(seen, [
    ['put', 'ok', 5, 100],
    ['get', 'ok', 5, 100],
    ['get', 'ok', 5, 20],
    ['list', 'ok', 5, 0],
    ['put', 'object-exists', 5, 50],
    ['get', 'object-not-found', 5, 0],
    ['delete', 'ok', 5, 0],
    ['get', 'object-store-unavailable', 5, 0],
  ]);
});
