/**
 * Topics by id, as the catalogue has them while a verification runs. Owns: asking again where an answer may be
 * too old (a topic that was just created, grown or deleted). Main thread.
 */
import type { MetadataStore, Topic } from '../../storage/metadata/metadata-store.ts';

export class TopicNames {
  readonly #store: MetadataStore;
  readonly #byId = new Map<number, Topic>();

  constructor(store: MetadataStore, known: readonly Topic[]) {
    this.#store = store;
    for (const topic of known) this.#byId.set(topic.topicId, topic);
  }

  name(topicId: number): string | undefined {
    return this.#byId.get(topicId)?.name;
  }

  /** Whether a shard may hold this partition: of a live topic, or of one whose deletion has not reached it yet. */
  async standing(topicId: number, partition: number): Promise<'live' | 'deleted' | 'unknown' | Topic> {
    let topic = this.#byId.get(topicId);
    if (topic && partition < topic.partitionCount) return 'live';
    const [fresh] = await this.#store.getTopicsById([topicId]);
    if (fresh) {
      topic = fresh;
      this.#byId.set(topicId, fresh);
      return partition < fresh.partitionCount ? 'live' : fresh;
    }
    const [deleted] = await this.#store.listDeletedTopics({ afterTopicId: topicId - 1, limit: 1 });
    return deleted?.topicId === topicId ? 'deleted' : 'unknown';
  }
}
