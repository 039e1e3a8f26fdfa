/**
 * `streamhouse inspect ...`: what the stores hold, decoded. Owns arguments and printing. Does not own formats
 * (their codecs) nor the folding of segments (src/inspect). Reads only; a broker may run meanwhile. Main thread.
 */
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { decodePage, refsOfPage } from '../../index/page-codec.ts';
import type {
  CheckpointPointer,
  LogEntry,
  MetadataStore,
  Topic,
} from '../../storage/metadata/metadata-store.ts';
import { batchObjectKey } from '../../storage/objects/object-key.ts';
import { checkObjectBytes } from '../../storage/objects/object-store.ts';
import { decodeCheckpoint } from '../../workers/checkpoint-codec.ts';
import { decodeEntry } from '../../workers/entry-codec.ts';
import { StreamHouseError } from '../core/errors.ts';
import { PARTITIONS_PER_TOPIC_MAX } from '../core/ids.ts';
import { systemRandom } from '../core/random.ts';
import { type DescribedObject, describeObject } from '../inspect/describe-object.ts';
import {
  type MetadataForReading,
  openMetadataForReading,
  openObjectsForReading,
} from '../inspect/open-for-reading.ts';
import { partitionSegments } from '../inspect/partition-segments.ts';
import { wholeNumber } from './client-options.ts';
import { checkpointText, entryText, headsText, objectText, pageText, shownTime } from './inspect-text.ts';
import { print, type Shell, table, UsageError } from './shell.ts';
import { addStoreOptions, type StoreOptions, storeSettings } from './store-options.ts';

const anyNumber = (what: string): ((text: string) => number) => wholeNumber(what, 0, Number.MAX_SAFE_INTEGER);
const shardNumber = wholeNumber('SHARD', 0, 1_000_000);
const partitionNumber = wholeNumber('PARTITION', 0, PARTITIONS_PER_TOPIC_MAX - 1);

/** Bytes of entries asked for in one call. */
const READ_BYTES_MAX = 1024 * 1024;
/** Segments of one printed table. */
const SEGMENTS_TABLE = 1000;

export function define(command: Command, shell: Shell): void {
  command.description(
    'Shows what the stores hold, decoded. Reads only; a broker may run meanwhile. Bytes that do not decode\n' +
      'give a named error with the position, and exit code 1.',
  );
  const sub = (usage: string, summary: string): Command =>
    addStoreOptions(command.command(usage).description(summary));

  sub('object [object]', 'a batch object: by key, by INCARNATION-NUMBER, or a local file')
    .option('--file <path>', 'a local file instead of the store')
    .option('--records', 'decode its batches and records too')
    .action((object: string | undefined, options: ObjectOptions) => inspectObject(object, options, shell));
  sub('entry <shard> [seqs]', 'log entries: a seq, or a range FROM-TO')
    .option('--tail <count>', 'the newest entries', wholeNumber('--tail', 1, 1_000_000))
    .action((shard: string, seqs: string | undefined, options: EntryOptions) =>
      inspectEntries(shardNumber(shard), seqs, options, shell),
    );
  sub('page <topic> <partition> [offset]', 'the index page with an offset; without one the last page').action(
    (topic: string, partition: string, offset: string | undefined, options: StoreOptions) =>
      inspectPage(topic, partitionNumber(partition), offset, options, shell),
  );
  sub('checkpoint <shard>', 'the checkpoint that the head of a shard points to').action(
    (shard: string, options: StoreOptions) => inspectCheckpoint(shardNumber(shard), options, shell),
  );
  sub('heads', 'the head of every shard').action((options: StoreOptions) => inspectHeads(options, shell));
  sub('segments <topic> <partition>', 'where the records of a partition lie')
    .option('--from <offset>', 'begin with the segment of this offset', anyNumber('--from'), 0)
    .option('--limit <count>', 'segments at most', wholeNumber('--limit', 1, 1_000_000_000))
    .action((topic: string, partition: string, options: SegmentsOptions) =>
      inspectSegments(topic, partitionNumber(partition), options, shell),
    );
}

async function withMetadata<T>(
  options: StoreOptions,
  shell: Shell,
  use: (metadata: MetadataForReading) => Promise<T>,
): Promise<T> {
  const metadata = await openMetadataForReading(storeSettings(options, shell).metadata);
  try {
    return await use(metadata);
  } finally {
    await metadata.close();
  }
}

async function show(options: StoreOptions, shell: Shell, json: unknown, text: string): Promise<void> {
  await print(shell.stdout, options.json ? `${JSON.stringify(json)}\n` : text);
}

// -- Objects ---------------------------------------------------------------------------------------------

interface ObjectOptions extends StoreOptions {
  file?: string;
  records?: boolean;
}

async function inspectObject(
  object: string | undefined,
  options: ObjectOptions,
  shell: Shell,
): Promise<void> {
  if ((object === undefined) === (options.file === undefined)) {
    throw new UsageError('which object? give its key, INCARNATION-NUMBER, or --file PATH');
  }
  const bytes =
    options.file !== undefined
      ? await readFile(options.file)
      : await readObject(keyOf(object as string), options, shell);
  checkObjectBytes(options.file ?? (object as string), bytes.length);
  const described = describeObject(bytes, options.records === true);
  await show(options, shell, objectJson(described), objectText(described));
  const damaged = described.slices.filter(({ fault, batches }) => {
    return fault !== null || batches?.some((batch) => !batch.crcOk || batch.fault !== null);
  });
  if (damaged.length > 0) {
    const [{ topicId, partition, position, fault, batches }] = damaged;
    const why = fault ?? batches?.find((batch) => batch.fault !== null)?.fault;
    throw new StreamHouseError(
      'corrupt-object',
      `${damaged.length} slices are damaged, the first of topic id ${topicId} partition ${partition} ` +
        `at byte ${position}: ${why}`,
    );
  }
}

function keyOf(object: string): string {
  const match = /^([0-9]{1,16})-([0-9]{1,16})$/.exec(object);
  if (match === null) return object;
  const [incarnation, number] = [Number(match[1]), Number(match[2])];
  if (!Number.isSafeInteger(incarnation) || !Number.isSafeInteger(number)) {
    throw new UsageError(`${object} is not INCARNATION-NUMBER`);
  }
  return batchObjectKey(incarnation, number);
}

async function readObject(key: string, options: StoreOptions, shell: Shell): Promise<Buffer> {
  const objects = await openObjectsForReading(
    storeSettings(options, shell).objects,
    shell.clock,
    systemRandom,
  );
  try {
    return await objects.get(key, undefined, { signal: shell.stop });
  } finally {
    await objects.close();
  }
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** As `consume --json` shows bytes: a text, {"base64"} for what is no UTF-8, null. */
function jsonBytes(bytes: Buffer | null): string | { base64: string } | null {
  if (bytes === null) return null;
  try {
    return decoder.decode(bytes);
  } catch {
    return { base64: bytes.toString('base64') };
  }
}

function objectJson(object: DescribedObject): unknown {
  const slices = object.slices.map(({ batches, ...slice }) => {
    if (batches === null) return slice;
    return {
      ...slice,
      batches: batches.map(({ records, ...batch }) => ({
        ...batch,
        records:
          records?.map(({ offset, timestampMs, key, value, headers }) => ({
            offsetInBatch: offset,
            timestampMs,
            key: jsonBytes(key),
            value: jsonBytes(value),
            headers: headers.map((header) => ({ key: header.key, value: jsonBytes(header.value) })),
          })) ?? null,
      })),
    };
  });
  return { ...object, slices };
}

// -- Log, checkpoints, heads -----------------------------------------------------------------------------

interface EntryOptions extends StoreOptions {
  tail?: number;
}

async function inspectEntries(
  shard: number,
  seqs: string | undefined,
  options: EntryOptions,
  shell: Shell,
): Promise<void> {
  if ((seqs === undefined) === (options.tail === undefined)) {
    throw new UsageError('which entries? give a seq, a range FROM-TO, or --tail N');
  }
  const range = seqs === undefined ? null : rangeOf(seqs);
  await withMetadata(options, shell, async ({ store }) => {
    const head = await store.readHead(shard);
    const from = range?.from ?? Math.max(head.headSeq - (options.tail as number) + 1, 1);
    const to = Math.min(range?.to ?? head.headSeq, head.headSeq);
    let count = 0;
    for await (const row of entriesOf(store, shard, from, to)) {
      await showEntry(row, options, shell);
      count++;
      if (shell.stop.aborted) return;
    }
    if (count > 0 || range === null) return;
    throw new StreamHouseError(
      'entry-not-found',
      `shard ${shard} has no entry ${seqs}: its log goes from ${head.trimmedThrough + 1} to ${head.headSeq}`,
    );
  });
}

function rangeOf(seqs: string): { from: number; to: number } {
  const match = /^([0-9]+)(?:-([0-9]+))?$/.exec(seqs);
  const from = Number(match?.[1] ?? Number.NaN);
  const to = Number(match?.[2] ?? from);
  if (!Number.isSafeInteger(from) || !Number.isSafeInteger(to) || from < 1 || to < from) {
    throw new UsageError(`${JSON.stringify(seqs.slice(0, 100))} is neither a seq from 1 nor a range FROM-TO`);
  }
  return { from, to };
}

async function* entriesOf(
  store: MetadataStore,
  shard: number,
  from: number,
  to: number,
): AsyncGenerator<LogEntry> {
  for (let after = from - 1; after < to; ) {
    const rows = await store.readEntries(shard, after, READ_BYTES_MAX);
    if (rows.length === 0) return;
    for (const row of rows) {
      if (row.seq > to) return;
      yield row;
      after = row.seq;
    }
  }
}

async function showEntry(row: LogEntry, options: StoreOptions, shell: Shell): Promise<void> {
  const { commitId, body } = row;
  const entry = within(`shard ${row.shard} entry ${row.seq}`, () => decodeEntry(body));
  const json = { ...entry, commitId, bytes: body.length };
  await show(options, shell, json, entryText(entry, commitId, body.length));
}

/** Says in an error's message what was being decoded. */
function within<T>(what: string, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (!(error instanceof StreamHouseError)) throw error;
    throw new StreamHouseError(error.code, `${what}: ${error.message}`, error.detail, error);
  }
}

async function inspectCheckpoint(shard: number, options: StoreOptions, shell: Shell): Promise<void> {
  await withMetadata(options, shell, async ({ store }) => {
    const { pointer, bytes } = await newestCheckpoint(store, shard);
    const what = `checkpoint ${pointer.seq} of shard ${shard}`;
    const state = within(what, () => decodeCheckpoint(bytes, shard));
    const json = {
      shard,
      seq: state.seq,
      writer: pointer.writer,
      epoch: state.epoch,
      timeMs: state.timeMs,
      bytes: bytes.length,
      partitions: [...state.partitions.values()],
      producers: [...state.producers.values()],
      deletedTopics: [...state.deletedTopics].map(([topicId, timeMs]) => ({ topicId, timeMs })),
    };
    await show(options, shell, json, checkpointText(state, bytes.length));
  });
}

/** A checkpoint may be replaced by its next between the reading of the pointer and its own. */
async function newestCheckpoint(
  store: MetadataStore,
  shard: number,
): Promise<{ pointer: CheckpointPointer; bytes: Uint8Array }> {
  let seen = -1;
  for (;;) {
    const { checkpoint: pointer } = await store.readHead(shard);
    if (pointer === null) {
      throw new StreamHouseError('checkpoint-not-found', `shard ${shard} has no checkpoint yet`);
    }
    try {
      return { pointer, bytes: await store.getCheckpoint(shard, pointer) };
    } catch (error) {
      // The pointer only moves forward: one that stands still points to nothing.
      const mayHaveMoved = error instanceof StreamHouseError && error.code === 'checkpoint-not-found';
      if (!mayHaveMoved || pointer.seq === seen) throw error;
      seen = pointer.seq;
    }
  }
}

async function inspectHeads(options: StoreOptions, shell: Shell): Promise<void> {
  await withMetadata(options, shell, async ({ store }) => {
    const heads = await store.listLeases();
    await show(options, shell, heads, headsText(heads));
  });
}

// -- Pages and segments ----------------------------------------------------------------------------------

async function topicOf(store: MetadataStore, name: string, partition: number): Promise<Topic> {
  const topic = await store.getTopic(name);
  if (topic === null) throw new StreamHouseError('topic-not-found', `there is no topic ${name}`);
  if (partition < topic.partitionCount) return topic;
  throw new StreamHouseError(
    'partition-not-found',
    `${name} has the partitions 0 to ${topic.partitionCount - 1}`,
  );
}

async function inspectPage(
  name: string,
  partition: number,
  offsetText: string | undefined,
  options: StoreOptions,
  shell: Shell,
): Promise<void> {
  const offset = offsetText === undefined ? Number.MAX_SAFE_INTEGER : anyNumber('OFFSET')(offsetText);
  await withMetadata(options, shell, async ({ store }) => {
    const { topicId } = await topicOf(store, name, partition);
    const [stored] = await store.findPages([{ topicId, partition, offset }]);
    const at = offsetText === undefined ? '' : ` at or below offset ${offset}`;
    if (stored === null) {
      throw new StreamHouseError('page-not-found', `${name} partition ${partition} has no page${at}`);
    }
    const what = `page ${stored.baseOffset} of ${name} partition ${partition}`;
    const page = within(what, () => decodePage(stored.bytes));
    const { refs: _, ...fields } = page;
    const json = { shard: stored.shard, ...fields, bytes: stored.bytes.length, segments: refsOfPage(page) };
    await show(options, shell, json, pageText(page));
  });
}

interface SegmentsOptions extends StoreOptions {
  from: number;
  limit?: number;
}

async function inspectSegments(
  name: string,
  partition: number,
  options: SegmentsOptions,
  shell: Shell,
): Promise<void> {
  const { from: fromOffset, limit = Number.POSITIVE_INFINITY } = options;
  await withMetadata(options, shell, async ({ store, cluster }) => {
    const { topicId } = await topicOf(store, name, partition);
    const { shard, fold, segments } = await partitionSegments(store, cluster, {
      topicId,
      partition,
      fromOffset,
    });
    if (!options.json) {
      const range = `[${fold.logStart}, ${fold.nextOffset})`;
      await print(shell.stdout, `${name} partition ${partition}, shard ${shard}: offsets ${range}\n`);
    }
    let rows: (string | number)[][] = [];
    const flush = async (): Promise<void> => {
      const columns = ['base', 'next', 'object', 'position', 'bytes', 'newest so far', 'known from'];
      if (rows.length > 0) await print(shell.stdout, table(columns, rows));
      rows = [];
    };
    let count = 0;
    for await (const segment of segments) {
      if (count++ >= limit || shell.stop.aborted) break;
      if (options.json) {
        await print(shell.stdout, `${JSON.stringify({ topic: name, topicId, partition, ...segment })}\n`);
        continue;
      }
      const { baseOffset, nextOffset, incarnation, number, position, length } = segment;
      const source = `${segment.source === 'page' ? 'page of stamp' : 'entry'} ${segment.seq}`;
      const newest = shownTime(segment.maxTimestampSoFarMs);
      rows.push([baseOffset, nextOffset, `${incarnation}-${number}`, position, length, newest, source]);
      if (rows.length >= SEGMENTS_TABLE) await flush();
    }
    await flush();
  });
}
