/**
 * Sends produce requests over undici and says what became of each record. Owns: connections, the bytes of a request,
 * reading the answer. Does not own: when to send (pacing) or which records (generator). A generator's process.
 *
 * Requests are pipelined: several unanswered on each connection. undici writes again what a lost connection left
 * unanswered behind the first; a produce request must never be sent twice, so a second start is given up.
 */
import { type Dispatcher, Pool } from 'undici';
import { connectionError, outcomeOfErrorCode, outcomeOfStatus } from '../client/rest-error.ts';
import type { Clock } from '../core/clock.ts';
import { REFUSED_OFFSET, UNKNOWN_OFFSET } from './ack-log.ts';
import { RecordValues } from './record-value.ts';

const CONTENT_TYPE = { 'content-type': 'application/vnd.kafka.json.v2+json' };
const TIMEOUT_MS = 60_000;

/** One request: records [firstIndex, firstIndex + partitions.length) of this generator. */
export interface Batch {
  firstIndex: number;
  partitions: number[];
  /** Latency counts from here: when it was due, or sent. */
  dueMs: number;
  sentMs: number;
}

export interface BatchResult {
  /** By record: an offset, UNKNOWN_OFFSET or REFUSED_OFFSET. */
  offsets: number[];
  acked: number;
  /** Of what was not acknowledged. */
  code: string | null;
  /** There was no connection at all. */
  isDisconnected: boolean;
}

export interface SenderOptions {
  url: string;
  topic: string;
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

export class ProduceSender {
  readonly #options: SenderOptions;
  readonly #pool: Pool;
  readonly #path: string;
  readonly #values: RecordValues;

  constructor(options: SenderOptions) {
    this.#options = options;
    const { url, topic, connections, pipelining, seed, valueBytes } = options;
    const { origin, pathname } = new URL(url);
    this.#pool = new Pool(origin, {
      connections,
      pipelining,
      headersTimeout: TIMEOUT_MS,
      bodyTimeout: TIMEOUT_MS,
      connectTimeout: 5000,
    });
    this.#path = `${pathname.replace(/\/+$/, '')}/topics/${encodeURIComponent(topic)}`;
    this.#values = new RecordValues(seed, valueBytes);
  }

  /** Calls `done` once. */
  send(batch: Batch, done: (batch: Batch, result: BatchResult) => void): void {
    batch.sentMs = this.#options.clock.monotonicMs();
    const { perRequest } = this.#options;
    this.#pool.dispatch(
      {
        path: perRequest === 1 ? `${this.#path}/partitions/${batch.partitions[0]}` : this.#path,
        method: 'POST',
        headers: CONTENT_TYPE,
        body: this.#bodyOf(batch),
        // What lets undici pipeline a POST; see above for what it must not do.
        idempotent: true,
        blocking: false,
      },
      new Answer(batch, this.#options, done),
    );
  }

  async close(): Promise<void> {
    await this.#pool.destroy();
  }

  #bodyOf({ firstIndex, partitions }: Batch): string {
    const { perRequest, generators, generator } = this.#options;
    let number = firstIndex * generators + generator;
    if (perRequest === 1) {
      return `{"records":[{"value":"${this.#values.textOf(number, partitions[0])}"}]}`;
    }
    let body = '{"records":[';
    for (let i = 0; i < partitions.length; i++, number += generators) {
      const partition = partitions[i];
      const comma = i === 0 ? '' : ',';
      body += `${comma}{"partition":${partition},"value":"${this.#values.textOf(number, partition)}"}`;
    }
    return `${body}]}`;
  }
}

class Answer implements Dispatcher.DispatchHandler {
  readonly #batch: Batch;
  readonly #options: SenderOptions;
  readonly #done: (batch: Batch, result: BatchResult) => void;
  #started = false;
  #ended = false;
  #status = 0;
  #text = '';

  constructor(batch: Batch, options: SenderOptions, done: (batch: Batch, result: BatchResult) => void) {
    this.#batch = batch;
    this.#options = options;
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
    const failure = connectionError(error, this.#options.url);
    const offset = failure.outcome === 'nothing' ? REFUSED_OFFSET : UNKNOWN_OFFSET;
    this.#end({ ...this.#all(offset, failure.code), isDisconnected: true });
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

  #all(offset: number, code: string | null): BatchResult {
    const count = this.#batch.partitions.length;
    const isAcked = offset < REFUSED_OFFSET;
    return {
      offsets: new Array(count).fill(offset),
      acked: isAcked ? count : 0,
      code,
      isDisconnected: false,
    };
  }

  #result(): BatchResult {
    if (this.#status >= 300) return this.#refused();
    if (!this.#options.readsOffsets) return this.#all(0, null);
    const rows = rowsOf(this.#text);
    const { partitions } = this.#batch;
    if (rows === null || rows.length !== partitions.length) return this.#all(UNKNOWN_OFFSET, 'bad-answer');
    let code: string | null = null;
    let acked = 0;
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
      return outcomeOfErrorCode(row.error_code) === 'unknown' ? UNKNOWN_OFFSET : REFUSED_OFFSET;
    });
    return { offsets, acked, code, isDisconnected: false };
  }

  #refused(): BatchResult {
    const body = objectOf(this.#text);
    const isUnknown = (body?.outcome ?? outcomeOfStatus(this.#status)) === 'unknown';
    const code = typeof body?.code === 'string' ? body.code : `http-${this.#status}`;
    return this.#all(isUnknown ? UNKNOWN_OFFSET : REFUSED_OFFSET, code);
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
