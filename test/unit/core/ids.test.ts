/**
 * Ids: keys of partitions, and the hashes that stored data depends on, frozen.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { laneOf, partitionKey, partitionOfKey, shardOf, topicIdOfKey } from '../../../src/core/ids.ts';
import { groupOfShard, groupOfTopic, oneGroup, shardsOfTopic } from '../../../src/core/shard-layout.ts';

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

/** The same partitions in groups of 3, 21 and 40 shards. */
const FROZEN_IN_GROUPS = [10, 14, 14, 5, 35, 4, 1, 6, 21];

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

  it('places partitions of a group where they will always be', () => {
    const groups = [
      { name: 'a', shards: 3 },
      { name: 'b', shards: 21 },
      { name: 'c', shards: 40 },
    ];
    const places = FROZEN.map(([topicId, partition]) =>
      shardOf(topicId, partition, { shardCount: 64, groups }),
    );
    assert.deepEqual(places, FROZEN_IN_GROUPS);
  });

  it('keeps a topic in the shards of its group, on which it is spread evenly', () => {
    const groups = [
      { name: 'a', shards: 8 },
      { name: 'b', shards: 48 },
      { name: 'c', shards: 8 },
    ];
    const layout = { shardCount: 64, groups };
    for (const topicId of [3, 4, 5, 3_000_000_000, 8_589_934_591]) {
      const counts = new Map<number, number>();
      for (let partition = 0; partition < 9600; partition++) {
        const shard = shardOf(topicId, partition, layout);
        counts.set(shard, (counts.get(shard) ?? 0) + 1);
      }
      const sorted = [...counts.keys()].sort((a, b) => a - b);
      assert.deepEqual(sorted, shardsOfTopic(layout, topicId));
      assert.equal(groupOfTopic(layout, topicId), groups[topicId % 3].name);
      const fair = 9600 / sorted.length;
      for (const [shard, count] of counts) {
        assert.equal(groupOfShard(layout, shard), groupOfTopic(layout, topicId));
        assert.ok(count > fair * 0.6 && count < fair * 1.4, `${topicId} in ${shard}: ${count}`);
      }
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
