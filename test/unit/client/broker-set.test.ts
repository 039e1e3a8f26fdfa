/**
 * The client before several brokers of one cluster: where it goes on, where it must not, and that nothing is appended
 * twice or out of order on the way.
 */
import assert from 'node:assert/strict';
import { after, afterEach, describe, it } from 'node:test';
import { RecordSender } from '../../../src/client/record-sender.ts';
import { RestClient } from '../../../src/client/rest-client.ts';
import { RestError } from '../../../src/client/rest-error.ts';
import { systemClock } from '../../../src/core/clock.ts';
import { seededRandom } from '../../../src/core/random.ts';
import { FakeRestServer, type Fault } from '../../support/fake-rest-server.ts';

const servers: FakeRestServer[] = [];
const clients: RestClient[] = [];
// Timers of the clock do not keep the process alive.
const hold = setInterval(() => undefined, 1000);
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
  for (const server of servers.splice(0)) await server.close();
});
after(() => clearInterval(hold));

/** Brokers of one cluster with the topic t of four partitions. */
async function cluster(count: number): Promise<FakeRestServer[]> {
  const first = await FakeRestServer.start();
  first.addTopic('t', 4);
  const all = [first];
  while (all.length < count) all.push(await FakeRestServer.start(first));
  servers.push(...all);
  return all;
}

function clientOf(urls: string | readonly string[], timeoutMs = 5_000): RestClient {
  const client = new RestClient(urls, { timeoutMs });
  clients.push(client);
  return client;
}

async function stop(server: FakeRestServer): Promise<void> {
  servers.splice(servers.indexOf(server), 1);
  await server.close();
  // Until clients have read that their idle connections ended: what is sent on one before is lost.
  await new Promise((resolve) => setTimeout(resolve, 10));
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}

const urlsOf = (all: readonly FakeRestServer[]) => all.map(({ url }) => url);
const countOf = (server: FakeRestServer, method: string) =>
  server.requests.filter((request) => request.method === method && request.path !== '/v3/clusters').length;
const NOT_LEADER: Fault = {
  kind: 'status',
  status: 503,
  errorCode: 50392,
  message: 'not here',
  retryAfterS: 1,
};
const SHUTTING_DOWN: Fault = { kind: 'status', status: 503, errorCode: 50391, message: 'I stop' };
const ONE = [{ key: null, value: Buffer.from('v') }];

function failing(code: string, outcome: string) {
  return (error: unknown) => error instanceof RestError && error.code === code && error.outcome === outcome;
}

describe('a client of several brokers', () => {
  it('stays at the first while it serves, and asks no single broker for its cluster', async () => {
    const all = await cluster(2);
    const client = clientOf(urlsOf(all));
    for (let i = 0; i < 3; i++) await client.produceToPartition('t', 0, ONE, 'binary', null);
    assert.equal(client.url, all[0].url);
    assert.deepEqual(
      all[0].requests.map(({ path }) => path),
      ['/v3/clusters', ...Array(3).fill('/topics/t/partitions/0')],
    );
    assert.equal(all[1].requests.length, 0);
    const alone = clientOf(all[1].url);
    await alone.produceToPartition('t', 0, ONE, 'binary', null);
    assert.deepEqual(
      all[1].requests.map(({ path }) => path),
      ['/topics/t/partitions/0'],
    );
  });

  it('goes on at once, and stays, where nothing happened', async () => {
    for (const fault of [NOT_LEADER, SHUTTING_DOWN, 'down'] as const) {
      const all = await cluster(3);
      const client = clientOf(urlsOf(all));
      await client.clusterId();
      if (fault === 'down') await stop(all[0]);
      else all[0].fault = () => fault;
      all[1].fault = () => NOT_LEADER;
      for (let i = 0; i < 3; i++) {
        const [answer] = await client.produceToPartition('t', 1, ONE, 'binary', null);
        assert.equal(answer.error, null);
      }
      assert.equal(client.url, all[2].url);
      assert.equal(all[2].values('t', 1).length, 3);
      if (fault !== 'down') assert.equal(countOf(all[0], 'POST'), 1);
    }
  });

  it('asks each once and then fails with what they answered, as nothing done', async () => {
    const all = await cluster(3);
    const client = clientOf(urlsOf(all));
    all[0].fault = () => NOT_LEADER;
    all[1].fault = (method) => (method === 'POST' ? SHUTTING_DOWN : null);
    await stop(all[2]);
    await assert.rejects(client.produce('t', ONE, 'binary'), (error) => {
      assert(error instanceof RestError);
      assert.deepEqual([error.outcome, error.status, error.errorCode], ['nothing', 503, 50391]);
      return true;
    });
    assert.equal(countOf(all[1], 'POST'), 1);
    assert.equal(all[0].values('t', 0).length, 0);
  });

  it('goes nowhere with what a broker refused, or is too busy for', async () => {
    const all = await cluster(2);
    const client = clientOf(urlsOf(all));
    await assert.rejects(client.getTopic('none'), failing('topic-not-found', 'refused'));
    all[0].fault = () => ({ kind: 'status', status: 429, errorCode: 42990 });
    await assert.rejects(client.produce('t', ONE, 'binary'), failing('overloaded', 'nothing'));
    assert.equal(all[1].requests.length, 0);
  });

  it('sends nothing again that may have happened, but goes elsewhere from then on', async () => {
    const all = await cluster(2);
    const client = clientOf(urlsOf(all));
    await client.clusterId();
    for (const kind of ['drop-after', 'drop'] as const) {
      const [here, there] = client.url === all[0].url ? all : [all[1], all[0]];
      here.fault = (method) => (method === 'POST' ? { kind } : null);
      const before = countOf(there, 'POST');
      await assert.rejects(client.produce('t', ONE, 'binary'), failing('connection-lost', 'unknown'));
      assert.equal(countOf(there, 'POST'), before, kind);
      assert.equal(client.url, there.url, kind);
      here.fault = () => null;
    }
    all[0].fault = () => ({ kind: 'status', status: 504, errorCode: 50490 });
    await assert.rejects(client.produce('t', ONE, 'binary'), failing('deadline-exceeded', 'unknown'));
    assert.equal(all[0].values('t', 0).length, 1);
  });

  it('reads on at another broker whatever broke off', async () => {
    const all = await cluster(2);
    const client = clientOf(urlsOf(all), 300);
    await client.produceToPartition('t', 0, ONE, 'binary', null);
    for (const fault of [
      { kind: 'drop' },
      { kind: 'drop-after' },
      { kind: 'status', status: 504, errorCode: 50490 },
      NOT_LEADER,
    ] as Fault[]) {
      const here = client.url === all[0].url ? all[0] : all[1];
      here.fault = (_, path) => (path.endsWith('/records') ? fault : null);
      const records = await client.fetch('t', 0, 0, { bytesMax: 1000, waitMs: 0, embedded: 'binary' });
      assert.equal(records.length, 1, fault.kind);
      assert.notEqual(client.url, here.url, fault.kind);
      here.fault = () => null;
    }
    // A broker that hangs.
    const here = client.url === all[0].url ? all[0] : all[1];
    here.delayMs = 3_000;
    assert.equal(
      (await client.fetch('t', 0, 0, { bytesMax: 1000, waitMs: 0, embedded: 'binary' })).length,
      1,
    );
    assert.notEqual(client.url, here.url);
  });

  it('never mixes two clusters', async () => {
    const [ours] = await cluster(1);
    const [other] = await cluster(1);
    other.clusterId = 'other';
    const client = clientOf([ours.url, other.url]);
    await client.produceToPartition('t', 0, ONE, 'binary', null);
    ours.fault = () => NOT_LEADER;
    await assert.rejects(client.produce('t', ONE, 'binary'), failing('cluster-mismatch', 'refused'));
    await stop(ours);
    await assert.rejects(client.getTopic('t'), failing('cluster-mismatch', 'refused'));
    assert.equal(countOf(other, 'POST') + countOf(other, 'GET'), 0);
  });

  it('takes one URL in several spellings as one broker, and refuses what is none', async () => {
    const [only] = await cluster(1);
    const client = clientOf([only.url, `${only.url}/`, only.url.replace('http:', 'HTTP:')]);
    only.fault = (method) => (method === 'POST' ? NOT_LEADER : null);
    await assert.rejects(client.produce('t', ONE, 'binary'), failing('not-leader', 'nothing'));
    assert.equal(countOf(only, 'POST'), 1);
    assert.throws(() => new RestClient([only.url, 'ftp://x']), failing('invalid-url', 'refused'));
    assert.throws(() => new RestClient([]), failing('invalid-url', 'refused'));
  });
});

describe('a record sender before several brokers', () => {
  async function send(client: RestClient, idempotent: boolean, disturb: (i: number) => void | Promise<void>) {
    const sender = new RecordSender({
      client,
      topic: 't',
      partitionCount: 4,
      embedded: 'binary',
      clock: systemClock,
      random: seededRandom(3),
      batchRecordsMax: 5,
      inFlightMax: 3,
      producer: idempotent ? await client.allocateProducerId() : null,
    });
    for (let i = 0; i < 400; i++) {
      await disturb(i);
      const room = sender.add({ key: null, value: Buffer.from(String(i)), partition: i % 4 });
      if (room !== undefined) await room;
      if (i % 40 === 39) await sender.flush();
    }
    await sender.flush();
    return sender.counts;
  }

  function assertOnceInOrder(server: FakeRestServer): void {
    for (let p = 0; p < 4; p++) {
      assert.deepEqual(
        server.values('t', p),
        Array.from({ length: 100 }, (_, i) => String(i * 4 + p)),
        `partition ${p}`,
      );
    }
  }

  it('appends each record once and in order while brokers stop, and single records find no leader', async () => {
    const all = await cluster(3);
    const client = clientOf(urlsOf(all));
    const counts = await send(client, false, async (i) => {
      if (i === 80) all[0].fault = () => SHUTTING_DOWN;
      if (i === 160) await stop(all[0]);
      if (i === 200)
        all[1].fault = (method) =>
          method === 'POST' ? { kind: 'record-errors', errorCode: 50392, message: 'moved' } : null;
    });
    assertOnceInOrder(all[2]);
    assert.equal(counts.acknowledged, 400);
    assert.equal(counts.unknown + counts.failed, 0);
    assert.equal(client.url, all[2].url);
  });

  it('appends each record once when idempotent, though replies are lost at every broker in turn', async () => {
    const all = await cluster(3);
    let n = 0;
    for (const server of all) {
      server.fault = (method, path) => {
        if (method !== 'POST' || !path.startsWith('/topics')) return null;
        n++;
        if (n % 5 === 1) return { kind: 'drop-after' };
        if (n % 5 === 3) return { kind: 'drop' };
        return n % 7 === 4 ? NOT_LEADER : null;
      };
    }
    const counts = await send(clientOf(urlsOf(all)), true, () => undefined);
    assertOnceInOrder(all[0]);
    assert.equal(counts.acknowledged, 400);
    for (const server of all) assert(countOf(server, 'POST') > 10, 'all take part');
  });
});

describe('a client with a zone', () => {
  const random = { ...seededRandom(1), unit: () => 0 };

  it('asks once for its brokers, goes to a live one, and back to the given one when that goes', async () => {
    const [given, near, dead] = await cluster(3);
    given.brokers = [
      given.row(1),
      dead.row(2, { rack: 'z2', state: 'dead' }),
      near.row(3, { rack: 'z2' }),
      near.row(4, { rack: 'z2', host: null, port: null }),
      near.row(5, { rack: 'z2', port: 0 }),
    ];
    const client = clientOf(given.url);
    assert.equal(await client.useZone('z2', random), near.url);
    for (let i = 0; i < 3; i++) await client.produceToPartition('t', 0, ONE, 'binary', null);
    assert.equal(countOf(near, 'POST'), 3);
    assert.equal(countOf(given, 'POST'), 0);
    assert.equal(given.requests.filter(({ path }) => path.includes('/brokers')).length, 1);
    assert.equal(dead.requests.length, 0);
    await stop(near);
    await client.produceToPartition('t', 0, ONE, 'binary', null);
    assert.equal(client.url, given.url);
  });

  it('stays at the one given where nobody of the zone lives, answers, or is of this cluster', async () => {
    const [given, gone] = await cluster(2);
    const [other] = await cluster(1);
    other.clusterId = 'other';
    given.brokers = [
      gone.row(2, { rack: 'z2' }),
      other.row(3, { rack: 'z2' }),
      given.row(4, { rack: 'z3', state: 'leaving' }),
    ];
    await stop(gone);
    const client = clientOf(given.url);
    for (const zone of ['z2', 'z3', 'nowhere', 'a&b=c'])
      assert.equal(await client.useZone(zone, random), null, zone);
    await client.produceToPartition('t', 0, ONE, 'binary', null);
    assert.equal(countOf(given, 'POST'), 1);
    assert(given.requests.some(({ path }) => path.endsWith('/brokers?zone=a%26b%3Dc')));
  });

  it('takes the given one where that is of the zone, and spreads over several', async () => {
    const all = await cluster(4);
    all[0].brokers = all.map((server, i) => server.row(i));
    const used = new Set<string | null>();
    for (const unit of [0, 0.3, 0.6, 0.99]) {
      used.add(await clientOf(all[0].url).useZone('z1', { ...random, unit: () => unit }));
    }
    assert.deepEqual([...used].sort(), urlsOf(all).sort());
  });

  it('does not leave https:// for an address that is advertised for http://', async () => {
    const client = clientOf('https://127.0.0.1:9');
    assert.equal(await client.useZone('z2', random), null);
  });
});
