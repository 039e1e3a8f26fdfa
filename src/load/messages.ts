/**
 * What crosses between the harness and the processes it forks. Owns: the message types. Any thread.
 */
import type { LoadPlan, PlannedPhase } from './load-plan.ts';
import type { ReadersKind } from './scenarios.ts';

/** For a process that sends. */
export interface GeneratorTask {
  url: string;
  topic: string;
  plan: LoadPlan;
  generator: number;
  /** Where the log of answers goes; null: none is kept. */
  ackLog: string | null;
  readsOffsets: boolean;
}

export type ToGenerator =
  | { type: 'begin'; task: GeneratorTask }
  /** `beginWallMs`: of the wall clock, the same for all processes. */
  | { type: 'phase'; phase: PlannedPhase; beginWallMs: number }
  /** No new requests; the phase ends with the answers to those that are out. */
  | { type: 'stop' }
  | { type: 'close' };

/** Since the interval before, of one generator. */
export interface Interval {
  sent: number;
  acked: number;
  failed: number;
  outstanding: number;
  /** Encoded; see latency. */
  latencies: string;
}

export interface PhaseResult {
  sent: number;
  acked: number;
  failed: number;
  /** Of those failed, how many may be there all the same. */
  unknown: number;
  /** Records by what they failed with. */
  failures: Record<string, number>;
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
  url: string;
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
