/**
 * The produce path on the main thread: checks a request, admits it by bytes, packs its appends for the lanes, and
 * answers when all of them are answered. Owns: admission, the table of outstanding appends, deadlines. Does not
 * own: decoding of bodies (server/), record batches (lanes), commits (batching worker). Main thread.
 *
 * An append is one request's share for one partition; a request has one slot of the table for each. What arrives
 * in one turn of the event loop goes out as one message per lane, or several if it is much.
 *
 *   slot: free -> outstanding -> free (generation + 1)
 *   A request that met its deadline is answered, but its slots stay outstanding and its bytes counted until the
 *   answers come: memory that the threads still hold is never admitted twice.
 */
import {
  ANSWER_BYTES,
  type AppendHeader,
  blankAppendHeader,
  forEachProduce,
  PRODUCE_HEADER_BYTES,
  readAnswers,
  writeAppendHeader,
} from '../../workers/append-codec.ts';
import type { Clock, Timer } from '../core/clock.ts';
import { type ErrorCode, type PlainError, StreamHouseError } from '../core/errors.ts';
import { laneOf } from '../core/ids.ts';
import { RECORDS_PER_REQUEST_MAX } from '../core/limits.ts';
import type { ProducePath, ProduceRequest, ProduceResult } from './broker.ts';
import { recordBytesMaxOf } from './topic-configs.ts';

export interface ProduceRouterSettings {
  laneCount: number;
  /** Every copy counted: see COPIES. */
  inFlightBytesMax: number;
  recordBytesMax: number;
  /** Of one append's record batch: what the smallest part on its way takes. */
  appendBytesMax: number;
}

export interface ProduceRouterParts {
  settings: ProduceRouterSettings;
  clock: Clock;
  /** Posts packed appends to a lane, and the memory moves; false when the lane is being started again. */
  toLane(lane: number, bytes: Uint8Array<ArrayBuffer>): boolean;
  /** A request was refused since this topic is deleted: whoever resolved its name must not do so again from memory. */
  topicDeleted(topic: ProduceRequest['topic']): void;
}

/** The lane's message, its record batch, the object: a record is held three times at the worst moment. */
const COPIES = 3;
/** Bytes that a record and an append cost besides their own bytes, in each copy. */
const RECORD_OVERHEAD_BYTES = 16;
const APPEND_OVERHEAD_BYTES = 128;

/** How often deadlines are looked at, ms; a deadline is met that much late at most. */
const DEADLINE_LOOK_MS = 50;

/**
 * A lane's message of so many bytes goes out at once. One turn may read hundreds of requests from each of hundreds
 * of connections, half a second in all: the lane and the window need not wait for its end.
 */
const MESSAGE_BYTES = 64 * 1024;

/** What a code means to a producer, where there is no message of more detail. */
const MESSAGES: Partial<Record<ErrorCode, string>> = {
  'deadline-exceeded': 'the request was not committed in time; whether it will be is unknown',
  'thread-lost': 'the broker lost the thread that carried the request; whether it was committed is unknown',
  'append-abandoned': 'the records were not stored and will not be; try again',
  'not-leader': 'the partition is not served here at the moment; nothing was stored; try again',
  'shutting-down': 'the broker is stopping; nothing was stored; try again elsewhere',
  'store-unknown': 'the metadata store did not tell whether the records were committed',
  'producer-fenced': 'a newer epoch of this producer id is in use',
  'out-of-order-sequence': 'the sequence number does not follow the last one of this producer',
};

/**
 * The log knows that the topic is deleted. Its name may be another topic's by now, so that this is not the end of
 * it: who tries again meets that one, or is told by the catalogue that there is none.
 */
const TOPIC_DELETED: PlainError = {
  code: 'append-abandoned',
  message: 'the topic was deleted, and perhaps made anew; nothing was stored; try again',
};

interface Pending {
  topic: ProduceRequest['topic'];
  done(result: ProduceResult): void;
  offsets: number[];
  errors: (PlainError | null)[] | null;
  /** For each append the indices of its records; null: the one append has all records in order. */
  recordsOf: number[][] | null;
  outstanding: number;
  /** Bytes admitted. */
  cost: number;
  deadlineMs: number;
  timeoutMs: number;
  answered: boolean;
}

/** Packed appends gathered for one lane in this turn. */
class LaneOutbox {
  #buffer = Buffer.allocUnsafeSlow(64 * 1024);
  #length = 0;

  /** Room for `bytes` more; the position where they begin. */
  reserve(bytes: number): number {
    const at = this.#length;
    if (at + bytes > this.#buffer.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(at + bytes, this.#buffer.length * 2));
      this.#buffer.copy(grown, 0, 0, at);
      this.#buffer = grown;
    }
    this.#length += bytes;
    return at;
  }

  get buffer(): Buffer {
    return this.#buffer;
  }

  get length(): number {
    return this.#length;
  }

  take(): Uint8Array<ArrayBuffer> | null {
    if (this.#length === 0) return null;
    const out = new Uint8Array(this.#length);
    out.set(this.#buffer.subarray(0, this.#length));
    this.#length = 0;
    // A burst's memory is not kept.
    if (this.#buffer.length > 4 * 1024 * 1024) this.#buffer = Buffer.allocUnsafeSlow(64 * 1024);
    return out;
  }
}

export class ProduceRouter implements ProducePath {
  readonly #parts: ProduceRouterParts;
  readonly #outboxes: LaneOutbox[];
  readonly #header: AppendHeader = blankAppendHeader();
  // The table of outstanding appends, in columns.
  readonly #pendingOf: (Pending | null)[] = [];
  readonly #appendOf: number[] = [];
  readonly #generationOf: number[] = [];
  readonly #laneOf: number[] = [];
  readonly #free: number[] = [];
  /** Unanswered requests in the order of their deadlines, by timeout. */
  readonly #byTimeout = new Map<number, Set<Pending>>();
  #inFlightBytes = 0;
  #outstanding = 0;
  #flushScheduled = false;
  #stopping = false;
  #timer: Timer | null = null;

  constructor(parts: ProduceRouterParts) {
    this.#parts = parts;
    this.#outboxes = Array.from({ length: parts.settings.laneCount }, () => new LaneOutbox());
    this.#watchDeadlines();
  }

  /** Bytes admitted, every copy counted. */
  get inFlightBytes(): number {
    return this.#inFlightBytes;
  }

  /** Appends outstanding. */
  get outstanding(): number {
    return this.#outstanding;
  }

  submit(request: ProduceRequest, done: (result: ProduceResult) => void): void {
    const count = request.partitions.length;
    const bytes = this.#check(request, count);
    const cost = COPIES * (bytes + count * (RECORD_OVERHEAD_BYTES + APPEND_OVERHEAD_BYTES));
    const { inFlightBytesMax } = this.#parts.settings;
    if (this.#inFlightBytes + cost > inFlightBytesMax) {
      throw new StreamHouseError(
        'overloaded',
        `the broker holds ${this.#inFlightBytes} of ${inFlightBytesMax} bytes of requests; try again later`,
      );
    }
    const pending: Pending = {
      topic: request.topic,
      done,
      offsets: new Array(count).fill(-1),
      errors: null,
      recordsOf: null,
      outstanding: 0,
      cost,
      deadlineMs: this.#parts.clock.monotonicMs() + request.timeoutMs,
      timeoutMs: request.timeoutMs,
      answered: false,
    };
    this.#inFlightBytes += cost;
    this.#packAll(request, pending);
    let waiting = this.#byTimeout.get(request.timeoutMs);
    if (!waiting) this.#byTimeout.set(request.timeoutMs, (waiting = new Set()));
    waiting.add(pending);
    this.#sendFull();
    if (!this.#flushScheduled) {
      this.#flushScheduled = true;
      setImmediate(this.#flush);
    }
  }

  /** Throws what is wrong with the request; returns the bytes of its keys and values. */
  #check(request: ProduceRequest, count: number): number {
    const { topic, partitions, spans, producer } = request;
    if (this.#stopping) throw new StreamHouseError('shutting-down', 'the broker is stopping');
    if (count === 0) throw new StreamHouseError('invalid-request', 'a produce request without records');
    if (count > RECORDS_PER_REQUEST_MAX) {
      throw new StreamHouseError(
        'batch-too-large',
        `${count} records in one request, at most ${RECORDS_PER_REQUEST_MAX} are taken`,
      );
    }
    const { recordBytesMax, appendBytesMax } = this.#parts.settings;
    const limit = Math.min(recordBytesMax, recordBytesMaxOf(topic) ?? recordBytesMax);
    let total = 0;
    for (let i = 0; i < count; i++) {
      const s = i * 4;
      const bytes =
        (spans[s] < 0 ? 0 : spans[s + 1] - spans[s]) + (spans[s + 2] < 0 ? 0 : spans[s + 3] - spans[s + 2]);
      if (bytes > limit) {
        throw new StreamHouseError(
          'record-too-large',
          `record ${i} has ${bytes} bytes, at most ${limit} are taken`,
          {
            record: i,
            bytes,
            limit,
          },
        );
      }
      if (partitions[i] >= topic.partitionCount || partitions[i] < 0) {
        throw new StreamHouseError(
          'partition-not-found',
          `topic ${topic.name} has no partition ${partitions[i]}; it has ${topic.partitionCount}`,
        );
      }
      if (producer && partitions[i] !== partitions[0]) {
        throw new StreamHouseError(
          'invalid-request',
          'records of an idempotent producer must go to one partition in a request',
        );
      }
      total += bytes;
    }
    if (total > appendBytesMax) {
      throw new StreamHouseError(
        'batch-too-large',
        `the request has ${total} bytes of records, at most ${appendBytesMax} are taken`,
      );
    }
    return total;
  }

  #packAll(request: ProduceRequest, pending: Pending): void {
    const { partitions } = request;
    const count = partitions.length;
    let same = true;
    for (let i = 1; i < count && same; i++) same = partitions[i] === partitions[0];
    if (same) {
      pending.outstanding = 1;
      this.#pack(request, pending, 0, null);
      return;
    }
    const groups = new Map<number, number[]>();
    for (let i = 0; i < count; i++) {
      const group = groups.get(partitions[i]);
      if (group) group.push(i);
      else groups.set(partitions[i], [i]);
    }
    pending.recordsOf = [...groups.values()];
    pending.outstanding = groups.size;
    for (let a = 0; a < pending.recordsOf.length; a++) this.#pack(request, pending, a, pending.recordsOf[a]);
  }

  /** Packs append `append` of a request, of these records (null: all), into its lane's outbox. */
  #pack(request: ProduceRequest, pending: Pending, append: number, records: number[] | null): void {
    const { topic, partitions, spans, source, producer } = request;
    const count = records ? records.length : partitions.length;
    const partition = partitions[records ? records[0] : 0];
    const lane = laneOf(topic.topicId, partition, this.#parts.settings.laneCount);
    let dataBytes = 0;
    for (let i = 0; i < count; i++) {
      const s = (records ? records[i] : i) * 4;
      if (spans[s] >= 0) dataBytes += spans[s + 1] - spans[s];
      if (spans[s + 2] >= 0) dataBytes += spans[s + 3] - spans[s + 2];
    }
    const outbox = this.#outboxes[lane];
    const at = outbox.reserve(PRODUCE_HEADER_BYTES + count * 8 + dataBytes);
    const out = outbox.buffer;
    const header = this.#header;
    header.slot = this.#takeSlot(pending, append, lane);
    header.generation = this.#generationOf[header.slot];
    header.topicId = topic.topicId;
    header.partition = partition;
    header.recordCount = count;
    header.dataBytes = dataBytes;
    header.producerId = producer ? producer.producerId : -1;
    header.producerEpoch = producer ? producer.producerEpoch : -1;
    header.baseSequence = producer ? producer.baseSequence : -1;
    writeAppendHeader(out, at, header);
    let lengths = at + PRODUCE_HEADER_BYTES;
    let data = lengths + count * 8;
    for (let i = 0; i < count; i++) {
      const s = (records ? records[i] : i) * 4;
      out.writeInt32LE(spans[s] < 0 ? -1 : spans[s + 1] - spans[s], lengths);
      data = copySpan(out, data, source, spans[s], spans[s + 1]);
      out.writeInt32LE(spans[s + 2] < 0 ? -1 : spans[s + 3] - spans[s + 2], lengths + 4);
      data = copySpan(out, data, source, spans[s + 2], spans[s + 3]);
      lengths += 8;
    }
  }

  #takeSlot(pending: Pending, append: number, lane: number): number {
    let slot = this.#free.pop();
    if (slot === undefined) {
      slot = this.#pendingOf.length;
      this.#generationOf.push(0);
    }
    this.#pendingOf[slot] = pending;
    this.#appendOf[slot] = append;
    this.#laneOf[slot] = lane;
    this.#outstanding++;
    return slot;
  }

  readonly #flush = (): void => {
    this.#flushScheduled = false;
    for (let lane = 0; lane < this.#outboxes.length; lane++) {
      const bytes = this.#outboxes[lane].take();
      if (bytes && !this.#parts.toLane(lane, bytes)) this.#refuse(bytes);
    }
  };

  /** Sends what is enough for a message; no answer comes from inside of it. */
  #sendFull(): void {
    for (let lane = 0; lane < this.#outboxes.length; lane++) {
      if (this.#outboxes[lane].length < MESSAGE_BYTES) continue;
      const bytes = this.#outboxes[lane].take() as Uint8Array<ArrayBuffer>;
      if (!this.#parts.toLane(lane, bytes)) setImmediate(() => this.#refuse(bytes));
    }
  }

  /** The lane is being started again: nothing of these appends happened. */
  #refuse(message: Uint8Array): void {
    forEachProduce(message, ({ slot, generation }) => {
      if (this.#generationOf[slot] === generation) this.#answer(slot, 'not-leader', -1);
    });
  }

  // -- Answers -----------------------------------------------------------------------------------------

  /** A packed message of answers from a lane. */
  answers(message: Uint8Array): void {
    if (message.length % ANSWER_BYTES !== 0)
      throw new Error(`a message of ${message.length} bytes of answers`);
    readAnswers(message, (slot, generation, code, baseOffset) => {
      if (this.#generationOf[slot] === generation) this.#answer(slot, code, baseOffset);
    });
  }

  #answer(slot: number, code: ErrorCode | null, baseOffset: number): void {
    const pending = this.#pendingOf[slot];
    if (pending === null) return;
    this.#pendingOf[slot] = null;
    this.#generationOf[slot] = (this.#generationOf[slot] + 1) >>> 0;
    this.#free.push(slot);
    this.#outstanding--;
    if (code === 'topic-not-found') this.#parts.topicDeleted(pending.topic);
    if (!pending.answered) this.#note(pending, this.#appendOf[slot], code, baseOffset);
    pending.outstanding--;
    if (pending.outstanding > 0) return;
    this.#inFlightBytes -= pending.cost;
    if (!pending.answered) this.#finish(pending);
  }

  #note(pending: Pending, append: number, code: ErrorCode | null, baseOffset: number): void {
    const { recordsOf, offsets } = pending;
    const records = recordsOf ? recordsOf[append] : null;
    const count = records ? records.length : offsets.length;
    if (code === null) {
      for (let i = 0; i < count; i++) offsets[records ? records[i] : i] = baseOffset + i;
      return;
    }
    const message = MESSAGES[code] ?? `the records were refused: ${code}`;
    const error: PlainError = code === 'topic-not-found' ? TOPIC_DELETED : { code, message };
    pending.errors ??= new Array(offsets.length).fill(null);
    for (let i = 0; i < count; i++) pending.errors[records ? records[i] : i] = error;
  }

  #finish(pending: Pending): void {
    pending.answered = true;
    this.#byTimeout.get(pending.timeoutMs)?.delete(pending);
    pending.done({ offsets: pending.offsets, errors: pending.errors });
  }

  // -- Ends --------------------------------------------------------------------------------------------

  /** The thread of a lane ended: what it had is unknown. */
  laneLost(lane: number): void {
    this.#failSlots((slot) => this.#laneOf[slot] === lane);
  }

  /** The batching worker ended: everything outstanding is unknown. */
  sequencerLost(): void {
    this.#failSlots(() => true);
  }

  #failSlots(concerns: (slot: number) => boolean): void {
    this.#flush();
    for (let slot = 0; slot < this.#pendingOf.length; slot++) {
      if (this.#pendingOf[slot] !== null && concerns(slot)) this.#answer(slot, 'thread-lost', -1);
    }
  }

  /** Refuses everything from now on. */
  stop(): void {
    this.#stopping = true;
  }

  /** Ends the looking at deadlines. */
  close(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  #watchDeadlines(): void {
    this.#timer = this.#parts.clock.after(DEADLINE_LOOK_MS, () => {
      this.#expire(this.#parts.clock.monotonicMs());
      this.#watchDeadlines();
    });
  }

  #expire(nowMs: number): void {
    for (const [timeoutMs, waiting] of this.#byTimeout) {
      for (const pending of waiting) {
        if (pending.deadlineMs > nowMs) break;
        const error: PlainError = {
          code: 'deadline-exceeded',
          message: MESSAGES['deadline-exceeded'] as string,
        };
        const { offsets } = pending;
        pending.errors ??= new Array(offsets.length).fill(null);
        for (let i = 0; i < offsets.length; i++) {
          if (offsets[i] < 0 && pending.errors[i] === null) pending.errors[i] = error;
        }
        this.#finish(pending);
      }
      if (waiting.size === 0) this.#byTimeout.delete(timeoutMs);
    }
  }
}

/** Short runs byte by byte: below some tens of bytes a call into native code costs more. */
function copySpan(out: Buffer, at: number, source: Uint8Array, start: number, end: number): number {
  if (start < 0) return at;
  const count = end - start;
  if (count > 48) out.set(source.subarray(start, end), at);
  else for (let i = 0; i < count; i++) out[at + i] = source[start + i];
  return at + count;
}
