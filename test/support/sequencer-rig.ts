/**
 * A sequencer with one lane, over one of several stores on the same state, for unit tests. Owns: the wiring, and reading
 * what came of it. Does not own: what is asked of it.
 */
import assert from 'node:assert/strict';
import { type Clock, systemClock } from '../../src/core/clock.ts';
import type { ErrorCode } from '../../src/core/errors.ts';
import { seededRandom } from '../../src/core/random.ts';
import type { ProducerStamp } from '../../src/core/record-batch.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import { MemoryMetadataState } from '../../storage/metadata/memory/memory-metadata-state.ts';
import { MemoryMetadataStore } from '../../storage/metadata/memory/memory-metadata-store.ts';
import { MemoryObjectStore } from '../../storage/objects/memory-object-store.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { readAnswers } from '../../workers/append-codec.ts';
import { buildAppends } from '../../workers/lane-produce.ts';
import type { LaneOrder, SeenLease, SequencerReply } from '../../workers/messages.ts';
import { Sequencer } from '../../workers/sequencer.ts';
import { allocateCounters, ThreadCounters } from '../../workers/shared-counters.ts';
import { packProduce } from '../sim/payloads.ts';
import { FaultyMetadataStore } from './faulty-metadata-store.ts';

export const SHARDS = 2;

export async function cluster(): Promise<MemoryMetadataState> {
  const state = new MemoryMetadataState();
  const store = new MemoryMetadataStore(state);
  await store.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount: SHARDS, createdAtMs: 0 });
  return state;
}

export interface StartOptions {
  objects?: ObjectStore;
  clock?: Clock;
  unsettledBytesMax?: number;
  knownSeq?: Float64Array;
  windowMs?: number;
  checkpointLogBytes?: number;
}

/** A sequencer with one lane that opens whatever it is given, over one of several stores on `state`. */
export function start(state: MemoryMetadataState, incarnation: number, options: StartOptions = {}) {
  const { objects = new MemoryObjectStore(systemClock), clock = systemClock } = options;
  const reports: SequencerReply[] = [];
  const orders: LaneOrder[] = [];
  const store = new FaultyMetadataStore(new MemoryMetadataStore(state));
  const sequencer = new Sequencer({
    store,
    objects,
    clock,
    random: seededRandom(incarnation),
    incarnation,
    laneCount: 1,
    knownSeq: options.knownSeq,
    settings: {
      windowMs: options.windowMs ?? 1,
      bytesMax: 1 << 20,
      slicesMax: 100,
      objectPer: 'window',
      layout: oneGroup(SHARDS),
      uploadsInFlightMax: 2,
      uploadDeadlineMs: 1000,
      checkpointLogBytes: options.checkpointLogBytes ?? 1 << 20,
      unsettledBytesMax: options.unsettledBytesMax ?? 64 * 1024 * 1024,
      checkpointIntervalMs: 60_000,
    },
    counters: new ThreadCounters(allocateCounters(1), 0),
    report: (reply) => reports.push(reply),
  });
  const post = (order: LaneOrder) => {
    orders.push(order);
    if (order.type === 'open-shard') {
      const { shard, epoch } = order;
      setImmediate(() => sequencer.fromLane(0, { type: 'opened', shard, epoch }));
    }
    if (order.type === 'page-out') {
      const { shard, requestId } = order;
      setImmediate(() =>
        sequencer.fromLane(0, { type: 'paged-out', shard, requestId, pages: 0, error: null }),
      );
    }
  };
  sequencer.connectLane(0, { post });
  const answers = () => {
    const all: [number, ErrorCode | null, number][] = [];
    for (const order of orders) {
      if (order.type !== 'committed' || !order.answers) continue;
      readAnswers(order.answers, (slot, _generation, code, baseOffset) => all.push([slot, code, baseOffset]));
    }
    return all;
  };
  const append = (slot: number, partition: number, producer: ProducerStamp | null, payload = 'x') => {
    const one = { slot, generation: 0, topicId: 1, partition, producer, payloads: [payload] };
    sequencer.fromLane(0, { type: 'append', bytes: buildAppends(packProduce([one]), 1).bytes });
  };
  const of = (type: SequencerReply['type'], shard: number) =>
    reports.filter((reply) => reply.type === type && 'shard' in reply && reply.shard === shard).length;
  return { sequencer, store, reports, orders, answers, append, of, post };
}

/** A shard's lease as it is now. */
export function seen(state: MemoryMetadataState, shard: number): SeenLease {
  const { holder, epoch } = state.shards[shard].head;
  return { shard, holder, epoch };
}

export async function until(holds: () => boolean): Promise<void> {
  const endMs = performance.now() + 5000;
  while (!holds()) {
    assert.ok(performance.now() < endMs, 'it did not happen');
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

export async function holding(state: MemoryMetadataState, incarnation: number, options: StartOptions = {}) {
  const running = start(state, incarnation, options);
  for (let shard = 0; shard < SHARDS; shard++) running.sequencer.take(seen(state, shard));
  await until(() => running.of('held', 0) > 0 && running.of('held', 1) > 0);
  return running;
}
