/** The instrumented store, the store that fails on request, the packed references, the URL table. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Clock } from '../../../../src/core/clock.ts';
import { METADATA_METHODS } from '../../../../storage/metadata/forwarding-metadata-store.ts';
import { InstrumentedMetadataStore } from '../../../../storage/metadata/instrumented-metadata-store.ts';
import { MemoryMetadataStore } from '../../../../storage/metadata/memory/memory-metadata-store.ts';
import { decodeReferences, encodeReferences } from '../../../../storage/metadata/object-references.ts';
import { openMetadata } from '../../../../storage/metadata/open-metadata-store.ts';
import { FaultyMetadataStore } from '../../../support/faulty-metadata-store.ts';

const TOPIC = { name: 'a', partitionCount: 3, configs: {}, createdAtMs: 1 };

describe('InstrumentedMetadataStore', () => {
  it('tells method, outcome and duration of every call', async () => {
    let nowMs = 0;
    const clock: Clock = {
      wallMs: () => 0,
      monotonicMs: () => (nowMs += 2),
      after: () => ({ cancel: () => undefined }),
    };
    const seen: unknown[] = [];
    const store = new InstrumentedMetadataStore(new MemoryMetadataStore(), clock, (...call) =>
      seen.push(call),
    );
    await store.createTopic(TOPIC);
    await assert.rejects(store.createTopic(TOPIC), { code: 'topic-exists' });
    await assert.rejects(store.allocateProducerIds(-1), { name: 'AssertionError' });
    await store.close();
    await assert.rejects(store.getTopic('a'), { code: 'store-unavailable' });
    assert.deepEqual(seen, [
      ['createTopic', 'ok', 2],
      ['createTopic', 'topic-exists', 2],
      ['allocateProducerIds', 'bug', 2],
      ['getTopic', 'store-unavailable', 2],
    ]);
  });
});

describe('FaultyMetadataStore', () => {
  it('fails before, after, late and never, as often as told', async () => {
    const inner = new MemoryMetadataStore();
    const store = new FaultyMetadataStore(inner);
    store.inject({ on: 'createTopic', effect: { kind: 'error-before' }, times: 1 });
    store.inject({ on: ['createTopic', 'growTopic'], effect: { kind: 'error-after' }, times: 2 });
    await assert.rejects(store.createTopic(TOPIC), { code: 'store-unavailable' });
    assert.equal(await inner.getTopic('a'), null);
    await assert.rejects(store.createTopic(TOPIC), { code: 'store-unknown' });
    assert.equal((await inner.getTopic('a'))?.name, 'a');
    await assert.rejects(store.growTopic('a', 5), { code: 'store-unknown' });
    assert.equal((await store.growTopic('a', 6)).partitionCount, 6);

    const remove = store.inject({
      on: ({ args }) => args[0] === 'a',
      effect: { kind: 'hang', afterSuccess: true },
    });
    const hanging = store.deleteTopic('a');
    await new Promise(setImmediate);
    assert.equal(await inner.getTopic('a'), null);
    assert.equal(await Promise.race([hanging, 'hangs']), 'hangs');
    remove();
    assert.equal(await store.getTopic('a'), null);

    let open: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => (open = resolve));
    store.inject({ on: 'createTopic', effect: { kind: 'delay', before: gate } });
    const late = store.createTopic(TOPIC);
    await new Promise(setImmediate);
    assert.equal(await inner.getTopic('a'), null);
    open();
    assert.equal((await late).name, 'a');
    assert.equal(store.calls.length, 7);
  });
});

describe('the packed references of an object', () => {
  it('come back as they were', () => {
    for (const shards of [
      [],
      [{ shard: 0, epoch: 0 }],
      Array.from({ length: 256 }, (_, shard) => ({ shard, epoch: shard * 2 ** 40 })),
    ]) {
      assert.deepEqual(decodeReferences(encodeReferences(shards)), shards);
    }
  });

  it('are corrupt-store when they are not whole', () => {
    const bytes = encodeReferences([
      { shard: 3, epoch: 300 },
      { shard: 1000, epoch: 1 },
    ]);
    for (let length = 0; length < bytes.length; length++) {
      assert.throws(() => decodeReferences(bytes.subarray(0, length)), { code: 'corrupt-store' });
    }
    assert.throws(() => decodeReferences(new Uint8Array([...bytes, 0])), { code: 'corrupt-store' });
    assert.throws(() => decodeReferences(new Uint8Array([2, 0])), { code: 'corrupt-store' });
    const huge = new Uint8Array([1, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert.throws(() => decodeReferences(huge), { code: 'corrupt-store' });
  });
});

describe('the list of methods', () => {
  it('is that of the contract', async () => {
    const store = new MemoryMetadataStore();
    const methods = Object.getOwnPropertyNames(MemoryMetadataStore.prototype);
    const expected = methods.filter((name) => name !== 'constructor' && name !== 'close');
    assert.deepEqual(Object.keys(METADATA_METHODS).sort(), expected.sort());
    await store.close();
  });
});

describe('openMetadata', () => {
  it('refuses a URL that cannot be with one clear line', async () => {
    const wrong = [
      '',
      'metadata.sqlite',
      'sqlite:',
      'sqlite://x',
      'memory:x',
      'mysql://root:secret@h/d',
      ':x',
    ];
    wrong.push('toString:x', '__proto__:x', '/tmp/x', 'sqlite:/no/such/folder/metadata.sqlite', 'sqlite:/');
    for (const url of wrong) {
      await assert.rejects(openMetadata(url, { role: 'broker' }), (error: Error & { code?: string }) => {
        assert.equal(error.code, 'invalid-setting', `${url}: ${error}`);
        assert(!error.message.includes('\n') && !error.message.includes('secret'), error.message);
        return true;
      });
    }
  });
});
