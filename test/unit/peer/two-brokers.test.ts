/**
 * Two brokers on the same stores, each with some of the shards, over real doors: whatever is asked of either is
 * answered as if one broker held all, and what cannot be is refused or unknown, and truly so.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { systemClock } from '../../../src/core/clock.ts';
import { shardOf } from '../../../src/core/ids.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import { MemoryMetadataState } from '../../../storage/metadata/memory/memory-metadata-state.ts';
import { MemoryMetadataStore } from '../../../storage/metadata/memory/memory-metadata-store.ts';
import type { Topic } from '../../../storage/metadata/metadata-store.ts';
import { MemoryObjectStore } from '../../../storage/objects/memory-object-store.ts';
import { BrokerWithDoor } from '../../support/broker-with-door.ts';
import { type HttpAnswer, httpCall } from '../../support/http-call.ts';
import { SHARDS } from '../../support/inline-broker.ts';

const JSON_V2 = 'application/vnd.kafka.json.v2+json';
const PARTITIONS = 12;

let a: BrokerWithDoor;
let b: BrokerWithDoor;
let topic: Topic;
/** Partitions of a's shards (0), and of b's (1, 2). */
let atA: number[];
let atB: number[];

beforeEach(async () => {
  const metadata = new MemoryMetadataStore(new MemoryMetadataState());
  const cluster = await metadata.initCluster({
    clusterId: 'c',
    storeIncarnation: 's',
    ...oneGroup(SHARDS),
    createdAtMs: 1,
  });
  const objects = new MemoryObjectStore(systemClock);
  a = new BrokerWithDoor(cluster, metadata, objects, 'a', [0]);
  b = new BrokerWithDoor(cluster, metadata, objects, 'b', [1, 2]);
  await Promise.all([a.start(), b.start()]);
  topic = await a.store.createTopic({ name: 't', partitionCount: PARTITIONS, configs: {}, createdAtMs: 1 });
  const all = Array.from({ length: PARTITIONS }, (_, partition) => partition);
  atA = all.filter((partition) => shardOf(topic.topicId, partition, oneGroup(SHARDS)) === 0);
  atB = all.filter((partition) => shardOf(topic.topicId, partition, oneGroup(SHARDS)) !== 0);
  assert.ok(atA.length > 1 && atB.length > 1);
});

afterEach(async () => {
  await Promise.all([a.close(), b.close()]);
  assert.deepEqual([...a.internalErrors, ...b.internalErrors], []);
});

function produce(
  to: BrokerWithDoor,
  records: readonly { partition?: number; value: unknown }[],
  headers: Record<string, string> = {},
  path = '/topics/t',
): Promise<HttpAnswer> {
  const body = JSON.stringify({ records });
  return httpCall(`${to.url}${path}`, { body, headers: { 'content-type': JSON_V2, ...headers } });
}

async function valuesOf(at: BrokerWithDoor, partition: number, query = 'offset=0'): Promise<unknown[]> {
  const { status, json } = await httpCall(`${at.url}/topics/t/partitions/${partition}/records?${query}`);
  assert.equal(status, 200, JSON.stringify(json));
  json.forEach((record: { offset: number }, i: number) => {
    assert.equal(record.offset, i);
  });
  return json.map((record: { value: unknown }) => record.value);
}

describe('two brokers', () => {
  it('commit records of both in one request, and both read all of them', async () => {
    const records = Array.from({ length: PARTITIONS * 2 }, (_, i) => ({
      partition: i % PARTITIONS,
      value: i,
    }));
    const { status, json } = await produce(a, records);
    assert.equal(status, 200);
    assert.deepEqual(
      json.offsets,
      records.map(({ partition }, i) => ({ partition, offset: i < PARTITIONS ? 0 : 1 })),
    );
    for (const at of [a, b]) {
      for (const partition of [atA[0], atB[0]]) {
        assert.deepEqual(await valuesOf(at, partition), [partition, partition + PARTITIONS]);
        const offsets = await httpCall(`${at.url}/topics/t/partitions/${partition}/offsets?timestamp=0`);
        assert.equal(offsets.json.end_offset, 2);
        assert.equal(offsets.json.offset, 0);
      }
    }
    assert.equal(a.counter('forwardedAppendsTotal'), atB.length);
    assert.equal(b.counter('receivedAppendsTotal'), atB.length);
    assert.ok(a.counter('forwardedReadsTotal') > 0 && b.counter('forwardedReadsTotal') > 0);
  });

  it('keep the order of one client through the wrong broker', async () => {
    const count = 300;
    const text = Array.from({ length: count }, (_, i) => {
      const body = JSON.stringify({ records: [{ value: i }] });
      return (
        `POST /topics/t/partitions/${atB[0]} HTTP/1.1\r\nHost: h\r\nContent-Type: ${JSON_V2}\r\n` +
        `Content-Length: ${body.length}\r\n\r\n${body}`
      );
    });
    const { RawClient } = await import('../../support/http-door-harness.ts');
    const client = new RawClient(Number(a.address.split(':')[1]));
    for (let i = 0; i < count; i += 10) {
      client.send(text.slice(i, i + 10).join(''));
      if (i % 50 === 0) await pause(3);
    }
    await client.until((got) => got.split('"offset":').length === count + 1);
    client.destroy();
    const values = Array.from({ length: count }, (_, i) => i);
    assert.deepEqual(await valuesOf(b, atB[0]), values);
    assert.ok(a.counter('forwardMessagesTotal') < count / 2, 'they were gathered');
  });

  it('know an idempotent producer again, whichever broker it asks', async () => {
    const path = `/topics/t/partitions/${atB[0]}`;
    const send = (to: BrokerWithDoor, value: string, sequence: number) =>
      produce(
        to,
        [{ value }],
        {
          'streamhouse-producer-id': '5',
          'streamhouse-producer-epoch': '0',
          'streamhouse-producer-sequence': String(sequence),
        },
        path,
      );
    assert.equal((await send(a, 'x', 0)).json.offsets[0].offset, 0);
    assert.equal((await send(b, 'y', 1)).json.offsets[0].offset, 1);
    assert.equal((await send(a, 'x', 0)).json.offsets[0].offset, 0, 'a duplicate');
    const gap = await send(a, 'z', 9);
    assert.deepEqual([gap.status, gap.json.code], [409, 'out-of-order-sequence']);
    assert.deepEqual(await valuesOf(a, atB[0]), ['x', 'y']);
  });

  it('wake a long poll at the wrong broker by a commit at the right one', async () => {
    const startMs = performance.now();
    const polled = valuesOf(a, atB[0], 'offset=0&timeout=20000');
    await pause(100);
    await produce(b, [{ partition: atB[0], value: 'new' }]);
    assert.deepEqual(await polled, ['new']);
    assert.ok(performance.now() - startMs < 5000);
    const empty = performance.now();
    assert.deepEqual(await valuesOf(a, atB[1], 'offset=0&timeout=300'), []);
    assert.ok(performance.now() - empty >= 290);
  });

  it("answer what the holder's answer is: out of range, binary, as much as was asked for", async () => {
    await produce(b, [{ partition: atB[0], value: 'v' }]);
    const url = `${a.url}/topics/t/partitions/${atB[0]}/records`;
    const range = await httpCall(`${url}?offset=100`);
    assert.deepEqual([range.status, range.json.code, range.json.end_offset], [416, 'offset-out-of-range', 1]);
    const binary = await httpCall(url, { headers: { accept: 'application/vnd.kafka.binary.v2+json' } });
    assert.equal(Buffer.from(binary.json[0].value, 'base64').toString(), '"v"');
    assert.equal((await httpCall(`${url}?offset=x`)).status, 400);
  });

  it('say who they are and what they hold, and tell each other', async () => {
    const peer = { agentId: 'b', incarnation: b.inline.agent.incarnation, address: b.address, zone: 'z' };
    assert.deepEqual(
      (await a.client.held(peer)).map(({ shard }) => shard),
      [1, 2],
    );
    const notice = { leaving: false, shards: [{ shard: 0, epoch: 1 }] };
    await a.client.notify(peer, notice);
    assert.deepEqual(b.notices, [{ from: a.inline.agent.incarnation, ...notice }]);
    const { incarnation } = peer;
    assert.deepEqual(await a.client.who(b.address), {
      kind: 'answered',
      clusterId: 'c',
      agentId: 'b',
      incarnation,
    });
    await assert.rejects(a.client.held({ ...peer, incarnation: 999 }), { code: 'not-leader' });
  });
});

describe('a topic that was deleted and made anew through another broker', () => {
  /** Through b, while a has it in its cache. */
  async function makeAnew(partitionCount: number): Promise<Topic> {
    for (const at of [a, b]) await valuesOf(at, 0);
    await b.store.deleteTopic('t');
    await a.inline.appendTopicDeleted(topic.topicId, [0]);
    await b.inline.appendTopicDeleted(topic.topicId, [1, 2]);
    await b.store.forgetDeletedTopic(topic.topicId);
    return b.store.createTopic({ name: 't', partitionCount, configs: {}, createdAtMs: 2 });
  }

  for (const place of ['it holds', 'another holds'] as const) {
    for (const what of ['offsets', 'records'] as const) {
      it(`is the new one to a broker with the old one in its cache: ${what} of a partition that ${place}`, async () => {
        const old = Array.from({ length: PARTITIONS }, (_, partition) => ({ partition, value: 'old' }));
        await produce(a, [...old, ...old]);
        await makeAnew(PARTITIONS);
        const records = old.map(({ partition }) => ({ partition, value: `new ${partition}` }));
        assert.equal((await produce(b, records)).status, 200);
        assert.equal(a.store.peekTopic('t')?.topicId, topic.topicId);
        const partition = (place === 'it holds' ? atA : atB)[0];
        if (what === 'records') assert.deepEqual(await valuesOf(a, partition), [`new ${partition}`]);
        else {
          const { json } = await httpCall(`${a.url}/topics/t/partitions/${partition}/offsets?timestamp=0`);
          assert.deepEqual([json.end_offset, json.offset], [1, 0]);
        }
      });
    }
  }

  it('is read by a broker that knows it through one that still has the old one', async () => {
    const anew = await makeAnew(PARTITIONS);
    assert.equal(a.store.peekTopic('t')?.topicId, topic.topicId);
    const ofA = Array.from({ length: PARTITIONS }, (_, partition) => partition).find((partition) => {
      return shardOf(anew.topicId, partition, oneGroup(SHARDS)) === 0;
    }) as number;
    assert.deepEqual(await valuesOf(b, ofA), []);
    await produce(b, [{ partition: ofA, value: 'new' }]);
    assert.deepEqual(await valuesOf(b, ofA), ['new']);
  });

  it('wakes who waits for the old one, with what the new one has', async () => {
    const [here, there] = [atA[0], atB[0]];
    const polls = [a, b].flatMap((at) =>
      [here, there].map((partition) =>
        httpCall(`${at.url}/topics/t/partitions/${partition}/records?offset=0&timeout=20000`),
      ),
    );
    await pause(100);
    await makeAnew(PARTITIONS);
    await pause(100);
    await produce(b, [
      { partition: here, value: 'new' },
      { partition: there, value: 'new' },
    ]);
    for (const { status, json } of await Promise.all(polls)) {
      assert.equal(status, 200, JSON.stringify(json));
      assert.deepEqual(
        json.map((record: { value: unknown }) => record.value),
        ['new'],
      );
    }
  });
});

describe('a handover between two brokers', () => {
  it('holds requests up and refuses none; each record is there once, in order', async () => {
    const shard = shardOf(topic.topicId, atB[0], oneGroup(SHARDS));
    const acked: number[] = [];
    let stop = false;
    const writing = (async () => {
      for (let i = 0; !stop; i++) {
        const { status, json } = await produce(i % 2 === 0 ? a : b, [{ partition: atB[0], value: i }]);
        if (status === 200) {
          assert.equal(json.offsets[0].offset, acked.length);
          acked.push(i);
        } else assert.equal(json.outcome, 'none', JSON.stringify(json));
      }
    })();
    const more = async () => {
      const count = acked.length + 5;
      await a.inline.until(() => acked.length >= count);
    };
    await more();
    await b.handOver(shard, a);
    await more();
    await a.handOver(shard, b);
    await more();
    stop = true;
    await writing;
    assert.deepEqual(await valuesOf(a, atB[0]), acked);
    assert.deepEqual(await valuesOf(b, atB[0]), acked);
  });

  it('ends a long poll at the old holder, or moves it on', async () => {
    const shard = shardOf(topic.topicId, atB[0], oneGroup(SHARDS));
    await produce(b, [{ partition: atB[0], value: 'first' }]);
    const through = httpCall(`${a.url}/topics/t/partitions/${atB[0]}/records?offset=1&timeout=20000`);
    await pause(100);
    const startMs = performance.now();
    await b.handOver(shard, a);
    await produce(b, [{ partition: atB[0], value: 'second' }]);
    const answer = await through;
    assert.ok(performance.now() - startMs < 8000);
    if (answer.status === 200) assert.ok(answer.json.length <= 1);
    else assert.deepEqual([answer.status, answer.json.code], [503, 'not-leader']);
    assert.deepEqual(await valuesOf(b, atB[0]), ['first', 'second']);
  });
});

describe('a broker that is gone', () => {
  it('costs a refusal, until another one takes its shards; nothing is acknowledged that is not there', async () => {
    await produce(a, [{ partition: atB[0], value: 0 }]);
    await b.close();
    const refused = await produce(a, [{ partition: atB[0], value: 1 }]);
    assert.ok([503, 504].includes(refused.status), String(refused.status));
    const here = await produce(a, [{ partition: atA[0], value: 'a' }]);
    assert.equal(here.status, 200, 'its own shards go on');
    const read = await httpCall(`${a.url}/topics/t/partitions/${atB[0]}/offsets`);
    assert.deepEqual([read.status, read.json.code], [503, 'not-leader']);
    for (const shard of [1, 2]) {
      a.shards.add(shard);
      a.inline.take(shard);
    }
    const later = await produce(a, [{ partition: atB[0], value: 2 }]);
    assert.equal(later.status, 200);
    const values = await valuesOf(a, atB[0]);
    assert.deepEqual(
      values.filter((value) => value !== 1),
      [0, 2],
    );
    if (refused.json.outcome === 'none') assert.equal(values.length, 2);
  });

  it('is told apart from one that is stopped by who asks', async () => {
    const { address } = b;
    await b.close();
    assert.deepEqual(await a.client.who(address), { kind: 'refused' });
    const { createServer } = await import('node:net');
    const mute = createServer(() => undefined);
    const stranger = createServer((socket) =>
      socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n'),
    );
    const portOf = (server: typeof mute) =>
      new Promise<number>((resolve) => {
        server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port));
      });
    const silent = await a.client.who(`127.0.0.1:${await portOf(mute)}`, 200);
    assert.deepEqual(silent, { kind: 'no-answer' });
    assert.deepEqual(await a.client.who(`127.0.0.1:${await portOf(stranger)}`), { kind: 'stranger' });
    mute.close();
    stranger.close();
  });
});
