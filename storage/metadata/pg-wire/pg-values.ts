/**
 * Values on their way to and from a database of PostgreSQL's protocol. Owns: what a column of each type becomes, how
 * arrays are written, and text that holds U+0000, which PostgreSQL's text cannot. Does not own: any statement. Pure.
 *
 * Results come as text: the driver decodes every field as UTF-8 before it looks at the format, so that binary
 * results of it are damaged. Only bytes pay for that (two hex digits each).
 */
import { StreamHouseError } from '../../../src/core/errors.ts';

type Parser = (text: string) => unknown;

const PARSERS: Record<number, Parser> = {
  16: (text) => text === 't', // bool
  17: parseBytes, // bytea
  20: parseInteger, // int8
  21: parseInteger, // int2
  23: parseInteger, // int4
  25: (text) => text, // text
  1007: parseIntegers, // int4[]
  1016: parseIntegers, // int8[]
  1043: (text) => text, // varchar
};

/** For the driver's clients. A type that is not here is a bug of a statement's. */
export const PG_TYPES = {
  getTypeParser(oid: number, format: string): Parser {
    const parser = PARSERS[oid];
    if (!parser || format === 'binary') throw new Error(`no parser for columns of type ${oid} (${format})`);
    return parser;
  },
};

function parseInteger(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value)) return value;
  throw new StreamHouseError('corrupt-store', `the metadata store holds the number ${text}`);
}

function parseIntegers(text: string): number[] {
  return text === '{}' ? [] : text.slice(1, -1).split(',').map(parseInteger);
}

/** Own bytes: the array that they lie in holds nothing else, so that it may be moved to another thread. */
function parseBytes(text: string): Uint8Array {
  if (!text.startsWith('\\x')) {
    throw new StreamHouseError('invalid-setting', 'the metadata database must have bytea_output = hex');
  }
  const bytes = new Uint8Array((text.length - 2) / 2);
  const written = Buffer.from(bytes.buffer).write(text.slice(2), 'hex');
  if (written === bytes.length) return bytes;
  throw new StreamHouseError('corrupt-store', 'the metadata database sent bytes that are no hex');
}

/** Numbers as an array parameter. */
export function integerArray(numbers: readonly (number | null)[]): string {
  return `{${numbers.map((number) => number ?? 'NULL').join(',')}}`;
}

/** Many byte strings as one parameter, with the place of each (from 1, as SQL's substring counts). */
export function joinBytes(parts: readonly Uint8Array[]): {
  bytes: Buffer;
  positions: number[];
  lengths: number[];
} {
  const lengths = parts.map(({ length }) => length);
  const bytes = Buffer.allocUnsafe(lengths.reduce((sum, length) => sum + length, 0));
  let position = 0;
  const positions = parts.map((part) => {
    bytes.set(part, position);
    position += part.length;
    return position - part.length + 1;
  });
  return { bytes, positions, lengths };
}

/**
 * Any text as one without U+0000: U+0000 becomes U+0001 U+0001, and U+0001 becomes U+0001 U+0002. The order of bytes
 * stays what it was.
 */
export function escapeText(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: it is they that are escaped
  return text.replace(/[\u0000\u0001]/g, (character) =>
    character === '\u0000' ? '\u0001\u0001' : '\u0001\u0002',
  );
}

export function unescapeText(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: it is they that were escaped
  return text.replace(/\u0001([\u0001\u0002])/g, (_, second) => (second === '\u0001' ? '\u0000' : '\u0001'));
}

/** An identifier of SQL; 'invalid-setting' for one that is none. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
