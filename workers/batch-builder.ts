/**
 * Builds one batch object from the appends of a window. Owns: gathering appends by partition as they arrive, and
 * at sealing the object's bytes (in shared memory, each partition's batches together) and the columns that the
 * commit needs. Does not own: when to seal (flush-policy), offsets (shard-holder), I/O. Runs in the batching
 * worker.
 *
 * Appends stay where they arrived (the lanes' messages) until sealing; then each batch is copied once, into the
 * object. A partition's appends keep the order of their arrival.
 */

import { crc32c } from '../src/core/crc32c.ts';
import { type ObjectId, partitionKey } from '../src/core/ids.ts';
import {
  BATCH_OBJECT_HEADER_BYTES,
  BatchObjectTailEncoder,
  encodeHeader,
} from '../storage/objects/batch-object.ts';
import {
  APPEND_HEADER_BYTES,
  type AppendHeader,
  blankAppendHeader,
  bufferOver,
  readAppendHeader,
} from './append-codec.ts';

/** One partition's part of a sealed object: appends [firstAppend, firstAppend + appendCount) of its columns. */
export interface SealedSlice {
  key: number;
  topicId: number;
  partition: number;
  shard: number;
  firstAppend: number;
  appendCount: number;
  /** Position in the object, bytes. */
  position: number;
}

/** The appends of a sealed object in the object's order, in columns. */
export interface SealedAppends {
  readonly lane: Uint8Array;
  readonly slot: Uint32Array;
  readonly generation: Uint32Array;
  readonly recordCount: Uint32Array;
  /** Bytes of its batch; batches of a slice lie one after the other. */
  readonly length: Uint32Array;
  readonly maxTimestampMs: Float64Array;
  /** -1: none. */
  readonly producerId: Float64Array;
  readonly producerEpoch: Int16Array;
  readonly baseSequence: Int32Array;
}

export interface SealedObject {
  readonly id: ObjectId;
  /** The whole object, over shared memory; empty once it is stored and the lanes have it. */
  bytes: Buffer;
  readonly byteLength: number;
  readonly slices: SealedSlice[];
  readonly appends: SealedAppends;
  readonly recordCount: number;
}

/** A partition's appends while the batch is open: indices into the arrival columns. */
interface OpenSlice {
  key: number;
  topicId: number;
  partition: number;
  shard: number;
  bytes: number;
  arrivals: number[];
}

export class BatchBuilder {
  #slices = new Map<number, OpenSlice>();
  /** Arrival columns: which message, and where its header is. */
  #chunks: Buffer[] = [];
  #chunkLanes: number[] = [];
  #arrivalChunk: number[] = [];
  #arrivalPosition: number[] = [];
  #bytes = 0;

  /** Bytes of record batches so far. */
  get bytes(): number {
    return this.#bytes;
  }

  get sliceCount(): number {
    return this.#slices.size;
  }

  get appendCount(): number {
    return this.#arrivalChunk.length;
  }

  /** Announces a lane's message whose appends follow. */
  beginChunk(lane: number, chunk: Buffer): void {
    // Messages none of whose appends were added, or whose shards were lost, would be kept until the next sealing.
    if (this.#slices.size === 0) this.#reset();
    this.#chunks.push(chunk);
    this.#chunkLanes.push(lane);
  }

  /** Adds the append whose header lies at `position` of the chunk begun last. */
  add(header: AppendHeader, shard: number, position: number): void {
    const key = partitionKey(header.topicId, header.partition);
    let slice = this.#slices.get(key);
    if (!slice) {
      slice = { key, topicId: header.topicId, partition: header.partition, shard, bytes: 0, arrivals: [] };
      this.#slices.set(key, slice);
    }
    slice.arrivals.push(this.#arrivalChunk.length);
    slice.bytes += header.dataBytes;
    this.#bytes += header.dataBytes;
    this.#arrivalChunk.push(this.#chunks.length - 1);
    this.#arrivalPosition.push(position);
  }

  /** Takes out all appends of a shard (it was lost), calling `each` with their tokens. */
  removeShard(shard: number, each: (lane: number, slot: number, generation: number) => void): void {
    const header = blankAppendHeader();
    for (const [key, slice] of this.#slices) {
      if (slice.shard !== shard) continue;
      for (const arrival of slice.arrivals) {
        const chunk = this.#arrivalChunk[arrival];
        readAppendHeader(this.#chunks[chunk], this.#arrivalPosition[arrival], header);
        each(this.#chunkLanes[chunk], header.slot, header.generation);
      }
      this.#bytes -= slice.bytes;
      this.#slices.delete(key);
    }
  }

  /** Whether there are appends of any of these shards. */
  hasShardOf(shards: ReadonlySet<number>): boolean {
    for (const { shard } of this.#slices.values()) if (shards.has(shard)) return true;
    return false;
  }

  /** Makes the object of everything gathered, at least one append, and starts afresh. */
  seal(id: ObjectId): SealedObject {
    const object = this.#objectOf(id, this.#openSlices());
    this.#reset();
    return object;
  }

  /** The same as an object for each partition. */
  sealApart(nextId: () => ObjectId): SealedObject[] {
    const objects = this.#openSlices().map((slice) => this.#objectOf(nextId(), [slice]));
    this.#reset();
    return objects;
  }

  /** In the order of an object's directory. */
  #openSlices(): OpenSlice[] {
    return [...this.#slices.values()].sort((a, b) => a.key - b.key);
  }

  #objectOf(id: ObjectId, open: OpenSlice[]): SealedObject {
    let count = 0;
    for (const slice of open) count += slice.arrivals.length;
    const appends = blankAppends(count);
    const tail = new BatchObjectTailEncoder(id, open.length);
    const slices: SealedSlice[] = new Array(open.length);
    const header = blankAppendHeader();
    let position = BATCH_OBJECT_HEADER_BYTES;
    let recordCount = 0;
    let index = 0;
    for (let i = 0; i < open.length; i++) {
      const slice = open[i];
      const { key, topicId, partition, shard } = slice;
      slices[i] = {
        key,
        topicId,
        partition,
        shard,
        firstAppend: index,
        appendCount: slice.arrivals.length,
        position,
      };
      let records = 0;
      let crc = 0;
      let minTimestampMs = Number.POSITIVE_INFINITY;
      let maxTimestampMs = Number.NEGATIVE_INFINITY;
      for (const arrival of slice.arrivals) {
        const chunkIndex = this.#arrivalChunk[arrival];
        const chunk = this.#chunks[chunkIndex];
        const at = this.#arrivalPosition[arrival];
        readAppendHeader(chunk, at, header);
        minTimestampMs = Math.min(minTimestampMs, chunk.readDoubleLE(at + 48));
        const appendMaxMs = chunk.readDoubleLE(at + 56);
        if (appendMaxMs > maxTimestampMs) maxTimestampMs = appendMaxMs;
        crc = crc32c(chunk, at + APPEND_HEADER_BYTES, at + APPEND_HEADER_BYTES + header.dataBytes, crc);
        records += header.recordCount;
        appends.lane[index] = this.#chunkLanes[chunkIndex];
        appends.slot[index] = header.slot;
        appends.generation[index] = header.generation;
        appends.recordCount[index] = header.recordCount;
        appends.length[index] = header.dataBytes;
        appends.maxTimestampMs[index] = appendMaxMs;
        appends.producerId[index] = header.producerId;
        appends.producerEpoch[index] = header.producerEpoch;
        appends.baseSequence[index] = header.baseSequence;
        index++;
      }
      tail.add(topicId, partition, position, slice.bytes, records, minTimestampMs, maxTimestampMs, crc);
      position += slice.bytes;
      recordCount += records;
    }
    const bytes = this.#copyObject(id, open, position, tail.finish(position));
    return { id, bytes, byteLength: bytes.length, slices, appends, recordCount };
  }

  #copyObject(id: ObjectId, open: OpenSlice[], slicesEnd: number, tail: Uint8Array): Buffer {
    const bytes = Buffer.from(new SharedArrayBuffer(slicesEnd + tail.length));
    bytes.set(encodeHeader(id), 0);
    let position = BATCH_OBJECT_HEADER_BYTES;
    for (const slice of open) {
      for (const arrival of slice.arrivals) {
        const chunk = this.#chunks[this.#arrivalChunk[arrival]];
        const at = this.#arrivalPosition[arrival];
        const length = chunk.readUInt32LE(at + 24);
        position += chunk.copy(bytes, position, at + APPEND_HEADER_BYTES, at + APPEND_HEADER_BYTES + length);
      }
    }
    bytes.set(tail, slicesEnd);
    return bytes;
  }

  #reset(): void {
    this.#slices = new Map();
    this.#chunks = [];
    this.#chunkLanes = [];
    this.#arrivalChunk = [];
    this.#arrivalPosition = [];
    this.#bytes = 0;
  }
}

function blankAppends(count: number): SealedAppends {
  return {
    lane: new Uint8Array(count),
    slot: new Uint32Array(count),
    generation: new Uint32Array(count),
    recordCount: new Uint32Array(count),
    length: new Uint32Array(count),
    maxTimestampMs: new Float64Array(count),
    producerId: new Float64Array(count),
    producerEpoch: new Int16Array(count),
    baseSequence: new Int32Array(count),
  };
}

/** Calls `each` for every append of a lane's message with its header (one object, reused) and position. */
export function forEachAppend(
  message: Uint8Array,
  each: (header: AppendHeader, position: number) => void,
): void {
  const bytes = bufferOver(message);
  const header = blankAppendHeader();
  for (let at = 0; at < bytes.length; at += APPEND_HEADER_BYTES + header.dataBytes) {
    readAppendHeader(bytes, at, header);
    each(header, at);
  }
}
