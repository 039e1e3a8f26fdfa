/** Copying rows to PostgreSQL from another store and back: what importRows, importCluster and scanPages do with them. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { oneGroup } from '../../../../src/core/shard-layout.ts';
import type {
  ClusterInfo,
  ImportedRows,
  IndexPage,
  MetadataStore,
} from '../../../../storage/metadata/metadata-store.ts';
import { openPostgresStore, plainClient, schemaOf } from '../../../support/postgres-stores.ts';
import { sharedPostgres } from '../../../support/shared-postgres.ts';

const topic = (topicId: number, name: string, version = 1) => ({
  topicId,
  name,
  partitionCount: topicId,
  configs: { 'retention.ms': '5', nul: '\0' },
  createdAtMs: 7,
  version,
});

const ROWS: Required<ImportedRows> = {
  topics: [topic(3, 'b'), topic(4, 'a\0')],
  deletedTopics: [topic(1, 'b', 9), topic(2, 'b', 8)],
  heads: [
    {
      shard: 1,
      headSeq: 9,
      headCommitId: 'c-"9\\',
      epoch: 4,
      holder: 2,
      checkpoint: { seq: 8, writer: 2 },
      trimmedThrough: 7,
    },
    { shard: 0, headSeq: 0, headCommitId: '', epoch: 0, holder: 0, checkpoint: null, trimmedThrough: 0 },
  ],
  entries: [
    { shard: 1, seq: 9, epoch: 4, commitId: 'c-"9\\', body: new Uint8Array([1, 2, 3]) },
    { shard: 1, seq: 8, epoch: 3, commitId: 'NULL', body: new Uint8Array(0) },
  ],
  objects: [
    { object: { incarnation: 2, number: 2 }, bytes: 5, createdAtMs: 6, shards: [], markedAtMs: 77 },
    {
      object: { incarnation: 2, number: 1 },
      bytes: 5,
      createdAtMs: 6,
      shards: [
        { shard: 1, epoch: 4 },
        { shard: 0, epoch: 1 },
      ],
      markedAtMs: null,
    },
  ],
  lastIds: { topic: 40, incarnation: 30, producer: 20 },
};

const CLUSTER: ClusterInfo = {
  clusterId: 'c',
  storeIncarnation: 's-2',
  ...oneGroup(2),
  createdAtMs: 5,
  generation: 2,
  copiedFrom: 's-1',
  movedTo: null,
};

describe('a copy to PostgreSQL', () => {
  let store: MetadataStore;
  before(async () => {
    ({ store } = await openPostgresStore((await sharedPostgres()).storeUrl()));
  });
  after(() => store.close());

  const read = async () => ({
    topics: await store.getTopicsById([3, 4]),
    deletedTopics: await store.listDeletedTopics({ afterTopicId: 0, limit: 9 }),
    heads: (await store.listLeases()).reverse(),
    entries: (await store.readEntries(1, 0, 1e9)).reverse(),
    objects: (await store.listObjects({ limit: 9 })).reverse(),
    lastIds: await store.getLastIds(),
  });

  it('has what was given, again and again', async () => {
    await assert.rejects(store.setMovedTo('x', null), { code: 'conflict' });
    await assert.rejects(store.importCluster(CLUSTER), { code: 'conflict' });
    await store.importRows({});
    for (let times = 0; times < 3; times++) {
      await store.importRows(ROWS);
      assert.deepEqual(await read(), ROWS);
    }
    assert.equal((await store.listObjects({ limit: 9, unreferencedOnly: true })).length, 1);
  });

  it('replaces what is there under the same key, and only raises ids', async () => {
    const changed: ImportedRows = {
      // Deleted and created anew since the first attempt: another topic has the name now.
      topics: [topic(50, 'b', 2)],
      heads: [{ ...ROWS.heads[0], headSeq: 10, checkpoint: null }],
      entries: [{ ...ROWS.entries[0], commitId: 'other', body: new Uint8Array([9]) }],
      objects: [{ ...ROWS.objects[1], shards: [], markedAtMs: 3 }],
      lastIds: { topic: 50, incarnation: 1, producer: 1 },
    };
    await store.importRows(changed);
    assert.deepEqual(await store.getTopic('b'), topic(50, 'b', 2));
    assert.deepEqual(await store.getTopicsById([3]), [null]);
    assert.equal((await store.readHead(1)).checkpoint, null);
    assert.deepEqual((await store.readEntries(1, 8, 1e9))[0], changed.entries?.[0]);
    assert.equal((await store.listObjects({ limit: 9, unreferencedOnly: true })).length, 2);
    assert.deepEqual(await store.getLastIds(), { topic: 50, incarnation: 30, producer: 20 });
    const next = { name: 'new', partitionCount: 1, configs: {}, createdAtMs: 1 };
    assert.equal((await store.createTopic(next)).topicId, 51);
    assert.equal(await store.allocateProducerIds(5), 21);
  });

  it('happens whole or not at all', async () => {
    const before = await read();
    // The database itself refuses the second statement: no number of its is so large.
    const refused = { ...topic(61, 'y'), createdAtMs: 1e25 };
    await assert.rejects(store.importRows({ topics: [topic(60, 'x')], deletedTopics: [refused] }), {
      code: '22P02',
    });
    assert.deepEqual(await read(), before);
    assert.equal(await store.getTopic('x'), null);
  });

  it('ends with the cluster, once all heads are there', async () => {
    await assert.rejects(store.importCluster({ ...CLUSTER, shardCount: 3 }), { code: 'conflict' });
    assert.equal(await store.getCluster(), null);
    await store.importCluster(CLUSTER);
    await store.importCluster(CLUSTER);
    assert.deepEqual(await store.getCluster(), CLUSTER);
    await assert.rejects(store.importCluster({ ...CLUSTER, storeIncarnation: 's-9' }), { code: 'conflict' });
    const moved = { ...CLUSTER, movedTo: 's-3' };
    assert.deepEqual(await store.setMovedTo('s-3', null), moved);
    assert.deepEqual(await store.getCluster(), moved);
    assert.deepEqual(await store.setMovedTo(null, 's-3'), CLUSTER);
  });

  it('waits for a cluster that is about to be there, and puts nothing over it', async () => {
    const url = (await sharedPostgres()).storeUrl();
    const opened = await openPostgresStore(url);
    const client = await plainClient(url);
    const cluster = `"${schemaOf(url)}".cluster`;
    try {
      await opened.store.importRows({ heads: ROWS.heads });
      await client.query(`BEGIN; INSERT INTO ${cluster} VALUES (true, 'c', 's-2', 2, 5, 2)`);
      const late = opened.store.importRows({ heads: [{ ...ROWS.heads[0], headSeq: 1 }] });
      const refused = assert.rejects(late, { code: 'conflict' });
      const waiting = `SELECT FROM pg_locks WHERE relation = '${cluster}'::regclass AND NOT granted`;
      for (let i = 0; i < 400 && (await client.query(waiting)).rowCount === 0; i++) await sleepMs(10);
      await client.query('COMMIT');
      await refused;
      assert.deepEqual(await opened.store.readHead(1), ROWS.heads[0]);
    } finally {
      await client.end();
      await opened.store.close();
    }
  });

  it('gives every page once, in pages of any size', async () => {
    const pages: IndexPage[] = [];
    for (const [topicId, partition] of [
      [1, 0],
      [1, 1],
      [1, 10],
      [2, 0],
      [8_589_934_590, 3],
    ]) {
      for (const baseOffset of [0, 5, 2 ** 52]) {
        const bytes = new Uint8Array(2500).fill(pages.length);
        pages.push({ topicId, partition, shard: 1, baseOffset, stamp: 4, bytes });
      }
    }
    await store.putPages([...pages].reverse());
    for (const limit of [1, 4, 15, 100]) {
      const found: IndexPage[] = [];
      let cursor: string | null = null;
      do {
        const some = await store.scanPages({ cursor, limit });
        assert(some.pages.length <= limit);
        found.push(...some.pages);
        cursor = some.cursor;
      } while (cursor !== null);
      assert.deepEqual(found, pages);
    }
  });
});
