/**
 * Rows of another store as statements that put them here as they are. Owns: which statements, in which order. Does not
 * own: the transaction around them (postgres-metadata-store). Pure.
 */
import type { ImportedRows } from '../metadata-store.ts';
import { sharedImportCalls } from '../pg-wire/pg-metadata-store.ts';
import { headColumns } from '../pg-wire/pg-rows.ts';
import type { PgStatement, PgValue } from '../pg-wire/pg-session.ts';
import { integerArray } from '../pg-wire/pg-values.ts';
import { entryColumns, objectColumns, objectsInOrder, partsOf } from './postgres-rows.ts';
import type { PostgresStatements } from './postgres-statements.ts';

export function importCalls(sql: PostgresStatements, rows: ImportedRows): [PgStatement, PgValue[]][] {
  const calls = sharedImportCalls(sql, rows);
  if (rows.heads?.length) calls.push([sql.importHeads, headColumns(rows.heads)]);
  for (const part of partsOf(rows.entries ?? [], ({ body }) => body.length)) {
    if (part.length > 0) calls.push([sql.importEntries, entryColumns(part)]);
  }
  if (rows.objects?.length) {
    const sorted = objectsInOrder(rows.objects);
    const marks = integerArray(sorted.map(({ markedAtMs }) => markedAtMs));
    calls.push([sql.importObjects, [...objectColumns(sorted), marks]]);
  }
  return calls;
}
