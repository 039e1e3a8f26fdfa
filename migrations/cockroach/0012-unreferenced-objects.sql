CREATE INDEX IF NOT EXISTS unreferenced_objects ON {schema}.objects (incarnation, number) WHERE reference_count = 0
