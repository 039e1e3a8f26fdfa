/**
 * The brokers' addresses as clients know them, and what a load balancer knows of their health: it asks each whether it
 * is ready, all the time. Owns: the choice. Does not own: brokers nor connections. The runner's process.
 */
import { setTimeout as sleepMs } from 'node:timers/promises';
import type { Random } from '../../src/core/random.ts';
import type { DoorClient } from './door-client.ts';

export interface Door {
  readonly name: string;
  readonly client: DoorClient;
}

const HEALTH_EVERY_MS = 400;
/** A broker that does not say within this time that it is ready, is not. */
const HEALTH_MS_MAX = 800;

export class Doors {
  readonly #open = new Map<string, Door>();
  readonly #unready = new Set<Door>();
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  open(door: Door): void {
    this.#open.set(door.name, door);
    void this.#watchHealth(door);
  }

  close(name: string): void {
    const door = this.#open.get(name);
    if (door === undefined) return;
    this.#open.delete(name);
    this.#unready.delete(door);
    void door.client.close();
  }

  /** Any whose process runs; null if there is none. */
  pick(): Door | null {
    return this.#oneOf([...this.#open.values()]);
  }

  /** One of those that said they are ready, else any. */
  pickReady(): Door | null {
    const ready = [...this.#open.values()].filter((door) => !this.#unready.has(door));
    return this.#oneOf(ready) ?? this.pick();
  }

  #oneOf(doors: readonly Door[]): Door | null {
    return doors.length === 0 ? null : doors[this.#random.below(doors.length)];
  }

  async #watchHealth(door: Door): Promise<void> {
    while (this.#open.get(door.name) === door) {
      const isReady = await door.client.isReady(HEALTH_MS_MAX);
      if (this.#open.get(door.name) !== door) return;
      if (isReady) this.#unready.delete(door);
      else this.#unready.add(door);
      await sleepMs(HEALTH_EVERY_MS);
    }
  }
}
