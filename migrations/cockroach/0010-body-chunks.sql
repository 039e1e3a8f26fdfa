-- What bodies have beyond their row's share: (e, shard, seq, 0) for entries, (c, shard, seq, writer) for
-- checkpoints, (p, topic id, partition, base offset) for pages; `chunk` from 1. Written and deleted in one
-- transaction with the row.
CREATE TABLE IF NOT EXISTS {schema}.body_chunks (
  region {region} NOT NULL,
  kind TEXT NOT NULL,
  key_1 INT8 NOT NULL,
  key_2 INT8 NOT NULL,
  key_3 INT8 NOT NULL,
  chunk INT8 NOT NULL,
  bytes BYTEA NOT NULL,
  PRIMARY KEY (region, kind, key_1, key_2, key_3, chunk)
) {by row}
