/**
 * kill -9 at random instants under load, again and again on the same data: after each restart everything that was
 * ever acknowledged is read back once, at its offset, byte by byte. Idempotent producers go on with what they do
 * not know the end of, and have each record exactly once in the end. STREAMHOUSE_TEST_KILL_ROUNDS asks for more
 * rounds than the twenty (a fifth of them on each other metadata store), STREAMHOUSE_TEST_KILL_SEED for another order
 * of things.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { metricSum } from '../../bench/metrics-text.ts';
import { RestClient } from '../../src/client/rest-client.ts';
import { type Random, seededRandom } from '../../src/core/random.ts';
import { BrokerProcess, type ProcessEnd } from '../support/broker-process.ts';
import { METADATA_PLACES, type MetadataPlace, type PlacedScheme } from '../support/metadata-places.ts';
import { ProduceLoad } from '../support/produce-load.ts';
import { RecordLedger } from '../support/record-ledger.ts';

const ROUNDS = Number(process.env.STREAMHOUSE_TEST_KILL_ROUNDS ?? 20);
const SEED = Number(process.env.STREAMHOUSE_TEST_KILL_SEED ?? 1);
const PARTITIONS = 10;
/** From the first acknowledgement after a start to the kill, ms at most. */
const KILL_AFTER_MS_MAX = 300;
/** However slow the store is: some kilobytes of log are soon written. */
const CHECKPOINT_MS_MAX = 20_000;
const LOOK_MS = 20;
/** A start takes about this long; one in five is killed within it. */
const START_MS_USUAL = 600;

/** What differs from round to round, so that the kill meets flushes, commits, checkpoints and starts alike. */
const VARIANTS: readonly string[][] = [
  ['--flush-window', '5ms', '--checkpoint-log-bytes', '4KiB'],
  ['--flush-window', '50ms', '--checkpoint-log-bytes', '4KiB', '--tail-cache-bytes', '1MiB', '--lanes', '2'],
  [
    '--flush-window',
    '20ms',
    '--flush-bytes',
    '64KiB',
    '--uploads-in-flight-max',
    '1',
    '--checkpoint-log-bytes',
    '4KiB',
  ],
  ['--flush-window', '1ms', '--checkpoint-log-bytes', '4KiB', '--index-bytes', '1MiB', '--lanes', '3'],
];

/** A metadata store that the broker finds again after each start. */
interface OpenedPlace extends MetadataPlace {
  url: string;
}

async function openPlace(scheme: PlacedScheme): Promise<OpenedPlace> {
  const place = await METADATA_PLACES[scheme]();
  return { ...place, url: await place.freshUrl() };
}

/** A broker that is killed and started on the same data; `client` is null while there is none. */
class Victim {
  client: RestClient | null = null;
  checkpoints = 0;
  readonly #directory: string;
  readonly #metadata: OpenedPlace;
  readonly #random: Random;
  #broker: BrokerProcess | null = null;
  #starts = 0;

  constructor(directory: string, metadata: OpenedPlace, random: Random) {
    this.#directory = directory;
    this.#metadata = metadata;
    this.#random = random;
  }

  #args(): string[] {
    const variant = VARIANTS[this.#starts++ % VARIANTS.length];
    const { url, args } = this.#metadata;
    const where = ['--data', this.#directory, '--metadata', url, ...args];
    return [...where, '--log-level', 'error', '--shards', '2', ...variant];
  }

  async start(): Promise<RestClient> {
    this.#broker = await BrokerProcess.start(this.#args(), { env: this.#metadata.env });
    this.client = new RestClient(this.#broker.url, { connectionsMax: 32 });
    return this.client;
  }

  /** A start that is cut short: some of them in the middle of taking over, some before. */
  async startInVain(): Promise<void> {
    const killAfterMs = 150 + this.#random.unit() * START_MS_USUAL;
    const { env } = this.#metadata;
    const { signal } = await BrokerProcess.startInVain(this.#args(), { killAfterMs, env });
    assert.equal(signal, 'SIGKILL');
  }

  /** Ends it where it stands, some time after the call; or as long after its first checkpoint, should that be later. */
  async kill(afterCheckpoint: boolean): Promise<void> {
    const { client } = this;
    assert.ok(client !== null);
    const written = async () => metricSum(await client.metricsText(), 'streamhouse_checkpoints_total') ?? 0;
    for (let i = 0; afterCheckpoint && (await written()) === 0; i++) {
      assert.ok(i < CHECKPOINT_MS_MAX / LOOK_MS, `no checkpoint within ${CHECKPOINT_MS_MAX} ms`);
      await sleepMs(LOOK_MS);
    }
    await sleepMs(this.#random.unit() * KILL_AFTER_MS_MAX);
    this.checkpoints += await written();
    // The answer came at a moment when nothing much happens: anything but that.
    await sleepMs(this.#random.unit() * 20);
    this.client = null;
    await this.#broker?.kill();
    await client.close();
  }

  /** SIGTERM, with clients at work. */
  async stopUnderLoad(): Promise<ProcessEnd | undefined> {
    const { client } = this;
    const end = await this.#broker?.stop();
    this.client = null;
    await client?.close();
    return end;
  }

  async stop(): Promise<void> {
    const { client } = this;
    this.client = null;
    await client?.close();
    await this.#broker?.stop();
  }
}

describe('kill -9 under load', () => {
  for (const scheme of Object.keys(METADATA_PLACES) as PlacedScheme[]) {
    const rounds = scheme === 'sqlite' ? ROUNDS : Math.ceil(ROUNDS / 5);
    it(`keeps the promise over ${rounds} rounds on ${scheme}`, (t) => killAgainAndAgain(t, scheme, rounds));
  }
});

async function killAgainAndAgain(t: TestContext, scheme: PlacedScheme, rounds: number): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'streamhouse-kill-'));
  const place = await openPlace(scheme);
  // Of few rounds each must be long enough to mean something.
  const acknowledgedMin = rounds < 20 ? 300 : 20;
  const victim = new Victim(directory, place, seededRandom(SEED));
  const ledger = new RecordLedger('killed');
  const counts = { partitionCount: PARTITIONS, producers: 16, idempotent: 6, padMax: 200, seed: SEED };
  const load = new ProduceLoad({ ledger, ...counts, client: () => victim.client });
  try {
    // One that ends in order writes the compiled modules down, so that the others start sooner.
    await victim.start();
    await victim.stop();
    let client = await victim.start();
    await client.createTopic({ name: ledger.topic, partitionCount: PARTITIONS });
    load.start();
    for (let round = 0; round < rounds; round++) {
      await load.moreAcknowledged(acknowledgedMin, 20_000);
      await victim.kill(round % 4 === 3);
      if (round % 5 === 4) await victim.startInVain();
      client = await victim.start();
      await ledger.check(client, PARTITIONS);
    }
    await load.stop();
    const last = await ledger.check(client, PARTITIONS);
    assert.equal(last.acknowledged + last.refused + last.unknown, ledger.size);
    assert.ok(last.unknown > 0, 'no kill met a request under way: that proves little');
    t.diagnostic(`${JSON.stringify(last)}, ${victim.checkpoints} checkpoints, met ${load.metText()}`);
    assert.ok(victim.checkpoints >= Math.floor(rounds / 4), `only ${victim.checkpoints} checkpoints`);
  } finally {
    load.abandon();
    await victim.stop();
    await place.end();
    await rm(directory, { recursive: true });
  }
}

describe('SIGTERM under load', () => {
  it('ends in order with code 0, and leaves no doubt about requests that it had', async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'streamhouse-term-'));
    const place = await openPlace('sqlite');
    const victim = new Victim(directory, place, seededRandom(SEED));
    const ledger = new RecordLedger('ended');
    const counts = { partitionCount: PARTITIONS, producers: 8, idempotent: 4, seed: SEED };
    const load = new ProduceLoad({ ledger, ...counts, client: () => victim.client });
    try {
      let client = await victim.start();
      await client.createTopic({ name: ledger.topic, partitionCount: PARTITIONS });
      load.start();
      for (let round = 0; round < 4; round++) {
        await load.moreAcknowledged(50, 20_000);
        const end = await victim.stopUnderLoad();
        assert.deepEqual([end?.code, end?.signal], [0, null], end?.log.join('\n'));
        client = await victim.start();
        await ledger.check(client, PARTITIONS);
      }
      await load.stop();
      const last = await ledger.check(client, PARTITIONS);
      for (const code of load.met.keys()) {
        assert.ok(['connection-failed', 'connection-lost', 'shutting-down'].includes(code), load.metText());
      }
      t.diagnostic(`${JSON.stringify(last)}, met ${load.metText()}`);
    } finally {
      load.abandon();
      await victim.stop();
      await place.end();
      await rm(directory, { recursive: true });
    }
  });
});
