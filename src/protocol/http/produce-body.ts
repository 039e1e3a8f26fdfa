/**
 * The body of a produce request, `{"records":[{"key":..,"value":..,"partition":n}, ..]}`, as spans of its own
 * bytes: a JSON key or value is stored as exactly what the client sent, so nothing is parsed into values and
 * written again. One strict pass checks the JSON, the shape and finds the spans. Equal in meaning to
 * ProduceBodyJson and ProduceBodyBinary of schemas.ts over JSON.parse of the body (a property test holds
 * that): of members of one name the last counts, even an earlier one of a wrong shape. Pure; any thread.
 */
import { isUtf8 } from 'node:buffer';
import { StreamHouseError } from '../../core/errors.ts';
import { RECORDS_PER_REQUEST_MAX } from '../../core/limits.ts';
import { decodeBase64 } from './base64.ts';
import { failJson, skipJsonSpace, skipJsonString, skipJsonValue } from './json-scan.ts';
import type { EmbeddedFormat } from './media-type.ts';

/** Records of one body: spans as in `RecordSpans`, and the partition each one asks for (-1: none). */
export interface ProduceBody {
  source: Uint8Array;
  spans: number[];
  partitions: number[];
  /** Whether any record asks for a partition. */
  partitionsGiven: boolean;
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const LOWER_N = 0x6e;

const OTHER = 0;
const KEY = 1;
const VALUE = 2;
const PARTITION = 3;
const RECORDS = 4;
type Member = typeof OTHER | typeof KEY | typeof VALUE | typeof PARTITION | typeof RECORDS;

const NAMES: readonly [Uint8Array, Member][] = [
  [Buffer.from('value'), VALUE],
  [Buffer.from('key'), KEY],
  [Buffer.from('partition'), PARTITION],
  [Buffer.from('records'), RECORDS],
];
const PARTITION_MAX = 2147483647;

/** Which member the name at bytes [start, end), quotes excluded, is. */
function memberOf(bytes: Uint8Array, start: number, end: number): Member {
  const length = end - start;
  names: for (const [name, member] of NAMES) {
    if (name.length !== length) continue;
    for (let i = 0; i < length; i++) if (bytes[start + i] !== name[i]) continue names;
    return member;
  }
  for (let i = start; i < end; i++) {
    if (bytes[i] !== 0x5c) continue;
    // Escapes in a name: rare enough to decode it the slow way.
    const name: string = JSON.parse(textOf(bytes, start - 1, end + 1));
    const plain = Buffer.from(name);
    return name.includes('\\') ? OTHER : memberOf(plain, 0, plain.length);
  }
  return OTHER;
}

function textOf(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('utf8');
}

/** One pass over one body. */
class Scan {
  readonly bytes: Uint8Array;
  readonly end: number;
  readonly format: EmbeddedFormat;
  at = 0;
  spans: number[] = [];
  partitions: number[] = [];
  partitionsGiven = false;
  /**
   * Shape errors found: of the records that count, and of anything else. The syntax is checked to the end
   * first.
   */
  recordsError: string | null = 'the body needs "records"';
  otherError: string | null = null;

  constructor(bytes: Uint8Array, format: EmbeddedFormat) {
    this.bytes = bytes;
    this.end = bytes.length;
    this.format = format;
  }

  /** Skips space and returns the byte there; -1 at the end. */
  peek(): number {
    this.at = skipJsonSpace(this.bytes, this.at, this.end);
    return this.at < this.end ? this.bytes[this.at] : -1;
  }

  fail(): never {
    return failJson(this.bytes, this.at, this.end);
  }

  skipValue(): void {
    this.at = skipJsonValue(this.bytes, this.at, this.end);
  }

  /** Reads a member's name and its colon; afterwards `at` is at the value. */
  name(): Member {
    if (this.peek() !== QUOTE) this.fail();
    const start = this.at + 1;
    this.at = skipJsonString(this.bytes, this.at, this.end);
    const member = memberOf(this.bytes, start, this.at - 1);
    if (member === OTHER) this.otherError ??= `unknown member ${this.shown(start - 1, this.at)}`;
    if (this.peek() !== COLON) this.fail();
    this.at++;
    this.peek();
    return member;
  }

  shown(start: number, end: number): string {
    const text = textOf(this.bytes, start, end);
    return text.length <= 60 ? text : `${text.slice(0, 60)}..."`;
  }

  /** After an element: true at a comma, false at `closer`. */
  more(closer: number): boolean {
    const c = this.peek();
    if (c !== COMMA && c !== closer) this.fail();
    this.at++;
    return c === COMMA;
  }

  body(): void {
    if (this.peek() !== 0x7b) {
      if (this.at < this.end) this.skipValue();
      else this.fail();
      this.recordsError = 'the body must be an object with "records"';
    } else {
      this.at++;
      if (this.peek() === 0x7d) this.at++;
      else {
        do {
          const member = this.name();
          if (member === RECORDS) this.records();
          else {
            if (member !== OTHER) this.otherError ??= 'only "records" may stand beside records';
            this.skipValue();
          }
        } while (this.more(0x7d));
      }
    }
    if (this.peek() !== -1) this.fail();
  }

  records(): void {
    this.spans = [];
    this.partitions = [];
    this.partitionsGiven = false;
    this.recordsError = null;
    if (this.peek() !== 0x5b) {
      this.recordsError = '"records" must be an array';
      this.skipValue();
      return;
    }
    this.at++;
    if (this.peek() === 0x5d) {
      this.at++;
      this.recordsError = '"records" must not be empty';
      return;
    }
    do {
      if (this.partitions.length === RECORDS_PER_REQUEST_MAX) {
        throw new StreamHouseError('batch-too-large', `more than ${RECORDS_PER_REQUEST_MAX} records`);
      }
      this.record();
    } while (this.more(0x5d));
  }

  wrong(what: string): void {
    this.recordsError ??= `records[${this.partitions.length}]${what}`;
  }

  record(): void {
    if (this.peek() !== 0x7b) {
      this.wrong(' must be an object');
      this.skipValue();
      this.add(-1, -1, -1, -1, -1);
      return;
    }
    this.at++;
    let keyStart = -1;
    let keyEnd = -1;
    let valueStart = -1;
    let valueEnd = -1;
    let partition = -1;
    let keyError: string | null = null;
    let valueError: string | null = null;
    let unknown: string | null = null;
    if (this.peek() === 0x7d) this.at++;
    else {
      do {
        const nameAt = this.at;
        const errorBefore = this.otherError;
        const member = this.name();
        const start = this.at;
        const first = start < this.end ? this.bytes[start] : -1;
        this.skipValue();
        if (member === VALUE) {
          valueStart = first === LOWER_N ? -1 : start;
          valueEnd = this.at;
          valueError = this.format === 'binary' && first !== LOWER_N && first !== QUOTE ? 'value' : null;
        } else if (member === KEY) {
          keyStart = first === LOWER_N ? -1 : start;
          keyEnd = this.at;
          keyError = this.format === 'binary' && first !== LOWER_N && first !== QUOTE ? 'key' : null;
        } else if (member === PARTITION) {
          partition = this.partitionAt(start, first);
        } else {
          // Inside records, an unknown member counts only if these records do.
          this.otherError = errorBefore;
          const nameEnd = skipJsonString(this.bytes, skipJsonSpace(this.bytes, nameAt, this.end), this.end);
          unknown ??= this.shown(skipJsonSpace(this.bytes, nameAt, this.end), nameEnd);
        }
      } while (this.more(0x7d));
    }
    if (unknown !== null) this.wrong(` has an unknown member ${unknown}`);
    if (partition === -2) this.wrong('.partition must be an integer from 0 to 2147483647');
    const notString = keyError ?? valueError;
    if (notString !== null) this.wrong(`.${notString} must be a string of base64, or null`);
    this.add(keyStart, keyEnd, valueStart, valueEnd, partition);
  }

  /** -1: null; -2: not a partition number. */
  partitionAt(start: number, first: number): number {
    if (first === LOWER_N) return -1;
    const value = Number(textOf(this.bytes, start, this.at));
    const isNumber = first === 0x2d || (first >= 0x30 && first <= 0x39);
    return isNumber && Number.isInteger(value) && value >= 0 && value <= PARTITION_MAX ? value | 0 : -2;
  }

  add(keyStart: number, keyEnd: number, valueStart: number, valueEnd: number, partition: number): void {
    this.spans.push(keyStart, keyEnd, valueStart, valueEnd);
    this.partitions.push(partition);
    if (partition >= 0) this.partitionsGiven = true;
  }
}

/**
 * Reads a produce body. The result refers to `bytes` (json) or to memory of its own (binary).
 * 'malformed-request' (not UTF-8, not JSON), 'invalid-request' (another shape, bad base64),
 * 'batch-too-large' (more than RECORDS_PER_REQUEST_MAX records).
 */
export function parseProduceBody(bytes: Uint8Array, format: EmbeddedFormat): ProduceBody {
  if (!isUtf8(bytes)) throw new StreamHouseError('malformed-request', 'the body is not valid UTF-8');
  const scan = new Scan(bytes, format);
  scan.body();
  const error = scan.otherError ?? scan.recordsError;
  if (error !== null) throw new StreamHouseError('invalid-request', error);
  const { spans, partitions, partitionsGiven } = scan;
  if (format === 'json') return { source: bytes, spans, partitions, partitionsGiven };
  return { source: decodeSpans(bytes, spans), spans, partitions, partitionsGiven };
}

/**
 * Decodes the base64 strings that the spans cover, quotes included, and turns the spans to the decoded bytes.
 */
function decodeSpans(bytes: Uint8Array, spans: number[]): Uint8Array {
  const out = new Uint8Array(Math.ceil((bytes.length * 3) / 4) + 3);
  let position = 0;
  for (let i = 0; i < spans.length; i += 2) {
    if (spans[i] < 0) continue;
    let text = bytes;
    let start = spans[i] + 1;
    let end = spans[i + 1] - 1;
    if (bytes.subarray(start, end).includes(0x5c)) {
      // Some encoders write '/' as '\/'.
      text = Buffer.from(JSON.parse(textOf(bytes, start - 1, end + 1)) as string);
      start = 0;
      end = text.length;
    }
    const after = decodeBase64(text, start, end, out, position);
    if (after < 0) {
      const member = i % 4 === 0 ? 'key' : 'value';
      throw new StreamHouseError('invalid-request', `records[${i >> 2}].${member} is not valid base64`);
    }
    spans[i] = position;
    spans[i + 1] = after;
    position = after;
  }
  return out;
}
