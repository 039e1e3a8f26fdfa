/**
 * Reads slices of objects that are in no tail cache. Owns: its object store (a client of its own, so that lagging
 * readers never stand in a producer's way), a cache of aligned blocks, one read a block however many wait for it,
 * and how many reads are under way, waiting, and how many bytes they hold. Does not own: what a slice holds or
 * whether it is right (its reader checks it), or retries and deadlines (the store's decorators). A lane's thread.
 *
 * Nobody names an object's size, and most objects are shorter than a block: blocks are asked for whole, and what
 * comes may end early. A short block ends its object for those who need no more of it; who needs more asks anew.
 *
 * A flight is one GET for a run of neighbouring blocks of one object, or for one long slice:
 *   waiting   in the order of arrival; the first one starts when a place and its bytes are free, none overtakes
 *   running   its bytes are charged to the budget, and cached blocks make room for them
 *   ended     its blocks are cached and its callers have them; or it failed, nothing is cached and its callers
 *             have the error; or its last caller went away, and nobody is told
 * Who comes while it waits or runs joins it. A flight that ended is out of #flights at that moment.
 */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../src/core/clock.ts';
import { type ErrorCode, StreamHouseError } from '../../src/core/errors.ts';
import {
  assertByteRange,
  type ByteRange,
  type CallOptions,
  givenUp,
  OBJECT_BYTES_MAX,
  type ObjectStore,
  rangeBeyondEnd,
  storeClosed,
} from './object-store.ts';

export const BLOCK_BYTES_DEFAULT = 256 * 1024;

/** Longer slices are read as they are and not cached: one of them would push out many blocks. */
export const CACHED_BLOCKS_PER_READ_MAX = 8;

/** Most bytes of the one GET for neighbouring blocks (a single block may be larger). */
export const COALESCED_BYTES_MAX = 8 * 1024 * 1024;

/** Charged for each cached block beside its bytes (key, buffer, cache entry): objects may be tiny. */
export const BLOCK_KEEPING_BYTES = 512;

/** Told of every event, for the shared counters. Must not throw. */
export interface BlockReaderObserver {
  /** Blocks of one read that were in the cache. */
  hit(blocks: number): void;
  /** Blocks of one read that were on their way for another caller. */
  joined(blocks: number): void;
  /** Blocks of one read that had to be asked of the store. */
  miss(blocks: number): void;
  /** A slice too long for the cache, of so many bytes. */
  bypassed(bytes: number): void;
  /** A flight that brought `bytes`; `ms` from its start, without the waiting. */
  read(ms: number, bytes: number): void;
  /** A flight that failed, not one that was given up. */
  failed(ms: number, code: ErrorCode): void;
  /** A block dropped to make room. */
  evicted(bytes: number): void;
  /** A read was refused as overloaded. */
  refused(): void;
}

export interface BlockReaderOptions {
  /** Becomes the reader's own: nobody else uses it, and the reader closes it. */
  readonly store: ObjectStore;
  readonly clock: Clock;
  /** Blocks begin at multiples of this. Default {@link BLOCK_BYTES_DEFAULT}. */
  readonly blockBytes?: number;
  /** Bound of cached bytes and bytes being read, together; must have room for a block. */
  readonly budgetBytes: number;
  /** GETs under way at a time. */
  readonly readsInFlightMax: number;
  /** GETs that may wait for their turn; once so many do, reads that need one more are `overloaded`. */
  readonly readsWaitingMax: number;
  readonly observer: BlockReaderObserver;
}

interface Flight {
  readonly key: string;
  readonly position: number;
  readonly length: number;
  /** The first block; null for a long slice, which is no block. */
  readonly firstBlock: number | null;
  /** Its names in #flights: of each block, or of the slice. */
  readonly names: readonly string[];
  readonly stop: AbortController;
  /** Its blocks in order; fewer than asked for when the object ends before. A long slice is one. */
  readonly blocks: Promise<Buffer[]>;
  readonly resolve: (blocks: Buffer[]) => void;
  readonly reject: (error: unknown) => void;
  callers: number;
  hasEnded: boolean;
}

/** One block of a read: here already, or number `index` of a flight's. */
type Piece = Buffer | FlightPiece;

interface FlightPiece {
  readonly flight: Flight;
  readonly index: number;
}

function assertOption(name: string, value: number, min: number): void {
  if (!Number.isSafeInteger(value) || value < min) throw new RangeError(`block reader: ${name} ${value}`);
}

export class BlockReader {
  readonly #store: ObjectStore;
  readonly #clock: Clock;
  readonly #observer: BlockReaderObserver;
  readonly #blockBytes: number;
  readonly #runBlocksMax: number;
  readonly #budgetBytes: number;
  readonly #readsInFlightMax: number;
  readonly #readsWaitingMax: number;
  readonly #cache: LRUCache<string, Buffer>;
  readonly #flights = new Map<string, Flight>();
  readonly #waiting = new Set<Flight>();
  /** Also flights that were given up and whose GET has not ended yet: they hold a place and bytes until then. */
  #readsInFlight = 0;
  #bytesInFlight = 0;
  #isClosed = false;

  constructor(options: BlockReaderOptions) {
    const { blockBytes = BLOCK_BYTES_DEFAULT, budgetBytes, readsInFlightMax, readsWaitingMax } = options;
    assertOption('blockBytes', blockBytes, 1);
    assertOption('budgetBytes', budgetBytes, blockBytes + BLOCK_KEEPING_BYTES);
    assertOption('readsInFlightMax', readsInFlightMax, 1);
    assertOption('readsWaitingMax', readsWaitingMax, 0);
    this.#store = options.store;
    this.#clock = options.clock;
    this.#observer = options.observer;
    this.#blockBytes = blockBytes;
    const runBytesMax = Math.min(COALESCED_BYTES_MAX, budgetBytes);
    this.#runBlocksMax = Math.max(1, Math.floor(runBytesMax / blockBytes));
    this.#budgetBytes = budgetBytes;
    this.#readsInFlightMax = readsInFlightMax;
    this.#readsWaitingMax = readsWaitingMax;
    this.#cache = new LRUCache({
      maxSize: budgetBytes,
      sizeCalculation: (block) => block.length + BLOCK_KEEPING_BYTES,
      dispose: (block, _name, reason) => {
        if (reason === 'evict') this.#observer.evicted(block.length);
      },
    });
  }

  /**
   * Cached bytes (with {@link BLOCK_KEEPING_BYTES} a block) and bytes being read; never above the budget, but for
   * one slice that alone is longer than it, read while nothing else is. What callers hold is theirs to count: a view of a block that was evicted keeps the block's memory.
   */
  get bytes(): number {
    return this.#cache.calculatedSize + this.#bytesInFlight;
  }

  /**
   * Bytes [position, position + length) of object `key`. They may be a view of cached memory that other callers
   * see too: never write to them, never move them to another thread. A length of 0 asks nothing of the store,
   * not even whether the object is there.
   *
   * The signal gives up this call, not what other callers of the same bytes wait for; a GET that nobody waits
   * for any more is given up.
   *
   * Errors: `object-not-found`; `corrupt-object` for a range beyond the object's end; `overloaded` when too many reads wait; `object-store-unavailable`, also for a call
   * that was given up or a reader that is closed; and the store's own. None is remembered: the next call asks
   * anew.
   */
  async read(key: string, position: number, length: number, options?: CallOptions): Promise<Buffer> {
    const range: ByteRange = { position, length };
    assertByteRange(range);
    if (this.#isClosed) throw this.#closedError();
    const doing = `read ${key}`;
    if (options?.signal?.aborted) throw givenUp(doing, 'no');
    if (length === 0) return Buffer.alloc(0);
    const end = position + length;
    if (end > OBJECT_BYTES_MAX) throw rangeBeyondEnd(key, range);
    if (length > CACHED_BLOCKS_PER_READ_MAX * this.#blockBytes) {
      return await this.#readSlice(key, range, options?.signal);
    }
    const firstBlock = Math.floor(position / this.#blockBytes);
    const pieces = this.#plan(key, firstBlock, end);
    const blocks = await this.#collect(pieces, doing, options?.signal);
    return this.#assemble(key, range, blocks);
  }

  /** Fails all reads and closes the store. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const error = this.#closedError();
    for (const flight of new Set(this.#flights.values())) {
      this.#end(flight);
      flight.reject(error);
      flight.stop.abort();
    }
    this.#cache.clear();
    await this.#store.close();
  }

  #closedError(): StreamHouseError {
    return storeClosed(`the block reader of ${this.#store.description}`);
  }

  /** A long slice: past the cache, one GET for all who ask for exactly the same. */
  async #readSlice(key: string, range: ByteRange, signal: AbortSignal | undefined): Promise<Buffer> {
    const { position, length } = range;
    const name = `${key}\n${position}+${length}`;
    let flight = this.#flights.get(name);
    if (flight === undefined) {
      this.#admit();
      flight = this.#depart(key, range, null, [name]);
    }
    this.#observer.bypassed(length);
    const [slice] = await this.#collect([{ flight, index: 0 }], `read ${key}`, signal);
    return slice!;
  }

  /** Finds or asks for every block of bytes that begin in `firstBlock` and go on to `end`. */
  #plan(key: string, firstBlock: number, end: number): Piece[] {
    const pieces: Piece[] = [];
    const missing: number[] = [];
    const blockCount = Math.ceil(end / this.#blockBytes) - firstBlock;
    let joined = 0;
    for (let i = 0; i < blockCount; i++) {
      const block = firstBlock + i;
      const name = blockName(key, block);
      const cached = this.#cache.get(name);
      const needBytes = Math.min(end - block * this.#blockBytes, this.#blockBytes);
      const flight = this.#flights.get(name);
      if (cached !== undefined && cached.length >= needBytes) pieces[i] = cached;
      else if (flight !== undefined) {
        pieces[i] = { flight, index: block - flight.firstBlock! };
        joined++;
      } else missing.push(block);
    }
    const runs = this.#runs(missing);
    if (runs.length > 0) this.#admit();
    for (const run of runs) {
      const names = run.map((block) => blockName(key, block));
      const range = { position: run[0] * this.#blockBytes, length: run.length * this.#blockBytes };
      const flight = this.#depart(key, range, run[0], names);
      run.forEach((block, index) => {
        pieces[block - firstBlock] = { flight, index };
      });
    }
    const hits = blockCount - joined - missing.length;
    if (hits > 0) this.#observer.hit(hits);
    if (joined > 0) this.#observer.joined(joined);
    if (missing.length > 0) this.#observer.miss(missing.length);
    return pieces;
  }

  /** Cuts ascending block numbers into runs of neighbours, each one GET. */
  #runs(blocks: readonly number[]): number[][] {
    const runs: number[][] = [];
    for (const block of blocks) {
      const run = runs.at(-1);
      if (run?.at(-1) === block - 1 && run.length < this.#runBlocksMax) run.push(block);
      else runs.push([block]);
    }
    return runs;
  }

  /**
   * Throws `overloaded` unless there is a place for one flight more. A read that needs several, with cached
   * blocks between them, is not refused for that: else it might never be served. They are 9 at most.
   */
  #admit(): void {
    const ahead = this.#readsInFlight + this.#waiting.size;
    if (ahead < this.#readsInFlightMax + this.#readsWaitingMax) return;
    this.#observer.refused();
    throw new StreamHouseError('overloaded', `${ahead} reads of objects are under way or waiting already`);
  }

  /** Makes a flight, which has no callers yet, and puts it at the end of those that wait. */
  #depart(key: string, range: ByteRange, firstBlock: number | null, names: string[]): Flight {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer[]>();
    const flight: Flight = {
      key,
      position: range.position,
      length: range.length,
      firstBlock,
      names,
      stop: new AbortController(),
      blocks: promise,
      resolve,
      reject,
      callers: 0,
      hasEnded: false,
    };
    for (const name of names) this.#flights.set(name, flight);
    this.#waiting.add(flight);
    return flight;
  }

  /** Waits for all pieces, as one of the callers of their flights, until the signal aborts. */
  async #collect(
    pieces: readonly Piece[],
    doing: string,
    signal: AbortSignal | undefined,
  ): Promise<(Buffer | undefined)[]> {
    const flights = new Set<Flight>();
    for (const piece of pieces) if (!Buffer.isBuffer(piece)) flights.add(piece.flight);
    if (flights.size === 0) return pieces as Buffer[];
    for (const flight of flights) flight.callers++;
    this.#start();
    const gone = Promise.withResolvers<never>();
    const onAbort = (): void => gone.reject(givenUp(doing, 'no'));
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      return await Promise.race([gone.promise, Promise.all(pieces.map(blockOf))]);
    } finally {
      signal?.removeEventListener('abort', onAbort);
      for (const flight of flights) this.#leave(flight);
    }
  }

  /** A caller goes, with its bytes or without; a flight that has none left is given up. */
  #leave(flight: Flight): void {
    flight.callers--;
    if (flight.callers > 0 || flight.hasEnded) return;
    this.#end(flight);
    flight.stop.abort();
    this.#start();
  }

  /** From here on nobody can join it. */
  #end(flight: Flight): void {
    flight.hasEnded = true;
    this.#waiting.delete(flight);
    for (const name of flight.names) this.#flights.delete(name);
  }

  /** Starts flights in their order while there are places and bytes for the first one. */
  #start(): void {
    for (const flight of this.#waiting) {
      if (this.#readsInFlight >= this.#readsInFlightMax) return;
      // A slice that was committed must be readable whatever the budget: a longer one goes alone.
      if (this.#bytesInFlight > 0 && this.#bytesInFlight + flight.length > this.#budgetBytes) return;
      this.#waiting.delete(flight);
      this.#readsInFlight++;
      this.#bytesInFlight += flight.length;
      this.#evictBeyondBudget(0);
      void this.#run(flight);
    }
  }

  /** Never rejects, its flight does. How the GET of a flight that was given up ends concerns nobody. */
  async #run(flight: Flight): Promise<void> {
    const { key, position, length, firstBlock, stop } = flight;
    const startMs = this.#clock.monotonicMs();
    let bytes: Buffer | null = null;
    let failure: unknown;
    try {
      const range = { position, length, mayEndEarly: firstBlock !== null };
      bytes = await this.#store.get(key, range, { signal: stop.signal });
    } catch (error) {
      failure = error;
    }
    this.#readsInFlight--;
    this.#bytesInFlight -= length;
    if (!flight.hasEnded) {
      this.#end(flight);
      const ms = this.#clock.monotonicMs() - startMs;
      if (bytes !== null) {
        this.#observer.read(ms, bytes.length);
        flight.resolve(this.#keep(flight, bytes));
      } else {
        if (failure instanceof StreamHouseError) this.#observer.failed(ms, failure.code);
        flight.reject(failure);
      }
    }
    this.#start();
  }

  /** Cuts what came into blocks and caches them. */
  #keep(flight: Flight, bytes: Buffer): Buffer[] {
    if (flight.firstBlock === null) return [bytes];
    const blocks: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += this.#blockBytes) {
      let block = bytes;
      if (bytes.length > this.#blockBytes) {
        // Memory of its own: a view would keep the memory of all its neighbours when they are long evicted.
        const length = Math.min(this.#blockBytes, bytes.length - at);
        block = Buffer.allocUnsafeSlow(length);
        bytes.copy(block, 0, at, at + length);
      }
      const chargeBytes = block.length + BLOCK_KEEPING_BYTES;
      if (this.#makeRoom(chargeBytes)) this.#cache.set(flight.names[blocks.length], block);
      blocks.push(block);
    }
    return blocks;
  }

  /** Evicts blocks until `bytes` more fit the budget; false when they do not even beside an empty cache. */
  #makeRoom(bytes: number): boolean {
    if (this.#bytesInFlight + bytes > this.#budgetBytes) return false;
    this.#evictBeyondBudget(bytes);
    return true;
  }

  #evictBeyondBudget(bytes: number): void {
    while (this.bytes + bytes > this.#budgetBytes && this.#cache.size > 0) this.#cache.pop();
  }

  #assemble(key: string, range: ByteRange, blocks: readonly (Buffer | undefined)[]): Buffer {
    const { position, length } = range;
    const base = Math.floor(position / this.#blockBytes) * this.#blockBytes;
    const parts: Buffer[] = [];
    for (let i = 0; i < blocks.length; i++) {
      const blockPosition = base + i * this.#blockBytes;
      const from = Math.max(position - blockPosition, 0);
      const to = Math.min(position + length - blockPosition, this.#blockBytes);
      const block = blocks[i];
      if (block === undefined) throw rangeBeyondEnd(key, range);
      if (block.length < to) throw rangeBeyondEnd(key, range, blockPosition + block.length);
      parts.push(block.subarray(from, to));
    }
    return parts.length === 1 ? parts[0] : Buffer.concat(parts, length);
  }
}

/** No key has a line break in it. */
function blockName(key: string, block: number): string {
  return `${key}\n${block}`;
}

async function blockOf(piece: Piece): Promise<Buffer | undefined> {
  return Buffer.isBuffer(piece) ? piece : (await piece.flight.blocks)[piece.index];
}
