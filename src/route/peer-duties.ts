/**
 * What a broker does for the other brokers of its cluster, and what one forwards to another. Owns: the words of that
 * interface, between server/ (which is asked) and the agent loop and the routers (which do it). Main thread.
 */
import type { ErrorCode } from '../core/errors.ts';

/** A shard under the epoch by which it is or was held. */
export interface ShardEpoch {
  shard: number;
  epoch: number;
}

/** Another broker released these shards and thinks that the receiver should have them, or leaves the cluster. */
export interface LeasesMoved {
  /** The sender's incarnation. */
  from: number;
  leaving: boolean;
  shards: ShardEpoch[];
}

export interface HeldShard extends ShardEpoch {
  /** Wall time, ms. */
  sinceMs: number;
}

/** Only hints and questions, and one order: to end a topic that the catalogue has as deleted. */
export interface PeerDuties {
  leasesMoved(notice: LeasesMoved): void;
  /** Appends TopicDeleted on these shards, all of which must be held here: 'not-leader' otherwise. */
  endTopic(topicId: number, shards: readonly number[]): Promise<void>;
  /** What is held here. */
  held(): HeldShard[];
}

/** One append as another broker packed it. `bytes` is valid during the call that it is given to. */
export interface ForwardedAppend {
  topicId: number;
  partition: number;
  recordCount: number;
  /** -1: not idempotent. */
  producerId: number;
  producerEpoch: number;
  baseSequence: number;
  /** recordCount * (i32 keyBytes, i32 valueBytes; -1 null), then keys and values in turn. */
  bytes: Uint8Array;
  /** Why it is not taken, whoever holds its shard; null: it is. */
  refusal: ErrorCode | null;
}

/** The appends of one message, checked to be well formed. */
export interface ForwardedAppends {
  readonly count: number;
  /** Bytes of all appends. */
  readonly bytes: number;
  /** One object, used again for every append. */
  forEach(each: (append: ForwardedAppend, index: number) => void): void;
}

/** Takes appends that another broker sent because it believes their shards to be held here. */
export interface ForwardedProducePath {
  /** An append above these is refused by itself. */
  readonly limits: { readonly recordBytesMax: number; readonly appendBytesMax: number };
  /**
   * Takes all of them, in order, before it returns, or throws ('overloaded', 'shutting-down'): then nothing happened.
   * `answer` is called once for each, later: 'not-leader' where the shard is not held here. Nothing is forwarded
   * again.
   */
  submitForwarded(
    appends: ForwardedAppends,
    answer: (index: number, code: ErrorCode | null, baseOffset: number) => void,
  ): void;
}

/** A read as it goes to another broker. */
export interface ForwardedRead {
  /** Path and query as they came. */
  target: string;
  accept: string | undefined;
  /** How long the holder may wait before it answers. */
  waitMs: number;
  signal: AbortSignal;
  /** Room for the answer before it is read; false: there is none. Given back by whoever sends the answer on. */
  admit(bytes: number): boolean;
  release(bytes: number): void;
}

export interface ForwardedReadAnswer {
  status: number;
  contentType: string;
  retryAfter: string | undefined;
  body: Buffer;
  /** Bytes admitted for the body. */
  admitted: number;
}

/** Reads of partitions that another broker holds. */
export interface ReadForwarder {
  /** Whether the partition's shard is not held here. For every read. */
  isElsewhere(topicId: number, partition: number): boolean;
  /**
   * The holder's answer; null: it is to be answered here after all. 'not-leader', 'overloaded', 'topic-not-found' (its
   * name may be another topic's). Rejects with the
   * signal's reason when it is aborted.
   */
  forward(topicId: number, partition: number, read: ForwardedRead): Promise<ForwardedReadAnswer | null>;
}
