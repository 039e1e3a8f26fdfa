/**
 * The log on DynamoDB: bodies that lie in chunks, damage that must not pass for an end of the log, trims that end
 * half-way.
 */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { entryItem } from '../../../../storage/metadata/dynamodb/dynamodb-items.ts';
import type { DynamodbMetadataStore } from '../../../../storage/metadata/dynamodb/dynamodb-metadata-store.ts';
import type { LogEntry } from '../../../../storage/metadata/metadata-store.ts';
import { failsWith } from '../../../contract/metadata-store-rig.ts';
import type { DynamodbFaultEffect } from '../../../support/dynamodb-proxy.ts';
import { DynamodbRig, entryOf, eventually, gate, touches } from '../../../support/dynamodb-rig.ts';

const THROTTLED: DynamodbFaultEffect = { kind: 'refuse', name: 'ProvisionedThroughputExceededException' };

let rig: DynamodbRig;
let shard = -1;
before(async () => {
  rig = await DynamodbRig.start(64);
});
after(() => rig.close());
beforeEach(() => {
  shard++;
  rig.proxy.clear();
});

const chunks = async () => {
  const lists = await Promise.all(
    [0, 1, 2, 3, 4, 5, 6, 7].map((spread) => rig.items(`log-chunk#${shard}#${spread}`)),
  );
  return lists.flat();
};
const seqs = (entries: LogEntry[]) => entries.map(({ seq }) => seq);

async function appended(store: DynamodbMetadataStore, entries: LogEntry[]): Promise<void> {
  for (const entry of entries) assert.deepEqual(await store.appendEntries([entry], []), [{ kind: 'done' }]);
}

describe('bodies of every size around the bounds', () => {
  it('come back byte by byte, from the head and from their own items', async () => {
    const store = rig.store();
    const sizes = [0, 1, 4095, 4096, 4097, 393_215, 393_216, 393_217, 786_433, 0];
    const entries = sizes.map((size, i) =>
      entryOf(shard, i + 1, {
        body: new Uint8Array(size).map((_, at) => at * 13 + i),
        commitId: `#:${i}:~${'x'.repeat(50)}`,
      }),
    );
    for (const [i, entry] of entries.entries()) {
      await appended(store, [entry]);
      const [newest] = await rig.store().readEntries(shard, i, 1);
      assert(Buffer.from(newest.body).equals(entry.body), `${sizes[i]} bytes`);
    }
    const all = await rig.store().readEntries(shard, 0, 1e9);
    assert.deepEqual(seqs(all), seqs(entries));
    for (const [i, { body, commitId }] of all.entries()) {
      assert(Buffer.from(body).equals(entries[i].body), `${sizes[i]} bytes`);
      assert.equal(commitId, entries[i].commitId);
    }
    assert.deepEqual(seqs(await store.readEntries(shard, 0, 400_000)), [1, 2, 3, 4, 5]);
  });
});

describe('a row that lies where the newest entry is to be copied', () => {
  it('is never taken for that entry: the head keeps it, and the next append is refused', async () => {
    const store = rig.store();
    await appended(store, [entryOf(shard, 1)]);
    // What a copy of another cluster left under a key that this log had not reached.
    const foreign = { shard, seq: 2, epoch: 1, commitId: 'of-another-cluster', stored: {} };
    await rig.putItem(entryItem(foreign));
    const entry = entryOf(shard, 2);
    await appended(store, [entry]);
    await failsWith('corrupt-store', store.appendEntries([entryOf(shard, 3)], []));
    await failsWith('corrupt-store', rig.store().appendEntries([entryOf(shard, 3)], []));
    assert.deepEqual(await rig.store().readEntries(shard, 1, 1e9), [entry]);
  });
});

describe('a damaged log', () => {
  const large = (seq: number) => entryOf(shard, seq, { body: new Uint8Array(900_000).fill(seq) });

  it('is corrupt where a chunk is missing, short or other than it was', async () => {
    const store = rig.store();
    await appended(store, [large(1), entryOf(shard, 2)]);
    const all = await chunks();
    const spoilt = { ...all[1], body: { B: new Uint8Array(393_216) } };
    const short = { ...all[1], body: { B: new Uint8Array(5) } };
    const long = { ...all[1], body: { B: new Uint8Array(395_000) } };
    for (const item of [spoilt, short, long]) {
      await rig.putItem(item);
      await failsWith('corrupt-store', rig.store().readEntries(shard, 0, 1e9));
    }
    await rig.deleteItem(`log-chunk#${shard}#1`, all[1].sk.S ?? '');
    await failsWith('corrupt-store', rig.store().readEntries(shard, 0, 1e9));
    assert.equal((await rig.store().readEntries(shard, 1, 1e9)).length, 1);
    await rig.putItem(all[1]);
    assert.equal((await rig.store().readEntries(shard, 0, 1e9)).length, 2);
  });

  it('is corrupt where an entry is missing, at either end or between', async () => {
    const store = rig.store();
    await appended(
      store,
      [1, 2, 3, 4, 5].map((seq) => entryOf(shard, seq)),
    );
    await eventually(async () => (await rig.sortKeys(`log#${shard}`)).length === 5, 'the copies');
    const items = await rig.items(`log#${shard}`);
    for (const missing of [0, 2, 3]) {
      await rig.deleteItem(`log#${shard}`, items[missing].sk.S ?? '');
      await failsWith('corrupt-store', rig.store().readEntries(shard, 0, 1e9));
      await rig.putItem(items[missing]);
    }
    const head = (await rig.items(`head#${shard}`))[0];
    const { body: _, entryEpoch: __, ...bare } = head;
    await rig.putItem(bare);
    assert.equal((await rig.store().readEntries(shard, 0, 1e9)).length, 5);
    await rig.deleteItem(`log#${shard}`, items[4].sk.S ?? '');
    await failsWith('corrupt-store', rig.store().readEntries(shard, 4, 1e9));
  });

  it('is corrupt where an item does not read', async () => {
    const store = rig.store();
    await appended(store, [entryOf(shard, 1), entryOf(shard, 2)]);
    await eventually(async () => (await rig.sortKeys(`log#${shard}`)).length === 2, 'the copies');
    const [item] = await rig.items(`log#${shard}`);
    for (const wrong of [
      { ...item, epoch: { S: '1' } },
      { ...item, epoch: { N: '1.5' } },
      { ...item, commit: { N: '1' } },
      { ...item, body: { S: 'text' } },
      { ...item, spill: { S: '1:2' } },
    ]) {
      await rig.putItem(wrong);
      await failsWith('corrupt-store', rig.store().readEntries(shard, 0, 1e9));
    }
  });

  it('is not what a reader calls a log that was trimmed under it', async () => {
    const store = rig.store();
    await appended(store, [large(1), large(2), entryOf(shard, 3)]);
    for (const on of [
      ({
        action,
        body,
      }: {
        action: string;
        body: { ExpressionAttributeValues?: Record<string, { S?: string }> };
      }) => action === 'Query' && body.ExpressionAttributeValues?.[':pk'].S === `log#${shard}`,
      touches(`log-chunk#${shard}#2`),
    ]) {
      const { until, release } = gate();
      const mend = rig.proxy.inject({ on, effect: { kind: 'hold', until }, times: 1 });
      const reading = rig.store().readEntries(shard, 0, 1e9);
      await new Promise((resolve) => setTimeout(resolve, 50));
      const trimmer = rig.store();
      const through = (await trimmer.readHead(shard)).trimmedThrough + 1;
      await trimmer.movePointer(shard, 1, { seq: through, writer: 7 });
      await trimmer.trim(shard, through);
      release();
      assert.deepEqual(
        seqs(await reading),
        [1, 2, 3].filter((seq) => seq > through),
      );
      mend();
    }
  });
});

describe('a trim', () => {
  it('that ended before it deleted is finished by the next of the same mark', async () => {
    const store = rig.store();
    await appended(
      store,
      [1, 2, 3, 4].map((seq) => entryOf(shard, seq, { body: new Uint8Array(5000) })),
    );
    await store.movePointer(shard, 1, { seq: 3, writer: 7 });
    const mend = rig.proxy.inject({ on: 'BatchWriteItem', effect: THROTTLED });
    await assert.rejects(store.trim(shard, 3));
    mend();
    assert.equal((await store.readHead(shard)).trimmedThrough, 3);
    assert.deepEqual(seqs(await rig.store().readEntries(shard, 0, 1e9)), [4]);
    assert.equal((await chunks()).length, 4);
    await store.trim(shard, 3);
    assert.equal((await chunks()).length, 1);
    assert.deepEqual(seqs(await rig.store().readEntries(shard, 0, 1e9)), [4]);
  });

  it('asks again for what a batch left undone', async () => {
    const store = rig.store();
    await appended(
      store,
      Array.from({ length: 30 }, (_, i) => entryOf(shard, i + 1)),
    );
    await store.movePointer(shard, 1, { seq: 29, writer: 7 });
    const leaveHalf = ({ body }: { body: Record<string, unknown> }) => {
      const [[table, requests]] = Object.entries(body.RequestItems as Record<string, unknown[]>);
      return { ...body, RequestItems: { [table]: requests.slice(0, Math.ceil(requests.length / 2)) } };
    };
    rig.proxy.inject({
      on: 'BatchWriteItem',
      effect: {
        kind: 'rewrite',
        request: leaveHalf,
        reply: (reply, { body }) => {
          const [[table, requests]] = Object.entries(body.RequestItems as Record<string, unknown[]>);
          const left = requests.slice(Math.ceil(requests.length / 2));
          return { ...(reply as object), UnprocessedItems: left.length === 0 ? {} : { [table]: left } };
        },
      },
      times: 3,
    });
    const before = rig.counters.read('throttleRetries');
    await store.trim(shard, 29);
    assert(rig.counters.read('throttleRetries') > before);
    await eventually(async () => (await rig.sortKeys(`log#${shard}`)).length === 1, 'only the last is left');
  });
});
