/**
 * A set of object ids as bitmaps: a million objects of a few incarnations take some 128 KiB. Owns: that. Pure;
 * main thread.
 */
import type { ObjectId } from '../core/ids.ts';

/** Numbers of one bitmap. Numbers of an incarnation are dense, so bitmaps fill up. */
const CHUNK_NUMBERS = 1024;

export class ObjectSet {
  readonly #chunks = new Map<number, Map<number, Uint32Array>>();

  add({ incarnation, number }: ObjectId): void {
    let chunks = this.#chunks.get(incarnation);
    if (!chunks) this.#chunks.set(incarnation, (chunks = new Map()));
    const index = Math.floor(number / CHUNK_NUMBERS);
    let chunk = chunks.get(index);
    if (!chunk) chunks.set(index, (chunk = new Uint32Array(CHUNK_NUMBERS / 32)));
    const bit = number % CHUNK_NUMBERS;
    chunk[bit >>> 5] |= 1 << (bit & 31);
  }

  has({ incarnation, number }: ObjectId): boolean {
    const chunk = this.#chunks.get(incarnation)?.get(Math.floor(number / CHUNK_NUMBERS));
    const bit = number % CHUNK_NUMBERS;
    return chunk !== undefined && (chunk[bit >>> 5] & (1 << (bit & 31))) !== 0;
  }
}
