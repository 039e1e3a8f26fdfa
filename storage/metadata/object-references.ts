/**
 * The packed form of an object row's references, for backends that keep one row per object. Owns: the codec.
 * Bytes come from a database: what does not decode is 'corrupt-store'. Pure; any thread.
 *
 *   u8 version = 1 | varint count | count x (varint shard, varint epoch)
 */
import { ByteReader, ByteWriter } from '../../src/core/bytes.ts';
import type { ObjectShard } from './metadata-store.ts';

const VERSION = 1;

export function encodeReferences(shards: readonly ObjectShard[]): Uint8Array {
  const writer = new ByteWriter(2 + shards.length * 4);
  writer.u8(VERSION).varint(shards.length);
  for (const { shard, epoch } of shards) writer.varint(shard).varint(epoch);
  return writer.take();
}

export function decodeReferences(bytes: Uint8Array): ObjectShard[] {
  const reader = new ByteReader(bytes, 'corrupt-store');
  const version = reader.u8();
  if (version !== VERSION) reader.fail(`an object row's references of version ${version}`);
  const shards: ObjectShard[] = [];
  for (let left = reader.count(2); left > 0; left--) {
    shards.push({ shard: reader.varint(), epoch: reader.varint() });
  }
  reader.end();
  return shards;
}
