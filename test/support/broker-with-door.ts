/**
 * One of several brokers on the same stores, in this process: the inline broker behind a real HTTP door, with the real
 * parts between brokers, over real sockets. Owns: the wiring, as compose does it, and which shards it should hold.
 * Does not own: the stores.
 */
import { systemClock } from '../../src/core/clock.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import { PeerAppends } from '../../src/peer/peer-appends.ts';
import { PeerClient } from '../../src/peer/peer-client.ts';
import { PeerPools } from '../../src/peer/peer-pools.ts';
import { PeerReads } from '../../src/peer/peer-reads.ts';
import { peerKey } from '../../src/protocol/peer/peer-headers.ts';
import type { Broker } from '../../src/route/broker.ts';
import type { HeldShard, LeasesMoved } from '../../src/route/peer-duties.ts';
import { ShardPlaces } from '../../src/route/shard-places.ts';
import { TopicService } from '../../src/route/topic-service.ts';
import { HTTP_DOOR_DEFAULTS } from '../../src/server/http/door-context.ts';
import { createHttpDoor, type HttpDoor } from '../../src/server/http/http-door.ts';
import { CachedMetadataStore } from '../../storage/metadata/cached-metadata-store.ts';
import type { ClusterInfo, MetadataStore } from '../../storage/metadata/metadata-store.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import {
  allocateCounters,
  type CounterName,
  CountersReader,
  ThreadCounters,
} from '../../workers/shared-counters.ts';
import { InlineBroker, SHARDS } from './inline-broker.ts';

const none = () => undefined;

export class BrokerWithDoor {
  readonly agentId: string;
  /** The shards that it should hold; to be changed by the test. */
  readonly shards: Set<number>;
  readonly store: CachedMetadataStore;
  readonly places: ShardPlaces;
  readonly client: PeerClient;
  readonly notices: LeasesMoved[] = [];
  readonly internalErrors: unknown[] = [];
  /** Shards that it is handing over: held, and not served. */
  readonly releasing = new Set<number>();
  url = '';
  address = '';
  inline!: InlineBroker;
  readonly #objects: ObjectStore;
  readonly #memory = allocateCounters(1);
  readonly #counters = new ThreadCounters(this.#memory, 0);
  readonly #pools = new PeerPools(systemClock);
  readonly #appends: PeerAppends;
  readonly #reads: PeerReads;
  #door!: HttpDoor;

  constructor(
    cluster: ClusterInfo,
    inner: MetadataStore,
    objects: ObjectStore,
    agentId: string,
    shards: readonly number[],
  ) {
    this.agentId = agentId;
    this.shards = new Set(shards);
    this.#objects = objects;
    const clock = systemClock;
    const observer = { hit: none, miss: none, eviction: none, staleFill: none, drop: none };
    this.store = new CachedMetadataStore(inner, { clock, observer, layout: oneGroup(SHARDS) });
    const incarnation = () => this.inline.agent.incarnation;
    this.places = new ShardPlaces({
      store: this.store,
      clock,
      shardCount: SHARDS,
      epochHere: (shard) => (this.releasing.has(shard) ? undefined : this.inline.agent.epochHere(shard)),
      incarnation,
    });
    const parts = { self: { key: peerKey(cluster), incarnation }, pools: this.#pools, clock };
    this.client = new PeerClient(parts);
    this.#appends = new PeerAppends({
      ...parts,
      counters: this.#counters,
      silenceMsMax: 5000,
      answered: (slot, generation, code, base) =>
        this.inline.produceRouter.answerElsewhere(slot, generation, code, base),
      warn: none,
    });
    this.#reads = new PeerReads({
      ...parts,
      layout: oneGroup(SHARDS),
      places: this.places,
      counters: this.#counters,
    });
    this.#cluster = cluster;
  }

  readonly #cluster: ClusterInfo;

  counter(name: CounterName): number {
    return new CountersReader(this.#memory).counter(name) + this.inline.counters.counter(name);
  }

  async start(): Promise<void> {
    const { agentId } = this;
    this.#door = this.#makeDoor();
    const { port } = await this.#door.listen('127.0.0.1', 0);
    this.address = `127.0.0.1:${port}`;
    this.url = `http://${this.address}`;
    this.inline = new InlineBroker(this.store, this.#objects, {
      agentId,
      address: this.address,
      shards: this.shards,
      places: this.places,
      carrier: this.#appends,
      changed: (shard) => this.places.changed(shard),
    });
    await this.inline.start();
  }

  #makeDoor(): HttpDoor {
    const topics = new TopicService({
      store: this.store,
      layout: oneGroup(SHARDS),
      clock: systemClock,
      appendTopicDeleted: (topicId) => this.inline.appendTopicDeleted(topicId),
      peekedUs: none,
      warn: none,
    });
    const self = this;
    const broker: Broker = {
      cluster: this.#cluster,
      info: {
        agentId: this.agentId,
        zone: 'z',
        version: '0',
        get incarnation() {
          return self.inline.agent.incarnation;
        },
      },
      view: { members: () => [], shards: async () => [], leaderOf: () => null },
      topics,
      get produce() {
        return self.inline.produceRouter;
      },
      get forwarded() {
        return self.inline.produceRouter;
      },
      get fetch() {
        return self.inline.fetchRouter;
      },
      reads: this.#reads,
      duties: {
        leasesMoved: (notice) => this.notices.push(notice),
        endTopic: (topicId, shards) => this.inline.appendTopicDeleted(topicId, [...shards]),
        held: () => this.#held(),
      },
      health: () => ({ live: true, ready: true, reasons: [] }),
      metricsText: async () => '',
      allocateProducerIds: (count) => this.store.allocateProducerIds(count),
    };
    const budget = { admit: () => true, release: none };
    const settings = { bodyBytesMax: 1 << 20, produceTimeoutMs: 10_000, connectionsMax: 1000 };
    const observer = {
      requestDone: none,
      connectionRefused: none,
      clientFault: none,
      internalError: (error: unknown) => this.internalErrors.push(error),
    };
    return createHttpDoor(broker, { ...HTTP_DOOR_DEFAULTS, ...settings }, observer, systemClock, {
      bodies: budget,
      answers: budget,
    });
  }

  #held(): HeldShard[] {
    return [...this.shards].flatMap((shard) => {
      const epoch = this.inline.agent.epochHere(shard);
      return epoch === undefined ? [] : [{ shard, epoch, sinceMs: 1 }];
    });
  }

  /** Hands a shard to another broker: serves it no more, which then takes it. */
  async handOver(shard: number, to: BrokerWithDoor): Promise<void> {
    this.releasing.add(shard);
    this.shards.delete(shard);
    to.shards.add(shard);
    to.releasing.delete(shard);
    await to.inline.take(shard);
    await to.inline.until(() => to.places.isHere(shard));
    // It looks whether it holds it still, and closes it.
    await this.inline.take(shard);
    await this.inline.until(() => this.inline.agent.epochHere(shard) === undefined);
  }

  async close(): Promise<void> {
    await this.#door.close({ graceMs: 0 });
    this.#appends.close();
    await this.#pools.close();
    this.inline.stop();
  }
}
