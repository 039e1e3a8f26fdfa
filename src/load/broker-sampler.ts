/**
 * Looks at the broker once a second while a run lasts: the points of the report's series. Owns: the clock of it, the
 * newest snapshot. Does not own: what the metrics mean (broker-figures). Main thread.
 */
import { RestError } from '../client/rest-error.ts';
import { type Clock, sleep } from '../core/clock.ts';
import { gauges } from './broker-figures.ts';
import { Latencies } from './latency.ts';
import type { Interval } from './messages.ts';
import { MetricsChange, type MetricsSnapshot } from './metrics-snapshot.ts';
import type { SeriesPoint } from './report-schema.ts';

const SAMPLE_MS = 1000;
/** Of a longer run only every second point is kept, and so on: memory and the page stay small. */
const POINTS_MAX = 1200;

export class BrokerSampler {
  readonly #read: () => Promise<MetricsSnapshot>;
  readonly #clock: Clock;
  readonly #beganMs: number;
  readonly #stopped = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #newest: MetricsSnapshot;
  #newestMs: number;
  #points: SeriesPoint[] = [];
  #everyMs = SAMPLE_MS;
  readonly #latencies = new Latencies();
  readonly #counts = { acked: 0, failed: 0, outstanding: 0 };
  #rssMax = 0;

  constructor(read: () => Promise<MetricsSnapshot>, clock: Clock, first: MetricsSnapshot) {
    this.#read = read;
    this.#clock = clock;
    this.#newest = first;
    this.#beganMs = clock.monotonicMs();
    this.#newestMs = this.#beganMs;
    this.#running = this.#run();
  }

  /** Of the clock of the points. */
  get beganMs(): number {
    return this.#beganMs;
  }

  get points(): SeriesPoint[] {
    return this.#points;
  }

  /** As of the last look. */
  get newest(): MetricsSnapshot {
    return this.#newest;
  }

  /** The most that any look saw, in bytes; 0 if the broker does not tell. */
  get rssMax(): number {
    return this.#rssMax;
  }

  /** What a generator told. */
  heard(interval: Interval, latencies: Latencies): void {
    this.#counts.acked += interval.acked;
    this.#counts.failed += interval.failed;
    this.#counts.outstanding = interval.outstanding;
    this.#latencies.merge(latencies);
  }

  /** Takes a last point. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      await sleep(this.#clock, this.#everyMs, this.#stopped.signal);
      await this.#look();
    }
  }

  async #look(): Promise<void> {
    let now = this.#newest;
    try {
      now = await this.#read();
    } catch (error) {
      // A broker that is gone or too busy leaves a point without its figures; that it is gone others notice.
      if (!(error instanceof RestError)) throw error;
    }
    const nowMs = this.#clock.monotonicMs();
    const seconds = Math.max(0.001, (nowMs - this.#newestMs) / 1000);
    this.#rssMax = Math.max(this.#rssMax, now.value('process_resident_memory_bytes') ?? 0);
    const isCutShort = this.#stopped.signal.aborted && (nowMs - this.#newestMs) * 2 < this.#everyMs;
    this.#newestMs = nowMs;
    const before = this.#newest;
    this.#newest = now;
    // A rate over a moment is none: what generators tell comes in portions.
    if (isCutShort && this.#points.length > 0) return;
    const { acked, failed, outstanding } = this.#counts;
    const figures = this.#latencies.figures();
    this.#points.push({
      t_s: Math.round((nowMs - this.#beganMs) / 100) / 10,
      rate_per_s: Math.round(acked / seconds),
      failed,
      p50_ms: figures?.p50 ?? null,
      p99_ms: figures?.p99 ?? null,
      max_ms: figures?.max ?? null,
      requests_outstanding: outstanding,
      ...gauges(new MetricsChange(before, now), seconds),
    });
    this.#counts.acked = 0;
    this.#counts.failed = 0;
    this.#latencies.reset();
    if (this.#points.length < POINTS_MAX) return;
    this.#points = this.#points.filter((_, i) => i % 2 === 1);
    this.#everyMs *= 2;
  }
}
