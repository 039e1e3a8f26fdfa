/**
 * A cluster that moves from one metadata store to the next, with the real commands, as a function over a list of
 * stores. Owns: what must hold after each move: the same records under the same offsets, producing goes on, duplicates
 * of idempotent producers are known, the store left behind is refused. Does not own: the stores (move-cluster.test).
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { RestClient } from '../../src/client/rest-client.ts';
import { BrokerProcess } from '../support/broker-process.ts';
import { METADATA_PLACES, type MetadataPlace, type PlacedScheme } from '../support/metadata-places.ts';
import { readPartition } from '../support/record-ledger.ts';
import { type CliResult, cli } from '../support/test-shell.ts';

/** A metadata store on the way, empty at first. */
interface OpenedPlace extends MetadataPlace {
  url: string;
}

const SMALL = [
  ...['--flush-window', '10ms', '--checkpoint-log-bytes', '4KiB', '--checkpoint-interval', '1s'],
  ...['--lanes', '2', '--log-level', 'warn', '--flush-slices-max', '20'],
];
const PARTITIONS = 7;
/** So many appends of one record that the log has several pages and checkpoints. */
const TICKS = 300;

class Cluster {
  readonly objects: string;
  /** Every value acknowledged, by topic and partition, in order of offsets. */
  readonly expected = new Map<string, unknown[]>();
  broker!: BrokerProcess;
  client!: RestClient;
  producer = { producerId: 0, producerEpoch: 0 };
  #values = 0;

  constructor(folder: string) {
    this.objects = `file:${join(folder, 'objects')}`;
  }

  args(place: OpenedPlace): string[] {
    return ['--metadata', place.url, '--objects', this.objects, ...SMALL, '--migrate'];
  }

  async start(place: OpenedPlace): Promise<void> {
    this.broker = await BrokerProcess.start(this.args(place), { env: place.env });
    this.client = new RestClient(this.broker.url);
  }

  async stop(): Promise<void> {
    await this.client.close();
    const end = await this.broker.stop();
    assert.equal(end.code, 0, end.log.join('\n'));
  }

  /** Whatever a test that failed left running. */
  async end(): Promise<void> {
    await this.client?.close();
    await this.broker?.kill();
  }

  async produce(topic: string, partition: number, count = 1): Promise<void> {
    const expected = this.#of(topic, partition);
    const records = Array.from({ length: count }, () => ({ value: `${topic} ${++this.#values}` }));
    const answers = await this.client.produceToPartition(topic, partition, records, 'json', null);
    for (const [i, answer] of answers.entries()) {
      assert.equal(answer.error, null);
      assert.equal((answer as { offset: number }).offset, expected.length + i);
    }
    expected.push(...records.map(({ value }) => value));
  }

  #of(topic: string, partition: number): unknown[] {
    const key = `${topic}/${partition}`;
    let list = this.expected.get(key);
    if (!list) this.expected.set(key, (list = []));
    return list;
  }

  /** Record `sequence` of the one idempotent producer: the offset that it is answered with. */
  async produceOnce(sequence: number): Promise<number> {
    const producer = { ...this.producer, baseSequence: sequence };
    const records = [{ value: `once ${sequence}` }];
    const [answer] = await this.client.produceToPartition('once', 0, records, 'json', producer);
    assert.equal(answer.error, null);
    const { offset } = answer as { offset: number };
    const expected = this.#of('once', 0);
    if (offset === expected.length) expected.push(records[0].value);
    return offset;
  }

  async readsEverything(): Promise<void> {
    for (const [key, values] of this.expected) {
      const [topic, partition] = key.split('/');
      const read = await readPartition(this.client, topic, Number(partition));
      assert.deepEqual(
        read.map(({ offset, value }) => [offset, value]),
        values.map((value, offset) => [offset, value]),
        key,
      );
    }
  }

  async topicNames(): Promise<string[]> {
    return (await this.client.listTopics()).map(({ name }) => name).sort();
  }
}

async function copy(from: OpenedPlace, to: OpenedPlace, ...more: string[]): Promise<CliResult> {
  return cli(['metadata', 'copy', '--from', from.url, '--to', to.url, ...more]);
}

/** Moves one cluster through fresh stores of these schemes in their order. */
export function moveClusterSuite(schemes: readonly PlacedScheme[]): void {
  describe(`a cluster moves: ${schemes.join(' -> ')}`, () => {
    let folder: string;
    let cluster: Cluster;
    const opened: OpenedPlace[] = [];
    before(async () => {
      folder = await mkdtemp(join(tmpdir(), 'streamhouse-move-'));
      cluster = new Cluster(folder);
      for (const scheme of schemes) {
        const place = await METADATA_PLACES[scheme]();
        opened.push({ ...place, url: await place.freshUrl() });
      }
    });
    after(async () => {
      await cluster.end();
      for (const place of opened) await place.end();
      await rm(folder, { recursive: true });
    });

    it(`begins on ${schemes[0]}`, async () => {
      await cluster.start(opened[0]);
      await createAndFill(cluster);
      await cluster.readsEverything();
      await cluster.stop();
    });

    for (let step = 1; step < schemes.length; step++) {
      it(`goes on on ${schemes[step]}, step ${step}`, () =>
        move(cluster, opened[step - 1], opened[step], step));
    }

    it('leaves everything as verify wants it, and the stores behind it refused', async () => {
      const last = opened[opened.length - 1];
      const stores = ['--metadata', last.url, '--objects', cluster.objects];
      const verified = await cli(['verify', '--deep', ...stores]);
      assert.equal(verified.code, 0, verified.stdout + verified.stderr);
      for (const place of opened.slice(0, -1)) {
        const end = await BrokerProcess.startInVain(cluster.args(place), { env: place.env });
        assert.equal(end.code, 1);
        assert.match(end.log.join('\n'), /^streamhouse: the metadata store .* was copied to another one/m);
        const reopened = await cli([
          'metadata',
          'reopen',
          '--metadata',
          place.url,
          '--objects',
          cluster.objects,
        ]);
        assert.equal(reopened.code, 1, reopened.stdout);
        assert.match(reopened.stderr, /that was started since: copy that one back instead/);
      }
    });
  });
}

async function createAndFill(cluster: Cluster): Promise<void> {
  const { client } = cluster;
  await client.createTopic({
    name: 'wide',
    partitionCount: PARTITIONS,
    configs: { 'max.message.bytes': '100000' },
  });
  for (const name of ['ticks', 'once', 'deleted']) await client.createTopic({ name, partitionCount: 1 });
  cluster.producer = await client.allocateProducerId();
  for (let partition = 0; partition < PARTITIONS; partition++) await cluster.produce('wide', partition, 50);
  await client.produceToPartition('deleted', 0, [{ value: 'gone' }], 'json', null);
  for (let i = 0; i < TICKS; i++) await cluster.produce('ticks', 0);
  await client.deleteTopic('deleted');
  for (let sequence = 0; sequence < 5; sequence++)
    assert.equal(await cluster.produceOnce(sequence), sequence);
}

async function move(cluster: Cluster, from: OpenedPlace, to: OpenedPlace, step: number): Promise<void> {
  const rehearsed = await copy(from, to, '--keep-source');
  assert.equal(rehearsed.code, 0, rehearsed.stdout + rehearsed.stderr);
  const early = await BrokerProcess.startInVain(cluster.args(to), { env: to.env });
  assert.match(early.log.join('\n'), /holds a copy that was not finished/);

  const moved = await copy(from, to, '--json');
  assert.equal(moved.code, 0, moved.stdout + moved.stderr);
  const report = JSON.parse(moved.stdout);
  assert.equal(report.ok, true);
  assert.equal(report.opened.generation, step + 1);
  const again = await copy(from, to);
  assert.equal(again.code, 1);
  assert.match(again.stderr, /holds the finished copy of/);

  await cluster.start(to);
  await cluster.readsEverything();
  assert.deepEqual(await cluster.topicNames(), ['once', 'ticks', 'wide', ...laterTopics(step - 1)]);
  // The newest record of the idempotent producer again, and then the next one.
  const newest = 4 + (step - 1);
  assert.equal(await cluster.produceOnce(newest), newest, 'a duplicate is known');
  assert.equal(await cluster.produceOnce(newest + 1), newest + 1);
  for (let partition = 0; partition < PARTITIONS; partition++) await cluster.produce('wide', partition, 3);
  for (let i = 0; i < 20; i++) await cluster.produce('ticks', 0);
  const { producerId } = await cluster.client.allocateProducerId();
  assert.notEqual(producerId, cluster.producer.producerId);
  await cluster.client.createTopic({ name: laterTopics(step)[step - 1], partitionCount: 2 });
  await cluster.produce(laterTopics(step)[step - 1], 1);
  await cluster.readsEverything();
  // Every other one dies: what moves next has a log behind its checkpoints, and an agent's row.
  if (step % 2 === 0) await cluster.stop();
  else await cluster.end();
}

function laterTopics(steps: number): string[] {
  return Array.from({ length: steps }, (_, i) => `z-later-${i + 1}`);
}
