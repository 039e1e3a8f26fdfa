/** Heartbeats and leases on DynamoDB, which are several requests there: what they cost, and faults between them. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { failsWith } from '../../../contract/metadata-store-rig.ts';
import { DynamodbRig, eventually, gate, touches } from '../../../support/dynamodb-rig.ts';

const AGENT = { agentId: 'a', address: 'h:1', zone: 'z', group: 'g', version: '1', registeredAtMs: 1 };

let rig: DynamodbRig;
before(async () => {
  rig = await DynamodbRig.start(64);
});
after(() => rig.close());
beforeEach(() => rig.proxy.clear());

describe('a heartbeat', () => {
  it('is two requests, a beat and a consistent listing, and all leases are one', async () => {
    const store = rig.store();
    const { incarnation } = await store.registerAgent(AGENT);
    for (let i = 0; i < 9; i++) await store.registerAgent({ ...AGENT, agentId: `b-${i}` });
    await store.listLeases();
    rig.proxy.clear();
    const before = rig.counters.read('statements');
    assert.equal((await store.heartbeat('a', incarnation)).length, 10);
    assert.deepEqual(
      rig.proxy.calls.map(({ action }) => action),
      ['UpdateItem', 'Query'],
    );
    assert.equal(rig.proxy.calls[1].body.ConsistentRead, true);
    assert.equal((await store.listLeases()).length, 64);
    assert.equal(rig.proxy.calls.length, 3);
    assert.equal(rig.counters.read('statements') - before, 3);
  });

  it('counts twice at most when its reply is lost, and is answered', async () => {
    const store = rig.store();
    const { incarnation } = await store.registerAgent(AGENT);
    rig.proxy.inject({ on: 'UpdateItem', effect: { kind: 'drop-reply' }, times: 1 });
    const agents = await store.heartbeat('a', incarnation);
    assert.equal(agents.find(({ agentId }) => agentId === 'a')?.heartbeatCount, 2);
  });

  it('is unknown when the listing fails: it has counted', async () => {
    const store = rig.store();
    const { incarnation } = await store.registerAgent(AGENT);
    rig.proxy.inject({ on: 'Query', effect: { kind: 'refuse', name: 'InternalServerError', status: 500 } });
    await failsWith('store-unknown', store.heartbeat('a', incarnation));
    rig.proxy.clear();
    assert.equal((await store.getAgent('a'))?.heartbeatCount, 1);
    rig.proxy.inject({ on: 'UpdateItem', effect: { kind: 'refuse', name: 'ThrottlingException' } });
    await failsWith('store-unavailable', store.heartbeat('a', incarnation));
    rig.proxy.clear();
    assert.equal((await store.getAgent('a'))?.heartbeatCount, 1);
  });

  it('is told of a successor that came between the beat and the listing', async () => {
    const store = rig.store();
    const { incarnation } = await store.registerAgent(AGENT);
    const { until, release } = gate();
    rig.proxy.inject({ on: 'Query', effect: { kind: 'hold', until }, times: 1 });
    const beating = failsWith('agent-not-found', store.heartbeat('a', incarnation));
    await eventually(() => rig.proxy.calls.some(({ action }) => action === 'Query'), 'the listing began');
    const successor = await rig.store().registerAgent(AGENT);
    release();
    await beating;
    assert.deepEqual(await store.getAgent('a'), successor);
  });
});

describe('leases', () => {
  it('are unknown as a whole when one reply is lost, and each head tells of its own', async () => {
    const store = rig.store();
    const shards = [3, 4, 5];
    const heads = () => Promise.all(shards.map((shard) => store.readHead(shard)));
    const seen = (await heads()).map(({ shard, holder, epoch }) => ({ shard, holder, epoch }));
    const isChange = (pk: string) => (call: { action: string; body: unknown }) =>
      call.action === 'UpdateItem' && touches(pk)(call);
    rig.proxy.inject({ on: isChange('head#4'), effect: { kind: 'drop-reply' }, times: 1 });
    rig.proxy.inject({ on: isChange('head#5'), effect: { kind: 'drop-request' }, times: 1 });
    await failsWith('store-unknown', store.acquireLeases(8, seen));
    assert.deepEqual(
      (await heads()).map(({ holder, epoch }) => [holder, epoch]),
      [
        [8, 2],
        [8, 2],
        [7, 1],
      ],
    );
    // What was lost is never sent again by the store itself: 4 would have been raised for nothing.
    assert.equal(rig.proxy.calls.filter(isChange('head#4')).length, 1);
    rig.proxy.clear();
    rig.proxy.inject({ on: isChange('head#4'), effect: { kind: 'drop-reply' }, times: 1 });
    const leases = shards.map((shard) => ({ shard, epoch: 2 }));
    await failsWith('store-unknown', store.releaseLeases(8, leases));
    assert.deepEqual(
      (await heads()).map(({ holder, epoch }) => [holder, epoch]),
      [
        [0, 2],
        [0, 2],
        [7, 1],
      ],
    );
  });
});
