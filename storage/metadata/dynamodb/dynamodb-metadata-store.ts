/**
 * The metadata store on DynamoDB. Owns: how its groups hang together. Does not own: any of them: cluster, catalogue,
 * log, pages, checkpoints, objects, agents and counters have a file each; nor the layouts (dynamodb-items), nor
 * requests and their retries (dynamodb-requests). Asynchronous: any number of calls run at once; the storing thread
 * hosts it.
 *
 * Only single-item writes under a condition decide anything; docs/decisions/dynamodb-items.md goes through what may
 * come between two of them.
 */
import type { ObjectId, PartitionId } from '../../../src/core/ids.ts';
import { checkInteger } from '../check-input.ts';
import type {
  Agent,
  CheckpointPointer,
  ClusterInfo,
  ImportedRows,
  IndexPage,
  LogEntry,
  MetadataStore,
  NewCluster,
  NewTopic,
  ObjectRow,
  ReferenceDrop,
} from '../metadata-store.ts';
import { DynamodbAgents } from './dynamodb-agents.ts';
import { DynamodbCatalogue } from './dynamodb-catalogue.ts';
import { DynamodbCheckpoints } from './dynamodb-checkpoints.ts';
import { DynamodbCluster } from './dynamodb-cluster.ts';
import { DynamodbCounters } from './dynamodb-counters.ts';
import { DynamodbHeads } from './dynamodb-heads.ts';
import { DynamodbLog } from './dynamodb-log.ts';
import { DynamodbObjects } from './dynamodb-objects.ts';
import { DynamodbPages } from './dynamodb-pages.ts';
import type { DynamodbRequests } from './dynamodb-requests.ts';

/** The same as the other backends', so that a cluster can move between them. */
const BODY_BYTES_MAX = 16 * 1024 * 1024;

export class DynamodbMetadataStore implements MetadataStore {
  readonly description: string;
  readonly bodyBytesMax = BODY_BYTES_MAX;
  readonly #requests: DynamodbRequests;
  readonly #heads: DynamodbHeads;
  readonly #counters: DynamodbCounters;
  readonly #catalogue: DynamodbCatalogue;
  readonly #objects: DynamodbObjects;
  readonly #log: DynamodbLog;
  readonly #pages: DynamodbPages;
  readonly #checkpoints: DynamodbCheckpoints;
  readonly #agents: DynamodbAgents;
  readonly #cluster: DynamodbCluster;

  /** Takes the requests over: `close` closes them. */
  constructor(requests: DynamodbRequests) {
    const bodyBytesMax = BODY_BYTES_MAX;
    const heads = new DynamodbHeads(requests);
    const counters = new DynamodbCounters(requests);
    const catalogue = new DynamodbCatalogue(requests, counters);
    const objects = new DynamodbObjects(requests);
    const log = new DynamodbLog(requests, heads, objects, bodyBytesMax);
    this.description = requests.description;
    this.#requests = requests;
    this.#heads = heads;
    this.#counters = counters;
    this.#catalogue = catalogue;
    this.#objects = objects;
    this.#log = log;
    this.#pages = new DynamodbPages(requests, bodyBytesMax);
    this.#checkpoints = new DynamodbCheckpoints(requests, heads, bodyBytesMax);
    this.#agents = new DynamodbAgents(requests, counters, heads, log.copies);
    this.#cluster = new DynamodbCluster({ requests, heads, catalogue, counters, log, objects, bodyBytesMax });
  }

  // -- Cluster -----------------------------------------------------------------------------------------

  initCluster(proposed: NewCluster) {
    return this.#cluster.init(proposed);
  }

  getCluster() {
    return this.#heads.getCluster();
  }

  // -- Catalogue ---------------------------------------------------------------------------------------

  createTopic(topic: NewTopic) {
    return this.#catalogue.create(topic);
  }

  async getTopic(name: string) {
    this.#requests.checkOpen();
    return this.#catalogue.get(name);
  }

  getTopicsById(topicIds: readonly number[]) {
    return this.#catalogue.getById(topicIds);
  }

  listTopics(page: { after?: string; limit: number }) {
    return this.#catalogue.list(page);
  }

  growTopic(name: string, partitionCount: number) {
    return this.#catalogue.grow(name, partitionCount);
  }

  alterTopic(name: string, changes: Record<string, string | null>) {
    return this.#catalogue.alter(name, changes);
  }

  deleteTopic(name: string, topicId?: number) {
    return this.#catalogue.delete(name, topicId);
  }

  listDeletedTopics(page: { afterTopicId: number; limit: number }) {
    return this.#catalogue.listDeleted(page);
  }

  forgetDeletedTopic(topicId: number) {
    return this.#catalogue.forgetDeleted(topicId);
  }

  // -- Log ---------------------------------------------------------------------------------------------

  appendEntries(entries: readonly LogEntry[], objects: readonly ObjectRow[]) {
    return this.#log.append(entries, objects);
  }

  readEntries(shard: number, afterSeq: number, bytesMax: number) {
    return this.#log.read(shard, afterSeq, bytesMax);
  }

  readHead(shard: number) {
    return this.#heads.read(shard);
  }

  trim(shard: number, throughSeq: number) {
    return this.#log.trim(shard, throughSeq);
  }

  // -- Pages and checkpoints ---------------------------------------------------------------------------

  putPages(pages: readonly IndexPage[]) {
    return this.#pages.put(pages);
  }

  findPages(requests: readonly (PartitionId & { offset: number })[]) {
    return this.#pages.find(requests);
  }

  listPages(of: PartitionId & { fromBaseOffset: number; limit: number }) {
    return this.#pages.list(of);
  }

  deletePages(of: PartitionId & { belowBaseOffset: number }) {
    return this.#pages.delete(of);
  }

  putCheckpoint(shard: number, pointer: CheckpointPointer, bytes: Uint8Array) {
    return this.#checkpoints.put(shard, pointer, bytes);
  }

  getCheckpoint(shard: number, pointer: CheckpointPointer) {
    return this.#checkpoints.get(shard, pointer);
  }

  movePointer(shard: number, epoch: number, pointer: CheckpointPointer) {
    return this.#checkpoints.movePointer(shard, epoch, pointer);
  }

  deleteOldCheckpoints(shard: number) {
    return this.#checkpoints.deleteOld(shard);
  }

  // -- Objects -----------------------------------------------------------------------------------------

  getObjects(objects: readonly ObjectId[]) {
    return this.#objects.get(objects);
  }

  listObjects(page: { after?: ObjectId; limit: number; unreferencedOnly?: boolean }) {
    return this.#objects.list(page);
  }

  dropReferences(drops: readonly ReferenceDrop[]) {
    return this.#objects.drop(drops);
  }

  markObjects(objects: readonly ObjectId[], markedAtMs: number) {
    return this.#objects.mark(objects, markedAtMs);
  }

  forgetObjects(objects: readonly ObjectId[]) {
    return this.#objects.forget(objects);
  }

  // -- Agents and leases -------------------------------------------------------------------------------

  registerAgent(agent: Omit<Agent, 'incarnation' | 'heartbeatCount'>) {
    return this.#agents.register(agent);
  }

  async heartbeat(agentId: string, incarnation: number) {
    this.#requests.checkOpen();
    return this.#agents.heartbeat(agentId, incarnation);
  }

  async getAgent(agentId: string) {
    this.#requests.checkOpen();
    return this.#agents.get(agentId);
  }

  listAgents(filter: { group?: string; zone?: string } = {}) {
    return this.#agents.list(filter);
  }

  async deregisterAgent(agentId: string, incarnation: number) {
    this.#requests.checkOpen();
    return this.#agents.deregister(agentId, incarnation);
  }

  acquireLeases(incarnation: number, seen: readonly { shard: number; holder: number; epoch: number }[]) {
    return this.#agents.acquire(incarnation, seen);
  }

  releaseLeases(incarnation: number, leases: readonly { shard: number; epoch: number }[]) {
    return this.#agents.release(incarnation, leases);
  }

  listLeases() {
    return this.#heads.list();
  }

  // -- Ids ---------------------------------------------------------------------------------------------

  async allocateProducerIds(count: number) {
    checkInteger(count, 'count', 1);
    return this.#counters.next('producer', count);
  }

  // -- Moving ------------------------------------------------------------------------------------------

  getLastIds() {
    return this.#counters.last();
  }

  scanPages(page: { cursor: string | null; limit: number }) {
    return this.#pages.scan(page);
  }

  importRows(rows: ImportedRows) {
    return this.#cluster.import(rows);
  }

  importCluster(cluster: ClusterInfo) {
    return this.#cluster.importCluster(cluster);
  }

  setMovedTo(storeIncarnation: string | null, seen: string | null) {
    return this.#cluster.setMovedTo(storeIncarnation, seen);
  }

  /**
   * Waits for the requests in flight, and makes none of them again: the copies that then are missing are made by
   * whoever appends next.
   */
  close(): Promise<void> {
    return this.#requests.close();
  }
}
