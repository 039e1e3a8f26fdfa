/** Keys of batch objects: frozen names, sorted, and parsed back only if they were made here. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { clusterStampKey } from '../../../../storage/objects/cluster-stamps.ts';
import { BATCH_KEY_PREFIX, batchObjectKey, parseObjectKey } from '../../../../storage/objects/object-key.ts';
import { objectKeyFault } from '../../../../storage/objects/object-store.ts';

it('makes the names that existing buckets hold', () => {
  assert.equal(batchObjectKey(0, 0), 'batch/ea/0000000000000000-0000000000000000');
  assert.equal(batchObjectKey(1, 0), 'batch/a2/0000000000000001-0000000000000000');
  assert.equal(batchObjectKey(12, 345_678), 'batch/87/0000000000000012-0000000000345678');
  assert.equal(clusterStampKey(1), 'cluster.json');
  assert.equal(clusterStampKey(2), 'cluster-2.json');
});

it('parses back what it made', () => {
  for (const n of [0, 1, 255, 256, 4_294_967_296, Number.MAX_SAFE_INTEGER]) {
    for (const i of [0, 3, Number.MAX_SAFE_INTEGER]) {
      const key = batchObjectKey(i, n);
      assert.deepEqual(parseObjectKey(key), { incarnation: i, number: n });
      assert.equal(objectKeyFault(key), null);
      assert.ok(key.startsWith(BATCH_KEY_PREFIX));
    }
  }
});

it('gives null for foreign names', () => {
  const good = batchObjectKey(5, 6);
  const foreign = ['', 'cluster.json', 'batch/', good.slice(1), `${good}x`, `${good}\n`, `x/${good}`];
  foreign.push(good.replace('-', '_'), good.toUpperCase(), good.replace(/batch\/../, 'batch/zz'));
  foreign.push(good.replace(/batch\/../, (hash) => (hash === 'batch/00' ? 'batch/01' : 'batch/00')));
  foreign.push('batch/00/9999999999999999-9999999999999999');
  for (const key of foreign) assert.equal(parseObjectKey(key), null, key);
});

it('asserts that its numbers are counts', () => {
  for (const bad of [-1, 0.5, Number.NaN, 2 ** 53]) {
    assert.throws(() => batchObjectKey(bad, 0), RangeError);
    assert.throws(() => batchObjectKey(0, bad), RangeError);
  }
});

it('sorts the keys of one incarnation within a prefix, and spreads them over all 256', () => {
  const byPrefix = new Map<string, string[]>();
  for (let n = 0; n < 10_000; n++) {
    const key = batchObjectKey(77, n);
    const prefix = key.slice(0, 8);
    byPrefix.set(prefix, [...(byPrefix.get(prefix) ?? []), key]);
  }
  assert.equal(byPrefix.size, 256);
  for (const keys of byPrefix.values()) {
    assert.deepEqual([...keys].sort(), keys);
    assert.ok(keys.length < 120, `${keys.length} of 10,000 under one prefix`);
  }
});
