/** What a hostile, slow or leaving client can do to the door: nothing beyond its own connection. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  call,
  eventually,
  JSON_V2,
  produceText,
  RawClient,
  startDoor,
  statuses,
} from '../../../support/http-door-harness.ts';

const json = { 'content-type': JSON_V2 };
const GET_LIVE = 'GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n';

function chunkedHead(path: string): string {
  return `POST ${path} HTTP/1.1\r\nHost: h\r\nContent-Type: ${JSON_V2}\r\nTransfer-Encoding: chunked\r\n\r\n`;
}

test('a body that says it is too long is refused at once; the client can read why', async (t) => {
  const under = await startDoor(t, { bodyBytesMax: 100_000 });
  under.broker.addTopic('t', 1);
  const client = new RawClient(under.port);
  client.send(
    `POST /topics/t HTTP/1.1\r\nHost: h\r\nContent-Type: ${JSON_V2}\r\nContent-Length: 100001\r\n\r\n`,
  );
  const text = await client.until((got) => got.includes('limit of 100000 bytes'));
  assert.match(text, /^HTTP\/1\.1 413 /);
  assert.match(text, /Connection: close/);
  assert.match(text, /"error_code":413/);
  // It goes on sending, as clients do, and is not reset before it has sent all.
  client.send(Buffer.alloc(100_001, 0x20));
  await client.untilEnd();
  assert.equal(
    (await call(under, 'POST', '/topics/t', `{"records":[{}]}${' '.repeat(99_984)}`, json)).status,
    200,
  );
  assert.equal(
    (await call(under, 'POST', '/topics/t', `{"records":[{}]}${' '.repeat(99_985)}`, json)).status,
    413,
  );
  assert.equal(under.admission.held, 0);
});

test('a chunked body is refused when it passes the limit, and its connection ends', async (t) => {
  const under = await startDoor(t, { bodyBytesMax: 100_000 });
  under.broker.addTopic('t', 1);
  const client = new RawClient(under.port);
  client.send(chunkedHead('/topics/t'));
  const chunk = `10000\r\n${' '.repeat(65536)}\r\n`;
  client.send(chunk);
  client.send(chunk);
  await client.until((text) => text.includes('"error_code":413'));
  client.send(chunk);
  await client.untilEnd();
  assert.deepEqual(statuses(client.text), [413]);
  assert.equal(under.admission.held, 0);
  assert.equal(under.broker.submitted.length, 0);
});

test('Expect: 100-continue is asked to go on, or refused before the body', async (t) => {
  const under = await startDoor(t, { bodyBytesMax: 1000 });
  under.broker.addTopic('t', 1);
  const client = new RawClient(under.port);
  const body = '{"records":[{"value":1}]}';
  const [head] = produceText('/topics/t', body, 'Expect: 100-continue\r\n').split('\r\n\r\n');
  client.send(`${head}\r\n\r\n`);
  await client.until((text) => text.startsWith('HTTP/1.1 100 Continue'));
  client.send(body);
  await client.until((text) => statuses(text).includes(200));
  client.destroy();
  const long = new RawClient(under.port);
  long.send(
    `POST /topics/t HTTP/1.1\r\nHost: h\r\nContent-Type: ${JSON_V2}\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n`,
  );
  await long.untilEnd();
  assert.deepEqual(statuses(long.text), [413]);
});

test('bytes of bodies under way are bounded; what is refused or broken off is given back', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  under.admission.limit = 100_000;
  const head = `POST /topics/t HTTP/1.1\r\nHost: h\r\nContent-Type: ${JSON_V2}\r\nContent-Length: 90000\r\n\r\n`;
  const slow = new RawClient(under.port);
  slow.send(`${head}{`);
  await eventually(() => under.admission.held === 90_000, 'the first upload is admitted');
  const second = new RawClient(under.port);
  second.send(head);
  await second.until((text) => text.includes('"error_code":42990'));
  assert.match(second.text, /^HTTP\/1\.1 429 [\s\S]*Retry-After: 1/);
  const chunked = new RawClient(under.port);
  chunked.send(`${chunkedHead('/topics/t')}4000\r\n${' '.repeat(16384)}\r\n`);
  await chunked.until((text) => text.includes('"error_code":42990'));
  assert.equal((await call(under, 'POST', '/topics/t', '{"records":[{}]}', json)).status, 200);
  slow.destroy();
  await eventually(() => under.admission.held === 0, 'the broken upload is given back');
  assert.equal(
    (await call(under, 'POST', '/topics/t', `{"records":[{}]}${' '.repeat(90_000)}`, json)).status,
    200,
  );
  second.destroy();
  chunked.destroy();
});

test('large answers are counted until they are taken', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('big', 1);
  under.broker.append('big', 0, null, JSON.stringify('x'.repeat(200_000)));
  const path = '/topics/big/partitions/0/records';
  under.admission.limit = 100_000;
  assert.equal((await call(under, 'GET', path)).json.error_code, 42990);
  under.admission.limit = 1_000_000;
  assert.equal((await call(under, 'GET', path)).status, 200);
  await eventually(() => under.admission.held === 0, 'given back');
});

test('what is not HTTP is answered 400 and ended, after what was asked before', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  under.broker.held = true;
  const client = new RawClient(under.port);
  client.send(`${produceText('/topics/t', '{"records":[{}]}')}\x16\x03\x01 rubbish\r\n\r\n`);
  await eventually(() => under.broker.submitted.length === 1, 'submitted');
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(client.text, '');
  under.broker.commit();
  await client.untilEnd();
  assert.deepEqual(statuses(client.text), [200, 400]);
  assert.equal(under.faults.length, 1);
  const bad = new RawClient(under.port);
  bad.send('rubbish\r\n\r\n');
  await bad.untilEnd();
  assert.deepEqual(statuses(bad.text), [400]);
  const badChunk = new RawClient(under.port);
  badChunk.send(`${chunkedHead('/topics/t')}zz\r\n`);
  await badChunk.untilEnd();
  assert.deepEqual(statuses(badChunk.text), [400]);
  assert.equal(under.admission.held, 0);
});

test('headers beyond the limit, conflicting lengths, and no Host', async (t) => {
  const under = await startDoor(t, { headerBytesMax: 2000 });
  const sent: [string, number][] = [
    [`GET / HTTP/1.1\r\nHost: h\r\nX: ${'x'.repeat(4000)}\r\n\r\n`, 431],
    ['POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n', 400],
    ['POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', 400],
    ['POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n', 400],
    ['GET / HTTP/1.1\r\n\r\n', 400],
  ];
  for (const [text, status] of sent) {
    const client = new RawClient(under.port);
    client.send(text);
    await client.untilEnd();
    assert.deepEqual(statuses(client.text), [status], text.slice(0, 80));
  }
});

test('slow headers and slow bodies are cut off', async (t) => {
  const under = await startDoor(t, { headersTimeoutMs: 150, bodyTimeoutMs: 150 });
  under.broker.addTopic('t', 1);
  const slowHeaders = new RawClient(under.port);
  slowHeaders.send('GET / HTTP/1.1\r\nHo');
  const slowBody = new RawClient(under.port);
  slowBody.send(`${produceText('/topics/t', '{"records":[{}]}').slice(0, -3)}`);
  await Promise.all([slowHeaders.untilEnd(), slowBody.untilEnd()]);
  assert.deepEqual(statuses(slowHeaders.text), [408]);
  assert.deepEqual(statuses(slowBody.text), [408]);
  assert.deepEqual(under.faults, ['ERR_HTTP_REQUEST_TIMEOUT', 'ERR_HTTP_REQUEST_TIMEOUT']);
  assert.equal(under.admission.held, 0);
});

test('connections on which nothing moves are closed', async (t) => {
  const under = await startDoor(t, { idleTimeoutMs: 100, keepAliveTimeoutMs: 50 });
  under.broker.addTopic('t', 1);
  under.broker.held = true;
  const silent = new RawClient(under.port);
  const kept = new RawClient(under.port);
  kept.send(GET_LIVE);
  const waiting = new RawClient(under.port);
  waiting.send(produceText('/topics/t', '{"records":[{}]}'));
  await Promise.all([silent.untilEnd(), kept.untilEnd(), waiting.untilEnd()]);
  assert.deepEqual(statuses(kept.text), [200]);
  assert.equal(silent.text + waiting.text, '');
  under.broker.commit();
});

test('connections beyond the limit are refused and counted; others go on', async (t) => {
  const under = await startDoor(t, { connectionsMax: 2 });
  const first = new RawClient(under.port);
  first.send(GET_LIVE);
  await first.until((text) => statuses(text).length === 1);
  const second = new RawClient(under.port);
  second.send(GET_LIVE);
  await second.until((text) => statuses(text).length === 1);
  const third = new RawClient(under.port);
  third.send(GET_LIVE);
  await third.untilEnd();
  assert.equal(third.text, '');
  assert.equal(under.refused.count, 1);
  first.send(GET_LIVE);
  await first.until((text) => statuses(text).length === 2);
  first.destroy();
  second.destroy();
});

test('too many requests unanswered on one connection end it after the answers due', async (t) => {
  const under = await startDoor(t, { pipelinedRequestsMax: 5 });
  under.broker.addTopic('t', 1);
  under.broker.held = true;
  const client = new RawClient(under.port);
  client.send(produceText('/topics/t', '{"records":[{}]}').repeat(20));
  await eventually(() => under.broker.submitted.length === 5, 'five submitted');
  await new Promise((resolve) => setTimeout(resolve, 20));
  under.broker.commit();
  await client.untilEnd();
  assert.deepEqual(statuses(client.text), [200, 200, 200, 200, 200, 429]);
  assert.equal(under.broker.submitted.length, 5);
});

test('a body nobody wants is read away and the connection kept', async (t) => {
  const under = await startDoor(t);
  const client = new RawClient(under.port);
  client.send(produceText('/nope', '{"records":[{}]}') + GET_LIVE);
  await client.until((text) => statuses(text).length === 2);
  assert.deepEqual(statuses(client.text), [404, 200]);
  client.send(`GET /health/live HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello${GET_LIVE}`);
  await client.until((text) => statuses(text).length === 4);
  assert.deepEqual(statuses(client.text).slice(2), [200, 200]);
  client.destroy();
});

test('close finishes what is under way, in order, and refuses new connections', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  under.broker.held = true;
  const busy = new RawClient(under.port);
  busy.send(produceText('/topics/t', '{"records":[{}]}').repeat(3));
  const idle = new RawClient(under.port);
  idle.send(GET_LIVE);
  await idle.until((text) => statuses(text).length === 1);
  await eventually(() => under.broker.submitted.length === 3, 'submitted');
  const closed = under.door.close({ graceMs: 5000 });
  await idle.untilEnd();
  const late = new RawClient(under.port);
  await late.untilEnd();
  assert.equal(late.text, '');
  under.broker.commit();
  await busy.untilEnd();
  await closed;
  assert.deepEqual(statuses(busy.text), [200, 200, 200]);
  assert.equal(busy.text.match(/Connection: close/g)?.length, 1);
  assert(busy.text.lastIndexOf('Connection: close') > busy.text.lastIndexOf('HTTP/1.1 200'));
});

test('close cuts what does not end in time, and can be called twice', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  under.broker.held = true;
  const client = new RawClient(under.port);
  client.send(produceText('/topics/t', '{"records":[{}]}'));
  await eventually(() => under.broker.submitted.length === 1, 'submitted');
  await Promise.all([under.door.close({ graceMs: 50 }), under.door.close({ graceMs: 50 })]);
  await client.untilEnd();
  assert.equal(client.text, '');
  under.broker.commit();
  assert.deepEqual(
    under.requests.map((r) => r.status),
    [499],
  );
});

test('a port in use is an error of listen', async (t) => {
  const under = await startDoor(t);
  const other = await startDoor(t);
  await assert.rejects(other.door.listen('127.0.0.1', under.port), /EADDRINUSE|ERR_SERVER_ALREADY_LISTEN/);
});
