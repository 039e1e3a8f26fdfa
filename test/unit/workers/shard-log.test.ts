/**
 * One append's outcome: every way through the diagram of shard-log, with the requests that each way takes.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Clock } from '../../../src/core/clock.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import { seededRandom } from '../../../src/core/random.ts';
import { MemoryMetadataState } from '../../../storage/metadata/memory/memory-metadata-state.ts';
import { MemoryMetadataStore } from '../../../storage/metadata/memory/memory-metadata-store.ts';
import type { LogEntry, ObjectRow } from '../../../storage/metadata/metadata-store.ts';
import { type ShardLogParts, settleAppend } from '../../../workers/shard-log.ts';
import { FaultyMetadataStore, type MetadataFaultEffect } from '../../support/faulty-metadata-store.ts';

/** Timers fire in the next microtask, whatever their delay. */
const instantClock: Clock = {
  wallMs: () => 0,
  monotonicMs: () => 0,
  after(_delayMs, fire) {
    let live = true;
    queueMicrotask(() => {
      if (live) fire();
    });
    return {
      cancel: () => {
        live = false;
      },
    };
  },
};

const UNKNOWN = new StreamHouseError('store-unknown', 'no reply');
const objects: ObjectRow[] = [
  { object: { incarnation: 1, number: 1 }, bytes: 10, createdAtMs: 0, shards: [{ shard: 0, epoch: 1 }] },
];

function entry(seq: number, commitId: string, epoch = 1): LogEntry {
  return { shard: 0, seq, epoch, commitId, body: Uint8Array.from([seq, commitId.length]) };
}

/** A shard held under epoch 1 with entry 1 committed, and our entry 2 about to be. */
async function rig() {
  const state = new MemoryMetadataState();
  const inner = new MemoryMetadataStore(state);
  await inner.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount: 1, createdAtMs: 0 });
  await inner.acquireLeases(1, [{ shard: 0, holder: 0, epoch: 0 }]);
  await inner.appendEntries([entry(1, 'first')], []);
  const store = new FaultyMetadataStore(inner);
  const stop = new AbortController();
  let unknown = 0;
  const parts: ShardLogParts = {
    store,
    clock: instantClock,
    random: seededRandom(1),
    stopped: stop.signal,
    onUnknown: () => unknown++,
  };
  const ours = entry(2, 'ours');
  return {
    inner,
    store,
    stop,
    ours,
    unknown: () => unknown,
    calls: () => store.calls.map(({ method }) => method),
    settle: (first: unknown) => settleAppend(parts, ours, objects, first),
    fault: (on: 'appendEntries' | 'readHead' | 'readEntries', effect: MetadataFaultEffect, times = 1) =>
      store.inject({ on, effect, times }),
    /** Somebody else takes the shard over. */
    depose: () => inner.acquireLeases(2, [{ shard: 0, holder: 1, epoch: 1 }]),
  };
}

describe('settling an append', () => {
  it('done: committed, without another request', async () => {
    const { settle, calls } = await rig();
    assert.equal(await settle({ kind: 'done' }), 'committed');
    assert.deepEqual(calls(), []);
  });

  it('a conflict that bears our commitId: committed, for a resend conflicts with itself', async () => {
    const { inner, ours, settle, calls } = await rig();
    await inner.appendEntries([ours], objects);
    const [again] = await inner.appendEntries([ours], objects);
    assert.equal(again.kind, 'conflict');
    assert.equal(await settle(again), 'committed');
    assert.deepEqual(calls(), []);
  });

  it('a lost reply, and it happened: found at the head', async () => {
    const { inner, ours, settle, calls, unknown } = await rig();
    await inner.appendEntries([ours], objects);
    assert.equal(await settle(UNKNOWN), 'committed');
    assert.deepEqual(calls(), ['readHead']);
    assert.equal(unknown(), 1);
  });

  it('a lost reply, it happened, and others followed under a higher epoch: found below the head', async () => {
    const { inner, ours, settle, calls, depose } = await rig();
    await inner.appendEntries([ours], objects);
    await depose();
    await inner.appendEntries([entry(3, 'theirs', 2)], []);
    assert.equal(await settle(UNKNOWN), 'committed');
    assert.deepEqual(calls(), ['readHead', 'readEntries']);
  });

  it('a lost reply, and it did not happen: the same entry again, byte for byte, with its objects', async () => {
    const { store, inner, ours, settle, calls } = await rig();
    assert.equal(await settle(UNKNOWN), 'committed');
    assert.deepEqual(calls(), ['readHead', 'appendEntries']);
    assert.deepEqual(store.calls[1].args, [[ours], objects]);
    assert.deepEqual((await inner.readEntries(0, 1, 100))[0], ours);
    assert.ok((await inner.getObjects([{ incarnation: 1, number: 1 }]))[0]);
  });

  it('resends as often as it takes, also when a resend succeeds and its reply is lost', async () => {
    const { settle, calls, fault, unknown } = await rig();
    fault('appendEntries', { kind: 'error-before' }, 2);
    fault('appendEntries', { kind: 'error-after' });
    assert.equal(await settle(UNKNOWN), 'committed');
    assert.equal(calls().filter((method) => method === 'appendEntries').length, 3);
    assert.equal(unknown(), 2);
  });

  it('a higher epoch above a head that lacks it: never', async () => {
    const { settle, calls, depose } = await rig();
    await depose();
    assert.equal(await settle(UNKNOWN), 'never');
    assert.deepEqual(calls(), ['readHead']);
  });

  it('a foreign entry at its seq, at the head or below: never', async () => {
    const { inner, settle, calls, depose } = await rig();
    await depose();
    await inner.appendEntries([entry(2, 'theirs', 2)], []);
    assert.equal(await settle(UNKNOWN), 'never');
    await inner.appendEntries([entry(3, 'more', 2)], []);
    assert.equal(await settle(UNKNOWN), 'never');
    assert.deepEqual(calls(), ['readHead', 'readHead', 'readEntries']);
  });

  it('a conflict is read back as well: the head it names may be above ours', async () => {
    const { inner, ours, settle, depose } = await rig();
    await inner.appendEntries([ours], objects);
    await depose();
    await inner.appendEntries([entry(3, 'theirs', 2)], []);
    const [conflict] = await inner.appendEntries([ours], objects);
    assert.equal(conflict.kind, 'conflict');
    assert.equal(await settle(conflict), 'committed');
  });

  it('its seq is trimmed: doubtful, never a guess', async () => {
    const { inner, ours, settle, depose } = await rig();
    await inner.appendEntries([ours], objects);
    await depose();
    await inner.appendEntries([entry(3, 'theirs', 2)], []);
    await inner.putCheckpoint(0, { seq: 2, writer: 2 }, new Uint8Array(1));
    await inner.movePointer(0, 2, { seq: 2, writer: 2 });
    await inner.trim(0, 2);
    assert.equal(await settle(UNKNOWN), 'doubtful');
  });

  it('waits while the store is away, for the reads too', async () => {
    const { settle, calls, fault } = await rig();
    fault('readHead', { kind: 'error-before' }, 3);
    assert.equal(await settle(new StreamHouseError('store-unavailable', 'away')), 'committed');
    assert.deepEqual(calls(), ['readHead', 'readHead', 'readHead', 'readHead', 'appendEntries']);
  });

  it('a head below what is committed: the store went back', async () => {
    const state = new MemoryMetadataState();
    const empty = new MemoryMetadataStore(state);
    await empty.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount: 1, createdAtMs: 0 });
    const { store, settle } = await rig();
    store.readHead = (shard) => empty.readHead(shard);
    await assert.rejects(settle(UNKNOWN), { code: 'store-went-back' });
  });

  it('passes on what no repetition mends, and ends when the worker stops', async () => {
    const { settle, stop } = await rig();
    const tooLarge = new StreamHouseError('item-too-large', 'too large');
    await assert.rejects(settle(tooLarge), { code: 'item-too-large' });
    const bug = new TypeError('a bug');
    await assert.rejects(settle(bug), bug);
    stop.abort();
    await assert.rejects(settle(UNKNOWN), { code: 'shutting-down' });
  });
});
