-- A cluster may be copied to another store: how often that happened, from where, and to where.
ALTER TABLE cluster ADD COLUMN generation INTEGER NOT NULL DEFAULT 1;
ALTER TABLE cluster ADD COLUMN copied_from TEXT;
ALTER TABLE cluster ADD COLUMN moved_to TEXT;
