/**
 * Bad days of the metadata store, with the routers, lanes and sequencer on this thread: replies lost after and
 * before it happened, a store that is away, full or slow, and a batching worker that ends while the outcome of an
 * append is open. What is acknowledged is there once and stays there, for a successor too; what was refused is not.
 * Owns: what must hold whatever the store is. Does not own: the stores (metadata-store.test).
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { systemClock } from '../../src/core/clock.ts';
import { kindOf } from '../../src/core/errors.ts';
import { seededRandom } from '../../src/core/random.ts';
import { METADATA_METHODS } from '../../storage/metadata/forwarding-metadata-store.ts';
import type { MetadataStore, Topic } from '../../storage/metadata/metadata-store.ts';
import { MemoryObjectStore } from '../../storage/objects/memory-object-store.ts';
import { FaultyMetadataStore, type MetadataCall } from '../support/faulty-metadata-store.ts';
import { FaultyObjectStore } from '../support/faulty-object-store.ts';
import { type InlineAnswer, InlineBroker, SHARDS } from '../support/inline-broker.ts';

const PARTITIONS = 6;

/** `open` gives a store with nothing in it; `close` ends it and whatever it runs on. */
export function badDaysSuite(
  name: string,
  open: () => Promise<{ store: MetadataStore; close(): Promise<void> }>,
): void {
  describe(`bad days of the metadata store: ${name}`, () => badDays(open));
}

function badDays(open: () => Promise<{ store: MetadataStore; close(): Promise<void> }>): void {
  let inner: MetadataStore;
  let closeInner: () => Promise<void>;
  let store: FaultyMetadataStore;
  let objects: FaultyObjectStore;
  let broker: InlineBroker;
  let topic: Topic;
  let answers: Map<string, InlineAnswer>;
  let sent: number;

  beforeEach(async () => {
    ({ store: inner, close: closeInner } = await open());
    await inner.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount: SHARDS, createdAtMs: 1 });
    topic = await inner.createTopic({ name: 't', partitionCount: PARTITIONS, configs: {}, createdAtMs: 1 });
    store = new FaultyMetadataStore(inner);
    objects = new FaultyObjectStore(new MemoryObjectStore(systemClock), systemClock);
    broker = new InlineBroker(store, objects);
    await broker.start();
    answers = new Map();
    sent = 0;
  });

  afterEach(async () => {
    store.heal();
    broker.stop();
    await objects.close();
    await closeInner();
  });

  async function send(timeoutMs?: number): Promise<InlineAnswer> {
    const partition = sent % PARTITIONS;
    const value = `${partition}/${sent++}`;
    const answer = await broker.produce(topic, partition, value, timeoutMs);
    answers.set(value, answer);
    return answer;
  }

  const sendMany = (count: number, timeoutMs?: number): Promise<InlineAnswer[]> =>
    Promise.all(Array.from({ length: count }, () => send(timeoutMs)));

  /** Compares what is read with what was answered, now and by a broker that starts on the same stores. */
  async function check(): Promise<void> {
    store.heal();
    await checkOnce(broker);
    broker.crash();
    await broker.start();
    await checkOnce(broker);
    const other = new InlineBroker(inner, objects);
    broker.stop();
    await other.start();
    await checkOnce(other);
    other.stop();
    assert.deepEqual(broker.fatal, []);
  }

  async function checkOnce(reader: InlineBroker): Promise<void> {
    const found = new Map<string, number>();
    for (let partition = 0; partition < PARTITIONS; partition++) {
      for (const [offset, value] of (await reader.readAll(topic, partition)).entries()) {
        assert.ok(!found.has(value), `${value} is there twice`);
        assert.ok(value.startsWith(`${partition}/`));
        found.set(value, offset);
      }
    }
    for (const [value, { offset, error }] of answers) {
      if (error === null) assert.equal(found.get(value), offset, value);
      else if (kindOf(error.code) !== 'unknown') assert.ok(!found.has(value), `${value}: ${error.code}`);
    }
    assert.equal(broker.produceRouter.inFlightBytes, 0);
  }

  function allAcknowledged(some: readonly InlineAnswer[]): void {
    for (const { error } of some) assert.equal(error, null);
  }

  for (const [what, effect] of Object.entries({
    'after it happened': { kind: 'error-after' },
    'before it happened': { kind: 'error-before', code: 'store-unknown' },
    'without anything': { kind: 'error-before', code: 'store-unavailable' },
    'because its disk is full': { kind: 'error-before', code: 'disk-full' },
  } as const)) {
    it(`acknowledges every append once, though the store fails ${what}, again and again`, async () => {
      allAcknowledged(await sendMany(20));
      for (let round = 0; round < 5; round++) {
        store.inject({ on: 'appendEntries', effect, times: 1 + round });
        allAcknowledged(await sendMany(20));
      }
      await check();
    });
  }

  it('acknowledges every append once, though reading back fails as well', async () => {
    for (let round = 0; round < 4; round++) {
      store.inject({ on: 'appendEntries', effect: { kind: 'error-after' }, times: 2 });
      const code = round % 2 === 0 ? 'store-unknown' : 'store-unavailable';
      store.inject({
        on: ['readHead', 'readEntries'],
        effect: { kind: 'error-before', code: 'store-unavailable' },
        times: 3,
      });
      store.inject({ on: 'appendEntries', effect: { kind: 'error-before', code }, times: 1 });
      allAcknowledged(await sendMany(20));
    }
    await check();
  });

  it('keeps requests while the store is away, up to their deadline, and commits them when it is back', async () => {
    allAcknowledged(await sendMany(6));
    const back = store.inject({ on: () => true, effect: { kind: 'error-before' } });
    const patient = sendMany(30);
    const hasty = await sendMany(30, 150);
    for (const { error } of hasty) assert.equal(error?.code, 'deadline-exceeded');
    assert.ok(broker.produceRouter.inFlightBytes > 0, 'what may still be committed is still counted');
    await sleepMs(300);
    back();
    allAcknowledged(await patient);
    allAcknowledged(await sendMany(6));
    await broker.until(() => broker.produceRouter.inFlightBytes === 0);
    await check();
  });

  it('gathers more into each append of a slow store, and keeps the order', async () => {
    const slow = () =>
      store.inject({ on: 'appendEntries', effect: { kind: 'delay', before: sleepMs(80) }, times: 1 });
    const callsBefore = broker.counters.counter('appendCallsTotal');
    const sending: Promise<InlineAnswer>[] = [];
    for (let i = 0; i < 100; i++) {
      if (i % 25 === 0) slow();
      sending.push(send());
      await sleepMs(3);
    }
    const done = await Promise.all(sending);
    allAcknowledged(done);
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const offsets = done.filter((_, i) => i % PARTITIONS === partition).map(({ offset }) => offset);
      assert.deepEqual(offsets, [...offsets.keys()]);
    }
    assert.ok(broker.counters.counter('appendCallsTotal') - callsBefore < 80);
    await check();
  });

  it('lets a successor find what an append came to whose reply never came', async () => {
    for (const afterSuccess of [true, false, true]) {
      allAcknowledged(await sendMany(6));
      store.inject({ on: 'appendEntries', effect: { kind: 'hang', afterSuccess }, times: 1 });
      const hanging = sendMany(12);
      await sleepMs(50);
      broker.crash();
      for (const { error } of await hanging) assert.equal(error?.code, 'thread-lost');
      store.heal();
      await broker.start();
    }
    allAcknowledged(await sendMany(6));
    await check();
  });

  it('refuses what a full object store does not take, and goes on when there is room', async () => {
    objects.fault = ({ call }) => (call === 'put' ? { kind: 'error', code: 'disk-full' } : undefined);
    for (const { error } of await sendMany(12)) assert.equal(error?.code, 'append-abandoned');
    objects.fault = () => undefined;
    allAcknowledged(await sendMany(12));
    await check();
  });

  it('keeps the promise under every fault of every call at random, with crashes', async (t) => {
    const random = seededRandom(11);
    let injected = 0;
    const at = (chance: number) => () => {
      if (random.unit() > chance) return false;
      injected++;
      return true;
    };
    // No store leaves the outcome of a read open.
    const atWrites = (chance: number) => {
      const isHit = at(chance);
      return ({ method }: MetadataCall) => METADATA_METHODS[method] === 'write' && isHit();
    };
    const counts = { acknowledged: 0, nothing: 0, unknown: 0 };
    // A slow store is asked less in a round.
    for (let round = 0; round < 6 || (injected <= 30 && round < 20); round++) {
      store.inject({ on: at(0.08), effect: { kind: 'error-before' } });
      store.inject({ on: atWrites(0.08), effect: { kind: 'error-before', code: 'store-unknown' } });
      store.inject({ on: atWrites(0.08), effect: { kind: 'error-after' } });
      objects.fault = () => (random.unit() < 0.05 ? { kind: 'error-after-success' } : undefined);
      const sending: Promise<InlineAnswer>[] = [];
      for (let i = 0; i < 60; i++) {
        sending.push(send(3000));
        await sleepMs(2);
      }
      if (round % 2 === 1) {
        broker.crash();
        await broker.start();
      }
      for (const { error } of await Promise.all(sending)) {
        if (error === null) counts.acknowledged++;
        else counts[kindOf(error.code) === 'unknown' ? 'unknown' : 'nothing']++;
      }
      store.heal();
      objects.fault = () => undefined;
      await broker.until(() => broker.produceRouter.inFlightBytes === 0);
    }
    const checkpoints = broker.counters.counter('checkpointsTotal');
    t.diagnostic(`${injected} faults, ${checkpoints} checkpoints, ${JSON.stringify(counts)}`);
    assert.ok(injected > 30 && counts.acknowledged > 100 && checkpoints > 0);
    await check();
  });
}
