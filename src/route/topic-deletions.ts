/**
 * Sees to it that the end of every deleted topic reaches all shards of its group, and only then forgets the topic. Owns:
 * going on until it did. Does not own: how an end reaches the shards (topic-endings), who waits for how long
 * (topic-service). Main thread.
 *
 * Each group of brokers is seen to on its own, so that topics of a group where nobody lives keep no others waiting.
 */
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { type Clock, sleep } from '../core/clock.ts';
import { operatingError } from '../core/errors.ts';
import { groupOfTopic, type ShardLayout } from '../core/shard-layout.ts';

export interface TopicDeletionsParts {
  store: Pick<MetadataStore, 'listDeletedTopics' | 'forgetDeletedTopic'>;
  layout: ShardLayout;
  clock: Clock;
  /** Appends TopicDeleted to all shards of the topic's group; rejects when one of them is not reached. */
  appendTopicDeleted(topicId: number): Promise<void>;
  warn(message: string, fields: Record<string, unknown>): void;
}

/** Between two tries to finish deletions, ms. */
const DELETION_PAUSE_MS = 1000;
const DELETIONS_PAGE = 100;

export class TopicDeletions {
  readonly #parts: TopicDeletionsParts;
  readonly #look: Duty;
  /** By group; at most as many as there are. */
  readonly #groups = new Map<string, Duty>();
  readonly #stopped = new AbortController();

  constructor(parts: TopicDeletionsParts) {
    this.#parts = parts;
    this.#look = this.#duty(() => this.#findGroups());
  }

  /** Of all groups; resolves when all that were deleted before the call are finished. */
  async finish(): Promise<void> {
    await this.#look.run();
    await Promise.all([...this.#groups.values()].map((duty) => duty.done()));
  }

  /** Of one group. */
  finishGroup(group: string): Promise<void> {
    let duty = this.#groups.get(group);
    if (duty === undefined) this.#groups.set(group, (duty = this.#duty(() => this.#finishOnce(group))));
    return duty.run();
  }

  #duty(once: () => Promise<void>): Duty {
    return new Duty(once, this.#parts, this.#stopped.signal);
  }

  /** Begins with every group that has deleted topics. */
  async #findGroups(): Promise<void> {
    const groups = new Set<string>();
    for await (const topicId of this.#deleted()) groups.add(groupOfTopic(this.#parts.layout, topicId));
    for (const group of groups) void this.finishGroup(group);
  }

  async #finishOnce(group: string): Promise<void> {
    const { layout, store, appendTopicDeleted } = this.#parts;
    for await (const topicId of this.#deleted()) {
      if (groupOfTopic(layout, topicId) !== group) continue;
      await appendTopicDeleted(topicId);
      await store.forgetDeletedTopic(topicId);
    }
  }

  async *#deleted(): AsyncGenerator<number> {
    for (let afterTopicId = 0; ; ) {
      const topics = await this.#parts.store.listDeletedTopics({ afterTopicId, limit: DELETIONS_PAGE });
      for (const { topicId } of topics) yield (afterTopicId = topicId);
      if (topics.length < DELETIONS_PAGE) return;
    }
  }

  stop(): void {
    this.#stopped.abort();
  }
}

/** Work that is done again until it succeeds, and once more when it is asked for while it runs. */
class Duty {
  readonly #once: () => Promise<void>;
  readonly #parts: Pick<TopicDeletionsParts, 'clock' | 'warn'>;
  readonly #stopped: AbortSignal;
  #running: Promise<void> | null = null;
  #again = false;

  constructor(
    once: () => Promise<void>,
    parts: Pick<TopicDeletionsParts, 'clock' | 'warn'>,
    stopped: AbortSignal,
  ) {
    this.#once = once;
    this.#parts = parts;
    this.#stopped = stopped;
  }

  run(): Promise<void> {
    this.#again = true;
    this.#running ??= this.#loop();
    return this.#running;
  }

  /** Resolves when nothing is under way. */
  async done(): Promise<void> {
    await this.#running;
  }

  async #loop(): Promise<void> {
    while (this.#again && !this.#stopped.aborted) {
      this.#again = false;
      try {
        await this.#once();
      } catch (error) {
        const failure = operatingError(error);
        this.#parts.warn('a topic deletion has not reached all shards yet', { error: failure.toPlain() });
        this.#again = true;
        await sleep(this.#parts.clock, DELETION_PAUSE_MS, this.#stopped);
      }
    }
    // In the same turn as the last look at #again, so that who asks later begins anew.
    this.#running = null;
  }
}
