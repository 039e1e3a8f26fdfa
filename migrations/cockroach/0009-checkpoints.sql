CREATE TABLE IF NOT EXISTS {schema}.checkpoints (
  shard INT8 NOT NULL,
  seq INT8 NOT NULL,
  writer INT8 NOT NULL,
  region {region} NOT NULL,
  bytes BYTEA NOT NULL,
  body_bytes INT8 NOT NULL,
  PRIMARY KEY (shard, seq, writer)
) {by row}
