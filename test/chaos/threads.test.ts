/**
 * Threads that die under load, in a whole broker in this process: each lane and the batching worker, again and
 * again. What is acknowledged stays, what was under way fails as retriable or unknown, service comes back by
 * itself within about a second, and no memory is held for requests that nobody will answer.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { metricSum } from '../../bench/metrics-text.ts';
import { RestClient } from '../../src/client/rest-client.ts';
import { RestError } from '../../src/client/rest-error.ts';
import { type RunningBroker, startBroker } from '../../src/compose.ts';
import { readSettings } from '../../src/settings.ts';
import { openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { ProduceLoad } from '../support/produce-load.ts';
import { RecordLedger } from '../support/record-ledger.ts';

const LANES = 2;
const PARTITIONS = 12;
/** The first acknowledgement after a thread's end; about 1 s on a machine with nothing else to do. */
const RESUMES_MS_MAX = 5000;
/** What a client may meet while a thread is away. The client knows single records' 50490 by its first name only. */
const EXPECTED = ['not-leader', 'thread-lost', 'append-abandoned', 'store-unavailable', 'deadline-exceeded'];

describe('threads that die under load', () => {
  let directory: string;
  let broker: RunningBroker;
  let client: RestClient;

  // A broker for each test: one whose threads end too often within a minute gives up, as it should.
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'streamhouse-threads-'));
    const flags = {
      listen: '127.0.0.1:0',
      data: directory,
      lanes: String(LANES),
      'flush-window': '10ms',
      'checkpoint-log-bytes': '4KiB',
      'request-timeout': '20s',
      'log-level': 'fatal',
    };
    broker = await startBroker(readSettings({ flags, env: {} }));
    client = new RestClient(broker.url, { connectionsMax: 32 });
  });

  afterEach(async () => {
    await Promise.race([broker.failed, sleepMs(0)]);
    await client.close();
    await broker.close();
    await rm(directory, { recursive: true });
  });

  /** Ends threads one after the other under load and checks everything. */
  async function killUnderLoad(topic: string, victims: (number | 'batching-worker')[]): Promise<number[]> {
    await client.createTopic({ name: topic, partitionCount: PARTITIONS });
    const ledger = new RecordLedger(topic);
    const options = { ledger, partitionCount: PARTITIONS, producers: 8, idempotent: 4, seed: victims.length };
    const load = new ProduceLoad({ ...options, client: () => client });
    load.start();
    const resumedMs: number[] = [];
    try {
      await load.moreAcknowledged(100, 10_000);
      for (const victim of victims) {
        broker.terminate(victim);
        const endedMs = performance.now();
        // What was under way may still be answered: more than one request of each client, and every partition.
        await sleepMs(2);
        await load.moreInEachPartition(8, RESUMES_MS_MAX);
        resumedMs.push(Math.round(performance.now() - endedMs));
      }
    } finally {
      await load.stop();
    }
    const counts = await ledger.check(client, PARTITIONS);
    assert.ok(counts.acknowledged >= 100 + 8 * PARTITIONS * victims.length);
    for (const code of load.met.keys()) assert.ok(EXPECTED.includes(code), `met ${load.metText()}`);
    await nothingHeld();
    return resumedMs;
  }

  /** All requests are answered: then nothing is held for them. */
  async function nothingHeld(): Promise<void> {
    const gauges = ['in_flight_bytes', 'appends_outstanding', 'reads_outstanding', 'body_bytes'];
    const deadline = performance.now() + 3000;
    for (;;) {
      const text = await client.metricsText();
      const held = gauges.filter((name) => metricSum(text, `streamhouse_${name}`) !== 0);
      if (held.length === 0) return;
      assert.ok(performance.now() < deadline, `still held: ${held.join(', ')}`);
      await sleepMs(20);
    }
  }

  it('loses nothing when lanes end', async (t) => {
    const resumedMs = await killUnderLoad('lanes', [0, 1, 0, 1]);
    t.diagnostic(`ms to the next acknowledgements: ${resumedMs.join(', ')}`);
  });

  it('loses nothing when the batching worker ends', async (t) => {
    const resumedMs = await killUnderLoad('worker', [
      'batching-worker',
      'batching-worker',
      'batching-worker',
    ]);
    t.diagnostic(`ms to the next acknowledgements: ${resumedMs.join(', ')}`);
  });

  it('loses nothing when both end at once, and answers reads meanwhile', async () => {
    await client.createTopic({ name: 'both', partitionCount: PARTITIONS });
    const ledger = new RecordLedger('both');
    const options = { ledger, partitionCount: PARTITIONS, producers: 8, idempotent: 4, seed: 3 };
    const load = new ProduceLoad({ ...options, client: () => client });
    load.start();
    await load.moreAcknowledged(100, 10_000);
    const reading = new AbortController();
    const reads = readUntil(reading.signal);
    broker.terminate('batching-worker');
    broker.terminate(0);
    await sleepMs(2);
    await load.moreInEachPartition(8, RESUMES_MS_MAX);
    reading.abort();
    const slowestMs = await reads;
    await load.stop();
    await ledger.check(client, PARTITIONS);
    await nothingHeld();
    assert.ok(slowestMs < RESUMES_MS_MAX, `a read was answered after ${slowestMs} ms only`);
  });

  it('finishes the deletion of a topic that was asked for while the batching worker was away', async () => {
    const { store, close } = await openMetadata(`sqlite:${directory}/metadata.db`, { role: 'reader' });
    try {
      for (const pauseMs of [0, 10, 30, 60, 100]) {
        await client.createTopic({ name: 'short-lived', partitionCount: 1 });
        if (pauseMs === 0 || pauseMs === 30) broker.terminate('batching-worker');
        await sleepMs(pauseMs);
        await client.deleteTopic('short-lived');
      }
      const deadline = performance.now() + RESUMES_MS_MAX;
      while ((await store.listDeletedTopics({ afterTopicId: 0, limit: 10 })).length > 0) {
        assert.ok(performance.now() < deadline, 'a deleted topic is never finished');
        await sleepMs(20);
      }
    } finally {
      await close();
    }
  });

  /** Reads and long polls without pause; each ends with records or a retriable error. The slowest, ms. */
  async function readUntil(signal: AbortSignal): Promise<number> {
    let slowestMs = 0;
    const one = async (partition: number): Promise<void> => {
      while (!signal.aborted) {
        const beganMs = performance.now();
        try {
          const { end } = await client.offsets('both', partition);
          await client.fetch('both', partition, end, { bytesMax: 100_000, waitMs: 50, embedded: 'json' });
        } catch (error) {
          assert.ok(error instanceof RestError && error.outcome !== 'refused', String(error));
          await sleepMs(5);
        }
        slowestMs = Math.max(slowestMs, performance.now() - beganMs);
      }
    };
    await Promise.all(Array.from({ length: PARTITIONS }, (_, partition) => one(partition)));
    return Math.round(slowestMs);
  }
});
