/**
 * Builds whole batch objects from slice bytes, for tests of the format. Owns nothing of the format itself: it
 * lays header, slices and tail one after the other as a builder does.
 */
import { crc32c } from '../../src/core/crc32c.ts';
import {
  BATCH_OBJECT_HEADER_BYTES,
  type BatchObjectHeader,
  type BatchObjectSlice,
  encodeHeader,
  encodeTail,
} from '../../storage/objects/batch-object.ts';

export interface SampleSlice {
  readonly topicId: number;
  readonly partition: number;
  readonly bytes: Uint8Array;
  readonly recordCount?: number;
  readonly minTimestampMs?: number;
  readonly maxTimestampMs?: number;
  /** Unused bytes before the slice. */
  readonly gapBytes?: number;
}

export interface SampleObject {
  readonly bytes: Buffer;
  readonly slices: BatchObjectSlice[];
}

export function buildSampleObject(header: BatchObjectHeader, samples: readonly SampleSlice[]): SampleObject {
  const pieces: Uint8Array[] = [encodeHeader(header)];
  let position = BATCH_OBJECT_HEADER_BYTES;
  const slices = samples.map((sample): BatchObjectSlice => {
    pieces.push(new Uint8Array(sample.gapBytes ?? 0), sample.bytes);
    position += sample.gapBytes ?? 0;
    const minTimestampMs = sample.minTimestampMs ?? 1_700_000_000_000;
    const slice = {
      topicId: sample.topicId,
      partition: sample.partition,
      position,
      length: sample.bytes.length,
      recordCount: sample.recordCount ?? 1,
      minTimestampMs,
      maxTimestampMs: sample.maxTimestampMs ?? minTimestampMs,
      crc: crc32c(sample.bytes),
    };
    position += sample.bytes.length;
    return slice;
  });
  pieces.push(encodeTail(header, slices, position));
  return { bytes: Buffer.concat(pieces), slices };
}
