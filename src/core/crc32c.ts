/**
 * CRC-32C (Castagnoli, RFC 3720 appendix B.4), the checksum of Kafka record batches and of all our formats.
 * Slicing by eight: eight table look-ups per eight bytes. Pure; any thread.
 */

const POLYNOMIAL = 0x82f63b78;

/** Eight tables of 256 entries, one after the other. */
const TABLES = new Uint32Array(8 * 256);
for (let i = 0; i < 256; i++) {
  let crc = i;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
  TABLES[i] = crc >>> 0;
}
for (let i = 0; i < 256; i++) {
  for (let table = 1; table < 8; table++) {
    const before = TABLES[(table - 1) * 256 + i];
    TABLES[table * 256 + i] = (before >>> 8) ^ TABLES[before & 0xff];
  }
}

/**
 * The CRC-32C of bytes [start, end), as an unsigned 32-bit number. `seed` is the CRC of what came before, so
 * that a checksum can be taken in parts.
 */
export function crc32c(bytes: Uint8Array, start = 0, end = bytes.length, seed = 0): number {
  const t = TABLES;
  let crc = ~seed;
  let i = start;
  for (const last = end - 7; i < last; i += 8) {
    crc ^= bytes[i] | (bytes[i + 1] << 8) | (bytes[i + 2] << 16) | (bytes[i + 3] << 24);
    crc =
      t[1792 + (crc & 0xff)] ^
      t[1536 + ((crc >>> 8) & 0xff)] ^
      t[1280 + ((crc >>> 16) & 0xff)] ^
      t[1024 + (crc >>> 24)] ^
      t[768 + bytes[i + 4]] ^
      t[512 + bytes[i + 5]] ^
      t[256 + bytes[i + 6]] ^
      t[bytes[i + 7]];
  }
  for (; i < end; i++) crc = (crc >>> 8) ^ t[(crc ^ bytes[i]) & 0xff];
  return ~crc >>> 0;
}
