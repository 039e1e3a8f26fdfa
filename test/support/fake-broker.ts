/**
 * A Broker in memory for tests of the doors: topics in a map, one array of records per partition, commits
 * after a turn of the event loop (or when `commit` is called by hand). Owns no durability, no threads. What a
 * test wants to go wrong it sets in `faults`.
 */
import { type ErrorCode, type PlainError, StreamHouseError } from '../../src/core/errors.ts';
import { shardOf } from '../../src/core/ids.ts';
import { batchBytes, patchBatch, writeBatch } from '../../src/core/record-batch.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import type {
  Broker,
  ClusterMember,
  ClusterView,
  FetchRequest,
  FetchResult,
  PartitionBounds,
  ProduceRequest,
  ProduceResult,
  ShardHolding,
  TopicCatalogue,
} from '../../src/route/broker.ts';
import type {
  ForwardedAppend,
  ForwardedProducePath,
  ForwardedRead,
  ForwardedReadAnswer,
  HeldShard,
  LeasesMoved,
  PeerDuties,
  ReadForwarder,
} from '../../src/route/peer-duties.ts';

type Topic = ProduceRequest['topic'];

/** One append that another broker forwarded, copied out. */
export type TakenAppend = ForwardedAppend & { index: number };

export interface StoredRecord {
  key: Buffer | null;
  value: Buffer | null;
  timestampMs: number;
}

export interface FakePartition {
  logStart: number;
  records: StoredRecord[];
}

export interface FakeFaults {
  /** Thrown by submit. */
  submit: StreamHouseError | null;
  /** For record i of a request; null: committed. */
  record: ((i: number, request: ProduceRequest) => PlainError | null) | null;
  /** Raw batches that fetch gives, in place of the stored records. */
  batches: Buffer | null;
  fetch: PlainError | null;
  /** Thrown by every call of the catalogue that asks the store. */
  catalogue: Error | null;
  metrics: Error | null;
}

const NAME = /^[a-zA-Z0-9._-]{1,249}$/;
const TIMESTAMP_MS = 1_700_000_000_000;

export class FakeBroker implements Broker {
  readonly cluster = {
    clusterId: 'fake-cluster',
    storeIncarnation: 'i',
    ...oneGroup(8),
    createdAtMs: 1,
    generation: 1,
    copiedFrom: null,
    movedTo: null,
  };
  readonly info = { agentId: 'agent-a', incarnation: 7, zone: 'z1', version: '0.0.0-test' };
  readonly faults: FakeFaults = {
    submit: null,
    record: null,
    batches: null,
    fetch: null,
    catalogue: null,
    metrics: null,
  };
  /** What `view` tells; the broker itself is the first. */
  readonly members: ClusterMember[] = [memberOf({ isSelf: true })];
  /** Holders of the shards that a test sets; all others are this broker's. */
  readonly holders = new Map<number, Partial<ShardHolding>>();
  /** Calls of `view.members`. */
  membersAsked = 0;
  /** Everything submitted, with the spans copied out. */
  readonly submitted: ProduceRequest[] = [];
  state = { live: true, ready: true, reasons: [] as string[] };
  /** Appends of other brokers by message, and how to answer them. Nothing is answered by itself. */
  readonly taken: {
    appends: TakenAppend[];
    answer(index: number, code: ErrorCode | null, baseOffset: number): void;
  }[] = [];
  /** What other brokers told or asked for. */
  readonly notices: LeasesMoved[] = [];
  readonly ended: { topicId: number; shards: readonly number[] }[] = [];
  heldShards: HeldShard[] = [];
  /** Answers reads of other brokers' partitions; null: all are here. */
  elsewhere: ((read: ForwardedRead) => Promise<ForwardedReadAnswer | null>) | null = null;
  /** Commits wait for `commit()` while true. */
  held = false;
  aborted = 0;
  readonly #topics = new Map<string, Topic>();
  readonly #cached = new Set<string>();
  readonly #partitions = new Map<string, FakePartition>();
  readonly #waiting: (() => void)[] = [];
  readonly #pollers = new Set<() => void>();
  #nextTopicId = 1;
  #nextProducerId = 1000;

  /** A topic, as if created before and cached. */
  addTopic(name: string, partitionCount: number, configs: Record<string, string> = {}): Topic {
    const topic: Topic = {
      topicId: this.#nextTopicId++,
      name,
      partitionCount,
      configs,
      createdAtMs: 1,
      version: 1,
    };
    this.#topics.set(name, topic);
    this.#cached.add(name);
    return topic;
  }

  /** Forgets the cached entry, as if never asked for. */
  uncache(name: string): void {
    this.#cached.delete(name);
  }

  partition(name: string, partition: number): FakePartition {
    const key = `${name}/${partition}`;
    let found = this.#partitions.get(key);
    if (found === undefined) {
      found = { logStart: 0, records: [] };
      this.#partitions.set(key, found);
    }
    return found;
  }

  append(name: string, partition: number, key: string | null, value: string | Buffer | null): void {
    const bytes = value === null ? null : Buffer.from(value as string);
    this.partition(name, partition).records.push({
      key: key === null ? null : Buffer.from(key),
      value: bytes,
      timestampMs: TIMESTAMP_MS,
    });
    for (const wake of this.#pollers) wake();
  }

  /** Commits what waits. */
  commit(): number {
    const waiting = this.#waiting.splice(0);
    for (const run of waiting) run();
    return waiting.length;
  }

  readonly view: ClusterView = {
    members: () => {
      this.membersAsked++;
      return this.members;
    },
    shards: async () => {
      if (this.faults.catalogue) throw this.faults.catalogue;
      return Array.from({ length: this.cluster.shardCount }, (_, shard) => ({
        shard,
        holder: this.info.incarnation,
        agentId: this.info.agentId,
        epoch: 1,
        sinceMs: TIMESTAMP_MS,
        headSeq: 10 + shard,
        ...this.holders.get(shard),
      }));
    },
    leaderOf: (topicId, partition) => {
      const holder = this.holders.get(shardOf(topicId, partition, oneGroup(this.cluster.shardCount)))?.holder;
      return holder === 0 ? null : (holder ?? this.info.incarnation);
    },
  };

  readonly produce = {
    submit: (request: ProduceRequest, done: (result: ProduceResult) => void): void => {
      if (this.faults.submit) throw this.faults.submit;
      const { source, spans, partitions, topic } = request;
      this.submitted.push(request);
      const at = (from: number, to: number) => (from < 0 ? null : Buffer.from(source.slice(from, to)));
      const records = partitions.map((_, i) => ({
        key: at(spans[i * 4], spans[i * 4 + 1]),
        value: at(spans[i * 4 + 2], spans[i * 4 + 3]),
        timestampMs: TIMESTAMP_MS,
      }));
      this.#waiting.push(() => {
        const errors: (PlainError | null)[] = [];
        const offsets = partitions.map((partition, i) => {
          const error = this.faults.record?.(i, request) ?? null;
          errors.push(error);
          if (error !== null) return -1;
          const found = this.partition(topic.name, partition);
          found.records.push(records[i]);
          return found.logStart + found.records.length - 1;
        });
        for (const wake of this.#pollers) wake();
        done({ offsets, errors: errors.some((error) => error !== null) ? errors : null });
      });
      if (!this.held && this.#waiting.length === 1) setImmediate(() => this.commit());
    },
  };

  readonly forwarded: ForwardedProducePath = {
    limits: { recordBytesMax: 1 << 20, appendBytesMax: 1 << 20 },
    submitForwarded: (appends, answer) => {
      if (this.faults.submit) throw this.faults.submit;
      const taken: TakenAppend[] = [];
      appends.forEach((append, index) => {
        taken.push({ ...append, bytes: Buffer.from(append.bytes), index });
      });
      this.taken.push({ appends: taken, answer });
    },
  };

  readonly reads: ReadForwarder = {
    isElsewhere: () => this.elsewhere !== null,
    forward: async (_topicId, _partition, read) => (this.elsewhere ? this.elsewhere(read) : null),
  };

  readonly duties: PeerDuties = {
    leasesMoved: (notice) => this.notices.push(notice),
    endTopic: async (topicId, shards) => {
      if (this.faults.submit) throw this.faults.submit;
      this.ended.push({ topicId, shards });
    },
    held: () => this.heldShards,
  };

  readonly fetch = {
    fetch: async (
      requests: readonly FetchRequest[],
      options: { waitMs: number; signal?: AbortSignal },
    ): Promise<FetchResult[]> => {
      const until = performance.now() + options.waitMs;
      for (;;) {
        const results = requests.map((request) => this.#read(request));
        const ready = results.some((result) => result.batches.length > 0 || result.error !== null);
        const leftMs = until - performance.now();
        if (ready || leftMs <= 0) return results;
        await this.#appended(leftMs, options.signal);
        if (options.signal?.aborted) {
          this.aborted++;
          return results;
        }
      }
    },
    bounds: async (topic: Topic, partition: number): Promise<PartitionBounds> => {
      const { logStart, records } = this.partition(topic.name, partition);
      return { logStart, nextOffset: logStart + records.length };
    },
    offsetForTimestamp: async (topic: Topic, partition: number, timestampMs: number) => {
      const { logStart, records } = this.partition(topic.name, partition);
      const i = records.findIndex((record) => record.timestampMs >= timestampMs);
      return i < 0 ? null : { offset: logStart + i, timestampMs: records[i].timestampMs };
    },
  };

  #appended(leftMs: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', wake);
        this.#pollers.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, leftMs);
      this.#pollers.add(wake);
      signal?.addEventListener('abort', wake, { once: true });
      if (signal?.aborted) wake();
    });
  }

  #read({ topic, partition, offset }: FetchRequest): FetchResult {
    const { logStart, records } = this.partition(topic.name, partition);
    const nextOffset = logStart + records.length;
    const bounds = { logStart, nextOffset };
    if (this.faults.fetch) return { ...bounds, batches: Buffer.alloc(0), error: this.faults.fetch };
    if (this.faults.batches) return { ...bounds, batches: this.faults.batches, error: null };
    if (offset < logStart || offset > nextOffset) {
      const message = `offset ${offset} is outside [${logStart}, ${nextOffset})`;
      const error: PlainError = { code: 'offset-out-of-range', message, detail: bounds };
      return { ...bounds, batches: Buffer.alloc(0), error };
    }
    // One batch of all records, so that a reader in the middle has to leave out the first ones.
    const batches = offset === nextOffset ? Buffer.alloc(0) : batchOf(records, logStart);
    return { ...bounds, batches, error: null };
  }

  readonly topics: TopicCatalogue = {
    doubt: (topic) => void this.#cached.delete(topic.name),
    peek: (name) => (this.#cached.has(name) ? this.#topics.get(name) : undefined),
    get: async (name) => this.#find(name),
    getWithPartition: async (name, partition) => {
      const topic = this.#find(name);
      if (partition < topic.partitionCount) return topic;
      throw new StreamHouseError(
        'partition-not-found',
        `topic ${name} has ${topic.partitionCount} partitions`,
      );
    },
    list: async ({ after, limit }) => {
      if (this.faults.catalogue) throw this.faults.catalogue;
      const names = [...this.#topics.keys()].sort().filter((name) => after === undefined || name > after);
      return names.slice(0, limit).map((name) => this.#topics.get(name)!);
    },
    create: async ({ name, partitionCount, configs }) => {
      if (!NAME.test(name) || name === '.' || name === '..')
        throw new StreamHouseError('invalid-topic-name', `topic name ${JSON.stringify(name)}`);
      if (this.#topics.has(name)) throw new StreamHouseError('topic-exists', `topic ${name} exists`);
      return this.addTopic(name, partitionCount, configs);
    },
    grow: async (name, partitionCount) => {
      const topic = this.#find(name);
      if (partitionCount < topic.partitionCount)
        throw new StreamHouseError('invalid-partition-count', 'partitions only grow');
      return this.#replace({ ...topic, partitionCount });
    },
    alter: async (name, changes) => {
      const topic = this.#find(name);
      const configs = { ...topic.configs };
      for (const [config, value] of Object.entries(changes)) {
        if (config.startsWith('bad')) throw new StreamHouseError('invalid-config', `config ${config}`);
        if (value === null) delete configs[config];
        else configs[config] = value;
      }
      return this.#replace({ ...topic, configs });
    },
    delete: async (name) => {
      this.#find(name);
      this.#topics.delete(name);
      this.#cached.delete(name);
    },
  };

  #find(name: string): Topic {
    if (this.faults.catalogue) throw this.faults.catalogue;
    if (!NAME.test(name) || name === '.' || name === '..')
      throw new StreamHouseError('invalid-topic-name', `topic name ${JSON.stringify(name)}`);
    const topic = this.#topics.get(name);
    if (topic === undefined) throw new StreamHouseError('topic-not-found', `topic ${name} does not exist`);
    this.#cached.add(name);
    return topic;
  }

  #replace(topic: Topic): Topic {
    const next = { ...topic, version: topic.version + 1 };
    this.#topics.set(topic.name, next);
    return next;
  }

  health() {
    return this.state;
  }

  async metricsText(): Promise<string> {
    if (this.faults.metrics) throw this.faults.metrics;
    return '# HELP x y\nx 1\n';
  }

  async allocateProducerIds(count: number): Promise<number> {
    const first = this.#nextProducerId;
    this.#nextProducerId += count;
    return first;
  }
}

/** An agent as FakeBroker's own, with changes. */
export function memberOf(changes: Partial<ClusterMember>): ClusterMember {
  return {
    agentId: 'agent-a',
    incarnation: 7,
    address: 'a.example:8080',
    zone: 'z1',
    group: 'default',
    version: '0.0.0-test',
    heartbeatAgeMs: 12.5,
    state: 'live',
    isSelf: false,
    registeredAtMs: TIMESTAMP_MS,
    shardCount: 8,
    ...changes,
  };
}

/** One batch of the records, the first of which gets `baseOffset`. */
export function batchOf(records: readonly StoredRecord[], baseOffset: number): Buffer {
  const parts: Buffer[] = [];
  const spans: number[] = [];
  let at = 0;
  for (const { key, value } of records) {
    for (const bytes of [key, value]) {
      if (bytes === null) spans.push(-1, -1);
      else {
        spans.push(at, at + bytes.length);
        parts.push(bytes);
        at += bytes.length;
      }
    }
  }
  const source = { source: Buffer.concat(parts), spans };
  const out = Buffer.alloc(batchBytes(source, 0, records.length));
  writeBatch(out, 0, source, 0, records.length, records[0]?.timestampMs ?? 0, null);
  patchBatch(out, 0, baseOffset, 1);
  return out;
}
