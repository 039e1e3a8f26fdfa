/** What must not happen to agents in a bad hour: a slow store, many that leave at once, shards that cannot be taken. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sleep } from '../../../src/core/clock.ts';
import { AgentCluster, type ClusterAgent, HEARTBEAT_MS } from '../../support/agent-cluster.ts';

const SHARDS = 12;

async function clusterOf(...agentIds: string[]): Promise<{ cluster: AgentCluster; agents: ClusterAgent[] }> {
  const cluster = await AgentCluster.create(SHARDS);
  const agents: ClusterAgent[] = [];
  for (const agentId of agentIds) agents.push(await cluster.start(agentId));
  await cluster.pass(3 * HEARTBEAT_MS);
  return { cluster, agents };
}

const looksOf = ({ store }: ClusterAgent): number =>
  store.calls.filter(({ method }) => method === 'listLeases').length;

describe('agents in a bad hour', () => {
  it('do not ask the store without end while shards cannot be taken', async () => {
    const { cluster, agents } = await clusterOf('a');
    const [a] = agents;
    a.store.inject({ on: 'acquireLeases', effect: { kind: 'error-before' } });
    for (const shard of [3, 5, 7, 9]) {
      a.loop.lost(shard, { code: 'corrupt-entry', message: 'damaged' });
      await cluster.pass(1100);
    }
    // Until the pauses between two tries are at their longest.
    await cluster.pass(20_000);
    const [tries, looks] = [a.taken.length, looksOf(a)];
    await cluster.pass(60_000);
    assert.ok(a.taken.length - tries >= 20, `${a.taken.length - tries} tries in a minute`);
    // A look with each heartbeat and for each try.
    assert.ok(looksOf(a) - looks <= 80, `${looksOf(a) - looks} looks in a minute`);
  });

  it('beat as often and serve reads on when the store takes seconds for an answer', async () => {
    const { cluster, agents } = await clusterOf('a', 'b', 'c');
    const before = await cluster.holders();
    for (const { store, clock } of agents) {
      const slow = () => sleep(clock, 2500);
      store.inject({ on: ['listLeases', 'heartbeat'], effect: { kind: 'delay', before: slow } });
    }
    for (let i = 0; i < 600; i++) {
      await cluster.pass(500);
      for (const { agentId, loop } of agents) assert.ok(loop.mayServe(), `${agentId} after ${i / 2} s`);
    }
    for (const agent of agents) assert.deepEqual(agent.warned, []);
    assert.deepEqual(await cluster.holders(), before);
  });

  it('all leave at once, and none waits for another to take its shards', async () => {
    const { cluster, agents } = await clusterOf('a', 'b', 'c');
    // Each has begun to leave before it hears that the others do.
    cluster.losesNotices = true;
    let left = 0;
    for (const { loop } of agents) void loop.leave(new AbortController().signal).then(() => left++);
    for (const { loop } of agents) {
      for (const other of agents) {
        if (other.loop !== loop)
          loop.leasesMoved({ from: other.loop.incarnation, leaving: true, shards: [] });
      }
    }
    assert.ok((await cluster.until(() => left === agents.length, 30_000)) < 1000);
  });

  it('one begins anew, and what falls to another by that waits for no heartbeat', async () => {
    const { cluster, agents } = await clusterOf('a', 'b', 'c', 'd', 'e');
    const held = () => agents.reduce((sum, { loop }) => sum + loop.heldCount, 0);
    for (const agent of agents) {
      await cluster.pass(1700);
      assert.equal(held(), SHARDS);
      await agent.restart();
      const tookMs = await cluster.until(() => held() === SHARDS, 2 * HEARTBEAT_MS);
      assert.ok(tookMs < 500, `${tookMs} ms after ${agent.agentId} began anew`);
    }
  });

  it('one joins, and is given its share at once', async () => {
    const { cluster, agents } = await clusterOf('a', 'b');
    const c = await cluster.start('c');
    assert.ok((await cluster.until(() => c.loop.heldCount === 4, 3 * HEARTBEAT_MS)) < 1000);
    assert.deepEqual(
      agents.map(({ loop }) => loop.heldCount),
      [4, 4],
    );
  });

  it('one leaves while the store is away, and does not wait for what nobody can take', async () => {
    const { cluster, agents } = await clusterOf('a', 'b');
    const [a] = agents;
    a.store.inject({ on: ['listLeases', 'heartbeat', 'releaseLeases'], effect: { kind: 'error-before' } });
    await cluster.pass(3 * HEARTBEAT_MS);
    let left = false;
    void a.loop.leave(new AbortController().signal).then(() => (left = true));
    await cluster.until(() => left, 30_000);
    assert.equal(a.loop.heldCount, SHARDS / 2);
  });

  it('one leaves, and is not put off by a single heartbeat that fails', async () => {
    const { cluster, agents } = await clusterOf('a', 'b');
    const [a] = agents;
    a.store.inject({ on: 'heartbeat', effect: { kind: 'error-before' }, times: 1 });
    let left = false;
    void a.loop.leave(new AbortController().signal).then(() => (left = true));
    await cluster.until(() => left, 2 * HEARTBEAT_MS);
    assert.equal(a.loop.heldCount, 0);
  });

  it('see to it that what one had begun that left, or was started again, is ended', async () => {
    const { cluster, agents } = await clusterOf('a', 'b', 'c');
    const [a, b, c] = agents;
    const leaving = b.loop.leave(new AbortController().signal);
    await cluster.pass(2000);
    await leaving;
    b.loop.stop();
    await b.loop.deregister();
    await cluster.pass(2 * HEARTBEAT_MS);
    assert.deepEqual([a.gone, c.gone], [1, 1]);
    await c.restart();
    await cluster.pass(2 * HEARTBEAT_MS);
    assert.equal(a.gone, 2);
    await cluster.pass(20 * HEARTBEAT_MS);
    assert.equal(a.gone, 2);
  });
});
