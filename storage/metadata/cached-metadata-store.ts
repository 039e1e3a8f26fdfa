/**
 * The cache in front of any metadata store, always there. Owns: which look-up is answered by which cache, that each
 * is counted once, and which calls of the contract tell the caches something. Does not own: what is remembered and
 * in which order (cache/: one file per kind), nor the truth. Main thread, where the doors look up for every request.
 *
 *   topic      a topic by name, 5 min
 *   partition  whether a topic has a partition, with its shard and the shard's lease, 1 min; made of the other two,
 *              so that a topic of 100,000 partitions costs no more memory than one of a single partition
 *   lease      whom to ask for a shard, 1 min; all are read anew with each heartbeat
 *   agent      an agent by its incarnation, 1 min; every heartbeat lists all of them
 *
 * Of the contract's own calls only getTopic is answered from memory. All others go to the store, whatever is
 * remembered: above all those that fence (readHead, listLeases, listAgents).
 */
import type { Clock } from '../../src/core/clock.ts';
import { shardOf } from '../../src/core/ids.ts';
import type { ShardLayout } from '../../src/core/shard-layout.ts';
import { AgentCache, type AgentCacheSettings, type RegisteredAgent } from './cache/agent-cache.ts';
import { type Lease, LeaseCache, type LeaseCacheSettings, type LeaseSighting } from './cache/lease-cache.ts';
import type { MetadataCacheKind, MetadataCacheObserver } from './cache/metadata-cache-observer.ts';
import { TopicCache, type TopicCacheSettings } from './cache/topic-cache.ts';
import {
  callMetadataStore,
  ForwardingMetadataStore,
  type MetadataArguments,
  type MetadataMethod,
  type MetadataResult,
} from './forwarding-metadata-store.ts';
import type { Agent, AppendOutcome, HeadOutcome, MetadataStore, ShardHead, Topic } from './metadata-store.ts';

export type MetadataCacheSettings = TopicCacheSettings & LeaseCacheSettings & AgentCacheSettings;

export const METADATA_CACHE_DEFAULTS: MetadataCacheSettings = {
  topicCountMax: 50_000,
  topicMsMax: 5 * 60_000,
  partitionMsMax: 60_000,
  absentCountMax: 5_000,
  leaseMsMax: 60_000,
  agentMsMax: 60_000,
  // Ten statements a second at most for a name that does not exist, or for all shards of an agent that died.
  paceMs: 100,
};

export interface CachedMetadataParts {
  clock: Clock;
  observer: MetadataCacheObserver;
  /** The cluster's. */
  layout: ShardLayout;
  settings?: Partial<MetadataCacheSettings>;
}

/** A partition that exists, and whom to ask for it. */
export interface PartitionPlace {
  readonly topic: Topic;
  readonly shard: number;
  readonly lease: Lease;
}

export class CachedMetadataStore extends ForwardingMetadataStore {
  readonly description: string;
  readonly bodyBytesMax: number;
  readonly #inner: MetadataStore;
  readonly #layout: ShardLayout;
  readonly #settings: MetadataCacheSettings;
  readonly #observer: MetadataCacheObserver;
  readonly #topics: TopicCache;
  readonly #leases: LeaseCache;
  readonly #agents: AgentCache;

  constructor(inner: MetadataStore, { clock, observer, layout, settings }: CachedMetadataParts) {
    super();
    this.description = inner.description;
    this.bodyBytesMax = inner.bodyBytesMax;
    this.#inner = inner;
    this.#layout = layout;
    const given = { ...METADATA_CACHE_DEFAULTS, ...settings };
    this.#settings = { ...given, partitionMsMax: Math.min(given.partitionMsMax, given.topicMsMax) };
    this.#observer = observer;
    this.#topics = new TopicCache(inner, clock, observer, this.#settings);
    this.#leases = new LeaseCache(inner, layout.shardCount, clock, observer, this.#settings);
    this.#agents = new AgentCache(inner, clock, observer, this.#settings);
  }

  protected override forward<M extends MetadataMethod>(
    method: M,
    args: MetadataArguments<M>,
  ): Promise<MetadataResult<M>> {
    return callMetadataStore(this.#inner, method, args);
  }

  /** Closes the store below. */
  close(): Promise<void> {
    return this.#inner.close();
  }

  // -- Topics ------------------------------------------------------------------------------------------

  /**
   * The topic if it is in memory, for the hot path; counts a hit. undefined says nothing: ask `getTopic`, which
   * counts then. Topics from here are frozen and shared.
   */
  peekTopic(name: string): Topic | undefined {
    return this.#hit('topic', this.#topics.remembered(name, 0, this.#settings.topicMsMax));
  }

  /** null always comes from a read that began after this call. */
  override async getTopic(name: string): Promise<Topic | null> {
    const remembered = this.peekTopic(name);
    if (remembered) return remembered;
    this.#observer.miss('topic');
    return this.#topics.read(name, 0);
  }

  /**
   * The topic, read anew once if it has fewer partitions in memory than `partitionCount` (another broker may have
   * grown it). It may still have fewer afterwards: then a read that began after this call says so.
   */
  async getTopicAtLeast(name: string, partitionCount: number): Promise<Topic | null> {
    const { partitionMsMax } = this.#settings;
    const remembered = this.#hit('partition', this.#topics.remembered(name, partitionCount, partitionMsMax));
    if (remembered) return remembered;
    this.#observer.miss('partition');
    return this.#topics.read(name, partitionCount);
  }

  /**
   * A request under this topic was refused as 'topic-not-found': its deletion has reached the partition's log. Whoever
   * asks for the name next gets it from the store.
   */
  dropTopic(topic: Topic): void {
    this.#topics.drop(topic);
  }

  override createTopic(...args: MetadataArguments<'createTopic'>): Promise<Topic> {
    return this.#topics.write(args[0].name, this.forward('createTopic', args));
  }

  override growTopic(...args: MetadataArguments<'growTopic'>): Promise<Topic> {
    return this.#topics.write(args[0], this.forward('growTopic', args));
  }

  override alterTopic(...args: MetadataArguments<'alterTopic'>): Promise<Topic> {
    return this.#topics.write(args[0], this.forward('alterTopic', args));
  }

  override deleteTopic(...args: MetadataArguments<'deleteTopic'>): Promise<Topic> {
    return this.#topics.write(args[0], this.forward('deleteTopic', args), true);
  }

  // -- Partitions --------------------------------------------------------------------------------------

  /** Where a partition is, if all of that is in memory; counts a hit. undefined says nothing. */
  peekPartition(name: string, partition: number): PartitionPlace | undefined {
    const topic = this.#topics.remembered(name, partition + 1, this.#settings.partitionMsMax);
    if (!topic) return undefined;
    const shard = this.#shardOf(topic.topicId, partition);
    const lease = this.#leases.remembered(shard);
    return lease && this.#hit('partition', { topic, shard, lease });
  }

  /**
   * Where a partition is; null: there is no such topic, or it has no such partition, by a read that began after this
   * call. The lease may be without holder. What is missing is read: the topic, all leases, or both.
   */
  async getPartition(name: string, partition: number): Promise<PartitionPlace | null> {
    const remembered = this.peekPartition(name, partition);
    if (remembered) return remembered;
    this.#observer.miss('partition');
    const { partitionMsMax } = this.#settings;
    const topic =
      this.#topics.remembered(name, partition + 1, partitionMsMax) ??
      (await this.#topics.read(name, partition + 1));
    if (!topic || topic.partitionCount <= partition) return null;
    const shard = this.#shardOf(topic.topicId, partition);
    const lease = this.#leases.remembered(shard) ?? (await this.#leases.read(shard));
    return { topic, shard, lease };
  }

  #shardOf(topicId: number, partition: number): number {
    return shardOf(topicId, partition, this.#layout);
  }

  // -- Leases ------------------------------------------------------------------------------------------

  /** The lease if it is in memory and has a holder; counts a hit. undefined says nothing: ask `getLease`. */
  peekLease(shard: number): Lease | undefined {
    return this.#hit('lease', this.#leases.remembered(shard));
  }

  /** Whom to ask for a shard; holder 0 always comes from a read that began after this call. 'shard-not-found'. */
  async getLease(shard: number): Promise<Lease> {
    const remembered = this.peekLease(shard);
    if (remembered) return remembered;
    this.#observer.miss('lease');
    return this.#leases.read(shard);
  }

  /** The lease of a partition's shard, as `getLease`; whether there is such a partition is not looked at. */
  getPartitionLease(topicId: number, partition: number): Promise<Lease> {
    return this.getLease(this.#shardOf(topicId, partition));
  }

  /**
   * A request that went by `seen` was refused by the holder, or could not reach it: the next look-up reads. Nothing if
   * a newer lease is known already. Without `seen` the shard's lease is in doubt whatever it is.
   */
  dropLease(shard: number, seen?: Lease): void {
    this.#leases.drop(shard, seen);
  }

  /** Somebody who knows tells that a shard was taken: the batching worker, whose calls do not come through here. */
  noteLease(sighting: LeaseSighting): void {
    this.#leases.see([sighting], this.#leases.begin());
  }

  /** Reads all leases anew in one statement, or joins the one that does; with each heartbeat. */
  refreshLeases(): Promise<void> {
    return this.#leases.refresh();
  }

  override acquireLeases(...args: MetadataArguments<'acquireLeases'>): Promise<HeadOutcome[]> {
    const shards = args[1].map(({ shard }) => shard);
    return this.#seeing(shards, this.forward('acquireLeases', args), headsOf);
  }

  override releaseLeases(...args: MetadataArguments<'releaseLeases'>): Promise<HeadOutcome[]> {
    const shards = args[1].map(({ shard }) => shard);
    return this.#seeing(shards, this.forward('releaseLeases', args), headsOf);
  }

  override movePointer(...args: MetadataArguments<'movePointer'>): Promise<HeadOutcome> {
    return this.#seeing([], this.forward('movePointer', args), (outcome) => [outcome.head]);
  }

  override appendEntries(...args: MetadataArguments<'appendEntries'>): Promise<AppendOutcome[]> {
    return this.#seeing([], this.forward('appendEntries', args), (outcomes) =>
      outcomes.flatMap((outcome) => (outcome.kind === 'conflict' ? [outcome.head] : [])),
    );
  }

  override readHead(...args: MetadataArguments<'readHead'>): Promise<ShardHead> {
    return this.#seeing([], this.forward('readHead', args), (head) => [head]);
  }

  override listLeases(): Promise<ShardHead[]> {
    return this.#seeing([], this.forward('listLeases', []), (heads) => heads);
  }

  /**
   * Waits for a call and remembers the heads that its answer tells of. `changing`: shards whose lease the call may
   * have changed; where its answer is lost, nobody knows.
   */
  async #seeing<T>(
    changing: readonly number[],
    call: Promise<T>,
    heads: (answer: T) => readonly LeaseSighting[],
  ): Promise<T> {
    const began = this.#leases.begin();
    try {
      const answer = await call;
      this.#leases.see(heads(answer), began);
      return answer;
    } catch (error) {
      for (const shard of changing) this.#leases.drop(shard);
      throw error;
    }
  }

  // -- Agents ------------------------------------------------------------------------------------------

  /** An agent if it is in memory; counts a hit. undefined says nothing: ask `getAgentOf`. */
  peekAgentOf(incarnation: number): RegisteredAgent | undefined {
    return this.#hit('agent', this.#agents.remembered(incarnation));
  }

  /** The agent of a lease's holder; null: it is registered no more, by a read that began after this call. */
  async getAgentOf(incarnation: number): Promise<RegisteredAgent | null> {
    const remembered = this.peekAgentOf(incarnation);
    if (remembered) return remembered;
    this.#observer.miss('agent');
    return this.#agents.read(incarnation);
  }

  override async registerAgent(...args: MetadataArguments<'registerAgent'>): Promise<Agent> {
    try {
      const agent = await this.forward('registerAgent', args);
      this.#agents.registered(agent);
      return agent;
    } catch (error) {
      this.#agents.doubt();
      throw error;
    }
  }

  /** Its answer is a list of all agents: with each heartbeat they are young again. */
  override async heartbeat(...args: MetadataArguments<'heartbeat'>): Promise<Agent[]> {
    const began = this.#agents.begin();
    const agents = await this.forward('heartbeat', args);
    this.#agents.see(agents, began);
    return agents;
  }

  override async deregisterAgent(...args: MetadataArguments<'deregisterAgent'>): Promise<void> {
    try {
      await this.forward('deregisterAgent', args);
    } finally {
      this.#agents.deregistered(args[1]);
    }
  }

  // -- Inside ------------------------------------------------------------------------------------------

  /** Rows are put as another store holds them, under whatever version. */
  override async importRows(...args: MetadataArguments<'importRows'>): Promise<void> {
    try {
      await this.forward('importRows', args);
    } finally {
      this.#topics.forgetAll();
      this.#leases.forgetAll();
      this.#agents.doubt();
    }
  }

  #hit<T>(kind: MetadataCacheKind, remembered: T | undefined): T | undefined {
    if (remembered !== undefined) this.#observer.hit(kind);
    return remembered;
  }
}

function headsOf(outcomes: readonly HeadOutcome[]): ShardHead[] {
  return outcomes.map(({ head }) => head);
}
