/**
 * Benchmarks of building a batch object: the lane's part (record batches out of packed appends), the batching
 * worker's (gathering by partition, sealing), beside the obvious way, an object and a Buffer per append gathered
 * in lists per partition. One thread.
 */
import { crc32c } from '../../src/core/crc32c.ts';
import { partitionKey, shardOf } from '../../src/core/ids.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import { bufferOver } from '../../workers/append-codec.ts';
import { BatchBuilder, forEachAppend, type SealedObject } from '../../workers/batch-builder.ts';
import { buildAppends } from '../../workers/lane-produce.ts';
import { type ProduceShape, produceMessage, TOPIC_ID, WALL_MS } from '../sample-appends.ts';
import { type Suite, TaskSet } from '../suite.ts';

const LAYOUT = oneGroup(8);

/** As the batching worker does: gathers a lane's message and seals. */
export function sealMessage(bytes: Uint8Array, number: number): SealedObject {
  const builder = new BatchBuilder();
  const chunk = bufferOver(bytes);
  builder.beginChunk(0, chunk);
  forEachAppend(chunk, (header, position) =>
    builder.add(header, shardOf(header.topicId, header.partition, LAYOUT), position),
  );
  return builder.seal({ incarnation: 3, number });
}

interface PlainAppend {
  partition: number;
  batch: Buffer;
}

function plainAppends(bytes: Uint8Array): PlainAppend[] {
  const chunk = bufferOver(bytes);
  const appends: PlainAppend[] = [];
  forEachAppend(chunk, (header, position) => {
    const batch = chunk.subarray(position + 64, position + 64 + header.dataBytes);
    appends.push({ partition: header.partition, batch });
  });
  return appends;
}

/** The obvious way: lists of Buffers per partition, sorted, checksummed, joined. */
function sealPlainly(appends: readonly PlainAppend[]): Buffer {
  const byPartition = new Map<number, Buffer[]>();
  for (const { partition, batch } of appends) {
    const key = partitionKey(TOPIC_ID, partition);
    const list = byPartition.get(key);
    if (list) list.push(batch);
    else byPartition.set(key, [batch]);
  }
  const parts: Buffer[] = [];
  const directory = [];
  for (const [key, batches] of [...byPartition].sort((a, b) => a[0] - b[0])) {
    const slice = Buffer.concat(batches);
    directory.push({ key, length: slice.length, crc: crc32c(slice) });
    parts.push(slice);
  }
  parts.push(Buffer.from(JSON.stringify(directory)));
  return Buffer.concat(parts);
}

function addShape(tasks: TaskSet, shape: ProduceShape): void {
  const { partitions, appendsEach, recordsPerAppend, valueBytes } = shape;
  const items = partitions * appendsEach * recordsPerAppend;
  const per = { items, itemName: 'record' };
  const what = `${partitions} partitions x ${appendsEach} appends x ${recordsPerAppend} x ${valueBytes} B`;
  const message = produceMessage(shape);
  const { bytes } = buildAppends(message, WALL_MS);
  const objectBytes = sealMessage(bytes, 0).bytes.length;
  const plain = plainAppends(bytes);
  tasks.add(`lane: buildAppends, ${what}`, () => buildAppends(message, WALL_MS), per);
  let number = 0;
  tasks.add(`worker: gather and seal, ${what}`, () => sealMessage(bytes, number++), {
    ...per,
    against: `plain lists, ${what}`,
    details: { 'object bytes': objectBytes },
  });
  tasks.add(`plain lists, ${what}`, () => sealPlainly(plain), per);
}

export const batchBuildingSuite: Suite = {
  name: 'batch-building',
  title: 'batch building: from packed appends to a sealed object, per record',
  run(options) {
    const { smoke } = options;
    const tasks = new TaskSet('batch building', options, { timeMs: 1000 });
    const partitions = smoke ? 50 : 1_000;
    addShape(tasks, { partitions, appendsEach: 10, recordsPerAppend: 1, valueBytes: 10 });
    addShape(tasks, { partitions, appendsEach: 1, recordsPerAppend: 10, valueBytes: 10 });
    addShape(tasks, { partitions: partitions * 10, appendsEach: 1, recordsPerAppend: 1, valueBytes: 10 });
    addShape(tasks, { partitions: partitions / 10, appendsEach: 1, recordsPerAppend: 10, valueBytes: 1024 });
    return tasks.run();
  },
};
