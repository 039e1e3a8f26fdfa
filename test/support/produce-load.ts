/**
 * Clients that produce without end and book what they are told. Owns: the loop of each client and the meaning of
 * its answers. Does not own: the book (record-ledger), the broker. Any process.
 *
 * A plain producer never repeats a request: what was not answered stays unknown. An idempotent one repeats it,
 * under the same sequence number, until it is acknowledged, over any number of restarts; in the end each of its
 * records is acknowledged and there exactly once.
 */
import assert from 'node:assert/strict';
import { setTimeout as sleepMs } from 'node:timers/promises';
import type { RecordAnswer, RestClient } from '../../src/client/rest-client.ts';
import { RestError } from '../../src/client/rest-error.ts';
import { type Random, seededRandom } from '../../src/core/random.ts';
import type { RecordLedger, SentRecord } from './record-ledger.ts';

export interface LoadOptions {
  ledger: RecordLedger;
  partitionCount: number;
  /** Plain clients at a time. */
  producers: number;
  /** Idempotent clients at a time, each on one partition. Default 0. */
  idempotent?: number;
  /** Records of one request, at most. Default 4. */
  recordsMax?: number;
  /** Characters added to each value, at most. Default 40. */
  padMax?: number;
  seed: number;
  /** The broker as of now; null while there is none: then the client waits. */
  client: () => RestClient | null;
}

/** Between two tries of a client that was told to try again, ms. */
const RETRY_MS = 20;

export class ProduceLoad {
  /** Every refusal and loss by its code: what clients met. */
  readonly met = new Map<string, number>();
  readonly #options: LoadOptions;
  readonly #random: Random;
  #running: Promise<void>[] = [];
  #stopped = false;
  #abandoned = false;
  #acknowledged = 0;
  readonly #acknowledgedOf: number[];
  #nextProducer = 0;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
    this.#acknowledgedOf = new Array(options.partitionCount).fill(0);
  }

  /** Records acknowledged so far. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  start(): void {
    const { producers, idempotent = 0 } = this.#options;
    this.#stopped = false;
    const plain = Array.from({ length: producers }, () => this.#produce(this.#nextProducer++));
    const exact = Array.from({ length: idempotent }, () => this.#produceExactly(this.#nextProducer++));
    this.#running = [...plain, ...exact];
  }

  /** No new requests; resolves when all clients have their last answer (idempotent ones: their last ack). */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#running);
  }

  /** No new requests and no repeated ones: for the end of a test that failed. */
  abandon(): void {
    this.#stopped = true;
    this.#abandoned = true;
  }

  /** Resolves when `count` more records were acknowledged; rejects after `withinMs`. */
  async moreAcknowledged(count: number, withinMs: number): Promise<void> {
    const goal = this.#acknowledged + count;
    await this.#until(() => this.#acknowledged >= goal, withinMs);
  }

  /** Resolves when each partition had `count` more records acknowledged; rejects after `withinMs`. */
  async moreInEachPartition(count: number, withinMs: number): Promise<void> {
    const goals = this.#acknowledgedOf.map((acknowledged) => acknowledged + count);
    await this.#until(
      () => goals.every((goal, partition) => this.#acknowledgedOf[partition] >= goal),
      withinMs,
    );
  }

  async #until(reached: () => boolean, withinMs: number): Promise<void> {
    const deadline = performance.now() + withinMs;
    while (!reached()) {
      const so = `acknowledged by partition ${this.#acknowledgedOf.join(' ')}, met ${this.metText()}`;
      assert.ok(performance.now() < deadline, `no more after ${withinMs} ms: ${so}`);
      await sleepMs(5);
    }
  }

  metText(): string {
    return JSON.stringify(Object.fromEntries(this.met));
  }

  #pad(): string {
    return 'é'.repeat(this.#random.below((this.#options.padMax ?? 40) + 1));
  }

  async #produce(producer: number): Promise<void> {
    const { ledger, partitionCount, recordsMax = 4 } = this.#options;
    for (let sequence = 0; !this.#stopped; ) {
      const client = this.#options.client();
      if (client === null) {
        await sleepMs(RETRY_MS);
        continue;
      }
      const records: SentRecord[] = [];
      for (let left = 1 + this.#random.below(recordsMax); left > 0; left--) {
        records.push(ledger.book(producer, sequence++, this.#random.below(partitionCount), this.#pad()));
      }
      const failed = await this.#send(records, () =>
        client.produce(
          ledger.topic,
          records.map(({ partition, value }) => ({ key: `k${producer}`, value, partition })),
          'json',
        ),
      );
      if (failed) await sleepMs(RETRY_MS);
    }
  }

  async #produceExactly(producer: number): Promise<void> {
    const { ledger, partitionCount, recordsMax = 4 } = this.#options;
    const partition = producer % partitionCount;
    let id: { producerId: number; producerEpoch: number } | null = null;
    for (let sequence = 0; !this.#stopped; ) {
      const records: SentRecord[] = [];
      const baseSequence = sequence;
      for (let left = 1 + this.#random.below(recordsMax); left > 0; left--) {
        records.push(ledger.book(producer, sequence++, partition, this.#pad()));
      }
      for (let failed = true; failed && !this.#abandoned; ) {
        const client = this.#options.client();
        if (client !== null) {
          failed = await this.#send(records, async () => {
            id ??= await client.allocateProducerId();
            const outgoing = records.map(({ value }) => ({ key: `k${producer}`, value }));
            const stamp = { ...id, baseSequence };
            return client.produceToPartition(ledger.topic, partition, outgoing, 'json', stamp);
          });
        }
        if (failed) await sleepMs(RETRY_MS);
      }
    }
  }

  /** Books the answers; true if any record was not acknowledged. */
  async #send(records: readonly SentRecord[], send: () => Promise<RecordAnswer[]>): Promise<boolean> {
    // What was refused is on its way again.
    for (const sent of records) if (sent.outcome === 'refused') sent.outcome = 'pending';
    let answers: RecordAnswer[];
    try {
      answers = await send();
    } catch (error) {
      if (!(error instanceof RestError)) throw error;
      for (const sent of records) this.#bookError(sent, error);
      return true;
    }
    let failed = false;
    for (const [i, answer] of answers.entries()) {
      const sent = records[i];
      if (answer.error !== null) {
        failed = true;
        this.#bookError(sent, answer.error);
        continue;
      }
      assert.equal(answer.partition, sent.partition);
      sent.offset = answer.offset;
      sent.outcome = 'acknowledged';
      this.#acknowledged++;
      this.#acknowledgedOf[sent.partition]++;
    }
    return failed;
  }

  #bookError(sent: SentRecord, error: RestError): void {
    // Here nothing is wrong with any request: a refusal for good is the broker's mistake.
    assert.notEqual(error.outcome, 'refused', `${error.code}: ${error.message}`);
    this.met.set(error.code, (this.met.get(error.code) ?? 0) + 1);
    // A repeated request that is refused may have happened when it was sent before.
    if (sent.outcome !== 'unknown') sent.outcome = error.outcome === 'nothing' ? 'refused' : 'unknown';
  }
}
