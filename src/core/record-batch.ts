/**
 * Kafka RecordBatch v2 (magic 2), the form of records from end to end. Owns: building a batch, validating one
 * that came from outside, patching the two fields that its CRC does not cover, and reading records. Does not
 * own: compression (a batch is passed through as it came) nor any request around it. Pure; any thread.
 * Source: Apache Kafka, "Record Batch" in the message format documentation; KIP-98 for the producer fields.
 *
 *   position  bytes  field
 *          0      8  baseOffset              patched on the way out
 *          8      4  batchLength             bytes after this field
 *         12      4  partitionLeaderEpoch    patched on the way out
 *         16      1  magic = 2
 *         17      4  crc                     CRC-32C of everything from attributes on
 *         21      2  attributes              0-2 compression, 3 timestamp type, 4 transactional, 5 control
 *         23      4  lastOffsetDelta
 *         27      8  baseTimestamp
 *         35      8  maxTimestamp
 *         43      8  producerId              -1: none
 *         51      2  producerEpoch
 *         53      4  baseSequence
 *         57      4  recordCount
 *         61         records: varint length, i8 attributes, varlong timestampDelta, varint offsetDelta,
 *                    varint keyLength (-1 null), key, varint valueLength (-1 null), value,
 *                    varint headerCount, (varint keyLength, key, varint valueLength (-1 null), value)*
 */
import { ByteReader } from './bytes.ts';
import { crc32c } from './crc32c.ts';
import { StreamHouseError } from './errors.ts';

export const BATCH_HEADER_BYTES = 61;
const TWO_32 = 4294967296;

/** An idempotent producer's stamp on a batch (KIP-98). */
export interface ProducerStamp {
  producerId: number;
  producerEpoch: number;
  /** Sequence number of the batch's first record. */
  baseSequence: number;
}

/** The header fields of a batch that lies at `position` of some bytes. */
export interface BatchHeader {
  position: number;
  /** All bytes of the batch, header included. */
  length: number;
  baseOffset: number;
  recordCount: number;
  attributes: number;
  baseTimestampMs: number;
  maxTimestampMs: number;
  /** -1: none. */
  producerId: number;
  producerEpoch: number;
  baseSequence: number;
}

export interface RecordHeader {
  key: string;
  value: Buffer | null;
}

/** One record; key and value are views of the batch's bytes. */
export interface BatchRecord {
  offset: number;
  timestampMs: number;
  key: Buffer | null;
  value: Buffer | null;
  headers: RecordHeader[];
}

/** Bytes that a Kafka varint of a non-negative value takes. */
function varintBytes(value: number): number {
  const zigzag = value * 2;
  return zigzag < 0x80 ? 1 : zigzag < 0x4000 ? 2 : zigzag < 0x200000 ? 3 : zigzag < 0x10000000 ? 4 : 5;
}

function writeVarint(out: Uint8Array, at: number, value: number): number {
  let rest = (value << 1) ^ (value >> 31);
  let position = at;
  while ((rest & ~0x7f) !== 0) {
    out[position++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  out[position++] = rest;
  return position;
}

/** Byte by byte: Buffer's own methods check every argument, and a batch of one record has twenty integers. */
function writeI32(out: Uint8Array, at: number, value: number): void {
  out[at] = value >>> 24;
  out[at + 1] = value >>> 16;
  out[at + 2] = value >>> 8;
  out[at + 3] = value;
}

function writeI64(out: Uint8Array, at: number, value: number): void {
  writeI32(out, at, Math.floor(value / TWO_32));
  writeI32(out, at + 4, value >>> 0);
}

/** Bytes of one record of a batch built here (no headers, one timestamp for the batch). -1 stands for null. */
function recordBodyBytes(offsetDelta: number, keyBytes: number, valueBytes: number): number {
  return (
    3 + // attributes, timestamp delta 0, header count 0
    varintBytes(offsetDelta) +
    (keyBytes < 0 ? 1 : varintBytes(keyBytes) + keyBytes) +
    (valueBytes < 0 ? 1 : varintBytes(valueBytes) + valueBytes)
  );
}

/**
 * Records as spans of one source buffer: for record i, spans[4i], spans[4i+1] are start and end of its key and
 * spans[4i+2], spans[4i+3] of its value; a start of -1 is null.
 */
export interface RecordSpans {
  source: Uint8Array;
  spans: readonly number[] | Int32Array;
}

/** Exact bytes of the batch that `writeBatch` makes of records [from, to). */
export function batchBytes(records: RecordSpans, from: number, to: number): number {
  const { spans } = records;
  let bytes = BATCH_HEADER_BYTES;
  for (let i = from; i < to; i++) {
    const s = i * 4;
    const body = recordBodyBytes(
      i - from,
      spans[s] < 0 ? -1 : spans[s + 1] - spans[s],
      spans[s + 2] < 0 ? -1 : spans[s + 3] - spans[s + 2],
    );
    bytes += varintBytes(body) + body;
  }
  return bytes;
}

/**
 * Writes records [from, to), at least one, as one uncompressed batch with base offset 0 at `at` and returns the
 * position after it. `out` must have `batchBytes` of room. All records bear `timestampMs`.
 */
export function writeBatch(
  out: Buffer,
  at: number,
  records: RecordSpans,
  from: number,
  to: number,
  timestampMs: number,
  producer: ProducerStamp | null,
): number {
  const { source, spans } = records;
  let position = at + BATCH_HEADER_BYTES;
  for (let i = from; i < to; i++) {
    const s = i * 4;
    const keyBytes = spans[s] < 0 ? -1 : spans[s + 1] - spans[s];
    const valueBytes = spans[s + 2] < 0 ? -1 : spans[s + 3] - spans[s + 2];
    position = writeVarint(out, position, recordBodyBytes(i - from, keyBytes, valueBytes));
    out[position++] = 0;
    out[position++] = 0;
    position = writeVarint(out, position, i - from);
    position = writeVarint(out, position, keyBytes);
    if (keyBytes > 0) position = copyBytes(out, position, source, spans[s], keyBytes);
    position = writeVarint(out, position, valueBytes);
    if (valueBytes > 0) position = copyBytes(out, position, source, spans[s + 2], valueBytes);
    out[position++] = 0;
  }
  writeI64(out, at, 0);
  writeI32(out, at + 8, position - at - 12);
  writeI32(out, at + 12, -1);
  out[at + 16] = 2;
  out[at + 21] = 0;
  out[at + 22] = 0;
  writeI32(out, at + 23, to - from - 1);
  writeI64(out, at + 27, timestampMs);
  writeI64(out, at + 35, timestampMs);
  writeI64(out, at + 43, producer ? producer.producerId : -1);
  out.writeInt16BE(producer ? producer.producerEpoch : -1, at + 51);
  writeI32(out, at + 53, producer ? producer.baseSequence : -1);
  writeI32(out, at + 57, to - from);
  writeI32(out, at + 17, crc32c(out, at + 21, position));
  return position;
}

/** Short runs byte by byte: below some tens of bytes a call into native code costs more. */
function copyBytes(out: Buffer, at: number, source: Uint8Array, start: number, count: number): number {
  if (count > 48) out.set(source.subarray(start, start + count), at);
  else for (let i = 0; i < count; i++) out[at + i] = source[start + i];
  return at + count;
}

/**
 * Reads the header of the batch at `position`. Checks that the batch lies within the bytes and that its fields
 * agree with one another; not the CRC. 'corrupt-batch'.
 */
export function readBatchHeader(bytes: Buffer, position: number): BatchHeader {
  const left = bytes.length - position;
  if (left < BATCH_HEADER_BYTES) throw corrupt(`a batch header needs 61 bytes, ${left} are left`, position);
  const length = bytes.readInt32BE(position + 8) + 12;
  if (length < BATCH_HEADER_BYTES || length > left)
    throw corrupt(`batch length ${length}, ${left} bytes left`, position);
  if (bytes[position + 16] !== 2) throw corrupt(`magic ${bytes[position + 16]} is not 2`, position);
  const recordCount = bytes.readInt32BE(position + 57);
  const lastOffsetDelta = bytes.readInt32BE(position + 23);
  if (recordCount < 1 || lastOffsetDelta !== recordCount - 1) {
    throw corrupt(`record count ${recordCount} with last offset delta ${lastOffsetDelta}`, position);
  }
  return {
    position,
    length,
    baseOffset: readI64(bytes, position),
    recordCount,
    attributes: bytes.readUInt16BE(position + 21),
    baseTimestampMs: readI64(bytes, position + 27),
    maxTimestampMs: readI64(bytes, position + 35),
    producerId: readI64(bytes, position + 43),
    producerEpoch: bytes.readInt16BE(position + 51),
    baseSequence: bytes.readInt32BE(position + 53),
  };
}

function readI64(bytes: Buffer, at: number): number {
  const value = bytes.readInt32BE(at) * TWO_32 + bytes.readUInt32BE(at + 4);
  if (!Number.isSafeInteger(value)) throw corrupt('an integer beyond 2^53', at);
  return value;
}

function corrupt(what: string, position: number): StreamHouseError {
  return new StreamHouseError('corrupt-batch', `record batch at byte ${position}: ${what}`);
}

/** Whether the batch's CRC fits its bytes. */
export function checkBatchCrc(bytes: Buffer, header: BatchHeader): boolean {
  return (
    crc32c(bytes, header.position + 21, header.position + header.length) ===
    bytes.readUInt32BE(header.position + 17)
  );
}

/** Gives a stored batch the offset (and leader epoch) under which it was committed. Its CRC stays valid. */
export function patchBatch(bytes: Buffer, position: number, baseOffset: number, leaderEpoch: number): void {
  writeI64(bytes, position, baseOffset);
  bytes.writeInt32BE(leaderEpoch, position + 12);
}

/** Compression codec of a batch's attributes: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd. */
export function compressionOf(attributes: number): number {
  return attributes & 0x07;
}

/**
 * Reads all records of the batch at `position` and returns the position after the batch. 'corrupt-batch' on
 * anything wrong, CRC included; 'invalid-record' for a compressed batch, which this reader does not open.
 */
export function readRecords(bytes: Buffer, position: number, each: (record: BatchRecord) => void): number {
  const header = readBatchHeader(bytes, position);
  if (!checkBatchCrc(bytes, header)) throw corrupt('checksum mismatch', position);
  if (compressionOf(header.attributes) !== 0) {
    throw new StreamHouseError('invalid-record', `the batch at offset ${header.baseOffset} is compressed`);
  }
  const end = position + header.length;
  const reader = new ByteReader(bytes, 'corrupt-batch', position + BATCH_HEADER_BYTES, end);
  for (let i = 0; i < header.recordCount; i++) {
    const length = reader.zigzag();
    const recordEnd = reader.position + length;
    if (length < 0 || recordEnd > end) reader.fail(`record ${i} of ${length} bytes`);
    reader.u8();
    const timestampMs = header.baseTimestampMs + reader.zigzag();
    const offsetDelta = reader.zigzag();
    const key = readNullable(reader);
    const value = readNullable(reader);
    const headerCount = reader.zigzag();
    if (headerCount < 0 || headerCount > reader.remaining) reader.fail(`${headerCount} headers`);
    const headers: RecordHeader[] = [];
    for (let h = 0; h < headerCount; h++) {
      const name = readNullable(reader);
      if (name === null) return reader.fail('a header without a key');
      headers.push({ key: name.toString('utf8'), value: readNullable(reader) });
    }
    if (reader.position !== recordEnd) reader.fail(`record ${i} ends elsewhere than its length says`);
    each({ offset: header.baseOffset + offsetDelta, timestampMs, key, value, headers });
  }
  reader.end();
  return end;
}

function readNullable(reader: ByteReader): Buffer | null {
  const length = reader.zigzag();
  if (length === -1) return null;
  if (length < 0) reader.fail(`a length of ${length}`);
  return reader.bytes(length);
}
