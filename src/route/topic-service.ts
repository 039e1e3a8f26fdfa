/**
 * The catalogue as the doors use it: validation, the cache, and the broker's duties behind a deletion. Owns: the
 * rules for names, counts and configs. Does not own: the catalogue (storage/metadata), finishing deletions
 * (topic-deletions). Main thread.
 *
 * A deletion frees the name in the catalogue first; then TopicDeleted is appended to every shard of the topic's
 * group, and only when all have it is the deleted topic forgotten. What a crash interrupts, the next start finishes.
 *
 * Another broker may still have the deleted topic in its cache, and until TopicDeleted is in a shard's log that shard
 * takes records for it. So a deletion is answered when all shards have it (or it takes too long), and a topic's
 * creation is not answered before all earlier topics of its name are refused everywhere: who was told that the
 * new one exists is never acknowledged for records that went to an old one.
 */
import type { CachedMetadataStore } from '../../storage/metadata/cached-metadata-store.ts';
import type { Topic } from '../../storage/metadata/metadata-store.ts';
import { sleep } from '../core/clock.ts';
import { operatingError, StreamHouseError } from '../core/errors.ts';
import { PARTITIONS_PER_TOPIC_MAX } from '../core/ids.ts';
import { TOPIC_NAME_CHARACTERS_MAX } from '../core/limits.ts';
import { groupOfTopic } from '../core/shard-layout.ts';
import type { TopicCatalogue } from './broker.ts';
import { bindToGroup, checkChangeable, checkTopicConfigs } from './topic-configs.ts';
import { TopicDeletions, type TopicDeletionsParts } from './topic-deletions.ts';

export interface TopicServiceParts extends TopicDeletionsParts {
  store: CachedMetadataStore;
  /** How long a look-up took that the cache answered, us; told of one in 64. */
  peekedUs(us: number): void;
}

const DELETIONS_PAGE = 100;
/** Look-ups of which one is timed. */
const PEEKS_PER_SAMPLE = 64;

/** How long who deletes or creates waits for a deletion to reach all shards, ms. */
const DELETION_WAIT_MS_MAX = 5000;

export class TopicService implements TopicCatalogue {
  readonly #parts: TopicServiceParts;
  readonly #deletions: TopicDeletions;
  #peeks = 0;

  constructor(parts: TopicServiceParts) {
    this.#parts = parts;
    this.#deletions = new TopicDeletions(parts);
  }

  peek(name: string): Topic | undefined {
    const { store, clock, peekedUs } = this.#parts;
    // To read the clock twice costs about as much as the look-up.
    if (this.#peeks++ % PEEKS_PER_SAMPLE !== 0) return store.peekTopic(name);
    const startMs = clock.monotonicMs();
    const topic = store.peekTopic(name);
    if (topic) peekedUs((clock.monotonicMs() - startMs) * 1000);
    return topic;
  }

  async get(name: string): Promise<Topic> {
    checkTopicName(name);
    const topic = await this.#parts.store.getTopic(name);
    if (!topic) throw topicNotFound(name);
    return topic;
  }

  async getWithPartition(name: string, partition: number): Promise<Topic> {
    checkTopicName(name);
    const topic = await this.#parts.store.getTopicAtLeast(name, partition + 1);
    if (!topic) throw topicNotFound(name);
    if (partition >= topic.partitionCount) {
      throw new StreamHouseError(
        'partition-not-found',
        `topic ${name} has no partition ${partition}; it has ${topic.partitionCount}`,
      );
    }
    return topic;
  }

  doubt(topic: Topic): void {
    this.#parts.store.dropTopic(topic);
  }

  /** Whether this topic, and no other of its name, exists. While the catalogue cannot be read: yes. */
  async stillThere({ name, topicId }: Topic): Promise<boolean> {
    if (this.peek(name)?.topicId === topicId) return true;
    try {
      return (await this.#parts.store.getTopic(name))?.topicId === topicId;
    } catch (error) {
      operatingError(error);
      return true;
    }
  }

  list(page: { after?: string; limit: number }): Promise<Topic[]> {
    return this.#parts.store.listTopics(page);
  }

  async create(request: {
    name: string;
    partitionCount: number;
    configs: Record<string, string>;
  }): Promise<Topic> {
    checkTopicName(request.name);
    checkPartitionCount(request.partitionCount);
    checkTopicConfigs(request.configs);
    const bound = bindToGroup(request.configs, this.#parts.layout);
    await this.#endEarlier(request.name, 'not-leader');
    const topic = await this.#parts.store.createTopic({
      ...request,
      ...bound,
      createdAtMs: Math.max(0, Math.floor(this.#parts.clock.wallMs())),
    });
    // One may have been deleted since the first look.
    await this.#endEarlier(request.name, 'deadline-exceeded');
    return topic;
  }

  /** Sees to it that deleted topics of this name are refused by all shards. */
  async #endEarlier(name: string, otherwise: 'not-leader' | 'deadline-exceeded'): Promise<void> {
    const groups = await this.#endingIn(name);
    if (groups.size === 0) return;
    await this.#ended(groups);
    if ((await this.#endingIn(name)).size === 0) return;
    throw new StreamHouseError(
      otherwise,
      `an earlier topic ${name} is deleted, but not all shards know of it yet; try again`,
    );
  }

  /** Groups where a deleted topic of this name may still be written to; not by us any more. */
  async #endingIn(name: string): Promise<Set<string>> {
    const groups = new Set<string>();
    for (let afterTopicId = 0; ; ) {
      const topics = await this.#parts.store.listDeletedTopics({ afterTopicId, limit: DELETIONS_PAGE });
      for (const topic of topics) {
        if (topic.name !== name) continue;
        this.#parts.store.dropTopic(topic);
        groups.add(groupOfTopic(this.#parts.layout, topic.topicId));
      }
      if (topics.length < DELETIONS_PAGE) return groups;
      afterTopicId = topics[topics.length - 1].topicId;
    }
  }

  /** Waits until the deletions of these groups have reached all their shards, or for DELETION_WAIT_MS_MAX. */
  async #ended(groups: Iterable<string>): Promise<void> {
    const ended = Promise.all([...groups].map((group) => this.#deletions.finishGroup(group)));
    const over = new AbortController();
    await Promise.race([ended, sleep(this.#parts.clock, DELETION_WAIT_MS_MAX, over.signal)]);
    over.abort();
  }

  async grow(name: string, partitionCount: number): Promise<Topic> {
    checkTopicName(name);
    checkPartitionCount(partitionCount);
    return this.#parts.store.growTopic(name, partitionCount);
  }

  async alter(name: string, changes: Record<string, string | null>): Promise<Topic> {
    checkTopicName(name);
    checkTopicConfigs(changes);
    checkChangeable(changes);
    return this.#parts.store.alterTopic(name, changes);
  }

  async delete(name: string): Promise<void> {
    checkTopicName(name);
    let topicId: number;
    try {
      topicId = await this.#deleteOnce(name);
    } catch (error) {
      // Its outcome may be unknown: what was deleted must reach the shards.
      void this.finishDeletions();
      throw error;
    }
    await this.#ended([groupOfTopic(this.#parts.layout, topicId)]);
  }

  /**
   * By the id that the name has now, and never tried again: an order that is held up on its way to the store, until the
   * topic was deleted and made anew, finds nothing to delete.
   */
  async #deleteOnce(name: string): Promise<number> {
    const { store } = this.#parts;
    const cached = store.peekTopic(name);
    // Through another broker the name may have become another topic's.
    if (cached) store.dropTopic(cached);
    const { topicId } = await this.get(name);
    await store.deleteTopic(name, topicId);
    return topicId;
  }

  /** Sees to it that every deleted topic's end reaches all shards of its group; goes on trying until it did. */
  finishDeletions(): Promise<void> {
    return this.#deletions.finish();
  }

  stop(): void {
    this.#deletions.stop();
  }
}

function topicNotFound(name: string): StreamHouseError {
  return new StreamHouseError('topic-not-found', `topic ${name} does not exist`);
}

/** Kafka's rule. 'invalid-topic-name'. */
export function checkTopicName(name: string): void {
  const wrong = topicNameFault(name);
  if (wrong)
    throw new StreamHouseError(
      'invalid-topic-name',
      `topic name ${JSON.stringify(name.slice(0, 260))}: ${wrong}`,
    );
}

function topicNameFault(name: string): string | null {
  if (name === '') return 'it is empty';
  if (name === '.' || name === '..') return "it must not be '.' or '..'";
  if (name.length > TOPIC_NAME_CHARACTERS_MAX)
    return `it has more than ${TOPIC_NAME_CHARACTERS_MAX} characters`;
  if (!/^[a-zA-Z0-9._-]+$/.test(name)) return 'only a-z, A-Z, 0-9, ., _ and - are allowed';
  return null;
}

function checkPartitionCount(count: number): void {
  if (Number.isInteger(count) && count >= 1 && count <= PARTITIONS_PER_TOPIC_MAX) return;
  throw new StreamHouseError(
    'invalid-partition-count',
    `a topic has 1 to ${PARTITIONS_PER_TOPIC_MAX} partitions, not ${count}`,
  );
}
