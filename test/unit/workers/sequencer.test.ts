/**
 * What the simulation found in the sequencer, each as a small test: it is the simulation that covers the rest.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Clock, systemClock } from '../../../src/core/clock.ts';
import { MemoryMetadataStore } from '../../../storage/metadata/memory/memory-metadata-store.ts';
import { MemoryObjectStore } from '../../../storage/objects/memory-object-store.ts';
import { cluster, holding, SHARDS, seen, start, until } from '../../support/sequencer-rig.ts';

describe('sequencer', () => {
  it('drains although the last thing on its way is a decision without appends', async () => {
    const { sequencer, store } = await holding(await cluster(), 1);
    const { promise: before, resolve: release } = Promise.withResolvers<void>();
    store.inject({ on: 'appendEntries', effect: { kind: 'delay', before }, times: 1 });
    const deleted = sequencer.decideOn([0, 1], { kind: 'topic-deleted', topicId: 1 });
    const drained = sequencer.drain();
    setTimeout(release, 5);
    await Promise.all([deleted, drained]);
    sequencer.stop();
  });

  it('decides on all shards or on none, and leaves no rejection behind', async () => {
    const state = await cluster();
    const { sequencer, of } = start(state, 1);
    sequencer.take(seen(state, 0));
    await until(() => of('held', 0) > 0);
    await assert.rejects(sequencer.decideOn([0, 1], { kind: 'topic-deleted', topicId: 1 }), {
      code: 'not-leader',
    });
    assert.equal(sequencer.holder(0)?.idle, true);
    assert.equal(state.shards[0].head.headSeq, 1);
    sequencer.stop();
  });

  it('answers a take of a shard it serves: held still, or lost to somebody else meanwhile', async () => {
    const state = await cluster();
    const first = await holding(state, 1);
    first.sequencer.take(seen(state, 0));
    await until(() => first.of('held', 0) === 2);
    const second = start(state, 2);
    second.sequencer.take(seen(state, 0));
    await until(() => second.of('held', 0) === 1);
    first.sequencer.take(seen(state, 0));
    await until(() => first.of('lost', 0) === 1);
    assert.equal(first.sequencer.holder(0), undefined);
    assert.equal(first.orders.at(-1)?.type, 'close-shard');
    first.sequencer.stop();
    second.sequencer.stop();
  });

  it('does not refuse a producer for a gap that only its own stale state has', async () => {
    const state = await cluster();
    const stale = await holding(state, 1);
    const holder = await holding(state, 2);
    const stamp = (baseSequence: number) => ({ producerId: 5, producerEpoch: 0, baseSequence });
    holder.append(1, 0, stamp(0));
    await until(() => holder.answers().length === 1);
    assert.deepEqual(holder.answers(), [[1, null, 0]]);
    stale.append(2, 0, stamp(1));
    await until(() => stale.answers().length === 1);
    assert.deepEqual(stale.answers(), [[2, 'not-leader', -1]]);
    holder.append(3, 0, stamp(7));
    await until(() => holder.answers().length === 2);
    assert.deepEqual(holder.answers()[1], [3, 'out-of-order-sequence', -1]);
    stale.sequencer.stop();
    holder.sequencer.stop();
  });

  it('opens a lane that was started again although the log is trimmed while it is read', async () => {
    const state = await cluster();
    const { sequencer, store, of, orders, append, answers, post } = await holding(state, 1);
    for (let slot = 0; slot < 8; slot++) append(slot, slot, null);
    await until(() => answers().length === 8);
    const epochs = state.shards.map(({ head }) => head.epoch);
    // Between the reading of the head and of the log, all of it goes under a checkpoint.
    let heads = 0;
    store.inject({
      on: ({ method }) => method === 'readEntries' && heads++ === 0,
      effect: { kind: 'delay', before: trimAll() },
    });
    async function trimAll(): Promise<void> {
      await new Promise((resolve) => setTimeout(resolve, 5));
      const other = new MemoryMetadataStore(state);
      for (const { head } of state.shards) {
        const pointer = { seq: head.headSeq, writer: 99 };
        await other.putCheckpoint(head.shard, pointer, new Uint8Array(1));
        await other.movePointer(head.shard, head.epoch, pointer);
        await other.trim(head.shard, pointer.seq);
      }
    }
    orders.length = 0;
    sequencer.disconnectLane(0);
    sequencer.connectLane(0, { post });
    await until(() => orders.filter((order) => order.type === 'open-shard').length === SHARDS);
    assert.deepEqual([of('lost', 0), of('lost', 1)], [0, 0]);
    assert.deepEqual(
      state.shards.map(({ head }) => head.epoch),
      epochs,
    );
    sequencer.stop();
  });

  it('knows what its predecessor in the process had committed, and stops when the store has less', async () => {
    const knownSeq = new Float64Array(new SharedArrayBuffer(SHARDS * 8));
    const first = await holding(await cluster(), 1, { knownSeq });
    first.append(0, 0, null);
    await until(() => first.answers().length === 1);
    first.sequencer.stop();
    assert.deepEqual([...knownSeq].sort(), [1, 2]);
    const restored = await cluster();
    const second = start(restored, 2, { knownSeq });
    second.sequencer.take(seen(restored, 0));
    second.sequencer.take(seen(restored, 1));
    await until(() => second.reports.some(({ type }) => type === 'fatal'));
    assert.equal(second.of('held', 0) + second.of('held', 1), 0);
  });

  it('acknowledges nothing more once its incarnation turns out to be in use already', async () => {
    const objects = new MemoryObjectStore(systemClock);
    const first = await holding(await cluster(), 1, { objects });
    first.append(0, 0, null);
    await until(() => first.answers().length === 1);
    first.sequencer.stop();
    // The store was restored from before all that: the incarnation is given again, its first object is there.
    const restored = await cluster();
    const second = await holding(restored, 1, { objects });
    const heads = restored.shards.map(({ head }) => head.headSeq);
    second.append(1, 0, null, 'other');
    await until(() => second.reports.some(({ type }) => type === 'fatal'));
    second.append(2, 0, null, 'another');
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(
      second.answers().filter(([, code]) => code === null),
      [],
    );
    assert.deepEqual(
      restored.shards.map(({ head }) => head.headSeq),
      heads,
    );
    const fatal = second.reports.find((reply) => reply.type === 'fatal');
    assert.equal(fatal?.type === 'fatal' && fatal.error.code, 'store-went-back');
  });

  it('holds no bytes of objects that lanes have, and refuses appends while too many are unsettled', async () => {
    const running = await holding(await cluster(), 1, { unsettledBytesMax: 20_000 });
    const { store, append, answers, sequencer } = running;
    // Every append fails from here on, so nothing is ever settled.
    store.inject({ on: 'appendEntries', effect: { kind: 'error-before', code: 'store-unavailable' } });
    for (let i = 0; i < 10; i++) {
      append(i, 0, null, 'x'.repeat(5_000));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await until(() => answers().some(([, code]) => code === 'overloaded'));
    const refused = answers().filter(([, code]) => code === 'overloaded').length;
    assert.ok(refused >= 4 && refused <= 6, `${refused} of 10 were refused`);
    store.heal();
    await until(() => answers().length === 10);
    append(10, 0, null);
    await until(() => answers().length === 11);
    assert.equal(answers()[10][1], null);
    sequencer.stop();
  });

  it("follows a wall clock that jumps ahead by an hour of the log's time at most", async () => {
    const state = await cluster();
    let wallMs = 1_700_000_000_000;
    const clock: Clock = { ...systemClock, wallMs: () => wallMs };
    const first = await holding(state, 1, { clock });
    const producer = { producerId: 5, producerEpoch: 0, baseSequence: 0 };
    first.append(0, 0, producer);
    await until(() => first.answers().length === 1);
    first.sequencer.stop();
    wallMs += 25 * 60 * 60 * 1000;
    const second = await holding(state, 2, { clock });
    // Its acknowledgement was lost, so the producer sends it again.
    second.append(1, 0, producer);
    await until(() => second.answers().length === 1);
    assert.deepEqual(second.answers(), [[1, null, first.answers()[0][2]]]);
    second.sequencer.stop();
  });
});
