/**
 * A broker under load whose PostgreSQL is stopped, crashes and comes back, and whose connections are cut, go silent or
 * lose replies: it heals by itself, and everything that was ever acknowledged is read back once, at its offset. The
 * server commits durably, for a crash of one that does not may lose what it confirmed.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { metricSum } from '../../bench/metrics-text.ts';
import { RestClient } from '../../src/client/rest-client.ts';
import { BrokerProcess } from '../support/broker-process.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-server.ts';
import { ProduceLoad } from '../support/produce-load.ts';
import { RecordLedger } from '../support/record-ledger.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';

const PARTITIONS = 10;

/** Silence is noticed within a second, as a test needs it. */
const LIMITS = { statement_timeout_ms: '700', lock_timeout_ms: '500', connect_timeout_ms: '700' };

type BadDay = (server: PostgresServer, proxy: TcpProxy) => Promise<void>;

const BAD_DAYS: Record<string, BadDay> = {
  async 'is restarted'(server) {
    await server.halt();
    await sleepMs(300);
    await server.resume();
  },
  async crashes(server) {
    await server.crash();
    await sleepMs(300);
    await server.resume();
  },
  async 'has its connections cut, again and again'(_server, proxy) {
    for (let i = 0; i < 20; i++) {
      proxy.cut();
      await sleepMs(15);
    }
  },
  async 'loses its replies'(_server, proxy) {
    proxy.faults.dropsReplies = true;
    await sleepMs(400);
    proxy.cut();
    proxy.heal();
  },
  async 'goes silent'(_server, proxy) {
    proxy.faults.dropsReplies = true;
    proxy.faults.dropsRequests = true;
    await sleepMs(4000);
    proxy.cut();
    proxy.heal();
  },
  async 'is slow'(_server, proxy) {
    proxy.faults.delayMs = 60;
    await sleepMs(800);
    proxy.heal();
  },
};

describe('a broker whose PostgreSQL has a bad day', () => {
  it(`keeps the promise while it ${Object.keys(BAD_DAYS).join(', ')}`, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'streamhouse-postgres-day-'));
    const server = await startPostgres({ isDurable: true });
    const proxy = await TcpProxy.start(server.port);
    const url = proxy.through(server.storeUrl({ ...LIMITS, durability: 'checked' }));
    const args = [
      '--metadata',
      url,
      '--migrate',
      '--data',
      directory,
      '--shards',
      '4',
      '--log-level',
      'error',
    ];
    const timing = ['--flush-window', '10ms', '--checkpoint-log-bytes', '4KiB', '--request-timeout', '20s'];
    const broker = await BrokerProcess.start([...args, ...timing]);
    const client = new RestClient(broker.url, { connectionsMax: 32 });
    const ledger = new RecordLedger('weathered');
    const counts = { partitionCount: PARTITIONS, producers: 12, idempotent: 6, seed: 5 };
    const load = new ProduceLoad({ ledger, ...counts, client: () => client });
    try {
      await client.createTopic({ name: ledger.topic, partitionCount: PARTITIONS });
      load.start();
      for (const [what, badDay] of Object.entries(BAD_DAYS)) {
        await load.moreAcknowledged(60, 20_000);
        const startMs = performance.now();
        await badDay(server, proxy);
        const healedMs = performance.now();
        await load.moreAcknowledged(60, 20_000);
        const { acknowledged } = await ledger.check(client, PARTITIONS);
        const [lasted, healing] = [healedMs - startMs, performance.now() - healedMs].map(Math.round);
        t.diagnostic(
          `${what}: ${lasted} ms, 60 more after ${healing} ms; ${acknowledged} acknowledged in all`,
        );
      }
      await load.stop();
      const last = await ledger.check(client, PARTITIONS);
      const metrics = await client.metricsText();
      const counter = (name: string) => metricSum(metrics, `streamhouse_${name}_total`) ?? 0;
      t.diagnostic(`${JSON.stringify(last)}, met ${load.metText()}`);
      assert.equal(last.unknown, ledger.size - last.acknowledged - last.refused);
      assert(counter('metadata_store_connections_lost') > 20);
      assert(counter('metadata_store_unknown_outcomes') > 0, 'no fault met a write under way');
      const end = await broker.stop();
      assert.equal(end.code, 0, end.log.join('\n'));
    } finally {
      load.abandon();
      await client.close();
      await broker.kill();
      await proxy.stop();
      await server.stop();
      await rm(directory, { recursive: true });
    }
  });
});
