INSERT INTO {schema}.counters (name, last) VALUES ('topic', 0), ('incarnation', 0), ('producer', 0)
ON CONFLICT (name) DO NOTHING
