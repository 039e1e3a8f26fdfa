/**
 * How figures are shown: tables for a terminal and for Markdown, a marked section of a page rewritten, and the
 * comparison with an earlier run. Owns: rounding and wording. Does not own: figures (suite.ts). Pure.
 */
import type { MachineInfo } from '../src/load/machine.ts';
import { machineLine } from '../src/load/machine.ts';
import type { TaskFigures } from './suite.ts';

export interface SuiteReport {
  name: string;
  title: string;
  machine: MachineInfo;
  tasks: TaskFigures[];
}

/** What `--json` writes and `--compare` reads. */
export interface BenchReport {
  schema: 'streamhouse-bench-1';
  smoke: boolean;
  machine: MachineInfo;
  suites: SuiteReport[];
}

/** A task that runs at less than this part of its earlier rate fails a comparison. */
export const SLOWER_RATIO_MAX = 0.85;

const HEAD = ['task', 'median', 'p99', 'rate', 'per item', 'relative', 'samples', 'details'];

/** '12.3 us', '4.56 ms': three digits. */
export function formatTime(us: number): string {
  if (us < 1) return `${digits(us * 1000)} ns`;
  if (us < 1000) return `${digits(us)} us`;
  return us < 1e6 ? `${digits(us / 1000)} ms` : `${digits(us / 1e6)} s`;
}

function digits(value: number): string {
  return value >= 100 || value === 0 ? value.toFixed(0) : value.toPrecision(3);
}

/** '1.23 M', '45.6 k'. */
export function formatCount(value: number): string {
  if (value >= 1e6) return `${digits(value / 1e6)} M`;
  return value >= 10_000 ? `${digits(value / 1e3)} k` : digits(value);
}

/** How many times as fast per item as the task it is compared with; null: with none. */
export function relativeRate(task: TaskFigures, tasks: readonly TaskFigures[]): number | null {
  const other = tasks.find(({ name }) => name === task.against);
  return other === undefined ? null : task.itemsPerS / (task.againstItemsPerS ?? other.itemsPerS);
}

function cells(task: TaskFigures, tasks: readonly TaskFigures[]): string[] {
  const relative = relativeRate(task, tasks);
  const isBaseline = tasks.some(({ against }) => against === task.name);
  return [
    task.name,
    formatTime(task.p50Us),
    formatTime(task.p99Us),
    `${formatCount(task.itemsPerS)} ${task.itemName}s/s`,
    task.items === 1 ? '' : formatTime(1e6 / task.itemsPerS),
    relative === null ? (isBaseline ? 'baseline' : '') : `x ${digits(relative)}`,
    formatCount(task.samples),
    Object.entries(task.details)
      .map(([what, value]) => `${what} ${typeof value === 'number' ? formatCount(value) : value}`)
      .join(', '),
  ];
}

/** A suite as a table with aligned columns. */
export function terminalTable(report: SuiteReport): string {
  const rows = [HEAD, ...report.tasks.map((task) => cells(task, report.tasks))];
  const widths = HEAD.map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const lines = rows.map((row) =>
    row
      .map((cell, i) => (i > 0 && i < 7 ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
      .join('  ')
      .trimEnd(),
  );
  return `${report.title}\n${lines.join('\n')}\n`;
}

/** A suite as Markdown: where it ran, then its table. */
export function markdownTable(report: SuiteReport): string {
  const rows = report.tasks.map((task) => `| ${cells(task, report.tasks).join(' | ')} |`);
  const rule = HEAD.map((_, i) => (i > 0 && i < 7 ? '--:' : '---')).join(' | ');
  return [machineLine(report.machine), '', `| ${HEAD.join(' | ')} |`, `| ${rule} |`, ...rows].join('\n');
}

/** The page with the marked section of each suite of the report rewritten; a suite without a section is an error. */
export function rewriteSections(page: string, suites: readonly SuiteReport[]): string {
  let text = page;
  for (const suite of suites) {
    const begin = `<!-- bench ${suite.name} -->`;
    const end = `<!-- end ${suite.name} -->`;
    const from = text.indexOf(begin);
    const to = text.indexOf(end);
    if (from < 0 || to < from) throw new Error(`the page has no section ${begin} ... ${end}`);
    text = `${text.slice(0, from + begin.length)}\n${markdownTable(suite)}\n${text.slice(to)}`;
  }
  return text;
}

export interface Comparison {
  lines: string[];
  /** Names of tasks that became slower than the bound allows. */
  slower: string[];
}

/**
 * Ratios of rates, now to then, of the tasks that both have. Tasks that others of their suite are compared with
 * are measures of the machine, not of the project: they are shown and never fail. What a suite measures no more is
 * named, so that nothing gets out of sight by another name.
 */
export function compareReports(now: BenchReport, then: BenchReport): Comparison {
  const lines: string[] = [];
  const slower: string[] = [];
  let compared = 0;
  if (now.smoke !== then.smoke) throw new Error('one of the two reports is of the smoke size');
  for (const suite of now.suites) {
    const before = then.suites.find(({ name }) => name === suite.name);
    if (before === undefined) continue;
    for (const task of suite.tasks) {
      const earlier = before.tasks.find(({ name }) => name === task.name);
      if (earlier === undefined) continue;
      const ratio = task.itemsPerS / earlier.itemsPerS;
      const isBaseline = suite.tasks.some(({ against }) => against === task.name);
      const failed = !isBaseline && ratio < SLOWER_RATIO_MAX;
      if (failed) slower.push(`${suite.name}: ${task.name}`);
      const note = failed ? '  SLOWER' : isBaseline ? '  (baseline)' : '';
      lines.push(`${ratio.toFixed(2).padStart(6)}  ${suite.name}: ${task.name}${note}`);
      compared++;
    }
    const gone = before.tasks.filter(({ name }) => !suite.tasks.some((task) => task.name === name));
    for (const { name } of gone) lines.push(`  gone  ${suite.name}: ${name}`);
  }
  if (compared === 0) throw new Error('the two reports have no task in common');
  return { lines, slower };
}
