/**
 * A record's value: a JSON text that says which record of which run it is, and that shows any change. Owns: the
 * form. Pure.
 *
 *   "NNNNNNCC" and padding   48 bits as eight characters of base64url: the record's number (32), a check (16) over
 *                            number, partition and seed; the padding follows from the number
 */

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const CODES = new Int8Array(128).fill(-1);
for (let i = 0; i < 64; i++) CODES[ALPHABET.charCodeAt(i)] = i;

const HEAD_CHARACTERS = 8;
const QUOTES = 2;

/** Pairs of characters for 12 bits at a time. */
const PAIRS = Array.from({ length: 4096 }, (_, i) => ALPHABET[i >> 6] + ALPHABET[i & 63]);

function checkOf(number: number, partition: number, seed: number): number {
  let h =
    Math.imul(number ^ 0x9e3779b9, 0x85ebca6b) ^
    Math.imul(partition + 1, 0xc2b2ae35) ^
    Math.imul(seed, 0x27d4eb2f);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  return (h ^ (h >>> 13)) & 0xffff;
}

export class RecordValues {
  readonly #seed: number;
  readonly #paddingCharacters: number;
  readonly #padding: string;

  /** `valueBytes` counts the quotes in; at least VALUE_BYTES_MIN. */
  constructor(seed: number, valueBytes: number) {
    this.#seed = seed;
    this.#paddingCharacters = valueBytes - QUOTES - HEAD_CHARACTERS;
    this.#padding = ALPHABET.repeat(Math.ceil(Math.max(0, this.#paddingCharacters) / 64) + 1);
  }

  /** The text without its quotes; it needs no escaping. */
  textOf(number: number, partition: number): string {
    const check = checkOf(number, partition, this.#seed);
    const head =
      PAIRS[number >>> 20] +
      PAIRS[(number >>> 8) & 0xfff] +
      PAIRS[((number & 0xff) << 4) | (check >> 12)] +
      PAIRS[check & 0xfff];
    return this.#paddingCharacters === 0 ? head : head + this.#paddingOf(number);
  }

  /** The number of the record that a value, as it was read from `partition`, is; null if it is none of this run's. */
  numberOf(value: unknown, partition: number): number | null {
    if (typeof value !== 'string' || value.length !== HEAD_CHARACTERS + this.#paddingCharacters) return null;
    let high = 0;
    let low = 0;
    for (let i = 0; i < HEAD_CHARACTERS; i++) {
      const code = value.charCodeAt(i);
      const bits = code < 128 ? CODES[code] : -1;
      if (bits < 0) return null;
      if (i < 4) high = (high << 6) | bits;
      else low = (low << 6) | bits;
    }
    const number = ((high << 8) | (low >> 16)) >>> 0;
    if ((low & 0xffff) !== checkOf(number, partition, this.#seed)) return null;
    if (this.#paddingCharacters > 0 && value.slice(HEAD_CHARACTERS) !== this.#paddingOf(number)) return null;
    return number;
  }

  #paddingOf(number: number): string {
    const from = number & 63;
    return this.#padding.slice(from, from + this.#paddingCharacters);
  }
}
