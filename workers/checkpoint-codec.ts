/**
 * A shard's checkpoint: its state folded through one entry, as bytes. Owns: the layout of checkpoint version 1.
 * Does not own: when one is made (shard-holder) or what the state means (shard-state). Pure; any thread.
 *
 *   'SHCK' | u8 version = 1 | varint shard | varint seq | varint epoch | varint timeMs
 *   partitions: varint count, then, by topic and partition, each:
 *     varint topicId less the one before | varint partition (less the one before within a topic, else plain)
 *     varint logStart | varint nextOffset less logStart | varint nextOffset less pageBase | varint pageRefs
 *     zigzag maxTimestampMs
 *   producers: varint count, then, least recently used first, each:
 *     varint topicId | varint partition | varint producerId | varint producerEpoch | varint lastTimeMs
 *     u8 batch count, then (varint baseSequence, varint recordCount, varint baseOffset)*
 *   deleted topics: varint count, then (varint topicId, varint timeMs)*
 *   u32 CRC-32C of everything before it
 */
import type { PartitionFold } from '../index/page-fold.ts';
import { ByteReader, ByteWriter } from '../src/core/bytes.ts';
import { crc32c } from '../src/core/crc32c.ts';
import { StreamHouseError } from '../src/core/errors.ts';
import { partitionKey, partitionOfKey, topicIdOfKey } from '../src/core/ids.ts';
import { PRODUCER_BATCHES_MAX, type ProducerBatch, ShardState } from './shard-state.ts';

const MAGIC = 0x5348434b;
export const CHECKPOINT_VERSION = 1;

/** Encodes the state as it is now; the same state gives the same bytes. */
export function encodeCheckpoint(state: ShardState): Uint8Array {
  const out = new ByteWriter(64 + state.partitions.size * 16 + state.producers.size * 40);
  out.u32(MAGIC).u8(CHECKPOINT_VERSION);
  out.varint(state.shard).varint(state.seq).varint(state.epoch).varint(state.timeMs);
  const folds = [...state.partitions.values()].sort(
    (a, b) => a.topicId - b.topicId || a.partition - b.partition,
  );
  out.varint(folds.length);
  let topicId = 0;
  let partition = 0;
  for (const fold of folds) {
    if (fold.topicId !== topicId) partition = 0;
    out.varint(fold.topicId - topicId).varint(fold.partition - partition);
    topicId = fold.topicId;
    partition = fold.partition;
    out.varint(fold.logStart).varint(fold.nextOffset - fold.logStart);
    out
      .varint(fold.nextOffset - fold.pageBase)
      .varint(fold.pageRefs)
      .zigzag(fold.maxTimestampMs);
  }
  out.varint(state.producers.size);
  for (const producer of state.producers.values()) {
    out.varint(topicIdOfKey(producer.partitionKey)).varint(partitionOfKey(producer.partitionKey));
    out.varint(producer.producerId).varint(producer.producerEpoch).varint(producer.lastTimeMs);
    out.u8(producer.batches.length);
    for (const batch of producer.batches) {
      out.varint(batch.baseSequence).varint(batch.recordCount).varint(batch.baseOffset);
    }
  }
  out.varint(state.deletedTopics.size);
  for (const [deletedId, timeMs] of state.deletedTopics) out.varint(deletedId).varint(timeMs);
  out.u32(crc32c(out.view()));
  return out.take();
}

/** Decodes a checkpoint of `shard`. 'corrupt-checkpoint'. */
export function decodeCheckpoint(bytes: Uint8Array, shard: number): ShardState {
  const end = bytes.length - 4;
  if (end < 9) throw new StreamHouseError('corrupt-checkpoint', `a checkpoint of ${bytes.length} bytes`);
  const reader = new ByteReader(bytes, 'corrupt-checkpoint', 0, end);
  if (crc32c(bytes, 0, end) !== new ByteReader(bytes, 'corrupt-checkpoint', end).u32()) {
    reader.fail('checksum mismatch');
  }
  if (reader.u32() !== MAGIC) reader.fail('not a checkpoint');
  const version = reader.u8();
  if (version !== CHECKPOINT_VERSION) reader.fail(`checkpoint version ${version}`);
  if (reader.varint() !== shard) reader.fail(`a checkpoint of another shard than ${shard}`);
  const state = new ShardState(shard);
  state.seq = reader.varint();
  state.epoch = reader.varint();
  state.timeMs = reader.varint();
  readPartitions(reader, state);
  readProducers(reader, state);
  for (let left = reader.count(2); left > 0; left--)
    state.deletedTopics.set(reader.varint(), reader.varint());
  reader.end();
  return state;
}

function readPartitions(reader: ByteReader, state: ShardState): void {
  let topicId = 0;
  let partition = 0;
  for (let left = reader.count(7); left > 0; left--) {
    const topicDelta = reader.varint();
    if (topicDelta > 0) partition = 0;
    topicId += topicDelta;
    partition += reader.varint();
    const logStart = reader.varint();
    const nextOffset = logStart + reader.varint();
    const pageBase = nextOffset - reader.varint();
    if (pageBase < 0) reader.fail(`a page base of ${pageBase}`);
    const fold: PartitionFold = {
      topicId,
      partition,
      logStart,
      nextOffset,
      pageBase,
      pageRefs: reader.varint(),
      maxTimestampMs: reader.zigzag(),
    };
    state.partitions.set(partitionKey(topicId, partition), fold);
  }
}

function readProducers(reader: ByteReader, state: ShardState): void {
  for (let left = reader.count(6); left > 0; left--) {
    const key = partitionKey(reader.varint(), reader.varint());
    const producerId = reader.varint();
    const producerEpoch = reader.varint();
    const lastTimeMs = reader.varint();
    const batches: ProducerBatch[] = [];
    const batchCount = reader.u8();
    if (batchCount < 1 || batchCount > PRODUCER_BATCHES_MAX)
      reader.fail(`a producer with ${batchCount} batches`);
    for (let i = 0; i < batchCount; i++) {
      batches.push({
        baseSequence: reader.varint(),
        recordCount: reader.varint(),
        baseOffset: reader.varint(),
      });
    }
    state.producers.set(`${key}/${producerId}`, {
      partitionKey: key,
      producerId,
      producerEpoch,
      lastTimeMs,
      batches,
    });
  }
}
