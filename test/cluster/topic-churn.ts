/**
 * Topics that come and go while the rest goes on: made, written, read, deleted, and made again under the same name,
 * each step through any broker and repeated until its answer is clear. Owns: that life. The history names each life of
 * a topic `NAME~LIFE`. A name of which a step was ever in doubt is not used again: a deletion that comes late would meet
 * the topic's next life. Does not own: judgement. The runner's process.
 */
import { setTimeout as sleepMs } from 'node:timers/promises';
import type { Answer, DoorClient } from './door-client.ts';
import {
  allocateId,
  Backoff,
  NEW_TOPIC_GRACE_MS,
  type ProducerParts,
  recordText,
  send,
  Whistle,
} from './producers.ts';
import { endsOnce, type ReadPlace, readFinally, readOnce } from './readers.ts';

const PARTITIONS = 3;
const REQUESTS = 8;

export class TopicChurn {
  readonly #parts: ProducerParts;
  readonly #first: string;
  #name: string;
  #names = 1;
  /** A request to make or to delete the topic may still come to happen. */
  #isInDoubt = false;
  readonly #whistle = new Whistle();
  #running: Promise<void> = Promise.resolve();
  /** Lives that were lived to the end. */
  lives = 0;

  constructor(parts: ProducerParts, name: string) {
    this.#parts = parts;
    this.#first = name;
    this.#name = name;
  }

  start(): void {
    this.#running = this.#run();
  }

  /** Resolves when the life that was begun is over, but for its topic, which stays. */
  async stop(): Promise<void> {
    this.#whistle.stopped = true;
    await this.#running;
  }

  abandon(): void {
    this.#whistle.stopped = true;
    this.#whistle.abandoned = true;
  }

  async #run(): Promise<void> {
    const id = await allocateId(this.#parts, this.#whistle);
    for (let life = 1; id !== null && !this.#whistle.abandoned; life++) {
      if (this.#isInDoubt) this.#name = `${this.#first}-${++this.#names}`;
      this.#isInDoubt = false;
      const label = `${this.#name}~${life}`;
      await this.#create(label);
      const places = Array.from({ length: PARTITIONS }, (_, partition) => ({
        label,
        topic: this.#name,
        partition,
      }));
      const graceUntil = this.#parts.history.now() + NEW_TOPIC_GRACE_MS;
      for (const place of places) await this.#write(place, id, graceUntil);
      if (this.#whistle.abandoned) return;
      if (this.#whistle.stopped) {
        // The last life stays, for the final read.
        for (const place of places) await readFinally(this.#parts, place);
        return;
      }
      for (const place of places) await this.#look(place);
      await this.#delete(label);
      this.lives++;
      await sleepMs(this.#parts.paceMs * 4 * this.#parts.random.unit());
    }
  }

  async #create(label: string): Promise<void> {
    await this.#untilClear('create', 'topic-exists', (client) => client.createTopic(this.#name, PARTITIONS));
    this.#parts.history.add({ e: 'topic', topic: label, partitions: PARTITIONS });
  }

  async #delete(label: string): Promise<void> {
    const { history } = this.#parts;
    history.add({ e: 'topic-end', topic: label, done: false });
    const isClear = await this.#untilClear('delete', 'topic-not-found', (client) =>
      client.deleteTopic(this.#name),
    );
    if (isClear) history.add({ e: 'topic-end', topic: label, done: true });
  }

  /** A step that was repeated and is found done already was done by the try before. */
  async #untilClear(
    what: string,
    doneAlready: string,
    step: (client: DoorClient) => Promise<Answer<object>>,
  ): Promise<boolean> {
    const { doors, history, random } = this.#parts;
    const backoff = new Backoff(random);
    let mayBeDone = false;
    while (!this.#whistle.abandoned) {
      const door = doors.pickReady();
      if (door !== null) {
        const inv = history.now();
        const answer = await step(door.client);
        if (answer.ok) return true;
        const { code, outcome, forGood } = answer.refusal;
        if (code === doneAlready && mayBeDone) return true;
        mayBeDone ||= outcome === 'unknown';
        this.#isInDoubt ||= outcome === 'unknown';
        const call = { inv, b: door.name, what: `${what} ${this.#name}`, code };
        history.add({ e: 'trouble', ...call, ...(forGood ? { wrong: true } : {}) });
      }
      await backoff.wait();
    }
    return false;
  }

  async #write(
    place: ReadPlace,
    id: { producerId: number; producerEpoch: number },
    graceUntil: number,
  ): Promise<void> {
    const { doors, random } = this.#parts;
    const prod = `${place.label}.w`;
    for (let sequence = 0; sequence < REQUESTS; sequence++) {
      const text = recordText(this.#parts, `${prod}.${place.partition}.${sequence}`);
      const records = [{ partition: place.partition, key: prod, text }];
      const backoff = new Backoff(random);
      while (!this.#whistle.abandoned) {
        const door = doors.pickReady();
        if (door !== null) {
          const request = { prod, topic: this.#name, label: place.label, records, graceUntil };
          const results = await send(this.#parts, door, request, { ...id, sequence });
          if (typeof results[0] === 'number') break;
        }
        await backoff.wait();
      }
    }
  }

  /** Through another broker, maybe: it must see this life and no other. */
  async #look(place: ReadPlace): Promise<void> {
    const door = this.#parts.doors.pickReady();
    if (door === null) return;
    await readOnce(this.#parts, door, `${this.#first}.r`, place, 0, 0);
    await endsOnce(this.#parts, door, `${this.#first}.r`, place);
  }
}
