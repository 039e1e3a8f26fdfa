CREATE TABLE IF NOT EXISTS {schema}.agents (
  agent_id TEXT{bytewise} PRIMARY KEY,
  region {region} NOT NULL,
  incarnation INT8 NOT NULL,
  address TEXT NOT NULL,
  zone TEXT NOT NULL,
  agent_group TEXT NOT NULL,
  version TEXT NOT NULL,
  heartbeat_count INT8 NOT NULL,
  registered_at_ms INT8 NOT NULL
) {by row}
