/** The block reader: who shares a GET, what happens when callers go or the store fails, and that bounds hold. */
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import { seededRandom } from '../../../../src/core/random.ts';
import { BLOCK, KEPT, settled, setup, unavailable, withCode } from './block-reader-rig.ts';

describe('block reader: who shares a GET', () => {
  it('gives one GET to all who ask while it runs', async () => {
    const { store, told, reader, bodies } = await setup({ a: 10_000 });
    store.isHeld = true;
    const reads = [
      reader.read('a', 0, 3000),
      reader.read('a', 2500, 100),
      reader.read('a', 1500, 3000),
      reader.read('a', 0, 5000),
      ...Array.from({ length: 20 }, () => reader.read('a', 2000, 10)),
    ];
    await settled();
    assert.deepEqual(store.said, ['a 0+3000', 'a 3000+2000']);
    for (const call of store.calls) call.go();
    const all = await Promise.all(reads);
    assert.ok(all[2].equals(bodies.a.subarray(1500, 4500)));
    assert.ok(all[3].equals(bodies.a.subarray(0, 5000)));
    assert.ok(all.slice(4).every((bytes) => bytes.equals(bodies.a.subarray(2000, 2010))));
    assert.deepEqual([told.misses, told.joins, told.hits], [5, 1 + 2 + 5 + 20, 0]);
    assert.equal(store.calls.length, 2);
  });

  it('lets one of two go without harm to the other', async () => {
    const { store, reader, bodies } = await setup({ a: 10_000 });
    store.isHeld = true;
    const first = new AbortController();
    const one = reader.read('a', 0, 10, { signal: first.signal });
    const two = reader.read('a', 500, 10, { signal: new AbortController().signal });
    first.abort();
    await assert.rejects(one, withCode('object-store-unavailable'));
    assert.equal(store.calls[0].signal!.aborted, false);
    store.calls[0].go();
    assert.ok((await two).equals(bodies.a.subarray(500, 510)));
    assert.equal(store.calls.length, 1);
  });

  it('gives a GET up when the last caller has gone, and the next caller gets a new one', async () => {
    const { store, told, reader, check } = await setup({ a: 10_000 });
    store.isHeld = true;
    const gone = [new AbortController(), new AbortController()];
    const reads = gone.map(({ signal }) => reader.read('a', 0, 10, { signal }));
    const long = reader.read('a', 0, 9000, { signal: gone[0].signal });
    for (const controller of gone) controller.abort();
    for (const read of [...reads, long]) await assert.rejects(read, withCode('object-store-unavailable'));
    await settled();
    assert.deepEqual(
      store.calls.map((call) => call.signal!.aborted),
      [true, true],
    );
    assert.equal(reader.bytes, 0);
    store.isHeld = false;
    await check('a', 0, 10);
    assert.equal(store.calls.length, 3);
    assert.deepEqual(told.failures, []);
  });

  it('does not join the dying GET of a store that is slow to give up', async () => {
    const { store, reader, check } = await setup({ a: 10_000 });
    store.isHeld = true;
    store.heedsSignal = false;
    const gone = new AbortController();
    const read = reader.read('a', 0, 10, { signal: gone.signal });
    gone.abort();
    await assert.rejects(read, withCode('object-store-unavailable'));
    assert.equal(reader.bytes, BLOCK, 'the bytes are held until the store has ended');
    store.isHeld = false;
    await check('a', 0, 10);
    assert.equal(store.calls.length, 2);
    store.calls[0].go();
    await settled();
    assert.equal(reader.bytes, KEPT);
    await check('a', 0, 20);
    assert.equal(store.calls.length, 2);
  });

  it('asks nothing for a caller that has gone already', async () => {
    const { store, reader } = await setup({ a: 100 });
    await assert.rejects(
      reader.read('a', 0, 10, { signal: AbortSignal.abort() }),
      withCode('object-store-unavailable'),
    );
    assert.equal(store.calls.length, 0);
  });

  it('leaves no listeners on the signals of callers', async () => {
    const { check, reader } = await setup({ a: 10_000 });
    const warnings: Error[] = [];
    const onWarning = (warning: Error): unknown => warnings.push(warning);
    process.on('warning', onWarning);
    const { signal } = new AbortController();
    await Promise.all(Array.from({ length: 50 }, () => reader.read('a', 0, 10, { signal })));
    for (let i = 0; i < 50; i++) await reader.read('a', i * 100, 10, { signal });
    await check('a', 0, 10);
    await settled();
    process.off('warning', onWarning);
    assert.deepEqual(warnings, []);
    assert.deepEqual(getEventListeners(signal, 'abort'), []);
  });
});

describe('block reader: failures', () => {
  it('tells all who wait, caches nothing, and reads anew', async () => {
    const { store, told, reader, check } = await setup({ a: 10_000 });
    store.isHeld = true;
    const reads = [reader.read('a', 0, 10), reader.read('a', 500, 1000), reader.read('a', 0, 9000)];
    await settled();
    for (const call of store.calls) call.go(unavailable());
    for (const read of reads) await assert.rejects(read, withCode('object-store-unavailable'));
    assert.equal(reader.bytes, 0);
    assert.deepEqual(told.failures.length, 3);
    store.isHeld = false;
    store.calls.length = 0;
    await check('a', 0, 10);
    await check('a', 500, 1000);
    assert.deepEqual(store.said, ['a 0+1000', 'a 1000+1000']);
  });

  it('fails a read of which one GET of two fails, keeps nothing waiting, and recovers', async () => {
    const { store, reader, check } = await setup({ a: 10_000 });
    await check('a', 1000, 10);
    store.isHeld = true;
    const read = reader.read('a', 0, 3000);
    await settled();
    assert.deepEqual(store.said.slice(1), ['a 0+1000', 'a 2000+1000']);
    store.calls[1].go(unavailable());
    await assert.rejects(read, withCode('object-store-unavailable'));
    await settled();
    assert.equal(store.calls[2].signal!.aborted, true);
    assert.equal(reader.bytes, KEPT);
    store.isHeld = false;
    await check('a', 0, 3000);
  });

  it("fails with the GET of an object's last block, and recovers", async () => {
    const { store, reader, check } = await setup({ a: 4321 });
    store.isHeld = true;
    const reads = [reader.read('a', 4000, 300), reader.read('a', 4000, 400)];
    store.calls[0].go(unavailable());
    for (const read of reads) await assert.rejects(read, withCode('object-store-unavailable'));
    assert.deepEqual([store.calls.length, reader.bytes], [1, 0]);
    store.isHeld = false;
    await check('a', 4000, 300);
  });

  it('lets an error that is no operating error through as it is', async () => {
    const { store, reader, told } = await setup({ a: 4321 });
    store.isHeld = true;
    const read = reader.read('a', 0, 300);
    store.calls[0].go(new TypeError('a bug'));
    await assert.rejects(read, TypeError);
    assert.deepEqual(told.failures, []);
    store.isHeld = false;
    await assert.rejects(reader.read('../etc', 0, 300), withCode('invalid-request'));
  });

  it('closes: all who wait are told, later reads too, and the store is closed', async () => {
    const { store, reader } = await setup({ a: 10_000 }, { readsInFlightMax: 1 });
    store.isHeld = true;
    const reads = [reader.read('a', 0, 10), reader.read('a', 1000, 10), reader.read('a', 0, 9000)];
    await settled();
    assert.equal(store.calls.length, 1);
    await Promise.all([reader.close(), reader.close()]);
    for (const read of reads) await assert.rejects(read, withCode('object-store-unavailable'));
    await assert.rejects(reader.read('a', 0, 10), withCode('object-store-unavailable'));
    await settled();
    assert.deepEqual([store.isClosed, reader.bytes, store.calls.length], [true, 0, 1]);
  });
});

describe('block reader: bounds', () => {
  it('runs so many GETs at a time, in the order of arrival, and refuses beyond what may wait', async () => {
    const { store, told, reader } = await setup({ a: 50_000 }, { readsInFlightMax: 2, readsWaitingMax: 3 });
    store.isHeld = true;
    const order: number[] = [];
    const reads = [0, 2, 4, 6, 8].map((block) =>
      reader.read('a', block * BLOCK, 10).then(() => void order.push(block)),
    );
    await assert.rejects(reader.read('a', 10_000, 10), withCode('overloaded'));
    await assert.rejects(reader.read('a', 10_000, 9000), withCode('overloaded'));
    assert.equal(told.refusals, 2);
    const joined = reader.read('a', 8 * BLOCK, 20);
    for (let i = 0; i < 5; i++) {
      await settled();
      assert.equal(store.calls.length, Math.min(i + 2, 5));
      store.calls[i].go();
    }
    await Promise.all([...reads, joined]);
    assert.deepEqual(order, [0, 2, 4, 6, 8]);
    assert.equal(store.runningMax, 2);
    store.isHeld = false;
    assert.equal((await reader.read('a', 10_000, 10)).length, 10);
  });

  it('gives the places of those who went while they waited to others', async () => {
    const { store, reader, check } = await setup({ a: 50_000 }, { readsInFlightMax: 1, readsWaitingMax: 2 });
    store.isHeld = true;
    const running = reader.read('a', 0, 10);
    const gone = new AbortController();
    const waiting = [1, 2].map((block) => reader.read('a', block * BLOCK, 10, { signal: gone.signal }));
    await assert.rejects(reader.read('a', 5000, 10), withCode('overloaded'));
    gone.abort();
    for (const read of waiting) await assert.rejects(read, withCode('object-store-unavailable'));
    const next = reader.read('a', 5000, 10);
    store.calls[0].go();
    await running;
    await settled();
    store.calls[1].go();
    await next;
    assert.deepEqual(store.said, ['a 0+1000', 'a 5000+1000']);
    store.isHeld = false;
    await check('a', 1000, 10);
  });

  it('lets those behind start when one that waited for bytes goes', async () => {
    const { store, reader } = await setup({ a: 50_000 }, { budgetBytes: 10 * BLOCK });
    store.isHeld = true;
    const gone = new AbortController();
    const running = reader.read('a', 0, 5000);
    const large = reader.read('a', 10_000, 8000, { signal: gone.signal });
    const small = reader.read('a', 30_000, 10);
    await settled();
    assert.equal(store.calls.length, 1);
    gone.abort();
    await assert.rejects(large, withCode('object-store-unavailable'));
    assert.deepEqual(store.said, ['a 0+5000', 'a 30000+1000']);
    for (const call of store.calls) call.go();
    await Promise.all([running, small]);
  });

  it('serves a read of several GETs even where only one may run and none wait', async () => {
    const { store, check } = await setup({ a: 50_000 }, { readsInFlightMax: 1, readsWaitingMax: 0 });
    await check('a', 1000, 10);
    await check('a', 3000, 10);
    await check('a', 0, 5000);
    assert.equal(store.runningMax, 1);
    assert.deepEqual(store.said.slice(2), ['a 0+1000', 'a 2000+1000', 'a 4000+1000']);
  });

  it('evicts what was not used for longest, within the budget', async () => {
    const { store, told, reader, check } = await setup({ a: 50_000 }, { budgetBytes: 3 * KEPT + BLOCK });
    for (const block of [0, 2, 4]) await check('a', block * BLOCK, 10);
    assert.equal(reader.bytes, 3 * KEPT);
    await check('a', 0, 10);
    await check('a', 6 * BLOCK, 10);
    assert.equal(told.evictedBytes, BLOCK);
    assert.equal(reader.bytes, 3 * KEPT);
    store.calls.length = 0;
    for (const block of [0, 4, 6]) await check('a', block * BLOCK, 10);
    assert.equal(store.calls.length, 0);
    await check('a', 2 * BLOCK, 10);
    assert.equal(store.calls.length, 1);
  });

  it('leaves a view as it was when its block is evicted', async () => {
    const { check, bodies } = await setup({ a: 50_000 }, { budgetBytes: KEPT });
    const view = await check('a', 0, 1000);
    for (let i = 1; i < 20; i++) await check('a', i * BLOCK, 1000);
    assert.ok(view.equals(bodies.a.subarray(0, 1000)));
  });

  it('counts what is being read: cached blocks make room, and the rest waits', async () => {
    const budgetBytes = 20 * BLOCK;
    const { store, reader, check } = await setup({ a: 90_000 }, { budgetBytes, readsInFlightMax: 10 });
    for (let i = 0; i < 13; i++) await check('a', i * BLOCK, 10);
    const cachedBytes = reader.bytes;
    assert.equal(cachedBytes, 13 * KEPT);
    store.isHeld = true;
    store.calls.length = 0;
    const reads = [
      reader.read('a', 20_000, 9000),
      reader.read('a', 30_000, 9000),
      reader.read('a', 40_000, 9000),
    ];
    const small = reader.read('a', 50_000, 10);
    await settled();
    assert.equal(store.calls.length, 2, 'the third does not fit, and nobody overtakes it');
    assert.ok(reader.bytes <= budgetBytes && reader.bytes >= 18 * BLOCK);
    store.calls[1].go();
    await reads[1];
    await settled();
    assert.deepEqual(store.said.slice(2), ['a 40000+9000', 'a 50000+1000']);
    for (const call of store.calls) call.go();
    await Promise.all([...reads, small]);
    assert.ok(reader.bytes <= budgetBytes);
  });

  it('reads anything, with the bytes of a plain get and within its bounds', async () => {
    const random = seededRandom(20);
    const objects = { a: 1, b: 999, c: 1000, d: 1001, e: 12_345, f: 40_000, g: 8000 };
    const budgetBytes = 12 * KEPT;
    const { store, reader, bodies, told } = await setup(objects, { budgetBytes, readsInFlightMax: 3 });
    const keys = Object.keys(objects) as (keyof typeof objects)[];
    const one = async (): Promise<void> => {
      const key = keys[random.below(keys.length)];
      const size = objects[key];
      const position = random.below(size + 3);
      const length = random.below([5, 500, 5000, 12_000][random.below(4)]);
      const gone = new AbortController();
      const isGone = random.below(8) === 0;
      const read = reader.read(key, position, length, { signal: gone.signal });
      assert.ok(reader.bytes <= budgetBytes);
      if (isGone) setImmediate(() => gone.abort());
      const [result] = await Promise.allSettled([read]);
      assert.ok(reader.bytes <= budgetBytes);
      if (result.status === 'fulfilled') {
        assert.ok(length === 0 || position + length <= size, `${key} ${position}+${length}`);
        assert.ok(result.value.equals(bodies[key].subarray(position, position + length)));
      } else if (!isGone || result.reason.code !== 'object-store-unavailable') {
        assert.ok(position + length > size, `${key} ${position}+${length}: ${result.reason}`);
        withCode('corrupt-object')(result.reason);
      }
    };
    const worker = async (): Promise<void> => {
      for (let i = 0; i < 400; i++) await one();
    };
    await Promise.all(Array.from({ length: 12 }, worker));
    assert.ok(store.runningMax <= 3);
    assert.ok(told.hits > 500 && told.joins > 100 && told.evictedBytes > 0, JSON.stringify(told));
    await settled();
    assert.equal(store.running, 0);
  });
});
