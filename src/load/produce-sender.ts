/**
 * Sends produce requests over undici and says what became of each record. Owns: connections, the bytes of a request,
 * which broker it goes to, reading the answer. Does not own: when to send (pacing), which records and whether again
 * (generator). A generator's process.
 *
 * Requests are pipelined: several unanswered on each connection. undici writes again what a lost connection left
 * unanswered behind the first; a produce request must never be sent twice, so a second start is given up. And where
 * there is no second connection to be had, what was written to the first may have happened all the same.
 */
import { type Dispatcher, Pool } from 'undici';
import { answerError, connectionError, outcomeOfErrorCode } from '../client/rest-error.ts';
import type { Clock } from '../core/clock.ts';
import { REFUSED_OFFSET, UNKNOWN_OFFSET } from './ack-log.ts';
import { RecordValues } from './record-value.ts';

const CONTENT_TYPE = { 'content-type': 'application/vnd.kafka.json.v2+json' };
const TIMEOUT_MS = 60_000;
/** So long a broker that could not be reached gets no requests, if there are others; longer each time. */
const AWAY_MS_MIN = 1000;
const AWAY_MS_MAX = 16_000;

/** One request: the records of this generator with these indexes. */
export interface Batch {
  indexes: number[];
  partitions: number[];
  /** Latency counts from here: when it was due, or sent. */
  dueMs: number;
  sentMs: number;
  /** Of one that was sent before: how often, and until when. */
  tries?: number;
  giveUpMs?: number;
}

export interface BatchResult {
  /** By record: an offset, UNKNOWN_OFFSET or REFUSED_OFFSET. */
  offsets: number[];
  acked: number;
  /** Of what was not acknowledged. */
  code: string | null;
  /** Places in the batch of what certainly did not happen and may succeed later. */
  again: number[];
  /** There was no connection at all. */
  isDisconnected: boolean;
}

export interface SenderOptions {
  urls: readonly string[];
  topic: string;
  /** To all brokers together. */
  connections: number;
  pipelining: number;
  valueBytes: number;
  perRequest: number;
  seed: number;
  generator: number;
  generators: number;
  /** False: any answer of status 200 acknowledges (a server that only echoes). */
  readsOffsets: boolean;
  clock: Clock;
}

interface Door {
  url: string;
  pool: Pool;
  path: string;
  awayUntilMs: number;
  awayMs: number;
}

export class ProduceSender {
  readonly #options: SenderOptions;
  readonly #doors: Door[];
  #turn = 0;
  readonly #values: RecordValues;

  constructor(options: SenderOptions) {
    this.#options = options;
    const { urls, connections, seed, valueBytes } = options;
    this.#doors = urls.map((url) => this.#open(url, Math.ceil(connections / urls.length)));
    this.#values = new RecordValues(seed, valueBytes);
  }

  #open(url: string, connections: number): Door {
    const { topic, pipelining } = this.#options;
    const { origin, pathname } = new URL(url);
    const pool = new Pool(origin, {
      connections,
      pipelining,
      headersTimeout: TIMEOUT_MS,
      bodyTimeout: TIMEOUT_MS,
      connectTimeout: 5000,
    });
    const path = `${pathname.replace(/\/+$/, '')}/topics/${encodeURIComponent(topic)}`;
    return { url, pool, path, awayUntilMs: 0, awayMs: AWAY_MS_MIN };
  }

  /** There is one more; it gets its turn, and as many connections as the others have. */
  addBroker(url: string): void {
    this.#doors.push(this.#open(url, Math.ceil(this.#options.connections / this.#options.urls.length)));
  }

  /** In turn, over those that were not found away a moment ago; over all when there is no such. */
  #nextDoor(nowMs: number): Door {
    const { length } = this.#doors;
    for (let tries = 0; tries < length; tries++) {
      const door = this.#doors[this.#turn++ % length];
      if (door.awayUntilMs <= nowMs) return door;
    }
    return this.#doors[this.#turn++ % length];
  }

  /** Calls `done` once. */
  send(batch: Batch, done: (batch: Batch, result: BatchResult) => void): void {
    const { perRequest, clock } = this.#options;
    batch.sentMs = clock.monotonicMs();
    const door = this.#nextDoor(batch.sentMs);
    const ended = (of: Batch, result: BatchResult): void => {
      if (!result.isDisconnected) door.awayMs = AWAY_MS_MIN;
      else leave(door, clock.monotonicMs());
      done(of, result);
    };
    door.pool.dispatch(
      {
        path: perRequest === 1 ? `${door.path}/partitions/${batch.partitions[0]}` : door.path,
        method: 'POST',
        headers: CONTENT_TYPE,
        body: this.#bodyOf(batch),
        // What lets undici pipeline a POST; see above for what it must not do.
        idempotent: true,
        blocking: false,
      },
      new Answer(batch, door.url, this.#options.readsOffsets, ended),
    );
  }

  async close(): Promise<void> {
    await Promise.all(this.#doors.map(({ pool }) => pool.destroy()));
  }

  #bodyOf({ indexes, partitions }: Batch): string {
    const { perRequest, generators, generator } = this.#options;
    if (perRequest === 1) {
      const number = indexes[0] * generators + generator;
      return `{"records":[{"value":"${this.#values.textOf(number, partitions[0])}"}]}`;
    }
    let body = '{"records":[';
    for (let i = 0; i < partitions.length; i++) {
      const number = indexes[i] * generators + generator;
      const partition = partitions[i];
      const comma = i === 0 ? '' : ',';
      body += `${comma}{"partition":${partition},"value":"${this.#values.textOf(number, partition)}"}`;
    }
    return `${body}]}`;
  }
}

/** Many requests fail of one absence. */
function leave(door: Door, nowMs: number): void {
  if (nowMs < door.awayUntilMs) return;
  door.awayUntilMs = nowMs + door.awayMs;
  door.awayMs = Math.min(door.awayMs * 2, AWAY_MS_MAX);
}

class Answer implements Dispatcher.DispatchHandler {
  readonly #batch: Batch;
  readonly #url: string;
  readonly #readsOffsets: boolean;
  readonly #done: (batch: Batch, result: BatchResult) => void;
  #started = false;
  #ended = false;
  #status = 0;
  #text = '';

  constructor(
    batch: Batch,
    url: string,
    readsOffsets: boolean,
    done: (batch: Batch, result: BatchResult) => void,
  ) {
    this.#batch = batch;
    this.#url = url;
    this.#readsOffsets = readsOffsets;
    this.#done = done;
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    if (this.#started) controller.abort(new Error('the connection was lost before the answer'));
    this.#started = true;
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number): void {
    this.#status = status;
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    // Answers to produce requests are ASCII.
    this.#text += chunk.toString('latin1');
  }

  onResponseEnd(): void {
    this.#end(this.#result());
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    const failure = connectionError(error, this.#url);
    // Once it was given to a connection, that the next one was refused says nothing about it.
    const isNothing = failure.outcome === 'nothing' && !this.#started;
    const code = isNothing || failure.outcome !== 'nothing' ? failure.code : 'connection-lost';
    const all = this.#all(isNothing ? REFUSED_OFFSET : UNKNOWN_OFFSET, code, isNothing);
    this.#end({ ...all, isDisconnected: true });
  }

  /** undici takes what a handler throws for a failure of the request: a fault of ours must not look like one. */
  #end(result: BatchResult): void {
    if (this.#ended) return;
    this.#ended = true;
    try {
      this.#done(this.#batch, result);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  #all(offset: number, code: string | null, isAgain = false): BatchResult {
    const count = this.#batch.partitions.length;
    const isAcked = offset < REFUSED_OFFSET;
    return {
      offsets: new Array(count).fill(offset),
      acked: isAcked ? count : 0,
      code,
      again: isAgain ? this.#batch.partitions.map((_, i) => i) : [],
      isDisconnected: false,
    };
  }

  #result(): BatchResult {
    if (this.#status >= 300) return this.#refused();
    if (!this.#readsOffsets) return this.#all(0, null);
    const rows = rowsOf(this.#text);
    const { partitions } = this.#batch;
    if (rows === null || rows.length !== partitions.length) return this.#all(UNKNOWN_OFFSET, 'bad-answer');
    let code: string | null = null;
    let acked = 0;
    const again: number[] = [];
    const offsets = rows.map((row, i) => {
      if (typeof row.offset === 'number' && row.partition === partitions[i]) {
        acked++;
        return row.offset;
      }
      if (typeof row.error_code !== 'number') {
        code = 'bad-answer';
        return UNKNOWN_OFFSET;
      }
      code = String(row.error_code);
      const outcome = outcomeOfErrorCode(row.error_code);
      if (outcome === 'nothing') again.push(i);
      return outcome === 'unknown' ? UNKNOWN_OFFSET : REFUSED_OFFSET;
    });
    return { offsets, acked, code, again, isDisconnected: false };
  }

  #refused(): BatchResult {
    const { outcome, code } = answerError(this.#status, undefined, this.#text);
    return this.#all(outcome === 'unknown' ? UNKNOWN_OFFSET : REFUSED_OFFSET, code, outcome === 'nothing');
  }
}

interface AnswerRow {
  partition?: unknown;
  offset?: unknown;
  error_code?: unknown;
}

function objectOf(text: string): Record<string, unknown> | null {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === 'object' && parsed !== null ? (parsed as Record<string, unknown>) : null;
  } catch {
    // Not JSON: some other server answered, and the status must do.
    return null;
  }
}

function rowsOf(text: string): AnswerRow[] | null {
  const rows = objectOf(text)?.offsets;
  return Array.isArray(rows) ? (rows as AnswerRow[]) : null;
}
