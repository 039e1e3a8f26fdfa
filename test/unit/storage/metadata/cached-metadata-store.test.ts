/** The races of cached topics and partitions, each made to happen by holding replies back; time is turned by hand. */
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { shardOf } from '../../../../src/core/ids.ts';
import { oneGroup } from '../../../../src/core/shard-layout.ts';
import type { MetadataCacheObserver } from '../../../../storage/metadata/cache/metadata-cache-observer.ts';
import {
  CachedMetadataStore,
  type MetadataCacheSettings,
} from '../../../../storage/metadata/cached-metadata-store.ts';
import { MemoryMetadataState } from '../../../../storage/metadata/memory/memory-metadata-state.ts';
import { MemoryMetadataStore } from '../../../../storage/metadata/memory/memory-metadata-store.ts';
import type { Topic } from '../../../../storage/metadata/metadata-store.ts';
import { FaultyMetadataStore } from '../../../support/faulty-metadata-store.ts';
import { ManualClock, turn } from '../../../support/manual-clock.ts';

const TOPIC = { name: 'a', partitionCount: 3, configs: {}, createdAtMs: 1 };

const SHARDS = 4;

let clock: ManualClock;
let counts: { hit: number; miss: number; eviction: number; staleFill: number };
let kinds: Record<string, number>;
let drops: number;
let slow: FaultyMetadataStore;
let cached: CachedMetadataStore;
/** Another broker on the same data. */
let other: MemoryMetadataStore;

const observer: MetadataCacheObserver = {
  hit: (kind) => {
    counts.hit++;
    kinds[`${kind} hit`] = (kinds[`${kind} hit`] ?? 0) + 1;
  },
  miss: (kind) => {
    counts.miss++;
    kinds[`${kind} miss`] = (kinds[`${kind} miss`] ?? 0) + 1;
  },
  eviction: () => void counts.eviction++,
  staleFill: () => void counts.staleFill++,
  drop: () => void drops++,
};

function open(settings: Partial<MetadataCacheSettings> = {}): void {
  clock = new ManualClock();
  counts = { hit: 0, miss: 0, eviction: 0, staleFill: 0 };
  kinds = {};
  drops = 0;
  const state = new MemoryMetadataState();
  slow = new FaultyMetadataStore(new MemoryMetadataStore(state));
  other = new MemoryMetadataStore(state);
  cached = new CachedMetadataStore(slow, { clock, observer, layout: oneGroup(SHARDS), settings });
}

/** Holds the next reply of `method` back until `release` is called; the store has done its part by then. */
function holdReply(method: 'getTopic' | 'growTopic' | 'deleteTopic' | 'createTopic' | 'alterTopic') {
  const { promise, resolve } = Promise.withResolvers<void>();
  slow.inject({ on: method, effect: { kind: 'delay', after: promise }, times: 1 });
  return resolve;
}

function readCount(): number {
  return slow.calls.filter(({ method }) => method === 'getTopic').length;
}

describe('CachedMetadataStore', () => {
  beforeEach(() => open());

  it('reads once, then answers from memory, frozen', async () => {
    const made = await other.createTopic(TOPIC);
    assert.equal(cached.peekTopic('a'), undefined);
    assert.deepEqual(counts, { hit: 0, miss: 0, eviction: 0, staleFill: 0 });
    assert.deepEqual(await cached.getTopic('a'), made);
    assert.deepEqual(await cached.getTopic('a'), made);
    assert.deepEqual(cached.peekTopic('a'), made);
    assert.equal(readCount(), 1);
    assert.deepEqual(counts, { hit: 2, miss: 1, eviction: 0, staleFill: 0 });
    assert.throws(() => Object.assign(cached.peekTopic('a')!, { partitionCount: 9 }), TypeError);
    assert.throws(() => Object.assign(cached.peekTopic('a')!.configs, { a: '9' }), TypeError);
  });

  it('makes one read for many who miss the same name, and one per name', async () => {
    await other.createTopic(TOPIC);
    await other.createTopic({ ...TOPIC, name: 'b' });
    const release = holdReply('getTopic');
    const all = [...Array.from({ length: 50 }, () => cached.getTopic('a')), cached.getTopic('b')];
    release();
    const topics = await Promise.all(all);
    assert.equal(readCount(), 2);
    assert.equal(counts.miss, 51);
    assert.deepEqual([topics[0]?.name, topics[49]?.name, topics[50]?.name], ['a', 'a', 'b']);
  });

  it('gives a failed read to all who wait for it and remembers nothing', async () => {
    await other.createTopic(TOPIC);
    slow.inject({ on: 'getTopic', effect: { kind: 'error-before' }, times: 1 });
    const both = await Promise.allSettled([cached.getTopic('a'), cached.getTopic('a')]);
    assert.deepEqual(
      both.map(({ status }) => status),
      ['rejected', 'rejected'],
    );
    assert.equal((await cached.getTopic('a'))?.name, 'a');
    assert.equal(readCount(), 2);
  });

  it('believes a topic for its time to live, from when the read began', async () => {
    await other.createTopic(TOPIC);
    const release = holdReply('getTopic');
    const first = cached.getTopic('a');
    clock.nowMs += 200_000;
    release();
    await first;
    await other.growTopic('a', 4);
    clock.nowMs += 99_999;
    assert.equal((await cached.getTopic('a'))?.partitionCount, 3);
    clock.nowMs += 1;
    assert.equal(cached.peekTopic('a'), undefined);
    assert.equal((await cached.getTopic('a'))?.partitionCount, 4);
  });

  it('finds a topic at once that was created elsewhere, and never says no from memory', async () => {
    assert.equal(await cached.getTopic('a'), null);
    // Within the pace of the read that said no: the look-up waits for a read of its own, and finds it.
    const early = cached.getTopic('a');
    await other.createTopic(TOPIC);
    await clock.pass(99);
    assert.equal(readCount(), 1);
    await clock.pass(1);
    assert.equal((await early)?.name, 'a');
    assert.deepEqual([readCount(), counts.hit, counts.miss], [2, 0, 2]);
    assert.equal(await cached.getTopic('b'), null);
    await other.createTopic({ ...TOPIC, name: 'b' });
    clock.nowMs += 100;
    assert.equal((await cached.getTopic('b'))?.name, 'b');
  });

  it('reads a name that does not exist ten times a second at most, however many ask', async () => {
    assert.equal(await cached.getTopic('a'), null);
    const answers: Promise<unknown>[] = [];
    for (let i = 0; i < 1000; i++) {
      answers.push(cached.getTopic('a'));
      await clock.pass(1);
    }
    await clock.pass(100);
    assert.deepEqual(new Set(await Promise.all(answers)), new Set([null]));
    assert.ok(readCount() <= 12, `${readCount()} reads`);
  });

  it('takes no read for its no that began before the look-up', async () => {
    const release = holdReply('getTopic');
    const older = cached.getTopic('a');
    await turn();
    await other.createTopic(TOPIC);
    const asked = cached.getTopic('a');
    release();
    assert.equal(await older, null);
    assert.equal((await asked)?.name, 'a');
    assert.equal(readCount(), 2);
  });

  it('forgets that a name does not exist when it creates it, even if the reply is lost', async () => {
    assert.equal(await cached.getTopic('a'), null);
    await cached.createTopic(TOPIC);
    assert.equal(cached.peekTopic('a')?.name, 'a');
    assert.equal(await cached.getTopic('b'), null);
    slow.inject({ on: 'createTopic', effect: { kind: 'error-after' }, times: 1 });
    await assert.rejects(cached.createTopic({ ...TOPIC, name: 'b' }), { code: 'store-unknown' });
    assert.equal((await cached.getTopic('b'))?.name, 'b');
  });

  it('does not let a slow read overwrite a newer write', async () => {
    await other.createTopic(TOPIC);
    const release = holdReply('getTopic');
    const slowRead = cached.getTopic('a');
    await cached.growTopic('a', 9);
    release();
    assert.equal((await slowRead)?.partitionCount, 3);
    assert.equal(cached.peekTopic('a')?.partitionCount, 9);
    assert.equal(counts.staleFill, 1);
  });

  it('does not let who comes after a write wait for a read from before it', async () => {
    await other.createTopic(TOPIC);
    const release = holdReply('getTopic');
    const slowRead = cached.getTopic('a');
    slow.inject({ on: 'growTopic', effect: { kind: 'error-after' }, times: 1 });
    await assert.rejects(cached.growTopic('a', 9), { code: 'store-unknown' });
    assert.equal((await cached.getTopic('a'))?.partitionCount, 9);
    release();
    await slowRead;
    assert.equal(cached.peekTopic('a')?.partitionCount, 9);
  });

  it('does not let a slow read bring a deleted topic back', async () => {
    await cached.createTopic(TOPIC);
    clock.nowMs += 300_000;
    const release = holdReply('getTopic');
    const slowRead = cached.getTopic('a');
    await cached.deleteTopic('a');
    release();
    assert.equal((await slowRead)?.name, 'a');
    assert.equal(await cached.getTopic('a'), null);
    assert.equal(cached.peekTopic('a'), undefined);
  });

  it('does not let a slow read hide a topic that was created meanwhile', async () => {
    const release = holdReply('getTopic');
    const slowRead = cached.getTopic('a');
    await cached.createTopic(TOPIC);
    release();
    assert.equal(await slowRead, null);
    assert.equal((await cached.getTopic('a'))?.name, 'a');
  });

  it('serves the new topic when one is deleted and made anew under its name', async () => {
    const first = await cached.createTopic(TOPIC);
    await cached.growTopic('a', 50);
    // The delete's reply comes after that of the create which followed it.
    const release = holdReply('deleteTopic');
    const deleting = cached.deleteTopic('a');
    await cached.createTopic(TOPIC);
    release();
    await deleting;
    const now = await cached.getTopic('a');
    assert(now && now.topicId > first.topicId);
    assert.equal(now.version, 1);
  });

  it('takes a topic made anew by another broker, though its version is lower', async () => {
    await cached.createTopic(TOPIC);
    await cached.growTopic('a', 50);
    await other.deleteTopic('a');
    const second = await other.createTopic(TOPIC);
    assert.equal(cached.peekTopic('a')?.partitionCount, 50);
    clock.nowMs += 300_000;
    assert.deepEqual(await cached.getTopic('a'), second);
  });

  it('keeps neither answer of two writes that ran beside each other', async () => {
    await cached.createTopic(TOPIC);
    const release = holdReply('growTopic');
    const growing = cached.growTopic('a', 9);
    await cached.alterTopic('a', { x: '1' });
    release();
    await growing;
    const topic = await cached.getTopic('a');
    assert.deepEqual([topic?.partitionCount, topic?.configs, topic?.version], [9, { x: '1' }, 3]);
  });

  it('does not let a late reply to a write bring back what a read saw deleted', async () => {
    await cached.createTopic(TOPIC);
    clock.nowMs += 300_000;
    const release = holdReply('growTopic');
    const growing = cached.growTopic('a', 9);
    await other.deleteTopic('a');
    assert.equal(await cached.getTopic('a'), null);
    release();
    await growing;
    assert.equal(await cached.getTopic('a'), null);
  });

  it('reads again once for a partition beyond the count, a tenth of a second apart', async () => {
    await cached.createTopic(TOPIC);
    await other.growTopic('a', 5);
    assert.equal((await cached.getTopicAtLeast('a', 3))?.partitionCount, 3);
    assert.equal(readCount(), 0);
    assert.equal((await cached.getTopicAtLeast('a', 4))?.partitionCount, 5);
    assert.equal((await cached.getTopicAtLeast('a', 6))?.partitionCount, 5);
    assert.equal(readCount(), 2);
    const many = Array.from({ length: 10 }, () => cached.getTopicAtLeast('a', 6));
    await other.growTopic('a', 6);
    await clock.pass(100);
    for (const answer of many) assert.equal((await answer)?.partitionCount, 6);
    assert.equal(readCount(), 3);
    assert.equal(await cached.getTopicAtLeast('none', 1), null);
    assert.deepEqual(kinds, { 'partition hit': 1, 'partition miss': 13 });
  });

  it('believes for a minute that a partition exists, whatever was heard of the topic since', async () => {
    const { topicId } = await cached.createTopic(TOPIC);
    await other.deleteTopic('a');
    await other.createTopic(TOPIC);
    clock.nowMs += 59_999;
    assert.equal((await cached.getTopicAtLeast('a', 1))?.topicId, topicId);
    clock.nowMs += 1;
    assert.equal(cached.peekTopic('a')?.topicId, topicId);
    assert.equal((await cached.getTopicAtLeast('a', 1))?.topicId, topicId + 1);
    assert.equal(cached.peekTopic('a')?.topicId, topicId + 1);
  });

  it("does not take an older read of somebody else's for its one reading", async () => {
    await cached.createTopic(TOPIC);
    clock.nowMs += 300_000;
    const release = holdReply('getTopic');
    const older = cached.getTopic('a');
    await other.growTopic('a', 5);
    const asked = cached.getTopicAtLeast('a', 5);
    release();
    assert.equal((await older)?.partitionCount, 3);
    assert.equal((await asked)?.partitionCount, 5);
  });

  it('keeps what it knows when a store answers with less', async () => {
    const known = { ...TOPIC, topicId: 5, version: 3 };
    const answers = [known, { ...known, topicId: 4, version: 9 }, { ...known, version: 2 }];
    class GoneBackStore extends MemoryMetadataStore {
      override async getTopic() {
        return structuredClone(answers.shift()!);
      }
    }
    const cache = new CachedMetadataStore(new GoneBackStore(), { clock, observer, layout: oneGroup(SHARDS) });
    await cache.getTopic('a');
    for (let i = 1; i <= 2; i++) {
      clock.nowMs += 1000;
      await cache.getTopicAtLeast('a', 99);
      assert.deepEqual(cache.peekTopic('a'), known);
      assert.equal(counts.staleFill, i);
    }
  });

  it('stays within its bounds, and absent names push no topic out', async () => {
    open({ topicCountMax: 3, absentCountMax: 2 });
    for (const name of ['a', 'b', 'c', 'd']) await cached.createTopic({ ...TOPIC, name });
    assert.equal(counts.eviction, 1);
    assert.equal(cached.peekTopic('a'), undefined);
    for (let i = 0; i < 100; i++) assert.equal(await cached.getTopic(`none-${i}`), null);
    assert.equal(counts.eviction, 1);
    assert.equal(cached.peekTopic('d')?.name, 'd');
    assert.equal((await cached.getTopic('a'))?.name, 'a');
    assert.equal(counts.eviction, 2);
  });

  it("sees another broker's change of a topic's settings within the time to live", async () => {
    await cached.createTopic(TOPIC);
    await other.alterTopic('a', { 'max.message.bytes': '9' });
    clock.nowMs += 299_999;
    assert.deepEqual(cached.peekTopic('a')?.configs, {});
    clock.nowMs += 1;
    assert.equal(cached.peekTopic('a'), undefined);
    assert.deepEqual((await cached.getTopic('a'))?.configs, { 'max.message.bytes': '9' });
  });

  it('drops a topic that a request was refused under, with the reads on their way', async () => {
    const first = await cached.createTopic(TOPIC);
    clock.nowMs += 300_000;
    const release = holdReply('getTopic');
    const slowRead = cached.getTopic('a');
    await turn();
    await other.deleteTopic('a');
    const second = await other.createTopic(TOPIC);
    cached.dropTopic(first);
    // Who comes after the drop does not wait for the read from before it, which then changes nothing.
    assert.deepEqual(await cached.getTopic('a'), second);
    release();
    assert.deepEqual(await slowRead, first);
    assert.deepEqual(cached.peekTopic('a'), second);
    assert.equal(counts.staleFill, 1);
    // Late refusals of the first one neither drop the second nor cost a read.
    for (let i = 0; i < 100; i++) cached.dropTopic(first);
    assert.deepEqual(cached.peekTopic('a'), second);
    assert.deepEqual([readCount(), drops], [2, 0]);
    cached.dropTopic(second);
    assert.deepEqual([cached.peekTopic('a'), drops], [undefined, 1]);
  });

  it('reads a dropped name once, however many requests are refused one after another', async () => {
    const first = await cached.createTopic(TOPIC);
    await other.deleteTopic('a');
    await other.createTopic(TOPIC);
    cached.dropTopic(first);
    const release = holdReply('getTopic');
    const asked = [cached.getTopic('a')];
    for (let i = 0; i < 100; i++) {
      cached.dropTopic(first);
      asked.push(cached.getTopic('a'));
    }
    release();
    for (const topic of await Promise.all(asked)) assert.equal(topic?.topicId, first.topicId + 1);
    assert.equal(readCount(), 1);
  });

  it('believes partitions no longer than topics', async () => {
    open({ topicMsMax: 5000 });
    await cached.createTopic(TOPIC);
    clock.nowMs += 4999;
    await cached.getTopicAtLeast('a', 1);
    assert.equal(readCount(), 0);
    clock.nowMs += 1;
    await cached.getTopicAtLeast('a', 1);
    assert.equal(readCount(), 1);
  });

  it('forgets everything when rows of another store are put in', async () => {
    const topic = await cached.createTopic(TOPIC);
    await cached.growTopic('a', 9);
    await cached.importRows({ topics: [topic] });
    assert.equal((await cached.getTopic('a'))?.partitionCount, 3);
  });
});

describe('partition look-ups', () => {
  const leases = (): number => slow.calls.filter(({ method }) => method === 'listLeases').length;

  async function cluster(): Promise<Topic> {
    open();
    await other.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount: SHARDS, createdAtMs: 1 });
    const seen = Array.from({ length: SHARDS }, (_, shard) => ({ shard, holder: 0, epoch: 0 }));
    await other.acquireLeases(7, seen);
    return other.createTopic(TOPIC);
  }

  it('name topic, shard and lease, by one read of each', async () => {
    const topic = await cluster();
    assert.equal(cached.peekPartition('a', 2), undefined);
    const found = await cached.getPartition('a', 2);
    const shard = shardOf(topic.topicId, 2, oneGroup(SHARDS));
    assert.deepEqual([found?.topic, found?.shard, found?.lease.holder], [topic, shard, 7]);
    for (const partition of [0, 1, 2]) {
      const place = cached.peekPartition('a', partition);
      assert.equal(place?.shard, shardOf(topic.topicId, partition, oneGroup(SHARDS)));
      assert.equal(place?.lease.epoch, 1);
      assert.deepEqual(await cached.getPartition('a', partition), place);
    }
    assert.deepEqual([readCount(), leases()], [1, 1]);
    assert.equal((await cached.getPartitionLease(topic.topicId, 2)).shard, shard);
    assert.deepEqual(kinds, { 'partition miss': 1, 'partition hit': 6, 'lease hit': 1 });
  });

  it('read the store once for a partition beyond the count', async () => {
    await cluster();
    await cached.getPartition('a', 0);
    assert.equal(await cached.getPartition('a', 3), null);
    assert.equal(readCount(), 2);
    await other.growTopic('a', 4);
    clock.nowMs += 100;
    assert.equal((await cached.getPartition('a', 3))?.topic.partitionCount, 4);
    assert.equal(await cached.getPartition('none', 0), null);
    assert.deepEqual([readCount(), leases()], [4, 1]);
  });

  it('are believed for a minute', async () => {
    await cluster();
    await cached.getPartition('a', 0);
    clock.nowMs += 59_999;
    assert.ok(cached.peekPartition('a', 0));
    clock.nowMs += 1;
    assert.equal(cached.peekPartition('a', 0), undefined);
    assert.ok(await cached.getPartition('a', 0));
    assert.deepEqual([readCount(), leases()], [2, 2]);
  });
});
