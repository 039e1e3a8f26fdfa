/**
 * The record sender against a fake door: order per partition, bounded requests, what is sent again and what
 * never, and counts that add up whatever happens.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { RecordSender, type RecordSenderOptions } from '../../../src/client/record-sender.ts';
import { RestClient } from '../../../src/client/rest-client.ts';
import { RestError } from '../../../src/client/rest-error.ts';
import { systemClock } from '../../../src/core/clock.ts';
import { seededRandom } from '../../../src/core/random.ts';
import { FakeRestServer } from '../../support/fake-rest-server.ts';

const servers: FakeRestServer[] = [];
const clients: RestClient[] = [];
let hold: NodeJS.Timeout;

before(() => {
  hold = setInterval(() => undefined, 1000);
});
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
  for (const server of servers.splice(0)) await server.close();
});
after(() => clearInterval(hold));

async function setUp(partitionCount: number, options: Partial<RecordSenderOptions> = {}) {
  const server = await FakeRestServer.start();
  const client = new RestClient(server.url, { timeoutMs: 5_000 });
  servers.push(server);
  clients.push(client);
  server.addTopic('t', partitionCount);
  const sender = new RecordSender({
    client,
    topic: 't',
    partitionCount,
    embedded: 'binary',
    clock: systemClock,
    random: seededRandom(1),
    ...options,
  });
  return { server, client, sender };
}

async function addAll(sender: RecordSender, count: number, partitionCount: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const room = sender.add({ key: null, value: Buffer.from(String(i)), partition: i % partitionCount });
    if (room !== undefined) await room;
  }
}

/** Each partition holds exactly its share, in order. */
function assertInOrder(server: FakeRestServer, count: number, partitionCount: number): void {
  for (let p = 0; p < partitionCount; p++) {
    const expected = [];
    for (let i = p; i < count; i += partitionCount) expected.push(String(i));
    assert.deepEqual(server.values('t', p), expected, `partition ${p}`);
  }
}

const posts = (server: FakeRestServer) => server.requests.filter(({ method }) => method === 'POST');

describe('record sender', () => {
  it('batches records, keeps the order of each partition and the bound on open requests', async () => {
    const { server, sender } = await setUp(7, { batchRecordsMax: 10, inFlightMax: 3 });
    server.delayMs = 2;
    await addAll(sender, 1000, 7);
    await sender.flush();
    assertInOrder(server, 1000, 7);
    assert.ok(server.openMax <= 3, `${server.openMax} open`);
    assert.ok(server.openMax > 1, 'requests overlap');
    assert.ok(posts(server).every(({ records }) => records <= 10));
    assert.deepEqual(sender.counts, {
      acknowledged: 1000,
      unknown: 0,
      failed: 0,
      requests: posts(server).length,
      resent: 0,
    });
  });

  it('sends again, in order, what a busy broker did not take', async () => {
    const { server, sender } = await setUp(4, { batchRecordsMax: 5, inFlightMax: 2 });
    let n = 0;
    server.fault = (method) => {
      if (method !== 'POST' || ++n % 3 !== 0) return null;
      if (n % 2 === 0) return { kind: 'record-errors', errorCode: 50003, message: 'abandoned' };
      return { kind: 'status', status: 429, errorCode: 42990, retryAfterS: 0 };
    };
    await addAll(sender, 100, 4);
    await sender.flush();
    assertInOrder(server, 100, 4);
    assert.equal(sender.counts.acknowledged, 100);
    assert.ok(sender.counts.resent > 0);
  });

  it('never sends again what may have happened, and says how many are in doubt', async () => {
    const { server, sender } = await setUp(1, { batchRecordsMax: 10, inFlightMax: 1 });
    let n = 0;
    server.fault = (method) => (method === 'POST' && ++n === 2 ? { kind: 'drop-after' } : null);
    await assert.rejects(
      async () => {
        await addAll(sender, 40, 1);
        await sender.flush();
      },
      (error) =>
        error instanceof RestError && error.outcome === 'unknown' && error.code === 'connection-lost',
    );
    await sender.settled();
    assertInOrder(server, 20, 1);
    const { acknowledged, unknown, failed } = sender.counts;
    assert.deepEqual({ acknowledged, unknown, failed }, { acknowledged: 10, unknown: 10, failed: 20 });
    assert.equal(posts(server).length, 2);
  });

  it('appends everything once when idempotent, though replies are lost and requests dropped', async () => {
    const { server, client, sender: other } = await setUp(3);
    await other.flush();
    const producer = await client.allocateProducerId();
    const sender = new RecordSender({
      client,
      topic: 't',
      partitionCount: 3,
      embedded: 'binary',
      clock: systemClock,
      random: seededRandom(2),
      producer,
      batchRecordsMax: 7,
      inFlightMax: 2,
    });
    let n = 0;
    server.fault = (method) => {
      if (method !== 'POST') return null;
      n++;
      if (n % 4 === 1) return { kind: 'drop-after' };
      if (n % 4 === 3) return { kind: 'drop' };
      return n % 8 === 4 ? { kind: 'status', status: 503, retryAfterS: 0 } : null;
    };
    await addAll(sender, 60, 3);
    await sender.flush();
    assertInOrder(server, 60, 3);
    assert.equal(sender.counts.acknowledged, 60);
    assert.equal(sender.counts.unknown + sender.counts.failed, 0);
  });

  it('stops at the first refusal with counts that add up', async () => {
    const { server, sender } = await setUp(1, { batchRecordsMax: 10, inFlightMax: 1 });
    let n = 0;
    server.fault = (method) =>
      method === 'POST' && ++n === 2
        ? { kind: 'record-errors', errorCode: 41390, message: 'record 3 is too large' }
        : null;
    await assert.rejects(
      async () => {
        await addAll(sender, 40, 1);
        await sender.flush();
      },
      (error) =>
        error instanceof RestError &&
        error.code === 'record-too-large' &&
        error.message === 'record 3 is too large',
    );
    await sender.settled();
    const { acknowledged, unknown, failed } = sender.counts;
    assert.deepEqual({ acknowledged, unknown, failed }, { acknowledged: 10, unknown: 0, failed: 30 });
    assert.throws(() => sender.add({ value: Buffer.from('x') }), RestError);
  });

  it('gives up what does not happen for too long', async () => {
    const { server, sender } = await setUp(1, { retryMsMax: 200 });
    server.fault = () => ({ kind: 'status', status: 503, errorCode: 50003 });
    await addAll(sender, 3, 1);
    await assert.rejects(sender.flush(), (error) => error instanceof RestError && error.status === 503);
    const { acknowledged, unknown, failed } = sender.counts;
    assert.deepEqual({ acknowledged, unknown, failed }, { acknowledged: 0, unknown: 0, failed: 3 });
    assert.ok(sender.counts.resent >= 3);
  });

  it('takes a broker that is not there as nothing done', async () => {
    const { server, sender } = await setUp(1, { retryMsMax: 150 });
    await server.close();
    servers.pop();
    await addAll(sender, 2, 1);
    await assert.rejects(
      sender.flush(),
      (error) =>
        error instanceof RestError && error.code === 'connection-failed' && error.outcome === 'nothing',
    );
    assert.equal(sender.counts.failed, 2);
    assert.equal(sender.counts.unknown, 0);
  });

  it('sends a lone record without a flush, soon', async () => {
    const { server, sender } = await setUp(1);
    const done = new Promise<void>((resolve) => {
      server.fault = (method) => {
        if (method === 'POST') setTimeout(resolve, 20);
        return null;
      };
    });
    sender.add({ key: null, value: Buffer.from('now') });
    await done;
    assert.deepEqual(server.values('t', 0), ['now']);
  });

  it('gives records of one key one partition, those without a key each in turn', async () => {
    const { server, sender } = await setUp(5);
    for (let i = 0; i < 20; i++) {
      sender.add({ key: Buffer.from('same'), value: Buffer.from(`k${i}`) });
      sender.add({ key: null, value: Buffer.from(`n${i}`) });
    }
    await sender.flush();
    const all = [0, 1, 2, 3, 4].map((p) => server.values('t', p));
    const keyed = all.map((values) => values.filter((value) => value?.startsWith('k')));
    assert.equal(keyed.filter((values) => values.length > 0).length, 1);
    assert.deepEqual(
      keyed.find((values) => values.length > 0),
      Array.from({ length: 20 }, (_, i) => `k${i}`),
    );
    assert.ok(all.every((values) => values.filter((value) => value?.startsWith('n')).length === 4));
  });

  it('makes the adder wait while too much is open, and lets it go on', async () => {
    const { server, sender } = await setUp(1, { batchBytesMax: 1000, inFlightMax: 1 });
    server.delayMs = 5;
    let waits = 0;
    for (let i = 0; i < 50; i++) {
      const room = sender.add({ key: null, value: Buffer.alloc(300, 97) });
      if (room !== undefined) {
        waits++;
        await room;
      }
    }
    await sender.flush();
    assert.ok(waits > 5, `${waits} waits`);
    assert.equal(server.values('t', 0).length, 50);
    assert.ok(posts(server).every(({ records }) => records <= 4));
  });

  it('flushes nothing at once', async () => {
    const { server, sender } = await setUp(1);
    await sender.flush();
    await sender.flush();
    assert.equal(server.requests.length, 0);
  });
});
