/**
 * Bodies that are too large for their item: cut into chunk items, checked when they are put together. Owns: the cut,
 * the reference `spill` and what damage means. Does not own: when an item with a reference is written (its chunks
 * must all be confirmed before), nor when chunks are deleted. The thread that hosts the store.
 *
 *   spill = COUNT ':' BYTES ':' CRC32C (8 hex digits) ':' TOKEN
 *
 * TOKEN tells bodies under the same key apart, so that two writers never mix their chunks: an entry's commit id, or
 * a hash of the body. The same chunk is always put with the same bytes.
 */
import { createHash } from 'node:crypto';
import { crc32c } from '../../../src/core/crc32c.ts';
import type { StoredBody } from './dynamodb-items.ts';
import { allDone } from './dynamodb-outcomes.ts';
import type { DynamodbRequests, Lane } from './dynamodb-requests.ts';

import { type Item, type ItemKey, ItemReader, toItem } from './dynamodb-values.ts';

/** An item takes 400 KiB with its key and names; the rest is room for those. */
export const CHUNK_BYTES = 384 * 1024;

/**
 * The largest body that rides in a head. Every append writes the head anew, and its body once more into an item of
 * its own: bytes in the head cost twice. Chunks cost once and two units more, and they are put while the objects' rows
 * are, so that they take no round trip of their own; but reading them takes one. Up to 4 KiB the head's way costs at
 * most three units more and saves that read; beyond, it only costs.
 */
export const HEAD_BODY_BYTES_MAX = 4 * 1024;

const SPILL = /^(\d{1,6}):(\d{1,15}):([0-9a-f]{8}):(.+)$/s;

/** Where the chunks of one body lie. */
export interface ChunkPlace {
  pk: string;
  /** Before the token, with a '#' at its end. */
  prefix: string;
}

export interface CutBody {
  stored: StoredBody;
  chunks: Item[];
}

/** A hash under which equal bodies, and only those, find themselves. */
export function hashToken(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 32);
}

/** The body as its item holds it, and the chunks to put before. Shares memory with `bytes`. */
export function cutBody(
  bytes: Uint8Array,
  inlineMax: number,
  place: ChunkPlace,
  token: string | null,
): CutBody {
  if (bytes.length <= inlineMax) return { stored: { body: bytes }, chunks: [] };
  const name = token ?? hashToken(bytes);
  const chunks: Item[] = [];
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    const key = chunkKey(place, name, chunks.length);
    chunks.push(toItem(key, { body: bytes.subarray(at, at + CHUNK_BYTES) }));
  }
  const crc = crc32c(bytes).toString(16).padStart(8, '0');
  return { stored: { spill: `${chunks.length}:${bytes.length}:${crc}:${name}` }, chunks };
}

function chunkKey({ pk, prefix }: ChunkPlace, token: string, index: number): ItemKey {
  return { pk, sk: `${prefix}${token}#${String(index).padStart(4, '0')}` };
}

/** Puts chunks; all are confirmed when this resolves. Idempotent. */
export async function putChunks(
  requests: DynamodbRequests,
  chunks: readonly Item[],
  lane: Lane,
): Promise<void> {
  await allDone(chunks.map((chunk) => requests.put(chunk, 'idempotent', { lane })));
}

/** The body's length without reading it. 'corrupt-store' for a reference that is none. */
export function storedBytes(stored: StoredBody, item: () => ItemReader): number {
  return stored.spill === undefined ? (stored.body?.length ?? 0) : parseSpill(stored.spill, item).bytes;
}

interface Spill {
  count: number;
  bytes: number;
  crc: number;
  token: string;
}

function parseSpill(spill: string, item: () => ItemReader): Spill {
  const match = SPILL.exec(spill);
  if (match === null) return item().fail(`spill is no reference: ${JSON.stringify(spill.slice(0, 100))}`);
  const [, count, bytes, crc, token] = match;
  return { count: Number(count), bytes: Number(bytes), crc: Number.parseInt(crc, 16), token };
}

/**
 * A body as it was cut; or what is wrong with it, where a chunk is missing or is not what it was: the caller looks at
 * the referring item again, since the body may have been deleted or replaced meanwhile.
 */
export async function readBody(
  requests: DynamodbRequests,
  stored: StoredBody,
  place: ChunkPlace,
  item: () => ItemReader,
  lane: Lane = 'look-up',
): Promise<Uint8Array | { damage: string }> {
  if (stored.spill === undefined) return stored.body ?? new Uint8Array(0);
  const { count, bytes, crc, token } = parseSpill(stored.spill, item);
  const reads = Array.from({ length: count }, (_, i) => requests.get(chunkKey(place, token, i), { lane }));
  const chunks = await allDone(reads);
  const body = new Uint8Array(bytes);
  let at = 0;
  for (const [i, chunk] of chunks.entries()) {
    if (chunk === null) return { damage: `chunk ${i} of ${count} is missing` };
    const part = new ItemReader(chunk).bytes('body');
    if (part.length > bytes - at) return { damage: `its chunks are longer than ${bytes} bytes` };
    body.set(part, at);
    at += part.length;
  }
  if (at !== bytes) return { damage: `its chunks have ${at} bytes, not ${bytes}` };
  return crc32c(body) === crc ? body : { damage: 'its checksum does not match' };
}
