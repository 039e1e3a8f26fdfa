/**
 * Made-up input for suites: produce messages as the main thread packs them, entries as the batching worker logs
 * them. Owns: making them, the same every time. Pure.
 */
import { blankAppendHeader, PRODUCE_HEADER_BYTES, writeAppendHeader } from '../workers/append-codec.ts';
import type { EntrySlice, SlicesEntry } from '../workers/entry-codec.ts';

export const TOPIC_ID = 7;
export const WALL_MS = 1_767_225_600_000;

export interface ProduceShape {
  partitions: number;
  /** Appends of each partition; they come round robin over the partitions. */
  appendsEach: number;
  recordsPerAppend: number;
  valueBytes: number;
  /** Whether each append bears an idempotent producer's stamp, one producer per partition. */
  idempotent?: boolean;
}

/** A message of appends for a lane, values only. */
export function produceMessage(shape: ProduceShape): Uint8Array<ArrayBuffer> {
  const { partitions, appendsEach, recordsPerAppend, valueBytes, idempotent = false } = shape;
  const dataBytes = recordsPerAppend * valueBytes;
  const appendBytes = PRODUCE_HEADER_BYTES + recordsPerAppend * 8 + dataBytes;
  const count = partitions * appendsEach;
  const bytes = new Uint8Array(count * appendBytes);
  const out = Buffer.from(bytes.buffer);
  const header = blankAppendHeader();
  for (let i = 0; i < count; i++) {
    const at = i * appendBytes;
    header.slot = i;
    header.topicId = TOPIC_ID;
    header.partition = i % partitions;
    header.recordCount = recordsPerAppend;
    header.dataBytes = dataBytes;
    if (idempotent) {
      header.producerId = 1000 + header.partition;
      header.producerEpoch = 0;
      header.baseSequence = Math.floor(i / partitions) * recordsPerAppend;
    }
    writeAppendHeader(out, at, header);
    let position = at + PRODUCE_HEADER_BYTES;
    for (let r = 0; r < recordsPerAppend; r++, position += 8) {
      out.writeInt32LE(-1, position);
      out.writeInt32LE(valueBytes, position + 4);
    }
    out.fill(97 + (i % 26), position, position + dataBytes);
  }
  return bytes;
}

/** Slices of one object, one for each of these partitions, each of one 80-byte record at offset `baseOffset`. */
export function sliceBody(
  objectNumber: number,
  partitions: readonly number[],
  baseOffset: number,
): SlicesEntry {
  const slices: EntrySlice[] = partitions.map((partition, i) => ({
    topicId: TOPIC_ID,
    partition,
    objectIndex: 0,
    baseOffset,
    recordCount: 1,
    position: 24 + i * 80,
    length: 80,
    maxTimestampMs: WALL_MS - (i % 100),
  }));
  return { kind: 'slices', objects: [{ incarnation: 3, number: objectNumber }], slices, producerBatches: [] };
}

/** 0 to count - 1. */
export function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}
