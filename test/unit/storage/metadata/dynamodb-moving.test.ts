/** A cluster that is copied to DynamoDB row by row, and one that is made there; the layout of the items, frozen. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { oneGroup } from '../../../../src/core/shard-layout.ts';
import { MemoryMetadataStore } from '../../../../storage/metadata/memory/memory-metadata-store.ts';
import type { ImportedRows, ShardHead } from '../../../../storage/metadata/metadata-store.ts';
import { failsWith, objectRow } from '../../../contract/metadata-store-rig.ts';
import { DynamodbRig, entryOf, eventually } from '../../../support/dynamodb-rig.ts';

const LAYOUT = new URL('../../../golden/dynamodb-items-v1.json', import.meta.url);

const CLUSTER = {
  clusterId: 'c',
  storeIncarnation: 'new',
  ...oneGroup(2),
  createdAtMs: 1,
  generation: 2,
  copiedFrom: 'old',
  movedTo: null,
};

function head(shard: number, other: Partial<ShardHead> = {}): ShardHead {
  const zero = { headSeq: 0, headCommitId: '', epoch: 0, holder: 0, checkpoint: null, trimmedThrough: 0 };
  return { shard, ...zero, ...other };
}

function rows(): ImportedRows & { entries: NonNullable<ImportedRows['entries']> } {
  const topic = { name: 'a', partitionCount: 3, configs: { x: 'y' }, createdAtMs: 5 };
  const entries = [3, 4, 5].map((seq) => {
    return entryOf(1, seq, {
      commitId: `old-${seq}`,
      body: new Uint8Array(seq === 4 ? 10_000 : 50).fill(seq),
    });
  });
  const held = { epoch: 9, holder: 4, checkpoint: { seq: 2, writer: 4 }, trimmedThrough: 2 };
  return {
    topics: [{ ...topic, topicId: 4, version: 6 }],
    deletedTopics: [{ ...topic, topicId: 3, version: 2 }],
    heads: [head(0), head(1, { headSeq: 5, headCommitId: 'old-5', ...held })],
    entries,
    objects: [
      { ...objectRow(4, 1, { shards: [] }), markedAtMs: 77 },
      { ...objectRow(4, 2, { shards: [{ shard: 1, epoch: 9 }] }), markedAtMs: null },
    ],
    lastIds: { topic: 4, incarnation: 6, producer: 900 },
  };
}

describe('a cluster copied to DynamoDB', () => {
  let rig: DynamodbRig;
  before(async () => {
    rig = await DynamodbRig.start(0);
  });
  after(() => rig.close());

  it('is the same as one copied to memory, and goes on', async () => {
    const [store, memory] = [rig.store(), new MemoryMetadataStore()];
    assert.deepEqual(await store.listLeases(), []);
    await failsWith('conflict', store.setMovedTo('x', null));
    await failsWith('conflict', store.importCluster(CLUSTER));
    for (const each of [store, memory]) {
      // In parts and twice, as a copy that was begun anew.
      const { entries, heads, ...rest } = rows();
      await each.importRows({ heads });
      await each.importRows({ entries: entries.slice(0, 2) });
      await each.importRows({ heads, entries });
      await each.importRows(rest);
      await each.importRows({ lastIds: { topic: 1, incarnation: 1, producer: 1 } });
    }
    const looks = async (each: typeof store | typeof memory) => ({
      heads: await each.listLeases(),
      entries: await each.readEntries(1, 2, 1e9),
      topics: await each.listTopics({ limit: 9 }),
      byId: await each.getTopicsById([3, 4]),
      deleted: await each.listDeletedTopics({ afterTopicId: 0, limit: 9 }),
      objects: await each.listObjects({ limit: 9 }),
      garbage: await each.listObjects({ limit: 9, unreferencedOnly: true }),
      lastIds: await each.getLastIds(),
      cluster: await each.getCluster(),
    });
    assert.deepEqual(await looks(store), await looks(memory));
    for (const each of [store, memory]) await each.importCluster(CLUSTER);
    assert.deepEqual(await looks(rig.store()), await looks(memory));
    await failsWith('conflict', store.importCluster({ ...CLUSTER, storeIncarnation: 'other' }));
    await store.importCluster(CLUSTER);

    // The head came without its entry, which has an item of its own: appends go on from there.
    const successor = rig.store();
    const [taken] = await successor.acquireLeases(7, [{ shard: 1, holder: 4, epoch: 9 }]);
    assert.deepEqual([taken.kind, taken.head.epoch], ['done', 10]);
    const next = entryOf(1, 6, { epoch: 10 });
    assert.deepEqual(await successor.appendEntries([next], []), [{ kind: 'done' }]);
    assert.deepEqual(await rig.store().readEntries(1, 2, 1e9), [...rows().entries, next]);
    assert.deepEqual(await store.allocateProducerIds(1), 901);
    assert.equal(
      (await store.createTopic({ name: 'b', partitionCount: 1, configs: {}, createdAtMs: 1 })).topicId,
      5,
    );
    assert.equal((await store.setMovedTo('next', null)).movedTo, 'next');
    assert.equal((await rig.store().getCluster())?.movedTo, 'next');
    assert.equal((await store.setMovedTo(null, 'next')).movedTo, null);
  });
});

describe('a head on DynamoDB', () => {
  it('is put back by no request that comes late', async () => {
    const rig = await DynamodbRig.start(0);
    try {
      const store = rig.store();
      const newer = head(0, { headSeq: 5, headCommitId: 'c-5', epoch: 3 });
      await store.importRows({ heads: [newer] });
      await store.importRows({ heads: [newer] });
      for (const late of [{ headSeq: 4 }, { epoch: 2 }]) {
        await failsWith('conflict', rig.store().importRows({ heads: [{ ...newer, ...late }] }));
      }
      assert.deepEqual(await store.readHead(0), newer);
    } finally {
      await rig.close();
    }
  });
});

describe('a cluster made on DynamoDB', () => {
  it('is reopened after it was copied, though none of its heads was imported', async () => {
    const rig = await DynamodbRig.start(3);
    try {
      const store = rig.store();
      const made = await store.setMovedTo('copy', null);
      const reopened = { ...made, generation: 2, movedTo: null };
      await store.importCluster(reopened);
      assert.deepEqual(await rig.store().getCluster(), reopened);
    } finally {
      await rig.close();
    }
  });

  it('has all its heads as soon as it is there, and gets none anew that was lost', async () => {
    const rig = await DynamodbRig.start(3);
    try {
      rig.proxy.clear();
      await rig.deleteItem('head#1', 'head');
      const store = rig.store();
      await store.initCluster({ clusterId: 'd', storeIncarnation: 'e', shardCount: 3, createdAtMs: 1 });
      await failsWith('corrupt-store', store.listLeases());
      await failsWith('shard-not-found', store.readHead(1));
      assert.deepEqual(await rig.items('head#1'), []);
      // Left by a proposal of more shards that lost the race.
      const [head0] = await rig.items('head#0');
      await rig.putItem({ ...head0, pk: { S: 'head#3' } });
      await failsWith('shard-not-found', rig.store().readHead(3));
    } finally {
      await rig.close();
    }
  });
});

describe('the items', () => {
  it('lie as they always did', async () => {
    const rig = await DynamodbRig.start(2);
    try {
      const store = rig.store();
      const agent = {
        agentId: 'a-1',
        address: 'http://h:1',
        zone: 'z',
        group: 'g',
        version: '1',
        registeredAtMs: 6,
      };
      await store.registerAgent(agent);
      await store.heartbeat('a-1', 1);
      const topic = { name: 'tö', partitionCount: 3, configs: { k: 'v' }, createdAtMs: 5 };
      await store.createTopic(topic);
      await store.createTopic({ ...topic, name: 'gone' });
      await store.deleteTopic('gone');
      await store.allocateProducerIds(5);
      const shards = [{ shard: 1, epoch: 1 }];
      const body = (n: number) => new Uint8Array(n).fill(n % 251);
      const entries = [8, 4097, 8].map((n, i) =>
        entryOf(1, i + 1, { commitId: `x-${i + 1}`, body: body(n) }),
      );
      for (const entry of entries) await store.appendEntries([entry], [objectRow(1, entry.seq, { shards })]);
      await store.putCheckpoint(1, { seq: 2, writer: 1 }, body(9));
      await store.putCheckpoint(1, { seq: 2, writer: 2 }, body(393_217));
      await store.movePointer(1, 1, { seq: 2, writer: 1 });
      const page = { topicId: 1, partition: 2, shard: 1, baseOffset: 2 ** 53 - 2, stamp: 2, bytes: body(3) };
      await store.putPages([page, { ...page, baseOffset: 0, bytes: body(393_217) }]);
      await store.dropReferences([{ shard: 1, object: { incarnation: 1, number: 1 }, belowEpoch: null }]);
      await store.markObjects([{ incarnation: 1, number: 1 }], 8);
      await store.setMovedTo('m', null);
      await eventually(async () => (await rig.sortKeys('log#1')).length === 3, 'the copies');
      const shown = (await rig.allItems()).map((item) =>
        Object.fromEntries(
          Object.entries(item)
            .map(([name, value]) => [name, show(name, value as never)])
            .sort(),
        ),
      );
      const layout = JSON.parse(readFileSync(LAYOUT, 'utf8'));
      assert.deepEqual(shown, layout, `unless it is meant: ${JSON.stringify(shown)}`);
    } finally {
      await rig.close();
    }
  });
});

/** Text and numbers as they are, bytes by their hex or, where they are many, their count. */
function show(name: string, value: { S?: string; N?: string; B?: Uint8Array }): string {
  // The time of the migration is that of the run.
  if (name === 'appliedAt') return 'N:';
  if (value.B === undefined) return value.N === undefined ? `S:${value.S}` : `N:${value.N}`;
  const { length } = value.B;
  return length > 64 ? `B:${length} bytes` : `B:${Buffer.from(value.B).toString('hex')}`;
}
