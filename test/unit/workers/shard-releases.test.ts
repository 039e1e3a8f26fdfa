/**
 * Handing shards over: what is taken before is answered, nothing is taken after, and whatever else is asked meanwhile has
 * one defined end.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../../src/core/clock.ts';
import { shardOf } from '../../../src/core/ids.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import { MemoryObjectStore } from '../../../storage/objects/memory-object-store.ts';
import { cluster, holding, SHARDS, seen, start, until } from '../../support/sequencer-rig.ts';

/** A partition of topic 1 in each shard. */
const IN = [0, 1].map((shard) => {
  let partition = 0;
  while (shardOf(1, partition, oneGroup(SHARDS)) !== shard) partition++;
  return partition;
});

type Running = Awaited<ReturnType<typeof holding>>;

function calls({ store }: Running, method: string): number {
  return store.calls.filter((call) => call.method === method).length;
}

/** Delays calls of a method until the returned function is called. */
function hold({ store }: Running, on: 'appendEntries' | 'acquireLeases' | 'releaseLeases' | 'putCheckpoint') {
  const { promise: before, resolve } = Promise.withResolvers<void>();
  store.inject({ on, effect: { kind: 'delay', before }, times: 1 });
  return resolve;
}

const pause = (ms = 20) => new Promise((resolve) => setTimeout(resolve, ms));

describe('releasing a shard', () => {
  it('commits what was gathered, refuses what comes, gives the lease back, and goes on with the others', async () => {
    const state = await cluster();
    const running = await holding(state, 1, { windowMs: 60_000 });
    const { sequencer, append, answers, of, reports, orders } = running;
    append(1, IN[0], null);
    sequencer.release([0]);
    append(2, IN[0], null);
    append(3, IN[1], null);
    await until(() => of('released', 0) === 1);
    assert.deepEqual(answers(), [
      [2, 'not-leader', -1],
      [1, null, 0],
    ]);
    assert.deepEqual(seen(state, 0), { shard: 0, holder: 0, epoch: 1 });
    assert.deepEqual(seen(state, 1), { shard: 1, holder: 1, epoch: 1 });
    assert.deepEqual(
      reports.filter((reply) => reply.type === 'released'),
      [{ type: 'released', shard: 0, epoch: 1 }],
    );
    assert.equal(orders.at(-1)?.type, 'close-shard');
    assert.equal(sequencer.holder(0), undefined);
    sequencer.release([1]);
    await until(() => of('released', 1) === 1);
    assert.deepEqual(answers().at(-1), [3, null, 0]);
    sequencer.stop();
  });

  it('seals once for a message, and not at all when nothing of its shards is gathered', async () => {
    const objects = new MemoryObjectStore(systemClock);
    const running = await holding(await cluster(), 1, { windowMs: 60_000, objects });
    let puts = 0;
    const put = objects.put.bind(objects);
    objects.put = (...args) => {
      puts++;
      return put(...args);
    };
    const { sequencer, append, of, answers } = running;
    append(1, IN[1], null);
    sequencer.release([0]);
    await until(() => of('released', 0) === 1);
    assert.equal(puts, 0);
    sequencer.take({ shard: 0, holder: 0, epoch: 1 });
    await until(() => of('held', 0) === 2);
    append(2, IN[0], null);
    sequencer.release([0, 1]);
    await until(() => of('released', 0) === 2 && of('released', 1) === 1);
    assert.equal(puts, 1);
    assert.deepEqual(
      answers().map(([, code]) => code),
      [null, null],
    );
    sequencer.stop();
  });

  it('waits for the append that is out, and closes the lanes before the lease goes', async () => {
    const state = await cluster();
    const running = await holding(state, 1);
    const { sequencer, append, answers, of, orders } = running;
    const goOn = hold(running, 'appendEntries');
    append(1, IN[0], null);
    await until(() => calls(running, 'appendEntries') === 3);
    const letGo = hold(running, 'releaseLeases');
    sequencer.release([0]);
    await pause();
    assert.equal(calls(running, 'releaseLeases'), 0);
    assert.ok(!orders.some(({ type }) => type === 'close-shard'));
    goOn();
    await until(() => calls(running, 'releaseLeases') === 1);
    assert.deepEqual(answers(), [[1, null, 0]]);
    assert.equal(orders.at(-1)?.type, 'close-shard');
    assert.equal(of('released', 0), 0);
    assert.equal(seen(state, 0).holder, 1);
    letGo();
    await until(() => of('released', 0) === 1);
    sequencer.stop();
  });

  it('waits for a decision that is out, and takes no new one', async () => {
    const running = await holding(await cluster(), 1);
    const { sequencer, of } = running;
    const goOn = hold(running, 'appendEntries');
    const decided = sequencer.decideOn([0], { kind: 'topic-deleted', topicId: 1 });
    sequencer.release([0]);
    await assert.rejects(sequencer.decideOn([0, 1], { kind: 'topic-deleted', topicId: 2 }), {
      code: 'not-leader',
    });
    await pause();
    assert.equal(of('released', 0), 0);
    goOn();
    await decided;
    await until(() => of('released', 0) === 1);
    assert.equal(sequencer.holder(1)?.state.seq, 1);
    sequencer.stop();
  });

  it('gives the leases that are ready back in one call', async () => {
    const running = await holding(await cluster(), 1);
    const letGo = hold(running, 'releaseLeases');
    running.sequencer.release([0]);
    await until(() => calls(running, 'releaseLeases') === 1);
    running.sequencer.release([1]);
    await pause();
    assert.equal(calls(running, 'releaseLeases'), 1);
    letGo();
    await until(() => running.of('released', 0) === 1 && running.of('released', 1) === 1);
    assert.equal(calls(running, 'releaseLeases'), 2);
    running.sequencer.stop();
  });

  it('writes a checkpoint if the tail is worth it, after one that is being written', async () => {
    const state = await cluster();
    const small = await holding(state, 1);
    small.sequencer.release([0, 1]);
    await until(() => small.of('released', 0) === 1 && small.of('released', 1) === 1);
    assert.equal(calls(small, 'putCheckpoint'), 0);
    small.sequencer.stop();

    const running = await holding(state, 2, { checkpointLogBytes: 256 });
    const { sequencer, append, answers, of, store } = running;
    append(1, IN[0], null);
    await until(() => answers().length === 1);
    const goOn = hold(running, 'putCheckpoint');
    sequencer.fromLane(0, { type: 'pressure' });
    await until(() => calls(running, 'putCheckpoint') === 1);
    sequencer.release([0]);
    await pause();
    assert.equal(calls(running, 'releaseLeases'), 0);
    goOn();
    await until(() => of('released', 0) === 1);
    const { head } = state.shards[0];
    assert.equal(head.checkpoint?.seq, head.headSeq);
    append(2, IN[1], null);
    await until(() => answers().length === 2);
    sequencer.release([1]);
    await until(() => of('released', 1) === 1);
    const methods = store.calls.map(({ method }) => method);
    assert.ok(methods.lastIndexOf('movePointer') < methods.lastIndexOf('releaseLeases'));
    assert.equal(state.shards[1].head.checkpoint?.seq, state.shards[1].head.headSeq);
    sequencer.stop();
  });

  it('is released when only the reply was lost, and lost when somebody has taken the shard', async () => {
    const state = await cluster();
    const running = await holding(state, 1);
    const { sequencer, store, of } = running;
    store.inject({ on: 'releaseLeases', effect: { kind: 'error-after' }, times: 1 });
    sequencer.release([0]);
    await until(() => of('released', 0) === 1);
    const goOn = hold(running, 'releaseLeases');
    sequencer.release([1]);
    await until(() => calls(running, 'releaseLeases') === 3);
    const rival = start(state, 2);
    rival.sequencer.take(seen(state, 1));
    await until(() => rival.of('held', 1) === 1);
    goOn();
    await until(() => of('lost', 1) === 1);
    assert.equal(of('released', 1), 0);
    assert.deepEqual(seen(state, 1), { shard: 1, holder: 2, epoch: 2 });
    sequencer.stop();
    rival.sequencer.stop();
  });

  it('is lost with its appends answered when it was taken over before they were committed', async () => {
    const state = await cluster();
    const running = await holding(state, 1);
    const { sequencer, append, answers, of, orders } = running;
    const goOn = hold(running, 'appendEntries');
    append(1, IN[0], null);
    await until(() => calls(running, 'appendEntries') === 3);
    append(2, IN[0], null);
    sequencer.release([0]);
    const rival = start(state, 2);
    rival.sequencer.take(seen(state, 0));
    await until(() => rival.of('held', 0) === 1);
    goOn();
    await until(() => of('lost', 0) === 1);
    assert.deepEqual(answers().sort(), [
      [1, 'append-abandoned', -1],
      [2, 'append-abandoned', -1],
    ]);
    assert.equal(calls(running, 'releaseLeases'), 0);
    assert.ok(orders.some(({ type }) => type === 'close-shard'));
    await pause();
    assert.equal(of('released', 0), 0);
    // Asked again, it says what is.
    sequencer.release([0]);
    assert.equal(of('lost', 0), 2);
    sequencer.stop();
    rival.sequencer.stop();
  });
});

describe('what else is asked of a shard meanwhile', () => {
  it('a second release is answered by the first; one of a shard that is not held, by not-leader', async () => {
    const { sequencer, of, reports } = await holding(await cluster(), 1);
    sequencer.release([0, 0]);
    sequencer.release([0]);
    await until(() => of('released', 0) === 1);
    await pause();
    assert.equal(of('released', 0), 1);
    assert.equal(of('lost', 0), 0);
    sequencer.release([0]);
    const last = reports.at(-1);
    assert.equal(last?.type === 'lost' && last.error.code, 'not-leader');
    sequencer.stop();
  });

  it('a shard that is being taken is released when it is taken, and never served', async () => {
    const state = await cluster();
    const running = start(state, 1);
    const goOn = hold(running, 'acquireLeases');
    running.sequencer.take(seen(state, 0));
    running.sequencer.release([0]);
    running.append(1, IN[0], null);
    await pause();
    goOn();
    await until(() => running.of('released', 0) === 1);
    assert.deepEqual(seen(state, 0), { shard: 0, holder: 0, epoch: 1 });
    assert.equal(running.of('held', 0), 0);
    assert.ok(!running.orders.some(({ type }) => type === 'open-shard'));
    assert.deepEqual(running.answers(), [[1, 'not-leader', -1]]);
    running.sequencer.stop();
  });

  it('a shard whose taking fails is lost, though it was to be released', async () => {
    const state = await cluster();
    const running = start(state, 1);
    running.sequencer.take({ shard: 0, holder: 5, epoch: 3 });
    running.sequencer.release([0]);
    await until(() => running.of('lost', 0) === 1);
    await pause();
    assert.equal(running.reports.length, 1);
    running.sequencer.stop();
  });

  it('a take while it is being released is answered by the release; afterwards it is taken from what that left', async () => {
    const state = await cluster();
    const running = await holding(state, 1);
    const { sequencer, of, append, answers } = running;
    append(1, IN[0], null);
    await until(() => answers().length === 1);
    const letGo = hold(running, 'releaseLeases');
    sequencer.release([0]);
    sequencer.take(seen(state, 0));
    await until(() => calls(running, 'releaseLeases') === 1);
    sequencer.take(seen(state, 0));
    letGo();
    await until(() => of('released', 0) === 1);
    await pause();
    assert.deepEqual([of('held', 0), of('lost', 0)], [1, 0]);
    assert.equal(sequencer.holder(0), undefined);
    sequencer.take({ shard: 0, holder: 1, epoch: 1 });
    await until(() => of('lost', 0) === 1);
    sequencer.take({ shard: 0, holder: 0, epoch: 1 });
    await until(() => of('held', 0) === 2);
    append(2, IN[0], null);
    await until(() => answers().length === 2);
    assert.deepEqual(answers()[1], [2, null, 1]);
    assert.equal(seen(state, 0).epoch, 2);
    sequencer.stop();
  });

  it('a look whether it is held, begun before, does not say so once it is being released', async () => {
    const state = await cluster();
    const running = await holding(state, 1);
    const { promise: before, resolve: goOn } = Promise.withResolvers<void>();
    running.store.inject({ on: 'readHead', effect: { kind: 'delay', before }, times: 1 });
    running.sequencer.take(seen(state, 0));
    running.sequencer.release([0]);
    await until(() => running.of('released', 0) === 1);
    goOn();
    await pause();
    assert.equal(running.of('held', 0), 1);
    assert.equal(running.of('lost', 0), 0);
    running.sequencer.stop();
  });

  it('a drain waits for releases and takes that are under way, and gives every lease back', async () => {
    const state = await cluster();
    const running = start(state, 1);
    const { sequencer, of } = running;
    sequencer.take(seen(state, 0));
    await until(() => of('held', 0) === 1);
    const letGo = hold(running, 'releaseLeases');
    const goOn = hold(running, 'acquireLeases');
    sequencer.release([0]);
    sequencer.take(seen(state, 1));
    await until(() => calls(running, 'releaseLeases') === 1);
    let drained = false;
    const draining = sequencer.drain().then(() => (drained = true));
    sequencer.take({ shard: 0, holder: 0, epoch: 1 });
    letGo();
    await until(() => of('released', 0) === 1);
    await pause();
    assert.equal(drained, false);
    goOn();
    await draining;
    assert.deepEqual([of('released', 0), of('released', 1), of('held', 1)], [1, 1, 0]);
    assert.deepEqual(
      state.shards.map(({ head }) => head.holder),
      [0, 0],
    );
    sequencer.take(seen(state, 0));
    const last = running.reports.at(-1);
    assert.equal(last?.type === 'lost' && last.error.code, 'shutting-down');
    assert.equal(seen(state, 0).epoch, 1);
    sequencer.stop();
  });

  it('a stop ends it where it stands, and the drain with it', async () => {
    const state = await cluster();
    const running = await holding(state, 1);
    running.store.inject({ on: 'releaseLeases', effect: { kind: 'error-before' } });
    const drained = assert.rejects(running.sequencer.drain(), { code: 'shutting-down' });
    await until(() => calls(running, 'releaseLeases') > 2);
    running.sequencer.stop();
    await drained;
    const before = calls(running, 'releaseLeases');
    await pause(60);
    assert.ok(calls(running, 'releaseLeases') <= before + SHARDS);
    assert.deepEqual([running.of('released', 0), running.of('lost', 0)], [0, 0]);
    assert.equal(seen(state, 0).holder, 1);
  });
});

describe('taking a shard', () => {
  it('from an old lease takes nothing from the agent that has it, and says who that is', async () => {
    const state = await cluster();
    const old = seen(state, 0);
    const holder = await holding(state, 1);
    const stale = start(state, 2);
    stale.sequencer.take(old);
    await until(() => stale.of('lost', 0) === 1);
    const [lost] = stale.reports;
    assert.deepEqual(lost.type === 'lost' && [lost.error.code, lost.error.detail], [
      'conflict',
      { shard: 0, holder: 1, epoch: 1 },
    ]);
    assert.deepEqual(
      stale.store.calls.map(({ method }) => method),
      ['acquireLeases'],
    );
    holder.append(1, IN[0], null);
    await until(() => holder.answers().length === 1);
    assert.equal(holder.answers()[0][1], null);
    holder.sequencer.stop();
    stale.sequencer.stop();
  });

  it('that was lost in doubt and bears us still begins a new epoch, from that lease only', async () => {
    const state = await cluster();
    const { sequencer, store, of, answers, append } = await holding(state, 1);
    store.inject({ on: 'readHead', effect: { kind: 'error-before', code: 'corrupt-store' }, times: 1 });
    sequencer.take(seen(state, 0));
    await until(() => of('lost', 0) === 1);
    assert.deepEqual(seen(state, 0), { shard: 0, holder: 1, epoch: 1 });
    // From the lease before ours it would look like the raise that we made then.
    sequencer.take({ shard: 0, holder: 0, epoch: 0 });
    await until(() => of('lost', 0) === 2);
    sequencer.take(seen(state, 0));
    await until(() => of('held', 0) === 2);
    assert.equal(sequencer.holder(0)?.epoch, 2);
    append(1, IN[0], null);
    await until(() => answers().length === 1);
    assert.deepEqual(answers(), [[1, null, 0]]);
    sequencer.stop();
  });
});
