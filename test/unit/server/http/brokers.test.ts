/**
 * What the door shows of a cluster of several brokers: who is registered, who holds which shard, who leads a
 * partition, and where a client is pointed that names its zone.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { StreamHouseError } from '../../../../src/core/errors.ts';
import { shardOf } from '../../../../src/core/ids.ts';
import { oneGroup } from '../../../../src/core/shard-layout.ts';
import { BrokerListV3, PartitionListV3, ShardListV3 } from '../../../../src/protocol/http/schemas.ts';
import { memberOf } from '../../../support/fake-broker.ts';
import {
  call,
  type DoorUnderTest,
  produceText,
  RawClient,
  startDoor,
} from '../../../support/http-door-harness.ts';

function assertShape(schema: TSchema, answer: unknown): void {
  assert.deepEqual([...Compile(schema).Errors(answer)], []);
}

const V3 = '/v3/clusters/fake-cluster';

function addMembers({ broker }: DoorUnderTest): void {
  broker.members.push(
    memberOf({ agentId: 'b', incarnation: 8, address: 'b.example:8081', zone: 'z2', heartbeatAgeMs: 999.6 }),
    memberOf({ agentId: 'c', incarnation: 9, address: '[fd00::9]:8082', zone: 'z2', shardCount: 0 }),
    memberOf({ agentId: 'd', incarnation: 5, address: 'd.example:1', zone: 'z2', state: 'dead' }),
    memberOf({ agentId: 'e', incarnation: 6, address: 'e.example:1', zone: 'z3', state: 'leaving' }),
  );
}

test('all registered brokers, with their state', async (t) => {
  const under = await startDoor(t);
  addMembers(under);
  const list = (await call(under, 'GET', `${V3}/brokers`)).json;
  assertShape(BrokerListV3, list);
  assert.equal(list.metadata.self, `${V3}/brokers`);
  assert.deepEqual(
    list.data.map((row: { broker_id: number; state: string }) => [row.broker_id, row.state]),
    [
      [7, 'live'],
      [8, 'live'],
      [9, 'live'],
      [5, 'dead'],
      [6, 'leaving'],
    ],
  );
  assert.deepEqual((await call(under, 'GET', `${V3}/brokers/8`)).json, {
    kind: 'KafkaBroker',
    metadata: { self: `${V3}/brokers/8` },
    cluster_id: 'fake-cluster',
    broker_id: 8,
    host: 'b.example',
    port: 8081,
    rack: 'z2',
    agent_id: 'b',
    group: 'default',
    version: '0.0.0-test',
    state: 'live',
    heartbeat_age_ms: 1000,
    registered_at: '2023-11-14T22:13:20.000Z',
    shards: 8,
  });
  const { host, port } = (await call(under, 'GET', `${V3}/brokers/9`)).json;
  assert.deepEqual([host, port], ['fd00::9', 8082]);
  for (const id of ['10', 'x', '-1']) {
    assert.equal((await call(under, 'GET', `${V3}/brokers/${id}`)).json.error_code, 404, id);
  }
  for (const path of ['brokers', 'brokers/7', 'shards']) {
    assert.equal((await call(under, 'GET', `/v3/clusters/other/${path}`)).status, 404, path);
  }
});

test('the brokers of one zone', async (t) => {
  const under = await startDoor(t);
  addMembers(under);
  under.broker.members.push(memberOf({ incarnation: 11, zone: 'a&b' }));
  const ids = async (search: string) =>
    (await call(under, 'GET', `${V3}/brokers${search}`)).json.data.map(
      (row: { broker_id: number }) => row.broker_id,
    );
  assert.deepEqual(await ids('?zone=z2'), [8, 9, 5]);
  assert.deepEqual(await ids('?zone=nowhere'), []);
  assert.deepEqual(await ids('?zone=a%26b'), [11]);
  const odd = (await call(under, 'GET', `${V3}/brokers?zone=a%26b`)).json;
  assert.equal(odd.metadata.self, `${V3}/brokers?zone=a%26b`);
  assert.equal((await call(under, 'GET', `${V3}/brokers?zone=`)).status, 400);
  assert.equal((await call(under, 'GET', `${V3}/brokers?rack=z2`)).status, 400);
});

test('what other brokers registered may be anything', async (t) => {
  const under = await startDoor(t);
  const address = 'x\r\nSet-Cookie: a=b:1';
  under.broker.members.push(memberOf({ incarnation: 8, address, zone: 'z2', registeredAtMs: 9e15 }));
  under.broker.members.push(memberOf({ incarnation: 9, address: 'h:0', zone: 'z2', heartbeatAgeMs: -3 }));
  under.broker.members.push(memberOf({ incarnation: 10, zone: '' }));
  const { host, port, registered_at } = (await call(under, 'GET', `${V3}/brokers/8`)).json;
  assert.deepEqual([host, port, registered_at], [null, null, null]);
  assert.equal((await call(under, 'GET', `${V3}/brokers/9`)).json.heartbeat_age_ms, 0);
  assert.equal((await call(under, 'GET', `${V3}/brokers/10`)).json.rack, null);
  assertShape(BrokerListV3, (await call(under, 'GET', `${V3}/brokers`)).json);
  const { status, headers } = await call(under, 'GET', '/topics', undefined, { 'Streamhouse-Zone': 'z2' });
  assert.deepEqual([status, headers.get('streamhouse-zone-broker')], [200, null]);
});

test('who holds which shard', async (t) => {
  const under = await startDoor(t);
  under.broker.holders.set(3, { holder: 8, agentId: null, epoch: 41, sinceMs: null, headSeq: 0 });
  under.broker.holders.set(4, { holder: 0, agentId: null, epoch: 2, sinceMs: null });
  const list = (await call(under, 'GET', `${V3}/shards`)).json;
  assertShape(ShardListV3, list);
  assert.equal(list.data.length, 8);
  const common = { kind: 'StreamhouseShard', cluster_id: 'fake-cluster', group: 'default' };
  assert.deepEqual(list.data.slice(2, 5), [
    {
      ...common,
      shard: 2,
      broker_id: 7,
      agent_id: 'agent-a',
      epoch: 1,
      since: '2023-11-14T22:13:20.000Z',
      head_seq: 12,
    },
    { ...common, shard: 3, broker_id: 8, agent_id: null, epoch: 41, since: null, head_seq: 0 },
    { ...common, shard: 4, broker_id: null, agent_id: null, epoch: 2, since: null, head_seq: 14 },
  ]);
  under.broker.faults.catalogue = new StreamHouseError('store-unavailable', 'the store does not answer');
  assert.equal((await call(under, 'GET', `${V3}/shards`)).json.error_code, 50003);
});

test('the leader of a partition is the holder of its shard', async (t) => {
  const under = await startDoor(t);
  const { topicId } = under.broker.addTopic('wide', 40);
  const shards = Array.from({ length: 40 }, (_, partition) => shardOf(topicId, partition, oneGroup(8)));
  under.broker.holders.set(shards[0], { holder: 8 });
  const unheld = shards.find((shard) => shard !== shards[0]) as number;
  under.broker.holders.set(unheld, { holder: 0 });
  const leaders = shards.map((shard) => (shard === shards[0] ? 8 : shard === unheld ? null : 7));
  assert.deepEqual([...new Set(leaders)].sort(), [7, 8, null]);
  const v2 = leaders.map((leader, partition) =>
    leader === null
      ? { partition, leader: -1, replicas: [] }
      : { partition, leader, replicas: [{ broker: leader, leader: true, in_sync: true }] },
  );
  assert.deepEqual((await call(under, 'GET', '/topics/wide')).json.partitions, v2);
  assert.deepEqual((await call(under, 'GET', '/topics/wide/partitions')).json, v2);
  const list = (await call(under, 'GET', `${V3}/topics/wide/partitions`)).json;
  assertShape(PartitionListV3, list);
  const v3 = list.data;
  for (const partition of [0, shards.indexOf(unheld), leaders.indexOf(7)]) {
    const one = (await call(under, 'GET', `/topics/wide/partitions/${partition}`)).json;
    assert.deepEqual(one, v2[partition]);
    const leader = leaders[partition];
    const link = leader === null ? null : { related: `${V3}/brokers/${leader}` };
    assert.deepEqual(v3[partition].leader, link);
    const own = (await call(under, 'GET', `${V3}/topics/wide/partitions/${partition}`)).json;
    assert.deepEqual(own, v3[partition]);
  }
});

test('a client that names its zone is pointed to a live broker there, by turns, whatever the answer', async (t) => {
  const under = await startDoor(t);
  addMembers(under);
  under.broker.addTopic('t', 1);
  const pointer = async (method: string, path: string, zone: string, body?: unknown) => {
    const answer = await call(under, method, path, body, { 'Streamhouse-Zone': zone });
    return [answer.status, answer.headers.get('streamhouse-zone-broker')];
  };
  const [b, c] = ['http://b.example:8081', 'http://[fd00::9]:8082'];
  const seen = [
    await pointer('POST', '/topics/t', 'z2', { records: [{ value: 1 }] }),
    await pointer('GET', '/topics/t', 'z2'),
    await pointer('GET', '/topics/none', 'z2'),
    await pointer('GET', '/nothing', 'z2'),
    await pointer('POST', '/topics/t', 'z2', 'not JSON'),
    await pointer('POST', '/topics/none', 'z2', { records: [{ value: 1 }] }),
  ];
  assert.deepEqual(
    seen.map(([status]) => status),
    [200, 200, 404, 404, 400, 404],
  );
  assert.deepEqual(
    seen.map(([, url]) => url),
    [c, b, c, b, c, b],
  );
  for (const zone of ['z1', 'z3', 'nowhere', '', 'z2, z2', '__proto__']) {
    assert.deepEqual(await pointer('GET', '/topics/t', zone), [200, null], zone);
  }
  const without = await call(under, 'GET', '/topics/t');
  assert.equal(without.headers.get('streamhouse-zone-broker'), null);
});

test('a body refused unread is pointed too, and requests without a zone ask nobody for the members', async (t) => {
  const under = await startDoor(t, { bodyBytesMax: 100 });
  addMembers(under);
  under.broker.addTopic('t', 1);
  const client = new RawClient(under.port);
  t.after(() => client.destroy());
  client.send(produceText('/topics/t', '{"records":[{"value":1}]}'));
  await client.until((text) => text.includes('"offset":0'));
  assert.equal(under.broker.membersAsked, 0);
  for (let i = 0; i < 20; i++) {
    client.send(produceText('/topics/t', '{"records":[{"value":1}]}', 'Streamhouse-Zone: z2\r\n'));
  }
  await client.until((text) => text.includes('"offset":20'));
  assert.equal(client.text.match(/Streamhouse-Zone-Broker: http:/g)?.length, 20);
  assert(under.broker.membersAsked <= 2, `${under.broker.membersAsked} looks`);
  client.send(produceText('/topics/t', `"${'x'.repeat(100_000)}"`, 'Streamhouse-Zone: z2\r\n'));
  const text = await client.untilEnd();
  assert.match(text, /HTTP\/1\.1 413 .*\r\nStreamhouse-Zone-Broker: http:/);
});
