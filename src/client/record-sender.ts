/**
 * Appends a stream of records to a topic through a RestClient: many records per request, several requests at a
 * time, and yet the records of a partition in the order in which they came. Owns batching, the partition of
 * each record, resending, and the counts. Does not own the requests (rest-client.ts) nor where records come
 * from. Main thread.
 *
 * Order: every partition belongs to one queue and a queue has one request in flight, so that a partition's
 * records can neither overtake one another nor be split over two open requests.
 * Resending: what certainly did not happen is sent again, ahead of what waits behind it, until `retryMsMax`
 * has passed. What may have happened is sent again only by an idempotent sender, unchanged and under the same
 * sequence numbers, which the broker recognizes; any other sender stops there and says how many records are in
 * doubt. Which broker gets it is the client's choice: the shard, not the broker, remembers producers.
 */
import { type Clock, sleep, type Timer } from '../core/clock.ts';
import { partitionOfKeyBytes } from '../core/partitioner.ts';
import type { Random } from '../core/random.ts';
import type { Embedded, OutgoingRecord, RecordAnswer, RestClient } from './rest-client.ts';
import { connectionError, RestError } from './rest-error.ts';

export interface RecordSenderOptions {
  client: RestClient;
  topic: string;
  partitionCount: number;
  embedded: Embedded;
  clock: Clock;
  random: Random;
  /** Requests at a time. Default 8. */
  inFlightMax?: number;
  /** Records of one request at most. Default 5000. */
  batchRecordsMax?: number;
  /** Key and value bytes of one request, about, at most. Default 1 MiB. */
  batchBytesMax?: number;
  /** How long a record waits for others while nothing else is in flight before it. Default 5 ms. */
  lingerMs?: number;
  /** How long what did not happen is tried again. Default 60 s. */
  retryMsMax?: number;
  /** Sends with this producer's stamp, one partition per request. */
  producer?: { producerId: number; producerEpoch: number } | null;
  /** Called for every answered request. */
  onRequest?: (latencyMs: number, recordCount: number) => void;
  /** Called for every acknowledged record. */
  onAcknowledged?: (record: OutgoingRecord, partition: number, offset: number) => void;
}

/** What became of the records that were added so far. */
export interface SendCounts {
  acknowledged: number;
  /** May or may not have been appended. */
  unknown: number;
  /** Not appended. */
  failed: number;
  requests: number;
  /** Records that were sent more than once. */
  resent: number;
}

interface Pending {
  record: OutgoingRecord;
  partition: number;
  bytes: number;
}

interface Queue {
  waiting: Pending[];
  waitingBytes: number;
  /** A request is open, or waits to be sent again. */
  busy: boolean;
  timer: Timer | null;
  /** In the list of those that have something to send. */
  ready: boolean;
  /** The next record's sequence number; of an idempotent sender, whose queues are single partitions. */
  nextSequence: number;
}

/** A record costs about this much beside its key and value, in the request and in memory. */
const RECORD_OVERHEAD_BYTES = 32;
const BACKOFF_MS_MIN = 50;
const BACKOFF_MS_MAX = 5_000;

export class RecordSender {
  readonly counts: SendCounts = { acknowledged: 0, unknown: 0, failed: 0, requests: 0, resent: 0 };
  readonly #options: RecordSenderOptions;
  readonly #inFlightMax: number;
  readonly #batchRecordsMax: number;
  readonly #batchBytesMax: number;
  readonly #retryMsMax: number;
  readonly #queues = new Map<number, Queue>();
  readonly #ready: Queue[] = [];
  #inFlight = 0;
  #bufferedBytes = 0;
  #turn = 0;
  #flushing = false;
  #failure: unknown = null;
  readonly #stopped = new AbortController();
  #wakers: (() => void)[] = [];

  constructor(options: RecordSenderOptions) {
    this.#options = options;
    this.#inFlightMax = options.inFlightMax ?? 8;
    this.#batchRecordsMax = options.batchRecordsMax ?? 5_000;
    this.#batchBytesMax = options.batchBytesMax ?? 1024 * 1024;
    this.#retryMsMax = options.retryMsMax ?? 60_000;
  }

  /**
   * Takes a record; undefined: go on; a promise: wait for it first (enough is waiting). A record without a
   * partition goes where its key says, one without a key to the next partition in turn. Throws or rejects with
   * the error that stopped the sender.
   */
  add(record: OutgoingRecord): Promise<void> | undefined {
    if (this.#failure !== null) throw this.#failure;
    const { key, bytes } = this.#measure(record);
    const { partitionCount } = this.#options;
    const partition =
      record.partition ??
      (key === null
        ? this.#turn++ % partitionCount
        : partitionOfKeyBytes(key, 0, key.length, partitionCount));
    const queue = this.#queueOf(partition);
    queue.waiting.push({ record, partition, bytes });
    queue.waitingBytes += bytes;
    this.#bufferedBytes += bytes;
    this.#schedule(queue);
    if (this.#bufferedBytes <= this.#batchBytesMax * (this.#inFlightMax + 1)) return undefined;
    return this.#room();
  }

  /** Resolves when everything that was added is acknowledged; rejects with the error that stopped the sender. */
  async flush(): Promise<void> {
    this.#flushing = true;
    for (const queue of this.#queues.values()) this.#schedule(queue);
    while (this.#bufferedBytes > 0 && this.#failure === null) await this.#change();
    this.#flushing = false;
    await this.settled();
    if (this.#failure !== null) throw this.#failure;
  }

  /** Sends nothing more; what is still waiting counts as failed once `settled` resolves. */
  stop(why: Error): void {
    if (this.#failure === null) this.#failure = why;
    this.#stopped.abort();
    this.#wake();
  }

  /** Resolves when no request is open; then the counts are final if the sender was stopped. */
  async settled(): Promise<void> {
    while (this.#inFlight > 0) await this.#change();
    if (this.#failure === null) return;
    for (const queue of this.#queues.values()) {
      queue.timer?.cancel();
      this.counts.failed += queue.waiting.length;
      queue.waiting = [];
    }
  }

  // -- Waiting ----------------------------------------------------------------------------------------
  #change(): Promise<void> {
    return new Promise((resolve) => this.#wakers.push(resolve));
  }

  #wake(): void {
    const wakers = this.#wakers;
    this.#wakers = [];
    for (const wake of wakers) wake();
  }

  async #room(): Promise<void> {
    while (this.#bufferedBytes > this.#batchBytesMax * this.#inFlightMax && this.#failure === null) {
      await this.#change();
    }
    if (this.#failure !== null) throw this.#failure;
  }

  // -- Queues -----------------------------------------------------------------------------------------
  #measure(record: OutgoingRecord): { key: Buffer | null; bytes: number } {
    const { key, value } = record;
    if (this.#options.embedded === 'binary') {
      const keyBytes = (key ?? null) as Buffer | null;
      const valueBytes = (value as Buffer | null)?.length ?? 0;
      return { key: keyBytes, bytes: (keyBytes?.length ?? 0) + valueBytes + RECORD_OVERHEAD_BYTES };
    }
    const keyBytes = key === undefined || key === null ? null : Buffer.from(JSON.stringify(key));
    const valueLength = JSON.stringify(value)?.length ?? 0;
    return { key: keyBytes, bytes: (keyBytes?.length ?? 0) + valueLength + RECORD_OVERHEAD_BYTES };
  }

  #queueOf(partition: number): Queue {
    const id = this.#options.producer ? partition : partition % this.#inFlightMax;
    let queue = this.#queues.get(id);
    if (queue === undefined) {
      queue = { waiting: [], waitingBytes: 0, busy: false, timer: null, ready: false, nextSequence: 0 };
      this.#queues.set(id, queue);
    }
    return queue;
  }

  #schedule(queue: Queue): void {
    if (queue.busy || queue.ready || queue.waiting.length === 0) return;
    const full =
      queue.waiting.length >= this.#batchRecordsMax ||
      queue.waitingBytes >= this.#batchBytesMax ||
      this.#flushing;
    if (full) this.#makeReady(queue);
    else if (queue.timer === null) {
      queue.timer = this.#options.clock.after(this.#options.lingerMs ?? 5, () => this.#makeReady(queue));
    }
  }

  #makeReady(queue: Queue): void {
    queue.timer?.cancel();
    queue.timer = null;
    if (queue.busy || queue.ready || queue.waiting.length === 0) return;
    queue.ready = true;
    this.#ready.push(queue);
    this.#sendReady();
  }

  #sendReady(): void {
    while (this.#inFlight < this.#inFlightMax && this.#failure === null) {
      const queue = this.#ready.shift();
      if (queue === undefined) return;
      queue.ready = false;
      queue.busy = true;
      this.#inFlight++;
      this.#deliver(queue)
        .catch((error: unknown) => this.stop(error instanceof Error ? error : new Error(String(error))))
        .finally(() => {
          this.#inFlight--;
          queue.busy = false;
          // What gathered meanwhile has waited long enough.
          if (this.#failure === null) this.#makeReady(queue);
          this.#sendReady();
          this.#wake();
        });
    }
  }

  #takeBatch(queue: Queue): Pending[] {
    let bytes = 0;
    let count = 0;
    while (count < queue.waiting.length && count < this.#batchRecordsMax) {
      bytes += queue.waiting[count].bytes;
      if (count > 0 && bytes > this.#batchBytesMax) break;
      count++;
    }
    const batch = queue.waiting.splice(0, count);
    for (const pending of batch) queue.waitingBytes -= pending.bytes;
    return batch;
  }

  // -- One batch until it is done ---------------------------------------------------------------------
  async #deliver(queue: Queue): Promise<void> {
    const { clock, random } = this.#options;
    let batch = this.#takeBatch(queue);
    const sequence = queue.nextSequence;
    queue.nextSequence = (sequence + batch.length) % 2 ** 31;
    const giveUpMs = clock.monotonicMs() + this.#retryMsMax;
    let backoffMs = BACKOFF_MS_MIN;
    let inDoubt = false;
    try {
      for (;;) {
        const answers = await this.#request(batch, sequence);
        const { again, fatal, retryAfterMs } = this.#settle(batch, answers);
        batch = again;
        if (fatal !== null) throw fatal;
        if (batch.length === 0) return;
        const first = answers.find((answer) => answer.error !== null)?.error ?? null;
        inDoubt ||= first?.outcome === 'unknown';
        const waitMs = Math.max(retryAfterMs, backoffMs * (0.5 + random.unit() / 2));
        if (clock.monotonicMs() + waitMs > giveUpMs) throw first;
        await sleep(clock, waitMs, this.#stopped.signal);
        if (this.#failure !== null) return;
        backoffMs = Math.min(backoffMs * 2, BACKOFF_MS_MAX);
        this.counts.resent += batch.length;
      }
    } finally {
      // What is left was never appended, unless a lost reply came before the last refusal.
      if (inDoubt) this.counts.unknown += batch.length;
      else this.counts.failed += batch.length;
      for (const pending of batch) this.#bufferedBytes -= pending.bytes;
    }
  }

  async #request(batch: Pending[], baseSequence: number): Promise<RecordAnswer[]> {
    const { client, topic, embedded, producer, clock, onRequest } = this.#options;
    const sentMs = clock.monotonicMs();
    this.counts.requests++;
    try {
      const answers = producer
        ? await client.produceToPartition(
            topic,
            batch[0].partition,
            batch.map(({ record }) => ({ key: record.key, value: record.value })),
            embedded,
            { ...producer, baseSequence },
          )
        : await client.produce(
            topic,
            batch.map(({ record, partition }) => ({ key: record.key, value: record.value, partition })),
            embedded,
          );
      onRequest?.(clock.monotonicMs() - sentMs, batch.length);
      return answers;
    } catch (error) {
      const failure = error instanceof RestError ? error : connectionError(error, client.url);
      return batch.map(() => ({ error: failure, partition: null }));
    }
  }

  /** Counts what is decided; returns what to send again and the error that ends it all, if any. */
  #settle(
    batch: Pending[],
    answers: RecordAnswer[],
  ): { again: Pending[]; fatal: RestError | null; retryAfterMs: number } {
    const again: Pending[] = [];
    let fatal: RestError | null = null;
    let retryAfterMs = 0;
    // An idempotent batch is resent whole and unchanged or not at all.
    const whole = Boolean(this.#options.producer) && answers.some(({ error }) => error !== null);
    for (const [i, pending] of batch.entries()) {
      const answer = answers[i];
      const error = answer.error;
      if (error === null) {
        if (whole) {
          again.push(pending);
          continue;
        }
        this.counts.acknowledged++;
        this.#bufferedBytes -= pending.bytes;
        this.#options.onAcknowledged?.(pending.record, answer.partition, answer.offset);
        continue;
      }
      retryAfterMs = Math.max(retryAfterMs, error.retryAfterMs ?? 0);
      const certain = error.outcome !== 'unknown';
      if (error.outcome === 'nothing' || (!certain && this.#options.producer)) {
        again.push(pending);
        continue;
      }
      fatal ??= error;
      this.#bufferedBytes -= pending.bytes;
      if (certain) this.counts.failed++;
      else this.counts.unknown++;
    }
    return { again, fatal, retryAfterMs };
  }
}
