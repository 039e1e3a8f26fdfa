/**
 * /metrics: the shared counters of all threads and of the metadata store, the main thread's own, and the HTTP door's,
 * as Prometheus text.
 * Owns: metric names and units (seconds and bytes, as Prometheus wants them). Does not own: counting (whoever does
 * the work counts). Main thread.
 */
import { type Aggregator, collectDefaultMetrics, type MetricType, Registry } from 'prom-client';
import type { StoreCounters } from '../../storage/metadata/store-counters.ts';
import { METADATA_CACHE_COUNTERS } from '../../workers/counted-cache.ts';
import {
  COUNTERS,
  type CounterName,
  CountersReader,
  GAUGES,
  type GaugeName,
  HISTOGRAM_BOUNDS,
  HISTOGRAMS,
  type HistogramName,
} from '../../workers/shared-counters.ts';
import type { HttpObserver } from '../server/http/http-observer.ts';

/** A value of the main thread that is read when it is asked for. */
export interface MainGauge {
  name: string;
  help: string;
  read(): number;
}

interface Sample {
  metricName?: string;
  labels: Record<string, string | number>;
  value: number;
}

/** What prom-client asks of a metric: it is read when /metrics is. */
class ReadMetric {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  readonly aggregator: Aggregator = 'sum';
  readonly #read: () => Sample[];

  constructor(name: string, help: string, type: 'counter' | 'gauge' | 'histogram', read: () => Sample[]) {
    this.name = `streamhouse_${name}`;
    this.help = help;
    this.type = type as unknown as MetricType;
    this.#read = read;
  }

  async get() {
    const { name, help, type, aggregator } = this;
    return { name, help, type, aggregator, values: this.#read() };
  }

  reset(): void {
    throw new Error('a metric that is read cannot be reset');
  }
}

/** 'objectsPutTotal' -> 'objects_put_total'. */
function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Counters that are shown as one metric with a label, and by no name of their own. */
interface Family {
  name: string;
  help: string;
  label: string;
  of: Readonly<Record<string, CounterName>>;
}

const CACHES = METADATA_CACHE_COUNTERS;

const FAMILIES: readonly Family[] = [
  {
    name: 'cache_hits_total',
    help: 'Reads of records that a cache answered',
    label: 'cache',
    of: { tail: 'tailCacheHitsTotal', blocks: 'blockCacheHitsTotal' },
  },
  {
    name: 'cache_misses_total',
    help: 'Reads of records that went past a cache',
    label: 'cache',
    of: { tail: 'tailCacheMissesTotal', blocks: 'blockCacheMissesTotal' },
  },
  {
    name: 'metadata_cache_hits_total',
    help: 'Look-ups of metadata answered from memory',
    label: 'kind',
    of: CACHES.hits,
  },
  {
    name: 'metadata_cache_misses_total',
    help: 'Look-ups of metadata that waited for the store',
    label: 'kind',
    of: CACHES.misses,
  },
  {
    name: 'metadata_cache_evictions_total',
    help: 'Entries dropped because a cache of metadata was full',
    label: 'kind',
    of: CACHES.evictions,
  },
  {
    name: 'metadata_cache_stale_fills_total',
    help: 'Answers of the store that something newer overtook, and that were not kept',
    label: 'kind',
    of: CACHES.staleFills,
  },
  {
    name: 'metadata_cache_drops_total',
    help: 'Entries dropped since a request that relied on them was refused',
    label: 'kind',
    of: CACHES.drops,
  },
];

interface RouteCount {
  route: string;
  method: string;
  status: number;
  count: number;
  seconds: number;
  bytesIn: number;
  bytesOut: number;
  buckets: Float64Array;
}

/** Counts what the HTTP door tells, by route, method and status; cheap, for it is called for every request. */
class HttpCounts implements HttpObserver {
  /** By route, then by status and method. */
  readonly counts = new Map<string, Map<string, Map<number, RouteCount>>>();
  connectionsRefused = 0;
  clientFaults = 0;
  internalErrors = 0;
  readonly #onInternalError: (error: unknown, route: string) => void;

  constructor(onInternalError: (error: unknown, route: string) => void) {
    this.#onInternalError = onInternalError;
  }

  requestDone(
    route: string,
    method: string,
    status: number,
    durationMs: number,
    bytesIn: number,
    bytesOut: number,
  ): void {
    const found = this.counts.get(route)?.get(method)?.get(status) ?? this.#begin(route, method, status);
    found.count++;
    found.seconds += durationMs / 1000;
    found.bytesIn += bytesIn;
    found.bytesOut += bytesOut;
    let bucket = 0;
    while (bucket < HISTOGRAM_BOUNDS.length && durationMs > HISTOGRAM_BOUNDS[bucket]) bucket++;
    found.buckets[bucket]++;
  }

  #begin(route: string, method: string, status: number): RouteCount {
    let methods = this.counts.get(route);
    if (!methods) this.counts.set(route, (methods = new Map()));
    let statuses = methods.get(method);
    if (!statuses) methods.set(method, (statuses = new Map()));
    const buckets = new Float64Array(HISTOGRAM_BOUNDS.length + 1);
    const begun = { route, method, status, count: 0, seconds: 0, bytesIn: 0, bytesOut: 0, buckets };
    statuses.set(status, begun);
    return begun;
  }

  *all(): Generator<RouteCount> {
    for (const methods of this.counts.values()) {
      for (const statuses of methods.values()) yield* statuses.values();
    }
  }

  connectionRefused(): void {
    this.connectionsRefused++;
  }

  clientFault(): void {
    this.clientFaults++;
  }

  internalError(error: unknown, route: string): void {
    this.internalErrors++;
    this.#onInternalError(error, route);
  }
}

export class Metrics {
  readonly #registry = new Registry();
  readonly #reader: CountersReader;
  readonly #http: HttpCounts;

  constructor(
    counters: SharedArrayBuffer,
    storeCounters: StoreCounters,
    mainGauges: readonly MainGauge[],
    onInternalError: (error: unknown, route: string) => void,
  ) {
    this.#reader = new CountersReader(counters);
    this.#http = new HttpCounts(onInternalError);
    collectDefaultMetrics({ register: this.#registry });
    this.#addShared();
    this.#addStore(storeCounters);
    for (const { name, help, read } of mainGauges) {
      this.#add(new ReadMetric(name, help, 'gauge', () => [{ labels: {}, value: read() }]));
    }
    this.#addHttp();
  }

  /** For the HTTP door. */
  get httpObserver(): HttpObserver {
    return this.#http;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  #add(metric: ReadMetric): void {
    // prom-client asks of a metric what ReadMetric has; its type names its own classes only.
    this.#registry.registerMetric(metric as never);
  }

  #addShared(): void {
    const reader = this.#reader;
    const inFamilies = new Set<string>(FAMILIES.flatMap((family) => Object.values(family.of)));
    for (const [name, help] of Object.entries(COUNTERS)) {
      if (inFamilies.has(name)) continue;
      const read = () => [{ labels: {}, value: reader.counter(name as CounterName) }];
      this.#add(new ReadMetric(snake(name), help, 'counter', read));
    }
    for (const [name, help] of Object.entries(GAUGES)) {
      const read = () => [{ labels: {}, value: reader.gauge(name as GaugeName) }];
      this.#add(new ReadMetric(snake(name), help, 'gauge', read));
    }
    for (const [name, help] of Object.entries(HISTOGRAMS)) {
      const [plain, perSecond] = name.endsWith('Us') ? [name.slice(0, -2), 1e6] : [name.slice(0, -2), 1e3];
      const seconds = `${snake(plain)}_seconds`;
      const read = () => {
        const { buckets, sum } = reader.histogram(name as HistogramName);
        return histogramSamples(`streamhouse_${seconds}`, {}, buckets, sum / perSecond, perSecond);
      };
      this.#add(new ReadMetric(seconds, help.replace(/, (ms|microseconds)$/, ''), 'histogram', read));
    }
    for (const { name, help, label, of } of FAMILIES) {
      const read = () =>
        Object.entries(of).map(([value, counter]) => ({
          labels: { [label]: value },
          value: reader.counter(counter),
        }));
      this.#add(new ReadMetric(name, help, 'counter', read));
    }
  }

  #addStore(counters: StoreCounters): void {
    for (const { name, help } of counters.list()) {
      const read = () => [{ labels: {}, value: counters.read(name) }];
      this.#add(new ReadMetric(`metadata_store_${snake(name)}_total`, help, 'counter', read));
    }
  }

  #addHttp(): void {
    const http = this.#http;
    const labels = ({ route, method, status }: RouteCount) => ({ route, method, status });
    const each = (value: (count: RouteCount) => number) => () =>
      [...http.all()].map((count) => ({ labels: labels(count), value: value(count) }));
    this.#add(
      new ReadMetric(
        'http_requests_total',
        'Requests answered',
        'counter',
        each((c) => c.count),
      ),
    );
    this.#add(
      new ReadMetric(
        'http_request_bytes_total',
        'Bytes of bodies read',
        'counter',
        each((c) => c.bytesIn),
      ),
    );
    this.#add(
      new ReadMetric(
        'http_response_bytes_total',
        'Bytes of bodies answered',
        'counter',
        each((c) => c.bytesOut),
      ),
    );
    this.#add(
      new ReadMetric('http_request_seconds', 'From a request to its answer', 'histogram', () =>
        [...http.all()].flatMap((count) =>
          histogramSamples(
            'streamhouse_http_request_seconds',
            labels(count),
            [...count.buckets],
            count.seconds,
            1e3,
          ),
        ),
      ),
    );
    const plain: [string, string, () => number][] = [
      [
        'http_connections_refused_total',
        'Connections refused for their number',
        () => http.connectionsRefused,
      ],
      ['http_client_faults_total', 'Connections closed for what came over them', () => http.clientFaults],
      ['http_internal_errors_total', 'Requests that met a bug of ours', () => http.internalErrors],
    ];
    for (const [name, help, read] of plain) {
      this.#add(new ReadMetric(name, help, 'counter', () => [{ labels: {}, value: read() }]));
    }
  }
}

/** A histogram's samples as Prometheus wants them: cumulative buckets, sum, count. */
function histogramSamples(
  metricName: string,
  labels: Record<string, string | number>,
  buckets: readonly number[],
  sum: number,
  perSecond: number,
): Sample[] {
  const samples: Sample[] = [];
  let count = 0;
  for (let i = 0; i < buckets.length; i++) {
    count += buckets[i];
    const le = i < HISTOGRAM_BOUNDS.length ? String(HISTOGRAM_BOUNDS[i] / perSecond) : '+Inf';
    samples.push({ metricName: `${metricName}_bucket`, labels: { ...labels, le }, value: count });
  }
  samples.push({ metricName: `${metricName}_sum`, labels, value: sum });
  samples.push({ metricName: `${metricName}_count`, labels, value: count });
  return samples;
}
