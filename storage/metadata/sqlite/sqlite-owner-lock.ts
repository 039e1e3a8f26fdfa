/**
 * Exclusive ownership of a database file by one broker. Owns: the file PATH-lock, a tiny SQLite database held in
 * an exclusive transaction for as long as the broker runs. The lock is the operating system's, so it is free the
 * moment the process ends, kill -9 included; the file stays and means nothing by itself. The storing thread.
 */
import Database from 'better-sqlite3';
import { StreamHouseError } from '../../../src/core/errors.ts';
import { sqliteErrorMeaning } from './sqlite-error.ts';

/**
 * Two that start at once may see each other's first step and both find it busy; the winner of the first step
 * gets the lock within this time.
 */
const WAIT_MS_MAX = 500;

export interface OwnerLock {
  release(): void;
}

/** 'conflict' when another broker, or whoever else writes to it, holds the file for all of `waitMsMax`. */
export function lockForOwner(path: string, waitMsMax = WAIT_MS_MAX): OwnerLock {
  let lock: Database.Database | undefined;
  try {
    lock = new Database(`${path}-lock`, { timeout: waitMsMax });
    lock.exec('BEGIN EXCLUSIVE');
    const held = lock;
    return { release: () => held.close() };
  } catch (error) {
    lock?.close();
    if (error instanceof Database.SqliteError && error.code.startsWith('SQLITE_BUSY')) {
      throw new StreamHouseError('conflict', `another broker is running on ${path}: only one may`);
    }
    throw sqliteErrorMeaning(error, 'open', `${path}-lock`);
  }
}
