/**
 * Packed appends (workers/append-codec), gathered until they are taken as one message. Owns: the memory that they lie
 * in. Does not own: where they go. Main thread.
 */

const BYTES_FIRST = 64 * 1024;
/** A burst's memory is not kept. */
const BYTES_KEPT = 4 * 1024 * 1024;

export class AppendOutbox {
  #buffer = Buffer.allocUnsafeSlow(BYTES_FIRST);
  #length = 0;

  /** Room for `bytes` more; the position where they begin. */
  reserve(bytes: number): number {
    const at = this.#length;
    if (at + bytes > this.#buffer.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(at + bytes, this.#buffer.length * 2));
      this.#buffer.copy(grown, 0, 0, at);
      this.#buffer = grown;
    }
    this.#length += bytes;
    return at;
  }

  /** The memory; another one after `reserve` and `take`. */
  get buffer(): Buffer {
    return this.#buffer;
  }

  get length(): number {
    return this.#length;
  }

  /** What was gathered, in memory of its own that can be moved; null: nothing. */
  take(): Uint8Array<ArrayBuffer> | null {
    if (this.#length === 0) return null;
    const out = new Uint8Array(this.#length);
    out.set(this.#buffer.subarray(0, this.#length));
    this.clear();
    return out;
  }

  /** What was gathered is not wanted, or has been copied. */
  clear(): void {
    this.#length = 0;
    if (this.#buffer.length > BYTES_KEPT) this.#buffer = Buffer.allocUnsafeSlow(BYTES_FIRST);
  }
}
