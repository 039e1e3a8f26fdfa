/**
 * A lane's part of producing: from the main thread's packed appends to packed record batches for the batching
 * worker. Owns: that transformation. Does not own: admission and sizes (route/ checked them). Pure; a lane's
 * thread.
 */
import { batchBytes, type ProducerStamp, writeBatch } from '../src/core/record-batch.ts';
import {
  APPEND_HEADER_BYTES,
  blankAppendHeader,
  bufferOver,
  PRODUCE_HEADER_BYTES,
  readAppendHeader,
  writeAppendHeader,
} from './append-codec.ts';

export interface BuiltAppends {
  /** Appends in the layout for the batching worker, in memory that can be moved. */
  bytes: Uint8Array<ArrayBuffer>;
  count: number;
  /** Bytes of the record batches alone. */
  batchBytes: number;
}

/** Spans of all records of a message, four numbers each; kept between calls. */
const spans: number[] = [];

/** Packs every append of a produce message into one record batch with this wall time as its timestamp. */
export function buildAppends(message: Uint8Array, wallMs: number): BuiltAppends {
  const source = bufferOver(message);
  const header = blankAppendHeader();
  const records = { source, spans };
  let total = 0;
  let recordCount = 0;
  let count = 0;
  for (let at = 0; at < source.length; count++) {
    readAppendHeader(source, at, header);
    at = readSpans(source, at + PRODUCE_HEADER_BYTES, header.recordCount, recordCount);
    total += APPEND_HEADER_BYTES + batchBytes(records, recordCount, recordCount + header.recordCount);
    recordCount += header.recordCount;
  }
  const bytes = new Uint8Array(total);
  const out = bufferOver(bytes) as Buffer;
  let position = 0;
  let record = 0;
  for (let at = 0; at < source.length; ) {
    readAppendHeader(source, at, header);
    at += PRODUCE_HEADER_BYTES + header.recordCount * 8 + header.dataBytes;
    const producer: ProducerStamp | null = header.producerId < 0 ? null : header;
    const batchAt = position + APPEND_HEADER_BYTES;
    const end = writeBatch(out, batchAt, records, record, record + header.recordCount, wallMs, producer);
    header.dataBytes = end - batchAt;
    writeAppendHeader(out, position, header);
    out.writeDoubleLE(wallMs, position + 48);
    out.writeDoubleLE(wallMs, position + 56);
    record += header.recordCount;
    position = end;
  }
  return { bytes, count, batchBytes: total - count * APPEND_HEADER_BYTES };
}

/** Turns an append's lengths at `at` into spans from record `first` on; returns the position after its data. */
function readSpans(source: Buffer, at: number, recordCount: number, first: number): number {
  let data = at + recordCount * 8;
  for (let i = 0; i < recordCount; i++) {
    const keyBytes = source.readInt32LE(at + i * 8);
    const valueBytes = source.readInt32LE(at + i * 8 + 4);
    const s = (first + i) * 4;
    spans[s] = keyBytes < 0 ? -1 : data;
    if (keyBytes > 0) data += keyBytes;
    spans[s + 1] = keyBytes < 0 ? -1 : data;
    spans[s + 2] = valueBytes < 0 ? -1 : data;
    if (valueBytes > 0) data += valueBytes;
    spans[s + 3] = valueBytes < 0 ? -1 : data;
  }
  return data;
}
