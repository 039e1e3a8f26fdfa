/** What another broker, or whoever plays one, can do to the door: what it may, and nothing beyond its connection. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { StreamHouseError } from '../../../../src/core/errors.ts';
import { wireNumberOf } from '../../../../src/protocol/peer/error-numbers.ts';
import {
  answersIn,
  appendMessage,
  appendRequest,
  FAKE_PEER_KEY,
  FROM_3_TO_7,
} from '../../../support/append-messages.ts';
import { call, eventually, RawClient, startDoor, statuses } from '../../../support/http-door-harness.ts';

const TWO = appendMessage([
  { topicId: 1, partition: 2, values: ['a', 'bc'] },
  { topicId: 1, partition: 5, values: ['d'] },
]);
const ROUTE = '/internal/v1/produce';

function connect(t: TestContext, port: number): RawClient {
  const client = new RawClient(port);
  t.after(() => client.destroy());
  return client;
}

test('appends are taken in order, the status line says so at once, answers come as they are committed', async (t) => {
  const under = await startDoor(t);
  const client = connect(t, under.port);
  client.send(appendRequest(TWO));
  const head = await client.until((text) => text.endsWith('\r\n\r\n'));
  assert.match(head, /^HTTP\/1\.1 200 .*application\/vnd\.streamhouse\.answers\.v1/s);
  const [{ appends, answer }] = under.broker.taken;
  assert.deepEqual(
    appends.map(({ topicId, partition, recordCount, bytes }) => [
      topicId,
      partition,
      recordCount,
      Buffer.from(bytes.subarray(recordCount * 8)).toString(),
    ]),
    [
      [1, 2, 2, 'abc'],
      [1, 5, 1, 'd'],
    ],
  );
  assert.equal(under.admission.held, 0, 'the body is not held for the answers');
  assert.equal(under.requests.length, 0);
  answer(1, null, 41);
  await client.until((text) => answersIn(text).length === 1);
  answer(0, 'out-of-order-sequence', -1);
  const text = await client.until((got) => got.endsWith('0\r\n\r\n'));
  assert.deepEqual(answersIn(text), [
    [1, 0, 41],
    [0, wireNumberOf('out-of-order-sequence'), -1],
  ]);
  assert.deepEqual(under.requests, [
    { route: ROUTE, method: 'POST', status: 200, bytesIn: TWO.length, bytesOut: 32 },
  ]);
  // The connection is kept for the next message.
  client.send(appendRequest(TWO));
  await eventually(() => under.broker.taken.length === 2, 'a second message');
});

test('who is not meant, or is of another cluster, takes nothing', async (t) => {
  const under = await startDoor(t);
  const cases: [Record<string, string>, number, string][] = [
    [{ ...FROM_3_TO_7, 'streamhouse-cluster': 'another' }, 409, 'cluster-mismatch'],
    [{ ...FROM_3_TO_7, 'streamhouse-to': '6' }, 503, 'not-leader'],
    // A loop: it is sent by ourselves.
    [{ ...FROM_3_TO_7, 'streamhouse-from': '7' }, 503, 'not-leader'],
    [{ ...FROM_3_TO_7, 'streamhouse-to': '7x' }, 400, 'malformed-request'],
    [{ 'streamhouse-cluster': FAKE_PEER_KEY, 'streamhouse-to': '7' }, 400, 'malformed-request'],
    [{}, 400, 'malformed-request'],
    [{ ...FROM_3_TO_7, 'content-type': 'application/json' }, 415, 'unsupported-media-type'],
  ];
  for (const [headers, status, code] of cases) {
    const client = connect(t, under.port);
    client.send(appendRequest(TWO, headers));
    const text = await client.until((got) => got.includes('"code"'));
    assert.deepEqual(statuses(text), [status]);
    assert.match(text, new RegExp(`"code":"${code}","outcome":"none"`));
  }
  assert.equal(under.broker.taken.length, 0);
  assert.equal(under.admission.held, 0);
});

test('a malformed message is 400 as a whole, and the connection goes on', async (t) => {
  const under = await startDoor(t);
  const client = connect(t, under.port);
  const bad = Buffer.from(TWO);
  bad.writeUInt32LE(3, 4);
  const bodies = [bad, Buffer.alloc(0), Buffer.from('{}'), TWO.subarray(0, -1), Buffer.concat([TWO, TWO])];
  for (const [i, body] of bodies.entries()) {
    client.send(appendRequest(body));
    await client.until((text) => statuses(text).length === i + 1);
  }
  assert.deepEqual(statuses(client.text), [400, 400, 400, 400, 400]);
  client.send(appendRequest(TWO));
  await eventually(() => under.broker.taken.length === 1, 'a good one');
  assert.equal(under.admission.held, 0);
  assert.deepEqual(under.internal, []);
});

test('no room, for its body or in the broker: overloaded, and nothing is kept', async (t) => {
  const under = await startDoor(t);
  under.admission.limit = TWO.length - 1;
  const client = connect(t, under.port);
  client.send(appendRequest(TWO));
  await client.until((text) => text.includes('"overloaded"'));
  under.admission.limit = TWO.length;
  under.broker.faults.submit = new StreamHouseError('overloaded', 'full');
  client.send(appendRequest(TWO));
  await client.until((text) => statuses(text).length === 2);
  assert.deepEqual(statuses(client.text), [429, 429]);
  assert.equal(under.admission.held, 0);
});

test('a body that is larger than any message is refused before it comes', async (t) => {
  const under = await startDoor(t);
  const client = connect(t, under.port);
  client.send(appendRequest(TWO, FROM_3_TO_7, 2 ** 31));
  const text = await client.until((got) => got.includes('413'));
  assert.match(text, /body-too-large/);
  await client.untilEnd();
  assert.equal(under.admission.held, 0);
  // One that a client might not send, and a broker may.
  const large = appendMessage([{ topicId: 1, partition: 1, values: Array(1500).fill('x'.repeat(1000)) }]);
  const other = connect(t, under.port);
  other.send(appendRequest(large));
  await eventually(() => under.broker.taken.length === 1, 'a large message');
});

test('an append over the limits of this broker is marked, the others are not', async (t) => {
  const under = await startDoor(t);
  const client = connect(t, under.port);
  const large = { topicId: 1, partition: 1, values: ['x'.repeat(2 ** 20 + 1)] };
  client.send(appendRequest(appendMessage([large, { topicId: 1, partition: 1, values: ['y'] }])));
  await eventually(() => under.broker.taken.length === 1, 'a message');
  assert.deepEqual(
    under.broker.taken[0].appends.map(({ refusal }) => refusal),
    ['batch-too-large', null],
  );
});

test('a sender that is slow, stops, or breaks off in its body takes nothing and leaves nothing', async (t) => {
  const under = await startDoor(t, { headersTimeoutMs: 100, bodyTimeoutMs: 100 });
  const slow = connect(t, under.port);
  slow.send(appendRequest(TWO).subarray(0, -3));
  const text = await slow.until((got) => statuses(got).length === 1);
  assert.deepEqual(statuses(text), [408]);
  const broken = connect(t, under.port);
  broken.send(appendRequest(TWO).subarray(0, -3));
  await eventually(() => under.admission.held > 0, 'a body under way');
  broken.destroy();
  await eventually(() => under.admission.held === 0, 'its bytes given back');
  assert.equal(under.broker.taken.length, 0);
});

test('a sender that goes away before the answers: they are dropped, and the next one is served', async (t) => {
  const under = await startDoor(t);
  const client = new RawClient(under.port);
  client.send(appendRequest(TWO));
  await eventually(() => under.broker.taken.length === 1, 'a message');
  client.destroy();
  await client.untilEnd();
  await new Promise((resolve) => setTimeout(resolve, 50));
  under.broker.taken[0].answer(0, null, 1);
  under.broker.taken[0].answer(1, null, 1);
  await eventually(() => under.requests.length === 1, 'the request to be over');
  assert.equal(under.requests[0].status, 499);
  assert.deepEqual(under.internal, []);
  const next = connect(t, under.port);
  next.send(appendRequest(TWO));
  await eventually(() => under.broker.taken.length === 2, 'another message');
});

test('a closing door waits for the answers, and then ends the connection', async (t) => {
  const under = await startDoor(t);
  const client = connect(t, under.port);
  client.send(appendRequest(TWO));
  await eventually(() => under.broker.taken.length === 1, 'a message');
  const closed = under.door.close({ graceMs: 5000 });
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert.equal(client.ended, false);
  under.broker.taken[0].answer(0, null, 1);
  under.broker.taken[0].answer(1, null, 1);
  await closed;
  assert.equal(answersIn(await client.untilEnd()).length, 2);
});

test('duties: hints and questions from whoever is of the cluster, and meant', async (t) => {
  const under = await startDoor(t);
  const headers = { ...FROM_3_TO_7 };
  const notice = { leaving: true, shards: [{ shard: 1, epoch: 5 }] };
  assert.equal((await call(under, 'POST', '/internal/v1/leases-moved', notice, headers)).status, 204);
  assert.deepEqual(under.broker.notices, [{ from: 3, ...notice }]);
  const end = { topicId: 4, shards: [0, 2] };
  assert.equal((await call(under, 'POST', '/internal/v1/end-topic', end, headers)).status, 204);
  assert.deepEqual(under.broker.ended, [end]);
  under.broker.heldShards = [{ shard: 0, epoch: 2, sinceMs: 9 }];
  assert.deepEqual((await call(under, 'GET', '/internal/v1/held', undefined, headers)).json, {
    shards: [{ shard: 0, epoch: 2, sinceMs: 9 }],
  });
  assert.deepEqual((await call(under, 'GET', '/internal/v1/who')).json, {
    clusterId: 'fake-cluster',
    agentId: 'agent-a',
    incarnation: 7,
  });
  for (const [path, body] of [
    ['leases-moved', { ...notice, leaving: 1 }],
    ['leases-moved', { leaving: false, shards: [{ shard: -1, epoch: 1 }] }],
    ['end-topic', { topicId: 0, shards: [1] }],
    ['end-topic', { topicId: 4, shards: [] }],
  ] as const) {
    assert.equal((await call(under, 'POST', `/internal/v1/${path}`, body, headers)).status, 422);
  }
  const wrong = { ...headers, 'streamhouse-cluster': 'x' };
  assert.equal((await call(under, 'POST', '/internal/v1/end-topic', end, wrong)).status, 409);
  assert.equal((await call(under, 'GET', '/internal/v1/held')).status, 400);
  assert.equal(under.broker.notices.length + under.broker.ended.length, 2);
  const page = (await call(under, 'GET', '/openapi.json')).text;
  assert(!page.includes('/internal/'));
});

test('a read that another broker sent is answered here or not at all', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  under.broker.append('t', 0, null, '"v"');
  under.broker.elsewhere = async () => assert.fail('it was sent on');
  const path = '/topics/t/partitions/0/records?offset=0';
  const { topicId } = await under.broker.topics.get('t');
  const read = { ...FROM_3_TO_7, 'streamhouse-topic': String(topicId) };
  const here = await call(under, 'GET', path, undefined, read);
  assert.equal(here.json[0].value, 'v');
  const other = { ...read, 'streamhouse-topic': String(topicId + 1) };
  const anew = await call(under, 'GET', path, undefined, other);
  assert.deepEqual([anew.status, anew.json.code], [404, 'topic-not-found']);
  const without = await call(under, 'GET', path, undefined, FROM_3_TO_7);
  assert.deepEqual([without.status, without.json.code], [400, 'malformed-request']);
  const wrong = { ...read, 'streamhouse-to': '8' };
  const answer = await call(under, 'GET', path, undefined, wrong);
  assert.deepEqual([answer.status, answer.json.code], [503, 'not-leader']);
});

test("another broker's answer is passed on as it is, and its bytes are given back", async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  const body = Buffer.alloc(100_000, 0x20);
  let target = '';
  under.broker.elsewhere = async (read) => {
    target = read.target;
    assert(read.admit(body.length));
    const head = { status: 416, contentType: 'text/x', retryAfter: '3' };
    return { ...head, body, admitted: body.length };
  };
  const answer = await call(under, 'GET', '/topics/t/partitions/0/records?offset=9&timeout=0');
  assert.equal(target, '/topics/t/partitions/0/records?offset=9&timeout=0');
  assert.deepEqual(
    [
      answer.status,
      answer.headers.get('content-type'),
      answer.headers.get('retry-after'),
      answer.text.length,
    ],
    [416, 'text/x', '3', body.length],
  );
  await eventually(() => under.admission.held === 0, 'the bytes given back');
});

test('who leaves a read that is elsewhere ends it there; a closing door does not say that there is nothing', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  let ended = 0;
  under.broker.elsewhere = ({ signal }) =>
    new Promise((_, reject) => {
      signal.addEventListener('abort', () => {
        ended++;
        reject(signal.reason);
      });
    });
  const gone = new RawClient(under.port);
  gone.send('GET /topics/t/partitions/0/records?timeout=30000 HTTP/1.1\r\nHost: h\r\n\r\n');
  await new Promise((resolve) => setTimeout(resolve, 50));
  gone.destroy();
  await eventually(() => ended === 1, 'the read to end');
  const answer = call(under, 'GET', '/topics/t/partitions/0/records?timeout=30000');
  await new Promise((resolve) => setTimeout(resolve, 50));
  await under.door.close({ graceMs: 1000 });
  assert.deepEqual([(await answer).status, (await answer).json.code], [503, 'shutting-down']);
});
