/**
 * A broker on DynamoDB whose requests are dropped before and after they happen, come late, are throttled and fail,
 * all the time and at random, and which is killed -9 again and again: what was acknowledged is read back once, at its
 * offset, byte by byte. STREAMHOUSE_TEST_KILL_SEED asks for another order of things.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { RestClient } from '../../src/client/rest-client.ts';
import { seededRandom } from '../../src/core/random.ts';
import { BrokerProcess } from '../support/broker-process.ts';
import { sharedDynalite } from '../support/dynalite-server.ts';
import { DynamodbProxy } from '../support/dynamodb-proxy.ts';
import { deleteTable, freshUrl, migrateDynamodb } from '../support/dynamodb-target.ts';
import { ProduceLoad } from '../support/produce-load.ts';
import { RecordLedger } from '../support/record-ledger.ts';

const ROUNDS = 6;
const SEED = Number(process.env.STREAMHOUSE_TEST_KILL_SEED ?? 1);
const PARTITIONS = 10;
/** Of all requests, that meet each of the faults. */
const FAULT_SHARE = 0.03;

describe('a broker on a DynamoDB that fails at random', () => {
  it(`keeps the promise over ${ROUNDS} rounds of kill -9`, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'streamhouse-dynamodb-'));
    const random = seededRandom(SEED);
    const proxy = await DynamodbProxy.start((await sharedDynalite()).endpoint);
    const url = freshUrl(`dynamodb://us-east-1/chaos?endpoint=${encodeURIComponent(proxy.endpoint)}`);
    await migrateDynamodb(url);
    let faults = 0;
    const atRandom = () => {
      const strikes = random.unit() < FAULT_SHARE;
      if (strikes) faults++;
      return strikes;
    };
    const begin = () => {
      proxy.inject({ on: atRandom, effect: { kind: 'drop-reply' } });
      proxy.inject({ on: atRandom, effect: { kind: 'drop-request' } });
      proxy.inject({ on: atRandom, effect: { kind: 'refuse', name: 'ThrottlingException' } });
      proxy.inject({
        on: atRandom,
        effect: { kind: 'fail-after', name: 'InternalServerError', status: 500 },
      });
      proxy.inject({ on: atRandom, effect: { kind: 'refuse', name: 'ServiceUnavailable', status: 503 } });
      proxy.inject({ on: atRandom, effect: { kind: 'late', untilMs: 40 } });
    };
    const ledger = new RecordLedger('failing');
    const counts = { partitionCount: PARTITIONS, producers: 16, idempotent: 6, padMax: 500, seed: SEED };
    let client: RestClient | null = null;
    let broker: BrokerProcess | null = null;
    const load = new ProduceLoad({ ledger, ...counts, client: () => client });
    const start = async () => {
      const args = [
        '--metadata',
        url,
        '--objects',
        `file:${directory}`,
        '--log-level',
        'error',
        '--shards',
        '2',
      ];
      const often = ['--flush-window', '10ms', '--checkpoint-log-bytes', '4KiB'];
      broker = await BrokerProcess.start([...args, ...often]);
      return new RestClient(broker.url, { connectionsMax: 32 });
    };
    try {
      client = await start();
      await client.createTopic({ name: ledger.topic, partitionCount: PARTITIONS });
      load.start();
      for (let round = 0; round < ROUNDS; round++) {
        begin();
        await load.moreAcknowledged(100, 30_000);
        await sleepMs(200 + random.unit() * 600);
        const killed = client;
        client = null;
        await (broker as BrokerProcess | null)?.kill();
        await killed?.close();
        // A start gives up where a broker at work would wait.
        proxy.clear();
        client = await start();
        await ledger.check(client, PARTITIONS);
      }
      await load.stop();
      const last = await ledger.check(client, PARTITIONS);
      assert.equal(last.acknowledged + last.refused + last.unknown, ledger.size);
      assert(faults > 50, `only ${faults} faults: that proves little`);
      t.diagnostic(`${JSON.stringify(last)}, ${faults} faults, met ${load.metText()}`);
    } finally {
      load.abandon();
      await client?.close();
      await (broker as BrokerProcess | null)?.stop();
      await deleteTable(url);
      await proxy.close();
      await rm(directory, { recursive: true });
    }
  });
});
