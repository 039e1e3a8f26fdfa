/**
 * The heads of the shards, one item each: the only fence. Owns: reading them, which shards there are, and changes
 * under a condition. Does not own: what moves them (dynamodb-log, dynamodb-agents, dynamodb-checkpoints). The thread
 * that hosts the store.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { ClusterInfo, HeadOutcome, ShardHead } from '../metadata-store.ts';
import {
  CLUSTER_KEY,
  clusterOf,
  entryOfHead,
  HEAD_PROJECTION,
  headKey,
  headOf,
  type StoredEntry,
} from './dynamodb-items.ts';
import type { DynamodbRequests } from './dynamodb-requests.ts';
import { ItemReader, type Value } from './dynamodb-values.ts';

/** Heads asked for in one batch while there is no cluster that tells how many there are. */
const PROBE_COUNT = 100;

export interface HeadWithEntry {
  head: ShardHead;
  /** null where the newest entry has an item of its own, or there is none. */
  entry: StoredEntry | null;
}

export class DynamodbHeads {
  readonly #requests: DynamodbRequests;
  /** Of the cluster; null until it was seen. Never changes. */
  #shardCount: number | null = null;
  /** Shards that were seen to exist: a head never goes away. */
  readonly #known = new Set<number>();

  constructor(requests: DynamodbRequests) {
    this.#requests = requests;
  }

  async getCluster(): Promise<ClusterInfo | null> {
    const item = await this.#requests.get(CLUSTER_KEY);
    if (item === null) return null;
    const cluster = clusterOf(item);
    this.#shardCount = cluster.shardCount;
    return cluster;
  }

  /** Whether this is a whole cluster, or one that is still being copied here. */
  get isWhole(): boolean {
    return this.#shardCount !== null;
  }

  /** 'shard-not-found' unless all of them exist. A proposal that lost may have left heads beyond the count. */
  async ensureExist(shards: readonly number[]): Promise<void> {
    const unknown = shards.filter((shard) => !this.#known.has(shard));
    if (unknown.length === 0) {
      this.#requests.checkOpen();
      return;
    }
    if (this.#shardCount === null) await this.getCluster();
    const items = await this.#requests.getMany(unknown.map(headKey), { projection: '#seq' });
    unknown.forEach((shard, i) => {
      if (items[i] === null || shard >= (this.#shardCount ?? Number.POSITIVE_INFINITY)) throw noShard(shard);
      this.#known.add(shard);
    });
  }

  /** Without the newest entry. */
  async read(shard: number): Promise<ShardHead> {
    await this.ensureExist([shard]);
    const item = await this.#requests.get(headKey(shard), { projection: HEAD_PROJECTION });
    if (item === null) throw lost(shard);
    return headOf(shard, item);
  }

  async readWithEntry(shard: number): Promise<HeadWithEntry> {
    await this.ensureExist([shard]);
    const item = await this.#requests.get(headKey(shard));
    if (item === null) throw lost(shard);
    return { head: headOf(shard, item), entry: entryOfHead(shard, item) };
  }

  /**
   * Changes a head under a condition; done with the head as changed and its newest entry, or conflict with the head
   * found. Such a change is never sent twice when its reply was lost: 'store-unknown'.
   */
  async change(
    shard: number,
    change: { set: string; condition: string; values: Record<string, Value> },
  ): Promise<{ outcome: HeadOutcome; entry: StoredEntry | null }> {
    const item = await this.#requests.update(headKey(shard), change, 'once', { returnsItem: true });
    if (item === null) return { outcome: { kind: 'conflict', head: await this.read(shard) }, entry: null };
    return { outcome: { kind: 'done', head: headOf(shard, item) }, entry: entryOfHead(shard, item) };
  }

  /** Which of the first `count` heads were copied from another store. */
  async areImported(count: number): Promise<boolean[]> {
    const shards = Array.from({ length: count }, (_, shard) => shard);
    const items = await this.#requests.getMany(shards.map(headKey), { projection: '#imported' });
    return items.map((item) => item !== null && new ItemReader(item).numberOrNull('imported') === 1);
  }

  /** Every shard's head, by shard; without a cluster, those that were copied here so far. */
  async list(): Promise<ShardHead[]> {
    if (this.#shardCount === null) await this.getCluster();
    const count = this.#shardCount;
    const heads: ShardHead[] = [];
    for (let first = 0; first < (count ?? Number.POSITIVE_INFINITY); first += PROBE_COUNT) {
      const end = Math.min(first + PROBE_COUNT, count ?? Number.POSITIVE_INFINITY);
      const shards = Array.from({ length: end - first }, (_, i) => first + i);
      const items = await this.#requests.getMany(shards.map(headKey), { projection: HEAD_PROJECTION });
      for (const [i, item] of items.entries()) {
        if (item !== null) heads.push(headOf(shards[i], item));
        else if (count !== null) throw lost(shards[i]);
        else return heads;
      }
    }
    return heads;
  }
}

function noShard(shard: number): StreamHouseError {
  return new StreamHouseError('shard-not-found', `there is no shard ${shard}`);
}

function lost(shard: number): StreamHouseError {
  return new StreamHouseError('corrupt-store', `the head of shard ${shard} is gone`);
}
