/** Who is alive, by observations at times that the test chooses. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Membership } from '../../../src/agent/membership.ts';
import type { Agent } from '../../../storage/metadata/metadata-store.ts';

const DEAD_MS = 15_000;
const settings = { deadMs: DEAD_MS, pauseMsMax: 7500 };

function agent(incarnation: number, heartbeatCount: number, agentId = `a${incarnation}`): Agent {
  const fixed = {
    address: `127.0.0.1:${incarnation}`,
    zone: 'z',
    group: 'g',
    version: '1',
    registeredAtMs: 0,
  };
  return { agentId, incarnation, heartbeatCount, ...fixed };
}

function statesOf(membership: Membership): Record<string, string> {
  return Object.fromEntries(membership.members().map(({ agent, state }) => [agent.agentId, state]));
}

describe('membership', () => {
  it('sees an agent join, live, and leave', () => {
    const membership = new Membership(settings);
    membership.observe([agent(1, 4), agent(2, 0)], 0, 1);
    assert.deepEqual(statesOf(membership), { a1: 'live', a2: 'joining' });
    membership.observe([agent(1, 5), agent(2, 1)], 5000, 5001);
    assert.deepEqual(statesOf(membership), { a1: 'live', a2: 'live' });
    membership.noteLeaving(2);
    assert.deepEqual(statesOf(membership), { a1: 'live', a2: 'leaving' });
    membership.observe([agent(1, 6)], 10_000, 10_001);
    assert.deepEqual(statesOf(membership), { a1: 'live' });
    assert.equal(membership.isGone(2), true);
    assert.equal(membership.isGone(1), false);
  });

  it('declares a death no later than the dead time after the last heartbeat, once somebody looks', () => {
    const membership = new Membership(settings);
    // The last heartbeat comes just after the look at 5 s, and is seen at 10 s.
    membership.observe([agent(1, 1)], 0, 1);
    membership.observe([agent(1, 2)], 5000, 5001);
    membership.observe([agent(1, 3)], 10_000, 10_001);
    for (const atMs of [14_900, 19_000, 20_000]) {
      membership.observe([agent(1, 3)], atMs, atMs + 1);
      assert.equal(membership.isGone(1), false, `at ${atMs}`);
    }
    membership.observe([agent(1, 3)], 20_001, 20_002);
    assert.deepEqual(statesOf(membership), { a1: 'dead' });
    assert.equal(membership.isGone(1), true);
  });

  it('never declares one dead that was heard of within two thirds of the dead time', () => {
    const membership = new Membership(settings);
    membership.observe([agent(1, 1)], 0, 1);
    // A long pause that is just no break: the heartbeat may have come at its very end.
    membership.observe([agent(1, 2)], 7400, 7401);
    membership.observe([agent(1, 2)], 12_000, 12_001);
    membership.observe([agent(1, 2)], 17_400, 17_401);
    assert.equal(membership.isGone(1), false);
    membership.observe([agent(1, 2)], 17_402, 17_403);
    assert.equal(membership.isGone(1), true);
  });

  it('takes one that beats again for alive', () => {
    const membership = new Membership(settings);
    membership.observe([agent(1, 1)], 0, 1);
    for (const atMs of [5000, 10_000, 15_001]) membership.observe([agent(1, 1)], atMs, atMs);
    assert.equal(membership.isGone(1), true);
    membership.observe([agent(1, 2)], 20_000, 20_001);
    assert.deepEqual(statesOf(membership), { a1: 'live' });
  });

  it('begins anew after a read that failed: an outage for all kills nobody', () => {
    const membership = new Membership(settings);
    membership.observe([agent(1, 1), agent(2, 7)], 0, 1);
    for (let atMs = 5000; atMs < 600_000; atMs += 5000) membership.broken();
    membership.observe([agent(1, 1), agent(2, 7)], 600_000, 600_001);
    assert.deepEqual(statesOf(membership), { a1: 'live', a2: 'live' });
    membership.observe([agent(1, 2), agent(2, 7)], 605_000, 605_001);
    membership.observe([agent(1, 3), agent(2, 7)], 610_000, 610_001);
    assert.equal(membership.isGone(2), false);
    membership.observe([agent(1, 4), agent(2, 7)], 615_002, 615_003);
    assert.deepEqual(statesOf(membership), { a1: 'live', a2: 'dead' });
  });

  it('begins anew after a sleep of its own', () => {
    const membership = new Membership(settings);
    membership.observe([agent(1, 1)], 0, 1);
    membership.observe([agent(1, 1)], 60_000, 60_001);
    assert.equal(membership.isGone(1), false);
  });

  it('takes one that it has not observed yet for alive, and one that went for gone', () => {
    const membership = new Membership(settings);
    membership.observe([agent(5, 1)], 0, 1);
    assert.equal(membership.isGone(6), false);
    assert.equal(membership.isGone(4), true);
    assert.equal(membership.isGone(0), true);
  });

  it('tells when somebody other than oneself is late', () => {
    const membership = new Membership(settings);
    membership.observe([agent(1, 1), agent(2, 1)], 0, 1);
    membership.observe([agent(1, 2), agent(2, 1)], 5000, 5001);
    assert.equal(membership.someoneIsLate(1, 7500), false);
    membership.observe([agent(1, 3), agent(2, 1)], 10_000, 10_001);
    assert.equal(membership.someoneIsLate(1, 7500), true);
    assert.equal(membership.someoneIsLate(2, 7500), false);
  });

  it('forgets that an incarnation leaves when it is gone, and notes none that is not registered', () => {
    const membership = new Membership(settings);
    membership.noteLeaving(3);
    membership.observe([agent(3, 1)], 0, 1);
    assert.deepEqual(statesOf(membership), { a3: 'live' });
  });
});
