/** Retries: what is tried again, how often, how long, and what the outcome of several attempts is. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Clock, systemClock } from '../../../../src/core/clock.ts';
import { type ErrorCode, StreamHouseError } from '../../../../src/core/errors.ts';
import { seededRandom } from '../../../../src/core/random.ts';
import { MemoryObjectStore } from '../../../../storage/objects/memory-object-store.ts';
import { RetryingObjectStore, type RetryPolicy } from '../../../../storage/objects/retrying-object-store.ts';
import { FaultyObjectStore, type ObjectFault } from '../../../support/faulty-object-store.ts';

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

function withCode(code: ErrorCode, message = /./): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof StreamHouseError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
}

/** Virtual time: every timer fires as soon as the event loop is idle, in order; `waitedMs` tells the delays. */
function virtualClock(): Clock & { waitedMs: number[] } {
  let nowMs = 0;
  const pending: { atMs: number; fire: () => void }[] = [];
  const waitedMs: number[] = [];
  const next = (): void => {
    pending.sort((a, b) => a.atMs - b.atMs);
    const first = pending.shift();
    if (first === undefined) return;
    nowMs = first.atMs;
    first.fire();
  };
  return {
    waitedMs,
    wallMs: () => nowMs,
    monotonicMs: () => nowMs,
    after(delayMs, fire) {
      const timer = { atMs: nowMs + delayMs, fire };
      pending.push(timer);
      waitedMs.push(delayMs);
      setImmediate(() => setImmediate(next));
      return {
        cancel: () => {
          const at = pending.indexOf(timer);
          if (at >= 0) pending.splice(at, 1);
        },
      };
    },
  };
}

const policy: RetryPolicy = { attemptsMax: 4, attemptMsMax: 1000, backoffMsFirst: 100, backoffMsMax: 150 };

/** A store whose n-th call of any kind has the n-th of `faults`. */
function setup(faults: (ObjectFault | undefined)[], changes: Partial<RetryPolicy> = {}) {
  const clock = virtualClock();
  const memory = new MemoryObjectStore(systemClock);
  let calls = 0;
  const faulty = new FaultyObjectStore(memory, systemClock, () => faults[calls++]);
  const retried: string[] = [];
  const store = new RetryingObjectStore(faulty, {
    clock,
    random: seededRandom(1),
    policy: { ...policy, ...changes },
    onRetry: (call, attempt, error) => retried.push(`${call} ${attempt} ${error.code}`),
  });
  return { clock, memory, store, retried, calls: () => calls };
}

const error: ObjectFault = { kind: 'error' };
const late: ObjectFault = { kind: 'error-after-success' };
const hang: ObjectFault = { kind: 'hang' };

describe('retrying object store', () => {
  it('tries again what was unavailable, and tells of it', async () => {
    const { store, memory, retried } = setup([error, error]);
    await store.put('k', utf8('x'));
    assert.equal((await memory.get('k')).toString(), 'x');
    assert.deepEqual(retried, ['put k 1 object-store-unavailable', 'put k 2 object-store-unavailable']);
  });

  it('proves a put whose reply was lost by putting the same again', async () => {
    const { store, calls } = setup([late, late, undefined]);
    await store.put('k', utf8('x'));
    assert.equal(calls(), 3);
  });

  it('gives up after the last attempt with the last error', async () => {
    const { store, calls } = setup([error, error, error, error, error]);
    await assert.rejects(store.put('k', utf8('x')), withCode('object-store-unavailable'));
    assert.equal(calls(), 4);
  });

  it('stays unknown when any attempt was, however the last one failed', async () => {
    const unknown: ObjectFault = { kind: 'error', code: 'object-store-unknown' };
    const full: ObjectFault = { kind: 'error', code: 'disk-full' };
    const one = setup([unknown, error, error, error]);
    await assert.rejects(
      one.store.put('k', utf8('x')),
      withCode('object-store-unknown', /may have succeeded/),
    );
    const two = setup([unknown, full]);
    await assert.rejects(
      two.store.put('k', utf8('x')),
      withCode('object-store-unknown', /may have succeeded/),
    );
    assert.equal(two.calls(), 2);
    const three = setup([error, full]);
    await assert.rejects(three.store.put('k', utf8('x')), withCode('disk-full'));
  });

  it('passes on what the store holds: other bytes', async () => {
    const { store, memory, calls } = setup([error, undefined]);
    await memory.put('k', utf8('other'));
    await assert.rejects(store.put('k', utf8('x')), withCode('object-exists'));
    assert.equal(calls(), 2);
  });

  it('does not try again what will not change', async () => {
    const codes: ErrorCode[] = ['disk-full', 'object-not-found', 'corrupt-object', 'invalid-request'];
    for (const code of codes) {
      const { store, calls } = setup([{ kind: 'error', code }]);
      await assert.rejects(store.get('k'), withCode(code));
      assert.equal(calls(), 1);
    }
    const permanent = new MemoryObjectStore(systemClock);
    let calls = 0;
    permanent.get = async () => {
      calls++;
      throw new StreamHouseError('object-store-unavailable', 'no such bucket', { permanent: true });
    };
    const store = new RetryingObjectStore(permanent, { clock: systemClock, random: seededRandom(1), policy });
    await assert.rejects(store.get('k'), withCode('object-store-unavailable', /no such bucket/));
    assert.equal(calls, 1);
  });

  it('does not swallow our own bugs', async () => {
    const { store, memory, calls } = setup([]);
    memory.list = async () => {
      throw new TypeError('a bug');
    };
    await assert.rejects(store.list('', { limit: 1 }), TypeError);
    assert.equal(calls(), 1);
  });

  it('gives an attempt up that hangs, and the next one succeeds', async () => {
    const { store, clock } = setup([hang, { kind: 'hang-after-success' }, undefined]);
    await store.put('k', utf8('x'));
    assert.equal(clock.waitedMs.filter((ms) => ms === policy.attemptMsMax).length, 3);
    const reading = setup([hang, hang, hang, hang]);
    await assert.rejects(
      reading.store.get('k'),
      withCode('object-store-unavailable', /no answer within 1000 ms/),
    );
  });

  it('also gives up on a store that does not heed the signal', async () => {
    const deaf = new MemoryObjectStore(systemClock);
    deaf.put = () => new Promise(() => undefined);
    const store = new RetryingObjectStore(deaf, { clock: virtualClock(), random: seededRandom(1), policy });
    await assert.rejects(store.put('k', utf8('x')), withCode('object-store-unknown', /no answer/));
  });

  it('waits longer each time, with jitter, up to the bound', async () => {
    const { store, clock } = setup([error, error, error]);
    await store.put('k', utf8('x'));
    const waits = clock.waitedMs.filter((ms) => ms !== policy.attemptMsMax);
    assert.equal(waits.length, 3);
    const ceilings = [100, 150, 150];
    for (const [i, ms] of waits.entries()) assert.ok(ms >= ceilings[i] / 2 && ms <= ceilings[i], `${ms} ms`);
    assert.notEqual(waits[1], waits[2]);
  });

  it('heeds its caller: before, during an attempt, and during a wait', async () => {
    const before = setup([]);
    const aborted = { signal: AbortSignal.abort() };
    await assert.rejects(before.store.put('k', utf8('x'), aborted), withCode('object-store-unavailable'));
    assert.equal(before.calls(), 0);
    const options = {
      clock: systemClock,
      random: seededRandom(1),
      policy: { ...policy, backoffMsFirst: 60_000 },
    };
    for (const [fault, putCode, calls] of [
      [hang, 'object-store-unknown', 1],
      [{ ...error }, 'object-store-unavailable', 1],
      [late, 'object-store-unknown', 1],
    ] as const) {
      const faulty = new FaultyObjectStore(new MemoryObjectStore(systemClock), systemClock, () => fault);
      const store = new RetryingObjectStore(faulty, {
        ...options,
        policy: { ...options.policy, backoffMsMax: 60_000 },
      });
      const controller = new AbortController();
      const running = store.put('k', utf8('x'), { signal: controller.signal });
      setTimeout(() => controller.abort(), 20);
      await assert.rejects(running, withCode(putCode));
      assert.equal(faulty.counts.put, calls);
    }
  });

  it('ends what is under way when it is closed', async () => {
    const { store } = setup([hang], { attemptMsMax: 60_000 });
    const faulty = new FaultyObjectStore(new MemoryObjectStore(systemClock), systemClock, () => hang);
    const slow = new RetryingObjectStore(faulty, { clock: systemClock, random: seededRandom(1) });
    const running = slow.put('k', utf8('x'));
    await slow.close();
    await assert.rejects(running, withCode('object-store-unknown'));
    await store.close();
    await assert.rejects(store.get('k'), withCode('object-store-unavailable'));
  });
});
