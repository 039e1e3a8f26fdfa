/**
 * One partition's index in memory, and the shard it belongs to. Owns: the partition's fold, which of its pages
 * are in memory (the open page apart, closed pages in a sorted-btree keyed by page base), merges that wait for
 * their page. Does not own: bytes and eviction (block-ledger.ts), loads (page-loader.ts), page-out. A lane's
 * thread.
 *
 * Most partitions are small and there may be 100,000: a partition of one page has no tree, one whose page is
 * not in memory has only its fold.
 */
import sortedBtree from 'sorted-btree';
import { partitionKey } from '../src/core/ids.ts';
import type { MergeOverlay } from './merge-overlay.ts';
import { BlockList, type PageBlock } from './page-block.ts';
import { NO_TIMESTAMP_MS, type PartitionFold } from './page-fold.ts';

/** The package is CommonJS with a default export inside. */
const BTree = sortedBtree.default;

export type Block = PageBlock<PartitionIndex>;

/** A read of a page that is under way; page-loader.ts. */
export interface PageLoad {
  readonly owner: PartitionIndex;
  /** The page to be found is the one that covers this offset. */
  readonly offset: number;
  /** The page was written after the read began: what comes back may be older than what is in the store. */
  isStale: boolean;
  readonly promise: Promise<Block | null>;
  resolve(block: Block | null): void;
  reject(error: unknown): void;
}

/** A shard that this lane's process holds, as far as it concerns this lane. */
/** Deleted topics that a shard remembers here; some 50 bytes each. */
const DELETED_TOPICS_MAX = 65_536;

export class ShardIndex {
  readonly shard: number;
  /** The log is applied through this seq. */
  seq: number;
  isOpen = true;
  /** By partitionKey. */
  readonly partitions = new Map<number, PartitionIndex>();
  /** Blocks that the store does not have as they are. */
  readonly dirty = new BlockList<PartitionIndex>();
  /** Partitions with merges that wait for their page. */
  readonly overlaid = new Set<PartitionIndex>();
  /** Page-outs of a shard come one after the other; the newest. */
  pageOut: Promise<unknown> = Promise.resolve();
  /** Ids of deleted topics, oldest first; whoever still asks for one resolved its name long ago. */
  readonly deletedTopics = new Set<number>();

  constructor(shard: number, seq: number) {
    this.shard = shard;
    this.seq = seq;
  }

  noteDeleted(topicId: number): void {
    this.deletedTopics.add(topicId);
    if (this.deletedTopics.size <= DELETED_TOPICS_MAX) return;
    for (const oldest of this.deletedTopics) {
      this.deletedTopics.delete(oldest);
      break;
    }
  }
}

function byNumber(a: number, b: number): number {
  return a - b;
}

/** Where the tree puts a pair it found, so that a look-up takes no memory. */
const FOUND: [number, Block] = [0, undefined as unknown as Block];

export class PartitionIndex implements PartitionFold {
  readonly shard: ShardIndex;
  readonly topicId: number;
  readonly partition: number;
  logStart = 0;
  nextOffset = 0;
  pageBase = 0;
  pageRefs = 0;
  maxTimestampMs = NO_TIMESTAMP_MS;
  /** The block of the page at pageBase, if (in part) in memory. */
  open: Block | null = null;
  /** Blocks of earlier pages that are (in part) in memory, by page base. */
  closed: InstanceType<typeof BTree<number, Block>> | null = null;
  /** Merges of refs that are not in memory, by rising seq. */
  overlays: MergeOverlay[] | null = null;
  /** Reads of this partition's pages that are under way; a handful. */
  loads: PageLoad[] | null = null;

  constructor(shard: ShardIndex, topicId: number, partition: number) {
    this.shard = shard;
    this.topicId = topicId;
    this.partition = partition;
  }

  /** Whether its topic was deleted, or its shard closed. */
  get isRemoved(): boolean {
    return this.shard.partitions.get(partitionKey(this.topicId, this.partition)) !== this;
  }

  /** The block in memory whose page covers `offset` (< nextOffset); its part there may begin above the offset. */
  blockAt(offset: number): Block | null {
    if (offset >= this.pageBase) return this.open;
    const block = this.closedAtOrBelow(offset);
    return block !== null && offset < block.next ? block : null;
  }

  /** The closed block in memory with the greatest base <= offset. */
  closedAtOrBelow(offset: number): Block | null {
    return this.closed?.getPairOrNextLower(offset, FOUND)?.[1] ?? null;
  }

  /** The closed block in memory with the least base > offset. */
  closedAbove(offset: number): Block | null {
    return this.closed?.nextHigherPair(offset, FOUND)?.[1] ?? null;
  }

  /** The open block becomes a closed one: the fold has begun the next page. */
  closeOpen(): void {
    if (this.open !== null) this.addClosed(this.open);
    this.open = null;
  }

  addClosed(block: Block): void {
    this.closed ??= new BTree<number, Block>(undefined, byNumber);
    this.closed.set(block.base, block);
  }

  /** Takes a block out. */
  remove(block: Block): void {
    if (this.open === block) {
      this.open = null;
    } else if (this.closed !== null) {
      this.closed.delete(block.base);
      if (this.closed.size === 0) this.closed = null;
    }
  }

  /** All blocks in memory, by base. */
  blocks(): Block[] {
    const all = this.closed === null ? [] : this.closed.valuesArray();
    if (this.open !== null) all.push(this.open);
    return all;
  }
}
