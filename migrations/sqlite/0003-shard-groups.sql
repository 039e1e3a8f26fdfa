-- Shards may be divided among groups of brokers: see src/core/shard-layout.ts. NULL: all of them in the group `default`.
-- Breaking: an older version would look for a topic's partitions in all shards.
ALTER TABLE cluster ADD COLUMN shard_groups TEXT;
