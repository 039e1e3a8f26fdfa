/**
 * Topics that come and go beside a load: each is created, written twice and deleted, so that the catalogue's cache
 * meets names that it does not know and names that are gone. Owns: that loop and its counts. Main thread.
 */
import type { RestClient } from '../client/rest-client.ts';
import { RestError } from '../client/rest-error.ts';
import { type Clock, sleep } from '../core/clock.ts';

const LOOPS = 4;
const PARTITIONS = 10;
const WRITES = 2;
const PAUSE_MS = 50;

export class TopicChurn {
  readonly counts = { topics_created: 0, topics_deleted: 0, records: 0, failed: 0 };
  readonly #client: RestClient;
  readonly #prefix: string;
  readonly #clock: Clock;
  readonly #running: Promise<void>[];
  readonly #stopped = new AbortController();
  #next = 0;

  constructor(client: RestClient, prefix: string, clock: Clock) {
    this.#client = client;
    this.#prefix = prefix;
    this.#clock = clock;
    this.#running = Array.from({ length: LOOPS }, () => this.#loop());
  }

  /** Lets the topics that are there end their lives. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await Promise.all(this.#running);
  }

  async #loop(): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      try {
        await this.#life(`${this.#prefix}-churn-${this.#next++}`);
      } catch (error) {
        if (!(error instanceof RestError)) throw error;
        this.counts.failed++;
      }
      await sleep(this.#clock, PAUSE_MS, this.#stopped.signal);
    }
  }

  async #life(name: string): Promise<void> {
    await this.#client.createTopic({ name, partitionCount: PARTITIONS });
    this.counts.topics_created++;
    const records = Array.from({ length: PARTITIONS }, (_, partition) => ({ value: 'churn', partition }));
    for (let i = 0; i < WRITES; i++) {
      const answers = await this.#client.produce(name, records, 'json');
      this.counts.records += answers.filter(({ error }) => error === null).length;
      this.counts.failed += answers.filter(({ error }) => error !== null).length;
    }
    await this.#client.deleteTopic(name);
    this.counts.topics_deleted++;
  }
}
