/**
 * Opening a PostgreSQL metadata store and its schema's migrations. Owns: this backend's own settings, what is asked of
 * every connection, the migration target. Does not own: the protocol (pg-wire), the store. The storing thread.
 *
 *   schema      the schema that holds the store's tables (streamhouse). Its own one by default: `public` is not
 *               open to ordinary users any more and belongs to everybody. Several clusters may share a database
 *               under different schemas
 *   pgbouncer   true behind a pool of connections that are shared by transaction: statements are not prepared by
 *               name and no settings of the session are sent (the timeouts below the client's own, the isolation
 *               level, the read-only mode of readers). Set those on the role: ALTER ROLE ... SET lock_timeout = ...
 *   durability  unchecked takes a server that may lose what it confirmed (fsync, full_page_writes or
 *               synchronous_commit off): for tests on a server that is thrown away, and for nothing else
 */
import {
  type AppliedMigration,
  applyMigrations,
  type Migration,
  type MigrationSession,
  type MigrationTarget,
  pendingMigrations,
  readSqlMigrations,
  schemaTooOld,
  sqlOf,
} from '../../../migrations/apply.ts';
import type { Clock } from '../../../src/core/clock.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { MetadataRole, OpenBackendOptions, OpenedMigrations } from '../metadata-backend.ts';
import { PgConnections, type PgDialect } from '../pg-wire/pg-connections.ts';
import type { PgRow, PgSession } from '../pg-wire/pg-session.ts';
import { type PgUrl, readPgUrl } from '../pg-wire/pg-url.ts';
import { quoteIdentifier } from '../pg-wire/pg-values.ts';
import { postgresMeaning } from './postgres-error.ts';
import { PostgresMetadataStore } from './postgres-metadata-store.ts';

const OWN_SETTINGS = ['schema', 'pgbouncer', 'durability'];

const SCHEMA = 'streamhouse';

/** PostgreSQL cuts longer names off. */
const SCHEMA_NAME = /^[A-Za-z_][A-Za-z0-9_$-]{0,62}$/;

/** A transaction whose client went silent is ended by the server after this; ours send COMMIT at once. */
const IDLE_IN_TRANSACTION_MS = 10_000;

/** Tries of a call that collides with others every time; with the waits between them some 2 s. */
const TRIES_MAX = 10;

/** A migration may rewrite a table, and waits for nineteen others. */
const MIGRATION_MS = 30 * 60 * 1000;

interface PostgresSettings {
  url: PgUrl;
  schema: string;
  behindPgbouncer: boolean;
  isDurabilityChecked: boolean;
}

type OpenParts = Pick<OpenBackendOptions, 'clock' | 'random' | 'counters'>;

/** 'invalid-setting' for a URL that cannot be. */
export function readPostgresUrl(text: string): PostgresSettings {
  const url = readPgUrl(text, OWN_SETTINGS);
  const { own } = url;
  const schema = own.get('schema') ?? SCHEMA;
  if (!SCHEMA_NAME.test(schema)) {
    throw new StreamHouseError('invalid-setting', `'${schema}' is no schema's name`);
  }
  const described = { ...url, description: `${url.description}, schema ${schema}` };
  return {
    url: described,
    schema,
    behindPgbouncer: oneOf(own, 'pgbouncer', ['false', 'true']) === 'true',
    isDurabilityChecked: oneOf(own, 'durability', ['checked', 'unchecked']) === 'checked',
  };
}

function oneOf(given: ReadonlyMap<string, string>, name: string, known: readonly string[]): string {
  const value = given.get(name) ?? known[0];
  if (known.includes(value)) return value;
  throw new StreamHouseError(
    'invalid-setting',
    `${name} in the metadata URL is ${known.join(' or ')}, not '${value}'`,
  );
}

/** 'schema-too-old' where migrations are pending and may not be applied, 'schema-too-new'; else as the first call. */
export async function openPostgresStore(
  text: string,
  options: OpenBackendOptions,
): Promise<PostgresMetadataStore> {
  const settings = readPostgresUrl(text);
  const { role, migrate, clock } = options;
  const connections = await connect(settings, role, options);
  try {
    const known = readSqlMigrations('postgres');
    if (role === 'broker' && migrate)
      await applyMigrations(migrationTarget(connections, settings, clock), known);
    else await rightsMissing(checkSchema(connections, settings, known));
    return new PostgresMetadataStore(connections, { schema: settings.schema, role });
  } catch (error) {
    await connections.close();
    throw error;
  }
}

/** With `readOnly` as a reader, who neither waits for those that migrate nor keeps them waiting. */
export async function openPostgresMigrations(
  text: string,
  parts: OpenParts & { readOnly: boolean },
): Promise<OpenedMigrations> {
  const { readOnly, clock } = parts;
  const settings = readPostgresUrl(text);
  const connections = await connect(settings, readOnly ? 'reader' : 'broker', parts);
  const target = migrationTarget(connections, settings, clock);
  const session: MigrationSession = {
    applied: () => connections.readWithin((one) => appliedMigrations(one, settings.schema)),
    apply: () => Promise.reject(new Error('a migration was applied through a target that only reads')),
  };
  return {
    target: readOnly ? { ...target, exclusively: (work) => rightsMissing(work(session)) } : target,
    known: readSqlMigrations('postgres'),
    close: () => connections.close(),
  };
}

async function connect(
  settings: PostgresSettings,
  role: MetadataRole,
  parts: OpenParts,
): Promise<PgConnections> {
  const { clock, random, counters } = parts;
  const dialect = dialectFor(settings, role);
  const connections = new PgConnections({ url: settings.url, dialect, clock, random, counters });
  try {
    await connections.open();
    return connections;
  } catch (error) {
    await connections.close();
    if (error instanceof StreamHouseError && error.message.includes('startup parameter')) {
      const hint = `${error.message}; behind PgBouncer the metadata URL needs ?pgbouncer=true`;
      throw new StreamHouseError(error.code, hint, error.detail, error);
    }
    throw error;
  }
}

function dialectFor(settings: PostgresSettings, role: MetadataRole): PgDialect {
  const { url, behindPgbouncer } = settings;
  return {
    meaning: postgresMeaning,
    begin: 'BEGIN ISOLATION LEVEL READ COMMITTED',
    triesMax: TRIES_MAX,
    named: !behindPgbouncer,
    sessionSettings: behindPgbouncer
      ? null
      : {
          statement_timeout: url.statementMs,
          lock_timeout: url.lockMs,
          idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_MS,
          default_transaction_isolation: 'read committed',
          // A broker leaves it as it is: where an operator made the database read-only, it is to be refused.
          ...(role === 'reader' && { default_transaction_read_only: 'on' }),
          bytea_output: 'hex',
          // Every statement finds its rows by a key, whatever its parameters and however large the tables: it is
          // planned once (0.3 ms for an append that takes 1 ms), and what was planned while a table was empty must
          // do when it is full. Compiling costs more than any of them takes.
          plan_cache_mode: 'force_generic_plan',
          enable_seqscan: 'off',
          jit: 'off',
        },
    checkStatement: {
      name: 'checkConnection',
      text: `SELECT pg_is_in_recovery() AS "isStandby", current_setting('transaction_read_only') AS "readOnly",
        current_setting('fsync') AS fsync, current_setting('full_page_writes') AS "full_page_writes",
        current_setting('synchronous_commit') AS "synchronous_commit",
        current_setting('server_encoding') AS "encoding", current_setting('bytea_output') AS "byteaOutput"`,
    },
    check: (row) => wrongServer(row, settings, role),
  };
}

/** What is wrong with a server, or null. Asked of every connection: the next one may lead to another server. */
function wrongServer(row: PgRow, settings: PostgresSettings, role: MetadataRole): StreamHouseError | null {
  const { url, isDurabilityChecked } = settings;
  const error = (code: 'store-unavailable' | 'invalid-setting', message: string) =>
    new StreamHouseError(code, `${url.description}: ${message}`);
  if (row.isStandby)
    return error('store-unavailable', 'the server is a standby; the metadata store needs the primary');
  if (row.encoding !== 'UTF8')
    return error('invalid-setting', `the database's encoding is ${row.encoding}, not UTF8`);
  if (row.byteaOutput !== 'hex')
    return error('invalid-setting', `bytea_output is ${row.byteaOutput}, not hex`);
  if (role === 'reader') return null;
  if (row.readOnly === 'on')
    return error('store-unavailable', 'the server takes no writes (it is read-only)');
  if (!isDurabilityChecked) return null;
  for (const name of ['fsync', 'full_page_writes', 'synchronous_commit']) {
    if (row[name] !== 'off') continue;
    return error('invalid-setting', `${name} is off: the server may lose what it confirmed; switch it on`);
  }
  return null;
}

async function checkSchema(
  connections: PgConnections,
  settings: PostgresSettings,
  known: readonly Migration[],
): Promise<void> {
  const { description } = connections;
  const applied = await connections.readWithin((session) => appliedMigrations(session, settings.schema));
  const pending = pendingMigrations(description, known, applied);
  if (pending.length > 0) throw schemaTooOld(description, known, pending);
}

async function appliedMigrations(session: PgSession, schema: string): Promise<AppliedMigration[]> {
  const table = `${quoteIdentifier(schema)}.schema_migrations`;
  const [{ exists }] = await session.run(
    { name: 'hasMigrations', text: 'SELECT to_regclass($1) IS NOT NULL AS exists' },
    [table],
  );
  if (!exists) return [];
  const rows = await session.runText(`SELECT number, name, checksum, breaking FROM ${table} ORDER BY number`);
  return rows as unknown as AppliedMigration[];
}

/** Others that migrate the same schema of the same database wait for the transaction that is under way. */
function migrationTarget(
  connections: PgConnections,
  settings: PostgresSettings,
  clock: Clock,
): MigrationTarget {
  const { schema } = settings;
  const name = quoteIdentifier(schema);
  const sessionOf = (session: PgSession): MigrationSession => ({
    applied: () => appliedMigrations(session, schema),
    async apply(migration) {
      const { number, checksum, breaking } = migration;
      // Not IF NOT EXISTS: that asks for the right to create one even where it is there.
      const [{ exists }] = await session.run(
        { name: 'hasSchema', text: 'SELECT to_regnamespace($1) IS NOT NULL AS exists' },
        [name],
      );
      if (!exists) await session.runText(`CREATE SCHEMA ${name}`);
      await session.runText(`SET LOCAL search_path TO ${name}`);
      await session.runText(
        `CREATE TABLE IF NOT EXISTS schema_migrations (
           number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at_ms bigint NOT NULL,
           breaking boolean NOT NULL
         )`,
      );
      await session.runText(sqlOf(migration));
      await session.run(
        {
          name: 'recordMigration',
          text: `INSERT INTO ${name}.schema_migrations (number, name, checksum, applied_at_ms, breaking)
            VALUES ($1, $2, $3, $4, $5)`,
        },
        [number, migration.name, checksum, Math.floor(clock.wallMs()), breaking],
      );
    },
  });
  return {
    description: connections.description,
    exclusively: (work) =>
      rightsMissing(
        connections.transaction(async (session) => {
          await session.runText(`SET LOCAL statement_timeout = ${MIGRATION_MS}; SET LOCAL lock_timeout = ${MIGRATION_MS};
          SET LOCAL idle_in_transaction_session_timeout = 0`);
          await session.run(
            {
              name: 'lockMigrations',
              text: 'SELECT pg_advisory_xact_lock(hashtextextended($1, 0)) IS NULL AS locked',
            },
            [`streamhouse migrations of ${schema}`],
          );
          return await work(sessionOf(session));
        }, MIGRATION_MS),
      ),
  };
}

/** Rights that a call at opening lacks are a setting that is wrong; later somebody may be about to grant them again. */
async function rightsMissing<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof StreamHouseError && error.detail?.sqlState === '42501') {
      throw new StreamHouseError('invalid-setting', error.message, error.detail, error);
    }
    throw error;
  }
}
