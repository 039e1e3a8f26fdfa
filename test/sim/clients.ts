/**
 * The clients of a simulated cluster: plain producers, idempotent producers, readers. Owns: what they send, when
 * they try again. Does not own: routing (the directory says who serves a shard) nor judging (checker). The
 * simulation's only thread.
 */

import { kindOf } from '../../src/core/errors.ts';
import { partitionKey } from '../../src/core/ids.ts';
import type { Random } from '../../src/core/random.ts';
import { sequenceAfter } from '../../workers/shard-state.ts';
import type { SimBroker } from './broker.ts';
import type { AttemptResult, Checker } from './checker.ts';
import type { CoverageCounts } from './coverage.ts';
import { recordsOf } from './payloads.ts';
import type { Scheduler } from './scheduler.ts';

/** A request's own deadline, virtual ms. */
const REQUEST_TIMEOUT_MS = 600;
/** As many batches as Kafka's clients keep in flight. */
const IN_FLIGHT_MAX = 5;

export interface ClientWorld {
  scheduler: Scheduler;
  random: Random;
  checker: Checker;
  coverage: CoverageCounts;
  violate(what: string): void;
  /** The broker to ask about a partition; null: nobody is known to serve it. */
  brokerFor(topicId: number, partition: number): SimBroker | null;
}

/** Sends records once each, sometimes again after a failure (the only way a record may be there twice). */
export class PlainProducer {
  readonly #world: ClientWorld;
  readonly #name: string;
  #count = 0;

  constructor(world: ClientWorld, name: string) {
    this.#world = world;
    this.#name = name;
  }

  send(topicId: number, partition: number): void {
    const { random } = this.#world;
    const payloads = [];
    for (let left = 1 + random.below(3); left > 0; left--) payloads.push(`${this.#name}:${this.#count++}`);
    this.#attempt(topicId, partition, payloads, 2, () => undefined);
  }

  /** One record, again and again until it is acknowledged. */
  sendSurely(topicId: number, partition: number, done: () => void): void {
    this.#attempt(topicId, partition, [`${this.#name}:${this.#count++}`], Number.POSITIVE_INFINITY, done);
  }

  #attempt(
    topicId: number,
    partition: number,
    payloads: readonly string[],
    triesLeft: number,
    done: () => void,
  ): void {
    const { scheduler, random, checker, coverage } = this.#world;
    const key = partitionKey(topicId, partition);
    const again = () => {
      if (triesLeft <= 0 || (Number.isFinite(triesLeft) && random.below(2) === 0)) return;
      const delayMs = 5 + random.unit() * 60;
      scheduler.after(delayMs, () => this.#attempt(topicId, partition, payloads, triesLeft - 1, done));
    };
    const broker = this.#world.brokerFor(topicId, partition);
    if (!broker) {
      again();
      return;
    }
    checker.attempt(key, payloads, null, 0);
    broker.produce(topicId, partition, null, payloads, REQUEST_TIMEOUT_MS, (result) => {
      scheduler.trace('answer', this.#name, payloads[0], result.code ?? 'ok', result.baseOffset);
      checker.answered(key, payloads, result);
      if (result.code !== null) return again();
      coverage.recordsAcknowledged += payloads.length;
      done();
    });
  }
}

interface ProducerBatch {
  payloads: string[];
  firstIndex: number;
  baseSequence: number;
  state: 'waiting' | 'sent' | 'acknowledged';
}

/** As Kafka's clients: numbered batches, several in flight, in order; after a failure all again in order. */
export class IdempotentProducer {
  readonly topicId: number;
  readonly partition: number;
  readonly #world: ClientWorld;
  readonly #name: string;
  readonly #producerId: number;
  #producerEpoch = 0;
  #nextSequence: number;
  #records = 0;
  #batches: ProducerBatch[] = [];
  #inFlight = 0;
  #failed = false;
  /** Set by a topic's deletion: nothing more will be accepted. */
  #ended = false;

  constructor(world: ClientWorld, producerId: number, topicId: number, partition: number) {
    this.#world = world;
    this.#producerId = producerId;
    this.#name = `i${producerId}`;
    this.#nextSequence = 0;
    this.topicId = topicId;
    this.partition = partition;
  }

  get isIdle(): boolean {
    return this.#ended || (this.#batches.length === 0 && this.#inFlight === 0);
  }

  get describe(): string {
    const first = this.#batches[0];
    return `${this.#name} at sequence ${first?.baseSequence}, ${this.#inFlight} in flight`;
  }

  /** Adds a batch. */
  send(): void {
    const { random } = this.#world;
    if (this.#ended || this.#batches.length > 20) return;
    if (this.#batches.length === 0 && this.#inFlight === 0 && random.below(12) === 0) {
      this.#producerEpoch++;
      this.#nextSequence = 0;
    }
    const count = 1 + random.below(3);
    const payloads = [];
    for (let i = 0; i < count; i++) payloads.push(`${this.#name}:${this.#records + i}`);
    this.#batches.push({
      payloads,
      firstIndex: this.#records,
      baseSequence: this.#nextSequence,
      state: 'waiting',
    });
    this.#records += count;
    this.#nextSequence = sequenceAfter(this.#nextSequence, count);
    this.#pump();
  }

  #pump(): void {
    if (this.#ended) return;
    if (this.#failed && this.#inFlight > 0) return;
    this.#failed = false;
    for (const batch of this.#batches.slice(0, IN_FLIGHT_MAX)) {
      if (batch.state === 'waiting' && !this.#sendBatch(batch)) return;
    }
  }

  /** A second copy of a batch that is on its way or done, as a network may deliver it. */
  sendTwice(): void {
    const batch = this.#batches.find((candidate) => candidate.state === 'sent');
    if (batch) this.#sendBatch(batch);
  }

  #sendBatch(batch: ProducerBatch): boolean {
    const { checker, scheduler } = this.#world;
    const broker = this.#world.brokerFor(this.topicId, this.partition);
    if (!broker) {
      this.#later();
      return false;
    }
    const key = partitionKey(this.topicId, this.partition);
    const stamp = {
      producerId: this.#producerId,
      producerEpoch: this.#producerEpoch,
      baseSequence: batch.baseSequence,
    };
    const isFirst = this.#batches[0] === batch;
    batch.state = 'sent';
    this.#inFlight++;
    checker.attempt(key, batch.payloads, this.#name, batch.firstIndex);
    broker.produce(this.topicId, this.partition, stamp, batch.payloads, REQUEST_TIMEOUT_MS, (result) => {
      this.#inFlight--;
      scheduler.trace('answer', this.#name, batch.payloads[0], result.code ?? 'ok', result.baseOffset);
      checker.answered(key, batch.payloads, result);
      this.#answered(batch, result, isFirst);
    });
    return true;
  }

  #answered(batch: ProducerBatch, { code }: AttemptResult, wasFirst: boolean): void {
    const { checker, coverage } = this.#world;
    if (code === null) {
      if (batch.state !== 'acknowledged') coverage.recordsAcknowledged += batch.payloads.length;
      batch.state = 'acknowledged';
      while (this.#batches[0]?.state === 'acknowledged') this.#batches.shift();
    } else if (code === 'topic-not-found' && checker.deleting.has(this.topicId)) {
      this.#ended = true;
    } else if (batch.state === 'sent') {
      // All before it was acknowledged when it was sent: then nobody may find a gap.
      if (kindOf(code) === 'fenced' || (code === 'out-of-order-sequence' && wasFirst)) {
        this.#world.violate(`${this.#name}: sequence ${batch.baseSequence} was refused: ${code}`);
      }
      batch.state = 'waiting';
      this.#failed = true;
    }
    if (this.#failed && this.#inFlight === 0) this.#later();
    else this.#pump();
  }

  #later(): void {
    this.#world.scheduler.after(10 + this.#world.random.unit() * 40, () => this.#pump());
  }
}

/** Reads a partition from front to back, in jumps, and again. */
export class Reader {
  readonly #world: ClientWorld;
  readonly #topicId: number;
  readonly #partition: number;
  #offset = 0;
  #busy = false;

  constructor(world: ClientWorld, topicId: number, partition: number) {
    this.#world = world;
    this.#topicId = topicId;
    this.#partition = partition;
  }

  step(): void {
    if (this.#busy) return;
    const { random, checker } = this.#world;
    const key = partitionKey(this.#topicId, this.#partition);
    if (random.below(8) === 0) this.#offset = random.below(checker.knownEnd(key) + 1);
    const broker = this.#world.brokerFor(this.#topicId, this.#partition);
    if (!broker) return;
    this.#busy = true;
    readOnce(this.#world, broker, this.#topicId, this.#partition, this.#offset, 400, (next) => {
      this.#busy = false;
      if (next === null) return;
      if (next === this.#offset && random.below(3) === 0) this.#watch(broker);
      this.#offset = next;
    });
  }

  #watch(broker: SimBroker): void {
    this.#busy = true;
    broker.watch(this.#topicId, this.#partition, this.#offset, (woken) => {
      this.#busy = false;
      if (woken) this.#world.coverage.watchesWoken++;
    });
  }
}

/** Fetches once and shows the checker what came; `done` gets the offset to go on at, null after an error. */
export function readOnce(
  world: ClientWorld,
  broker: SimBroker,
  topicId: number,
  partition: number,
  offset: number,
  bytesMax: number,
  done: (next: number | null, payloads: string[], end: number) => void,
): void {
  const { scheduler, checker, coverage } = world;
  broker.fetch(topicId, partition, offset, bytesMax, (result) => {
    if (!result) return done(null, [], 0);
    const { error, nextOffset } = result.reply;
    scheduler.trace('fetched', broker.name, topicId, partition, offset, nextOffset, error?.code ?? 'ok');
    if (error) {
      const where = `fetch of ${topicId}/${partition} at ${offset} from ${broker.name}`;
      if (kindOf(error.code) === 'corrupt') world.violate(`${where}: ${error.code}: ${error.message}`);
      if (kindOf(error.code) === 'not-found' && !checker.deleting.has(topicId)) {
        world.violate(`${where}: ${error.code}: ${error.message}`);
      }
      return done(null, [], 0);
    }
    const records = recordsOf(result.bytes);
    const payloads: string[] = [];
    let expected = records.length > 0 ? records[0].offset : offset;
    if (expected > offset)
      world.violate(`fetch at ${offset} of ${topicId}/${partition} begins at ${expected}`);
    for (const record of records) {
      if (record.offset !== expected) {
        world.violate(`fetch of ${topicId}/${partition}: offset ${record.offset}, not ${expected}`);
      }
      expected++;
      if (record.offset < offset) continue;
      payloads.push(record.payload);
      checker.read(partitionKey(topicId, partition), record.offset, record.payload);
    }
    coverage.recordsRead += payloads.length;
    done(offset + payloads.length, payloads, nextOffset);
  });
}
