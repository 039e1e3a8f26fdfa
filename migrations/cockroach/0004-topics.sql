-- Names are kept as storage/metadata/pg-wire/pg-values.ts writes them, and compared byte by byte.
CREATE TABLE IF NOT EXISTS {schema}.topics (
  topic_id INT8 PRIMARY KEY,
  name TEXT{bytewise} NOT NULL UNIQUE,
  partition_count INT8 NOT NULL,
  configs TEXT NOT NULL, -- JSON object of strings
  created_at_ms INT8 NOT NULL,
  version INT8 NOT NULL
) {global}
