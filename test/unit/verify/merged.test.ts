/**
 * `verify` and `inspect segments` of a log with Merged entries (no writer makes them yet; the format is frozen), and
 * what verify says of a partition in a foreign shard: a cluster made by hand in memory, one shard, every byte as the
 * formats say.
 */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { it } from 'node:test';
import { encodePage } from '../../../index/page-codec.ts';
import { emptyFold, foldAppend } from '../../../index/page-fold.ts';
import { systemClock } from '../../../src/core/clock.ts';
import { crc32c } from '../../../src/core/crc32c.ts';
import { type ObjectId, partitionKey, shardOf } from '../../../src/core/ids.ts';
import { batchBytes, writeBatch } from '../../../src/core/record-batch.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import { partitionSegments } from '../../../src/inspect/partition-segments.ts';
import type { Finding } from '../../../src/verify/finding.ts';
import { verifyCluster } from '../../../src/verify/verify.ts';
import { MemoryMetadataStore } from '../../../storage/metadata/memory/memory-metadata-store.ts';
import {
  BATCH_OBJECT_HEADER_BYTES,
  encodeHeader,
  encodeTail,
} from '../../../storage/objects/batch-object.ts';
import { MemoryObjectStore } from '../../../storage/objects/memory-object-store.ts';
import { batchObjectKey } from '../../../storage/objects/object-key.ts';
import { encodeCheckpoint } from '../../../workers/checkpoint-codec.ts';
import { type Entry, type EntryBody, type EntrySlice, encodeEntry } from '../../../workers/entry-codec.ts';
import { ShardState } from '../../../workers/shard-state.ts';

const PARTITION = 0;

/** One batch of one record. */
function batch(text: string, timestampMs: number): Buffer {
  const source = Buffer.from(text);
  const records = { source, spans: Int32Array.from([-1, -1, 0, source.length]) };
  const out = Buffer.alloc(batchBytes(records, 0, 1));
  writeBatch(out, 0, records, 0, 1, timestampMs, null);
  return out;
}

class HandMade {
  readonly store = new MemoryMetadataStore();
  readonly objects = new MemoryObjectStore(systemClock);
  readonly state = new ShardState(0);
  topicId = 0;
  #number = 0;

  async begin(shardCount: number, shard: number): Promise<void> {
    const stamp = { clusterId: 'c', storeIncarnation: 's' };
    await this.store.initCluster({ ...stamp, shardCount, createdAtMs: 1 });
    await this.objects.put('cluster.json', Buffer.from(JSON.stringify(stamp)));
    const topic = { name: 't', partitionCount: 4, configs: {}, createdAtMs: 1 };
    this.topicId = (await this.store.createTopic(topic)).topicId;
    await this.store.acquireLeases(1, [{ shard, holder: 0, epoch: 0 }]);
  }

  /** An object of one slice of these batches; its row names shard 0. */
  async put(
    batches: readonly Buffer[],
    partition = PARTITION,
  ): Promise<{ id: ObjectId; bytes: number; length: number }> {
    const id = { incarnation: 1, number: this.#number++ };
    const content = Buffer.concat(batches);
    const slice = {
      topicId: this.topicId,
      partition,
      position: BATCH_OBJECT_HEADER_BYTES,
      length: content.length,
      recordCount: batches.length,
      minTimestampMs: 1,
      maxTimestampMs: 100,
      crc: crc32c(content),
    };
    const end = BATCH_OBJECT_HEADER_BYTES + content.length;
    const bytes = Buffer.concat([encodeHeader(id), content, encodeTail(id, [slice], end)]);
    await this.objects.put(batchObjectKey(id.incarnation, id.number), bytes);
    return { id, bytes: bytes.length, length: content.length };
  }

  slice(length: number, baseOffset: number, recordCount: number, timestampMs: number): EntrySlice {
    const { topicId } = this;
    const place = { topicId, partition: PARTITION, objectIndex: 0, position: BATCH_OBJECT_HEADER_BYTES };
    return { ...place, baseOffset, recordCount, length, maxTimestampMs: timestampMs };
  }

  async append(body: EntryBody, objects: { id: ObjectId; bytes: number }[] = [], shard = 0): Promise<void> {
    const entry: Entry = { shard, seq: this.state.seq + 1, epoch: 1, timeMs: 1000, ...body };
    const row = { shard, seq: entry.seq, epoch: 1, commitId: `1-${entry.seq}`, body: encodeEntry(entry) };
    const rows = objects.map(({ id, bytes }) => ({
      object: id,
      bytes,
      createdAtMs: 1,
      shards: [{ shard, epoch: 1 }],
    }));
    const [outcome] = await this.store.appendEntries([row], rows);
    assert.equal(outcome.kind, 'done');
    if (shard === 0) this.state.apply(entry);
  }

  async verify(): Promise<Finding[]> {
    const { store, objects } = this;
    const cluster = (await store.getCluster())!;
    const stop = new AbortController().signal;
    const parts = { store, objects, cluster, clock: systemClock, stop, topic: null, deep: true };
    return (await verifyCluster({ ...parts, progress: () => undefined })).findings;
  }
}

/** Six one-record appends; those of the first `checkpointed` are in a page and under the checkpoint. */
async function sixAppends(checkpointed: number): Promise<{ made: HandMade; batches: Buffer[] }> {
  const made = new HandMade();
  await made.begin(1, 0);
  await made.append({ kind: 'takeover', incarnation: 1 });
  const batches: Buffer[] = [];
  const refs: number[] = [];
  const fold = emptyFold(made.topicId, PARTITION);
  for (let i = 0; i < 6; i++) {
    batches.push(batch(`record ${i}`, 10 + i));
    const object = await made.put([batches[i]]);
    const slices = [made.slice(object.length, i, 1, 10 + i)];
    await made.append({ kind: 'slices', objects: [object.id], slices, producerBatches: [] }, [object]);
    if (i >= checkpointed) continue;
    foldAppend(fold, 1, 10 + i);
    refs.push(i, object.id.incarnation, object.id.number, BATCH_OBJECT_HEADER_BYTES, object.length, 10 + i);
    if (i + 1 === checkpointed) await checkpoint(made, refs, checkpointed);
  }
  return { made, batches };
}

async function checkpoint(made: HandMade, refs: number[], refCount: number): Promise<void> {
  const id = { topicId: made.topicId, partition: PARTITION };
  const stamp = made.state.seq;
  const bytes = encodePage({ ...id, stamp, baseOffset: 0, nextOffset: refCount, refCount, refs });
  await made.store.putPages([{ ...id, shard: 0, baseOffset: 0, stamp, bytes }]);
  const pointer = { seq: stamp, writer: 1 };
  await made.store.putCheckpoint(0, pointer, encodeCheckpoint(made.state));
  assert.equal((await made.store.movePointer(0, 1, pointer)).kind, 'done');
  await made.store.trim(0, stamp);
}

/** Offsets [base, next) rewritten into one object. */
async function merge(
  made: HandMade,
  batches: readonly Buffer[],
  base: number,
  next: number,
): Promise<ObjectId> {
  const object = await made.put(batches.slice(base, next));
  const slices = [made.slice(object.length, base, next - base, 9 + next)];
  await made.append({ kind: 'merged', objects: [object.id], slices, dropped: [] }, [object]);
  return object.id;
}

async function segmentsOf(made: HandMade): Promise<string[]> {
  const of = { topicId: made.topicId, partition: PARTITION, fromOffset: 0 };
  const { segments } = await partitionSegments(made.store, oneGroup(1), of);
  const out: string[] = [];
  for await (const { baseOffset, nextOffset, number } of segments)
    out.push(`${baseOffset}-${nextOffset}:${number}`);
  return out;
}

it('segments of pages, of the log, and across both may be merged', async () => {
  for (const [base, next] of [
    [0, 2],
    [4, 6],
    [1, 5],
    [0, 6],
  ]) {
    const { made, batches } = await sixAppends(3);
    await merge(made, batches, base, next);
    assert.deepEqual(await made.verify(), [], `${base} to ${next}`);
    const expected = [0, 1, 2, 3, 4, 5]
      .filter((offset) => offset <= base || offset >= next)
      .map((offset) => (offset === base ? `${base}-${next}:6` : `${offset}-${offset + 1}:${offset}`));
    assert.deepEqual(await segmentsOf(made), expected);
  }
});

it('damage in a merged object is found', async () => {
  const { made, batches } = await sixAppends(3);
  const id = await merge(made, batches, 1, 5);
  const key = batchObjectKey(id.incarnation, id.number);
  const bytes = await made.objects.get(key);
  await made.objects.delete(key);
  bytes[BATCH_OBJECT_HEADER_BYTES + 65] ^= 1;
  await made.objects.put(key, bytes);
  const findings = await made.verify();
  assert.deepEqual(
    findings.map(({ kind, offset, object }) => ({ kind, offset, object })),
    [{ kind: 'slice-corrupt', offset: 1, object: key }],
  );
});

it('a merge that does not cover segments exactly is found', async () => {
  const { made } = await sixAppends(3);
  const object = await made.put([batch('two', 11), batch('three', 12)]);
  // Offsets [0, 2) as one segment, then [1, 3): its base lies within that.
  await made.append(
    { kind: 'merged', objects: [object.id], slices: [made.slice(object.length, 0, 2, 12)], dropped: [] },
    [object],
  );
  const other = await made.put([batch('two', 11), batch('three', 12)]);
  await made.append(
    { kind: 'merged', objects: [other.id], slices: [made.slice(other.length, 1, 2, 12)], dropped: [] },
    [other],
  );
  const kinds = (await made.verify()).map(({ kind }) => kind);
  assert.deepEqual(kinds, ['page-segment']);
});

it('a partition in a foreign shard is found', async () => {
  const made = new HandMade();
  const own = shardOf(1, PARTITION, oneGroup(2));
  const foreign = 1 - own;
  await made.begin(2, foreign);
  await made.append({ kind: 'takeover', incarnation: 1 }, [], foreign);
  made.state.seq = 1;
  const object = await made.put([batch('here', 5)]);
  const slices = [made.slice(object.length, 0, 1, 5)];
  await made.append({ kind: 'slices', objects: [object.id], slices, producerBatches: [] }, [object], foreign);
  const findings = await made.verify();
  assert.deepEqual(
    findings.map(({ kind, shard, seq, partition }) => ({ kind, shard, seq, partition })),
    [{ kind: 'foreign-partition', shard: foreign, seq: 2, partition: PARTITION }],
  );
  assert.equal(made.state.partitions.has(partitionKey(made.topicId, PARTITION)), false);
});

it('what a running broker has half done is found once and not again', async () => {
  const { made } = await sixAppends(3);
  const key = batchObjectKey(1, 5);
  const bytes = await made.objects.get(key);
  // The object is not seen in the first pass and is there in the second, while the head moves on.
  let gets = 0;
  const get = made.objects.get.bind(made.objects);
  made.objects.get = async (asked, ...rest) => {
    if (asked === key && gets++ === 0) {
      await made.append({ kind: 'log-start', starts: [] });
      await made.objects.delete(key);
      const missing = get(asked, ...rest);
      await assert.rejects(missing, { code: 'object-not-found' });
      await made.objects.put(key, bytes);
      return missing;
    }
    return get(asked, ...rest);
  };
  assert.deepEqual(await made.verify(), []);
  assert.equal(gets, 2);
});
