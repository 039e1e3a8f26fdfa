/**
 * What the index's property test compares with: a shard's log and, per partition, a plain array of refs. Owns:
 * making random entries and applying them to the arrays, in the most naive way. Shares only page-fold's
 * PartitionFold type with the code under test.
 */
import type { PartitionFold } from '../../../index/page-fold.ts';
import type { SegmentIndex } from '../../../index/segment-index.ts';
import type { SegmentRef } from '../../../index/segment-ref.ts';
import type { Random } from '../../../src/core/random.ts';

export type Op =
  | { kind: 'append'; topicId: number; partition: number; ref: SegmentRef; maxTimestampMs: number }
  | { kind: 'log-start'; topicId: number; partition: number; logStart: number }
  | { kind: 'merge'; topicId: number; partition: number; refs: SegmentRef[] }
  | { kind: 'delete'; topicId: number };

export interface ModelPartition {
  topicId: number;
  partition: number;
  refs: SegmentRef[];
  /** Offsets at which pages begin. */
  pageBases: number[];
  appended: number;
  logStart: number;
}

export class ShardModel {
  readonly shard: number;
  readonly log: Op[][] = [];
  readonly partitions = new Map<string, ModelPartition>();
  #nextNumber = 0;

  constructor(shard: number) {
    this.shard = shard;
  }

  get seq(): number {
    return this.log.length;
  }

  partition(topicId: number, partition: number): ModelPartition {
    const key = `${topicId}/${partition}`;
    let found = this.partitions.get(key);
    if (found === undefined) {
      found = { topicId, partition, refs: [], pageBases: [0], appended: 0, logStart: 0 };
      this.partitions.set(key, found);
    }
    return found;
  }

  /** The folds of now, as a checkpoint would keep them. */
  folds(): PartitionFold[] {
    return [...this.partitions.values()].map((of) => ({
      topicId: of.topicId,
      partition: of.partition,
      logStart: of.logStart,
      nextOffset: endOf(of),
      pageBase: of.pageBases.at(-1)!,
      pageRefs: of.appended === 0 ? 0 : ((of.appended - 1) % 256) + 1,
      maxTimestampMs: of.refs.at(-1)?.maxTimestampSoFarMs ?? -1,
    }));
  }

  /** Commits an entry; the caller applies it to an index too. */
  commit(ops: Op[]): void {
    this.log.push(ops);
    for (const op of ops) this.#apply(op);
  }

  randomAppend(random: Random, topicId: number, partition: number): Op {
    const of = this.partition(topicId, partition);
    const baseOffset = endOf(of);
    const maxTimestampMs = random.below(20) === 0 ? -1 : 1e12 + this.seq * 10 + random.below(200) - 100;
    const before = of.refs.at(-1)?.maxTimestampSoFarMs ?? -1;
    const ref = {
      baseOffset,
      nextOffset: baseOffset + 1 + random.below(random.below(4) === 0 ? 1000 : 3),
      incarnation: 7,
      number: this.#nextNumber++,
      position: random.below(1e6),
      length: 1 + random.below(1000),
      maxTimestampSoFarMs: Math.max(before, maxTimestampMs),
    };
    return { kind: 'append', topicId, partition, ref, maxTimestampMs };
  }

  /** Merges a random run of refs, in groups that never cross a page base; null if there is nothing to merge. */
  randomMerge(random: Random, of: ModelPartition): Op | null {
    if (of.refs.length < 2) return null;
    const first = random.below(of.refs.length - 1);
    const run = of.refs.slice(first, first + 2 + random.below(random.below(3) === 0 ? 600 : 40));
    const refs: SegmentRef[] = [];
    const number = this.#nextNumber++;
    for (const ref of run) {
      const last = refs.at(-1);
      const mayJoin = last !== undefined && !of.pageBases.includes(ref.baseOffset) && random.below(8) > 0;
      if (mayJoin) {
        last.nextOffset = ref.nextOffset;
        last.length += ref.length;
        last.maxTimestampSoFarMs = ref.maxTimestampSoFarMs;
      } else {
        refs.push({ ...ref, incarnation: 8, number, position: random.below(1e6) });
      }
    }
    return { kind: 'merge', topicId: of.topicId, partition: of.partition, refs };
  }

  #apply(op: Op): void {
    if (op.kind === 'delete') {
      for (const [key, of] of this.partitions) if (of.topicId === op.topicId) this.partitions.delete(key);
      return;
    }
    const of = this.partition(op.topicId, op.partition);
    if (op.kind === 'append') {
      if (of.appended > 0 && of.appended % 256 === 0) of.pageBases.push(op.ref.baseOffset);
      of.appended++;
      of.refs.push(op.ref);
    } else if (op.kind === 'log-start') {
      of.logStart = Math.max(of.logStart, op.logStart);
    } else {
      const first = of.refs.findIndex((ref) => ref.baseOffset === op.refs[0].baseOffset);
      const last = of.refs.findIndex((ref) => ref.nextOffset === op.refs.at(-1)!.nextOffset);
      of.refs.splice(first, last - first + 1, ...op.refs);
    }
  }
}

export function endOf(of: ModelPartition): number {
  return of.refs.at(-1)?.nextOffset ?? 0;
}

/** Applies an entry to an index, as a lane does. */
export function applyEntry(index: SegmentIndex, shard: number, seq: number, ops: readonly Op[]): void {
  for (const op of ops) {
    if (op.kind === 'append') {
      const { ref } = op;
      const recordCount = ref.nextOffset - ref.baseOffset;
      index.append(
        shard,
        seq,
        op.topicId,
        op.partition,
        ref.baseOffset,
        recordCount,
        ref.incarnation,
        ref.number,
        ref.position,
        ref.length,
        op.maxTimestampMs,
      );
    } else if (op.kind === 'log-start') {
      index.setLogStart(shard, seq, op.topicId, op.partition, op.logStart);
    } else if (op.kind === 'merge') {
      index.replace(shard, seq, op.topicId, op.partition, op.refs);
    } else {
      index.removeTopic(shard, seq, op.topicId);
    }
  }
  index.advance(shard, seq);
}
