/** Several whole brokers on one PostgreSQL and one bucket: what a client sees of them while they come and go. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { peerKey } from '../../src/protocol/peer/peer-headers.ts';
import { startTestBroker, type TestBroker } from '../support/running-broker.ts';
import { sharedPostgres } from '../support/shared-postgres.ts';

const JSON_V2 = 'application/vnd.kafka.json.v2+json';
const PARTITIONS = 64;
const SHARDS = 64;

interface Start {
  (agentId: string, flags?: Record<string, string>): Promise<TestBroker>;
  /** The cluster as its bucket is stamped. */
  stamp(): Promise<{ clusterId: string; storeIncarnation: string }>;
}

async function cluster(t: TestContext): Promise<Start> {
  const folder = await mkdtemp(join(tmpdir(), 'streamhouse-several-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const metadata = (await sharedPostgres()).storeUrl();
  const stamp = async () => JSON.parse(await readFile(join(folder, 'objects', 'cluster.json'), 'utf8'));
  const start = async (agentId: string, flags: Record<string, string> = {}) => {
    const own = {
      'agent-id': agentId,
      metadata,
      objects: `file:${join(folder, 'objects')}`,
      migrate: 'true',
    };
    const broker = await startTestBroker({ ...own, ...flags });
    t.after(() => broker.close());
    return broker;
  };
  return Object.assign(start, { stamp });
}

async function call(broker: TestBroker, method: string, path: string, body?: unknown) {
  const headers = { 'content-type': path.startsWith('/v3') ? 'application/json' : JSON_V2 };
  const init = body === undefined ? { method } : { method, headers, body: JSON.stringify(body) };
  const answer = await fetch(broker.broker.url + path, init);
  const text = await answer.text();
  return { status: answer.status, json: text === '' ? null : JSON.parse(text) };
}

async function topicsPath(broker: TestBroker): Promise<string> {
  const { json } = await call(broker, 'GET', '/v3/clusters');
  return `/v3/clusters/${json.data[0].cluster_id}/topics`;
}

async function create(broker: TestBroker, name: string): Promise<void> {
  const body = { topic_name: name, partitions_count: PARTITIONS };
  assert.equal((await call(broker, 'POST', await topicsPath(broker), body)).status, 201);
}

async function until(what: string, holds: () => Promise<boolean>, msMax = 20_000): Promise<number> {
  const startMs = performance.now();
  while (!(await holds())) {
    assert.ok(performance.now() - startMs < msMax, `not within ${msMax} ms: ${what}`);
    await sleep(20);
  }
  return performance.now() - startMs;
}

const holds = (broker: TestBroker, count: number) => async () =>
  (await broker.metric('shards_held')) === count;

test('a broker that stops hands its shards over before others would have looked', async (t) => {
  const start = await cluster(t);
  const [a, b] = [await start('a'), await start('b')];
  await until('both have their share', async () => (await holds(a, 32)()) && (await holds(b, 32)()));
  await create(a, 'orders');
  let stopped = false;
  const slowestMs: number[] = [];
  const refusals: string[] = [];
  const produce = async (partition: number) => {
    let acknowledgedMs = performance.now();
    let slowest = 0;
    while (!stopped) {
      const path = `/topics/orders/partitions/${partition}`;
      const { status, json } = await call(b, 'POST', path, { records: [{ value: 1 }] });
      if (status !== 200) {
        refusals.push(json.code);
        await sleep(20);
        continue;
      }
      slowest = Math.max(slowest, performance.now() - acknowledgedMs);
      acknowledgedMs = performance.now();
    }
    slowestMs.push(slowest);
  };
  const producers = Array.from({ length: PARTITIONS }, (_, partition) => produce(partition));
  await sleep(1000);
  const startMs = performance.now();
  await a.close();
  const closeMs = performance.now() - startMs;
  await until('the other one has all', holds(b, SHARDS));
  const takenMs = performance.now() - startMs;
  await sleep(1000);
  stopped = true;
  await Promise.all(producers);
  t.diagnostic(`closed in ${closeMs} ms, taken in ${takenMs} ms, slowest ${Math.max(...slowestMs)} ms`);
  // A heartbeat is 5 s.
  assert.ok(takenMs < 2500, `${takenMs} ms`);
  assert.ok(Math.max(...slowestMs) < 2500, `a producer waited for ${Math.max(...slowestMs)} ms`);
  assert.deepEqual(
    [...new Set(refusals)].filter((code) => code !== 'not-leader'),
    [],
  );
});

test('a notice is only a hint: one that lies costs nobody a shard', async (t) => {
  const start = await cluster(t);
  const [a, b] = [await start('a'), await start('b')];
  await until('both have their share', async () => (await holds(a, 32)()) && (await holds(b, 32)()));
  await create(a, 'orders');
  const produceAll = async () => {
    const path = (partition: number) => `/topics/orders/partitions/${partition}`;
    const body = { records: [{ value: 1 }] };
    const answers = await Promise.all(
      Array.from({ length: PARTITIONS }, (_, partition) => call(b, 'POST', path(partition), body)),
    );
    return answers.map(({ status }) => status);
  };
  const fine = new Array(PARTITIONS).fill(200);
  assert.deepEqual(await produceAll(), fine);
  const [one, other] = await Promise.all([a, b].map((broker) => call(broker, 'GET', '/internal/v1/who')));
  const notice = (key: string) => ({
    'content-type': 'application/json',
    'streamhouse-cluster': key,
    'streamhouse-from': String(one.json.incarnation),
    'streamhouse-to': String(other.json.incarnation),
  });
  const shards = Array.from({ length: SHARDS }, (_, shard) => ({ shard, epoch: 2 ** 52 }));
  const body = JSON.stringify({ leaving: false, shards });
  const tell = (headers: Record<string, string>) =>
    fetch(`${b.broker.url}/internal/v1/leases-moved`, { method: 'POST', headers, body });
  // With what every client can ask for nobody passes for a broker.
  assert.equal((await tell(notice(one.json.clusterId))).status, 409);
  assert.equal((await tell(notice(peerKey(await start.stamp())))).status, 204);
  assert.deepEqual(await produceAll(), fine);
});

test('a topic made anew is read at the broker that made it, whatever others remember of the old one', async (t) => {
  const start = await cluster(t);
  const [a, b] = [await start('a'), await start('b')];
  await until('both have their share', async () => (await holds(a, 32)()) && (await holds(b, 32)()));
  await create(a, 'orders');
  assert.equal((await call(b, 'GET', '/topics/orders')).status, 200);
  const one = { records: [{ value: 1 }] };
  const path = (partition: number) => `/topics/orders/partitions/${partition}`;
  assert.equal((await call(b, 'POST', path(0), one)).status, 200);
  const partitions = Array.from({ length: PARTITIONS }, (_, partition) => partition);
  assert.equal((await call(a, 'DELETE', `${await topicsPath(a)}/orders`)).status, 204);
  await create(a, 'orders');
  const stored = await Promise.all(partitions.map((p) => call(a, 'POST', path(p), one)));
  assert.deepEqual(new Set(stored.map(({ status }) => status)), new Set([200]));
  for (const broker of [a, b]) {
    const read = await Promise.all(partitions.map((p) => call(broker, 'GET', `${path(p)}/records?offset=0`)));
    const next = await Promise.all(partitions.map((p) => call(broker, 'GET', `${path(p)}/records?offset=1`)));
    const ends = await Promise.all(partitions.map((p) => call(broker, 'GET', `${path(p)}/offsets`)));
    const bad = partitions.filter(
      (p) => read[p].json.length !== 1 || next[p].status !== 200 || ends[p].json.end_offset !== 1,
    );
    const text = (p: number) =>
      `${p}: ${[read, next, ends].map((of) => JSON.stringify(of[p].json)).join(' ')}`;
    assert.deepEqual(bad.map(text), []);
  }
});
