/**
 * Plans the next Slices entry of a shard from what is queued: which batches are accepted, at which offsets, and
 * what every append is answered. Owns: that decision. Pure: it reads the state and changes nothing but the queue.
 * Does not own: appending (shard-holder). Runs in the batching worker.
 *
 * The state holds committed entries only, and there is one append in flight, so the decision is exact. Accepted
 * batches of a partition that lie one after the other in the object become one slice of the entry; a refused
 * batch between them splits it. Batches accepted earlier in the same plan count for those that follow.
 */
import type { ErrorCode } from '../src/core/errors.ts';
import type { ObjectShard } from '../storage/metadata/metadata-store.ts';
import { AnswerWriter } from './append-codec.ts';
import type { SealedObject, SealedSlice } from './batch-builder.ts';
import {
  ENTRY_PRODUCER_BATCH_BYTES_MAX,
  ENTRY_SLICE_BYTES_MAX,
  type EntrySlice,
  type SlicesEntry,
} from './entry-codec.ts';
import { decide, PRODUCER_BATCHES_MAX, type ProducerState, type ShardState } from './shard-state.ts';

/** When and for which shards, under which epochs, an object was sealed. */
export interface Sealing {
  sealedWallMs: number;
  /** Monotonic. */
  sealedAtMs: number;
  shards: ObjectShard[];
}

/** One shard's part of a sealed and uploaded object. */
export interface QueuedPart {
  object: SealedObject;
  sealing: Sealing;
  shard: number;
  /** Under which the object was sealed for this shard; it may be committed under no other. */
  epoch: number;
  slices: SealedSlice[];
}

/** Answers by lane. */
export type PlannedAnswers = Map<number, AnswerWriter>;

export interface SlicesPlan {
  /** null: nothing was accepted, no entry is needed. */
  body: SlicesEntry | null;
  answers: PlannedAnswers;
  /** The parts that were taken from the queue. */
  parts: QueuedPart[];
  duplicates: number;
  refused: number;
}

export type WasAbandoned = (key: number, producerId: number, objectNumber: number) => boolean;

/** Takes parts from the queue's front, as many as surely fit an entry of `bodyBytesMax`; null: the queue is empty. */
export function planSlices(
  state: ShardState,
  queue: QueuedPart[],
  bodyBytesMax: number,
  wasAbandoned: WasAbandoned,
): SlicesPlan | null {
  if (queue.length === 0) return null;
  let bytes = 0;
  let taken = 0;
  for (; taken < queue.length; taken++) {
    bytes += partBytesMax(queue[taken]);
    if (taken > 0 && bytes > bodyBytesMax) break;
  }
  const parts = queue.splice(0, taken);
  const planner = new Planner(state, wasAbandoned);
  for (const part of parts) planner.addPart(part);
  return planner.finish(parts);
}

function partBytesMax(part: QueuedPart): number {
  let bytes = 128;
  for (const slice of part.slices) {
    const { firstAppend, appendCount } = slice;
    bytes += ENTRY_SLICE_BYTES_MAX;
    for (let a = firstAppend; a < firstAppend + appendCount; a++) {
      // Every producer's batch may be refused and so split the slice once more.
      if (part.object.appends.producerId[a] >= 0)
        bytes += ENTRY_PRODUCER_BATCH_BYTES_MAX + ENTRY_SLICE_BYTES_MAX;
    }
  }
  return bytes;
}

class Planner {
  readonly #state: ShardState;
  readonly #wasAbandoned: WasAbandoned;
  readonly #body: SlicesEntry = { kind: 'slices', objects: [], slices: [], producerBatches: [] };
  readonly #answers: PlannedAnswers = new Map();
  readonly #next = new Map<number, number>();
  readonly #producers = new Map<string, ProducerState>();
  #duplicates = 0;
  #refused = 0;

  constructor(state: ShardState, wasAbandoned: WasAbandoned) {
    this.#state = state;
    this.#wasAbandoned = wasAbandoned;
  }

  finish(parts: QueuedPart[]): SlicesPlan {
    const body = this.#body.slices.length > 0 ? this.#body : null;
    return { body, answers: this.#answers, parts, duplicates: this.#duplicates, refused: this.#refused };
  }

  addPart(part: QueuedPart): void {
    const { object } = part;
    let objectIndex = -1;
    for (const slice of part.slices) {
      let position = slice.position;
      let open: EntrySlice | null = null;
      let next = this.#next.get(slice.key) ?? this.#state.nextOffset(slice.key);
      const { appends } = object;
      for (let a = slice.firstAppend; a < slice.firstAppend + slice.appendCount; a++) {
        const length = appends.length[a];
        if (this.#accepts(object, slice, a)) {
          if (open === null) {
            if (objectIndex < 0) objectIndex = this.#body.objects.push(object.id) - 1;
            open = this.#openSlice(slice, objectIndex, next, position);
          }
          this.#answer(object, a, null, next);
          this.#extend(open, object, a, slice.key);
          next += appends.recordCount[a];
        } else {
          open = null;
        }
        position += length;
      }
      this.#next.set(slice.key, next);
    }
  }

  #openSlice(slice: SealedSlice, objectIndex: number, baseOffset: number, position: number): EntrySlice {
    const opened: EntrySlice = {
      topicId: slice.topicId,
      partition: slice.partition,
      objectIndex,
      baseOffset,
      recordCount: 0,
      position,
      length: 0,
      maxTimestampMs: Number.NEGATIVE_INFINITY,
    };
    this.#body.slices.push(opened);
    return opened;
  }

  /** Adds append `a` to the end of the open slice, and to what is known of its producer. */
  #extend(open: EntrySlice, object: SealedObject, a: number, key: number): void {
    const { appends } = object;
    const recordCount = appends.recordCount[a];
    const producerId = appends.producerId[a];
    if (producerId >= 0) {
      const baseSequence = appends.baseSequence[a];
      const producerEpoch = appends.producerEpoch[a];
      this.#body.producerBatches.push({
        sliceIndex: this.#body.slices.length - 1,
        offsetInSlice: open.recordCount,
        recordCount,
        producerId,
        producerEpoch,
        baseSequence,
      });
      this.#remember(
        key,
        producerId,
        producerEpoch,
        baseSequence,
        recordCount,
        open.baseOffset + open.recordCount,
      );
    }
    open.recordCount += recordCount;
    open.length += appends.length[a];
    open.maxTimestampMs = Math.max(open.maxTimestampMs, appends.maxTimestampMs[a]);
  }

  #remember(
    key: number,
    producerId: number,
    producerEpoch: number,
    baseSequence: number,
    recordCount: number,
    baseOffset: number,
  ): void {
    const before = this.#producer(key, producerId);
    const batches = before && before.producerEpoch === producerEpoch ? [...before.batches] : [];
    batches.push({ baseSequence, recordCount, baseOffset });
    if (batches.length > PRODUCER_BATCHES_MAX) batches.shift();
    const known = { partitionKey: key, producerId, producerEpoch, lastTimeMs: this.#state.timeMs, batches };
    this.#producers.set(`${key}/${producerId}`, known);
  }

  #producer(key: number, producerId: number): ProducerState | undefined {
    return this.#producers.get(`${key}/${producerId}`) ?? this.#state.producer(key, producerId);
  }

  /** Whether append `a` gets offsets; if not, it is answered here. */
  #accepts(object: SealedObject, slice: SealedSlice, a: number): boolean {
    const { appends } = object;
    if (this.#state.deletedTopics.has(slice.topicId)) return this.#refuse(object, a, 'topic-not-found');
    const producerId = appends.producerId[a];
    if (producerId < 0) return true;
    const stamp = {
      producerId,
      producerEpoch: appends.producerEpoch[a],
      baseSequence: appends.baseSequence[a],
    };
    const decision = decide(this.#producer(slice.key, producerId), stamp, appends.recordCount[a]);
    if (decision.kind === 'duplicate') {
      this.#duplicates++;
      this.#answer(object, a, null, decision.baseOffset);
      return false;
    }
    // It follows one that was given up: it fails as that one did, whatever its sequence looks like now.
    if (this.#wasAbandoned(slice.key, producerId, object.id.number)) {
      return this.#refuse(object, a, 'append-abandoned');
    }
    return decision.kind === 'accept' ? true : this.#refuse(object, a, decision.code);
  }

  #refuse(object: SealedObject, a: number, code: ErrorCode): false {
    this.#refused++;
    this.#answer(object, a, code, -1);
    return false;
  }

  #answer(object: SealedObject, a: number, code: ErrorCode | null, baseOffset: number): void {
    const lane = object.appends.lane[a];
    let writer = this.#answers.get(lane);
    if (!writer) {
      writer = new AnswerWriter();
      this.#answers.set(lane, writer);
    }
    writer.add(object.appends.slot[a], object.appends.generation[a], code, baseOffset);
  }
}
