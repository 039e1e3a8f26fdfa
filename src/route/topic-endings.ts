/**
 * Brings a deleted topic's end to all shards, wherever they are held. Owns: who is asked for which shards, and which
 * of them have it already. Does not own: when it is tried again (topic-service), the entry itself (batching worker).
 * Main thread.
 *
 * An end never goes away once it is in a shard's log, so a shard that has it is not asked again when others failed.
 */
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { operatingError, StreamHouseError } from '../core/errors.ts';
import { PLACE_WAIT_MS_MAX } from '../core/limits.ts';
import { type ShardLayout, shardsOfTopic } from '../core/shard-layout.ts';
import type { PeerAddress, ShardPlace, ShardPlaces } from './shard-places.ts';

export interface TopicEndingsParts {
  layout: ShardLayout;
  places: Pick<ShardPlaces, 'find' | 'refused'>;
  store: Pick<MetadataStore, 'listDeletedTopics'>;
  /** Appends TopicDeleted on shards that are all held here; 'not-leader' otherwise. */
  endHere(topicId: number, shards: readonly number[]): Promise<void>;
  /** The same at another broker. */
  endAt(peer: PeerAddress, topicId: number, shards: readonly number[]): Promise<void>;
}

/** Topics of which it is remembered what has been done. They are ended one after another; more only after failures. */
const REMEMBERED_MAX = 100;

interface Group {
  place: Exclude<ShardPlace, { kind: 'unknown' }>;
  places: ShardPlace[];
  shards: number[];
}

export class TopicEndings {
  readonly #parts: TopicEndingsParts;
  /** By topic, the shards that have its end; until all have. */
  readonly #done = new Map<number, Set<number>>();

  constructor(parts: TopicEndingsParts) {
    this.#parts = parts;
  }

  /** Appends TopicDeleted to all shards. Rejects if one of them was not reached: then it is to be called again. */
  async end(topicId: number): Promise<void> {
    const done = this.#doneOf(topicId);
    const failures: StreamHouseError[] = [];
    const groups = await this.#groups(topicId, done, failures);
    await Promise.all(
      groups.map(async (group) => {
        try {
          await this.#endGroup(topicId, group);
          for (const shard of group.shards) done.add(shard);
        } catch (error) {
          failures.push(operatingError(error));
          for (const place of group.places) this.#parts.places.refused(place);
        }
      }),
    );
    if (failures.length > 0) throw failures[0];
    this.#done.delete(topicId);
  }

  #doneOf(topicId: number): Set<number> {
    let done = this.#done.get(topicId);
    if (done) return done;
    if (this.#done.size >= REMEMBERED_MAX) this.#done.delete(this.#done.keys().next().value as number);
    this.#done.set(topicId, (done = new Set()));
    return done;
  }

  #endGroup(topicId: number, { place, shards }: Group): Promise<void> {
    if (place.kind === 'here') return this.#parts.endHere(topicId, shards);
    return this.#parts.endAt(place.peer, topicId, shards);
  }

  /** The shards that lack it, by who holds them; those without a holder are failures. */
  async #groups(topicId: number, done: ReadonlySet<number>, failures: StreamHouseError[]): Promise<Group[]> {
    const groups = new Map<number, Group>();
    const find = async (shard: number): Promise<void> => {
      try {
        const place = await this.#parts.places.find(shard, PLACE_WAIT_MS_MAX);
        const holder = place.kind === 'here' ? 0 : place.peer.incarnation;
        const group = groups.get(holder);
        if (group) {
          group.places.push(place);
          group.shards.push(shard);
        } else groups.set(holder, { place, places: [place], shards: [shard] });
      } catch (error) {
        failures.push(operatingError(error));
      }
    };
    const finding: Promise<void>[] = [];
    for (const shard of shardsOfTopic(this.#parts.layout, topicId)) {
      if (!done.has(shard)) finding.push(find(shard));
    }
    await Promise.all(finding);
    return [...groups.values()];
  }

  /**
   * For another broker that asks: nobody ends a topic here that the catalogue does not have as deleted.
   * 'topic-not-found', 'invalid-request'.
   */
  async endForPeer(topicId: number, shards: readonly number[]): Promise<void> {
    if (shards.some((shard) => shard >= this.#parts.layout.shardCount)) {
      throw new StreamHouseError('invalid-request', `there are ${this.#parts.layout.shardCount} shards`);
    }
    const found = await this.#parts.store.listDeletedTopics({ afterTopicId: topicId - 1, limit: 1 });
    if (found[0]?.topicId !== topicId) {
      throw new StreamHouseError('topic-not-found', `no topic ${topicId} is being deleted`);
    }
    await this.#parts.endHere(topicId, shards);
  }
}
