/**
 * Reads of a store for a cache: at most one runs for a key, however many ask. Owns: who waits for which read, and
 * that an answer which was overtaken is not kept. Does not own: what is remembered, nor which of two answers is the
 * newer one (the caches by kind know). Any thread.
 *
 * Every event has a number, drawn from one rising count, so that "began before" never hangs on a clock's ticks. A
 * caller says after which event its read must have begun: one that began earlier cannot know what the caller knows.
 * Then the next one is queued behind it, for all such callers together; it may have to wait for its pace besides.
 *
 *   key: idle -> running -> idle                 an answer lands in the cache
 *            '-> queued --^  '-> queued          a read that must begin later waits for the running one
 *   overtaken: the key is idle again at once; what runs or waits goes on for those who wait for it, but never lands
 */
import { type Clock, sleep } from '../../../src/core/clock.ts';

/** When a read began: its answer is as old as that. */
export interface Beginning {
  /** Its place among all events of this cache. */
  order: number;
  atMs: number;
}

export interface PacedReadsParts<K, V> {
  clock: Clock;
  /** Rejects, and never throws. */
  read(key: K): Promise<V>;
  /** The answer of a read that nothing overtook. Those of one key land in the order in which they began. */
  land(key: K, value: V, began: Beginning): void;
  /** The answer of a read that was overtaken: it is dropped. */
  stale(key: K): void;
}

/** How long ago a read may have begun, and how soon another one may begin. */
export interface ReadTerms {
  /** Only a read that began after this event will do. */
  after?: number;
  /** A new read begins at this time of the clock at the earliest. */
  notBeforeMs?: number;
}

export interface ReadTicket<V> {
  answer: Promise<V>;
  /** It began before it was asked for here. */
  isOlder: boolean;
}

interface Slot<V> {
  running: { answer: Promise<V>; order: number } | null;
  /** Begins after the running one has ended. */
  queued: Promise<V> | null;
  isOvertaken: boolean;
}

export class PacedReads<K, V> {
  readonly #parts: PacedReadsParts<K, V>;
  /** Of keys that a read runs or waits for. */
  readonly #slots = new Map<K, Slot<V>>();
  #order = 0;

  constructor(parts: PacedReadsParts<K, V>) {
    this.#parts = parts;
  }

  /** The number of an event that happens now. */
  mark(): number {
    return ++this.#order;
  }

  /** A moment of now, for what is learned by other ways than a read. */
  begin(): Beginning {
    return { order: this.mark(), atMs: this.#parts.clock.monotonicMs() };
  }

  /** The read on its way if it will do, else a new one. */
  read(key: K, { after = 0, notBeforeMs = 0 }: ReadTerms = {}): ReadTicket<V> {
    let slot = this.#slots.get(key);
    if (slot?.running && slot.running.order > after) return { answer: slot.running.answer, isOlder: true };
    if (slot?.queued) return { answer: slot.queued, isOlder: false };
    if (!slot) this.#slots.set(key, (slot = { running: null, queued: null, isOvertaken: false }));
    if (slot.running || notBeforeMs > this.#parts.clock.monotonicMs()) {
      slot.queued = this.#readLater(key, slot, notBeforeMs);
      return { answer: slot.queued, isOlder: false };
    }
    return { answer: this.#start(key, slot), isOlder: false };
  }

  /** Whoever asks from now on gets a new read, and what is on its way is not kept. */
  overtake(key: K): void {
    const slot = this.#slots.get(key);
    if (!slot) return;
    slot.isOvertaken = true;
    this.#slots.delete(key);
  }

  overtakeAll(): void {
    for (const key of [...this.#slots.keys()]) this.overtake(key);
  }

  async #readLater(key: K, slot: Slot<V>, notBeforeMs: number): Promise<V> {
    const { clock } = this.#parts;
    // Its failure is told to those who wait for it.
    if (slot.running) await slot.running.answer.catch(() => undefined);
    const leftMs = notBeforeMs - clock.monotonicMs();
    if (leftMs > 0) await sleep(clock, leftMs);
    slot.queued = null;
    return this.#start(key, slot);
  }

  #start(key: K, slot: Slot<V>): Promise<V> {
    const began = this.begin();
    const answer = this.#run(key, slot, began);
    slot.running = { answer, order: began.order };
    return answer;
  }

  async #run(key: K, slot: Slot<V>, began: Beginning): Promise<V> {
    try {
      const value = await this.#parts.read(key);
      if (slot.isOvertaken) this.#parts.stale(key);
      else this.#parts.land(key, value, began);
      return value;
    } finally {
      slot.running = null;
      if (!slot.queued && this.#slots.get(key) === slot) this.#slots.delete(key);
    }
  }
}
