/**
 * The names of objects. Owns: how a batch object's key is made from who wrote it, and back. A key says all
 * that is needed to look for an object without a listing: the objects of an incarnation are its numbers 0, 1,
 * 2 and so on. Does not own: key rules of the store (object-store.ts). Frozen: existing buckets hold these
 * names. Pure; any thread.
 *
 *   batch/HH/IIIIIIIIIIIIIIII-NNNNNNNNNNNNNNNN
 *         |  incarnation      number, both as 16 decimal digits, so that keys of one incarnation sort
 *         two hex digits: the low byte of the CRC-32C of (incarnation u64, number u64), big endian; spreads
 *         the writes of one moment over 256 prefixes (S3 scales by prefix, file systems by directory)
 */
import { crc32c } from '../../src/core/crc32c.ts';

/** All batch objects' keys begin so. */
export const BATCH_KEY_PREFIX = 'batch/';

const DIGITS = 16;
const PATTERN = /^batch\/([0-9a-f]{2})\/([0-9]{16})-([0-9]{16})$/;

/** Who wrote a batch object (an agent's incarnation) and which of its objects it is; both integers >= 0. */
export interface BatchObjectName {
  readonly incarnation: number;
  readonly number: number;
}

function assertCount(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${name} ${value} of an object key`);
}

const scratch = Buffer.alloc(16);

function spreadOf(incarnation: number, number: number): string {
  scratch.writeBigUInt64BE(BigInt(incarnation), 0);
  scratch.writeBigUInt64BE(BigInt(number), 8);
  return (crc32c(scratch) & 0xff).toString(16).padStart(2, '0');
}

/** The key of batch object `number` of agent incarnation `incarnation`. */
export function batchObjectKey(incarnation: number, number: number): string {
  assertCount('incarnation', incarnation);
  assertCount('number', number);
  const of = `${String(incarnation).padStart(DIGITS, '0')}-${String(number).padStart(DIGITS, '0')}`;
  return `${BATCH_KEY_PREFIX}${spreadOf(incarnation, number)}/${of}`;
}

/** The name back from a key, or null for a key that `batchObjectKey` never made. */
export function parseObjectKey(key: string): BatchObjectName | null {
  const match = PATTERN.exec(key);
  if (match === null) return null;
  const incarnation = Number(match[2]);
  const number = Number(match[3]);
  if (!Number.isSafeInteger(incarnation) || !Number.isSafeInteger(number)) return null;
  return spreadOf(incarnation, number) === match[1] ? { incarnation, number } : null;
}
