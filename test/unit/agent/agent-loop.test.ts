/** The agent's loop: several of them over one store, with time and faults in the test's hand. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AgentCluster, type ClusterAgent, DEAD_MS, HEARTBEAT_MS } from '../../support/agent-cluster.ts';

const SHARDS = 12;

async function clusterOf(...agentIds: string[]): Promise<{ cluster: AgentCluster; agents: ClusterAgent[] }> {
  const cluster = await AgentCluster.create(SHARDS);
  const agents: ClusterAgent[] = [];
  for (const agentId of agentIds) agents.push(await cluster.start(agentId));
  await cluster.pass(3 * HEARTBEAT_MS);
  return { cluster, agents };
}

function callsOf(agent: ClusterAgent): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { method } of agent.store.calls) counts[method] = (counts[method] ?? 0) + 1;
  return counts;
}

describe('the agent loop', () => {
  it('alone takes all shards at once', async () => {
    const cluster = await AgentCluster.create(SHARDS);
    const a = await cluster.start('a');
    const tookMs = await cluster.until(() => a.loop.heldCount === SHARDS, 1000);
    assert.ok(tookMs < 200);
    assert.deepEqual(a.loop.reasons(), []);
    assert.equal(a.loop.epochHere(3), 1);
  });

  it('shares with those that join, and moves no more than their fair share', async () => {
    const { cluster, agents } = await clusterOf('a', 'b');
    assert.deepEqual(await cluster.loads(), { a: 6, b: 6 });
    const before = await cluster.holders();
    await cluster.start('c');
    await cluster.pass(3 * HEARTBEAT_MS);
    const after = await cluster.holders();
    assert.deepEqual(await cluster.loads(), { a: 4, b: 4, c: 4 });
    for (let shard = 0; shard < SHARDS; shard++) {
      assert.ok(after[shard] === before[shard] || after[shard] === 'c');
    }
    for (const agent of agents) assert.deepEqual(agent.warned, []);
  });

  it('shares at once with one that joins while a dead one is registered still, whom it cannot know for dead', async () => {
    const { cluster, agents } = await clusterOf('a', 'b', 'x');
    agents[2].kill();
    await cluster.until(() => agents[0].loop.heldCount + agents[1].loop.heldCount === SHARDS, DEAD_MS + 2000);
    assert.equal((await cluster.store.listAgents()).length, 3);
    const c = await cluster.start('c');
    await cluster.until(() => c.loop.heldCount === 4, 2000);
    await cluster.pass(3 * HEARTBEAT_MS);
    assert.deepEqual(await cluster.loads(), { a: 4, b: 4, c: 4 });
  });

  it('moves no more than it must when two join at once', async () => {
    const { cluster, agents } = await clusterOf('a', 'b');
    const handedOver = () => cluster.agents.reduce((sum, agent) => sum + agent.released.flat().length, 0);
    const before = handedOver();
    for (const agentId of ['c', 'd']) agents.push(await cluster.start(agentId));
    await cluster.pass(3 * HEARTBEAT_MS);
    assert.deepEqual(await cluster.loads(), { a: 3, b: 3, c: 3, d: 3 });
    assert.equal(handedOver() - before, 6);
  });

  it('hands over in bounded moves', async () => {
    const cluster = await AgentCluster.create(64);
    const a = await cluster.start('a');
    await cluster.pass(HEARTBEAT_MS);
    await cluster.start('b');
    let most = 0;
    for (let i = 0; i < 600; i++) {
      await cluster.pass(10);
      const heads = await cluster.store.listLeases();
      const unserved = heads.filter((head) => head.holder === 0).length;
      most = Math.max(most, unserved);
    }
    await cluster.pass(HEARTBEAT_MS);
    assert.deepEqual(await cluster.loads(), { a: 32, b: 32 });
    assert.ok(most > 0 && most <= 8, `${most} shards were unserved at a time`);
    assert.ok(a.released.every((shards) => shards.length <= 8));
  });

  it('serves the shards of a killed agent elsewhere within the dead time and two seconds', async () => {
    for (const offsetMs of [0, 900, 2100, 3300, 4900]) {
      const { cluster, agents } = await clusterOf('a', 'b', 'c');
      await cluster.pass(offsetMs);
      const [a, b, c] = agents;
      b.kill();
      const tookMs = await cluster.until(() => a.loop.heldCount + c.loop.heldCount === SHARDS, 60_000);
      assert.ok(tookMs <= DEAD_MS + 2000, `${tookMs} ms after a kill at ${offsetMs}`);
      // It had been silent before it was killed, for a heartbeat's time at most.
      assert.ok(tookMs >= (DEAD_MS * 2) / 3 - HEARTBEAT_MS, `${tookMs} ms after a kill at ${offsetMs}`);
      assert.ok(a.gone === 1 && c.gone === 1);
    }
  });

  it('asks the store two things a heartbeat while nothing changes, whatever there is', async () => {
    const { cluster, agents } = await clusterOf('a', 'b', 'c');
    await cluster.pass(60_000);
    const before = agents.map(callsOf);
    await cluster.pass(100 * HEARTBEAT_MS);
    for (const [i, agent] of agents.entries()) {
      const now = callsOf(agent);
      const beats = now.heartbeat - before[i].heartbeat;
      assert.ok(beats >= 100 && beats <= 115, `${beats} heartbeats`);
      assert.equal(now.listLeases - before[i].listLeases, beats);
      const all = Object.values(now).reduce((sum, count) => sum + count, 0);
      const earlier = Object.values(before[i]).reduce((sum, count) => sum + count, 0);
      assert.equal(all - earlier, 2 * beats);
    }
  });

  it('takes nothing from agents that a long outage of the store kept from beating', async () => {
    const { cluster, agents } = await clusterOf('a', 'b', 'c');
    const before = await cluster.holders();
    for (const agent of agents) {
      agent.store.inject({ on: ['heartbeat', 'listLeases'], effect: { kind: 'error-before' }, times: 1e9 });
    }
    await cluster.pass(10 * 60_000);
    for (const agent of agents) assert.deepEqual([agent.loop.mayServe(), agent.outOfTouch], [false, 1]);
    const taken = agents.map((agent) => agent.taken.length);
    // One comes back long before the others.
    agents[0].store.heal();
    await cluster.pass(DEAD_MS - HEARTBEAT_MS - 100);
    for (const agent of agents) agent.store.heal();
    await cluster.pass(4 * DEAD_MS);
    assert.deepEqual(await cluster.holders(), before);
    assert.deepEqual(
      agents.map((agent) => agent.taken.length),
      taken,
    );
    for (const agent of agents) assert.equal(agent.loop.mayServe(), true);
  });

  it('serves no reads by a heartbeat whose leases were read before it slept', async () => {
    const { cluster, agents } = await clusterOf('a', 'b', 'c');
    const [a, b, c] = agents;
    const awake = Promise.withResolvers<void>();
    b.store.inject({ on: 'listLeases', effect: { kind: 'delay', after: awake.promise }, times: 1 });
    await cluster.until(() => a.loop.heldCount + c.loop.heldCount === SHARDS, 2 * DEAD_MS);
    assert.equal(b.loop.mayServe(), false);
    const again = Promise.withResolvers<void>();
    b.store.inject({ on: 'listLeases', effect: { kind: 'delay', before: again.promise }, times: 1 });
    const beats = callsOf(b).heartbeat;
    awake.resolve();
    await cluster.pass(1000);
    // It has beaten, and knows nothing yet of what was taken: not before it has looked again.
    assert.ok(callsOf(b).heartbeat > beats);
    assert.equal(b.loop.mayServe(), false);
    again.resolve();
    await cluster.until(() => b.loop.mayServe(), 2 * HEARTBEAT_MS);
    const served = a.loop.held().concat(c.loop.held());
    for (const { shard } of served) assert.equal(b.loop.epochHere(shard), undefined);
  });

  it('gives a sleeper up, which on waking serves no reads, and gets its share back', async () => {
    const { cluster, agents } = await clusterOf('a', 'b', 'c');
    const [a, b, c] = agents;
    b.clock.isAsleep = true;
    await cluster.until(() => a.loop.heldCount + c.loop.heldCount === SHARDS, DEAD_MS + 2000);
    assert.equal(b.loop.mayServe(), false);
    assert.equal(b.loop.heldCount, 4);
    assert.equal(b.outOfTouch, 0);
    b.clock.wake();
    assert.equal(b.outOfTouch, 1);
    // Its batching worker finds out by being fenced, at the latest when it is asked to hand over.
    for (const shard of [...b.serving.keys()]) b.loop.lost(shard, { code: 'fenced', message: 'taken over' });
    b.serving.clear();
    await cluster.pass(4 * HEARTBEAT_MS);
    assert.deepEqual(await cluster.loads(), { a: 4, b: 4, c: 4 });
    assert.deepEqual(b.replaced, []);
  });

  it('removes the row of one that stays dead; should that one wake, it registers anew', async () => {
    const { cluster, agents } = await clusterOf('a', 'b', 'c');
    const [a, b] = agents;
    b.clock.isAsleep = true;
    await cluster.pass(5 * DEAD_MS);
    const ids = (await cluster.store.listAgents()).map(({ agentId }) => agentId);
    assert.deepEqual(ids.sort(), ['a', 'c']);
    assert.equal(callsOf(a).deregisterAgent, 1);
    assert.equal(callsOf(agents[2]).deregisterAgent, undefined);
    b.clock.wake();
    await cluster.pass(4 * HEARTBEAT_MS);
    assert.equal(b.reaped, 1);
    assert.deepEqual(b.replaced, []);
    assert.deepEqual(await cluster.loads(), { a: 4, b: 4, c: 4 });
  });

  it('stops when another process has taken its name, and only then', async () => {
    const { cluster, agents } = await clusterOf('a', 'b');
    const rival = await cluster.start('a');
    await cluster.pass(3 * HEARTBEAT_MS);
    assert.equal(agents[0].replaced[0]?.code, 'conflict');
    assert.deepEqual(rival.replaced, []);
    agents[0].kill();
    assert.deepEqual(await cluster.loads(), { a: 6, b: 6 });
  });

  it('is no rival to itself when its batching worker is started again', async () => {
    const { cluster, agents } = await clusterOf('a', 'b');
    const [a, b] = agents;
    const late = Promise.withResolvers<void>();
    a.store.inject({ on: 'registerAgent', effect: { kind: 'delay', after: late.promise }, times: 1 });
    const again = a.restart();
    await cluster.pass(3 * HEARTBEAT_MS);
    late.resolve();
    await again;
    await cluster.pass(3 * HEARTBEAT_MS);
    assert.deepEqual([a.replaced, b.replaced], [[], []]);
    assert.deepEqual(await cluster.loads(), { a: 6, b: 6 });
  });

  it('takes a registration whose reply was lost for its own until the next one is answered', async () => {
    const { cluster, agents } = await clusterOf('a');
    const [a] = agents;
    a.store.inject({ on: 'registerAgent', effect: { kind: 'error-after' }, times: 1 });
    await assert.rejects(a.restart(), { code: 'store-unknown' });
    await cluster.pass(3 * HEARTBEAT_MS);
    await a.restart();
    await cluster.pass(3 * HEARTBEAT_MS);
    assert.deepEqual(a.replaced, []);
    assert.equal(a.loop.heldCount, SHARDS);
  });

  it('leaves: hands all over while it goes on serving, and gets none back', async () => {
    const { cluster, agents } = await clusterOf('a', 'b', 'c');
    const [a, b] = agents;
    const over = new AbortController();
    let left = false;
    void b.loop.leave(over.signal).then(() => (left = true));
    const tookMs = await cluster.until(() => left, 10_000);
    assert.ok(tookMs < 2000, `${tookMs} ms`);
    await cluster.pass(500);
    assert.deepEqual(await cluster.loads(), { a: 6, c: 6 });
    await cluster.pass(3 * HEARTBEAT_MS);
    assert.deepEqual(await cluster.loads(), { a: 6, c: 6 });
    b.loop.stop();
    await b.loop.deregister();
    await cluster.pass(3 * HEARTBEAT_MS);
    assert.equal(a.gone, 1);
    assert.deepEqual(a.warned, []);
  });

  it('leaves at once when there is nobody to take over, and gives up when told', async () => {
    const { cluster, agents } = await clusterOf('a');
    await agents[0].loop.leave(new AbortController().signal);
    assert.equal(agents[0].loop.heldCount, SHARDS);
    const b = await cluster.start('b');
    await cluster.pass(3 * HEARTBEAT_MS);
    b.kill();
    const over = new AbortController();
    const leaving = agents[0].loop.leave(over.signal);
    over.abort();
    await leaving;
  });

  it('comes to the same without any notice, only later', async () => {
    const { cluster, agents } = await clusterOf('a', 'b');
    cluster.losesNotices = true;
    await cluster.start('c');
    await cluster.pass(5 * HEARTBEAT_MS);
    assert.deepEqual(await cluster.loads(), { a: 4, b: 4, c: 4 });
    void agents[0].loop.leave(new AbortController().signal);
    await cluster.pass(3 * HEARTBEAT_MS);
    agents[0].loop.stop();
    await agents[0].loop.deregister();
    await cluster.pass(3 * HEARTBEAT_MS);
    assert.deepEqual(await cluster.loads(), { b: 6, c: 6 });
  });

  it('lets a lease go that it does not serve under and that is not its', async () => {
    const { cluster, agents } = await clusterOf('a', 'b');
    const [a, b] = agents;
    // A takeover of a shard of b's whose reply was lost for good: the head bears a, and a does not know.
    const lease = (await cluster.store.listLeases()).find(({ holder }) => holder === b.loop.incarnation);
    assert.ok(lease);
    await cluster.store.acquireLeases(a.loop.incarnation, [lease]);
    b.loop.lost(lease.shard, { code: 'fenced', message: 'taken over' });
    b.serving.delete(lease.shard);
    await cluster.pass(4 * HEARTBEAT_MS);
    const served = agents.flatMap((agent) => agent.loop.held().map(({ shard }) => shard));
    assert.deepEqual(
      served.sort((x, y) => x - y),
      Array.from({ length: SHARDS }, (_, shard) => shard),
    );
    assert.deepEqual(await cluster.loads(), { a: 6, b: 6 });
  });

  it('tries a shard again that it lost, after pauses that grow', async () => {
    const { cluster, agents } = await clusterOf('a');
    const [a] = agents;
    const before = a.taken.length;
    a.store.inject({
      on: ({ method, args }) => method === 'acquireLeases' && (args[1] as { shard: number }[])[0].shard === 5,
      effect: { kind: 'error-before' },
      times: 1e9,
    });
    a.loop.lost(5, { code: 'store-unknown', message: 'gone' });
    await cluster.pass(60_000);
    const tries = a.taken.length - before;
    assert.ok(tries >= 12 && tries <= 30, `${tries} tries in a minute`);
    assert.ok(a.taken.slice(before).every((leases) => leases.length === 1 && leases[0].shard === 5));
    assert.deepEqual(a.loop.reasons(), ['1 shards that should be served here are not']);
    a.store.heal();
    await cluster.pass(6000);
    assert.equal(a.loop.heldCount, SHARDS);
  });

  it('keeps to its group', async () => {
    const cluster = await AgentCluster.create(SHARDS, (shard) => (shard < 4 ? 'heavy' : 'g'));
    const a = await cluster.start('a');
    const b = await cluster.start('b');
    await cluster.pass(3 * HEARTBEAT_MS);
    assert.deepEqual(await cluster.loads(), { a: 4, b: 4, null: 4 });
    const c = await cluster.start('c', 'heavy');
    await cluster.pass(3 * HEARTBEAT_MS);
    assert.deepEqual(
      c.loop.held().map(({ shard }) => shard),
      [0, 1, 2, 3],
    );
    assert.equal(a.loop.heldCount + b.loop.heldCount, 8);
    c.kill();
    await cluster.pass(3 * DEAD_MS);
    assert.equal(a.loop.heldCount + b.loop.heldCount, 8);
  });

  it('is settled when what is free is served, by whomever', async () => {
    const cluster = await AgentCluster.create(SHARDS);
    const agents = [await cluster.start('a'), await cluster.start('b')];
    const signal = new AbortController().signal;
    const settled = await Promise.race([
      Promise.all(agents.map((agent) => agent.loop.settled(signal))),
      cluster.pass(3000).then(() => null),
    ]);
    assert.ok(settled);
    const c = await cluster.start('c');
    let joined = false;
    void c.loop.settled(signal).then(() => (joined = true));
    assert.ok((await cluster.until(() => joined, 1000)) < 500);
    // One that starts instead of another that is dead, or not, does not wait until that is certain.
    for (const agent of [...agents, c]) agent.kill();
    const d = await cluster.start('d');
    joined = false;
    void d.loop.settled(signal).then(() => (joined = true));
    assert.ok((await cluster.until(() => joined, 1000)) < 500);
    assert.equal(d.loop.heldCount, 0);
    await cluster.pass(DEAD_MS + 2000);
    assert.equal(d.loop.heldCount, SHARDS);
  });

  it('is not alarmed by a heartbeat that was under way when it stopped and gave its registration up', async () => {
    const { cluster, agents } = await clusterOf('a');
    const [a] = agents;
    const late = Promise.withResolvers<void>();
    const beats = callsOf(a).heartbeat;
    a.store.inject({ on: 'heartbeat', effect: { kind: 'delay', before: late.promise } });
    await cluster.until(() => callsOf(a).heartbeat > beats, 2 * HEARTBEAT_MS);
    a.loop.stop();
    await a.loop.deregister();
    late.resolve();
    await cluster.pass(20);
    assert.deepEqual([a.replaced, a.warned], [[], []]);
  });
});
