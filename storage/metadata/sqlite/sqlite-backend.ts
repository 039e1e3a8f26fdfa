/**
 * SQLite as a backend: `sqlite:PATH`. Owns: its URL, and which of its parts make up a store. Does not own: the
 * file (sqlite-connection), the store. The storing thread.
 */
import { readSqlMigrations } from '../../../migrations/apply.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { MetadataBackend } from '../metadata-backend.ts';
import { openSqliteConnection, openSqliteMigrations } from './sqlite-connection.ts';
import { SqliteMetadataStore } from './sqlite-metadata-store.ts';

function pathOf(url: string): string {
  const path = url.slice('sqlite:'.length);
  if (path !== '' && !path.startsWith('//')) return path;
  throw new StreamHouseError('invalid-setting', `'${url}' names no file; it is sqlite:PATH`);
}

export const sqliteBackend: MetadataBackend = {
  ownCount: { unit: 'calls', source: 'the broker: calls of SQLite, which counts nothing itself' },

  async open(url, { role, clock, counters }) {
    const connection = await openSqliteConnection({ path: pathOf(url), role, clock });
    const store = new SqliteMetadataStore(connection, counters);
    return { store, afterWrite: () => store.writeBackIfDue() };
  },

  async openMigrations(url, { clock, readOnly = false }) {
    const { target, close } = openSqliteMigrations({ path: pathOf(url), clock, readOnly });
    return { target, known: readSqlMigrations('sqlite'), close: async () => close() };
  },
};
