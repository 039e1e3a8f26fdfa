-- Inserted with the entries that name them, so the region stands in the key as in entries. An object's incarnation
-- is one process and lives in one region: no other region ever inserts the same object.
CREATE TABLE IF NOT EXISTS {schema}.objects (
  region {region} NOT NULL,
  incarnation INT8 NOT NULL,
  number INT8 NOT NULL,
  bytes INT8 NOT NULL,
  created_at_ms INT8 NOT NULL,
  reference_count INT8 NOT NULL,
  shard_references BYTEA NOT NULL, -- packed: storage/metadata/object-references.ts
  marked_at_ms INT8,
  PRIMARY KEY (region, incarnation, number)
) {by row}
