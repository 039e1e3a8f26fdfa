/**
 * The way of a record on one thread: the real routers, agent loop, lanes and sequencer over stores that a test
 * may spoil, without ports, threads and sockets. Owns: the wiring (every message takes a turn of the event loop)
 * and the crash of its batching worker. Does not own: the stores.
 */
import { AgentLoop } from '../../src/agent/agent-loop.ts';
import { systemClock } from '../../src/core/clock.ts';
import { type PlainError, StreamHouseError } from '../../src/core/errors.ts';
import { seededRandom } from '../../src/core/random.ts';
import { readRecords } from '../../src/core/record-batch.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import { FetchRouter } from '../../src/route/fetch-router.ts';
import {
  type AppendCarrier,
  ProduceRouter,
  type ProduceRouterParts,
} from '../../src/route/produce-router.ts';
import type { MetadataStore, Topic } from '../../storage/metadata/metadata-store.ts';
import { batchObjectKey } from '../../storage/objects/object-key.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { Lane } from '../../workers/lane.ts';
import type { LaneReply, SequencerReply } from '../../workers/messages.ts';
import { Sequencer } from '../../workers/sequencer.ts';
import { allocateCounters, CountersReader, ThreadCounters } from '../../workers/shared-counters.ts';
import { allHere, noCarrier } from './fake-places.ts';

const LANES = 2;
export const SHARDS = 3;

export interface InlineAnswer {
  offset: number;
  error: PlainError | null;
}

/** What one of several brokers on the same stores needs; by default one is alone and holds everything. */
export interface InlineOptions {
  agentId?: string;
  address?: string;
  /** The shards that it takes, and takes again when it loses them. */
  shards?: ReadonlySet<number>;
  places?: ProduceRouterParts['places'];
  carrier?: AppendCarrier;
  /** A shard became held here. */
  changed?(shard: number): void;
}

export class InlineBroker {
  readonly counters: CountersReader;
  readonly produceRouter: ProduceRouter;
  readonly fatal: PlainError[] = [];
  /** Told of every topic under which a request was refused since it is deleted. */
  topicDeleted: (topic: Topic) => void = () => undefined;
  readonly #store: MetadataStore;
  readonly #objects: ObjectStore;
  readonly agent: AgentLoop;
  readonly fetchRouter: FetchRouter;
  readonly #options: InlineOptions;
  readonly #lanes: Lane[] = [];
  readonly #memory = allocateCounters(LANES + 2);
  #sequencer: Sequencer | null = null;

  constructor(store: MetadataStore, objects: ObjectStore, options: InlineOptions = {}) {
    this.#options = options;
    this.#store = store;
    this.#objects = objects;
    this.counters = new CountersReader(this.#memory);
    this.agent = this.#makeAgent();
    for (let lane = 0; lane < LANES; lane++) this.#lanes.push(this.#makeLane(lane));
    const clock = systemClock;
    const limits = { inFlightBytesMax: 64 << 20, recordBytesMax: 1 << 20, appendBytesMax: 1 << 20 };
    this.produceRouter = new ProduceRouter({
      settings: { laneCount: LANES, layout: oneGroup(SHARDS), ...limits },
      clock,
      places: options.places ?? allHere,
      carrier: options.carrier ?? noCarrier,
      counters: new ThreadCounters(this.#memory, LANES + 1),
      toLane: (lane, bytes) => this.#later(() => this.#lanes[lane].fromMain({ type: 'produce', bytes })),
      topicDeleted: (topic) => this.topicDeleted(topic),
    });
    this.fetchRouter = new FetchRouter({
      laneCount: LANES,
      layout: oneGroup(SHARDS),
      clock,
      toLane: (lane, request) => this.#later(() => this.#lanes[lane].fromMain(request)),
      mayServe: () => true,
      confirmHolder: async () => true,
      stillThere: async () => true,
      topicDeleted: (topic) => this.topicDeleted(topic),
    });
  }

  #later(run: () => void): true {
    setImmediate(run);
    return true;
  }

  #makeAgent(): AgentLoop {
    return new AgentLoop({
      settings: {
        agentId: this.#options.agentId ?? 'inline',
        zone: 'z',
        group: this.#group,
        version: '1',
        shardCount: SHARDS,
        heartbeatMs: 50,
        deadAgentMs: 1000,
        isAlone: true,
      },
      store: this.#store,
      clock: systemClock,
      random: seededRandom(1),
      address: () => this.#options.address ?? '127.0.0.1:1',
      groupOf: (shard) => (this.#takes(shard) ? this.#group : 'of another'),
      take: (leases) => {
        for (const lease of leases) this.#sequencer?.take(lease);
      },
      release: (shards) => this.#sequencer?.release(shards),
      notify: () => Promise.reject(new StreamHouseError('not-leader', 'there is nobody else')),
      outOfTouch: () => undefined,
      changed: (shard) => this.#options.changed?.(shard),
      agentGone: () => undefined,
      replaced: (error) => this.fatal.push(error.toPlain()),
      reaped: () => undefined,
      info: () => undefined,
      warn: () => undefined,
    });
  }

  /** Of its own: what it should hold is the test's to say. */
  get #group(): string {
    return this.#options.agentId ?? 'inline';
  }

  #takes(shard: number): boolean {
    return this.#options.shards?.has(shard) ?? true;
  }

  #makeLane(lane: number): Lane {
    return new Lane({
      settings: {
        lane,
        laneCount: LANES,
        layout: oneGroup(SHARDS),
        indexBytes: 1 << 20,
        tailCacheBytes: 1 << 20,
      },
      store: this.#store,
      readSlice: ({ incarnation, number }, position, length) =>
        this.#objects.get(batchObjectKey(incarnation, number), { position, length }),
      clock: systemClock,
      counters: new ThreadCounters(this.#memory, lane),
      toMain: (reply) => this.#later(() => this.#fromLane(reply)),
      toSequencer: (report) => {
        const sequencer = this.#sequencer;
        setImmediate(() => {
          if (this.#sequencer === sequencer) sequencer?.fromLane(lane, report);
        });
      },
      hasSequencer: () => this.#sequencer !== null,
    });
  }

  #fromLane(reply: LaneReply): void {
    if (reply.type === 'answers') this.produceRouter.answers(reply.bytes);
    else this.fetchRouter.reply(reply);
  }

  #fromSequencer(reply: SequencerReply): void {
    if (reply.type === 'held') this.agent.heldNow(reply.shard, reply.epoch);
    else if (reply.type === 'lost') this.agent.lost(reply.shard, reply.error);
    else if (reply.type === 'released') this.agent.released(reply.shard, reply.epoch);
    else if (reply.type === 'fatal') this.fatal.push(reply.error);
  }

  /** Starts a batching worker under a new incarnation and waits until it holds every shard. */
  async start(): Promise<void> {
    let incarnation = 0;
    while (incarnation === 0) {
      try {
        incarnation = await this.agent.register();
      } catch (error) {
        if (!(error instanceof StreamHouseError)) throw error;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    }
    const sequencer: Sequencer = new Sequencer({
      store: this.#store,
      objects: this.#objects,
      clock: systemClock,
      random: seededRandom(incarnation),
      incarnation,
      laneCount: LANES,
      settings: {
        windowMs: 5,
        bytesMax: 1 << 20,
        slicesMax: 1000,
        objectPer: 'window',
        layout: oneGroup(SHARDS),
        uploadsInFlightMax: 4,
        uploadDeadlineMs: 1000,
        checkpointLogBytes: 1024,
        unsettledBytesMax: 64 * 1024 * 1024,
        checkpointIntervalMs: 60_000,
      },
      counters: new ThreadCounters(this.#memory, LANES),
      report: (reply) => {
        setImmediate(() => {
          if (this.#sequencer === sequencer) this.#fromSequencer(reply);
        });
      },
    });
    this.#sequencer = sequencer;
    for (const [lane, target] of this.#lanes.entries()) {
      const post = (order: Parameters<Lane['fromSequencer']>[0]): void => {
        setImmediate(() => {
          if (this.#sequencer === sequencer) target.fromSequencer(structuredClone(order));
        });
      };
      sequencer.connectLane(lane, { post });
    }
    this.agent.sequencerUp();
    await this.until(() => this.agent.heldCount === (this.#options.shards?.size ?? SHARDS));
  }

  /** Takes a shard over, from whomever; or looks whether it is held still. */
  async take(shard: number): Promise<void> {
    const head = await this.#store.readHead(shard);
    this.#sequencer?.take(head);
  }

  /** Appends TopicDeleted to these shards; by default to every one. */
  async appendTopicDeleted(
    topicId: number,
    shards = Array.from({ length: SHARDS }, (_, shard) => shard),
  ): Promise<void> {
    if (!this.#sequencer) throw new StreamHouseError('not-leader', 'there is no batching worker');
    await this.#sequencer.decideOn(shards, { kind: 'topic-deleted', topicId });
  }

  /** The batching worker ends where it stands; `start` makes a successor. */
  crash(): void {
    this.#sequencer?.stop();
    this.#sequencer = null;
    for (const lane of this.#lanes) lane.sequencerLost();
    this.agent.sequencerLost();
    this.produceRouter.sequencerLost();
  }

  stop(): void {
    this.crash();
    this.agent.stop();
    this.produceRouter.close();
  }

  async until(holds: () => boolean, withinMs = 10_000): Promise<void> {
    const deadline = performance.now() + withinMs;
    while (!holds()) {
      if (performance.now() > deadline) throw new Error(`not within ${withinMs} ms: ${holds}`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  /** One record to one partition. */
  produce(topic: Topic, partition: number, value: string, timeoutMs = 10_000): Promise<InlineAnswer> {
    const source = Buffer.from(value);
    const request = { topic, partitions: [partition], spans: [-1, -1, 0, source.length], source };
    return new Promise((resolve) => {
      this.produceRouter.submit({ ...request, producer: null, timeoutMs }, ({ offsets, errors }) => {
        resolve({ offset: offsets[0], error: errors?.[0] ?? null });
      });
    });
  }

  /** All values of a partition, their offsets checked to be dense from 0. */
  async readAll(topic: Topic, partition: number): Promise<string[]> {
    const values: string[] = [];
    for (;;) {
      const request = { topic, partition, offset: values.length, bytesMax: 1 << 20 };
      const [result] = await this.fetchRouter.fetch([request], { bytesMax: 1 << 20, bytesMin: 0, waitMs: 0 });
      if (result.error) throw StreamHouseError.fromPlain(result.error);
      if (result.batches.length === 0) return values;
      for (let at = 0; at < result.batches.length; ) {
        at = readRecords(result.batches, at, ({ offset, value }) => {
          if (offset < request.offset) return;
          if (offset !== values.length) throw new Error(`offset ${offset} where ${values.length} was due`);
          values.push(String(value));
        });
      }
    }
  }
}
