/** The metadata store's contract: objects' rows and their references. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { ListedObject, ObjectShard } from '../../storage/metadata/metadata-store.ts';
import { type ContractSettings, objectRow, rigFor } from './metadata-store-rig.ts';

export function objectsContract(settings: ContractSettings): void {
  const rig = rigFor(settings);
  const put = (incarnation: number, number: number, shards: ObjectShard[]) =>
    rig().store.appendEntries([], [objectRow(incarnation, number, { shards })]);
  const get = async (incarnation: number, number: number): Promise<ListedObject | null> =>
    (await rig().store.getObjects([{ incarnation, number }]))[0];

  it('drops references by committed entry, or only those of older epochs', async () => {
    const { store } = rig();
    const object = { incarnation: 1, number: 1 };
    await put(1, 1, [
      { shard: 3, epoch: 5 },
      { shard: 1, epoch: 2_000_000_000_000 },
      { shard: 30, epoch: 5 },
      { shard: 0, epoch: 0 },
    ]);
    const left = async () => (await get(1, 1))!.shards.map(({ shard }) => shard).sort((a, b) => a - b);
    await store.dropReferences([{ shard: 3, object, belowEpoch: 5 }]);
    await store.dropReferences([{ shard: 3, object, belowEpoch: 4 }]);
    await store.dropReferences([{ shard: 2, object, belowEpoch: null }]);
    assert.deepEqual(await left(), [0, 1, 3, 30]);
    await store.dropReferences([{ shard: 3, object, belowEpoch: 6 }]);
    assert.deepEqual(await left(), [0, 1, 30]);
    await store.dropReferences([
      { shard: 30, object, belowEpoch: null },
      { shard: 30, object, belowEpoch: null },
      { shard: 1, object, belowEpoch: 2_000_000_000_000 },
      { shard: 0, object: { incarnation: 1, number: 99 }, belowEpoch: null },
    ]);
    assert.deepEqual(await left(), [0, 1]);
    assert.deepEqual((await get(1, 1))!.shards.find(({ shard }) => shard === 1)?.epoch, 2_000_000_000_000);
    // A late second insert of the row brings no reference back.
    await put(1, 1, [{ shard: 3, epoch: 5 }]);
    assert.deepEqual(await left(), [0, 1]);
    await store.dropReferences([]);
  });

  it('marks and forgets only what nobody refers to', async () => {
    const { store } = rig();
    const object = { incarnation: 2, number: 1 };
    await put(2, 1, [{ shard: 1, epoch: 1 }]);
    await store.markObjects([object], 100);
    assert.equal((await get(2, 1))?.markedAtMs, null);
    await store.forgetObjects([object]);
    assert.notEqual(await get(2, 1), null);
    await store.dropReferences([{ shard: 1, object, belowEpoch: null }]);
    await store.forgetObjects([object]);
    assert.deepEqual(await get(2, 1), { ...objectRow(2, 1, { shards: [] }), markedAtMs: null });
    await store.markObjects([object, { incarnation: 2, number: 77 }], 200);
    await store.markObjects([object], 300);
    assert.equal((await get(2, 1))?.markedAtMs, 200);
    await store.forgetObjects([object, { incarnation: 2, number: 77 }]);
    await store.forgetObjects([object]);
    assert.equal(await get(2, 1), null);
    await store.markObjects([], 1);
    await store.forgetObjects([]);
  });

  it('keeps the order of what is asked and knows neighbours apart', async () => {
    const { store } = rig();
    for (const [incarnation, number] of [
      [31, 1],
      [3, 11],
      [3, 1],
      [3, 3_000_000_000],
      [0, 0],
    ]) {
      await put(incarnation, number, []);
    }
    const ask = [
      [3, 3_000_000_000],
      [31, 1],
      [31, 11],
      [0, 0],
      [3, 11],
    ].map(([incarnation, number]) => ({ incarnation, number }));
    const found = await store.getObjects(ask);
    assert.deepEqual(
      found.map((row) => row?.object ?? null),
      ask.map((object, i) => (i === 2 ? null : object)),
    );
    assert.deepEqual(await store.getObjects([]), []);
  });
}

export function listedObjectsContract(settings: ContractSettings): void {
  const rig = rigFor(settings);

  it('lists by (incarnation, number) in pages, the unreferenced on their own', async () => {
    const { store } = rig();
    const ids: [number, number][] = [];
    for (const incarnation of [1, 2, 10, 11]) {
      for (const number of [0, 1, 2, 9, 10, 100, 3_000_000_000]) ids.push([incarnation, number]);
    }
    const rows = ids.map(([incarnation, number], i) =>
      objectRow(incarnation, number, { shards: i % 3 === 0 ? [] : [{ shard: i % 5, epoch: i }] }),
    );
    await store.appendEntries([], [...rows].reverse());
    const list = async (limit: number, unreferencedOnly: boolean): Promise<ListedObject[]> => {
      const all: ListedObject[] = [];
      for (let after: ListedObject['object'] | undefined; ; ) {
        const page = await store.listObjects({ ...(after && { after }), limit, unreferencedOnly });
        assert(page.length <= limit);
        if (page.length === 0) return all;
        all.push(...page);
        after = page.at(-1)!.object;
      }
    };
    const expected = rows.map((row) => ({ ...row, markedAtMs: null }));
    for (const limit of [1, 4, 7, 1000]) {
      assert.deepEqual(await list(limit, false), expected);
      assert.deepEqual(
        await list(limit, true),
        expected.filter(({ shards }) => shards.length === 0),
      );
    }
    assert.deepEqual(await store.listObjects({ after: { incarnation: 2, number: 5 }, limit: 1 }), [
      expected[10],
    ]);
    assert.deepEqual(await store.listObjects({ after: { incarnation: 12, number: 0 }, limit: 1 }), []);
  });
}
