/** The metadata store's contract: agents, their incarnations and heartbeats. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { Agent } from '../../storage/metadata/metadata-store.ts';
import { type ContractSettings, failsWith, rigFor } from './metadata-store-rig.ts';

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

  it('lets many agents beat at once, and each sees the others at the count of the round', async () => {
    const { store, rival } = rig();
    const clients = [store, rival];
    const many = await Promise.all(
      Array.from({ length: 8 }, (_, i) => clients[i % 2].registerAgent(agent(`at-once-${i}`))),
    );
    const isOurs = ({ agentId }: Agent) => agentId.startsWith('at-once-');
    for (let round = 1; round <= Math.min(5, settings.raceRounds); round++) {
      const lists = await Promise.all(
        many.map(({ agentId, incarnation }, i) => clients[(i + round) % 2].heartbeat(agentId, incarnation)),
      );
      for (const [i, list] of lists.entries()) {
        const ours = list.filter(isOurs);
        assert.deepEqual(
          ours.map(({ agentId, incarnation }) => [agentId, incarnation]),
          many.map(({ agentId, incarnation }) => [agentId, incarnation]),
        );
        for (const [j, { heartbeatCount }] of ours.entries()) {
          // All had beaten the last round before this one began; in this one, whoever was first.
          const isRight = heartbeatCount === round || (i !== j && heartbeatCount === round - 1);
          assert(isRight, `round ${round}: ${i} saw ${heartbeatCount} of ${j}`);
        }
      }
      assert.deepEqual(
        (await store.listAgents()).filter(isOurs).map(({ heartbeatCount }) => heartbeatCount),
        many.map(() => round),
      );
    }
    for (const { agentId, incarnation } of many) await store.deregisterAgent(agentId, incarnation);
  });

  it('counts no beat of a former incarnation for the new one, nor does its leaving end it, at once either', async () => {
    const { store, rival } = rig();
    let former = await store.registerAgent(agent('restarts'));
    for (let round = 0; round < Math.min(10, settings.raceRounds); round++) {
      const [beaten, now] = await Promise.all([
        store.heartbeat('restarts', former.incarnation).catch((error) => error),
        rival.registerAgent(agent('restarts', 'main', `z${round}`)),
        round % 2 ? store.deregisterAgent('restarts', former.incarnation) : null,
      ]);
      if (Array.isArray(beaten)) {
        const row = beaten.find(({ agentId }) => agentId === 'restarts');
        assert.deepEqual(row, { ...former, heartbeatCount: 1 });
      } else {
        assert.equal(beaten.code, 'agent-not-found');
      }
      await failsWith('agent-not-found', rival.heartbeat('restarts', former.incarnation));
      await rival.deregisterAgent('restarts', former.incarnation);
      assert.deepEqual(await store.getAgent('restarts'), now);
      former = now;
    }
    await store.deregisterAgent('restarts', former.incarnation);
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
