/**
 * The log on DynamoDB: what may come between two requests of an append. The proxy drops, delays and refuses single
 * requests; workers/shard-log settles what stays unknown, as in the broker.
 */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { seededRandom } from '../../../../src/core/random.ts';
import type { DynamodbMetadataStore } from '../../../../storage/metadata/dynamodb/dynamodb-metadata-store.ts';
import type { LogEntry, ObjectRow } from '../../../../storage/metadata/metadata-store.ts';
import { settleAppend } from '../../../../workers/shard-log.ts';
import { failsWith, objectRow } from '../../../contract/metadata-store-rig.ts';
import type { DynamodbCall, DynamodbFaultEffect } from '../../../support/dynamodb-proxy.ts';
import {
  DynamodbRig,
  entryOf,
  eventually,
  gate,
  hurriedClock,
  touches,
} from '../../../support/dynamodb-rig.ts';

const DONE = [{ kind: 'done' }];
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

const toHead = () => {
  const toItem = touches(`head#${shard}`);
  return (call: DynamodbCall) => call.action === 'UpdateItem' && toItem(call);
};
const toLog = () => touches(`log#${shard}`);
const chunks = async () => {
  const lists = await Promise.all(
    [0, 1, 2, 3, 4, 5, 6, 7].map((spread) => rig.items(`log-chunk#${shard}#${spread}`)),
  );
  return lists.flat();
};

async function appended(
  store: DynamodbMetadataStore,
  entries: LogEntry[],
  objects: ObjectRow[] = [],
): Promise<void> {
  for (const entry of entries) assert.deepEqual(await store.appendEntries([entry], objects), DONE);
}

async function settled(store: DynamodbMetadataStore, entry: LogEntry, objects: ObjectRow[] = []) {
  const first: unknown = await store.appendEntries([entry], objects).then(
    ([outcome]) => outcome,
    (error: unknown) => error,
  );
  let unknown = 0;
  const parts = {
    store,
    clock: hurriedClock,
    random: seededRandom(1),
    stopped: new AbortController().signal,
    onUnknown: () => unknown++,
  };
  const verdict = await settleAppend(parts, entry, objects, first);
  return { verdict, unknown };
}

describe("an entry's copy", () => {
  it('is confirmed before the head forgets the entry', async () => {
    const store = rig.store();
    const entries = [entryOf(shard, 1), entryOf(shard, 2)];
    await appended(store, entries);
    const isUpdate = toHead();
    const order = rig.proxy.calls
      .filter((call) => isUpdate(call) || toLog()(call))
      .map(({ action }) => action);
    // Head to 1, its copy, head to 2; the copy of 2 may have begun.
    assert.deepEqual(order.slice(0, 3), ['UpdateItem', 'PutItem', 'UpdateItem']);
    await eventually(async () => (await rig.sortKeys(`log#${shard}`)).length === 2, 'both copies');
    assert.deepEqual(await rig.store().readEntries(shard, 0, 1e9), entries);
  });

  it('takes no part in the acknowledgement', async () => {
    const store = rig.store();
    const { until, release } = gate();
    rig.proxy.inject({ on: toLog(), effect: { kind: 'hold', until } });
    await appended(store, [entryOf(shard, 1)]);
    // The next append waits for it.
    let isDone = false;
    const next = store.appendEntries([entryOf(shard, 2)], []).finally(() => (isDone = true));
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(isDone, false);
    assert.equal((await rig.store().readHead(shard)).headSeq, 1);
    release();
    assert.deepEqual(await next, DONE);
  });

  it('fails the next append as unavailable when it cannot be made, and is made by a later one', async () => {
    const store = rig.store();
    const [first, second] = [entryOf(shard, 1), entryOf(shard, 2)];
    const mend = rig.proxy.inject({ on: toLog(), effect: THROTTLED });
    await appended(store, [first]);
    await failsWith('store-unavailable', store.appendEntries([second], [objectRow(1, shard)]));
    assert.deepEqual(await store.getObjects([objectRow(1, shard).object]), [null]);
    assert.deepEqual(await rig.store().readEntries(shard, 0, 1e9), [first]);
    mend();
    await appended(store, [second]);
    assert.deepEqual(await rig.store().readEntries(shard, 0, 1e9), [first, second]);
  });

  it('counts as made when its reply is lost and a repeat finds it', async () => {
    const store = rig.store();
    rig.proxy.inject({ on: toLog(), effect: { kind: 'drop-reply' }, times: 1 });
    const entries = [entryOf(shard, 1), entryOf(shard, 2)];
    await appended(store, entries);
    assert.deepEqual(await store.readEntries(shard, 0, 1e9), entries);
  });

  it('of a holder that ended before it made one is made by its successor', async () => {
    const store = rig.store();
    rig.proxy.inject({ on: toLog(), effect: THROTTLED, times: 20 });
    const first = entryOf(shard, 1);
    await appended(store, [first]);
    await store.close();
    rig.proxy.clear();
    assert.deepEqual(await rig.sortKeys(`log#${shard}`), []);

    const successor = rig.store();
    assert.deepEqual(await successor.readEntries(shard, 0, 1e9), [first]);
    const [taken] = await successor.acquireLeases(8, [{ shard, holder: 7, epoch: 1 }]);
    assert.equal(taken.kind, 'done');
    // Already at the takeover, so that the first append need not wait.
    await eventually(
      async () => (await rig.sortKeys(`log#${shard}`)).length === 1,
      'the copy at the takeover',
    );
    const second = entryOf(shard, 2, { epoch: 2 });
    await appended(successor, [second]);
    assert.deepEqual(await rig.store().readEntries(shard, 0, 1e9), [first, second]);
  });

  it('is made by an instance that appends without having taken the shard over', async () => {
    const first = entryOf(shard, 1);
    const former = rig.store();
    rig.proxy.inject({ on: toLog(), effect: THROTTLED, times: 20 });
    await appended(former, [first]);
    await former.close();
    rig.proxy.clear();
    const second = entryOf(shard, 2);
    await appended(rig.store(), [second]);
    assert.deepEqual(await rig.store().readEntries(shard, 0, 1e9), [first, second]);
  });

  it('may be made by two at once', async () => {
    const former = rig.store();
    rig.proxy.inject({ on: toLog(), effect: THROTTLED, times: 20 });
    const first = entryOf(shard, 1);
    await appended(former, [first]);
    await former.close();
    rig.proxy.clear();
    const rivals = [rig.store(), rig.store()];
    const seconds = [entryOf(shard, 2), entryOf(shard, 2)];
    const outcomes = await Promise.all(rivals.map((store, i) => store.appendEntries([seconds[i]], [])));
    const winner = outcomes.findIndex(([{ kind }]) => kind === 'done');
    assert.deepEqual(
      outcomes
        .flat()
        .map(({ kind }) => kind)
        .sort(),
      ['conflict', 'done'],
    );
    assert.deepEqual(await rig.store().readEntries(shard, 0, 1e9), [first, seconds[winner]]);
  });

  it('that comes after the trim shows nowhere, and the next trim deletes it', async () => {
    const store = rig.store();
    const entries = [1, 2, 3].map((seq) => entryOf(shard, seq));
    await appended(store, entries.slice(0, 2));
    await eventually(async () => (await rig.sortKeys(`log#${shard}`)).length === 2, 'the copies');
    const { until, release } = gate();
    // The request for the copy of 3 lies somewhere on its way.
    rig.proxy.inject({ on: toLog(), effect: { kind: 'late', until } });
    await appended(store, [entries[2]]);
    await store.movePointer(shard, 1, { seq: 3, writer: 7 });
    await store.trim(shard, 3);
    assert.deepEqual(await rig.sortKeys(`log#${shard}`), []);
    release();
    await eventually(async () => (await rig.sortKeys(`log#${shard}`)).length === 1, 'the late copy');
    rig.proxy.clear();
    const reader = rig.store();
    assert.deepEqual(await reader.readEntries(shard, 0, 1e9), []);
    const fourth = entryOf(shard, 4);
    await appended(reader, [fourth]);
    assert.deepEqual(await rig.store().readEntries(shard, 0, 1e9), [fourth]);
    await reader.trim(shard, 3);
    await eventually(async () => (await rig.sortKeys(`log#${shard}`)).length === 1, 'only the fourth');
    assert.deepEqual(await reader.readEntries(shard, 0, 1e9), [fourth]);
  });

  it('of a trimmed entry is not asked for by a new instance', async () => {
    const store = rig.store();
    await appended(store, [entryOf(shard, 1)]);
    await store.movePointer(shard, 1, { seq: 1, writer: 7 });
    await store.trim(shard, 1);
    rig.proxy.clear();
    await appended(rig.store(), [entryOf(shard, 2)]);
    assert(!rig.proxy.calls.some(({ body }) => body.Item?.sk.S === '0000000000000001'));
  });
});

describe('an append whose reply is lost', () => {
  it('is unknown, and settled as committed when it happened', async () => {
    const store = rig.store();
    const [first, second] = [entryOf(shard, 1), entryOf(shard, 2)];
    for (const effect of [
      { kind: 'drop-reply' } as const,
      { kind: 'fail-after', name: 'InternalServerError', status: 500 } as const,
    ]) {
      const entry = effect.kind === 'drop-reply' ? first : second;
      const before = rig.counters.read('unknownOutcomes');
      rig.proxy.inject({ on: toHead(), effect, times: 1 });
      assert.deepEqual(await settled(store, entry), { verdict: 'committed', unknown: 1 });
      assert.equal(rig.counters.read('unknownOutcomes'), before + 1);
    }
    assert.deepEqual(await rig.store().readEntries(shard, 0, 1e9), [first, second]);
  });

  it('is never sent again by the store itself', async () => {
    const store = rig.store();
    rig.proxy.inject({
      on: toHead(),
      effect: { kind: 'fail-after', name: 'ServiceUnavailable', status: 503 },
    });
    await failsWith('store-unknown', store.appendEntries([entryOf(shard, 1)], []));
    assert.equal(rig.proxy.calls.filter(toHead()).length, 1);
  });

  it('is settled by sending it again when it did not happen', async () => {
    const store = rig.store();
    const entry = entryOf(shard, 1);
    rig.proxy.inject({ on: toHead(), effect: { kind: 'drop-request' }, times: 1 });
    assert.deepEqual(await settled(store, entry), { verdict: 'committed', unknown: 1 });
    assert.deepEqual(await rig.store().readEntries(shard, 0, 1e9), [entry]);
  });

  it('is committed once when it happens after it was sent again', async () => {
    const store = rig.store();
    const entry = entryOf(shard, 1);
    const { until, release } = gate();
    rig.proxy.inject({ on: toHead(), effect: { kind: 'late', until }, times: 1 });
    assert.equal((await settled(store, entry)).verdict, 'committed');
    const second = entryOf(shard, 2);
    await appended(store, [second]);
    release();
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(await rig.store().readEntries(shard, 0, 1e9), [entry, second]);
  });

  it('is never, when a successor raised the epoch before it came', async () => {
    const store = rig.store();
    const entry = entryOf(shard, 1);
    const { until, release } = gate();
    rig.proxy.inject({
      on: (call) => toHead()(call) && call.body.ExpressionAttributeValues[':seq'],
      effect: { kind: 'late', until },
      times: 1,
    });
    await failsWith('store-unknown', store.appendEntries([entry], []));
    const successor = rig.store();
    await successor.acquireLeases(8, [{ shard, holder: 7, epoch: 1 }]);
    release();
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(await successor.readEntries(shard, 0, 1e9), []);
    assert.equal((await settled(store, entry)).verdict, 'never');
  });

  it('times out as unknown', async () => {
    const store = rig.store({ requestMsMax: 200 });
    await store.readHead(shard);
    rig.proxy.inject({ on: toHead(), effect: { kind: 'hold', until: gate().until }, times: 1 });
    await failsWith('store-unknown', store.appendEntries([entryOf(shard, 1)], []));
  });
});

describe('an append that is throttled', () => {
  it('is sent again and counted', async () => {
    const store = rig.store();
    for (const [i, name] of [
      'ProvisionedThroughputExceededException',
      'ThrottlingException',
      'RequestLimitExceeded',
    ].entries()) {
      const before = rig.counters.read('throttleRetries');
      rig.proxy.inject({ on: toHead(), effect: { kind: 'refuse', name }, times: 3 });
      await appended(store, [entryOf(shard, i + 1)]);
      assert.equal(rig.counters.read('throttleRetries'), before + 3, name);
    }
  });

  it('is unavailable in the end: nothing happened', async () => {
    const store = rig.store();
    await store.readHead(shard);
    rig.proxy.inject({ on: toHead(), effect: THROTTLED });
    await failsWith('store-unavailable', store.appendEntries([entryOf(shard, 1)], []));
    rig.proxy.clear();
    assert.equal((await store.readHead(shard)).headSeq, 0);
  });

  it('is unknown as a whole when another shard of the call is done, or a row is there', async () => {
    const store = rig.store();
    const other = ++shard;
    const [a, b] = [entryOf(other - 1, 1), entryOf(other, 1)];
    await store.readHead(other);
    rig.proxy.inject({ on: touches(`head#${other}`), effect: THROTTLED });
    await failsWith('store-unknown', store.appendEntries([a, b], []));
    await failsWith('store-unknown', store.appendEntries([b], [objectRow(2, shard)]));
    rig.proxy.clear();
    assert.equal((await settled(store, a)).verdict, 'committed');
    assert.equal((await settled(store, b)).verdict, 'committed');
  });
});

describe('what comes before the head moves', () => {
  it('is every row and every chunk, confirmed', async () => {
    const store = rig.store();
    const body = new Uint8Array(900_000).map((_, i) => i * 31);
    const entry = entryOf(shard, 1, { body });
    await appended(store, [entry], [objectRow(3, shard), objectRow(3, 1000 + shard)]);
    const head = rig.proxy.calls.findIndex(toHead());
    const before = rig.proxy.calls.slice(0, head).map(({ body }) => String(body.Item?.pk.S));
    assert.equal(before.filter((pk) => pk === `log-chunk#${shard}#1`).length, 3);
    assert.equal(before.filter((pk) => pk === 'object#3').length, 2);
    assert(before.indexOf('object-incarnations') < before.indexOf('object#3'));
    assert.deepEqual(await rig.store().readEntries(shard, 0, 1e9), [entry]);
    const [item] = await rig.items(`head#${shard}`);
    assert.equal(item.body, undefined);
    assert.match(item.spill.S ?? '', /^3:900000:[0-9a-f]{8}:c-\d+$/);
  });

  it('holds the head back when a row or a chunk cannot be put', async () => {
    const store = rig.store();
    const large = entryOf(shard, 1, { body: new Uint8Array(5000) });
    for (const pk of ['object#4', `log-chunk#${shard}#1`]) {
      rig.proxy.clear();
      rig.proxy.inject({ on: touches(pk), effect: THROTTLED });
      await assert.rejects(store.appendEntries([large], [objectRow(4, shard)]));
      assert(!rig.proxy.calls.some(toHead()), pk);
    }
    rig.proxy.clear();
    rig.proxy.inject({ on: touches(`log-chunk#${shard}#1`), effect: THROTTLED });
    await failsWith('store-unavailable', store.appendEntries([large], []));
    rig.proxy.clear();
    await appended(store, [large], [objectRow(4, shard)]);
  });

  it('leaves chunks behind when the append never comes about, until the trim passes them', async () => {
    const store = rig.store();
    const large = entryOf(shard, 1, { body: new Uint8Array(5000).fill(1) });
    rig.proxy.inject({ on: toHead(), effect: { kind: 'drop-request' }, times: 1 });
    await failsWith('store-unknown', store.appendEntries([large], []));
    const successor = rig.store();
    await successor.acquireLeases(8, [{ shard, holder: 7, epoch: 1 }]);
    const theirs = [1, 2, 3].map((seq) =>
      entryOf(shard, seq, { epoch: 2, body: new Uint8Array(5000 + seq).fill(2) }),
    );
    await appended(successor, theirs);
    assert.equal((await chunks()).length, 4);
    assert.deepEqual(await rig.store().readEntries(shard, 0, 1e9), theirs);
    await successor.movePointer(shard, 2, { seq: 2, writer: 8 });
    await successor.trim(shard, 2);
    assert.equal((await chunks()).length, 1);
    assert.deepEqual(await rig.store().readEntries(shard, 0, 1e9), theirs.slice(2));
  });
});

describe('heads', () => {
  it('are asked for again when a batch leaves some out', async () => {
    const store = rig.store();
    rig.proxy.inject({
      on: 'BatchGetItem',
      effect: {
        kind: 'rewrite',
        reply: (reply, { body }) => {
          const [[table, { Keys }]] = Object.entries(
            body.RequestItems as Record<string, { Keys: { pk: { S: string } }[] }>,
          );
          const { Responses } = reply as { Responses: Record<string, { pk: { S: string } }[]> };
          const isLeft = ({ pk }: { pk: { S: string } }) => Number(pk.S.split('#')[1]) % 2 === 1;
          return {
            Responses: { [table]: Responses[table].filter((item) => !isLeft(item)) },
            UnprocessedKeys: { [table]: { Keys: Keys.filter(isLeft) } },
          };
        },
      },
      times: 1,
    });
    assert.deepEqual(
      (await store.listLeases()).map((head) => head.shard),
      Array.from({ length: 64 }, (_, i) => i),
    );
  });

  it('that were taken over are known by what the raise returned', async () => {
    const store = rig.store();
    await appended(store, [entryOf(shard, 1)]);
    const successor = rig.store();
    await successor.acquireLeases(8, [{ shard, holder: 7, epoch: 1 }]);
    rig.proxy.clear();
    await appended(successor, [entryOf(shard, 2, { epoch: 2 })]);
    const toItsHead = touches(`head#${shard}`);
    const reads = rig.proxy.calls.filter((call) => call.action === 'GetItem' && toItsHead(call));
    assert.equal(reads.length, 0, 'the head was read again');
  });

  it('leave a takeover unknown when its reply is lost, and the epoch is never raised twice for it', async () => {
    const store = rig.store();
    await store.readHead(shard);
    rig.proxy.inject({
      on: toHead(),
      effect: { kind: 'fail-after', name: 'InternalServerError', status: 500 },
      times: 1,
    });
    await failsWith('store-unknown', store.acquireLeases(8, [{ shard, holder: 7, epoch: 1 }]));
    const head = await store.readHead(shard);
    assert.deepEqual([head.holder, head.epoch], [8, 2]);
  });
});
