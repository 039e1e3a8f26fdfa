/** The metadata store's contract: pages, checkpoints and the pointer. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { IndexPage } from '../../storage/metadata/metadata-store.ts';
import { bytesOf, type ContractSettings, failsWith, rigFor } from './metadata-store-rig.ts';

function page(
  topicId: number,
  partition: number,
  baseOffset: number,
  stamp: number,
  text?: string,
): IndexPage {
  const bytes = bytesOf(text ?? `${topicId}/${partition}/${baseOffset}@${stamp}`);
  return { topicId, partition, shard: 3, baseOffset, stamp, bytes };
}

export function pagesContract(settings: ContractSettings): void {
  const rig = rigFor(settings);
  const LARGE = 2 ** 52;

  it('finds the page with the greatest base at or below an offset', async () => {
    const { store, rival } = rig();
    const pages = [page(1, 0, 0, 5), page(1, 0, 100, 5), page(1, 0, LARGE, 5)];
    await store.putPages([pages[2], pages[0], pages[1]]);
    const find = async (offset: number) =>
      (await rival.findPages([{ topicId: 1, partition: 0, offset }]))[0]?.baseOffset ?? null;
    assert.deepEqual(await Promise.all([0, 1, 99, 100, 101, LARGE - 1, LARGE, LARGE + 1].map(find)), [
      0,
      0,
      0,
      100,
      100,
      100,
      LARGE,
      LARGE,
    ]);
    assert.deepEqual(await store.findPages([]), []);
    const requests = [
      { topicId: 1, partition: 0, offset: 100 },
      { topicId: 9, partition: 0, offset: 100 },
      { topicId: 1, partition: 0, offset: 0 },
      { topicId: 1, partition: 0, offset: 100 },
    ];
    assert.deepEqual(await store.findPages(requests), [pages[1], null, pages[0], pages[1]]);
  });

  it('finds nothing below the first base, nor in a neighbour', async () => {
    const { store } = rig();
    const neighbours = [
      [20, 1],
      [20, 11],
      [20, 10],
      [201, 1],
      [2, 1],
      [2, 11],
      [21, 0],
      [19, 1_048_575],
      [20, 1_048_575],
      [8_589_934_590, 5],
    ];
    for (const [topicId, partition] of neighbours) await store.putPages([page(topicId, partition, 50, 1)]);
    for (const [topicId, partition] of neighbours) {
      const [below, at] = await store.findPages([
        { topicId, partition, offset: 49 },
        { topicId, partition, offset: 1e12 },
      ]);
      assert.equal(below, null);
      assert.deepEqual(at, page(topicId, partition, 50, 1));
    }
    assert.deepEqual(await store.findPages([{ topicId: 20, partition: 0, offset: 1e12 }]), [null]);
    assert.deepEqual(await store.findPages([{ topicId: 20, partition: 2, offset: 1e12 }]), [null]);
  });

  it('never replaces a stamp by a lower or equal one, each page on its own', async () => {
    const { store } = rig();
    await store.putPages([page(3, 0, 0, 10, 'ten')]);
    const read = async () => await store.listPages({ topicId: 3, partition: 0, fromBaseOffset: 0, limit: 9 });
    await store.putPages([page(3, 0, 0, 9, 'nine'), page(3, 0, 7, 9, 'new')]);
    assert.deepEqual(await read(), [page(3, 0, 0, 10, 'ten'), page(3, 0, 7, 9, 'new')]);
    await store.putPages([page(3, 0, 0, 10, 'ten again')]);
    assert.deepEqual((await read())[0], page(3, 0, 0, 10, 'ten'));
    await store.putPages([{ ...page(3, 0, 0, 11, ''), shard: 4 }]);
    assert.deepEqual((await read())[0], { ...page(3, 0, 0, 11, ''), shard: 4 });
    // In one call: the highest stays, in whatever order.
    await store.putPages([page(3, 0, 0, 14), page(3, 0, 0, 12), page(3, 0, 0, 13)]);
    assert.deepEqual((await read())[0], page(3, 0, 0, 14));
    await store.putPages([]);
  });

  it('keeps the highest stamp when rivals put at once', async () => {
    const { store, rival } = rig();
    const stamps = Array.from({ length: 30 }, (_, i) => ((i * 7) % 30) + 1);
    await Promise.all(stamps.map((stamp, i) => (i % 2 ? store : rival).putPages([page(4, 0, 0, stamp)])));
    assert.deepEqual(await store.findPages([{ topicId: 4, partition: 0, offset: 0 }]), [page(4, 0, 0, 30)]);
  });

  it('lists and deletes by base within one partition', async () => {
    const { store } = rig();
    const bases = [0, 5, 10, 2_000_000_000, 3_000_000_000, 10_000_000_000];
    await store.putPages(bases.map((base) => page(5, 1, base, 1)));
    await store.putPages([page(5, 0, 3, 1), page(5, 2, 3, 1)]);
    const list = async (fromBaseOffset: number, limit = 100) =>
      (await store.listPages({ topicId: 5, partition: 1, fromBaseOffset, limit })).map((p) => p.baseOffset);
    assert.deepEqual(await list(0), bases);
    assert.deepEqual(await list(5, 2), [5, 10]);
    assert.deepEqual(await list(6), bases.slice(2));
    assert.deepEqual(await list(10_000_000_001), []);
    await store.deletePages({ topicId: 5, partition: 1, belowBaseOffset: 10 });
    await store.deletePages({ topicId: 5, partition: 1, belowBaseOffset: 10 });
    assert.deepEqual(await list(0), bases.slice(2));
    await store.deletePages({ topicId: 5, partition: 1, belowBaseOffset: 1e15 });
    assert.deepEqual(await list(0), []);
    await store.deletePages({ topicId: 77, partition: 1, belowBaseOffset: 10 });
    assert.equal((await store.findPages([{ topicId: 5, partition: 0, offset: 9 }]))[0]?.baseOffset, 3);
    assert.equal((await store.findPages([{ topicId: 5, partition: 2, offset: 9 }]))[0]?.baseOffset, 3);
  });

  it('bounds a page and refuses the whole call', async () => {
    const { store } = rig();
    const large = { ...page(6, 0, 0, 1), bytes: new Uint8Array(store.bodyBytesMax + 1) };
    await failsWith('item-too-large', store.putPages([page(6, 0, 5, 1), large]));
    assert.deepEqual(await store.listPages({ topicId: 6, partition: 0, fromBaseOffset: 0, limit: 5 }), []);
    await assert.rejects(store.putPages([page(6, 0, 0.5, 1)]), { name: 'AssertionError' });
  });
}

export function checkpointContract(settings: ContractSettings): void {
  const rig = rigFor(settings);

  it('keeps the first bytes under (shard, seq, writer) for ever', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    const other = await rig().freshShard();
    const at = { seq: 10, writer: 7 };
    await store.putCheckpoint(shard, at, bytesOf('first'));
    await store.putCheckpoint(shard, at, bytesOf('second'));
    await store.putCheckpoint(shard, { seq: 10, writer: 8 }, bytesOf('of 8'));
    await store.putCheckpoint(shard, { seq: 1, writer: 78 }, bytesOf('1 of 78'));
    await store.putCheckpoint(shard, { seq: 17, writer: 8 }, new Uint8Array(0));
    await store.putCheckpoint(other, at, bytesOf('other'));
    assert.deepEqual(await store.getCheckpoint(shard, at), bytesOf('first'));
    assert.deepEqual(await store.getCheckpoint(shard, { seq: 10, writer: 8 }), bytesOf('of 8'));
    assert.deepEqual(await store.getCheckpoint(shard, { seq: 1, writer: 78 }), bytesOf('1 of 78'));
    assert.deepEqual(await store.getCheckpoint(shard, { seq: 17, writer: 8 }), new Uint8Array(0));
    assert.deepEqual(await store.getCheckpoint(other, at), bytesOf('other'));
    await failsWith('checkpoint-not-found', store.getCheckpoint(shard, { seq: 11, writer: 7 }));
    await failsWith('checkpoint-not-found', store.getCheckpoint(other, { seq: 10, writer: 8 }));
  });

  it('moves the pointer forward only, to what is committed, under the current epoch', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    await rig().fill(shard, 5);
    const moved = await store.movePointer(shard, 1, { seq: 3, writer: 7 });
    assert.equal(moved.kind, 'done');
    assert.deepEqual(moved.head, await store.readHead(shard));
    assert.deepEqual(moved.head.checkpoint, { seq: 3, writer: 7 });
    const refused: [epoch: number, seq: number, writer: number][] = [
      [1, 3, 7], // the same again: the head that comes back tells that it is there
      [1, 3, 8],
      [1, 2, 7],
      [0, 4, 7],
      [2, 4, 7],
      [1, 6, 7], // above the head
    ];
    for (const [epoch, seq, writer] of refused) {
      const outcome = await store.movePointer(shard, epoch, { seq, writer });
      assert.deepEqual(outcome, { kind: 'conflict', head: moved.head }, `${epoch} ${seq} ${writer}`);
    }
    await store.acquireLeases(8, [{ shard, holder: 7, epoch: 1 }]);
    assert.equal((await store.movePointer(shard, 1, { seq: 5, writer: 7 })).kind, 'conflict');
    assert.equal((await store.movePointer(shard, 2, { seq: 5, writer: 8 })).kind, 'done');
  });

  it('deletes only checkpoints below the pointer', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    const other = await rig().freshShard();
    await rig().fill(shard, 5);
    const all = [
      { seq: 2, writer: 7 },
      { seq: 3, writer: 6 },
      { seq: 3, writer: 7 },
      { seq: 5, writer: 7 },
    ];
    for (const pointer of all) await store.putCheckpoint(shard, pointer, bytesOf('x'));
    await store.putCheckpoint(other, all[0], bytesOf('other'));
    await store.deleteOldCheckpoints(shard);
    assert.deepEqual(await store.getCheckpoint(shard, all[0]), bytesOf('x'));
    await store.movePointer(shard, 1, { seq: 3, writer: 7 });
    await store.deleteOldCheckpoints(shard);
    await store.deleteOldCheckpoints(shard);
    await failsWith('checkpoint-not-found', store.getCheckpoint(shard, all[0]));
    for (const pointer of all.slice(1))
      assert.deepEqual(await store.getCheckpoint(shard, pointer), bytesOf('x'));
    assert.deepEqual(await store.getCheckpoint(other, all[0]), bytesOf('other'));
  });

  it('takes a checkpoint of exactly the maximum and refuses one byte more', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    const bytes = new Uint8Array(store.bodyBytesMax).fill(0xa5);
    await store.putCheckpoint(shard, { seq: 1, writer: 1 }, bytes);
    assert(Buffer.from(await store.getCheckpoint(shard, { seq: 1, writer: 1 })).equals(bytes));
    const tooLarge = new Uint8Array(store.bodyBytesMax + 1);
    await failsWith('item-too-large', store.putCheckpoint(shard, { seq: 2, writer: 1 }, tooLarge));
    await failsWith('checkpoint-not-found', store.getCheckpoint(shard, { seq: 2, writer: 1 }));
  });
}
