/**
 * A report as one page: the figures, and plots over time and of the distribution. Owns: the page. Does not own: the
 * drawing (svg-plot) or the figures. The page has no script and asks nothing of any network. Pure.
 */
import type { LoadReport, SeriesPoint } from './report-schema.ts';
import { reportSummary } from './report-summary.ts';
import { escapeText, type Plot, plotSvg } from './svg-plot.ts';

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1500px; margin: 2em auto; padding: 0 1em; color: #222; }
pre { background: #f4f4f2; padding: 1em; overflow-x: auto; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 1.5em; }
svg { width: 100%; height: auto; border: 1px solid #ddd; background: #fff; }
svg text { font: 11px system-ui, sans-serif; fill: #444; }
svg .title { font-weight: 600; font-size: 13px; fill: #111; }
svg .name { fill: #777; }
svg .grid { stroke: #eee; }
.partial { background: #fde8e0; padding: .6em 1em; }
table { border-collapse: collapse; } td, th { padding: .2em .8em; text-align: right; border-bottom: 1px solid #eee; }
td:first-child, th:first-child { text-align: left; }
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
    xName: 'seconds since the beginning',
    yName,
    isLogY,
    lines: Object.entries(lines).map(([name, of]) => ({
      name,
      points: report.series.map((point) => [point.t_s, of(point)] as const),
    })),
  };
}

/** Each step to the right is ten times closer to the slowest request. */
function distribution(report: LoadReport): Plot {
  const nines = (part: number) => Math.min(5.5, -Math.log10(Math.max(1e-6, 1 - part)));
  return {
    title: 'Produce latency, distribution',
    xName: 'part of all requests that are not slower',
    yName: 'ms',
    isLogY: true,
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
    overTime(report, 'Records acknowledged', 'a second', {
      records: (p) => p.rate_per_s,
      failed: (p) => p.failed,
    }),
    overTime(report, 'PUTs', 'a second', { PUTs: (p) => p.puts_per_s }),
    overTime(report, 'Requests and appends not yet answered', '', {
      requests: (p) => p.requests_outstanding,
      appends: (p) => p.appends_outstanding,
    }),
    overTime(report, 'Objects on their way', '', {
      uploading: (p) => p.uploads_in_flight,
      'not committed': (p) => p.objects_in_flight,
    }),
    overTime(report, 'Partitions in the open batch', '', { partitions: (p) => p.open_batch_slices }),
    overTime(report, 'Memory of the broker', 'MB', {
      resident: (p) => p.rss_mb,
      'main heap': (p) => p.heap_mb,
      'in flight': (p) => p.in_flight_mb,
    }),
    overTime(report, 'Cache hit rate', 'part of look-ups', {
      topics: (p) => p.topics_hit_rate,
      pages: (p) => p.pages_hit_rate,
    }),
  ];
}

function figure(value: number | null): string {
  return value === null ? '-' : String(value);
}

function callsTable(report: LoadReport): string {
  const rows = Object.entries(report.metadata_calls).map(
    ([kind, { count, p50_ms, p99_ms }]) =>
      `<tr><td>${escapeText(kind)}</td><td>${count}</td><td>${figure(p50_ms)}</td><td>${figure(p99_ms)}</td></tr>`,
  );
  return `<table><tr><th>metadata call</th><th>count</th><th>p50 ms</th><th>p99 ms</th></tr>${rows.join('')}</table>`;
}

function phasesTable({ phases }: LoadReport): string {
  const rows = phases.map(
    ({ name, pace, records, rate_per_s, produce_ms: { p50, p99, max }, took_s }) =>
      `<tr><td>${escapeText(name)}</td><td>${escapeText(pace)}</td><td>${records.acked}</td><td>${rate_per_s}</td>` +
      `<td>${figure(p50)}</td><td>${figure(p99)}</td><td>${figure(max)}</td><td>${took_s}</td></tr>`,
  );
  const head = ['phase', 'pace', 'acknowledged', 'records/s', 'p50 ms', 'p99 ms', 'max ms', 'seconds'];
  return `<table><tr>${head.map((cell) => `<th>${cell}</th>`).join('')}</tr>${rows.join('')}</table>`;
}

export function reportHtml(report: LoadReport): string {
  const { machine, command, commit, date, scenario, partial_reason: why } = report;
  const partial = why === null ? '' : `<p class="partial">This report is partial: ${escapeText(why)}.</p>`;
  const place =
    `${machine.cores} cores (${machine.cpu}), ${machine.memory_gb} GB, Node ${machine.node}, commit ${commit}, ` +
    `${date} UTC, load average ${machine.load}`;
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>streamhouse load ${escapeText(scenario)}</title><style>${STYLE}</style></head>
<body>
<h1>${escapeText(scenario)}</h1>
${partial}
<p><code>${escapeText(command)}</code><br>${escapeText(place)}</p>
<pre>${escapeText(reportSummary(report))}</pre>
<div class="plots">
${plots(report)
  .map(plotSvg)
  .filter((svg) => svg !== '')
  .join('\n')}
</div>
<h2>Phases</h2>
${phasesTable(report)}
<h2>Metadata calls</h2>
${callsTable(report)}
</body>
</html>
`;
}
