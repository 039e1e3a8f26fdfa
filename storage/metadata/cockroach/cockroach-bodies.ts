/**
 * Bodies in rows of a size that CockroachDB is made for. Owns: how a body is cut into its row's share and chunks, put
 * together again, and how much goes into one statement. Does not own: SQL, transactions. Pure.
 *
 *   body of at most ROW_BYTES_MAX    the row holds it
 *   a larger one                     the row holds the first ROW_BYTES_MAX bytes and the length of the whole,
 *                                    body_chunks holds the rest, ROW_BYTES_MAX each, numbered from 1
 */
import { StreamHouseError } from '../../../src/core/errors.ts';

/**
 * As in every other store, so that a cluster can be copied from any to any. The server takes no message over 16 MiB
 * (sql.conn.max_read_buffer_message_size), so such a body could not even be sent in one statement.
 */
export const BODY_BYTES_MAX = 16 * 1024 * 1024;

/**
 * CockroachDB's documentation of BYTES asks for values under 1 MB: above, write amplification and memory suffer.
 * Entries, pages and checkpoints of a normal cluster are kilobytes.
 */
export const ROW_BYTES_MAX = 512 * 1024;

/** Bytes of bodies in one statement: half of what the server takes in one message. */
export const STATEMENT_BYTES_MAX = 8 * 1024 * 1024;

export function isLarge(body: Uint8Array): boolean {
  return body.length > ROW_BYTES_MAX;
}

/** What the row holds of a body. */
export function rowShare(body: Uint8Array): Uint8Array {
  return isLarge(body) ? body.subarray(0, ROW_BYTES_MAX) : body;
}

export interface Chunk {
  /** From 1. */
  chunk: number;
  bytes: Uint8Array;
}

/** The rest of a body, by statement. */
export function chunkBatches(body: Uint8Array): Chunk[][] {
  const chunks: Chunk[] = [];
  for (let start = ROW_BYTES_MAX; start < body.length; start += ROW_BYTES_MAX) {
    chunks.push({ chunk: start / ROW_BYTES_MAX, bytes: body.subarray(start, start + ROW_BYTES_MAX) });
  }
  return inStatements(chunks, ({ bytes }) => bytes.length);
}

/** Groups in order, each of at most STATEMENT_BYTES_MAX bytes (or one item); none for no items. */
export function inStatements<T>(items: readonly T[], bytesOf: (item: T) => number): T[][] {
  const groups: T[][] = [];
  let bytes = 0;
  for (const item of items) {
    bytes += bytesOf(item);
    if (groups.length === 0 || bytes > STATEMENT_BYTES_MAX) {
      groups.push([]);
      bytes = bytesOf(item);
    }
    groups.at(-1)!.push(item);
  }
  return groups;
}

/** A body from its row and its chunks in order; 'corrupt-store' when they are not as long as the row says. */
export function wholeBody(
  share: Uint8Array,
  chunks: readonly Uint8Array[],
  bodyBytes: number,
  what: string,
): Uint8Array {
  const length = chunks.reduce((sum, chunk) => sum + chunk.length, share.length);
  if (length !== bodyBytes) {
    throw new StreamHouseError('corrupt-store', `${what} should have ${bodyBytes} bytes and has ${length}`);
  }
  if (chunks.length === 0) return share;
  const body = new Uint8Array(bodyBytes);
  let position = 0;
  for (const part of [share, ...chunks]) {
    body.set(part, position);
    position += part.length;
  }
  return body;
}
