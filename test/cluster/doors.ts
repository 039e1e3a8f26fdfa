/**
 * The brokers' addresses as a client knows them: it takes any, and leaves one alone for a while that did not answer.
 * Owns: the choice. Does not own: brokers nor connections. The runner's process.
 */
import type { Random } from '../../src/core/random.ts';
import type { Answer, DoorClient } from './door-client.ts';

export interface Door {
  readonly name: string;
  readonly client: DoorClient;
}

/** How long a broker that did not answer in time is left alone. */
const AVOIDED_MS = 3000;

export class Doors {
  readonly #open = new Map<string, Door>();
  readonly #avoidedUntil = new Map<Door, number>();
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  open(door: Door): void {
    this.#open.set(door.name, door);
  }

  close(name: string): void {
    const door = this.#open.get(name);
    if (door === undefined) return;
    this.#open.delete(name);
    this.#avoidedUntil.delete(door);
    void door.client.close();
  }

  /** Any, those that answered before others; null if there is none. */
  pick(): Door | null {
    const now = performance.now();
    const doors = [...this.#open.values()];
    const good = doors.filter((door) => (this.#avoidedUntil.get(door) ?? 0) <= now);
    const from = good.length > 0 ? good : doors;
    return from.length === 0 ? null : from[this.#random.below(from.length)];
  }

  /** What came of a call is told, so that one that does not answer is left alone. */
  note(door: Door, answer: Answer<object>): void {
    if (answer.ok || !answer.refusal.timedOut) return;
    if (this.#open.get(door.name) === door) this.#avoidedUntil.set(door, performance.now() + AVOIDED_MS);
  }
}
