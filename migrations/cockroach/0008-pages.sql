-- Written between commits, so the look into other regions that the key costs an insert keeps nobody waiting, and a
-- page exists once, wherever its shard has moved.
CREATE TABLE IF NOT EXISTS {schema}.pages (
  topic_id INT8 NOT NULL,
  partition INT8 NOT NULL,
  base_offset INT8 NOT NULL,
  region {region} NOT NULL,
  shard INT8 NOT NULL,
  stamp INT8 NOT NULL,
  bytes BYTEA NOT NULL,
  body_bytes INT8 NOT NULL,
  PRIMARY KEY (topic_id, partition, base_offset)
) {by row}
