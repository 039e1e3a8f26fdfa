/**
 * Latencies as HDR histograms in microseconds: three digits, up to an hour. Owns: making, merging, sending between
 * processes as text, and the quantiles of reports. Does not own: what is measured. Any thread.
 */

import type { Histogram } from 'hdr-histogram-js';
import hdr from 'hdr-histogram-js';

const LONGEST_US = 3_600_000_000;

export interface LatencyFigures {
  p50: number;
  p95: number;
  p99: number;
  p999: number;
  max: number;
}

export class Latencies {
  readonly #histogram: Histogram;

  constructor(histogram?: Histogram) {
    this.#histogram =
      histogram ??
      hdr.build({
        lowestDiscernibleValue: 1,
        highestTrackableValue: LONGEST_US,
        numberOfSignificantValueDigits: 3,
        bitBucketSize: 64,
        autoResize: false,
        useWebAssembly: false,
      });
  }

  static decode(text: string): Latencies {
    return new Latencies(hdr.decodeFromCompressedBase64(text, 64));
  }

  get count(): number {
    return this.#histogram.totalCount;
  }

  add(ms: number, count = 1): void {
    const us = Math.min(LONGEST_US, Math.max(1, Math.round(ms * 1000)));
    this.#histogram.recordValueWithCount(us, count);
  }

  merge(other: Latencies): void {
    if (other.count > 0) this.#histogram.add(other.#histogram);
  }

  encode(): string {
    return hdr.encodeIntoCompressedBase64(this.#histogram);
  }

  reset(): void {
    this.#histogram.reset();
  }

  /** In ms; `part` 0.99 is the value that 99 % do not exceed. 0 when there is none. */
  quantileMs(part: number): number {
    return this.count === 0 ? 0 : round(this.#histogram.getValueAtPercentile(part * 100) / 1000);
  }

  /** Ms; null when nothing was measured. */
  figures(): LatencyFigures | null {
    if (this.count === 0) return null;
    return {
      p50: this.quantileMs(0.5),
      p95: this.quantileMs(0.95),
      p99: this.quantileMs(0.99),
      p999: this.quantileMs(0.999),
      max: round(this.#histogram.maxValue / 1000),
    };
  }
}

function round(ms: number): number {
  return Number(ms.toPrecision(4));
}
