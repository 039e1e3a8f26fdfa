/**
 * A report in a few lines, for a terminal and for the page. Owns: choice and wording. Does not own: the figures. Pure.
 */
import type { LoadReport } from './report-schema.ts';

function count(value: number | null): string {
  return value === null ? '-' : Number(value.toFixed(2)).toLocaleString('en-US');
}

function ms(value: number | null): string {
  return value === null ? '-' : `${Number(value.toPrecision(3))} ms`;
}

function percent(value: number | null): string {
  return value === null ? '-' : `${(value * 100).toFixed(2)} %`;
}

/** Title and text of every line. */
export function summaryLines(report: LoadReport): [string, string][] {
  const { records, produce_ms: produce, objects, flush, broker, cache, database, verify } = report;
  const rows: [string, string][] = [
    [
      'records',
      `${count(records.acked)} acknowledged of ${count(records.sent)} sent, ${count(records.failed)} failed`,
    ],
    ['rate', `${count(report.rate_per_s)} records/s in ${count(report.requests_per_s)} requests/s`],
    [
      'produce',
      `p50 ${ms(produce.p50)}, p95 ${ms(produce.p95)}, p99 ${ms(produce.p99)}, p99.9 ${ms(produce.p999)}, max ${ms(produce.max)}`,
    ],
  ];
  if (report.end_to_end_ms.p50 !== null) {
    rows.push(['end to end', `p50 ${ms(report.end_to_end_ms.p50)}, p99 ${ms(report.end_to_end_ms.p99)}`]);
  }
  if (report.p99_ratio !== null)
    rows.push(['beside readers', `p99 ${report.p99_ratio} times that without them`]);
  if (report.echo !== null) {
    rows.push([
      'echo',
      `${count(report.echo.rate_per_s)} records/s; the broker has ${report.echo.ratio} of it`,
    ]);
  }
  if (report.phases.some(({ after_restart }) => after_restart))
    rows.push(['since the restart', 'all of the following']);
  rows.push(
    [
      'metadata',
      `p50 ${ms(report.metadata_ms.p50)}, p99 ${ms(report.metadata_ms.p99)}; cached p50 ${ms(report.cached_ms.p50)}`,
    ],
    [
      'cache hits',
      `topics ${percent(cache.topics.hit_rate)}, leases ${percent(cache.leases.hit_rate)}, pages ${percent(cache.pages.hit_rate)}`,
    ],
    [
      'objects',
      `${count(objects.puts)} PUTs, ${count(objects.puts_per_million_records)} per million records, ${count(objects.slices_per_object)} slices each`,
    ],
    [
      'flushes',
      `${count(flush.count)}: ${count(flush.statements)} statements, ${count(flush.rows)} rows, ${count(flush.bytes)} bytes each`,
    ],
    [
      'database',
      `${count(database.statements)} ${database.unit}, ${count(database.statements_per_s)}/s (counted by ${database.source})`,
    ],
    [
      'broker',
      `${count(broker.cpu_s)} s of CPU, ${count(broker.rss_max_mb)} MB at most, ready in ${ms(broker.start_ms)}`,
    ],
    ['topic', `created in ${ms(broker.create_topic_ms)}`],
  );
  if (broker.restart_ms !== null) rows.push(['restart', `ready in ${ms(broker.restart_ms)}`]);
  if (verify !== null) {
    rows.push([
      'read back',
      `${count(verify.read)}: ${verify.missing} missing, ${verify.duplicated} duplicated, ${verify.reordered} reordered, ${verify.altered} altered`,
    ]);
  }
  if (report.index_paged_ms.count > 0) {
    const { count: found, p50, p99 } = report.index_paged_ms;
    rows.push(['paged in', `${count(found)} index look-ups: p50 ${ms(p50)}, p99 ${ms(p99)}`]);
  }
  rows.push(...clusterLines(report));
  rows.push(['cost', `${report.cost.per_million_records} USD per million records (estimate at list prices)`]);
  for (const [code, failed] of Object.entries(records.failures))
    rows.push(['failed', `${count(failed)} with ${code}`]);
  return rows;
}

function clusterLines({ cluster, records, verify }: LoadReport): [string, string][] {
  if (cluster === null) return [];
  const again = Object.entries(cluster.retried).map(([code, times]) => `${count(times)} for ${code}`);
  return [
    ['brokers', cluster.events.map(({ t_s, what }) => `${t_s} s: ${what}`).join('; ') || 'nothing happened'],
    ...cluster.spans.map(
      ({ name, from_s, to_s, rate_per_s, produce_ms: { p50, p99, max } }): [string, string] => [
        name,
        `${from_s} to ${to_s} s: ${count(rate_per_s)} records/s, p50 ${ms(p50)}, p99 ${ms(p99)}, max ${ms(max)}`,
      ],
    ),
    ...cluster.stops.map(({ event, of, partitions, stopped_ms, longest_ms, not_again }): [string, string] => [
      'acks stopped',
      `${event}: ${partitions} partitions (${of}) p50 ${ms(stopped_ms.p50)}, max ${ms(stopped_ms.max)}; ` +
        `longest since ${ms(longest_ms.max)}${not_again === 0 ? '' : `; ${not_again} without any more`}`,
    ]),
    ['forwarded', percent(cluster.forwarded_share)],
    ['sent again', again.join(', ') || 'nothing'],
    [
      'unknown',
      `${count(records.unknown)} records that may be there or not${verify === null ? '' : `; ${count(verify.unknown_read)} are`}`,
    ],
  ];
}

export function reportSummary(report: LoadReport): string {
  const head = `${report.scenario}, ${count(report.partitions)} partitions${report.partial ? ' (partial)' : ''}`;
  const rows = summaryLines(report).map(([title, text]) => `  ${title.padEnd(18)}${text}`);
  return `${[head, ...rows].join('\n')}\n`;
}
