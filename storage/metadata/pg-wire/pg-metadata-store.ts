/**
 * What every metadata store of PostgreSQL's protocol does alike. Owns: the contract's calls whose meaning and rows do
 * not differ between those databases: cluster, catalogue, heads, agents, ids. Does not own: the log's, the pages' and
 * the objects' rows, SQL, connections. The storing thread; calls run side by side.
 */
import assert from 'node:assert/strict';
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { ObjectId, PartitionId } from '../../../src/core/ids.ts';
import {
  checkIdClass,
  checkImportedCluster,
  checkInteger,
  checkLeases,
  checkPartitionCount,
  movedElsewhere,
  noCluster,
} from '../check-input.ts';
import type {
  Agent,
  CheckpointPointer,
  ClusterInfo,
  HeadOutcome,
  ImportedRows,
  IndexPage,
  LastIds,
  ListedObject,
  NewTopic,
  ShardHead,
  Topic,
} from '../metadata-store.ts';
import { storedGroups } from '../stored-groups.ts';
import type { PgConnections } from './pg-connections.ts';
import { agentOf, clusterOf, headOf, headOutcomeOf, topicColumns, topicOf } from './pg-rows.ts';
import type { PgRow, PgStatement, PgValue } from './pg-session.ts';
import type { sharedTexts } from './pg-statements.ts';
import { escapeText, integerArray } from './pg-values.ts';

/** Statements that all have under these names and with these parameters, each database with a text of its own. */
type OwnText =
  /** shards, epochs, incarnation: the heads as they were, and whether they were `changed` */
  | 'releaseLeases'
  /** shard, epoch, seq, writer: likewise */
  | 'movePointer'
  /** topic id, partition, base offset */
  | 'deletePages'
  /** topic id, partition, base offset, limit */
  | 'listPages'
  /** the last page's topic id, partition and base offset, limit */
  | 'scanPages'
  /** incarnations, numbers */
  | 'getObjects'
  /** incarnation, number, limit */
  | 'listObjects'
  | 'listUnreferencedObjects'
  /** shard: a row if there is such a shard */
  | 'deleteOldCheckpoints'
  /** incarnations, numbers, time */
  | 'markObjects'
  /** incarnations, numbers */
  | 'forgetObjects';

export type PgSharedStatements = Readonly<
  Record<keyof ReturnType<typeof sharedTexts> | OwnText, PgStatement>
>;

/** Tries of a change that others of the same topic get ahead of. */
const ALTER_TRIES_MAX = 20;

export abstract class PgMetadataStore<Statements extends PgSharedStatements> {
  readonly description: string;
  protected readonly connections: PgConnections;
  protected readonly sql: Statements;
  readonly #role: 'broker' | 'reader';
  #isClosed = false;

  /** Takes the connections over: `close` closes them. */
  constructor(connections: PgConnections, sql: Statements, role: 'broker' | 'reader') {
    this.connections = connections;
    this.sql = sql;
    this.#role = role;
    this.description = connections.description;
  }

  protected checkOpen(): void {
    if (this.#isClosed) throw new StreamHouseError('store-unavailable', `${this.description} is closed`);
  }

  protected checkWriter(): void {
    this.checkOpen();
    assert(this.#role === 'broker', 'a store opened by a reader was asked to write');
  }

  protected read(statement: PgStatement, values: readonly PgValue[] = []): Promise<PgRow[]> {
    this.checkOpen();
    return this.connections.read(statement, values);
  }

  protected write(statement: PgStatement, values: readonly PgValue[] = []): Promise<PgRow[]> {
    this.checkWriter();
    return this.connections.write(statement, values);
  }

  protected abstract readPages(statement: PgStatement, values: readonly PgValue[]): Promise<IndexPage[]>;
  protected abstract readObjects(statement: PgStatement, values: readonly PgValue[]): Promise<ListedObject[]>;

  // -- Cluster -----------------------------------------------------------------------------------------

  async getCluster(): Promise<ClusterInfo | null> {
    const [row] = await this.read(this.sql.getCluster);
    return row ? clusterOf(row) : null;
  }

  // -- Catalogue ---------------------------------------------------------------------------------------

  async createTopic(topic: NewTopic): Promise<Topic> {
    const { name, partitionCount, configs, createdAtMs } = topic;
    checkPartitionCount(partitionCount);
    const { modulus, residue } = checkIdClass(topic.idClass);
    const values = [escapeText(name), partitionCount, JSON.stringify(configs), createdAtMs, modulus, residue];
    const [row] = await this.write(this.sql.createTopic, values);
    if (!row) throw new StreamHouseError('topic-exists', `topic '${name}' exists already`);
    return topicOf(row);
  }

  async getTopic(name: string): Promise<Topic | null> {
    const [row] = await this.read(this.sql.getTopic, [escapeText(name)]);
    return row ? topicOf(row) : null;
  }

  async getTopicsById(topicIds: readonly number[]): Promise<(Topic | null)[]> {
    const asked = [...topicIds];
    const rows = await this.read(this.sql.getTopicsById, [integerArray(asked)]);
    const byId = new Map(rows.map((row) => [row.topicId, row]));
    return asked.map((topicId) => {
      const row = byId.get(topicId);
      return row ? topicOf(row) : null;
    });
  }

  async listTopics({ after, limit }: { after?: string; limit: number }): Promise<Topic[]> {
    const rows =
      after === undefined
        ? await this.read(this.sql.listAllTopics, [limit])
        : await this.read(this.sql.listTopics, [escapeText(after), limit]);
    return rows.map(topicOf);
  }

  async growTopic(name: string, partitionCount: number): Promise<Topic> {
    checkPartitionCount(partitionCount);
    const [row] = await this.write(this.sql.growTopic, [escapeText(name), partitionCount]);
    if (!row) throw topicNotFound(name);
    const topic = topicOf(row);
    if (row.changed) return { ...topic, partitionCount, version: topic.version + 1 };
    throw new StreamHouseError(
      'invalid-partition-count',
      `topic '${name}' has ${topic.partitionCount} partitions already; it can only grow`,
    );
  }

  /** Reads, and writes on condition that nobody did in between. */
  async alterTopic(name: string, changes: Record<string, string | null>): Promise<Topic> {
    this.checkWriter();
    const asked = Object.entries(changes);
    for (let attempt = 0; attempt < ALTER_TRIES_MAX; attempt++) {
      const topic = await this.getTopic(name);
      if (!topic) throw topicNotFound(name);
      const configs = new Map(Object.entries(topic.configs));
      for (const [key, value] of asked) {
        if (value === null) configs.delete(key);
        else configs.set(key, value);
      }
      const text = JSON.stringify(Object.fromEntries(configs));
      const [row] = await this.write(this.sql.changeConfigs, [topic.topicId, topic.version, text]);
      if (row) return topicOf(row);
    }
    throw new StreamHouseError('store-unavailable', `topic '${name}' is changed by too many at once`);
  }

  async deleteTopic(name: string, topicId?: number): Promise<Topic> {
    const [row] = await this.write(this.sql.deleteTopic, [escapeText(name), topicId ?? null]);
    if (!row) throw topicNotFound(name);
    return topicOf(row);
  }

  async listDeletedTopics(page: { afterTopicId: number; limit: number }): Promise<Topic[]> {
    const rows = await this.read(this.sql.listDeletedTopics, [page.afterTopicId, page.limit]);
    return rows.map(topicOf);
  }

  async forgetDeletedTopic(topicId: number): Promise<void> {
    await this.write(this.sql.forgetDeletedTopic, [topicId]);
  }

  // -- Heads -------------------------------------------------------------------------------------------

  async readHead(shard: number): Promise<ShardHead> {
    const [row] = await this.read(this.sql.readHead, [shard]);
    if (!row) throw shardNotFound(shard);
    return headOf(row);
  }

  async movePointer(shard: number, epoch: number, pointer: CheckpointPointer): Promise<HeadOutcome> {
    const { seq, writer } = pointer;
    checkInteger(seq, 'seq', 1);
    checkInteger(writer, 'writer');
    const [row] = await this.write(this.sql.movePointer, [shard, epoch, seq, writer]);
    if (!row) throw shardNotFound(shard);
    return headOutcomeOf(row, (head) => ({ ...head, checkpoint: { seq, writer } }));
  }

  async deleteOldCheckpoints(shard: number): Promise<void> {
    const [row] = await this.write(this.sql.deleteOldCheckpoints, [shard]);
    if (!row) throw shardNotFound(shard);
  }

  async deletePages(of: PartitionId & { belowBaseOffset: number }): Promise<void> {
    await this.write(this.sql.deletePages, [of.topicId, of.partition, of.belowBaseOffset]);
  }

  listPages(of: PartitionId & { fromBaseOffset: number; limit: number }): Promise<IndexPage[]> {
    const { topicId, partition, fromBaseOffset, limit } = of;
    return this.readPages(this.sql.listPages, [topicId, partition, fromBaseOffset, limit]);
  }

  /** The cursor is the last page's key. */
  async scanPages({ cursor, limit }: { cursor: string | null; limit: number }) {
    const after = cursor === null ? [-1, -1, -1] : cursor.split('/').map(Number);
    const pages = await this.readPages(this.sql.scanPages, [...after, limit]);
    const last = pages.at(-1);
    const isEnd = last === undefined || pages.length < limit;
    return { pages, cursor: isEnd ? null : `${last.topicId}/${last.partition}/${last.baseOffset}` };
  }

  async getObjects(objects: readonly ObjectId[]): Promise<(ListedObject | null)[]> {
    if (objects.length === 0) return [];
    const asked = [...objects];
    const found = await this.readObjects(this.sql.getObjects, objectKeys(asked));
    const byKey = new Map(found.map((row) => [keyOfObject(row.object), row]));
    return asked.map((object) => byKey.get(keyOfObject(object)) ?? null);
  }

  listObjects(page: {
    after?: ObjectId;
    limit: number;
    unreferencedOnly?: boolean;
  }): Promise<ListedObject[]> {
    const list = page.unreferencedOnly ? this.sql.listUnreferencedObjects : this.sql.listObjects;
    const { incarnation, number } = page.after ?? { incarnation: -1, number: -1 };
    return this.readObjects(list, [incarnation, number, page.limit]);
  }

  async markObjects(objects: readonly ObjectId[], markedAtMs: number): Promise<void> {
    checkInteger(markedAtMs, 'markedAtMs');
    if (objects.length === 0) return;
    await this.write(this.sql.markObjects, [...objectKeys(objects), markedAtMs]);
  }

  async forgetObjects(objects: readonly ObjectId[]): Promise<void> {
    if (objects.length === 0) return;
    await this.write(this.sql.forgetObjects, objectKeys(objects));
  }

  // -- Agents and leases ---------------------------------------------------------------------------------

  async heartbeat(agentId: string, incarnation: number): Promise<Agent[]> {
    const rows = await this.write(this.sql.heartbeat, [agentId, incarnation]);
    if (rows.length > 0) return rows.map(agentOf);
    throw new StreamHouseError('agent-not-found', `agent '${agentId}' is not registered as ${incarnation}`);
  }

  async getAgent(agentId: string): Promise<Agent | null> {
    const [row] = await this.read(this.sql.getAgent, [agentId]);
    return row ? agentOf(row) : null;
  }

  async listAgents(filter: { group?: string; zone?: string } = {}): Promise<Agent[]> {
    const { group = null, zone = null } = filter;
    return (await this.read(this.sql.listAgents, [group, zone])).map(agentOf);
  }

  async deregisterAgent(agentId: string, incarnation: number): Promise<void> {
    await this.write(this.sql.deregisterAgent, [agentId, incarnation]);
  }

  async releaseLeases(
    incarnation: number,
    leases: readonly { shard: number; epoch: number }[],
  ): Promise<HeadOutcome[]> {
    checkLeases(incarnation, leases);
    const shards = integerArray(leases.map(({ shard }) => shard));
    const epochs = integerArray(leases.map(({ epoch }) => epoch));
    return await this.changeLeases(
      this.sql.releaseLeases,
      [shards, epochs, incarnation],
      leases.map(({ shard }) => shard),
      (head) => ({ ...head, holder: 0 }),
    );
  }

  protected async changeLeases(
    statement: PgStatement,
    values: readonly PgValue[],
    shards: readonly number[],
    changed: (head: ShardHead) => ShardHead,
  ): Promise<HeadOutcome[]> {
    this.checkWriter();
    if (shards.length === 0) return [];
    const rows = await this.write(statement, values);
    const found = new Map(rows.map((row) => [row.shard as number, row]));
    return shards.map((shard) => headOutcomeOf(rowOfShard(found, shard), changed));
  }

  async listLeases(): Promise<ShardHead[]> {
    return (await this.read(this.sql.listHeads)).map(headOf);
  }

  // -- Ids -----------------------------------------------------------------------------------------------

  async allocateProducerIds(count: number): Promise<number> {
    checkInteger(count, 'count', 1);
    const [row] = await this.write(this.sql.allocateProducerIds, [count]);
    return (row.last as number) - count + 1;
  }

  async getLastIds(): Promise<LastIds> {
    const rows = await this.read(this.sql.getLastIds);
    return Object.fromEntries(rows.map(({ name, last }) => [name, last])) as unknown as LastIds;
  }

  async importCluster(cluster: ClusterInfo): Promise<void> {
    const { clusterId, storeIncarnation, shardCount, createdAtMs, generation, copiedFrom, movedTo } = cluster;
    const groups = storedGroups(cluster);
    const values = [clusterId, storeIncarnation, shardCount, createdAtMs, generation, copiedFrom, movedTo];
    const [row] = await this.write(this.sql.importCluster, [...values, groups]);
    if (row) return;
    const heads = new Set((await this.listLeases()).map(({ shard }) => shard));
    checkImportedCluster(cluster, await this.getCluster(), (shard) => heads.has(shard));
    throw new StreamHouseError('store-unavailable', `${this.description} was changed while it was copied to`);
  }

  async setMovedTo(storeIncarnation: string | null, seen: string | null): Promise<ClusterInfo> {
    const [row] = await this.write(this.sql.setMovedTo, [storeIncarnation, seen]);
    if (row) return clusterOf(row);
    const cluster = await this.getCluster();
    throw cluster ? movedElsewhere(this.description, cluster.movedTo) : noCluster(this.description);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.connections.close();
  }
}

function topicNotFound(name: string): StreamHouseError {
  return new StreamHouseError('topic-not-found', `there is no topic '${name}'`);
}

export function shardNotFound(shard: number): StreamHouseError {
  return new StreamHouseError('shard-not-found', `there is no shard ${shard}`);
}

export function rowOfShard(found: ReadonlyMap<number, PgRow>, shard: number): PgRow {
  const row = found.get(shard);
  if (!row) throw shardNotFound(shard);
  return row;
}

export function keyOfObject({ incarnation, number }: ObjectId): string {
  return `${incarnation}/${number}`;
}

/** Topics and ids of another store as statements that put them here as they are. */
export function sharedImportCalls(
  sql: PgSharedStatements,
  { topics, deletedTopics, lastIds }: ImportedRows,
): [PgStatement, PgValue[]][] {
  const calls: [PgStatement, PgValue[]][] = [];
  if (topics?.length) {
    const values = topicColumns(topics);
    calls.push([sql.clearTopicNames, values.slice(0, 2)], [sql.importTopics, values]);
  }
  if (deletedTopics?.length) calls.push([sql.importDeletedTopics, topicColumns(deletedTopics)]);
  if (lastIds) {
    const ids = Object.entries(lastIds);
    const lasts = integerArray(ids.map(([, last]) => last));
    calls.push([sql.raiseLastIds, [ids.map(([name]) => name), lasts]]);
  }
  return calls;
}

export function objectKeys(objects: readonly ObjectId[]): PgValue[] {
  return [
    integerArray(objects.map(({ incarnation }) => incarnation)),
    integerArray(objects.map(({ number }) => number)),
  ];
}

/** One page of each key, by key: the first of those with the highest stamp. */
export function newestPages(pages: readonly IndexPage[]): IndexPage[] {
  const sorted = [...pages].sort(
    (a, b) =>
      a.topicId - b.topicId || a.partition - b.partition || a.baseOffset - b.baseOffset || b.stamp - a.stamp,
  );
  return sorted.filter((page, i) => {
    const before = sorted[i - 1];
    return (
      before?.topicId !== page.topicId ||
      before.partition !== page.partition ||
      before.baseOffset !== page.baseOffset
    );
  });
}
