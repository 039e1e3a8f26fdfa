/**
 * The block reader: what it asks of the store (GETs are counted there), who shares what, where objects end, and
 * that its bounds hold.
 */
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/core/clock.ts';
import { type ErrorCode, StreamHouseError } from '../../../../src/core/errors.ts';
import { seededRandom, systemRandom } from '../../../../src/core/random.ts';
import {
  BLOCK_KEEPING_BYTES,
  BlockReader,
  type BlockReaderObserver,
  type BlockReaderOptions,
  CACHED_BLOCKS_PER_READ_MAX,
  COALESCED_BYTES_MAX,
} from '../../../../storage/objects/block-reader.ts';
import { MemoryObjectStore } from '../../../../storage/objects/memory-object-store.ts';
import {
  type ByteRange,
  type CallOptions,
  givenUp,
  type ListOptions,
  OBJECT_BYTES_MAX,
  type ObjectListing,
  type ObjectStore,
} from '../../../../storage/objects/object-store.ts';
import { openObjectStore } from '../../../../storage/objects/open-object-store.ts';
import { S3_TEST_ENV, startS3Server } from '../../../support/s3-server.ts';

Object.assign(process.env, S3_TEST_ENV);

const BLOCK = 1000;
const KEPT = BLOCK + BLOCK_KEEPING_BYTES;

interface Call {
  readonly key: string;
  /** `position+length`, `whole`, or `list`. */
  readonly what: string;
  readonly signal: AbortSignal | undefined;
  /** Lets the call go on, when the store is held. */
  readonly go: (error?: Error) => void;
  hasEnded: boolean;
}

/** Records the reads of a store, and holds them while `isHeld`. */
class WatchedStore implements ObjectStore {
  readonly calls: Call[] = [];
  isHeld = false;
  /** A held call ends at once when its signal aborts. */
  heedsSignal = true;
  running = 0;
  runningMax = 0;
  isClosed = false;
  readonly #inner: ObjectStore;

  constructor(inner: ObjectStore) {
    this.#inner = inner;
  }

  get description(): string {
    return this.#inner.description;
  }

  get said(): string[] {
    return this.calls.map(({ key, what }) => `${key} ${what}`);
  }

  put(key: string, bytes: Uint8Array): Promise<void> {
    return this.#inner.put(key, bytes);
  }

  get(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    const what = range === undefined ? 'whole' : `${range.position}+${range.length}`;
    return this.#watch(key, what, options?.signal, () => this.#inner.get(key, range, options));
  }

  list(prefix: string, options: ListOptions): Promise<ObjectListing[]> {
    return this.#watch(prefix, 'list', options.signal, () => this.#inner.list(prefix, options));
  }

  delete(key: string): Promise<void> {
    return this.#inner.delete(key);
  }

  async close(): Promise<void> {
    this.isClosed = true;
    await this.#inner.close();
  }

  async #watch<T>(
    key: string,
    what: string,
    signal: AbortSignal | undefined,
    perform: () => Promise<T>,
  ): Promise<T> {
    const gate = Promise.withResolvers<void>();
    const go = (error?: Error): void => (error ? gate.reject(error) : gate.resolve());
    const call: Call = { key, what, signal, go, hasEnded: false };
    this.calls.push(call);
    this.running++;
    this.runningMax = Math.max(this.runningMax, this.running);
    const onAbort = (): void => {
      if (this.heedsSignal) gate.reject(givenUp(`get ${key}`, 'no'));
    };
    signal?.addEventListener('abort', onAbort);
    if (!this.isHeld) gate.resolve();
    try {
      await gate.promise;
      return await perform();
    } finally {
      signal?.removeEventListener('abort', onAbort);
      this.running--;
      call.hasEnded = true;
    }
  }
}

class Told implements BlockReaderObserver {
  hits = 0;
  joins = 0;
  misses = 0;
  bypassedBytes = 0;
  reads = 0;
  readBytes = 0;
  failures: ErrorCode[] = [];
  evictedBytes = 0;
  refusals = 0;
  hit = (blocks: number): unknown => (this.hits += blocks);
  joined = (blocks: number): unknown => (this.joins += blocks);
  miss = (blocks: number): unknown => (this.misses += blocks);
  bypassed = (bytes: number): unknown => (this.bypassedBytes += bytes);
  read = (ms: number, bytes: number): void => {
    assert.ok(ms >= 0);
    this.reads++;
    this.readBytes += bytes;
  };
  failed = (_ms: number, code: ErrorCode): unknown => this.failures.push(code);
  evicted = (bytes: number): unknown => (this.evictedBytes += bytes);
  refused = (): unknown => this.refusals++;
}

function patterned(length: number, seed: number): Buffer {
  const random = seededRandom(seed);
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = random.below(256);
  return bytes;
}

async function setup(
  objects: Record<string, number>,
  options: Partial<Omit<BlockReaderOptions, 'store' | 'observer' | 'clock'>> = {},
  inner: ObjectStore = new MemoryObjectStore(systemClock),
) {
  const store = new WatchedStore(inner);
  const bodies: Record<string, Buffer> = {};
  for (const [key, length] of Object.entries(objects)) {
    bodies[key] = patterned(length, length);
    await store.put(key, bodies[key]);
  }
  const told = new Told();
  const reader = new BlockReader({
    store,
    clock: systemClock,
    blockBytes: BLOCK,
    budgetBytes: 100 * KEPT,
    readsInFlightMax: 4,
    readsWaitingMax: 100,
    ...options,
    observer: told,
  });
  const check = async (key: string, position: number, length: number): Promise<Buffer> => {
    const bytes = await reader.read(key, position, length);
    assert.ok(
      bytes.equals(bodies[key].subarray(position, position + length)),
      `${key} ${position}+${length}`,
    );
    return bytes;
  };
  return { store, reader, told, bodies, check };
}

function withCode(code: ErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof StreamHouseError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  };
}

/** Until everything that can go on without the store has gone on. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
}

const unavailable = (): StreamHouseError => new StreamHouseError('object-store-unavailable', 'injected');

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
    await assert.rejects(reader.read('a', 0, 400 * 1024 * 1024), withCode('item-too-large'));
    assert.equal(store.calls.length, 0);
    await assert.rejects(reader.read('a', 0, 90_000), withCode('corrupt-object'));
    assert.deepEqual(store.said, ['a 0+90000']);
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
    it(`is found on ${name}, once for each object`, async () => {
      const { store: inner, stop } = await open();
      try {
        const { store, reader, check } = await setup(
          { tiny: 7, short: 990, even: 2000, long: 4321 },
          {},
          inner,
        );
        await check('tiny', 0, 7);
        await check('short', 900, 90);
        await check('short', 5, 10);
        assert.deepEqual(store.said, ['tiny 0+1000', 'tiny whole', 'short 0+1000', 'short whole']);
        store.calls.length = 0;
        await check('even', 1990, 10);
        assert.deepEqual(store.said, ['even 1000+1000']);
        store.calls.length = 0;
        await check('long', 4320, 1);
        assert.deepEqual(store.said, ['long 4000+1000', 'long list', 'long 4000+321']);
        await check('long', 3000, 1321);
        await check('long', 4000, 321);
        assert.deepEqual(store.said.slice(3), ['long 3000+1000']);
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

  it('is not asked for again once it is known', async () => {
    const { store, reader, check } = await setup({ a: 4321 }, { budgetBytes: KEPT });
    await check('a', 4000, 321);
    await check('a', 0, 10);
    store.calls.length = 0;
    await check('a', 4000, 321);
    await check('a', 2500, 1821);
    assert.deepEqual(store.said, ['a 4000+321', 'a 2000+1000', 'a 3000+1000']);
    assert.ok(reader.bytes <= KEPT);
    const small = await setup({ a: 300, b: 5000 }, { budgetBytes: KEPT });
    await small.check('a', 0, 10);
    await small.check('b', 0, 10);
    small.store.calls.length = 0;
    await small.check('a', 0, 10);
    assert.deepEqual(small.store.said, ['a 0+300']);
  });

  it('is not made up when a store refuses a range that is there', async () => {
    const { store, reader, check } = await setup({ a: 10_000 });
    for (const position of [0, 3000]) {
      store.isHeld = true;
      store.calls.length = 0;
      const read = reader.read('a', position, 10);
      store.calls[0].go(new StreamHouseError('corrupt-object', 'injected'));
      await settled();
      store.calls[1].go();
      await assert.rejects(read, /injected/);
      assert.equal(store.calls.length, 2);
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
  });
});

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

  it('fails in every step of finding the end, and recovers', async () => {
    for (let failing = 0; failing < 3; failing++) {
      const { store, reader, check } = await setup({ a: 4321 });
      store.isHeld = true;
      const read = reader.read('a', 4000, 300);
      for (let i = 0; i <= failing; i++) {
        await settled();
        store.calls[i].go(i === failing ? unavailable() : undefined);
      }
      await assert.rejects(read, withCode('object-store-unavailable'));
      assert.equal(reader.bytes, 0);
      store.isHeld = false;
      await check('a', 4000, 300);
    }
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
