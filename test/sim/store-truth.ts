/**
 * Watches the simulated store from inside: at the execution of every request it keeps a full copy of the log, and
 * checks what must hold in the store. Owns: the untrimmed log, and the invariants of entries, objects, pages,
 * pointers. Does not own: what clients may expect (checker). With `strict` off it only counts, so that a mutant
 * must be caught by what clients see. The simulation's only thread.
 */
import { decodePage, refsOfPage } from '../../index/page-codec.ts';
import { PAGE_REFS_MAX } from '../../index/page-fold.ts';
import { partitionKey, shardOf } from '../../src/core/ids.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import type { MetadataMethod } from '../../storage/metadata/forwarding-metadata-store.ts';
import type { MemoryMetadataState } from '../../storage/metadata/memory/memory-metadata-state.ts';
import type {
  AppendOutcome,
  CheckpointPointer,
  HeadOutcome,
  IndexPage,
  LogEntry,
  ShardHead,
} from '../../storage/metadata/metadata-store.ts';
import { batchObjectKey } from '../../storage/objects/object-key.ts';
import { bufferOver } from '../../workers/append-codec.ts';
import { decodeEntry, type EntrySlice, type SlicesEntry } from '../../workers/entry-codec.ts';
import type { CoverageCounts } from './coverage.ts';
import { payloadsOf } from './payloads.ts';

interface Segment {
  base: number;
  next: number;
  incarnation: number;
  number: number;
  position: number;
  length: number;
  seq: number;
}

export interface PartitionTruth {
  shard: number;
  segments: Segment[];
  indexOfBase: Map<number, number>;
  payloads: string[];
  deleted: boolean;
}

interface ShardTruth {
  seq: number;
  epoch: number;
  /** The incarnation that holds it; 0: nobody. */
  holder: number;
  pointer: CheckpointPointer | null;
  trimmedThrough: number;
}

export class StoreTruth {
  readonly partitions = new Map<number, PartitionTruth>();
  readonly #state: MemoryMetadataState;
  readonly #objects: Map<string, Uint8Array>;
  readonly #shardCount: number;
  readonly #coverage: CoverageCounts;
  readonly #violate: (what: string) => void;
  readonly #strict: boolean;
  readonly #shards: ShardTruth[] = [];
  readonly #stamps = new Map<string, number>();

  constructor(
    state: MemoryMetadataState,
    objects: Map<string, Uint8Array>,
    shardCount: number,
    coverage: CoverageCounts,
    strict: boolean,
    violate: (what: string) => void,
  ) {
    this.#state = state;
    this.#objects = objects;
    this.#shardCount = shardCount;
    this.#coverage = coverage;
    this.#strict = strict;
    this.#violate = violate;
    for (let i = 0; i < shardCount; i++) {
      this.#shards.push({ seq: 0, epoch: 0, holder: 0, pointer: null, trimmedThrough: 0 });
    }
  }

  #fail(what: string): void {
    if (this.#strict) this.#violate(`store: ${what}`);
  }

  executed(method: MetadataMethod, args: readonly unknown[], result: unknown): void {
    switch (method) {
      case 'appendEntries': {
        const outcomes = result as AppendOutcome[];
        (args[0] as LogEntry[]).forEach((entry, i) => {
          this.#appended(entry, outcomes[i]);
        });
        break;
      }
      case 'acquireLeases':
        for (const outcome of result as HeadOutcome[])
          if (outcome.kind === 'done') this.#raised(outcome.head);
        break;
      case 'releaseLeases':
        for (const outcome of result as HeadOutcome[])
          if (outcome.kind === 'done') this.#released(args[0] as number, outcome.head);
        break;
      case 'movePointer':
        this.#pointerMoved(args[0] as number, args[1] as number, result as HeadOutcome);
        break;
      case 'trim':
        this.#trimmed(args[0] as number);
        break;
      case 'putPages':
        for (const page of args[0] as IndexPage[]) this.#pagePut(page);
        break;
      default:
    }
  }

  #raised(head: ShardHead): void {
    const shard = this.#shards[head.shard];
    if (head.epoch !== shard.epoch + 1) this.#fail(`epoch ${shard.epoch} became ${head.epoch}`);
    shard.epoch = head.epoch;
    shard.holder = head.holder;
    if (head.trimmedThrough > 0) this.#coverage.takeoversAfterTrim++;
  }

  #released(incarnation: number, head: ShardHead): void {
    const shard = this.#shards[head.shard];
    if (head.epoch !== shard.epoch) this.#fail(`a release made epoch ${shard.epoch} ${head.epoch}`);
    if (shard.holder !== incarnation) this.#fail(`${incarnation} gave back what ${shard.holder} holds`);
    shard.holder = 0;
  }

  // -- Entries -----------------------------------------------------------------------------------------

  #appended(row: LogEntry, outcome: AppendOutcome): void {
    const shard = this.#shards[row.shard];
    const name = `shard ${row.shard} entry ${row.seq} (${row.commitId})`;
    if (outcome.kind === 'conflict') {
      if (row.epoch < shard.epoch) this.#coverage.zombieAppendsRefused++;
      if (outcome.head.headCommitId === row.commitId) this.#coverage.resendMetItself++;
      return;
    }
    this.#coverage.entriesCommitted++;
    if (row.seq !== shard.seq + 1) this.#fail(`${name} after ${shard.seq}`);
    if (row.epoch !== shard.epoch)
      this.#fail(`${name} under epoch ${row.epoch}, the head has ${shard.epoch}`);
    // Whoever releases has settled all that it appended; and under an epoch its holder alone appends.
    if (row.commitId.split('-')[0] !== String(shard.holder)) {
      this.#fail(`${name} was appended while ${shard.holder || 'nobody'} holds the shard`);
    }
    shard.seq = row.seq;
    const entry = decodeEntry(row.body);
    if (entry.seq !== row.seq || entry.shard !== row.shard || entry.epoch !== row.epoch) {
      this.#fail(`${name} says seq ${entry.seq} epoch ${entry.epoch}`);
    }
    if (entry.kind === 'slices') {
      for (const slice of entry.slices) this.#sliceCommitted(name, row, entry, slice);
    } else if (entry.kind === 'topic-deleted') {
      for (const [key, truth] of this.partitions) {
        if (Math.floor(key / 2 ** 20) === entry.topicId && truth.shard === row.shard) truth.deleted = true;
      }
    }
  }

  #sliceCommitted(name: string, row: LogEntry, entry: SlicesEntry, slice: EntrySlice): void {
    const { topicId, partition, baseOffset, recordCount, position, length } = slice;
    if (shardOf(topicId, partition, oneGroup(this.#shardCount)) !== row.shard)
      this.#fail(`${name}: a foreign partition`);
    const id = entry.objects[slice.objectIndex];
    const objectName = `${id.incarnation}-${id.number}`;
    const found = this.#state.objects.get(id.incarnation)?.get(id.number);
    const reference = found?.shards.find((candidate) => candidate.shard === row.shard);
    if (!reference) this.#fail(`${name} names object ${objectName}, which has no row for the shard`);
    else if (reference.epoch !== row.epoch) this.#fail(`${name} names object ${objectName} of another epoch`);
    const truth = this.#partition(topicId, partition);
    if (truth.deleted) this.#fail(`${name} has a slice of deleted topic ${topicId}`);
    if (baseOffset !== truth.payloads.length) {
      this.#fail(`${name}: ${topicId}/${partition} base ${baseOffset}, next was ${truth.payloads.length}`);
    }
    truth.indexOfBase.set(baseOffset, truth.segments.length);
    const next = baseOffset + recordCount;
    truth.segments.push({ base: baseOffset, next, ...id, position, length, seq: row.seq });
    const bytes = this.#objects.get(batchObjectKey(id.incarnation, id.number));
    if (!bytes) {
      this.#fail(`${name} names object ${objectName}, which is not stored`);
      return;
    }
    const payloads = payloadsOf(bufferOver(bytes.subarray(position, position + length)));
    if (payloads.length !== recordCount) this.#fail(`${name}: a slice of ${payloads.length} records`);
    for (let i = 0; i < payloads.length; i++) truth.payloads[baseOffset + i] = payloads[i];
  }

  #partition(topicId: number, partition: number): PartitionTruth {
    const key = partitionKey(topicId, partition);
    let truth = this.partitions.get(key);
    if (!truth) {
      const shard = shardOf(topicId, partition, oneGroup(this.#shardCount));
      truth = { shard, segments: [], indexOfBase: new Map(), payloads: [], deleted: false };
      this.partitions.set(key, truth);
    }
    return truth;
  }

  // -- Folds -------------------------------------------------------------------------------------------

  #pagePut(page: IndexPage): void {
    const { topicId, partition, baseOffset } = page;
    const key = partitionKey(topicId, partition);
    const name = `page ${topicId}/${partition}@${baseOffset} stamp ${page.stamp}`;
    const stored = this.#state.pages.get(key)?.find((candidate) => candidate.baseOffset === baseOffset);
    const stampKey = `${key}/${baseOffset}`;
    const before = this.#stamps.get(stampKey) ?? 0;
    if (!stored || stored.stamp < before) this.#fail(`${name}: the stamp fell from ${before}`);
    if (page.stamp < before) this.#coverage.lowerStampsRefused++;
    this.#stamps.set(stampKey, Math.max(before, page.stamp));
    if (baseOffset > 0) this.#coverage.pagesBeyondFirst++;
    const truth = this.partitions.get(key);
    if (!truth || truth.deleted || !this.#strict) return;
    const first = truth.indexOfBase.get(baseOffset);
    if (first === undefined || first % PAGE_REFS_MAX !== 0) {
      this.#fail(`${name} begins where no page begins`);
      return;
    }
    const decoded = decodePage(page.bytes);
    const refs = refsOfPage(decoded);
    refs.forEach((ref, i) => {
      const segment = truth.segments[first + i];
      const same =
        segment !== undefined &&
        segment.seq <= page.stamp &&
        ref.baseOffset === segment.base &&
        ref.nextOffset === segment.next &&
        ref.incarnation === segment.incarnation &&
        ref.number === segment.number &&
        ref.position === segment.position &&
        ref.length === segment.length;
      if (!same) this.#fail(`${name}: ref ${i} is not what the log says`);
    });
    const following = truth.segments[first + refs.length];
    if (refs.length < PAGE_REFS_MAX && following && following.seq <= page.stamp) {
      this.#fail(`${name} lacks the ref at ${following.base} of entry ${following.seq}`);
    }
  }

  #pointerMoved(shardNumber: number, epoch: number, outcome: HeadOutcome): void {
    const shard = this.#shards[shardNumber];
    if (outcome.kind === 'conflict') {
      if (epoch < shard.epoch) this.#coverage.zombiePointersRefused++;
      return;
    }
    const pointer = outcome.head.checkpoint as CheckpointPointer;
    const name = `pointer of shard ${shardNumber} to ${pointer.seq}`;
    if (shard.pointer && pointer.seq <= shard.pointer.seq)
      this.#fail(`${name}: it was at ${shard.pointer.seq}`);
    if (epoch !== shard.epoch) this.#fail(`${name} under epoch ${epoch}, the head has ${shard.epoch}`);
    if (pointer.seq > shard.seq) this.#fail(`${name}: the log ends at ${shard.seq}`);
    shard.pointer = pointer;
    const stored = this.#state.shards[shardNumber].checkpoints;
    if (!stored.has(`${pointer.seq}/${pointer.writer}`)) this.#fail(`${name}: no such checkpoint`);
    for (const [key, truth] of this.partitions) {
      if (truth.shard !== shardNumber || truth.deleted) continue;
      const segment = truth.segments.findLast((candidate) => candidate.seq <= pointer.seq);
      if (segment) this.#checkCovered(name, key, segment.next);
    }
  }

  /** Pages, each as long as its refs, lie one behind the other from 0 to at least `next`. */
  #checkCovered(name: string, key: number, next: number): void {
    let covered = 0;
    for (const page of this.#state.pages.get(key) ?? []) {
      if (page.baseOffset > covered) break;
      covered = Math.max(covered, decodePage(page.bytes).nextOffset);
    }
    if (covered < next) this.#fail(`${name}: pages of ${key} cover ${covered} of ${next}`);
  }

  #trimmed(shardNumber: number): void {
    const shard = this.#shards[shardNumber];
    const { head, entries } = this.#state.shards[shardNumber];
    if (head.trimmedThrough > shard.trimmedThrough) this.#coverage.trims++;
    if (head.trimmedThrough < shard.trimmedThrough) this.#fail(`trim of shard ${shardNumber} went back`);
    shard.trimmedThrough = head.trimmedThrough;
    const first = entries.length > 0 ? entries[0].seq : head.headSeq + 1;
    if (first - 1 > (shard.pointer?.seq ?? 0)) this.#fail(`shard ${shardNumber} trimmed above its pointer`);
  }
}
