/**
 * How a cluster's shards are divided among groups of brokers. Owns: the layout and its text form; which group a shard
 * and a topic belong to. Does not own: the shard of a partition (ids), where the layout is stored (storage/metadata),
 * who serves a shard (src/agent). Pure; any thread.
 *
 *   default:48,heavy:16    shards 0 to 47 are default's, 48 to 63 heavy's
 *
 * The layout is made with the cluster and never changes. A topic's group follows from its id alone, topicId mod the
 * number of groups, so that whoever knows a partition's numbers finds its shard without the catalogue: entries, pages
 * and checkpoints name topics by nothing else. With one group nothing depends on topic ids.
 */

export interface ShardGroup {
  readonly name: string;
  /** How many. */
  readonly shards: number;
}

export interface ShardLayout {
  readonly shardCount: number;
  /** At least one; contiguous ranges of shards in this order, `shardCount` in all. */
  readonly groups: readonly ShardGroup[];
}

/** Topic ids of one group: those with topicId mod `modulus` = `residue`. */
export interface TopicIdClass {
  readonly modulus: number;
  readonly residue: number;
}

export const SHARDS_MAX = 1024;

/** A topic takes as many ids as there are groups; 2^33 ids are then enough for 134 million topics. */
export const GROUPS_MAX = 64;

/** The one group of a cluster that was made without any. */
export const DEFAULT_GROUP = 'default';

/** The topic config that names the topic's group; Kafka knows no such thing. */
export const GROUP_CONFIG = 'streamhouse.group';

const GROUP = /^([A-Za-z0-9._-]{1,100}):([1-9][0-9]{0,3})$/;

/** All shards in the group `default`. */
export function oneGroup(shardCount: number): ShardLayout {
  return { shardCount, groups: [{ name: DEFAULT_GROUP, shards: shardCount }] };
}

/** The layout alone of what bears one besides other things. */
export function layoutOf({ shardCount, groups }: ShardLayout): ShardLayout {
  return { shardCount, groups };
}

/** 'default:48,heavy:16'; null if it is no such text, or names a group twice, too many groups or too many shards. */
export function parseShardGroups(text: string): ShardLayout | null {
  const groups: ShardGroup[] = [];
  const names = new Set<string>();
  let shardCount = 0;
  for (const part of text.split(',')) {
    const match = GROUP.exec(part);
    if (match === null || names.has(match[1])) return null;
    const shards = Number(match[2]);
    names.add(match[1]);
    groups.push({ name: match[1], shards });
    shardCount += shards;
  }
  return groups.length > GROUPS_MAX || shardCount > SHARDS_MAX ? null : { shardCount, groups };
}

export function formatShardGroups(groups: readonly ShardGroup[]): string {
  return groups.map(({ name, shards }) => `${name}:${shards}`).join(',');
}

/** For messages: 'default, heavy'. */
export function groupNames({ groups }: ShardLayout): string {
  return groups.map(({ name }) => name).join(', ');
}

export function hasGroup({ groups }: ShardLayout, group: string): boolean {
  return groups.some(({ name }) => name === group);
}

/** The group whose brokers may hold the shard. */
export function groupOfShard({ groups, shardCount }: ShardLayout, shard: number): string {
  let end = 0;
  for (const { name, shards } of groups) {
    end += shards;
    if (shard < end) return name;
  }
  throw new RangeError(`shard ${shard} of ${shardCount}`);
}

/** The group that the topic is bound to. */
export function groupOfTopic({ groups }: ShardLayout, topicId: number): string {
  return groups[topicId % groups.length].name;
}

/** The ids of topics of the group; null if there is no such group. */
export function topicIdClassOf({ groups }: ShardLayout, group: string): TopicIdClass | null {
  const residue = groups.findIndex(({ name }) => name === group);
  return residue === -1 ? null : { modulus: groups.length, residue };
}

/** Where the shards of a topic's group begin, and how many they are. */
export function shardRangeOf(layout: ShardLayout, topicId: number): { first: number; count: number } {
  const { groups } = layout;
  const index = topicId % groups.length;
  let first = 0;
  for (let i = 0; i < index; i++) first += groups[i].shards;
  return { first, count: groups[index].shards };
}

/** All shards in which partitions of the topic may lie. */
export function shardsOfTopic(layout: ShardLayout, topicId: number): number[] {
  const { first, count } = shardRangeOf(layout, topicId);
  return Array.from({ length: count }, (_, i) => first + i);
}
