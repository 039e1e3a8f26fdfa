/**
 * Verifies one shard's metadata: its log, then every partition of it. Owns: reading pages in batches (one call for
 * many small partitions, a bounded number of pages at a time for large ones), partitions of which only the
 * catalogue knows. Does not own: the judgements (shard-fold, partition-walk). Main thread.
 */
import { emptyFold, type PartitionFold } from '../../index/page-fold.ts';
import type { IndexPage, MetadataStore, ShardHead, Topic } from '../../storage/metadata/metadata-store.ts';
import { type PartitionId, partitionKey, shardOf } from '../core/ids.ts';
import type { ShardLayout } from '../core/shard-layout.ts';
import { readShardLog } from '../inspect/shard-log.ts';
import type { Finding } from './finding.ts';
import { PartitionWalk } from './partition-walk.ts';
import type { SegmentBatch } from './segment-batch.ts';
import { ShardFold } from './shard-fold.ts';
import type { TopicNames } from './topic-names.ts';

/** Partitions asked for in one call: half a megabyte of pages. */
const PARTITIONS_MAX = 128;
/** Pages of one call for one partition. */
const PAGES_MAX = 64;

export interface MetadataCounts {
  shards: number;
  checkpoints: number;
  entries: number;
  entryBytes: number;
  partitions: number;
  pages: number;
  segments: number;
  /** Partitions of shards whose state is not to be had. */
  shardsUnknown: number;
}

export interface ShardWalkParts {
  store: MetadataStore;
  layout: ShardLayout;
  topics: readonly Topic[];
  names: TopicNames;
  /** Only partitions of this topic; null: all. */
  onlyTopicId: number | null;
  batch: SegmentBatch;
  counts: MetadataCounts;
  find(finding: Finding): void;
  /** Called between pieces: checks and clears a full batch, tells the progress. */
  between(): Promise<void>;
}

/** Resolves to the head as it was read. */
export async function walkShard(parts: ShardWalkParts, shard: number): Promise<ShardHead> {
  return new ShardWalk(parts, shard).run();
}

class ShardWalk {
  readonly #parts: ShardWalkParts;
  readonly #shard: number;
  readonly #fold: ShardFold;
  #headSeq = 0;

  constructor(parts: ShardWalkParts, shard: number) {
    this.#parts = parts;
    this.#shard = shard;
    this.#fold = new ShardFold(shard, parts.layout);
  }

  async run(): Promise<ShardHead> {
    const { store, counts, find, onlyTopicId } = this.#parts;
    const fold = this.#fold;
    await readShardLog(store, this.#shard, fold);
    for (const finding of fold.findings) find(finding);
    counts.shards++;
    counts.entries += fold.entryCount;
    counts.entryBytes += fold.entryBytes;
    if (fold.head.checkpoint !== null && fold.isKnown) counts.checkpoints++;
    this.#headSeq = fold.head.headSeq;
    if (!fold.isKnown) {
      counts.shardsUnknown++;
      return fold.head;
    }
    const folds = [...fold.state.partitions.values()].filter(
      ({ topicId }) => onlyTopicId === null || topicId === onlyTopicId,
    );
    for (let at = 0; at < folds.length; at += PARTITIONS_MAX) {
      await this.#walkPartitions(folds.slice(at, at + PARTITIONS_MAX));
    }
    await this.#lookForUnknownPages();
    return fold.head;
  }

  async #walkPartitions(folds: readonly PartitionFold[]): Promise<void> {
    const { store, counts, between } = this.#parts;
    const live: PartitionFold[] = [];
    for (const fold of folds) if (await this.#isLive(fold)) live.push(fold);
    if (live.length === 0) return;
    // The last page of each: for most partitions it is the only one.
    const lastPages = await store.findPages(
      live.map(({ topicId, partition }) => ({ topicId, partition, offset: Number.MAX_SAFE_INTEGER })),
    );
    for (let i = 0; i < live.length; i++) {
      const fold = live[i];
      const walk = this.#partitionWalk(fold);
      const last = lastPages[i];
      if (last !== null && last.baseOffset <= fold.logStart) await this.#give(walk, last);
      else if (last !== null) await this.#givePages(walk, fold);
      walk.finish();
      counts.partitions++;
      await between();
    }
  }

  async #givePages(walk: PartitionWalk, { topicId, partition, logStart }: PartitionFold): Promise<void> {
    const { store, between } = this.#parts;
    const [first] = await store.findPages([{ topicId, partition, offset: logStart }]);
    for (let fromBaseOffset = first?.baseOffset ?? 0; ; ) {
      const pages = await store.listPages({ topicId, partition, fromBaseOffset, limit: PAGES_MAX });
      for (const page of pages) await this.#give(walk, page);
      if (pages.length < PAGES_MAX) return;
      fromBaseOffset = pages[pages.length - 1].baseOffset + 1;
      await between();
    }
  }

  async #give(walk: PartitionWalk, page: IndexPage): Promise<void> {
    this.#parts.counts.pages++;
    await walk.page(page);
  }

  #partitionWalk(fold: PartitionFold): PartitionWalk {
    const { batch, counts, find } = this.#parts;
    const key = partitionKey(fold.topicId, fold.partition);
    const shard = this.#shard;
    return new PartitionWalk({
      shard,
      seq: this.#fold.state.seq,
      fold,
      tail: this.#fold.tails.get(key),
      find,
      emit: (base, count, incarnation, number, position, length, epoch, maxTimestampMs) => {
        counts.segments++;
        batch.add(shard, key, base, count, incarnation, number, position, length, epoch, maxTimestampMs);
      },
      headSeq: (seq) => this.#headSeqNow(seq),
    });
  }

  /** The head, read anew if a page claims more than is known. */
  async #headSeqNow(seq: number): Promise<number> {
    if (seq > this.#headSeq) this.#headSeq = (await this.#parts.store.readHead(this.#shard)).headSeq;
    return this.#headSeq;
  }

  /** Whether the partition is to be verified; one whose topic is deleted is not. */
  async #isLive({ topicId, partition }: PartitionFold): Promise<boolean> {
    const { names, find } = this.#parts;
    const standing = await names.standing(topicId, partition);
    if (standing === 'live') return true;
    if (standing === 'deleted') return false;
    const place = { shard: this.#shard, topicId, partition };
    if (standing === 'unknown') {
      find({ kind: 'topic-unknown', ...place, expected: 'a live or deleted topic', found: 'none' });
      return true;
    }
    const expected = `a partition below the count ${standing.partitionCount} of topic ${standing.name}`;
    find({ kind: 'partition-unknown', ...place, expected, found: `partition ${partition}` });
    return true;
  }

  /** Partitions that the catalogue puts into this shard, but of which the shard knows nothing, have no pages. */
  async #lookForUnknownPages(): Promise<void> {
    const { topics, layout, onlyTopicId } = this.#parts;
    let wanted: PartitionId[] = [];
    for (const { topicId, partitionCount } of topics) {
      if (onlyTopicId !== null && topicId !== onlyTopicId) continue;
      if (this.#fold.state.deletedTopics.has(topicId)) continue;
      for (let partition = 0; partition < partitionCount; partition++) {
        if (shardOf(topicId, partition, layout) !== this.#shard) continue;
        if (this.#fold.state.partitions.has(partitionKey(topicId, partition))) continue;
        wanted.push({ topicId, partition });
        if (wanted.length < PARTITIONS_MAX) continue;
        await this.#findUnknown(wanted);
        wanted = [];
      }
    }
    if (wanted.length > 0) await this.#findUnknown(wanted);
  }

  async #findUnknown(partitions: readonly PartitionId[]): Promise<void> {
    const { store, counts, find, between } = this.#parts;
    const found = await store.findPages(partitions.map((id) => ({ ...id, offset: Number.MAX_SAFE_INTEGER })));
    for (const page of found) {
      counts.partitions++;
      if (page === null) continue;
      counts.pages++;
      const { topicId, partition, baseOffset, stamp } = page;
      const place = { shard: this.#shard, topicId, partition, offset: baseOffset };
      if (stamp <= this.#fold.state.seq) {
        const expected = `no page: the shard through entry ${this.#fold.state.seq} knows no record of it`;
        find({ kind: 'page-unexpected', ...place, expected, found: `page ${baseOffset} of stamp ${stamp}` });
      } else {
        // Newer than the reading of the log: only its bytes and its stamp can be judged.
        await this.#partitionWalk(emptyFold(topicId, partition)).page(page);
      }
    }
    await between();
  }
}
