/**
 * The entry of the batching worker's thread: the Sequencer with its ports and stores. Owns: wiring. Does not own:
 * the work (sequencer) or its supervision (broker-threads). Runs on the batching worker's thread.
 */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { systemClock } from '../src/core/clock.ts';
import { operatingError } from '../src/core/errors.ts';
import { systemRandom } from '../src/core/random.ts';
import { attachMetadata, type MetadataHandle } from '../storage/metadata/open-metadata-store.ts';
import { openObjectStore } from '../storage/objects/open-object-store.ts';
import { RetryingObjectStore } from '../storage/objects/retrying-object-store.ts';
import { countedMetadata } from './counted-metadata.ts';
import type { LaneOrder, LaneReport, SequencerReply, SequencerRequest } from './messages.ts';
import { Sequencer, type SequencerSettings } from './sequencer.ts';
import { ThreadCounters } from './shared-counters.ts';

/** All that the thread is given. */
export interface BatchingTask {
  incarnation: number;
  laneCount: number;
  settings: SequencerSettings;
  metadata: MetadataHandle;
  objectsUrl: string;
  counters: SharedArrayBuffer;
  counterBlock: number;
  /** A Float64Array over it: the newest committed entry of each shard, kept over restarts of this thread. */
  knownSeq: SharedArrayBuffer;
}

/** From the main thread besides requests: lanes that were started or ended, and the end of it all. */
export type BatchingControl =
  | SequencerRequest
  | { type: 'lane-port'; lane: number; port: MessagePort }
  | { type: 'lane-lost'; lane: number }
  | { type: 'close' };

async function run(task: BatchingTask, port: MessagePort): Promise<void> {
  const clock = systemClock;
  const random = systemRandom;
  const counters = new ThreadCounters(task.counters, task.counterBlock);
  const store = countedMetadata(attachMetadata(task.metadata), clock, counters);
  const opened = await openObjectStore(task.objectsUrl, { clock, random });
  // An attempt may take as long as the upload: on a slow link shorter ones would all be given up half-way, and one
  // that hangs is covered by the hedge.
  const attemptMsMax = task.settings.uploadDeadlineMs;
  const objects = new RetryingObjectStore(opened, {
    clock,
    random,
    policy: { attemptMsMax },
    onRetry: () => counters.add('objectRetriesTotal'),
  });
  const report = (reply: SequencerReply) => port.postMessage(reply);
  const sequencer = new Sequencer({
    store,
    objects,
    clock,
    random,
    incarnation: task.incarnation,
    laneCount: task.laneCount,
    knownSeq: new Float64Array(task.knownSeq),
    settings: task.settings,
    counters,
    report,
  });
  const lanePorts = new Map<number, MessagePort>();
  const dropLane = (lane: number) => {
    const known = lanePorts.get(lane);
    if (!known) return;
    lanePorts.delete(lane);
    known.close();
    sequencer.disconnectLane(lane);
  };
  port.on('message', (message: BatchingControl) => {
    switch (message.type) {
      case 'lane-port':
        dropLane(message.lane);
        lanePorts.set(message.lane, message.port);
        message.port.on('message', (laneReport: LaneReport) => sequencer.fromLane(message.lane, laneReport));
        sequencer.connectLane(message.lane, {
          post: (order: LaneOrder) => message.port.postMessage(order, movable(order)),
        });
        break;
      case 'lane-lost':
        dropLane(message.lane);
        break;
      case 'take':
        for (const lease of message.leases) sequencer.take(lease);
        break;
      case 'release':
        sequencer.release(message.shards);
        break;
      case 'end-topic':
        sequencer.decideOn(message.shards, { kind: 'topic-deleted', topicId: message.topicId }).then(
          () => report({ type: 'topic-deleted', id: message.id, error: null }),
          (error) => {
            report({ type: 'topic-deleted', id: message.id, error: operatingError(error).toPlain() });
          },
        );
        break;
      case 'drain':
        sequencer.drain().then(
          () => report({ type: 'drained' }),
          (error) => {
            const fields = { error: operatingError(error).toPlain() };
            report({ type: 'log', level: 'warn', message: 'draining failed', fields });
            report({ type: 'drained' });
          },
        );
        break;
      case 'close':
        sequencer.stop();
        for (const lane of [...lanePorts.keys()]) dropLane(lane);
        port.close();
        void store.close();
        void objects.close();
        break;
    }
  });
}

function movable(order: LaneOrder): ArrayBuffer[] {
  if (order.type !== 'committed' || order.answers === null) return [];
  return [order.answers.buffer as ArrayBuffer];
}

if (parentPort === null) throw new Error('batching-worker: it runs as a thread of a broker only');
await run(workerData as BatchingTask, parentPort);
