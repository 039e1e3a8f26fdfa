/**
 * The state of one shard as the fold of its log: next offsets, log starts, page bounds, producers, deleted
 * topics. Owns: `apply` (pure in its meaning: the same entries give the same state, whoever replays them) and
 * `decide` (what to answer to an idempotent producer's batch). Does not own: how entries get into the log
 * (shard-holder) nor the index (index/). Runs in the batching worker, and wherever a log is replayed.
 */
import { emptyFold, foldAppend, foldLogStart, type PartitionFold } from '../index/page-fold.ts';
import type { ErrorCode } from '../src/core/errors.ts';
import { StreamHouseError } from '../src/core/errors.ts';
import { partitionKey, topicIdOfKey } from '../src/core/ids.ts';
import type { ProducerStamp } from '../src/core/record-batch.ts';
import type { Entry, EntryProducerBatch, EntrySlice } from './entry-codec.ts';

/** Batches remembered per producer and partition, as many as Kafka's clients keep in flight. */
export const PRODUCER_BATCHES_MAX = 5;

/** Producers (per partition) remembered by one shard; the one unused for longest goes first. About 200 bytes each. */
export const PRODUCERS_PER_SHARD_MAX = 65_536;

/** A producer unused for this long by the entries' own times is forgotten; Kafka's producer.id.expiration.ms. */
export const PRODUCER_EXPIRY_MS = 24 * 60 * 60 * 1000;

/** A deleted topic's id is refused for this long: longer than any broker's catalogue cache lives. */
export const DELETED_TOPIC_EXPIRY_MS = 24 * 60 * 60 * 1000;

/** A committed batch of an idempotent producer. */
export interface ProducerBatch {
  baseSequence: number;
  recordCount: number;
  baseOffset: number;
}

/** What a shard knows of one producer in one partition. */
export interface ProducerState {
  partitionKey: number;
  producerId: number;
  producerEpoch: number;
  lastTimeMs: number;
  /** Oldest first, at most PRODUCER_BATCHES_MAX. */
  batches: ProducerBatch[];
}

/** What to do with a producer's batch. */
export type Decision =
  | { kind: 'accept' }
  | { kind: 'duplicate'; baseOffset: number }
  | { kind: 'refuse'; code: ErrorCode; message: string };

const ACCEPT: Decision = { kind: 'accept' };

/** Sequence numbers are 31 bits and wrap to 0. */
export function sequenceAfter(baseSequence: number, recordCount: number): number {
  return (baseSequence + recordCount) % 2147483648;
}

export class ShardState {
  readonly shard: number;
  /** The newest applied entry. */
  seq = 0;
  /** The epoch of the newest Takeover applied. */
  epoch = 0;
  /** The greatest holder's time of any entry: the only clock by which anything here expires. */
  timeMs = 0;
  readonly partitions = new Map<number, PartitionFold>();
  /** By partition and producer, the one used least recently first. */
  readonly producers = new Map<string, ProducerState>();
  /** Topic id -> time of its deletion, oldest first. */
  readonly deletedTopics = new Map<number, number>();

  constructor(shard: number) {
    this.shard = shard;
  }

  nextOffset(key: number): number {
    return this.partitions.get(key)?.nextOffset ?? 0;
  }

  producer(key: number, producerId: number): ProducerState | undefined {
    return this.producers.get(producerKey(key, producerId));
  }

  /**
   * Applies the next entry. Entries come from the log, so what does not fit is damage: 'corrupt-entry'. Nothing
   * is changed by an entry that is refused before its slices are reached.
   */
  apply(entry: Entry): void {
    if (entry.shard !== this.shard || entry.seq !== this.seq + 1) {
      throw this.#corrupt(entry, `does not follow seq ${this.seq} of shard ${this.shard}`);
    }
    if (entry.epoch < this.epoch)
      throw this.#corrupt(entry, `epoch ${entry.epoch} after epoch ${this.epoch}`);
    if (entry.timeMs > this.timeMs) this.timeMs = entry.timeMs;
    switch (entry.kind) {
      case 'slices':
        for (const slice of entry.slices) this.#applySlice(entry, slice);
        for (const batch of entry.producerBatches)
          this.#applyProducerBatch(entry.slices[batch.sliceIndex], batch);
        break;
      case 'takeover':
        this.epoch = entry.epoch;
        break;
      case 'log-start':
        for (const start of entry.starts) {
          const fold = this.partitions.get(partitionKey(start.topicId, start.partition));
          if (fold) foldLogStart(fold, start.logStart);
        }
        break;
      case 'topic-deleted':
        this.#applyTopicDeleted(entry.topicId);
        break;
      case 'merged':
        for (const slice of entry.slices) this.#checkMerged(entry, slice);
        break;
    }
    this.#expire();
    this.seq = entry.seq;
  }

  #applySlice(entry: Entry, slice: EntrySlice): void {
    const key = partitionKey(slice.topicId, slice.partition);
    let fold = this.partitions.get(key);
    if (!fold) {
      fold = emptyFold(slice.topicId, slice.partition);
      this.partitions.set(key, fold);
    }
    if (slice.baseOffset !== fold.nextOffset) {
      throw this.#corrupt(
        entry,
        `topic ${slice.topicId} partition ${slice.partition}: base ${slice.baseOffset}, next offset ${fold.nextOffset}`,
      );
    }
    foldAppend(fold, slice.recordCount, slice.maxTimestampMs);
  }

  #applyProducerBatch(slice: EntrySlice, batch: EntryProducerBatch): void {
    const key = partitionKey(slice.topicId, slice.partition);
    const name = producerKey(key, batch.producerId);
    let producer = this.producers.get(name);
    if (producer) this.producers.delete(name);
    if (!producer || producer.producerEpoch !== batch.producerEpoch) {
      producer = {
        partitionKey: key,
        producerId: batch.producerId,
        producerEpoch: batch.producerEpoch,
        lastTimeMs: this.timeMs,
        batches: [],
      };
    }
    producer.lastTimeMs = this.timeMs;
    producer.batches.push({
      baseSequence: batch.baseSequence,
      recordCount: batch.recordCount,
      baseOffset: slice.baseOffset + batch.offsetInSlice,
    });
    if (producer.batches.length > PRODUCER_BATCHES_MAX) producer.batches.shift();
    this.producers.set(name, producer);
  }

  #applyTopicDeleted(topicId: number): void {
    for (const key of this.partitions.keys()) if (topicIdOfKey(key) === topicId) this.partitions.delete(key);
    for (const [name, producer] of this.producers) {
      if (topicIdOfKey(producer.partitionKey) === topicId) this.producers.delete(name);
    }
    this.deletedTopics.delete(topicId);
    this.deletedTopics.set(topicId, this.timeMs);
  }

  #checkMerged(entry: Entry, slice: EntrySlice): void {
    const fold = this.partitions.get(partitionKey(slice.topicId, slice.partition));
    if (fold && slice.baseOffset + slice.recordCount > fold.nextOffset) {
      throw this.#corrupt(
        entry,
        `merges beyond the end of topic ${slice.topicId} partition ${slice.partition}`,
      );
    }
  }

  #expire(): void {
    for (const [name, producer] of this.producers) {
      const expired = producer.lastTimeMs + PRODUCER_EXPIRY_MS < this.timeMs;
      if (!expired && this.producers.size <= PRODUCERS_PER_SHARD_MAX) break;
      this.producers.delete(name);
    }
    for (const [topicId, deletedMs] of this.deletedTopics) {
      if (deletedMs + DELETED_TOPIC_EXPIRY_MS >= this.timeMs) break;
      this.deletedTopics.delete(topicId);
    }
  }

  #corrupt(entry: Entry, what: string): StreamHouseError {
    return new StreamHouseError('corrupt-entry', `shard ${this.shard} entry ${entry.seq}: ${what}`, {
      shard: this.shard,
      seq: entry.seq,
    });
  }
}

function producerKey(key: number, producerId: number): string {
  return `${key}/${producerId}`;
}

/**
 * What a batch of `recordCount` records with this stamp deserves, given what is known of its producer in its
 * partition. As Kafka's ProducerAppendInfo, save that an unknown producer begins at 0 as a new epoch does: if it
 * could begin anywhere, the first batches failing with a takeover and the next one arriving after it would leave
 * the log with the later records and refuse the earlier ones for ever. A producer that expired begins a new
 * epoch. One of the last five batches is a duplicate, anything else that does not follow is out of order.
 */
export function decide(
  producer: ProducerState | undefined,
  stamp: ProducerStamp,
  recordCount: number,
): Decision {
  if (!producer) {
    if (stamp.baseSequence === 0) return ACCEPT;
    return refuse(
      'out-of-order-sequence',
      `producer ${stamp.producerId} is not known here and begins at sequence ${stamp.baseSequence}, not 0`,
    );
  }
  if (stamp.producerEpoch < producer.producerEpoch) {
    return refuse(
      'producer-fenced',
      `producer ${stamp.producerId} epoch ${stamp.producerEpoch} is older than ${producer.producerEpoch}`,
    );
  }
  if (stamp.producerEpoch > producer.producerEpoch) {
    if (stamp.baseSequence === 0) return ACCEPT;
    return refuse(
      'out-of-order-sequence',
      `producer ${stamp.producerId} begins epoch ${stamp.producerEpoch} at sequence ${stamp.baseSequence}, not 0`,
    );
  }
  for (const batch of producer.batches) {
    if (batch.baseSequence === stamp.baseSequence && batch.recordCount === recordCount) {
      return { kind: 'duplicate', baseOffset: batch.baseOffset };
    }
  }
  const last = producer.batches[producer.batches.length - 1];
  const expected = sequenceAfter(last.baseSequence, last.recordCount);
  if (stamp.baseSequence === expected) return ACCEPT;
  return refuse(
    'out-of-order-sequence',
    `producer ${stamp.producerId} sent sequence ${stamp.baseSequence}, expected ${expected}`,
  );
}

function refuse(code: ErrorCode, message: string): Decision {
  return { kind: 'refuse', code, message };
}
