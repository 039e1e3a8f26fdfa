/** The agent's loop over a memory store that answers late, not at all, or to somebody else. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { AgentLoop } from '../../../src/agent/agent-loop.ts';
import { systemClock } from '../../../src/core/clock.ts';
import type { StreamHouseError } from '../../../src/core/errors.ts';
import { MemoryMetadataStore } from '../../../storage/metadata/memory/memory-metadata-store.ts';
import { FaultyMetadataStore } from '../../support/faulty-metadata-store.ts';

const HEARTBEAT_MS = 5;
const SHARDS = 3;

function makeAgent(store = new FaultyMetadataStore(new MemoryMetadataStore())) {
  const replaced: StreamHouseError[] = [];
  const taken: number[][] = [];
  const warned: string[] = [];
  const loop = new AgentLoop({
    settings: {
      agentId: 'a',
      address: '127.0.0.1:1',
      zone: 'z',
      group: 'g',
      version: '1',
      shardCount: SHARDS,
      heartbeatMs: HEARTBEAT_MS,
    },
    store,
    clock: systemClock,
    refreshLeases: async () => {
      await store.listLeases();
    },
    take: (shards) => taken.push(shards),
    replaced: (error) => replaced.push(error),
    info: () => undefined,
    warn: (message) => warned.push(message),
  });
  return { store, loop, replaced, taken, warned };
}

async function until(holds: () => boolean): Promise<void> {
  for (let i = 0; !holds(); i++) {
    assert.ok(i < 1000, `not within 5 s: ${holds}`);
    await sleepMs(5);
  }
}

function heartbeats(store: FaultyMetadataStore): number {
  return store.calls.filter(({ method }) => method === 'heartbeat').length;
}

describe('the agent loop', () => {
  it('is not alarmed by a heartbeat that was under way when it stopped and gave its registration up', async () => {
    const { store, loop, replaced, warned } = makeAgent();
    await loop.register();
    const late = Promise.withResolvers<void>();
    store.inject({ on: 'heartbeat', effect: { kind: 'delay', before: late.promise } });
    await until(() => heartbeats(store) === 1);
    loop.stop();
    await loop.deregister();
    late.resolve();
    await sleepMs(20);
    assert.deepEqual([replaced, warned], [[], []]);
  });

  it('takes no new registration of its own for a rival, however late its reply', async () => {
    const { store, loop, replaced } = makeAgent();
    await loop.register();
    const late = Promise.withResolvers<void>();
    store.inject({ on: 'registerAgent', effect: { kind: 'delay', after: late.promise }, times: 1 });
    const second = loop.register();
    // However slow the machine is: heartbeats go out while the registration is under way.
    for (let waitedMs = 0; heartbeats(store) <= 1; waitedMs += 5) {
      assert.ok(waitedMs < 5000, 'no heartbeat goes out');
      await sleepMs(5);
    }
    late.resolve();
    await second;
    await sleepMs(20);
    loop.stop();
    assert.deepEqual(replaced, []);
  });

  it('takes a registration whose reply was lost for its own until the next one is answered', async () => {
    const { store, loop, replaced } = makeAgent();
    await loop.register();
    store.inject({ on: 'registerAgent', effect: { kind: 'error-after' }, times: 1 });
    await assert.rejects(loop.register(), { code: 'store-unknown' });
    await sleepMs(30);
    await loop.register();
    await sleepMs(30);
    loop.stop();
    assert.deepEqual(replaced, []);
  });

  it('stops for a rival under its id', async () => {
    const { store, loop, replaced } = makeAgent();
    await loop.register();
    const rival = makeAgent(store);
    await rival.loop.register();
    await sleepMs(40);
    loop.stop();
    rival.loop.stop();
    assert.ok(replaced.length > 0);
    assert.equal(replaced[0].code, 'conflict');
    assert.deepEqual(rival.replaced, []);
  });

  it('goes on after heartbeats that failed, and takes a lost shard again, alone', async () => {
    const { store, loop, replaced, taken, warned } = makeAgent();
    await loop.register();
    loop.sequencerUp();
    for (let shard = 0; shard < SHARDS; shard++) loop.held(shard, 1);
    store.inject({ on: 'heartbeat', effect: { kind: 'error-before' }, times: 2 });
    loop.lost(1, { code: 'store-unknown', message: 'gone' });
    assert.equal(loop.heldCount, SHARDS - 1);
    assert.equal(loop.epochOf(1), undefined);
    await sleepMs(120);
    loop.stop();
    assert.deepEqual(taken, [[0, 1, 2], [1]]);
    assert.deepEqual(replaced, []);
    assert.equal(warned.filter((message) => message === 'a heartbeat failed').length, 2);
  });

  it('reads all leases anew with each heartbeat, two statements in all, and no heartbeat waits for that', async () => {
    const { store, loop, warned } = makeAgent();
    await loop.register();
    await until(() => heartbeats(store) >= 5);
    const count = (name: string) => store.calls.filter(({ method }) => method === name).length;
    assert.ok(Math.abs(count('listLeases') - heartbeats(store)) <= 1);
    assert.deepEqual(
      new Set(store.calls.map(({ method }) => method)),
      new Set(['registerAgent', 'heartbeat', 'listLeases']),
    );
    store.inject({ on: 'listLeases', effect: { kind: 'error-before' }, times: 2 });
    await until(() => warned.length === 2);
    store.inject({ on: 'listLeases', effect: { kind: 'hang' } });
    const before = heartbeats(store);
    await until(() => heartbeats(store) >= before + 5);
    loop.stop();
    assert.deepEqual(new Set(warned), new Set(['the leases could not be read anew']));
  });

  it('takes nothing while there is no batching worker', async () => {
    const { loop, taken } = makeAgent();
    await loop.register();
    loop.sequencerUp();
    loop.lost(2, { code: 'fenced', message: 'gone' });
    loop.sequencerLost();
    await sleepMs(120);
    loop.stop();
    assert.deepEqual(taken, [[0, 1, 2]]);
    assert.equal(loop.heldCount, 0);
  });
});
