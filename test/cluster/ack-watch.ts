/**
 * When each partition was last served, and how far it is known to reach: how long producers waited, whether all are
 * served again. Owns: those times and offsets. Does not own: the producers, which tell it. The runner's process.
 */
export class AckWatch {
  /** By partition, when its newest acknowledgement came. */
  readonly #lastAckAt = new Map<string, number>();
  /** By partition, when the newest request that was acknowledged had been sent. */
  readonly #lastSentAt = new Map<string, number>();
  /** By partition, the newest offset that was acknowledged. */
  readonly #newest = new Map<string, number>();
  #longestGapMs = 0;
  #longestOf = '';

  /** A partition that is written all the time from now on. */
  expect(partition: string): void {
    this.#lastAckAt.set(partition, performance.now());
    this.#lastSentAt.set(partition, 0);
  }

  acknowledged(partition: string, sentAt: number, offset: number): void {
    const now = performance.now();
    const before = this.#lastAckAt.get(partition);
    if (before === undefined) return;
    this.#noteGap(partition, now - before);
    this.#newest.set(partition, Math.max(offset, this.#newest.get(partition) ?? 0));
    this.#lastAckAt.set(partition, now);
    this.#lastSentAt.set(partition, Math.max(sentAt, this.#lastSentAt.get(partition) ?? 0));
  }

  /** The newest offset that was acknowledged there; null before the first. */
  newest(partition: string): number | null {
    return this.#newest.get(partition) ?? null;
  }

  /** Gaps are measured anew; those that are open count from their beginning. */
  begin(): void {
    this.#longestGapMs = 0;
    this.#longestOf = '';
  }

  /** The longest time that any partition was without an acknowledgement since `begin`. */
  longest(): { gapMs: number; partition: string } {
    const now = performance.now();
    for (const [partition, before] of this.#lastAckAt) this.#noteGap(partition, now - before);
    return { gapMs: this.#longestGapMs, partition: this.#longestOf };
  }

  /** Partitions of which no request that was sent after `since` (performance.now) was acknowledged yet. */
  unserved(since: number): string[] {
    return [...this.#lastSentAt].filter(([, sentAt]) => sentAt < since).map(([partition]) => partition);
  }

  #noteGap(partition: string, gapMs: number): void {
    if (gapMs <= this.#longestGapMs) return;
    this.#longestGapMs = gapMs;
    this.#longestOf = partition;
  }
}
