/**
 * A lane's part of fetching: from an offset to record batches. Owns: look-up, reading slices from the tail cache or
 * the object store, checking them, putting the answer together within its byte bounds. Does not own: the index,
 * the caches, which partitions are asked first (route/ rotates them). A lane's thread.
 *
 * A partition that cannot be read (damage, a store that is away) fails alone; what was readable before the
 * damage is returned, and the next fetch meets the error.
 */
import type { SegmentIndex } from '../index/segment-index.ts';
import { type SegmentRef, SegmentRefList } from '../index/segment-ref.ts';
import type { Clock } from '../src/core/clock.ts';
import { operatingError, type PlainError, StreamHouseError } from '../src/core/errors.ts';
import type { ObjectId } from '../src/core/ids.ts';
import { compressionOf, readRecords } from '../src/core/record-batch.ts';
import type { LaneFetchPart, LaneFetchPartReply } from './messages.ts';
import type { ThreadCounters } from './shared-counters.ts';
import { batchesOfSlice, copyBatches, type PlacedBatch } from './slice-batches.ts';
import type { TailCache } from './tail-cache.ts';

/** Reads `length` bytes at `position` of an object from the object store; the bytes must not be written to. */
export type ReadSlice = (object: ObjectId, position: number, length: number) => Promise<Buffer>;

/** Slices of one partition read from the object store at the same time. */
const COLD_READS_MAX = 8;

export interface LaneFetcherParts {
  index: SegmentIndex;
  tail: TailCache;
  readSlice: ReadSlice;
  epochOf(shard: number): number;
  clock: Clock;
  counters: ThreadCounters;
}

export interface LaneFetchResult {
  parts: LaneFetchPartReply[];
  bytes: Uint8Array;
}

/** One partition's answer before the bytes are put together. */
interface PartResult {
  logStart: number;
  nextOffset: number;
  batches: PlacedBatch[];
  length: number;
  error: PlainError | null;
}

export class LaneFetcher {
  readonly #parts: LaneFetcherParts;

  constructor(parts: LaneFetcherParts) {
    this.#parts = parts;
  }

  /** Never rejects: errors stand in the parts. The first part that has anything gets at least one batch. */
  async fetch(parts: readonly LaneFetchPart[], bytesMax: number): Promise<LaneFetchResult> {
    const results: PartResult[] = [];
    let left = bytesMax;
    for (const part of parts) {
      const first = left === bytesMax;
      const result =
        left > 0 || first
          ? await this.#fetchPart(part, Math.max(0, Math.min(left, part.bytesMax)), first)
          : this.#boundsOnly(part);
      left -= result.length;
      results.push(result);
    }
    return this.#join(parts, results);
  }

  #join(parts: readonly LaneFetchPart[], results: readonly PartResult[]): LaneFetchResult {
    const { counters, epochOf } = this.#parts;
    const total = results.reduce((sum, result) => sum + result.length, 0);
    const bytes = Buffer.allocUnsafeSlow(total);
    const replies: LaneFetchPartReply[] = [];
    let position = 0;
    for (let i = 0; i < results.length; i++) {
      const { logStart, nextOffset, batches, length, error } = results[i];
      copyBatches(batches, bytes, position, epochOf(parts[i].shard));
      replies.push({ logStart, nextOffset, position, length, error });
      position += length;
    }
    counters.add('fetchesTotal', parts.length);
    counters.add('fetchBytesTotal', total);
    return { parts: replies, bytes };
  }

  #boundsOnly(part: LaneFetchPart): PartResult {
    const { index } = this.#parts;
    const bounds = index.bounds(part.topicId, part.partition);
    if (!bounds) return failed(new StreamHouseError('not-leader', 'the partition is not served here'));
    if (index.isDeleted(part.topicId, part.partition)) return failed(topicDeleted(part.topicId));
    return { ...bounds, batches: [], length: 0, error: null };
  }

  async #fetchPart(part: LaneFetchPart, bytesMax: number, atLeastOne: boolean): Promise<PartResult> {
    const { index, clock, counters } = this.#parts;
    const bounds = index.bounds(part.topicId, part.partition);
    if (!bounds || index.isDeleted(part.topicId, part.partition)) return this.#boundsOnly(part);
    if (part.offset === bounds.nextOffset) return { ...bounds, batches: [], length: 0, error: null };
    try {
      const refs = new SegmentRefList();
      const startMs = clock.monotonicMs();
      const waiting = index.locate(part.topicId, part.partition, part.offset, bytesMax, refs);
      if (waiting) await waiting;
      const tookMs = clock.monotonicMs() - startMs;
      counters.observe('indexLookupUs', tookMs * 1000);
      if (waiting) counters.observe('indexPagedLookupMs', tookMs);
      const batches = await this.#readBatches(refs, part.offset, bytesMax, atLeastOne);
      const length = batches.reduce((sum, batch) => sum + batch.length, 0);
      const now = index.bounds(part.topicId, part.partition) ?? bounds;
      return { ...now, batches, length, error: null };
    } catch (error) {
      const now = index.bounds(part.topicId, part.partition) ?? bounds;
      return { ...failed(this.#fetchFailure(error, part, now.logStart)), ...now };
    }
  }

  /** An object that is gone although the log still names it is damage; below the log start it is as it should be. */
  #fetchFailure(error: unknown, part: LaneFetchPart, logStart: number): StreamHouseError {
    const failure = operatingError(error);
    if (failure.code !== 'object-not-found') return failure;
    const where = `topic ${part.topicId} partition ${part.partition} offset ${part.offset}`;
    if (part.offset < logStart) {
      return new StreamHouseError('offset-out-of-range', `${where} lies below the log start`, { logStart });
    }
    return new StreamHouseError('corrupt-object', `${where}: ${failure.message}`);
  }

  /** Batches from the one that holds `offset` on, within the bytes, slices read a few at a time. */
  async #readBatches(
    refs: SegmentRefList,
    offset: number,
    bytesMax: number,
    atLeastOne: boolean,
  ): Promise<PlacedBatch[]> {
    const batches: PlacedBatch[] = [];
    let bytes = 0;
    for (let from = 0; from < refs.count; from += COLD_READS_MAX) {
      const some: SegmentRef[] = [];
      for (let i = from; i < Math.min(refs.count, from + COLD_READS_MAX); i++) some.push(refs.get(i));
      const slices = await Promise.allSettled(some.map((ref) => this.#readRef(ref)));
      for (const slice of slices) {
        if (slice.status === 'rejected') {
          if (batches.length > 0) return batches;
          throw slice.reason;
        }
        for (const batch of slice.value) {
          if (batch.baseOffset + batch.recordCount <= offset) continue;
          if (bytes + batch.length > bytesMax && !(atLeastOne && batches.length === 0)) return batches;
          batches.push(batch);
          bytes += batch.length;
        }
      }
    }
    return batches;
  }

  async #readRef(ref: SegmentRef): Promise<PlacedBatch[]> {
    const { tail, counters, clock } = this.#parts;
    const object = tail.get(ref);
    let slice: Buffer;
    if (object) {
      counters.add('tailCacheHitsTotal');
      slice = object.subarray(ref.position, ref.position + ref.length);
    } else {
      counters.add('tailCacheMissesTotal');
      const startMs = clock.monotonicMs();
      slice = await this.#parts.readSlice(ref, ref.position, ref.length);
      counters.observe('coldReadMs', clock.monotonicMs() - startMs);
    }
    try {
      return batchesOfSlice(slice, ref.baseOffset, ref.nextOffset);
    } catch (error) {
      counters.add('corruptSlicesTotal');
      throw error;
    }
  }

  /** The first offset at or above the log start whose record bears `timestampMs` or later; null: none. */
  async offsetForTimestamp(
    topicId: number,
    partition: number,
    timestampMs: number,
  ): Promise<{ offset: number; timestampMs: number } | null> {
    const { index } = this.#parts;
    if (index.isDeleted(topicId, partition)) throw topicDeleted(topicId);
    const ref = await index.findByTimestamp(topicId, partition, timestampMs);
    if (ref === null) return null;
    const logStart = index.bounds(topicId, partition)?.logStart ?? 0;
    for (const batch of await this.#readRef(ref)) {
      if (batch.maxTimestampMs < timestampMs || batch.baseOffset + batch.recordCount <= logStart) continue;
      const found = firstRecordAt(batch, timestampMs, logStart);
      if (found) return found;
    }
    return null;
  }
}

/** What the log says of a topic, whatever the catalogue that was asked for its name still thinks. */
export function topicDeleted(topicId: number): StreamHouseError {
  return new StreamHouseError('topic-not-found', `topic ${topicId} was deleted`);
}

/** Within a batch: exact where it can be read, its first offset where it is compressed. */
function firstRecordAt(
  batch: PlacedBatch,
  timestampMs: number,
  logStart: number,
): { offset: number; timestampMs: number } | null {
  if (compressionOf(batch.attributes) !== 0) {
    return { offset: Math.max(batch.baseOffset, logStart), timestampMs: batch.maxTimestampMs };
  }
  const copy = Buffer.allocUnsafe(batch.length);
  copyBatches([batch], copy, 0, 0);
  let found: { offset: number; timestampMs: number } | null = null;
  readRecords(copy, 0, (record) => {
    if (found || record.timestampMs < timestampMs || record.offset < logStart) return;
    found = { offset: record.offset, timestampMs: record.timestampMs };
  });
  return found;
}

function failed(error: StreamHouseError): PartResult {
  return { logStart: 0, nextOffset: 0, batches: [], length: 0, error: error.toPlain() };
}
