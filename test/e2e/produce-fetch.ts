/**
 * The way of a record, over HTTP against the real process, as a function over the backends for objects and metadata.
 * Owns: what must hold on every backend. Does not own: the backends (produce-fetch.test).
 *
 * The processes run with the smallest checkpoints and caches that settings allow, so that restarts read
 * checkpoint and tail, and reads go through pages and cold objects.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { metricSum } from '../../bench/metrics-text.ts';
import { type OutgoingRecord, type RecordAnswer, RestClient } from '../../src/client/rest-client.ts';
import { partitionOfKeyBytes } from '../../src/core/partitioner.ts';
import { BrokerProcess } from '../support/broker-process.ts';
import { httpCall } from '../support/http-call.ts';
import type { MetadataPlace } from '../support/metadata-places.ts';
import { readPartition } from '../support/record-ledger.ts';

/** A place for objects, for one suite. */
export interface ObjectPlace {
  /** For `serve --objects`; null: a directory beside the metadata. */
  url: string | null;
  env: Readonly<Record<string, string>>;
  /** Objects in it. */
  count(directory: string): Promise<number>;
  end(): Promise<void>;
}

const JSON_V2 = { 'content-type': 'application/vnd.kafka.json.v2+json' };
const SMALL = [
  ...['--flush-window', '10ms', '--checkpoint-log-bytes', '4KiB', '--checkpoint-interval', '1s'],
  ...['--index-bytes', '1MiB', '--tail-cache-bytes', '1MiB', '--block-cache-bytes', '1MiB'],
  ...['--lanes', '2', '--log-level', 'warn'],
];

/** Offsets of answers that must all be there. */
function offsetsOf(answers: readonly RecordAnswer[]): number[] {
  return answers.map((answer) => {
    assert.equal(answer.error, null);
    return (answer as { offset: number }).offset;
  });
}

/** Where the broker of a suite keeps everything. */
interface Places {
  objects: ObjectPlace;
  metadata: MetadataPlace;
  /** Of the metadata store. */
  url: string;
}

class Rig {
  readonly place: ObjectPlace;
  readonly #places: Places;
  readonly directory: string;
  broker!: BrokerProcess;
  client!: RestClient;

  constructor(places: Places, directory: string) {
    this.#places = places;
    this.place = places.objects;
    this.directory = directory;
  }

  args(): string[] {
    const objects = this.place.url === null ? [] : ['--objects', this.place.url];
    const { metadata, url } = this.#places;
    return ['--data', this.directory, '--metadata', url, ...metadata.args, ...objects, ...SMALL];
  }

  get env(): Record<string, string> {
    return { ...this.#places.objects.env, ...this.#places.metadata.env };
  }

  async start(): Promise<void> {
    this.broker = await BrokerProcess.start(this.args(), { env: this.env });
    this.client = new RestClient(this.broker.url);
  }

  async stop(): Promise<void> {
    await this.client.close();
    const end = await this.broker.stop();
    assert.equal(end.code, 0, `SIGTERM ends in order: ${end.signal} ${end.log.join('\n')}`);
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  async metric(name: string, labels: Record<string, string> = {}): Promise<number> {
    const value = metricSum(await this.client.metricsText(), `streamhouse_${name}`, labels);
    assert.notEqual(value, null, `there is a metric ${name}`);
    return value as number;
  }

  /** Records of one partition of a new topic, binary, one request each `perRequest`. */
  async fill(topic: string, count: number, bytes: number, perRequest: number): Promise<Buffer[]> {
    await this.client.createTopic({ name: topic, partitionCount: 1 });
    const values = Array.from({ length: count }, (_, i) => Buffer.alloc(bytes, `${topic} ${i} `));
    for (let i = 0; i < count; i += perRequest) {
      const records = values.slice(i, i + perRequest).map((value) => ({ value }));
      const answers = await this.client.produceToPartition(topic, 0, records, 'binary', null);
      assert.deepEqual(
        offsetsOf(answers),
        records.map((_, j) => i + j),
      );
    }
    return values;
  }
}

/** Everything that must hold on a pair of backends. */
export function produceFetchSuite(
  name: string,
  openObjects: () => Promise<ObjectPlace>,
  openMetadata: () => Promise<MetadataPlace>,
): void {
  describe(`produce and fetch over HTTP, ${name}`, () => {
    let rig: Rig;
    let places: Places;
    before(async () => {
      const metadata = await openMetadata();
      places = { objects: await openObjects(), metadata, url: await metadata.freshUrl() };
      rig = new Rig(places, await mkdtemp(join(tmpdir(), 'streamhouse-e2e-')));
      await rig.start();
    });
    after(async () => {
      // Whatever could not be started: what was, ends, or the process would wait for it.
      try {
        await rig.stop();
      } finally {
        await places.objects.end();
        await places.metadata.end();
      }
      await rm(rig.directory, { recursive: true });
    });
    recordTests(() => rig);
    topicTests(() => rig);
    waitTests(() => rig);
    producerTests(() => rig);
    restartTests(() => rig);
  });
}

function recordTests(rig: () => Rig): void {
  it('gives keys, values and nulls back exactly, as JSON', async () => {
    const { client } = rig();
    await client.createTopic({ name: 'json', partitionCount: 1 });
    const records: OutgoingRecord[] = [
      { key: 'k', value: { a: [1, 2.5, null, true], b: '' } },
      { value: 'no key' },
      { key: null, value: null },
      { key: { nested: ['key'] }, value: 0 },
      { key: '', value: '' },
      { key: 'ключ 🔑', value: 'значение \u0000 \u2028 \\ " 🎉 é' },
      { key: false, value: [] },
    ];
    assert.deepEqual(
      offsetsOf(await client.produceToPartition('json', 0, records, 'json', null)),
      [0, 1, 2, 3, 4, 5, 6],
    );
    const read = await client.fetch('json', 0, 0, { bytesMax: 1 << 20, waitMs: 0, embedded: 'json' });
    assert.deepEqual(
      read.map(({ offset, key, value }) => ({ offset, key, value })),
      records.map(({ key, value }, offset) => ({ offset, key: key ?? null, value })),
    );
    const now = Date.now();
    for (const { timestamp, topic, partition } of read) {
      assert.ok(Math.abs(now - timestamp) < 60_000);
      assert.deepEqual([topic, partition], ['json', 0]);
    }
  });

  it('gives JSON back byte by byte: long numbers, spaces, the order of members', async () => {
    const { client, broker } = rig();
    await client.createTopic({ name: 'exact', partitionCount: 1 });
    const values = ['12345678901234567890', '1.0', '{ "b" : 1,\n "a" : 2 }', '"\\u00e9"', '-0', '1e400'];
    const body = `{"records":[${values.map((value) => `{"value":${value}}`).join(',')}]}`;
    const produced = await httpCall(`${broker.url}/topics/exact`, { body, headers: JSON_V2 });
    assert.equal(produced.status, 200, produced.text);
    const { text } = await httpCall(`${broker.url}/topics/exact/partitions/0/records`);
    for (const value of values) assert.ok(text.includes(`"value":${value}}`), `${value} in ${text}`);
  });

  it('gives any bytes back, of any length up to 1 MiB', async () => {
    const { client } = rig();
    await client.createTopic({ name: 'binary', partitionCount: 1 });
    const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    const large = Buffer.alloc(1 << 20);
    for (let i = 0; i < large.length; i += 4) large.writeUInt32LE(Math.imul(i, 2654435761) >>> 0, i);
    const records: OutgoingRecord[] = [
      { key: all, value: all },
      { key: null, value: null },
      { key: Buffer.alloc(0), value: Buffer.alloc(0) },
      { value: large },
      { key: large.subarray(0, 1000), value: large.subarray(1000) },
    ];
    assert.deepEqual(
      offsetsOf(await client.produceToPartition('binary', 0, records, 'binary', null)),
      [0, 1, 2, 3, 4],
    );
    const read = await client.fetch('binary', 0, 0, { bytesMax: 8 << 20, waitMs: 0, embedded: 'binary' });
    assert.equal(read.length, records.length);
    for (const [i, { key, value }] of records.entries()) {
      assert.ok(same(read[i].key, key), `key of ${i}`);
      assert.ok(same(read[i].value, value), `value of ${i}`);
    }
  });

  it('takes 10,000 records in one request, over partitions by their keys, and offsets are dense', async () => {
    const { client } = rig();
    await client.createTopic({ name: 'keyed', partitionCount: 7 });
    const records = Array.from({ length: 10_000 }, (_, i) => ({
      key: Buffer.from(`key ${i % 500}`),
      value: Buffer.from(`v${i}`),
    }));
    const answers = await client.produce('keyed', records, 'binary');
    const expected = Array.from({ length: 7 }, () => [] as string[]);
    for (const [i, answer] of answers.entries()) {
      assert.equal(answer.error, null);
      const partition = partitionOfKeyBytes(records[i].key, 0, records[i].key.length, 7);
      assert.equal(answer.partition, partition);
      assert.equal((answer as { offset: number }).offset, expected[partition].length);
      expected[partition].push(`v${i}`);
    }
    for (let partition = 0; partition < 7; partition++) {
      const { beginning, end } = await client.offsets('keyed', partition);
      assert.deepEqual([beginning, end], [0, expected[partition].length]);
      const read = await client.fetch('keyed', partition, 0, {
        bytesMax: 8 << 20,
        waitMs: 0,
        embedded: 'binary',
      });
      assert.deepEqual(
        read.map(({ value }) => String(value)),
        expected[partition],
      );
    }
  });

  it('gathers 2,000 partitions into few objects, and reads each', async () => {
    const { client, place, directory } = rig();
    await client.createTopic({ name: 'wide', partitionCount: 2000 });
    const objectsBefore = await place.count(directory);
    for (let round = 0; round < 3; round++) {
      const records = Array.from({ length: 2000 }, (_, partition) => ({
        value: `${round}/${partition}`,
        partition,
      }));
      const answers = await client.produce('wide', records, 'json');
      assert.ok(offsetsOf(answers).every((offset) => offset === round));
    }
    const objects = (await place.count(directory)) - objectsBefore;
    assert.ok(objects >= 1 && objects <= 12, `${objects} objects for 6,000 one-record batches`);
    const partitions = Array.from({ length: 2000 }, (_, partition) => partition);
    await Promise.all(
      partitions.map(async (partition) => {
        const read = await readPartition(client, 'wide', partition);
        assert.deepEqual(
          read.map(({ value }) => value),
          [0, 1, 2].map((round) => `${round}/${partition}`),
        );
      }),
    );
  });

  it('reads from any offset, within max_bytes, and past the end with the range', async () => {
    const { client, broker } = rig();
    const values = await rig().fill('ranged', 60, 1000, 1);
    const all = { bytesMax: 1 << 20, waitMs: 0, embedded: 'binary' } as const;
    for (const from of [0, 1, 7, 30, 59]) {
      const read = await client.fetch('ranged', 0, from, all);
      assert.deepEqual(
        read.map(({ offset }) => offset),
        values.map((_, i) => i).slice(from),
      );
      for (const { offset, value } of read) assert.ok(same(value, values[offset]));
    }
    const one = await client.fetch('ranged', 0, 20, { ...all, bytesMax: 1 });
    assert.equal(one[0].offset, 20, 'one batch is read whatever its size');
    const some = await client.fetch('ranged', 0, 20, { ...all, bytesMax: 5000 });
    assert.ok(some.length >= 2 && some.length <= 6, `${some.length} records of 1,000 bytes in 5,000`);
    assert.deepEqual(await client.fetch('ranged', 0, 60, all), []);
    const beyond = await httpCall(`${broker.url}/topics/ranged/partitions/0/records?offset=61`);
    assert.equal(beyond.status, 416);
    assert.deepEqual([beyond.json.beginning_offset, beyond.json.end_offset], [0, 60]);
  });

  it('starts inside a batch of many records', async () => {
    const { client } = rig();
    await rig().fill('batched', 100, 100, 100);
    for (const from of [1, 50, 99]) {
      const all = { bytesMax: 1 << 20, waitMs: 0, embedded: 'binary' } as const;
      const read = await client.fetch('batched', 0, from, all);
      assert.deepEqual([read[0].offset, read.length], [from, 100 - from]);
    }
  });

  it('finds offsets by time', async () => {
    const { client } = rig();
    await client.createTopic({ name: 'timed', partitionCount: 1 });
    const times: number[] = [];
    for (let i = 0; i < 5; i++) {
      await client.produceToPartition('timed', 0, [{ value: i }], 'json', null);
      await sleepMs(15);
    }
    const read = await client.fetch('timed', 0, 0, { bytesMax: 1 << 20, waitMs: 0, embedded: 'json' });
    for (const { timestamp } of read) times.push(timestamp);
    for (const [offset, timestamp] of times.entries()) {
      const first = times.findIndex((time) => time >= timestamp);
      assert.equal(await client.offsetAt('timed', 0, timestamp), first, `at the time of ${offset}`);
      assert.equal(
        await client.offsetAt('timed', 0, timestamp + 1),
        times.findIndex((t) => t > timestamp) < 0 ? 5 : offset + 1,
      );
    }
    assert.equal(await client.offsetAt('timed', 0, 0), 0);
  });
}

function same(a: unknown, b: unknown): boolean {
  if (a === null || a === undefined || b === null || b === undefined) return (a ?? null) === (b ?? null);
  return Buffer.compare(a as Buffer, b as Buffer) === 0;
}

function topicTests(rig: () => Rig): void {
  it('grows a topic; older partitions keep what they have', async () => {
    const { client } = rig();
    await client.createTopic({ name: 'grown', partitionCount: 2 });
    await client.produceToPartition('grown', 1, [{ value: 'old' }], 'json', null);
    assert.equal((await client.growTopic('grown', 5)).partitionCount, 5);
    assert.deepEqual(
      offsetsOf(await client.produceToPartition('grown', 4, [{ value: 'new' }], 'json', null)),
      [0],
    );
    assert.equal((await readPartition(client, 'grown', 1))[0].value, 'old');
    assert.equal((await readPartition(client, 'grown', 4))[0].value, 'new');
    await assert.rejects(client.growTopic('grown', 3), { outcome: 'refused' });
  });

  it('begins a topic that was deleted and made again at 0, and never shows old records', async () => {
    const { client } = rig();
    for (let life = 0; life < 3; life++) {
      await client.createTopic({ name: 'reborn', partitionCount: 1 });
      const records = Array.from({ length: 3 + life }, (_, i) => ({ value: `life ${life} record ${i}` }));
      const answers = await client.produceToPartition('reborn', 0, records, 'json', null);
      assert.equal(offsetsOf(answers)[0], 0);
      assert.deepEqual(
        (await readPartition(client, 'reborn', 0)).map(({ value }) => value),
        records.map(({ value }) => value),
      );
      await client.deleteTopic('reborn');
      await assert.rejects(client.offsets('reborn', 0), { code: 'topic-not-found' });
      await assert.rejects(client.produce('reborn', [{ value: 1 }], 'json'), { code: 'topic-not-found' });
    }
    assert.ok(!(await client.listTopics()).some((topic) => topic.name === 'reborn'));
  });

  it('obeys max.message.bytes of a topic, until it is changed', async () => {
    const { client } = rig();
    const configs = { 'max.message.bytes': '100' };
    await client.createTopic({ name: 'limited', partitionCount: 1, configs });
    const value = Buffer.alloc(101);
    const produce = () => client.produceToPartition('limited', 0, [{ value }], 'binary', null);
    await assert.rejects(produce(), { errorCode: 41390 });
    await client.alterConfigs('limited', { 'max.message.bytes': '101' });
    assert.deepEqual(offsetsOf(await produce()), [0]);
    await client.alterConfigs('limited', { 'max.message.bytes': null });
    assert.deepEqual(offsetsOf(await produce()), [1]);
  });
}

function waitTests(rig: () => Rig): void {
  it('wakes a long poll by the commit, and ends one that nothing comes to', async () => {
    const { client } = rig();
    await client.createTopic({ name: 'polled', partitionCount: 2 });
    const poll = (waitMs: number) =>
      client.fetch('polled', 1, 0, { bytesMax: 1000, waitMs, embedded: 'json' });
    const emptyMs = performance.now();
    assert.deepEqual(await poll(300), []);
    const waitedMs = performance.now() - emptyMs;
    assert.ok(waitedMs >= 290 && waitedMs < 3000, `${waitedMs} ms`);
    const waiting = poll(20_000);
    const beganMs = performance.now();
    await sleepMs(50);
    await client.produceToPartition('polled', 0, [{ value: 'to another partition' }], 'json', null);
    await client.produceToPartition('polled', 1, [{ value: 'woken' }], 'json', null);
    assert.deepEqual(
      (await waiting).map(({ value }) => value),
      ['woken'],
    );
    assert.ok(performance.now() - beganMs < 10_000);
  });

  it('ends a long poll on a topic that is deleted', async () => {
    const { client } = rig();
    await client.createTopic({ name: 'doomed', partitionCount: 1 });
    const beganMs = performance.now();
    const waiting = client.fetch('doomed', 0, 0, { bytesMax: 1000, waitMs: 20_000, embedded: 'json' });
    const ended = assert.rejects(waiting, { code: 'topic-not-found' });
    await sleepMs(50);
    await client.deleteTopic('doomed');
    await ended;
    assert.ok(performance.now() - beganMs < 10_000);
  });
}

function producerTests(rig: () => Rig): void {
  it('answers a repeated batch of a producer with its first offset, refuses gaps and older epochs', async () => {
    await idempotence(rig(), 'idempotent');
  });

  it('does so after a restart as well', async () => {
    const { client } = rig();
    await client.createTopic({ name: 'remembered', partitionCount: 1 });
    const id = await client.allocateProducerId();
    const send = (baseSequence: number, count: number) => {
      const records = Array.from({ length: count }, (_, i) => ({ value: baseSequence + i }));
      return rig().client.produceToPartition('remembered', 0, records, 'json', { ...id, baseSequence });
    };
    for (let batch = 0; batch < 6; batch++) await send(batch * 2, 2);
    await rig().restart();
    assert.deepEqual(offsetsOf(await send(10, 2)), [10, 11]);
    assert.deepEqual(offsetsOf(await send(4, 2)), [4, 5]);
    await assert.rejects(send(14, 1), { errorCode: 40990 });
    assert.deepEqual(offsetsOf(await send(12, 1)), [12]);
    assert.equal((await rig().client.offsets('remembered', 0)).end, 13);
    const next = await rig().client.allocateProducerId();
    assert.ok(next.producerId > id.producerId, 'producer ids are never given twice');
  });
}

async function idempotence(rig: Rig, topic: string): Promise<void> {
  const { client } = rig;
  await client.createTopic({ name: topic, partitionCount: 2 });
  const id = await client.allocateProducerId();
  assert.equal(id.producerEpoch, 0);
  const send = (partition: number, baseSequence: number, producerEpoch = 0) => {
    const records = [{ value: `a${baseSequence}` }, { value: `b${baseSequence}` }];
    const stamp = { producerId: id.producerId, producerEpoch, baseSequence };
    return client.produceToPartition(topic, partition, records, 'json', stamp);
  };
  assert.deepEqual(offsetsOf(await send(0, 0)), [0, 1]);
  assert.deepEqual(offsetsOf(await send(0, 0)), [0, 1]);
  assert.deepEqual(offsetsOf(await send(0, 2)), [2, 3]);
  await assert.rejects(send(0, 6), { errorCode: 40990 });
  // Several of the same at once: one is first, all get its offset.
  const same4 = await Promise.all([send(0, 4), send(0, 4), send(0, 4)]);
  for (const answers of same4) assert.deepEqual(offsetsOf(answers), [4, 5]);
  assert.deepEqual(offsetsOf(await send(1, 0)), [0, 1], 'each partition has its own sequence');
  assert.deepEqual(offsetsOf(await send(0, 0, 1)), [6, 7], 'a newer epoch begins at 0');
  await assert.rejects(send(0, 6, 0), { errorCode: 40991 });
  assert.equal((await client.offsets(topic, 0)).end, 8);
}

function restartTests(rig: () => Rig): void {
  it('gives the same answers after SIGTERM and start: checkpoint, tail, pages, cold objects', async () => {
    const { client } = rig();
    const values = await rig().fill('lasting', 400, 2000, 4);
    await client.createTopic({ name: 'latest-made', partitionCount: 3 });
    const offsets = await offsetsOfAll(rig());
    assert.ok((await rig().metric('checkpoints_total')) > 0, 'checkpoints were written while it ran');
    await rig().restart();
    assert.deepEqual(await offsetsOfAll(rig()), offsets);
    assert.equal((await rig().client.getTopic('latest-made')).partitionCount, 3);
    assert.equal(await rig().metric('index_paged_in_total'), 0, 'a start reads no pages');
    for (let from = 0; from < 400; ) {
      const options = { bytesMax: 100_000, waitMs: 0, embedded: 'binary' } as const;
      const read = await rig().client.fetch('lasting', 0, from, options);
      assert.ok(read.length > 0);
      for (const { offset, value } of read) {
        assert.equal(offset, from++);
        assert.ok(same(value, values[offset]), `record ${offset}`);
      }
    }
    assert.ok((await rig().metric('index_paged_in_total')) > 0, 'pages were read for cold offsets');
    assert.ok((await rig().metric('cold_bytes_total')) > 0, 'objects were read for cold records');
    assert.deepEqual(
      offsetsOf(await rig().client.produceToPartition('lasting', 0, [{ value: null }], 'binary', null)),
      [400],
    );
  });

  it('finds offsets by time after a restart, through pages', async () => {
    const read = await readPartition(rig().client, 'timed', 0);
    for (const { timestamp } of read) {
      const first = read.findIndex((record) => record.timestamp >= timestamp);
      assert.equal(await rig().client.offsetAt('timed', 0, timestamp), first);
    }
  });

  it('refuses a second broker of the same name, or of any on a store for one, with one clear line', async () => {
    const end = await BrokerProcess.startInVain(rig().args(), { env: rig().env });
    assert.notEqual(end.code, 0);
    assert.equal(end.signal, null);
    const lines = end.log.filter((line) => line.startsWith('streamhouse: '));
    assert.equal(lines.length, 1, end.log.join('\n'));
    assert.ok(!end.log.some((line) => /^\s+at /.test(line)), end.log.join('\n'));
    await rig().client.produceToPartition('json', 0, [{ value: 'still here' }], 'json', null);
  });
}

async function offsetsOfAll(rig: Rig): Promise<Record<string, number[]>> {
  const all: Record<string, number[]> = {};
  for (const { name, partitionCount } of await rig.client.listTopics()) {
    const some = Math.min(partitionCount, 50);
    const partitions = Array.from({ length: some }, (_, partition) => partition);
    all[name] = await Promise.all(
      partitions.map(async (partition) => (await rig.client.offsets(name, partition)).end),
    );
  }
  return all;
}
