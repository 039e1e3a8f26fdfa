/**
 * The metadata store in memory, for tests and the simulation. Owns: the contract's meaning over a
 * MemoryMetadataState. Synchronous inside (each call is one atomic step, taken when it is called) and async
 * outside; no timers, no clock, no randomness, so that a run repeats exactly. Everything is copied on its way in
 * and out, as a database would. Nothing survives the process. Any thread, but its state never leaves it.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import { type ObjectId, type PartitionId, partitionKey } from '../../../src/core/ids.ts';
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
import {
  compareAsBytes,
  firstIndex,
  MemoryMetadataState,
  type MemoryShard,
} from './memory-metadata-state.ts';

/** The same as SQLite's, so that what fits here fits there. */
const BODY_BYTES_MAX = 16 * 1024 * 1024;

export class MemoryMetadataStore implements MetadataStore {
  readonly description = 'memory';
  readonly bodyBytesMax: number;
  readonly #state: MemoryMetadataState;
  #closed = false;

  /** Stores given the same state see the same data; `close` ends only this one. */
  constructor(state = new MemoryMetadataState(), options: { bodyBytesMax?: number } = {}) {
    this.#state = state;
    this.bodyBytesMax = options.bodyBytesMax ?? BODY_BYTES_MAX;
  }

  /** The state, or 'store-unavailable' once closed. */
  #open(): MemoryMetadataState {
    if (this.#closed) throw new StreamHouseError('store-unavailable', 'the metadata store is closed');
    return this.#state;
  }

  // -- Cluster -----------------------------------------------------------------------------------------

  async initCluster(proposed: NewCluster): Promise<ClusterInfo> {
    const state = this.#open();
    const cluster = newCluster(proposed);
    if (!state.cluster) {
      if (state.shards.length > 0) throw unfinishedCopy(this.description);
      state.cluster = cluster;
      for (let shard = 0; shard < cluster.shardCount; shard++) {
        state.shards.push({ head: emptyHead(shard), entries: [], checkpoints: new Map() });
      }
    }
    return copyCluster(state.cluster);
  }

  async getCluster(): Promise<ClusterInfo | null> {
    const { cluster } = this.#open();
    return cluster && copyCluster(cluster);
  }

  // -- Catalogue ---------------------------------------------------------------------------------------

  async createTopic(topic: NewTopic): Promise<Topic> {
    const state = this.#open();
    checkPartitionCount(topic.partitionCount);
    const idClass = checkIdClass(topic.idClass);
    if (state.topicsByName.has(topic.name)) {
      throw new StreamHouseError('topic-exists', `topic '${topic.name}' exists already`);
    }
    state.lastTopicId += idClass.modulus;
    const topicId = idOfClass(state.lastTopicId, idClass);
    const { name, partitionCount, configs, createdAtMs } = topic;
    this.#putTopic({ topicId, name, partitionCount, configs: { ...configs }, createdAtMs, version: 1 });
    state.namesChanged();
    return copyTopic(this.#topic(name));
  }

  async getTopic(name: string): Promise<Topic | null> {
    const topic = this.#open().topicsByName.get(name);
    return topic ? copyTopic(topic) : null;
  }

  async getTopicsById(topicIds: readonly number[]): Promise<(Topic | null)[]> {
    const state = this.#open();
    return topicIds.map((topicId) => {
      const topic = state.topicsById.get(topicId);
      return topic ? copyTopic(topic) : null;
    });
  }

  async listTopics(page: { after?: string; limit: number }): Promise<Topic[]> {
    const state = this.#open();
    const names = state.sortedNames();
    const { after } = page;
    const start =
      after === undefined ? 0 : firstIndex(names.length, (i) => compareAsBytes(names[i], after) > 0);
    return names.slice(start, start + page.limit).map((name) => copyTopic(this.#topic(name)));
  }

  async growTopic(name: string, partitionCount: number): Promise<Topic> {
    this.#open();
    checkPartitionCount(partitionCount);
    const topic = this.#topic(name);
    if (partitionCount <= topic.partitionCount) {
      throw new StreamHouseError(
        'invalid-partition-count',
        `topic '${name}' has ${topic.partitionCount} partitions already; it can only grow`,
      );
    }
    return this.#putTopic({ ...topic, partitionCount, version: topic.version + 1 });
  }

  async alterTopic(name: string, changes: Record<string, string | null>): Promise<Topic> {
    this.#open();
    const topic = this.#topic(name);
    const configs = { ...topic.configs };
    for (const [key, value] of Object.entries(changes)) {
      if (value === null) delete configs[key];
      else configs[key] = value;
    }
    return this.#putTopic({ ...topic, configs, version: topic.version + 1 });
  }

  async deleteTopic(name: string, topicId?: number): Promise<Topic> {
    const state = this.#open();
    const topic = this.#topic(name);
    if (topicId !== undefined && topic.topicId !== topicId) throw topicNotFound(name);
    const deleted = { ...topic, version: topic.version + 1 };
    state.topicsByName.delete(name);
    state.topicsById.delete(topic.topicId);
    state.deletedTopics.set(topic.topicId, deleted);
    state.namesChanged();
    return copyTopic(deleted);
  }

  async listDeletedTopics(page: { afterTopicId: number; limit: number }): Promise<Topic[]> {
    return [...this.#open().deletedTopics.values()]
      .filter((topic) => topic.topicId > page.afterTopicId)
      .sort((a, b) => a.topicId - b.topicId)
      .slice(0, page.limit)
      .map(copyTopic);
  }

  async forgetDeletedTopic(topicId: number): Promise<void> {
    this.#open().deletedTopics.delete(topicId);
  }

  #topic(name: string): Topic {
    const topic = this.#state.topicsByName.get(name);
    if (!topic) throw topicNotFound(name);
    return topic;
  }

  #putTopic(topic: Topic): Topic {
    this.#state.topicsByName.set(topic.name, topic);
    this.#state.topicsById.set(topic.topicId, topic);
    return copyTopic(topic);
  }

  // -- Log -----------------------------------------------------------------------------------------------

  async appendEntries(entries: readonly LogEntry[], objects: readonly ObjectRow[]): Promise<AppendOutcome[]> {
    const state = this.#open();
    checkEntries(entries, this.bodyBytesMax);
    checkObjectRows(objects);
    const shards = entries.map((entry) => state.shard(entry.shard));
    for (const row of objects) this.#insertObject(row);
    return entries.map((entry, i) => appendTo(shards[i], entry));
  }

  #insertObject(row: ObjectRow): void {
    const { incarnation, number } = row.object;
    let ofIncarnation = this.#state.objects.get(incarnation);
    if (!ofIncarnation) {
      ofIncarnation = new Map();
      this.#state.objects.set(incarnation, ofIncarnation);
    }
    if (ofIncarnation.has(number)) return;
    const { bytes, createdAtMs } = row;
    const shards = row.shards.map(({ shard, epoch }) => ({ shard, epoch }));
    ofIncarnation.set(number, {
      object: { incarnation, number },
      bytes,
      createdAtMs,
      shards,
      markedAtMs: null,
    });
  }

  async readEntries(shard: number, afterSeq: number, bytesMax: number): Promise<LogEntry[]> {
    const { entries } = this.#open().shard(shard);
    const out: LogEntry[] = [];
    let bytes = 0;
    for (let i = firstAfter(entries, afterSeq); i < entries.length; i++) {
      bytes += entries[i].body.length;
      if (out.length > 0 && bytes > bytesMax) break;
      out.push(copyEntry(entries[i]));
    }
    return out;
  }

  async readHead(shard: number): Promise<ShardHead> {
    return copyHead(this.#open().shard(shard).head);
  }

  async trim(shard: number, throughSeq: number): Promise<void> {
    const { head, entries } = this.#open().shard(shard);
    checkInteger(throughSeq, 'throughSeq');
    const pointerSeq = head.checkpoint?.seq ?? 0;
    if (throughSeq > pointerSeq) {
      throw new StreamHouseError(
        'conflict',
        `trim of shard ${shard} through ${throughSeq}, above its checkpoint at ${pointerSeq}`,
      );
    }
    if (throughSeq <= head.trimmedThrough) return;
    head.trimmedThrough = throughSeq;
    entries.splice(0, firstAfter(entries, throughSeq));
  }

  // -- Pages and checkpoints -----------------------------------------------------------------------------

  async putPages(pages: readonly IndexPage[]): Promise<void> {
    const state = this.#open();
    checkPages(pages, this.bodyBytesMax);
    for (const page of pages) {
      const key = partitionKey(page.topicId, page.partition);
      let list = state.pages.get(key);
      if (!list) state.pages.set(key, (list = []));
      const at = lowerBound(list, page.baseOffset);
      if (list[at]?.baseOffset !== page.baseOffset) list.splice(at, 0, copyPage(page));
      else if (list[at].stamp < page.stamp) list[at] = copyPage(page);
    }
  }

  async findPages(requests: readonly (PartitionId & { offset: number })[]): Promise<(IndexPage | null)[]> {
    const state = this.#open();
    return requests.map((request) => {
      const list = state.pages.get(partitionKey(request.topicId, request.partition)) ?? [];
      const page = list[lowerBound(list, request.offset + 1) - 1];
      return page ? copyPage(page) : null;
    });
  }

  async listPages(of: PartitionId & { fromBaseOffset: number; limit: number }): Promise<IndexPage[]> {
    const list = this.#open().pages.get(partitionKey(of.topicId, of.partition)) ?? [];
    const start = lowerBound(list, of.fromBaseOffset);
    return list.slice(start, start + of.limit).map(copyPage);
  }

  async deletePages(of: PartitionId & { belowBaseOffset: number }): Promise<void> {
    const { pages } = this.#open();
    const key = partitionKey(of.topicId, of.partition);
    const list = pages.get(key);
    if (!list) return;
    list.splice(0, lowerBound(list, of.belowBaseOffset));
    if (list.length === 0) pages.delete(key);
  }

  async putCheckpoint(shard: number, pointer: CheckpointPointer, bytes: Uint8Array): Promise<void> {
    const { checkpoints } = this.#open().shard(shard);
    checkInteger(pointer.seq, 'seq');
    checkInteger(pointer.writer, 'writer');
    checkBody(bytes, this.bodyBytesMax, 'a checkpoint');
    const key = `${pointer.seq}/${pointer.writer}`;
    if (!checkpoints.has(key)) checkpoints.set(key, { seq: pointer.seq, bytes: new Uint8Array(bytes) });
  }

  async getCheckpoint(shard: number, pointer: CheckpointPointer): Promise<Uint8Array> {
    const found = this.#open().shard(shard).checkpoints.get(`${pointer.seq}/${pointer.writer}`);
    if (!found) {
      throw new StreamHouseError(
        'checkpoint-not-found',
        `shard ${shard} has no checkpoint at ${pointer.seq} by ${pointer.writer}`,
      );
    }
    return new Uint8Array(found.bytes);
  }

  async movePointer(shard: number, epoch: number, pointer: CheckpointPointer): Promise<HeadOutcome> {
    const { head } = this.#open().shard(shard);
    checkInteger(pointer.seq, 'seq', 1);
    checkInteger(pointer.writer, 'writer');
    const isForward = pointer.seq > (head.checkpoint?.seq ?? 0) && pointer.seq <= head.headSeq;
    if (head.epoch !== epoch || !isForward) return { kind: 'conflict', head: copyHead(head) };
    head.checkpoint = { seq: pointer.seq, writer: pointer.writer };
    return { kind: 'done', head: copyHead(head) };
  }

  async deleteOldCheckpoints(shard: number): Promise<void> {
    const { head, checkpoints } = this.#open().shard(shard);
    for (const [key, checkpoint] of checkpoints) {
      if (head.checkpoint && checkpoint.seq < head.checkpoint.seq) checkpoints.delete(key);
    }
  }

  // -- Objects -------------------------------------------------------------------------------------------

  async getObjects(objects: readonly ObjectId[]): Promise<(ListedObject | null)[]> {
    this.#open();
    return objects.map((object) => {
      const row = this.#object(object);
      return row ? copyObject(row) : null;
    });
  }

  async listObjects(page: {
    after?: ObjectId;
    limit: number;
    unreferencedOnly?: boolean;
  }): Promise<ListedObject[]> {
    const { objects } = this.#open();
    const after = page.after ?? { incarnation: -1, number: -1 };
    const out: ListedObject[] = [];
    for (const incarnation of [...objects.keys()].sort((a, b) => a - b)) {
      if (incarnation < after.incarnation) continue;
      const rows = [...objects.get(incarnation)!.values()].sort((a, b) => a.object.number - b.object.number);
      for (const row of rows) {
        if (incarnation === after.incarnation && row.object.number <= after.number) continue;
        if (page.unreferencedOnly && row.shards.length > 0) continue;
        if (out.length >= page.limit) return out;
        out.push(copyObject(row));
      }
    }
    return out;
  }

  async dropReferences(drops: readonly ReferenceDrop[]): Promise<void> {
    this.#open();
    checkDrops(drops);
    for (const drop of drops) {
      const row = this.#object(drop.object);
      if (!row) continue;
      row.shards = row.shards.filter(
        ({ shard, epoch }) => shard !== drop.shard || (drop.belowEpoch !== null && epoch >= drop.belowEpoch),
      );
    }
  }

  async markObjects(objects: readonly ObjectId[], markedAtMs: number): Promise<void> {
    this.#open();
    checkInteger(markedAtMs, 'markedAtMs');
    for (const object of objects) {
      const row = this.#object(object);
      if (row && row.shards.length === 0) row.markedAtMs ??= markedAtMs;
    }
  }

  async forgetObjects(objects: readonly ObjectId[]): Promise<void> {
    const state = this.#open();
    for (const object of objects) {
      const row = this.#object(object);
      if (!row || row.shards.length > 0 || row.markedAtMs === null) continue;
      const ofIncarnation = state.objects.get(object.incarnation)!;
      ofIncarnation.delete(object.number);
      if (ofIncarnation.size === 0) state.objects.delete(object.incarnation);
    }
  }

  #object(object: ObjectId): ListedObject | undefined {
    return this.#state.objects.get(object.incarnation)?.get(object.number);
  }

  // -- Agents and leases ---------------------------------------------------------------------------------

  async registerAgent(agent: Omit<Agent, 'incarnation' | 'heartbeatCount'>): Promise<Agent> {
    const state = this.#open();
    const { agentId, address, zone, group, version, registeredAtMs } = agent;
    const incarnation = ++state.lastIncarnation;
    const row = { agentId, incarnation, address, zone, group, version, heartbeatCount: 0, registeredAtMs };
    state.agents.set(agentId, row);
    return { ...row };
  }

  async heartbeat(agentId: string, incarnation: number): Promise<Agent[]> {
    const agent = this.#open().agents.get(agentId);
    if (agent?.incarnation !== incarnation) {
      throw new StreamHouseError('agent-not-found', `agent '${agentId}' is not registered as ${incarnation}`);
    }
    agent.heartbeatCount++;
    return this.listAgents();
  }

  async getAgent(agentId: string): Promise<Agent | null> {
    const agent = this.#open().agents.get(agentId);
    return agent ? { ...agent } : null;
  }

  async listAgents(filter: { group?: string; zone?: string } = {}): Promise<Agent[]> {
    return [...this.#open().agents.values()]
      .filter((agent) => filter.group === undefined || agent.group === filter.group)
      .filter((agent) => filter.zone === undefined || agent.zone === filter.zone)
      .sort((a, b) => compareAsBytes(a.agentId, b.agentId))
      .map((agent) => ({ ...agent }));
  }

  async deregisterAgent(agentId: string, incarnation: number): Promise<void> {
    const { agents } = this.#open();
    if (agents.get(agentId)?.incarnation === incarnation) agents.delete(agentId);
  }

  async acquireLeases(
    incarnation: number,
    seen: readonly { shard: number; holder: number; epoch: number }[],
  ): Promise<HeadOutcome[]> {
    const state = this.#open();
    checkLeases(incarnation, seen);
    const heads = seen.map(({ shard }) => state.shard(shard).head);
    return seen.map(({ holder, epoch }, i) => {
      const head = heads[i];
      if (head.holder !== holder || head.epoch !== epoch) return { kind: 'conflict', head: copyHead(head) };
      head.epoch++;
      head.holder = incarnation;
      return { kind: 'done', head: copyHead(head) };
    });
  }

  async releaseLeases(
    incarnation: number,
    leases: readonly { shard: number; epoch: number }[],
  ): Promise<HeadOutcome[]> {
    const state = this.#open();
    checkLeases(incarnation, leases);
    const heads = leases.map(({ shard }) => state.shard(shard).head);
    return leases.map(({ epoch }, i) => {
      const head = heads[i];
      if (head.holder !== incarnation || head.epoch !== epoch) {
        return { kind: 'conflict', head: copyHead(head) };
      }
      head.holder = 0;
      return { kind: 'done', head: copyHead(head) };
    });
  }

  async listLeases(): Promise<ShardHead[]> {
    // Imported heads may have gaps between them.
    const shards = this.#open().shards.filter((shard) => shard !== undefined);
    return shards.map(({ head }) => copyHead(head));
  }

  // -- Ids -----------------------------------------------------------------------------------------------

  async allocateProducerIds(count: number): Promise<number> {
    const state = this.#open();
    checkInteger(count, 'count', 1);
    const first = state.lastProducerId + 1;
    state.lastProducerId += count;
    return first;
  }

  // -- Moving --------------------------------------------------------------------------------------------

  async getLastIds(): Promise<LastIds> {
    const { lastTopicId, lastIncarnation, lastProducerId } = this.#open();
    return { topic: lastTopicId, incarnation: lastIncarnation, producer: lastProducerId };
  }

  /** The cursor is the last page's key. */
  async scanPages({ cursor, limit }: { cursor: string | null; limit: number }) {
    const state = this.#open();
    const [afterKey, afterBase] = cursor === null ? [-1, -1] : cursor.split('/').map(Number);
    const pages: IndexPage[] = [];
    for (const key of [...state.pages.keys()].sort((a, b) => a - b)) {
      if (key < afterKey) continue;
      const list = state.pages.get(key)!;
      const start = key === afterKey ? lowerBound(list, afterBase + 1) : 0;
      for (const page of list.slice(start)) {
        if (pages.length === limit) return { pages, cursor: scanCursor(pages.at(-1)!) };
        pages.push(copyPage(page));
      }
    }
    return { pages, cursor: null };
  }

  async importRows(rows: ImportedRows): Promise<void> {
    const state = this.#open();
    checkImportedRows(rows, this.bodyBytesMax);
    checkImportTarget(rows, state.cluster);
    for (const topic of rows.topics ?? []) {
      const before = state.topicsByName.get(topic.name);
      if (before) state.topicsById.delete(before.topicId);
      this.#putTopic(copyTopic(topic));
    }
    if (rows.topics) state.namesChanged();
    for (const topic of rows.deletedTopics ?? []) state.deletedTopics.set(topic.topicId, copyTopic(topic));
    for (const head of rows.heads ?? []) {
      const { entries = [], checkpoints = new Map() } = state.shards[head.shard] ?? {};
      state.shards[head.shard] = { head: copyHead(head), entries, checkpoints };
    }
    for (const entry of rows.entries ?? []) {
      const { entries } = state.shard(entry.shard);
      const at = firstAfter(entries, entry.seq - 1);
      entries.splice(at, entries[at]?.seq === entry.seq ? 1 : 0, copyEntry(entry));
    }
    for (const row of rows.objects ?? []) {
      const { incarnation, number } = row.object;
      const ofIncarnation = state.objects.get(incarnation) ?? new Map<number, ListedObject>();
      state.objects.set(incarnation, ofIncarnation.set(number, copyObject(row)));
    }
    if (!rows.lastIds) return;
    const { topic, incarnation, producer } = rows.lastIds;
    state.lastTopicId = Math.max(state.lastTopicId, topic);
    state.lastIncarnation = Math.max(state.lastIncarnation, incarnation);
    state.lastProducerId = Math.max(state.lastProducerId, producer);
  }

  async importCluster(cluster: ClusterInfo): Promise<void> {
    const state = this.#open();
    checkImportedCluster(cluster, state.cluster, (shard) => state.shards[shard] !== undefined);
    state.cluster = copyCluster(cluster);
  }

  async setMovedTo(storeIncarnation: string | null, seen: string | null): Promise<ClusterInfo> {
    const { cluster } = this.#open();
    if (!cluster) throw noCluster(this.description);
    const { movedTo } = cluster;
    if (movedTo !== seen && movedTo !== storeIncarnation) throw movedElsewhere(this.description, movedTo);
    cluster.movedTo = storeIncarnation;
    return copyCluster(cluster);
  }

  async close(): Promise<void> {
    this.#closed = true;
  }
}

function emptyHead(shard: number): ShardHead {
  return { shard, headSeq: 0, headCommitId: '', epoch: 0, holder: 0, checkpoint: null, trimmedThrough: 0 };
}

function appendTo({ head, entries }: MemoryShard, entry: LogEntry): AppendOutcome {
  if (head.headSeq !== entry.seq - 1 || head.epoch !== entry.epoch) {
    return { kind: 'conflict', head: copyHead(head) };
  }
  head.headSeq = entry.seq;
  head.headCommitId = entry.commitId;
  entries.push(copyEntry(entry));
  return { kind: 'done' };
}

function firstAfter(entries: readonly LogEntry[], seq: number): number {
  return firstIndex(entries.length, (i) => entries[i].seq > seq);
}

function scanCursor({ topicId, partition, baseOffset }: IndexPage): string {
  return `${partitionKey(topicId, partition)}/${baseOffset}`;
}

function lowerBound(pages: readonly IndexPage[], baseOffset: number): number {
  return firstIndex(pages.length, (i) => pages[i].baseOffset >= baseOffset);
}

function copyCluster(cluster: ClusterInfo): ClusterInfo {
  return { ...cluster, groups: cluster.groups.map(({ name, shards }) => ({ name, shards })) };
}

function copyTopic(topic: Topic): Topic {
  return { ...topic, configs: { ...topic.configs } };
}

function copyHead(head: ShardHead): ShardHead {
  return { ...head, checkpoint: head.checkpoint && { ...head.checkpoint } };
}

function copyEntry({ shard, seq, epoch, commitId, body }: LogEntry): LogEntry {
  return { shard, seq, epoch, commitId, body: new Uint8Array(body) };
}

function copyPage({ topicId, partition, shard, baseOffset, stamp, bytes }: IndexPage): IndexPage {
  return { topicId, partition, shard, baseOffset, stamp, bytes: new Uint8Array(bytes) };
}

function copyObject(row: ListedObject): ListedObject {
  return {
    object: { ...row.object },
    bytes: row.bytes,
    createdAtMs: row.createdAtMs,
    shards: row.shards.map(({ shard, epoch }) => ({ shard, epoch })),
    markedAtMs: row.markedAtMs,
  };
}

function topicNotFound(name: string): StreamHouseError {
  return new StreamHouseError('topic-not-found', `there is no topic '${name}'`);
}
