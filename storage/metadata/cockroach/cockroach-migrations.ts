/**
 * The schema of a CockroachDB store: what is applied, and the target of `migrate`. Owns: how a step runs and is
 * recorded. Does not own: the steps (migrations/cockroach), their order (migrations/apply), regions
 * (cockroach-regions). Where a store is opened.
 *
 * CockroachDB runs a schema change as a job of its own outside of any transaction that the client could hold, and
 * knows no advisory locks; a lock row would need an expiry, and so a clock to judge it by. So nobody is excluded:
 * every step may run again and at once with itself (IF NOT EXISTS, or a statement that sets what is set), it is
 * recorded after it is done, if absent, and what is recorded is compared with what was run before the next step. What
 * this asks of whoever writes a step: it makes one change, and no later step takes back under the same name what an
 * earlier one made, for a slow rival may run the earlier one last.
 */
import type {
  AppliedMigration,
  Migration,
  MigrationSession,
  MigrationTarget,
} from '../../../migrations/apply.ts';
import { sqlOf } from '../../../migrations/apply.ts';
import type { Clock } from '../../../src/core/clock.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { PgConnections } from '../pg-wire/pg-connections.ts';
import type { PgFailure, PgMeaning } from '../pg-wire/pg-failure.ts';
import type { PgSession } from '../pg-wire/pg-session.ts';
import { quoteIdentifier } from '../pg-wire/pg-values.ts';
import { type CockroachCapabilities, type CockroachSchema, migrationText } from './cockroach-capabilities.ts';
import { cockroachMeaning } from './cockroach-error.ts';
import { ensureRegions, readRegions, type WantedRegions } from './cockroach-regions.ts';

/** A schema change waits for data to be rewritten and for every node to hear of it. */
export const MIGRATION_MS = 30 * 60 * 1000;

/**
 * Two rivals with one step: an object that the other made a moment ago, in spite of IF NOT EXISTS (42P06, 42P07,
 * 42710; PostgreSQL's catalogue says 23505 or XX000), a change that must wait for the other's (55000, 55006).
 */
const RIVAL = /^(42P06|42P07|42710|23505|XX000|55000|55006)$/;

/** What a step asks for is not there (regions, say), or this user may not do it. */
const REFUSED = /^(0A|3F|42)/;

/** As `cockroachMeaning`, but that every step may be repeated, and that what the server refuses is the operator's. */
export function migrationMeaning(failure: PgFailure): PgMeaning {
  const state = failure.sqlState ?? '';
  if (RIVAL.test(state)) return 'retry';
  const meaning = cockroachMeaning(failure);
  return meaning === 'bug' || REFUSED.test(state) ? 'invalid-setting' : meaning;
}

export interface CockroachMigrationSettings {
  schemaName: string;
  capabilities: CockroachCapabilities;
  wanted: WantedRegions | null;
}

/** Empty when nothing was ever applied. */
export async function readApplied(session: PgSession, schemaName: string): Promise<AppliedMigration[]> {
  const [{ count }] = await session.run(
    {
      name: 'hasMigrations',
      text: `SELECT count(*)::INT8 AS count FROM information_schema.tables
        WHERE table_schema = $1 AND table_name = 'schema_migrations'`,
    },
    [schemaName],
  );
  if (count === 0) return [];
  const table = `${quoteIdentifier(schemaName)}.schema_migrations`;
  const rows = await session.runText(`SELECT number, name, checksum, breaking FROM ${table} ORDER BY number`);
  return rows as unknown as AppliedMigration[];
}

/** How the tables that are there were made; null where they are not there. */
export async function readSchema(session: PgSession, schemaName: string): Promise<CockroachSchema | null> {
  const [row] = await session.run(
    {
      name: 'typeOfRegion',
      text: `SELECT data_type::TEXT AS type FROM information_schema.columns
        WHERE table_schema = $1 AND table_name = 'heads' AND column_name = 'region'`,
    },
    [schemaName],
  );
  return row ? { name: schemaName, isRegional: row.type === 'USER-DEFINED' } : null;
}

export function migrationTarget(
  connections: PgConnections,
  settings: CockroachMigrationSettings,
  clock: Clock,
): MigrationTarget {
  const { schemaName } = settings;
  const session: MigrationSession = {
    applied: () => connections.readWithin((one) => readApplied(one, schemaName)),
    async apply(migration) {
      // 'read', for every statement may be repeated: whatever is lost, nothing needs to be found out.
      await connections.readWithin((one) => runStep(one, settings, migration, clock));
    },
  };
  return { description: connections.description, exclusively: (work) => work(session) };
}

async function runStep(
  session: PgSession,
  settings: CockroachMigrationSettings,
  migration: Migration,
  clock: Clock,
): Promise<void> {
  const { schemaName, capabilities } = settings;
  const schema = await prepareSchema(session, settings);
  const name = quoteIdentifier(schemaName);
  await session.runText(`CREATE TABLE IF NOT EXISTS ${name}.schema_migrations (
    number INT8 PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at_ms INT8 NOT NULL,
    breaking BOOL NOT NULL)`);
  const text = migrationText(sqlOf(migration), capabilities, schema);
  if (text !== null) await session.runText(text);
  await session.run(
    {
      name: 'recordMigration',
      text: `INSERT INTO ${name}.schema_migrations (number, name, checksum, applied_at_ms, breaking)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (number) DO NOTHING`,
    },
    [migration.number, migration.name, migration.checksum, Math.floor(clock.wallMs()), migration.breaking],
  );
}

/** The schema and, before its first table, the database's regions; then what tables are to look like. */
async function prepareSchema(
  session: PgSession,
  settings: CockroachMigrationSettings,
): Promise<CockroachSchema> {
  const { schemaName, capabilities, wanted } = settings;
  const present = await readSchema(session, schemaName);
  if (present) {
    checkShape(present, wanted, schemaName);
    return present;
  }
  // Not IF NOT EXISTS alone: that asks for the right to create one even where it is there.
  const [{ count }] = await session.run(
    {
      name: 'hasSchema',
      text: 'SELECT count(*)::INT8 AS count FROM information_schema.schemata WHERE schema_name = $1',
    },
    [schemaName],
  );
  if (count === 0) await session.runText(`CREATE SCHEMA IF NOT EXISTS ${quoteIdentifier(schemaName)}`);
  if (wanted) await ensureRegions(session, capabilities, wanted);
  const regions = await readRegions(session, capabilities);
  return { name: schemaName, isRegional: regions.length > 0 };
}

/** The region stands in the keys of rows: tables without cannot get one. */
export function checkShape(schema: CockroachSchema, wanted: WantedRegions | null, what: string): void {
  if (!wanted || schema.isRegional) return;
  throw new StreamHouseError(
    'invalid-setting',
    `${what} was made without regions, and rows cannot get a home later: copy the cluster into a new database ` +
      'with regions (`streamhouse metadata copy`)',
  );
}
