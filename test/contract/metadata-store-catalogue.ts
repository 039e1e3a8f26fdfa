/** The metadata store's contract: cluster, catalogue, ids, what holds after close. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type ContractSettings, failsWith, rigFor, SHARD_COUNT } from './metadata-store-rig.ts';

export function clusterContract(settings: ContractSettings): void {
  const rig = rigFor(settings);

  it('keeps the cluster that was first, whoever proposes another', async () => {
    const { store, rival } = rig();
    const first = await store.getCluster();
    const other = { clusterId: 'c-2', storeIncarnation: 's-2', shardCount: 3, createdAtMs: 5 };
    assert.deepEqual(await rival.initCluster(other), first);
    assert.deepEqual(await store.initCluster(other), first);
    assert.deepEqual(await rival.getCluster(), first);
    assert.equal((await store.listLeases()).length, SHARD_COUNT);
  });

  it('begins with every head at zero and knows no other shard', async () => {
    const { store } = rig();
    const heads = await store.listLeases();
    assert.deepEqual(
      heads.map(({ shard }) => shard),
      Array.from({ length: SHARD_COUNT }, (_, shard) => shard),
    );
    const zero = { headSeq: 0, headCommitId: '', epoch: 0, holder: 0, checkpoint: null, trimmedThrough: 0 };
    for (const head of heads) assert.deepEqual(head, { shard: head.shard, ...zero });
    assert.deepEqual(await store.readHead(5), { shard: 5, ...zero });
    await failsWith('shard-not-found', store.readHead(SHARD_COUNT));
    await failsWith('shard-not-found', store.readEntries(SHARD_COUNT, 0, 100));
    await failsWith('shard-not-found', store.trim(SHARD_COUNT, 0));
    await failsWith('shard-not-found', store.acquireLeases(1, [{ shard: SHARD_COUNT, holder: 0, epoch: 0 }]));
    await failsWith('shard-not-found', store.movePointer(SHARD_COUNT, 0, { seq: 1, writer: 1 }));
  });

  it('gives out producer ids once each, from 1, to rivals too', async () => {
    const { store, rival } = rig();
    assert.equal(await store.allocateProducerIds(1), 1);
    const counts = Array.from({ length: 40 }, (_, i) => 1 + (i % 7));
    const firsts = await Promise.all(
      counts.map((count, i) => (i % 2 ? store : rival).allocateProducerIds(count)),
    );
    const ids = firsts.flatMap((first, i) => Array.from({ length: counts[i] }, (_, j) => first + j));
    assert.equal(new Set(ids).size, ids.length);
    assert.equal(Math.min(...ids), 2);
    assert.equal(Math.max(...ids), 1 + ids.length);
  });
}

/** Two clients before any cluster: both get the same one. */
export function newClusterContract(settings: ContractSettings): void {
  it('has no cluster before one is made, and makes one when two propose at once', async () => {
    const opened = await settings.open();
    try {
      assert.equal(await opened.store.getCluster(), null);
      await failsWith('shard-not-found', opened.store.readHead(0));
      const propose = (n: number) => ({
        clusterId: `c-${n}`,
        storeIncarnation: `s-${n}`,
        shardCount: n,
        createdAtMs: n,
      });
      const [a, b] = await Promise.all([
        opened.store.initCluster(propose(3)),
        opened.rival.initCluster(propose(5)),
      ]);
      assert.deepEqual(a, b);
      assert.equal((await opened.store.listLeases()).length, a.shardCount);
      assert.deepEqual(a.groups, [{ name: 'default', shards: a.shardCount }]);
    } finally {
      await opened.close();
    }
  });

  it('keeps the groups among which the shards of a new cluster are divided', async () => {
    const opened = await settings.open();
    try {
      const groups = [
        { name: 'heavy', shards: 2 },
        { name: 'a.b_C-9', shards: 1 },
        { name: 'x'.repeat(100), shards: 4 },
      ];
      const proposed = { clusterId: 'c', storeIncarnation: 's', shardCount: 7, groups, createdAtMs: 5 };
      const made = await opened.store.initCluster(structuredClone(proposed));
      assert.deepEqual(made, { ...proposed, generation: 1, copiedFrom: null, movedTo: null });
      assert.deepEqual(await opened.rival.getCluster(), made);
      assert.deepEqual(await opened.rival.initCluster({ ...proposed, groups: undefined }), made);
      assert.equal((await opened.store.listLeases()).length, 7);
      assert.deepEqual(await opened.rival.setMovedTo('s-2', null), { ...made, movedTo: 's-2' });
    } finally {
      await opened.close();
    }
  });

  it('refuses everything after close, and closes twice', async () => {
    const opened = await settings.open();
    await opened.store.close();
    await opened.store.close();
    await failsWith('store-unavailable', opened.store.getTopic('a'));
    await failsWith('store-unavailable', opened.store.allocateProducerIds(1));
    await opened.close();
  });
}

const TOPIC = { partitionCount: 3, configs: {}, createdAtMs: 1_700_000_000_002 };

export function catalogueContract(settings: ContractSettings): void {
  const rig = rigFor(settings);

  it('creates, reads and changes a topic, its version rising', async () => {
    const { store } = rig();
    const configs = { 'retention.ms': '100', 'Größe "\' \\': '\u0000 ☃', empty: '' };
    const created = await store.createTopic({ ...TOPIC, name: 'life', configs });
    assert.deepEqual(created, { ...TOPIC, name: 'life', configs, topicId: created.topicId, version: 1 });
    assert.deepEqual(await store.getTopic('life'), created);
    assert.deepEqual(await store.getTopicsById([created.topicId]), [created]);
    const grown = await store.growTopic('life', 100_000);
    assert.deepEqual(grown, { ...created, partitionCount: 100_000, version: 2 });
    const altered = await store.alterTopic('life', { 'retention.ms': null, empty: 'no', absent: null });
    const changed = { 'Größe "\' \\': '\u0000 ☃', empty: 'no' };
    assert.deepEqual(altered, { ...grown, configs: changed, version: 3 });
    assert.deepEqual(await store.getTopic('life'), altered);
    assert.deepEqual(await store.getTopicsById([created.topicId, 999_999]), [altered, null]);
  });

  it('refuses a second topic of a name, and a change of none', async () => {
    const { store } = rig();
    const first = await store.createTopic({ ...TOPIC, name: 'only' });
    await failsWith('topic-exists', store.createTopic({ ...TOPIC, name: 'only', partitionCount: 9 }));
    assert.deepEqual(await store.getTopic('only'), first);
    assert.equal(await store.getTopic('none'), null);
    await failsWith('topic-not-found', store.growTopic('none', 5));
    await failsWith('topic-not-found', store.alterTopic('none', { a: 'b' }));
    await failsWith('topic-not-found', store.deleteTopic('none'));
  });

  it('only grows', async () => {
    const { store } = rig();
    const topic = await store.createTopic({ ...TOPIC, name: 'grows' });
    await failsWith('invalid-partition-count', store.growTopic('grows', 3));
    await failsWith('invalid-partition-count', store.growTopic('grows', 2));
    assert.deepEqual(await store.getTopic('grows'), topic);
  });

  it('tells names apart that look alike', async () => {
    const { store } = rig();
    const names = ['a', 'A', 'a-', 'a.', 'a_', 'a.b', 'a_b', 'a-b', 'ab', 'a\u0000', 'a\u0000b', 'a ', ' a'];
    names.push('a%', 'a?', 'ä', 'a\u0308', "a'", 'a;', 'a/b', 'a:b', 'a#1', '__proto__', 'constructor');
    names.push('x'.repeat(249), 'x'.repeat(248), '\uffff', '😀');
    for (const [i, name] of names.entries()) {
      await store.createTopic({ ...TOPIC, name: `n${name}`, partitionCount: i + 1 });
    }
    for (const [i, name] of names.entries()) {
      assert.equal((await store.getTopic(`n${name}`))?.partitionCount, i + 1, JSON.stringify(name));
    }
    await store.deleteTopic('na.b');
    assert.equal(await store.getTopic('na.b'), null);
    assert.equal((await store.getTopic('na_b'))?.name, 'na_b');
    // Byte order: U+FFFF before U+1F600, which UTF-16 has the other way round.
    const listed: string[] = [];
    let after: string | undefined = 'n';
    while (after !== undefined) {
      const page = await store.listTopics({ after, limit: 4 });
      listed.push(...page.map(({ name }) => name));
      after = page.at(-1)?.name;
    }
    const expected = names.map((name) => `n${name}`).filter((name) => name !== 'na.b');
    const inOrder = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));
    assert.deepEqual(
      listed.filter((name) => name.startsWith('n')),
      expected.sort(inOrder),
    );
  });

  it('deletes by the id that was seen: an order that arrives late does not hit the next topic of the name', async () => {
    const { store } = rig();
    const first = await store.createTopic({ ...TOPIC, name: 'twice' });
    assert.equal((await store.deleteTopic('twice', first.topicId)).topicId, first.topicId);
    const second = await store.createTopic({ ...TOPIC, name: 'twice' });
    await failsWith('topic-not-found', store.deleteTopic('twice', first.topicId));
    await failsWith('topic-not-found', store.deleteTopic('other', second.topicId));
    assert.deepEqual(await store.getTopic('twice'), second);
    const deleted = await store.listDeletedTopics({ afterTopicId: first.topicId - 1, limit: 10 });
    assert.deepEqual(
      deleted.map(({ topicId }) => topicId),
      [first.topicId],
    );
  });

  it('frees the name at once, never the id, and remembers the deleted until told', async () => {
    const { store } = rig();
    const first = await store.createTopic({ ...TOPIC, name: 'phoenix', configs: { a: '1' } });
    const deleted = await store.deleteTopic('phoenix');
    assert.deepEqual(deleted, { ...first, version: 2 });
    assert.equal(await store.getTopic('phoenix'), null);
    assert.deepEqual(await store.getTopicsById([first.topicId]), [null]);
    await failsWith('topic-not-found', store.deleteTopic('phoenix'));
    const second = await store.createTopic({ ...TOPIC, name: 'phoenix' });
    assert(second.topicId > first.topicId);
    assert.equal(second.version, 1);
    await store.deleteTopic('phoenix');

    const gone = await store.listDeletedTopics({ afterTopicId: first.topicId - 1, limit: 10 });
    assert.deepEqual(
      gone.map(({ topicId }) => topicId),
      [first.topicId, second.topicId],
    );
    assert.deepEqual(gone[0], deleted);
    assert.deepEqual(await store.listDeletedTopics({ afterTopicId: first.topicId - 1, limit: 1 }), [deleted]);
    await store.forgetDeletedTopic(first.topicId);
    await store.forgetDeletedTopic(first.topicId);
    await store.forgetDeletedTopic(second.topicId);
    assert.deepEqual(await store.listDeletedTopics({ afterTopicId: first.topicId - 1, limit: 10 }), []);
    // The highest id was given to a topic of which nothing is left.
    const third = await store.createTopic({ ...TOPIC, name: 'phoenix' });
    assert(third.topicId > second.topicId);
  });

  it('lets one of two win a name, and loses none of two changes', async () => {
    const { store, rival } = rig();
    for (let round = 0; round < Math.min(50, settings.raceRounds); round++) {
      const name = `race-${round}`;
      const created = await Promise.allSettled([
        store.createTopic({ ...TOPIC, name, partitionCount: 1 }),
        rival.createTopic({ ...TOPIC, name, partitionCount: 2 }),
      ]);
      assert.equal(created.filter(({ status }) => status === 'fulfilled').length, 1);
      const grown = await Promise.allSettled([store.growTopic(name, 10), rival.growTopic(name, 10)]);
      assert.equal(grown.filter(({ status }) => status === 'fulfilled').length, 1);
      await Promise.all([
        store.alterTopic(name, { a: '1' }),
        rival.alterTopic(name, { b: '2' }),
        store.growTopic(name, 20),
      ]);
      const [listed] = await store
        .listTopics({ after: `race-${round}`.slice(0, -1), limit: 1000 })
        .then((all) => all.filter((topic) => topic.name === name));
      assert.equal(listed.version, 5);
      assert.equal(listed.partitionCount, 20);
      assert.deepEqual(listed.configs, { a: '1', b: '2' });
    }
  });

  it('gives ids of the class that is asked for, rising and each once, to rivals too', async () => {
    const { store, rival } = rig();
    const { topic: before } = await store.getLastIds();
    const classes = Array.from({ length: 40 }, (_, i) => ({ modulus: 5, residue: (i * i) % 5 }));
    const inTurn: number[] = [];
    for (const [i, idClass] of classes.entries()) {
      const { topicId, ...topic } = await (i % 2 ? store : rival).createTopic({
        ...TOPIC,
        name: `class-${i}`,
        idClass,
      });
      assert.deepEqual(topic, { ...TOPIC, name: `class-${i}`, version: 1 });
      assert.equal(topicId % 5, idClass.residue);
      assert(topicId > (inTurn.at(-1) ?? before), `${topicId} after ${inTurn.at(-1)}`);
      inTurn.push(topicId);
    }
    const atOnce = await Promise.all(
      classes.map((idClass, i) =>
        (i % 2 ? store : rival).createTopic({ ...TOPIC, name: `class-race-${i}`, idClass }),
      ),
    );
    for (const [i, { topicId }] of atOnce.entries()) {
      assert.equal(topicId % 5, classes[i].residue);
      assert(topicId > inTurn[inTurn.length - 1]);
    }
    const all = [...inTurn, ...atOnce.map(({ topicId }) => topicId)];
    assert.equal(new Set(all).size, all.length);
    const { topic: last } = await store.getLastIds();
    assert(last >= Math.max(...all) && last <= before + 5 * (all.length + 2), `${last} after ${all.length}`);
    assert.deepEqual(await store.getTopic('class-7'), (await rival.getTopicsById([inTurn[7]]))[0]);
    await failsWith('topic-exists', store.createTopic({ ...TOPIC, name: 'class-7', idClass: classes[0] }));
    // Without a class: any above.
    assert((await store.createTopic({ ...TOPIC, name: 'no-class' })).topicId > last);
  });

  it('gives an id of the class above the last one of the store that was copied here', async () => {
    const { store } = rig();
    const { topic: last } = await store.getLastIds();
    for (const [i, offset] of [11, 23, 30].entries()) {
      const from = last + 100 * (i + 1) + offset;
      await store.importRows({ lastIds: { topic: from, incarnation: 0, producer: 0 } });
      const idClass = { modulus: 7, residue: i };
      const { topicId } = await store.createTopic({ ...TOPIC, name: `above-${i}`, idClass });
      assert.equal(topicId % 7, i);
      assert(topicId > from && topicId <= from + 7, `${topicId} above ${from}`);
    }
  });

  it('does not hand out what it holds', async () => {
    const { store } = rig();
    const created = await store.createTopic({ ...TOPIC, name: 'mine', configs: { a: '1' } });
    const [listed] = await store.getTopicsById([created.topicId]);
    Object.assign(listed!.configs, { a: 'spoilt' });
    Object.assign(listed!, { partitionCount: 77 });
    assert.deepEqual(await store.getTopicsById([created.topicId]), [created]);
  });
}

export function manyTopicsContract(settings: ContractSettings, topicCount: number): void {
  const rig = rigFor(settings);

  it(`pages through ${topicCount} topics`, async () => {
    const { store } = rig();
    const names = Array.from({ length: topicCount }, (_, i) => `t-${i}`);
    const ids = new Set<number>();
    for (let i = 0; i < names.length; i += 500) {
      const some = names.slice(i, i + 500);
      const created = await Promise.all(some.map((name) => store.createTopic({ ...TOPIC, name })));
      for (const { topicId } of created) ids.add(topicId);
    }
    assert.equal(ids.size, topicCount);
    assert.deepEqual(await store.listTopics({ limit: 0 }), []);
    const listed: string[] = [];
    for (let after: string | undefined; ; ) {
      const page = await store.listTopics(after === undefined ? { limit: 700 } : { after, limit: 700 });
      if (page.length === 0) break;
      assert(page.length <= 700);
      listed.push(...page.map(({ name }) => name));
      after = page.at(-1)!.name;
    }
    assert.deepEqual(listed, names.sort());
    // Deleting while somebody pages moves no other name.
    await store.deleteTopic(listed[10]);
    const rest = await store.listTopics({ after: listed[10], limit: 2 });
    assert.deepEqual(
      rest.map(({ name }) => name),
      [listed[11], listed[12]],
    );
  });
}
