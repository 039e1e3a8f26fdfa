/**
 * All clients of a run: producers of both kinds, readers, and topics that come and go. Owns: how many there are of each
 * and the order in which they begin and end. Does not own: what each does. The runner's process.
 */
import { setTimeout as sleepMs } from 'node:timers/promises';
import { type Random, seededRandom } from '../../src/core/random.ts';
import type { AckWatch } from './ack-watch.ts';
import type { Doors } from './doors.ts';
import type { HistoryLog } from './history.ts';
import { PipelinedProducer } from './pipelined-producer.ts';
import { IdempotentProducer, PlainProducer, type ProducerParts, type TopicPlan } from './producers.ts';
import { FreshReader, placesOf, Reader, readFinally } from './readers.ts';
import { TopicChurn } from './topic-churn.ts';

export interface WorkloadSize {
  topics: number;
  partitionsPerTopic: number;
  plain: number;
  pipelined: number;
  readers: number;
  readsInFlight: number;
  churned: number;
  /** Between two requests of a producer in a partition, ms on average. */
  paceMs: number;
}

export const USUAL_SIZE: WorkloadSize = {
  topics: 4,
  partitionsPerTopic: 8,
  plain: 3,
  pipelined: 2,
  readers: 2,
  readsInFlight: 8,
  churned: 2,
  paceMs: 150,
};

export interface WorkloadParts {
  history: HistoryLog;
  doors: Doors;
  watch: AckWatch;
  seed: number;
  size: WorkloadSize;
}

const TOPIC_TRIES = 20;
const READS_AT_ONCE = 4;

export class Workload {
  readonly #parts: WorkloadParts;
  readonly #random: Random;
  readonly #topics: TopicPlan[];
  readonly #producers: (IdempotentProducer | PlainProducer | PipelinedProducer)[] = [];
  readonly #churns: TopicChurn[] = [];
  readonly #readers: (Reader | FreshReader)[] = [];

  constructor(parts: WorkloadParts) {
    this.#parts = parts;
    this.#random = seededRandom(parts.seed);
    const { topics, partitionsPerTopic: partitions } = parts.size;
    this.#topics = Array.from({ length: topics }, (_, i) => ({ name: `t${i + 1}`, partitions }));
  }

  get churnedLives(): number {
    return this.#churns.reduce((lives, churn) => lives + churn.lives, 0);
  }

  /** Makes the topics; everyone begins. */
  async start(): Promise<void> {
    const { history, doors, watch, size } = this.#parts;
    const random = this.#random;
    for (const { name, partitions } of this.#topics) await this.#makeTopic(name, partitions);
    const parts: ProducerParts = { history, doors, random, watch, paceMs: size.paceMs };
    // Every partition has one idempotent producer, and every such producer some partitions of a topic.
    for (const topic of this.#topics) {
      const half = Math.ceil(topic.partitions / 2);
      const all = Array.from({ length: topic.partitions }, (_, partition) => partition);
      for (const [i, some] of [all.slice(0, half), all.slice(half)].entries()) {
        if (some.length > 0)
          this.#producers.push(new IdempotentProducer(parts, `${topic.name}.e${i}`, topic, some));
      }
    }
    for (let i = 0; i < size.plain; i++)
      this.#producers.push(new PlainProducer(parts, `plain${i}`, this.#topics));
    for (let i = 0; i < size.pipelined; i++) {
      this.#producers.push(new PipelinedProducer(parts, `piped${i}`, this.#topics));
    }
    for (let i = 0; i < size.churned; i++) this.#churns.push(new TopicChurn(parts, `churn${i}`));
    for (let i = 0; i < size.readers; i++) {
      this.#readers.push(new Reader({ history, doors, random }, `r${i}`, this.#topics, size.readsInFlight));
    }
    this.#readers.push(new FreshReader({ history, doors, random }, watch, 'fresh', this.#topics));
    for (const one of [...this.#producers, ...this.#churns, ...this.#readers]) one.start();
  }

  /** Everyone has the answers to what was asked, and everything is read once more. Says what did not come in time. */
  async stop(withinMs: number): Promise<string[]> {
    const late: string[] = [];
    const inTime = async (what: string, work: Promise<unknown>): Promise<void> => {
      const over = new AbortController();
      const timer = sleepMs(withinMs, 'late', { signal: over.signal }).catch(() => 'cancelled');
      if ((await Promise.race([work, timer])) === 'late') late.push(`${what}: not after ${withinMs} ms`);
      over.abort();
    };
    await inTime('producers end', Promise.all(this.#producers.map((producer) => producer.stop())));
    await inTime('topics that come and go end', Promise.all(this.#churns.map((churn) => churn.stop())));
    await inTime('readers end', Promise.all(this.#readers.map((reader) => reader.stop())));
    this.abandon();
    const { history, doors } = this.#parts;
    const places = placesOf(this.#topics);
    const readNext = async (): Promise<void> => {
      for (let place = places.pop(); place !== undefined; place = places.pop()) {
        if (await readFinally({ history, doors, random: this.#random }, place)) continue;
        late.push(`${place.label}/${place.partition} could not be read to its end`);
      }
    };
    await Promise.all(Array.from({ length: READS_AT_ONCE }, readNext));
    return late;
  }

  /** Nobody tries again. */
  abandon(): void {
    for (const one of [...this.#producers, ...this.#churns]) one.abandon();
    for (const reader of this.#readers) void reader.stop();
  }

  async #makeTopic(name: string, partitions: number): Promise<void> {
    const { doors, history } = this.#parts;
    for (let attempt = 1; ; attempt++) {
      const answer = await doors.pick()?.client.createTopic(name, partitions);
      const isThere = answer?.ok || (attempt > 1 && answer?.refusal.code === 'topic-exists');
      if (isThere) break;
      const why = answer === undefined ? 'no broker' : `${answer.refusal.code} ${answer.text}`;
      if (attempt === TOPIC_TRIES) throw new Error(`topic ${name} could not be made: ${why}`);
      await sleepMs(200);
    }
    history.add({ e: 'topic', topic: name, partitions });
  }
}
