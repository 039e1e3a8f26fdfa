/**
 * The packed buffers in which appends and their answers cross threads, many at a time, never an object each.
 * Owns: three layouts and their readers and writers. Does not own: the ports (messages.ts). Little endian, for
 * these bytes never leave the process. Pure; main thread, lanes, batching worker.
 *
 * An append is one request's share for one partition. A token (slot, generation) names it: the slot is its place
 * in the main thread's table, the generation tells a late answer to an earlier use of that slot.
 *
 *   produce (main -> lane), appends one after the other:
 *     u32 slot | u32 generation | f64 topicId | u32 partition | u32 recordCount | u32 dataBytes
 *     i32 producerEpoch | f64 producerId (-1 none) | i32 baseSequence | u32 0
 *     recordCount * (i32 keyBytes, i32 valueBytes; -1 null) | keys and values in turn
 *   append (lane -> batching worker), appends one after the other:
 *     u32 slot | u32 generation | f64 topicId | u32 partition | u32 recordCount | u32 batchBytes
 *     i32 producerEpoch | f64 producerId | i32 baseSequence | u32 0 | f64 minTimestampMs | f64 maxTimestampMs
 *     one RecordBatch
 *   answer (batching worker -> lane -> main, or lane -> main), 24 bytes each:
 *     u32 slot | u32 generation | u32 error (0: none, else 1 + its index in ERROR_CODES) | u32 0 | f64 baseOffset
 */
import { ERROR_CODES, type ErrorCode } from '../src/core/errors.ts';

export const PRODUCE_HEADER_BYTES = 48;
export const APPEND_HEADER_BYTES = 64;
export const ANSWER_BYTES = 24;

const ERROR_NUMBERS = new Map(ERROR_CODES.map((code, index) => [code, index + 1]));

/** The number under which an error crosses threads in an answer. */
export function errorNumber(code: ErrorCode): number {
  return ERROR_NUMBERS.get(code) as number;
}

/** null for 0. */
export function errorOfNumber(number: number): ErrorCode | null {
  return number === 0 ? null : ERROR_CODES[number - 1];
}

/** The fields that produce and append headers share, read in place. */
export interface AppendHeader {
  slot: number;
  generation: number;
  topicId: number;
  partition: number;
  recordCount: number;
  /** Bytes after the header (and, in a produce message, after the lengths). */
  dataBytes: number;
  producerId: number;
  producerEpoch: number;
  baseSequence: number;
}

/** Byte by byte: Buffer's methods check every argument, which made them a third of a lane's time (profiled). */
function writeU32(out: Uint8Array, at: number, value: number): void {
  out[at] = value;
  out[at + 1] = value >>> 8;
  out[at + 2] = value >>> 16;
  out[at + 3] = value >>> 24;
}

function readU32(bytes: Uint8Array, at: number): number {
  return (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
}

/** Writes the 48 bytes that both headers begin with. */
export function writeAppendHeader(out: Buffer, at: number, header: AppendHeader): void {
  writeU32(out, at, header.slot);
  writeU32(out, at + 4, header.generation);
  out.writeDoubleLE(header.topicId, at + 8);
  writeU32(out, at + 16, header.partition);
  writeU32(out, at + 20, header.recordCount);
  writeU32(out, at + 24, header.dataBytes);
  writeU32(out, at + 28, header.producerEpoch);
  out.writeDoubleLE(header.producerId, at + 32);
  writeU32(out, at + 40, header.baseSequence);
  // Its last bytes with a check: stores beyond the end would be lost in silence.
  out.writeUInt32LE(0, at + 44);
}

/** Reads the 48 bytes that both headers begin with into `header`, so that a loop needs one object. */
export function readAppendHeader(bytes: Buffer, at: number, header: AppendHeader): void {
  // Its last bytes first: a message that is too short must not read as zeros.
  header.baseSequence = bytes.readInt32LE(at + 40);
  header.slot = readU32(bytes, at);
  header.generation = readU32(bytes, at + 4);
  header.topicId = bytes.readDoubleLE(at + 8);
  header.partition = readU32(bytes, at + 16);
  header.recordCount = readU32(bytes, at + 20);
  header.dataBytes = readU32(bytes, at + 24);
  header.producerEpoch = readU32(bytes, at + 28) | 0;
  header.producerId = bytes.readDoubleLE(at + 32);
}

/** A header to read into. */
export function blankAppendHeader(): AppendHeader {
  return {
    slot: 0,
    generation: 0,
    topicId: 0,
    partition: 0,
    recordCount: 0,
    dataBytes: 0,
    producerId: -1,
    producerEpoch: -1,
    baseSequence: -1,
  };
}

/** Calls `each` for every append of a produce message with its header, one object that is used again. */
export function forEachProduce(message: Uint8Array, each: (header: AppendHeader) => void): void {
  const bytes = bufferOver(message);
  const header = blankAppendHeader();
  for (let at = 0; at < bytes.length; ) {
    readAppendHeader(bytes, at, header);
    at += PRODUCE_HEADER_BYTES + header.recordCount * 8 + header.dataBytes;
    each(header);
  }
}

/** Gathers answers for one lane (or for main) until they are taken as one message. */
export class AnswerWriter {
  #buffer = Buffer.allocUnsafeSlow(64 * ANSWER_BYTES);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  add(slot: number, generation: number, code: ErrorCode | null, baseOffset: number): void {
    const at = this.#count++ * ANSWER_BYTES;
    if (at === this.#buffer.length) {
      const grown = Buffer.allocUnsafeSlow(at * 2);
      this.#buffer.copy(grown);
      this.#buffer = grown;
    }
    writeU32(this.#buffer, at, slot);
    writeU32(this.#buffer, at + 4, generation);
    writeU32(this.#buffer, at + 8, code === null ? 0 : errorNumber(code));
    writeU32(this.#buffer, at + 12, 0);
    this.#buffer.writeDoubleLE(baseOffset, at + 16);
  }

  /** Takes over another writer's answers, which has none afterwards. */
  append(other: AnswerWriter): void {
    if (this.#count === 0) {
      [this.#buffer, other.#buffer] = [other.#buffer, this.#buffer];
      [this.#count, other.#count] = [other.#count, 0];
      return;
    }
    const at = this.#count * ANSWER_BYTES;
    const more = other.#count * ANSWER_BYTES;
    if (at + more > this.#buffer.length) {
      const grown = Buffer.allocUnsafeSlow((at + more) * 2);
      this.#buffer.copy(grown, 0, 0, at);
      this.#buffer = grown;
    }
    other.#buffer.copy(this.#buffer, at, 0, more);
    this.#count += other.#count;
    other.#count = 0;
  }

  /** All answers so far, in memory of their own that can be moved; null if there are none. */
  take(): Uint8Array<ArrayBuffer> | null {
    if (this.#count === 0) return null;
    const out = new Uint8Array(this.#count * ANSWER_BYTES);
    out.set(this.#buffer.subarray(0, out.length));
    this.#count = 0;
    if (this.#buffer.length > 1 << 20) this.#buffer = Buffer.allocUnsafeSlow(64 * ANSWER_BYTES);
    return out;
  }
}

/** Calls `each` for every answer of a message. */
export function readAnswers(
  message: Uint8Array,
  each: (slot: number, generation: number, code: ErrorCode | null, baseOffset: number) => void,
): void {
  const bytes = bufferOver(message);
  for (let at = 0; at < bytes.length; at += ANSWER_BYTES) {
    each(
      readU32(bytes, at),
      readU32(bytes, at + 4),
      errorOfNumber(readU32(bytes, at + 8)),
      bytes.readDoubleLE(at + 16),
    );
  }
}

/** A Buffer over the same memory, shared memory included. */
export function bufferOver(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
