/**
 * How many requests are in flight at once. Owns: that bound, and the order of those that wait. Does not own: how many
 * there can be in all: a call makes as many as it was given rows, and the calls are bounded where they come from. The
 * thread that hosts the store.
 */

/** Requests of one lane in flight, first come first served. */
export class InFlight {
  readonly #most: number;
  #count = 0;
  readonly #waiting: (() => void)[] = [];
  readonly #onIdle: (() => void)[] = [];

  constructor(most: number) {
    this.#most = most;
  }

  enter(): Promise<void> | undefined {
    if (this.#count < this.#most) {
      this.#count++;
      return undefined;
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  leave(): void {
    const next = this.#waiting.shift();
    if (next !== undefined) {
      next();
      return;
    }
    this.#count--;
    if (this.#count === 0) for (const tell of this.#onIdle.splice(0)) tell();
  }

  idle(): Promise<void> {
    if (this.#count === 0) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle.push(resolve));
  }
}
