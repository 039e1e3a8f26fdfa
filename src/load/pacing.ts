/**
 * When requests are sent. Owns: the two ways, and the due time from which latency counts. Does not own: requests.
 * A generator's process, or a test with a clock of its own.
 *
 *   closed  so many requests are always unanswered; a request is due when it is sent. How fast is the answer.
 *   open    requests are due by a schedule, whatever became of those before: one that is sent late, because this
 *           process or the broker was busy, counts from the time at which it was due (no coordinated omission). When
 *           too many are unanswered the next ones wait here, where they cost no memory, and are late.
 */
import type { Clock, Timer } from '../core/clock.ts';

export interface Pacer {
  /** A request was answered, or failed; `isDisconnected`: the server was not there. */
  answered(isDisconnected: boolean): void;
  /** Sends nothing more. */
  stop(): void;
}

/** Sends the next request, due at this time; false: there is none left. */
export type SendNext = (dueMs: number) => boolean;

/** Before the next try at a server that is not there, ms. */
const ABSENT_PAUSE_MS = 100;

export class ClosedLoop implements Pacer {
  readonly #clock: Clock;
  readonly #next: SendNext;
  #stopped = false;

  constructor(clock: Clock, inFlight: number, next: SendNext) {
    this.#clock = clock;
    this.#next = next;
    // In slices: a burst of thousands would hold up the first answers.
    this.#begin(inFlight);
  }

  answered(isDisconnected: boolean): void {
    if (this.#stopped) return;
    if (isDisconnected) this.#clock.after(ABSENT_PAUSE_MS, () => this.#send());
    else this.#send();
  }

  stop(): void {
    this.#stopped = true;
  }

  #begin(left: number): void {
    for (let i = 0; i < BEGIN_SLICE && i < left; i++) this.#send();
    if (left > BEGIN_SLICE) this.#clock.after(1, () => this.#begin(left - BEGIN_SLICE));
  }

  #send(): void {
    if (!this.#stopped && !this.#next(this.#clock.monotonicMs())) this.#stopped = true;
  }
}

const BEGIN_SLICE = 512;

/** When request i is due, ms after the beginning. */
export type Schedule = (i: number) => number;

/** Requests evenly spaced, or all of a burst at once. */
export function rateSchedule(requestsPerS: number): Schedule {
  return (i) => (i * 1000) / requestsPerS;
}

export function burstSchedule(requestsPerBurst: number, everyMs: number): Schedule {
  return (i) => Math.floor(i / requestsPerBurst) * everyMs;
}

export class OpenLoop implements Pacer {
  readonly #clock: Clock;
  readonly #schedule: Schedule;
  readonly #beginMs: number;
  readonly #inFlightMax: number;
  readonly #next: SendNext;
  #count = 0;
  #outstanding = 0;
  #timer: Timer | null = null;
  #stopped = false;

  /** `beginMs` is of the clock's monotonic time. */
  constructor(clock: Clock, schedule: Schedule, beginMs: number, inFlightMax: number, next: SendNext) {
    this.#clock = clock;
    this.#schedule = schedule;
    this.#beginMs = beginMs;
    this.#inFlightMax = inFlightMax;
    this.#next = next;
    this.#sendDue();
  }

  answered(): void {
    this.#outstanding--;
    // Many answers come in one turn: one look at the schedule does for all.
    if (this.#timer === null && !this.#stopped) this.#timer = this.#clock.after(0, () => this.#sendDue());
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #sendDue(): void {
    this.#timer = null;
    if (this.#stopped) return;
    const nowMs = this.#clock.monotonicMs();
    let dueMs = this.#beginMs + this.#schedule(this.#count);
    // Answers must be read meanwhile, however late this is.
    for (let sent = 0; dueMs <= nowMs && sent < SENT_PER_TURN; sent++) {
      // An answer looks again.
      if (this.#outstanding >= this.#inFlightMax) return;
      if (!this.#next(dueMs)) {
        this.#stopped = true;
        return;
      }
      this.#outstanding++;
      this.#count++;
      dueMs = this.#beginMs + this.#schedule(this.#count);
    }
    this.#timer = this.#clock.after(Math.max(0, dueMs - nowMs), () => this.#sendDue());
  }
}

const SENT_PER_TURN = 1024;
