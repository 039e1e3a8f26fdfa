-- The cluster's one row. Words in braces are set by storage/metadata/cockroach/cockroach-capabilities.ts: {schema} the
-- schema of the store, {region} the type of a row's home region, {by row} and {global} localities, {bytewise} what
-- makes text compare by bytes.
-- Every file here is one schema change that may run again: rivals run the same one at once, and one that was cut
-- off is run anew.
CREATE TABLE IF NOT EXISTS {schema}.cluster (
  only_row INT8 PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
  cluster_id TEXT NOT NULL,
  store_incarnation TEXT NOT NULL,
  shard_count INT8 NOT NULL,
  created_at_ms INT8 NOT NULL,
  generation INT8 NOT NULL,
  copied_from TEXT,
  moved_to TEXT
) {global}
