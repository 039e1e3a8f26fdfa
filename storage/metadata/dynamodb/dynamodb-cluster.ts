/**
 * The cluster's item, and what moves a cluster from store to store. Owns: making, importing and retiring a cluster.
 * Does not own: the rows that are imported (each group puts its own). The thread that hosts the store.
 *
 * A cluster is made heads first, then its own item, put if absent (the one commit point): whoever sees a cluster
 * finds all its heads, and no head is ever made again where one was lost. A proposal that lost the race may leave
 * heads beyond the count, at zero, which nobody reads.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import {
  checkImportedCluster,
  checkImportedRows,
  checkImportTarget,
  hasImportedRows,
  movedElsewhere,
  newCluster,
  noCluster,
  unfinishedCopy,
} from '../check-input.ts';
import type { ClusterInfo, ImportedRows, NewCluster, ShardHead } from '../metadata-store.ts';
import type { DynamodbCatalogue } from './dynamodb-catalogue.ts';
import type { DynamodbCounters } from './dynamodb-counters.ts';
import type { DynamodbHeads } from './dynamodb-heads.ts';
import { CLUSTER_KEY, clusterItem, clusterOf, headItem } from './dynamodb-items.ts';
import type { DynamodbLog } from './dynamodb-log.ts';
import type { DynamodbObjects } from './dynamodb-objects.ts';
import { allWritten } from './dynamodb-outcomes.ts';
import type { DynamodbRequests } from './dynamodb-requests.ts';

export interface ClusterParts {
  requests: DynamodbRequests;
  heads: DynamodbHeads;
  catalogue: DynamodbCatalogue;
  counters: DynamodbCounters;
  log: DynamodbLog;
  objects: DynamodbObjects;
  bodyBytesMax: number;
}

export class DynamodbCluster {
  readonly #parts: ClusterParts;

  constructor(parts: ClusterParts) {
    this.#parts = parts;
  }

  async init(proposed: NewCluster): Promise<ClusterInfo> {
    const cluster = newCluster(proposed);
    const { requests, heads } = this.#parts;
    const present = await heads.getCluster();
    if (present !== null) return present;
    // Nobody begins a cluster over what is being copied here.
    if ((await heads.areImported(cluster.shardCount)).includes(true)) {
      throw unfinishedCopy(requests.description);
    }
    const shards = Array.from({ length: cluster.shardCount }, (_, shard) => shard);
    const empty = shards.map((shard) => headItem(emptyHead(shard), false));
    await allWritten(empty.map((item) => requests.putIfAbsent(item)));
    await requests.putIfAbsent(clusterItem(cluster));
    const made = await heads.getCluster();
    if (made === null)
      throw new StreamHouseError('corrupt-store', `${requests.description}: the cluster is gone`);
    return made;
  }

  async import(rows: ImportedRows): Promise<void> {
    const { requests, catalogue, counters, log, objects, bodyBytesMax } = this.#parts;
    checkImportedRows(rows, bodyBytesMax);
    requests.checkOpen();
    const { topics = [], deletedTopics = [], heads = [], entries = [], lastIds } = rows;
    if (hasImportedRows(rows)) checkImportTarget(rows, await this.#parts.heads.getCluster());
    // Ids first: whatever else comes of this, none is given twice.
    if (lastIds !== undefined) await counters.raise(lastIds);
    await catalogue.import(topics, deletedTopics);
    await log.import(entries);
    log.copies.forget(heads.map(({ shard }) => shard));
    await allWritten(heads.map((head) => this.#importHead(head)));
    await objects.import(rows.objects ?? []);
  }

  /**
   * A head never goes back: neither by a copier that slept since it looked for a cluster, nor by a request that was
   * given up and arrives late.
   */
  async #importHead(head: ShardHead): Promise<void> {
    const condition = {
      text: 'attribute_not_exists(#pk) OR (#seq <= :seq AND #epoch <= :epoch)',
      values: { seq: head.headSeq, epoch: head.epoch },
    };
    if (await this.#parts.requests.put(headItem(head, true), 'idempotent', { condition, lane: 'bulk' }))
      return;
    throw new StreamHouseError('conflict', `the head of shard ${head.shard} is ahead of the one to copy`);
  }

  async importCluster(cluster: ClusterInfo): Promise<void> {
    const { requests, heads } = this.#parts;
    const present = await heads.getCluster();
    const areImported = await heads.areImported(cluster.shardCount);
    // A cluster that is there has all its heads, imported or made with it.
    checkImportedCluster(cluster, present, (shard) => present !== null || areImported[shard]);
    const { storeIncarnation, generation, movedTo } = cluster;
    const isSame = `#generation = :generation AND ${isMark(movedTo, 'movedTo')}`;
    const isOlder = `#storeIncarnation = :storeIncarnation AND (#generation < :generation OR ${isSame})`;
    const condition = {
      text: `attribute_not_exists(#pk) OR (${isOlder})`,
      values: { storeIncarnation, generation, ...(movedTo !== null && { movedTo }) },
    };
    if (await requests.put(clusterItem(cluster), 'once', { condition })) {
      await heads.getCluster();
      return;
    }
    checkImportedCluster(cluster, await heads.getCluster(), () => true);
  }

  async setMovedTo(storeIncarnation: string | null, seen: string | null): Promise<ClusterInfo> {
    const { requests, heads } = this.#parts;
    const values: Record<string, string> = {};
    if (storeIncarnation !== null) values.movedTo = storeIncarnation;
    if (seen !== null) values.seen = seen;
    const change = {
      set: storeIncarnation === null ? 'REMOVE #movedTo' : 'SET #movedTo = :movedTo',
      condition: `attribute_exists(#pk) AND (${isMark(seen, 'seen')} OR ${isMark(storeIncarnation, 'movedTo')})`,
      values,
    };
    const item = await requests.update(CLUSTER_KEY, change, 'once', { returnsItem: true });
    if (item !== null) return clusterOf(item);
    const cluster = await heads.getCluster();
    throw cluster ? movedElsewhere(requests.description, cluster.movedTo) : noCluster(requests.description);
  }
}

/** The condition that `movedTo` is this value, which goes by `name`. */
function isMark(movedTo: string | null, name: string): string {
  return movedTo === null ? 'attribute_not_exists(#movedTo)' : `#movedTo = :${name}`;
}

function emptyHead(shard: number): ShardHead {
  return { shard, headSeq: 0, headCommitId: '', epoch: 0, holder: 0, checkpoint: null, trimmedThrough: 0 };
}
