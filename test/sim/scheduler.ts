/**
 * Virtual time: a queue of events, fired one by one in the order of their times, all promises settled between
 * two of them. Owns: the order of everything in a simulated run, and its trace. Does not own: what happens. One
 * seed gives one order: nothing here asks the system's clock or its randomness. The simulation's only thread.
 */

export interface SimEvent {
  readonly atMs: number;
  readonly order: number;
  readonly fire: () => void;
  cancelled: boolean;
}

/** One line of the trace, formatted only when somebody looks. */
export interface TraceLine {
  atMs: number;
  kind: string;
  details: readonly (number | string)[];
}

/** Lines kept for the report of a failing seed. */
const TRACE_LINES_KEPT = 400;
/** Turns of the event loop asked for at once; promises are settled between any two of them. */
const TURNS_AT_ONCE = 64;

export class Scheduler {
  nowMs = 0;
  fired = 0;
  /** Everything that was traced, as one number. */
  traceHash = 0x811c9dc5;
  /** Called with each line, where somebody wants all of them. */
  onTrace: ((line: TraceLine) => void) | null = null;
  readonly #heap: SimEvent[] = [];
  readonly #lines: TraceLine[] = [];
  #order = 0;

  /** Fires once after `delayMs` of virtual time. */
  after(delayMs: number, fire: () => void): SimEvent {
    const event = { atMs: this.nowMs + Math.max(0, delayMs), order: this.#order++, fire, cancelled: false };
    this.#push(event);
    return event;
  }

  trace(kind: string, ...details: (number | string)[]): void {
    const line = { atMs: this.nowMs, kind, details };
    this.#mix(Math.round(this.nowMs * 1024));
    this.#mixText(kind);
    for (const detail of details) {
      if (typeof detail === 'number') this.#mix(Math.round(detail * 1024));
      else this.#mixText(detail);
    }
    this.#lines.push(line);
    if (this.#lines.length >= 2 * TRACE_LINES_KEPT) this.#lines.splice(0, TRACE_LINES_KEPT);
    if (this.onTrace) this.onTrace(line);
  }

  /** The newest lines, oldest first. */
  lastLines(count: number): string[] {
    return this.#lines.slice(-count).map(formatLine);
  }

  #mix(value: number): void {
    this.traceHash = Math.imul(this.traceHash ^ (value | 0), 0x01000193) >>> 0;
  }

  #mixText(text: string): void {
    for (let i = 0; i < text.length; i++) this.#mix(text.charCodeAt(i));
  }

  /** Fires events until `isDone` or until none is left; rejects with whatever an event throws. */
  run(isDone: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      let asked = 0;
      let ended = false;
      const ask = () => {
        for (; asked < TURNS_AT_ONCE; asked++) setImmediate(turn);
      };
      const turn = () => {
        asked--;
        if (ended) return;
        try {
          if (isDone() || !this.#fireNext()) {
            ended = true;
            resolve();
          }
        } catch (error) {
          ended = true;
          reject(error);
        }
        if (!ended && asked === 0) ask();
      };
      ask();
    });
  }

  #fireNext(): boolean {
    for (;;) {
      const event = this.#pop();
      if (event === undefined) return false;
      if (event.cancelled) continue;
      this.nowMs = event.atMs;
      this.fired++;
      event.fire();
      return true;
    }
  }

  #push(event: SimEvent): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent])) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): SimEvent | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
      if (!isBefore(heap[child], last)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: SimEvent, b: SimEvent): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

export function formatLine(line: TraceLine): string {
  return `${line.atMs.toFixed(2).padStart(10)} ${line.kind.padEnd(22)} ${line.details.join(' ')}`;
}
