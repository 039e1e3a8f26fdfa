/**
 * From a slice as it is stored to the record batches that a reader gets: every batch is checked, the offsets that
 * the log gave are patched in. Owns: that walk. Does not own: where slices come from. Pure; a lane's thread.
 */
import { StreamHouseError } from '../src/core/errors.ts';
import { checkBatchCrc, patchBatch, readBatchHeader } from '../src/core/record-batch.ts';

/** A batch in a slice's bytes, and the offset of its first record. */
export interface PlacedBatch {
  bytes: Buffer;
  position: number;
  length: number;
  baseOffset: number;
  recordCount: number;
  maxTimestampMs: number;
  attributes: number;
}

/**
 * The batches of a slice that covers offsets [baseOffset, nextOffset): their lengths must fill it, their counts
 * add up, their checksums fit. 'corrupt-object' otherwise: nothing of a damaged slice is ever returned.
 */
export function batchesOfSlice(slice: Buffer, baseOffset: number, nextOffset: number): PlacedBatch[] {
  const batches: PlacedBatch[] = [];
  let position = 0;
  let offset = baseOffset;
  while (position < slice.length) {
    let header: ReturnType<typeof readBatchHeader>;
    try {
      header = readBatchHeader(slice, position);
    } catch (error) {
      throw damaged(baseOffset, error instanceof Error ? error.message : String(error));
    }
    if (!checkBatchCrc(slice, header)) throw damaged(baseOffset, `checksum mismatch at byte ${position}`);
    const { length, recordCount, maxTimestampMs, attributes } = header;
    batches.push({
      bytes: slice,
      position,
      length,
      baseOffset: offset,
      recordCount,
      maxTimestampMs,
      attributes,
    });
    position += length;
    offset += recordCount;
  }
  if (offset !== nextOffset) {
    throw damaged(
      baseOffset,
      `it holds ${offset - baseOffset} records, the log says ${nextOffset - baseOffset}`,
    );
  }
  return batches;
}

function damaged(baseOffset: number, what: string): StreamHouseError {
  return new StreamHouseError('corrupt-object', `the slice at offset ${baseOffset}: ${what}`, { baseOffset });
}

/** Copies batches one after the other to `at`, gives them their offsets, and returns the position after them. */
export function copyBatches(
  batches: readonly PlacedBatch[],
  out: Buffer,
  at: number,
  leaderEpoch: number,
): number {
  let position = at;
  for (const batch of batches) {
    batch.bytes.copy(out, position, batch.position, batch.position + batch.length);
    patchBatch(out, position, batch.baseOffset, leaderEpoch);
    position += batch.length;
  }
  return position;
}
