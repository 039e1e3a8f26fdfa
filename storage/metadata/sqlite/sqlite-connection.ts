/**
 * Opening and closing a database file. Owns: the order of opening (lock, pragmas, whose file it is, migrations),
 * and every pragma. Does not own: any table's meaning. The storing thread; a reader opens read-only and may do so
 * while a broker runs.
 */
import { existsSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import Database from 'better-sqlite3';
import {
  type AppliedMigration,
  applyMigrations,
  type MigrationSession,
  type MigrationTarget,
  pendingMigrations,
  readSqlMigrations,
  schemaTooOld,
  sqlOf,
} from '../../../migrations/apply.ts';
import type { Clock } from '../../../src/core/clock.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import { sqliteErrorMeaning } from './sqlite-error.ts';
import { lockForOwner, type OwnerLock } from './sqlite-owner-lock.ts';

export interface SqliteSettings {
  path: string;
  /** 'broker' owns the file and writes; 'reader' only reads. */
  role: 'broker' | 'reader';
  clock: Clock;
}

export interface SqliteConnection {
  readonly path: string;
  readonly role: 'broker' | 'reader';
  readonly database: Database.Database;
  /** Closes the database and frees the lock. Once. */
  close(): void;
}

/** 'SHMD', set by the first migration. */
const APPLICATION_ID = 0x53484d44;

/** How long a statement waits for a lock: only a reader's recovery or a backup ever holds one. */
const BUSY_MS_MAX = 5000;

/** How long `migrate` waits for others that migrate, who take some 10 ms each, or for a broker to end. */
const MIGRATORS_MS_MAX = 15_000;

/**
 * Measured against 4096: 8 entries of 20 KB a commit 0.48 instead of 0.53 ms, 160 KB 2.7 instead of 3.1 ms, 200
 * bytes the same.
 */
const PAGE_BYTES = 8192;

/** The page cache; what is read often (heads, topics, index pages) is small. */
const CACHE_KIB = 32 * 1024;

/**
 * SQLite checkpoints the WAL by itself inside a commit at this many pages (64 MiB): a fallback. The store does it
 * earlier, between calls.
 */
const WAL_PAGES_MAX = 8192;

/** A WAL file that once grew larger is cut back to this. */
const WAL_BYTES_KEPT = 64 * 1024 * 1024;

/**
 * Opens the file; a broker creates it and applies migrations. 'conflict' when another broker owns it,
 * 'corrupt-store' when it is damaged or no database, 'schema-too-new', 'invalid-setting' when the path cannot be
 * (no such folder, a database of something else; for a reader: no such file, a schema that is too old).
 */
export async function openSqliteConnection(settings: SqliteSettings): Promise<SqliteConnection> {
  const path = resolvePath(settings);
  const isBroker = settings.role === 'broker';
  let lock: OwnerLock | undefined;
  let database: Database.Database | undefined;
  const close = () => {
    database?.close();
    lock?.release();
  };
  try {
    if (isBroker) lock = lockForOwner(path);
    database = new Database(path, { readonly: !isBroker, fileMustExist: !isBroker, timeout: BUSY_MS_MAX });
    checkOwnFile(database, path);
    if (isBroker) setBrokerPragmas(database);
    else database.pragma(`cache_size = -${CACHE_KIB}`);
    await migrate(database, path, settings);
    return { path, role: settings.role, database, close };
  } catch (error) {
    close();
    throw sqliteErrorMeaning(error, 'open', path);
  }
}

function resolvePath({ path, role }: SqliteSettings): string {
  if (!existsSync(dirname(path))) {
    throw new StreamHouseError('invalid-setting', `metadata store: there is no folder ${dirname(path)}`);
  }
  if (!existsSync(path)) {
    if (role === 'reader') {
      throw new StreamHouseError('invalid-setting', `metadata store: there is no file ${path}`);
    }
    return join(realpathSync(dirname(path)), basename(path));
  }
  if (!statSync(path).isFile()) {
    throw new StreamHouseError('invalid-setting', `metadata store: ${path} is not a file`);
  }
  // One file has one lock, by whatever link it is reached.
  return realpathSync(path);
}

function checkOwnFile(database: Database.Database, path: string): void {
  if (database.pragma('application_id', { simple: true }) === APPLICATION_ID) return;
  const tables = database.prepare('SELECT count(*) FROM sqlite_schema').pluck().get();
  if (tables === 0) return;
  throw new StreamHouseError('invalid-setting', `${path} is an SQLite database of something else`);
}

function setBrokerPragmas(database: Database.Database): void {
  database.pragma(`page_size = ${PAGE_BYTES}`);
  database.pragma('journal_mode = WAL');
  // An fsync of the WAL at every commit: what was answered survives the loss of power. fullfsync is macOS's.
  database.pragma('synchronous = FULL');
  database.pragma('fullfsync = ON');
  database.pragma(`cache_size = -${CACHE_KIB}`);
  database.pragma(`wal_autocheckpoint = ${WAL_PAGES_MAX}`);
  database.pragma(`journal_size_limit = ${WAL_BYTES_KEPT}`);
}

async function migrate(database: Database.Database, path: string, settings: SqliteSettings): Promise<void> {
  const known = readSqlMigrations('sqlite');
  if (settings.role === 'broker') {
    await applyMigrations(migrationTarget(database, path, settings.clock), known);
    return;
  }
  const pending = pendingMigrations(path, known, appliedMigrations(database));
  if (pending.length > 0) throw schemaTooOld(path, known, pending);
}

/**
 * A file as the target of `migrate`: created if it is not there. 'conflict' while a broker runs on it. With
 * `readOnly` neither: then it may also be a file that is not there (null), and only `applied` may be asked.
 */
export function openSqliteMigrations(settings: { path: string; clock: Clock; readOnly: boolean }): {
  target: MigrationTarget;
  close: () => void;
} {
  const { readOnly, clock } = settings;
  const path = resolvePath({ ...settings, role: 'broker' });
  if (readOnly && !existsSync(path)) return { target: blankTarget(`sqlite:${path}`), close: () => undefined };
  let lock: OwnerLock | undefined;
  let database: Database.Database | undefined;
  const close = () => {
    database?.close();
    lock?.release();
  };
  try {
    if (!readOnly) lock = lockForOwner(path, MIGRATORS_MS_MAX);
    database = new Database(path, { readonly: readOnly, timeout: BUSY_MS_MAX });
    checkOwnFile(database, path);
    if (!readOnly) setBrokerPragmas(database);
    return { target: migrationTarget(database, `sqlite:${path}`, clock), close };
  } catch (error) {
    close();
    throw sqliteErrorMeaning(error, 'open', path);
  }
}

/** What a file that is not there has: nothing. */
function blankTarget(description: string): MigrationTarget {
  const session: MigrationSession = {
    applied: async () => [],
    apply: async () => {
      throw new Error('a migration was applied through a target that only reads');
    },
  };
  return { description, exclusively: (work) => work(session) };
}

/** Before migrations said whether they are breaking, their table had no such column: all of them are. */
function hasBreakingColumn(database: Database.Database): boolean {
  const columns = database.prepare("SELECT name FROM pragma_table_info('schema_migrations')").pluck().all();
  return columns.includes('breaking');
}

function appliedMigrations(database: Database.Database): AppliedMigration[] {
  const exists = database.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'schema_migrations'").get();
  if (!exists) return [];
  const breaking = hasBreakingColumn(database) ? 'breaking' : '1';
  return database
    .prepare<[], Omit<AppliedMigration, 'breaking'> & { breaking: number }>(
      `SELECT number, name, checksum, ${breaking} AS breaking FROM schema_migrations ORDER BY number`,
    )
    .all()
    .map((row) => ({ ...row, breaking: row.breaking !== 0 }));
}

/** A connection as the target of migrations; nobody else may use it meanwhile. */
export function migrationTarget(
  database: Database.Database,
  description: string,
  clock: Clock,
): MigrationTarget {
  const session: MigrationSession = {
    applied: async () => appliedMigrations(database),
    async apply(migration) {
      const { number, name, checksum, breaking } = migration;
      database.exec(
        `CREATE TABLE IF NOT EXISTS schema_migrations (
           number INTEGER PRIMARY KEY,
           name TEXT NOT NULL,
           checksum TEXT NOT NULL,
           applied_at_ms INTEGER NOT NULL,
           breaking INTEGER NOT NULL DEFAULT 1
         ) STRICT`,
      );
      if (!hasBreakingColumn(database)) {
        database.exec('ALTER TABLE schema_migrations ADD COLUMN breaking INTEGER NOT NULL DEFAULT 1');
      }
      database.exec(sqlOf(migration));
      database
        .prepare(
          `INSERT INTO schema_migrations (number, name, checksum, applied_at_ms, breaking)
             VALUES (?, ?, ?, ?, ?)`,
        )
        .run(number, name, checksum, Math.floor(clock.wallMs()), breaking ? 1 : 0);
    },
  };
  return {
    description,
    async exclusively(work) {
      // A read-only connection takes no lock: it sees one state.
      database.exec(database.readonly ? 'BEGIN' : 'BEGIN IMMEDIATE');
      try {
        const result = await work(session);
        database.exec('COMMIT');
        return result;
      } finally {
        if (database.inTransaction) database.exec('ROLLBACK');
      }
    },
  };
}
