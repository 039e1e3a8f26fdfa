/**
 * A broker's /metrics at one moment, and what changed between two. Owns: reading Prometheus text, differences,
 * quantiles by interpolation within a histogram's bucket. Does not own: which metrics mean what (broker-figures).
 * Pure.
 */

export interface Sample {
  labels: string;
  value: number;
}

export class MetricsSnapshot {
  readonly #samples = new Map<string, Sample[]>();
  readonly #gauges = new Set<string>();

  /**
   * Of several brokers as one: sums of counters and histograms, and of the gauges of those that are `present`. A
   * broker that is gone holds nothing any more, but has done what it did.
   */
  static together(present: readonly MetricsSnapshot[], gone: readonly MetricsSnapshot[]): MetricsSnapshot {
    const all = new MetricsSnapshot('');
    for (const one of present) all.#add(one, true);
    for (const one of gone) all.#add(one, false);
    return all;
  }

  #add(other: MetricsSnapshot, withGauges: boolean): void {
    for (const [name, samples] of other.#samples) {
      const isGauge = other.#gauges.has(name);
      if (isGauge && !withGauges) continue;
      if (isGauge) this.#gauges.add(name);
      const known = this.#samples.get(name);
      if (known) known.push(...samples);
      else this.#samples.set(name, [...samples]);
    }
  }

  constructor(text: string) {
    for (const line of text.split('\n')) {
      const gauge = /^# TYPE (\S+) gauge$/.exec(line)?.[1];
      if (gauge !== undefined) this.#gauges.add(gauge);
      const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
      if (match === null) continue;
      const sample = { labels: match[2] ?? '', value: Number(match[3]) };
      const known = this.#samples.get(match[1]);
      if (known) known.push(sample);
      else this.#samples.set(match[1], [sample]);
    }
  }

  /** Names of metrics that match. */
  names(pattern: RegExp): string[] {
    return [...this.#samples.keys()].filter((name) => pattern.test(name));
  }

  samples(name: string): readonly Sample[] {
    return this.#samples.get(name) ?? [];
  }

  /** Sum over the samples whose labels contain `label` ('cache="topics"'); null when there are none. */
  value(name: string, label = ''): number | null {
    let sum: number | null = null;
    for (const { labels, value } of this.samples(name)) {
      if (labels.includes(label)) sum = (sum ?? 0) + value;
    }
    return sum;
  }
}

/** What counters rose by between two snapshots of one broker. */
export class MetricsChange {
  readonly before: MetricsSnapshot;
  readonly after: MetricsSnapshot;

  constructor(before: MetricsSnapshot, after: MetricsSnapshot) {
    this.before = before;
    this.after = after;
  }

  /** Null when the broker has no such metric. */
  of(name: string, label = ''): number | null {
    const after = this.after.value(name, label);
    return after === null ? null : after - (this.before.value(name, label) ?? 0);
  }

  /** The same where the metric must be there: 0 stands for a broker that lacks it. */
  count(name: string, label = ''): number {
    return this.of(name, label) ?? 0;
  }

  /** Observations of several histograms of the same bounds, together. Names without `_bucket`. */
  histogram(names: readonly string[]): BucketHistogram {
    const counts = new Map<number, number>();
    for (const name of names) {
      for (const { labels, value } of this.after.samples(`${name}_bucket`)) addBucket(counts, labels, value);
      for (const { labels, value } of this.before.samples(`${name}_bucket`))
        addBucket(counts, labels, -value);
    }
    return new BucketHistogram(counts);
  }
}

function addBucket(counts: Map<number, number>, labels: string, value: number): void {
  const le = /(?:^|,)le="([^"]+)"/.exec(labels)?.[1];
  if (le === undefined) return;
  const bound = le === '+Inf' ? Number.POSITIVE_INFINITY : Number(le);
  counts.set(bound, (counts.get(bound) ?? 0) + value);
}

/** Cumulative counts by upper bound, in seconds. */
export class BucketHistogram {
  readonly #bounds: number[];
  readonly #cumulative: number[];

  constructor(counts: ReadonlyMap<number, number>) {
    this.#bounds = [...counts.keys()].sort((a, b) => a - b);
    this.#cumulative = this.#bounds.map((bound) => counts.get(bound) ?? 0);
  }

  get count(): number {
    return this.#cumulative.at(-1) ?? 0;
  }

  /**
   * In seconds, interpolated within its bucket, so that it may be wrong by as much as the bucket is wide; beyond the
   * last bound, that bound. Null without observations.
   */
  quantile(part: number): number | null {
    const wanted = this.count * part;
    if (this.count === 0) return null;
    for (let i = 0; i < this.#bounds.length; i++) {
      if (this.#cumulative[i] < wanted) continue;
      const low = i === 0 ? 0 : this.#bounds[i - 1];
      if (!Number.isFinite(this.#bounds[i])) return low;
      const below = i === 0 ? 0 : this.#cumulative[i - 1];
      const inside = this.#cumulative[i] - below;
      const share = inside === 0 ? 1 : (wanted - below) / inside;
      return low + (this.#bounds[i] - low) * share;
    }
    return this.#bounds.at(-1) ?? null;
  }
}
