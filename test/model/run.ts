/**
 * Command line of the model checker:
 *
 *   node test/model/run.ts [--bounds small|large] [--only TEXT] [--states-max N]
 *
 * Prints each search's states, depth and time, and each mutant's shortest counterexample in words. `--only`
 * takes the searches whose name contains the text. Exits with 1 if the protocol breaks a promise, if a search
 * was cut short or did not witness what it must, or if a mutant lives.
 * Owns: arguments and printing. Does not own: what is searched (cases.ts). Main thread.
 */
import { parseArgs } from 'node:util';
import { LARGE_CASES, MUTANT_CASES, SMALL_CASES } from './cases.ts';
import type { Exploration } from './explorer.ts';

/** About 2.5 GB of memory and a few minutes. */
const STATES_MAX_DEFAULT = 4_000_000;

const { values } = parseArgs({
  options: {
    bounds: { type: 'string', default: 'small' },
    only: { type: 'string', default: '' },
    'states-max': { type: 'string', default: String(STATES_MAX_DEFAULT) },
  },
});
const statesMax = Number(values['states-max']);
if (values.bounds !== 'small' && values.bounds !== 'large') usage('--bounds is small or large');
if (!Number.isSafeInteger(statesMax) || statesMax < 1) usage('--states-max is a number of states');

const isChosen = ({ name }: { readonly name: string }): boolean => name.includes(values.only);
const protocolCases = (values.bounds === 'large' ? LARGE_CASES : SMALL_CASES).filter(isChosen);
const mutantCases = MUTANT_CASES.filter(isChosen);
if (protocolCases.length + mutantCases.length === 0) usage(`no search is named like ${values.only}`);

let failureCount = 0;
for (const { name, must, search } of protocolCases) {
  const exploration = timed(name, search);
  const missing = must.filter((what) => !exploration.witnessed.includes(what));
  if (exploration.counterexample !== null) tell(exploration);
  if (!exploration.complete)
    failed(exploration.counterexample === null ? 'cut: not exhaustive' : 'VIOLATION');
  else if (missing.length > 0) failed(`never witnessed: ${missing.join('; ')}`);
}
for (const { name, finding, kind, search } of mutantCases) {
  const exploration = timed(`${name}${finding === '' ? '' : ` (${finding})`}`, search);
  tell(exploration);
  if (exploration.counterexample?.kind !== kind) failed(`the mutant should show ${kind}`);
}
console.log(failureCount === 0 ? 'all as it should be' : `${failureCount} not as they should be`);
process.exitCode = failureCount === 0 ? 0 : 1;

function timed(name: string, search: (statesMax: number) => Exploration): Exploration {
  const startedAt = performance.now();
  const exploration = search(statesMax);
  const ms = Math.round(performance.now() - startedAt);
  const { states, steps, depth } = exploration;
  console.log(`${name}: ${states} states, ${steps} steps, depth ${depth}, ${ms} ms`);
  return exploration;
}

function tell({ counterexample }: Exploration): void {
  if (counterexample === null) return;
  console.log(`  ${counterexample.kind} after ${counterexample.trace.length} steps: ${counterexample.text}`);
  for (const [i, line] of counterexample.trace.entries()) console.log(`  ${i + 1}. ${line}`);
}

function failed(why: string): void {
  failureCount++;
  console.log(`  FAILED: ${why}`);
}

function usage(problem: string): never {
  console.error(
    `${problem}\nusage: node test/model/run.ts [--bounds small|large] [--only TEXT] [--states-max N]`,
  );
  process.exit(2);
}
