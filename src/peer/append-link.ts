/**
 * The way of appends to one other broker: gathers them, and sends one message after another. Owns: what waits, the
 * order, the pace. Does not own: what becomes of a message (append-exchange), how many bytes may wait (produce-router).
 * Main thread.
 *
 *   gathering -> message sent -> its status line came -> the next message, FORWARD_GATHER_MS after the last
 *
 * The next message goes only when the other broker has taken the last one: so a client's requests reach the lanes there
 * in the order in which they came here. The answers of several messages stream back side by side.
 *
 * A broker that takes no messages (stopped, or lost in the network) is refused more as soon as one has waited for
 * FORWARD_QUEUE_MS_MAX, and what was gathered by then is refused too: nothing of it was sent.
 */
import {
  type AppendHeader,
  blankAppendHeader,
  PRODUCE_HEADER_BYTES,
  readAppendHeader,
} from '../../workers/append-codec.ts';
import type { Clock, Timer } from '../core/clock.ts';
import type { ErrorCode } from '../core/errors.ts';
import {
  FORWARD_GATHER_MS,
  FORWARD_MESSAGE_BYTES,
  FORWARD_QUEUE_MS_MAX,
  FORWARD_STREAMS_MAX,
} from '../core/limits.ts';
import {
  MESSAGE_HEADER_BYTES,
  WIRE_APPEND_HEADER_BYTES,
  writeMessageHeader,
  writeWireAppend,
} from '../protocol/peer/append-message.ts';
import { AppendExchange } from './append-exchange.ts';

export interface AppendLinkParts {
  clock: Clock;
  /** Time after which a broker that sends nothing is given up, ms. */
  silenceMsMax: number;
  /** Begins to send a message. */
  post(exchange: AppendExchange, body: Buffer): void;
  /** Exactly once for each append that was taken; never from inside of `send`. */
  answered(slot: number, generation: number, code: ErrorCode | null, baseOffset: number): void;
  /** A message was taken, after so many ms. */
  roundTrip(ms: number): void;
  warn(message: string, fields: Record<string, unknown>): void;
}

/** Between two warnings about one broker, ms. */
const WARN_MS = 5000;

/** Appends that will be one message. */
class Chunk {
  buffer: Buffer;
  length = MESSAGE_HEADER_BYTES;
  /** Slot and generation of each append by turns. */
  readonly tokens: number[] = [];
  readonly sinceMs: number;

  constructor(bytes: number, nowMs: number) {
    this.buffer = Buffer.allocUnsafeSlow(Math.max(4096, MESSAGE_HEADER_BYTES + bytes));
    this.sinceMs = nowMs;
  }

  get count(): number {
    return this.tokens.length / 2;
  }

  reserve(bytes: number): void {
    if (this.length + bytes <= this.buffer.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.length + bytes, this.buffer.length * 2));
    this.buffer.copy(grown, 0, 0, this.length);
    this.buffer = grown;
  }

  /** The whole message. */
  take(): Buffer {
    writeMessageHeader(this.buffer, this.count);
    return this.buffer.subarray(0, this.length);
  }
}

export class AppendLink {
  readonly #parts: AppendLinkParts;
  readonly #header: AppendHeader = blankAppendHeader();
  /** In order; only the last one still takes appends. */
  readonly #chunks: Chunk[] = [];
  /** The message whose status line has not come. */
  #sending: AppendExchange | null = null;
  readonly #exchanges = new Set<AppendExchange>();
  #sentAtMs = Number.NEGATIVE_INFINITY;
  #warnedAtMs = Number.NEGATIVE_INFINITY;
  #timer: Timer | null = null;
  #isScheduled = false;
  #isClosed = false;
  /** Monotonic time at which an append was taken last. */
  usedAtMs = 0;

  constructor(parts: AppendLinkParts) {
    this.#parts = parts;
  }

  /** Nothing waits and nothing is under way. */
  get isIdle(): boolean {
    return this.#chunks.length === 0 && this.#exchanges.size === 0;
  }

  /** Messages that are being answered. */
  get streams(): number {
    return this.#exchanges.size;
  }

  /** Takes a copy of one packed append, or says why not. */
  send(packed: Buffer): ErrorCode | null {
    const nowMs = this.#parts.clock.monotonicMs();
    this.usedAtMs = nowMs;
    if (this.#isClosed || this.#isStalled(nowMs)) return 'not-leader';
    const header = this.#header;
    readAppendHeader(packed, 0, header);
    const bytes = WIRE_APPEND_HEADER_BYTES + packed.length - PRODUCE_HEADER_BYTES;
    let chunk = this.#chunks.at(-1);
    if (!chunk || chunk.length + bytes > FORWARD_MESSAGE_BYTES) {
      this.#chunks.push((chunk = new Chunk(bytes, nowMs)));
    }
    chunk.reserve(bytes);
    chunk.tokens.push(header.slot, header.generation);
    const { topicId, partition, recordCount, producerId, producerEpoch, baseSequence } = header;
    chunk.length = writeWireAppend(chunk.buffer, chunk.length, {
      topicId,
      partition,
      recordCount,
      producerId,
      producerEpoch,
      baseSequence,
      bytes: packed.subarray(PRODUCE_HEADER_BYTES),
    });
    this.#schedule();
    return null;
  }

  #isStalled(nowMs: number): boolean {
    return this.#sending !== null && nowMs - this.#sending.sentAtMs > FORWARD_QUEUE_MS_MAX;
  }

  /** At the end of the turn, or when the pace allows it. */
  #schedule(): void {
    if (this.#isScheduled || this.#timer || !this.#maySend()) return;
    const leftMs = this.#sentAtMs + FORWARD_GATHER_MS - this.#parts.clock.monotonicMs();
    if (leftMs > 0 && this.#chunks.length === 1) {
      this.#timer = this.#parts.clock.after(leftMs, () => {
        this.#timer = null;
        this.#sendNext();
      });
      return;
    }
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#sendNext();
    });
  }

  #maySend(): boolean {
    return this.#chunks.length > 0 && this.#sending === null && this.#exchanges.size < FORWARD_STREAMS_MAX;
  }

  #sendNext(): void {
    if (!this.#maySend() || this.#isClosed) return;
    const chunk = this.#chunks.shift() as Chunk;
    const { tokens } = chunk;
    const nowMs = this.#parts.clock.monotonicMs();
    const exchange = new AppendExchange(chunk.count, nowMs, {
      answered: (index, code, baseOffset) =>
        this.#parts.answered(tokens[index * 2], tokens[index * 2 + 1], code, baseOffset),
      settled: (settled) => this.#settled(settled),
      ended: (ended) => this.#ended(ended),
      warn: (message, fields) => this.#warn(message, fields),
    });
    this.#sentAtMs = nowMs;
    this.#sending = exchange;
    this.#exchanges.add(exchange);
    this.#parts.post(exchange, chunk.take());
  }

  #settled(exchange: AppendExchange): void {
    if (this.#sending !== exchange) return;
    this.#sending = null;
    this.#parts.roundTrip(this.#parts.clock.monotonicMs() - exchange.sentAtMs);
    this.#schedule();
  }

  #ended(exchange: AppendExchange): void {
    this.#exchanges.delete(exchange);
    // Nobody is there: what was gathered would fare no better.
    if (exchange.isUnreachable) this.#refuse(Number.POSITIVE_INFINITY);
    this.#schedule();
  }

  /** Refuses what has waited since before this time: nothing of it was sent. */
  #refuse(beforeMs: number): void {
    let count = 0;
    while (count < this.#chunks.length && this.#chunks[count].sinceMs < beforeMs) count++;
    // Whoever is told of a refusal may send again at once: that is of the next ones.
    for (const { tokens } of this.#chunks.splice(0, count)) {
      for (let i = 0; i < tokens.length; i += 2) {
        this.#parts.answered(tokens[i], tokens[i + 1], 'not-leader', -1);
      }
    }
  }

  /** A broker that is away fails many messages: once is enough for the log. */
  #warn(message: string, fields: Record<string, unknown>): void {
    const nowMs = this.#parts.clock.monotonicMs();
    if (nowMs - this.#warnedAtMs < WARN_MS) return;
    this.#warnedAtMs = nowMs;
    this.#parts.warn(message, fields);
  }

  /** Looks for messages that nothing is heard of, and for appends that have waited too long. */
  look(nowMs: number): void {
    this.#refuse(nowMs - FORWARD_QUEUE_MS_MAX);
    for (const exchange of this.#exchanges) {
      if (nowMs - exchange.heardAtMs > this.#parts.silenceMsMax) exchange.abort('the broker is silent');
    }
  }

  /** Sends nothing any more; what is under way is lost, what was not sent is refused. */
  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
    for (const exchange of this.#exchanges) exchange.abort('the broker closes');
    this.#refuse(Number.POSITIVE_INFINITY);
  }
}
