/**
 * The groups of a cluster as every backend stores them: as text, beside the shard count. Owns: that form. A cluster whose
 * shards are all in the group `default` has none, as all had that were made before there were groups. Pure.
 */
import { StreamHouseError } from '../../src/core/errors.ts';
import {
  DEFAULT_GROUP,
  formatShardGroups,
  oneGroup,
  parseShardGroups,
  type ShardGroup,
  type ShardLayout,
} from '../../src/core/shard-layout.ts';

/** 'default:48,heavy:16', or null. */
export function storedGroups({ groups }: ShardLayout): string | null {
  return groups.length === 1 && groups[0].name === DEFAULT_GROUP ? null : formatShardGroups(groups);
}

/** 'corrupt-store' for what is no text of groups, or has another number of shards. */
export function groupsOfStored(text: string | null, shardCount: number): readonly ShardGroup[] {
  if (text === null) return oneGroup(shardCount).groups;
  const layout = parseShardGroups(text);
  if (layout?.shardCount === shardCount) return layout.groups;
  throw new StreamHouseError('corrupt-store', `${shardCount} shards are in the groups '${text}'`);
}
