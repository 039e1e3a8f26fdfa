/**
 * What crosses between the harness and the processes it forks. Owns: the message types. Any thread.
 */
import type { LoadPlan, PlannedPhase } from './load-plan.ts';
import type { ReadersKind } from './scenarios.ts';

/** For a process that sends. */
export interface GeneratorTask {
  /** Of all brokers; requests go to them in turn. */
  urls: readonly string[];
  topic: string;
  plan: LoadPlan;
  generator: number;
  /** Where the log of answers goes; null: none is kept. */
  ackLog: string | null;
  readsOffsets: boolean;
  /** Sends again, elsewhere, what certainly did not happen. */
  retries: boolean;
}

export type ToGenerator =
  | { type: 'begin'; task: GeneratorTask }
  /** `beginWallMs`: of the wall clock, the same for all processes. */
  | { type: 'phase'; phase: PlannedPhase; beginWallMs: number }
  /** There is one more. */
  | { type: 'broker'; url: string }
  /** Something happened in the cluster: see ack-gaps. */
  | { type: 'mark'; atWallMs: number }
  /** No new requests; the phase ends with the answers to those that are out. */
  | { type: 'stop' }
  | { type: 'close' };

/** Since the interval before, of one generator. */
export interface Interval {
  sent: number;
  acked: number;
  failed: number;
  outstanding: number;
  /** Records by what they failed with. */
  failures: Record<string, number>;
  /** Records that were sent again, by why. */
  retried: Record<string, number>;
  /** Encoded; see latency. */
  latencies: string;
}

/** Around one moment, by partition of a generator, ms; -1: no acknowledgement came any more. */
export interface PartitionGaps {
  gapMs: number[];
  /** When the gap ended, after the moment. */
  endMs: number[];
  /** Of the gaps since, until the next moment. */
  longestMs: number[];
}

export interface PhaseResult {
  sent: number;
  acked: number;
  failed: number;
  /** Of those failed, how many may be there all the same. */
  unknown: number;
  /** Records by what they failed with. */
  failures: Record<string, number>;
  /** Records that certainly had not happened and were sent again, by why; each time counts. */
  retried: Record<string, number>;
  /** By moment that was marked. */
  gaps: PartitionGaps[];
  /** From the phase's beginning to the last answer, ms. */
  tookMs: number;
  /** Without the warm-up. */
  measured: { latencies: string; acked: number; tookMs: number };
  cpuS: number;
  /** Open loop: the longest time by which a request was sent after it was due, ms. */
  lateMsMax: number;
}

export type FromGenerator =
  | { type: 'ready' }
  | { type: 'interval'; interval: Interval }
  | { type: 'phase-done'; result: PhaseResult }
  /** The server is not there any more. */
  | { type: 'lost'; message: string }
  /** It cannot go on, and ends. */
  | { type: 'broken'; message: string }
  | { type: 'closed' };

/** For a process that reads beside. */
export interface ReaderTask {
  urls: readonly string[];
  topic: string;
  plan: LoadPlan;
  kind: ReadersKind;
  count: number;
}

export type ToReader =
  | { type: 'begin'; task: ReaderTask }
  | { type: 'phase'; phase: PlannedPhase; beginWallMs: number; firstIndex: number[] }
  | { type: 'stop' };

export interface ReaderResult {
  records: number;
  requests: number;
  failed: number;
  failures: Record<string, number>;
  /** Of one request; encoded. */
  fetch: string;
  /** From due to read; encoded; null for readers that are not at the tail. */
  endToEnd: string | null;
  tookMs: number;
}

export type FromReader = { type: 'ready' } | { type: 'done'; result: ReaderResult };
