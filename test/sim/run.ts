/**
 * The command line of the simulation: `npm run sim -- --seeds N [--from S] [--seed S] [--trace] [--mutant M]`.
 * Owns: arguments and printing. Does not own: runs (simulation.ts) nor their distribution (seeds.ts). Its own
 * process.
 */
import { parseArgs } from 'node:util';
import { COVERAGE_KINDS } from './coverage.ts';
import { MUTANTS, type Mutant } from './mutants.ts';
import { formatLine } from './scheduler.ts';
import { describeFailure, runSeeds } from './seeds.ts';
import { simulate } from './simulation.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    seed: { type: 'string' },
    trace: { type: 'boolean', default: false },
    mutant: { type: 'string' },
    threads: { type: 'string', default: '2' },
  },
});
const mutant = (values.mutant ?? null) as Mutant | null;
if (mutant !== null && !MUTANTS.includes(mutant)) {
  console.error(`unknown mutant; there are: ${MUTANTS.join(', ')}`);
  process.exit(2);
}
const strict = mutant === null;
if (values.seed !== undefined) {
  const onTrace = values.trace
    ? (line: Parameters<typeof formatLine>[0]) => console.log(formatLine(line))
    : undefined;
  const result = await simulate({ seed: Number(values.seed), mutant, strict, onTrace });
  if (result.violation !== null) console.log(describeFailure(result));
  const { events, virtualMs } = result;
  console.log(`seed ${values.seed}: ${events} events, ${virtualMs.toFixed(0)} ms, trace ${result.traceHash}`);
  process.exitCode = result.violation === null ? 0 : 1;
} else {
  const startMs = performance.now();
  const count = Number(values.seeds);
  const summary = await runSeeds({
    from: Number(values.from),
    count,
    mutant,
    strict,
    threads: Number(values.threads),
    stopAtFailure: mutant !== null,
  });
  for (const failure of summary.failures.slice(0, 5)) console.log(describeFailure(failure));
  const seconds = (performance.now() - startMs) / 1000;
  for (const kind of COVERAGE_KINDS) console.log(`${kind.padEnd(28)} ${summary.coverage[kind]}`);
  console.log(
    `${summary.seeds} seeds in ${seconds.toFixed(1)} s (${(summary.seeds / seconds).toFixed(0)}/s), ` +
      `${summary.events} events, ${summary.failures.length} failed: ${summary.failures.map((f) => f.seed).join(' ')}`,
  );
  process.exitCode = summary.failures.length === 0 ? 0 : 1;
}
