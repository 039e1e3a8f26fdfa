/**
 * All that crosses between threads: the main thread, the lanes (pool threads) and the batching worker. Owns: the
 * message types, and which port carries which. Does not own: the packed layouts inside (append-codec,
 * entry-codec). Any thread.
 *
 *   main  -> lane            LaneRequest         lane     -> main   LaneReply
 *   lane  -> batching worker LaneReport          batching -> lane   LaneOrder
 *   main  -> batching worker SequencerRequest    batching -> main   SequencerReply
 *
 * Messages that belong to one turn of the event loop are gathered into one by their sender. Byte arrays are
 * moved, or lie in shared memory; nothing here is one object per slice.
 */
import type { PlainError } from '../src/core/errors.ts';

/** An object's bytes, in shared memory, for the tail caches. */
export interface SharedObject {
  incarnation: number;
  number: number;
  bytes: Uint8Array;
}

/** One committed entry: its body in shared memory. */
export interface CommittedEntry {
  shard: number;
  seq: number;
  body: Uint8Array;
}

/** Lane, take this shard: fold the checkpoint (null: none yet), then the tail, which is dense after it. */
export interface OpenShardOrder {
  type: 'open-shard';
  shard: number;
  /** The holder's epoch; answers of fetches bear it as leader epoch. */
  epoch: number;
  shardCount: number;
  /** The checkpoint's seq; 0 without one. */
  pointerSeq: number;
  checkpoint: Uint8Array | null;
  tail: CommittedEntry[];
}

export type LaneOrder =
  | OpenShardOrder
  | { type: 'close-shard'; shard: number }
  | {
      type: 'committed';
      entries: CommittedEntry[];
      objects: SharedObject[];
      /** Packed answers to forward to main after the entries were applied; null: none. */
      answers: Uint8Array | null;
    }
  /** Write out all pages of the shard that fold entries so far, then report. */
  | { type: 'page-out'; shard: number; requestId: number };

export type LaneReport =
  /** Packed appends (append-codec). */
  | { type: 'append'; bytes: Uint8Array }
  | { type: 'opened'; shard: number; epoch: number }
  | { type: 'paged-out'; shard: number; requestId: number; pages: number; error: PlainError | null }
  /** Dirty pages press on the lane's budget: a checkpoint is welcome. */
  | { type: 'pressure' };

/** One partition of a fetch. */
export interface LaneFetchPart {
  topicId: number;
  partition: number;
  shard: number;
  offset: number;
  bytesMax: number;
}

export type LaneRequest =
  /** Packed produce appends (append-codec), in order. */
  | { type: 'produce'; bytes: Uint8Array }
  | { type: 'fetch'; id: number; parts: LaneFetchPart[]; bytesMax: number }
  | { type: 'bounds'; id: number; topicId: number; partition: number }
  | { type: 'time'; id: number; topicId: number; partition: number; timestampMs: number }
  /** Tell once when any of these partitions has an offset at or above the one given, or has gone. */
  | {
      type: 'watch';
      id: number;
      parts: { topicId: number; partition: number; shard: number; offset: number }[];
    }
  | { type: 'unwatch'; id: number }
  | { type: 'close' };

export interface LaneFetchPartReply {
  logStart: number;
  nextOffset: number;
  /** Where this part's batches lie in the reply's bytes. */
  position: number;
  length: number;
  error: PlainError | null;
}

export type LaneReply =
  /** Packed answers (append-codec). */
  | { type: 'answers'; bytes: Uint8Array }
  | { type: 'fetched'; id: number; parts: LaneFetchPartReply[]; bytes: Uint8Array }
  | { type: 'bounds'; id: number; logStart: number; nextOffset: number; error: PlainError | null }
  | {
      type: 'time';
      id: number;
      offset: number;
      timestampMs: number;
      found: boolean;
      error: PlainError | null;
    }
  | { type: 'watched'; id: number };

/** A shard's lease as somebody saw it, perhaps a while ago; holder 0: nobody. */
export interface SeenLease {
  shard: number;
  holder: number;
  epoch: number;
}

export type SequencerRequest =
  /**
   * Take these shards, each only if its head bears exactly the lease seen: 'lost' with code 'conflict' (detail: shard,
   * holder, epoch) otherwise. Each is answered by 'held' or 'lost'. One that is being taken already is answered once;
   * one that is served here is answered 'held' if that is still so, whatever lease was seen; one that is being released
   * goes on being released, and is answered by the end of that alone.
   */
  | { type: 'take'; leases: SeenLease[] }
  /**
   * Hand these shards over: their new appends are refused 'not-leader' from here on, what was taken is committed or
   * answered, then the leases are given back. Each is answered by 'released' or 'lost'; one that is not held is 'lost'
   * with code 'not-leader', one that is being taken is released once it is. A second release of a shard is answered by
   * the end of the first.
   */
  | { type: 'release'; shards: number[] }
  /**
   * Append TopicDeleted to these shards; answered by 'topic-deleted' when all have it, with 'not-leader' and without
   * having appended anything if one is not served here.
   */
  | { type: 'end-topic'; id: number; topicId: number; shards: number[] }
  /**
   * Stop taking appends, flush, release all shards (each is answered as by 'release'), answer 'drained'. What is to be
   * taken from here on is 'lost' with code 'shutting-down'.
   */
  | { type: 'drain' };

export type SequencerReply =
  | { type: 'held'; shard: number; epoch: number }
  /** Not held any more, or not taken. Nothing is known of the lease but what the error tells. */
  | { type: 'lost'; shard: number; error: PlainError }
  /** The lease was given back: the head bears holder 0 under this epoch until somebody takes it. */
  | { type: 'released'; shard: number; epoch: number }
  | { type: 'topic-deleted'; id: number; error: PlainError | null }
  | { type: 'drained' }
  /** The store contradicts what this broker knows to be committed: the process must stop. */
  | { type: 'fatal'; error: PlainError }
  | { type: 'log'; level: 'info' | 'warn' | 'error'; message: string; fields: Record<string, unknown> };
