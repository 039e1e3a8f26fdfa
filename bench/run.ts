/**
 * `npm run bench -- [SUITE ...]`: runs benchmark suites and prints a table of each. Owns: arguments, one child
 * process per suite, the files that are written. Does not own: what is measured (suites/), formats (report.ts).
 *
 *   --smoke           tiny sizes: shows that every suite works; the figures mean nothing
 *   --seconds N       of each measurement of whole processes (http-door); default 10
 *   --json FILE       the figures; default bench/results/TIME.json
 *   --markdown FILE   rewrites the suites' marked sections of that page, as docs/benchmarks.md has them
 *   --compare FILE    prints ratios to the figures in FILE; exit code 1 if a task runs below 0.85 of them
 *   --list            names the suites
 */
import { fork } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { machineInfo, machineLine } from '../src/load/machine.ts';
import {
  type BenchReport,
  compareReports,
  rewriteSections,
  SLOWER_RATIO_MAX,
  type SuiteReport,
  terminalTable,
} from './report.ts';
import type { Suite, SuiteOptions, TaskFigures } from './suite.ts';
import { SUITES } from './suites.ts';

const RUN_SUITE = fileURLToPath(new URL('run-suite.ts', import.meta.url));
const RESULTS = fileURLToPath(new URL('results/', import.meta.url));

function runSuite(suite: Suite, options: SuiteOptions): Promise<TaskFigures[]> {
  const child = fork(RUN_SUITE, [suite.name, JSON.stringify(options)]);
  return new Promise((resolve, reject) => {
    let figures: TaskFigures[] | null = null;
    child.on('message', (message) => (figures = message as TaskFigures[]));
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      if (figures !== null && code === 0) resolve(figures);
      else reject(new Error(`suite ${suite.name} ended (${signal ?? `exit code ${code}`})`));
    });
  });
}

function chosenSuites(names: readonly string[]): readonly Suite[] {
  if (names.length === 0) return SUITES;
  return names.map((name) => {
    const suite = SUITES.find((one) => one.name === name);
    if (suite === undefined) {
      throw new Error(`no suite ${name}; there are ${SUITES.map((one) => one.name).join(', ')}`);
    }
    return suite;
  });
}

function writeFile(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      smoke: { type: 'boolean', default: false },
      seconds: { type: 'string', default: '10' },
      json: { type: 'string' },
      markdown: { type: 'string' },
      compare: { type: 'string' },
      list: { type: 'boolean', default: false },
    },
  });
  const suites = chosenSuites(positionals);
  if (values.list) {
    for (const { name, title } of suites) console.log(`${name}  ${title}`);
    return 0;
  }
  const { smoke } = values;
  const seconds = Number(values.seconds);
  if (!(seconds > 0)) throw new Error('--seconds takes a number above 0');
  const earlier =
    values.compare === undefined ? null : (JSON.parse(readFileSync(values.compare, 'utf8')) as BenchReport);
  const command = ['npm run bench', ...(process.argv.length > 2 ? ['--', ...process.argv.slice(2)] : [])];
  const machine = machineInfo(command.join(' '));
  console.log(`${machineLine(machine)}\n`);
  if (smoke) console.log('smoke size: these figures mean nothing\n');
  const report: BenchReport = { schema: 'streamhouse-bench-1', smoke, machine, suites: [] };
  for (const suite of suites) {
    const { load } = machineInfo('');
    const tasks = await runSuite(suite, { smoke, seconds });
    const { name, title } = suite;
    const done: SuiteReport = { name, title, machine: { ...machine, load }, tasks };
    report.suites.push(done);
    console.log(terminalTable(done));
  }
  const file = values.json ?? `${RESULTS}${new Date().toISOString().replaceAll(':', '-')}.json`;
  writeFile(file, `${JSON.stringify(report, null, 2)}\n`);
  console.log(`figures written to ${file}`);
  if (values.markdown !== undefined) {
    writeFile(values.markdown, rewriteSections(readFileSync(values.markdown, 'utf8'), report.suites));
  }
  if (earlier === null) return 0;
  const { lines, slower } = compareReports(report, earlier);
  console.log(`\nrate now to rate then (${machineLine(earlier.machine)})\n${lines.join('\n')}`);
  if (slower.length > 0)
    console.error(`${slower.length} tasks below ${SLOWER_RATIO_MAX} of their earlier rate`);
  return slower.length > 0 ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
