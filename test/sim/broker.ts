/**
 * One simulated broker process: a main thread with its table of tokens, lanes, a batching worker, ports between
 * them; the real Lane and the real Sequencer run inside. Owns: starting and crashing of threads, what main does
 * when one dies. Does not own: when that happens (simulation.ts) nor who asks (clients). The simulation's only
 * thread.
 */

import type { ErrorCode } from '../../src/core/errors.ts';
import { StreamHouseError } from '../../src/core/errors.ts';
import { laneOf, shardOf } from '../../src/core/ids.ts';
import type { ProducerStamp } from '../../src/core/record-batch.ts';
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { batchObjectKey } from '../../storage/objects/object-key.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { readAnswers } from '../../workers/append-codec.ts';
import { forEachAppend } from '../../workers/batch-builder.ts';
import { Lane } from '../../workers/lane.ts';
import type {
  LaneFetchPartReply,
  LaneOrder,
  LaneReply,
  LaneReport,
  LaneRequest,
  SeenLease,
  SequencerReply,
} from '../../workers/messages.ts';
import { Sequencer, type SequencerSettings } from '../../workers/sequencer.ts';
import { allocateCounters, CountersReader, ThreadCounters } from '../../workers/shared-counters.ts';
import type { AttemptResult } from './checker.ts';
import type { CoverageCounts } from './coverage.ts';
import { type SimHost, SimPort, SimThread } from './host.ts';
import { LeaseLedger } from './lease-ledger.ts';
import { packProduce, type SimAppend } from './payloads.ts';

/** The world as a broker sees it. */
export interface BrokerWorld {
  storeFor(thread: SimThread): MetadataStore;
  objectsFor(thread: SimThread): ObjectStore;
  settings: SequencerSettings;
  indexBytes: number;
  tailCacheBytes: number;
  violate(what: string): void;
  coverage: CoverageCounts;
  held(broker: SimBroker, shard: number, epoch: number): void;
  lost(broker: SimBroker, shard: number): void;
  released(broker: SimBroker, shard: number, epoch: number): void;
}

interface LaneRun {
  thread: SimThread;
  lane: Lane;
  fromMain: SimPort<LaneRequest>;
  /** To and from the batching worker of the moment. */
  report: SimPort<LaneReport> | null;
  order: SimPort<LaneOrder> | null;
}

export interface WorkerRun {
  thread: SimThread;
  sequencer: Sequencer;
  incarnation: number;
  leases: LeaseLedger;
}

interface PendingAppend {
  lane: number;
  done(result: AttemptResult): void;
}

export interface FetchResult {
  reply: LaneFetchPartReply;
  bytes: Buffer;
}

export class SimBroker {
  readonly host: SimHost;
  readonly laneCount: number;
  alive = true;
  worker: WorkerRun | null = null;
  readonly lanes: (LaneRun | null)[];
  readonly counters: CountersReader;
  readonly #world: BrokerWorld;
  readonly #main: SimThread;
  readonly #memory: SharedArrayBuffer;
  readonly #pending = new Map<number, PendingAppend>();
  readonly #answered = new Set<number>();
  /** Appends that were sent to a lane and not answered by anybody, with their lanes, whether a client waits or not. */
  readonly #sent = new Map<number, number>();
  /** As they were read last. */
  #leases: readonly SeenLease[] | null = null;
  readonly #asked = new Map<number, { lane: number; done(reply: LaneReply | null): void }>();
  readonly #gathered: SimAppend[][];
  #token = 0;
  #askId = 0;

  constructor(world: BrokerWorld, host: SimHost, laneCount: number) {
    this.#world = world;
    this.host = host;
    this.laneCount = laneCount;
    this.#main = new SimThread(host);
    this.#memory = allocateCounters(laneCount + 1);
    this.counters = new CountersReader(this.#memory);
    this.lanes = Array.from({ length: laneCount }, () => null);
    this.#gathered = Array.from({ length: laneCount }, () => []);
    for (let lane = 0; lane < laneCount; lane++) this.#startLane(lane);
    this.#startWorker();
  }

  get name(): string {
    return this.host.name;
  }

  // -- Threads -----------------------------------------------------------------------------------------

  #startLane(number: number): void {
    const world = this.#world;
    const thread = new SimThread(this.host);
    const toMain = new SimPort<LaneReply>(thread, this.#main, (reply) => this.#fromLane(reply));
    const objects = world.objectsFor(thread);
    const run: LaneRun = {
      thread,
      report: null,
      order: null,
      fromMain: new SimPort(this.#main, thread, (request) => this.#guard(() => run.lane.fromMain(request))),
      lane: new Lane({
        settings: {
          lane: number,
          laneCount: this.laneCount,
          layout: world.settings.layout,
          indexBytes: world.indexBytes,
          tailCacheBytes: world.tailCacheBytes,
        },
        store: world.storeFor(thread),
        readSlice: (object, position, length) =>
          objects.get(batchObjectKey(object.incarnation, object.number), { position, length }),
        clock: thread.clock,
        counters: new ThreadCounters(this.#memory, number),
        toMain: (reply) => toMain.post(reply),
        toSequencer: (report) => run.report?.post(report),
        hasSequencer: () => run.report !== null,
      }),
    };
    this.lanes[number] = run;
    if (this.worker) this.#connect(number);
  }

  #startWorker(): void {
    const thread = new SimThread(this.host);
    void this.#register().then((incarnation) => {
      if (!this.alive) return;
      const { settings, storeFor, objectsFor } = this.#world;
      const worker: WorkerRun = {
        thread,
        incarnation,
        leases: new LeaseLedger((what) => this.#world.violate(`${this.name} (${incarnation}): ${what}`)),
        sequencer: new Sequencer({
          store: storeFor.call(this.#world, thread),
          objects: objectsFor.call(this.#world, thread),
          clock: thread.clock,
          random: this.host.random,
          incarnation,
          laneCount: this.laneCount,
          settings,
          counters: new ThreadCounters(this.#memory, this.laneCount),
          report: (reply) => toMain.post(reply),
        }),
      };
      const toMain = new SimPort<SequencerReply>(thread, this.#main, (reply) => {
        if (this.worker === worker) this.#fromSequencer(reply);
      });
      this.worker = worker;
      this.host.scheduler.trace('worker', this.name, incarnation);
      for (let lane = 0; lane < this.laneCount; lane++) if (this.lanes[lane]) this.#connect(lane);
    });
  }

  async #register(): Promise<number> {
    const store = this.#world.storeFor(this.#main);
    const agent = { agentId: this.name, address: '', zone: '', group: '', version: '', registeredAtMs: 0 };
    for (;;) {
      try {
        return (await store.registerAgent(agent)).incarnation;
      } catch (error) {
        if (!(error instanceof StreamHouseError)) throw error;
      }
    }
  }

  /** Gives a lane and the batching worker, both alive, ports to one another. */
  #connect(number: number): void {
    const run = this.lanes[number] as LaneRun;
    const worker = this.worker as WorkerRun;
    run.report = new SimPort<LaneReport>(run.thread, worker.thread, (report) => {
      if (report.type === 'append') this.#countMet(worker.sequencer, report.bytes);
      this.#guard(() => worker.sequencer.fromLane(number, report));
    });
    run.order = new SimPort<LaneOrder>(worker.thread, run.thread, (order) =>
      this.#guard(() => run.lane.fromSequencer(order)),
    );
    const port = run.order;
    worker.thread.deliver(() => worker.sequencer.connectLane(number, port));
  }

  /** Appends that come while their shard is being handed over. */
  #countMet(sequencer: Sequencer, message: Uint8Array): void {
    forEachAppend(message, ({ topicId, partition }) => {
      const shard = shardOf(topicId, partition, this.#world.settings.layout);
      if (sequencer.holder(shard)?.phase === 'releasing') this.#world.coverage.appendsMetRelease++;
    });
  }

  /** An exception that leaves a thread's handler would end the thread: here it is a bug. */
  #guard(handle: () => void): void {
    try {
      handle();
    } catch (error) {
      this.#world.violate(`${this.name}: a thread threw: ${error instanceof Error ? error.stack : error}`);
    }
  }

  /** The lane's thread dies; main notices and starts another. */
  crashLane(number: number, noticeMs: number, restartMs: number): void {
    const run = this.lanes[number];
    if (!run || !this.alive) return;
    run.thread.alive = false;
    this.lanes[number] = null;
    const { scheduler } = this.host;
    scheduler.after(noticeMs, () =>
      this.#main.deliver(() => {
        if (run.report) run.report.closed = true;
        this.#failPending('thread-lost', number);
        const { worker } = this;
        worker?.thread.deliver(() => this.#guard(() => worker.sequencer.disconnectLane(number)));
        scheduler.after(restartMs, () => this.#main.deliver(() => this.#startLane(number)));
      }),
    );
  }

  /** The batching worker dies; main notices, tells the lanes, and starts another under a new incarnation. */
  crashWorker(noticeMs: number): void {
    const { worker } = this;
    if (!worker || !this.alive || !worker.thread.alive) return;
    worker.thread.alive = false;
    this.host.scheduler.after(noticeMs, () =>
      this.#main.deliver(() => {
        this.worker = null;
        for (const run of this.lanes) {
          if (!run) continue;
          if (run.order) run.order.closed = true;
          run.report = null;
          run.order = null;
          run.thread.deliver(() => this.#guard(() => run.lane.sequencerLost()));
        }
        this.#failPending('thread-lost', -1);
        for (let shard = 0; shard < this.#world.settings.layout.shardCount; shard++)
          this.#world.lost(this, shard);
        this.#startWorker();
      }),
    );
  }

  /** Every thread ends at once. */
  crash(): void {
    this.alive = false;
    this.#main.alive = false;
    if (this.worker) this.worker.thread.alive = false;
    for (const run of this.lanes) if (run) run.thread.alive = false;
    for (let shard = 0; shard < this.#world.settings.layout.shardCount; shard++)
      this.#world.lost(this, shard);
    this.#failPending('thread-lost', -1);
  }

  #failPending(code: ErrorCode, lane: number): void {
    for (const [token, pending] of [...this.#pending]) {
      if (lane >= 0 && pending.lane !== lane) continue;
      this.#pending.delete(token);
      pending.done({ code, baseOffset: -1 });
    }
    for (const [token, of] of this.#sent) if (lane < 0 || of === lane) this.#sent.delete(token);
    for (const [id, asked] of [...this.#asked]) {
      if (lane >= 0 && asked.lane !== lane) continue;
      this.#asked.delete(id);
      asked.done(null);
    }
  }

  // -- Shards ------------------------------------------------------------------------------------------

  /** Reads the leases and takes a shard from the one that it sees, whatever happens in between. */
  take(shard: number): void {
    void this.#world
      .storeFor(this.#main)
      .listLeases()
      .then(
        (heads) => {
          this.#leases = heads;
          this.takeFrom(heads[shard]);
        },
        (error) => this.host.scheduler.trace('leases-unknown', this.name, String(error)),
      );
  }

  /** As an agent that decides by what it read last time. */
  takeByOldLeases(shard: number): void {
    const seen = this.#leases?.[shard];
    if (seen) this.takeFrom(seen);
  }

  /** Takes a shard from a lease that was seen some time ago. */
  takeFrom({ shard, holder, epoch }: SeenLease): void {
    this.#main.deliver(() => {
      const { worker } = this;
      if (!worker) return;
      this.host.scheduler.trace('take', this.name, shard, holder, epoch);
      worker.thread.deliver(() =>
        this.#guard(() => {
          const phase = worker.sequencer.holder(shard)?.phase;
          if (phase === 'releasing') this.#world.coverage.takesWhileReleasing++;
          worker.leases.taking(shard, epoch);
          worker.sequencer.take({ shard, holder, epoch });
        }),
      );
    });
  }

  release(shards: readonly number[]): void {
    const { worker } = this;
    worker?.thread.deliver(() =>
      this.#guard(() => {
        for (const shard of shards) {
          this.host.scheduler.trace('release', this.name, shard);
          const phase = worker.sequencer.holder(shard)?.phase;
          if (phase === 'taking') this.#world.coverage.releasesWhileTaking++;
          if (phase === 'releasing') this.#world.coverage.releasesTwice++;
          worker.leases.releasing(shard);
        }
        worker.sequencer.release(shards);
      }),
    );
  }

  #fromSequencer(reply: SequencerReply): void {
    const { scheduler } = this.host;
    const world = this.#world;
    switch (reply.type) {
      case 'held':
        scheduler.trace('held', this.name, reply.shard, reply.epoch);
        this.worker?.leases.held(reply.shard, reply.epoch);
        world.held(this, reply.shard, reply.epoch);
        break;
      case 'lost':
        scheduler.trace('lost', this.name, reply.shard, reply.error.code);
        if (reply.error.code.startsWith('corrupt')) {
          world.violate(`${this.name}: shard ${reply.shard} lost: ${reply.error.message}`);
        }
        if (reply.error.code === 'conflict') world.coverage.staleTakesRefused++;
        this.worker?.leases.ended(reply.shard);
        world.lost(this, reply.shard);
        break;
      case 'released':
        scheduler.trace('released', this.name, reply.shard, reply.epoch);
        this.worker?.leases.ended(reply.shard);
        world.released(this, reply.shard, reply.epoch);
        break;
      case 'fatal':
        world.violate(`${this.name}: fatal: ${reply.error.message}`);
        break;
      case 'log':
        scheduler.trace('log', this.name, reply.message, JSON.stringify(reply.fields));
        break;
      default:
    }
  }

  /** What should have been answered by now, once nothing is on its way any more; null: nothing. */
  get unanswered(): string | null {
    if (!this.alive) return null;
    if (this.#sent.size > 0) return `${this.#sent.size} appends were never answered`;
    const open = this.worker?.leases.open ?? [];
    return open.length > 0 ? `a take or release of shard ${open[0]} was never answered` : null;
  }

  // -- Requests ----------------------------------------------------------------------------------------

  laneOf(topicId: number, partition: number): number {
    return laneOf(topicId, partition, this.laneCount);
  }

  /** Sends an append to its lane, with all others of the same turn; `done` is called once. */
  produce(
    topicId: number,
    partition: number,
    producer: ProducerStamp | null,
    payloads: readonly string[],
    timeoutMs: number,
    done: (result: AttemptResult) => void,
  ): void {
    const lane = this.laneOf(topicId, partition);
    const token = this.#token++;
    if (!this.alive || !this.lanes[lane]) {
      done({ code: 'not-leader', baseOffset: -1 });
      return;
    }
    this.#pending.set(token, { lane, done });
    this.#sent.set(token, lane);
    const slot = token % 64;
    const generation = Math.floor(token / 64);
    const gathered = this.#gathered[lane];
    gathered.push({ slot, generation, topicId, partition, producer, payloads });
    if (gathered.length === 1) {
      this.host.scheduler.after(0.3, () => this.#main.deliver(() => this.#flush(lane)));
    }
    this.host.scheduler.after(timeoutMs, () => {
      if (!this.#pending.delete(token)) return;
      done({ code: 'deadline-exceeded', baseOffset: -1 });
    });
  }

  #flush(lane: number): void {
    const appends = this.#gathered[lane].splice(0);
    if (appends.length > 0) this.lanes[lane]?.fromMain.post({ type: 'produce', bytes: packProduce(appends) });
  }

  fetch(
    topicId: number,
    partition: number,
    offset: number,
    bytesMax: number,
    done: (result: FetchResult | null) => void,
  ): void {
    const shard = shardOf(topicId, partition, this.#world.settings.layout);
    const parts = [{ topicId, partition, shard, offset, bytesMax }];
    this.#ask(
      this.laneOf(topicId, partition),
      (id) => ({ type: 'fetch', id, parts, bytesMax }),
      (reply) => {
        if (reply?.type !== 'fetched') return done(null);
        const [part] = reply.parts;
        const bytes = Buffer.from(reply.bytes.subarray(part.position, part.position + part.length));
        done({ reply: part, bytes });
      },
    );
  }

  /** A long poll; `done` is called when it is woken, with false if the lane went away. */
  watch(topicId: number, partition: number, offset: number, done: (woken: boolean) => void): void {
    const shard = shardOf(topicId, partition, this.#world.settings.layout);
    const parts = [{ topicId, partition, shard, offset }];
    this.#ask(
      this.laneOf(topicId, partition),
      (id) => ({ type: 'watch', id, parts }),
      (reply) => done(reply !== null),
    );
  }

  #ask(lane: number, request: (id: number) => LaneRequest, done: (reply: LaneReply | null) => void): void {
    const run = this.lanes[lane];
    if (!run || !this.alive) {
      done(null);
      return;
    }
    const id = this.#askId++;
    this.#asked.set(id, { lane, done });
    run.fromMain.post(request(id));
  }

  #fromLane(reply: LaneReply): void {
    if (reply.type === 'answers') {
      readAnswers(reply.bytes, (slot, generation, code, baseOffset) => {
        const token = generation * 64 + slot;
        if (this.#answered.has(token)) this.#world.violate(`${this.name}: append ${token} is answered twice`);
        this.#answered.add(token);
        this.#sent.delete(token);
        const pending = this.#pending.get(token);
        this.#pending.delete(token);
        pending?.done({ code, baseOffset });
      });
      return;
    }
    const asked = this.#asked.get(reply.id);
    this.#asked.delete(reply.id);
    asked?.done(reply);
  }
}
