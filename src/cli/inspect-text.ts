/**
 * What `streamhouse inspect` prints for people. Owns: tables and the safe showing of keys and values. Does not own
 * the data (src/inspect). Pure; main thread.
 */
import type { Page } from '../../index/page-codec.ts';
import { refsOfPage } from '../../index/page-codec.ts';
import type { ShardHead } from '../../storage/metadata/metadata-store.ts';
import type { Entry } from '../../workers/entry-codec.ts';
import type { ShardState } from '../../workers/shard-state.ts';
import type { DescribedBatch, DescribedObject, DescribedSlice } from '../inspect/describe-object.ts';
import { table } from './shell.ts';

/** Bytes of a key or value that are shown. */
const SHOWN_BYTES_MAX = 120;

/** What JSON leaves as it is and a terminal may act on: control characters above 0x7e, marks of direction. */
const INVISIBLE = /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** Text as a JSON string, without anything that a terminal would act on; what is no UTF-8 as hex; null as null. */
export function shownBytes(bytes: Buffer | null): string {
  if (bytes === null) return 'null';
  const part = bytes.subarray(0, SHOWN_BYTES_MAX);
  const more = bytes.length > part.length ? `... (${bytes.length} bytes)` : '';
  try {
    // A character that the cut went through is no fault of the text.
    const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
    const text = JSON.stringify(decoder.decode(part, { stream: more !== '' }));
    return `${text.replace(INVISIBLE, escaped)}${more}`;
  } catch {
    return `0x${part.toString('hex')}${more}`;
  }
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/** A time in ms as ISO 8601; the bare number if it is none. */
export function shownTime(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? String(ms) : date.toISOString();
}

export function objectText(object: DescribedObject): string {
  const { incarnation, number } = object.header;
  const rows = object.slices.map((slice) => [
    String(slice.topicId),
    slice.partition,
    slice.position,
    slice.length,
    slice.recordCount,
    shownTime(slice.minTimestampMs),
    shownTime(slice.maxTimestampMs),
    slice.crcOk ? 'ok' : 'WRONG',
  ]);
  const head = `object ${incarnation}-${number}: ${object.bytes} bytes, ${object.slices.length} slices\n`;
  const columns = ['topic id', 'partition', 'position', 'bytes', 'records', 'oldest', 'newest', 'checksum'];
  const details = object.slices.map(sliceText).join('');
  return `${head}${table(columns, rows)}${details}`;
}

function sliceText({ topicId, partition, batches, fault }: DescribedSlice): string {
  const lines: string[] = [];
  if (batches !== null || fault !== null) lines.push(`topic id ${topicId} partition ${partition}`);
  for (const batch of batches ?? []) lines.push(...batchLines(batch));
  if (fault !== null) lines.push(`  ${fault}`);
  return lines.map((line) => `${line}\n`).join('');
}

function batchLines(batch: DescribedBatch): string[] {
  const producer =
    batch.producerId < 0
      ? ''
      : `, producer ${batch.producerId} epoch ${batch.producerEpoch} sequence ${batch.baseSequence}`;
  const head =
    `  batch at ${batch.position}: ${batch.length} bytes, ${batch.recordCount} records, ` +
    `${batch.compression === 'none' ? 'not compressed' : batch.compression}${producer}, ` +
    `checksum ${batch.crcOk ? 'ok' : 'WRONG'}`;
  const lines = [head];
  if (batch.fault !== null) lines.push(`    ${batch.fault}`);
  for (const { offset, timestampMs, key, value, headers } of batch.records ?? []) {
    const shown = headers.map((header) => `${JSON.stringify(header.key)}=${shownBytes(header.value)}`);
    const tail = shown.length > 0 ? ` headers ${shown.join(' ')}` : '';
    lines.push(`    +${offset} ${shownTime(timestampMs)} ${shownBytes(key)} ${shownBytes(value)}${tail}`);
  }
  return lines;
}

export function entryText(entry: Entry, commitId: string, bytes: number): string {
  const head =
    `shard ${entry.shard} entry ${entry.seq}: ${entry.kind}, epoch ${entry.epoch}, ` +
    `${shownTime(entry.timeMs)}, commit ${commitId}, ${bytes} bytes\n`;
  switch (entry.kind) {
    case 'slices':
    case 'merged': {
      const rows = entry.slices.map((slice) => {
        const { incarnation, number } = entry.objects[slice.objectIndex];
        const { topicId, partition, baseOffset, recordCount, position, length, maxTimestampMs } = slice;
        return [
          String(topicId),
          partition,
          baseOffset,
          recordCount,
          `${incarnation}-${number}`,
          position,
          length,
          shownTime(maxTimestampMs),
        ];
      });
      const columns = ['topic id', 'partition', 'base', 'records', 'object', 'position', 'bytes', 'newest'];
      const more = entry.kind === 'slices' ? producersText(entry) : droppedText(entry.dropped);
      return `${head}${table(columns, rows)}${more}`;
    }
    case 'takeover':
      return `${head}incarnation ${entry.incarnation}\n`;
    case 'log-start':
      return `${head}${table(
        ['topic id', 'partition', 'log start'],
        entry.starts.map(({ topicId, partition, logStart }) => [String(topicId), partition, logStart]),
      )}`;
    case 'topic-deleted':
      return `${head}topic id ${entry.topicId}\n`;
  }
}

function producersText(entry: Extract<Entry, { kind: 'slices' }>): string {
  if (entry.producerBatches.length === 0) return '';
  const rows = entry.producerBatches.map((batch) => {
    const slice = entry.slices[batch.sliceIndex];
    const base = slice.baseOffset + batch.offsetInSlice;
    return [
      String(batch.producerId),
      batch.producerEpoch,
      batch.baseSequence,
      slice.partition,
      base,
      batch.recordCount,
    ];
  });
  return table(['producer', 'epoch', 'sequence', 'partition', 'base', 'records'], rows);
}

function droppedText(dropped: readonly { incarnation: number; number: number }[]): string {
  if (dropped.length === 0) return '';
  return `dropped ${dropped.map(({ incarnation, number }) => `${incarnation}-${number}`).join(' ')}\n`;
}

export function pageText(page: Page): string {
  const rows = refsOfPage(page).map((ref) => [
    ref.baseOffset,
    ref.nextOffset,
    `${ref.incarnation}-${ref.number}`,
    ref.position,
    ref.length,
    shownTime(ref.maxTimestampSoFarMs),
  ]);
  const { topicId, partition, baseOffset, nextOffset, stamp, refCount } = page;
  return (
    `topic id ${topicId} partition ${partition}: page [${baseOffset}, ${nextOffset}), stamp ${stamp}, ` +
    `${refCount} segments\n${table(['base', 'next', 'object', 'position', 'bytes', 'newest so far'], rows)}`
  );
}

export function headsText(heads: readonly ShardHead[]): string {
  const rows = heads.map((head) => [
    String(head.shard),
    head.headSeq,
    head.epoch,
    head.holder,
    head.checkpoint === null ? 'none' : `${head.checkpoint.seq} of ${head.checkpoint.writer}`,
    head.trimmedThrough,
    head.headCommitId,
  ]);
  return table(['shard', 'head', 'epoch', 'holder', 'checkpoint', 'trimmed', 'newest commit'], rows);
}

export function checkpointText(state: ShardState, bytes: number): string {
  const head =
    `shard ${state.shard} checkpoint through ${state.seq}: epoch ${state.epoch}, ${shownTime(state.timeMs)}, ` +
    `${bytes} bytes, ${state.partitions.size} partitions, ${state.producers.size} producers\n`;
  const partitions = [...state.partitions.values()].map((fold) => [
    String(fold.topicId),
    fold.partition,
    fold.logStart,
    fold.nextOffset,
    fold.pageBase,
    fold.pageRefs,
    shownTime(fold.maxTimestampMs),
  ]);
  const columns = ['topic id', 'partition', 'log start', 'next', 'page base', 'segments', 'newest'];
  const deleted = [...state.deletedTopics].map(
    ([topicId, ms]) => `deleted topic ${topicId} ${shownTime(ms)}\n`,
  );
  return `${head}${table(columns, partitions)}${deleted.join('')}`;
}
