/**
 * Where a broker's parts are created and wired together, and the only such place. Owns: the order of starting and
 * of stopping. Does not own: anything that the parts do. Main thread.
 *
 *   start  metadata store -> object store and cluster stamp -> doors (their address is registered) -> agent -> threads
 *          -> shards taken -> ready
 *   stop   shards handed over, with the doors open -> doors refuse -> requests under way end -> batching worker drains
 *          and releases -> threads -> stores
 */
import { CachedMetadataStore } from '../storage/metadata/cached-metadata-store.ts';
import { hasOneOwner } from '../storage/metadata/metadata-backends.ts';
import type { ClusterInfo } from '../storage/metadata/metadata-store.ts';
import { type OpenedMetadata, openMetadata } from '../storage/metadata/open-metadata-store.ts';
import { BrokerThreads } from '../workers/broker-threads.ts';
import { countedCache } from '../workers/counted-cache.ts';
import { countedMetadata } from '../workers/counted-metadata.ts';
import type { LaneReply, SequencerReply } from '../workers/messages.ts';
import { allocateCounters, ThreadCounters } from '../workers/shared-counters.ts';
import { AgentLoop } from './agent/agent-loop.ts';
import { clusterView } from './agent/cluster-view.ts';
import { joinCluster } from './cluster-stamp.ts';
import { type Clock, sleep, systemClock } from './core/clock.ts';
import { kindOf, StreamHouseError } from './core/errors.ts';
import { joinAddress } from './core/host-port.ts';
import { shardOf } from './core/ids.ts';
import { FETCH_BYTES_MAX } from './core/limits.ts';
import { systemRandom } from './core/random.ts';
import { groupOfShard, layoutOf } from './core/shard-layout.ts';
import { brokerGauges } from './observe/broker-gauges.ts';
import { createLogger, type Logger } from './observe/log.ts';
import { Metrics } from './observe/metrics.ts';
import { Peers, whoIsAt } from './peer/peers.ts';
import { peerKey } from './protocol/peer/peer-headers.ts';
import type { Broker } from './route/broker.ts';
import { ByteBudget } from './route/byte-budget.ts';
import { FetchRouter } from './route/fetch-router.ts';
import type { LeasesMoved } from './route/peer-duties.ts';
import { ProduceRouter } from './route/produce-router.ts';
import { ShardPlaces } from './route/shard-places.ts';
import { TopicEndRequests } from './route/topic-end-requests.ts';
import { TopicEndings } from './route/topic-endings.ts';
import { TopicService } from './route/topic-service.ts';
import { HTTP_DOOR_DEFAULTS } from './server/http/door-context.ts';
import { createHttpDoor, type HttpDoor } from './server/http/http-door.ts';
import { newLayout, type Settings, splitAddress } from './settings.ts';
import {
  checkGroups,
  checkLayout,
  checkListenAddress,
  makeDataDirectory,
  refuseBesideOthers,
  unheededShards,
} from './start-checks.ts';
import { packageVersion } from './version.ts';

/** Time for the first takeover of all shards; beyond it something is wrong and the start fails. */
const START_MS_MAX = 60_000;

/** Bodies that are being read may hold this part of the in-flight bytes. */
const BODY_SHARE = 0.5;

/** Large answers that are being taken: two of the largest, which are 50 MiB of records as base64 in JSON. */
const ANSWER_BYTES_ALL_MAX = Math.ceil(FETCH_BYTES_MAX * 2.8);

export interface RunningBroker {
  /** http://HOST:PORT as bound. */
  url: string;
  /** Ends in order: see above. */
  close(): Promise<void>;
  /** Rejects when the broker cannot go on. */
  failed: Promise<never>;
  /** Ends a thread as a crash would; for tests of supervision. */
  terminate(which: number | 'batching-worker'): void;
}

/** Starts a broker and resolves when it serves. */
export async function startBroker(settings: Settings): Promise<RunningBroker> {
  const log = createLogger(settings.logLevel, settings.agentId);
  const clock = systemClock;
  await checkListenAddress(settings.listen);
  await makeDataDirectory(settings);
  const metadata = await naming(
    'metadata',
    openMetadata(settings.metadata, { role: 'broker', migrate: settings.migrate }),
  );
  try {
    await checkGroups(metadata.store, settings);
    const joining = joinCluster({
      store: metadata.store,
      metadataUrl: settings.metadata,
      objectsUrl: settings.objects,
      layout: newLayout(settings),
      clock,
      random: systemRandom,
    });
    const cluster = await naming('objects', joining);
    checkLayout(cluster, settings);
    const unheeded = unheededShards(cluster, settings);
    if (unheeded !== null) log.warn({ cluster: cluster.clusterId }, unheeded);
    await refuseBesideOthers({
      store: metadata.store,
      settings,
      clusterId: cluster.clusterId,
      version: packageVersion,
      clock,
      who: (address) => whoIsAt(address, clock),
      info: (message, fields) => log.info(fields, message),
    });
    const broker = new ComposedBroker(settings, cluster, metadata, clock, log);
    return await broker.start();
  } catch (error) {
    await metadata.close();
    throw error;
  }
}

/** A URL that its backend does not take is told with the name of its setting. */
async function naming<T>(setting: string, opening: Promise<T>): Promise<T> {
  try {
    return await opening;
  } catch (error) {
    if (!(error instanceof StreamHouseError) || error.code !== 'invalid-setting') throw error;
    throw new StreamHouseError('invalid-setting', `setting ${setting}: ${error.message}`);
  }
}

class ComposedBroker {
  readonly #settings: Settings;
  readonly #cluster: ClusterInfo;
  readonly #metadata: OpenedMetadata;
  readonly #store: CachedMetadataStore;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #counters: ThreadCounters;
  readonly #metrics: Metrics;
  readonly #agent: AgentLoop;
  readonly #threads: BrokerThreads;
  readonly #places: ShardPlaces;
  readonly #peers: Peers;
  readonly #topicEnds: TopicEndRequests;
  readonly #endings: TopicEndings;
  readonly #produce: ProduceRouter;
  readonly #fetch: FetchRouter;
  readonly #topics: TopicService;
  readonly #door: HttpDoor;
  readonly #failed: Promise<never>;
  #fail: (error: unknown) => void = () => undefined;
  #drained: () => void = () => undefined;
  /** Of request bodies that are being read. */
  readonly #bodies: ByteBudget;
  /** Of large answers that are being taken. */
  readonly #answers = new ByteBudget(ANSWER_BYTES_ALL_MAX, 0);
  #serves = false;
  /** Where others reach this broker; known when the door listens. */
  #address = '';
  /** The metadata store contradicts what is known to be committed. */
  #isDamaged = false;
  #closing: Promise<void> | null = null;

  constructor(settings: Settings, cluster: ClusterInfo, metadata: OpenedMetadata, clock: Clock, log: Logger) {
    this.#settings = settings;
    this.#cluster = cluster;
    this.#metadata = metadata;
    this.#clock = clock;
    this.#log = log;
    this.#failed = new Promise<never>((_, reject) => (this.#fail = reject));
    this.#failed.catch(() => undefined);
    const { lanes: laneCount, bodyBytesMax, inFlightBytesMax } = settings;
    this.#bodies = new ByteBudget(Math.max(bodyBytesMax, inFlightBytesMax * BODY_SHARE), 0);
    // One block for each lane, one for the batching worker, one for this thread.
    const counters = allocateCounters(laneCount + 2);
    this.#counters = new ThreadCounters(counters, laneCount + 1);
    this.#store = this.#makeStore();
    metadata.lost.catch((error) => this.#fail(error));
    this.#agent = this.#makeAgent();
    this.#threads = this.#makeThreads(counters);
    this.#places = new ShardPlaces({
      store: this.#store,
      clock,
      shardCount: cluster.shardCount,
      epochHere: (shard) => this.#agent.epochHere(shard),
      incarnation: () => this.#agent.incarnation,
    });
    this.#peers = this.#makePeers();
    this.#topicEnds = new TopicEndRequests((request) => this.#threads.toSequencer(request));
    this.#endings = new TopicEndings({
      layout: layoutOf(cluster),
      places: this.#places,
      store: this.#store,
      endHere: (topicId, shards) => this.#topicEnds.end(topicId, shards),
      endAt: (peer, topicId, shards) => this.#peers.client.endTopic(peer, topicId, shards),
    });
    this.#produce = this.#makeProduce();
    this.#fetch = new FetchRouter({
      laneCount,
      layout: layoutOf(cluster),
      clock,
      toLane: (lane, request) => this.#threads.toLane(lane, request),
      mayServe: () => this.#agent.mayServe(),
      confirmHolder: (shard) => this.#confirmHolder(shard),
      stillThere: (topic) => this.#topics.stillThere(topic),
      topicDeleted: (topic) => this.#store.dropTopic(topic),
    });
    this.#topics = this.#makeTopics();
    const gauges = brokerGauges({
      produce: this.#produce,
      fetch: this.#fetch,
      bodies: this.#bodies,
      peers: this.#peers,
      agent: this.#agent,
    });
    this.#metrics = new Metrics(counters, metadata.counters, gauges, (error, route) =>
      log.error({ err: error, route }, 'a request met a bug'),
    );
    this.#door = this.#makeDoor();
  }

  // -- Making the parts --------------------------------------------------------------------------------

  #makeStore(): CachedMetadataStore {
    const { topicCacheMax, topicCacheTtlMs } = this.#settings;
    return new CachedMetadataStore(countedMetadata(this.#metadata.store, this.#clock, this.#counters), {
      clock: this.#clock,
      observer: countedCache(this.#counters),
      layout: layoutOf(this.#cluster),
      settings: { topicCountMax: topicCacheMax, topicMsMax: topicCacheTtlMs },
    });
  }

  #makeAgent(): AgentLoop {
    const { agentId, zone, group, heartbeatMs, deadAgentMs, metadata } = this.#settings;
    const isAlone = hasOneOwner(metadata);
    return new AgentLoop({
      settings: {
        agentId,
        zone,
        group,
        version: packageVersion,
        shardCount: this.#cluster.shardCount,
        heartbeatMs,
        deadAgentMs,
        isAlone,
      },
      store: this.#store,
      clock: this.#clock,
      random: systemRandom,
      address: () => this.#address,
      // Where no other broker can be, this one serves every group.
      groupOf: (shard) => (isAlone ? group : groupOfShard(this.#cluster, shard)),
      take: (leases) => this.#threads.toSequencer({ type: 'take', leases }),
      release: (shards) => this.#threads.toSequencer({ type: 'release', shards }),
      notify: (agent, notice) => this.#peers.client.notify(agent, notice),
      outOfTouch: () => this.#fetch.outOfTouch(),
      changed: (shard) => this.#places.changed(shard),
      agentGone: () => void this.#topics.finishDeletions(),
      replaced: (error) => this.#fail(error),
      reaped: () => this.#threads.terminate('batching-worker'),
      info: (message, fields) => this.#log.info(fields, message),
      warn: (message, fields) => this.#log.warn(fields, message),
    });
  }

  #makePeers(): Peers {
    return new Peers({
      self: { key: peerKey(this.#cluster), incarnation: () => this.#agent.incarnation },
      layout: layoutOf(this.#cluster),
      places: this.#places,
      clock: this.#clock,
      counters: this.#counters,
      silenceMsMax: this.#settings.requestTimeoutMs,
      answered: (slot, generation, code, base) => this.#produce.answerElsewhere(slot, generation, code, base),
      warn: (message, fields) => this.#log.warn(fields, message),
    });
  }

  #makeProduce(): ProduceRouter {
    const { lanes, inFlightBytesMax, recordBytesMax, bodyBytesMax } = this.#settings;
    return new ProduceRouter({
      settings: {
        laneCount: lanes,
        layout: layoutOf(this.#cluster),
        inFlightBytesMax,
        recordBytesMax,
        appendBytesMax: bodyBytesMax,
      },
      clock: this.#clock,
      places: this.#places,
      carrier: this.#peers.appends,
      counters: this.#counters,
      toLane: (lane, bytes) => this.#threads.toLane(lane, { type: 'produce', bytes }, [bytes.buffer]),
      topicDeleted: (topic) => this.#store.dropTopic(topic),
    });
  }

  #makeThreads(counters: SharedArrayBuffer): BrokerThreads {
    const settings = this.#settings;
    const laneCount = settings.lanes;
    return new BrokerThreads({
      settings: {
        laneCount,
        lane: {
          layout: layoutOf(this.#cluster),
          indexBytes: Math.floor(settings.indexBytes / laneCount),
          tailCacheBytes: settings.tailCacheBytes,
          blockCacheBytes: Math.floor(settings.blockCacheBytes / laneCount),
        },
        sequencer: {
          layout: layoutOf(this.#cluster),
          windowMs: settings.flushWindowMs,
          bytesMax: settings.flushBytes,
          slicesMax: settings.flushSlicesMax,
          objectPer: settings.objectPer,
          uploadsInFlightMax: settings.uploadsInFlightMax,
          uploadDeadlineMs: settings.uploadDeadlineMs,
          unsettledBytesMax: settings.inFlightBytesMax,
          checkpointLogBytes: settings.checkpointLogBytes,
          checkpointIntervalMs: settings.checkpointIntervalMs,
        },
        objectsUrl: settings.objects,
      },
      metadata: this.#metadata,
      counters,
      clock: this.#clock,
      newIncarnation: () => this.#agent.register(),
      events: {
        laneReply: (lane, reply) => this.#fromLane(lane, reply),
        laneLost: (lane, error) => {
          this.#log.error({ lane, err: error }, 'a lane ended; it is started again');
          this.#produce.laneLost(lane);
          this.#fetch.laneLost(lane);
        },
        sequencerReply: (reply) => this.#fromSequencer(reply),
        sequencerLost: (error) => {
          this.#log.error({ err: error }, 'the batching worker ended; it is started again');
          this.#agent.sequencerLost();
          this.#produce.sequencerLost();
          this.#topicEnds.failAll();
        },
        sequencerUp: () => this.#agent.sequencerUp(),
        failed: (error) => this.#fail(error),
      },
    });
  }

  #makeTopics(): TopicService {
    return new TopicService({
      store: this.#store,
      layout: layoutOf(this.#cluster),
      clock: this.#clock,
      appendTopicDeleted: (topicId) => this.#endings.end(topicId),
      peekedUs: (us) => this.#counters.observe('topicCacheHitUs', us),
      warn: (message, fields) => this.#log.warn(fields, message),
    });
  }

  #makeDoor(): HttpDoor {
    const { bodyBytesMax, requestTimeoutMs, connectionsMax, agentId, zone } = this.#settings;
    const agent = this.#agent;
    const broker: Broker = {
      cluster: this.#cluster,
      info: {
        agentId,
        zone,
        version: packageVersion,
        get incarnation() {
          return agent.incarnation;
        },
      },
      view: clusterView({
        agent,
        store: this.#store,
        clock: this.#clock,
        shardOf: (topicId, partition) => shardOf(topicId, partition, this.#cluster),
        heldBy: (peer) => this.#peers.client.held(peer),
      }),
      produce: this.#produce,
      fetch: this.#fetch,
      topics: this.#topics,
      forwarded: this.#produce,
      reads: this.#peers.reads,
      duties: {
        leasesMoved: (notice) => this.#leasesMoved(notice),
        endTopic: (topicId, shards) => this.#endings.endForPeer(topicId, shards),
        held: () => this.#agent.held(),
      },
      health: () => this.#health(),
      metricsText: () => this.#metrics.text(),
      allocateProducerIds: (count) => this.#store.allocateProducerIds(count),
    };
    return createHttpDoor(
      broker,
      { ...HTTP_DOOR_DEFAULTS, bodyBytesMax, produceTimeoutMs: requestTimeoutMs, connectionsMax },
      this.#metrics.httpObserver,
      this.#clock,
      { bodies: admissionBy(this.#bodies), answers: admissionBy(this.#answers) },
    );
  }

  // -- Messages ----------------------------------------------------------------------------------------

  #fromLane(_lane: number, reply: LaneReply): void {
    if (reply.type === 'answers') this.#produce.answers(reply.bytes);
    else this.#fetch.reply(reply);
  }

  #fromSequencer(reply: SequencerReply): void {
    switch (reply.type) {
      case 'held':
        this.#store.noteLease({ ...reply, holder: this.#agent.incarnation });
        this.#agent.heldNow(reply.shard, reply.epoch);
        break;
      case 'lost':
        // Damage met while starting is told at once; a broker that serves goes on with its other shards.
        if (!this.#serves && kindOf(reply.error.code) === 'corrupt') {
          this.#fail(StreamHouseError.fromPlain(reply.error));
        }
        // The store was copied to another one, which is the one to be used.
        if (reply.error.code === 'cluster-mismatch') this.#fail(StreamHouseError.fromPlain(reply.error));
        this.#store.dropLease(reply.shard);
        this.#agent.lost(reply.shard, reply.error);
        break;
      case 'released':
        this.#store.noteLease({ ...reply, holder: 0 });
        this.#agent.released(reply.shard, reply.epoch);
        break;
      case 'topic-deleted':
        this.#topicEnds.answered(reply);
        break;
      case 'drained':
        this.#drained();
        break;
      case 'fatal':
        this.#isDamaged = true;
        this.#produce.stop();
        this.#fail(StreamHouseError.fromPlain(reply.error));
        break;
      case 'log':
        this.#log[reply.level](reply.fields, reply.message);
        break;
    }
  }

  /** Another broker handed shards over, to us or to others, or leaves. */
  #leasesMoved(notice: LeasesMoved): void {
    // Whoever reaches the port may say so: what is known is read anew, and not replaced.
    for (const { shard, epoch } of notice.shards) {
      const lease = this.#store.peekLease(shard);
      if (lease?.holder === notice.from && lease.epoch <= epoch) this.#store.dropLease(shard, lease);
    }
    this.#agent.leasesMoved(notice);
  }

  async #confirmHolder(shard: number): Promise<boolean> {
    const epoch = this.#agent.epochHere(shard);
    if (epoch === undefined) return false;
    const head = await this.#store.readHead(shard);
    return head.epoch === epoch && head.holder === this.#agent.incarnation;
  }

  #health(): { live: boolean; ready: boolean; reasons: string[] } {
    const reasons = this.#agent.reasons();
    if (!this.#serves) reasons.push('the broker is starting');
    if (this.#closing) reasons.push('the broker is stopping');
    return { live: true, ready: reasons.length === 0, reasons };
  }

  // -- Starting and stopping ---------------------------------------------------------------------------

  async start(): Promise<RunningBroker> {
    const address = splitAddress(this.#settings.listen);
    if (address === null) throw new Error(`listen address ${this.#settings.listen}`);
    try {
      // First of all, for others are told the address; until the shards are taken requests wait or are refused.
      const bound = await this.#door.listen(address.host, address.port);
      this.#address = this.#settings.advertise ?? joinAddress(bound);
      await this.#threads.start();
      await Promise.race([this.#allServed(), this.#failed]);
      this.#serves = true;
      void this.#topics.finishDeletions();
      const url = `http://${joinAddress(bound)}`;
      this.#log.info({ url, cluster: this.#cluster.clusterId, version: packageVersion }, 'ready');
      return {
        url,
        close: () => this.close(),
        failed: this.#failed,
        terminate: (which) => this.#threads.terminate(which),
      };
    } catch (error) {
      await this.#door.close({ graceMs: 0 });
      await this.#closeParts();
      throw error;
    }
  }

  async #allServed(): Promise<void> {
    const over = new AbortController();
    const late = sleep(this.#clock, START_MS_MAX, over.signal);
    const settled = this.#agent.settled(over.signal).then(() => true);
    const isSettled = await Promise.race([settled, late.then(() => false)]);
    over.abort();
    if (isSettled) return;
    throw new StreamHouseError('store-unavailable', `not all shards could be taken in ${START_MS_MAX} ms`);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const { shutdownGraceMs } = this.#settings;
    if (!this.#isDamaged) await this.#leave(shutdownGraceMs);
    this.#topics.stop();
    const doorClosed = this.#door.close({ graceMs: shutdownGraceMs });
    this.#fetch.stop();
    await doorClosed;
    this.#produce.stop();
    // A store that lost what it confirmed is written to no more.
    if (!this.#isDamaged) await this.#drain(shutdownGraceMs);
    this.#agent.stop();
    try {
      await this.#agent.deregister();
    } catch (error) {
      this.#log.warn({ err: error }, 'this agent could not be deregistered; its successor will not mind');
    }
    await this.#closeParts();
    this.#log.info('stopped');
  }

  /** Other brokers take the shards, while requests are still taken and forwarded; or the grace time is over. */
  async #leave(graceMs: number): Promise<void> {
    const over = new AbortController();
    const timer = this.#clock.after(graceMs, () => over.abort());
    this.#failed.catch(() => over.abort());
    await this.#agent.leave(over.signal);
    timer.cancel();
  }

  /** Everything admitted is committed or refused, the shards are released; or the grace time is over. */
  async #drain(graceMs: number): Promise<void> {
    const drained = new Promise<void>((resolve) => (this.#drained = resolve));
    if (!this.#threads.toSequencer({ type: 'drain' })) return;
    const over = new AbortController();
    await Promise.race([
      drained,
      sleep(this.#clock, graceMs, over.signal),
      this.#failed.catch(() => undefined),
    ]);
    over.abort();
  }

  async #closeParts(): Promise<void> {
    this.#agent.stop();
    this.#produce.close();
    await this.#peers.close();
    await this.#threads.close();
    await this.#metadata.close();
  }
}

/** A budget as the door asks for it: at once or not at all. */
function admissionBy(budget: ByteBudget): { admit(bytes: number): boolean; release(bytes: number): void } {
  return { admit: (bytes) => budget.tryTake(bytes), release: (bytes) => budget.release(bytes) };
}
