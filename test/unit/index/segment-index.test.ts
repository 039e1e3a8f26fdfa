/** The index's edges one by one: page bounds, empty partitions, single-flight, budget, failures, wrong pages. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { INDEX_COUNTS, type IndexCounters } from '../../../index/index-counters.ts';
import { decodePage, encodePage } from '../../../index/page-codec.ts';
import { emptyFold, foldAppend, type PartitionFold } from '../../../index/page-fold.ts';
import type { StoredPage } from '../../../index/page-store.ts';
import { LOCATE_REFS_MAX, SegmentIndex, type SegmentIndexOptions } from '../../../index/segment-index.ts';
import { SegmentRefList } from '../../../index/segment-ref.ts';
import type { ErrorCode } from '../../../src/core/errors.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import { FakePageStore, turn, turnClock, unavailable } from './fake-page-store.ts';

const TOPIC = 5;

class Counts implements IndexCounters {
  readonly of = Object.fromEntries(INDEX_COUNTS.map((kind) => [kind, 0])) as Record<string, number>;
  add(kind: string, count: number): void {
    this.of[kind] += count;
  }
}

/** One shard, partitions by number; refs of 2 records and 10 bytes each, timestamps rising by 10. */
class Rig {
  readonly store = new FakePageStore();
  readonly counts = new Counts();
  readonly index: SegmentIndex;
  seq = 0;
  readonly folds = new Map<number, PartitionFold>();

  constructor(options: Partial<SegmentIndexOptions> = {}) {
    this.index = this.another(options);
    this.index.openShard(0, [], 0);
  }

  another(options: Partial<SegmentIndexOptions> = {}): SegmentIndex {
    const { findPages } = this.store;
    return new SegmentIndex({
      layout: oneGroup(1),
      budgetBytes: 1e9,
      findPages,
      clock: turnClock,
      counters: this.counts,
      ...options,
    });
  }

  append(partition: number, count: number, index = this.index): void {
    let fold = this.folds.get(partition);
    if (fold === undefined) this.folds.set(partition, (fold = emptyFold(TOPIC, partition)));
    for (let i = 0; i < count; i++) {
      const at = fold.nextOffset;
      index.append(0, ++this.seq, TOPIC, partition, at, 2, 7, at, at * 10, 10, at * 10);
      foldAppend(fold, 2, at * 10);
    }
  }

  /** Another holder's index that begins at a checkpoint of now. */
  reopened(options: Partial<SegmentIndexOptions> = {}): SegmentIndex {
    const index = this.another(options);
    index.openShard(0, structuredClone([...this.folds.values()]), this.seq);
    return index;
  }

  pageOut(index = this.index) {
    return index.pageOut(0, this.store.putPages);
  }
}

function code(expected: ErrorCode) {
  return (error: unknown) => (error as { code?: string }).code === expected;
}

async function bases(
  index: SegmentIndex,
  partition: number,
  offset: number,
  bytesMax: number,
): Promise<number[]> {
  const out = new SegmentRefList();
  await index.locate(TOPIC, partition, offset, bytesMax, out);
  return out.toArray().map((ref) => ref.baseOffset);
}

test('pages of exactly 255, 256 and 257 refs', async () => {
  for (const count of [1, 255, 256, 257, 512, 513]) {
    const rig = new Rig();
    rig.append(0, count);
    const result = await rig.pageOut();
    const expected = Array.from({ length: Math.ceil(count / 256) }, (_, i) => i * 512);
    assert.deepEqual(
      rig.store.list(TOPIC, 0).map((page) => page.baseOffset),
      expected,
    );
    assert.equal(result.pages, expected.length);
    assert.equal(result.throughSeq, count);
    const index = rig.reopened();
    for (const offset of [0, 1, 2, count * 2 - 1, 509, 510, 511, 512, 513]) {
      if (offset >= count * 2) continue;
      assert.deepEqual(await bases(index, 0, offset, 0), [offset - (offset % 2)], `${count} ${offset}`);
    }
    assert.deepEqual(await bases(index, 0, count * 2, 1e9), []);
    rig.append(0, 1, index);
    assert.deepEqual(await bases(index, 0, count * 2, 1e9), [count * 2]);
    await rig.pageOut(index);
    const refs = rig.store.list(TOPIC, 0).map((page) => decodePage(page.bytes).refCount);
    assert.equal(
      refs.reduce((sum, n) => sum + n),
      count + 1,
    );
    assert.ok(refs.every((n, i) => (i + 1 < refs.length ? n === 256 : n >= 1)));
  }
});

test('offsets at the edges, empty and unknown partitions, shards that are not open', async () => {
  const rig = new Rig();
  rig.append(0, 3);
  const out = new SegmentRefList();
  assert.throws(() => rig.index.locate(TOPIC, 0, -1, 1, out), code('offset-out-of-range'));
  assert.throws(() => rig.index.locate(TOPIC, 0, 7, 1, out), code('offset-out-of-range'));
  assert.equal(rig.index.locate(TOPIC, 0, 6, 1, out), undefined);
  assert.equal(out.count, 0);
  assert.deepEqual(rig.index.bounds(TOPIC, 1), { logStart: 0, nextOffset: 0 });
  assert.equal(rig.index.locate(TOPIC, 1, 0, 1, out), undefined);
  assert.equal(out.count, 0);
  assert.throws(() => rig.index.locate(TOPIC, 1, 1, 1, out), code('offset-out-of-range'));
  assert.equal(rig.index.findByTimestamp(TOPIC, 1, 0), null);
  rig.index.setLogStart(0, ++rig.seq, TOPIC, 0, 3);
  assert.deepEqual(rig.index.bounds(TOPIC, 0), { logStart: 3, nextOffset: 6 });
  assert.throws(() => rig.index.locate(TOPIC, 0, 2, 1, out), code('offset-out-of-range'));
  assert.deepEqual(await bases(rig.index, 0, 3, 1e9), [2, 4]);
  rig.index.closeShard(0);
  rig.index.closeShard(0);
  assert.equal(rig.index.bounds(TOPIC, 0), undefined);
  assert.throws(() => rig.index.locate(TOPIC, 0, 3, 1, out), code('not-leader'));
  assert.throws(() => rig.index.findByTimestamp(TOPIC, 0, 3), code('not-leader'));
  await assert.rejects(rig.pageOut(), code('not-leader'));
  assert.equal(rig.index.bytes, 0);
});

test('our own bugs are assertions: a gap, an overlap, a lower seq, a shard not open', () => {
  const rig = new Rig();
  rig.append(0, 2);
  const { index } = rig;
  const append = (seq: number, base: number, shard = 0) =>
    index.append(shard, seq, TOPIC, 0, base, 1, 1, 1, 1, 1, 1);
  assert.throws(() => append(9, 5), { code: 'ERR_ASSERTION' });
  assert.throws(() => append(9, 3), { code: 'ERR_ASSERTION' });
  assert.throws(() => append(1, 4), { code: 'ERR_ASSERTION' });
  assert.throws(() => index.openShard(0, [], 0), { code: 'ERR_ASSERTION' });
  index.closeShard(0);
  assert.throws(() => append(9, 4), { code: 'ERR_ASSERTION' });
});

test('bytesMax and the bound of refs: at least one ref, never more bytes', async () => {
  const rig = new Rig();
  rig.append(0, 3000);
  assert.deepEqual(await bases(rig.index, 0, 0, 0), [0]);
  assert.deepEqual(await bases(rig.index, 0, 1, 29), [0, 2]);
  assert.deepEqual(await bases(rig.index, 0, 1, 30), [0, 2, 4]);
  assert.deepEqual(await bases(rig.index, 0, 510, 30), [510, 512, 514], 'across a page base');
  assert.equal((await bases(rig.index, 0, 0, 1e9)).length, LOCATE_REFS_MAX);
});

test('100 look-ups at 100 offsets of one page are one store request', async () => {
  const rig = new Rig();
  rig.append(0, 600);
  await rig.pageOut();
  const index = rig.reopened();
  rig.counts.of.misses = 0;
  const all = await Promise.all(Array.from({ length: 100 }, (_, i) => bases(index, 0, i * 5, 10)));
  all.forEach((found, i) => {
    assert.deepEqual(found, [i * 5 - ((i * 5) % 2)]);
  });
  assert.deepEqual(rig.store.finds, [1]);
  const { misses, pagedIn, joined } = rig.counts.of;
  assert.deepEqual([misses, pagedIn, joined], [100, 1, 99]);
});

test('look-ups of many partitions in one turn are one store call; of many pages of one, two', async () => {
  const rig = new Rig();
  for (let partition = 0; partition < 50; partition++) rig.append(partition, 3);
  rig.append(99, 256 * 20);
  await rig.pageOut();
  const index = rig.reopened();
  await Promise.all(Array.from({ length: 50 }, (_, partition) => bases(index, partition, 4, 10)));
  assert.deepEqual(rig.store.finds, [50]);
  await Promise.all(Array.from({ length: 20 }, (_, page) => bases(index, 99, page * 512 + 7, 10)));
  assert.deepEqual(rig.store.finds, [50, 1, 19]);
});

test('a store that fails and recovers: the look-up fails with its error, the next one reads', async () => {
  const rig = new Rig();
  rig.append(0, 3);
  await rig.pageOut();
  const index = rig.reopened();
  rig.store.before = () => {
    throw unavailable();
  };
  await assert.rejects(bases(index, 0, 2, 10), code('store-unavailable'));
  rig.store.before = () => undefined;
  assert.deepEqual(await bases(index, 0, 2, 10), [2]);
});

test('page-out: failures leave pages dirty, a lost reply is written again, then nothing is left', async () => {
  const rig = new Rig();
  rig.append(0, 300);
  rig.append(1, 1);
  const { dirtyBytes } = rig.index;
  for (const when of ['before', 'after'] as const) {
    rig.store[when] = () => {
      throw unavailable();
    };
    await assert.rejects(rig.pageOut(), code('store-unavailable'));
    rig.store[when] = () => undefined;
    assert.equal(rig.index.dirtyBytes, dirtyBytes);
  }
  assert.equal((await rig.pageOut()).pages, 3);
  assert.equal(rig.index.dirtyBytes, 0);
  assert.equal((await rig.pageOut()).pages, 0);
});

test('page-out during appends: what changed on the way stays dirty, stamps tell what a page folds', async () => {
  const rig = new Rig();
  rig.append(0, 10);
  rig.store.before = () => rig.append(0, 5);
  assert.equal((await rig.pageOut()).throughSeq, 10);
  rig.store.before = () => undefined;
  const [page] = rig.store.list(TOPIC, 0);
  assert.deepEqual([page.stamp, decodePage(page.bytes).refCount], [10, 10]);
  assert.ok(rig.index.dirtyBytes > 0);
  assert.equal((await rig.pageOut()).throughSeq, 15);
  const [after] = rig.store.list(TOPIC, 0);
  assert.deepEqual([after.stamp, decodePage(after.bytes).refCount], [15, 15]);
});

test('page-outs of many partitions go in bounded batches, two at once follow one another', async () => {
  const rig = new Rig();
  for (let partition = 0; partition < 1000; partition++) rig.append(partition, 2);
  for (let partition = 1000; partition < 1100; partition++) rig.append(partition, 256);
  const [first, second] = await Promise.all([rig.pageOut(), rig.pageOut()]);
  assert.deepEqual([first.pages, second.pages], [1100, 0]);
  assert.ok(rig.store.puts.every((count) => count <= 256));
  assert.ok(rig.store.puts.length >= 5);
});

test('closing a shard fails what waits for its pages and its page-out, and it may be opened again', async () => {
  const rig = new Rig();
  rig.append(0, 3);
  await rig.pageOut();
  const index = rig.reopened();
  const waiting = bases(index, 0, 2, 10);
  rig.append(0, 1, index);
  const writing = rig.pageOut(index);
  index.closeShard(0);
  await assert.rejects(waiting, code('not-leader'));
  await assert.rejects(writing, code('not-leader'));
  assert.deepEqual([index.bytes, index.dirtyBytes], [0, 0]);
  const seq = rig.seq;
  index.openShard(0, [{ ...rig.folds.get(0)!, nextOffset: 6, pageRefs: 3 }], seq - 1);
  index.append(0, seq, TOPIC, 0, 6, 2, 7, 6, 60, 10, 60);
  assert.deepEqual(await bases(index, 0, 2, 1e9), [2, 4, 6]);
});

test('a deleted topic: its look-ups fail, its page-out goes on without it', async () => {
  const rig = new Rig();
  rig.append(0, 3);
  await rig.pageOut();
  const index = rig.reopened();
  index.append(0, ++rig.seq, 6, 0, 0, 1, 1, 1, 1, 1, 1);
  rig.append(0, 1, index);
  const waiting = bases(index, 0, 2, 10);
  const writing = rig.pageOut(index);
  await turn();
  index.removeTopic(0, ++rig.seq, TOPIC);
  await Promise.allSettled([waiting]);
  await writing;
  assert.deepEqual(index.bounds(TOPIC, 0), { logStart: 0, nextOffset: 0 });
  assert.equal(rig.store.list(6, 0).length, 1);
  assert.equal(index.dirtyBytes, 0);
});

test('the budget: clean pages go, least used first; dirty ones stay and press once', async () => {
  let pressed = 0;
  const rig = new Rig({ onPressure: () => pressed++ });
  rig.append(0, 256 * 4);
  const pageBytes = rig.index.bytes / 4;
  assert.equal(pressed, 0);
  rig.index.budgetBytes = pageBytes * 6;
  assert.equal(pressed, 1, 'four dirty pages of six');
  rig.append(0, 100);
  assert.equal(pressed, 1, 'pressed once');
  assert.ok(rig.index.dirtyBytes > pageBytes * 4);
  rig.index.budgetBytes = 10;
  assert.equal(rig.counts.of.evicted, 0);
  rig.index.budgetBytes = pageBytes * 20;
  await rig.pageOut();
  assert.equal(rig.index.dirtyBytes, 0);
  await bases(rig.index, 0, 0, 10);
  rig.index.budgetBytes = pageBytes * 2.5;
  assert.ok(rig.index.bytes <= pageBytes * 2.5);
  const finds = rig.store.finds.length;
  await bases(rig.index, 0, 0, 10);
  assert.equal(rig.store.finds.length, finds, 'the page used last stayed');
  await bases(rig.index, 0, 600, 10);
  assert.equal(rig.store.finds.length, finds + 1);
  rig.append(0, 156 + 256 * 3);
  assert.equal(pressed, 2, 'pressed again after it had fallen');
  rig.index.budgetBytes = 0;
  await rig.pageOut();
  assert.equal(rig.index.bytes, 0);
  assert.deepEqual(await bases(rig.index, 0, 601, 10), [600], 'served even when nothing may stay');
});

test('an evicted open page is completed from the store before it is written', async () => {
  const rig = new Rig({ budgetBytes: 0 });
  rig.append(0, 100);
  await rig.pageOut();
  assert.equal(rig.index.bytes, 0);
  rig.append(0, 1);
  assert.deepEqual(await bases(rig.index, 0, 200, 10), [200]);
  await rig.pageOut();
  const [page] = rig.store.list(TOPIC, 0);
  assert.equal(decodePage(page.bytes).refCount, 101);
});

test('time look-ups read O(log n) pages, and none when the answer is in memory or is none', async () => {
  const rig = new Rig();
  rig.append(0, 256 * 200 + 3);
  await rig.pageOut();
  const index = rig.reopened();
  const end = rig.folds.get(0)!.nextOffset;
  assert.equal(index.findByTimestamp(TOPIC, 0, end * 10), null);
  for (const at of [0, 2, 510, 512, 40_000, end - 4, end - 2]) {
    index.budgetBytes = 0;
    index.budgetBytes = 1e9;
    rig.store.finds.length = 0;
    const found = await index.findByTimestamp(TOPIC, 0, at * 10 - 5);
    assert.equal(found?.baseOffset, at);
    assert.ok(rig.store.finds.length <= 10, `${rig.store.finds.length} reads for ${at}`);
    assert.ok(!(index.findByTimestamp(TOPIC, 0, at * 10 - 5) instanceof Promise), 'again from memory');
  }
});

test('a merge of a page that is not loaded: applied below its seq, not at or above it', async () => {
  for (const storedSeq of ['below', 'above'] as const) {
    const rig = new Rig();
    rig.append(0, 300);
    await rig.pageOut();
    const folds = structuredClone([...rig.folds.values()]);
    const refs = [
      {
        baseOffset: 2,
        nextOffset: 8,
        incarnation: 8,
        number: 1,
        position: 0,
        length: 30,
        maxTimestampSoFarMs: 60,
      },
    ];
    if (storedSeq === 'above') {
      rig.index.replace(0, rig.seq + 1, TOPIC, 0, refs);
      await rig.pageOut();
    }
    const index = rig.another();
    index.openShard(0, folds, rig.seq);
    index.replace(0, rig.seq + 1, TOPIC, 0, refs);
    assert.ok(index.dirtyBytes > 0);
    assert.deepEqual(await bases(index, 0, 3, 50), [2, 8, 10]);
    const result = await rig.pageOut(index);
    assert.equal(result.pages, storedSeq === 'below' ? 1 : 0);
    assert.equal(index.dirtyBytes, 0);
    assert.equal(decodePage(rig.store.list(TOPIC, 0)[0].bytes).refCount, 254);
  }
});

test('a slow read never brings back what was there before a newer write', async () => {
  const rig = new Rig({ budgetBytes: 0 });
  rig.append(0, 300);
  await rig.pageOut();
  const gates: (() => void)[] = [];
  rig.store.after = (call) =>
    call === 'find' ? new Promise<void>((resolve) => gates.push(resolve)) : undefined;
  const slow = bases(rig.index, 0, 7, 30);
  await turn();
  const refs = [
    {
      baseOffset: 0,
      nextOffset: 512,
      incarnation: 8,
      number: 1,
      position: 0,
      length: 9,
      maxTimestampSoFarMs: 5100,
    },
  ];
  rig.index.replace(0, ++rig.seq, TOPIC, 0, refs);
  const written = rig.pageOut();
  while (gates.length < 1) await turn();
  rig.store.after = () => undefined;
  gates.forEach((open) => {
    open();
  });
  await written;
  assert.deepEqual(await slow, [0]);
  assert.deepEqual(await bases(rig.index, 0, 7, 9), [0]);
  assert.equal(decodePage(rig.store.list(TOPIC, 0)[0].bytes).refCount, 1);
});

test('a page read that began before a newer fold was written is read again, not kept', async () => {
  const rig = new Rig({ budgetBytes: 0 });
  rig.append(0, 300);
  await rig.pageOut();
  const gate = Promise.withResolvers<void>();
  rig.store.after = () => {
    rig.store.after = () => undefined;
    return gate.promise;
  };
  const slow = bases(rig.index, 0, 7, 30);
  await turn();
  const merged = { baseOffset: 0, nextOffset: 512, incarnation: 8, number: 1, position: 0, length: 9 };
  rig.index.replace(0, ++rig.seq, TOPIC, 0, [{ ...merged, maxTimestampSoFarMs: 5100 }]);
  // The merge has its page read, written, and evicted, while the first read is still on its way with the old one.
  await rig.pageOut();
  const reads = rig.store.finds.length;
  gate.resolve();
  assert.deepEqual(await slow, [0]);
  assert.equal(rig.store.finds.length, reads + 1);
  assert.equal(rig.counts.of.staleReads, 1);
});

test('wrong pages are corrupt-page: missing, another partition, a hole, damaged, another stamp', async () => {
  const change = (of: (page: StoredPage) => StoredPage | null) => async () => {
    const rig = new Rig();
    rig.append(0, 300);
    await rig.pageOut();
    const index = rig.another({
      findPages: async (requests) => (await rig.store.findPages(requests)).map((page) => of(page!)),
    });
    index.openShard(0, [...rig.folds.values()], rig.seq);
    await assert.rejects(bases(index, 0, 599, 10), code('corrupt-page'));
    await assert.rejects(bases(index, 0, 5, 10), code('corrupt-page'));
    assert.equal(index.bytes, 0);
  };
  const recoded = (page: StoredPage, of: Partial<ReturnType<typeof decodePage>>) => {
    const bytes = encodePage({ ...decodePage(page.bytes), ...of });
    return { ...page, bytes };
  };
  const cut = (page: StoredPage) =>
    recoded(page, { refCount: 2, nextOffset: decodePage(page.bytes).refs[12] });
  await change(() => null)();
  await change((page) => recoded(page, { partition: 1 }))();
  await change((page) => recoded(page, { topicId: 6 }))();
  await change((page) => recoded(page, { stamp: page.stamp - 1 }))();
  await change((page) => ({ ...page, bytes: page.bytes.subarray(1) }))();
  await change(cut)();
});

test('a million refs in one partition', async () => {
  const rig = new Rig();
  rig.append(0, 1_000_000);
  const out = new SegmentRefList();
  for (let offset = 0; offset < 2_000_000; offset += 9_973) {
    assert.equal(rig.index.locate(TOPIC, 0, offset, 0, out), undefined);
    assert.equal(out.get(0).baseOffset, offset - (offset % 2));
    const found = rig.index.findByTimestamp(TOPIC, 0, (offset - (offset % 2)) * 10);
    assert.equal((found as { baseOffset: number }).baseOffset, offset - (offset % 2));
  }
  assert.equal((await rig.pageOut()).pages, 3907);
});
