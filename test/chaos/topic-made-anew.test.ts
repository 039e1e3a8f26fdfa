/**
 * Topics that are deleted and made anew at one broker while another one, whose cache still has the old topic, is
 * produced to by name: real routers, lanes and sequencer, two clients of one metadata store. Whatever is
 * acknowledged after the new topic's creation was answered is in the new topic.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { type Clock, systemClock } from '../../src/core/clock.ts';
import { isRetriable, StreamHouseError } from '../../src/core/errors.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import { TopicService } from '../../src/route/topic-service.ts';
import type { MetadataCacheObserver } from '../../storage/metadata/cache/metadata-cache-observer.ts';
import { CachedMetadataStore } from '../../storage/metadata/cached-metadata-store.ts';
import { MemoryMetadataState } from '../../storage/metadata/memory/memory-metadata-state.ts';
import { MemoryMetadataStore } from '../../storage/metadata/memory/memory-metadata-store.ts';
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { MemoryObjectStore } from '../../storage/objects/memory-object-store.ts';
import { FaultyMetadataStore } from '../support/faulty-metadata-store.ts';
import { type InlineAnswer, InlineBroker, SHARDS } from '../support/inline-broker.ts';

const PARTITIONS = 3;
const TOPIC = { name: 't', partitionCount: PARTITIONS, configs: {} };

const ignore = () => undefined;
const OBSERVER: MetadataCacheObserver = {
  hit: ignore,
  miss: ignore,
  eviction: ignore,
  staleFill: ignore,
  drop: ignore,
};

/** The other broker's patience runs out twenty times as fast. */
const HASTY_CLOCK: Clock = {
  ...systemClock,
  after: (delayMs, fire) => systemClock.after(delayMs / 20, fire),
};

describe('a topic deleted and made anew elsewhere', () => {
  let objects: MemoryObjectStore;
  let broker: InlineBroker;
  /** The cache of the broker that is produced to. */
  let here: CachedMetadataStore;
  let elsewhereStore: FaultyMetadataStore;
  /** The other broker's catalogue. */
  let elsewhere: TopicService;
  /** What a deletion has to wait for before it reaches the shards. */
  let beforeAppending: Promise<unknown>;

  beforeEach(async () => {
    const state = new MemoryMetadataState();
    const store = new MemoryMetadataStore(state);
    await store.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount: SHARDS, createdAtMs: 1 });
    here = cachedOver(store);
    objects = new MemoryObjectStore(systemClock);
    broker = new InlineBroker(here, objects);
    broker.topicDeleted = (topic) => here.dropTopic(topic);
    await broker.start();
    beforeAppending = Promise.resolve();
    elsewhereStore = new FaultyMetadataStore(new MemoryMetadataStore(state));
    elsewhere = new TopicService({
      layout: oneGroup(SHARDS),
      store: cachedOver(elsewhereStore),
      clock: HASTY_CLOCK,
      async appendTopicDeleted(topicId) {
        await beforeAppending;
        await broker.appendTopicDeleted(topicId);
      },
      peekedUs: ignore,
      warn: ignore,
    });
  });

  afterEach(async () => {
    elsewhere.stop();
    broker.stop();
    await objects.close();
  });

  function cachedOver(store: MetadataStore): CachedMetadataStore {
    return new CachedMetadataStore(store, {
      clock: systemClock,
      observer: OBSERVER,
      layout: oneGroup(SHARDS),
    });
  }

  /** As the door does: the name from the cache if it is there, else from the store. */
  async function produce(partition: number, value: string): Promise<InlineAnswer> {
    const topic = here.peekTopic('t') ?? (await here.getTopic('t'));
    if (topic) return broker.produce(topic, partition, value);
    return { offset: -1, error: { code: 'topic-not-found', message: 'no topic t' } };
  }

  /** As a client does, which sends what was refused for a moment again. */
  async function produceUntilTaken(partition: number, value: string): Promise<InlineAnswer> {
    for (let tries = 0; ; tries++) {
      const answer = await produce(partition, value);
      if (answer.error === null || tries === 5) return answer;
    }
  }

  async function valuesNow(): Promise<string[]> {
    const topic = await elsewhere.get('t');
    const all = Array.from({ length: PARTITIONS }, (_, partition) => broker.readAll(topic, partition));
    return (await Promise.all(all)).flat();
  }

  it('is refused once under its old id, and the next attempt goes to the new topic', async () => {
    await elsewhere.create(TOPIC);
    assert.deepEqual(await produce(0, 'old'), { offset: 0, error: null });
    await elsewhere.delete('t');
    const second = await elsewhere.create(TOPIC);
    assert.ok((here.peekTopic('t')?.topicId ?? 0) < second.topicId, 'the old topic is still cached here');
    const refused = await produce(0, 'refused');
    assert.ok(refused.error && isRetriable(StreamHouseError.fromPlain(refused.error)), refused.error?.code);
    assert.equal(refused.error.code, 'append-abandoned');
    assert.deepEqual(await produce(0, 'new'), { offset: 0, error: null });
    assert.deepEqual(await valuesNow(), ['new']);
  });

  it('is not deleted by an order for the old one that was held up on its way to the store', async () => {
    await elsewhere.create(TOPIC);
    const held = Promise.withResolvers<void>();
    elsewhereStore.inject({ on: 'deleteTopic', effect: { kind: 'delay', before: held.promise }, times: 1 });
    const late = elsewhere.delete('t');
    await elsewhere.delete('t');
    const second = await elsewhere.create(TOPIC);
    const acknowledged = await produceUntilTaken(0, 'new');
    held.resolve();
    await assert.rejects(late, { code: 'topic-not-found' });
    assert.deepEqual(await elsewhere.get('t'), second);
    assert.equal(acknowledged.offset, 0);
    assert.deepEqual(await valuesNow(), ['new']);
  });

  it('is deleted by name at a broker whose cache has the old one', async () => {
    await elsewhere.create(TOPIC);
    const old = await elsewhere.get('t');
    const direct = new TopicService({
      layout: oneGroup(SHARDS),
      store: here,
      clock: HASTY_CLOCK,
      appendTopicDeleted: (topicId) => broker.appendTopicDeleted(topicId),
      peekedUs: ignore,
      warn: ignore,
    });
    await direct.get('t');
    await elsewhere.delete('t');
    const second = await elsewhere.create(TOPIC);
    assert.equal(here.peekTopic('t')?.topicId, old.topicId);
    await direct.delete('t');
    assert.equal(await here.getTopic('t'), null);
    assert.notEqual(second.topicId, old.topicId);
    direct.stop();
  });

  it('that was deleted and not made anew is not found by the next attempt', async () => {
    await elsewhere.create(TOPIC);
    await produce(0, 'old');
    await elsewhere.delete('t');
    assert.equal((await produce(0, 'refused')).error?.code, 'append-abandoned');
    assert.equal((await produce(0, 'refused')).error?.code, 'topic-not-found');
  });

  it('has its deletion answered when all shards refuse it, or when that takes too long', async () => {
    await elsewhere.create(TOPIC);
    await produce(0, 'old');
    beforeAppending = new Promise((resolve) => setTimeout(resolve, 50));
    await elsewhere.delete('t');
    assert.equal((await produce(0, 'refused')).error?.code, 'append-abandoned');
    await elsewhere.create(TOPIC);
    await produce(0, 'old');
    const { promise, resolve } = Promise.withResolvers<void>();
    beforeAppending = promise;
    await elsewhere.delete('t');
    assert.equal((await produce(0, 'late')).error, null);
    resolve();
    await elsewhere.finishDeletions();
    assert.equal((await produce(0, 'refused')).error?.code, 'append-abandoned');
  });

  it('never swallows what was acknowledged after its creation was answered, again and again under load', async () => {
    await elsewhere.create(TOPIC);
    let acknowledged: string[] = [];
    let sent = 0;
    let stop = false;
    let refusals = 0;
    const writers = Array.from({ length: 4 }, async (_, writer) => {
      while (!stop) {
        const value = `${writer}/${sent++}`;
        // Acknowledged counts for the list of the moment of sending: what is sent later must be in the newer topic.
        const list = acknowledged;
        const { error } = await produce(writer % PARTITIONS, value);
        if (error === null) list.push(value);
        else {
          assert.ok(['append-abandoned', 'topic-not-found'].includes(error.code), error.code);
          refusals++;
        }
      }
    });
    for (let round = 0; round < 15; round++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      await elsewhere.delete('t');
      await elsewhere.create(TOPIC);
      acknowledged = [];
      await broker.until(() => acknowledged.length >= 5);
      const expected = [...acknowledged];
      const values = new Set(await valuesNow());
      for (const value of expected) assert.ok(values.has(value), `${value} was acknowledged and is gone`);
    }
    stop = true;
    await Promise.all(writers);
    assert.ok(refusals > 0, 'no request met the old topic');
  });

  it('is not created anew before the old one is refused by all shards', async () => {
    const first = await elsewhere.create(TOPIC);
    await produce(0, 'old');
    // The other broker dies between the catalogue and the logs: its successor knows nothing of it yet.
    await elsewhereStore.deleteTopic('t');
    assert.deepEqual(await produce(0, 'late'), { offset: 1, error: null });
    const second = await elsewhere.create(TOPIC);
    assert.ok(second.topicId > first.topicId);
    assert.equal((await produce(0, 'refused')).error?.code, 'append-abandoned');
    assert.deepEqual(await produce(0, 'new'), { offset: 0, error: null });
    assert.deepEqual(await valuesNow(), ['new']);
  });

  it('is not created, and nothing happens, while shards cannot be told of the old one', async () => {
    await elsewhere.create(TOPIC);
    broker.crash();
    await elsewhereStore.deleteTopic('t');
    await assert.rejects(elsewhere.create(TOPIC), { code: 'not-leader' });
    await assert.rejects(elsewhere.get('t'), { code: 'topic-not-found' });
    await broker.start();
    await elsewhere.create(TOPIC);
    assert.deepEqual(await produce(0, 'new'), { offset: 0, error: null });
  });

  it('deleted once more while it is being created anew is waited for as well', async () => {
    await elsewhere.create(TOPIC);
    await produce(0, 'old');
    // Between the look for earlier topics and the creation, another client deletes the name.
    const { promise, resolve } = Promise.withResolvers<void>();
    elsewhereStore.inject({ on: 'createTopic', effect: { kind: 'delay', before: promise }, times: 1 });
    const creating = elsewhere.create(TOPIC);
    await elsewhereStore.deleteTopic('t');
    resolve();
    await creating;
    assert.equal((await produce(0, 'refused')).error?.code, 'append-abandoned');
    assert.deepEqual(await produce(0, 'new'), { offset: 0, error: null });
  });
});
