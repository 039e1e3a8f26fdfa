/** The block reader: what it asks of the store (GETs are counted there), long slices, and where objects end. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/core/clock.ts';
import { StreamHouseError } from '../../../../src/core/errors.ts';
import { systemRandom } from '../../../../src/core/random.ts';
import {
  BLOCK_KEEPING_BYTES,
  BlockReader,
  CACHED_BLOCKS_PER_READ_MAX,
  COALESCED_BYTES_MAX,
} from '../../../../storage/objects/block-reader.ts';
import { MemoryObjectStore } from '../../../../storage/objects/memory-object-store.ts';
import { OBJECT_BYTES_MAX, type ObjectStore } from '../../../../storage/objects/object-store.ts';
import { openObjectStore } from '../../../../storage/objects/open-object-store.ts';
import { S3_TEST_ENV, startS3Server } from '../../../support/s3-server.ts';
import { BLOCK, KEPT, patterned, settled, setup, Told, withCode } from './block-reader-rig.ts';

Object.assign(process.env, S3_TEST_ENV);

describe('block reader: blocks', () => {
  it('reads an aligned block once and then answers from it, as a view', async () => {
    const { store, told, check } = await setup({ a: 10_000 });
    const one = await check('a', 2100, 50);
    const two = await check('a', 2900, 100);
    assert.deepEqual(store.said, ['a 2000+1000']);
    assert.equal(one.buffer, two.buffer);
    assert.deepEqual([told.misses, told.hits, told.reads, told.readBytes], [1, 1, 1, 1000]);
  });

  it('keeps to the edges of blocks', async () => {
    const { store, check } = await setup({ a: 10_000 });
    await check('a', 1000, 1000);
    await check('a', 1999, 1);
    await check('a', 1000, 1);
    assert.deepEqual(store.said, ['a 1000+1000']);
    await check('a', 999, 1);
    await check('a', 2000, 1);
    assert.deepEqual(store.said.slice(1), ['a 0+1000', 'a 2000+1000']);
    await check('a', 999, 2);
    await check('a', 500, 2000);
    await check('a', 0, 3000);
    assert.equal(store.calls.length, 3);
  });

  it('reads neighbouring missing blocks with one GET, and only those', async () => {
    const { store, told, check } = await setup({ a: 20_000 });
    await check('a', 3500, 4000);
    assert.deepEqual(store.said, ['a 3000+5000']);
    await check('a', 1500, 8000);
    assert.deepEqual(store.said.slice(1), ['a 1000+2000', 'a 8000+2000']);
    assert.deepEqual([told.misses, told.hits], [9, 5]);
  });

  it('bounds one GET for neighbours', async () => {
    const blockBytes = 3 * 1024 * 1024;
    const { store, check } = await setup(
      { a: 4 * blockBytes },
      { blockBytes, budgetBytes: 64 * 1024 * 1024 },
    );
    await check('a', 1, 4 * blockBytes - 1);
    assert.equal(store.calls.length, 2);
    assert.ok(2 * blockBytes <= COALESCED_BYTES_MAX);
    assert.deepEqual(store.said, [`a 0+${2 * blockBytes}`, `a ${2 * blockBytes}+${2 * blockBytes}`]);
  });

  it('does not mix up objects', async () => {
    const { store, check } = await setup({ 'a/1': 5000, 'a/11': 6000, b: 7000 });
    for (const key of ['a/1', 'a/11', 'b']) await check(key, 1000, 900);
    for (const key of ['a/1', 'a/11', 'b']) await check(key, 1100, 100);
    assert.equal(store.calls.length, 3);
  });

  it('keeps a block in memory of its own, not in that of its neighbours', async () => {
    const { check } = await setup({ a: 10_000 });
    await check('a', 0, 5000);
    const view = await check('a', 2000, 10);
    assert.equal(view.buffer.byteLength, BLOCK);
  });

  it('asks nothing for no bytes', async () => {
    const { store, reader } = await setup({ a: 100 });
    assert.equal((await reader.read('a', 50, 0)).length, 0);
    assert.equal((await reader.read('missing', 1e9, 0)).length, 0);
    assert.equal(store.calls.length, 0);
  });

  it('calls nonsense a bug', async () => {
    const { reader } = await setup({ a: 100 });
    for (const [position, length] of [
      [-1, 5],
      [0, -1],
      [0.5, 1],
      [0, Number.NaN],
      [2 ** 53, 1],
    ]) {
      await assert.rejects(reader.read('a', position, length), RangeError);
    }
    const options = { store: new MemoryObjectStore(systemClock), clock: systemClock, observer: new Told() };
    const good = { blockBytes: 1000, budgetBytes: KEPT, readsInFlightMax: 1, readsWaitingMax: 0 };
    new BlockReader({ ...options, ...good });
    for (const bad of [
      { blockBytes: 0 },
      { budgetBytes: KEPT - 1 },
      { readsInFlightMax: 0 },
      { readsWaitingMax: -1 },
    ]) {
      assert.throws(() => new BlockReader({ ...options, ...good, ...bad }), RangeError);
    }
  });
});

describe('block reader: long slices', () => {
  it('reads them as they are, uncached, once for all who ask for the same', async () => {
    const { store, told, reader, bodies } = await setup({ a: 50_000 });
    const length = CACHED_BLOCKS_PER_READ_MAX * BLOCK + 1;
    const [one, two, other] = await Promise.all([
      reader.read('a', 1234, length),
      reader.read('a', 1234, length),
      reader.read('a', 1235, length),
    ]);
    assert.ok(one.equals(bodies.a.subarray(1234, 1234 + length)));
    assert.equal(one.buffer, two.buffer);
    assert.ok(other.equals(bodies.a.subarray(1235, 1235 + length)));
    assert.deepEqual(store.said, [`a 1234+${length}`, `a 1235+${length}`]);
    assert.equal(reader.bytes, 0);
    await reader.read('a', 1234, length);
    assert.equal(store.calls.length, 3);
    assert.equal(told.bypassedBytes, 4 * length);
  });

  it('reads one that is longer than the whole budget, alone, and others after it', async () => {
    const { store, reader, bodies, check } = await setup({ a: 50_000 }, { budgetBytes: 12 * KEPT });
    await check('a', 40_000, 1000);
    store.isHeld = true;
    const before = reader.read('a', 100, 10);
    const long = reader.read('a', 3, 49_000);
    const after = reader.read('a', 45_000, 10);
    assert.equal(store.calls.length, 2, 'the long one waits for those before it');
    store.calls[1].go();
    assert.ok((await before).equals(bodies.a.subarray(100, 110)));
    assert.equal(store.calls.length, 3, 'and those behind it wait for the long one');
    assert.equal(reader.bytes, 49_000, 'beside it nothing is kept');
    store.calls[2].go();
    assert.ok((await long).equals(bodies.a.subarray(3, 49_003)));
    await new Promise((resolve) => setImmediate(resolve));
    store.calls[3].go();
    assert.ok((await after).equals(bodies.a.subarray(45_000, 45_010)));
    assert.ok(reader.bytes <= 12 * KEPT);
  });

  it('caches those of just the bound', async () => {
    const { store, check } = await setup({ a: 50_000 });
    await check('a', 500, CACHED_BLOCKS_PER_READ_MAX * BLOCK);
    await check('a', 500, CACHED_BLOCKS_PER_READ_MAX * BLOCK);
    assert.deepEqual(store.said, ['a 0+9000']);
  });

  it('refuses huge ones and allocates nothing for them', async () => {
    const { store, reader } = await setup({ a: 5000 });
    const before = process.memoryUsage().arrayBuffers;
    await assert.rejects(reader.read('a', 0, OBJECT_BYTES_MAX + 1), withCode('corrupt-object'));
    await assert.rejects(reader.read('a', OBJECT_BYTES_MAX, 1), withCode('corrupt-object'));
    await assert.rejects(
      reader.read('a', Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
      withCode('corrupt-object'),
    );
    assert.equal(store.calls.length, 0);
    await assert.rejects(reader.read('a', 0, 400 * 1024 * 1024), withCode('corrupt-object'));
    await assert.rejects(reader.read('a', 0, 90_000), withCode('corrupt-object'));
    assert.deepEqual(store.said, ['a 0+419430400', 'a 0+90000']);
    assert.ok(process.memoryUsage().arrayBuffers - before < 1024 * 1024);
    assert.equal(reader.bytes, 0);
  });
});

/** The same cases on every kind of store: what a store does with a range beyond the end is its contract. */
const BACKENDS: Record<string, () => Promise<{ store: ObjectStore; stop: () => Promise<void> }>> = {
  memory: async () => ({ store: new MemoryObjectStore(systemClock), stop: async () => undefined }),
  async filesystem() {
    const directory = await mkdtemp(path.join(tmpdir(), 'streamhouse-blocks-'));
    const store = await openObjectStore(`file:${directory}`, { clock: systemClock, random: systemRandom });
    return { store, stop: () => rm(directory, { recursive: true }) };
  },
  async s3() {
    const server = await startS3Server();
    const options = { clock: systemClock, random: systemRandom };
    const store = await openObjectStore(server.url, options);
    return { store, stop: () => server.stop() };
  },
};

describe('block reader: the end of an object', () => {
  for (const [name, open] of Object.entries(BACKENDS)) {
    it(`is where what came ends, on ${name}`, async () => {
      const { store: inner, stop } = await open();
      try {
        const { store, reader, check } = await setup(
          { empty: 0, tiny: 7, short: 990, even: 2000, long: 4321 },
          {},
          inner,
        );
        await check('tiny', 0, 7);
        await check('short', 900, 90);
        await check('short', 5, 10);
        assert.deepEqual(store.said, ['tiny 0+1000', 'short 0+1000']);
        store.calls.length = 0;
        await check('even', 1990, 10);
        assert.deepEqual(store.said, ['even 1000+1000']);
        store.calls.length = 0;
        await check('long', 4320, 1);
        await check('long', 3000, 1321);
        await check('long', 4000, 321);
        assert.deepEqual(store.said, ['long 4000+1000', 'long 3000+1000']);
        for (const [key, position, length] of [
          ['tiny', 0, 8],
          ['tiny', 7, 1],
          ['even', 2000, 1],
          ['even', 1500, 501],
          ['long', 4000, 322],
          ['long', 4321, 1],
          ['long', 0, 6000],
          ['long', 900_000, 10],
          ['long', 0, 9000],
          ['empty', 0, 1],
          ['empty', 0, 9000],
          ['empty', 5000, 1],
        ] as const) {
          await assert.rejects(
            reader.read(key, position, length),
            withCode('corrupt-object'),
            `${key} ${position}`,
          );
        }
        await assert.rejects(reader.read('none', 0, 10), withCode('object-not-found'));
        await assert.rejects(reader.read('none', 0, 9000), withCode('object-not-found'));
        for (const key of ['tiny', 'short', 'even', 'long']) await check(key, 1, 6);
        await check('long', 0, 4321);
        await reader.close();
      } finally {
        await stop();
      }
    });
  }

  it('costs a first small read of a small object one call, and a second none', async () => {
    const { store, told, reader, check } = await setup(
      { a: 10_000 },
      { blockBytes: 256 * 1024, budgetBytes: 2 ** 20 },
    );
    await check('a', 5000, 200);
    assert.deepEqual(store.said, ['a 0+262144']);
    await check('a', 0, 10_000);
    assert.equal(store.calls.length, 1);
    assert.equal(reader.bytes, 10_000 + BLOCK_KEEPING_BYTES, 'charged for what came');
    assert.deepEqual([told.misses, told.hits, told.readBytes], [1, 1, 10_000]);
  });

  it('is reserved as a whole block while nobody knows it, never above the budget', async () => {
    const { store, reader, check } = await setup({ a: 4321, b: 5000 }, { budgetBytes: KEPT });
    await check('b', 0, 10);
    store.isHeld = true;
    const read = reader.read('a', 4000, 321);
    assert.equal(reader.bytes, BLOCK);
    store.calls[1].go();
    await read;
    assert.equal(reader.bytes, 321 + BLOCK_KEEPING_BYTES);
    store.isHeld = false;
    await check('a', 2500, 1821);
    assert.deepEqual(store.said.slice(1), ['a 4000+1000', 'a 2000+1000', 'a 3000+1000']);
    assert.ok(reader.bytes <= KEPT);
  });

  it('cuts a run of blocks short for those who share it, each by what it needs', async () => {
    const { store, told, reader, bodies } = await setup({ a: 2500 });
    store.isHeld = true;
    const beyond = [reader.read('a', 1500, 4000), reader.read('a', 4500, 10), reader.read('a', 2400, 700)];
    const within = reader.read('a', 1200, 1300);
    await settled();
    assert.deepEqual(store.said, ['a 1000+5000']);
    store.calls[0].go();
    assert.ok((await within).equals(bodies.a.subarray(1200)));
    for (const read of beyond) await assert.rejects(read, withCode('corrupt-object'));
    assert.equal(reader.bytes, 1000 + 500 + 2 * BLOCK_KEEPING_BYTES);
    assert.deepEqual(told.failures, [], 'the GET did not fail');
    assert.equal(store.calls.length, 1);
  });

  it('says where the object ends to the one who asked beyond it', async () => {
    const { reader } = await setup({ a: 2500 });
    await assert.rejects(
      reader.read('a', 2400, 200),
      /bytes 2400 to 2600 were asked, beyond its end of 2500/,
    );
  });

  it('is not made up when a store refuses a range that is there', async () => {
    const { store, reader, check } = await setup({ a: 10_000 });
    for (const position of [0, 3000]) {
      store.isHeld = true;
      store.calls.length = 0;
      const read = reader.read('a', position, 10);
      store.calls[0].go(new StreamHouseError('corrupt-object', 'injected'));
      await assert.rejects(read, /injected/);
      assert.equal(store.calls.length, 1);
      assert.equal(reader.bytes, 0);
      store.isHeld = false;
    }
    await check('a', 0, 8000);
  });

  it('makes an error for the one who asked beyond it, not for who shares the block', async () => {
    const { store, reader, bodies } = await setup({ a: 2500 });
    const [good, bad] = await Promise.allSettled([reader.read('a', 2400, 100), reader.read('a', 2400, 101)]);
    assert.ok(good.status === 'fulfilled' && good.value.equals(bodies.a.subarray(2400)));
    assert.ok(bad.status === 'rejected' && withCode('corrupt-object')(bad.reason));
    assert.equal(store.said.filter((said) => said === 'a 2000+1000').length, 1);
  });

  it('is not believed when a reader knows of bytes behind it', async () => {
    const { store, reader } = await setup({ a: 300 });
    await assert.rejects(reader.read('a', 0, 400), withCode('corrupt-object'));
    // Mended by an operator: the whole object is there again.
    await store.delete('a');
    const mended = patterned(700, 1);
    await store.put('a', mended);
    assert.ok((await reader.read('a', 0, 400)).equals(mended.subarray(0, 400)));
    assert.ok((await reader.read('a', 0, 700)).equals(mended));
    assert.equal(reader.bytes, 700 + BLOCK_KEEPING_BYTES);
  });
});
