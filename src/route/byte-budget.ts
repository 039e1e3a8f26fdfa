/**
 * A bound on bytes that are held at a time, with a fair queue before it. Owns: the count and the queue. Does not
 * own: what the bytes are. Main thread.
 */
import { StreamHouseError } from '../core/errors.ts';

export class ByteBudget {
  readonly #bytesMax: number;
  readonly #waitingMax: number;
  #bytes = 0;
  readonly #waiting: { bytes: number; resolve: () => void }[] = [];

  /** At most `bytesMax` are held; at most `waitingMax` wait for room. */
  constructor(bytesMax: number, waitingMax: number) {
    this.#bytesMax = bytesMax;
    this.#waitingMax = waitingMax;
  }

  /** Bytes held now. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Takes `bytes` if there is room and nobody waits; else false. */
  tryTake(bytes: number): boolean {
    if (this.#waiting.length > 0 || this.#bytes + bytes > this.#bytesMax) return false;
    this.#bytes += bytes;
    return true;
  }

  /**
   * Takes `bytes` in the order of asking; more than the whole budget counts as the whole. undefined: at once.
   * 'overloaded' when too many wait.
   */
  take(bytes: number): Promise<void> | undefined {
    const counted = this.counted(bytes);
    if (this.tryTake(counted)) return undefined;
    if (this.#waiting.length >= this.#waitingMax) {
      throw new StreamHouseError('overloaded', `${this.#waitingMax} reads wait for memory; try again later`);
    }
    return new Promise((resolve) => this.#waiting.push({ bytes: counted, resolve }));
  }

  /** What `bytes` count as in `take`. */
  counted(bytes: number): number {
    return Math.min(bytes, this.#bytesMax);
  }

  /** Gives back what was taken, as it was counted. */
  release(bytes: number): void {
    this.#bytes -= bytes;
    while (this.#waiting.length > 0 && this.#bytes + this.#waiting[0].bytes <= this.#bytesMax) {
      const next = this.#waiting.shift() as { bytes: number; resolve: () => void };
      this.#bytes += next.bytes;
      next.resolve();
    }
  }
}
