/**
 * The verifier finds every kind of damage, and nothing where there is none: a whole run's records, damaged one way at
 * a time.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  type AckColumns,
  blankAckColumns,
  REFUSED_OFFSET,
  UNKNOWN_OFFSET,
} from '../../../src/load/ack-log.ts';
import { makePlan } from '../../../src/load/load-plan.ts';
import { RecordOrder } from '../../../src/load/record-order.ts';
import { RecordValues } from '../../../src/load/record-value.ts';
import { type ReadRecord, RecordVerifier, type VerifyCounts } from '../../../src/load/record-verifier.ts';
import { SCENARIOS } from '../../../src/load/scenarios.ts';

const PARTITIONS = 6;
const BATCHES = 5;

function planFor(perRequest = 1) {
  const scenario = SCENARIOS.find(({ name }) => name === 'pathological');
  assert.ok(scenario);
  const sizes = { partitions: PARTITIONS, batches: BATCHES, generators: 2, seed: 9, perRequest };
  return makePlan(scenario, sizes);
}

interface Run {
  plan: ReturnType<typeof planFor>;
  acks: AckColumns;
  /** By partition, as a reader gets them. */
  partitions: ReadRecord[][];
  values: RecordValues;
  /** The record number at a place. */
  at(partition: number, offset: number): number;
}

/** Every record acknowledged in turn: sent at 10 i, told at 10 i + 5. */
function wholeRun(perRequest = 1): Run {
  const plan = planFor(perRequest);
  const acks = blankAckColumns(plan.records);
  const values = new RecordValues(plan.seed, plan.valueBytes);
  const partitions: ReadRecord[][] = Array.from({ length: PARTITIONS }, () => []);
  const numbers: number[][] = Array.from({ length: PARTITIONS }, () => []);
  for (let generator = 0; generator < plan.generators; generator++) {
    const order = new RecordOrder(plan, generator);
    for (let index = 0; index < plan.records / plan.generators; index++) {
      const number = index * plan.generators + generator;
      const partition = order.next();
      const request = Math.floor(index / perRequest);
      acks.offset[number] = partitions[partition].length;
      acks.sentTick[number] = request * 10;
      acks.toldTick[number] = request * 10 + 5;
      partitions[partition].push({
        offset: partitions[partition].length,
        key: null,
        value: values.textOf(number, partition),
      });
      numbers[partition].push(number);
    }
  }
  return { plan, acks, partitions, values, at: (partition, offset) => numbers[partition][offset] };
}

function verify({ plan, acks, partitions }: Run): { counts: VerifyCounts; verifier: RecordVerifier } {
  const verifier = new RecordVerifier(plan, acks);
  partitions.forEach((records, partition) => {
    // In pieces, as they are read.
    for (let i = 0; i < records.length; i += 2) verifier.read(partition, records.slice(i, i + 2));
    verifier.endPartition(partition);
  });
  return { counts: verifier.finish(), verifier };
}

/** The counts that are not 0, without `read`. */
function found(run: Run): Record<string, number> {
  const { counts, verifier } = verify(run);
  const wrong = Object.entries(counts).filter(([kind, count]) => kind !== 'read' && count > 0);
  const onlyUnknown = wrong.every(([kind]) => kind === 'unknown_read');
  assert.equal(verifier.isClean, onlyUnknown);
  assert.equal(verifier.examples.length > 0, !onlyUnknown);
  return Object.fromEntries(wrong);
}

describe('the verifier of records', () => {
  it('finds nothing wrong where nothing is', () => {
    for (const perRequest of [1, 3]) {
      const run = wholeRun(perRequest);
      assert.deepEqual(found(run), {});
      assert.equal(verify(run).counts.read, PARTITIONS * BATCHES);
    }
  });

  it('finds a record missing, at the end of a partition and within it', () => {
    const atEnd = wholeRun();
    atEnd.partitions[3].pop();
    assert.deepEqual(found(atEnd), { missing: 1 });
    const within = wholeRun();
    within.partitions[3].splice(1, 1);
    assert.deepEqual(found(within), { missing: 1, gaps: 1 });
    const whole = wholeRun();
    whole.partitions[0] = [];
    assert.deepEqual(found(whole), { missing: BATCHES });
  });

  it('finds a record that was lost and whose offset another one got', () => {
    const run = wholeRun();
    run.partitions[2].splice(1, 1);
    for (const [offset, record] of run.partitions[2].entries()) record.offset = offset;
    assert.deepEqual(found(run), { missing: 1, reordered: BATCHES - 2 });
  });

  it('finds a record read twice, whether its copy has an offset of its own or not', () => {
    const appended = wholeRun();
    appended.partitions[1].push({ ...appended.partitions[1][0], offset: BATCHES });
    assert.deepEqual(found(appended), { duplicated: 1 });
    const repeated = wholeRun();
    repeated.partitions[1].splice(1, 0, { ...repeated.partitions[1][0] });
    assert.deepEqual(found(repeated), { duplicated: 1, gaps: 1 });
  });

  it('finds two records that changed places', () => {
    const run = wholeRun();
    const [first, second] = run.partitions[4];
    [first.value, second.value] = [second.value, first.value];
    assert.deepEqual(found(run), { reordered: 2 });
  });

  it('finds an order that contradicts the acknowledgements though every offset is as acknowledged', () => {
    const run = wholeRun();
    const [first, second] = run.partitions[4];
    [first.value, second.value] = [second.value, first.value];
    const { acks, at } = run;
    const [a, b] = [at(4, 0), at(4, 1)];
    [acks.offset[a], acks.offset[b]] = [acks.offset[b], acks.offset[a]];
    assert.deepEqual(found(run), { reordered: 1 });
    // Both were on their way at once: then either order is right.
    acks.sentTick[b] = acks.sentTick[a];
    assert.deepEqual(found(run), {});
  });

  it('finds records of one request in another order than they were sent', () => {
    const run = wholeRun(2);
    const hot = { ...run.plan, partitions: 1, generators: 1 };
    const acks = blankAckColumns(4);
    const { values } = run;
    acks.offset.set([1, 0, 2, 3]);
    acks.toldTick.fill(9);
    const value = (number: number, offset: number) => ({
      offset,
      key: null,
      value: values.textOf(number, 0),
    });
    const verifier = new RecordVerifier(hot, acks);
    verifier.read(0, [value(1, 0), value(0, 1), value(2, 2), value(3, 3)]);
    assert.equal(verifier.finish().reordered, 1);
  });

  it('finds a changed byte wherever it is, a key that was not sent, and values that are none of ours', () => {
    const original = wholeRun().partitions[5][2].value as string;
    const values = [...original].map(
      (c, i) => original.slice(0, i) + (c === 'A' ? 'B' : 'A') + original.slice(i + 1),
    );
    for (const value of [
      ...values,
      `${original}x`,
      original.slice(1),
      '',
      null,
      17,
      { a: 1 },
      'ä'.repeat(8),
    ]) {
      const run = wholeRun();
      run.partitions[5][2].value = value;
      assert.deepEqual(found(run), { altered: 1, missing: 1 }, JSON.stringify(value));
    }
    const keyed = wholeRun();
    keyed.partitions[5][2].key = 'k';
    assert.deepEqual(found(keyed), { altered: 1, missing: 1 });
  });

  it("finds a record in another's partition, and one of another run", () => {
    const run = wholeRun();
    [run.partitions[0][4].value, run.partitions[1][4].value] = [
      run.partitions[1][4].value,
      run.partitions[0][4].value,
    ];
    assert.deepEqual(found(run), { altered: 2, missing: 2 });
    const other = wholeRun();
    other.partitions[0][4].value = new RecordValues(8, 10).textOf(other.at(0, 4), 0);
    assert.deepEqual(found(other), { altered: 1, missing: 1 });
  });

  it('finds a record that the broker had refused, and takes one that nobody knew of either way', () => {
    const refused = wholeRun();
    refused.acks.offset[refused.at(2, 4)] = REFUSED_OFFSET;
    assert.deepEqual(found(refused), { refused_read: 1 });
    const unknown = wholeRun();
    unknown.acks.offset[unknown.at(2, 4)] = UNKNOWN_OFFSET;
    assert.deepEqual(found(unknown), { unknown_read: 1 });
    unknown.partitions[2].pop();
    assert.deepEqual(found(unknown), {});
  });

  it('finds a record that was never sent', () => {
    const run = wholeRun();
    const acks = blankAckColumns(run.acks.offset.length);
    acks.offset.set(run.acks.offset.subarray(0, 28));
    acks.toldTick.set(run.acks.toldTick);
    const unsent = run.acks.offset.length - 28;
    assert.deepEqual(found({ ...run, acks }), { altered: unsent });
  });
});

describe('values of records', () => {
  it('say which record they are, at every size and number', () => {
    for (const bytes of [10, 11, 75, 1000]) {
      const values = new RecordValues(3, bytes);
      for (const number of [0, 1, 63, 64, 4095, 4096, 2 ** 20 + 5, 2 ** 31 - 1, 2 ** 32 - 1]) {
        const text = values.textOf(number, 17);
        assert.equal(Buffer.byteLength(JSON.stringify(text)), bytes);
        assert.equal(values.numberOf(text, 17), number);
        assert.equal(values.numberOf(text, 18), null);
      }
    }
  });

  it('show a change in the padding', () => {
    const values = new RecordValues(3, 50);
    const text = values.textOf(5, 0);
    assert.equal(values.numberOf(`${text.slice(0, -1)}!`, 0), null);
  });
});
