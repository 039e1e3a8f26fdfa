/**
 * The newest objects, as the batching worker handed them over: shared memory that all lanes read without a copy.
 * Owns: which objects are kept, within a budget, oldest out first. Does not own: the bytes (every lane holds the
 * same memory, and all lanes evict in the same order, so the budget counts once for the process). A lane's thread.
 */
import type { ObjectId } from '../src/core/ids.ts';
import { bufferOver } from './append-codec.ts';
import type { SharedObject } from './messages.ts';

export class TailCache {
  readonly #budgetBytes: number;
  /** In the order of arrival. */
  readonly #objects = new Map<string, Buffer>();
  #bytes = 0;

  constructor(budgetBytes: number) {
    this.#budgetBytes = budgetBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(object: SharedObject): void {
    const key = `${object.incarnation}-${object.number}`;
    if (this.#objects.has(key)) return;
    this.#objects.set(key, bufferOver(object.bytes));
    this.#bytes += object.bytes.length;
    for (const [oldest, bytes] of this.#objects) {
      if (this.#bytes <= this.#budgetBytes) break;
      this.#objects.delete(oldest);
      this.#bytes -= bytes.length;
    }
  }

  /** The object's bytes, if they are here; they must not be written to. */
  get(object: ObjectId): Buffer | undefined {
    return this.#objects.get(`${object.incarnation}-${object.number}`);
  }
}
