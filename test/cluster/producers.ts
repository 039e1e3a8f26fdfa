/**
 * Clients that append all the time and note what they are told. Owns: when what is sent, and what a client may do after
 * which answer: an idempotent producer repeats a request under the same numbers until it is acknowledged; a plain one
 * repeats what certainly did not happen, and leaves alone what may have. Does not own: judgement. The runner's process.
 */
import { setTimeout as sleepMs } from 'node:timers/promises';
import type { Random } from '../../src/core/random.ts';
import type { AckWatch } from './ack-watch.ts';
import { NONSENSE, type OutgoingRecord, type Stamp } from './door-client.ts';
import type { Door, Doors } from './doors.ts';
import type { HistoryLog, RecordResult } from './history.ts';

export interface ProducerParts {
  history: HistoryLog;
  doors: Doors;
  random: Random;
  watch: AckWatch;
  /** Between two requests, ms on average. */
  paceMs: number;
}

export interface TopicPlan {
  name: string;
  partitions: number;
}

const RETRY_MS_MIN = 40;
const RETRY_MS_MAX = 400;
const RECORDS_MAX = 4;
const PAD_MAX = 120;
/** A broker that was asked for a name before it was there may not know it for so long. */
export const NEW_TOPIC_GRACE_MS = 10_000;

/** Whether a client sends, repeats, or neither. */
export class Whistle {
  stopped = false;
  /** Requests are not even repeated any more. */
  abandoned = false;
}

/** One request, written down before and after; what it came to, record by record. */
export async function send(
  parts: Pick<ProducerParts, 'history'>,
  door: Door,
  request: {
    prod: string;
    topic: string;
    label?: string;
    records: readonly OutgoingRecord[];
    graceUntil?: number;
  },
  stamp: Stamp | null,
): Promise<readonly RecordResult[]> {
  const { history } = parts;
  const { prod, topic, label = topic, records } = request;
  const r = history.nextRequest();
  const numbers = stamp === null ? {} : { x: true, q: stamp.sequence };
  const recs = records.map(({ partition, text }) => [partition, text] as const);
  history.add({ e: 'send', r, b: door.name, prod, ...numbers, topic: label, recs });
  const inv = history.now();
  const answer = await door.client.append(topic, records, stamp);
  if (answer.ok) {
    history.add({ e: 'done', r, res: answer.results });
    return answer.results;
  }
  const { outcome, code } = answer.refusal;
  const isNew = code === 'topic-not-found' && history.now() < (request.graceUntil ?? 0);
  const forGood = answer.refusal.forGood && !isNew;
  const results = records.map(() => [outcome, code] as const);
  history.add({ e: 'done', r, res: results, ...(forGood ? { forGood } : {}) });
  if (code === NONSENSE)
    history.add({ e: 'trouble', inv, b: door.name, what: 'append', code: answer.text, wrong: true });
  return results;
}

/** Waits longer each time, up to a bound; `reset` after a success. */
export class Backoff {
  #ms = RETRY_MS_MIN;
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  reset(): void {
    this.#ms = RETRY_MS_MIN;
  }

  async wait(): Promise<void> {
    await sleepMs(this.#ms * (0.5 + this.#random.unit()));
    this.#ms = Math.min(this.#ms * 2, RETRY_MS_MAX);
  }
}

/** A producer id; null once nobody waits for it any more. */
export async function allocateId(
  parts: Pick<ProducerParts, 'history' | 'doors' | 'random'>,
  whistle: Whistle,
): Promise<Omit<Stamp, 'sequence'> | null> {
  const backoff = new Backoff(parts.random);
  while (!whistle.abandoned) {
    const door = parts.doors.pickReady();
    if (door !== null) {
      const inv = parts.history.now();
      const answer = await door.client.allocateProducerId();
      if (answer.ok) return answer;
      parts.history.add({ e: 'trouble', inv, b: door.name, what: 'producer-id', code: answer.refusal.code });
    }
    await backoff.wait();
  }
  return null;
}

/** One idempotent producer, with one request at a time in each of its partitions. */
export class IdempotentProducer {
  readonly #parts: ProducerParts;
  readonly #name: string;
  readonly #topic: TopicPlan;
  readonly #partitions: readonly number[];
  readonly #whistle = new Whistle();
  #running: Promise<unknown> = Promise.resolve();
  #id: Promise<Omit<Stamp, 'sequence'> | null> | null = null;

  constructor(parts: ProducerParts, name: string, topic: TopicPlan, partitions: readonly number[]) {
    this.#parts = parts;
    this.#name = name;
    this.#topic = topic;
    this.#partitions = partitions;
  }

  start(): void {
    for (const partition of this.#partitions) this.#parts.watch.expect(`${this.#topic.name}/${partition}`);
    this.#running = Promise.all(this.#partitions.map((partition) => this.#run(partition)));
  }

  /** Resolves when all that was sent is acknowledged. */
  async stop(): Promise<void> {
    this.#whistle.stopped = true;
    await this.#running;
  }

  abandon(): void {
    this.#whistle.stopped = true;
    this.#whistle.abandoned = true;
  }

  async #run(partition: number): Promise<void> {
    const { random, paceMs } = this.#parts;
    for (let sequence = 0; !this.#whistle.stopped; ) {
      const count = 1 + random.below(RECORDS_MAX);
      const records = Array.from({ length: count }, (_, i) => ({
        partition,
        key: this.#name,
        text: recordText(this.#parts, `${this.#name}.${partition}.${sequence + i}`),
      }));
      await this.#sendUntilDone(partition, records, sequence);
      sequence += count;
      await sleepMs(paceMs * (0.5 + random.unit()));
    }
  }

  async #sendUntilDone(
    partition: number,
    records: readonly OutgoingRecord[],
    sequence: number,
  ): Promise<void> {
    const { doors, random, watch } = this.#parts;
    const backoff = new Backoff(random);
    while (!this.#whistle.abandoned) {
      const door = doors.pickReady();
      if (door !== null) {
        this.#id ??= allocateId(this.#parts, this.#whistle);
        const id = await this.#id;
        if (id === null) return;
        const sentAt = performance.now();
        const request = { prod: this.#name, topic: this.#topic.name, records };
        const results = await send(this.#parts, door, request, { ...id, sequence });
        if (results.every((result) => typeof result === 'number')) {
          watch.acknowledged(`${this.#topic.name}/${partition}`, sentAt);
          return;
        }
      }
      await backoff.wait();
    }
  }
}

/** One plain producer, that sends to several partitions of a topic in one request. */
export class PlainProducer {
  readonly #parts: ProducerParts;
  readonly #name: string;
  readonly #topics: readonly TopicPlan[];
  readonly #whistle = new Whistle();
  #running: Promise<void> = Promise.resolve();

  constructor(parts: ProducerParts, name: string, topics: readonly TopicPlan[]) {
    this.#parts = parts;
    this.#name = name;
    this.#topics = topics;
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#whistle.stopped = true;
    await this.#running;
  }

  abandon(): void {
    this.#whistle.stopped = true;
    this.#whistle.abandoned = true;
  }

  async #run(): Promise<void> {
    const { doors, random, paceMs } = this.#parts;
    for (let number = 0; !this.#whistle.stopped; ) {
      const topic = this.#topics[random.below(this.#topics.length)];
      let records: OutgoingRecord[] = Array.from({ length: 1 + random.below(RECORDS_MAX) }, () => ({
        partition: random.below(topic.partitions),
        key: this.#name,
        text: recordText(this.#parts, `${this.#name}.${number++}`),
      }));
      const backoff = new Backoff(random);
      while (records.length > 0 && !this.#whistle.stopped) {
        const door = doors.pick();
        if (door !== null) {
          const request = { prod: this.#name, topic: topic.name, records };
          const results = await send(this.#parts, door, request, null);
          // What may have happened is never sent again.
          records = records.filter((_, i) => {
            const result = results[i];
            return typeof result !== 'number' && result[0] === 'none';
          });
        }
        if (records.length > 0) await backoff.wait();
      }
      await sleepMs(paceMs * (0.5 + random.unit()));
    }
  }
}

/** A text that no other record has: its name, and some more of any length. */
export function recordText({ random }: Pick<ProducerParts, 'random'>, name: string): string {
  return `${name}:${'é'.repeat(random.below(3))}${'x'.repeat(random.below(PAD_MAX))}`;
}
