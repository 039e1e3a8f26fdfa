/** The races of cached leases and agents, each made to happen by holding replies back; time is turned by hand. */
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { oneGroup } from '../../../../src/core/shard-layout.ts';
import type { MetadataCacheObserver } from '../../../../storage/metadata/cache/metadata-cache-observer.ts';
import { CachedMetadataStore } from '../../../../storage/metadata/cached-metadata-store.ts';
import type { MetadataMethod } from '../../../../storage/metadata/forwarding-metadata-store.ts';
import { MemoryMetadataState } from '../../../../storage/metadata/memory/memory-metadata-state.ts';
import { MemoryMetadataStore } from '../../../../storage/metadata/memory/memory-metadata-store.ts';
import type { LogEntry } from '../../../../storage/metadata/metadata-store.ts';
import { FaultyMetadataStore } from '../../../support/faulty-metadata-store.ts';
import { ManualClock, turn } from '../../../support/manual-clock.ts';

const SHARDS = 4;
const AGENT = { agentId: 'a', address: 'h:1', zone: 'z', group: 'g', version: '1', registeredAtMs: 1 };

let clock: ManualClock;
let counts: Record<string, number>;
let slow: FaultyMetadataStore;
let cached: CachedMetadataStore;
/** Another broker on the same data. */
let other: MemoryMetadataStore;

function count(name: string): void {
  counts[name] = (counts[name] ?? 0) + 1;
}

const observer: MetadataCacheObserver = {
  hit: (kind) => count(`${kind} hit`),
  miss: (kind) => count(`${kind} miss`),
  eviction: () => assert.fail('nothing here is ever full'),
  staleFill: (kind) => count(`${kind} stale`),
  drop: (kind) => count(`${kind} drop`),
};

beforeEach(async () => {
  clock = new ManualClock();
  counts = {};
  const state = new MemoryMetadataState();
  slow = new FaultyMetadataStore(new MemoryMetadataStore(state));
  other = new MemoryMetadataStore(state);
  cached = new CachedMetadataStore(slow, { clock, observer, layout: oneGroup(SHARDS) });
  await other.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount: SHARDS, createdAtMs: 1 });
  for (let shard = 0; shard < SHARDS; shard++) await take(shard, 7);
});

/** Holds the next reply of `method` back until what is returned is called; the store has done its part by then. */
function holdReply(method: MetadataMethod): () => void {
  const { promise, resolve } = Promise.withResolvers<void>();
  slow.inject({ on: method, effect: { kind: 'delay', after: promise }, times: 1 });
  return resolve;
}

function calls(method: MetadataMethod): number {
  return slow.calls.filter((call) => call.method === method).length;
}

/** An agent takes a shard at another broker. */
async function take(shard: number, incarnation: number): Promise<void> {
  const { holder, epoch } = await other.readHead(shard);
  const [outcome] = await other.acquireLeases(incarnation, [{ shard, holder, epoch }]);
  assert.equal(outcome.kind, 'done');
}

async function release(shard: number): Promise<void> {
  const { holder, epoch } = await other.readHead(shard);
  await other.releaseLeases(holder, [{ shard, epoch }]);
}

const versionOf = ({ holder, epoch }: { holder: number; epoch: number }): [number, number] => [epoch, holder];

describe('cached leases', () => {
  it('come by one read for all shards, however many ask', async () => {
    assert.equal(cached.peekLease(0), undefined);
    const found = await Promise.all([0, 1, 2, 3, 0].map((shard) => cached.getLease(shard)));
    assert.deepEqual(found[1], { shard: 1, holder: 7, epoch: 1, asOfMs: 1000 });
    assert.equal(cached.peekLease(3)?.holder, 7);
    assert.equal(calls('listLeases'), 1);
    assert.deepEqual(counts, { 'lease miss': 5, 'lease hit': 1 });
    assert.throws(() => Object.assign(cached.peekLease(3)!, { holder: 8 }), TypeError);
  });

  it('are shard-not-found where there is no such shard', async () => {
    await assert.rejects(cached.getLease(SHARDS), { code: 'shard-not-found' });
  });

  it('are believed for a minute, from when the read began', async () => {
    const go = holdReply('listLeases');
    const first = cached.getLease(0);
    clock.nowMs += 50_000;
    go();
    await first;
    clock.nowMs += 9_999;
    assert.ok(cached.peekLease(0));
    clock.nowMs += 1;
    assert.equal(cached.peekLease(0), undefined);
    assert.ok(await cached.getLease(0));
    assert.equal(calls('listLeases'), 2);
  });

  it('are kept young by each heartbeat, and see a takeover by it', async () => {
    await cached.getLease(0);
    for (let i = 0; i < 20; i++) {
      clock.nowMs += 5000;
      await cached.refreshLeases();
    }
    assert.equal(cached.peekLease(0)?.asOfMs, 101_000);
    await take(0, 8);
    assert.equal(cached.peekLease(0)?.holder, 7);
    await cached.refreshLeases();
    assert.deepEqual(versionOf(cached.peekLease(0)!), [2, 8]);
    assert.equal(calls('listLeases'), 22);
  });

  it('a heartbeat that comes while the last one still reads causes no second read', async () => {
    const go = holdReply('listLeases');
    const refreshes = [cached.refreshLeases(), cached.refreshLeases(), cached.refreshLeases()];
    go();
    await Promise.all(refreshes);
    assert.equal(calls('listLeases'), 1);
  });

  it('a failed read is told to all who wait for it and changes nothing', async () => {
    await cached.getLease(0);
    slow.inject({ on: 'listLeases', effect: { kind: 'error-before' }, times: 2 });
    await assert.rejects(cached.refreshLeases(), { code: 'store-unavailable' });
    assert.ok(cached.peekLease(0));
    clock.nowMs += 60_000;
    await assert.rejects(cached.getLease(0), { code: 'store-unavailable' });
    assert.ok(await cached.getLease(0));
  });

  it('a slow read never goes back behind a takeover that was told meanwhile', async () => {
    await cached.getLease(0);
    const go = holdReply('listLeases');
    const slowRead = cached.refreshLeases();
    await turn();
    await take(0, 8);
    cached.noteLease({ shard: 0, holder: 8, epoch: 2 });
    go();
    await slowRead;
    assert.deepEqual(versionOf(cached.peekLease(0)!), [2, 8]);
    assert.equal(counts['lease stale'], 1);
    // Nor does what the batching worker told late.
    cached.noteLease({ shard: 0, holder: 7, epoch: 1 });
    assert.deepEqual(versionOf(cached.peekLease(0)!), [2, 8]);
  });

  it('a released shard stays released though a read from before the release comes late', async () => {
    await cached.getLease(0);
    const go = holdReply('listLeases');
    const slowRead = cached.refreshLeases();
    await turn();
    assert.equal((await cached.releaseLeases(7, [{ shard: 0, epoch: 1 }]))[0].kind, 'done');
    assert.equal(cached.peekLease(0), undefined);
    go();
    await slowRead;
    assert.equal(cached.peekLease(0), undefined);
    clock.nowMs += 100;
    assert.deepEqual(versionOf(await cached.getLease(0)), [1, 0]);
  });

  it('a dead leader is dropped on the first failure, and the next look-up finds who took over', async () => {
    const seen = await cached.getLease(0);
    clock.nowMs += 1000;
    await take(0, 8);
    cached.dropLease(0, seen);
    assert.equal(cached.peekLease(0), undefined);
    assert.equal(cached.peekLease(1)?.holder, 7);
    assert.deepEqual(versionOf(await cached.getLease(0)), [2, 8]);
    assert.deepEqual([calls('listLeases'), counts['lease drop']], [2, 1]);
  });

  it('a failure of a request that went by an older lease drops nothing', async () => {
    const seen = await cached.getLease(0);
    await take(0, 8);
    await cached.refreshLeases();
    cached.dropLease(0, seen);
    assert.deepEqual(versionOf(cached.peekLease(0)!), [2, 8]);
    assert.equal(counts['lease drop'], undefined);
  });

  it('nobody who comes after a drop is answered by a read from before it', async () => {
    const seen = await cached.getLease(0);
    const go = holdReply('listLeases');
    const refresh = cached.refreshLeases();
    await turn();
    await take(0, 8);
    cached.dropLease(0, seen);
    const asked = [cached.getLease(0), cached.getLease(0)];
    go();
    await refresh;
    assert.equal(cached.peekLease(0), undefined, 'the read from before the drop confirms nothing');
    assert.equal(counts['lease stale'], 1);
    assert.ok(cached.peekLease(1), 'but other shards');
    await clock.pass(100);
    for (const lease of await Promise.all(asked)) assert.deepEqual(versionOf(lease), [2, 8]);
    assert.equal(calls('listLeases'), 3);
  });

  it('a drop while the look-up reads makes it read once more', async () => {
    clock.nowMs += 1000;
    const go = holdReply('listLeases');
    const asked = cached.getLease(0);
    await turn();
    cached.noteLease({ shard: 0, holder: 7, epoch: 1 });
    cached.dropLease(0);
    await take(0, 8);
    go();
    await clock.pass(100);
    assert.deepEqual(versionOf(await asked), [2, 8]);
    assert.equal(calls('listLeases'), 2);
  });

  it("a dead agent's shards cause ten reads a second at most until somebody takes them", async () => {
    let answers = 0;
    for (let i = 0; i < 1000; i++) {
      for (let shard = 0; shard < SHARDS; shard++) {
        void cached.getLease(shard).then((lease) => {
          answers++;
          cached.dropLease(shard, lease);
        });
      }
      await clock.pass(1);
    }
    await clock.pass(200);
    assert.equal(answers, 1000 * SHARDS);
    assert.ok(calls('listLeases') <= 13, `${calls('listLeases')} reads`);
  });

  it('that a shard has no holder is never said from memory', async () => {
    await release(0);
    assert.deepEqual(versionOf(await cached.getLease(0)), [1, 0]);
    const asked = cached.getLease(0);
    await take(0, 9);
    await clock.pass(100);
    assert.deepEqual(versionOf(await asked), [2, 9]);
    assert.equal(calls('listLeases'), 2);
  });

  it('nor by a read that began before the look-up', async () => {
    await release(0);
    const go = holdReply('listLeases');
    const refresh = cached.refreshLeases();
    await turn();
    const asked = cached.getLease(0);
    await take(0, 9);
    go();
    await refresh;
    await clock.pass(100);
    assert.deepEqual(versionOf(await asked), [2, 9]);
    assert.equal(calls('listLeases'), 2);
  });

  it('a slow read that says the same makes a lease no older than it is known to be', async () => {
    const go = holdReply('listLeases');
    const slowRead = cached.refreshLeases();
    clock.nowMs += 30_000;
    cached.noteLease({ shard: 0, holder: 7, epoch: 1 });
    go();
    await slowRead;
    assert.deepEqual([cached.peekLease(0)?.asOfMs, cached.peekLease(1)?.asOfMs], [31_000, 1000]);
  });

  it('calls of ours that raise, lose, append or move a pointer tell what they found', async () => {
    await cached.acquireLeases(8, [{ shard: 0, holder: 7, epoch: 1 }]);
    assert.deepEqual(versionOf(cached.peekLease(0)!), [2, 8]);
    await take(1, 9);
    await cached.acquireLeases(8, [{ shard: 1, holder: 7, epoch: 1 }]);
    assert.deepEqual(versionOf(cached.peekLease(1)!), [2, 9]);
    await take(2, 9);
    const entry: LogEntry = { shard: 2, seq: 1, epoch: 1, commitId: 'x', body: new Uint8Array(1) };
    assert.equal((await cached.appendEntries([entry], []))[0].kind, 'conflict');
    assert.deepEqual(versionOf(cached.peekLease(2)!), [2, 9]);
    await take(2, 10);
    assert.equal((await cached.movePointer(2, 2, { seq: 1, writer: 9 })).kind, 'conflict');
    assert.deepEqual(versionOf(cached.peekLease(2)!), [3, 10]);
    await take(3, 11);
    await cached.readHead(3);
    assert.deepEqual(versionOf(cached.peekLease(3)!), [2, 11]);
    assert.equal(calls('listLeases'), 0);
  });

  it('a raise or release whose reply was lost leaves nothing to be believed', async () => {
    await cached.getLease(0);
    slow.inject({ on: ['acquireLeases', 'releaseLeases'], effect: { kind: 'error-after' } });
    await assert.rejects(cached.acquireLeases(8, [{ shard: 0, holder: 7, epoch: 1 }]));
    await assert.rejects(cached.releaseLeases(7, [{ shard: 1, epoch: 1 }]));
    assert.deepEqual([cached.peekLease(0), cached.peekLease(1)], [undefined, undefined]);
    assert.ok(cached.peekLease(2));
    clock.nowMs += 100;
    assert.deepEqual(versionOf(await cached.getLease(0)), [2, 8]);
    clock.nowMs += 100;
    assert.deepEqual(versionOf(await cached.getLease(1)), [1, 0]);
  });

  it('of the contract are never answered from memory', async () => {
    await cached.getLease(0);
    await take(0, 8);
    assert.equal((await cached.readHead(0)).holder, 8);
    await take(0, 9);
    assert.equal((await cached.listLeases())[0].holder, 9);
    assert.deepEqual(versionOf(cached.peekLease(0)!), [3, 9]);
  });
});

describe('cached agents', () => {
  it('come by one list, under their incarnation, and are believed for a minute', async () => {
    const { incarnation } = await other.registerAgent(AGENT);
    const { incarnation: second } = await other.registerAgent({ ...AGENT, agentId: 'b', address: 'h:2' });
    const found = await Promise.all([incarnation, second].map((one) => cached.getAgentOf(one)));
    assert.deepEqual(
      found.map((agent) => agent?.address),
      ['h:1', 'h:2'],
    );
    assert.equal(cached.peekAgentOf(incarnation)?.agentId, 'a');
    clock.nowMs += 60_000;
    assert.equal(cached.peekAgentOf(incarnation), undefined);
    await other.deregisterAgent('a', incarnation);
    assert.equal(await cached.getAgentOf(incarnation), null);
    assert.equal(calls('listAgents'), 2);
    assert.deepEqual(counts, { 'agent miss': 3, 'agent hit': 1 });
  });

  it('are found at once when they register elsewhere, and asked for ten times a second at most', async () => {
    const unknown = (await other.registerAgent(AGENT)).incarnation + 1;
    assert.equal(await cached.getAgentOf(unknown), null);
    const many = Array.from({ length: 50 }, () => cached.getAgentOf(unknown));
    await other.registerAgent({ ...AGENT, agentId: 'b' });
    await clock.pass(100);
    for (const agent of await Promise.all(many)) assert.equal(agent?.agentId, 'b');
    assert.equal(calls('listAgents'), 2);
  });

  it('are young again with each heartbeat, which costs no list', async () => {
    const { incarnation } = await cached.registerAgent(AGENT);
    await cached.heartbeat('a', incarnation);
    const { incarnation: second } = await other.registerAgent({ ...AGENT, agentId: 'b', address: 'h:2' });
    for (let i = 0; i < 20; i++) {
      clock.nowMs += 5000;
      const agents = await cached.heartbeat('a', incarnation);
      // What the caller does with its answer is its own business.
      Object.assign(agents[1], { address: 'spoilt' });
    }
    assert.equal(cached.peekAgentOf(second)?.address, 'h:2');
    assert.equal('heartbeatCount' in cached.peekAgentOf(second)!, false);
    await other.deregisterAgent('b', second);
    await cached.heartbeat('a', incarnation);
    assert.equal(cached.peekAgentOf(second), undefined);
    clock.nowMs += 59_999;
    assert.ok(cached.peekAgentOf(incarnation));
    clock.nowMs += 1;
    assert.equal(cached.peekAgentOf(incarnation), undefined);
    assert.equal(calls('listAgents'), 0);
  });

  it('a slow heartbeat neither hides nor brings back what was learned after it began', async () => {
    const { incarnation } = await cached.registerAgent(AGENT);
    const { incarnation: second } = await other.registerAgent({ ...AGENT, agentId: 'b', address: 'h:2' });
    const go = [holdReply('heartbeat'), holdReply('heartbeat')];
    const first = cached.heartbeat('a', incarnation);
    await turn();
    await other.deregisterAgent('b', second);
    const { incarnation: third } = await other.registerAgent({ ...AGENT, agentId: 'c' });
    // A list that began later than the heartbeat, and ends before it.
    assert.equal(await cached.getAgentOf(second), null);
    go[0]();
    await first;
    assert.equal(cached.peekAgentOf(second), undefined);
    assert.ok(cached.peekAgentOf(third));
    assert.equal(counts['agent stale'], 1);
    // Registered anew here while a heartbeat is under way.
    const late = cached.heartbeat('a', incarnation);
    await turn();
    const again = await cached.registerAgent({ ...AGENT, address: 'h:3' });
    go[1]();
    await late;
    assert.equal(cached.peekAgentOf(again.incarnation)?.address, 'h:3');
    assert.equal(cached.peekAgentOf(incarnation), undefined);
    assert.equal(counts['agent stale'], 2);
  });

  it('a slow list does not replace what a heartbeat told that began after it', async () => {
    const { incarnation } = await cached.registerAgent(AGENT);
    const go = holdReply('listAgents');
    const slowRead = cached.getAgentOf(99);
    await turn();
    const { incarnation: second } = await other.registerAgent({ ...AGENT, agentId: 'b' });
    await cached.heartbeat('a', incarnation);
    go();
    assert.equal(await slowRead, null);
    assert.ok(cached.peekAgentOf(second));
    assert.equal(counts['agent stale'], 1);
  });

  it('takes no list for its no that began before the look-up', async () => {
    const go = holdReply('listAgents');
    const older = cached.getAgentOf(1);
    await turn();
    const { incarnation } = await other.registerAgent(AGENT);
    const asked = cached.getAgentOf(incarnation);
    go();
    assert.equal((await asked)?.address, 'h:1');
    assert.equal((await older)?.address, undefined);
  });

  it('a slow list never hides an agent that was registered here meanwhile, nor brings its former one back', async () => {
    const first = await cached.registerAgent(AGENT);
    await cached.getAgentOf(first.incarnation);
    clock.nowMs += 60_000;
    const go = holdReply('listAgents');
    const slowRead = cached.getAgentOf(first.incarnation);
    await turn();
    const second = await cached.registerAgent({ ...AGENT, address: 'h:3' });
    assert.equal((await cached.getAgentOf(second.incarnation))?.address, 'h:3');
    go();
    assert.equal((await slowRead)?.address, 'h:1');
    assert.equal(cached.peekAgentOf(second.incarnation)?.address, 'h:3');
    assert.equal(cached.peekAgentOf(first.incarnation), undefined);
    assert.equal(counts['agent stale'], 1);
    await cached.deregisterAgent('a', second.incarnation);
    assert.equal(cached.peekAgentOf(second.incarnation), undefined);
  });

  it('are in doubt when the reply to a registration was lost', async () => {
    const { incarnation } = await other.registerAgent(AGENT);
    await cached.getAgentOf(incarnation);
    slow.inject({ on: 'registerAgent', effect: { kind: 'error-after' }, times: 1 });
    await assert.rejects(cached.registerAgent(AGENT), { code: 'store-unknown' });
    assert.equal(cached.peekAgentOf(incarnation), undefined);
    assert.equal((await cached.getAgentOf(incarnation + 1))?.agentId, 'a');
  });
});
