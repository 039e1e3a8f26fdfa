-- The region of the holder that wrote it stands in the key, so that an insert looks into no other region for a row
-- of the same (shard, seq). That there is none is the head's doing: it gives each seq once.
CREATE TABLE IF NOT EXISTS {schema}.entries (
  region {region} NOT NULL,
  shard INT8 NOT NULL,
  seq INT8 NOT NULL,
  epoch INT8 NOT NULL,
  commit_id TEXT NOT NULL,
  body BYTEA NOT NULL, -- its beginning; the rest of a large one lies in body_chunks
  body_bytes INT8 NOT NULL,
  PRIMARY KEY (region, shard, seq)
) {by row}
