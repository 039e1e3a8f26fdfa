-- The metadata store's first schema. Rows are few by design: a shard has one head and one row per entry of its
-- log, whatever the number of partitions; an object has one row, whatever the number of its slices.
--
-- Run in one transaction with the search path set to the store's own schema.

CREATE TABLE cluster (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  cluster_id text NOT NULL,
  store_incarnation text NOT NULL,
  shard_count integer NOT NULL,
  created_at_ms bigint NOT NULL,
  generation bigint NOT NULL,
  copied_from text,
  moved_to text
);

-- The last id given out of each kind. Rows and no sequences: ids are then given and kept by the same commit.
CREATE TABLE counters (
  name text COLLATE "C" PRIMARY KEY,
  last bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

INSERT INTO counters (name, last) VALUES ('topic', 0), ('incarnation', 0), ('producer', 0);

-- Names are kept as storage/metadata/pg-wire/pg-values.ts writes them: as they are, but for two control
-- characters. "C" compares bytes.
CREATE TABLE topics (
  topic_id bigint PRIMARY KEY,
  name text COLLATE "C" NOT NULL UNIQUE,
  partition_count integer NOT NULL,
  configs text NOT NULL, -- JSON object of strings; jsonb would refuse U+0000
  created_at_ms bigint NOT NULL,
  version bigint NOT NULL
);

-- Topics whose TopicDeleted entries may not have reached all shards yet.
CREATE TABLE deleted_topics (
  topic_id bigint PRIMARY KEY,
  name text COLLATE "C" NOT NULL,
  partition_count integer NOT NULL,
  configs text NOT NULL,
  created_at_ms bigint NOT NULL,
  version bigint NOT NULL
);

-- Updated with every flush. Nothing that changes is indexed and pages are kept nearly empty, so that a new version
-- finds room beside the old one (HOT): no index grows, and pruning clears up without vacuum.
CREATE TABLE heads (
  shard integer PRIMARY KEY,
  head_seq bigint NOT NULL,
  head_commit_id text NOT NULL,
  epoch bigint NOT NULL,
  holder bigint NOT NULL,
  checkpoint_seq bigint, -- both null, or neither
  checkpoint_writer bigint,
  trimmed_through bigint NOT NULL
) WITH (
  fillfactor = 10,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);

-- Bodies are packed already: EXTERNAL stores them as they are and never tries to compress.
-- Trimmed from below all the time, so vacuum must follow by count and not by a share of the table.
CREATE TABLE entries (
  shard integer NOT NULL,
  seq bigint NOT NULL,
  epoch bigint NOT NULL,
  commit_id text NOT NULL,
  body bytea NOT NULL,
  PRIMARY KEY (shard, seq)
) WITH (
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 5000,
  toast.autovacuum_vacuum_scale_factor = 0.02,
  toast.autovacuum_vacuum_threshold = 20000
);
ALTER TABLE entries ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE pages (
  topic_id bigint NOT NULL,
  partition integer NOT NULL,
  base_offset bigint NOT NULL,
  shard integer NOT NULL,
  stamp bigint NOT NULL,
  bytes bytea NOT NULL,
  PRIMARY KEY (topic_id, partition, base_offset)
);
ALTER TABLE pages ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE checkpoints (
  shard integer NOT NULL,
  seq bigint NOT NULL,
  writer bigint NOT NULL,
  bytes bytea NOT NULL,
  PRIMARY KEY (shard, seq, writer)
);
ALTER TABLE checkpoints ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- shards[i] refers to the object, sealed under epochs[i]. `unreferenced` is what the index asks for: it changes
-- once, so that dropping one of several references touches no index.
CREATE TABLE objects (
  incarnation bigint NOT NULL,
  number bigint NOT NULL,
  bytes bigint NOT NULL,
  created_at_ms bigint NOT NULL,
  shards integer[] NOT NULL,
  epochs bigint[] NOT NULL,
  unreferenced boolean NOT NULL,
  marked_at_ms bigint,
  PRIMARY KEY (incarnation, number)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX unreferenced_objects ON objects (incarnation, number) WHERE unreferenced;

CREATE TABLE agents (
  agent_id text COLLATE "C" PRIMARY KEY,
  incarnation bigint NOT NULL,
  address text NOT NULL,
  zone text NOT NULL,
  agent_group text NOT NULL,
  version text NOT NULL,
  heartbeat_count bigint NOT NULL,
  registered_at_ms bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
