/**
 * The records of the simulation: each value is a unique text. Owns: packing produce messages of them as the main
 * thread does, and reading them back out of record batches. Pure; the simulation's only thread.
 */
import { type ProducerStamp, readBatchHeader, readRecords } from '../../src/core/record-batch.ts';
import { PRODUCE_HEADER_BYTES, writeAppendHeader } from '../../workers/append-codec.ts';

export interface SimAppend {
  slot: number;
  generation: number;
  topicId: number;
  partition: number;
  producer: ProducerStamp | null;
  payloads: readonly string[];
}

/** A produce message (append-codec) of these appends. */
export function packProduce(appends: readonly SimAppend[]): Uint8Array {
  const chunks: Buffer[] = [];
  for (const append of appends) {
    const values = append.payloads.map((payload) => Buffer.from(payload));
    const header = Buffer.alloc(PRODUCE_HEADER_BYTES + values.length * 8);
    writeAppendHeader(header, 0, {
      ...append,
      recordCount: values.length,
      dataBytes: values.reduce((sum, value) => sum + value.length, 0),
      producerId: append.producer?.producerId ?? -1,
      producerEpoch: append.producer?.producerEpoch ?? -1,
      baseSequence: append.producer?.baseSequence ?? -1,
    });
    values.forEach((value, i) => {
      header.writeInt32LE(-1, PRODUCE_HEADER_BYTES + i * 8);
      header.writeInt32LE(value.length, PRODUCE_HEADER_BYTES + i * 8 + 4);
    });
    chunks.push(header, ...values);
  }
  return new Uint8Array(Buffer.concat(chunks));
}

/** All records of batches that lie one after the other, with the offsets they bear. */
export function recordsOf(bytes: Buffer): { offset: number; payload: string }[] {
  const records: { offset: number; payload: string }[] = [];
  for (let at = 0; at < bytes.length; ) {
    const header = readBatchHeader(bytes, at);
    readRecords(bytes, at, ({ offset, value }) => {
      records.push({ offset, payload: String(value) });
    });
    at += header.length;
  }
  return records;
}

export function payloadsOf(bytes: Buffer): string[] {
  return recordsOf(bytes).map(({ payload }) => payload);
}
