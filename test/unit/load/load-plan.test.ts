/** What a run will do: sizes, shares of the generators, the order of partitions, what cannot be run. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { AckLog, blankAckColumns, readAckLog, UNSENT_OFFSET } from '../../../src/load/ack-log.ts';
import { costOf, defaultPrices, parsePrices } from '../../../src/load/cost.ts';
import { makePlan, PlanError, type PlanOptions, shareOf } from '../../../src/load/load-plan.ts';
import { RecordOrder } from '../../../src/load/record-order.ts';
import { SCENARIOS } from '../../../src/load/scenarios.ts';

function plan(name: string, options: PlanOptions = {}) {
  const scenario = SCENARIOS.find((one) => one.name === name);
  assert.ok(scenario, name);
  return makePlan(scenario, options);
}

describe('plans', () => {
  it('have the sizes that the scenarios promise', () => {
    assert.equal(plan('pathological').records, 1_000_000);
    assert.equal(plan('trickle').records, 30_000);
    const burst = plan('burst');
    assert.equal(burst.records, 100_000);
    assert.deepEqual(burst.phases[0].pace, { kind: 'bursts', count: 10, everyMs: 3000 });
    assert.equal(plan('wide').partitions, 100_000);
    assert.equal(plan('hot').partitions, 1);
    for (const { name, phases } of SCENARIOS) {
      assert.equal(phases.filter(({ isMeasured }) => isMeasured).length, 1, `${name}: one phase is measured`);
      assert.ok(plan(name).records > 0);
    }
  });

  it('take options over the scenario', () => {
    assert.equal(plan('pathological', { partitions: 10, batches: 3 }).records, 30);
    const paced = plan('pathological', { ratePerS: 500, durationMs: 2000 });
    assert.equal(paced.records, 1000);
    assert.deepEqual(paced.phases[0].pace, { kind: 'rate', recordsPerS: 500 });
    assert.equal(plan('pathological', { ratePerS: 500 }).records, 1_000_000);
    assert.equal(plan('trickle', { durationMs: 500 }).records, 500);
    const backfill = plan('backfill', { partitions: 5, batches: 2, ratePerS: 100, durationMs: 1000 });
    assert.deepEqual(
      backfill.phases.map(({ name, records }) => [name, records]),
      [
        ['preload', 10],
        ['alone', 100],
        ['beside readers', 100],
      ],
    );
    assert.equal(plan('hot', { generators: 4 }).generators, 1);
  });

  it('refuse what cannot be run, in words', () => {
    assert.throws(() => plan('wide', { batches: 2 ** 30 }), PlanError);
    assert.throws(() => plan('wide', { inFlight: 3, connections: 4 }), /--in-flight/);
    assert.throws(() => plan('wide', { partitions: 2 ** 31 - 1 }), /--partitions/);
    assert.throws(() => plan('wide', { perRequest: 10 ** 7 }), /--per-request/);
  });

  it('share records among generators by their partitions, none lost', () => {
    for (const [partitions, generators, records] of [
      [1000, 3, 1000],
      [7, 3, 100],
      [2, 2, 1],
      [1, 1, 5],
    ]) {
      const one = { ...plan('pathological', { partitions }), generators };
      const shares = Array.from({ length: generators }, (_, g) => shareOf(records, one, g));
      assert.equal(
        shares.reduce((sum, share) => sum + share, 0),
        records,
      );
    }
  });
});

describe('the order of records', () => {
  it('gives every partition one record in each round, each round in another order, the same for a seed', () => {
    const shape = { partitions: 50, generators: 2, seed: 4 };
    const take = (order: RecordOrder) => Array.from({ length: 25 }, () => order.next());
    const order = new RecordOrder(shape, 1);
    const [first, second] = [take(order), take(order)];
    const own = Array.from({ length: 25 }, (_, i) => 2 * i + 1);
    assert.deepEqual(
      [...first].sort((a, b) => a - b),
      own,
    );
    assert.deepEqual(
      [...second].sort((a, b) => a - b),
      own,
    );
    assert.notDeepEqual(first, second);
    assert.notDeepEqual(first, own);
    assert.deepEqual(take(new RecordOrder(shape, 1)), first);
    assert.notDeepEqual(take(new RecordOrder({ ...shape, seed: 5 }, 1)), first);
  });
});

describe('the log of answers', () => {
  it('comes back as columns by record number, of several generators', () => {
    const folder = mkdtempSync(join(tmpdir(), 'streamhouse-ack-'));
    try {
      for (const generator of [0, 1]) {
        const log = new AckLog(join(folder, String(generator)));
        for (let i = 0; i < 5000; i++) log.add(i, i * 2 + generator, i, i + 0.501);
        log.close();
      }
      const columns = blankAckColumns(10_001);
      for (const generator of [0, 1]) readAckLog(join(folder, String(generator)), generator, 2, columns);
      assert.equal(columns.offset[2 * 4999 + 1], 4999 * 2 + 1);
      assert.deepEqual([columns.sentTick[2 * 70], columns.toldTick[2 * 70]], [7000, 7051]);
      assert.equal(columns.offset[10_000], UNSENT_OFFSET);
      assert.throws(() => readAckLog(join(folder, '1'), 1, 2, blankAckColumns(100)), /record 101/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('prices', () => {
  it('are read over the defaults, and give a sum of parts', () => {
    assert.deepEqual(parsePrices('put=1,cpu-hour=36'), { ...defaultPrices(), put: 1, 'cpu-hour': 36 });
    for (const text of ['', 'put', 'put=', 'put=x', 'gold=1', 'put=1=2', 'put=-1'])
      assert.equal(parsePrices(text), null);
    const prices = { put: 1, 'gb-month': 2, 'cpu-hour': 36, 'write-unit': 0, 'read-unit': 0 };
    const input = {
      acked: 500_000,
      puts: 2000,
      objectBytes: 2 ** 30,
      cpuS: 100,
      writeUnits: 5,
      readUnits: 5,
    };
    const cost = costOf(input, prices);
    assert.deepEqual(cost.parts, { put: 4, 'gb-month': 4, 'cpu-hour': 2, 'write-unit': 0, 'read-unit': 0 });
    assert.equal(cost.per_million_records, 10);
    assert.equal(costOf({ ...input, acked: 0 }, prices).per_million_records, 0);
  });
});
