/**
 * A partition's segments as a reader folds them: its pages, and the log after the checkpoint for what the pages
 * do not have yet. Owns: that fold for one partition, for people who look. Does not own: judging it (src/verify).
 * Reads only, a bounded number of pages at a time; main thread.
 */
import { applyMerge, type MergeOverlay, type PackedRefs, splitOverlays } from '../../index/merge-overlay.ts';
import { decodePage } from '../../index/page-codec.ts';
import { emptyFold, type PartitionFold } from '../../index/page-fold.ts';
import { REF_NUMBERS, type SegmentRef, unpackRef } from '../../index/segment-ref.ts';
import type { LogEntry, MetadataStore, ShardHead } from '../../storage/metadata/metadata-store.ts';
import { decodeCheckpoint } from '../../workers/checkpoint-codec.ts';
import { decodeEntry, type EntrySlice } from '../../workers/entry-codec.ts';
import { ShardState } from '../../workers/shard-state.ts';
import { StreamHouseError } from '../core/errors.ts';
import { type ObjectId, type PartitionId, partitionKey, shardOf } from '../core/ids.ts';
import type { ShardLayout } from '../core/shard-layout.ts';
import { readShardLog, type ShardLogReader } from './shard-log.ts';

/** Pages of one call, some 4 KB each. */
const PAGES_MAX = 64;

/** A segment and where it is known from. */
export interface ListedSegment extends SegmentRef {
  source: 'page' | 'log';
  /** The stamp of its page, or the seq of its entry. */
  seq: number;
}

export interface PartitionSegments {
  shard: number;
  head: ShardHead;
  fold: PartitionFold;
  /** In the order of offsets, from the one that holds `fromOffset` on. */
  segments: AsyncGenerator<ListedSegment>;
}

/** Gathers one partition's part of a shard's log. */
class PartitionLog implements ShardLogReader {
  head!: ShardHead;
  state!: ShardState;
  segments: ListedSegment[] = [];
  merges: MergeOverlay[] = [];
  readonly #key: number;
  readonly #shard: number;

  constructor(shard: number, key: number) {
    this.#shard = shard;
    this.#key = key;
  }

  begin(head: ShardHead, checkpoint: Uint8Array | null | 'missing'): void {
    if (checkpoint === 'missing') {
      throw new StreamHouseError(
        'checkpoint-not-found',
        `shard ${this.#shard}: there is no checkpoint ${head.checkpoint?.seq} of writer ${head.checkpoint?.writer}`,
      );
    }
    this.head = head;
    this.state = checkpoint ? decodeCheckpoint(checkpoint, this.#shard) : new ShardState(this.#shard);
    this.segments = [];
    this.merges = [];
  }

  entry(row: LogEntry): boolean {
    const entry = decodeEntry(row.body);
    this.state.apply(entry);
    if (entry.kind === 'slices') {
      for (const slice of entry.slices) {
        if (partitionKey(slice.topicId, slice.partition) === this.#key) {
          this.segments.push(this.#segment(slice, entry.objects, entry.seq));
        }
      }
    } else if (entry.kind === 'merged') {
      const refs = entry.slices
        .filter((slice) => partitionKey(slice.topicId, slice.partition) === this.#key)
        .map((slice) => this.#segment(slice, entry.objects, entry.seq));
      if (refs.length > 0) this.merges.push({ seq: entry.seq, refs });
    }
    return true;
  }

  #segment(slice: EntrySlice, objects: readonly ObjectId[], seq: number): ListedSegment {
    const { baseOffset, recordCount, position, length, maxTimestampMs } = slice;
    const last = this.segments.at(-1)?.maxTimestampSoFarMs ?? maxTimestampMs;
    return {
      ...objects[slice.objectIndex],
      baseOffset,
      nextOffset: baseOffset + recordCount,
      position,
      length,
      maxTimestampSoFarMs: Math.max(last, maxTimestampMs),
      source: 'log',
      seq,
    };
  }

  gap(seq: number): void {
    throw new StreamHouseError(
      'entry-not-found',
      `shard ${this.#shard}: entry ${seq} is not in the log, which must be dense from ` +
        `${(this.head.checkpoint?.seq ?? 0) + 1} to ${this.head.headSeq}`,
    );
  }
}

/** 'corrupt-...' with the position for whatever does not decode; 'entry-not-found', 'page-not-found' for holes. */
export async function partitionSegments(
  store: MetadataStore,
  layout: ShardLayout,
  of: PartitionId & { fromOffset: number },
): Promise<PartitionSegments> {
  const key = partitionKey(of.topicId, of.partition);
  const shard = shardOf(of.topicId, of.partition, layout);
  const log = new PartitionLog(shard, key);
  await readShardLog(store, shard, log);
  const fold = log.state.partitions.get(key) ?? emptyFold(of.topicId, of.partition);
  const from = Math.max(of.fromOffset, fold.logStart);
  return { shard, head: log.head, fold, segments: walk(store, of, log, fold, from) };
}

async function* walk(
  store: MetadataStore,
  of: PartitionId,
  log: PartitionLog,
  fold: PartitionFold,
  from: number,
): AsyncGenerator<ListedSegment> {
  let next = from;
  for await (const segment of pageSegments(store, of, log.merges, from)) {
    if (segment.baseOffset >= fold.nextOffset) return;
    yield segment;
    next = segment.nextOffset;
  }
  for (const segment of mergedTail(log, next)) {
    if (segment.nextOffset <= next) continue;
    if (segment.baseOffset > next) break;
    yield segment;
    next = segment.nextOffset;
  }
  if (next < fold.nextOffset) {
    throw new StreamHouseError(
      'page-not-found',
      `topic ${of.topicId} partition ${of.partition}: no page and no entry holds offset ${next}`,
    );
  }
}

/** The segments of the log from `from` on, with its merges. */
function mergedTail({ segments, merges }: PartitionLog, from: number): ListedSegment[] {
  let tail = segments.filter((segment) => segment.baseOffset >= from);
  for (const { seq, refs } of splitOverlays(merges, from, Number.MAX_SAFE_INTEGER).inside) {
    const merged = refs.map((ref): ListedSegment => ({ ...ref, source: 'log', seq }));
    const before = tail.filter((segment) => segment.nextOffset <= merged[0].baseOffset);
    const after = tail.filter((segment) => segment.baseOffset >= merged[merged.length - 1].nextOffset);
    tail = [...before, ...merged, ...after];
  }
  return tail;
}

/** What the pages hold from `from` on, with the merges of the log that they lack. */
async function* pageSegments(
  store: MetadataStore,
  of: PartitionId,
  merges: readonly MergeOverlay[],
  from: number,
): AsyncGenerator<ListedSegment> {
  const { topicId, partition } = of;
  const [first] = await store.findPages([{ topicId, partition, offset: from }]);
  if (first === null) return;
  let next = from;
  for (let fromBaseOffset = first.baseOffset; ; ) {
    const pages = await store.listPages({ topicId, partition, fromBaseOffset, limit: PAGES_MAX });
    for (const stored of pages) {
      const page = decodePage(stored.bytes);
      if (page.baseOffset > next) return;
      let packed: PackedRefs = page;
      for (const { seq, refs } of splitOverlays(merges, page.baseOffset, page.nextOffset).inside) {
        if (seq > page.stamp) packed = applyMerge(packed, refs);
      }
      for (let i = 0; i < packed.refCount; i++) {
        const end = i + 1 < packed.refCount ? packed.refs[(i + 1) * REF_NUMBERS] : packed.nextOffset;
        if (end <= next) continue;
        yield { ...unpackRef(packed.refs, i, end), source: 'page', seq: page.stamp };
        next = end;
      }
    }
    if (pages.length < PAGES_MAX) return;
    fromBaseOffset = pages[pages.length - 1].baseOffset + 1;
  }
}
