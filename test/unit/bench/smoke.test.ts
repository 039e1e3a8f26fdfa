/**
 * Every benchmark suite runs at its smoke size and gives figures, so that benchmarks cannot rot; the files that a
 * run writes and the comparison with an earlier run. No figure is judged here.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type BenchReport, compareReports, relativeRate, rewriteSections } from '../../../bench/report.ts';
import { TaskSet } from '../../../bench/suite.ts';
import { SUITES } from '../../../bench/suites.ts';

const RUN = fileURLToPath(new URL('../../../bench/run.ts', import.meta.url));
const PAGE = fileURLToPath(new URL('../../../docs/benchmarks.md', import.meta.url));

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

function bench(...args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, [RUN, ...args], { timeout: 300_000 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

/** The same report with every rate so many times as high. */
function scaled(report: BenchReport, factor: number): BenchReport {
  const copy = structuredClone(report);
  for (const suite of copy.suites) for (const task of suite.tasks) task.itemsPerS *= factor;
  return copy;
}

describe('benchmarks', () => {
  let directory: string;
  let report: BenchReport;

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'streamhouse-bench-test-'));
    const file = join(directory, 'all.json');
    const { code, stdout, stderr } = await bench('--smoke', '--json', file);
    assert.equal(code, 0, stderr);
    for (const { title } of SUITES) assert.ok(stdout.includes(title), `no table of ${title}`);
    report = JSON.parse(readFileSync(file, 'utf8'));
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  it('every suite gives figures', () => {
    assert.deepEqual(
      report.suites.map(({ name }) => name),
      SUITES.map(({ name }) => name),
    );
    for (const suite of report.suites) {
      assert.ok(suite.tasks.length > 1, suite.name);
      const names = new Set(suite.tasks.map(({ name }) => name));
      assert.equal(names.size, suite.tasks.length, `${suite.name} has two tasks of one name`);
      for (const task of suite.tasks) {
        assert.ok(task.samples > 0, `${suite.name}: ${task.name}`);
        assert.ok(task.itemsPerS > 0 && Number.isFinite(task.itemsPerS), `${suite.name}: ${task.name}`);
        assert.ok(task.against === null || names.has(task.against), `${task.name} has no ${task.against}`);
      }
    }
  });

  it('a comparison fails what became slower, and nothing else', () => {
    assert.deepEqual(compareReports(report, scaled(report, 1.1)).slower, []);
    const { slower, lines } = compareReports(report, scaled(report, 1.3));
    assert.ok(slower.includes('apply: apply, 100 slices'));
    assert.ok(!slower.includes('apply: map update, 100 keys'), 'a baseline is no mark of the project');
    assert.match(lines.join('\n'), /0\.77 {2}apply: apply, 100 slices {2}SLOWER/);
    const [index, ...rest] = report.suites;
    const renamed = {
      ...index,
      tasks: index.tasks.map((task, i) => (i > 0 ? task : { ...task, name: 'old' })),
    };
    assert.match(
      compareReports(report, { ...report, suites: [renamed, ...rest] }).lines.join('\n'),
      /gone {2}index: old/,
    );
    assert.throws(() => compareReports(report, { ...report, suites: [] }), /no task in common/);
    assert.throws(() => compareReports(report, { ...report, smoke: false }), /smoke size/);
  });

  it('what runs by turns is compared with the runs among its own', async () => {
    const tasks = new TaskSet('turns', { smoke: true, seconds: 1 });
    let isSlow = false;
    let turns = 0;
    const base = () => sleepMs(isSlow ? 50 : 1);
    const byTurnsBase = () => {
      turns++;
      return base();
    };
    const settings = { against: 'base', byTurns: byTurnsBase, hooks: { async: true } };
    tasks.add('base', base, { hooks: { async: true, afterAll: (mode) => void (isSlow = mode === 'run') } });
    tasks.add('by turns', base, settings);
    const figures = await tasks.run();
    const [alone, byTurns] = figures;
    assert.ok(turns >= byTurns.samples + 1, 'once for each run, the warm-up besides');
    assert.ok(byTurns.itemsPerS < alone.itemsPerS / 5, 'the machine became slower');
    const relative = relativeRate(byTurns, figures) ?? 0;
    assert.ok(relative > 0.2 && relative < 5, `the ratio did not: ${relative}`);
  });

  it('the exit code says so', async () => {
    const earlier = join(directory, 'earlier.json');
    const json = join(directory, 'now.json');
    writeFileSync(earlier, JSON.stringify(scaled(report, 1e6)));
    const failed = await bench('planning', '--smoke', '--json', json, '--compare', earlier);
    assert.equal(failed.code, 1);
    assert.match(failed.stderr, /below 0\.85/);
    writeFileSync(earlier, JSON.stringify(scaled(report, 1e-6)));
    const passed = await bench('planning', '--smoke', '--json', json, '--compare', earlier);
    assert.equal(passed.code, 0, passed.stderr);
  });

  it('an unknown suite is one clear line', async () => {
    const { code, stderr } = await bench('no-such-suite');
    assert.equal(code, 2);
    assert.match(stderr, /^no suite no-such-suite; there are index, .*\n$/);
  });

  it('the page in docs has a section for every suite', () => {
    const page = readFileSync(PAGE, 'utf8');
    const once = rewriteSections(page, report.suites);
    for (const { tasks } of report.suites) for (const { name } of tasks) assert.ok(once.includes(name), name);
    assert.equal(rewriteSections(once, report.suites), once);
    assert.throws(() => rewriteSections('# nothing', report.suites), /no section/);
  });
});
