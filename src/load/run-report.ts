/**
 * Puts a run's report together. Owns: which figure comes from where. Does not own: the schema (report-schema), the
 * broker's figures (broker-figures). Pure but for the machine it runs on.
 */
import type { StatementCount } from '../../storage/metadata/database-counter.ts';
import { brokerFigures } from './broker-figures.ts';
import { costOf } from './cost.ts';
import type { EchoTurns } from './echo-turns.ts';
import type { PhaseTotals } from './generator-fleet.ts';
import { Latencies, type LatencyFigures } from './latency.ts';
import type { PlannedPhase } from './load-plan.ts';
import { machineInfo } from './machine.ts';
import type { ReaderResult } from './messages.ts';
import { MetricsChange, type MetricsSnapshot } from './metrics-snapshot.ts';
import type {
  ClusterReport,
  LatencyReport,
  LoadReport,
  PhaseReport,
  SeriesPoint,
  VerifyReport,
} from './report-schema.ts';
import type { RunLoadOptions } from './run-options.ts';
import type { ReadersKind } from './scenarios.ts';
import type { TopicChurn } from './topic-churn.ts';

export interface PhaseOutcome {
  phase: PlannedPhase;
  /** Of the monotonic clock. */
  beganMs: number;
  totals: PhaseTotals;
  readers: ReaderResult | null;
  churn: TopicChurn['counts'] | null;
}

export interface RunParts {
  options: RunLoadOptions;
  partialReason: string | null;
  outcomes: readonly PhaseOutcome[];
  before: MetricsSnapshot;
  after: MetricsSnapshot;
  /** The first phase that `before` to `after` is of: those before it came before a restart. */
  watchedFrom: number;
  /** When that was, of the monotonic clock: the origin of the series. */
  beganMs: number;
  /** Of those phases. */
  tookMs: number;
  /** As the database counted them; null: nobody asked it. */
  counted: StatementCount | null;
  series: SeriesPoint[];
  verify: VerifyReport | null;
  cluster: ClusterReport | null;
  echo: EchoTurns | null;
  broker: Omit<LoadReport['broker'], 'cpu_s'>;
}

const NONE: LatencyReport = { p50: null, p95: null, p99: null, p999: null, max: null };

function latencyReport(figures: LatencyFigures | null): LatencyReport {
  return figures ?? NONE;
}

function rate(count: number, ms: number): number {
  return ms <= 0 ? 0 : Math.round((count * 1000) / ms);
}

export function runReport(parts: RunParts): LoadReport {
  const { options, outcomes } = parts;
  const { plan } = options;
  const measured = outcomes.find(({ phase }) => phase.isMeasured);
  const records = totalRecords(outcomes);
  const { acked } = totalRecords(outcomes.slice(parts.watchedFrom));
  const change = new MetricsChange(parts.before, parts.after);
  const cpuS = change.of('process_cpu_seconds_total');
  const figures = brokerFigures(change, acked, parts.tookMs, {
    own: options.database.ownCount,
    database: parts.counted,
  });
  const { cores, cpu, memoryGb, node, load, commit, date } = machineInfo(options.command);
  const endToEnd = measured?.readers?.endToEnd ?? null;
  const produced = measured?.totals.measured;
  return {
    schema: 'streamhouse-load-1',
    scenario: plan.scenario,
    partial: parts.partialReason !== null,
    partial_reason: parts.partialReason,
    partitions: plan.partitions,
    plan: planReport(options),
    records,
    rate_per_s: produced ? rate(produced.acked, produced.tookMs) : 0,
    requests_per_s: produced ? rate(produced.latencies.count, produced.tookMs) : 0,
    produce_ms: latencyReport(produced?.latencies.figures() ?? null),
    end_to_end_ms: latencyReport(endToEnd === null ? null : Latencies.decode(endToEnd).figures()),
    p99_ratio: p99Ratio(outcomes),
    phases: outcomes.map((outcome) => phaseReport(outcome, parts.beganMs)),
    ...figures,
    verify: parts.verify,
    cluster: parts.cluster,
    broker: { cpu_s: cpuS === null ? null : Number(cpuS.toFixed(2)), ...parts.broker },
    echo: echoReport(parts.echo, produced ? rate(produced.acked, produced.tookMs) : 0),
    cost: costOf(
      {
        acked,
        puts: figures.objects.puts,
        objectBytes: figures.objects.bytes,
        cpuS: cpuS ?? 0,
        writeUnits: figures.database.write_units ?? 0,
        readUnits: figures.database.read_units ?? 0,
      },
      options.prices,
    ),
    distribution: produced ? distribution(produced.latencies) : [],
    series: parts.series,
    machine: { cores, cpu, memory_gb: memoryGb, node, load },
    date,
    commit,
    command: options.command,
  };
}

function planReport({ plan, own, url, cluster }: RunLoadOptions): LoadReport['plan'] {
  return {
    records: plan.records,
    value_bytes: plan.valueBytes,
    per_request: plan.perRequest,
    connections: plan.connections,
    in_flight: plan.inFlight,
    generators: plan.generators,
    seed: plan.seed,
    warm_up_ms: plan.warmUpMs,
    object_per: url === null ? own.objectPer : 'unknown',
    object_delay_ms: url === null && own.objectDelayMs !== null ? [...own.objectDelayMs] : null,
    broker: url === null ? 'own' : new URL(url).origin,
    brokers: cluster?.brokers ?? 1,
  };
}

function totalRecords(outcomes: readonly PhaseOutcome[]): LoadReport['records'] {
  const records = { sent: 0, acked: 0, failed: 0, unknown: 0, failures: {} as Record<string, number> };
  for (const { totals } of outcomes) {
    records.sent += totals.sent;
    records.acked += totals.acked;
    records.failed += totals.failed;
    records.unknown += totals.unknown;
    for (const [code, count] of Object.entries(totals.failures)) {
      records.failures[code] = (records.failures[code] ?? 0) + count;
    }
  }
  return records;
}

function phaseReport(
  { phase, beganMs, totals, readers, churn }: PhaseOutcome,
  originMs: number,
): PhaseReport {
  const { sent, acked, failed, unknown, measured } = totals;
  return {
    name: phase.name,
    pace: paceText(phase),
    after_restart: phase.afterRestart,
    began_s: beganMs < originMs ? null : Math.round((beganMs - originMs) / 100) / 10,
    is_measured: phase.isMeasured,
    records: { sent, acked, failed, unknown },
    took_s: Math.round(totals.tookMs) / 1000,
    rate_per_s: rate(measured.acked, measured.tookMs),
    produce_ms: latencyReport(measured.latencies.figures()),
    late_ms_max: Math.round(totals.lateMsMax * 10) / 10,
    generators_cpu_s: Number(totals.cpuS.toFixed(2)),
    readers: readers === null || phase.readers === null ? null : readersReport(phase.readers.kind, readers),
    churn,
  };
}

function readersReport(kind: ReadersKind, readers: ReaderResult): NonNullable<PhaseReport['readers']> {
  const { records, requests, failed, failures, tookMs } = readers;
  return {
    kind,
    records,
    requests,
    failed,
    failures,
    records_per_s: rate(records, tookMs),
    fetch_ms: latencyReport(Latencies.decode(readers.fetch).figures()),
    end_to_end_ms: latencyReport(
      readers.endToEnd === null ? null : Latencies.decode(readers.endToEnd).figures(),
    ),
  };
}

function paceText({ pace }: PlannedPhase): string {
  switch (pace.kind) {
    case 'closed':
      return 'closed loop';
    case 'rate':
      return `open loop, ${pace.recordsPerS} records/s`;
    case 'bursts':
      return `${pace.count} bursts, one every ${pace.everyMs} ms`;
  }
}

/** Producers beside readers to the same producers alone: the two last phases of a scenario that has both. */
function p99Ratio(outcomes: readonly PhaseOutcome[]): number | null {
  const beside = outcomes.findIndex(({ phase }) => phase.isMeasured && phase.readers?.kind === 'sweep');
  const alone = outcomes[beside - 1];
  if (alone === undefined || alone.phase.pace.kind !== 'rate') return null;
  const p99 = (outcome: PhaseOutcome) => outcome.totals.measured.latencies.quantileMs(0.99);
  return p99(alone) === 0 ? null : Number((p99(outcomes[beside]) / p99(alone)).toFixed(3));
}

function echoReport(echo: EchoTurns | null, ratePerS: number): LoadReport['echo'] {
  const echoed = echo?.ratePerS ?? null;
  if (echo === null || echoed === null) return null;
  return {
    rate_per_s: Math.round(echoed),
    produce_ms: latencyReport(echo.latencies.figures()),
    ratio: Number((ratePerS / echoed).toFixed(3)),
  };
}

/** Ever closer to the end, which is where the interest lies. */
const PARTS = [
  ...Array.from({ length: 20 }, (_, i) => i * 0.05),
  ...[0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999, 1],
];

function distribution(latencies: Latencies): LoadReport['distribution'] {
  return PARTS.map((part) => ({ part: Number(part.toFixed(5)), ms: latencies.quantileMs(part) }));
}
