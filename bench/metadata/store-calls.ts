/**
 * Every call of the metadata store contract, as it is measured. Owns: the table by method, so that a call without a
 * measurement does not compile: what the call is given, and what is done before and after each run, outside of its
 * time, so that every run meets the same. Does not own: the store's content (filled-store), how it is run.
 */

import { seededRandom } from '../../src/core/random.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import type { MetadataMethod } from '../../storage/metadata/forwarding-metadata-store.ts';
import type { IndexPage, Topic } from '../../storage/metadata/metadata-store.ts';
import { TOPIC_ID, upTo, WALL_MS } from '../sample-appends.ts';
import { OFFSETS_PER_PAGE, samplePages } from '../sample-pages.ts';
import {
  AGENTS,
  agentOf,
  BATCH,
  CHECKPOINT_BYTES,
  CLUSTER,
  checkpoint,
  type FilledStore,
  LISTED_OBJECTS,
  LOG_ENTRIES,
  listedObject,
  PAGED_PARTITIONS,
  PAGES_EACH,
  SHARD_COUNT,
  SHARDS_OF,
  TOPICS,
  topicName,
  topicOf,
} from './filled-store.ts';

/** Calls of all methods are warmed up before the first is measured: none may lean on another's having run or not. */
export interface MeasuredCall {
  /** Beside the method's name. */
  what?: string;
  run(): Promise<unknown>;
  before?(): Promise<unknown>;
  after?(): Promise<unknown>;
}

/** Runs between two clearings of what runs leave: seldom, since they take longer than a run. */
const CLEAR_EVERY = 64;

/** A call may be measured in several ways. */
export const STORE_CALLS: Record<MetadataMethod, (at: FilledStore) => MeasuredCall[]> = {
  // -- Cluster
  initCluster: ({ store }) => [{ what: 'of the one that is there', run: () => store.initCluster(CLUSTER) }],
  getCluster: ({ store }) => [{ run: async () => mustBe((await store.getCluster()) !== null) }],

  // -- Catalogue
  createTopic({ store }) {
    let topic: Topic;
    const create = async () => (topic = await store.createTopic(topicOf('z-made')));
    const remove = async () => {
      await store.deleteTopic('z-made');
      await store.forgetDeletedTopic(topic.topicId);
    };
    return [{ what: 'of 1,000 partitions', run: create, after: remove }];
  },
  getTopic({ store }) {
    let i = 0;
    return [{ run: async () => mustBe((await store.getTopic(topicName(i++))) !== null) }];
  },
  getTopicsById({ store }) {
    const run = async () =>
      mustBe(!(await store.getTopicsById(upTo(BATCH).map((i) => i + 1))).includes(null));
    return [{ what: `${BATCH}`, run }];
  },
  listTopics({ store }) {
    const run = async () => mustBe((await store.listTopics({ limit: TOPICS })).length === TOPICS);
    return [{ what: `${TOPICS}`, run }];
  },
  growTopic({ store }) {
    let count = GROWN_MAX;
    let made: Topic | null = null;
    const before = async () => {
      if (count < GROWN_MAX) return;
      if (made !== null) {
        await store.deleteTopic(made.name);
        await store.forgetDeletedTopic(made.topicId);
      }
      made = await store.createTopic({ ...topicOf('z-grown'), partitionCount: (count = 1) });
    };
    return [{ run: () => store.growTopic('z-grown', ++count), before }];
  },
  alterTopic({ store }) {
    let i = 0;
    return [{ run: () => store.alterTopic(topicName(0), { 'retention.ms': String(1 + i++) }) }];
  },
  deleteTopic({ store }) {
    let topic: Topic;
    const before = async () => (topic = await store.createTopic(topicOf('z-deleted')));
    const after = () => store.forgetDeletedTopic(topic.topicId);
    return [{ run: () => store.deleteTopic('z-deleted'), before, after }];
  },
  listDeletedTopics: ({ store }) => [
    { what: 'of none', run: () => store.listDeletedTopics({ afterTopicId: 0, limit: 100 }) },
  ],
  forgetDeletedTopic({ store }) {
    let topic: Topic;
    const before = async () => {
      topic = await store.createTopic(topicOf('z-forgotten'));
      await store.deleteTopic('z-forgotten');
    };
    return [{ run: () => store.forgetDeletedTopic(topic.topicId), before }];
  },

  // -- Log
  appendEntries: (at) => [
    append(at, '1 shard', [SHARDS_OF.oneAppend]),
    append(at, `${BATCH} shards`, SHARDS_OF.appends),
  ],
  readEntries: ({ store }) => [
    {
      what: `${LOG_ENTRIES} entries of 1 KiB`,
      run: async () => mustBe((await store.readEntries(SHARDS_OF.log, 0, 1 << 20)).length === LOG_ENTRIES),
    },
    {
      what: '1 entry',
      run: async () =>
        mustBe((await store.readEntries(SHARDS_OF.log, LOG_ENTRIES - 1, 1 << 20)).length === 1),
    },
  ],
  readHead({ store }) {
    let i = 0;
    return [{ run: () => store.readHead(i++ % SHARD_COUNT) }];
  },
  trim(at) {
    const shard = SHARDS_OF.trim;
    const before = async () => {
      await at.append([shard]);
      await at.movePointer(shard);
    };
    return [{ what: '1 entry', run: () => at.store.trim(shard, at.pointer(shard).seq), before }];
  },

  // -- Pages and checkpoints
  putPages({ store }) {
    const pages = upTo(BATCH).flatMap((i) => samplePages(PAGED_PARTITIONS + i, 1, SHARD_COUNT));
    const next = () => {
      for (const page of pages) page.stamp++;
    };
    return [
      { what: '1 of 1.8 KiB', run: () => store.putPages(pages.slice(0, 1)), before: async () => next() },
      { what: `${BATCH} of 1.8 KiB`, run: () => store.putPages(pages), before: async () => next() },
    ];
  },
  findPages({ store }) {
    const random = seededRandom(7);
    const request = () => ({
      topicId: TOPIC_ID,
      partition: random.below(PAGED_PARTITIONS),
      offset: random.below(PAGES_EACH * OFFSETS_PER_PAGE),
    });
    return [1, BATCH].map((count) => ({
      what: `${count}`,
      run: async () => mustBe(!(await store.findPages(upTo(count).map(request))).includes(null)),
    }));
  },
  listPages({ store }) {
    let i = 0;
    const of = () => ({
      topicId: TOPIC_ID,
      partition: i++ % PAGED_PARTITIONS,
      fromBaseOffset: 0,
      limit: 100,
    });
    return [
      { what: `${PAGES_EACH}`, run: async () => mustBe((await store.listPages(of())).length === PAGES_EACH) },
    ];
  },
  deletePages({ store }) {
    const partition = PAGED_PARTITIONS + BATCH;
    const pages: IndexPage[] = samplePages(partition, 1, SHARD_COUNT);
    const of = { topicId: TOPIC_ID, partition, belowBaseOffset: 1 };
    return [{ what: '1', run: () => store.deletePages(of), before: () => store.putPages(pages) }];
  },
  putCheckpoint(at) {
    const { store } = at;
    const shard = SHARDS_OF.oldCheckpoints;
    const bytes = checkpoint();
    let writer = 0;
    const after = async () => void (writer % CLEAR_EVERY === 0 && (await store.deleteOldCheckpoints(shard)));
    const run = () => store.putCheckpoint(shard, { seq: 1, writer: ++writer }, bytes);
    return [{ what: `${CHECKPOINT_BYTES / 1024} KiB`, run, after }];
  },
  getCheckpoint(at) {
    const shard = SHARDS_OF.checkpoints;
    const run = () => at.store.getCheckpoint(shard, at.pointer(shard));
    return [{ what: `${CHECKPOINT_BYTES / 1024} KiB`, run }];
  },
  movePointer(at) {
    const shard = SHARDS_OF.pointer;
    let count = 0;
    const before = () => at.append([shard]);
    const after = async () =>
      void (++count % CLEAR_EVERY === 0 && (await at.store.trim(shard, at.pointer(shard).seq)));
    return [{ run: async () => mustBe((await at.movePointer(shard)).kind === 'done'), before, after }];
  },
  deleteOldCheckpoints({ store }) {
    const shard = SHARDS_OF.oldCheckpoints;
    const bytes = checkpoint();
    const before = () => store.putCheckpoint(shard, { seq: 1, writer: 1 }, bytes);
    return [{ what: '1', run: () => store.deleteOldCheckpoints(shard), before }];
  },

  // -- Objects
  getObjects({ store }) {
    let i = 0;
    const objects = () => upTo(BATCH).map(() => listedObject(i++));
    return [
      { what: `${BATCH}`, run: async () => mustBe(!(await store.getObjects(objects())).includes(null)) },
    ];
  },
  listObjects({ store }) {
    const after = { ...listedObject(0), number: 0 };
    const run = async () =>
      mustBe((await store.listObjects({ after, limit: LISTED_OBJECTS })).length === LISTED_OBJECTS);
    return [{ what: `${LISTED_OBJECTS}`, run }];
  },
  dropReferences: (at) => [
    ofObjects(at, [SHARDS_OF.log], (objects) =>
      at.store.dropReferences(objects.map((object) => ({ shard: SHARDS_OF.log, object, belowEpoch: null }))),
    ),
  ],
  markObjects: (at) => [ofObjects(at, [], (objects) => at.store.markObjects(objects, WALL_MS))],
  forgetObjects: (at) => [
    ofObjects(
      at,
      [],
      (objects) => at.store.forgetObjects(objects),
      (objects) => at.store.markObjects(objects, WALL_MS),
    ),
  ],

  // -- Agents and leases
  registerAgent: ({ store }) => [{ run: () => store.registerAgent(agentOf('registered')) }],
  heartbeat: ({ store, incarnations }) => [{ run: () => store.heartbeat('agent-0', incarnations[0]) }],
  getAgent: ({ store }) => [{ run: async () => mustBe((await store.getAgent('agent-1')) !== null) }],
  listAgents: ({ store }) => [
    { what: `${AGENTS}`, run: async () => mustBe((await store.listAgents()).length >= AGENTS) },
  ],
  deregisterAgent({ store }) {
    let incarnation = 0;
    const before = async () => ({ incarnation } = await store.registerAgent(agentOf('leaving')));
    return [{ run: () => store.deregisterAgent('leaving', incarnation), before }];
  },
  acquireLeases: (at) => [{ what: `${BATCH}`, run: () => at.acquire(SHARDS_OF.acquire) }],
  releaseLeases: (at) => [
    {
      what: `${BATCH}`,
      run: () => at.release(SHARDS_OF.release),
      before: () => at.acquire(SHARDS_OF.release),
    },
  ],
  listLeases: ({ store }) => [
    { what: `${SHARD_COUNT}`, run: async () => mustBe((await store.listLeases()).length === SHARD_COUNT) },
  ],

  // -- Ids
  allocateProducerIds: ({ store }) => [{ what: '1,000', run: () => store.allocateProducerIds(1_000) }],

  // -- Moving
  getLastIds: ({ store }) => [{ run: () => store.getLastIds() }],
  scanPages({ store }) {
    const limit = 100;
    return [{ what: `${limit}`, run: () => store.scanPages({ cursor: null, limit }) }];
  },
  importRows({ store }) {
    let producer = 1e12;
    const lastIds = () => ({ topic: 0, incarnation: 0, producer: (producer += PRODUCERS_APART) });
    return [{ what: 'last ids', run: () => store.importRows({ lastIds: lastIds() }) }];
  },
  importCluster({ store }) {
    const cluster = {
      ...CLUSTER,
      ...oneGroup(CLUSTER.shardCount),
      generation: 1,
      copiedFrom: null,
      movedTo: null,
    };
    return [{ what: 'the same again', run: () => store.importCluster(cluster) }];
  },
  setMovedTo: ({ store }) => [
    { run: () => store.setMovedTo('elsewhere', null), after: () => store.setMovedTo(null, 'elsewhere') },
  ],
};

/** Partitions that a topic grows to before there is another: far below what a topic may have. */
const GROWN_MAX = 10_000;

/** More ids than `allocateProducerIds` takes meanwhile: only what raises them is written. */
const PRODUCERS_APART = 1e9;

function append(at: FilledStore, what: string, shards: readonly number[]): MeasuredCall {
  let next = at.nextAppend(shards);
  let count = 0;
  return {
    what: `${what}, 1 KiB each`,
    before: async () => (next = at.nextAppend(shards)),
    run: () => at.append(shards, next),
    after: async () => void (++count % CLEAR_EVERY === 0 && (await at.emptyLogs(shards))),
  };
}

type ObjectIds = Parameters<FilledStore['store']['markObjects']>[0];

/** A call about new objects, which are gone when it is done. */
function ofObjects(
  at: FilledStore,
  shards: readonly number[],
  run: (objects: ObjectIds) => Promise<void>,
  prepare?: (objects: ObjectIds) => Promise<void>,
): MeasuredCall {
  let objects: ObjectIds = [];
  return {
    what: `${BATCH}`,
    async before() {
      objects = (await at.makeObjects(shards)).map(({ object }) => object);
      await prepare?.(objects);
    },
    run: () => run(objects),
    async after() {
      await at.store.markObjects(objects, WALL_MS);
      await at.store.forgetObjects(objects);
    },
  };
}

function mustBe(isSo: boolean): void {
  if (!isSo) throw new Error('a call gave another answer than what is in the store');
}
