/** The metadata store's contract: objects' rows and their references, agents. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { Agent, ListedObject, ObjectShard } from '../../storage/metadata/metadata-store.ts';
import { type ContractSettings, failsWith, objectRow, rigFor } from './metadata-store-rig.ts';

export function objectsContract(settings: ContractSettings): void {
  const rig = rigFor(settings);
  const put = (incarnation: number, number: number, shards: ObjectShard[]) =>
    rig().store.appendEntries([], [objectRow(incarnation, number, { shards })]);
  const get = async (incarnation: number, number: number): Promise<ListedObject | null> =>
    (await rig().store.getObjects([{ incarnation, number }]))[0];

  it('drops references by committed entry, or only those of older epochs', async () => {
    const { store } = rig();
    const object = { incarnation: 1, number: 1 };
    await put(1, 1, [
      { shard: 3, epoch: 5 },
      { shard: 1, epoch: 2_000_000_000_000 },
      { shard: 30, epoch: 5 },
      { shard: 0, epoch: 0 },
    ]);
    const left = async () => (await get(1, 1))!.shards.map(({ shard }) => shard).sort((a, b) => a - b);
    await store.dropReferences([{ shard: 3, object, belowEpoch: 5 }]);
    await store.dropReferences([{ shard: 3, object, belowEpoch: 4 }]);
    await store.dropReferences([{ shard: 2, object, belowEpoch: null }]);
    assert.deepEqual(await left(), [0, 1, 3, 30]);
    await store.dropReferences([{ shard: 3, object, belowEpoch: 6 }]);
    assert.deepEqual(await left(), [0, 1, 30]);
    await store.dropReferences([
      { shard: 30, object, belowEpoch: null },
      { shard: 30, object, belowEpoch: null },
      { shard: 1, object, belowEpoch: 2_000_000_000_000 },
      { shard: 0, object: { incarnation: 1, number: 99 }, belowEpoch: null },
    ]);
    assert.deepEqual(await left(), [0, 1]);
    assert.deepEqual((await get(1, 1))!.shards.find(({ shard }) => shard === 1)?.epoch, 2_000_000_000_000);
    // A late second insert of the row brings no reference back.
    await put(1, 1, [{ shard: 3, epoch: 5 }]);
    assert.deepEqual(await left(), [0, 1]);
    await store.dropReferences([]);
  });

  it('marks and forgets only what nobody refers to', async () => {
    const { store } = rig();
    const object = { incarnation: 2, number: 1 };
    await put(2, 1, [{ shard: 1, epoch: 1 }]);
    await store.markObjects([object], 100);
    assert.equal((await get(2, 1))?.markedAtMs, null);
    await store.forgetObjects([object]);
    assert.notEqual(await get(2, 1), null);
    await store.dropReferences([{ shard: 1, object, belowEpoch: null }]);
    await store.forgetObjects([object]);
    assert.deepEqual(await get(2, 1), { ...objectRow(2, 1, { shards: [] }), markedAtMs: null });
    await store.markObjects([object, { incarnation: 2, number: 77 }], 200);
    await store.markObjects([object], 300);
    assert.equal((await get(2, 1))?.markedAtMs, 200);
    await store.forgetObjects([object, { incarnation: 2, number: 77 }]);
    await store.forgetObjects([object]);
    assert.equal(await get(2, 1), null);
    await store.markObjects([], 1);
    await store.forgetObjects([]);
  });

  it('keeps the order of what is asked and knows neighbours apart', async () => {
    const { store } = rig();
    for (const [incarnation, number] of [
      [31, 1],
      [3, 11],
      [3, 1],
      [3, 3_000_000_000],
      [0, 0],
    ]) {
      await put(incarnation, number, []);
    }
    const ask = [
      [3, 3_000_000_000],
      [31, 1],
      [31, 11],
      [0, 0],
      [3, 11],
    ].map(([incarnation, number]) => ({ incarnation, number }));
    const found = await store.getObjects(ask);
    assert.deepEqual(
      found.map((row) => row?.object ?? null),
      ask.map((object, i) => (i === 2 ? null : object)),
    );
    assert.deepEqual(await store.getObjects([]), []);
  });
}

export function listedObjectsContract(settings: ContractSettings): void {
  const rig = rigFor(settings);

  it('lists by (incarnation, number) in pages, the unreferenced on their own', async () => {
    const { store } = rig();
    const ids: [number, number][] = [];
    for (const incarnation of [1, 2, 10, 11]) {
      for (const number of [0, 1, 2, 9, 10, 100, 3_000_000_000]) ids.push([incarnation, number]);
    }
    const rows = ids.map(([incarnation, number], i) =>
      objectRow(incarnation, number, { shards: i % 3 === 0 ? [] : [{ shard: i % 5, epoch: i }] }),
    );
    await store.appendEntries([], [...rows].reverse());
    const list = async (limit: number, unreferencedOnly: boolean): Promise<ListedObject[]> => {
      const all: ListedObject[] = [];
      for (let after: ListedObject['object'] | undefined; ; ) {
        const page = await store.listObjects({ ...(after && { after }), limit, unreferencedOnly });
        assert(page.length <= limit);
        if (page.length === 0) return all;
        all.push(...page);
        after = page.at(-1)!.object;
      }
    };
    const expected = rows.map((row) => ({ ...row, markedAtMs: null }));
    for (const limit of [1, 4, 7, 1000]) {
      assert.deepEqual(await list(limit, false), expected);
      assert.deepEqual(
        await list(limit, true),
        expected.filter(({ shards }) => shards.length === 0),
      );
    }
    assert.deepEqual(await store.listObjects({ after: { incarnation: 2, number: 5 }, limit: 1 }), [
      expected[10],
    ]);
    assert.deepEqual(await store.listObjects({ after: { incarnation: 12, number: 0 }, limit: 1 }), []);
  });
}

export function agentsContract(settings: ContractSettings): void {
  const rig = rigFor(settings);
  const agent = (agentId: string, group = 'main', zone = 'z1') => ({
    agentId,
    address: 'http://10.0.0.1:8080',
    zone,
    group,
    version: '0.1.0',
    registeredAtMs: 1_700_000_000_003,
  });

  it('gives every registration an incarnation of its own, rising from 1', async () => {
    const { store, rival } = rig();
    const first = await store.registerAgent(agent('a'));
    assert(first.incarnation >= 1);
    assert.deepEqual(first, { ...agent('a'), incarnation: first.incarnation, heartbeatCount: 0 });
    const many = await Promise.all(
      Array.from({ length: 20 }, (_, i) => (i % 2 ? store : rival).registerAgent(agent(`many-${i % 3}`))),
    );
    const incarnations = many.map(({ incarnation }) => incarnation);
    assert.equal(new Set(incarnations).size, 20);
    assert(Math.min(...incarnations) > first.incarnation);
    // Gone with everything it had, and still its number is not given again.
    const last = many.reduce((a, b) => (a.incarnation > b.incarnation ? a : b));
    await store.deregisterAgent(last.agentId, last.incarnation);
    assert((await store.registerAgent(agent('b'))).incarnation > last.incarnation);
  });

  it('counts heartbeats of the incarnation that is registered, and of no other', async () => {
    const { store } = rig();
    const beat = async (agentId: string, { incarnation }: { incarnation: number }) => {
      const agents = await store.heartbeat(agentId, incarnation);
      return agents.find((row) => row.agentId === agentId)?.heartbeatCount;
    };
    const old = await store.registerAgent(agent('beats'));
    assert.equal(await beat('beats', old), 1);
    assert.equal(await beat('beats', old), 2);
    const now = await store.registerAgent({ ...agent('beats'), address: 'http://other:1' });
    await failsWith('agent-not-found', store.heartbeat('beats', old.incarnation));
    await failsWith('agent-not-found', store.heartbeat('nobody', now.incarnation));
    assert.equal(await beat('beats', now), 1);
    assert.deepEqual(await store.getAgent('beats'), { ...now, heartbeatCount: 1 });
    await store.deregisterAgent('beats', old.incarnation);
    assert.notEqual(await store.getAgent('beats'), null);
    await store.deregisterAgent('beats', now.incarnation);
    await store.deregisterAgent('beats', now.incarnation);
    assert.equal(await store.getAgent('beats'), null);
    await failsWith('agent-not-found', store.heartbeat('beats', now.incarnation));
  });

  it('answers a heartbeat with all agents by id, whatever their zone and group, its own row as raised', async () => {
    const { store, rival } = rig();
    for (const { agentId, incarnation } of await store.listAgents()) {
      await store.deregisterAgent(agentId, incarnation);
    }
    const me = await store.registerAgent(agent('h-2', 'g1', 'z1'));
    assert.deepEqual(await store.heartbeat('h-2', me.incarnation), [{ ...me, heartbeatCount: 1 }]);
    const others: Agent[] = [];
    for (const [agentId, group, zone] of [
      ['h-10', 'g2', 'z1'],
      ['H-2', 'g1', ''],
      ['h-3', '', 'z9'],
    ]) {
      others.push(await rival.registerAgent(agent(agentId, group, zone)));
    }
    const [ten, capital, three] = others;
    await rival.heartbeat('h-10', ten.incarnation);
    const seen = await store.heartbeat('h-2', me.incarnation);
    assert.deepEqual(seen, [capital, { ...ten, heartbeatCount: 1 }, { ...me, heartbeatCount: 2 }, three]);
    assert.deepEqual(await rival.listAgents(), seen);
    await rival.deregisterAgent('H-2', capital.incarnation);
    const again = await rival.registerAgent(agent('h-3', 'g3'));
    const left = await store.heartbeat('h-2', me.incarnation);
    assert.deepEqual(left, [{ ...ten, heartbeatCount: 1 }, { ...me, heartbeatCount: 3 }, again]);
    // Whoever is gone is told nothing, and changes nothing.
    await failsWith('agent-not-found', store.heartbeat('h-3', three.incarnation));
    await failsWith('agent-not-found', store.heartbeat('h-10', me.incarnation));
    await failsWith('agent-not-found', store.heartbeat('H-2', capital.incarnation));
    assert.deepEqual(await store.listAgents(), left);
  });

  it('lists agents by id, by group and by zone', async () => {
    const { store } = rig();
    await store.registerAgent(agent('l-2', 'g1', 'z8'));
    await store.registerAgent(agent('l-1', 'g1', 'z9'));
    await store.registerAgent(agent('l-10', 'g2', 'z9'));
    await store.registerAgent(agent('L-1', 'g2', ''));
    const ids = async (filter?: { group?: string; zone?: string }) =>
      (await store.listAgents(filter)).map(({ agentId }) => agentId).filter((id) => /^l-/i.test(id));
    assert.deepEqual(await ids(), ['L-1', 'l-1', 'l-10', 'l-2']);
    assert.deepEqual(await ids({}), ['L-1', 'l-1', 'l-10', 'l-2']);
    assert.deepEqual(await ids({ group: 'g1' }), ['l-1', 'l-2']);
    assert.deepEqual(await ids({ zone: 'z9' }), ['l-1', 'l-10']);
    assert.deepEqual(await ids({ zone: 'z9', group: 'g2' }), ['l-10']);
    assert.deepEqual(await ids({ zone: '' }), ['L-1']);
    assert.deepEqual(await ids({ group: 'G1' }), []);
  });
}
