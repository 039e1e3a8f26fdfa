/** Produce over HTTP: bytes, partitions, answers, refusals, idempotent producers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ErrorCode, StreamHouseError } from '../../../../src/core/errors.ts';
import { partitionOfKeyBytes } from '../../../../src/core/partitioner.ts';
import {
  BINARY_V2,
  call,
  eventually,
  JSON_V2,
  produceText,
  RawClient,
  startDoor,
  statuses,
} from '../../../support/http-door-harness.ts';

const json = { 'content-type': JSON_V2 };
const binary = { 'content-type': BINARY_V2 };

test('a record is stored byte by byte and answered with its offset', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('orders', 1);
  const first = await call(
    under,
    'POST',
    '/topics/orders',
    '{"records":[{"key":"k", "value":{"n":12345678901234567890}}]}',
    json,
  );
  assert.equal(first.status, 200);
  assert.equal(first.text, '{"offsets":[{"partition":0,"offset":0}]}');
  assert.equal(first.headers.get('content-type'), 'application/vnd.kafka.v2+json');
  const second = await call(
    under,
    'POST',
    '/topics/orders/partitions/0',
    '{"records":[{"value":1.0},{"value":null}]}',
    json,
  );
  assert.equal(second.text, '{"offsets":[{"partition":0,"offset":1},{"partition":0,"offset":2}]}');
  const { records } = under.broker.partition('orders', 0);
  assert.equal(records[0].key?.toString(), '"k"');
  assert.equal(records[0].value?.toString(), '{"n":12345678901234567890}');
  assert.equal(records[1].value?.toString(), '1.0');
  assert.equal(records[2].value, null);
  assert.deepEqual(
    under.requests.map((r) => [r.route, r.status]),
    [
      ['/topics/{topic}', 200],
      ['/topics/{topic}/partitions/{partition}', 200],
    ],
  );
  assert.equal(under.requests[1].bytesIn, '{"records":[{"value":1.0},{"value":null}]}'.length);
  assert.equal(under.requests[1].bytesOut, second.text.length);
  assert.equal(under.admission.held, 0);
});

test('binary, plain application/json, and a topic that is not cached or is percent-encoded', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('a.b-c', 1);
  under.broker.uncache('a.b-c');
  assert.equal(
    (await call(under, 'POST', '/topics/a.b-c', '{"records":[{"value":"/+8="}]}', binary)).status,
    200,
  );
  assert.equal((await call(under, 'POST', '/topics/a%2eb%2Dc', '{"records":[{"value":2}]}')).status, 200);
  assert.equal(
    (await call(under, 'POST', '/topics/%61.b-c/partitions/0', '{"records":[{"value":3}]}')).status,
    200,
  );
  assert.deepEqual(
    under.broker.partition('a.b-c', 0).records.map((r) => r.value?.toString('latin1')),
    ['\xff\xef', '2', '3'],
  );
});

test('partitions: given, by key as in Kafka, and one for all without a key', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('p', 10);
  const body =
    '{"records":[{"key":"a","value":1},{"value":2},{"partition":7,"value":3},{"value":4},{"key":"a","partition":null}]}';
  const { json: answer } = await call(under, 'POST', '/topics/p', body, json);
  const partitions = answer.offsets.map((o: { partition: number }) => o.partition);
  const key = Buffer.from('"a"');
  const byKey = partitionOfKeyBytes(key, 0, key.length, 10);
  assert.deepEqual([partitions[0], partitions[2], partitions[4]], [byKey, 7, byKey]);
  assert.equal(partitions[1], partitions[3]);
  const next = await call(under, 'POST', '/topics/p', '{"records":[{}]}', json);
  assert.notEqual(next.json.offsets[0].partition, partitions[1]);
});

test('a topic that grew since it was cached is read again', async (t) => {
  const under = await startDoor(t);
  const topic = under.broker.addTopic('g', 1);
  await under.broker.topics.grow('g', 4);
  under.broker.topics.peek = () => topic;
  assert.equal((await call(under, 'POST', '/topics/g/partitions/3', '{"records":[{}]}', json)).status, 200);
  const named = await call(under, 'POST', '/topics/g', '{"records":[{"partition":3}]}', json);
  assert.equal(named.text, '{"offsets":[{"partition":3,"offset":1}]}');
  const beyond = await call(under, 'POST', '/topics/g', '{"records":[{"partition":4}]}', json);
  assert.deepEqual([beyond.status, beyond.json.error_code], [404, 40402]);
});

test('refusals, each its own', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  const good = '{"records":[{"value":1}]}';
  const cases: [string, string | undefined, Record<string, string>, number, number, RegExp][] = [
    ['/topics/none', good, json, 404, 40401, /none does not exist/],
    ['/topics/bad%20name', good, json, 400, 40002, /topic name/],
    ['/topics/..%2f..%2fetc', good, json, 400, 40002, /topic name/],
    ['/topics/t/partitions/1', good, json, 404, 40402, /1 partitions/],
    ['/topics/t/partitions/x', good, json, 404, 40402, /"x" is not a partition/],
    ['/topics/t/partitions/-1', good, json, 404, 40402, /not a partition/],
    ['/topics/t/partitions/99999999999', good, json, 404, 40402, /not a partition/],
    ['/topics/t', '{"records":[', json, 400, 400, /not JSON: the text ends/],
    ['/topics/t', '', json, 400, 400, /not JSON: the text ends at byte 0/],
    ['/topics/t', '{}', json, 422, 422, /needs "records"/],
    ['/topics/t', '{"records":[{"value":"!"}]}', binary, 422, 422, /not valid base64/],
    ['/topics/t', '{"records":[{"value":1}]}', binary, 422, 422, /must be a string/],
    ['/topics/t', good, { 'content-type': 'text/plain' }, 415, 415, /text\/plain/],
    ['/topics/t', good, { 'content-type': 'application/vnd.kafka.avro.v2+json' }, 415, 415, /avro/],
    ['/topics/t?x=1', good, json, 400, 400, /no query parameter/],
    ['/topics/t/partitions/0', '{"records":[{"partition":0}]}', json, 422, 422, /must not name a partition/],
  ];
  for (const [path, body, headers, status, errorCode, message] of cases) {
    const answer = await call(under, 'POST', path, body, headers);
    assert.deepEqual(
      [answer.status, answer.json?.error_code],
      [status, errorCode],
      `${path} ${body} ${answer.text}`,
    );
    assert.match(answer.json.message, message);
    assert.equal(answer.json.outcome, 'none');
    assert.doesNotMatch(answer.text, /node_modules|\.ts:/);
  }
  const noUtf8 = await call(
    under,
    'POST',
    '/topics/t',
    Buffer.from([0x7b, 0x22, 0xc3, 0x28, 0x22, 0x7d]),
    json,
  );
  assert.deepEqual([noUtf8.status, noUtf8.json.message], [400, 'the body is not valid UTF-8']);
  assert.equal(under.broker.submitted.length, 0);
  assert.equal(under.admission.held, 0);
  assert.deepEqual(under.internal, []);
});

test('what submit throws is answered by the table; a bug is answered without its text', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  const cases: [ErrorCode, number, string | null][] = [
    ['overloaded', 429, '1'],
    ['shutting-down', 503, '1'],
    ['record-too-large', 413, null],
    ['deadline-exceeded', 504, null],
  ];
  for (const [code, status, retryAfter] of cases) {
    under.broker.faults.submit = new StreamHouseError(code, `no: ${code}`);
    const answer = await call(under, 'POST', '/topics/t', '{"records":[{}]}', json);
    assert.equal(answer.status, status);
    assert.equal(answer.headers.get('retry-after'), retryAfter);
    assert.equal(answer.json.code, code);
    assert.equal(answer.json.outcome, status === 504 ? 'unknown' : 'none');
  }
  under.broker.faults.submit = new TypeError('secret internals') as unknown as StreamHouseError;
  const bug = await call(under, 'POST', '/topics/t', '{"records":[{}]}', json);
  assert.equal(bug.status, 500);
  assert.doesNotMatch(bug.text, /secret/);
  assert.equal(under.internal.length, 1);
  assert.equal(under.admission.held, 0);
});

test('errors of single records are told per record; one common error is the answer', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  const body = '{"records":[{"value":1},{"value":2},{"value":3}]}';
  under.broker.faults.record = (i) =>
    i === 1 ? { code: 'append-abandoned', message: 'given up "here"' } : null;
  const mixed = await call(under, 'POST', '/topics/t', body, json);
  assert.equal(mixed.status, 200);
  assert.deepEqual(mixed.json.offsets, [
    { partition: 0, offset: 0 },
    { partition: 0, offset: null, error_code: 50003, error: 'given up "here"' },
    { partition: 0, offset: 1 },
  ]);
  under.broker.faults.record = () => ({ code: 'object-store-unavailable', message: 'down' });
  const all = await call(under, 'POST', '/topics/t', body, json);
  assert.deepEqual([all.status, all.json.error_code, all.headers.get('retry-after')], [503, 50003, '1']);
  under.broker.faults.record = (i) =>
    i === 0
      ? { code: 'object-store-unavailable', message: 'a' }
      : { code: 'deadline-exceeded', message: 'b' };
  const differing = await call(under, 'POST', '/topics/t', body, json);
  assert.deepEqual(
    differing.json.offsets.map((o: { error_code: number }) => o.error_code),
    [50003, 50490, 50490],
  );
});

test('idempotent producers by headers', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 2);
  const made = await call(under, 'POST', '/v3/clusters/fake-cluster/producer-ids');
  assert.deepEqual(made.json, { producer_id: 1000, producer_epoch: 0 });
  const stamp = {
    ...json,
    'Streamhouse-Producer-Id': '1000',
    'Streamhouse-Producer-Epoch': '0',
    'Streamhouse-Producer-Sequence': '5',
  };
  assert.equal((await call(under, 'POST', '/topics/t/partitions/1', '{"records":[{}]}', stamp)).status, 200);
  assert.deepEqual(under.broker.submitted[0].producer, {
    producerId: 1000,
    producerEpoch: 0,
    baseSequence: 5,
  });
  const cases: [string, Record<string, string>, RegExp][] = [
    ['/topics/t', stamp, /one partition/],
    ['/topics/t/partitions/1', { ...json, 'Streamhouse-Producer-Id': '1' }, /go together/],
    [
      '/topics/t/partitions/1',
      { ...stamp, 'Streamhouse-Producer-Epoch': '40000' },
      /epoch must be an integer/,
    ],
    ['/topics/t/partitions/1', { ...stamp, 'Streamhouse-Producer-Sequence': '-1' }, /sequence must be/],
    ['/topics/t/partitions/1', { ...stamp, 'Streamhouse-Producer-Id': '0x10' }, /id must be/],
  ];
  for (const [path, headers, message] of cases) {
    const answer = await call(under, 'POST', path, '{"records":[{}]}', headers);
    assert.equal(answer.status, 422);
    assert.match(answer.json.message, message);
  }
  under.broker.faults.record = () => ({ code: 'out-of-order-sequence', message: 'gap' });
  const gap = await call(under, 'POST', '/topics/t/partitions/1', '{"records":[{}]}', stamp);
  assert.deepEqual([gap.status, gap.json.error_code], [409, 40990]);
});

test('pipelined requests are answered in order, whatever completes first', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  under.broker.held = true;
  const client = new RawClient(under.port);
  const count = 50;
  let text = '';
  for (let i = 0; i < count; i++) text += produceText('/topics/t', `{"records":[{"value":${i}}]}`);
  // A request in between that is answered at once has to wait for its turn.
  client.send(
    `${text}GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n${produceText('/topics/none', '{"records":[{}]}')}`,
  );
  await eventually(() => under.broker.submitted.length === count, 'all submitted');
  assert.equal(client.text, '');
  under.broker.commit();
  await client.until((got) => statuses(got).length === count + 2);
  const offsets = [...client.text.matchAll(/"offset":(\d+)/g)].map(([, offset]) => Number(offset));
  assert.deepEqual(
    offsets,
    Array.from({ length: count }, (_, i) => i),
  );
  assert.deepEqual(statuses(client.text).slice(-3), [200, 200, 404]);
  assert.deepEqual(
    under.broker.partition('t', 0).records.map((r) => Number(r.value)),
    Array.from({ length: count }, (_, i) => i),
  );
  client.destroy();
});

test('a body that comes in single bytes, and one that comes chunked', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  const client = new RawClient(under.port);
  client.socket.setNoDelay(true);
  const body = '{"records":[{"value":"slow"}]}';
  const [head] = produceText('/topics/t', body).split('\r\n\r\n');
  client.send(`${head}\r\n\r\n`);
  for (const byte of body) {
    client.send(byte);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await client.until((text) => statuses(text).length === 1);
  client.send(
    `POST /topics/t HTTP/1.1\r\nHost: h\r\nContent-Type: ${JSON_V2}\r\nTransfer-Encoding: chunked\r\n\r\n`,
  );
  for (const part of ['{"records":[', '{"value":"chu', 'nked"}]}'])
    client.send(`${part.length.toString(16)}\r\n${part}\r\n`);
  client.send('0\r\n\r\n');
  await client.until((text) => statuses(text).length === 2);
  assert.deepEqual(
    under.broker.partition('t', 0).records.map((r) => r.value?.toString()),
    ['"slow"', '"chunked"'],
  );
  assert.equal(under.admission.held, 0);
  client.destroy();
});

test('a body of a mebibyte is exact', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  const value = JSON.stringify('äöü€'.repeat(80_000));
  const answer = await call(under, 'POST', '/topics/t', `{"records":[{"value":${value}}]}`, json);
  assert.equal(answer.status, 200);
  assert.equal(under.broker.partition('t', 0).records[0].value?.toString(), value);
});

test('a client that goes away before the commit harms nobody', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  under.broker.held = true;
  const client = new RawClient(under.port);
  client.send(produceText('/topics/t', '{"records":[{}]}') + produceText('/topics/t', '{"records":[{}]}'));
  await eventually(() => under.broker.submitted.length === 2, 'submitted');
  client.destroy();
  await new Promise((resolve) => setTimeout(resolve, 50));
  under.broker.commit();
  assert.deepEqual(
    under.requests.map((r) => r.status),
    [499, 499],
  );
  assert.equal(under.broker.partition('t', 0).records.length, 2);
  under.broker.held = false;
  assert.equal((await call(under, 'POST', '/topics/t', '{"records":[{}]}', json)).status, 200);
});

test('bodies that wait for the catalogue stay what they were while others come', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  under.broker.topics.peek = () => undefined;
  const get = under.broker.topics.get;
  under.broker.topics.get = async (name) => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    return get(name);
  };
  const values = Array.from({ length: 400 }, (_, i) => JSON.stringify(String(i).repeat(200)));
  const clients = [new RawClient(under.port), new RawClient(under.port)];
  values.forEach((value, i) => {
    clients[i % 2].send(produceText('/topics/t', `{"records":[{"value":${value}}]}`));
  });
  for (const client of clients) await client.until((text) => statuses(text).length === 200);
  const got = under.broker.partition('t', 0).records.map((r) => r.value?.toString() ?? '');
  assert.deepEqual(got.sort(), values.sort());
  for (const client of clients) client.destroy();
});
