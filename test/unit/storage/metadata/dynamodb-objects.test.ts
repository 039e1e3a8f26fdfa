/**
 * Objects on DynamoDB: rows, heads and the list of the unreferenced are items of their own, so that a crash may come
 * between any two of them. No live object is ever deleted, and every orphan is found in the end.
 */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import type { DynamodbMetadataStore } from '../../../../storage/metadata/dynamodb/dynamodb-metadata-store.ts';
import type { ListedObject } from '../../../../storage/metadata/metadata-store.ts';
import { failsWith, objectRow } from '../../../contract/metadata-store-rig.ts';
import type { DynamodbCall, DynamodbFaultEffect } from '../../../support/dynamodb-proxy.ts';
import { DynamodbRig, entryOf, eventually, gate, touches } from '../../../support/dynamodb-rig.ts';

const THROTTLED: DynamodbFaultEffect = { kind: 'refuse', name: 'ThrottlingException' };

let rig: DynamodbRig;
let shard = -1;
before(async () => {
  rig = await DynamodbRig.start(32);
});
after(() => rig.close());
beforeEach(() => {
  shard++;
  rig.proxy.clear();
});

const garbage = (store: DynamodbMetadataStore): Promise<ListedObject[]> =>
  store.listObjects({ limit: 100, unreferencedOnly: true });

const idsOf = (rows: ListedObject[]) => rows.map(({ object }) => `${object.incarnation}/${object.number}`);

async function rowOf(store: DynamodbMetadataStore, incarnation: number, number: number) {
  return (await store.getObjects([{ incarnation, number }]))[0];
}

/** What a later holder of a shard does with rows that its log does not name. */
async function sweep(
  store: DynamodbMetadataStore,
  ofShard: number,
  epoch: number,
  named: string[],
): Promise<void> {
  const rows = await store.listObjects({ limit: 1000 });
  const drops = rows
    .filter(({ object, shards }) => {
      return (
        !named.includes(`${object.incarnation}/${object.number}`) &&
        shards.some((one) => one.shard === ofShard)
      );
    })
    .map(({ object }) => ({ shard: ofShard, object, belowEpoch: epoch }));
  await store.dropReferences(drops);
}

describe("a crash between an object's row and the heads", () => {
  it('leaves a row that a later holder finds, marks and forgets', async () => {
    const [a, b] = [shard, ++shard];
    const row = objectRow(7, 1, { shards: [a, b].map((one) => ({ shard: one, epoch: 1 })) });
    const writer = rig.store();
    // It ends after the row, before any head moved.
    rig.proxy.inject({ on: (call) => call.action === 'UpdateItem', effect: { kind: 'drop-request' } });
    await failsWith('store-unknown', writer.appendEntries([entryOf(a, 1), entryOf(b, 1)], [row]));
    rig.proxy.clear();
    await writer.close();

    const successor = rig.store();
    assert.deepEqual((await rowOf(successor, 7, 1))?.shards, row.shards);
    await successor.acquireLeases(8, [{ shard: a, holder: 7, epoch: 1 }]);
    await sweep(successor, a, 2, []);
    // The other shard's holder may still name it: it is no garbage yet.
    assert.deepEqual(idsOf(await garbage(successor)), []);
    await successor.markObjects([row.object], 5);
    await successor.forgetObjects([row.object]);
    assert.equal((await rowOf(successor, 7, 1))?.markedAtMs, null);

    await successor.acquireLeases(8, [{ shard: b, holder: 7, epoch: 1 }]);
    await sweep(successor, b, 2, []);
    assert.deepEqual(idsOf(await garbage(successor)), ['7/1']);
    await successor.markObjects([row.object], 5);
    await successor.forgetObjects([row.object]);
    assert.equal(await rowOf(successor, 7, 1), null);
    assert.deepEqual(await garbage(successor), []);
    assert.deepEqual(await rig.sortKeys('unreferenced'), []);
  });

  it('lets no slow writer commit what was swept: its epoch is refused', async () => {
    const writer = rig.store();
    const row = objectRow(7, 2, { shards: [{ shard, epoch: 1 }] });
    const { until, release } = gate();
    const isAppend = (call: { action: string; body: { ExpressionAttributeValues?: object } }) =>
      call.action === 'UpdateItem' && ':commit' in (call.body.ExpressionAttributeValues ?? {});
    rig.proxy.inject({ on: isAppend, effect: { kind: 'hold', until }, times: 1 });
    const slow = writer.appendEntries([entryOf(shard, 1)], [row]);
    await eventually(() => rig.proxy.calls.some(isAppend), 'the append is on its way');

    const successor = rig.store();
    const [taken] = await successor.acquireLeases(8, [{ shard, holder: 7, epoch: 1 }]);
    assert.equal(taken.kind, 'done');
    await sweep(successor, shard, 2, []);
    await successor.markObjects([row.object], 5);
    await successor.forgetObjects([row.object]);
    assert.equal(await rowOf(successor, 7, 2), null);

    release();
    const [outcome] = await slow;
    assert.equal(outcome.kind, 'conflict');
    assert.deepEqual(await successor.readEntries(shard, 0, 1e9), []);
  });

  it('lets a row that comes after the sweep be found by the next one', async () => {
    const writer = rig.store();
    const row = objectRow(7, 4, { shards: [{ shard, epoch: 1 }] });
    const { until, release } = gate();
    const isRow = (call: DynamodbCall) => call.action === 'PutItem' && touches('object#7')(call);
    rig.proxy.inject({ on: isRow, effect: { kind: 'hold', until }, times: 1 });
    const slow = writer.appendEntries([entryOf(shard, 1)], [row]);
    await eventually(() => rig.proxy.calls.some(isRow), 'the row is on its way');
    const successor = rig.store();
    await successor.acquireLeases(8, [{ shard, holder: 7, epoch: 1 }]);
    await sweep(successor, shard, 2, []);
    release();
    assert.equal((await slow)[0].kind, 'conflict');
    assert.equal((await rowOf(successor, 7, 4))?.shards.length, 1);
    await sweep(successor, shard, 2, []);
    assert(idsOf(await garbage(successor)).includes('7/4'));
    await successor.markObjects([row.object], 5);
    await successor.forgetObjects([row.object]);
  });

  it('sweeps nothing that the log names, nor what the holder itself writes', async () => {
    const writer = rig.store();
    const named = objectRow(7, 3, { shards: [{ shard, epoch: 1 }] });
    assert.deepEqual(await writer.appendEntries([entryOf(shard, 1)], [named]), [{ kind: 'done' }]);
    const successor = rig.store();
    await successor.acquireLeases(8, [{ shard, holder: 7, epoch: 1 }]);
    const own = objectRow(8, 1, { shards: [{ shard, epoch: 2 }] });
    // Its row is there before its entry is, and a sweep of its own may meet it.
    await successor.appendEntries([], [own]);
    await sweep(successor, shard, 2, ['7/3']);
    assert.deepEqual((await rowOf(successor, 7, 3))?.shards, named.shards);
    assert.deepEqual((await rowOf(successor, 8, 1))?.shards, own.shards);
    assert.deepEqual(await garbage(successor), []);
  });
});

describe('the list of the unreferenced', () => {
  const bare = (number: number) => objectRow(20, number, { shards: [{ shard: 0, epoch: 1 }] });
  const dropAll = (number: number) => [{ shard: 0, object: { incarnation: 20, number }, belowEpoch: null }];

  it('names a row before it loses its last reference', async () => {
    const store = rig.store();
    await store.appendEntries([], [bare(1)]);
    rig.proxy.clear();
    rig.proxy.inject({ on: touches('object#20'), effect: THROTTLED });
    await assert.rejects(store.dropReferences(dropAll(1)));
    rig.proxy.clear();
    // The row still has its reference: it is named, and no garbage.
    assert.equal((await rig.sortKeys('unreferenced')).length, 1);
    assert.deepEqual(await garbage(store), []);
    await store.dropReferences(dropAll(1));
    assert.deepEqual(idsOf(await garbage(store)), ['20/1']);
  });

  it('holds the drop back when it cannot be written', async () => {
    const store = rig.store();
    await store.appendEntries([], [bare(2)]);
    rig.proxy.inject({ on: touches('unreferenced'), effect: THROTTLED });
    await failsWith('store-unavailable', store.dropReferences(dropAll(2)));
    assert.equal((await rowOf(store, 20, 2))?.shards.length, 1);
    rig.proxy.clear();
    await store.dropReferences(dropAll(2));
  });

  it('forgets what is gone, also when whoever removed the row ended before', async () => {
    const store = rig.store();
    await store.appendEntries([], [bare(3)]);
    await store.dropReferences(dropAll(3));
    await store.markObjects([bare(3).object], 9);
    rig.proxy.inject({ on: touches('unreferenced'), effect: THROTTLED });
    await assert.rejects(store.forgetObjects([bare(3).object]));
    rig.proxy.clear();
    assert.equal(await rowOf(store, 20, 3), null);
    const before = (await rig.sortKeys('unreferenced')).length;
    assert(!idsOf(await garbage(store)).includes('20/3'));
    assert.equal((await rig.sortKeys('unreferenced')).length, before - 1);
  });

  it('keeps a row that was asked to be forgotten unmarked', async () => {
    const store = rig.store();
    await store.appendEntries([], [bare(4)]);
    await store.dropReferences(dropAll(4));
    await store.forgetObjects([bare(4).object]);
    assert(idsOf(await garbage(store)).includes('20/4'));
  });

  it('keeps the name of a row that is about to come', async () => {
    const store = rig.store();
    const { until, release } = gate();
    rig.proxy.inject({ on: touches('object#21'), effect: { kind: 'hold', until }, times: 1 });
    const putting = store.appendEntries([], [objectRow(21, 1, { shards: [] })]);
    await eventually(() => rig.proxy.calls.some(touches('object#21')), 'the row is on its way');
    assert(!idsOf(await garbage(rig.store())).includes('21/1'));
    release();
    await putting;
    assert(idsOf(await garbage(store)).includes('21/1'));
  });

  it('pages past names that are no garbage', async () => {
    const store = rig.store();
    const rows = Array.from({ length: 250 }, (_, i) =>
      objectRow(30, i, { shards: [{ shard: 0, epoch: 1 }] }),
    );
    await store.appendEntries([], rows);
    for (const { object } of rows.slice(0, 240)) {
      const sk = [object.incarnation, object.number].map((n) => String(n).padStart(16, '0')).join('#');
      await rig.putItem({ pk: { S: 'unreferenced' }, sk: { S: sk } });
    }
    await store.dropReferences(rows.slice(240).map(({ object }) => ({ shard: 0, object, belowEpoch: null })));
    const page = await store.listObjects({
      after: { incarnation: 29, number: 0 },
      limit: 7,
      unreferencedOnly: true,
    });
    assert.deepEqual(
      idsOf(page),
      [240, 241, 242, 243, 244, 245, 246].map((number) => `30/${number}`),
    );
  });
});

describe('dropping references', () => {
  it('loses none of two that drop at once', async () => {
    const stores = [rig.store(), rig.store()];
    for (let round = 0; round < 10; round++) {
      const object = { incarnation: 40, number: round };
      const shards = Array.from({ length: 8 }, (_, i) => ({ shard: i, epoch: 1 }));
      await stores[0].appendEntries([], [objectRow(40, round, { shards })]);
      await Promise.all(
        shards.map((one, i) =>
          stores[i % 2].dropReferences([{ shard: one.shard, object, belowEpoch: null }]),
        ),
      );
      assert.deepEqual((await rowOf(stores[0], 40, round))?.shards, []);
    }
  });

  it('is done once when its reply is lost', async () => {
    const store = rig.store();
    const object = { incarnation: 41, number: 0 };
    const shards = [0, 1].map((one) => ({ shard: one, epoch: 1 }));
    await store.appendEntries([], [objectRow(41, 0, { shards })]);
    const on = (call: { action: string; body: unknown }) =>
      call.action === 'UpdateItem' && touches('object#41')(call);
    rig.proxy.inject({ on, effect: { kind: 'drop-reply' }, times: 1 });
    await store.dropReferences([{ shard: 0, object, belowEpoch: null }]);
    assert.deepEqual((await rowOf(store, 41, 0))?.shards, [{ shard: 1, epoch: 1 }]);
  });
});

describe('a row', () => {
  it('is found by its incarnation, which is named before the first row is put, and once', async () => {
    const store = rig.store();
    rig.proxy.inject({ on: touches('object-incarnations'), effect: THROTTLED });
    await failsWith('store-unavailable', store.appendEntries([], [objectRow(50, 1)]));
    assert.equal(await rowOf(store, 50, 1), null);
    rig.proxy.clear();
    await store.appendEntries([], [objectRow(50, 1)]);
    await store.appendEntries([], [objectRow(50, 2)]);
    assert.equal(rig.proxy.calls.filter(touches('object-incarnations')).length, 1);
  });

  it('is put again when its reply is lost, and stays as it was first', async () => {
    const store = rig.store();
    rig.proxy.inject({ on: touches('object#51'), effect: { kind: 'drop-reply' }, times: 2 });
    await store.appendEntries([], [objectRow(51, 1, { bytes: 5 })]);
    await store.appendEntries([], [objectRow(51, 1, { bytes: 6 })]);
    assert.equal((await rowOf(store, 51, 1))?.bytes, 5);
  });
});
