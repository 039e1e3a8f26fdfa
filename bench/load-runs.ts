/**
 * The runs of `npm run load:all` and the marks that they are held against, as data. Owns: sizes and goals. Does not
 * own: running (load-all) or the scenarios (src/load).
 */
import type { LoadReport } from '../src/load/report-schema.ts';

export interface LoadRunRow {
  name: string;
  scenario: string;
  args: readonly string[];
  /** Instead of `args` at the smoke size. */
  smoke: readonly string[];
  /** After --. */
  serve?: readonly string[];
  /** The same at the smoke size. */
  smokeServe?: readonly string[];
  /** Only on stores that several brokers can share. */
  isShared?: true;
}

const VERIFY = '--verify';
const CLUSTER = 'three brokers, one killed, one added';

export const LOAD_RUNS: readonly LoadRunRow[] = [
  {
    name: 'pathological, 10,000/s',
    scenario: 'pathological',
    args: ['--rate', '10000', '--warm-up', '3s', VERIFY],
    smoke: ['--rate', '300', '--partitions', '20', '--batches', '20', VERIFY],
  },
  {
    name: 'pathological, 16,384 in flight',
    scenario: 'pathological',
    args: ['--in-flight', '16384', '--warm-up', '3s', '--echo', VERIFY],
    smoke: ['--partitions', '20', '--batches', '20', '--in-flight', '64', VERIFY],
  },
  {
    name: 'pathological, 100 records a request',
    scenario: 'pathological',
    args: ['--per-request', '100', '--in-flight', '1024', '--batches', '4000', '--warm-up', '2s', VERIFY],
    smoke: ['--per-request', '10', '--partitions', '20', '--batches', '20', '--in-flight', '64', VERIFY],
  },
  {
    name: 'pathological, slow object store',
    scenario: 'pathological',
    args: [
      '--rate',
      '5000',
      '--batches',
      '300',
      '--object-latency',
      '40ms,250ms,1s',
      '--warm-up',
      '3s',
      VERIFY,
    ],
    smoke: [
      '--rate',
      '300',
      '--partitions',
      '20',
      '--batches',
      '20',
      '--object-latency',
      '4ms,25ms,99ms',
      VERIFY,
    ],
  },
  {
    name: 'pathological, objects shared',
    scenario: 'pathological',
    args: ['--in-flight', '1000', '--batches', '20', VERIFY],
    smoke: ['--in-flight', '64', '--partitions', '20', '--batches', '5', VERIFY],
  },
  {
    name: 'pathological, an object for each partition',
    scenario: 'pathological',
    args: ['--in-flight', '1000', '--batches', '20', '--no-cross-partition', VERIFY],
    smoke: ['--in-flight', '64', '--partitions', '20', '--batches', '5', '--no-cross-partition', VERIFY],
  },
  {
    // As many connections as requests: no answer waits for another one. But a closed loop stands still as soon as all
    // that it may have unanswered waits for the dead broker.
    name: CLUSTER,
    scenario: 'pathological',
    args: [
      ...['--brokers', '3', '--kill-one-after', '30s', '--add-one-after', '75s', '--connections', '384'],
      ...['--in-flight', '384', '--warm-up', '3s', VERIFY],
    ],
    smoke: [
      ...['--brokers', '3', '--kill-one-after', '2s', '--add-one-after', '5s', '--partitions', '60'],
      ...['--rate', '600', '--duration', '10s', VERIFY],
    ],
    smokeServe: ['--heartbeat', '300ms', '--dead-agent', '1s'],
    isShared: true,
  },
  {
    // Open loop, with room for all that waits for the dead broker, so that what others serve goes on.
    name: 'three brokers at 500/s, one killed, one added',
    scenario: 'pathological',
    args: [
      ...['--brokers', '3', '--kill-one-after', '20s', '--add-one-after', '55s', '--connections', '4000'],
      ...['--in-flight', '4000', '--partitions', '100', '--rate', '500', '--duration', '100s', VERIFY],
    ],
    smoke: [
      ...['--brokers', '2', '--kill-one-after', '2s', '--add-one-after', '4s', '--partitions', '20'],
      ...['--rate', '200', '--duration', '8s', VERIFY],
    ],
    smokeServe: ['--heartbeat', '300ms', '--dead-agent', '1s'],
    isShared: true,
  },
  {
    name: 'trickle',
    scenario: 'trickle',
    args: [VERIFY],
    smoke: ['--rate', '200', '--duration', '1s', '--partitions', '20', VERIFY],
  },
  {
    name: 'burst',
    scenario: 'burst',
    args: [VERIFY],
    smoke: ['--partitions', '20', '--batches', '10', '--duration', '1s', VERIFY],
  },
  { name: 'hot', scenario: 'hot', args: [VERIFY], smoke: ['--batches', '300', '--in-flight', '64', VERIFY] },
  {
    name: 'tail',
    scenario: 'tail',
    args: [VERIFY],
    smoke: ['--partitions', '5', '--rate', '100', '--duration', '1s', VERIFY],
  },
  {
    name: 'backfill',
    scenario: 'backfill',
    args: [VERIFY],
    smoke: ['--partitions', '5', '--batches', '5', '--rate', '100', '--duration', '1s', VERIFY],
  },
  {
    name: '1,000 partitions active',
    scenario: 'wide',
    args: ['--partitions', '1000', '--per-request', '100', '--in-flight', '64', '--batches', '300', VERIFY],
    smoke: ['--partitions', '100', '--per-request', '10', '--in-flight', '64', '--batches', '5', VERIFY],
  },
  {
    name: '10,000 partitions active, a million segments',
    scenario: 'segments',
    args: ['--batches', '130', '--in-flight', '100', VERIFY],
    smoke: ['--partitions', '200', '--batches', '3', VERIFY],
  },
  {
    name: '100,000 partitions active, a million segments, restart',
    scenario: 'wide',
    args: ['--batches', '10', '--per-request', '100', '--in-flight', '1000', '--restart', VERIFY],
    smoke: ['--partitions', '1000', '--batches', '2', '--per-request', '100', '--restart', VERIFY],
  },
  {
    name: '100,000 partitions, each written once',
    scenario: 'wide',
    args: ['--batches', '1', '--per-request', '100', '--in-flight', '256', VERIFY],
    smoke: ['--partitions', '1000', '--batches', '1', '--per-request', '100', VERIFY],
    serve: ['--index-bytes', '64MiB'],
  },
  {
    name: 'wide, one record a request',
    scenario: 'wide',
    args: [VERIFY],
    smoke: ['--partitions', '300', '--batches', '1', VERIFY],
  },
  {
    name: 'mixed',
    scenario: 'mixed',
    args: [VERIFY],
    smoke: ['--partitions', '20', '--rate', '200', '--duration', '1s', VERIFY],
  },
  {
    name: 'cold start',
    scenario: 'cold',
    args: [VERIFY],
    smoke: ['--partitions', '20', '--batches', '20', '--rate', '200', '--duration', '1s', VERIFY],
  },
  {
    // Two full pages of 256 segments for each partition, of which the index holds one in fifty.
    name: 'a million segments, paged in',
    scenario: 'cold',
    args: [
      ...['--partitions', '2000', '--batches', '550', '--per-request', '100', '--in-flight', '20'],
      ...['--connections', '20', '--rate', '2000', '--duration', '30s', VERIFY],
    ],
    smoke: ['--partitions', '200', '--batches', '5', '--rate', '200', '--duration', '1s', VERIFY],
    serve: ['--index-bytes', '1MiB'],
  },
  {
    name: 'churn',
    scenario: 'churn',
    args: [VERIFY],
    smoke: ['--partitions', '20', '--rate', '200', '--duration', '1s', VERIFY],
  },
];

/** What the runs gave for a mark. `isMet` null: as far as it was measured, which is not all of it. */
export interface Measured {
  text: string;
  isMet: boolean | null;
}

/** A mark: what is asked, and what the runs gave for it; null where a run is missing. */
export interface Mark {
  what: string;
  goal: string;
  measured(of: (run: string) => LoadReport | null): Measured | null;
}

function ms(value: number): string {
  return `${Number(value.toPrecision(3))} ms`;
}

/** A mark of one run and one number of it. */
function mark(
  what: string,
  goal: string,
  run: string,
  value: (report: LoadReport) => number | null,
  isMet: (value: number, report: LoadReport) => boolean | null,
  text: (value: number, report: LoadReport) => string,
): Mark {
  return {
    what,
    goal,
    measured: (of) => {
      const report = of(run);
      const found = report === null ? null : value(report);
      if (report === null || found === null) return null;
      return { text: text(found, report), isMet: isMet(found, report) };
    },
  };
}

const AT_RATE = 'pathological, 10,000/s';
const IN_FLIGHT = 'pathological, 16,384 in flight';
const MILLION = '100,000 partitions active, a million segments, restart';
const COLD = 'cold start';
const PAGED = 'a million segments, paged in';
const ONCE = '100,000 partitions, each written once';

/** Of a new cluster on the store that the run names, as src/settings derives it. */
function shardsOf({ command }: LoadReport): number {
  return /--metadata (sqlite|dynamodb):/.test(command) ? 8 : 64;
}

function isDynamodb({ command }: LoadReport): boolean {
  return command.includes('--metadata dynamodb:');
}

/** Latencies of dynalite say nothing of DynamoDB's: such a mark is neither met nor missed there. */
function unlessDynalite(isMet: boolean, report: LoadReport): boolean | null {
  return isDynamodb(report) ? null : isMet;
}

/** Of `serve`, by default, and what a takeover may take on top. */
const TAKEN_OVER_MS_MAX = 15_000 + 2000;

/** Of the partitions of the broker that was killed. */
function stopOfKilled({ cluster }: LoadReport) {
  return (
    cluster?.stops.find(({ of, event }) => event.endsWith(' killed') && of.startsWith('led by ')) ?? null
  );
}

function flushMark(what: string, run: string): Mark {
  return mark(
    what,
    'one statement, rows <= 2 x shards + objects',
    run,
    ({ flush }) => flush.rows,
    (rows, report) => {
      const { flush, objects } = report;
      // The mean in the report is rounded.
      if (rows > 2 * shardsOf(report) + objects.uploaded / flush.count + 0.001) return false;
      return flush.statements === null ? null : flush.statements <= 1.01;
    },
    (rows, { flush }) =>
      `${flush.statements === null ? 'statements not counted' : `${flush.statements.toFixed(2)} statements`}, ` +
      `${rows.toFixed(1)} rows, ${Math.round(flush.bytes ?? 0)} bytes`,
  );
}

/** Of look-ups that would have gone to the store without the cache. */
function hitMark(what: string, run: string, cache: 'topics' | 'leases' | 'pages'): Mark {
  return {
    what,
    goal: '> 99 %',
    measured: (of) => {
      const report = of(run);
      if (report === null) return null;
      const { hit_rate: rate, hits, misses } = report.cache[cache];
      if (rate === null) return { text: 'no look-ups', isMet: null };
      const text = `${(rate * 100).toFixed(3)} % of ${(hits ?? 0) + (misses ?? 0)} look-ups, ${misses} misses`;
      return { text, isMet: rate > 0.99 };
    },
  };
}

export const MARKS: readonly Mark[] = [
  mark(
    'pathological, 1M records of 10 bytes: acknowledged and read back',
    'all',
    IN_FLIGHT,
    ({ verify }) => verify?.read ?? null,
    (read, { records, verify, plan }) =>
      read === plan.records && records.acked === read && verify?.missing === 0 && verify.reordered === 0,
    (read, { records }) => `${records.acked} acknowledged, ${read} read back`,
  ),
  mark(
    'the same over three brokers, one killed and one added: acknowledged and read back once',
    'all; unknown ones at most once',
    CLUSTER,
    ({ verify }) => verify?.read ?? null,
    (_, { records, verify, plan }) =>
      verify !== null &&
      records.acked + records.unknown === plan.records &&
      verify.missing + verify.duplicated + verify.reordered + verify.altered + verify.gaps === 0 &&
      verify.refused_read === 0,
    (read, { records, verify }) =>
      `${records.acked} acknowledged, ${records.unknown} unknown, ${read} read back: ${verify?.missing} missing, ` +
      `${verify?.duplicated} doubled, ${verify?.unknown_read} of the unknown ones`,
  ),
  mark(
    'partitions of a broker that was killed are acknowledged again after',
    '< 17 s: the dead-agent time and 2 s',
    CLUSTER,
    (report) => stopOfKilled(report)?.again_ms ?? null,
    (time, report) => time < TAKEN_OVER_MS_MAX && stopOfKilled(report)?.not_again === 0,
    (time, report) => `${ms(time)}, ${stopOfKilled(report)?.partitions} partitions`,
  ),
  mark(
    'its produce p99, at 10,000 records/s',
    '< 200 ms',
    AT_RATE,
    ({ produce_ms }) => produce_ms.p99,
    (p99) => p99 < 200,
    ms,
  ),
  mark(
    'its rate, one record a request, 16,384 in flight',
    '20,000/s and >= 0.5 of a bare echo',
    IN_FLIGHT,
    ({ rate_per_s }) => rate_per_s,
    (rate, { echo }) => rate >= 20_000 && (echo?.ratio ?? 0) >= 0.5,
    (rate, { echo }) => `${rate}/s, ${echo?.ratio} of the echo's ${echo?.rate_per_s}/s`,
  ),
  mark(
    'its rate, 100 records a request, 1,024 in flight',
    '300,000/s',
    'pathological, 100 records a request',
    ({ rate_per_s }) => rate_per_s,
    (rate) => rate >= 300_000,
    (rate) => `${rate}/s`,
  ),
  mark(
    'produce p99 with the object store at p50 40 ms, p99 250 ms, some 1 s',
    '< 400 ms',
    'pathological, slow object store',
    ({ produce_ms }) => produce_ms.p99,
    (p99) => p99 < 400,
    ms,
  ),
  mark(
    'metadata latency p99 / cached p50',
    '< 5 ms / < 0.05 ms',
    AT_RATE,
    ({ metadata_ms }) => metadata_ms.p99,
    (p99, report) => unlessDynalite(p99 < 5 && (report.cached_ms.p50 ?? 1) < 0.05, report),
    (p99, { cached_ms }) => `${ms(p99)} / ${ms(cached_ms.p50 ?? Number.NaN)}`,
  ),
  hitMark('cache hit rate of topics, warm', AT_RATE, 'topics'),
  mark(
    'cache hit rate of topics, topics churning',
    '> 99 %',
    'churn',
    ({ cache }) => cache.topics.hit_rate,
    (rate) => rate > 0.99,
    (rate, { phases }) =>
      `${(rate * 100).toFixed(3)} %, ${phases[0].churn?.topics_created} topics came and went`,
  ),
  hitMark('cache hit rate of topics, cold start', COLD, 'topics'),
  hitMark('cache hit rate of index pages, warm, reads over all partitions', 'mixed', 'pages'),
  hitMark('cache hit rate of index pages, cold start', COLD, 'pages'),
  hitMark('cache hit rate of leases, warm', AT_RATE, 'leases'),
  hitMark('cache hit rate of leases, cold start', COLD, 'leases'),
  hitMark('cache hit rate of leases, topics churning', 'churn', 'leases'),
  {
    what: 'PUTs against one per partition and window, both measured',
    goal: '-99 %',
    measured: (of) => {
      const [shared, apart] = [
        of('pathological, objects shared'),
        of('pathological, an object for each partition'),
      ];
      if (shared === null || apart === null) return null;
      const saved = 1 - shared.objects.puts / apart.objects.puts;
      return {
        text: `-${(saved * 100).toFixed(2)} % (${shared.objects.puts} against ${apart.objects.puts})`,
        isMet: saved >= 0.99,
      };
    },
  },
  flushMark('metadata per flush, 1,000 active partitions', '1,000 partitions active'),
  flushMark('metadata per flush, 10,000 active partitions', '10,000 partitions active, a million segments'),
  flushMark('metadata per flush, 100,000 active partitions', MILLION),
  mark(
    'segments written through the commit path',
    '1,000,000',
    '10,000 partitions active, a million segments',
    ({ objects }) => objects.slices,
    (slices) => slices >= 1_000_000,
    (slices, { objects }) => `${slices} in ${objects.uploaded} objects`,
  ),
  mark(
    'index look-up p99 while 10,000 partitions are read and written',
    '< 0.05 ms in memory',
    'mixed',
    ({ index_us }) => index_us.p99,
    (us) => us < 50,
    (us) => `${us} us`,
  ),
  mark(
    'index look-up p99 with pages read from the metadata store, 1M segments',
    '< 5 ms paged in',
    PAGED,
    ({ index_paged_ms }) => index_paged_ms.p99,
    (p99, report) => unlessDynalite(p99 < 5, report),
    (p99, { index_paged_ms: { count, p50 }, cache: { pages } }) =>
      `${ms(p99)}, p50 ${ms(p50 ?? Number.NaN)}, of ${count} look-ups (${((1 - (pages.hit_rate ?? 0)) * 100).toFixed(0)} % of all)`,
  ),
  mark(
    'a topic of 10,000 partitions is created',
    '< 50 ms',
    '10,000 partitions active, a million segments',
    ({ broker }) => broker.create_topic_ms,
    (time) => time < 50,
    ms,
  ),
  mark(
    'a topic of 100,000 partitions is created',
    '< 50 ms',
    ONCE,
    ({ broker }) => broker.create_topic_ms,
    (time) => time < 50,
    ms,
  ),
  mark(
    'one pass over 100,000 partitions',
    '< 3 s',
    ONCE,
    ({ phases }) => phases[0].took_s,
    (seconds) => seconds < 3,
    (seconds) => `${seconds.toFixed(2)} s`,
  ),
  mark(
    'ready after a start with 100,000 partitions and a million segments',
    '< 3 s',
    MILLION,
    ({ broker }) => broker.restart_ms,
    (time) => time < 3000,
    (time, { objects }) => `${ms(time)} (${objects.slices} segments)`,
  ),
  mark(
    'broker RSS, 100,000 partitions written once each, index budget 64 MB',
    '< 500 MB',
    ONCE,
    ({ broker }) => broker.rss_max_mb,
    (mb) => mb < 500,
    (mb) => `${mb} MB`,
  ),
  mark(
    "producers' p99 beside lagging readers, to the same alone",
    '<= 1.5',
    'backfill',
    ({ p99_ratio }) => p99_ratio,
    (ratio) => ratio <= 1.5,
    (ratio, { phases }) => `${ratio} (${ms(phases[1].produce_ms.p99 ?? 0)} alone)`,
  ),
];
