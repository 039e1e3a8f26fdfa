/**
 * Appends on their way to the broker that holds their shards, many in one message, and the answers on their way back.
 * Owns: both layouts, version 1, with writers and checked readers. Does not own: how they are carried (src/peer,
 * server/), nor the layouts between the threads of a broker (workers/append-codec), which may change at any time while
 * these may not. Little endian. Pure; main thread.
 *
 *   message: u32 magic 'SHA1' | u32 appendCount | appends one after the other
 *   append:  f64 topicId | u32 partition | u32 recordCount | u32 dataBytes
 *            f64 producerId (-1 none) | i32 producerEpoch | i32 baseSequence
 *            recordCount * (i32 keyBytes, i32 valueBytes; -1 null) | keys and values in turn
 *   answers: 16 bytes each, in any order, each append once
 *            u32 its place in the message | u32 error number (0 none) | f64 baseOffset (-1 with an error)
 *
 * Bytes from a socket are never trusted: a message is checked as a whole before anything is done with it.
 */
import { type ErrorCode, StreamHouseError } from '../../core/errors.ts';
import { PARTITIONS_PER_TOPIC_MAX, TOPIC_ID_MAX } from '../../core/ids.ts';
import { RECORDS_PER_REQUEST_MAX } from '../../core/limits.ts';
import { codeOfWireNumber, wireNumberOf } from './error-numbers.ts';

const MAGIC = 0x31414853;
export const MESSAGE_HEADER_BYTES = 8;
export const WIRE_APPEND_HEADER_BYTES = 36;
export const WIRE_ANSWER_BYTES = 16;

/** What an append says of itself. */
export interface WireAppend {
  topicId: number;
  partition: number;
  recordCount: number;
  producerId: number;
  producerEpoch: number;
  baseSequence: number;
  /** Lengths and data. */
  bytes: Uint8Array;
  /** Why a receiver does not take it, well formed as it is; null: it does. */
  refusal: ErrorCode | null;
}

export function writeMessageHeader(out: Buffer, appendCount: number): void {
  out.writeUInt32LE(MAGIC, 0);
  out.writeUInt32LE(appendCount, 4);
}

/** Writes one append at `at`; returns where the next one begins. */
export function writeWireAppend(out: Buffer, at: number, append: Omit<WireAppend, 'refusal'>): number {
  const { bytes, recordCount } = append;
  out.writeDoubleLE(append.topicId, at);
  out.writeUInt32LE(append.partition, at + 8);
  out.writeUInt32LE(recordCount, at + 12);
  out.writeUInt32LE(bytes.length - recordCount * 8, at + 16);
  out.writeDoubleLE(append.producerId, at + 20);
  out.writeInt32LE(append.producerEpoch, at + 28);
  out.writeInt32LE(append.baseSequence, at + 32);
  out.set(bytes, at + WIRE_APPEND_HEADER_BYTES);
  return at + WIRE_APPEND_HEADER_BYTES + bytes.length;
}

/** What a receiver takes of one append; what its records' bytes are bound by. */
export interface AppendLimits {
  /** Of one record, key and value together. */
  recordBytesMax: number;
  /** Of all keys and values of an append. */
  appendBytesMax: number;
}

/** A message that was checked. */
export class AppendMessage {
  /** Appends in it. */
  readonly count: number;
  /** Bytes of all of it. */
  readonly bytes: number;
  readonly #body: Buffer;
  /** By its place, why an append is not taken. The sender's limits may be others. */
  readonly #refusals = new Map<number, ErrorCode>();

  /** 'malformed-request'. */
  constructor(body: Buffer, limits: AppendLimits) {
    if (body.length < MESSAGE_HEADER_BYTES) throw malformed(`it has ${body.length} bytes`);
    if (body.readUInt32LE(0) !== MAGIC) throw malformed('it is no message of appends of version 1');
    this.count = body.readUInt32LE(4);
    this.bytes = body.length;
    this.#body = body;
    let at = MESSAGE_HEADER_BYTES;
    for (let i = 0; i < this.count; i++) at = this.#check(body, at, i, limits);
    if (at !== body.length) throw malformed(`${body.length - at} bytes follow its last append`);
    if (this.count === 0) throw malformed('it has no append');
  }

  /** Calls `each` for every append with one object, which is used again. */
  forEach(each: (append: WireAppend, index: number) => void): void {
    const body = this.#body;
    const append = blankAppend();
    let at = MESSAGE_HEADER_BYTES;
    for (let i = 0; i < this.count; i++) {
      append.topicId = body.readDoubleLE(at);
      append.partition = body.readUInt32LE(at + 8);
      append.recordCount = body.readUInt32LE(at + 12);
      append.producerId = body.readDoubleLE(at + 20);
      append.producerEpoch = body.readInt32LE(at + 28);
      append.baseSequence = body.readInt32LE(at + 32);
      const end = at + WIRE_APPEND_HEADER_BYTES + append.recordCount * 8 + body.readUInt32LE(at + 16);
      append.bytes = body.subarray(at + WIRE_APPEND_HEADER_BYTES, end);
      append.refusal = this.#refusals.get(i) ?? null;
      at = end;
      each(append, i);
    }
  }

  /** Checks the append at `at`; returns where it ends. */
  #check(body: Buffer, at: number, index: number, limits: AppendLimits): number {
    if (at + WIRE_APPEND_HEADER_BYTES > body.length) throw malformed(`append ${index} is cut short`);
    const topicId = body.readDoubleLE(at);
    const partition = body.readUInt32LE(at + 8);
    const recordCount = body.readUInt32LE(at + 12);
    const dataBytes = body.readUInt32LE(at + 16);
    if (!Number.isInteger(topicId) || topicId < 1 || topicId > TOPIC_ID_MAX) {
      throw malformed(`append ${index} has topic id ${topicId}`);
    }
    if (partition >= PARTITIONS_PER_TOPIC_MAX) throw malformed(`append ${index} has partition ${partition}`);
    if (recordCount < 1 || recordCount > RECORDS_PER_REQUEST_MAX) {
      throw malformed(`append ${index} has ${recordCount} records`);
    }
    checkProducer(body, at, index);
    const lengthsAt = at + WIRE_APPEND_HEADER_BYTES;
    const end = lengthsAt + recordCount * 8 + dataBytes;
    if (end > body.length) throw malformed(`append ${index} is cut short`);
    const largest = largestRecord(body, lengthsAt, recordCount, dataBytes, index);
    if (dataBytes > limits.appendBytesMax) this.#refusals.set(index, 'batch-too-large');
    else if (largest > limits.recordBytesMax) this.#refusals.set(index, 'record-too-large');
    return end;
  }
}

const NOTHING = new Uint8Array(0);

function blankAppend(): WireAppend {
  return {
    topicId: 0,
    partition: 0,
    recordCount: 0,
    producerId: -1,
    producerEpoch: -1,
    baseSequence: -1,
    bytes: NOTHING,
    refusal: null,
  };
}

function checkProducer(body: Buffer, at: number, index: number): void {
  const producerId = body.readDoubleLE(at + 20);
  const producerEpoch = body.readInt32LE(at + 28);
  const baseSequence = body.readInt32LE(at + 32);
  const isNone = producerId === -1 && producerEpoch === -1 && baseSequence === -1;
  const isOne =
    Number.isSafeInteger(producerId) &&
    producerId >= 0 &&
    producerEpoch >= 0 &&
    producerEpoch <= 32767 &&
    baseSequence >= 0;
  if (!isNone && !isOne) throw malformed(`append ${index} has a producer that cannot be`);
}

/** Bytes of the append's largest record, when the lengths of all add up. */
function largestRecord(
  body: Buffer,
  lengthsAt: number,
  recordCount: number,
  dataBytes: number,
  index: number,
): number {
  let total = 0;
  let largest = 0;
  for (let i = 0; i < recordCount; i++) {
    const keyBytes = body.readInt32LE(lengthsAt + i * 8);
    const valueBytes = body.readInt32LE(lengthsAt + i * 8 + 4);
    if (keyBytes < -1 || valueBytes < -1) throw malformed(`append ${index} has a record of negative length`);
    const bytes = Math.max(keyBytes, 0) + Math.max(valueBytes, 0);
    total += bytes;
    largest = Math.max(largest, bytes);
  }
  if (total !== dataBytes) throw malformed(`append ${index} has ${total} bytes of records, not ${dataBytes}`);
  return largest;
}

function malformed(what: string): StreamHouseError {
  return new StreamHouseError('malformed-request', `a message of appends: ${what}`);
}

/** Writes one answer at `at`. */
export function writeWireAnswer(
  out: Buffer,
  at: number,
  index: number,
  code: ErrorCode | null,
  baseOffset: number,
): void {
  out.writeUInt32LE(index, at);
  out.writeUInt32LE(code === null ? 0 : wireNumberOf(code), at + 4);
  out.writeDoubleLE(code === null ? baseOffset : -1, at + 8);
}

/**
 * Reads answers out of a stream whose pieces end anywhere. `each` gets what came as it came: whether there is such an
 * append, and whether it was answered before, is for the caller to know.
 */
export class AnswerReader {
  readonly #each: (index: number, code: ErrorCode | null, baseOffset: number) => void;
  readonly #rest = Buffer.alloc(WIRE_ANSWER_BYTES);
  #restBytes = 0;

  constructor(each: (index: number, code: ErrorCode | null, baseOffset: number) => void) {
    this.#each = each;
  }

  /** Bytes of an answer that has begun and not ended. */
  get restBytes(): number {
    return this.#restBytes;
  }

  /** The next piece. Throws 'malformed-request' at an offset that is none: nothing after it can be believed. */
  push(piece: Buffer): void {
    let at = 0;
    if (this.#restBytes > 0) {
      at = piece.copy(this.#rest, this.#restBytes, 0, WIRE_ANSWER_BYTES - this.#restBytes);
      this.#restBytes += at;
      if (this.#restBytes < WIRE_ANSWER_BYTES) return;
      this.#restBytes = 0;
      this.#read(this.#rest, 0);
    }
    for (; at + WIRE_ANSWER_BYTES <= piece.length; at += WIRE_ANSWER_BYTES) this.#read(piece, at);
    if (at < piece.length) this.#restBytes = piece.copy(this.#rest, 0, at);
  }

  #read(bytes: Buffer, at: number): void {
    const number = bytes.readUInt32LE(at + 4);
    const baseOffset = bytes.readDoubleLE(at + 8);
    if (number === 0 && !(Number.isSafeInteger(baseOffset) && baseOffset >= 0)) {
      throw new StreamHouseError('malformed-request', `an answer with offset ${baseOffset}`);
    }
    this.#each(
      bytes.readUInt32LE(at),
      number === 0 ? null : codeOfWireNumber(number),
      number === 0 ? baseOffset : -1,
    );
  }
}
