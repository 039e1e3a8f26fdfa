/**
 * What the doors may ask of the broker: the interface between server/ (sockets and wire) and route/ (admission,
 * lanes, catalogue). Owns: the words of that interface. Runs on the main thread.
 */

import type { ClusterInfo, Topic } from '../../storage/metadata/metadata-store.ts';
import type { PlainError } from '../core/errors.ts';
import type { ProducerStamp, RecordSpans } from '../core/record-batch.ts';
import type { ForwardedProducePath, PeerDuties, ReadForwarder } from './peer-duties.ts';

/** Records of one request for one topic. The source bytes must stay unchanged until `submit` returns, no longer. */
export interface ProduceRequest extends RecordSpans {
  topic: Topic;
  /** Partition of each record; its length is the record count. */
  partitions: readonly number[];
  /** For an idempotent producer; then all records go to one partition. */
  producer: ProducerStamp | null;
  /** The request fails as 'deadline-exceeded' (outcome unknown) when it is not answered after this time. */
  timeoutMs: number;
}

/** Answers to one produce request, per record in request order. */
export interface ProduceResult {
  /** Committed offsets; -1 where `errors` has the reason. */
  offsets: number[];
  /** null when every record was committed. */
  errors: (PlainError | null)[] | null;
}

/** The produce path: admission, grouping by partition, lanes, batching, commit. */
export interface ProducePath {
  /**
   * Takes the request or throws at once ('overloaded', 'record-too-large', 'batch-too-large', 'shutting-down',
   * 'partition-not-found', 'invalid-record'): then nothing happened. `done` is called exactly once, later, after
   * the commit.
   */
  submit(request: ProduceRequest, done: (result: ProduceResult) => void): void;
}

export interface FetchRequest {
  topic: Topic;
  partition: number;
  offset: number;
  /** At least one batch is returned if there is any, whatever its size. */
  bytesMax: number;
}

export interface PartitionBounds {
  /** The first readable offset. */
  logStart: number;
  /** The offset that the next record will get. */
  nextOffset: number;
}

/** One partition's answer. `batches`: whole RecordBatches, the first of which contains the offset asked for. */
export interface FetchResult extends PartitionBounds {
  batches: Buffer;
  /** 'offset-out-of-range' (detail: logStart, nextOffset), 'partition-not-found', 'not-leader', 'corrupt-object', ... */
  error: PlainError | null;
}

export interface FetchPath {
  /**
   * Answers in the order of `requests`, all partitions served fairly within `bytesMax` in total. Waits up to
   * `waitMs` until there are `bytesMin` bytes in total or any request has an error.
   */
  fetch(
    requests: readonly FetchRequest[],
    options: { bytesMax: number; bytesMin: number; waitMs: number; signal?: AbortSignal },
  ): Promise<FetchResult[]>;
  bounds(topic: Topic, partition: number): Promise<PartitionBounds>;
  /** The first offset whose record has a timestamp >= timestampMs; null if there is none. */
  offsetForTimestamp(
    topic: Topic,
    partition: number,
    timestampMs: number,
  ): Promise<{ offset: number; timestampMs: number } | null>;
}

/** The catalogue as the doors see it: cached, validated, and with the broker's own duties behind it. */
export interface TopicCatalogue {
  /** From the cache without waiting, for the hot path; undefined: ask `get`. */
  peek(name: string): Topic | undefined;
  /** 'topic-not-found', 'invalid-topic-name'. */
  get(name: string): Promise<Topic>;
  /** The topic if it has that partition, re-reading the store once if it seems not to; 'partition-not-found'. */
  getWithPartition(name: string, partition: number): Promise<Topic>;
  /** Somebody knows that this topic is another's name by now, or nobody's: whoever asks next gets it from the store. */
  doubt(topic: Topic): void;
  list(page: { after?: string; limit: number }): Promise<Topic[]>;
  /**
   * 'topic-exists', 'invalid-topic-name', 'invalid-partition-count', 'invalid-config'; 'not-leader' (nothing happened)
   * or 'deadline-exceeded' while an earlier topic of the name has not ended on all shards.
   */
  create(request: { name: string; partitionCount: number; configs: Record<string, string> }): Promise<Topic>;
  grow(name: string, partitionCount: number): Promise<Topic>;
  alter(name: string, changes: Record<string, string | null>): Promise<Topic>;
  delete(name: string): Promise<void>;
}

export interface BrokerInfo {
  agentId: string;
  incarnation: number;
  zone: string;
  version: string;
}

/** A registered agent as this broker last observed it. */
export interface ClusterMember {
  agentId: string;
  /** The broker id on the wire; new with every start. */
  incarnation: number;
  /** HOST:PORT as advertised. Another broker wrote it: it may be anything. */
  address: string;
  zone: string;
  group: string;
  version: string;
  /** Since its heartbeat was last seen to move, by this broker's own monotonic clock. */
  heartbeatAgeMs: number;
  /** leaving: it said so. dead: its heartbeat stood still for too long. */
  state: 'live' | 'leaving' | 'dead';
  /** It is the broker that answers. */
  isSelf: boolean;
  /** That broker's wall time. */
  registeredAtMs: number;
  /** Shards it holds, as far as this broker knows. */
  shardCount: number;
}

/** Who holds a shard. */
export interface ShardHolding {
  shard: number;
  /** Broker id; 0: nobody. */
  holder: number;
  /** null: nobody, or the holder is registered no more. */
  agentId: string | null;
  epoch: number;
  /** Wall time of the holder; null where it could not be asked. */
  sinceMs: number | null;
  headSeq: number;
}

/** The cluster as one broker sees it: for people and for clients that look for a broker. Nothing here fences. */
export interface ClusterView {
  /** Registered agents, this one among them, from memory. */
  members(): ClusterMember[];
  /** All shards in order, fresh from the store; holders are asked since when. */
  shards(): Promise<ShardHolding[]>;
  /** Broker id of a partition's leader as far as is known, from memory; null: unknown. */
  leaderOf(topicId: number, partition: number): number | null;
}

/** Everything a door needs. */
export interface Broker {
  readonly cluster: ClusterInfo;
  readonly info: BrokerInfo;
  readonly view: ClusterView;
  readonly produce: ProducePath;
  readonly fetch: FetchPath;
  readonly topics: TopicCatalogue;
  /** Appends that other brokers send here. */
  readonly forwarded: ForwardedProducePath;
  /** Reads of what other brokers hold. */
  readonly reads: ReadForwarder;
  readonly duties: PeerDuties;
  /** Live: the process is worth keeping. Ready: it serves. Reasons are for people. */
  health(): { live: boolean; ready: boolean; reasons: string[] };
  /** Prometheus text exposition. */
  metricsText(): Promise<string>;
  allocateProducerIds(count: number): Promise<number>;
}
