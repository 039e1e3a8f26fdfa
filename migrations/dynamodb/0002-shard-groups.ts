/**
 * Shards may be divided among groups of brokers: the cluster's item may say so in `groups` (src/core/shard-layout.ts).
 * Nothing is changed; the record keeps older versions off, which would look for a topic's partitions in all shards.
 * Frozen: its checksum is that of what it declares.
 */
import type { DynamodbMigration } from './migration.ts';

export const shardGroups: DynamodbMigration = {
  number: 2,
  name: 'shard-groups',
  breaking: true,
  declares: { attributes: { cluster: ['groups'] } },
  apply: async () => undefined,
};
