/**
 * Rows that are CockroachDB's own (pg-wire/pg-rows has the others) as the contract's values, and values as columns of
 * parameters. Owns: both shapes. Does not own: the SQL (cockroach-statements), how bodies are cut (cockroach-bodies).
 * Pure.
 */
import type { IndexPage, ListedObject, LogEntry, ObjectRow } from '../metadata-store.ts';
import { decodeReferences, encodeReferences } from '../object-references.ts';
import type { PgRow, PgValue } from '../pg-wire/pg-session.ts';
import { integerArray, joinBytes } from '../pg-wire/pg-values.ts';
import { rowShare } from './cockroach-bodies.ts';

/** Columns, and apart the bytes of all rows in one piece: some of the columns say where each row's lie. */
export interface PackedColumns {
  columns: PgValue[];
  bytes: Buffer;
}

/** An entry whose body is whole. */
export function entryOf(row: PgRow, body: Uint8Array): LogEntry {
  const { shard, seq, epoch, commitId } = row as unknown as LogEntry;
  return { shard, seq, epoch, commitId, body };
}

/** A page whose body is whole. */
export function pageOf(row: PgRow, bytes: Uint8Array): IndexPage {
  const { topicId, partition, shard, baseOffset, stamp } = row as unknown as IndexPage;
  return { topicId, partition, shard, baseOffset, stamp, bytes };
}

export function objectOf(row: PgRow): ListedObject {
  const { incarnation, number } = row as unknown as ListedObject['object'];
  const { bytes, createdAtMs, markedAtMs } = row as unknown as ListedObject;
  const shards = decodeReferences(row.references as Uint8Array);
  return { object: { incarnation, number }, bytes, createdAtMs, shards, markedAtMs };
}

/** Seven columns and, apart, the beginnings of all bodies. */
export function entryColumns(entries: readonly LogEntry[]): PackedColumns {
  const { bytes, positions, lengths } = joinBytes(entries.map(({ body }) => rowShare(body)));
  const columns = [
    integerArray(entries.map(({ shard }) => shard)),
    integerArray(entries.map(({ seq }) => seq)),
    integerArray(entries.map(({ epoch }) => epoch)),
    entries.map(({ commitId }) => commitId),
    integerArray(positions),
    integerArray(lengths),
    integerArray(entries.map(({ body }) => body.length)),
  ];
  return { columns, bytes };
}

/** Seven columns and, apart, the packed references of all. */
export function objectColumns(rows: readonly ObjectRow[]): PackedColumns {
  const { bytes, positions, lengths } = joinBytes(rows.map(({ shards }) => encodeReferences(shards)));
  const columns = [
    integerArray(rows.map(({ object }) => object.incarnation)),
    integerArray(rows.map(({ object }) => object.number)),
    integerArray(rows.map((row) => row.bytes)),
    integerArray(rows.map(({ createdAtMs }) => createdAtMs)),
    integerArray(rows.map(({ shards }) => shards.length)),
    integerArray(positions),
    integerArray(lengths),
  ];
  return { columns, bytes };
}

/** Eight columns and, apart, the beginnings of all bodies. */
export function pageColumns(pages: readonly IndexPage[]): PackedColumns {
  const { bytes, positions, lengths } = joinBytes(pages.map((page) => rowShare(page.bytes)));
  const columns = [
    integerArray(pages.map(({ topicId }) => topicId)),
    integerArray(pages.map(({ partition }) => partition)),
    integerArray(pages.map(({ baseOffset }) => baseOffset)),
    integerArray(pages.map(({ shard }) => shard)),
    integerArray(pages.map(({ stamp }) => stamp)),
    integerArray(positions),
    integerArray(lengths),
    integerArray(pages.map((page) => page.bytes.length)),
  ];
  return { columns, bytes };
}
