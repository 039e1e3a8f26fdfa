/**
 * A report as one page: the figures, and plots over time and of the distribution. Owns: the page. Does not own: the
 * drawing (svg-plot) or the figures. The page has no script and asks nothing of any network. Pure.
 */
import { PRICES, type PriceName } from './cost.ts';
import type { LoadReport, SeriesPoint } from './report-schema.ts';
import { summaryLines } from './report-summary.ts';
import { escapeText, type Plot, plotSvg } from './svg-plot.ts';

const STYLE = `
:root { color-scheme: light dark; --text: #222; --dim: #666; --line: #ddd; --faint: #eee; --back: #fff; --box: #f4f4f2; --warn: #fde8e0; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --dim: #999; --line: #444; --faint: #333; --back: #1b1b1b; --box: #262626; --warn: #53301f; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1500px; margin: 2em auto; padding: 0 1em; color: var(--text); background: var(--back); }
code { overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); gap: 1.5em; margin: 1.5em 0; }
svg { width: 100%; height: auto; border: 1px solid var(--line); box-sizing: border-box; }
svg text { font: 11px system-ui, sans-serif; fill: var(--text); }
svg .title { font-weight: 600; font-size: 13px; }
svg .name { fill: var(--dim); }
svg .grid { stroke: var(--faint); }
svg .moment { stroke: var(--dim); stroke-dasharray: 3 3; }
.partial { background: var(--warn); padding: .6em 1em; }
.table { overflow-x: auto; }
table { border-collapse: collapse; }
td, th { padding: .2em .8em; text-align: right; border-bottom: 1px solid var(--faint); font-variant-numeric: tabular-nums; }
td.text, th.text { text-align: left; font-variant-numeric: normal; }
table.summary { background: var(--box); }
table.summary th { font-weight: 600; vertical-align: top; white-space: nowrap; }
`;

type Series = (point: SeriesPoint) => number | null;

function overTime(
  report: LoadReport,
  title: string,
  yName: string,
  lines: Record<string, Series>,
  isLogY = false,
): Plot {
  return {
    title,
    xName: 's after the beginning',
    moments: phaseBegins(report),
    yName,
    isLogY,
    lines: Object.entries(lines).map(([name, of]) => ({
      name,
      points: report.series.map((point) => [point.t_s, of(point)] as const),
    })),
  };
}

/** Where one phase follows another, or something happened to a broker. */
function phaseBegins({ phases, cluster }: LoadReport): [number, string][] {
  if (cluster !== null) return cluster.spans.slice(1).map(({ from_s, name }) => [from_s, name]);
  if (phases.length < 2) return [];
  return phases.flatMap(({ began_s, name }): [number, string][] =>
    began_s === null ? [] : [[began_s, name]],
  );
}

/** Each step to the right is ten times closer to the slowest request. */
function distribution(report: LoadReport): Plot {
  const nines = (part: number) => Math.min(5.5, -Math.log10(Math.max(1e-6, 1 - part)));
  return {
    title: 'Produce latency, distribution',
    xName: 'part of all requests that are not slower',
    yName: 'ms',
    isLogY: true,
    xText: (x) => `not exceeded by ${Number((100 * (1 - 10 ** -x)).toPrecision(6))} % of all requests`,
    xTicks: [
      [0, '0'],
      [nines(0.5), '50 %'],
      [1, '90 %'],
      [2, '99 %'],
      [3, '99.9 %'],
      [4, '99.99 %'],
      [5, '99.999 %'],
    ],
    lines: [
      { name: 'produce', points: report.distribution.map(({ part, ms }) => [nines(part), ms] as const) },
    ],
  };
}

function plots(report: LoadReport): Plot[] {
  return [
    overTime(
      report,
      'Produce latency over time',
      'ms',
      { p50: (p) => p.p50_ms, p99: (p) => p.p99_ms, max: (p) => p.max_ms },
      true,
    ),
    distribution(report),
    overTime(report, 'Records answered', 'records a second', {
      acknowledged: (p) => p.rate_per_s,
      failed: (p) => p.failed,
    }),
    overTime(report, 'PUTs of objects', 'PUTs a second', { PUTs: (p) => p.puts_per_s }),
    overTime(report, 'Requests and appends not yet answered, at each look', 'waiting', {
      requests: (p) => p.requests_outstanding,
      appends: (p) => p.appends_outstanding,
    }),
    overTime(report, 'Objects on their way, at each look', 'objects', {
      uploading: (p) => p.uploads_in_flight,
      'not committed': (p) => p.objects_in_flight,
    }),
    overTime(report, 'Partitions in the open batch, at each look', 'partitions', {
      partitions: (p) => p.open_batch_slices,
    }),
    overTime(report, 'Memory of the broker', 'MB', {
      resident: (p) => p.rss_mb,
      'main heap': (p) => p.heap_mb,
      'in flight': (p) => p.in_flight_mb,
    }),
    overTime(report, 'Cache hit rate', '% of look-ups', {
      topics: (p) => percent(p.topics_hit_rate),
      'index pages': (p) => percent(p.pages_hit_rate),
    }),
  ];
}

function percent(part: number | null): number | null {
  return part === null ? null : part * 100;
}

type Cell = string | number | null;

/** Texts to the left, numbers to the right. */
function table(head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const isText = (column: number) => rows.some((row) => typeof row[column] === 'string');
  const cell = (tag: 'td' | 'th', value: Cell, column: number) => {
    const text =
      typeof value === 'number' ? value.toLocaleString('en-US', { maximumFractionDigits: 6 }) : value;
    return `<${tag}${isText(column) ? ' class="text"' : ''}>${escapeText(text ?? '-')}</${tag}>`;
  };
  const line = (tag: 'td' | 'th', row: readonly Cell[]) =>
    `<tr>${row.map((value, column) => cell(tag, value, column)).join('')}</tr>`;
  return `<div class="table"><table>${line('th', head)}${rows.map((row) => line('td', row)).join('\n')}</table></div>`;
}

function summaryTable(report: LoadReport): string {
  const rows = summaryLines(report).map(
    ([title, text]) =>
      `<tr><th class="text">${escapeText(title)}</th><td class="text">${escapeText(text)}</td></tr>`,
  );
  return `<table class="summary">${rows.join('\n')}</table>`;
}

function callsTable(report: LoadReport): string {
  const rows = Object.entries(report.metadata_calls).map(([kind, { count, p50_ms, p99_ms }]) => [
    kind.replaceAll('_', ' '),
    count,
    p50_ms,
    p99_ms,
  ]);
  return table(['call', 'count', 'p50 ms', 'p99 ms'], rows);
}

function phasesTable({ phases }: LoadReport): string {
  const head = ['phase', 'pace', 'seconds', 'acknowledged', 'records/s', 'p50 ms', 'p99 ms', 'max ms'];
  const rows = phases.map(
    ({ name, pace, is_measured, records, rate_per_s, produce_ms: { p50, p99, max }, took_s }) => [
      is_measured && phases.length > 1 ? `${name} (measured)` : name,
      pace,
      took_s,
      records.acked,
      rate_per_s,
      p50,
      p99,
      max,
    ],
  );
  return table(head, rows);
}

function readersTable({ phases }: LoadReport): string {
  const rows = phases.flatMap(({ name, readers }) => {
    if (readers === null) return [];
    const { kind, requests, failed, records, records_per_s, fetch_ms, end_to_end_ms } = readers;
    const times = [fetch_ms.p50, fetch_ms.p99, end_to_end_ms.p50, end_to_end_ms.p99];
    return [[name, kind, requests, failed, records, records_per_s, ...times]];
  });
  if (rows.length === 0) return '';
  const head = ['phase', 'readers', 'requests', 'failed', 'records', 'records/s'];
  const times = ['fetch p50 ms', 'fetch p99 ms', 'end to end p50 ms', 'end to end p99 ms'];
  return `<h2>Readers</h2>\n${table([...head, ...times], rows)}`;
}

function clusterTables({ cluster }: LoadReport): string {
  if (cluster === null) return '';
  const spans = cluster.spans.map(
    ({ name, from_s, to_s, acked, rate_per_s, produce_ms, failures, retried }) => [
      name,
      from_s,
      to_s,
      acked,
      rate_per_s,
      produce_ms.p50,
      produce_ms.p99,
      produce_ms.max,
      codes(failures),
      codes(retried),
    ],
  );
  const spanHead = ['', 'from s', 'to s', 'acknowledged', 'records/s', 'p50 ms', 'p99 ms', 'max ms'];
  const stops = cluster.stops.map(
    ({ event, of, partitions, stopped_ms, longest_ms, again_ms, not_again }) => [
      event,
      of,
      partitions,
      ...[stopped_ms.p50, stopped_ms.p99, stopped_ms.max, again_ms],
      ...[longest_ms.p50, longest_ms.p99, longest_ms.max, not_again],
    ],
  );
  const stopHead = [
    ...['event', 'partitions', 'number', 'stopped p50 ms', 'p99 ms', 'max ms', 'all again after ms'],
    ...['longest p50 ms', 'p99 ms', 'max ms', 'not again'],
  ];
  const brokers = cluster.brokers.map((one) => Object.values(one));
  const brokerHead = Object.keys(cluster.brokers[0] ?? {}).map((name) => name.replaceAll('_', ' '));
  const events = cluster.events.map(({ t_s, what }) => [t_s, what]);
  const share = cluster.forwarded_share === null ? '-' : `${(cluster.forwarded_share * 100).toFixed(1)} %`;
  return [
    `<h2>What happened to the brokers</h2>\n${table(['s', ''], events)}`,
    table([...spanHead, 'failed', 'sent again'], spans),
    `<h2>How long acknowledgements stopped</h2>\n${table(stopHead, stops)}`,
    `<h2>Brokers</h2>\n${table(brokerHead, brokers)}`,
    `<p>Appends of clients that went on to another broker: ${share}</p>`,
  ].join('\n');
}

function codes(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([code, count]) => `${count} ${code}`)
    .join(', ');
}

function costTable({ cost }: LoadReport): string {
  const rows = Object.entries(cost.parts).map(([name, usd]) => [
    PRICES[name as PriceName]?.of ?? name,
    cost.prices[name] ?? null,
    usd,
  ]);
  const head = ['', 'price, USD', 'USD per million records'];
  return `${table(head, [...rows, ['together', null, cost.per_million_records]])}\n<p>${escapeText(cost.note)}</p>`;
}

export function reportHtml(report: LoadReport): string {
  const { machine, command, commit, date, scenario, partial_reason: why } = report;
  const partial = why === null ? '' : `<p class="partial">This report is partial: ${escapeText(why)}.</p>`;
  const place =
    `${machine.cores} cores (${machine.cpu}), ${machine.memory_gb} GB, Node ${machine.node}, commit ${commit}, ` +
    `${date} UTC, load average ${machine.load}`;
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>streamhouse load ${escapeText(scenario)}</title><style>${STYLE}</style></head>
<body>
<h1>streamhouse load ${escapeText(scenario)}, ${report.partitions.toLocaleString('en-US')} partitions</h1>
${partial}
<p><code>${escapeText(command)}</code><br>${escapeText(place)}</p>
${summaryTable(report)}
<div class="plots">
${plots(report)
  .map(plotSvg)
  .filter((svg) => svg !== '')
  .join('\n')}
</div>
<h2>Phases</h2>
${phasesTable(report)}
${readersTable(report)}
${clusterTables(report)}
<h2>Metadata calls</h2>
${callsTable(report)}
<h2>Estimated cost at list prices</h2>
${costTable(report)}
</body>
</html>
`;
}
