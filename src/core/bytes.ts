/**
 * A growing writer and a bounds-checked reader of bytes, shared by every codec of ours. Owns: integers (big
 * endian, as Kafka's), varints, length-prefixed bytes. Does not own any format. Bytes that come from outside
 * are never asserted on: a reader that runs past its end throws the `StreamHouseError` of the code it was
 * given. Pure; any thread.
 *
 *   varint    unsigned, 7 bits a byte, low bits first, up to 2^53 - 1 (8 bytes)
 *   zigzag    signed 32-bit as varint of (n << 1) ^ (n >> 31); zigzag53 the same for +-2^52
 */
import { type ErrorCode, StreamHouseError } from './errors.ts';

const TWO_32 = 4294967296;

export class ByteWriter {
  #buffer: Buffer;
  #length = 0;

  constructor(initialBytes = 256) {
    this.#buffer = Buffer.allocUnsafeSlow(initialBytes);
  }

  get length(): number {
    return this.#length;
  }

  #reserve(count: number): number {
    const at = this.#length;
    const need = at + count;
    if (need > this.#buffer.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(need, this.#buffer.length * 2));
      this.#buffer.copy(grown, 0, 0, at);
      this.#buffer = grown;
    }
    this.#length = need;
    return at;
  }

  u8(value: number): this {
    const at = this.#reserve(1);
    this.#buffer[at] = value;
    return this;
  }

  u16(value: number): this {
    const at = this.#reserve(2);
    this.#buffer.writeUInt16BE(value, at);
    return this;
  }

  u32(value: number): this {
    const at = this.#reserve(4);
    this.#buffer.writeUInt32BE(value, at);
    return this;
  }

  i32(value: number): this {
    const at = this.#reserve(4);
    this.#buffer.writeInt32BE(value, at);
    return this;
  }

  /** A signed 64-bit integer given as a safe integer. */
  i64(value: number): this {
    const at = this.#reserve(8);
    this.#buffer.writeInt32BE(Math.floor(value / TWO_32), at);
    this.#buffer.writeUInt32BE(value >>> 0, at + 4);
    return this;
  }

  varint(value: number): this {
    let rest = value;
    while (rest >= 128) {
      if (rest < TWO_32) {
        this.u8((rest & 0x7f) | 0x80);
        rest = rest >>> 7;
      } else {
        this.u8((rest % 128) | 0x80);
        rest = Math.floor(rest / 128);
      }
    }
    return this.u8(rest);
  }

  /** A signed safe integer of magnitude below 2^52, small magnitudes short. */
  zigzag(value: number): this {
    return this.varint(value < 0 ? -value * 2 - 1 : value * 2);
  }

  bytes(value: Uint8Array): this {
    const at = this.#reserve(value.length);
    this.#buffer.set(value, at);
    return this;
  }

  /** varint length, then UTF-8. */
  string(value: string): this {
    const length = Buffer.byteLength(value);
    this.varint(length);
    const at = this.#reserve(length);
    this.#buffer.write(value, at);
    return this;
  }

  /** varint length, then the bytes. */
  sizedBytes(value: Uint8Array): this {
    return this.varint(value.length).bytes(value);
  }

  /** Overwrites four bytes written earlier (a length or checksum known only at the end). */
  patchU32(position: number, value: number): this {
    this.#buffer.writeUInt32BE(value, position);
    return this;
  }

  /** What was written, as a view: valid until the next write. */
  view(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  /** What was written, in memory of its own that can be moved to another thread. */
  take(): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(this.#length);
    out.set(this.view());
    this.#length = 0;
    return out;
  }

  /** Forgets what was written and keeps the memory. */
  reset(): this {
    this.#length = 0;
    return this;
  }
}

export class ByteReader {
  readonly #bytes: Buffer;
  readonly #end: number;
  readonly #code: ErrorCode;
  #position: number;

  /** Reads bytes [start, end); running past the end throws an error of `code`. */
  constructor(bytes: Uint8Array, code: ErrorCode, start = 0, end = bytes.length) {
    this.#bytes = Buffer.isBuffer(bytes)
      ? bytes
      : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#position = start;
    this.#end = end;
    this.#code = code;
    if (start < 0 || end > bytes.length || start > end) this.fail('a section lies outside its bytes');
  }

  get position(): number {
    return this.#position;
  }

  get remaining(): number {
    return this.#end - this.#position;
  }

  /** Throws this reader's error; for a decoder that finds something wrong. */
  fail(what: string): never {
    throw new StreamHouseError(this.#code, `${what} (at byte ${this.#position})`);
  }

  #take(count: number): number {
    const at = this.#position;
    if (count > this.#end - at) this.fail(`${count} bytes expected, ${this.#end - at} left`);
    this.#position = at + count;
    return at;
  }

  u8(): number {
    return this.#bytes[this.#take(1)];
  }

  u16(): number {
    return this.#bytes.readUInt16BE(this.#take(2));
  }

  u32(): number {
    return this.#bytes.readUInt32BE(this.#take(4));
  }

  i32(): number {
    return this.#bytes.readInt32BE(this.#take(4));
  }

  /** A signed 64-bit integer; beyond the safe integers it fails. */
  i64(): number {
    const at = this.#take(8);
    const value = this.#bytes.readInt32BE(at) * TWO_32 + this.#bytes.readUInt32BE(at + 4);
    if (!Number.isSafeInteger(value)) this.fail('an integer beyond 2^53');
    return value;
  }

  varint(): number {
    let byte = this.u8();
    if (byte < 128) return byte;
    let value = byte & 0x7f;
    let scale = 128;
    for (let i = 1; i < 8; i++) {
      byte = this.u8();
      value += (byte & 0x7f) * scale;
      if (byte < 128) {
        if (value > Number.MAX_SAFE_INTEGER) this.fail('a varint beyond 2^53');
        return value;
      }
      scale *= 128;
    }
    this.fail('a varint of more than 8 bytes');
  }

  zigzag(): number {
    const value = this.varint();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  /** A varint that counts things of at least `bytesEach` bytes: more than could be left fails at once. */
  count(bytesEach = 1): number {
    const value = this.varint();
    if (value * bytesEach > this.remaining)
      this.fail(`a count of ${value} with ${this.remaining} bytes left`);
    return value;
  }

  /** A view of the next `count` bytes, no copy. */
  bytes(count: number): Buffer {
    const at = this.#take(count);
    return this.#bytes.subarray(at, at + count);
  }

  string(): string {
    return this.bytes(this.count()).toString('utf8');
  }

  sizedBytes(): Buffer {
    return this.bytes(this.count());
  }

  /** Fails unless everything was read. */
  end(): void {
    if (this.remaining !== 0) this.fail(`${this.remaining} bytes too many`);
  }
}
