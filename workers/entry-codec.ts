/**
 * The entries of a shard's log: committed decisions, as bytes. Owns: the layout of entry version 1, which is
 * frozen for ever (test/golden holds a corpus that every later version must still read to the same meaning).
 * Does not own: what an entry does to the state (shard-state) or to the index (index/). Pure; any thread.
 *
 *   u8 version = 1 | u8 kind | varint shard | varint seq | varint epoch | zigzag holder's wall time, ms
 *   body by kind:
 *     1 Slices        object table | slices | producer batches
 *     2 Takeover      varint incarnation
 *     3 LogStart      varint count, then (varint topicId, varint partition, varint logStart)*
 *     4 TopicDeleted  varint topicId
 *     5 Merged        object table | slices (each with its base) | dropped objects as an object table
 *   u32 CRC-32C of everything before it
 *
 *   object table: varint count, then (varint incarnation, varint number)*
 *   slices: varint count, then, sorted by object, topic and partition (a partition may have several: a refused
 *     batch between them), each:
 *       varint head     2 * (objects to advance by) + (1 if another topic than the slice before)
 *       [varint topicId]  varint partition | varint baseOffset | varint recordCount
 *       varint gap      position less the end of the slice before in the same object
 *       varint length | zigzag maxTimestampMs less the holder's time
 *   producer batches: varint count, then each: varint slice index | varint offset of its first record in the
 *     slice | varint recordCount | varint producerId | varint producerEpoch | varint baseSequence
 *
 * Shard and seq stand in the body too, so that a row under a wrong key is seen.
 */
import { ByteReader, ByteWriter } from '../src/core/bytes.ts';
import { crc32c } from '../src/core/crc32c.ts';
import { StreamHouseError } from '../src/core/errors.ts';
import type { ObjectId } from '../src/core/ids.ts';

export const ENTRY_VERSION = 1;

/** One partition's contiguous bytes in an object, and the offsets they were given. */
export interface EntrySlice {
  topicId: number;
  partition: number;
  /** Index into the entry's objects. */
  objectIndex: number;
  baseOffset: number;
  recordCount: number;
  /** Position in the object, bytes. */
  position: number;
  /** Bytes. */
  length: number;
  /** Largest record timestamp of the slice, ms. */
  maxTimestampMs: number;
}

/** An accepted batch of an idempotent producer within a slice. */
export interface EntryProducerBatch {
  sliceIndex: number;
  /** The batch's first record, counted from the slice's base. */
  offsetInSlice: number;
  recordCount: number;
  producerId: number;
  producerEpoch: number;
  baseSequence: number;
}

export interface SlicesEntry {
  kind: 'slices';
  objects: ObjectId[];
  slices: EntrySlice[];
  producerBatches: EntryProducerBatch[];
}

/** The holder says that it took the shard; the first entry under its epoch. */
export interface TakeoverEntry {
  kind: 'takeover';
  incarnation: number;
}

/** Records below these offsets are gone. */
export interface LogStartEntry {
  kind: 'log-start';
  starts: { topicId: number; partition: number; logStart: number }[];
}

/** The topic's partitions of this shard are gone; slices of that id are refused from here on. */
export interface TopicDeletedEntry {
  kind: 'topic-deleted';
  topicId: number;
}

/** Slices rewritten into other objects: each replaces the refs that cover exactly its offsets. */
export interface MergedEntry {
  kind: 'merged';
  objects: ObjectId[];
  slices: EntrySlice[];
  /** Objects that this shard refers to no more. */
  dropped: ObjectId[];
}

export type EntryBody = SlicesEntry | TakeoverEntry | LogStartEntry | TopicDeletedEntry | MergedEntry;

/** A decoded entry. */
export type Entry = { shard: number; seq: number; epoch: number; timeMs: number } & EntryBody;

const KIND_CODES: Record<EntryBody['kind'], number> = {
  slices: 1,
  takeover: 2,
  'log-start': 3,
  'topic-deleted': 4,
  merged: 5,
};

/**
 * Upper bound of the bytes of one slice and of one producer batch in an entry, for a writer that must keep an
 * entry below what a store takes: eight varints of at most 8 bytes.
 */
export const ENTRY_SLICE_BYTES_MAX = 64;
export const ENTRY_PRODUCER_BATCH_BYTES_MAX = 48;

/** Encodes an entry into memory of its own, shared memory so that all threads can read it without a copy. */
export function encodeEntry(entry: Entry): Uint8Array {
  const out = new ByteWriter(64 + ('slices' in entry ? entry.slices.length * 20 : 0));
  out.u8(ENTRY_VERSION).u8(KIND_CODES[entry.kind]);
  out.varint(entry.shard).varint(entry.seq).varint(entry.epoch).zigzag(entry.timeMs);
  switch (entry.kind) {
    case 'slices':
      writeObjects(out, entry.objects);
      writeSlices(out, entry.slices, entry.timeMs);
      writeProducerBatches(out, entry.producerBatches);
      break;
    case 'takeover':
      out.varint(entry.incarnation);
      break;
    case 'log-start':
      out.varint(entry.starts.length);
      for (const start of entry.starts)
        out.varint(start.topicId).varint(start.partition).varint(start.logStart);
      break;
    case 'topic-deleted':
      out.varint(entry.topicId);
      break;
    case 'merged':
      writeObjects(out, entry.objects);
      writeSlices(out, entry.slices, entry.timeMs);
      writeObjects(out, entry.dropped);
      break;
  }
  out.u32(crc32c(out.view()));
  const shared = new Uint8Array(new SharedArrayBuffer(out.length));
  shared.set(out.view());
  return shared;
}

function writeObjects(out: ByteWriter, objects: readonly ObjectId[]): void {
  out.varint(objects.length);
  for (const object of objects) out.varint(object.incarnation).varint(object.number);
}

function writeSlices(out: ByteWriter, slices: readonly EntrySlice[], timeMs: number): void {
  out.varint(slices.length);
  let objectIndex = 0;
  let topicId = -1;
  let end = 0;
  for (const slice of slices) {
    const advance = slice.objectIndex - objectIndex;
    if (advance > 0) end = 0;
    objectIndex = slice.objectIndex;
    const otherTopic = slice.topicId !== topicId;
    out.varint(advance * 2 + (otherTopic ? 1 : 0));
    if (otherTopic) out.varint(slice.topicId);
    topicId = slice.topicId;
    out.varint(slice.partition).varint(slice.baseOffset).varint(slice.recordCount);
    out.varint(slice.position - end).varint(slice.length);
    out.zigzag(slice.maxTimestampMs - timeMs);
    end = slice.position + slice.length;
  }
}

function writeProducerBatches(out: ByteWriter, batches: readonly EntryProducerBatch[]): void {
  out.varint(batches.length);
  for (const batch of batches) {
    out.varint(batch.sliceIndex).varint(batch.offsetInSlice).varint(batch.recordCount);
    out.varint(batch.producerId).varint(batch.producerEpoch).varint(batch.baseSequence);
  }
}

/** Decodes an entry, checking its checksum and every bound. 'corrupt-entry'. */
export function decodeEntry(bytes: Uint8Array): Entry {
  if (bytes.length < 10) throw new StreamHouseError('corrupt-entry', `an entry of ${bytes.length} bytes`);
  const end = bytes.length - 4;
  const whole = new ByteReader(bytes, 'corrupt-entry');
  const crc = new ByteReader(bytes, 'corrupt-entry', end).u32();
  if (crc32c(bytes, 0, end) !== crc) whole.fail('checksum mismatch');
  const reader = new ByteReader(bytes, 'corrupt-entry', 0, end);
  const version = reader.u8();
  if (version !== ENTRY_VERSION) reader.fail(`entry version ${version}, this program reads ${ENTRY_VERSION}`);
  const kindCode = reader.u8();
  const shard = reader.varint();
  const seq = reader.varint();
  const epoch = reader.varint();
  const timeMs = reader.zigzag();
  const body = readBody(reader, kindCode, timeMs);
  reader.end();
  return { shard, seq, epoch, timeMs, ...body };
}

function readBody(reader: ByteReader, kindCode: number, timeMs: number): EntryBody {
  switch (kindCode) {
    case 1: {
      const objects = readObjects(reader);
      const slices = readSlices(reader, objects.length, timeMs);
      return { kind: 'slices', objects, slices, producerBatches: readProducerBatches(reader, slices) };
    }
    case 2:
      return { kind: 'takeover', incarnation: reader.varint() };
    case 3: {
      const starts = [];
      for (let left = reader.count(3); left > 0; left--) {
        starts.push({ topicId: reader.varint(), partition: reader.varint(), logStart: reader.varint() });
      }
      return { kind: 'log-start', starts };
    }
    case 4:
      return { kind: 'topic-deleted', topicId: reader.varint() };
    case 5: {
      const objects = readObjects(reader);
      const slices = readSlices(reader, objects.length, timeMs);
      return { kind: 'merged', objects, slices, dropped: readObjects(reader) };
    }
    default:
      return reader.fail(`unknown entry kind ${kindCode}`);
  }
}

function readObjects(reader: ByteReader): ObjectId[] {
  const objects: ObjectId[] = [];
  for (let left = reader.count(2); left > 0; left--) {
    objects.push({ incarnation: reader.varint(), number: reader.varint() });
  }
  return objects;
}

function readSlices(reader: ByteReader, objectCount: number, timeMs: number): EntrySlice[] {
  const count = reader.count(7);
  const slices: EntrySlice[] = new Array(count);
  let objectIndex = 0;
  let topicId = -1;
  let end = 0;
  for (let i = 0; i < count; i++) {
    const head = reader.varint();
    const advance = Math.floor(head / 2);
    if (advance > 0) end = 0;
    objectIndex += advance;
    if (objectIndex >= objectCount) reader.fail(`slice ${i} names object ${objectIndex} of ${objectCount}`);
    if (head % 2 === 1) topicId = reader.varint();
    else if (i === 0) reader.fail('the first slice has no topic');
    const partition = reader.varint();
    const baseOffset = reader.varint();
    const recordCount = reader.varint();
    if (recordCount < 1) reader.fail(`slice ${i} without records`);
    const position = end + reader.varint();
    const length = reader.varint();
    end = position + length;
    const maxTimestampMs = timeMs + reader.zigzag();
    slices[i] = {
      topicId,
      partition,
      objectIndex,
      baseOffset,
      recordCount,
      position,
      length,
      maxTimestampMs,
    };
  }
  return slices;
}

function readProducerBatches(reader: ByteReader, slices: readonly EntrySlice[]): EntryProducerBatch[] {
  const batches: EntryProducerBatch[] = [];
  for (let left = reader.count(6); left > 0; left--) {
    const batch = {
      sliceIndex: reader.varint(),
      offsetInSlice: reader.varint(),
      recordCount: reader.varint(),
      producerId: reader.varint(),
      producerEpoch: reader.varint(),
      baseSequence: reader.varint(),
    };
    const slice = slices[batch.sliceIndex];
    if (!slice || batch.recordCount < 1 || batch.offsetInSlice + batch.recordCount > slice.recordCount) {
      reader.fail(`a producer batch lies outside slice ${batch.sliceIndex}`);
    }
    batches.push(batch);
  }
  return batches;
}
