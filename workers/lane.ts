/**
 * One lane: builds record batches on their way in, holds the segment index of its partitions, answers fetches.
 * Owns: the index, the tail cache, watchers of long polls. Does not own anything that a commit depends on: it can
 * be ended and started again at any time, and folds its index anew from checkpoint and log. Does not own threads
 * and ports either (partition-worker does), so that the simulation runs the same code.
 */
import { SegmentIndex } from '../index/segment-index.ts';
import type { Clock } from '../src/core/clock.ts';
import { operatingError, type PlainError, StreamHouseError } from '../src/core/errors.ts';
import { laneOf, partitionKey } from '../src/core/ids.ts';
import type { ShardLayout } from '../src/core/shard-layout.ts';
import type { MetadataStore } from '../storage/metadata/metadata-store.ts';
import { AnswerWriter, forEachProduce } from './append-codec.ts';
import { decodeCheckpoint } from './checkpoint-codec.ts';
import { decodeEntry, type Entry } from './entry-codec.ts';
import { LaneFetcher, type ReadSlice, topicDeleted } from './lane-fetch.ts';
import { buildAppends } from './lane-produce.ts';
import type {
  CommittedEntry,
  LaneOrder,
  LaneReply,
  LaneReport,
  LaneRequest,
  OpenShardOrder,
} from './messages.ts';
import type { ThreadCounters } from './shared-counters.ts';
import { TailCache } from './tail-cache.ts';

export interface LaneSettings {
  lane: number;
  laneCount: number;
  layout: ShardLayout;
  /** For the index blocks of this lane. */
  indexBytes: number;
  /** For the newest objects, once for the process. */
  tailCacheBytes: number;
}

export interface LaneParts {
  settings: LaneSettings;
  store: Pick<MetadataStore, 'findPages' | 'putPages'>;
  /** Reads a slice that the tail cache does not have. */
  readSlice: ReadSlice;
  clock: Clock;
  counters: ThreadCounters;
  toMain(reply: LaneReply): void;
  toSequencer(report: LaneReport): void;
  /** False while no batching worker is connected. */
  hasSequencer(): boolean;
}

interface Watch {
  id: number;
  shard: number;
  key: number;
  offset: number;
}

const INDEX_COUNTERS = {
  lookups: 'indexLookupsTotal',
  hits: 'indexHitsTotal',
  misses: 'indexMissesTotal',
  pagedIn: 'indexPagedInTotal',
  pagedOut: 'indexPagedOutTotal',
  evicted: 'indexEvictedTotal',
  joined: 'indexJoinedTotal',
  staleReads: 'indexStaleReadsTotal',
} as const;

export class Lane {
  readonly #parts: LaneParts;
  readonly #index: SegmentIndex;
  readonly #tail: TailCache;
  readonly #fetcher: LaneFetcher;
  /** The epoch under which each open shard is served. */
  readonly #epochs = new Map<number, number>();
  /** Watches by partition, and the keys of each watching request. */
  readonly #watches = new Map<number, Set<Watch>>();
  readonly #watching = new Map<number, Watch[]>();

  constructor(parts: LaneParts) {
    this.#parts = parts;
    const { settings, store, clock, counters } = parts;
    this.#tail = new TailCache(settings.tailCacheBytes);
    this.#index = new SegmentIndex({
      layout: settings.layout,
      budgetBytes: settings.indexBytes,
      findPages: (requests) => store.findPages(requests),
      clock,
      counters: { add: (kind, count) => counters.add(INDEX_COUNTERS[kind], count) },
      onPressure: () => parts.toSequencer({ type: 'pressure' }),
    });
    this.#fetcher = new LaneFetcher({
      index: this.#index,
      tail: this.#tail,
      readSlice: parts.readSlice,
      epochOf: (shard) => this.#epochs.get(shard) ?? 0,
      clock,
      counters,
    });
  }

  // -- From the main thread ----------------------------------------------------------------------------

  fromMain(request: LaneRequest): void {
    switch (request.type) {
      case 'produce':
        this.#produce(request.bytes);
        break;
      case 'fetch':
        void this.#fetcher
          .fetch(request.parts, request.bytesMax)
          .then((result) => this.#parts.toMain({ type: 'fetched', id: request.id, ...result }));
        break;
      case 'bounds':
        this.#bounds(request.id, request.topicId, request.partition);
        break;
      case 'time':
        void this.#time(request.id, request.topicId, request.partition, request.timestampMs);
        break;
      case 'watch':
        this.#watch(request.id, request.parts);
        break;
      case 'unwatch':
        this.#unwatch(request.id);
        break;
      case 'close':
        break;
    }
  }

  #produce(message: Uint8Array): void {
    const { counters, clock, toSequencer } = this.#parts;
    if (!this.#parts.hasSequencer()) {
      const refused = new AnswerWriter();
      forEachProduce(message, ({ slot, generation }) => refused.add(slot, generation, 'not-leader', -1));
      this.#parts.toMain({ type: 'answers', bytes: refused.take() as Uint8Array });
      return;
    }
    const built = buildAppends(message, Math.floor(clock.wallMs()));
    counters.add('laneAppendsTotal', built.count);
    counters.add('laneBytesTotal', built.batchBytes);
    toSequencer({ type: 'append', bytes: built.bytes });
  }

  #bounds(id: number, topicId: number, partition: number): void {
    const bounds = this.#index.bounds(topicId, partition);
    const isDeleted = this.#index.isDeleted(topicId, partition);
    this.#parts.toMain(
      bounds && !isDeleted
        ? { type: 'bounds', id, ...bounds, error: null }
        : {
            type: 'bounds',
            id,
            logStart: 0,
            nextOffset: 0,
            error: isDeleted ? topicDeleted(topicId).toPlain() : notServed(),
          },
    );
  }

  async #time(id: number, topicId: number, partition: number, timestampMs: number): Promise<void> {
    try {
      const found = await this.#fetcher.offsetForTimestamp(topicId, partition, timestampMs);
      const place = found ?? { offset: -1, timestampMs: -1 };
      this.#parts.toMain({ type: 'time', id, ...place, found: found !== null, error: null });
    } catch (error) {
      const failure = operatingError(error);
      const nothing = { offset: -1, timestampMs: -1, found: false };
      this.#parts.toMain({ type: 'time', id, ...nothing, error: failure.toPlain() });
    }
  }

  // -- Long polls --------------------------------------------------------------------------------------

  #watch(
    id: number,
    parts: readonly { topicId: number; partition: number; shard: number; offset: number }[],
  ): void {
    const watches: Watch[] = [];
    for (const part of parts) {
      const bounds = this.#index.bounds(part.topicId, part.partition);
      const isDeleted = this.#index.isDeleted(part.topicId, part.partition);
      if (!bounds || isDeleted || bounds.nextOffset > part.offset) {
        this.#forget(watches);
        this.#parts.toMain({ type: 'watched', id });
        return;
      }
      const key = partitionKey(part.topicId, part.partition);
      const watch = { id, shard: part.shard, key, offset: part.offset };
      watches.push(watch);
      const others = this.#watches.get(key);
      if (others) others.add(watch);
      else this.#watches.set(key, new Set([watch]));
    }
    this.#watching.set(id, watches);
  }

  #unwatch(id: number): void {
    const watches = this.#watching.get(id);
    if (!watches) return;
    this.#watching.delete(id);
    this.#forget(watches);
  }

  #forget(watches: readonly Watch[]): void {
    for (const watch of watches) {
      const others = this.#watches.get(watch.key);
      others?.delete(watch);
      if (others?.size === 0) this.#watches.delete(watch.key);
    }
  }

  #wake(watch: Watch): void {
    this.#unwatch(watch.id);
    this.#parts.toMain({ type: 'watched', id: watch.id });
  }

  /** Wakes those who wait for this partition to reach beyond their offset. */
  #wakePartition(key: number, nextOffset: number): void {
    const watches = this.#watches.get(key);
    if (!watches) return;
    for (const watch of [...watches]) if (nextOffset > watch.offset) this.#wake(watch);
  }

  #wakeShard(shard: number): void {
    for (const watches of [...this.#watching.values()]) {
      const first = watches.find((watch) => watch.shard === shard);
      if (first) this.#wake(first);
    }
  }

  // -- From the batching worker ------------------------------------------------------------------------

  fromSequencer(order: LaneOrder): void {
    switch (order.type) {
      case 'open-shard':
        this.#openShard(order);
        break;
      case 'close-shard':
        this.#closeShard(order.shard);
        break;
      case 'committed':
        for (const object of order.objects) this.#tail.add(object);
        for (const entry of order.entries) this.#committed(entry);
        if (order.answers) this.#parts.toMain({ type: 'answers', bytes: order.answers });
        this.gauges();
        break;
      case 'page-out':
        void this.#pageOut(order.shard, order.requestId);
        break;
    }
  }

  /** The batching worker ended: what it held is held by nobody until its successor opens it anew. */
  sequencerLost(): void {
    for (const shard of [...this.#epochs.keys()]) this.#closeShard(shard);
  }

  #openShard(order: OpenShardOrder): void {
    this.#closeShard(order.shard);
    const state = order.checkpoint && decodeCheckpoint(order.checkpoint, order.shard);
    const folds = state
      ? [...state.partitions.values()].filter((fold) => this.#isMine(fold.topicId, fold.partition))
      : [];
    this.#index.openShard(order.shard, folds, order.pointerSeq, state?.deletedTopics.keys());
    for (const entry of order.tail) this.#apply(decodeEntry(entry.body));
    this.#epochs.set(order.shard, order.epoch);
    this.gauges();
    this.#parts.toSequencer({ type: 'opened', shard: order.shard, epoch: order.epoch });
  }

  #closeShard(shard: number): void {
    this.#epochs.delete(shard);
    this.#index.closeShard(shard);
    this.#wakeShard(shard);
  }

  #isMine(topicId: number, partition: number): boolean {
    const { lane, laneCount } = this.#parts.settings;
    return laneOf(topicId, partition, laneCount) === lane;
  }

  /** A late message about an entry that the shard was opened with, or of a shard that is closed, is no news. */
  #committed(committed: CommittedEntry): void {
    const applied = this.#index.appliedSeq(committed.shard);
    if (applied === undefined || committed.seq <= applied) return;
    if (committed.seq !== applied + 1) {
      throw new Error(`lane: shard ${committed.shard} jumps from entry ${applied} to ${committed.seq}`);
    }
    this.#apply(decodeEntry(committed.body));
  }

  #apply(entry: Entry): void {
    const index = this.#index;
    const { shard, seq } = entry;
    switch (entry.kind) {
      case 'slices':
        for (const slice of entry.slices) {
          const { topicId, partition, baseOffset, recordCount, position, length } = slice;
          if (!this.#isMine(topicId, partition)) continue;
          const { incarnation, number } = entry.objects[slice.objectIndex];
          const { maxTimestampMs } = slice;
          index.append(
            shard,
            seq,
            topicId,
            partition,
            baseOffset,
            recordCount,
            incarnation,
            number,
            position,
            length,
            maxTimestampMs,
          );
          if (this.#watches.size > 0) {
            this.#wakePartition(partitionKey(topicId, partition), baseOffset + recordCount);
          }
        }
        break;
      case 'log-start':
        for (const start of entry.starts) {
          if (!this.#isMine(start.topicId, start.partition)) continue;
          index.setLogStart(shard, seq, start.topicId, start.partition, start.logStart);
        }
        break;
      case 'topic-deleted':
        index.removeTopic(shard, seq, entry.topicId);
        this.#wakeShard(shard);
        break;
      case 'merged':
        this.#applyMerged(entry);
        break;
      case 'takeover':
        break;
    }
    index.advance(shard, seq);
  }

  #applyMerged(entry: Extract<Entry, { kind: 'merged' }>): void {
    for (const slice of entry.slices) {
      if (!this.#isMine(slice.topicId, slice.partition)) continue;
      const ref = {
        ...entry.objects[slice.objectIndex],
        baseOffset: slice.baseOffset,
        nextOffset: slice.baseOffset + slice.recordCount,
        position: slice.position,
        length: slice.length,
        maxTimestampSoFarMs: slice.maxTimestampMs,
      };
      this.#index.replace(entry.shard, entry.seq, slice.topicId, slice.partition, [ref]);
    }
  }

  async #pageOut(shard: number, requestId: number): Promise<void> {
    const { store, toSequencer } = this.#parts;
    try {
      const { pages } = await this.#index.pageOut(shard, (out) => store.putPages(out));
      toSequencer({ type: 'paged-out', shard, requestId, pages, error: null });
    } catch (error) {
      const failure = operatingError(error);
      toSequencer({ type: 'paged-out', shard, requestId, pages: 0, error: failure.toPlain() });
    }
    this.gauges();
  }

  /** Brings the gauges of this thread up to date. */
  gauges(): void {
    const { counters } = this.#parts;
    counters.set('indexBytes', this.#index.bytes);
    counters.set('indexDirtyBytes', this.#index.dirtyBytes);
    // Every lane holds the same objects: the first one tells for all.
    if (this.#parts.settings.lane === 0) counters.set('tailCacheBytes', this.#tail.bytes);
  }
}

function notServed(): PlainError {
  return new StreamHouseError('not-leader', 'the partition is not served here at the moment').toPlain();
}
