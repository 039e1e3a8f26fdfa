/**
 * A lane with its ports, stores and counters: what a lane's thread runs. Owns: wiring one Lane to ports and
 * opening its own stores. Does not own: the Lane's work (lane) or the thread (partition-worker, lane-pool). Runs on
 * a pool thread, or on the main thread in tests of one piece.
 */
import type { MessagePort } from 'node:worker_threads';
import { systemClock } from '../src/core/clock.ts';
import { systemRandom } from '../src/core/random.ts';
import type { MetadataStore } from '../storage/metadata/metadata-store.ts';
import { attachMetadata, type MetadataHandle } from '../storage/metadata/open-metadata-store.ts';
import { BlockReader } from '../storage/objects/block-reader.ts';
import { batchObjectKey } from '../storage/objects/object-key.ts';
import { openObjectStore } from '../storage/objects/open-object-store.ts';
import { RetryingObjectStore } from '../storage/objects/retrying-object-store.ts';
import { countedMetadata } from './counted-metadata.ts';
import { Lane, type LaneSettings } from './lane.ts';
import type { LaneOrder, LaneReply, LaneReport, LaneRequest } from './messages.ts';
import { ThreadCounters } from './shared-counters.ts';

export interface LaneRunSettings extends LaneSettings {
  /** For blocks of cold objects in this lane. */
  blockCacheBytes: number;
}

/** All that a lane's thread is given. The ports and the handle's port move with it. */
export interface LaneTask {
  settings: LaneRunSettings;
  metadata: MetadataHandle;
  objectsUrl: string;
  counters: SharedArrayBuffer;
  /** This thread's block of the counters. */
  counterBlock: number;
  mainPort: MessagePort;
}

/** From the main thread besides requests: the port to the batching worker, at the start and after its restarts. */
export type LaneControl =
  | LaneRequest
  | { type: 'sequencer-port'; port: MessagePort }
  | { type: 'sequencer-lost' };

/** Cold reads of one lane at a time, and those that may wait: bounds memory and sockets, apart from uploads. */
const COLD_READS_MAX = 16;
const COLD_READS_WAITING_MAX = 1024;
/** An object's read is given up after this long, retries included. */
const COLD_READ_ATTEMPTS_MAX = 3;

/**
 * Runs a lane until it is told to close, or until `terminated` aborts (then it rejects, wherever it is); releases
 * what it opened in any case.
 */
export async function runLane(task: LaneTask, terminated?: AbortSignal): Promise<void> {
  const counters = new ThreadCounters(task.counters, task.counterBlock);
  const store = countedMetadata(attachMetadata(task.metadata), systemClock, counters);
  try {
    await runWith(task, store, counters, terminated);
  } finally {
    task.mainPort.close();
    await store.close();
  }
}

async function runWith(
  task: LaneTask,
  store: MetadataStore,
  counters: ThreadCounters,
  terminated: AbortSignal | undefined,
): Promise<void> {
  const clock = systemClock;
  const options = { clock, random: systemRandom };
  const objects = new RetryingObjectStore(await openObjectStore(task.objectsUrl, options), {
    ...options,
    policy: { attemptsMax: COLD_READ_ATTEMPTS_MAX },
    onRetry: () => counters.add('objectRetriesTotal'),
  });
  const reader = new BlockReader({
    store: objects,
    clock,
    budgetBytes: task.settings.blockCacheBytes,
    readsInFlightMax: COLD_READS_MAX,
    readsWaitingMax: COLD_READS_WAITING_MAX,
    observer: {
      hit: (blocks) => counters.add('blockCacheHitsTotal', blocks),
      miss: (blocks) => counters.add('blockCacheMissesTotal', blocks),
      read: (_ms, bytes) => counters.add('coldBytesTotal', bytes),
      evicted: () => counters.set('blockCacheBytes', reader.bytes),
      joined: (blocks) => counters.add('blockCacheJoinedTotal', blocks),
      bypassed: () => counters.add('blockCacheBypassedTotal'),
      failed: () => counters.add('coldReadsFailedTotal'),
      refused: () => counters.add('coldReadsRefusedTotal'),
    },
  });
  const { mainPort } = task;
  let sequencerPort: MessagePort | null = null;
  const lane = new Lane({
    settings: task.settings,
    store,
    readSlice: async ({ incarnation, number }, position, length) => {
      const bytes = await reader.read(batchObjectKey(incarnation, number), position, length);
      counters.set('blockCacheBytes', reader.bytes);
      return bytes;
    },
    clock,
    counters,
    toMain: (reply) => mainPort.postMessage(reply, movable(reply)),
    toSequencer: (report) => sequencerPort?.postMessage(report, movable(report)),
    hasSequencer: () => sequencerPort !== null,
  });
  const detach = () => {
    sequencerPort?.close();
    sequencerPort = null;
    lane.sequencerLost();
  };
  const attach = (port: MessagePort) => {
    detach();
    sequencerPort = port;
    port.on('message', (order: LaneOrder) => lane.fromSequencer(order));
  };
  const ended = new Promise<void>((resolve, reject) => {
    const terminate = () => reject(new Error('the lane was terminated'));
    if (terminated?.aborted) terminate();
    terminated?.addEventListener('abort', terminate, { once: true });
    mainPort.on('message', (message: LaneControl) => {
      if (message.type === 'sequencer-port') attach(message.port);
      else if (message.type === 'sequencer-lost') detach();
      else if (message.type === 'close') resolve();
      else lane.fromMain(message);
    });
  });
  try {
    await ended;
  } finally {
    (sequencerPort as MessagePort | null)?.close();
    await reader.close();
  }
}

/** The memory of a message that moves instead of being copied. */
function movable(message: LaneReply | LaneReport): ArrayBuffer[] {
  if (!('bytes' in message) || message.bytes.byteLength === 0) return [];
  const { buffer } = message.bytes;
  return buffer instanceof ArrayBuffer && buffer.byteLength === message.bytes.byteLength ? [buffer] : [];
}
