/** Who is alive, by watching heartbeats. */
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { findLiveAgent } from '../../../src/agent/live-agents.ts';
import type { Clock } from '../../../src/core/clock.ts';
import { MemoryMetadataStore } from '../../../storage/metadata/memory/memory-metadata-store.ts';

/** Time that passes only while somebody waits; `onWait` is what happens meanwhile. */
function waitingClock(onWait: (nowMs: number) => unknown): Clock {
  let nowMs = 1000;
  return {
    wallMs: () => 0,
    monotonicMs: () => nowMs,
    after(delayMs, fire) {
      nowMs += delayMs;
      Promise.resolve(onWait(nowMs)).then(fire);
      return { cancel: () => undefined };
    },
  };
}

describe('live agents', () => {
  let store: MemoryMetadataStore;
  beforeEach(() => (store = new MemoryMetadataStore()));
  const register = (agentId: string) =>
    store.registerAgent({ agentId, address: 'a:1', zone: 'z', group: 'g', version: '1', registeredAtMs: 0 });

  it('are none, without a wait, where nobody is registered but ourselves', async () => {
    const clock = waitingClock(() => assert.fail('it waited'));
    assert.equal(await findLiveAgent(store, clock), null);
    await register('me');
    assert.equal(await findLiveAgent(store, clock, { isOurs: ({ agentId }) => agentId === 'me' }), null);
  });

  it('are not those whose counter stands still for longer than any heartbeat interval', async () => {
    await register('dead');
    let waitedMs = 0;
    const clock = waitingClock((nowMs) => (waitedMs = nowMs - 1000));
    assert.equal(await findLiveAgent(store, clock), null);
    assert(waitedMs > 5000 && waitedMs < 8000, `${waitedMs}`);
  });

  it('are those that beat, however late in the watch', async () => {
    await register('dead');
    const { incarnation } = await register('slow');
    const clock = waitingClock((nowMs) => nowMs >= 6000 && store.heartbeat('slow', incarnation));
    assert.equal((await findLiveAgent(store, clock))?.agentId, 'slow');
  });

  it('are those that register anew or appear in the meantime', async () => {
    await register('old');
    const again = waitingClock((nowMs) => nowMs === 1500 && register('old'));
    assert.equal((await findLiveAgent(store, again))?.agentId, 'old');
    const other = waitingClock((nowMs) => nowMs === 1500 && register('new'));
    assert.equal((await findLiveAgent(store, other))?.agentId, 'new');
  });

  it('are none when the last one deregisters in order', async () => {
    const { incarnation } = await register('leaving');
    const clock = waitingClock((nowMs) => nowMs === 1500 && store.deregisterAgent('leaving', incarnation));
    assert.equal(await findLiveAgent(store, clock), null);
  });
});
