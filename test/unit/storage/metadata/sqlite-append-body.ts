/** What sqlite-append-child writes, so that its parent can tell whether it reads the same. */

export const CHILD_SHARDS = 4;

/** 5 to 25 KB that depend on shard and seq. */
export function appendedBody(shard: number, seq: number): Uint8Array {
  const bytes = new Uint8Array(5000 + ((seq * 7919 + shard * 104_729) % 20_000));
  for (let i = 0; i < bytes.length; i += 16) bytes[i] = (seq * 31 + shard * 7 + i) & 0xff;
  return bytes;
}
