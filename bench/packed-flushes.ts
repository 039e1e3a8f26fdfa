/**
 * Flushes of packed entries against a metadata store, for suites that compare stores: each writes one record to each
 * of some partitions, as the batching worker does. Owns: a new cluster with all its shards held, and the entries that
 * follow one another. Does not own: the store.
 */
import { shardOf } from '../src/core/ids.ts';
import { oneGroup } from '../src/core/shard-layout.ts';
import type { LogEntry, MetadataStore } from '../storage/metadata/metadata-store.ts';
import { encodeEntry } from '../workers/entry-codec.ts';
import { sliceBody, TOPIC_ID, upTo, WALL_MS } from './sample-appends.ts';
import type { TaskSet } from './suite.ts';

export const FLUSH_INCARNATION = 3;

export class PackedFlushes {
  readonly #store: MetadataStore;
  readonly #seqs: number[];
  #number = 0;

  private constructor(store: MetadataStore, shardCount: number) {
    this.#store = store;
    this.#seqs = new Array<number>(shardCount).fill(0);
  }

  /** Makes the cluster and takes all shards. */
  static async on(store: MetadataStore, shardCount: number): Promise<PackedFlushes> {
    await store.initCluster({ clusterId: 'b', storeIncarnation: 'b', shardCount, createdAtMs: 1 });
    const seen = upTo(shardCount).map((shard) => ({ shard, holder: 0, epoch: 0 }));
    await store.acquireLeases(FLUSH_INCARNATION, seen);
    return new PackedFlushes(store, shardCount);
  }

  /** These partitions by shard. */
  byShard(partitions: readonly number[]): number[][] {
    const byShard: number[][] = this.#seqs.map(() => []);
    for (const partition of partitions)
      byShard[shardOf(TOPIC_ID, partition, oneGroup(byShard.length))].push(partition);
    return byShard;
  }

  /** The entries of the next flush of one record to each partition. */
  next(byShard: readonly number[][]): LogEntry[] {
    const number = ++this.#number;
    const entries: LogEntry[] = [];
    for (let shard = 0; shard < byShard.length; shard++) {
      if (byShard[shard].length === 0) continue;
      const seq = ++this.#seqs[shard];
      const body = sliceBody(number, byShard[shard], number);
      const bytes = encodeEntry({ shard, seq, epoch: 1, timeMs: WALL_MS + number * 100, ...body });
      entries.push({ shard, seq, epoch: 1, commitId: `${FLUSH_INCARNATION}-${shard}-${seq}`, body: bytes });
    }
    return entries;
  }

  async append(entries: readonly LogEntry[]): Promise<void> {
    const shards = entries.map(({ shard, epoch }) => ({ shard, epoch }));
    const object = { incarnation: FLUSH_INCARNATION, number: this.#number };
    const row = { object, bytes: 1_000_000, createdAtMs: WALL_MS, shards };
    const outcomes = await this.#store.appendEntries(entries, [row]);
    for (const { kind } of outcomes) if (kind !== 'done') throw new Error(`an append ended as ${kind}`);
  }
}

/** A task that appends one flush of `count` slices; entries are encoded outside its time. */
export function addPackedFlushes(
  tasks: TaskSet,
  flushes: PackedFlushes,
  count: number,
  settings: { name?: string; against?: string },
): void {
  const { name = `packed entries, ${count} slices`, against } = settings;
  const byShard = flushes.byShard(upTo(count));
  const sample = flushes.next(byShard);
  let entries: LogEntry[] | null = sample;
  const bytes = sample.reduce((sum, { body }) => sum + body.length, 0);
  const prepare = () => {
    entries ??= flushes.next(byShard);
  };
  const append = async () => {
    await flushes.append(entries as LogEntry[]);
    entries = null;
  };
  tasks.add(name, append, {
    items: count,
    itemName: 'slice',
    ...(against !== undefined && { against }),
    // Entries inserted, heads moved, one object.
    details: { rows: sample.length * 2 + 1, 'entry bytes': bytes },
    hooks: { async: true, beforeEach: prepare },
  });
}
