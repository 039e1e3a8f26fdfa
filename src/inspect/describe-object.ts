/**
 * A batch object as plain data: header, directory, and its slices decoded as far as they can be. Owns: that
 * description; a slice that is damaged says so and the others are described all the same. Does not own: printing
 * nor where the bytes come from. Pure; main thread.
 */
import { type BatchObjectSlice, decodeBatchObject, verifySlice } from '../../storage/objects/batch-object.ts';
import { StreamHouseError } from '../core/errors.ts';
import {
  type BatchRecord,
  checkBatchCrc,
  compressionOf,
  readBatchHeader,
  readRecords,
} from '../core/record-batch.ts';

const COMPRESSIONS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'];

export interface DescribedBatch {
  /** In the object. */
  position: number;
  length: number;
  recordCount: number;
  baseTimestampMs: number;
  maxTimestampMs: number;
  compression: string;
  producerId: number;
  producerEpoch: number;
  baseSequence: number;
  crcOk: boolean;
  /** Offsets counted from the batch's first record. Null: compressed, or `fault` says why. */
  records: BatchRecord[] | null;
  fault: string | null;
}

export interface DescribedSlice extends BatchObjectSlice {
  crcOk: boolean;
  /** Only if asked for. */
  batches: DescribedBatch[] | null;
  /** What is wrong with the slice, in words; null: nothing that was looked at. */
  fault: string | null;
}

export interface DescribedObject {
  bytes: number;
  header: { incarnation: number; number: number };
  slices: DescribedSlice[];
}

/** 'corrupt-object' with the position if header, trailer or directory do not decode. */
export function describeObject(bytes: Buffer, withRecords: boolean): DescribedObject {
  const { header, slices } = decodeBatchObject(bytes);
  return {
    bytes: bytes.length,
    header,
    slices: slices.map((slice) => describeSlice(bytes, slice, withRecords)),
  };
}

function describeSlice(bytes: Buffer, slice: BatchObjectSlice, withRecords: boolean): DescribedSlice {
  const content = bytes.subarray(slice.position, slice.position + slice.length);
  const fault = faultOf(() => verifySlice(content, slice));
  const described: DescribedSlice = { ...slice, crcOk: fault === null, batches: null, fault };
  if (!withRecords) return described;
  const batches: DescribedBatch[] = [];
  described.batches = batches;
  const broken = faultOf(() => {
    for (let position = 0; position < content.length; ) {
      const batch = describeBatch(content, position, slice.position);
      batches.push(batch);
      position += batch.length;
    }
  });
  described.fault ??= broken;
  return described;
}

function describeBatch(content: Buffer, position: number, slicePosition: number): DescribedBatch {
  const header = readBatchHeader(content, position);
  const codec = compressionOf(header.attributes);
  const batch: DescribedBatch = {
    position: slicePosition + position,
    length: header.length,
    recordCount: header.recordCount,
    baseTimestampMs: header.baseTimestampMs,
    maxTimestampMs: header.maxTimestampMs,
    compression: COMPRESSIONS[codec] ?? `codec ${codec}`,
    producerId: header.producerId,
    producerEpoch: header.producerEpoch,
    baseSequence: header.baseSequence,
    crcOk: checkBatchCrc(content, header),
    records: null,
    fault: null,
  };
  if (codec !== 0) return batch;
  const records: BatchRecord[] = [];
  batch.fault = faultOf(() => {
    readRecords(content, position, (record) =>
      records.push({ ...record, offset: record.offset - header.baseOffset }),
    );
  });
  if (batch.fault === null) batch.records = records;
  return batch;
}

function faultOf(attempt: () => void): string | null {
  try {
    attempt();
    return null;
  } catch (error) {
    if (!(error instanceof StreamHouseError)) throw error;
    return `${error.code}: ${error.message}`;
  }
}
