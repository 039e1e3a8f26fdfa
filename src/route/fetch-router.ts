/**
 * The fetch path on the main thread: sends each partition to its lane, waits for what a long poll wants, puts the
 * answers together. Owns: outstanding lane requests, fairness between the partitions of a request. Does not own:
 * look-ups and reads (lanes). Main thread.
 */

import type { Topic } from '../../storage/metadata/metadata-store.ts';
import type { LaneFetchPart, LaneFetchPartReply, LaneReply, LaneRequest } from '../../workers/messages.ts';
import type { Clock } from '../core/clock.ts';
import { type PlainError, StreamHouseError } from '../core/errors.ts';
import { laneOf, shardOf } from '../core/ids.ts';
import { FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX } from '../core/limits.ts';
import type { ShardLayout } from '../core/shard-layout.ts';
import type { FetchPath, FetchRequest, FetchResult, PartitionBounds } from './broker.ts';
import { ByteBudget } from './byte-budget.ts';

export interface FetchRouterParts {
  laneCount: number;
  layout: ShardLayout;
  clock: Clock;
  /** False when the lane is being started again. */
  toLane(lane: number, request: LaneRequest): boolean;
  /**
   * Whether this broker may still answer for the shards that it holds: false when it was out of touch with the
   * metadata store for so long that another one may have taken them. Asked before a lane is, and after its answer.
   */
  mayServe(): boolean;
  /** Whether this broker is certainly still the shard's holder, by a fresh look at the head. */
  confirmHolder(shard: number): Promise<boolean>;
  /** Whether the topic is still in the catalogue, under this id. */
  stillThere(topic: Topic): Promise<boolean>;
  /** A lane knows that this topic is deleted. */
  topicDeleted(topic: Topic): void;
}

/** Lane requests outstanding; beyond them readers are refused. */
const OUTSTANDING_MAX = 50_000;

/**
 * Bytes that reads may ask for at a time, before they are made: each may hold as much in a lane, on its way and
 * here. Waiting costs nothing but a place.
 */
const READ_BYTES_MAX = 128 * 1024 * 1024;
const READS_WAITING_MAX = 10_000;

type ReplyOf<T extends LaneReply['type']> = Extract<LaneReply, { type: T }>;

interface Waiting {
  lane: number;
  resolve(reply: LaneReply): void;
  reject(error: StreamHouseError): void;
}

const EMPTY = Buffer.alloc(0);

export class FetchRouter implements FetchPath {
  readonly #parts: FetchRouterParts;
  readonly #waiting = new Map<number, Waiting>();
  readonly #budget = new ByteBudget(READ_BYTES_MAX, READS_WAITING_MAX);
  #nextId = 0;
  #rotation = 0;
  #stopping = false;

  constructor(parts: FetchRouterParts) {
    this.#parts = parts;
  }

  /** Lane requests outstanding, long polls included. */
  get outstanding(): number {
    return this.#waiting.size;
  }

  async fetch(
    requests: readonly FetchRequest[],
    options: { bytesMax: number; bytesMin: number; waitMs: number; signal?: AbortSignal },
  ): Promise<FetchResult[]> {
    const { clock } = this.#parts;
    const bytesMax = Math.min(options.bytesMax, FETCH_BYTES_MAX);
    const deadlineMs = clock.monotonicMs() + Math.min(options.waitMs, FETCH_WAIT_MS_MAX);
    for (;;) {
      const results = await this.#fetchOnce(requests, bytesMax);
      const leftMs = deadlineMs - clock.monotonicMs();
      if (leftMs <= 0 || options.signal?.aborted || this.#stopping) return results;
      if (results.some((result) => result.error !== null)) return results;
      const bytes = results.reduce((sum, result) => sum + result.batches.length, 0);
      if (bytes >= options.bytesMin) return results;
      // Whoever has some bytes already waits for more of any partition: from what was read on.
      await this.#waitForMore(requests, results, leftMs, options.signal);
      if (await this.#markDeleted(requests, results)) return results;
    }
  }

  /** A deleted topic's partitions look like empty ones to a lane: whoever waits at one must be told. */
  async #markDeleted(requests: readonly FetchRequest[], results: FetchResult[]): Promise<boolean> {
    let any = false;
    for (let i = 0; i < requests.length; i++) {
      const { topic } = requests[i];
      if (await this.#parts.stillThere(topic)) continue;
      const error = new StreamHouseError('topic-not-found', `topic ${topic.name} was deleted`);
      results[i] = { ...results[i], error: error.toPlain() };
      any = true;
    }
    return any;
  }

  /** One round, within the budget of bytes that reads may hold. */
  async #fetchOnce(requests: readonly FetchRequest[], bytesMax: number): Promise<FetchResult[]> {
    const wanted = requests.reduce((sum, request) => sum + request.bytesMax, 0);
    const cost = this.#budget.counted(Math.min(bytesMax, wanted));
    const waiting = this.#budget.take(cost);
    if (waiting) await waiting;
    try {
      return await this.#fetchRound(requests, bytesMax);
    } finally {
      this.#budget.release(cost);
    }
  }

  async #fetchRound(requests: readonly FetchRequest[], bytesMax: number): Promise<FetchResult[]> {
    const byLane = new Map<number, { parts: LaneFetchPart[]; places: number[] }>();
    // Begin with another partition each time, so that the first of a long list does not take all bytes.
    const first = requests.length > 1 ? this.#rotation++ % requests.length : 0;
    for (let i = 0; i < requests.length; i++) {
      const place = (first + i) % requests.length;
      const request = requests[place];
      const part = this.#part(request.topic, request.partition, request.offset, request.bytesMax);
      const lane = this.#lane(request.topic, request.partition);
      const group = byLane.get(lane);
      if (group) {
        group.parts.push(part);
        group.places.push(place);
      } else {
        byLane.set(lane, { parts: [part], places: [place] });
      }
    }
    const results: FetchResult[] = new Array(requests.length);
    const share = Math.ceil(bytesMax / Math.max(1, byLane.size));
    await Promise.all(
      [...byLane].map(async ([lane, { parts, places }]) => {
        const replies = await this.#askLane(lane, parts, share);
        for (let i = 0; i < places.length; i++) results[places[i]] = replies[i];
      }),
    );
    for (let i = 0; i < requests.length; i++) {
      if (results[i].error?.code === 'topic-not-found') this.#parts.topicDeleted(requests[i].topic);
    }
    await this.#confirmOutOfRange(requests, results);
    return results;
  }

  async #askLane(lane: number, parts: LaneFetchPart[], bytesMax: number): Promise<FetchResult[]> {
    try {
      const reply = await this.#ask<'fetched'>(lane, (id) => ({ type: 'fetch', id, parts, bytesMax }));
      const bytes = Buffer.from(reply.bytes.buffer, reply.bytes.byteOffset, reply.bytes.byteLength);
      return reply.parts.map((part) => fetchResult(part, bytes));
    } catch (error) {
      if (!(error instanceof StreamHouseError)) throw error;
      const plain = error.toPlain();
      return parts.map(() => ({ logStart: 0, nextOffset: 0, batches: EMPTY, error: plain }));
    }
  }

  /** An offset above the end is out of range only if this broker is surely still the holder. */
  async #confirmOutOfRange(requests: readonly FetchRequest[], results: FetchResult[]): Promise<void> {
    for (let i = 0; i < requests.length; i++) {
      const { error, nextOffset } = results[i];
      if (error?.code !== 'offset-out-of-range' || requests[i].offset <= nextOffset) continue;
      const { topic, partition } = requests[i];
      const shard = shardOf(topic.topicId, partition, this.#parts.layout);
      if (!(await this.#parts.confirmHolder(shard))) {
        const notLeader = new StreamHouseError('not-leader', 'the partition has another leader');
        results[i] = { ...results[i], error: notLeader.toPlain() };
      }
    }
  }

  async #waitForMore(
    requests: readonly FetchRequest[],
    results: readonly FetchResult[],
    waitMs: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const byLane = new Map<number, { topicId: number; partition: number; shard: number; offset: number }[]>();
    for (let i = 0; i < requests.length; i++) {
      const { topic, partition } = requests[i];
      const lane = this.#lane(topic, partition);
      const { topicId, shard } = this.#part(topic, partition, 0, 0);
      const watch = { topicId, partition, shard, offset: results[i].nextOffset };
      const watches = byLane.get(lane);
      if (watches) watches.push(watch);
      else byLane.set(lane, [watch]);
    }
    const ids: { lane: number; id: number }[] = [];
    let wake: () => void = () => undefined;
    const woken = new Promise<void>((resolve) => (wake = resolve));
    const timer = this.#parts.clock.after(waitMs, wake);
    signal?.addEventListener('abort', wake, { once: true });
    for (const [lane, parts] of byLane) {
      this.#ask<'watched'>(lane, (id) => {
        ids.push({ lane, id });
        return { type: 'watch', id, parts };
      }).then(wake, wake);
    }
    await woken;
    timer.cancel();
    signal?.removeEventListener('abort', wake);
    for (const { lane, id } of ids) {
      const waiting = this.#waiting.get(id);
      if (!waiting) continue;
      this.#waiting.delete(id);
      this.#parts.toLane(lane, { type: 'unwatch', id });
    }
  }

  async bounds(topic: Topic, partition: number): Promise<PartitionBounds> {
    const lane = this.#lane(topic, partition);
    const { topicId } = topic;
    const reply = await this.#ask<'bounds'>(lane, (id) => ({
      type: 'bounds',
      id,
      topicId,
      partition,
    }));
    this.#throwError(topic, reply.error);
    return { logStart: reply.logStart, nextOffset: reply.nextOffset };
  }

  async offsetForTimestamp(
    topic: Topic,
    partition: number,
    timestampMs: number,
  ): Promise<{ offset: number; timestampMs: number } | null> {
    const lane = this.#lane(topic, partition);
    const { topicId } = topic;
    const reply = await this.#ask<'time'>(lane, (id) => ({
      type: 'time',
      id,
      topicId,
      partition,
      timestampMs,
    }));
    this.#throwError(topic, reply.error);
    return reply.found ? { offset: reply.offset, timestampMs: reply.timestampMs } : null;
  }

  #throwError(topic: Topic, error: PlainError | null): void {
    if (error === null) return;
    if (error.code === 'topic-not-found') this.#parts.topicDeleted(topic);
    throw StreamHouseError.fromPlain(error);
  }

  #lane(topic: Topic, partition: number): number {
    return laneOf(topic.topicId, partition, this.#parts.laneCount);
  }

  #part(topic: Topic, partition: number, offset: number, bytesMax: number): LaneFetchPart {
    const { topicId } = topic;
    return {
      topicId,
      partition,
      shard: shardOf(topicId, partition, this.#parts.layout),
      offset,
      bytesMax,
    };
  }

  // -- Lane requests -----------------------------------------------------------------------------------

  #ask<T extends LaneReply['type']>(lane: number, request: (id: number) => LaneRequest): Promise<ReplyOf<T>> {
    if (!this.#parts.mayServe()) return Promise.reject(outOfTouch());
    if (this.#waiting.size >= OUTSTANDING_MAX) {
      return Promise.reject(
        new StreamHouseError('overloaded', `${OUTSTANDING_MAX} reads are waiting; try again later`),
      );
    }
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { lane, resolve: resolve as (reply: LaneReply) => void, reject });
      if (this.#parts.toLane(lane, request(id))) return;
      this.#waiting.delete(id);
      reject(new StreamHouseError('not-leader', 'the lane is being started again; try again'));
    });
  }

  /** A lane's reply to one of the requests above; one that nobody waits for any more is dropped. */
  reply(reply: Extract<LaneReply, { id: number }>): void {
    const waiting = this.#waiting.get(reply.id);
    if (!waiting) return;
    this.#waiting.delete(reply.id);
    // What it read may have been overtaken by another holder's records by the time that it was asked.
    if (this.#parts.mayServe()) waiting.resolve(reply);
    else waiting.reject(outOfTouch());
  }

  /** The lane's thread ended: its readers may try again. */
  laneLost(lane: number): void {
    this.#rejectAll((waiting) => waiting.lane === lane, 'not-leader', 'the lane was lost; try again');
  }

  /** `mayServe` is false since: whoever waits is told at once, for another broker may have what it waits for. */
  outOfTouch(): void {
    const { code, message } = outOfTouch();
    this.#rejectAll(() => true, code, message);
  }

  /** Ends all long polls; later fetches do not wait. */
  stop(): void {
    this.#stopping = true;
    this.#rejectAll(() => true, 'shutting-down', 'the broker is stopping');
  }

  #rejectAll(concerns: (waiting: Waiting) => boolean, code: PlainError['code'], message: string): void {
    for (const [id, waiting] of this.#waiting) {
      if (!concerns(waiting)) continue;
      this.#waiting.delete(id);
      waiting.reject(new StreamHouseError(code, message));
    }
  }
}

function outOfTouch(): StreamHouseError {
  return new StreamHouseError(
    'not-leader',
    'this broker has lost touch with the metadata store; another one may serve the partition',
  );
}

function fetchResult(part: LaneFetchPartReply, bytes: Buffer): FetchResult {
  const { logStart, nextOffset, position, length, error } = part;
  return { logStart, nextOffset, batches: bytes.subarray(position, position + length), error };
}
