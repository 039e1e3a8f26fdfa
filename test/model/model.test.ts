/**
 * The shard protocol, searched: at small bounds the protocol keeps every promise in every reachable state,
 * and without any one of its rules it does not. Larger bounds: `node test/model/run.ts --bounds large`.
 * Owns: the assertions. Does not own: bounds and expectations (cases.ts). Main thread.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { MUTANT_CASES, SMALL_CASES } from './cases.ts';
import { explore, type Model } from './explorer.ts';

const STATES_MAX = 500_000;

test('the search visits every state once, tells the shortest trace, and says when it was cut', () => {
  const complete = explore(counters(null), STATES_MAX);
  assert.equal(complete.states, 100, 'two counters from 0 to 9');
  assert.equal(complete.steps, 180);
  assert.equal(complete.depth, 18);
  assert.equal(complete.complete, true);
  assert.equal(complete.counterexample, null);

  const broken = explore(counters({ a: 2, b: 1 }), STATES_MAX);
  assert.equal(broken.complete, false);
  assert.equal(broken.counterexample?.kind, 'forbidden');
  assert.deepEqual(broken.counterexample?.trace, ['a from 0', 'a from 1', 'b from 0']);

  const cut = explore(counters(null), 50);
  assert.equal(cut.states, 50);
  assert.equal(cut.complete, false);
  assert.equal(cut.counterexample, null);
});

test('the search keeps apart more states than its tables begin with', () => {
  const counted = explore(line(200_000), STATES_MAX);
  assert.equal(counted.states, 200_000);
  assert.equal(counted.complete, true);
});

for (const { name, must, search } of SMALL_CASES)
  test(`${name}: the protocol keeps its promises in every state`, () => {
    const exploration = search(STATES_MAX);
    assert.equal(exploration.counterexample, null);
    assert.equal(exploration.complete, true, 'the search must not be cut');
    // Having done nothing would keep every promise too.
    for (const what of must) assert.ok(exploration.witnessed.includes(what), `never witnessed: ${what}`);
  });

for (const { name, kind, steps, search } of MUTANT_CASES)
  test(`${name} switched off: ${kind} after ${steps} steps`, () => {
    const { counterexample } = search(STATES_MAX);
    assert.ok(counterexample !== null, 'the mutant lives');
    assert.equal(counterexample.kind, kind, counterexample.text);
    assert.equal(counterexample.trace.length, steps, counterexample.trace.join('\n'));
  });

test('the same search twice gives the same trace', () => {
  const { search } = MUTANT_CASES.find(({ name }) => name === 'append/stopsAtForeignCommit')!;
  assert.deepEqual(search(STATES_MAX), search(STATES_MAX));
});

test('README.md lists every rule with its number of steps', async () => {
  const readme = await readFile(new URL('./README.md', import.meta.url), 'utf8');
  const rows = readme.split('\n').map((line) => line.split('|').map((cell) => cell.trim()));
  for (const { name, finding, kind, steps } of MUTANT_CASES) {
    const row = rows.find((cells) => cells[1] === `\`${name}\``);
    assert.deepEqual(row?.slice(3, -1), [finding, kind, String(steps)], name);
  }
});

test('every finding C1 to C7 has a mutant', () => {
  const findings = new Set(MUTANT_CASES.map(({ finding }) => finding));
  for (const finding of ['C1', 'C2', 'C3', 'C4', 'C5', 'C6', 'C7']) assert.ok(findings.has(finding), finding);
});

interface Counters {
  a: number;
  b: number;
}

/** Two counters that each go from 0 to 9, one pair of values being forbidden. */
function counters(forbidden: Counters | null): Model<Counters, 'forbidden'> {
  return {
    witnessed: new Set(),
    initial: () => ({ a: 0, b: 0 }),
    steps({ a, b }, take) {
      if (a < 9) take(() => `a from ${a}`, { a: a + 1, b });
      if (b < 9) take(() => `b from ${b}`, { a, b: b + 1 });
    },
    violation: ({ a, b }) =>
      a === forbidden?.a && b === forbidden.b ? { kind: 'forbidden', text: 'met' } : null,
  };
}

/** `length` states in ten rows, each with one step on. */
function line(length: number): Model<number, never> {
  return {
    witnessed: new Set(),
    initial: () => 0,
    steps(at, take) {
      for (let i = 1; i <= 10; i++) if (at * 10 + i < length) take(() => 'on', at * 10 + i);
    },
    violation: () => null,
  };
}
