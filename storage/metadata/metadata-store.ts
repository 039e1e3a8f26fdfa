/**
 * The metadata store contract: what a backend must do, in groups, each call a batch or O(1). Owns: the
 * interface and its words. Does not own: any backend, nor what the bodies of entries, pages and checkpoints
 * mean (workers/ and index/ do; to a store they are bytes).
 *
 * Every method may fail with a StreamHouseError of these codes besides those it names:
 *   store-unavailable  nothing happened; try again
 *   store-unknown      it may have happened; read back before anything else (reads never fail so)
 *   disk-full          nothing happened
 *   item-too-large     nothing happened; the body is over `bodyBytesMax`
 *   corrupt-store      the store's own files or rows are damaged
 * Numbers are safe integers. Byte arrays handed in belong to the caller, those handed out to the receiver.
 */
import type { ObjectId, PartitionId } from '../../src/core/ids.ts';
import type { ShardGroup, TopicIdClass } from '../../src/core/shard-layout.ts';

/** What a cluster is created from. */
export interface NewCluster {
  clusterId: string;
  /** New for every store that is created or copied to: tells a store that was swapped under a bucket. */
  storeIncarnation: string;
  /** Fixed when the cluster is created. */
  shardCount: number;
  /** Likewise; `shardCount` shards in all. Left out: all of them in the group `default`. */
  groups?: readonly ShardGroup[];
  createdAtMs: number;
}

/** Stamped in the store and in the bucket; a mismatch refuses to start. */
export interface ClusterInfo extends NewCluster {
  groups: readonly ShardGroup[];
  /** 1 in the store where the cluster was created, one more in every store that it was copied to since. */
  generation: number;
  /** The incarnation of the store that this one was copied from; null in generation 1. */
  copiedFrom: string | null;
  /** The incarnation of the store that this one was copied to: no broker may start on it any more. */
  movedTo: string | null;
}

/** The last id that was taken of each kind, whether or not it was given to anybody; 0 for none. */
export interface LastIds {
  topic: number;
  incarnation: number;
  producer: number;
}

/** Rows as another store holds them. */
export interface ImportedRows {
  topics?: readonly Topic[];
  deletedTopics?: readonly Topic[];
  heads?: readonly ShardHead[];
  entries?: readonly LogEntry[];
  objects?: readonly ListedObject[];
  lastIds?: LastIds;
}

/** A topic that is not there yet. */
export interface NewTopic {
  name: string;
  partitionCount: number;
  configs: Record<string, string>;
  createdAtMs: number;
  /** The topic's id is of this class; left out: of any. The same modulus in every call on a cluster. */
  idClass?: TopicIdClass;
}

export interface Topic {
  /** From 1, never reused. */
  topicId: number;
  name: string;
  partitionCount: number;
  configs: Record<string, string>;
  createdAtMs: number;
  /** Raised by one with every change; a cache never replaces a higher version by a lower one. */
  version: number;
}

/** Where a shard's newest checkpoint lies: it folds the log through `seq`; `writer` is an incarnation. */
export interface CheckpointPointer {
  seq: number;
  writer: number;
}

/** A shard's head row: the only fence. A shard nobody ever took has seq 0, epoch 0, holder 0. */
export interface ShardHead {
  shard: number;
  /** Sequence number of the newest committed entry; 0 when the log is empty. */
  headSeq: number;
  /** The newest entry's commit id; '' when the log is empty. */
  headCommitId: string;
  epoch: number;
  /** The holding agent's incarnation; 0 when nobody holds it. */
  holder: number;
  checkpoint: CheckpointPointer | null;
  /** Entries through this one may be gone from the log. Never above the checkpoint's seq. */
  trimmedThrough: number;
}

export interface LogEntry {
  shard: number;
  /** Dense from 1 within a shard. */
  seq: number;
  epoch: number;
  /** Unique per entry; at most 64 ASCII characters. */
  commitId: string;
  body: Uint8Array;
}

/** What became of one entry: committed, or refused with the head that was found (which may bear its own commitId). */
export type AppendOutcome = { kind: 'done' } | { kind: 'conflict'; head: ShardHead };

/** Condition-checked changes of a head. */
export type HeadOutcome = { kind: 'done'; head: ShardHead } | { kind: 'conflict'; head: ShardHead };

/** A shard that refers to an object, with the epoch under which the object was sealed for it. */
export interface ObjectShard {
  shard: number;
  epoch: number;
}

/** An object's row. Exists before any entry names the object. Its shards and epochs never change, but references drop. */
export interface ObjectRow {
  object: ObjectId;
  bytes: number;
  /** The writer's wall time. */
  createdAtMs: number;
  /** Those that still refer to it. */
  shards: ObjectShard[];
}

export interface ListedObject extends ObjectRow {
  /** When it was marked as unreferenced (the marker's wall time); null while it is not. */
  markedAtMs: number | null;
}

export interface ReferenceDrop {
  shard: number;
  object: ObjectId;
  /**
   * null: a committed entry made the reference void. A number: drop only if the row's epoch for this shard is
   * below it (a holder's sweep of what earlier epochs left; its own epoch).
   */
  belowEpoch: number | null;
}

/** A page of a partition's index, packed; bytes are index/page-codec's. */
export interface IndexPage extends PartitionId {
  shard: number;
  /** The first offset of the page; fixed by the fold of the log. */
  baseOffset: number;
  /** The page folds the shard's log through this seq. A higher stamp is never replaced by a lower or equal one. */
  stamp: number;
  bytes: Uint8Array;
}

export interface Agent {
  agentId: string;
  /** New at every registration, allocated by the store, rising. */
  incarnation: number;
  /** Advertised address, apart from the bind address. */
  address: string;
  zone: string;
  group: string;
  version: string;
  /** Raised by every heartbeat; a rival watches it change, by its own monotonic clock. */
  heartbeatCount: number;
  registeredAtMs: number;
}

export interface MetadataStore {
  /** What it is, for logs and errors; no secrets. */
  readonly description: string;
  /** Largest body of an entry, page or checkpoint that one call takes, in bytes. */
  readonly bodyBytesMax: number;

  // -- Cluster -----------------------------------------------------------------------------------------
  /**
   * Creates the cluster as proposed, with its `shardCount` heads at zero, if there is none; returns what is there.
   * 'conflict' where there is no cluster but heads that are not at zero: a copy that was not finished.
   */
  initCluster(proposed: NewCluster): Promise<ClusterInfo>;
  /** null before `initCluster`. */
  getCluster(): Promise<ClusterInfo | null>;

  // -- Catalogue: strongly consistent; names unique; ids never reused ------------------------------------
  /**
   * 'topic-exists'. Takes `modulus` ids, in one step, and gives the topic the one of its class: so ids rise, and all
   * classes get theirs from one counter without a second look at it.
   */
  createTopic(topic: NewTopic): Promise<Topic>;
  getTopic(name: string): Promise<Topic | null>;
  /** Live topics by id; null for those that are gone. */
  getTopicsById(topicIds: readonly number[]): Promise<(Topic | null)[]>;
  /** Live topics by name in byte order, after `after`. */
  listTopics(page: { after?: string; limit: number }): Promise<Topic[]>;
  /** Sets the partition count; 'invalid-partition-count' unless it is above the present one; 'topic-not-found'. */
  growTopic(name: string, partitionCount: number): Promise<Topic>;
  /** Sets (string) or removes (null) configs in one step; 'topic-not-found'. */
  alterTopic(name: string, changes: Record<string, string | null>): Promise<Topic>;
  /**
   * Frees the name at once and remembers the topic as deleted until `forgetDeletedTopic`; 'topic-not-found'. With
   * `topicId` only if the name is that topic's: a call that arrives late, after the topic was deleted and made anew,
   * must not delete the new one.
   */
  deleteTopic(name: string, topicId?: number): Promise<Topic>;
  /** Deleted topics whose TopicDeleted entries may not have reached all shards, by id, after `afterTopicId`. */
  listDeletedTopics(page: { afterTopicId: number; limit: number }): Promise<Topic[]>;
  /** Idempotent. */
  forgetDeletedTopic(topicId: number): Promise<void>;

  // -- Log: the append is the only fence -----------------------------------------------------------------
  /**
   * For every entry on its own, in one atomic step each and in one round trip for all: if the shard's head is at
   * seq - 1 and bears this epoch, the head moves to seq and the entry is inserted; else conflict with the head
   * found. At most one entry per shard in a call. The rows of `objects` are inserted (if absent, never changed)
   * before or with the entries, whatever becomes of these. Outcomes in the order of `entries`.
   */
  appendEntries(entries: readonly LogEntry[], objects: readonly ObjectRow[]): Promise<AppendOutcome[]>;
  /**
   * Committed entries with seq > afterSeq in order, as many as fit `bytesMax` but at least one if there is any.
   * They need not be dense from afterSeq + 1 if the log was trimmed there: the caller checks.
   */
  readEntries(shard: number, afterSeq: number, bytesMax: number): Promise<LogEntry[]>;
  /** Strongly consistent. 'shard-not-found'. */
  readHead(shard: number): Promise<ShardHead>;
  /** Deletes entries through `throughSeq`, but never above the checkpoint pointer ('conflict' then). Idempotent. */
  trim(shard: number, throughSeq: number): Promise<void>;

  // -- Pages and checkpoints: folds of the log, stamped --------------------------------------------------
  /** Each page on its own: stored if there is none at its base or its stamp is higher than the one there. */
  putPages(pages: readonly IndexPage[]): Promise<void>;
  /** For each request the page with the greatest base <= offset, or null. */
  findPages(requests: readonly (PartitionId & { offset: number })[]): Promise<(IndexPage | null)[]>;
  /** Pages of a partition with base >= fromBaseOffset, by base. */
  listPages(of: PartitionId & { fromBaseOffset: number; limit: number }): Promise<IndexPage[]>;
  /** Deletes a partition's pages with base < belowBaseOffset; the caller keeps this at or below the log start. */
  deletePages(of: PartitionId & { belowBaseOffset: number }): Promise<void>;
  /** Immutable under (shard, seq, writer): stored if absent. */
  putCheckpoint(shard: number, pointer: CheckpointPointer, bytes: Uint8Array): Promise<void>;
  /** 'checkpoint-not-found'. */
  getCheckpoint(shard: number, pointer: CheckpointPointer): Promise<Uint8Array>;
  /** Moves the head's pointer: forward only, under the current epoch only. */
  movePointer(shard: number, epoch: number, pointer: CheckpointPointer): Promise<HeadOutcome>;
  /** Deletes checkpoints with seq below the head's pointer. Idempotent. */
  deleteOldCheckpoints(shard: number): Promise<void>;

  // -- Objects -------------------------------------------------------------------------------------------
  getObjects(objects: readonly ObjectId[]): Promise<(ListedObject | null)[]>;
  /** Rows by (incarnation, number) after `after`; with `unreferencedOnly` only those without any reference. */
  listObjects(page: { after?: ObjectId; limit: number; unreferencedOnly?: boolean }): Promise<ListedObject[]>;
  /** Idempotent; a row that is gone is skipped. */
  dropReferences(drops: readonly ReferenceDrop[]): Promise<void>;
  /** Marks rows without references that bear no mark yet. */
  markObjects(objects: readonly ObjectId[], markedAtMs: number): Promise<void>;
  /** Removes rows that are marked and without references; others stay. */
  forgetObjects(objects: readonly ObjectId[]): Promise<void>;

  // -- Agents and leases ---------------------------------------------------------------------------------
  /** A new incarnation of agentId; the former one's row is replaced (its heartbeats then fail). */
  registerAgent(agent: {
    agentId: string;
    address: string;
    zone: string;
    group: string;
    version: string;
    registeredAtMs: number;
  }): Promise<Agent>;
  /**
   * Raises this incarnation's count and answers all registered agents by id, as of that step: its own row with the
   * raised count, and whoever had registered before the call. One statement (DynamoDB: two requests, and an agent that
   * registers between them may be among them). 'agent-not-found' when this incarnation is registered no more: then no
   * count is raised. After 'store-unknown' it may be called again: a beat that counts twice is still a beat.
   */
  heartbeat(agentId: string, incarnation: number): Promise<Agent[]>;
  getAgent(agentId: string): Promise<Agent | null>;
  listAgents(filter?: { group?: string; zone?: string }): Promise<Agent[]>;
  /** Idempotent; only this incarnation's row goes. */
  deregisterAgent(agentId: string, incarnation: number): Promise<void>;
  /**
   * Raises epochs: where head bears exactly the (holder, epoch) seen, epoch + 1 and holder = incarnation. Each on its
   * own, and nothing at all for 'shard-not-found'; shards differ. After 'store-unknown' the heads tell.
   */
  acquireLeases(
    incarnation: number,
    seen: readonly { shard: number; holder: number; epoch: number }[],
  ): Promise<HeadOutcome[]>;
  /**
   * Where head bears (incarnation, epoch): holder = 0, epoch stays, and with it whoever bears it may still append until
   * the shard is taken. Otherwise as acquireLeases.
   */
  releaseLeases(
    incarnation: number,
    leases: readonly { shard: number; epoch: number }[],
  ): Promise<HeadOutcome[]>;
  /** Every shard's head, by shard. */
  listLeases(): Promise<ShardHead[]>;

  // -- Ids -----------------------------------------------------------------------------------------------
  /** The first of `count` fresh producer ids, from 1. */
  allocateProducerIds(count: number): Promise<number>;

  // -- Moving a cluster to another store; no broker may use either meanwhile -----------------------------
  getLastIds(): Promise<LastIds>;
  /**
   * All pages of the store, in an order of its own. `cursor` null begins; a returned null ends. At most `limit`
   * pages, perhaps none before the end. What is there throughout comes exactly once, whatever is put meanwhile.
   */
  scanPages(page: {
    cursor: string | null;
    limit: number;
  }): Promise<{ pages: IndexPage[]; cursor: string | null }>;
  /**
   * Puts rows as they are, over what is there under the same key (a topic's keys are its id and its name: whoever
   * had the name is gone); entries without a look at the head, in any order; ids are only raised. Needs no cluster
   * row, and where there is one 'conflict' (but for ids): a copier that slept must not put a living cluster back.
   * Idempotent. The heads come first: entries, pages (putPages) and checkpoints (putCheckpoint) after theirs.
   */
  importRows(rows: ImportedRows): Promise<void>;
  /**
   * The last step of copying: the cluster's row. 'conflict' if a head is missing, and if there is one of another
   * storeIncarnation, or of the same that is not older: a row is replaced by that of a newer generation only, and the
   * same again (generation, movedTo) changes nothing.
   */
  importCluster(cluster: ClusterInfo): Promise<void>;
  /**
   * Sets or takes back `movedTo` where it is as `seen`, or is so already (a call that is made again); 'conflict' where
   * it is another (another copy's), and where there is no cluster.
   */
  setMovedTo(storeIncarnation: string | null, seen: string | null): Promise<ClusterInfo>;

  close(): Promise<void>;
}
