/** The cache's races, each made to happen by holding replies back; time is a clock of the test's. */
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import type { Clock } from '../../../../src/core/clock.ts';
import { CachedMetadataStore } from '../../../../storage/metadata/cached-metadata-store.ts';
import { MemoryMetadataState } from '../../../../storage/metadata/memory/memory-metadata-state.ts';
import { MemoryMetadataStore } from '../../../../storage/metadata/memory/memory-metadata-store.ts';
import { FaultyMetadataStore } from '../../../support/faulty-metadata-store.ts';

const TOPIC = { name: 'a', partitionCount: 3, configs: {}, createdAtMs: 1 };

let nowMs: number;
let counts: { hit: number; miss: number; eviction: number; staleFill: number };
let slow: FaultyMetadataStore;
let cached: CachedMetadataStore;
/** Another broker on the same data. */
let other: MemoryMetadataStore;

const clock: Clock = {
  wallMs: () => nowMs,
  monotonicMs: () => nowMs,
  after: () => ({ cancel: () => undefined }),
};

function open(settings = {}): void {
  nowMs = 1000;
  counts = { hit: 0, miss: 0, eviction: 0, staleFill: 0 };
  const state = new MemoryMetadataState();
  slow = new FaultyMetadataStore(new MemoryMetadataStore(state));
  other = new MemoryMetadataStore(state);
  const observer = {
    hit: () => void counts.hit++,
    miss: () => void counts.miss++,
    eviction: () => void counts.eviction++,
    staleFill: () => void counts.staleFill++,
  };
  cached = new CachedMetadataStore(slow, clock, observer, settings);
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
    nowMs += 200_000;
    release();
    await first;
    await other.growTopic('a', 4);
    nowMs += 99_999;
    assert.equal((await cached.getTopic('a'))?.partitionCount, 3);
    nowMs += 1;
    assert.equal(cached.peekTopic('a'), undefined);
    assert.equal((await cached.getTopic('a'))?.partitionCount, 4);
  });

  it('believes for a second that a name does not exist', async () => {
    assert.equal(await cached.getTopic('a'), null);
    await other.createTopic(TOPIC);
    nowMs += 999;
    assert.equal(await cached.getTopic('a'), null);
    assert.deepEqual([readCount(), counts.hit, counts.miss], [1, 1, 1]);
    nowMs += 1;
    assert.equal((await cached.getTopic('a'))?.name, 'a');
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
    nowMs += 300_000;
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
    nowMs += 300_000;
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
    nowMs += 300_000;
    const release = holdReply('growTopic');
    const growing = cached.growTopic('a', 9);
    await other.deleteTopic('a');
    assert.equal(await cached.getTopic('a'), null);
    release();
    await growing;
    assert.equal(await cached.getTopic('a'), null);
  });

  it('reads again once for a partition beyond the count, then believes it for a second', async () => {
    await cached.createTopic(TOPIC);
    await other.growTopic('a', 5);
    assert.equal((await cached.getTopicAtLeast('a', 3))?.partitionCount, 3);
    assert.equal(readCount(), 0);
    assert.equal((await cached.getTopicAtLeast('a', 4))?.partitionCount, 5);
    assert.equal(readCount(), 1);
    for (let i = 0; i < 10; i++) assert.equal((await cached.getTopicAtLeast('a', 6))?.partitionCount, 5);
    assert.equal(readCount(), 2);
    await other.growTopic('a', 6);
    nowMs += 1000;
    assert.equal((await cached.getTopicAtLeast('a', 6))?.partitionCount, 6);
    assert.equal(readCount(), 3);
    assert.equal(await cached.getTopicAtLeast('none', 1), null);
  });

  it("does not take an older read of somebody else's for its one reading", async () => {
    await cached.createTopic(TOPIC);
    nowMs += 300_000;
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
    const observer = {
      hit: () => undefined,
      miss: () => undefined,
      eviction: () => undefined,
      staleFill: () => void counts.staleFill++,
    };
    const cache = new CachedMetadataStore(new GoneBackStore(), clock, observer);
    await cache.getTopic('a');
    for (let i = 1; i <= 2; i++) {
      nowMs += 1000;
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
});
