/** Counts requests and their latencies over the measured time. Owns: buckets of 0.1 ms up to a minute. Pure. */

const BUCKETS = 600_000;

export class LatencyCount {
  readonly #buckets = new Uint32Array(BUCKETS);
  count = 0;

  add(ms: number): void {
    this.#buckets[Math.min(BUCKETS - 1, Math.floor(ms * 10))]++;
    this.count++;
  }

  /** Upper bound in ms of the bucket in which this part of all lies; 0 without any. */
  quantile(part: number): number {
    const wanted = Math.ceil(this.count * part);
    let seen = 0;
    for (let i = 0; i < BUCKETS && wanted > 0; i++) {
      seen += this.#buckets[i];
      if (seen >= wanted) return (i + 1) / 10;
    }
    return 0;
  }
}
