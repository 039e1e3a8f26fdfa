/**
 * Batch object format v1: the records of many partitions in one object. Owns: the layout below, its encoder
 * and decoder, and reading the directory by its end only. Does not own: what a slice holds (opaque bytes
 * here; Kafka record batches in truth), how slices are gathered (workers/), or names (object-key.ts).
 * Bytes come from a bucket and are never asserted on: whatever is wrong with them is `corrupt-object` with the
 * reason. Frozen by test/golden/batch-object-v1.hex. Pure but for readDirectory; any thread.
 *
 *   header      24 bytes, at position 0
 *     magic           u32  'SHBO'
 *     version         u16  1
 *     flags           u16  0; a reader refuses flags it does not know
 *     incarnation     u64  of the agent that wrote it
 *     number          u64  which of that incarnation's objects
 *   slices      opaque bytes; in the order of the directory, not overlapping, gaps allowed
 *   directory   one entry a slice, sorted by topic id, then partition, then position
 *     topicId         varint  minus that of the entry before (0 before the first)
 *     partition       varint  minus that of the entry before if it is of the same topic
 *     position        varint  minus the end of the slice before (the end of the header before the first)
 *     length          varint  bytes, 1 or more
 *     recordCount     varint  1 or more
 *     minTimestampMs  zigzag  minus that of the entry before (0 before the first)
 *     maxTimestampMs  varint  minus minTimestampMs
 *     crc             u32     CRC-32C of the slice's bytes
 *   trailer     32 bytes, the object's last
 *     directoryPosition  u64
 *     directoryBytes     u32  the directory ends where the trailer begins
 *     sliceCount         u32
 *     directoryCrc       u32  CRC-32C of the directory
 *     version            u16  as in the header
 *     flags              u16  as in the header
 *     sealCrc            u32  CRC-32C of the header and of the trailer up to here
 *     magic              u32  'OBHS'
 *
 * Integers are big endian, varints as in core/bytes. A usual entry takes 11 to 14 bytes.
 */
import { ByteReader, ByteWriter } from '../../src/core/bytes.ts';
import { crc32c } from '../../src/core/crc32c.ts';
import { StreamHouseError } from '../../src/core/errors.ts';
import { type CallOptions, type ObjectStore, objectNotFound } from './object-store.ts';

export const BATCH_OBJECT_HEADER_BYTES = 24;
export const BATCH_OBJECT_TRAILER_BYTES = 32;

/** Most slices of one object; bounds what a hostile trailer can make a reader allocate. */
export const BATCH_OBJECT_SLICES_MAX = 1_048_576;

/** Timestamps lie strictly between minus and plus this many ms (71,000 years), so that differences fit. */
export const TIMESTAMP_MS_BOUND = 2 ** 51;

const MAGIC = 0x5348424f;
const END_MAGIC = 0x4f424853;
const VERSION = 1;
const NO_FLAGS = 0;
const INT_32_MAX = 0x7fffffff;

/** Six varints of one byte, the zigzag, the CRC. */
const ENTRY_BYTES_MIN = 11;
/** topicId 8, partition 5, position 8, length 5, recordCount 5, timestamps 8 and 8, crc 4. */
const ENTRY_BYTES_MAX = 51;

/** A first ranged get of this size usually has the whole directory (about 5,000 slices). */
const TAIL_GUESS_BYTES = 64 * 1024;

export interface BatchObjectHeader {
  readonly incarnation: number;
  readonly number: number;
}

/** One partition's bytes in an object. A partition may have several, one after the other. */
export interface BatchObjectSlice {
  readonly topicId: number;
  readonly partition: number;
  /** Of the slice's first byte, from the object's beginning. */
  readonly position: number;
  readonly length: number;
  readonly recordCount: number;
  readonly minTimestampMs: number;
  readonly maxTimestampMs: number;
  /** CRC-32C of the slice's bytes. */
  readonly crc: number;
}

export interface BatchObjectDirectory {
  readonly header: BatchObjectHeader;
  readonly slices: BatchObjectSlice[];
}

interface Trailer {
  readonly directoryPosition: number;
  readonly directoryBytes: number;
  readonly sliceCount: number;
  readonly directoryCrc: number;
  readonly sealCrc: number;
}

function assertThat(holds: boolean, what: string): asserts holds {
  if (!holds) throw new RangeError(`batch object: ${what}`);
}

function corrupt(what: string): StreamHouseError {
  return new StreamHouseError('corrupt-object', `batch object: ${what}`);
}

/** The 24 bytes at an object's beginning. */
export function encodeHeader(header: BatchObjectHeader): Uint8Array<ArrayBuffer> {
  assertThat(Number.isSafeInteger(header.incarnation) && header.incarnation >= 0, 'incarnation');
  assertThat(Number.isSafeInteger(header.number) && header.number >= 0, 'number');
  return new ByteWriter(BATCH_OBJECT_HEADER_BYTES)
    .u32(MAGIC)
    .u16(VERSION)
    .u16(NO_FLAGS)
    .i64(header.incarnation)
    .i64(header.number)
    .take();
}

/** The most bytes that directory and trailer of `sliceCount` slices can take. */
export function tailBytesMax(sliceCount: number): number {
  return sliceCount * ENTRY_BYTES_MAX + BATCH_OBJECT_TRAILER_BYTES;
}

/**
 * Builds an object's tail, slice by slice, for a builder that keeps its slices in columns. Slices are added in
 * the directory's order; a slice out of order or out of bounds is our bug and throws a RangeError.
 */
export class BatchObjectTailEncoder {
  readonly #writer: ByteWriter;
  readonly #header: Uint8Array;
  #count = 0;
  #topicId = 0;
  #partition = 0;
  #end = BATCH_OBJECT_HEADER_BYTES;
  #minTimestampMs = 0;

  constructor(header: BatchObjectHeader, sliceCountHint = 64) {
    this.#header = encodeHeader(header);
    this.#writer = new ByteWriter(sliceCountHint * 16 + BATCH_OBJECT_TRAILER_BYTES);
  }

  add(
    topicId: number,
    partition: number,
    position: number,
    length: number,
    recordCount: number,
    minTimestampMs: number,
    maxTimestampMs: number,
    crc: number,
  ): void {
    const sameTopic = this.#count > 0 && topicId === this.#topicId;
    assertThat(Number.isSafeInteger(topicId) && topicId >= this.#topicId, 'topic ids must be sorted');
    assertThat(partition >= 0 && partition <= INT_32_MAX, 'partition');
    assertThat(!sameTopic || partition >= this.#partition, 'partitions must be sorted');
    assertThat(Number.isSafeInteger(position) && position >= this.#end, 'slices must not overlap');
    assertThat(length >= 1 && length <= INT_32_MAX, 'length');
    assertThat(recordCount >= 1 && recordCount <= INT_32_MAX, 'recordCount');
    assertThat(
      Number.isSafeInteger(minTimestampMs) && minTimestampMs > -TIMESTAMP_MS_BOUND,
      'minTimestampMs',
    );
    assertThat(maxTimestampMs >= minTimestampMs && maxTimestampMs < TIMESTAMP_MS_BOUND, 'maxTimestampMs');
    assertThat(this.#count < BATCH_OBJECT_SLICES_MAX, 'too many slices');
    this.#writer
      .varint(topicId - this.#topicId)
      .varint(sameTopic ? partition - this.#partition : partition)
      .varint(position - this.#end)
      .varint(length)
      .varint(recordCount)
      .zigzag(minTimestampMs - this.#minTimestampMs)
      .varint(maxTimestampMs - minTimestampMs)
      .u32(crc);
    this.#count++;
    this.#topicId = topicId;
    this.#partition = partition;
    this.#end = position + length;
    this.#minTimestampMs = minTimestampMs;
  }

  /**
   * Directory and trailer, which belong at `slicesEndPosition`, where the last slice ended or later. Their
   * length is exact, so that an object's buffer can be made after it.
   */
  finish(slicesEndPosition: number): Uint8Array<ArrayBuffer> {
    assertThat(
      Number.isSafeInteger(slicesEndPosition) && slicesEndPosition >= this.#end,
      'slicesEndPosition',
    );
    const writer = this.#writer;
    const directoryBytes = writer.length;
    writer
      .i64(slicesEndPosition)
      .u32(directoryBytes)
      .u32(this.#count)
      .u32(crc32c(writer.view(), 0, directoryBytes))
      .u16(VERSION)
      .u16(NO_FLAGS);
    writer.u32(crc32c(writer.view(), directoryBytes, writer.length, crc32c(this.#header))).u32(END_MAGIC);
    return writer.take();
  }
}

/**
 * Directory and trailer of an object whose header is `header` and whose slices, sorted by topic id and
 * partition, end at `slicesEndPosition`: the bytes that belong there.
 */
export function encodeTail(
  header: BatchObjectHeader,
  slices: readonly BatchObjectSlice[],
  slicesEndPosition: number,
): Uint8Array<ArrayBuffer> {
  const encoder = new BatchObjectTailEncoder(header, slices.length);
  for (const s of slices) {
    const { topicId, partition, position, length, recordCount, minTimestampMs, maxTimestampMs, crc } = s;
    encoder.add(topicId, partition, position, length, recordCount, minTimestampMs, maxTimestampMs, crc);
  }
  return encoder.finish(slicesEndPosition);
}

function checkVersion(reader: ByteReader, where: string): void {
  const version = reader.u16();
  if (version !== VERSION) reader.fail(`batch object: version ${version} in the ${where}, only 1 is known`);
  const flags = reader.u16();
  if (flags !== NO_FLAGS) reader.fail(`batch object: unknown flags ${flags} in the ${where}`);
}

function decodeHeader(bytes: Uint8Array): BatchObjectHeader {
  const reader = new ByteReader(bytes, 'corrupt-object', 0, BATCH_OBJECT_HEADER_BYTES);
  if (reader.u32() !== MAGIC) reader.fail('batch object: no magic at the beginning');
  checkVersion(reader, 'header');
  const incarnation = reader.i64();
  const number = reader.i64();
  if (incarnation < 0 || number < 0) reader.fail('batch object: a negative incarnation or number');
  return { incarnation, number };
}

/** Reads the trailer from the last 32 of `bytes`, the end of an object of `objectBytes`. */
function decodeTrailer(bytes: Uint8Array, objectBytes: number): Trailer {
  const start = bytes.length - BATCH_OBJECT_TRAILER_BYTES;
  const reader = new ByteReader(bytes, 'corrupt-object', start);
  const directoryPosition = reader.i64();
  const directoryBytes = reader.u32();
  const sliceCount = reader.u32();
  const directoryCrc = reader.u32();
  checkVersion(reader, 'trailer');
  const sealCrc = reader.u32();
  if (reader.u32() !== END_MAGIC) reader.fail('batch object: no magic at the end');
  if (directoryPosition < BATCH_OBJECT_HEADER_BYTES) throw corrupt('the directory lies in the header');
  if (directoryPosition + directoryBytes + BATCH_OBJECT_TRAILER_BYTES !== objectBytes) {
    const at = `${directoryPosition} + ${directoryBytes} bytes`;
    throw corrupt(`a directory at ${at} does not fit an object of ${objectBytes} bytes`);
  }
  if (sliceCount > BATCH_OBJECT_SLICES_MAX) throw corrupt(`${sliceCount} slices are too many`);
  if (sliceCount * ENTRY_BYTES_MIN > directoryBytes || sliceCount * ENTRY_BYTES_MAX < directoryBytes) {
    throw corrupt(`${sliceCount} slices do not fit a directory of ${directoryBytes} bytes`);
  }
  return { directoryPosition, directoryBytes, sliceCount, directoryCrc, sealCrc };
}

/** Checks the CRC that binds header and trailer; `tail` ends with the trailer. */
function checkSeal(header: Uint8Array, tail: Uint8Array, trailer: Trailer): void {
  const start = tail.length - BATCH_OBJECT_TRAILER_BYTES;
  const sealCrc = crc32c(tail, start, start + 24, crc32c(header, 0, BATCH_OBJECT_HEADER_BYTES));
  if (sealCrc !== trailer.sealCrc) throw corrupt('the checksum of header and trailer does not match');
}

/** Decodes the directory, which begins at `start` in `bytes`. */
function decodeDirectory(bytes: Uint8Array, start: number, trailer: Trailer): BatchObjectSlice[] {
  const end = start + trailer.directoryBytes;
  if (crc32c(bytes, start, end) !== trailer.directoryCrc) {
    throw corrupt('the checksum of the directory does not match');
  }
  const reader = new ByteReader(bytes, 'corrupt-object', start, end);
  const slices: BatchObjectSlice[] = [];
  let topicId = 0;
  let partition = 0;
  let sliceEnd = BATCH_OBJECT_HEADER_BYTES;
  let minTimestampMs = 0;
  for (let i = 0; i < trailer.sliceCount; i++) {
    const topicStep = reader.varint();
    topicId += topicStep;
    if (!Number.isSafeInteger(topicId)) reader.fail('batch object: a topic id beyond 2^53');
    partition = (topicStep === 0 && i > 0 ? partition : 0) + reader.varint();
    if (partition > INT_32_MAX) reader.fail('batch object: a partition beyond 2^31');
    const position = sliceEnd + reader.varint();
    const length = reader.varint();
    sliceEnd = position + length;
    if (length < 1 || length > INT_32_MAX) reader.fail(`batch object: a slice of ${length} bytes`);
    if (sliceEnd > trailer.directoryPosition) reader.fail('batch object: a slice runs into the directory');
    const recordCount = reader.varint();
    if (recordCount < 1 || recordCount > INT_32_MAX) {
      reader.fail(`batch object: a slice of ${recordCount} records`);
    }
    minTimestampMs += reader.zigzag();
    const maxTimestampMs = minTimestampMs + reader.varint();
    if (minTimestampMs <= -TIMESTAMP_MS_BOUND || maxTimestampMs >= TIMESTAMP_MS_BOUND) {
      reader.fail('batch object: a timestamp out of bounds');
    }
    const crc = reader.u32();
    slices.push({ topicId, partition, position, length, recordCount, minTimestampMs, maxTimestampMs, crc });
  }
  reader.end();
  return slices;
}

function checkObjectLength(objectBytes: number): void {
  if (objectBytes < BATCH_OBJECT_HEADER_BYTES + BATCH_OBJECT_TRAILER_BYTES) {
    throw corrupt(`${objectBytes} bytes are too few for a header and a trailer`);
  }
}

/**
 * Header and directory of a whole object. Everything but the slices' own bytes is checked; those by
 * {@link verifySlice}. Errors: `corrupt-object`.
 */
export function decodeBatchObject(bytes: Uint8Array): BatchObjectDirectory {
  checkObjectLength(bytes.length);
  const header = decodeHeader(bytes);
  const trailer = decodeTrailer(bytes, bytes.length);
  checkSeal(bytes, bytes, trailer);
  return { header, slices: decodeDirectory(bytes, trailer.directoryPosition, trailer) };
}

/**
 * Header and directory of an object by ranged gets of its end (and of its 24 first bytes), without reading
 * its slices. `objectBytes` saves a listing when the object's size is known.
 * Errors: `object-not-found`, `corrupt-object`, and the store's own.
 */
export async function readDirectory(
  store: ObjectStore,
  key: string,
  objectBytes?: number,
  options?: CallOptions,
): Promise<BatchObjectDirectory> {
  const size = objectBytes ?? (await sizeByListing(store, key, options));
  checkObjectLength(size);
  const tailBytes = Math.min(size, TAIL_GUESS_BYTES);
  const tailPosition = size - tailBytes;
  const readHead = { position: 0, length: BATCH_OBJECT_HEADER_BYTES };
  const [tail, head] = await Promise.all([
    store.get(key, { position: tailPosition, length: tailBytes }, options),
    tailPosition === 0 ? null : store.get(key, readHead, options),
  ]);
  const headerBytes = head ?? tail;
  const header = decodeHeader(headerBytes);
  const trailer = decodeTrailer(tail, size);
  checkSeal(headerBytes, tail, trailer);
  if (trailer.directoryPosition >= tailPosition) {
    return { header, slices: decodeDirectory(tail, trailer.directoryPosition - tailPosition, trailer) };
  }
  const range = { position: trailer.directoryPosition, length: trailer.directoryBytes };
  return { header, slices: decodeDirectory(await store.get(key, range, options), 0, trailer) };
}

async function sizeByListing(store: ObjectStore, key: string, options?: CallOptions): Promise<number> {
  const [first] = await store.list(key, { limit: 1, ...options });
  if (first?.key !== key) throw objectNotFound(key);
  return first.bytes;
}

/** Throws `corrupt-object` unless `bytes` are exactly the bytes that the directory promises for `slice`. */
export function verifySlice(
  bytes: Uint8Array,
  slice: Pick<BatchObjectSlice, 'topicId' | 'partition' | 'position' | 'length' | 'crc'>,
): void {
  const where = `the slice of topic ${slice.topicId}, partition ${slice.partition} at ${slice.position}`;
  if (bytes.length !== slice.length) {
    throw corrupt(`${where} has ${bytes.length} bytes, not ${slice.length}`);
  }
  const crc = crc32c(bytes);
  if (crc !== slice.crc) {
    throw corrupt(`the checksum of ${where} does not match (${crc} is not ${slice.crc})`);
  }
}
