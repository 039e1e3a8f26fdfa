/**
 * The pool of lanes. Owns: starting a lane, what crosses to it, and telling when it ended. Two kinds under one
 * contract: on piscina's threads, and inline on this thread for tests of one piece. Does not own: what to do
 * when a lane ends (broker-threads). Main thread.
 */
import { MessageChannel, type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { Piscina } from 'piscina';
import type { LaneReply } from './messages.ts';
import { type LaneControl, type LaneTask, runLane } from './run-lane.ts';
import { threadUrl } from './thread-url.ts';

/** What a lane is started with; the pool adds its port to the main thread. */
export type LaneStart = Omit<LaneTask, 'mainPort'>;

export interface LanePoolEvents {
  reply(lane: number, reply: LaneReply): void;
  /** The lane's thread ended: as it was told to (error null), or not. Nothing more comes from it. */
  ended(lane: number, error: Error | null): void;
}

export interface LanePool {
  /** Starts lane `lane`, which must not be running. */
  start(lane: number, task: LaneStart): void;
  /** Posts to a running lane; false when it has ended: then nothing was posted or moved. */
  post(lane: number, message: LaneControl, moved?: readonly (ArrayBuffer | MessagePort)[]): boolean;
  /** Ends all lanes in order and waits for them. */
  close(): Promise<void>;
  /** Ends a lane's thread at once, whatever it is doing; `ended` follows. */
  terminate(lane: number): void;
}

/** Runs a task until its lane closes; rejects when its thread dies or the signal ends it. */
type RunTask = (task: LaneTask, moved: MessagePort[], signal: AbortSignal) => Promise<void>;

interface RunningLane {
  port: MessagePort;
  terminate: AbortController;
  ended: Promise<void>;
}

/** What both kinds share: ports and telling of ends. */
class PortedLanePool implements LanePool {
  readonly #events: LanePoolEvents;
  readonly #run: RunTask;
  readonly #lanes = new Map<number, RunningLane>();

  constructor(events: LanePoolEvents, run: RunTask) {
    this.#events = events;
    this.#run = run;
  }

  start(lane: number, task: LaneStart): void {
    if (this.#lanes.has(lane)) throw new Error(`lane ${lane} is running already`);
    const { port1, port2 } = new MessageChannel();
    const terminate = new AbortController();
    const end = (error: Error | null) => {
      // What the lane said before its end counts: an answer dropped here would be an outcome nobody knows.
      for (let said = receiveMessageOnPort(port1); said; said = receiveMessageOnPort(port1)) {
        this.#events.reply(lane, said.message as LaneReply);
      }
      if (this.#lanes.get(lane) === running) this.#lanes.delete(lane);
      port1.close();
      this.#events.ended(lane, error);
    };
    const moved = [port2, task.metadata.port];
    const ended = this.#run({ ...task, mainPort: port2 }, moved, terminate.signal).then(
      () => end(null),
      (error) => end(error instanceof Error ? error : new Error(String(error))),
    );
    const running: RunningLane = { port: port1, terminate, ended };
    this.#lanes.set(lane, running);
    port1.on('message', (reply: LaneReply) => {
      if (this.#lanes.get(lane) === running) this.#events.reply(lane, reply);
    });
  }

  post(lane: number, message: LaneControl, moved: readonly (ArrayBuffer | MessagePort)[] = []): boolean {
    const running = this.#lanes.get(lane);
    if (!running) return false;
    running.port.postMessage(message, moved);
    return true;
  }

  terminate(lane: number): void {
    this.#lanes.get(lane)?.terminate.abort();
  }

  async close(): Promise<void> {
    const running = [...this.#lanes.values()];
    for (const { port } of running) port.postMessage({ type: 'close' });
    await Promise.all(running.map(({ ended }) => ended));
  }
}

/**
 * Lanes on piscina's threads, one long-lived task each. 'atomics' is disabled, for with its default an idle
 * thread blocks, and neither its timers nor its ports are served. A thread that dies is replaced by an empty one:
 * the task's promise tells.
 */
export class ThreadLanePool extends PortedLanePool {
  readonly #pool: Piscina;

  constructor(laneCount: number, events: LanePoolEvents) {
    const pool = new Piscina({
      filename: threadUrl('partition-worker', import.meta.url).href,
      name: 'partitionWorker',
      minThreads: laneCount,
      maxThreads: laneCount,
      concurrentTasksPerWorker: 1,
      maxQueue: laneCount,
      atomics: 'disabled',
    });
    super(events, (task, moved, signal) => pool.run(task, { transferList: moved, signal }));
    this.#pool = pool;
  }

  override async close(): Promise<void> {
    await super.close();
    await this.#pool.destroy();
  }
}

/** Lanes on the thread that made them. */
export class InlineLanePool extends PortedLanePool {
  constructor(events: LanePoolEvents) {
    super(events, (task, _moved, signal) => runLane(task, signal));
  }
}
