/** Leases: what is decided on old knowledge takes nothing, and a lost reply is never guessed about. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Clock, systemClock } from '../../../src/core/clock.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import { seededRandom } from '../../../src/core/random.ts';
import { MemoryMetadataStore } from '../../../storage/metadata/memory/memory-metadata-store.ts';
import type { HeadOutcome } from '../../../storage/metadata/metadata-store.ts';
import { raiseLease, settleRelease } from '../../../workers/shard-lease.ts';
import { FaultyMetadataStore } from '../../support/faulty-metadata-store.ts';
import { cluster } from '../../support/sequencer-rig.ts';

const WE = 7;
const RIVAL = 8;

async function rig() {
  const state = await cluster();
  const store = new FaultyMetadataStore(new MemoryMetadataStore(state));
  const other = new MemoryMetadataStore(state);
  const stop = new AbortController();
  // Waits between tries pass at once, but not in the same turn.
  const clock: Clock = {
    ...systemClock,
    after: (_delayMs, fire) => {
      setImmediate(fire);
      return { cancel: () => undefined };
    },
  };
  const random = seededRandom(1);
  const parts = { store, clock, random, stopped: stop.signal, onUnknown: () => undefined };
  const { head } = state.shards[0];
  const raise = (seen: { holder: number; epoch: number }, epochHad = 0, wanted = () => undefined) =>
    raiseLease(parts, WE, { shard: 0, ...seen }, epochHad, wanted);
  const release = async (epoch: number) => {
    let first: HeadOutcome | unknown;
    try {
      [first] = await store.releaseLeases(WE, [{ shard: 0, epoch }]);
    } catch (error) {
      first = error;
    }
    return settleRelease(parts, WE, { shard: 0, epoch }, first);
  };
  const methods = () => store.calls.map(({ method }) => method);
  return { state, store, other, stop, head, raise, release, methods };
}

describe('raising a lease', () => {
  it('is one compare-and-set against the lease seen, without a look at the head before', async () => {
    const { raise, head, methods } = await rig();
    const raised = await raise({ holder: 0, epoch: 0 });
    assert.deepEqual([raised.holder, raised.epoch], [WE, 1]);
    assert.deepEqual([head.holder, head.epoch], [WE, 1]);
    assert.deepEqual(methods(), ['acquireLeases']);
  });

  it('takes nothing from whoever has got the shard since, by holder or by epoch', async () => {
    const { raise, head, other } = await rig();
    await other.acquireLeases(RIVAL, [{ shard: 0, holder: 0, epoch: 0 }]);
    const detail = { shard: 0, holder: RIVAL, epoch: 1 };
    await assert.rejects(raise({ holder: 0, epoch: 0 }), { code: 'conflict', detail });
    await assert.rejects(raise({ holder: 9, epoch: 1 }), { code: 'conflict', detail });
    await assert.rejects(raise({ holder: RIVAL, epoch: 2 }), { code: 'conflict', detail });
    assert.deepEqual([head.holder, head.epoch], [RIVAL, 1]);
    // Neither when it was given back meanwhile: somebody decided on a holder that there is not.
    await other.releaseLeases(RIVAL, [{ shard: 0, epoch: 1 }]);
    await assert.rejects(raise({ holder: RIVAL, epoch: 1 }), { code: 'conflict' });
  });

  it('finds its own raise again when the reply was lost, and raises once', async () => {
    const { raise, head, store, methods } = await rig();
    store.inject({ on: 'acquireLeases', effect: { kind: 'error-after' }, times: 1 });
    assert.equal((await raise({ holder: 0, epoch: 0 })).epoch, 1);
    assert.equal(head.epoch, 1);
    assert.deepEqual(methods(), ['acquireLeases', 'acquireLeases']);
  });

  it('takes a rival that came while the reply was lost for what it is', async () => {
    const { raise, store, other } = await rig();
    const rival = other.acquireLeases(RIVAL, [{ shard: 0, holder: 0, epoch: 0 }]);
    store.inject({ on: 'acquireLeases', effect: { kind: 'error-after' }, times: 1 });
    await rival;
    await assert.rejects(raise({ holder: 0, epoch: 0 }), { code: 'conflict' });
  });

  it('never takes an epoch that it held and lost for a raise of its own', async () => {
    const { raise, head, store } = await rig();
    await raise({ holder: 0, epoch: 0 });
    // The head bears (we, 1), which is what a lost reply to a raise from (nobody, 0) would leave.
    await assert.rejects(raise({ holder: 0, epoch: 0 }, 1), {
      code: 'conflict',
      detail: { shard: 0, holder: WE, epoch: 1 },
    });
    assert.equal(store.calls.length, 1);
    // From the lease that bears ourselves it is taken like any other.
    assert.equal((await raise({ holder: WE, epoch: 1 }, 1)).epoch, 2);
    assert.equal(head.epoch, 2);
  });

  it('waits while the store is away, until it is let go or the worker stops', async () => {
    const { raise, head, store, stop } = await rig();
    store.inject({ on: 'acquireLeases', effect: { kind: 'error-before' }, times: 3 });
    assert.equal((await raise({ holder: 0, epoch: 0 })).epoch, 1);
    store.inject({ on: 'acquireLeases', effect: { kind: 'error-before' } });
    let looks = 0;
    const wanted = () => {
      if (++looks === 3) throw new StreamHouseError('fenced', 'let go');
    };
    await assert.rejects(raise({ holder: WE, epoch: 1 }, 1, wanted as () => undefined), { code: 'fenced' });
    const stopped = assert.rejects(raise({ holder: WE, epoch: 1 }, 1), { code: 'shutting-down' });
    stop.abort();
    await stopped;
    assert.equal(head.epoch, 1);
  });

  it('passes on what no repetition mends', async () => {
    const { raise, store } = await rig();
    store.inject({ on: 'acquireLeases', effect: { kind: 'error-before', code: 'corrupt-store' } });
    await assert.rejects(raise({ holder: 0, epoch: 0 }), { code: 'corrupt-store' });
    assert.equal(store.calls.length, 1);
  });
});

describe('giving a lease back', () => {
  it('keeps the epoch', async () => {
    const { raise, release, head } = await rig();
    await raise({ holder: 0, epoch: 0 });
    await release(1);
    assert.deepEqual([head.holder, head.epoch], [0, 1]);
  });

  it('is certain when the reply was lost, and when nothing had happened', async () => {
    for (const kind of ['error-after', 'error-before'] as const) {
      const { raise, release, head, store } = await rig();
      await raise({ holder: 0, epoch: 0 });
      store.inject({ on: 'releaseLeases', effect: { kind, code: 'store-unknown' }, times: 2 });
      await release(1);
      assert.deepEqual([head.holder, head.epoch], [0, 1]);
      assert.equal(store.calls.filter(({ method }) => method === 'releaseLeases').length, 3);
    }
  });

  it('is fenced when somebody has taken the shard, before or after', async () => {
    const { raise, release, store, other } = await rig();
    await raise({ holder: 0, epoch: 0 });
    store.inject({ on: 'releaseLeases', effect: { kind: 'error-after' }, times: 1 });
    const releasing = release(1);
    while (store.calls.length < 2) await new Promise((resolve) => setImmediate(resolve));
    await other.acquireLeases(RIVAL, [{ shard: 0, holder: 0, epoch: 1 }]);
    await assert.rejects(releasing, { code: 'fenced', detail: { shard: 0, holder: RIVAL, epoch: 2 } });
    // Neither now nor later is the rival's lease given back by it.
    await assert.rejects(release(1), { code: 'fenced' });
    assert.equal((await other.readHead(0)).holder, RIVAL);
  });

  it('ends when the worker stops', async () => {
    const { raise, release, store, stop } = await rig();
    await raise({ holder: 0, epoch: 0 });
    store.inject({ on: 'releaseLeases', effect: { kind: 'error-before' } });
    const ended = assert.rejects(release(1), { code: 'shutting-down' });
    setTimeout(() => stop.abort(), 5);
    await ended;
  });
});
