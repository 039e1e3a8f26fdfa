/**
 * A broker's part of the report, out of what its /metrics rose by. Owns: which metrics say what. Does not own: the
 * reading of them (metrics-snapshot). Pure.
 *
 * How exact they are: latencies of metadata calls and index look-ups are interpolated within the buckets of the
 * broker's histograms (index and cached look-ups from 0.05 us in steps of 2 to 2.5 times, metadata calls from 50 us).
 * Cached look-ups are timed one in 64, in the broker, with the cost of reading the clock in them.
 */
import type { StatementCount } from '../../storage/metadata/database-counter.ts';
import type { BucketHistogram, MetricsChange } from './metrics-snapshot.ts';
import type { LoadReport } from './report-schema.ts';

const MB = 1024 * 1024;

const OWN_STATEMENTS = 'streamhouse_metadata_store_statements_total';

/** Times `perSecond`; three digits are as much as a bucket gives. */
function quantiles(
  histogram: BucketHistogram,
  perSecond: number,
): { p50: number | null; p99: number | null } {
  const of = (part: number) => {
    const seconds = histogram.quantile(part);
    return seconds === null ? null : Number((seconds * perSecond).toPrecision(3));
  };
  return { p50: of(0.5), p99: of(0.99) };
}

/**
 * The labels of each cache's two counters. A produce request looks a topic up, or a partition of one: both are look-ups
 * in the catalogue.
 */
const CACHES = {
  topics: ['metadata_cache', ['kind="topic"', 'kind="partition"']],
  leases: ['metadata_cache', ['kind="lease"']],
  pages: ['metadata_cache', ['kind="page"']],
  tail: ['cache', ['cache="tail"']],
  blocks: ['cache', ['cache="blocks"']],
} as const;

function cache(change: MetricsChange, name: keyof typeof CACHES) {
  const [family, labels] = CACHES[name];
  const sum = (event: string) => {
    const counts = labels.map((label) => change.of(`streamhouse_${family}_${event}_total`, label));
    const known = counts.filter((count) => count !== null);
    return known.length === 0 ? null : known.reduce((a, b) => a + b, 0);
  };
  const [hits, misses] = [sum('hits'), sum('misses')];
  return { hit_rate: hitRate(hits, misses), hits, misses };
}

export function hitRate(hits: number | null, misses: number | null): number | null {
  const sum = (hits ?? 0) + (misses ?? 0);
  return sum === 0 ? null : (hits ?? 0) / sum;
}

function per(sum: number | null, count: number): number | null {
  return sum === null || count === 0 ? null : Number((sum / count).toPrecision(6));
}

const METADATA_CALLS = /^streamhouse_metadata_\w+_seconds_bucket$/;

function metadataCalls(change: MetricsChange): LoadReport['metadata_calls'] {
  const calls: LoadReport['metadata_calls'] = {};
  for (const bucket of change.after.names(METADATA_CALLS)) {
    const histogram = change.histogram([bucket.replace(/_bucket$/, '')]);
    if (histogram.count === 0) continue;
    const { p50, p99 } = quantiles(histogram, 1000);
    const kind = bucket.replace(/^streamhouse_metadata_|_seconds_bucket$/g, '');
    calls[kind] = { count: histogram.count, p50_ms: p50, p99_ms: p99 };
  }
  return calls;
}

type BrokerFigures = Pick<
  LoadReport,
  | 'metadata_ms'
  | 'metadata_calls'
  | 'cached_ms'
  | 'uncached_ms'
  | 'cache'
  | 'index_us'
  | 'index_paged_ms'
  | 'objects'
  | 'flush'
  | 'beside'
  | 'database'
>;

/** Who counted statements. */
export interface StatementCounts {
  /** What the broker's own count is. */
  own: Omit<StatementCount, 'statements'>;
  /** What the database itself counted; null: it was not asked. */
  database: StatementCount | null;
}

/** `acked` records in `tookMs`. */
export function brokerFigures(
  change: MetricsChange,
  acked: number,
  tookMs: number,
  counts: StatementCounts,
): BrokerFigures {
  const metadata = change.after.names(METADATA_CALLS).map((name) => name.replace(/_bucket$/, ''));
  const seconds = (name: string, perSecond: number) =>
    quantiles(change.histogram([`streamhouse_${name}_seconds`]), perSecond);
  return {
    metadata_ms: quantiles(change.histogram(metadata), 1000),
    metadata_calls: metadataCalls(change),
    cached_ms: seconds('topic_cache_hit', 1000),
    uncached_ms: seconds('metadata_catalogue', 1000),
    cache: {
      topics: cache(change, 'topics'),
      leases: cache(change, 'leases'),
      pages: cache(change, 'pages'),
      tail: cache(change, 'tail'),
      blocks: cache(change, 'blocks'),
    },
    index_us: seconds('index_lookup', 1e6),
    index_paged_ms: {
      ...seconds('index_paged_lookup', 1000),
      count: change.histogram(['streamhouse_index_paged_lookup_seconds']).count,
    },
    objects: objects(change, acked),
    flush: flush(change, counts.own.unit),
    beside: {
      pages: change.count('streamhouse_index_paged_out_total'),
      checkpoints: change.count('streamhouse_checkpoints_total'),
      checkpoint_bytes: change.count('streamhouse_checkpoint_bytes_total'),
      takeovers: change.count('streamhouse_takeovers_total'),
      shards_lost: change.count('streamhouse_shards_lost_total'),
      metadata_errors: change.count('streamhouse_metadata_errors_total'),
    },
    database: database(change, counts, tookMs),
  };
}

/** A slow upload that was sent a second time and a call that was made again are requests too: the store counts them. */
function objects(change: MetricsChange, acked: number): LoadReport['objects'] {
  const uploaded = change.count('streamhouse_objects_put_total');
  const retries = change.count('streamhouse_object_retries_total');
  const hedges = change.count('streamhouse_upload_hedges_total');
  const puts = uploaded + hedges + retries;
  const slices = change.count('streamhouse_slices_total');
  return {
    uploaded,
    puts,
    puts_per_million_records: per(puts * 1e6, acked),
    bytes: change.count('streamhouse_object_bytes_total'),
    slices,
    slices_per_object: per(slices, uploaded),
    puts_per_slice: per(puts, slices),
    failed: change.count('streamhouse_objects_failed_total'),
    retries,
    hedges,
    upload_ms: quantiles(change.histogram(['streamhouse_upload_seconds']), 1000),
  };
}

/**
 * A flush is a call that appends entries. Its rows: an entry and a head for each shard, and the objects. Its
 * statements: those that the broker counted less one for every call of another kind, for pages, checkpoints and
 * heartbeats are counted beside. Null where it counts none, and for requests: of those any call may take many. Not
 * those of the database, which others may use.
 */
function flush(change: MetricsChange, unit: StatementCount['unit']): LoadReport['flush'] {
  const statements = unit === 'requests' ? null : change.of(OWN_STATEMENTS);
  const count = change.count('streamhouse_append_calls_total');
  const entries = change.count('streamhouse_entries_committed_total');
  const puts = change.count('streamhouse_objects_put_total');
  let others = 0;
  for (const [kind, calls] of Object.entries(metadataCalls(change))) {
    if (kind !== 'append_entries') others += calls.count;
  }
  return {
    count,
    statements: statements === null ? null : per(Math.max(0, statements - others), count),
    rows: per(2 * entries + puts, count),
    bytes: per(change.count('streamhouse_entry_bytes_total'), count),
  };
}

function database(
  change: MetricsChange,
  { own, database: counted }: StatementCounts,
  tookMs: number,
): LoadReport['database'] {
  const byBroker = change.of(OWN_STATEMENTS);
  const of = counted?.statements == null ? { ...own, statements: byBroker } : counted;
  const failed = counted !== null && counted.statements === null ? ` (${counted.source})` : '';
  return {
    statements: of.statements,
    statements_per_s: of.statements === null ? null : per(of.statements * 1000, tookMs),
    unit: of.unit,
    source: of.statements === null ? `nobody counted${failed}` : `${of.source}${failed}`,
    by_broker: byBroker,
    read_units: change.of('streamhouse_metadata_store_read_units_total'),
    write_units: change.of('streamhouse_metadata_store_write_units_total'),
  };
}

/** The gauges of one moment, for the series. */
export function gauges(change: MetricsChange, seconds: number) {
  const { after } = change;
  const puts = change.of('streamhouse_objects_put_total');
  const bytes = (name: string) => {
    const value = after.value(name);
    return value === null ? null : Math.round((value / MB) * 10) / 10;
  };
  return {
    puts_per_s: puts === null ? null : Number((puts / seconds).toPrecision(4)),
    appends_outstanding: after.value('streamhouse_appends_outstanding'),
    uploads_in_flight: after.value('streamhouse_uploads_in_flight'),
    objects_in_flight: after.value('streamhouse_objects_in_flight'),
    open_batch_slices: after.value('streamhouse_open_batch_slices'),
    in_flight_mb: bytes('streamhouse_in_flight_bytes'),
    rss_mb: bytes('process_resident_memory_bytes'),
    heap_mb: bytes('nodejs_heap_size_used_bytes'),
    topics_hit_rate: cache(change, 'topics').hit_rate,
    pages_hit_rate: cache(change, 'pages').hit_rate,
  };
}
