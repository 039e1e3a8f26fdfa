/**
 * Bad days of the object store under load: answers that fail, come late, come after it happened, or never; a
 * store that is slow, and one that is away. Requests end within their time with a word on whether they happened,
 * memory is bounded, service comes back by itself, and what was acknowledged reads back.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { seededRandom } from '../../src/core/random.ts';
import { httpCall } from '../support/http-call.ts';
import { ProduceLoad } from '../support/produce-load.ts';
import { RecordLedger } from '../support/record-ledger.ts';
import { startTestBroker, type TestBroker } from '../support/running-broker.ts';
import { S3_TEST_ENV, type S3Fault, type S3Server, startS3Server } from '../support/s3-server.ts';

Object.assign(process.env, S3_TEST_ENV);

const PARTITIONS = 8;
const REQUEST_TIMEOUT_MS = 1500;
/** A deadline is looked at now and then, and a busy machine is slow. */
const SLACK_MS = 1500;
const IN_FLIGHT_BYTES_MAX = 1024 * 1024;

describe('bad days of the object store', () => {
  let directory: string;
  let server: S3Server;
  let running: TestBroker;

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'streamhouse-objects-'));
    server = await startS3Server();
    running = await startTestBroker({
      data: directory,
      objects: server.url,
      'flush-window': '10ms',
      'request-timeout': `${REQUEST_TIMEOUT_MS}ms`,
      'upload-deadline': '1s',
      'in-flight-bytes-max': '1MiB',
      'body-bytes-max': '256KiB',
      'record-bytes-max': '128KiB',
      'flush-bytes': '64KiB',
      'checkpoint-log-bytes': '4KiB',
      'tail-cache-bytes': '1MiB',
    });
  });

  after(async () => {
    await running.close();
    await server.stop();
    await rm(directory, { recursive: true });
  });

  beforeEach(() => {
    server.fault = () => undefined;
  });

  afterEach(async () => {
    server.fault = () => undefined;
    await nothingHeld();
  });

  async function nothingHeld(): Promise<void> {
    const deadline = performance.now() + 5000;
    while ((await running.metric('in_flight_bytes')) > 0) {
      assert.ok(performance.now() < deadline, 'bytes in flight never come back to 0');
      await sleepMs(20);
    }
  }

  async function beginLoad(
    topic: string,
    seed: number,
  ): Promise<{ ledger: RecordLedger; load: ProduceLoad }> {
    await running.client.createTopic({ name: topic, partitionCount: PARTITIONS });
    const ledger = new RecordLedger(topic);
    const options = { ledger, partitionCount: PARTITIONS, producers: 8, idempotent: 4, seed };
    const load = new ProduceLoad({ ...options, client: () => running.client });
    load.start();
    return { ledger, load };
  }

  it('keeps the promise under every fault at random', async (t) => {
    const random = seededRandom(7);
    const faults: S3Fault[] = [
      { kind: 'error', status: 503 },
      { kind: 'error', status: 500 },
      { kind: 'error', status: 429 },
      { kind: 'error-after-success', status: 500 },
      { kind: 'error-after-success', status: 503 },
      { kind: 'cut' },
      { kind: 'cut-after-success' },
      { kind: 'hang' },
      { kind: 'hang-after-success' },
      { kind: 'delay', ms: 30 },
      { kind: 'delay', ms: 300 },
    ];
    let injected = 0;
    const { ledger, load } = await beginLoad('faults', 1);
    server.fault = () => {
      if (random.unit() > 0.75) return undefined;
      injected++;
      return faults[random.below(faults.length)];
    };
    try {
      await sleepMs(5000);
      server.fault = () => undefined;
      await load.moreInEachPartition(4, 5000);
    } finally {
      await load.stop();
    }
    const counts = await ledger.check(running.client, PARTITIONS);
    assert.ok(injected > 15 && counts.acknowledged > 60, `${injected} faults, ${JSON.stringify(counts)}`);
    t.diagnostic(`${injected} faults, ${JSON.stringify(counts)}, met ${load.metText()}`);
  });

  it('survives a store that is away for seconds: requests end in time, service resumes by itself', async (t) => {
    const { ledger, load } = await beginLoad('outage', 2);
    await load.moreAcknowledged(50, 5000);
    const { port, buckets } = server;
    await server.stop();
    const awayMs = performance.now();
    let slowestMs = 0;
    try {
      while (performance.now() - awayMs < 3500) {
        const beganMs = performance.now();
        const body = '{"records":[{"value":1}]}';
        const headers = { 'content-type': 'application/json' };
        const answer = await httpCall(`${running.broker.url}/topics/no-such-topic`, { body, headers });
        assert.equal(answer.status, 404, 'what needs no object is answered');
        const live = await httpCall(`${running.broker.url}/health/live`);
        assert.equal(live.status, 200);
        assert.ok((await running.metric('in_flight_bytes')) <= IN_FLIGHT_BYTES_MAX);
        slowestMs = Math.max(slowestMs, performance.now() - beganMs);
        await sleepMs(100);
      }
    } finally {
      server = await startS3Server({ port, buckets });
    }
    const backMs = performance.now();
    try {
      await load.moreInEachPartition(4, 6000);
    } finally {
      await load.stop();
    }
    const counts = await ledger.check(running.client, PARTITIONS);
    const resumedMs = Math.round(performance.now() - backMs);
    t.diagnostic(`resumed after ${resumedMs} ms, ${JSON.stringify(counts)}, met ${load.metText()}`);
    assert.ok(load.met.size > 0, 'requests failed meanwhile');
    assert.ok(slowestMs < 1000, `a request that needs no object took ${slowestMs} ms`);
  });

  it('answers each request within its time while the store hangs, retriable or unknown', async () => {
    await running.client.createTopic({ name: 'hanging', partitionCount: 4 });
    server.fault = ({ kind }) => (kind === 'put' ? { kind: 'hang' } : undefined);
    const answers = await Promise.all(
      Array.from({ length: 12 }, async (_, i) => {
        const beganMs = performance.now();
        const answer = await httpCall(`${running.broker.url}/topics/hanging/partitions/${i % 4}`, {
          body: `{"records":[{"value":${i}}]}`,
          headers: { 'content-type': 'application/json' },
        });
        return { ...answer, ms: performance.now() - beganMs };
      }),
    );
    for (const { status, json, ms } of answers) {
      assert.ok(status === 503 || status === 504, JSON.stringify(json));
      assert.equal(json.retriable, true);
      assert.equal(json.outcome, status === 504 ? 'unknown' : 'none');
      assert.ok(ms < REQUEST_TIMEOUT_MS + SLACK_MS, `${ms} ms`);
    }
  });

  it('refuses at the door when full, with Retry-After, and takes again what it can hold', async () => {
    await running.client.createTopic({ name: 'full', partitionCount: 4 });
    server.fault = ({ kind }) => (kind === 'put' ? { kind: 'hang' } : undefined);
    const body = JSON.stringify({ records: [{ value: 'x'.repeat(60_000) }] });
    const headers = { 'content-type': 'application/json' };
    const send = (i: number) =>
      httpCall(`${running.broker.url}/topics/full/partitions/${i % 4}`, { body, headers });
    const sending = Promise.all(Array.from({ length: 30 }, (_, i) => send(i)));
    await sleepMs(300);
    assert.ok((await running.metric('in_flight_bytes')) > IN_FLIGHT_BYTES_MAX / 2);
    assert.ok((await running.metric('in_flight_bytes')) <= IN_FLIGHT_BYTES_MAX);
    const answers = await sending;
    const refused = answers.filter(({ status }) => status === 429);
    assert.ok(refused.length >= 20 && refused.length < 30, `${refused.length} of 30 were refused`);
    for (const { json, headers: answered } of refused) {
      assert.equal(json.error_code, 42990);
      assert.equal(json.outcome, 'none');
      assert.ok(Number(answered.get('retry-after')) >= 1);
    }
    server.fault = () => undefined;
    await nothingHeld();
    assert.equal((await send(0)).status, 200);
  });

  it('is as slow as the store and no slower, and reads of the tail do not wait for it', async () => {
    await running.client.createTopic({ name: 'slow', partitionCount: 4 });
    const produce = async (i: number) => {
      const beganMs = performance.now();
      const answers = await running.client.produceToPartition('slow', i % 4, [{ value: i }], 'json', null);
      assert.equal(answers[0].error, null);
      return performance.now() - beganMs;
    };
    await produce(0);
    const delayMs = 250;
    server.fault = ({ kind }) => (kind === 'put' ? { kind: 'delay', ms: delayMs } : undefined);
    const producing = Promise.all(
      Array.from({ length: 8 }, async () => {
        const times: number[] = [];
        for (let i = 0; i < 5; i++) times.push(await produce(i));
        return times;
      }),
    );
    let readMs = 0;
    for (let i = 0; i < 10; i++) {
      const beganMs = performance.now();
      await running.client.fetch('slow', 0, 0, { bytesMax: 1000, waitMs: 0, embedded: 'json' });
      readMs = Math.max(readMs, performance.now() - beganMs);
    }
    const times = (await producing).flat().sort((a, b) => a - b);
    assert.ok(times[0] >= delayMs - 10, `${times[0]} ms: nothing is acknowledged before it is stored`);
    const p90Ms = times[Math.floor(times.length * 0.9)];
    assert.ok(p90Ms < delayMs * 3 + 200, `p90 ${p90Ms} ms: uploads do not wait for one another`);
    assert.ok(readMs < delayMs, `a read of the tail took ${readMs} ms`);
  });
});
