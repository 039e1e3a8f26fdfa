/**
 * Clients that read all the time and write down all that they see: from the beginning on, through any broker, now and
 * then again from an older offset, and each partition's ends. Owns: positions. Does not own: judgement. And the last
 * read of everything. The runner's process.
 */
import { setTimeout as sleepMs } from 'node:timers/promises';
import type { Random } from '../../src/core/random.ts';
import { NONSENSE } from './door-client.ts';
import type { Door, Doors } from './doors.ts';
import { FINAL_READER, type HistoryLog } from './history.ts';
import { Backoff, type TopicPlan } from './producers.ts';

export interface ReaderParts {
  history: HistoryLog;
  doors: Doors;
  random: Random;
}

export interface ReadPlace {
  /** As the history names it. */
  label: string;
  topic: string;
  partition: number;
}

const WAIT_MS = 400;
/** Of all reads, that go back to an older offset; of all rounds, that ask for the ends. */
const BACK_SHARE = 0.03;
const ENDS_SHARE = 0.1;
const FINAL_READ_MS_MAX = 120_000;

/** One read, written down; null if it failed. */
export async function readOnce(
  parts: ReaderParts,
  door: Door,
  c: string,
  place: ReadPlace,
  from: number,
  waitMs: number,
): Promise<number | null> {
  const { history } = parts;
  const inv = history.now();
  const answer = await door.client.read(place.topic, place.partition, from, waitMs);
  const call = { inv, b: door.name };
  const where = { ...call, c, topic: place.label, p: place.partition };
  if (answer.ok) {
    history.add({ e: 'read', ...where, from, recs: answer.rows });
    return answer.rows.length;
  }
  const { code } = answer.refusal;
  if (code === 'offset-out-of-range') {
    history.add({ e: 'out-of-range', ...where, from, text: answer.text.slice(0, 300) });
  } else {
    const what = `read ${place.label}/${place.partition}@${from}`;
    history.add({ e: 'trouble', ...call, what, code, ...(code === NONSENSE ? { wrong: true } : {}) });
  }
  return null;
}

/** A partition's ends, written down; null if that failed. */
export async function endsOnce(
  parts: ReaderParts,
  door: Door,
  c: string,
  place: ReadPlace,
): Promise<number | null> {
  const { history } = parts;
  const inv = history.now();
  const answer = await door.client.ends(place.topic, place.partition);
  const call = { inv, b: door.name };
  if (answer.ok) {
    const { begin, end } = answer;
    history.add({ e: 'ends', ...call, c, topic: place.label, p: place.partition, begin, end });
    return end;
  }
  const { code } = answer.refusal;
  const what = `ends ${place.label}/${place.partition}`;
  history.add({ e: 'trouble', ...call, what, code, ...(code === NONSENSE ? { wrong: true } : {}) });
  return null;
}

/** Tails all partitions with some requests at a time. */
export class Reader {
  readonly #parts: ReaderParts;
  readonly #name: string;
  readonly #places: readonly ReadPlace[];
  readonly #positions: number[];
  readonly #inFlight: number;
  #stopped = false;
  #next = 0;
  #running: Promise<unknown> = Promise.resolve();

  constructor(parts: ReaderParts, name: string, topics: readonly TopicPlan[], inFlight: number) {
    this.#parts = parts;
    this.#name = name;
    this.#places = placesOf(topics);
    this.#positions = this.#places.map(() => 0);
    this.#inFlight = inFlight;
  }

  start(): void {
    this.#running = Promise.all(Array.from({ length: this.#inFlight }, () => this.#run()));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    const { doors, random } = this.#parts;
    const backoff = new Backoff(random);
    while (!this.#stopped) {
      // Partitions by turns, so that no two of our requests are in the same one.
      const index = this.#next++ % this.#places.length;
      const place = this.#places[index];
      const door = doors.pick();
      if (door === null) {
        await backoff.wait();
        continue;
      }
      const position = this.#positions[index];
      const from = random.unit() < BACK_SHARE ? random.below(position + 1) : position;
      const count = await readOnce(this.#parts, door, this.#name, place, from, WAIT_MS);
      if (count === null) {
        await backoff.wait();
        continue;
      }
      backoff.reset();
      this.#positions[index] = Math.max(this.#positions[index], from + count);
      if (random.unit() < ENDS_SHARE) await endsOnce(this.#parts, door, this.#name, place);
    }
  }
}

export function placesOf(topics: readonly TopicPlan[]): ReadPlace[] {
  return topics.flatMap(({ name, partitions }) =>
    Array.from({ length: partitions }, (_, partition) => ({ label: name, topic: name, partition })),
  );
}

/** Reads a partition from 0 to its end as the reader whose reads count in the end. False if that cannot be done in time. */
export async function readFinally(parts: ReaderParts, place: ReadPlace): Promise<boolean> {
  const { doors, history } = parts;
  const deadline = performance.now() + FINAL_READ_MS_MAX;
  let end: number | null = null;
  let position = 0;
  while (performance.now() < deadline) {
    const door = doors.pickReady();
    if (door !== null && end === null) {
      end = await endsOnce(parts, door, FINAL_READER, place);
      if (end !== null) continue;
    } else if (door !== null && end !== null) {
      if (position >= end) {
        history.add({ e: 'final', topic: place.label, p: place.partition, end });
        return true;
      }
      const count = await readOnce(parts, door, FINAL_READER, place, position, 0);
      position += count ?? 0;
      if (count !== null && count > 0) continue;
    }
    await sleepMs(100);
  }
  return false;
}
