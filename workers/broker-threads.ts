/**
 * All threads of a broker as one part: the pool of lanes, the batching worker, the ports between them, and their
 * supervision. Owns: starting, wiring, noticing an end, starting again. Does not own: what requests mean (route/),
 * which shards to take (agent/). Main thread.
 *
 * A lane that ends is started again and connected to the batching worker, which opens its shards on it anew. A
 * batching worker that ends is started again under a new incarnation; every append that was outstanding is
 * unknown, and its shards are held by nobody until they are taken over anew. Threads that end again and again are
 * a bug that a restart does not mend: then the broker fails.
 */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { type Clock, sleep } from '../src/core/clock.ts';
import { asOperatingError } from '../src/core/errors.ts';
import type { OpenedMetadata } from '../storage/metadata/open-metadata-store.ts';
import type { BatchingControl, BatchingTask } from './batching-worker.ts';
import { type LanePool, ThreadLanePool } from './lane-pool.ts';
import type { LaneReply, LaneRequest, SequencerReply, SequencerRequest } from './messages.ts';
import type { LaneRunSettings } from './run-lane.ts';
import type { SequencerSettings } from './sequencer.ts';
import { threadUrl } from './thread-url.ts';

export interface BrokerThreadsSettings {
  laneCount: number;
  lane: Omit<LaneRunSettings, 'lane' | 'laneCount'>;
  sequencer: SequencerSettings;
  objectsUrl: string;
}

export interface BrokerThreadsEvents {
  laneReply(lane: number, reply: LaneReply): void;
  /** Everything outstanding at this lane is unknown; a new one is being started. */
  laneLost(lane: number, error: Error): void;
  sequencerReply(reply: SequencerReply): void;
  /** Everything outstanding at all lanes is unknown, no shard is held; `sequencerUp` follows. */
  sequencerLost(error: Error): void;
  /** A batching worker runs under this incarnation and holds nothing yet. */
  sequencerUp(incarnation: number): void;
  /** The threads cannot be kept running. */
  failed(error: Error): void;
}

export interface BrokerThreadsParts {
  settings: BrokerThreadsSettings;
  metadata: OpenedMetadata;
  counters: SharedArrayBuffer;
  clock: Clock;
  events: BrokerThreadsEvents;
  /** A new incarnation of this agent. */
  newIncarnation(): Promise<number>;
}

/** More ends than this within the time are no accident. */
const RESTARTS_MAX = 10;
const RESTARTS_WITHIN_MS = 60_000;
const RESTART_PAUSE_MS = 100;
const RESTART_PAUSE_MS_MAX = 5000;
/** A batching worker that does not end by itself within this time is ended. */
const CLOSE_MS_MAX = 5000;

export class BrokerThreads {
  readonly #parts: BrokerThreadsParts;
  readonly #lanes: LanePool;
  #worker: Worker | null = null;
  readonly #knownSeq: SharedArrayBuffer;
  #restartTimesMs: number[] = [];
  #closing = false;

  constructor(parts: BrokerThreadsParts) {
    this.#parts = parts;
    const { laneCount, sequencer } = parts.settings;
    this.#knownSeq = new SharedArrayBuffer(sequencer.layout.shardCount * Float64Array.BYTES_PER_ELEMENT);
    this.#lanes = new ThreadLanePool(laneCount, {
      reply: (lane, reply) => parts.events.laneReply(lane, reply),
      ended: (lane, error) => this.#laneEnded(lane, error),
    });
  }

  /** Starts all threads; resolves when the batching worker runs. */
  async start(): Promise<void> {
    for (let lane = 0; lane < this.#parts.settings.laneCount; lane++) this.#startLane(lane);
    await this.#startWorker();
  }

  /** False when the lane is being started again: then nothing was posted. */
  toLane(lane: number, request: LaneRequest, moved: readonly ArrayBuffer[] = []): boolean {
    return this.#lanes.post(lane, request, moved);
  }

  /** False when the batching worker is being started again: then nothing was posted. */
  toSequencer(request: SequencerRequest): boolean {
    return this.#control(request);
  }

  /** Ends a lane's thread, or the batching worker's, as a crash would. */
  terminate(which: number | 'batching-worker'): void {
    if (which === 'batching-worker') void this.#worker?.terminate();
    else this.#lanes.terminate(which);
  }

  /** Ends all threads and waits for them. Drain first if nothing may be abandoned. */
  async close(): Promise<void> {
    this.#closing = true;
    const worker = this.#worker;
    if (worker) {
      const exited = new Promise((resolve) => worker.once('exit', resolve));
      this.#control({ type: 'close' });
      const over = new AbortController();
      const late = sleep(this.#parts.clock, CLOSE_MS_MAX, over.signal).then(() => worker.terminate());
      await exited;
      over.abort();
      await late;
    }
    await this.#lanes.close();
  }

  #control(message: BatchingControl, moved: MessagePort[] = []): boolean {
    if (!this.#worker) return false;
    this.#worker.postMessage(message, moved);
    return true;
  }

  // -- Lanes -------------------------------------------------------------------------------------------

  #startLane(lane: number): void {
    const { settings, metadata, counters } = this.#parts;
    this.#lanes.start(lane, {
      settings: { ...settings.lane, lane, laneCount: settings.laneCount },
      metadata: metadata.threadHandle().handle,
      objectsUrl: settings.objectsUrl,
      counters,
      counterBlock: lane,
    });
    if (this.#worker) this.#connect(lane);
  }

  /** A new port between a lane and the batching worker. */
  #connect(lane: number): void {
    const { port1, port2 } = new MessageChannel();
    this.#lanes.post(lane, { type: 'sequencer-port', port: port1 }, [port1]);
    this.#control({ type: 'lane-port', lane, port: port2 }, [port2]);
  }

  #laneEnded(lane: number, error: Error | null): void {
    if (this.#closing) return;
    const failure = error ?? new Error(`lane ${lane} ended by itself`);
    this.#control({ type: 'lane-lost', lane });
    this.#parts.events.laneLost(lane, failure);
    void this.#again(failure, () => this.#startLane(lane));
  }

  // -- The batching worker -----------------------------------------------------------------------------

  async #startWorker(): Promise<void> {
    const { settings, metadata, counters, events } = this.#parts;
    const incarnation = await this.#parts.newIncarnation();
    if (this.#closing) return;
    const { handle, transfer } = metadata.threadHandle();
    const task: BatchingTask = {
      incarnation,
      laneCount: settings.laneCount,
      settings: settings.sequencer,
      metadata: handle,
      objectsUrl: settings.objectsUrl,
      counters,
      counterBlock: settings.laneCount,
      knownSeq: this.#knownSeq,
    };
    const worker = new Worker(threadUrl('batching-worker', import.meta.url), {
      workerData: task,
      transferList: transfer,
      name: 'batching-worker',
    });
    let failure: Error | null = null;
    worker.on('message', (reply: SequencerReply) => {
      if (this.#worker === worker) events.sequencerReply(reply);
    });
    worker.on('error', (error) => (failure = asError(error)));
    worker.on('exit', () => {
      if (this.#worker !== worker) return;
      this.#worker = null;
      if (this.#closing) return;
      this.#workerEnded(failure ?? new Error('the batching worker ended by itself'));
    });
    this.#worker = worker;
    for (let lane = 0; lane < settings.laneCount; lane++) this.#connect(lane);
    events.sequencerUp(incarnation);
  }

  #workerEnded(failure: Error): void {
    for (let lane = 0; lane < this.#parts.settings.laneCount; lane++) {
      this.#lanes.post(lane, { type: 'sequencer-lost' });
    }
    this.#parts.events.sequencerLost(failure);
    void this.#again(failure, () => this.#startWorker());
  }

  // -- Supervision -------------------------------------------------------------------------------------

  /** Starts something again after a pause, unless that happened too often. */
  async #again(failure: Error, start: () => void | Promise<void>): Promise<void> {
    const { clock, events } = this.#parts;
    const nowMs = clock.monotonicMs();
    this.#restartTimesMs = this.#restartTimesMs.filter((timeMs) => nowMs - timeMs < RESTARTS_WITHIN_MS);
    this.#restartTimesMs.push(nowMs);
    if (this.#restartTimesMs.length > RESTARTS_MAX) {
      events.failed(failure);
      return;
    }
    for (let pauseMs = RESTART_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, RESTART_PAUSE_MS_MAX)) {
      await sleep(clock, pauseMs);
      if (this.#closing) return;
      try {
        await start();
        return;
      } catch (error) {
        // A store that is away is no fault of the thread: it is waited for, however long.
        const cause = asOperatingError(error, 'store-unavailable', 'starting a thread again');
        if (cause.kind !== 'unavailable' && cause.kind !== 'unknown') {
          events.failed(cause);
          return;
        }
      }
    }
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
