/**
 * What clients of a cluster did and were told, as lines of JSON in a file, in the order in which it happened. Owns: the
 * shapes of the events, writing and reading them. Does not own: what is right and wrong (checker.ts). The runner's
 * process; one clock (`at`, ms since its start) for all of it, so that "before" means before.
 */
import { createReadStream, createWriteStream, type WriteStream } from 'node:fs';
import { createInterface } from 'node:readline';

/**
 * What a client knows of an append that it has no offset for.
 *
 * none      the broker said that nothing happened, or the connection was never made
 * unknown   it may have happened
 */
export type Outcome = 'none' | 'unknown';

/** Of one record: its offset, or why there is none. */
export type RecordResult = number | readonly [outcome: Outcome, code: string];

/** Partition and text; texts are never used twice, so that a text names its record. */
export type SentPair = readonly [partition: number, text: string];

/** Offset, timestamp, key, and value as read; a value that is not UTF-8 is 'base64:...'. */
export type ReadRow = readonly [offset: number, timestamp: number, key: string | null, text: string | null];

interface Happened {
  at: number;
}

/** A call that began at `inv` and was answered at `at` by broker `b`. */
interface Answered extends Happened {
  inv: number;
  b: string;
}

interface OfPartition {
  topic: string;
  p: number;
}

/** A topic of which records may be sent from now on. `topic` is its name and, where a name is used again, `~LIFE`. */
export interface TopicEvent extends Happened {
  e: 'topic';
  topic: string;
  partitions: number;
}

/** Its deletion was asked for; with `done`, it was confirmed. */
export interface TopicEndEvent extends Happened {
  e: 'topic-end';
  topic: string;
  done: boolean;
}

/**
 * A request to append. `x`: the producer is idempotent and `q` the sequence number of its first record. `pipe`: it went
 * over this connection behind all earlier requests of the same name, without waiting for their answers.
 */
export interface SendEvent extends Happened {
  e: 'send';
  /** Number of the request; a repeated one has a new number. */
  r: number;
  b: string;
  prod: string;
  x?: boolean;
  q?: number;
  pipe?: string;
  topic: string;
  recs: readonly SentPair[];
}

/** Its answer, record by record. */
export interface DoneEvent extends Happened {
  e: 'done';
  r: number;
  res: readonly RecordResult[];
  /** A refusal that no retry mends: here nothing is wrong with any request. */
  forGood?: boolean;
}

/** Records from offset `from` on, as reader `c` got them; none: there was nothing at `from`. */
export interface ReadEvent extends Answered, OfPartition {
  e: 'read';
  c: string;
  from: number;
  recs: readonly ReadRow[];
}

/** A partition's first and next offset. */
export interface EndsEvent extends Answered, OfPartition {
  e: 'ends';
  c: string;
  begin: number;
  end: number;
}

/** A reader was told that `from` is out of range. */
export interface OutOfRangeEvent extends Answered, OfPartition {
  e: 'out-of-range';
  c: string;
  from: number;
  text: string;
}

/** A read that failed otherwise, or an answer that makes no sense. */
export interface TroubleEvent extends Answered {
  e: 'trouble';
  what: string;
  code: string;
  /** True: no broker may say that, whatever happens. */
  wrong?: boolean;
}

/** All records of a partition were read by the reader 'final', to `end`. */
export interface FinalEvent extends Happened, OfPartition {
  e: 'final';
  end: number;
}

/** The run says what it does, and what it found itself. */
export interface NoteEvent extends Happened {
  e: 'note';
  what: string;
  [more: string]: unknown;
}

export type HistoryEvent =
  | TopicEvent
  | TopicEndEvent
  | SendEvent
  | DoneEvent
  | ReadEvent
  | EndsEvent
  | OutOfRangeEvent
  | TroubleEvent
  | FinalEvent
  | NoteEvent;

/** The reader whose reads prove what is there at the end. */
export const FINAL_READER = 'final';

type Untimed<T> = T extends HistoryEvent ? Omit<T, 'at'> : never;

export class HistoryLog {
  readonly path: string;
  readonly #stream: WriteStream;
  #requests = 0;

  constructor(path: string) {
    this.path = path;
    this.#stream = createWriteStream(path);
  }

  now(): number {
    return Math.round(performance.now() * 1000) / 1000;
  }

  nextRequest(): number {
    return ++this.#requests;
  }

  /** Writes it down and gives it the time, which it returns. What is written is small beside what is sent. */
  add(event: Untimed<HistoryEvent>): number {
    const at = this.now();
    // These two end a line for readline, and may stand in JSON as they are.
    const line = JSON.stringify({ at, ...event })
      .replaceAll('\u2028', '\\u2028')
      .replaceAll('\u2029', '\\u2029');
    this.#stream.write(`${line}\n`);
    return at;
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#stream.once('error', reject);
      this.#stream.end(resolve);
    });
  }
}

export async function* readHistory(path: string): AsyncGenerator<HistoryEvent> {
  const lines = createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY });
  for await (const line of lines) if (line !== '') yield JSON.parse(line) as HistoryEvent;
}
