/**
 * What every object store must do, as one suite over a factory. Owns the questions; the stores are in the
 * table of object-store.test.ts. Keys of each test lie under a prefix of their own, so that one backend
 * serves the whole suite.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type ErrorCode, StreamHouseError } from '../../src/core/errors.ts';
import { seededRandom } from '../../src/core/random.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';

export interface ObjectStoreHarness {
  /** One more instance over the same objects. */
  open(): Promise<ObjectStore>;
  /** From now on the next put's reply is lost after it succeeded. The store is one that `open` gave. */
  loseNextPutReply(): void;
  /** Whether the store retries by itself, so that a lost reply is proven before the caller hears of it. */
  readonly retries: boolean;
  /** Takes the backend away, for those that can be away; calls must then fail within this many ms. */
  readonly stop?: { run(): Promise<void>; failsWithinMs: number };
  /** Ends what the factory started. */
  end(): Promise<void>;
}

export type ObjectStoreHarnessFactory = () => Promise<ObjectStoreHarness>;

const MIB = 1024 * 1024;

function patterned(bytes: number, seed: number): Uint8Array {
  const random = seededRandom(seed);
  const out = new Uint8Array(bytes);
  const words = new Uint32Array(out.buffer, 0, bytes >> 2);
  for (let i = 0; i < words.length; i++) words[i] = random.below(2 ** 32);
  return out;
}

async function rejectsWith(run: Promise<unknown>, ...codes: ErrorCode[]): Promise<void> {
  await assert.rejects(run, (error: unknown) => {
    assert.ok(error instanceof StreamHouseError, `an operating error, not ${String(error)}`);
    assert.ok(codes.includes(error.code), `${error.code} (${error.message}) is not ${codes.join(' or ')}`);
    return true;
  });
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

export function objectStoreContract(name: string, factory: ObjectStoreHarnessFactory): void {
  describe(`object store contract: ${name}`, () => {
    let harness: ObjectStoreHarness;
    let store: ObjectStore;

    before(async () => {
      harness = await factory();
      store = await harness.open();
    });
    after(async () => {
      await store?.close();
      await harness?.end();
    });

    const allKeys = async (prefix: string): Promise<string[]> =>
      (await store.list(prefix, { limit: 1000 })).map((listed) => listed.key);

    it('keeps what was put', async () => {
      await store.put('keep/a', utf8('hello'));
      const bytes = await store.get('keep/a');
      assert.equal(bytes.toString(), 'hello');
      const beforeMs = Date.now() - 120_000;
      const [listed] = await store.list('keep/', { limit: 10 });
      assert.deepEqual({ key: listed.key, bytes: listed.bytes }, { key: 'keep/a', bytes: 5 });
      assert.ok(listed.modifiedMs > beforeMs && listed.modifiedMs < Date.now() + 120_000);
      assert.ok(store.description.length > 0);
    });

    it('keeps its own copy: neither the bytes put nor the bytes got are the object', async () => {
      const bytes = utf8('mine');
      await store.put('copy/a', bytes);
      bytes.fill(0);
      const got = await store.get('copy/a');
      assert.equal(got.toString(), 'mine');
      got.fill(0);
      assert.equal((await store.get('copy/a')).toString(), 'mine');
      const moved = structuredClone(got, { transfer: [got.buffer as ArrayBuffer] });
      assert.equal(moved.length, 4);
    });

    it('takes the same bytes twice, also from another instance', async () => {
      await store.put('same/a', utf8('x'));
      await store.put('same/a', utf8('x'));
      const other = await harness.open();
      try {
        await other.put('same/a', utf8('x'));
        assert.equal((await other.get('same/a')).toString(), 'x');
      } finally {
        await other.close();
      }
      assert.deepEqual(await allKeys('same/'), ['same/a']);
    });

    it('refuses other bytes and changes nothing, whether longer, shorter or of the same length', async () => {
      await store.put('other/a', utf8('first'));
      await rejectsWith(store.put('other/a', utf8('fIrst')), 'object-exists');
      await rejectsWith(store.put('other/a', utf8('first and more')), 'object-exists');
      await rejectsWith(store.put('other/a', utf8('')), 'object-exists');
      assert.equal((await store.get('other/a')).toString(), 'first');
    });

    it('lets exactly one of 20 racing writers with different bytes win', async () => {
      const bodies = Array.from({ length: 20 }, (_, i) => utf8(`writer ${String(i).padStart(3, '0')}`));
      const outcomes = await Promise.allSettled(bodies.map((body) => store.put('race/a', body)));
      const winners = outcomes.flatMap((outcome, i) => (outcome.status === 'fulfilled' ? [i] : []));
      assert.equal(winners.length, 1);
      assert.deepEqual(await store.get('race/a'), Buffer.from(bodies[winners[0]]));
      for (const outcome of outcomes) {
        if (outcome.status === 'fulfilled') continue;
        assert.equal((outcome.reason as StreamHouseError).code, 'object-exists');
      }
    });

    it('lets all of 20 racing writers with the same bytes succeed', async () => {
      const body = patterned(10_000, 5);
      await Promise.all(Array.from({ length: 20 }, () => store.put('race/b', body)));
      assert.deepEqual(await store.get('race/b'), Buffer.from(body));
    });

    it('survives a reply lost after success', async () => {
      harness.loseNextPutReply();
      if (harness.retries) {
        await store.put('lost/a', utf8('done'));
      } else {
        await rejectsWith(store.put('lost/a', utf8('done')), 'object-store-unknown');
      }
      assert.equal((await store.get('lost/a')).toString(), 'done');
      await store.put('lost/a', utf8('done'));
      harness.loseNextPutReply();
      await rejectsWith(store.put('lost/a', utf8('else')), 'object-exists', 'object-store-unknown');
      assert.equal((await store.get('lost/a')).toString(), 'done');
    });

    it('reads ranges', async () => {
      const body = patterned(1000, 6);
      await store.put('range/a', body);
      for (const [position, length] of [
        [0, 1000],
        [0, 1],
        [999, 1],
        [500, 250],
        [0, 0],
        [1000, 0],
      ]) {
        const got = await store.get('range/a', { position, length });
        assert.deepEqual(got, Buffer.from(body.subarray(position, position + length)));
      }
    });

    it('calls a range beyond the end corrupt, and allocates nothing for it', async () => {
      await store.put('range/b', patterned(1000, 7));
      for (const [position, length] of [
        [0, 1001],
        [999, 2],
        [1000, 1],
        [5000, 10],
        [1001, 0],
        [0, 2 ** 45],
        [2 ** 45, 2 ** 45],
      ]) {
        await rejectsWith(store.get('range/b', { position, length }), 'corrupt-object');
      }
    });

    it('gives what there is of a range that may end early', async () => {
      const body = patterned(1000, 10);
      await store.put('early/a', body);
      for (const [position, length] of [
        [0, 1001],
        [0, 2 ** 40],
        [999, 2],
        [400, 601],
        [500, 2 ** 52],
        // Within the object: as without the option.
        [0, 1000],
        [999, 1],
        [200, 300],
        [300, 0],
        [1000, 0],
      ]) {
        const got = await store.get('early/a', { position, length, mayEndEarly: true });
        assert.deepEqual(got, Buffer.from(body.subarray(position, position + length)));
        assert.equal(got.buffer.byteLength, got.length, 'memory of its own, and no more than it needs');
      }
      await store.put('early/large', patterned(MIB + 1, 11));
      const rest = await store.get('early/large', { position: MIB - 9, length: MIB, mayEndEarly: true });
      assert.deepEqual(rest, Buffer.from(patterned(MIB + 1, 11).subarray(MIB - 9)));
    });

    it('calls a range that begins at or beyond the end corrupt, though it may end early', async () => {
      await store.put('early/b', patterned(1000, 12));
      await store.put('early/empty', new Uint8Array(0));
      const get = (key: string, position: number, length: number): Promise<Buffer> =>
        store.get(key, { position, length, mayEndEarly: true });
      for (const [position, length] of [
        [1000, 1],
        [1000, 2 ** 40],
        [1001, 0],
        [5000, 10],
        [2 ** 45, 2 ** 45],
      ]) {
        await rejectsWith(get('early/b', position, length), 'corrupt-object');
      }
      await rejectsWith(get('early/empty', 0, 1), 'corrupt-object');
      await rejectsWith(get('early/empty', 0, 2 ** 40), 'corrupt-object');
      await rejectsWith(get('early/empty', 1, 0), 'corrupt-object');
      assert.equal((await get('early/empty', 0, 0)).length, 0);
      await rejectsWith(get('early/none', 0, 10), 'object-not-found');
      await rejectsWith(
        store.get('early/b', { position: 0, length: 1001, mayEndEarly: false }),
        'corrupt-object',
      );
    });

    it('takes an object without bytes', async () => {
      await store.put('empty/a', new Uint8Array(0));
      await store.put('empty/a', new Uint8Array(0));
      assert.equal((await store.get('empty/a')).length, 0);
      assert.equal((await store.get('empty/a', { position: 0, length: 0 })).length, 0);
      await rejectsWith(store.get('empty/a', { position: 0, length: 1 }), 'corrupt-object');
      await rejectsWith(store.put('empty/a', utf8('x')), 'object-exists');
      assert.equal((await store.list('empty/', { limit: 1 }))[0].bytes, 0);
    });

    it('takes 8 MiB from shared memory, at an odd position in it', async () => {
      const shared = new Uint8Array(new SharedArrayBuffer(8 * MIB + 13));
      shared.set(patterned(8 * MIB, 8), 13);
      const body = shared.subarray(13);
      await store.put('shared/a', body);
      await store.put('shared/a', body);
      const got = await store.get('shared/a');
      assert.equal(Buffer.compare(got, body), 0);
      const range = await store.get('shared/a', { position: 8 * MIB - 100_000, length: 100_000 });
      assert.equal(Buffer.compare(range, body.subarray(8 * MIB - 100_000)), 0);
      shared[13 + 4 * MIB] ^= 1;
      await rejectsWith(store.put('shared/a', body), 'object-exists');
    });

    it('answers object-not-found', async () => {
      await rejectsWith(store.get('nothing/here'), 'object-not-found');
      await rejectsWith(store.get('nothing/here', { position: 0, length: 10 }), 'object-not-found');
      await rejectsWith(store.get('nothing/here', { position: 0, length: 0 }), 'object-not-found');
      await store.put('folder/a/b', utf8('x'));
      await rejectsWith(store.get('folder/a'), 'object-not-found');
      await rejectsWith(store.get('folder/a/b/c'), 'object-not-found');
    });

    it('deletes, twice, and takes the key anew', async () => {
      await store.put('delete/a', utf8('one'));
      await store.put('delete/ab', utf8('stays'));
      await store.delete('delete/a');
      await store.delete('delete/a');
      await store.delete('delete/never/was');
      await rejectsWith(store.get('delete/a'), 'object-not-found');
      assert.deepEqual(await allKeys('delete/'), ['delete/ab']);
      await store.put('delete/a', utf8('two'));
      assert.equal((await store.get('delete/a')).toString(), 'two');
    });

    it('does not delete a folder', async () => {
      await store.put('keepfolder/a/b', utf8('x'));
      await store.delete('keepfolder/a');
      assert.equal((await store.get('keepfolder/a/b')).toString(), 'x');
    });

    const ODD_KEYS = [
      'odd/!',
      'odd/ space and  more ',
      'odd/#?&=%20%2F+',
      'odd/\'quoted"<tag>&amp;',
      'odd/a',
      'odd/a!b',
      'odd/a-b/c',
      'odd/b/c',
      'odd/b0',
      'odd/ä',
      'odd/日本語',
      // U+FF5E sorts before U+1F600 by UTF-8 bytes, after it by UTF-16 units.
      'odd/\uff5e',
      'odd/\u{1f600}',
      'odd/~',
    ];

    it('lists odd keys in the order of their UTF-8 bytes and finds each again', async () => {
      for (const key of ODD_KEYS) await store.put(key, utf8(key));
      const sorted = [...ODD_KEYS].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      assert.deepEqual(await allKeys('odd/'), sorted);
      for (const key of ODD_KEYS) assert.equal((await store.get(key)).toString(), key);
      assert.deepEqual(await allKeys('odd/a'), ['odd/a', 'odd/a!b', 'odd/a-b/c']);
      assert.deepEqual(await allKeys('odd/ä'), ['odd/ä']);
      for (const key of sorted) {
        const rest = (await store.list('odd/', { after: key, limit: 1000 })).map((listed) => listed.key);
        assert.deepEqual(rest, sorted.slice(sorted.indexOf(key) + 1), `after ${key}`);
      }
    });

    it('lists by pages, each from after the last', async () => {
      const keys = Array.from({ length: 25 }, (_, i) => `page/${i % 5}/${String(i).padStart(2, '0')}`).sort();
      await Promise.all(keys.map((key) => store.put(key, utf8(key))));
      for (const limit of [1, 7, 25, 26]) {
        const found: string[] = [];
        for (let after: string | undefined; ; after = found.at(-1)) {
          const page = await store.list('page/', { after, limit });
          assert.ok(page.length <= limit);
          found.push(...page.map((listed) => listed.key));
          if (page.length < limit) break;
        }
        assert.deepEqual(found, keys);
      }
    });

    it('lists after keys that are not there, and prefixes without keys', async () => {
      for (const key of ['gap/b/1', 'gap/d/1', 'gap/f']) await store.put(key, utf8(key));
      const listed = async (prefix: string, after: string): Promise<string[]> =>
        (await store.list(prefix, { after, limit: 10 })).map((each) => each.key);
      assert.deepEqual(await listed('gap/', 'gap/a'), ['gap/b/1', 'gap/d/1', 'gap/f']);
      assert.deepEqual(await listed('gap/', 'gap/b'), ['gap/b/1', 'gap/d/1', 'gap/f']);
      assert.deepEqual(await listed('gap/', 'gap/b/'), ['gap/b/1', 'gap/d/1', 'gap/f']);
      assert.deepEqual(await listed('gap/', 'gap/b/1'), ['gap/d/1', 'gap/f']);
      assert.deepEqual(await listed('gap/', 'gap/c/zzz'), ['gap/d/1', 'gap/f']);
      assert.deepEqual(await listed('gap/d', 'gap/a'), ['gap/d/1']);
      assert.deepEqual(await listed('gap/', 'gap/z'), []);
      assert.deepEqual(await listed('gap/', 'zzz'), []);
      assert.deepEqual(await allKeys('gap/x'), []);
      assert.deepEqual(await allKeys('no-such-folder/'), []);
      assert.deepEqual(await allKeys('gap/f/'), []);
      assert.deepEqual(await allKeys('../'), []);
    });

    it('refuses hostile keys in every call', async () => {
      const hostile = [
        '',
        '/',
        'a//b',
        '/a',
        'a/',
        '..',
        '../a',
        'a/../../b',
        'a/./b',
        '.hidden',
        'a\0b',
        'a\\b',
      ];
      hostile.push('a\nb', '\ud800', 'x'.repeat(201), `${'abc/'.repeat(250)}d`);
      for (const key of hostile) {
        await rejectsWith(store.put(key, utf8('x')), 'invalid-request');
        await rejectsWith(store.get(key), 'invalid-request');
        await rejectsWith(store.delete(key), 'invalid-request');
      }
      const longest = `${'x'.repeat(200)}/${'y'.repeat(200)}/${'z'.repeat(200)}/${'w'.repeat(165)}`;
      await store.put(longest, utf8('long'));
      assert.equal((await store.get(longest)).toString(), 'long');
      await store.delete(longest);
    });

    it('does nothing when its signal is aborted before it begins', async () => {
      const signal = AbortSignal.abort();
      const given = ['object-store-unavailable'] as const;
      await rejectsWith(store.put('aborted/a', utf8('x'), { signal }), ...given);
      await rejectsWith(store.get('keep/a', undefined, { signal }), ...given);
      await rejectsWith(store.list('keep/', { limit: 1, signal }), ...given);
      await rejectsWith(store.delete('keep/a', { signal }), ...given);
      assert.deepEqual(await allKeys('aborted/'), []);
    });

    it('ends a put that is given up under way, and the same put again settles it', async () => {
      const body = patterned(4 * MIB, 9);
      const controller = new AbortController();
      const running = store.put('giveup/a', body, { signal: controller.signal });
      setImmediate(() => controller.abort());
      const [outcome] = await Promise.allSettled([running]);
      if (outcome.status === 'rejected') {
        await rejectsWith(Promise.reject(outcome.reason), 'object-store-unknown', 'object-store-unavailable');
      }
      await store.put('giveup/a', body);
      assert.equal(Buffer.compare(await store.get('giveup/a'), body), 0);
    });

    it('fails once it is closed', async () => {
      const other = await harness.open();
      await other.close();
      await other.close();
      await rejectsWith(other.put('closed/a', utf8('x')), 'object-store-unavailable');
      await rejectsWith(other.get('keep/a'), 'object-store-unavailable');
      await rejectsWith(other.list('', { limit: 1 }), 'object-store-unavailable');
      await rejectsWith(other.delete('keep/a'), 'object-store-unavailable');
    });

    it('fails in time when its backend is away (last: the backend does not come back)', async () => {
      if (harness.stop === undefined) {
        // A backend inside the process cannot be away; it still has its objects here.
        assert.equal((await store.get('keep/a')).toString(), 'hello');
        return;
      }
      await harness.stop.run();
      const startMs = performance.now();
      const codes = ['object-store-unavailable', 'object-store-unknown'] as const;
      await rejectsWith(store.put('away/a', utf8('x')), ...codes);
      await rejectsWith(store.get('keep/a'), 'object-store-unavailable');
      await rejectsWith(store.list('', { limit: 1 }), 'object-store-unavailable');
      await rejectsWith(store.delete('keep/a'), ...codes);
      assert.ok(performance.now() - startMs < harness.stop.failsWithinMs * 4);
    });
  });
}
