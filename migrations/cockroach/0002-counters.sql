-- The last id given out of each kind. In the primary region: whoever reads it writes it.
CREATE TABLE IF NOT EXISTS {schema}.counters (
  name TEXT PRIMARY KEY,
  last INT8 NOT NULL
)
