/**
 * The metadata store on SQLite. Owns: the contract's meaning in transactions; every write is one transaction
 * with one fsync, however many shards and objects it names. Does not own: opening the file (sqlite-connection),
 * the SQL (sqlite-statements), what errors mean (sqlite-error). Synchronous inside: it blocks its thread, so the
 * broker runs it on the storing thread (store-thread) and never on the main thread.
 */
import assert from 'node:assert/strict';
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { ObjectId, PartitionId } from '../../../src/core/ids.ts';
import {
  checkBody,
  checkDrops,
  checkEntries,
  checkIdClass,
  checkImportedCluster,
  checkImportedRows,
  checkImportTarget,
  checkInteger,
  checkLeases,
  checkObjectRows,
  checkPages,
  checkPartitionCount,
  idOfClass,
  movedElsewhere,
  newCluster,
  noCluster,
  unfinishedCopy,
} from '../check-input.ts';
import type {
  Agent,
  AppendOutcome,
  CheckpointPointer,
  ClusterInfo,
  HeadOutcome,
  ImportedRows,
  IndexPage,
  LastIds,
  ListedObject,
  LogEntry,
  MetadataStore,
  NewCluster,
  NewTopic,
  ObjectRow,
  ReferenceDrop,
  ShardHead,
  Topic,
} from '../metadata-store.ts';
import { decodeReferences, encodeReferences } from '../object-references.ts';
import { StoreCounters } from '../store-counters.ts';
import { groupsOfStored, storedGroups } from '../stored-groups.ts';
import type { SqliteConnection } from './sqlite-connection.ts';
import { type SqlitePhase, sqliteErrorMeaning } from './sqlite-error.ts';
import {
  type ClusterRow,
  type HeadRow,
  type ObjectRowStored,
  type PageRow,
  prepareStatements,
  type SqliteStatements,
  type TopicRow,
} from './sqlite-statements.ts';

/** A body lives in memory a few times on its way; SQLite itself would take 1 GB. */
const BODY_BYTES_MAX = 16 * 1024 * 1024;

/**
 * The WAL is written back to the database between calls once this much was committed: measured, it then takes
 * some 10 ms and no commit waits for it while the store is not saturated.
 */
const CHECKPOINT_BYTES = 4 * 1024 * 1024;

export class SqliteMetadataStore implements MetadataStore {
  readonly description: string;
  readonly bodyBytesMax = BODY_BYTES_MAX;
  readonly #connection: SqliteConnection;
  readonly #counters: StoreCounters;
  readonly #run: SqliteStatements;
  #closed = false;
  /** Bytes of bodies committed since the WAL was last written back. */
  #unwrittenBytes = 0;

  /** Takes the connection over: `close` closes it. Every call counts as one statement. */
  constructor(connection: SqliteConnection, counters = new StoreCounters()) {
    this.#connection = connection;
    this.#counters = counters;
    this.description = `sqlite:${connection.path}`;
    this.#run = prepareStatements(connection.database);
  }

  #read<T>(work: () => T): T {
    this.#checkOpen();
    this.#counters.add('statements');
    try {
      return work();
    } catch (error) {
      throw sqliteErrorMeaning(error, 'read', this.#connection.path);
    }
  }

  /** Runs `work` in one transaction: all of it or nothing, and on disk when this returns. */
  #write<T>(work: () => T): T {
    this.#checkOpen();
    assert(this.#connection.role === 'broker', 'a store opened by a reader was asked to write');
    this.#counters.add('statements');
    let phase: SqlitePhase = 'write';
    try {
      this.#run.begin.run();
      const result = work();
      phase = 'commit';
      this.#run.commit.run();
      return result;
    } catch (error) {
      // After some errors SQLite has rolled back by itself.
      if (this.#connection.database.inTransaction) this.#run.rollback.run();
      const meaning = sqliteErrorMeaning(error, phase, this.#connection.path);
      // Writing the WAL back lets its space be used again: worth trying before the next call.
      if (meaning instanceof StreamHouseError && meaning.code === 'disk-full') {
        this.#unwrittenBytes = CHECKPOINT_BYTES;
      }
      throw meaning;
    }
  }

  #checkOpen(): void {
    if (this.#closed) throw new StreamHouseError('store-unavailable', `${this.description} is closed`);
  }

  /** Writes the WAL back to the database if enough has gathered. For the storing thread, between calls. */
  writeBackIfDue(): void {
    if (this.#closed || this.#unwrittenBytes < CHECKPOINT_BYTES) return;
    this.#unwrittenBytes = 0;
    try {
      this.#connection.database.pragma('wal_checkpoint(PASSIVE)');
    } catch (error) {
      // No space or a failing disk is no caller's error here: what was committed stays in the WAL, the next
      // write meets the same trouble and reports it, and the next attempt goes on where this one stopped.
      const meaning = sqliteErrorMeaning(error, 'write', this.#connection.path);
      if (!(meaning instanceof StreamHouseError)) throw meaning;
    }
  }

  // -- Cluster -----------------------------------------------------------------------------------------

  async initCluster(proposed: NewCluster): Promise<ClusterInfo> {
    const cluster = newCluster(proposed);
    return this.#write(() => {
      const present = this.#cluster();
      if (present) return present;
      if (this.#run.listHeads.get()) throw unfinishedCopy(this.description);
      this.#run.putCluster.run(clusterRow(cluster));
      for (let shard = 0; shard < cluster.shardCount; shard++) this.#run.insertHead.run(shard);
      return cluster;
    });
  }

  async getCluster(): Promise<ClusterInfo | null> {
    return this.#read(() => this.#cluster());
  }

  #cluster(): ClusterInfo | null {
    const row = this.#run.getCluster.get();
    return row ? clusterOf(row) : null;
  }

  // -- Catalogue ---------------------------------------------------------------------------------------

  async createTopic(topic: NewTopic): Promise<Topic> {
    checkPartitionCount(topic.partitionCount);
    const idClass = checkIdClass(topic.idClass);
    const { name, partitionCount, configs, createdAtMs } = topic;
    return this.#write(() => {
      if (this.#run.getTopic.get(name)) {
        throw new StreamHouseError('topic-exists', `topic '${name}' exists already`);
      }
      const topicId = idOfClass(this.#run.nextId.get(idClass.modulus, 'topic')!, idClass);
      this.#run.insertTopic.run(topicId, name, partitionCount, JSON.stringify(configs), createdAtMs, 1);
      return topicOf(this.#topicRow(name));
    });
  }

  async getTopic(name: string): Promise<Topic | null> {
    const row = this.#read(() => this.#run.getTopic.get(name));
    return row ? topicOf(row) : null;
  }

  async getTopicsById(topicIds: readonly number[]): Promise<(Topic | null)[]> {
    return this.#read(() =>
      topicIds.map((topicId) => {
        const row = this.#run.getTopicById.get(topicId);
        return row ? topicOf(row) : null;
      }),
    );
  }

  async listTopics(page: { after?: string; limit: number }): Promise<Topic[]> {
    const { after, limit } = page;
    const rows = this.#read(() =>
      after === undefined ? this.#run.listTopics.all(limit) : this.#run.listTopicsAfter.all(after, limit),
    );
    return rows.map(topicOf);
  }

  async growTopic(name: string, partitionCount: number): Promise<Topic> {
    checkPartitionCount(partitionCount);
    return this.#write(() => {
      const row = this.#topicRow(name);
      if (partitionCount <= row.partitionCount) {
        throw new StreamHouseError(
          'invalid-partition-count',
          `topic '${name}' has ${row.partitionCount} partitions already; it can only grow`,
        );
      }
      return topicOf(this.#run.changeTopic.get(partitionCount, row.configs, row.topicId)!);
    });
  }

  async alterTopic(name: string, changes: Record<string, string | null>): Promise<Topic> {
    return this.#write(() => {
      const row = this.#topicRow(name);
      const configs = topicOf(row).configs;
      for (const [key, value] of Object.entries(changes)) {
        if (value === null) delete configs[key];
        else configs[key] = value;
      }
      return topicOf(this.#run.changeTopic.get(row.partitionCount, JSON.stringify(configs), row.topicId)!);
    });
  }

  async deleteTopic(name: string, only?: number): Promise<Topic> {
    return this.#write(() => {
      const row = this.#topicRow(name);
      if (only !== undefined && row.topicId !== only) throw topicNotFound(name);
      const { topicId, partitionCount, configs, createdAtMs } = row;
      const version = row.version + 1;
      this.#run.deleteTopic.run(topicId);
      this.#run.insertDeletedTopic.run(topicId, name, partitionCount, configs, createdAtMs, version);
      return topicOf({ ...row, version });
    });
  }

  async listDeletedTopics(page: { afterTopicId: number; limit: number }): Promise<Topic[]> {
    return this.#read(() => this.#run.listDeletedTopics.all(page.afterTopicId, page.limit)).map(topicOf);
  }

  async forgetDeletedTopic(topicId: number): Promise<void> {
    this.#write(() => this.#run.forgetDeletedTopic.run(topicId));
  }

  #topicRow(name: string): TopicRow {
    const row = this.#run.getTopic.get(name);
    if (!row) throw topicNotFound(name);
    return row;
  }

  // -- Log -----------------------------------------------------------------------------------------------

  async appendEntries(entries: readonly LogEntry[], objects: readonly ObjectRow[]): Promise<AppendOutcome[]> {
    checkEntries(entries, this.bodyBytesMax);
    checkObjectRows(objects);
    const outcomes = this.#write(() => {
      for (const { object, bytes, createdAtMs, shards } of objects) {
        const packed = encodeReferences(shards);
        const { incarnation, number } = object;
        this.#run.insertObject.run(incarnation, number, bytes, createdAtMs, shards.length, packed);
      }
      return entries.map((entry) => this.#append(entry));
    });
    for (const entry of entries) this.#unwrittenBytes += entry.body.length;
    return outcomes;
  }

  #append({ shard, seq, epoch, commitId, body }: LogEntry): AppendOutcome {
    if (this.#run.advanceHead.run({ shard, seq, epoch, commitId }).changes === 0) {
      return { kind: 'conflict', head: this.#head(shard) };
    }
    this.#run.insertEntry.run(shard, seq, epoch, commitId, body);
    return { kind: 'done' };
  }

  async readEntries(shard: number, afterSeq: number, bytesMax: number): Promise<LogEntry[]> {
    return this.#read(() => {
      this.#head(shard);
      const entries: LogEntry[] = [];
      let bytes = 0;
      for (const row of this.#run.readEntries.iterate(shard, afterSeq)) {
        bytes += row.body.length;
        if (entries.length > 0 && bytes > bytesMax) break;
        entries.push({ ...row, body: plainBytes(row.body) });
      }
      return entries;
    });
  }

  async readHead(shard: number): Promise<ShardHead> {
    return this.#read(() => this.#head(shard));
  }

  #head(shard: number): ShardHead {
    const row = this.#run.getHead.get(shard);
    if (!row) throw new StreamHouseError('shard-not-found', `there is no shard ${shard}`);
    return headOf(row);
  }

  async trim(shard: number, throughSeq: number): Promise<void> {
    checkInteger(throughSeq, 'throughSeq');
    this.#write(() => {
      const { checkpoint, trimmedThrough } = this.#head(shard);
      const pointerSeq = checkpoint?.seq ?? 0;
      if (throughSeq > pointerSeq) {
        throw new StreamHouseError(
          'conflict',
          `trim of shard ${shard} through ${throughSeq}, above its checkpoint at ${pointerSeq}`,
        );
      }
      if (throughSeq <= trimmedThrough) return;
      this.#run.setTrimmed.run(throughSeq, shard);
      this.#run.deleteEntries.run(shard, throughSeq);
    });
  }

  // -- Pages and checkpoints -----------------------------------------------------------------------------

  async putPages(pages: readonly IndexPage[]): Promise<void> {
    checkPages(pages, this.bodyBytesMax);
    if (pages.length === 0) return;
    this.#write(() => {
      for (const { topicId, partition, baseOffset, shard, stamp, bytes } of pages) {
        this.#run.putPage.run(topicId, partition, baseOffset, shard, stamp, bytes);
      }
    });
    for (const page of pages) this.#unwrittenBytes += page.bytes.length;
  }

  async findPages(requests: readonly (PartitionId & { offset: number })[]): Promise<(IndexPage | null)[]> {
    return this.#read(() =>
      requests.map(({ topicId, partition, offset }) => {
        const row = this.#run.findPage.get(topicId, partition, offset);
        return row ? pageOf(row) : null;
      }),
    );
  }

  async listPages(of: PartitionId & { fromBaseOffset: number; limit: number }): Promise<IndexPage[]> {
    const { topicId, partition, fromBaseOffset, limit } = of;
    return this.#read(() => this.#run.listPages.all(topicId, partition, fromBaseOffset, limit)).map(pageOf);
  }

  async deletePages(of: PartitionId & { belowBaseOffset: number }): Promise<void> {
    const { topicId, partition, belowBaseOffset } = of;
    this.#write(() => this.#run.deletePages.run(topicId, partition, belowBaseOffset));
  }

  async putCheckpoint(shard: number, pointer: CheckpointPointer, bytes: Uint8Array): Promise<void> {
    checkInteger(pointer.seq, 'seq');
    checkInteger(pointer.writer, 'writer');
    checkBody(bytes, this.bodyBytesMax, 'a checkpoint');
    this.#write(() => {
      this.#head(shard);
      this.#run.putCheckpoint.run(shard, pointer.seq, pointer.writer, bytes);
    });
    this.#unwrittenBytes += bytes.length;
  }

  async getCheckpoint(shard: number, pointer: CheckpointPointer): Promise<Uint8Array> {
    const bytes = this.#read(() => {
      this.#head(shard);
      return this.#run.getCheckpoint.get(shard, pointer.seq, pointer.writer);
    });
    if (!bytes) {
      throw new StreamHouseError(
        'checkpoint-not-found',
        `shard ${shard} has no checkpoint at ${pointer.seq} by ${pointer.writer}`,
      );
    }
    return plainBytes(bytes);
  }

  async movePointer(shard: number, epoch: number, pointer: CheckpointPointer): Promise<HeadOutcome> {
    checkInteger(pointer.seq, 'seq', 1);
    checkInteger(pointer.writer, 'writer');
    return this.#write(() => this.#changed(shard, this.#run.movePointer.run({ shard, epoch, ...pointer })));
  }

  async deleteOldCheckpoints(shard: number): Promise<void> {
    this.#write(() => {
      const { checkpoint } = this.#head(shard);
      if (checkpoint) this.#run.deleteCheckpointsBelow.run(shard, checkpoint.seq);
    });
  }

  /** What became of a condition-checked update of a head. */
  #changed(shard: number, result: { changes: number }): HeadOutcome {
    return { kind: result.changes === 1 ? 'done' : 'conflict', head: this.#head(shard) };
  }

  // -- Objects -------------------------------------------------------------------------------------------

  async getObjects(objects: readonly ObjectId[]): Promise<(ListedObject | null)[]> {
    return this.#read(() =>
      objects.map(({ incarnation, number }) => {
        const row = this.#run.getObject.get(incarnation, number);
        return row ? objectOf(row) : null;
      }),
    );
  }

  async listObjects(page: {
    after?: ObjectId;
    limit: number;
    unreferencedOnly?: boolean;
  }): Promise<ListedObject[]> {
    const list = page.unreferencedOnly ? this.#run.listUnreferencedObjects : this.#run.listObjects;
    const { incarnation, number } = page.after ?? { incarnation: -1, number: -1 };
    return this.#read(() => list.all(incarnation, number, page.limit).map(objectOf));
  }

  async dropReferences(drops: readonly ReferenceDrop[]): Promise<void> {
    checkDrops(drops);
    if (drops.length === 0) return;
    this.#write(() => {
      for (const { shard, object, belowEpoch } of drops) {
        const row = this.#run.getObject.get(object.incarnation, object.number);
        if (!row) continue;
        const before = decodeReferences(row.shardReferences);
        const left = before.filter(
          (reference) => reference.shard !== shard || (belowEpoch !== null && reference.epoch >= belowEpoch),
        );
        if (left.length === before.length) continue;
        this.#run.setReferences.run(left.length, encodeReferences(left), row.incarnation, row.number);
      }
    });
  }

  async markObjects(objects: readonly ObjectId[], markedAtMs: number): Promise<void> {
    checkInteger(markedAtMs, 'markedAtMs');
    if (objects.length === 0) return;
    this.#write(() => {
      for (const { incarnation, number } of objects) {
        this.#run.markObject.run(markedAtMs, incarnation, number);
      }
    });
  }

  async forgetObjects(objects: readonly ObjectId[]): Promise<void> {
    if (objects.length === 0) return;
    this.#write(() => {
      for (const { incarnation, number } of objects) this.#run.forgetObject.run(incarnation, number);
    });
  }

  // -- Agents and leases ---------------------------------------------------------------------------------

  async registerAgent(agent: Omit<Agent, 'incarnation' | 'heartbeatCount'>): Promise<Agent> {
    const { agentId, address, zone, group, version, registeredAtMs } = agent;
    return this.#write(() => {
      const incarnation = this.#run.nextId.get(1, 'incarnation')!;
      const row = { agentId, incarnation, address, zone, group, version, heartbeatCount: 0, registeredAtMs };
      this.#run.putAgent.run(row);
      return row;
    });
  }

  /** RETURNING tells of changed rows only: the others are read in the same transaction. */
  async heartbeat(agentId: string, incarnation: number): Promise<Agent[]> {
    return this.#write(() => {
      if (this.#run.heartbeat.run(agentId, incarnation).changes === 0) {
        throw new StreamHouseError(
          'agent-not-found',
          `agent '${agentId}' is not registered as ${incarnation}`,
        );
      }
      return this.#run.listAgents.all({ group: null, zone: null });
    });
  }

  async getAgent(agentId: string): Promise<Agent | null> {
    return this.#read(() => this.#run.getAgent.get(agentId) ?? null);
  }

  async listAgents(filter: { group?: string; zone?: string } = {}): Promise<Agent[]> {
    const { group = null, zone = null } = filter;
    return this.#read(() => this.#run.listAgents.all({ group, zone }));
  }

  async deregisterAgent(agentId: string, incarnation: number): Promise<void> {
    this.#write(() => this.#run.deleteAgent.run(agentId, incarnation));
  }

  async acquireLeases(
    incarnation: number,
    seen: readonly { shard: number; holder: number; epoch: number }[],
  ): Promise<HeadOutcome[]> {
    checkLeases(incarnation, seen);
    if (seen.length === 0) return [];
    return this.#write(() =>
      seen.map(({ shard, holder, epoch }) =>
        this.#changed(shard, this.#run.acquireLease.run(incarnation, shard, holder, epoch)),
      ),
    );
  }

  async releaseLeases(
    incarnation: number,
    leases: readonly { shard: number; epoch: number }[],
  ): Promise<HeadOutcome[]> {
    checkLeases(incarnation, leases);
    if (leases.length === 0) return [];
    return this.#write(() =>
      leases.map(({ shard, epoch }) =>
        this.#changed(shard, this.#run.releaseLease.run(shard, incarnation, epoch)),
      ),
    );
  }

  async listLeases(): Promise<ShardHead[]> {
    return this.#read(() => this.#run.listHeads.all().map(headOf));
  }

  // -- Ids -----------------------------------------------------------------------------------------------

  async allocateProducerIds(count: number): Promise<number> {
    checkInteger(count, 'count', 1);
    return this.#write(() => this.#run.nextId.get(count, 'producer')! - count + 1);
  }

  // -- Moving --------------------------------------------------------------------------------------------

  async getLastIds(): Promise<LastIds> {
    const last = (name: keyof LastIds) => this.#run.lastId.get(name)!;
    return this.#read(() => ({
      topic: last('topic'),
      incarnation: last('incarnation'),
      producer: last('producer'),
    }));
  }

  /** The cursor is the last page's key. */
  async scanPages({ cursor, limit }: { cursor: string | null; limit: number }) {
    const [topicId, partition, base] = cursor === null ? [-1, -1, -1] : cursor.split('/').map(Number);
    const pages = this.#read(() => this.#run.scanPages.all(topicId, partition, base, limit)).map(pageOf);
    const last = pages.at(-1);
    const isEnd = last === undefined || pages.length < limit;
    return { pages, cursor: isEnd ? null : `${last.topicId}/${last.partition}/${last.baseOffset}` };
  }

  async importRows(rows: ImportedRows): Promise<void> {
    checkImportedRows(rows, this.bodyBytesMax);
    const run = this.#run;
    this.#write(() => {
      checkImportTarget(rows, this.#cluster());
      for (const topic of rows.topics ?? []) run.importTopic.run(topicRow(topic));
      for (const topic of rows.deletedTopics ?? []) run.importDeletedTopic.run(topicRow(topic));
      for (const { checkpoint, ...head } of rows.heads ?? []) {
        const { seq = null, writer = null } = checkpoint ?? {};
        run.importHead.run({ ...head, checkpointSeq: seq, checkpointWriter: writer });
      }
      for (const { shard, seq, epoch, commitId, body } of rows.entries ?? []) {
        run.importEntry.run(shard, seq, epoch, commitId, body);
      }
      for (const { object, bytes, createdAtMs, shards, markedAtMs } of rows.objects ?? []) {
        const { incarnation, number } = object;
        const packed = encodeReferences(shards);
        run.importObject.run(incarnation, number, bytes, createdAtMs, shards.length, packed, markedAtMs);
      }
      for (const [name, last] of Object.entries(rows.lastIds ?? {})) run.raiseLastId.run(last, name);
    });
    for (const entry of rows.entries ?? []) this.#unwrittenBytes += entry.body.length;
  }

  async importCluster(cluster: ClusterInfo): Promise<void> {
    this.#write(() => {
      const present = this.#cluster();
      checkImportedCluster(cluster, present, (shard) => this.#run.getHead.get(shard) !== undefined);
      this.#run.putCluster.run(clusterRow(cluster));
    });
  }

  async setMovedTo(storeIncarnation: string | null, seen: string | null): Promise<ClusterInfo> {
    return this.#write(() => {
      const cluster = this.#cluster();
      if (!cluster) throw noCluster(this.description);
      const { movedTo } = cluster;
      if (movedTo !== seen && movedTo !== storeIncarnation) throw movedElsewhere(this.description, movedTo);
      const moved = { ...cluster, movedTo: storeIncarnation };
      this.#run.putCluster.run(clusterRow(moved));
      return moved;
    });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#connection.close();
  }
}

function clusterOf({ shardGroups, ...row }: ClusterRow): ClusterInfo {
  return { ...row, groups: groupsOfStored(shardGroups, row.shardCount) };
}

function clusterRow({ groups, ...cluster }: ClusterInfo): ClusterRow {
  return { ...cluster, shardGroups: storedGroups({ ...cluster, groups }) };
}

function topicOf(row: TopicRow): Topic {
  let configs: unknown;
  try {
    configs = JSON.parse(row.configs);
  } catch (error) {
    throw new StreamHouseError('corrupt-store', `the configs of topic ${row.topicId}`, undefined, error);
  }
  return { ...row, configs: configs as Record<string, string> };
}

function topicRow(topic: Topic): TopicRow {
  return { ...topic, configs: JSON.stringify(topic.configs) };
}

function headOf({ checkpointSeq, checkpointWriter, ...row }: HeadRow): ShardHead {
  const checkpoint =
    checkpointSeq === null || checkpointWriter === null
      ? null
      : { seq: checkpointSeq, writer: checkpointWriter };
  return { ...row, checkpoint };
}

function pageOf(row: PageRow): IndexPage {
  return { ...row, bytes: plainBytes(row.bytes) };
}

function objectOf(row: ObjectRowStored): ListedObject {
  return {
    object: { incarnation: row.incarnation, number: row.number },
    bytes: row.bytes,
    createdAtMs: row.createdAtMs,
    shards: decodeReferences(row.shardReferences),
    markedAtMs: row.markedAtMs,
  };
}

/** The driver's Buffer as the plain bytes that every backend returns; no copy. */
function plainBytes(buffer: Buffer): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length);
}

function topicNotFound(name: string): StreamHouseError {
  return new StreamHouseError('topic-not-found', `there is no topic '${name}'`);
}
