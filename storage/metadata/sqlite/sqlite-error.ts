/**
 * What an error of the SQLite driver means to a caller of the metadata store. Owns: the table from result codes
 * and the moment they came to the operating errors. What is not in the table is a bug of ours (a constraint, a
 * wrong parameter) and is thrown on as it is. Pure; the storing thread.
 */
import Database from 'better-sqlite3';
import { type ErrorCode, StreamHouseError } from '../../../src/core/errors.ts';

/**
 * When it went wrong. 'commit' is the one moment after which a write may be there although it failed: the last
 * frame may have reached the file when the fsync fails.
 */
export type SqlitePhase = 'open' | 'read' | 'write' | 'commit';

/** By primary result code (before the second underscore of the extended one). */
const CODE_OF: Record<string, ErrorCode> = {
  /** A write to the file found no space: at COMMIT too, the commit frame is the last thing written. */
  SQLITE_FULL: 'disk-full',
  SQLITE_BUSY: 'store-unavailable',
  SQLITE_LOCKED: 'store-unavailable',
  SQLITE_PROTOCOL: 'store-unavailable',
  SQLITE_NOMEM: 'store-unavailable',
  SQLITE_IOERR: 'store-unavailable',
  SQLITE_READONLY: 'store-unavailable',
  SQLITE_CANTOPEN: 'store-unavailable',
  SQLITE_PERM: 'store-unavailable',
  SQLITE_CORRUPT: 'corrupt-store',
  SQLITE_NOTADB: 'corrupt-store',
  SQLITE_FORMAT: 'corrupt-store',
};

/** Every insert looks first, inside its transaction: a key that is taken all the same means damaged rows. */
const TAKEN_KEY = new Set(['SQLITE_CONSTRAINT_PRIMARYKEY', 'SQLITE_CONSTRAINT_UNIQUE']);

/** At COMMIT these still mean that nothing happened; every other code there leaves it open. */
const CERTAIN_AT_COMMIT = new Set(['SQLITE_FULL', 'SQLITE_BUSY', 'SQLITE_LOCKED']);

/** The error to throw: an operating error, or the one given if it is not the database's. */
export function sqliteErrorMeaning(error: unknown, phase: SqlitePhase, path: string): unknown {
  if (!(error instanceof Database.SqliteError)) return error;
  const primary = error.code.split('_').slice(0, 2).join('_');
  const code = TAKEN_KEY.has(error.code) ? 'corrupt-store' : CODE_OF[primary];
  if (!code) return error;
  const message = `${path}: ${error.message} (${error.code})`;
  if (phase === 'commit' && !CERTAIN_AT_COMMIT.has(primary)) {
    return new StreamHouseError('store-unknown', `${message} at the commit`, undefined, error);
  }
  return new StreamHouseError(code, message, undefined, error);
}
