/**
 * Ids: keys of partitions, and the hashes that stored data depends on, frozen.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { laneOf, partitionKey, partitionOfKey, shardOf, topicIdOfKey } from '../../../src/core/ids.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';

/** topicId, partition, shard of 64, shard of 8, lane of 4. Never to be changed: existing clusters hold these. */
const FROZEN: [number, number, number, number, number][] = [
  [1, 0, 44, 4, 3],
  [1, 1, 22, 6, 3],
  [1, 2, 25, 1, 0],
  [1, 99999, 38, 6, 2],
  [2, 0, 35, 3, 3],
  [7, 1048575, 12, 4, 3],
  [4294967295, 3, 4, 4, 2],
  [4294967296, 3, 27, 3, 2],
  [8589934591, 1048575, 51, 3, 3],
];

describe('ids', () => {
  it('keeps topic and partition in one number that sorts as they do', () => {
    fc.assert(
      fc.property(
        fc.nat(2 ** 33 - 1),
        fc.nat(2 ** 20 - 1),
        fc.nat(2 ** 33 - 1),
        fc.nat(2 ** 20 - 1),
        (t, p, u, q) => {
          const key = partitionKey(t, p);
          assert.ok(Number.isSafeInteger(key));
          assert.deepEqual([topicIdOfKey(key), partitionOfKey(key)], [t, p]);
          assert.equal(Math.sign(key - partitionKey(u, q)), Math.sign(t - u || p - q));
        },
      ),
    );
  });

  it('places partitions where they have always been', () => {
    for (const [topicId, partition, of64, of8, lane] of FROZEN) {
      const name = `${topicId}/${partition}`;
      assert.equal(shardOf(topicId, partition, oneGroup(64)), of64, name);
      assert.equal(shardOf(topicId, partition, oneGroup(8)), of8, name);
      assert.equal(laneOf(topicId, partition, 4), lane, name);
      assert.equal(laneOf(topicId, partition, 1), 0, name);
    }
  });

  it('spreads one topic over shards and lanes evenly, and every shard over all lanes', () => {
    const counts = new Map<string, number>();
    for (let partition = 0; partition < 64_000; partition++) {
      const place = `${shardOf(5, partition, oneGroup(64))}/${laneOf(5, partition, 2)}`;
      counts.set(place, (counts.get(place) ?? 0) + 1);
    }
    assert.equal(counts.size, 128);
    for (const [place, count] of counts) assert.ok(count > 400 && count < 600, `${place}: ${count}`);
  });
});
