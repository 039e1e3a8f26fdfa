-- One row per shard, split by shard. `region` is the home region of the shard: that of the agent which took it last,
-- so that an append moves no byte between regions. The key leaves it out: a shard has one head, wherever it lives.
CREATE TABLE IF NOT EXISTS {schema}.heads (
  shard INT8 PRIMARY KEY,
  region {region} NOT NULL,
  head_seq INT8 NOT NULL,
  head_commit_id TEXT NOT NULL,
  epoch INT8 NOT NULL,
  holder INT8 NOT NULL,
  checkpoint_seq INT8, -- both null, or neither
  checkpoint_writer INT8,
  trimmed_through INT8 NOT NULL
) {by row}
