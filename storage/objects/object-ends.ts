/**
 * Ranged gets that may end beyond the object. Owns: what has been learned about where objects end. Does not own:
 * the store, or which ranges are read (block-reader.ts). The store refuses a range beyond the end, a block of
 * bytes has to be asked for before the size is known, and neither index nor log names objects' sizes. So the
 * whole range is asked first; when it is refused, the size is learned and remembered: from the object itself if
 * the range began at its beginning (it is then shorter than the range), else from a listing of its one key.
 * Objects never change, so a size stays true. Any thread.
 */
import { LRUCache } from 'lru-cache';
import { StreamHouseError } from '../../src/core/errors.ts';
import { type CallOptions, type ObjectStore, objectNotFound, rangeBeyondEnd } from './object-store.ts';

/** Sizes remembered, of some 200 bytes each with their key: 3 MB. One that is forgotten is learned again. */
const SIZES_MAX = 16_384;

export class ObjectEnds {
  readonly #store: ObjectStore;
  readonly #sizes = new LRUCache<string, number>({ max: SIZES_MAX });

  constructor(store: ObjectStore) {
    this.#store = store;
  }

  /** The object's size, if it has been learned. */
  sizeOf(key: string): number | undefined {
    return this.#sizes.get(key);
  }

  /** For whoever has reason to doubt a size: it is learned anew. */
  forget(key: string): void {
    this.#sizes.delete(key);
  }

  /**
   * Bytes [position, end) of an object or, if the object ends before `end`, up to its end; at least one byte.
   * Errors: `corrupt-object` when the object ends at or before `position`, and the store's own.
   */
  async getUpTo(key: string, position: number, end: number, options: CallOptions): Promise<Buffer> {
    const size = this.#sizes.get(key);
    const until = size === undefined ? end : Math.min(end, size);
    const range = { position, length: until - position };
    if (until <= position) throw rangeBeyondEnd(key, range, size);
    try {
      return await this.#store.get(key, range, options);
    } catch (error) {
      if (!(error instanceof StreamHouseError) || error.code !== 'corrupt-object') throw error;
      if (size !== undefined) {
        this.#sizes.delete(key);
        throw error;
      }
      return await this.#getToEnd(key, position, end, options, error);
    }
  }

  /** `refused` is what the store said of the whole range. */
  async #getToEnd(
    key: string,
    position: number,
    end: number,
    options: CallOptions,
    refused: StreamHouseError,
  ): Promise<Buffer> {
    if (position === 0) {
      const whole = await this.#store.get(key, undefined, options);
      if (whole.length === 0 || whole.length >= end) throw refused;
      this.#sizes.set(key, whole.length);
      return whole;
    }
    const [first] = await this.#store.list(key, { limit: 1, ...options });
    if (first?.key !== key) throw objectNotFound(key);
    if (first.bytes <= position || first.bytes >= end) throw refused;
    const bytes = await this.#store.get(key, { position, length: first.bytes - position }, options);
    this.#sizes.set(key, first.bytes);
    return bytes;
  }
}
