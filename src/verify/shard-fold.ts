/**
 * Folds one shard's checkpoint and log and judges them on the way. Owns: every check that needs the log only, and
 * what the checks of pages need afterwards: the state at checkpoint and at the end, and by partition what the log
 * appended and merged since the checkpoint. Does not own: reading (inspect/shard-log), pages and objects.
 * Memory is that of a start-up: the shard's state and some 70 bytes for a slice of the tail. Main thread.
 */
import type { MergeOverlay } from '../../index/merge-overlay.ts';
import { emptyFold, PAGE_REFS_MAX, type PartitionFold } from '../../index/page-fold.ts';
import type { LogEntry, ShardHead } from '../../storage/metadata/metadata-store.ts';
import { decodeCheckpoint } from '../../workers/checkpoint-codec.ts';
import { decodeEntry, type Entry, type EntrySlice, type SlicesEntry } from '../../workers/entry-codec.ts';
import { decide, type ProducerState, ShardState } from '../../workers/shard-state.ts';
import { StreamHouseError } from '../core/errors.ts';
import { type ObjectId, partitionKey, shardOf, topicIdOfKey } from '../core/ids.ts';
import type { ShardLayout } from '../core/shard-layout.ts';
import type { ShardLogReader } from '../inspect/shard-log.ts';
import type { Finding, FindingKind, Place } from './finding.ts';

/** Numbers of a tail slice, packed one after the other. */
export const TAIL_NUMBERS = 9;
export const TAIL_BASE = 0;
export const TAIL_COUNT = 1;
export const TAIL_INCARNATION = 2;
export const TAIL_NUMBER = 3;
export const TAIL_POSITION = 4;
export const TAIL_LENGTH = 5;
export const TAIL_MAX_TIMESTAMP = 6;
export const TAIL_SEQ = 7;
export const TAIL_EPOCH = 8;

/** What the log says of a partition since the checkpoint. */
export interface PartitionTail {
  /** The partition as the checkpoint has it. */
  before: PartitionFold;
  /** Packed slices, in the order of offsets. */
  slices: number[];
  merges: MergeOverlay[];
}

export class ShardFold implements ShardLogReader {
  head!: ShardHead;
  /** As of the newest entry that could be applied. */
  state!: ShardState;
  /** Partitions that the log touched since the checkpoint. */
  tails = new Map<number, PartitionTail>();
  /** False: the checkpoint is not to be had, so that of the shard's partitions nothing can be said. */
  isKnown = true;
  entryCount = 0;
  entryBytes = 0;
  findings: Finding[] = [];
  readonly #shard: number;
  readonly #layout: ShardLayout;
  #seenEpoch = 0;
  #takeoverEpoch = 0;
  #lastRow: LogEntry | null = null;
  #commitIds = new Map<string, number>();

  constructor(shard: number, layout: ShardLayout) {
    this.#shard = shard;
    this.#layout = layout;
  }

  #find(kind: FindingKind, place: Place, expected: string | number, found: string | number): void {
    this.findings.push({
      kind,
      shard: this.#shard,
      ...place,
      expected: String(expected),
      found: String(found),
    });
  }

  // -- Head and checkpoint -----------------------------------------------------------------------------

  begin(head: ShardHead, checkpoint: Uint8Array | null | 'missing'): void {
    this.head = head;
    this.state = new ShardState(this.#shard);
    this.tails = new Map();
    this.isKnown = true;
    this.entryCount = 0;
    this.entryBytes = 0;
    this.findings = [];
    this.#lastRow = null;
    this.#commitIds = new Map();
    this.#checkHead(head);
    if (checkpoint === 'missing') {
      this.isKnown = false;
      this.#find('checkpoint-missing', {}, pointerText(head), 'nothing');
    } else if (checkpoint !== null) {
      this.#takeCheckpoint(head, checkpoint);
    }
    this.#seenEpoch = this.state.epoch;
    this.#takeoverEpoch = this.state.epoch;
  }

  #checkHead(head: ShardHead): void {
    const pointerSeq = head.checkpoint?.seq ?? 0;
    if (pointerSeq > head.headSeq) {
      this.#find('head-mismatch', {}, `a pointer at or below the head ${head.headSeq}`, pointerText(head));
    }
    if (head.trimmedThrough > pointerSeq) {
      const found = `trimmed through ${head.trimmedThrough}`;
      this.#find('head-mismatch', {}, `trimmed at most through the pointer ${pointerSeq}`, found);
    }
    if (head.headSeq === 0 && head.headCommitId !== '') {
      this.#find('head-mismatch', { seq: 0 }, 'no commit id on an empty log', head.headCommitId);
    }
  }

  #takeCheckpoint(head: ShardHead, bytes: Uint8Array): void {
    try {
      this.state = decodeCheckpoint(bytes, this.#shard);
    } catch (error) {
      this.isKnown = false;
      this.#find('checkpoint-corrupt', {}, pointerText(head), messageOf(error));
      return;
    }
    const { state } = this;
    if (state.seq !== head.checkpoint?.seq) {
      this.isKnown = false;
      this.#find('checkpoint-mismatch', {}, pointerText(head), `a checkpoint through ${state.seq}`);
    }
    if (state.epoch > head.epoch) {
      this.#find('checkpoint-mismatch', {}, `an epoch up to ${head.epoch}`, `epoch ${state.epoch}`);
    }
    for (const fold of state.partitions.values()) this.#checkFold(fold);
  }

  #checkFold(fold: PartitionFold): void {
    const { topicId, partition, logStart, nextOffset, pageBase, pageRefs } = fold;
    const place = { topicId, partition };
    const own = shardOf(topicId, partition, this.#layout);
    if (own !== this.#shard) this.#find('foreign-partition', place, `shard ${own}`, `shard ${this.#shard}`);
    const holds =
      logStart <= nextOffset &&
      pageRefs <= PAGE_REFS_MAX &&
      (nextOffset === 0 ? pageRefs === 0 : pageRefs > 0 && pageBase < nextOffset) &&
      nextOffset - pageBase >= pageRefs;
    if (!holds) {
      const found = `log start ${logStart}, end ${nextOffset}, page base ${pageBase} with ${pageRefs} segments`;
      this.#find('checkpoint-mismatch', place, 'a state that a log can lead to', found);
    }
  }

  // -- Entries -----------------------------------------------------------------------------------------

  entry(row: LogEntry): boolean {
    this.entryCount++;
    this.entryBytes += row.body.length;
    const place = { seq: row.seq };
    this.#checkCommitId(row);
    let entry: Entry;
    try {
      entry = decodeEntry(row.body);
    } catch (error) {
      this.#find('entry-corrupt', place, 'an entry', messageOf(error));
      return false;
    }
    if (entry.shard !== this.#shard || entry.seq !== row.seq || entry.epoch !== row.epoch) {
      const found = `shard ${entry.shard} seq ${entry.seq} epoch ${entry.epoch}`;
      this.#find('entry-mismatch', place, `shard ${this.#shard} seq ${row.seq} epoch ${row.epoch}`, found);
      return false;
    }
    this.#checkEpoch(entry);
    if (!this.isKnown) return true;
    if (entry.kind === 'slices') this.#checkSlices(entry);
    this.#keepTail(entry);
    try {
      this.state.apply(entry);
    } catch (error) {
      if (!(error instanceof StreamHouseError)) throw error;
      this.#find('entry-refused', place, 'an entry that follows from the state before it', error.message);
      return false;
    }
    return true;
  }

  #checkCommitId(row: LogEntry): void {
    const before = this.#commitIds.get(row.commitId);
    if (before !== undefined) {
      const found = `${row.commitId}, the same as of entry ${before}`;
      this.#find('commit-id-repeated', { seq: row.seq }, 'a commit id of its own', found);
    }
    this.#commitIds.set(row.commitId, row.seq);
    this.#lastRow = row;
    if (row.seq === this.head.headSeq && row.commitId !== this.head.headCommitId) {
      const expected = `the commit id ${row.commitId} of the newest entry`;
      this.#find('head-mismatch', { seq: row.seq }, expected, this.head.headCommitId);
    }
  }

  #checkEpoch({ seq, epoch, kind }: Entry): void {
    if (epoch < this.#seenEpoch) {
      this.#find('epoch-fell', { seq }, `epoch ${this.#seenEpoch} or above`, `epoch ${epoch}`);
    } else if (epoch > this.head.epoch) {
      this.#find('epoch-fell', { seq }, `at most the head's epoch ${this.head.epoch}`, `epoch ${epoch}`);
    }
    if (this.isKnown || this.#takeoverEpoch > 0) {
      const begins = epoch > this.#takeoverEpoch;
      if (begins && kind !== 'takeover') {
        this.#find('takeover-missing', { seq }, `a Takeover as the first entry of epoch ${epoch}`, kind);
      } else if (!begins && epoch === this.#takeoverEpoch && kind === 'takeover') {
        this.#find('takeover-missing', { seq }, `one Takeover of epoch ${epoch}`, 'a second one');
      }
    }
    this.#takeoverEpoch = Math.max(this.#takeoverEpoch, epoch);
    this.#seenEpoch = Math.max(this.#seenEpoch, epoch);
  }

  #checkSlices(entry: Entry & SlicesEntry): void {
    const { seq } = entry;
    for (const { topicId, partition } of entry.slices) {
      const own = shardOf(topicId, partition, this.#layout);
      if (own !== this.#shard) {
        this.#find('foreign-partition', { seq, topicId, partition }, `shard ${own}`, `shard ${this.#shard}`);
      }
      if (this.state.deletedTopics.has(topicId)) {
        this.#find('deleted-topic-slice', { seq, topicId, partition }, 'no slice', 'a slice');
      }
    }
    this.#checkProducers(entry);
  }

  /** Whether each producer's batch had to be accepted, by the state before the entry and the batches before it. */
  #checkProducers(entry: Entry & SlicesEntry): void {
    const own = new Map<string, ProducerState>();
    for (const batch of entry.producerBatches) {
      const { producerId, producerEpoch, baseSequence, recordCount } = batch;
      const { topicId, partition, baseOffset: sliceBase } = entry.slices[batch.sliceIndex];
      const key = partitionKey(topicId, partition);
      const name = `${key}/${producerId}`;
      const known = own.get(name) ?? this.state.producer(key, producerId);
      const decision = decide(known, { producerId, producerEpoch, baseSequence }, recordCount);
      const baseOffset = sliceBase + batch.offsetInSlice;
      if (decision.kind !== 'accept') {
        const place = { seq: entry.seq, topicId, partition, offset: baseOffset };
        const found =
          decision.kind === 'duplicate' ? `one of offset ${decision.baseOffset}` : decision.message;
        this.#find('producer-sequence', place, `a new batch of producer ${producerId}`, found);
      }
      const batches = known?.producerEpoch === producerEpoch ? known.batches.slice(-4) : [];
      batches.push({ baseSequence, recordCount, baseOffset });
      own.set(name, { partitionKey: key, producerId, producerEpoch, lastTimeMs: 0, batches });
    }
  }

  // -- The tail by partition ---------------------------------------------------------------------------

  #keepTail(entry: Entry): void {
    if (entry.kind === 'slices') {
      for (const slice of entry.slices) {
        const { incarnation, number } = entry.objects[slice.objectIndex];
        const { baseOffset, recordCount, position, length, maxTimestampMs } = slice;
        this.#tail(slice).slices.push(
          baseOffset,
          recordCount,
          incarnation,
          number,
          position,
          length,
          maxTimestampMs,
          entry.seq,
          entry.epoch,
        );
      }
    } else if (entry.kind === 'merged') {
      this.#keepMerges(entry.seq, entry.slices, entry.objects);
    } else if (entry.kind === 'topic-deleted') {
      for (const key of this.tails.keys()) if (topicIdOfKey(key) === entry.topicId) this.tails.delete(key);
    }
  }

  #tail({ topicId, partition }: EntrySlice): PartitionTail {
    const key = partitionKey(topicId, partition);
    let tail = this.tails.get(key);
    if (!tail) {
      const before = this.state.partitions.get(key) ?? emptyFold(topicId, partition);
      tail = { before: { ...before }, slices: [], merges: [] };
      this.tails.set(key, tail);
    }
    return tail;
  }

  #keepMerges(seq: number, slices: readonly EntrySlice[], objects: readonly ObjectId[]): void {
    for (const slice of slices) {
      const { baseOffset, recordCount, position, length, maxTimestampMs } = slice;
      const ref = {
        ...objects[slice.objectIndex],
        baseOffset,
        nextOffset: baseOffset + recordCount,
        position,
        length,
        maxTimestampSoFarMs: maxTimestampMs,
      };
      const { merges } = this.#tail(slice);
      const last = merges.at(-1);
      if (last?.seq === seq && last.refs.at(-1)?.nextOffset === baseOffset) last.refs.push(ref);
      else merges.push({ seq, refs: [ref] });
    }
  }

  gap(seq: number, next: number | null): void {
    const found = next === null ? 'the end of the log' : `entry ${next}`;
    const head = `entry ${seq}, below the head ${this.head.headSeq}`;
    this.#find('entry-missing', { seq }, head, this.#lastRow === null ? found : `${found} after ${seq - 1}`);
  }
}

function pointerText({ checkpoint }: ShardHead): string {
  return checkpoint === null
    ? 'no checkpoint'
    : `checkpoint ${checkpoint.seq} of writer ${checkpoint.writer}`;
}

/** The message of a decoder's error; anything but an operating error is a bug of ours and passes. */
export function messageOf(error: unknown): string {
  if (!(error instanceof StreamHouseError)) throw error;
  return `${error.code}: ${error.message}`;
}
