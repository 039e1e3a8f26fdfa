/**
 * A simulated process and its threads: what reaches them, and when. Owns: pauses (deliveries wait, the clock goes
 * on, as under SIGSTOP), the death of threads, ordered ports with delays, each thread's clock. Does not own: what
 * runs in a thread (broker.ts). The simulation's only thread.
 */
import type { Clock, Timer } from '../../src/core/clock.ts';
import type { Random } from '../../src/core/random.ts';
import type { Scheduler } from './scheduler.ts';

export class SimHost {
  readonly name: string;
  readonly scheduler: Scheduler;
  readonly random: Random;
  /** Wall time less virtual time; may jump either way. */
  wallSkewMs = 0;
  #paused = false;
  readonly #held: (() => void)[] = [];

  constructor(name: string, scheduler: Scheduler, random: Random) {
    this.name = name;
    this.scheduler = scheduler;
    this.random = random;
  }

  get isPaused(): boolean {
    return this.#paused;
  }

  pause(): void {
    this.#paused = true;
  }

  /** What waited is delivered in its order, each in a turn of its own. */
  resume(): void {
    this.#paused = false;
    for (const fire of this.#held.splice(0)) this.scheduler.after(0, () => this.deliver(fire));
  }

  deliver(fire: () => void): void {
    if (this.#paused) this.#held.push(fire);
    else fire();
  }
}

export class SimThread {
  readonly host: SimHost;
  alive = true;
  readonly clock: Clock;

  constructor(host: SimHost) {
    this.host = host;
    const { scheduler } = host;
    this.clock = {
      wallMs: () => 1_700_000_000_000 + scheduler.nowMs + host.wallSkewMs,
      monotonicMs: () => scheduler.nowMs,
      after: (delayMs, fire) => this.#timer(delayMs, fire),
    };
  }

  #timer(delayMs: number, fire: () => void): Timer {
    const event = this.host.scheduler.after(delayMs, () => {
      this.deliver(() => {
        if (!event.cancelled) fire();
      });
    });
    return {
      cancel: () => {
        event.cancelled = true;
      },
    };
  }

  /** Runs `fire` in this thread: now, or when its process goes on; never once the thread is dead. */
  deliver(fire: () => void): void {
    if (!this.alive) return;
    this.host.deliver(() => {
      if (this.alive) fire();
    });
  }
}

/** One direction between two threads: messages arrive in order, late, and not at all once it is closed. */
export class SimPort<T> {
  closed = false;
  readonly #from: SimThread;
  readonly #to: SimThread;
  readonly #receive: (message: T) => void;
  #lastAtMs = 0;

  constructor(from: SimThread, to: SimThread, receive: (message: T) => void) {
    this.#from = from;
    this.#to = to;
    this.#receive = receive;
  }

  post(message: T): void {
    if (!this.#from.alive || this.closed) return;
    const { scheduler, random } = this.#from.host;
    const delayMs = random.below(20) === 0 ? random.unit() * 8 : random.unit() * 0.5;
    const atMs = Math.max(this.#lastAtMs, scheduler.nowMs + delayMs);
    this.#lastAtMs = atMs;
    scheduler.after(atMs - scheduler.nowMs, () => {
      this.#to.deliver(() => {
        if (!this.closed) this.#receive(message);
      });
    });
  }
}
