/** The generators as processes: what is told of a phase, and a generator that cannot go on. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { systemClock } from '../../../src/core/clock.ts';
import { ackLogFile, GeneratorFleet } from '../../../src/load/generator-fleet.ts';
import { makePlan } from '../../../src/load/load-plan.ts';
import { SCENARIOS } from '../../../src/load/scenarios.ts';
import { FakeRestServer } from '../../support/fake-rest-server.ts';

let server: FakeRestServer;
const folder = mkdtempSync(join(tmpdir(), 'streamhouse-fleet-'));
before(async () => {
  server = await FakeRestServer.start();
});
after(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

function fleetFor(topic: string, batches: number, urls: readonly string[] = [server.url], retries = false) {
  const scenario = SCENARIOS.find(({ name }) => name === 'pathological');
  assert.ok(scenario);
  const plan = makePlan(scenario, { partitions: 4, batches, generators: 2, connections: 4, inFlight: 64 });
  server.addTopic(topic, 4);
  const heard = { acked: 0, latencies: 0 };
  const fleet = GeneratorFleet.start({
    urls,
    topic,
    plan,
    scratch: folder,
    readsOffsets: true,
    retries,
    clock: systemClock,
    heard: (interval, latencies) => {
      heard.acked += interval.acked;
      heard.latencies += latencies.count;
    },
  });
  return { fleet, plan, heard };
}

// Timers of the clock do not keep the process alive.
const hold = setInterval(() => undefined, 1000);
after(() => clearInterval(hold));

describe('generators', () => {
  it('tell by the interval what they tell at the end', async () => {
    const { fleet: starting, plan, heard } = fleetFor('whole', 300);
    const fleet = await starting;
    const totals = await fleet.runPhase(plan.phases[0], systemClock.wallMs());
    await fleet.close();
    assert.deepEqual([totals.sent, totals.acked, totals.failed], [1200, 1200, 0]);
    assert.equal(totals.measured.latencies.count, 1200);
    assert.deepEqual(heard, { acked: 1200, latencies: 1200 });
    const numbers = [0, 1, 2, 3].map((partition) => server.values('whole', partition).length);
    assert.deepEqual(numbers, [300, 300, 300, 300]);
  });

  it('go on at another broker, and send again what did not happen, each record once', async () => {
    const beside = await FakeRestServer.start(server);
    const gone = await FakeRestServer.start(server);
    const urls = [server.url, gone.url, beside.url];
    await gone.close();
    let count = 0;
    server.fault = (method) => {
      if (method !== 'POST' || ++count % 3 !== 0) return null;
      return { kind: 'status', status: 503, errorCode: 50392, message: 'no leader now' };
    };
    try {
      const { fleet: starting, plan, heard } = fleetFor('again', 100, urls, true);
      const fleet = await starting;
      fleet.mark();
      const totals = await fleet.runPhase(plan.phases[0], systemClock.wallMs());
      await fleet.close();
      assert.deepEqual([totals.sent, totals.acked, totals.failed, totals.unknown], [400, 400, 0, 0]);
      assert.equal(heard.acked, 400);
      assert.ok(totals.retried['connection-failed'] > 0, 'one was not there');
      assert.equal(
        Object.values(totals.retried).reduce((sum, times) => sum + times, 0) -
          totals.retried['connection-failed'],
        Math.floor(count / 3),
      );
      for (let partition = 0; partition < 4; partition++) {
        const values = server.values('again', partition);
        assert.deepEqual([values.length, new Set(values).size], [100, 100]);
      }
    } finally {
      server.fault = () => null;
      await beside.close();
    }
  });

  it('give up what is refused for good, and what may have happened, at once', async () => {
    let count = 0;
    server.fault = (method) => {
      if (method !== 'POST') return null;
      count++;
      if (count % 10 === 0) return { kind: 'status', status: 504, errorCode: 50493, message: 'lost' };
      return count % 10 === 5 ? { kind: 'status', status: 413, errorCode: 41390, message: 'large' } : null;
    };
    try {
      const { fleet: starting, plan } = fleetFor('final', 100, [server.url], true);
      const fleet = await starting;
      const totals = await fleet.runPhase(plan.phases[0], systemClock.wallMs());
      await fleet.close();
      assert.deepEqual([count, totals.acked, totals.failed, totals.unknown], [400, 320, 80, 40]);
      assert.deepEqual(totals.retried, {});
    } finally {
      server.fault = () => null;
    }
  });

  it('say so when they cannot go on, with what they told before', async () => {
    rmSync(ackLogFile(folder, 0));
    symlinkSync('/dev/full', ackLogFile(folder, 0));
    const { fleet: starting, plan } = fleetFor('broken', 5000);
    const fleet = await starting;
    const totals = fleet.runPhase(plan.phases[0], systemClock.wallMs());
    assert.match(await fleet.lost, /^a generator failed \(ENOSPC: /);
    fleet.stop();
    const { sent, acked } = await totals;
    await fleet.close();
    assert.ok(acked > 0 && acked < 20_000 && sent >= acked, `${acked} of ${sent}`);
  });
});
