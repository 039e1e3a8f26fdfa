/**
 * The catalogue: topics by name, by id, and those that are deleted. Owns: their items and the order in which they
 * are written. Does not own: ids (dynamodb-agents' counters). The thread that hosts the store.
 *
 * The item under the name is the truth; the others only lead to it:
 *   create   id from the counter -> item of the id -> item of the name, put if absent (the one commit point)
 *   change   item of the name, on condition that (topicId, version) is what was read
 *   delete   item under `deleted-topics` -> item of the name deleted on the same condition (the one commit point)
 * An id whose name bears another id, and a deleted topic whose name still bears its id, do not count: a crash between
 * two steps makes no topic that is not there, and makes no live topic look deleted.
 *
 * A write that commits is never sent twice: when its reply is lost, the name tells.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import { checkIdClass, checkPartitionCount, idOfClass } from '../check-input.ts';
import type { NewTopic, Topic } from '../metadata-store.ts';
import type { DynamodbCounters } from './dynamodb-counters.ts';
import {
  DELETED_TOPICS,
  deletedTopicItem,
  deletedTopicKey,
  isKeyText,
  ordered,
  TOPICS,
  topicIdKey,
  topicItem,
  topicKey,
  topicOf,
} from './dynamodb-items.ts';
import { allWritten } from './dynamodb-outcomes.ts';
import type { DynamodbRequests } from './dynamodb-requests.ts';
import { ItemReader, toItem } from './dynamodb-values.ts';

/** Rivals that change one topic at once: each round one of them gets through. */
const CHANGE_ATTEMPTS_MAX = 20;

const UNCHANGED = '#topicId = :topicId AND #version = :version';

export class DynamodbCatalogue {
  readonly #requests: DynamodbRequests;
  readonly #counters: DynamodbCounters;

  constructor(requests: DynamodbRequests, counters: DynamodbCounters) {
    this.#requests = requests;
    this.#counters = counters;
  }

  async create(topic: NewTopic): Promise<Topic> {
    checkPartitionCount(topic.partitionCount);
    const idClass = checkIdClass(topic.idClass);
    const { name, partitionCount, configs, createdAtMs } = topic;
    if (!isKeyText(name))
      throw new StreamHouseError('invalid-topic-name', 'the name of a topic is too long, or no text');
    const copied = { ...configs };
    // Spares an id, and the item of that id, what most refusals are.
    if ((await this.get(name)) !== null) throw topicExists(name);
    const { modulus } = idClass;
    const topicId = idOfClass((await this.#counters.next('topic', modulus)) + modulus - 1, idClass);
    const created = { topicId, name, partitionCount, configs: copied, createdAtMs, version: 1 };
    await this.#requests.put(toItem(topicIdKey(topicId), { name }), 'idempotent');
    const condition = { text: 'attribute_not_exists(#pk)' };
    const isOurs = await this.#requests
      .put(topicItem(created), 'once', { condition })
      .catch(async (error: unknown) => {
        const found = await this.#afterUnknown(error, name);
        if (found === null) throw error;
        return found.topicId === topicId;
      });
    if (isOurs) return created;
    await this.#requests.remove(topicIdKey(topicId));
    throw topicExists(name);
  }

  /** What is under the name now, if `error` leaves it open what became of a write; else throws it. */
  async #afterUnknown(error: unknown, name: string): Promise<Topic | null> {
    if (!(error instanceof StreamHouseError) || error.kind !== 'unknown') throw error;
    try {
      return await this.get(name);
    } catch {
      // The store cannot be asked either: the first error says it all.
      throw error;
    }
  }

  async get(name: string): Promise<Topic | null> {
    if (!isKeyText(name)) return null;
    const item = await this.#requests.get(topicKey(name));
    return item === null ? null : topicOf(item);
  }

  async getById(topicIds: readonly number[]): Promise<(Topic | null)[]> {
    this.#requests.checkOpen();
    const ids = await this.#requests.getMany(topicIds.map(topicIdKey));
    const names = ids.map((item) => (item === null ? null : new ItemReader(item).text('name')));
    const named = names.filter((name) => name !== null);
    const items = await this.#requests.getMany(named.map(topicKey));
    const topics = new Map(named.map((name, i) => [name, items[i]]));
    return topicIds.map((topicId, i) => {
      const name = names[i];
      const item = name === null ? null : (topics.get(name) ?? null);
      if (item === null) return null;
      const topic = topicOf(item);
      return topic.topicId === topicId ? topic : null;
    });
  }

  async list({ after, limit }: { after?: string; limit: number }): Promise<Topic[]> {
    this.#requests.checkOpen();
    const range =
      after === undefined ? undefined : { text: '#sk > :after', values: { after: topicKey(after).sk } };
    return (await this.#requests.queryFirst({ pk: TOPICS, range }, limit)).map(topicOf);
  }

  async grow(name: string, partitionCount: number): Promise<Topic> {
    checkPartitionCount(partitionCount);
    return this.#change(name, (topic) => {
      if (partitionCount > topic.partitionCount) return { ...topic, partitionCount };
      throw new StreamHouseError(
        'invalid-partition-count',
        `topic '${name}' has ${topic.partitionCount} partitions already; it can only grow`,
      );
    });
  }

  async alter(name: string, changes: Record<string, string | null>): Promise<Topic> {
    const asked = { ...changes };
    return this.#change(name, (topic) => {
      const configs = { ...topic.configs };
      for (const [key, value] of Object.entries(asked)) {
        if (value === null) delete configs[key];
        else configs[key] = value;
      }
      return { ...topic, configs };
    });
  }

  /** Read, change, put on condition that nobody changed it meanwhile; again if somebody did. */
  async #change(name: string, change: (topic: Topic) => Topic): Promise<Topic> {
    for (let attempt = 1; ; attempt++) {
      const topic = await this.#present(name);
      const changed = { ...change(topic), version: topic.version + 1 };
      const condition = { text: UNCHANGED, values: { topicId: topic.topicId, version: topic.version } };
      if (await this.#requests.put(topicItem(changed), 'once', { condition })) return changed;
      await this.#again(name, attempt);
    }
  }

  async delete(name: string, only?: number): Promise<Topic> {
    for (let attempt = 1; ; attempt++) {
      const topic = await this.#present(name);
      if (only !== undefined && topic.topicId !== only) throw topicNotFound(name);
      const { topicId, version } = topic;
      const deleted = { ...topic, version: version + 1 };
      // Of two attempts the later one knows the topic as it is.
      const isNewer = {
        text: 'attribute_not_exists(#pk) OR #version < :version',
        values: { version: version + 1 },
      };
      await this.#requests.put(deletedTopicItem(deleted), 'idempotent', { condition: isNewer });
      const condition = { text: UNCHANGED, values: { topicId, version } };
      const isDone = await this.#requests
        .remove(topicKey(name), condition, 'once')
        .catch(async (error: unknown) => {
          const found = await this.#afterUnknown(error, name);
          // Gone, whoever did it. Unchanged: it may still come.
          if (found === null || found.topicId !== topicId) return true;
          if (found.version === version) throw error;
          return false;
        });
      if (isDone) return deleted;
      await this.#again(name, attempt);
    }
  }

  async #present(name: string): Promise<Topic> {
    const topic = await this.get(name);
    if (topic === null) throw topicNotFound(name);
    return topic;
  }

  async #again(name: string, attempt: number): Promise<void> {
    if (attempt === CHANGE_ATTEMPTS_MAX) {
      throw new StreamHouseError('store-unavailable', `topic '${name}': rivals were faster ${attempt} times`);
    }
    await this.#requests.backOff(attempt - 1);
  }

  async listDeleted({ afterTopicId, limit }: { afterTopicId: number; limit: number }): Promise<Topic[]> {
    this.#requests.checkOpen();
    if (limit <= 0) return [];
    const found: Topic[] = [];
    const range = { text: '#sk > :after', values: { after: ordered(Math.max(0, afterTopicId)) } };
    for await (const some of this.#requests.query({ pk: DELETED_TOPICS, range, limit })) {
      const topics = some.map(topicOf);
      const names = await this.#requests.getMany(topics.map(({ name }) => topicKey(name)));
      // Whoever wanted to delete it ended before it did: it lives.
      const isLive = ({ topicId }: Topic, i: number) =>
        names[i] !== null && topicOf(names[i]).topicId === topicId;
      found.push(...topics.filter((topic, i) => !isLive(topic, i)));
      if (found.length >= limit) break;
    }
    return found.slice(0, limit);
  }

  async forgetDeleted(topicId: number): Promise<void> {
    // The item of the id first: without the other, nothing would lead to it any more.
    await this.#requests.remove(topicIdKey(topicId));
    await this.#requests.remove(deletedTopicKey(topicId));
  }

  /** Topics as they are, over what is there. */
  async import(topics: readonly Topic[], deleted: readonly Topic[]): Promise<void> {
    const ids = topics.map(({ topicId, name }) => toItem(topicIdKey(topicId), { name }));
    const put = (item: ReturnType<typeof topicItem>) =>
      this.#requests.put(item, 'idempotent', { lane: 'bulk' });
    await allWritten(ids.map(put));
    await allWritten([...topics.map(topicItem), ...deleted.map(deletedTopicItem)].map(put));
  }
}

function topicExists(name: string): StreamHouseError {
  return new StreamHouseError('topic-exists', `topic '${name}' exists already`);
}

function topicNotFound(name: string): StreamHouseError {
  return new StreamHouseError('topic-not-found', `there is no topic '${name}'`);
}
