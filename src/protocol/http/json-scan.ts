/**
 * A strict scanner of JSON text as bytes (RFC 8259): where a value ends, without building it. Owns: the
 * grammar and its depth limit. Does not own: what any member means, nor whether the bytes are UTF-8 (check
 * the whole text with `isUtf8` first: here bytes of 0x80 and above are only let through inside strings).
 * Pure; any thread.
 *
 * It accepts exactly what JSON.parse accepts (a property test holds that), except nesting beyond
 * JSON_DEPTH_MAX.
 */
import { isUtf8 } from 'node:buffer';
import { StreamHouseError } from '../../core/errors.ts';

/**
 * Arrays and objects inside one another; more is refused, so that no reader of ours or of a user overflows.
 */
export const JSON_DEPTH_MAX = 512;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** The closing byte of each open container, innermost last. Used by one synchronous call at a time. */
const closers = new Uint8Array(JSON_DEPTH_MAX);

/** Throws 'malformed-request', naming the byte. */
export function failJson(bytes: Uint8Array, at: number, end: number): never {
  if (at >= end) throw new StreamHouseError('malformed-request', `not JSON: the text ends at byte ${end}`);
  const byte = bytes[at];
  const shown =
    byte > 0x20 && byte < 0x7f ? `'${String.fromCharCode(byte)}'` : `0x${byte.toString(16).padStart(2, '0')}`;
  throw new StreamHouseError('malformed-request', `not JSON: unexpected ${shown} at byte ${at}`);
}

/** Position of the first byte from `at` that is not JSON white space; `end` if there is none. */
export function skipJsonSpace(bytes: Uint8Array, at: number, end: number): number {
  let position = at;
  while (position < end) {
    const c = bytes[position];
    if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return position;
    position++;
  }
  return position;
}

function isHex(c: number): boolean {
  return (c >= 0x30 && c <= 0x39) || (c >= 0x41 && c <= 0x46) || (c >= 0x61 && c <= 0x66);
}

function isDigit(c: number): boolean {
  return c >= 0x30 && c <= 0x39;
}

/** Position after the string whose opening quote is at `at`. */
export function skipJsonString(bytes: Uint8Array, at: number, end: number): number {
  let position = at + 1;
  while (position < end) {
    const c = bytes[position];
    if (c === QUOTE) return position + 1;
    if (c < 0x20) return failJson(bytes, position, end);
    if (c !== BACKSLASH) {
      position++;
      continue;
    }
    const escaped = position + 1 < end ? bytes[position + 1] : -1;
    switch (escaped) {
      case 0x22: // "
      case 0x5c: // \
      case 0x2f: // /
      case 0x62: // b
      case 0x66: // f
      case 0x6e: // n
      case 0x72: // r
      case 0x74: // t
        position += 2;
        break;
      case 0x75: // u
        for (let i = position + 2; i < position + 6; i++) {
          if (i >= end || !isHex(bytes[i])) return failJson(bytes, i, end);
        }
        position += 6;
        break;
      default:
        return failJson(bytes, position + 1, end);
    }
  }
  return failJson(bytes, end, end);
}

function skipDigits(bytes: Uint8Array, at: number, end: number): number {
  let position = at;
  while (position < end && isDigit(bytes[position])) position++;
  if (position === at) return failJson(bytes, at, end);
  return position;
}

/** Position after the number that starts at `at`. */
function skipNumber(bytes: Uint8Array, at: number, end: number): number {
  let position = bytes[at] === 0x2d ? at + 1 : at;
  if (position < end && bytes[position] === 0x30) position++;
  else position = skipDigits(bytes, position, end);
  if (position < end && bytes[position] === 0x2e) position = skipDigits(bytes, position + 1, end);
  if (position < end && (bytes[position] | 0x20) === 0x65) {
    position++;
    if (position < end && (bytes[position] === 0x2b || bytes[position] === 0x2d)) position++;
    position = skipDigits(bytes, position, end);
  }
  return position;
}

const TRUE = Buffer.from('true');
const FALSE = Buffer.from('false');
const NULL = Buffer.from('null');

function skipLiteral(bytes: Uint8Array, at: number, end: number): number {
  const word = bytes[at] === 0x74 ? TRUE : bytes[at] === 0x66 ? FALSE : NULL;
  for (let i = 0; i < word.length; i++) {
    if (at + i >= end || bytes[at + i] !== word[i]) return failJson(bytes, at + i, end);
  }
  return at + word.length;
}

/** Position of the value of the member whose name's opening quote should be at `at`. */
function skipMemberName(bytes: Uint8Array, at: number, end: number): number {
  if (at >= end || bytes[at] !== QUOTE) return failJson(bytes, at, end);
  const colon = skipJsonSpace(bytes, skipJsonString(bytes, at, end), end);
  if (colon >= end || bytes[colon] !== COLON) return failJson(bytes, colon, end);
  return skipJsonSpace(bytes, colon + 1, end);
}

/**
 * Position after the JSON value that starts at `at` (a byte that is not white space), checking all of it.
 * 'malformed-request' if there is none.
 */
export function skipJsonValue(bytes: Uint8Array, at: number, end: number): number {
  let position = at;
  let depth = 0;
  for (;;) {
    const c = position < end ? bytes[position] : -1;
    if (c === QUOTE) position = skipJsonString(bytes, position, end);
    else if (c === OPEN_BRACE || c === OPEN_BRACKET) {
      const closer = c === OPEN_BRACE ? CLOSE_BRACE : CLOSE_BRACKET;
      if (depth === JSON_DEPTH_MAX) throw tooDeep(position);
      position = skipJsonSpace(bytes, position + 1, end);
      if (position >= end || bytes[position] !== closer) {
        closers[depth++] = closer;
        if (closer === CLOSE_BRACE) position = skipMemberName(bytes, position, end);
        continue;
      }
      position++;
    } else if (c === 0x2d || isDigit(c)) position = skipNumber(bytes, position, end);
    else position = skipLiteral(bytes, position, end);
    // A value has ended: close what closes after it, or go on behind a comma.
    for (;;) {
      if (depth === 0) return position;
      position = skipJsonSpace(bytes, position, end);
      const next = position < end ? bytes[position] : -1;
      if (next === COMMA) {
        position = skipJsonSpace(bytes, position + 1, end);
        if (closers[depth - 1] === CLOSE_BRACE) position = skipMemberName(bytes, position, end);
        break;
      }
      if (next !== closers[depth - 1]) return failJson(bytes, position, end);
      depth--;
      position++;
    }
  }
}

function tooDeep(position: number): StreamHouseError {
  return new StreamHouseError(
    'malformed-request',
    `nested deeper than ${JSON_DEPTH_MAX} arrays and objects at byte ${position}`,
  );
}

/** Whether these bytes are one JSON text in UTF-8, and so may stand verbatim inside another. */
export function isJsonText(bytes: Uint8Array): boolean {
  if (!isUtf8(bytes)) return false;
  const start = skipJsonSpace(bytes, 0, bytes.length);
  try {
    const end = skipJsonValue(bytes, start, bytes.length);
    return skipJsonSpace(bytes, end, bytes.length) === bytes.length;
  } catch (error) {
    if (error instanceof StreamHouseError) return false;
    throw error;
  }
}
