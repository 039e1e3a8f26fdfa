/**
 * Benchmarks of the codecs of everything that is stored: entries, pages, checkpoints, record batches, an object's
 * directory, and CRC-32C. Entries and directories beside JSON of the same content, CRC-32C beside the plain loop
 * over one table. One thread.
 */
import { decodePage, encodePage } from '../../index/page-codec.ts';
import { blankRefs, packRef } from '../../index/segment-ref.ts';
import { crc32c } from '../../src/core/crc32c.ts';
import { batchBytes, readRecords, writeBatch } from '../../src/core/record-batch.ts';
import { decodeBatchObject, encodeHeader, encodeTail } from '../../storage/objects/batch-object.ts';
import { decodeCheckpoint, encodeCheckpoint } from '../../workers/checkpoint-codec.ts';
import { decodeEntry, type Entry, encodeEntry } from '../../workers/entry-codec.ts';
import { ShardState } from '../../workers/shard-state.ts';
import { sliceBody, TOPIC_ID, upTo, WALL_MS } from '../sample-appends.ts';
import { type Suite, TaskSet } from '../suite.ts';

const SHARD = 3;

function addEntry(tasks: TaskSet, count: number): void {
  const body = sliceBody(1, upTo(count), 123_456);
  const entry: Entry = { shard: SHARD, seq: 1, epoch: 1, timeMs: WALL_MS, ...body };
  const bytes = encodeEntry(entry);
  const json = JSON.stringify(entry);
  const per = { items: count, itemName: 'slice' };
  const what = `entry of ${count} slices`;
  tasks.add(`encode ${what}`, () => encodeEntry(entry), {
    ...per,
    against: `JSON.stringify ${what}`,
    details: { bytes: bytes.length },
  });
  tasks.add(`JSON.stringify ${what}`, () => JSON.stringify(entry), {
    ...per,
    details: { bytes: json.length },
  });
  tasks.add(`decode ${what}`, () => decodeEntry(bytes), { ...per, against: `JSON.parse ${what}` });
  tasks.add(`JSON.parse ${what}`, () => JSON.parse(json), per);
}

function addPage(tasks: TaskSet): void {
  const refCount = 256;
  const refs = blankRefs(refCount);
  for (let i = 0; i < refCount; i++) {
    packRef(refs, i, {
      baseOffset: i * 3,
      nextOffset: (i + 1) * 3,
      incarnation: 3,
      number: i,
      position: i * 80,
      length: 80,
      maxTimestampSoFarMs: WALL_MS + i,
    });
  }
  const nextOffset = refCount * 3;
  const page = { topicId: TOPIC_ID, partition: 0, stamp: 900, baseOffset: 0, nextOffset, refCount, refs };
  const bytes = encodePage(page);
  const per = { items: refCount, itemName: 'ref' };
  tasks.add(`encode page of ${refCount} refs`, () => encodePage(page), {
    ...per,
    details: { bytes: bytes.length },
  });
  tasks.add(`decode page of ${refCount} refs`, () => decodePage(bytes), per);
}

function addCheckpoint(tasks: TaskSet, partitions: number): void {
  const state = new ShardState(SHARD);
  const body = sliceBody(1, upTo(partitions), 0);
  state.apply({ shard: SHARD, seq: 1, epoch: 1, timeMs: WALL_MS, ...body });
  const bytes = encodeCheckpoint(state);
  const per = { items: partitions, itemName: 'partition' };
  tasks.add(`encode checkpoint of ${partitions} partitions`, () => encodeCheckpoint(state), {
    ...per,
    details: { bytes: bytes.length },
  });
  tasks.add(`decode checkpoint of ${partitions} partitions`, () => decodeCheckpoint(bytes, SHARD), per);
}

function addRecordBatch(tasks: TaskSet, count: number, valueBytes: number): void {
  const source = Buffer.alloc(count * valueBytes, 'x');
  const spans = upTo(count).flatMap((i) => [-1, -1, i * valueBytes, (i + 1) * valueBytes]);
  const records = { source, spans };
  const out = Buffer.alloc(batchBytes(records, 0, count));
  const per = { items: count, itemName: 'record' };
  const what = `batch of ${count} x ${valueBytes} bytes`;
  tasks.add(`write ${what}`, () => writeBatch(out, 0, records, 0, count, WALL_MS, null), {
    ...per,
    details: { bytes: out.length },
  });
  writeBatch(out, 0, records, 0, count, WALL_MS, null);
  let seen = 0;
  const read = () => readRecords(out, 0, () => seen++);
  tasks.add(`read ${what}`, read, per);
}

function addDirectory(tasks: TaskSet, count: number): void {
  const header = { incarnation: 3, number: 9 };
  const slices = upTo(count).map((partition) => ({
    topicId: TOPIC_ID,
    partition,
    position: 24 + partition * 80,
    length: 80,
    recordCount: 1,
    minTimestampMs: WALL_MS,
    maxTimestampMs: WALL_MS + 5,
    crc: 0x12345678,
  }));
  const end = 24 + count * 80;
  const tail = encodeTail(header, slices, end);
  const object = Buffer.concat([encodeHeader(header), Buffer.alloc(count * 80), tail]);
  const per = { items: count, itemName: 'slice' };
  const json = JSON.stringify(slices);
  const what = `directory of ${count} slices`;
  tasks.add(`encode ${what}`, () => encodeTail(header, slices, end), {
    ...per,
    against: `JSON.stringify ${what}`,
    details: { bytes: tail.length },
  });
  tasks.add(`JSON.stringify ${what}`, () => JSON.stringify(slices), {
    ...per,
    details: { bytes: json.length },
  });
  tasks.add(`decode ${what}`, () => decodeBatchObject(object), { ...per, against: `JSON.parse ${what}` });
  tasks.add(`JSON.parse ${what}`, () => JSON.parse(json), per);
}

const TABLE = Uint32Array.from({ length: 256 }, (_, i) => {
  let crc = i;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** A byte at a time over one table. */
function plainCrc32c(bytes: Uint8Array): number {
  let crc = -1;
  for (let i = 0; i < bytes.length; i++) crc = (crc >>> 8) ^ TABLE[(crc ^ bytes[i]) & 0xff];
  return ~crc >>> 0;
}

function addCrc(tasks: TaskSet, name: string, bytes: Uint8Array): void {
  if (crc32c(bytes) !== plainCrc32c(bytes)) throw new Error('the two checksums differ');
  // Short inputs many times a run, or the clock would be what is measured.
  const times = Math.max(1, Math.floor(65_536 / bytes.length));
  const per = { items: times * bytes.length, itemName: 'byte' };
  const repeat = (crc: (bytes: Uint8Array) => number) => () => {
    let sum = 0;
    for (let i = 0; i < times; i++) sum ^= crc(bytes);
    return sum;
  };
  tasks.add(`crc32c, ${times} x ${name}`, repeat(crc32c), {
    ...per,
    against: `plain loop, ${times} x ${name}`,
  });
  tasks.add(`plain loop, ${times} x ${name}`, repeat(plainCrc32c), per);
}

export const codecsSuite: Suite = {
  name: 'codecs',
  title: 'codecs of everything that is stored',
  run(options) {
    const { smoke } = options;
    const tasks = new TaskSet('codecs', options);
    addEntry(tasks, smoke ? 100 : 1_000);
    addPage(tasks);
    addCheckpoint(tasks, smoke ? 100 : 10_000);
    addRecordBatch(tasks, 1, 10);
    addRecordBatch(tasks, 100, 100);
    addDirectory(tasks, smoke ? 100 : 1_000);
    const bytes = Buffer.alloc(1 << 20, 'streamhouse');
    addCrc(tasks, '80 B', bytes.subarray(0, 80));
    addCrc(tasks, '4 KiB', bytes.subarray(0, 4096));
    if (!smoke) addCrc(tasks, '1 MiB', bytes);
    return tasks.run();
  },
};
