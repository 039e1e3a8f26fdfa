/**
 * Judges one object and the segments that name it. Owns: that. Does not own: which segments those are, nor the
 * order of objects (object-pass). Reads an object once: small ones whole, large ones in windows. Main thread.
 *
 * Readers fetch slices by position and never need the directory: a damaged directory is told, and the slices are
 * judged all the same. The row is the metadata's word, the directory the writer's; both must agree with the log.
 */
import type { ListedObject } from '../../storage/metadata/metadata-store.ts';
import {
  type BatchObjectDirectory,
  type BatchObjectSlice,
  decodeBatchObject,
  readDirectory,
  verifySlice,
} from '../../storage/objects/batch-object.ts';
import { batchObjectKey } from '../../storage/objects/object-key.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { batchesOfSlice, type PlacedBatch } from '../../workers/slice-batches.ts';
import { StreamHouseError } from '../core/errors.ts';
import { type ObjectId, partitionOfKey, topicIdOfKey } from '../core/ids.ts';
import { compressionOf, readRecords } from '../core/record-batch.ts';
import type { Finding, FindingKind, Place } from './finding.ts';
import { messageOf } from './shard-fold.ts';

/** Larger objects are read in windows. */
export const WHOLE_BYTES_MAX = 16 * 1024 * 1024;
const WINDOW_BYTES = 8 * 1024 * 1024;

/** A segment of the object. */
export interface CheckedSegment {
  shard: number;
  key: number;
  baseOffset: number;
  recordCount: number;
  position: number;
  length: number;
  /** Under which it was committed; 0: not known. */
  epoch: number;
  /** As the entry says; NaN: not known. */
  maxTimestampMs: number;
}

export interface ObjectCounts {
  objects: number;
  objectBytes: number;
  slices: number;
  batches: number;
  records: number;
  compressedBatches: number;
}

export interface ObjectCheckParts {
  objects: ObjectStore;
  deep: boolean;
  counts: ObjectCounts;
  find(finding: Finding): void;
}

/** The bytes of an object, as far as they can be had. */
interface ObjectBytes {
  bytes: number;
  read(position: number, length: number): Promise<Buffer>;
}

/** Findings go to `parts.find`; rejects only if the store does not answer. Segments are ordered by position. */
export async function checkObject(
  parts: ObjectCheckParts,
  id: ObjectId,
  row: ListedObject | null,
  segments: readonly CheckedSegment[],
): Promise<void> {
  await new ObjectCheck(parts, id, row, segments).run();
}

class ObjectCheck {
  readonly #parts: ObjectCheckParts;
  readonly #id: ObjectId;
  readonly #key: string;
  readonly #row: ListedObject | null;
  readonly #segments: readonly CheckedSegment[];
  readonly #checkedSlices = new Map<BatchObjectSlice, string | null>();

  constructor(
    parts: ObjectCheckParts,
    id: ObjectId,
    row: ListedObject | null,
    segments: readonly CheckedSegment[],
  ) {
    this.#parts = parts;
    this.#id = id;
    this.#key = batchObjectKey(id.incarnation, id.number);
    this.#row = row;
    this.#segments = segments;
  }

  #find(kind: FindingKind, place: Place, expected: string, found: string): void {
    this.#parts.find({ kind, ...place, object: this.#key, expected, found });
  }

  #findAt(segment: CheckedSegment, kind: FindingKind, expected: string, found: string): void {
    this.#find(kind, placeOf(segment), expected, found);
  }

  async run(): Promise<void> {
    this.#checkRow();
    this.#checkShared();
    let read: { bytes: ObjectBytes; directory: BatchObjectDirectory | null };
    try {
      read = await this.#open();
    } catch (error) {
      if (!(error instanceof StreamHouseError) || error.code !== 'object-not-found') throw error;
      const found = `nothing, and ${this.#segments.length} segments name it`;
      this.#find('object-missing', placeOf(this.#segments[0]), 'an object', found);
      return;
    }
    const { counts } = this.#parts;
    counts.objects++;
    counts.objectBytes += read.bytes.bytes;
    for (const segment of this.#segments) await this.#checkSegment(segment, read.bytes, read.directory);
  }

  // -- Row ---------------------------------------------------------------------------------------------

  #checkRow(): void {
    const row = this.#row;
    if (row === null) {
      const found = `none, and ${this.#segments.length} segments name the object`;
      this.#find('object-row-missing', placeOf(this.#segments[0]), 'a row', found);
      return;
    }
    const seen = new Set<string>();
    for (const segment of this.#segments) {
      const { shard, epoch } = segment;
      const name = `${shard}/${epoch}`;
      if (seen.has(name)) continue;
      seen.add(name);
      const reference = row.shards.find((candidate) => candidate.shard === shard);
      if (!reference) {
        const found = row.shards.map((candidate) => candidate.shard).join(', ');
        const expected = `a reference of shard ${shard}`;
        this.#findAt(
          segment,
          'object-reference-missing',
          expected,
          found === '' ? 'none' : `shards ${found}`,
        );
      } else if (epoch > 0 && reference.epoch !== epoch) {
        const expected = `epoch ${epoch}, that of its entry`;
        this.#findAt(segment, 'object-epoch', expected, `sealed under epoch ${reference.epoch}`);
      }
    }
  }

  #checkShared(): void {
    let before: CheckedSegment | null = null;
    for (const segment of this.#segments) {
      if (before !== null && segment.position < before.position + before.length) {
        const { topicId, partition, offset } = placeOf(before);
        const found = `shared with topic ${topicId} partition ${partition} offset ${offset}`;
        this.#findAt(segment, 'slice-shared', 'bytes of its own', found);
      }
      if (before === null || segment.position + segment.length > before.position + before.length) {
        before = segment;
      }
    }
  }

  // -- Object ------------------------------------------------------------------------------------------

  async #open(): Promise<{ bytes: ObjectBytes; directory: BatchObjectDirectory | null }> {
    const { objects } = this.#parts;
    const size = this.#row?.bytes ?? (await this.#listedBytes());
    let bytes: ObjectBytes;
    let decode: () => BatchObjectDirectory | Promise<BatchObjectDirectory>;
    if (size <= WHOLE_BYTES_MAX) {
      const whole = await objects.get(this.#key);
      bytes = {
        bytes: whole.length,
        read: async (position, length) => whole.subarray(position, position + length),
      };
      decode = () => decodeBatchObject(whole);
    } else {
      const there = await this.#listedBytes();
      bytes = windowed(objects, this.#key, there);
      decode = () => readDirectory(objects, this.#key, there);
    }
    if (this.#row !== null && bytes.bytes !== this.#row.bytes) {
      this.#find('object-mismatch', {}, `${this.#row.bytes} bytes, as its row says`, `${bytes.bytes} bytes`);
    }
    return { bytes, directory: await this.#directory(decode) };
  }

  async #listedBytes(): Promise<number> {
    const [listed] = await this.#parts.objects.list(this.#key, { limit: 1 });
    if (listed?.key !== this.#key)
      throw new StreamHouseError('object-not-found', `object ${this.#key} is not there`);
    return listed.bytes;
  }

  async #directory(
    decode: () => BatchObjectDirectory | Promise<BatchObjectDirectory>,
  ): Promise<BatchObjectDirectory | null> {
    let directory: BatchObjectDirectory;
    try {
      directory = await decode();
    } catch (error) {
      if (error instanceof StreamHouseError && error.kind !== 'corrupt') throw error;
      this.#find('object-corrupt', {}, 'a batch object', messageOf(error));
      return null;
    }
    const { incarnation, number } = directory.header;
    if (incarnation !== this.#id.incarnation || number !== this.#id.number) {
      const found = `object ${incarnation}-${number}`;
      this.#find('object-mismatch', {}, `object ${this.#id.incarnation}-${this.#id.number}`, found);
    }
    return directory;
  }

  // -- Slices ------------------------------------------------------------------------------------------

  async #checkSegment(
    segment: CheckedSegment,
    object: ObjectBytes,
    directory: BatchObjectDirectory | null,
  ): Promise<void> {
    const { position, length, baseOffset, recordCount } = segment;
    const range = `bytes ${position} to ${position + length}`;
    if (position + length > object.bytes) {
      const found = `${range} of ${object.bytes}`;
      this.#findAt(segment, 'slice-outside-directory', 'bytes within the object', found);
      return;
    }
    const slice = directory === null ? null : sliceAround(directory.slices, segment);
    if (directory !== null && slice === null) {
      const { topicId, partition } = placeOf(segment);
      const expected = `a slice of topic ${topicId} partition ${partition} around ${range}`;
      this.#findAt(segment, 'slice-outside-directory', expected, nearText(directory.slices, position));
    }
    const wrong = slice === null ? null : await this.#sliceFault(slice, object);
    if (wrong !== null) {
      this.#findAt(segment, 'slice-corrupt', 'bytes that fit their checksum', wrong);
      return;
    }
    const bytes = await object.read(position, length);
    let batches: PlacedBatch[];
    try {
      batches = batchesOfSlice(bytes, baseOffset, baseOffset + recordCount);
    } catch (error) {
      this.#findAt(segment, 'slice-corrupt', `batches of ${recordCount} records`, messageOf(error));
      return;
    }
    this.#checkContents(segment, slice, batches);
    const { counts } = this.#parts;
    counts.slices++;
    counts.batches += batches.length;
    counts.records += recordCount;
  }

  /** Why a slice of the directory is damaged, or null; each slice is summed once. */
  async #sliceFault(slice: BatchObjectSlice, object: ObjectBytes): Promise<string | null> {
    const known = this.#checkedSlices.get(slice);
    if (known !== undefined) return known;
    let fault: string | null = null;
    try {
      verifySlice(await object.read(slice.position, slice.length), slice);
    } catch (error) {
      if (error instanceof StreamHouseError && error.kind !== 'corrupt') throw error;
      fault = messageOf(error);
    }
    this.#checkedSlices.set(slice, fault);
    return fault;
  }

  #checkContents(
    segment: CheckedSegment,
    slice: BatchObjectSlice | null,
    batches: readonly PlacedBatch[],
  ): void {
    const { recordCount, position, length, maxTimestampMs } = segment;
    const isWhole = slice !== null && slice.position === position && slice.length === length;
    if (isWhole && slice.recordCount !== recordCount) {
      const expected = `${recordCount} records, as the log says`;
      this.#findAt(segment, 'slice-corrupt', expected, `${slice.recordCount} in the directory`);
    }
    let newest = Number.NEGATIVE_INFINITY;
    for (const batch of batches) newest = Math.max(newest, batch.maxTimestampMs);
    const claimed = Number.isNaN(maxTimestampMs) ? null : maxTimestampMs;
    if (claimed !== null && claimed !== newest) {
      const expected = `the maximum timestamp ${claimed}, as the log says`;
      this.#findAt(segment, 'slice-corrupt', expected, `${newest} in its batches`);
    }
    if (this.#parts.deep) for (const batch of batches) this.#checkRecords(segment, batch);
  }

  /** Every record decodes, has the offset of its place, and is not newer than its batch says. */
  #checkRecords(segment: CheckedSegment, batch: PlacedBatch): void {
    if (compressionOf(batch.attributes) !== 0) {
      this.#parts.counts.compressedBatches++;
      return;
    }
    let next: number | null = null;
    let fault: string | null = null;
    try {
      readRecords(batch.bytes, batch.position, ({ offset, timestampMs }) => {
        if (next !== null && offset !== next) fault ??= `a record at ${offset} where ${next} follows`;
        if (timestampMs > batch.maxTimestampMs) fault ??= `a record of ${timestampMs} in a batch up to less`;
        next = offset + 1;
      });
    } catch (error) {
      fault = messageOf(error);
    }
    if (fault !== null) this.#findAt(segment, 'slice-corrupt', 'records that decode in order', fault);
  }
}

function placeOf({ shard, key, baseOffset }: CheckedSegment): Place {
  return { shard, topicId: topicIdOfKey(key), partition: partitionOfKey(key), offset: baseOffset };
}

/** The directory's slice that begins at or last before `position`; -1 if all begin after it. */
function indexBefore(slices: readonly BatchObjectSlice[], position: number): number {
  let low = 0;
  let high = slices.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (slices[middle].position <= position) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** The directory's slice of the segment's partition in which it lies. */
function sliceAround(slices: readonly BatchObjectSlice[], segment: CheckedSegment): BatchObjectSlice | null {
  const slice = slices[indexBefore(slices, segment.position)];
  if (slice === undefined || slice.position + slice.length < segment.position + segment.length) return null;
  const isOwn =
    slice.topicId === topicIdOfKey(segment.key) && slice.partition === partitionOfKey(segment.key);
  return isOwn ? slice : null;
}

function nearText(slices: readonly BatchObjectSlice[], position: number): string {
  const slice = slices[indexBefore(slices, position)];
  if (slice === undefined) return 'no slice there';
  const { topicId, partition, position: at, length } = slice;
  return `topic ${topicId} partition ${partition} at bytes ${at} to ${at + length}`;
}

/** Reads in windows: segments come in the order of their positions, so each byte is read about once. */
function windowed(objects: ObjectStore, key: string, bytes: number): ObjectBytes {
  let start = 0;
  let window: Buffer = Buffer.alloc(0);
  return {
    bytes,
    async read(position, length) {
      if (position < start || position + length > start + window.length) {
        const want = Math.max(length, Math.min(WINDOW_BYTES, bytes - position));
        window = await objects.get(key, { position, length: want });
        start = position;
      }
      return window.subarray(position - start, position - start + length);
    },
  };
}
