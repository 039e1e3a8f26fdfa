/**
 * The metadata store's contract: what moves a cluster to another store. Rows go in as another store held them, in
 * any number of calls and again after a crash; the cluster's row comes last; from then on it is a store like any
 * other, whose writers go on where they stopped.
 */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type {
  ClusterInfo,
  IndexPage,
  ListedObject,
  LogEntry,
  MetadataStore,
  ShardHead,
  Topic,
} from '../../storage/metadata/metadata-store.ts';
import {
  bytesOf,
  type ContractRig,
  type ContractSettings,
  emptyRigFor,
  failsWith,
  objectRow,
  rigFor,
} from './metadata-store-rig.ts';

/** A head after `headSeq` entries; `entry` is the newest of them. */
function headOf(shard: number, entry: LogEntry | null, other: Partial<ShardHead> = {}): ShardHead {
  return {
    shard,
    headSeq: entry?.seq ?? 0,
    headCommitId: entry?.commitId ?? '',
    epoch: entry?.epoch ?? 0,
    holder: 0,
    checkpoint: null,
    trimmedThrough: 0,
    ...other,
  };
}

function topicRow(topicId: number, name: string, other: Partial<Topic> = {}): Topic {
  return {
    topicId,
    name,
    partitionCount: 3,
    configs: {},
    createdAtMs: 1_700_000_000_004,
    version: 1,
    ...other,
  };
}

function entriesOf(rig: ContractRig, shard: number, first: number, last: number): LogEntry[] {
  return Array.from({ length: last - first + 1 }, (_, i) => rig.entry(shard, first + i, { epoch: 4 }));
}

/** The next entry goes in under the head's epoch, and under no other. */
async function goesOn(rig: ContractRig, shard: number): Promise<void> {
  const { store, rival } = rig;
  const head = await rival.readHead(shard);
  const next = (epoch: number) => rig.entry(shard, head.headSeq + 1, { epoch });
  for (const epoch of [head.epoch - 1, head.epoch + 1]) {
    if (epoch < 0) continue;
    assert.deepEqual(await store.appendEntries([next(epoch)], []), [{ kind: 'conflict', head }]);
  }
  // The newest entry once more, as a resend: refused, and the head shows that it is there.
  if (head.headSeq > 0) {
    const again = rig.entry(shard, head.headSeq, { epoch: head.epoch, commitId: head.headCommitId });
    assert.deepEqual(await store.appendEntries([again], []), [{ kind: 'conflict', head }]);
  }
  const before = await store.readEntries(shard, 0, 1e9);
  const entry = next(head.epoch);
  const after = rig.entry(shard, head.headSeq + 2, { epoch: head.epoch });
  assert.deepEqual(await store.appendEntries([entry], []), [{ kind: 'done' }]);
  assert.deepEqual(await rival.appendEntries([after], []), [{ kind: 'done' }]);
  assert.deepEqual(await rival.readEntries(shard, 0, 1e9), [...before, entry, after]);
  assert.deepEqual(await rival.readHead(shard), {
    ...head,
    headSeq: head.headSeq + 2,
    headCommitId: after.commitId,
  });
}

/** Into a store without a cluster, which it stays. */
export function importedRowsContract(settings: ContractSettings): void {
  const rig = emptyRigFor(settings);

  it('takes heads and entries in any order of calls, and appending goes on', async () => {
    const { store, rival } = rig();
    const ways: ((head: ShardHead, entries: LogEntry[]) => Promise<void>)[] = [
      (head, entries) => store.importRows({ heads: [head], entries }),
      async (head, entries) => {
        await store.importRows({ heads: [head] });
        for (const entry of entries) await store.importRows({ entries: [entry] });
      },
      // A rival's calls at once, the newest entry first.
      async (head, entries) => {
        await store.importRows({ heads: [head] });
        const calls = [...entries].reverse().map((entry) => rival.importRows({ entries: [entry] }));
        await Promise.all([...calls, store.importRows({ entries })]);
      },
    ];
    for (const way of ways) {
      const shard = rig().unusedShard();
      const entries = entriesOf(rig(), shard, 1, 5);
      entries[1].body = new Uint8Array(0);
      entries[4].body = new Uint8Array(300_000).map((_, i) => i * 13);
      // Taken over since the newest entry was written.
      const head = headOf(shard, entries[4], { epoch: 6, holder: 9 });
      await way(head, entries);
      assert.deepEqual(await rival.readHead(shard), head);
      assert.deepEqual(await rival.readEntries(shard, 0, 1e9), entries);
      assert.deepEqual(await rival.readEntries(shard, 4, 1e9), entries.slice(4));
      await goesOn(rig(), shard);
      const seen = { shard, holder: 9, epoch: 6 };
      const [taken] = await store.acquireLeases(12, [seen]);
      assert.equal(taken.kind, 'done');
      assert.equal(taken.head.epoch, 7);
      await goesOn(rig(), shard);
    }
    assert.equal(await store.getCluster(), null);
  });

  it('takes an empty log, and one that was trimmed in part or to its end', async () => {
    const { store } = rig();
    const [empty, part, whole] = [rig().unusedShard(), rig().unusedShard(), rig().unusedShard()];
    const ofPart = entriesOf(rig(), part, 7, 10);
    const ofWhole = entriesOf(rig(), whole, 5, 5);
    const heads = [
      headOf(empty, null, { epoch: 3, holder: 2 }),
      headOf(part, ofPart[3], { checkpoint: { seq: 8, writer: 2 }, trimmedThrough: 6 }),
      headOf(whole, ofWhole[0], { checkpoint: { seq: 5, writer: 2 }, trimmedThrough: 5 }),
    ];
    await store.importRows({ heads, entries: ofPart });
    const listed = await store.listLeases();
    assert.deepEqual(
      listed.filter(({ shard }) => [empty, part, whole].includes(shard)),
      heads,
    );
    assert.deepEqual(await store.readEntries(empty, 0, 1e9), []);
    assert.deepEqual(await store.readEntries(part, 0, 1e9), ofPart);
    assert.deepEqual(await store.readEntries(part, 8, 1e9), ofPart.slice(2));
    assert.deepEqual(await store.readEntries(whole, 0, 1e9), []);
    for (const shard of [empty, part, whole]) await goesOn(rig(), shard);
    await failsWith('conflict', store.trim(part, 9));
    await store.trim(part, 8);
    assert.deepEqual(
      (await store.readEntries(part, 0, 1e9)).map(({ seq }) => seq),
      [9, 10, 11, 12],
    );
    assert.equal((await store.readHead(part)).trimmedThrough, 8);
  });

  it('takes the checkpoint that a head points to, and pointing goes on', async () => {
    const { store, rival } = rig();
    const shard = rig().unusedShard();
    const entries = entriesOf(rig(), shard, 4, 6);
    const pointer = { seq: 4, writer: 2 };
    await store.importRows({
      heads: [headOf(shard, entries[2], { checkpoint: pointer, trimmedThrough: 3 })],
    });
    await failsWith('checkpoint-not-found', store.getCheckpoint(shard, pointer));
    await store.putCheckpoint(shard, pointer, bytesOf('state at 4'));
    await store.putCheckpoint(shard, pointer, bytesOf('state at 4'));
    await store.importRows({ entries });
    assert.deepEqual(await rival.getCheckpoint(shard, pointer), bytesOf('state at 4'));
    await store.putCheckpoint(shard, { seq: 6, writer: 3 }, bytesOf('state at 6'));
    assert.equal((await store.movePointer(shard, 4, { seq: 3, writer: 3 })).kind, 'conflict');
    assert.equal((await store.movePointer(shard, 4, { seq: 7, writer: 3 })).kind, 'conflict');
    assert.equal((await store.movePointer(shard, 4, { seq: 6, writer: 3 })).kind, 'done');
    await store.deleteOldCheckpoints(shard);
    await failsWith('checkpoint-not-found', store.getCheckpoint(shard, pointer));
    assert.deepEqual(await rival.getCheckpoint(shard, { seq: 6, writer: 3 }), bytesOf('state at 6'));
  });

  it('takes the same rows again and the newer rows of a source that went on', async () => {
    const { store } = rig();
    const shard = rig().unusedShard();
    const entries = entriesOf(rig(), shard, 1, 8);
    const older = { heads: [headOf(shard, entries[4])], entries: entries.slice(0, 5) };
    await store.importRows(older);
    await store.importRows(older);
    assert.deepEqual(await store.readHead(shard), older.heads[0]);
    assert.deepEqual(await store.readEntries(shard, 0, 1e9), older.entries);
    // Three more, and the head three further: the fifth must not go with the head that bore it.
    const newer = headOf(shard, entries[7], { epoch: 5, holder: 3, checkpoint: { seq: 2, writer: 2 } });
    await store.importRows({ heads: [newer] });
    await store.importRows({ entries: entries.slice(5) });
    assert.deepEqual(await store.readHead(shard), newer);
    assert.deepEqual(await store.readEntries(shard, 0, 1e9), entries);
    // The whole of it once more, in the order of a second run.
    await store.importRows({ heads: [newer], entries: entries.slice(0, 4) });
    await store.importRows({ entries: entries.slice(4) });
    assert.deepEqual(await store.readEntries(shard, 0, 1e9), entries);
    await goesOn(rig(), shard);
  });

  it('takes topics as they are, over an older version of theirs, and a name from another topic', async () => {
    const { store, rival } = rig();
    const configs = { 'Größe "\' \\': '\u0000 ☃', empty: '' };
    const a = topicRow(41, 'a', { configs, version: 7, partitionCount: 100_000 });
    const b = topicRow(2_000_000_000_042, 'a.b');
    await store.importRows({ topics: [a, b] });
    assert.deepEqual(await rival.getTopic('a'), a);
    assert.deepEqual(await rival.getTopicsById([b.topicId, 41, 43]), [b, a, null]);
    const grown = { ...a, partitionCount: 100_001, configs: {}, version: 8 };
    await store.importRows({ topics: [grown] });
    await store.importRows({ topics: [b, grown] });
    assert.deepEqual(await store.getTopic('a'), grown);
    assert.deepEqual(await store.getTopicsById([41]), [grown]);
    assert.deepEqual(await store.listTopics({ limit: 10 }), [grown, b]);
    // Deleted and created anew in the source, between two runs.
    const anew = topicRow(2_000_000_000_050, 'a');
    await store.importRows({ topics: [anew] });
    assert.deepEqual(await store.getTopic('a'), anew);
    assert.deepEqual(await store.getTopicsById([41, anew.topicId]), [null, anew]);
    assert.deepEqual(await store.listTopics({ limit: 10 }), [anew, b]);
    await failsWith('topic-exists', store.createTopic({ ...topicRow(0, 'a.b') }));
  });

  it('takes deleted topics, whose names are free', async () => {
    const { store } = rig();
    const deleted = [
      topicRow(11, 'gone', { version: 4 }),
      topicRow(12, 'gone', { configs: { x: 'y' } }),
      topicRow(13, 'reused', { version: 2 }),
    ];
    await store.importRows({ deletedTopics: deleted, topics: [topicRow(14, 'reused')] });
    await store.importRows({ deletedTopics: deleted.slice(0, 1) });
    assert.deepEqual(await store.listDeletedTopics({ afterTopicId: 0, limit: 10 }), deleted);
    assert.deepEqual(await store.listDeletedTopics({ afterTopicId: 11, limit: 1 }), deleted.slice(1, 2));
    assert.equal(await store.getTopic('gone'), null);
    assert.deepEqual(await store.getTopicsById([11, 13, 14]), [null, null, topicRow(14, 'reused')]);
    await store.forgetDeletedTopic(12);
    assert.deepEqual(await store.listDeletedTopics({ afterTopicId: 0, limit: 10 }), [deleted[0], deleted[2]]);
  });

  it('takes objects with what references and marks they have left', async () => {
    const { store, rival } = rig();
    const row = (number: number, other: Partial<ListedObject> = {}): ListedObject => ({
      ...objectRow(5, number, { shards: [] }),
      markedAtMs: null,
      ...other,
    });
    const rows = [
      row(1, {
        shards: [
          { shard: 3, epoch: 5 },
          { shard: 1, epoch: 2_000_000_000_000 },
        ],
      }),
      row(2),
      row(3, { markedAtMs: 1_700_000_000_009 }),
    ];
    const ids = rows.map(({ object }) => object);
    const get = async () =>
      (await rival.getObjects(ids)).map((found) => found && { ...found, shards: sorted(found.shards) });
    const sorted = (shards: ListedObject['shards']) => [...shards].sort((a, b) => a.shard - b.shard);
    const expected = rows.map((one) => ({ ...one, shards: sorted(one.shards) }));
    await store.importRows({ objects: rows });
    await store.importRows({ objects: rows });
    assert.deepEqual(await get(), expected);
    assert.deepEqual(
      (await store.listObjects({ limit: 10, unreferencedOnly: true })).map(({ object }) => object),
      ids.slice(1),
    );
    // A late insert of a row changes nothing of it.
    await store.appendEntries([], [objectRow(5, 2, { shards: [{ shard: 9, epoch: 9 }] })]);
    assert.deepEqual(await get(), expected);
    // A newer state of the source: one reference dropped, one marked, one mark and row as it was.
    const newer = [row(1, { shards: [{ shard: 3, epoch: 5 }] }), row(2, { markedAtMs: 7 }), rows[2]];
    await store.importRows({ objects: newer });
    assert.deepEqual(await get(), newer);
    await store.forgetObjects(ids);
    assert.deepEqual(await get(), [newer[0], null, null]);
    await store.dropReferences([{ shard: 3, object: ids[0], belowEpoch: 6 }]);
    assert.deepEqual(await get(), [row(1), null, null]);
    assert.deepEqual(
      (await store.listObjects({ limit: 10, unreferencedOnly: true })).map(({ object }) => object),
      [ids[0]],
    );
  });

  it('only raises the last ids, and gives the next ones', async () => {
    const { store, rival } = rig();
    assert.deepEqual(await store.getLastIds(), { topic: 0, incarnation: 0, producer: 0 });
    await store.importRows({ lastIds: { topic: 3_000_000_000_000, incarnation: 20, producer: 5_000 } });
    await store.importRows({ lastIds: { topic: 40, incarnation: 30, producer: 0 } });
    await store.importRows({});
    const expected = { topic: 3_000_000_000_000, incarnation: 30, producer: 5_000 };
    assert.deepEqual(await rival.getLastIds(), expected);
    assert.equal(await store.allocateProducerIds(10), 5_001);
    const agent = { agentId: 'a', address: 'x:1', zone: '', group: '', version: '', registeredAtMs: 1 };
    assert.equal((await store.registerAgent(agent)).incarnation, 31);
    assert.equal((await store.createTopic(topicRow(0, 'new'))).topicId, 3_000_000_000_001);
    assert.deepEqual(await rival.getLastIds(), {
      topic: 3_000_000_000_001,
      incarnation: 31,
      producer: 5_010,
    });
  });

  it('takes many rows in a call, and the largest bodies', async () => {
    const { store } = rig();
    const shard = rig().unusedShard();
    const count = 300;
    const entries = entriesOf(rig(), shard, 1, count);
    const topics = Array.from({ length: count }, (_, i) => topicRow(5000 + i, `many-${1000 + i}`));
    const deletedTopics = topics.map((topic) => ({ ...topic, topicId: topic.topicId + 1000 }));
    const objects = topics.map((_, i) => ({ ...objectRow(77, i), markedAtMs: null }));
    await store.importRows({
      heads: [headOf(shard, entries[count - 1])],
      entries,
      topics,
      deletedTopics,
      objects,
    });
    assert.deepEqual(await store.readEntries(shard, 0, 1e9), entries);
    assert.deepEqual(await store.listTopics({ after: 'many-', limit: count }), topics);
    assert.deepEqual(await store.listDeletedTopics({ afterTopicId: 5999, limit: 2 * count }), deletedTopics);
    const after = { incarnation: 76, number: 1e9 };
    assert.deepEqual(await store.listObjects({ after, limit: 2 * count }), objects);

    const large = rig().unusedShard();
    const body = new Uint8Array(store.bodyBytesMax).fill(0x5b);
    const [first, second] = [rig().entry(large, 1, { body }), rig().entry(large, 2, { body })];
    await store.importRows({ heads: [headOf(large, second)] });
    await store.importRows({ entries: [first] });
    await store.importRows({ entries: [second] });
    for (const entry of [first, second]) {
      const [read] = await store.readEntries(large, entry.seq - 1, 1);
      assert.equal(read.commitId, entry.commitId);
      assert(Buffer.from(read.body.buffer, read.body.byteOffset, read.body.length).equals(body));
    }
    const tooLarge = { ...second, body: new Uint8Array(store.bodyBytesMax + 1) };
    const refused = { topics: [topicRow(9999, 'refused')], entries: [tooLarge] };
    await failsWith('item-too-large', store.importRows(refused));
    assert.equal(await store.getTopic('refused'), null);
  });
}

const CLUSTER: ClusterInfo = {
  clusterId: 'c-9',
  storeIncarnation: 's-9',
  shardCount: 3,
  groups: [
    { name: 'one', shards: 1 },
    { name: 'two', shards: 2 },
  ],
  createdAtMs: 1_700_000_000_005,
  generation: 4,
  copiedFrom: 's-8',
  movedTo: null,
};

/** The cluster's row, and what it makes of the store. */
export function importedClusterContract(settings: ContractSettings): void {
  const rig = emptyRigFor(settings);

  it('comes last: not before all heads, not over another, and again if it is the same', async () => {
    const { store, rival } = rig();
    const fresh = { clusterId: 'c-1', storeIncarnation: 's-1', shardCount: 3, createdAtMs: 1 };
    const [zero, one, two] = [0, 1, 2].map((shard) => rig().entry(shard, 1, { epoch: 2 }));
    await failsWith('conflict', store.importCluster(CLUSTER));
    await failsWith('conflict', store.setMovedTo('s-10', null));
    await store.importRows({ heads: [headOf(2, two), headOf(0, zero)], entries: [zero, two] });
    await failsWith('conflict', store.importCluster(CLUSTER));
    assert.equal(await rival.getCluster(), null);
    // Nobody may begin a cluster of his own over what was copied.
    await failsWith('conflict', rival.initCluster(fresh));
    assert.equal(await rival.getCluster(), null);
    assert.deepEqual(await rival.readHead(0), headOf(0, zero));

    await store.importRows({ heads: [headOf(1, one)], entries: [one] });
    await store.importCluster(CLUSTER);
    await store.importCluster(CLUSTER);
    assert.deepEqual(await rival.getCluster(), CLUSTER);
    assert.deepEqual(await rival.initCluster(fresh), CLUSTER);
    assert.deepEqual(
      await rival.listLeases(),
      [zero, one, two].map((entry) => headOf(entry.shard, entry)),
    );
    await failsWith('conflict', store.importCluster({ ...CLUSTER, storeIncarnation: 's-7' }));
    await failsWith(
      'conflict',
      store.importCluster({ ...CLUSTER, clusterId: 'c-1', storeIncarnation: 's-7' }),
    );
    assert.deepEqual(await rival.getCluster(), CLUSTER);
    for (const shard of [0, 1, 2]) await goesOn(rig(), shard);
  });

  it('is put back by no copier that slept until it was there', async () => {
    const { store, rival } = rig();
    const [head] = await store.listLeases();
    const entry = rig().entry(0, 1, { epoch: head.epoch });
    const looks = async () => [await store.listLeases(), await store.readEntries(0, 0, 1e9)];
    const before = await looks();
    const object = { ...objectRow(5, 1), markedAtMs: null };
    for (const rows of [
      { heads: [headOf(0, entry)] },
      { heads: [headOf(0, null)] },
      { entries: [entry] },
      { topics: [topicRow(41, 'a')] },
      { deletedTopics: [topicRow(41, 'a')] },
      { objects: [object], lastIds: { topic: 77, incarnation: 0, producer: 0 } },
    ]) {
      await failsWith('conflict', rival.importRows(rows));
    }
    assert.deepEqual(await looks(), before);
    assert.deepEqual(await store.listTopics({ limit: 1 }), []);
    assert.deepEqual(await store.listDeletedTopics({ afterTopicId: 0, limit: 1 }), []);
    assert.deepEqual(await store.getObjects([object.object]), [null]);
    // Ids are only raised, which does no harm.
    await rival.importRows({ heads: [], lastIds: { topic: 7, incarnation: 0, producer: 0 } });
    assert.equal((await store.getLastIds()).topic, 7);
  });

  it('is marked as moved and taken back, and nothing else of it changes', async () => {
    const { store, rival } = rig();
    assert.deepEqual(await store.setMovedTo('s-10', null), { ...CLUSTER, movedTo: 's-10' });
    assert.deepEqual(await rival.getCluster(), { ...CLUSTER, movedTo: 's-10' });
    // Made again it changes nothing; another copy's mark, or its wish to take one back, is refused.
    assert.deepEqual(await rival.setMovedTo('s-10', null), { ...CLUSTER, movedTo: 's-10' });
    // Nor does the row of before, which comes late, take it back.
    await failsWith('conflict', rival.importCluster(CLUSTER));
    await failsWith('conflict', rival.importCluster({ ...CLUSTER, generation: 3, movedTo: 's-10' }));
    await failsWith('conflict', rival.setMovedTo('s-11', null));
    await failsWith('conflict', rival.setMovedTo('s-11', 's-9'));
    await failsWith('conflict', rival.setMovedTo(null, 's-11'));
    assert.deepEqual(await rival.getCluster(), { ...CLUSTER, movedTo: 's-10' });
    assert.deepEqual(await store.setMovedTo('s-11', 's-10'), { ...CLUSTER, movedTo: 's-11' });
    const fresh = { clusterId: 'c-1', storeIncarnation: 's-1', shardCount: 3, createdAtMs: 1 };
    assert.deepEqual(await rival.initCluster(fresh), { ...CLUSTER, movedTo: 's-11' });
    assert.deepEqual(await rival.setMovedTo(null, 's-11'), CLUSTER);
    assert.deepEqual(await store.setMovedTo(null, 's-11'), CLUSTER);
    await failsWith('conflict', store.setMovedTo('s-12', 's-11'));
    assert.deepEqual(await store.getCluster(), CLUSTER);
    const rivals = ['s-13', 's-14'].map((mark) => rival.setMovedTo(mark, null).then(() => mark));
    const marks = (await Promise.allSettled(rivals)).flatMap((one) =>
      one.status === 'fulfilled' ? [one.value] : [],
    );
    assert.deepEqual(marks, [(await store.getCluster())?.movedTo]);
    const reopened = { ...CLUSTER, generation: 5 };
    await store.importCluster(reopened);
    await store.importCluster(reopened);
    assert.deepEqual(await rival.getCluster(), reopened);
    await failsWith('conflict', rival.importCluster(CLUSTER));
  });
}

export function scanPagesContract(settings: ContractSettings): void {
  const rig = rigFor(settings);
  const page = (topicId: number, partition: number, baseOffset: number, stamp = 1): IndexPage => {
    const bytes = bytesOf(`${topicId}/${partition}/${baseOffset}/${stamp}`);
    return { shard: (topicId + partition) % 64, topicId, partition, baseOffset, stamp, bytes };
  };
  const keyOf = ({ topicId, partition, baseOffset }: IndexPage) => `${topicId}/${partition}/${baseOffset}`;

  async function scan(
    store: MetadataStore,
    limit: number,
    between: (round: number) => Promise<void> = async () => undefined,
  ): Promise<Map<string, IndexPage>> {
    const found = new Map<string, IndexPage>();
    let cursor: string | null = null;
    for (let round = 0; round < 10_000; round++) {
      const next: Awaited<ReturnType<MetadataStore['scanPages']>> = await store.scanPages({ cursor, limit });
      assert(next.pages.length <= limit, `${next.pages.length} pages, at most ${limit} were asked for`);
      for (const one of next.pages) {
        assert(!found.has(keyOf(one)), `${keyOf(one)} came twice`);
        found.set(keyOf(one), one);
      }
      if (next.cursor === null) return found;
      cursor = next.cursor;
      await between(round);
    }
    throw new assert.AssertionError({ message: 'the scan does not end' });
  }

  const pages = [1, 2, 10, 3_000_000_000].flatMap((topicId) =>
    [0, 1, 2, 99_999].flatMap((partition) =>
      [0, 1, 9, 10, 2 ** 33].map((baseOffset) => page(topicId, partition, baseOffset)),
    ),
  );

  it('ends at once when there are none', async () => {
    assert.equal((await scan(rig().store, 1)).size, 0);
  });

  it('gives every page exactly once, whatever the limit', async () => {
    const { store, rival } = rig();
    await store.putPages([...pages].reverse());
    const expected = new Map(pages.map((one) => [keyOf(one), one]));
    for (const limit of [1, 3, 7, pages.length - 1, pages.length, pages.length + 1, 1000]) {
      const found = await scan(rival, limit);
      assert.deepEqual([...found].sort(), [...expected].sort(), `limit ${limit}`);
    }
  });

  it('is not led astray by pages that are put and deleted meanwhile', async () => {
    const { store, rival } = rig();
    // Behind, between and before what is still to come, and newer stamps of what is there.
    const found = await scan(store, 5, async (round) => {
      if (round >= 20) return;
      await rival.putPages([page(1, round, 5), page(10, 50 + round, 0), page(4_000_000_000, round, 0)]);
      await rival.putPages([{ ...pages[round * 4], stamp: 9 }]);
      await rival.deletePages({ topicId: 4_000_000_000, partition: round - 1, belowBaseOffset: 1 });
    });
    for (const one of pages) {
      const { stamp, ...rest } = found.get(keyOf(one)) ?? assert.fail(`${keyOf(one)} is missing`);
      assert(stamp === 1 || stamp === 9);
      assert.deepEqual({ ...rest, stamp: 1 }, one);
    }
  });
}
