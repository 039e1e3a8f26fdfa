-- Topics whose TopicDeleted entries may not have reached all shards yet.
CREATE TABLE IF NOT EXISTS {schema}.deleted_topics (
  topic_id INT8 PRIMARY KEY,
  name TEXT{bytewise} NOT NULL,
  partition_count INT8 NOT NULL,
  configs TEXT NOT NULL,
  created_at_ms INT8 NOT NULL,
  version INT8 NOT NULL
) {global}
