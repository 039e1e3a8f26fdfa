/**
 * The catalogue on DynamoDB: three items lead to a topic, written one after the other, with one commit point each for
 * create and delete. Crashes between them, lost replies, requests that come late.
 */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { failsWith } from '../../../contract/metadata-store-rig.ts';
import type { DynamodbCall, DynamodbFaultEffect } from '../../../support/dynamodb-proxy.ts';
import { DynamodbRig, eventually, gate, touches } from '../../../support/dynamodb-rig.ts';

const THROTTLED: DynamodbFaultEffect = { kind: 'refuse', name: 'ThrottlingException' };

let rig: DynamodbRig;
let count = 0;
let name = '';
before(async () => {
  rig = await DynamodbRig.start(1);
});
after(() => rig.close());
beforeEach(() => {
  rig.proxy.clear();
  name = `topic-${++count}`;
});

const topic = () => ({ name, partitionCount: 3, configs: { a: '1' }, createdAtMs: 5 });
const writesName = (call: DynamodbCall) => call.action !== 'GetItem' && touches('topics', `=${name}`)(call);
const deletedIds = async () =>
  (await rig.store().listDeletedTopics({ afterTopicId: 0, limit: 100 })).map(({ topicId }) => topicId);

describe('creating a topic', () => {
  it('is done when the reply is lost and the name bears its id', async () => {
    const store = rig.store();
    rig.proxy.inject({ on: writesName, effect: { kind: 'drop-reply' }, times: 1 });
    const created = await store.createTopic(topic());
    assert.deepEqual(await store.getTopic(name), created);
    assert.deepEqual(await store.getTopicsById([created.topicId]), [created]);
    assert.equal(rig.proxy.calls.filter(writesName).length, 1);
  });

  it('is unknown when the request may still come, and never sent twice', async () => {
    const store = rig.store();
    const { until, release } = gate();
    rig.proxy.inject({ on: writesName, effect: { kind: 'late', until }, times: 1 });
    await failsWith('store-unknown', store.createTopic(topic()));
    assert.equal(rig.proxy.calls.filter(writesName).length, 1);
    // Meanwhile it is created and deleted by another: what comes late may be a topic, but no dead one.
    const other = await store.createTopic(topic());
    await store.deleteTopic(name);
    release();
    await eventually(async () => (await store.getTopic(name)) !== null, 'the late topic');
    const found = await store.getTopic(name);
    assert(found !== null && found.topicId < other.topicId);
    assert.deepEqual(await store.getTopicsById([found.topicId, other.topicId]), [found, null]);
    assert.deepEqual(await deletedIds(), [other.topicId]);
    await store.forgetDeletedTopic(other.topicId);
  });

  it('is refused when the reply is lost and a rival has the name', async () => {
    const [store, rival] = [rig.store(), rig.store()];
    const { until, release } = gate();
    rig.proxy.inject({ on: writesName, effect: { kind: 'hold', until }, times: 1 });
    rig.proxy.inject({ on: writesName, effect: { kind: 'drop-reply' }, times: 1 });
    const slow = store.createTopic(topic());
    await new Promise((resolve) => setTimeout(resolve, 50));
    const theirs = await rival.createTopic(topic());
    release();
    await failsWith('topic-exists', slow);
    assert.deepEqual(await store.getTopic(name), theirs);
  });

  it('that ended after the item of its id makes no topic', async () => {
    const store = rig.store();
    rig.proxy.inject({ on: writesName, effect: THROTTLED });
    await failsWith('store-unavailable', store.createTopic(topic()));
    rig.proxy.clear();
    const { topic: lastId } = await store.getLastIds();
    assert.deepEqual(await rig.sortKeys(`topic-id#${lastId}`), ['name']);
    assert.deepEqual(await store.getTopicsById([lastId]), [null]);
    const created = await store.createTopic(topic());
    assert(created.topicId > lastId);
    // The id that came to nothing leads to the name of another topic now.
    assert.deepEqual(await store.getTopicsById([lastId, created.topicId]), [null, created]);
  });

  it('leaves no item of an id that lost the race', async () => {
    const [store, rival] = [rig.store(), rig.store()];
    await Promise.allSettled([store.createTopic(topic()), rival.createTopic(topic())]);
    const { topic: lastId } = await store.getLastIds();
    const found = await store.getTopic(name);
    const ids = await Promise.all([lastId - 1, lastId].map((id) => rig.sortKeys(`topic-id#${id}`)));
    assert.deepEqual(
      ids.map((keys) => keys.length),
      [lastId - 1, lastId].map((id) => (id === found?.topicId ? 1 : 0)),
    );
  });

  it('takes a name that cannot be a key for none', async () => {
    const store = rig.store();
    for (const bad of ['x'.repeat(2000), '\ud800', 'ä'.repeat(501)]) {
      await failsWith('invalid-topic-name', store.createTopic({ ...topic(), name: bad }));
      assert.equal(await store.getTopic(bad), null);
      await failsWith('topic-not-found', store.deleteTopic(bad));
    }
  });
});

describe('deleting a topic', () => {
  it('that ended before its commit leaves the topic alive, and not among the deleted', async () => {
    const store = rig.store();
    const created = await store.createTopic(topic());
    rig.proxy.inject({ on: writesName, effect: THROTTLED });
    await failsWith('store-unavailable', store.deleteTopic(name));
    rig.proxy.clear();
    assert((await rig.sortKeys('deleted-topics')).length > 0);
    assert.deepEqual(await store.getTopic(name), created);
    assert.deepEqual(await deletedIds(), []);
    // What is deleted in the end is the topic as it is then.
    const grown = await store.growTopic(name, 9);
    const deleted = await store.deleteTopic(name);
    assert.deepEqual(deleted, { ...grown, version: grown.version + 1 });
    assert.deepEqual(await store.listDeletedTopics({ afterTopicId: 0, limit: 10 }), [deleted]);
    await store.forgetDeletedTopic(created.topicId);
    assert.deepEqual(await rig.sortKeys(`topic-id#${created.topicId}`), []);
  });

  it('is done when its reply is lost', async () => {
    const store = rig.store();
    const created = await store.createTopic(topic());
    rig.proxy.inject({ on: writesName, effect: { kind: 'drop-reply' }, times: 1 });
    assert.deepEqual(await store.deleteTopic(name), { ...created, version: 2 });
    assert.equal(await store.getTopic(name), null);
    assert.deepEqual(await deletedIds(), [created.topicId]);
    await store.forgetDeletedTopic(created.topicId);
  });

  it('is unknown while the request may still come', async () => {
    const store = rig.store();
    await store.createTopic(topic());
    rig.proxy.inject({ on: writesName, effect: { kind: 'drop-request' }, times: 1 });
    await failsWith('store-unknown', store.deleteTopic(name));
    assert.notEqual(await store.getTopic(name), null);
    await store.deleteTopic(name);
    for (const id of await deletedIds()) await store.forgetDeletedTopic(id);
  });

  it('that comes late deletes no topic that was changed or made anew since', async () => {
    const store = rig.store();
    const first = await store.createTopic(topic());
    const { until, release } = gate();
    rig.proxy.inject({ on: writesName, effect: { kind: 'late', until }, times: 1 });
    await failsWith('store-unknown', store.deleteTopic(name));
    await store.deleteTopic(name);
    const second = await store.createTopic(topic());
    release();
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(await store.getTopic(name), second);
    assert.deepEqual(await deletedIds(), [first.topicId]);
    await store.forgetDeletedTopic(first.topicId);
  });

  it('remembers the topic as it was last, though an earlier attempt comes late', async () => {
    const store = rig.store();
    await store.createTopic(topic());
    const { until, release } = gate();
    rig.proxy.inject({ on: touches('deleted-topics'), effect: { kind: 'late', until } });
    await failsWith('store-unknown', store.deleteTopic(name));
    rig.proxy.clear();
    await store.growTopic(name, 50);
    const deleted = await store.deleteTopic(name);
    release();
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(await store.listDeletedTopics({ afterTopicId: deleted.topicId - 1, limit: 1 }), [
      deleted,
    ]);
    assert.equal(deleted.partitionCount, 50);
    await store.forgetDeletedTopic(deleted.topicId);
  });

  it('pages past topics that live', async () => {
    const store = rig.store();
    const created = [];
    for (let i = 0; i < 12; i++) created.push(await store.createTopic({ ...topic(), name: `${name}-${i}` }));
    rig.proxy.inject({ on: (call) => call.action === 'DeleteItem', effect: THROTTLED });
    for (const { name: live } of created.slice(0, 9)) await assert.rejects(store.deleteTopic(live));
    rig.proxy.clear();
    for (const { name: dead } of created.slice(9)) await store.deleteTopic(dead);
    const page = await store.listDeletedTopics({ afterTopicId: 0, limit: 2 });
    assert.deepEqual(
      page.map(({ topicId }) => topicId),
      created.slice(9, 11).map(({ topicId }) => topicId),
    );
  });
});

describe('ids and agents', () => {
  it('skip ids whose reply was lost, and give none twice', async () => {
    const store = rig.store();
    const first = await store.allocateProducerIds(10);
    rig.proxy.inject({ on: touches('counter#producer'), effect: { kind: 'drop-reply' }, times: 1 });
    const second = await store.allocateProducerIds(10);
    assert(second >= first + 10);
    assert.equal(await store.allocateProducerIds(1), second + 10);
  });

  it('register an agent whose reply was lost once', async () => {
    const store = rig.store();
    const agent = { agentId: 'a', address: 'x', zone: 'z', group: 'g', version: '1', registeredAtMs: 1 };
    rig.proxy.inject({ on: touches('agents'), effect: { kind: 'drop-reply' }, times: 1 });
    const registered = await store.registerAgent(agent);
    assert.deepEqual(await store.getAgent('a'), registered);
    // Of two registrations the newer stays, whichever comes last.
    const { until, release } = gate();
    const isPut = (call: DynamodbCall) => call.action === 'PutItem' && touches('agents')(call);
    rig.proxy.inject({ on: isPut, effect: { kind: 'hold', until }, times: 1 });
    rig.proxy.calls.length = 0;
    const slow = store.registerAgent({ ...agent, address: 'old' });
    await eventually(() => rig.proxy.calls.some(isPut), 'the older one is on its way');
    const newer = await rig.store().registerAgent({ ...agent, address: 'new' });
    release();
    assert((await slow).incarnation < newer.incarnation);
    assert.deepEqual(await store.getAgent('a'), newer);
  });
});
