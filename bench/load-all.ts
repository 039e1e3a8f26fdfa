/**
 * `npm run load:all -- [NAME ...]`: runs the load harness at every size of load-runs and prints a table and the marks.
 * Owns: one process per run, the files, the tables. Does not own: the runs and marks (load-runs), the harness.
 *
 *   --smoke           tiny sizes: shows that every run works; the figures mean nothing
 *   --out DIR         where the reports go; default bench/results/load/SCHEME, which git ignores
 *   --markdown FILE   rewrites the section of that page marked `load SCHEME`, as docs/benchmarks.md has it
 *   --report          runs nothing: tables of the reports that are there
 *   --store SCHEME    the metadata store, a new one for every run, from the servers of the tests; default sqlite
 *   --list            names the runs
 * Names choose runs whose name begins so.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { ClusterReport, LoadReport } from '../src/load/report-schema.ts';
import { hasOneOwner } from '../storage/metadata/metadata-backends.ts';
import { MEASURED_PLACES, type MetadataPlace, type PlacedScheme } from '../test/support/metadata-places.ts';
import { LOAD_RUNS, type LoadRunRow, MARKS, type Measured } from './load-runs.ts';

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const OUT = fileURLToPath(new URL('results/load/', import.meta.url));

function fileOf(out: string, { name }: LoadRunRow): string {
  return join(out, name.replace(/[^a-zA-Z0-9]+/g, '-'));
}

/** Resolves with the exit code; what the harness prints goes through. */
async function runOne(row: LoadRunRow, out: string, smoke: boolean, place: MetadataPlace): Promise<number> {
  const file = fileOf(out, row);
  const { scenario } = row;
  const serve = (smoke ? row.smokeServe : undefined) ?? row.serve ?? [];
  const own = [...(smoke ? row.smoke : row.args), '--metadata', await place.freshUrl()];
  const files = ['--json', `${file}.json`, '--html', `${file}.html`];
  const args = [MAIN, 'load', scenario, ...own, ...files, '--', ...place.args, ...serve];
  const env = { ...process.env, ...place.env };
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'], env });
  const [code] = await once(child, 'close');
  return code ?? 1;
}

function schemeOf(text: string): PlacedScheme {
  if (Object.hasOwn(MEASURED_PLACES, text)) return text as PlacedScheme;
  throw new Error(`no store ${text}; there are ${Object.keys(MEASURED_PLACES).join(', ')}`);
}

function readReport(out: string, row: LoadRunRow): LoadReport | null {
  const file = `${fileOf(out, row)}.json`;
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as LoadReport) : null;
}

function number(value: number | null, digits = 3): string {
  if (value === null) return '-';
  return Number(value.toPrecision(digits)).toLocaleString('en-US', { maximumFractionDigits: 4 });
}

const HEAD = [
  ...['run', 'records', 'records/s', 'p50', 'p99', 'p99.9', 'metadata p99', 'PUTs', 'slices each'],
  ...['rows a flush', 'asked of the database', 'CPU s', 'RSS MB', 'not as acknowledged'],
];

/** A second, and by whom they were counted is in the report. */
function askedText({ database: { statements_per_s: perS, unit } }: LoadReport): string {
  return perS === null ? '-' : `${number(perS)} ${unit ?? 'statements'}/s`;
}

function rowCells(row: LoadRunRow, report: LoadReport): string[] {
  const { records, produce_ms: produce, metadata_ms, objects, flush, broker, verify } = report;
  const wrong =
    verify === null
      ? '-'
      : verify.missing + verify.duplicated + verify.reordered + verify.altered + verify.gaps;
  return [
    row.name,
    records.acked.toLocaleString('en-US'),
    report.rate_per_s.toLocaleString('en-US'),
    number(produce.p50),
    number(produce.p99),
    number(produce.p999),
    number(metadata_ms.p99),
    objects.puts.toLocaleString('en-US'),
    number(objects.slices_per_object, 4),
    number(flush.rows),
    askedText(report),
    number(broker.cpu_s),
    number(broker.rss_max_mb, 4),
    `${wrong} of ${(verify?.read ?? 0).toLocaleString('en-US')}`,
  ];
}

/** What happened to the brokers of a run that had several. */
/** Reports from before there was this part lack it. */
function clusterSection({ name }: LoadRunRow, cluster: ClusterReport | null | undefined): string[] {
  if (!cluster) return [];
  const spans = cluster.spans.map((span) => [
    span.name,
    `${span.from_s} to ${span.to_s}`,
    ...[span.acked, span.rate_per_s].map((count) => count.toLocaleString('en-US')),
    ...[span.produce_ms.p50, span.produce_ms.p99, span.produce_ms.max].map((time) => number(time)),
    counts(span.failures),
    counts(span.retried),
  ]);
  const stops = cluster.stops.map((stop) => [
    stop.event,
    `${stop.partitions}, ${stop.of}`,
    ...[stop.stopped_ms.p50, stop.stopped_ms.max, stop.again_ms].map((time) => number(time, 4)),
    ...[stop.longest_ms.p50, stop.longest_ms.max].map((time) => number(time, 4)),
  ]);
  const brokers = cluster.brokers.map((broker) => [
    broker.name,
    broker.killed_s === null ? `from ${broker.started_s}` : `${broker.started_s} to ${broker.killed_s}`,
    ...[broker.records_committed, broker.forwarded_appends, broker.received_appends].map((count) =>
      count.toLocaleString('en-US'),
    ),
    ...[broker.metadata_calls, broker.objects_uploaded].map((count) => count.toLocaleString('en-US')),
    ...[number(broker.cpu_s), number(broker.rss_max_mb, 4)],
  ]);
  const events = cluster.events.map(({ t_s, what }) => `${t_s} s ${what}`).join(', ');
  const share = cluster.forwarded_share === null ? '-' : `${(cluster.forwarded_share * 100).toFixed(0)} %`;
  return [
    '',
    `*${name}*: ${events}. ${share} of the appends went on to another broker.`,
    '',
    ...markdownTable(
      ['', 'from, to s', 'records', 'records/s', 'p50', 'p99', 'max', 'failed', 'sent again'],
      spans,
    ),
    '',
    ...markdownTable(
      ['acknowledgements stopped', 'partitions', 'p50', 'max', 'all again', 'longest since: p50', 'max'],
      stops,
    ),
    '',
    ...markdownTable(
      [
        ...['broker', 'ran, s', 'records committed', 'forwarded', 'received'],
        ...['metadata calls', 'objects', 'CPU s', 'RSS MB'],
      ],
      brokers,
    ),
  ];
}

function counts(byCode: Readonly<Record<string, number>>): string {
  const texts = Object.entries(byCode).map(([code, count]) => `${count.toLocaleString('en-US')} ${code}`);
  return texts.join(', ') || '-';
}

function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  return [head, head.map((_, i) => (i === 0 ? '---' : '--:')), ...rows].map(markdownRow);
}

function markdownRow(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}

function metText(found: Measured | null): string {
  if (found === null) return '-';
  if (found.isMet === null) return 'as far as measured';
  return found.isMet ? 'yes' : '**no**';
}

/** What a reader must know of the server before the figures. */
function noteOf(scheme: PlacedScheme): string | null {
  switch (scheme) {
    case 'cockroachdb':
      if (process.env.COCKROACH_URL) return null;
      return "**CockroachDB's code on PostgreSQL (SERIALIZABLE, fsync on), not CockroachDB.** No latency and no rate here says what a cluster of it does.";
    case 'dynamodb':
      if (process.env.DYNAMODB_URL) return null;
      return "**dynalite, not DynamoDB**: one thread on the same cores, without throttling. Requests, rows and units are DynamoDB's; latencies and rates are dynalite's.";
    default:
      return null;
  }
}

/** The section of the page: where, the runs, the marks. */
function section(out: string, scheme: PlacedScheme, runs: readonly LoadRunRow[]): string {
  const reports = new Map<string, LoadReport>();
  for (const row of runs) {
    const report = readReport(out, row);
    if (report !== null) reports.set(row.name, report);
  }
  const [first] = reports.values();
  if (first === undefined) throw new Error(`no report in ${out}`);
  const { cores, cpu, memory_gb, node } = first.machine;
  const commits = [...new Set([...reports.values()].map(({ commit }) => commit))].join(', ');
  const loads = [...reports.values()].map(({ machine }) => machine.load);
  const where =
    `${cores} cores (${cpu}), ${memory_gb} GB, Node ${node}, commit ${commits}, ${first.date} UTC; load average ` +
    `${Math.min(...loads)} to ${Math.max(...loads)} at the ends of the runs; times in ms. \`npm run load:all -- --store ${scheme}\``;
  const shown = runs.filter(({ name }) => reports.has(name));
  const marks = MARKS.map((mark) => {
    const found = mark.measured((run) => reports.get(run) ?? null);
    return markdownRow([mark.what, mark.goal, found?.text ?? 'not run', metText(found)]);
  });
  const note = noteOf(scheme);
  return [
    where,
    ...(note === null ? [] : ['', note]),
    '',
    markdownRow(HEAD),
    markdownRow(HEAD.map((_, i) => (i === 0 ? '---' : '--:'))),
    ...shown.map((row) => markdownRow(rowCells(row, reports.get(row.name) as LoadReport))),
    '',
    markdownRow(['mark', 'goal', 'measured', 'met']),
    markdownRow(['---', '---', '---', '---']),
    ...marks,
    // Reports of versions before clusters have none.
    ...shown.flatMap((row) => clusterSection(row, (reports.get(row.name) as LoadReport).cluster ?? null)),
    '',
    ...shown.map((row) => `- ${row.name}: \`${(reports.get(row.name) as LoadReport).command}\``),
  ].join('\n');
}

function rewrite(file: string, scheme: string, text: string): void {
  const [begin, end] = [`<!-- load ${scheme} -->`, `<!-- end load ${scheme} -->`];
  const page = readFileSync(file, 'utf8');
  const from = page.indexOf(begin);
  const to = page.indexOf(end);
  if (from < 0 || to < from) throw new Error(`${file} has no section ${begin} ... ${end}`);
  writeFileSync(file, `${page.slice(0, from + begin.length)}\n${text}\n${page.slice(to)}`);
}

/** Names of the runs that failed. */
async function runAll(
  runs: readonly LoadRunRow[],
  out: string,
  smoke: boolean,
  scheme: PlacedScheme,
): Promise<string[]> {
  const failed: string[] = [];
  const place = await MEASURED_PLACES[scheme]();
  try {
    for (const row of runs) {
      if (row.isShared && hasOneOwner(`${scheme}:`)) {
        console.log(`\n== ${row.name}: not on ${scheme}, which has one owner`);
        continue;
      }
      console.log(`\n== ${row.name}`);
      if ((await runOne(row, out, smoke, place)) !== 0) failed.push(row.name);
    }
  } finally {
    await place.end();
  }
  return failed;
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      smoke: { type: 'boolean', default: false },
      out: { type: 'string' },
      markdown: { type: 'string' },
      report: { type: 'boolean', default: false },
      store: { type: 'string', default: 'sqlite' },
      list: { type: 'boolean', default: false },
    },
  });
  const { smoke } = values;
  const scheme = schemeOf(values.store);
  const out = values.out ?? join(OUT, scheme);
  if (values.list) {
    for (const { name, scenario, args } of LOAD_RUNS) console.log(`${name}: ${scenario} ${args.join(' ')}`);
    return 0;
  }
  const chosen = LOAD_RUNS.filter(
    ({ name }) => positionals.length === 0 || positionals.some((start) => name.startsWith(start)),
  );
  if (chosen.length === 0) throw new Error(`no run is named so; --list names them`);
  mkdirSync(out, { recursive: true });
  const failed = values.report ? [] : await runAll(chosen, out, smoke, scheme);
  const text = section(out, scheme, LOAD_RUNS);
  console.log(`\n${smoke ? 'smoke size: these figures mean nothing\n' : ''}${text}`);
  if (values.markdown !== undefined) rewrite(values.markdown, scheme, text);
  for (const name of failed) console.error(`failed: ${name}`);
  return failed.length > 0 ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
