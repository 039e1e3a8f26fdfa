/** Pages and checkpoints on DynamoDB that one item cannot hold, replaced and deleted while they are read; damage. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import type { IndexPage } from '../../../../storage/metadata/metadata-store.ts';
import { failsWith } from '../../../contract/metadata-store-rig.ts';
import type { DynamodbCall } from '../../../support/dynamodb-proxy.ts';
import { DynamodbRig, entryOf, gate, touches } from '../../../support/dynamodb-rig.ts';

const LARGE = 900_000;

let rig: DynamodbRig;
let topicId = 0;
before(async () => {
  rig = await DynamodbRig.start(16);
});
after(() => rig.close());
beforeEach(() => {
  rig.proxy.clear();
  topicId++;
});

function page(stamp: number, bytes: number, baseOffset = 100): IndexPage {
  const body = new Uint8Array(bytes).map((_, i) => i * 7 + stamp);
  return { topicId, partition: 1, shard: 0, baseOffset, stamp, bytes: body };
}

const at = (offset: number) => [{ topicId, partition: 1, offset }];
const of = () => ({ topicId, partition: 1, fromBaseOffset: 0, limit: 10 });
const chunks = () => rig.sortKeys(`page-chunk#${topicId}#1`);

describe('a large page', () => {
  it('comes back whole by offset, in a list and in a scan', async () => {
    const store = rig.store();
    const all = [page(1, LARGE), page(1, 10, 200), page(1, 393_216, 300), page(1, 393_217, 400)];
    await store.putPages(all);
    assert.deepEqual(await store.findPages([...at(150), ...at(999), ...at(99)]), [all[0], all[3], null]);
    assert.deepEqual(await store.listPages(of()), all);
    assert.equal((await chunks()).length, 3 + 2);
    const scanned: IndexPage[] = [];
    for (let cursor: string | null = null; ; ) {
      const some = await store.scanPages({ cursor, limit: 3 });
      assert(some.pages.length <= 3);
      scanned.push(...some.pages.filter((one) => one.topicId === topicId));
      cursor = some.cursor;
      if (cursor === null) break;
    }
    const byBase = (a: IndexPage, b: IndexPage) => a.baseOffset - b.baseOffset;
    assert.deepEqual(scanned.sort(byBase), all);
  });

  it('leaves no chunk of what it replaces, and none when it was too late itself', async () => {
    const store = rig.store();
    await store.putPages([page(1, LARGE)]);
    await store.putPages([page(3, LARGE)]);
    assert.equal((await chunks()).length, 3);
    await store.putPages([page(2, LARGE)]);
    assert.deepEqual(await store.listPages(of()), [page(3, LARGE)]);
    const left = await chunks();
    assert(
      left.every(
        (sk) => sk.startsWith('0000000000000100#0000000000000003#') || sk.includes('#0000000000000002#'),
      ),
    );
    await store.putPages([page(4, 10)]);
    assert.deepEqual(await store.listPages(of()), [page(4, 10)]);
    await store.deletePages({ topicId, partition: 1, belowBaseOffset: 101 });
    assert.deepEqual([await chunks(), await store.listPages(of())], [[], []]);
  });

  it('is read as one of the two when it is replaced meanwhile', async () => {
    const store = rig.store();
    await store.putPages([page(1, LARGE)]);
    const { until, release } = gate();
    const isChunk = (call: DynamodbCall) =>
      call.action === 'GetItem' && touches(`page-chunk#${topicId}#1`)(call);
    rig.proxy.inject({ on: isChunk, effect: { kind: 'hold', until }, times: 3 });
    const reading = store.findPages(at(100));
    await new Promise((resolve) => setTimeout(resolve, 30));
    await rig.store().putPages([page(2, LARGE)]);
    release();
    assert.deepEqual(await reading, [page(2, LARGE)]);
  });

  it('is gone when it is deleted meanwhile', async () => {
    const store = rig.store();
    await store.putPages([page(1, LARGE)]);
    const { until, release } = gate();
    const isChunk = (call: DynamodbCall) =>
      call.action === 'GetItem' && touches(`page-chunk#${topicId}#1`)(call);
    rig.proxy.inject({ on: isChunk, effect: { kind: 'hold', until }, times: 3 });
    const reading = store.listPages(of());
    await new Promise((resolve) => setTimeout(resolve, 30));
    await rig.store().deletePages({ topicId, partition: 1, belowBaseOffset: 101 });
    release();
    assert.deepEqual(await reading, []);
  });

  it('is corrupt where a chunk is missing', async () => {
    const store = rig.store();
    await store.putPages([page(1, LARGE)]);
    await rig.deleteItem(`page-chunk#${topicId}#1`, (await chunks())[1]);
    await failsWith('corrupt-store', store.findPages(at(100)));
    await failsWith('corrupt-store', store.listPages(of()));
    await rig.store().deletePages({ topicId, partition: 1, belowBaseOffset: 101 });
  });

  it('is put once when its reply is lost', async () => {
    const store = rig.store();
    rig.proxy.inject({ on: touches(`page#${topicId}#1`), effect: { kind: 'drop-reply' }, times: 1 });
    await store.putPages([page(5, 100)]);
    await store.putPages([page(4, 50)]);
    assert.deepEqual(await store.listPages(of()), [page(5, 100)]);
  });
});

describe('a checkpoint', () => {
  const bytes = (seed: number, length = LARGE) => new Uint8Array(length).map((_, i) => i * 3 + seed);

  it('of two that write under one key is that of the first, whole', async () => {
    const stores = [rig.store(), rig.store()];
    for (let seq = 1; seq <= 5; seq++) {
      const pointer = { seq, writer: 7 };
      await Promise.all(stores.map((store, i) => store.putCheckpoint(1, pointer, bytes(i))));
      const found = await rig.store().getCheckpoint(1, pointer);
      assert(stores.some((_, i) => Buffer.from(found).equals(bytes(i))));
      await stores[0].putCheckpoint(1, pointer, bytes(9));
      assert(Buffer.from(await stores[1].getCheckpoint(1, pointer)).equals(found));
    }
  });

  it('that is deleted while it is read is not found; a damaged one is corrupt', async () => {
    const store = rig.store();
    const pointer = { seq: 1, writer: 7 };
    await store.appendEntries([entryOf(2, 1)], []);
    await store.appendEntries([entryOf(2, 2)], []);
    await store.putCheckpoint(2, pointer, bytes(1));
    await store.putCheckpoint(2, { seq: 2, writer: 7 }, bytes(2));
    const { until, release } = gate();
    rig.proxy.inject({ on: touches('checkpoint-chunk#2'), effect: { kind: 'hold', until }, times: 3 });
    const reading = store.getCheckpoint(2, pointer);
    reading.catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 30));
    await store.movePointer(2, 1, { seq: 2, writer: 7 });
    await rig.store().deleteOldCheckpoints(2);
    release();
    await failsWith('checkpoint-not-found', reading);
    const left = await rig.sortKeys('checkpoint-chunk#2');
    assert.equal(left.length, 3);
    await rig.deleteItem('checkpoint-chunk#2', left[0]);
    await failsWith('corrupt-store', store.getCheckpoint(2, { seq: 2, writer: 7 }));
  });

  it('leaves its pointer unknown when the reply of the move is lost', async () => {
    const store = rig.store();
    await store.appendEntries([entryOf(3, 1)], []);
    const isUpdate = (call: DynamodbCall) => call.action === 'UpdateItem' && touches('head#3')(call);
    rig.proxy.inject({ on: isUpdate, effect: { kind: 'drop-reply' }, times: 1 });
    await failsWith('store-unknown', store.movePointer(3, 1, { seq: 1, writer: 7 }));
    assert.deepEqual((await store.readHead(3)).checkpoint, { seq: 1, writer: 7 });
  });
});
