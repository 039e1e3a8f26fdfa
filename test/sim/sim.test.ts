/**
 * The simulation as part of the tests: thousands of seeds hold, everything interesting did happen in them, one seed
 * is one run, and every broken store or network is noticed by what clients see. Its own process.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COVERAGE_KINDS } from './coverage.ts';
import { MUTANTS } from './mutants.ts';
import { describeFailure, runSeeds } from './seeds.ts';
import { simulate } from './simulation.ts';

/** Seeds of a test run; `npm run sim` takes more. */
const SEEDS = 3000;
/** Among so many seeds every mutant must be caught; most are by the first few. */
const MUTANT_SEEDS = 1500;

test('the same seed gives the same run, another seed another', async () => {
  for (const seed of [7, 24, 101]) {
    const first = await simulate({ seed });
    const second = await simulate({ seed });
    assert.equal(second.traceHash, first.traceHash, `seed ${seed}`);
    assert.equal(second.events, first.events);
    assert.deepEqual(second.coverage, first.coverage);
  }
  const one = await simulate({ seed: 1 });
  const two = await simulate({ seed: 2 });
  assert.notEqual(one.traceHash, two.traceHash);
});

test(`${SEEDS} seeds keep every promise, and everything that matters happens in them`, async (t) => {
  const summary = await runSeeds({ from: 1, count: SEEDS, threads: 2 });
  assert.equal(summary.failures.length, 0, summary.failures.slice(0, 3).map(describeFailure).join('\n'));
  assert.equal(summary.seeds, SEEDS);
  for (const kind of COVERAGE_KINDS) assert.ok(summary.coverage[kind] > 0, `nothing of '${kind}' happened`);
  t.diagnostic(JSON.stringify(summary.coverage));
});

for (const mutant of MUTANTS) {
  test(`clients notice: ${mutant}`, async (t) => {
    const options = { from: 1, count: MUTANT_SEEDS, threads: 2, mutant, strict: false, stopAtFailure: true };
    const { failures, seeds } = await runSeeds(options);
    assert.ok(failures.length > 0, `${seeds} seeds saw nothing`);
    t.diagnostic(`seed ${failures[0].seed}: ${failures[0].violation}`);
  });
}
