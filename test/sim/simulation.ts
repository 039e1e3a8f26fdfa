/**
 * One seed, one run: a cluster of two or three brokers over simulated stores, clients, and whatever can go wrong;
 * then healing, and the checks. Owns: the course of a run and its verdict. Does not own: the parts (beside this
 * file). Everything of workers/ and index/ is the real code. The simulation's only thread.
 *
 *   troubled   clients work, threads and processes crash and pause, shards move, stores fail
 *   healed     no faults any more; a fresh process takes all shards over, clients finish what they began
 *   judged     every partition is read from offset 0, once at once and once after the last late request
 */
import { partitionKey, partitionOfKey, shardOf, topicIdOfKey } from '../../src/core/ids.ts';
import { type Random, seededRandom } from '../../src/core/random.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import { MemoryMetadataState } from '../../storage/metadata/memory/memory-metadata-state.ts';
import { MemoryObjectStore } from '../../storage/objects/memory-object-store.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import type { SequencerSettings } from '../../workers/sequencer.ts';
import { type BrokerWorld, SimBroker } from './broker.ts';
import { Checker } from './checker.ts';
import { type ClientWorld, IdempotentProducer, PlainProducer, Reader, readOnce } from './clients.ts';
import { beginCoverage, type CoverageCounts } from './coverage.ts';
import { type FaultRates, Faults } from './faults.ts';
import { Handovers } from './handovers.ts';
import { SimHost, type SimThread } from './host.ts';
import { breakCode, type Mutant, storeOver } from './mutants.ts';
import { Scheduler, type TraceLine } from './scheduler.ts';
import { SimMetadataStore, type SimStoreParts } from './sim-metadata-store.ts';
import { SimObjectStore } from './sim-object-store.ts';
import { StoreTruth } from './store-truth.ts';

export interface SimOptions {
  seed: number;
  mutant?: Mutant | null;
  /** Whether the store's inside is checked too; off for mutants, which clients must notice. */
  strict?: boolean;
  onTrace?: (line: TraceLine) => void;
}

export interface SimResult {
  seed: number;
  violation: string | null;
  traceHash: number;
  events: number;
  virtualMs: number;
  coverage: CoverageCounts;
  lastLines: string[];
}

const SHARDS = 2;
/** Topic 1 has these; topic 2, the one that is deleted, two. */
const PARTITIONS = 4;
/** Bound of the healed part: everything must be served and answered by then, virtual ms. */
const HEALED_MS_MAX = 20_000;
/** No request is executed later than this after its sending. */
const LATE_MS_MAX = 1_600;

class Violation extends Error {}

/** Runs one seed. Never rejects: whatever goes wrong is a violation. */
export async function simulate(options: SimOptions): Promise<SimResult> {
  const run = new Simulation(options);
  const onRejection = (error: unknown) => {
    run.violate(`unhandled rejection: ${error instanceof Error ? error.stack : String(error)}`);
  };
  process.on('unhandledRejection', onRejection);
  try {
    return await run.run();
  } finally {
    process.off('unhandledRejection', onRejection);
  }
}

class Simulation implements BrokerWorld, ClientWorld {
  readonly scheduler = new Scheduler();
  readonly random: Random;
  readonly checker: Checker;
  readonly coverage: CoverageCounts;
  readonly settings: SequencerSettings;
  readonly indexBytes: number;
  readonly tailCacheBytes: number;
  readonly #options: SimOptions;
  readonly #state = new MemoryMetadataState();
  readonly #stored = new Map<string, Uint8Array>();
  readonly #objects: ObjectStore;
  readonly #storeParts: SimStoreParts;
  readonly #storeFaults: Faults;
  readonly #objectFaults: Faults;
  readonly #truth: StoreTruth;
  readonly #brokers: SimBroker[] = [];
  readonly #leaders: (SimBroker | null)[] = new Array(SHARDS).fill(null);
  readonly #epochs: number[] = new Array(SHARDS).fill(0);
  readonly #producers: IdempotentProducer[] = [];
  /** Promises of batching workers that must settle while their thread lives. */
  readonly #awaited = new Map<string, SimThread>();
  readonly #troubledMs: number;
  readonly #freshHeld = new Set<number>();
  /** Incarnations by shard and epoch. */
  readonly #holderOf = new Map<string, number>();
  readonly #handovers: Handovers;
  #fresh: SimBroker | null = null;
  #brokerCount = 0;
  #troubled = true;
  #violation: string | null = null;

  constructor(options: SimOptions) {
    const { seed, mutant = null, strict = true } = options;
    this.#options = options;
    this.scheduler.onTrace = options.onTrace ?? null;
    this.random = seededRandom(seed * 2654435761);
    const { random } = this;
    this.coverage = beginCoverage();
    breakCode(mutant);
    this.#handovers = new Handovers({
      scheduler: this.scheduler,
      random,
      coverage: this.coverage,
      shards: Array.from({ length: SHARDS }, (_, shard) => shard),
      leaderOf: (shard) => this.#leaders[shard],
      anyBroker: () => this.#anyBroker(),
      overthrow: (shard) => this.#overthrow(shard),
      drain: (broker) => this.#drain(broker),
    });
    this.checker = new Checker((what) => this.violate(what));
    this.#storeFaults = new Faults(this.scheduler, random);
    this.#objectFaults = new Faults(this.scheduler, random);
    this.settings = {
      windowMs: 2 + random.below(10),
      bytesMax: 600 + random.below(3000),
      slicesMax: 3 + random.below(4),
      // From the seed, not drawn: a seed keeps its course.
      objectPer: seed % 8 === 7 ? 'partition' : 'window',
      layout: oneGroup(SHARDS),
      uploadsInFlightMax: 1 + random.below(4),
      uploadDeadlineMs: 150,
      checkpointLogBytes: 150 + random.below(1200),
      unsettledBytesMax: 64 * 1024 * 1024,
      checkpointIntervalMs: 1000,
    };
    this.indexBytes = random.below(2) === 0 ? 1500 : 100_000;
    this.tailCacheBytes = random.below(2) === 0 ? 600 : 100_000;
    this.#troubledMs = 700 + random.below(1300);
    this.#truth = new StoreTruth(this.#state, this.#stored, SHARDS, this.coverage, strict, (what) =>
      this.violate(what),
    );
    const storeClock = { wallMs: () => 0, monotonicMs: () => 0, after: () => ({ cancel: () => undefined }) };
    this.#objects = this.#watchedObjects(new MemoryObjectStore(storeClock));
    this.#storeParts = {
      inner: storeOver(this.#state, mutant),
      faults: this.#storeFaults,
      observer: this.#truth,
      lostReplyIsDone: mutant === 'lost-reply-is-done',
    };
  }

  #watchedObjects(inner: MemoryObjectStore): ObjectStore {
    let count = 0;
    return {
      description: 'watched',
      put: async (key, bytes) => {
        if (this.#options.mutant === 'put-forgets-object' && ++count % 20 === 0) return;
        await inner.put(key, bytes);
        this.#stored.set(key, bytes);
      },
      get: (key, range) => inner.get(key, range),
      list: (prefix, listing) => inner.list(prefix, listing),
      delete: (key) => inner.delete(key),
      close: () => inner.close(),
    };
  }

  violate(what: string): void {
    if (this.#violation !== null) return;
    this.#violation = what;
    this.scheduler.trace('VIOLATION', what);
  }

  // -- What brokers and clients see --------------------------------------------------------------------

  storeFor(thread: SimThread): SimMetadataStore {
    return new SimMetadataStore(this.#storeParts, thread);
  }

  objectsFor(thread: SimThread): SimObjectStore {
    return new SimObjectStore(this.#objects, this.#objectFaults, thread);
  }

  /** What the agents' directory knows: the holder with the highest epoch that was heard of. */
  held(broker: SimBroker, shard: number, epoch: number): void {
    this.#checkHolder(broker, shard, epoch);
    if (epoch < this.#epochs[shard]) return;
    this.#epochs[shard] = epoch;
    this.#leaders[shard] = broker;
    if (broker === this.#fresh) this.#freshHeld.add(shard);
  }

  lost(broker: SimBroker, shard: number): void {
    if (this.#leaders[shard] === broker) this.#leaders[shard] = null;
    this.coverage.takeoversLost++;
  }

  released(broker: SimBroker, shard: number, epoch: number): void {
    if (this.#leaders[shard] === broker) this.#leaders[shard] = null;
    this.coverage.releases++;
    this.#handovers.released(broker, shard, epoch);
  }

  /** Nobody but one incarnation ever holds a shard under an epoch. */
  #checkHolder(broker: SimBroker, shard: number, epoch: number): void {
    const incarnation = broker.worker?.incarnation ?? 0;
    const key = `${shard}/${epoch}`;
    const before = this.#holderOf.get(key) ?? incarnation;
    this.#holderOf.set(key, before);
    if (before !== incarnation) {
      this.violate(`shard ${shard} is held by ${before} and by ${incarnation} under epoch ${epoch}`);
    }
    this.#handovers.held(broker, shard, epoch);
  }

  brokerFor(topicId: number, partition: number): SimBroker | null {
    if (this.#troubled && this.random.below(25) === 0) return this.#anyBroker();
    return this.#leaders[shardOf(topicId, partition, oneGroup(SHARDS))];
  }

  #anyBroker(): SimBroker {
    return this.#brokers[this.random.below(this.#brokers.length)];
  }

  #startBroker(): SimBroker {
    const host = new SimHost(`b${this.#brokerCount++}`, this.scheduler, this.random);
    host.wallSkewMs = this.random.below(2000) - 1000;
    const broker = new SimBroker(this, host, 1 + this.random.below(3));
    this.#brokers.push(broker);
    return broker;
  }

  // -- The course --------------------------------------------------------------------------------------

  async run(): Promise<SimResult> {
    try {
      await this.#storeParts.inner.initCluster({
        clusterId: 'sim',
        storeIncarnation: 'sim',
        shardCount: SHARDS,
        createdAtMs: 0,
      });
      this.#beginTrouble();
      await this.#until(() => this.scheduler.nowMs >= this.#troubledMs, 'trouble');
      await this.#heal();
    } catch (error) {
      if (!(error instanceof Violation)) {
        this.violate(error instanceof Error ? (error.stack ?? error.message) : String(error));
      }
    }
    this.#collect();
    return {
      seed: this.#options.seed,
      violation: this.#violation,
      traceHash: this.scheduler.traceHash,
      events: this.scheduler.fired,
      virtualMs: this.scheduler.nowMs,
      coverage: this.coverage,
      lastLines: this.#violation === null ? [] : this.scheduler.lastLines(60),
    };
  }

  /** Runs until `isDone`; a violation ends the run. */
  async #until(isDone: () => boolean, what: string): Promise<void> {
    const deadlineMs = this.scheduler.nowMs + HEALED_MS_MAX;
    await this.scheduler.run(() => {
      if (this.#violation !== null || isDone()) return true;
      if (this.scheduler.nowMs > deadlineMs) this.violate(`${what}: not done in bounded time`);
      return this.#violation !== null;
    });
    if (this.#violation !== null) throw new Violation();
    if (!isDone()) {
      this.violate(`${what}: nothing happens any more`);
      throw new Violation();
    }
  }

  #beginTrouble(): void {
    const { random } = this;
    const severity = random.below(4);
    this.#storeFaults.rates = ratesOf(random, severity);
    this.#objectFaults.rates = ratesOf(random, severity);
    const brokers = 2 + random.below(2);
    for (let i = 0; i < brokers; i++) this.#startBroker();
    for (let shard = 0; shard < SHARDS; shard++) this.#every(20, 90, () => this.#place(shard));
    this.#every(60, 500, () => this.#handovers.begin(random.below(SHARDS)));
    this.#beginClients();
    if (severity > 0) {
      this.#every(40, 500, () => this.#crashSomething());
      this.#every(100, 1500, () => this.#storeFaults.beginOutage(20 + random.below(200)));
      this.#every(200, 2500, () => this.#objectFaults.beginOutage(20 + random.below(200)));
      this.#every(100, 1000, () => this.#storeFaults.partition(this.#anyBroker().host, random.below(600)));
    }
  }

  /** Repeats while the trouble lasts, after a random time between the two each. */
  #every(fromMs: number, toMs: number, act: () => void): void {
    this.scheduler.after(fromMs + this.random.unit() * (toMs - fromMs), () => {
      if (!this.#troubled) return;
      act();
      this.#every(fromMs, toMs, act);
    });
  }

  /** The agents' work: somebody takes a shard that nobody serves, or that somebody else does. */
  #place(shard: number): void {
    const leader = this.#leaders[shard];
    if (leader && this.random.below(12) !== 0) return;
    this.#anyBroker().take(shard);
    if (this.random.below(6) === 0) this.#anyBroker().take(shard);
    if (this.random.below(6) === 0) this.#anyBroker().takeByOldLeases(shard);
  }

  #beginClients(): void {
    const { random } = this;
    const plain = [0, 1].map((i) => new PlainProducer(this, `p${i}`));
    for (const producer of plain) this.#every(8, 110, () => producer.send(...this.#somePartition()));
    for (let i = 0; i < 3; i++) {
      const producer = new IdempotentProducer(this, i + 1, ...this.#somePartition());
      this.#producers.push(producer);
      this.#every(8, 130, () => {
        for (let burst = random.below(6) === 0 ? 5 : 1; burst > 0; burst--) producer.send();
        if (random.below(8) === 0) producer.sendTwice();
      });
    }
    if (this.#options.seed % 24 === 0) this.#beginBursts();
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const reader = new Reader(this, 1, partition);
      this.#every(40, 400, () => reader.step());
    }
    if (random.below(4) === 0) this.scheduler.after(random.below(1500), () => this.#deleteTopic());
  }

  /** Many slices in one partition, so that its index goes beyond one page: duplicates split runs of appends. */
  #beginBursts(): void {
    const plain = new PlainProducer(this, 'burst');
    const producer = new IdempotentProducer(this, 9, 1, 0);
    this.#producers.push(producer);
    this.#every(5, 25, () => {
      producer.send();
      for (let i = 0; i < 12; i++) {
        plain.send(1, 0);
        producer.sendTwice();
      }
    });
  }

  #somePartition(): [number, number] {
    const { random } = this;
    return random.below(8) === 0 ? [2, random.below(2)] : [1, random.below(PARTITIONS)];
  }

  /** Each shard's holder gets the decision, on all that it is to decide in one call. */
  #deleteTopic(): void {
    if (!this.#troubled) return;
    this.checker.deleting.add(2);
    const shardsOf = new Map<SimBroker, number[]>();
    this.#leaders.forEach((leader, shard) => {
      const broker = leader ?? this.#anyBroker();
      shardsOf.set(broker, [...(shardsOf.get(broker) ?? []), shard]);
    });
    for (const [{ worker }, shards] of shardsOf) {
      if (!worker?.thread.alive || worker.thread.host.isPaused) continue;
      const name = `deletion by ${worker.incarnation}`;
      this.#awaited.set(name, worker.thread);
      worker.sequencer.decideOn(shards, { kind: 'topic-deleted', topicId: 2 }).then(
        () => {
          this.coverage.topicsDeleted++;
          this.#awaited.delete(name);
        },
        () => this.#awaited.delete(name),
      );
    }
  }

  #crashSomething(): void {
    const { random, coverage, scheduler } = this;
    const broker = this.#anyBroker();
    const noticeMs = 1 + random.unit() * 30;
    scheduler.trace('trouble', broker.name);
    switch (random.below(10)) {
      case 0:
      case 1:
        coverage.laneCrashes++;
        broker.crashLane(random.below(broker.laneCount), noticeMs, random.unit() * 30);
        break;
      case 2:
        coverage.workerCrashes++;
        broker.crashWorker(noticeMs);
        break;
      case 3:
        coverage.processCrashes++;
        this.#replace(broker);
        break;
      case 4:
        this.#drain(broker);
        break;
      case 5:
        broker.host.wallSkewMs += random.below(4000) - 2000;
        break;
      case 6:
      case 7:
        this.#overthrow(random.below(SHARDS));
        break;
      default:
        coverage.pauses++;
        broker.host.pause();
        scheduler.after(random.unit() * 600, () => broker.host.resume());
    }
  }

  /** A holder loses touch with the store in the middle of its work, and somebody else takes its shard at once. */
  #overthrow(shard: number): void {
    const leader = this.#leaders[shard];
    if (!leader) return;
    this.#storeFaults.partition(leader.host, 20 + this.random.below(250));
    const rival = this.#brokers.find((broker) => broker !== leader);
    this.scheduler.after(this.random.unit() * 60, () => rival?.take(shard));
  }

  #replace(broker: SimBroker): void {
    broker.crash();
    this.#collectOf(broker);
    this.#brokers.splice(this.#brokers.indexOf(broker), 1);
    this.#startBroker();
  }

  #drain(broker: SimBroker): void {
    const { worker } = broker;
    if (!worker?.thread.alive || broker.host.isPaused) return;
    const name = `drain of ${worker.incarnation}`;
    this.#awaited.set(name, worker.thread);
    const end = () => {
      this.#awaited.delete(name);
      if (!broker.alive || broker.worker !== worker) return;
      this.coverage.drains++;
      this.#replace(broker);
    };
    worker.sequencer.drain().then(end, end);
  }

  // -- The end -----------------------------------------------------------------------------------------

  async #heal(): Promise<void> {
    const { scheduler } = this;
    scheduler.trace('healed');
    this.#troubled = false;
    this.#storeFaults.heal();
    this.#objectFaults.heal();
    for (const broker of this.#brokers) if (broker.host.isPaused) broker.host.resume();
    const fresh = this.#startBroker();
    this.#leaders.fill(null);
    this.#fresh = fresh;
    const retake = () => {
      this.#leaders.forEach((leader, shard) => {
        // Takeovers by others that were under way may still come through; they are as good.
        if (!this.#freshHeld.has(shard) || leader === null) fresh.take(shard);
      });
      scheduler.after(25, retake);
    };
    retake();
    await this.#until(() => this.#freshHeld.size === SHARDS, 'taking all shards over');
    const first = await this.#readAll();
    await this.#until(() => this.#producers.every((producer) => producer.isIdle), 'finishing producers');
    await this.#appendEverywhere();
    const quietAtMs = scheduler.nowMs + LATE_MS_MAX;
    scheduler.after(LATE_MS_MAX, () => undefined);
    await this.#until(() => scheduler.nowMs >= quietAtMs, 'waiting for late requests');
    const second = await this.#readAll();
    for (const [key, payloads] of first) {
      this.checker.finish(key, second.get(key) ?? []);
      if (payloads.some((payload, offset) => second.get(key)?.[offset] !== payload)) {
        this.violate(`partition ${key} reads otherwise than before`);
      }
    }
    this.#checkAgainstTruth(second);
    for (const [name, thread] of this.#awaited) if (thread.alive) this.violate(`never ended: ${name}`);
    for (const broker of this.#brokers) {
      if (broker.unanswered !== null) this.violate(`${broker.name}: ${broker.unanswered}`);
    }
  }

  #partitions(): [number, number][] {
    const all: [number, number][] = Array.from({ length: PARTITIONS }, (_, p) => [1, p]);
    return this.checker.deleting.has(2) ? all : [...all, [2, 0], [2, 1]];
  }

  /** Every partition from offset 0 to its end, through the lanes. */
  async #readAll(): Promise<Map<number, string[]>> {
    const all = new Map<number, string[]>();
    for (const [topicId, partition] of this.#partitions()) {
      const payloads: string[] = [];
      let done = false;
      const step = (): void => {
        const broker = this.brokerFor(topicId, partition);
        if (!broker) {
          this.scheduler.after(20, step);
          return;
        }
        readOnce(this, broker, topicId, partition, payloads.length, 100_000, (next, read, end) => {
          if (next === null) {
            this.scheduler.after(20, step);
            return;
          }
          payloads.push(...read);
          done = payloads.length >= end;
          if (!done && read.length === 0) this.violate(`${topicId}/${partition} ends at ${next}, not ${end}`);
          if (!done) step();
        });
      };
      step();
      await this.#until(() => done, `reading ${topicId}/${partition}`);
      all.set(partitionKey(topicId, partition), payloads);
    }
    return all;
  }

  async #appendEverywhere(): Promise<void> {
    const producer = new PlainProducer(this, 'last');
    let left = 0;
    for (const [topicId, partition] of this.#partitions()) {
      left++;
      producer.sendSurely(topicId, partition, () => left--);
    }
    await this.#until(() => left === 0, 'a new append to each partition');
  }

  #checkAgainstTruth(read: Map<number, string[]>): void {
    if (this.#options.strict === false) return;
    for (const [key, truth] of this.#truth.partitions) {
      if (this.checker.deleting.has(topicIdOfKey(key))) continue;
      const payloads = read.get(key) ?? [];
      const name = `${topicIdOfKey(key)}/${partitionOfKey(key)}`;
      if (payloads.length !== truth.payloads.length) {
        this.violate(`${name}: ${payloads.length} records are read, the log has ${truth.payloads.length}`);
      }
      const wrong = payloads.findIndex((payload, offset) => payload !== truth.payloads[offset]);
      if (wrong >= 0) this.violate(`${name} offset ${wrong}: read '${payloads[wrong]}'`);
    }
  }

  #collect(): void {
    for (const broker of this.#brokers) this.#collectOf(broker);
  }

  #collectOf({ counters }: SimBroker): void {
    const { coverage } = this;
    coverage.takeovers += counters.counter('takeoversTotal');
    coverage.checkpoints += counters.counter('checkpointsTotal');
    coverage.checkpointsAborted += counters.counter('checkpointsFailedTotal');
    coverage.duplicatesAnswered += counters.counter('appendsDuplicateTotal');
    coverage.uploadsGivenUp += counters.counter('objectsFailedTotal');
    coverage.uploadsHedged += counters.counter('uploadHedgesTotal');
    coverage.pagesIn += counters.counter('indexPagedInTotal');
    coverage.pagesEvicted += counters.counter('indexEvictedTotal');
    coverage.coldReads += counters.counter('tailCacheMissesTotal');
  }
}

function ratesOf(random: Random, severity: number): FaultRates {
  const some = () => (severity * random.unit() * random.unit()) / 10;
  return { refused: some(), dropped: some() / 2, replyLost: some(), late: some() / 2, slow: 0.02 + some() };
}
