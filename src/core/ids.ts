/**
 * The names of things inside a cluster and how a partition finds its shard and its lane. Pure; any thread.
 * Does not own: how ids are allocated (storage/metadata) or how objects are keyed (storage/objects).
 */

import type { ShardLayout } from './shard-layout.ts';

/** One batch object: the `number`-th object of agent incarnation `incarnation`; both integers from 0. */
export interface ObjectId {
  incarnation: number;
  number: number;
}

/** A partition, by numbers. */
export interface PartitionId {
  topicId: number;
  partition: number;
}

/**
 * At most this many partitions in a topic: a partition key must stay a safe integer, with 2^33 topic ids.
 * 2^20 is ten times the goal of 100,000.
 */
export const PARTITIONS_PER_TOPIC_MAX = 1 << 20;

/** Topic ids are allocated from 1 and stay below this. */
export const TOPIC_ID_MAX = 2 ** 33 - 1;

/** A partition as one safe integer, for maps: topicId * 2^20 + partition. Sorts by topic, then partition. */
export function partitionKey(topicId: number, partition: number): number {
  return topicId * PARTITIONS_PER_TOPIC_MAX + partition;
}

export function topicIdOfKey(key: number): number {
  return Math.floor(key / PARTITIONS_PER_TOPIC_MAX);
}

export function partitionOfKey(key: number): number {
  return key % PARTITIONS_PER_TOPIC_MAX;
}

/** A 32-bit mix of a partition's numbers (the finalizer of MurmurHash3 over both); frozen: stored data depends on it. */
function mix(topicId: number, partition: number, seed: number): number {
  let h =
    (seed ^
      Math.imul(topicId >>> 0, 0x9e3779b1) ^
      Math.imul(Math.floor(topicId / 4294967296) + 1, 0x632be5ab)) |
    0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul((h ^ (h >>> 13)) + partition, 0xc2b2ae35);
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** The shard of a partition, one of its topic's group. Fixed for the cluster's life, as the layout is. */
export function shardOf(topicId: number, partition: number, layout: ShardLayout): number {
  const hash = mix(topicId, partition, 0x5eed0001);
  const { groups } = layout;
  if (groups.length === 1) return hash % layout.shardCount;
  // Written out: this runs for every append, and shardRangeOf makes an object.
  const index = topicId % groups.length;
  let first = 0;
  for (let i = 0; i < index; i++) first += groups[i].shards;
  return first + (hash % groups[index].shards);
}

/** The lane of a partition in this process. Another seed than the shard's, so that every shard spreads over all lanes. */
export function laneOf(topicId: number, partition: number, laneCount: number): number {
  return laneCount === 1 ? 0 : mix(topicId, partition, 0x1a9e0002) % laneCount;
}
