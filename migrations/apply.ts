/**
 * Schema migrations: numbered, forward only, each in a transaction of its own (or, where there is none for that, one
 * step that may be repeated) with a row that records number, name, checksum and whether it is breaking. Owns: finding
 * the files, the order, and what a mismatch means. Does not own: how a backend locks, runs and records (each backend
 * gives a MigrationTarget). Runs where a backend opens its store.
 *
 * Safe when two start at once: what is applied is read again inside every exclusive transaction. A binary that
 * meets a breaking migration it does not know refuses ('schema-too-new'); one that meets another text under a
 * number it knows refuses too ('conflict'), since nobody can tell what the schema is then.
 *
 * A migration is breaking unless its first line says `-- compatible`: that an older binary, which never heard of
 * it, may go on reading and writing (an index, a table or a column with a default that it can do without). A
 * forgotten line then costs a refusal, which a newer binary mends; the other default would let an old binary write
 * rows that the new ones misread.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { StreamHouseError } from '../src/core/errors.ts';

/** Backends whose migrations are SQL files in a folder of that name beside this file. */
export type SqlBackend = 'sqlite' | 'postgres' | 'cockroach';

export interface Migration {
  /** From 1, dense. */
  number: number;
  /** The file's name without number and ending: what it is for. */
  name: string;
  /** SHA-256 of the text (of a DynamoDB migration: of what it declares), hex. */
  checksum: string;
  /** Whether a binary that does not know it must keep off the schema. */
  breaking: boolean;
  /** null where the backend's migrations are code: its target knows what to do by the number. */
  sql: string | null;
}

/** As it was recorded; one recorded without saying so is breaking. */
export type AppliedMigration = Pick<Migration, 'number' | 'name' | 'checksum' | 'breaking'>;

/** What `MigrationTarget.exclusively` gives to its work. */
export interface MigrationSession {
  /** By number; empty when nothing was ever applied. */
  applied(): Promise<AppliedMigration[]>;
  /** Runs the migration and records it. */
  apply(migration: Migration): Promise<void>;
}

export interface MigrationTarget {
  /** For errors; no secrets. */
  readonly description: string;
  /**
   * Runs `work` so that rivals do no harm: in one transaction that excludes every other migrating process and rolls
   * back if it throws. Where schema changes know no such transaction (CockroachDB), as it is: then a migration is one
   * step that may be run again and by several at once, recorded put-if-absent after it was done, and what one call of
   * `applyMigrations` returns as applied another may return too.
   */
  exclusively<T>(work: (session: MigrationSession) => Promise<T>): Promise<T>;
}

/** Of the text's beginning: the first line is this and nothing else. */
const COMPATIBLE_LINE = /^-- compatible[ \t]*(\n|$)/;
const FILE_NAME = /^(\d{4})-([a-z0-9-]+)\.sql$/;

/**
 * The migrations this binary knows for a backend, by number. The files lie beside this one, in the sources as in
 * the compiled package (the build copies them).
 */
export function readSqlMigrations(backend: SqlBackend): Migration[] {
  const folder = new URL(`./${backend}/`, import.meta.url);
  const migrations = readdirSync(folder)
    .filter((file) => file.endsWith('.sql'))
    .sort()
    .map((file) => parseMigration(file, readFileSync(new URL(file, folder), 'utf8')));
  migrations.forEach(({ number, name }, i) => {
    if (number !== i + 1)
      throw new Error(`migrations/${backend}: ${number}-${name} should be number ${i + 1}`);
  });
  if (migrations.length === 0) throw new Error(`no migrations in ${folder.pathname}`);
  return migrations;
}

/** The text of a migration of an SQL backend. */
export function sqlOf({ number, name, sql }: Migration): string {
  if (sql === null) throw new Error(`migration ${nameOf({ number, name })} has no SQL`);
  return sql;
}

/** What to tell whoever may not, or was not asked to, apply what is pending. */
export function schemaTooOld(
  description: string,
  known: readonly Migration[],
  pending: readonly Migration[],
): StreamHouseError {
  const schema = known.length - pending.length;
  return new StreamHouseError(
    'schema-too-old',
    `${description} has schema ${schema}, this version of streamhouse needs ${known.length}: run ` +
      '`streamhouse migrate --metadata URL`',
    { schema, known: known.length },
  );
}

/** A migration from its file's name and text. The checksum does not depend on the platform's line endings. */
export function parseMigration(file: string, text: string): Migration {
  const match = FILE_NAME.exec(file);
  if (!match) throw new Error(`a migration's file is named NNNN-intent.sql, not ${file}`);
  const sql = text.replaceAll('\r\n', '\n');
  const checksum = createHash('sha256').update(sql).digest('hex');
  const breaking = !COMPATIBLE_LINE.test(sql);
  return { number: Number(match[1]), name: match[2], checksum, breaking, sql };
}

/**
 * What is still to be applied, given what was; nothing on a newer schema that this version may use. Throws
 * 'schema-too-new' or 'conflict'. For those that may only read, and for every step of `applyMigrations`.
 */
export function pendingMigrations(
  description: string,
  known: readonly Migration[],
  applied: readonly AppliedMigration[],
): Migration[] {
  applied.forEach((row, i) => {
    const migration = known[i];
    if (!migration) {
      if (row.breaking) throw schemaTooNew(description, known, applied);
    } else if (row.number !== migration.number || row.checksum !== migration.checksum) {
      throw new StreamHouseError(
        'conflict',
        `${description} was migrated by another ${nameOf(row)} than this version's ${nameOf(migration)}`,
      );
    }
  });
  return known.slice(applied.length);
}

function schemaTooNew(
  description: string,
  known: readonly Migration[],
  applied: readonly AppliedMigration[],
): StreamHouseError {
  const breaking = applied.slice(known.length).find((row) => row.breaking);
  return new StreamHouseError(
    'schema-too-new',
    `${description} has schema ${applied.length}, this version of streamhouse knows ${known.length} and cannot do ` +
      `without ${breaking && nameOf(breaking)}: use a newer one`,
    { schema: applied.length, known: known.length },
  );
}

/** Applies what is pending, one transaction each, and returns what this call applied; tells each when it is done. */
export async function applyMigrations(
  target: MigrationTarget,
  known: readonly Migration[],
  onApplied: (migration: Migration) => void = () => undefined,
): Promise<Migration[]> {
  const done: Migration[] = [];
  for (;;) {
    const applied = await target.exclusively(async (session) => {
      const next = pendingMigrations(target.description, known, await session.applied())[0];
      if (next) await session.apply(next);
      return next;
    });
    if (!applied) return done;
    onApplied(applied);
    done.push(applied);
  }
}

/** '0002-moving' */
export function nameOf({ number, name }: Pick<Migration, 'number' | 'name'>): string {
  return `${String(number).padStart(4, '0')}-${name}`;
}
