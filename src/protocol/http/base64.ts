/**
 * Strict base64 (RFC 4648 section 4): the standard alphabet, padded, no white space, no stray bits in the
 * last character, so that every text has one meaning. Node's own decoder skips what it does not know. Pure;
 * any thread.
 */

/** Value of each byte as a base64 character; 255: none. */
const VALUES = new Uint8Array(256).fill(255);
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
for (let i = 0; i < ALPHABET.length; i++) VALUES[ALPHABET.charCodeAt(i)] = i;
const PAD = 0x3d;

/**
 * Decodes the text at bytes [start, end) of `text` into `out` from `at` on (which needs 3 bytes of room for
 * every 4 of text) and returns the position after it; -1 if it is not base64.
 */
export function decodeBase64(
  text: Uint8Array,
  start: number,
  end: number,
  out: Uint8Array,
  at: number,
): number {
  const length = end - start;
  if (length === 0) return at;
  if (length % 4 !== 0) return -1;
  let position = at;
  const last = end - 4;
  for (let i = start; i < last; i += 4) {
    const a = VALUES[text[i]];
    const b = VALUES[text[i + 1]];
    const c = VALUES[text[i + 2]];
    const d = VALUES[text[i + 3]];
    if ((a | b | c | d) > 63) return -1;
    out[position++] = (a << 2) | (b >> 4);
    out[position++] = ((b & 15) << 4) | (c >> 2);
    out[position++] = ((c & 3) << 6) | d;
  }
  const a = VALUES[text[last]];
  const b = VALUES[text[last + 1]];
  if ((a | b) > 63) return -1;
  out[position++] = (a << 2) | (b >> 4);
  if (text[last + 2] === PAD) return text[last + 3] === PAD && (b & 15) === 0 ? position : -1;
  const c = VALUES[text[last + 2]];
  if (c > 63) return -1;
  out[position++] = ((b & 15) << 4) | (c >> 2);
  if (text[last + 3] === PAD) return (c & 3) === 0 ? position : -1;
  const d = VALUES[text[last + 3]];
  if (d > 63) return -1;
  out[position++] = ((c & 3) << 6) | d;
  return position;
}
