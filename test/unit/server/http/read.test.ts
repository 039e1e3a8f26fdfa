/**
 * Reading over HTTP (v2), administration (v3), health, metrics, the OpenAPI page, unknown paths and methods.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ERROR_CODES, kindOf, StreamHouseError } from '../../../../src/core/errors.ts';
import { HTTP_ERRORS } from '../../../../src/server/http/error-table.ts';
import {
  BINARY_V2,
  call,
  eventually,
  JSON_V2,
  RawClient,
  startDoor,
  statuses,
} from '../../../support/http-door-harness.ts';

const V3 = '/v3/clusters/fake-cluster';

test('topics, partitions and offsets', async (t) => {
  const under = await startDoor(t);
  for (let i = 0; i < 1500; i++) under.broker.addTopic(`t${String(i).padStart(4, '0')}`, 1);
  under.broker.addTopic('wide', 3, { 'retention.ms': '5' });
  const names = (await call(under, 'GET', '/topics')).json;
  assert.equal(names.length, 1501);
  assert.equal(names[1500], 'wide');
  const wide = await call(under, 'GET', '/topics/wide');
  assert.deepEqual(wide.json.configs, { 'retention.ms': '5' });
  assert.equal(wide.json.partitions.length, 3);
  assert.deepEqual((await call(under, 'GET', '/topics/wide/partitions/2')).json, {
    partition: 2,
    leader: 7,
    replicas: [{ broker: 7, leader: true, in_sync: true }],
  });
  assert.equal((await call(under, 'GET', '/topics/wide/partitions')).json.length, 3);
  assert.equal((await call(under, 'GET', '/topics/wide/partitions/3')).json.error_code, 40402);
  assert.equal((await call(under, 'GET', '/topics/nope')).json.error_code, 40401);
  under.broker.append('wide', 1, null, '1');
  under.broker.partition('wide', 1).logStart = 41;
  const offsets = '/topics/wide/partitions/1/offsets';
  assert.equal((await call(under, 'GET', offsets)).text, '{"beginning_offset":41,"end_offset":42}');
  assert.deepEqual((await call(under, 'GET', `${offsets}?timestamp=5`)).json, {
    beginning_offset: 41,
    end_offset: 42,
    offset: 41,
    timestamp: 1_700_000_000_000,
  });
  const late = await call(under, 'GET', `${offsets}?timestamp=9999999999999`);
  assert.deepEqual([late.json.offset, late.json.timestamp], [null, null]);
});

test('records: formats, offsets, and what is out of range', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('r', 1);
  for (const value of ['1.0', '{"b": 2}', null]) under.broker.append('r', 0, '"k"', value);
  const path = '/topics/r/partitions/0/records';
  const all = await call(under, 'GET', path);
  assert.equal(all.headers.get('content-type'), JSON_V2);
  assert.match(all.text, /"offset":0,"timestamp":1700000000000,"key":"k","value":1\.0}/);
  assert.deepEqual(
    all.json.map((r: { value: unknown }) => r.value),
    [1, { b: 2 }, null],
  );
  const some = await call(under, 'GET', `${path}?offset=1&max_bytes=10`, undefined, { accept: BINARY_V2 });
  assert.equal(some.headers.get('content-type'), BINARY_V2);
  assert.deepEqual(
    some.json.map((r: { offset: number; value: string }) => [r.offset, r.value]),
    [
      [1, Buffer.from('{"b": 2}').toString('base64')],
      [2, null],
    ],
  );
  assert.equal((await call(under, 'GET', `${path}?offset=latest`)).text, '[]');
  assert.equal((await call(under, 'GET', `${path}?offset=3`)).text, '[]');
  assert.equal((await call(under, 'GET', `${path}?offset=earliest`)).json.length, 3);
  const beyond = await call(under, 'GET', `${path}?offset=4`);
  assert.deepEqual(
    [beyond.status, beyond.json.error_code, beyond.json.beginning_offset, beyond.json.end_offset],
    [416, 41690, 0, 3],
  );
  for (const [query, message] of [
    ['offset=-1', /offset must match/],
    ['offset=1.5', /offset must match/],
    ['offset=9999999999999999', /beyond 2\^53/],
    ['max_bytes=0', /max_bytes must be >= 1/],
    ['max_bytes=x', /max_bytes must be integer/],
    ['timeout=60001', /timeout must be <= 60000/],
    ['ofset=1', /unknown query parameter "ofset": there are offset, max_bytes, timeout/],
    ['offset=1&offset=2', /given twice/],
  ] as const) {
    const answer = await call(under, 'GET', `${path}?${query}`);
    assert.equal(answer.status, 400, query);
    assert.match(answer.json.message, message);
  }
  assert.equal((await call(under, 'GET', path, undefined, { accept: 'text/html' })).json.error_code, 40601);
  under.broker.append('r', 0, null, Buffer.from([0xff, 0xfe]));
  const notJson = await call(under, 'GET', `${path}?offset=3`);
  assert.deepEqual([notJson.status, notJson.json.error_code], [406, 40601]);
  assert.match(notJson.json.message, /value of r-0 at offset 3 is not JSON/);
  under.broker.faults.fetch = { code: 'corrupt-object', message: 'object x is damaged' };
  const corrupt = await call(under, 'GET', path);
  assert.deepEqual([corrupt.status, corrupt.json.error_code, corrupt.json.retriable], [500, 50090, false]);
});

test('a long poll waits, wakes, ends with its client and with the door', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('r', 1);
  const path = '/topics/r/partitions/0/records?offset=latest&timeout=30000';
  const waiting = call(under, 'GET', path);
  await new Promise((resolve) => setTimeout(resolve, 30));
  under.broker.append('r', 0, null, '"woken"');
  assert.equal((await waiting).json[0].value, 'woken');

  const client = new RawClient(under.port);
  // The second, pipelined one has to notice too, though its answer has no socket yet.
  client.send(`GET ${path} HTTP/1.1\r\nHost: h\r\n\r\n`.repeat(2));
  await new Promise((resolve) => setTimeout(resolve, 30));
  client.destroy();
  await eventually(() => under.broker.aborted === 2, 'both long polls aborted');
  await eventually(() => under.requests.filter((r) => r.status === 499).length === 2, 'told as gone');

  const last = call(under, 'GET', path);
  await new Promise((resolve) => setTimeout(resolve, 30));
  await under.door.close({ graceMs: 5000 });
  assert.equal((await last).text, '[]');
});

test('clusters', async (t) => {
  const under = await startDoor(t);
  const clusters = (await call(under, 'GET', '/v3/clusters')).json;
  assert.equal(clusters.kind, 'KafkaClusterList');
  assert.equal(clusters.data[0].cluster_id, 'fake-cluster');
  assert.equal((await call(under, 'GET', V3)).json.topics.related, `${V3}/topics`);
  assert.equal((await call(under, 'GET', '/v3/clusters/other/topics')).status, 404);
});

test('topics are made, listed, grown, configured and deleted', async (t) => {
  const under = await startDoor(t);
  const made = await call(under, 'POST', `${V3}/topics`, {
    topic_name: 'made',
    partitions_count: 2,
    replication_factor: 3,
    configs: [
      { name: 'retention.ms', value: '60000' },
      { name: 'left.out', value: null },
    ],
  });
  assert.equal(made.status, 201);
  assert.deepEqual([made.json.topic_name, made.json.partitions_count], ['made', 2]);
  const again = await call(under, 'POST', `${V3}/topics`, { topic_name: 'made' });
  assert.deepEqual([again.status, again.json.error_code, again.json.code], [400, 40002, 'topic-exists']);
  assert.equal(
    (await call(under, 'PATCH', `${V3}/topics/made`, { partitions_count: 5 })).json.partitions_count,
    5,
  );
  const shrunk = await call(under, 'PATCH', `${V3}/topics/made`, { partitions_count: 1 });
  assert.deepEqual([shrunk.status, shrunk.json.code], [400, 'invalid-partition-count']);
  assert.equal((await call(under, 'GET', `${V3}/topics/made/partitions`)).json.data.length, 5);
  assert.equal((await call(under, 'GET', `${V3}/topics/made/partitions/4`)).json.partition_id, 4);

  const configs = `${V3}/topics/made/configs`;
  assert.equal((await call(under, 'PUT', `${configs}/cleanup.policy`, { value: 'delete' })).status, 204);
  const altered = await call(under, 'POST', `${configs}:alter`, {
    data: [
      { name: 'a', value: '1' },
      { name: 'cleanup.policy', operation: 'DELETE' },
    ],
  });
  assert.deepEqual([altered.status, altered.text], [204, '']);
  const listed = (await call(under, 'GET', configs)).json.data.map((c: { name: string; value: string }) => [
    c.name,
    c.value,
  ]);
  assert.deepEqual(listed, [
    ['retention.ms', '60000'],
    ['a', '1'],
  ]);
  assert.equal((await call(under, 'GET', `${configs}/a`)).json.value, '1');
  assert.equal((await call(under, 'DELETE', `${configs}/a`)).status, 204);
  assert.equal((await call(under, 'GET', `${configs}/a`)).status, 404);
  assert.equal((await call(under, 'GET', `${configs}/toString`)).status, 404);
  assert.equal((await call(under, 'PUT', `${configs}/bad.one`, { value: '1' })).json.code, 'invalid-config');
  const unset = await call(under, 'POST', `${configs}:alter`, { data: [{ name: 'a' }] });
  assert.match(unset.json.message, /SET needs a value/);

  assert.equal((await call(under, 'DELETE', `${V3}/topics/made`)).status, 204);
  assert.equal((await call(under, 'GET', `${V3}/topics/made`)).json.error_code, 40401);
  assert.equal((await call(under, 'DELETE', `${V3}/topics/made`)).json.error_code, 40401);
});

test('pages of topics', async (t) => {
  const under = await startDoor(t);
  for (let i = 0; i < 1203; i++) under.broker.addTopic(`t${String(i).padStart(5, '0')}`, 1);
  assert.equal((await call(under, 'GET', `${V3}/topics`)).json.data.length, 1203);
  let next: string | null = `${V3}/topics?page_size=500`;
  const sizes: number[] = [];
  while (next !== null) {
    const page: { data: unknown[]; metadata: { next: string | null } } = (await call(under, 'GET', next))
      .json;
    sizes.push(page.data.length);
    next = page.metadata.next;
  }
  assert.deepEqual(sizes, [500, 500, 203]);
});

test('bodies of the administration are checked by their schemas', async (t) => {
  const under = await startDoor(t);
  const cases: [string, number, RegExp][] = [
    ['{', 400, /not JSON/],
    ['{}', 422, /topic_name/],
    ['{"topic_name":1}', 422, /topic_name must be string/],
    ['{"topic_name":"x","partitions_count":0}', 422, /partitions_count must be >= 1/],
    ['{"topic_name":"x","partitions_count":1e9}', 422, /partitions_count must be <= /],
    ['{"topic_name":"x","replicas_assignments":[]}', 422, /unknown member "replicas_assignments"/],
    ['{"topic_name":"x","configs":[{"name":"a"}]}', 422, /configs\/0/],
    ['{"topic_name":"x","__proto__":{"a":1}}', 422, /unknown member "__proto__"/],
    ['[]', 422, /the body must be object/],
    ['{"topic_name":"../etc"}', 400, /topic name/],
  ];
  for (const [body, status, message] of cases) {
    const answer = await call(under, 'POST', `${V3}/topics`, body);
    assert.equal(answer.status, status, `${body}: ${answer.text}`);
    assert.match(answer.json.message, message, body);
  }
  const form = await call(under, 'POST', `${V3}/topics`, '{}', {
    'content-type': 'application/x-www-form-urlencoded',
  });
  assert.equal(form.status, 415);
  const long = await call(under, 'POST', `${V3}/topics`, ' '.repeat(2_000_000));
  assert.equal(long.status, 413);
  assert.deepEqual(under.internal, []);
  assert.equal(under.admission.held, 0);
});

test('unknown paths, methods, HEAD and malformed escapes', async (t) => {
  const under = await startDoor(t);
  under.broker.addTopic('t', 1);
  for (const path of [
    '/nope',
    '/topics/',
    '/topics/t/',
    '/topics/t/partitions/0/nope',
    '/v3',
    '/topics/t/partitions/0/offsets/../../../../..//x',
    '/constructor',
  ])
    assert.equal((await call(under, 'GET', path)).json.error_code, path === '/topics/' ? 40002 : 404, path);
  const wrong = await call(under, 'DELETE', '/topics/t');
  assert.deepEqual([wrong.status, wrong.headers.get('allow')], [405, 'GET, HEAD, POST']);
  assert.equal((await call(under, 'OPTIONS', '/topics')).headers.get('allow'), 'GET, HEAD');
  const head = await call(under, 'HEAD', '/topics');
  assert.deepEqual([head.status, head.text, head.headers.get('content-length')], [200, '', '5']);
  const client = new RawClient(under.port);
  for (const path of [
    '/topics/%zz',
    '/topics/%ff',
    '/topics/..',
    '/topics/%2e%2e',
    '/../../etc/passwd',
    '//',
    '*',
    '/topics/a%00b',
    '/topics/t?%zz=1',
  ])
    client.send(`GET ${path} HTTP/1.1\r\nHost: h\r\n\r\n`);
  client.send('GET http://h/topics/nope HTTP/1.1\r\nHost: h\r\n\r\n');
  client.send(`GET /topics/${'x'.repeat(5000)} HTTP/1.1\r\nHost: h\r\n\r\n`);
  await client.until((text) => statuses(text).length === 11);
  assert.deepEqual(
    statuses(client.text).filter((s) => s < 400 || s >= 500),
    [],
  );
  client.destroy();
  assert.deepEqual(under.internal, []);
});

test('health, metrics, the start page', async (t) => {
  const under = await startDoor(t);
  assert.equal((await call(under, 'GET', '/health/live')).status, 200);
  under.broker.state = { live: true, ready: false, reasons: ['catching up'] };
  const notReady = await call(under, 'GET', '/health/ready');
  assert.deepEqual([notReady.status, notReady.json.reasons], [503, ['catching up']]);
  const metrics = await call(under, 'GET', '/metrics');
  assert.match(metrics.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/);
  assert.match(metrics.text, /^x 1$/m);
  under.broker.faults.metrics = new Error('secret');
  const broken = await call(under, 'GET', '/metrics');
  assert.equal(broken.status, 500);
  assert.doesNotMatch(broken.text, /secret/);
  assert.equal((await call(under, 'GET', '/')).json.openapi, '/openapi.json');
  under.broker.faults.catalogue = new StreamHouseError('store-unavailable', 'the store does not answer');
  const down = await call(under, 'GET', '/topics');
  assert.deepEqual([down.status, down.json.error_code, down.headers.get('retry-after')], [503, 50003, '1']);
});

test('the OpenAPI page names every path and parameter', async (t) => {
  const under = await startDoor(t);
  const page = (await call(under, 'GET', '/openapi.json')).json;
  assert.equal(page.openapi, '3.1.0');
  const ids = new Set<string>();
  for (const [path, item] of Object.entries<
    Record<string, { operationId: string; parameters: { name: string; in: string; schema: object }[] }>
  >(page.paths)) {
    for (const operation of Object.values(item)) {
      assert(!ids.has(operation.operationId), operation.operationId);
      ids.add(operation.operationId);
      const inPath = operation.parameters.filter((p) => p.in === 'path').map((p) => p.name);
      assert.deepEqual(
        inPath,
        [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name),
      );
      for (const parameter of operation.parameters)
        assert.equal(typeof parameter.schema, 'object', parameter.name);
    }
  }
  const produce = page.paths['/topics/{topic}'].post.requestBody.content;
  assert.deepEqual(Object.keys(produce), [JSON_V2, 'application/json', BINARY_V2]);
  assert(page.paths[`/v3/clusters/{cluster}/topics/{topic}/configs:alter`].post);
  assert(page.components.schemas.Error);
});

test('every error code has a status that fits its kind', () => {
  for (const code of ERROR_CODES) {
    const { status, retryAfterS } = HTTP_ERRORS[code];
    const kind = kindOf(code);
    if (kind === 'unknown') assert.deepEqual([status, retryAfterS], [504, undefined], code);
    if (kind === 'overloaded') assert.equal(status, 429);
    if (kind === 'unavailable') assert.equal(status, 503);
    if (kind === 'overloaded' || kind === 'unavailable') assert(retryAfterS);
    if (kind === 'corrupt') assert.equal(status, 500);
    if (kind === 'too-large') assert.equal(status, 413);
  }
});
