/**
 * `npm run load:all` at its smoke size: runs, reports, the tables of docs/benchmarks.md. Every scenario by itself is
 * test/e2e/load.test.ts's. No figure is judged here.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { LOAD_RUNS, MARKS } from '../../../bench/load-runs.ts';
import { SCENARIOS } from '../../../src/load/scenarios.ts';
import { checkLoadReport } from '../../support/load-report-check.ts';

const RUN = fileURLToPath(new URL('../../../bench/load-all.ts', import.meta.url));
const PAGE = fileURLToPath(new URL('../../../docs/benchmarks.md', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'streamhouse-load-all-'));
after(() => rmSync(folder, { recursive: true, force: true }));

function loadAll(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [RUN, ...args], { timeout: 120_000 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

describe('load:all', () => {
  it('has a run of every scenario, and no two of one name', () => {
    for (const { name } of SCENARIOS)
      assert.ok(
        LOAD_RUNS.some(({ scenario }) => scenario === name),
        name,
      );
    const files = LOAD_RUNS.map(({ name }) => name.replace(/[^a-zA-Z0-9]+/g, '-'));
    assert.equal(new Set(files).size, LOAD_RUNS.length);
  });

  it('asks of every mark a run that there is', () => {
    for (const mark of MARKS) {
      const asked: string[] = [];
      assert.equal(
        mark.measured((run) => {
          asked.push(run);
          return null;
        }),
        null,
      );
      for (const run of asked)
        assert.ok(
          LOAD_RUNS.some(({ name }) => name === run),
          `${mark.what}: ${run}`,
        );
      assert.ok(asked.length > 0);
    }
  });

  it('runs, keeps the reports, and writes the tables into a page', async () => {
    const page = join(folder, 'page.md');
    writeFileSync(
      page,
      '# Page\n\n<!-- load sqlite -->\nwhat was there before\n<!-- end load sqlite -->\n\nrest\n',
    );
    const out = join(folder, 'out');
    const runs = ['pathological, objects', 'pathological, an object'];
    const done = await loadAll('--smoke', '--out', out, '--markdown', page, ...runs);
    assert.equal(done.code, 0, done.stderr);
    const reports = readdirSync(out).filter((name) => name.endsWith('.json'));
    assert.equal(reports.length, 2);
    for (const name of reports) checkLoadReport(JSON.parse(readFileSync(join(out, name), 'utf8')));
    const text = readFileSync(page, 'utf8');
    assert.match(text, /^# Page\n\n<!-- load sqlite -->\n\d+ cores .*\n\n\| run \|/);
    assert.ok(!text.includes('what was there before') && text.endsWith('<!-- end load sqlite -->\n\nrest\n'));
    assert.match(
      text,
      /\| PUTs against one per partition and window, both measured \| -99 % \| -\d+\.\d+ % /,
    );
    assert.match(text, /\| not run \| - \|/);
    const again = await loadAll('--report', '--out', out, '--markdown', page);
    assert.equal(again.code, 0, again.stderr);
    assert.equal(readFileSync(page, 'utf8'), text);
  });

  it('says in one line what it cannot do', async () => {
    for (const [args, message] of [
      [['no such run'], /^no run is named so/],
      [['--store', 'nonsense'], /^no store nonsense; there are sqlite/],
      [['--report', '--out', join(folder, 'empty')], /^no report in /],
    ] as const) {
      const { code, stderr } = await loadAll(...args);
      assert.equal(code, 2);
      assert.match(stderr, message);
      assert.equal(stderr.trimEnd().split('\n').length, 1);
    }
  });

  it('has its section in docs/benchmarks.md', () => {
    assert.match(readFileSync(PAGE, 'utf8'), /<!-- load sqlite -->\n[\s\S]*<!-- end load sqlite -->/);
  });
});
