/**
 * The scenarios of the load harness, as data: what each sends, how it is paced, who reads beside. Owns: the table
 * and its default sizes. Does not own: how a plan is made of it and the options (load-plan), or how it is run
 * (run-load). Any thread.
 */

/** How requests come: as fast as answers do, at a fixed rate, or all records in so many bursts. */
export type Pace =
  | { kind: 'closed' }
  | { kind: 'rate'; recordsPerS: number }
  | { kind: 'bursts'; count: number; everyMs: number };

/**
 * Who reads while producers produce. `tail`: a long poll on every partition, which measures the time from a
 * record's due time to its reading; `sweep`: readers that go over all partitions again and again from offset 0;
 * `random`: readers that each read a record at a random offset of a random partition, among those that were there
 * before the phase.
 */
export type ReadersKind = 'tail' | 'sweep' | 'random';

export interface Readers {
  kind: ReadersKind;
  /** Requests at a time; of `tail`, one for every partition. */
  count: number;
}

/** One after the other; each goes on where the one before it stopped. */
export interface Phase {
  name: string;
  pace: Pace;
  /** Records of each partition. */
  batches: number;
  /** What this phase lasts at most or, at a fixed rate, exactly; null: until its records are sent. */
  durationMs: number | null;
  readers: Readers | null;
  /** Topics are created, written and deleted meanwhile. */
  churn: boolean;
  /** The broker is ended and started on what it left before it, so that all its caches are empty. */
  afterRestart: boolean;
  /** Its latencies are the report's `produce_ms`. One phase of a scenario. */
  isMeasured: boolean;
}

export interface Scenario {
  name: string;
  summary: string;
  partitions: number;
  valueBytes: number;
  perRequest: number;
  connections: number;
  inFlight: number;
  /** Of a broker of its own, besides what the options say. */
  serveArgs: readonly string[];
  phases: readonly Phase[];
}

const PHASE: Phase = {
  name: 'load',
  pace: { kind: 'closed' },
  batches: 1,
  durationMs: null,
  readers: null,
  churn: false,
  afterRestart: false,
  isMeasured: true,
};

const BASE = {
  partitions: 1000,
  valueBytes: 10,
  perRequest: 1,
  connections: 64,
  inFlight: 2048,
  serveArgs: [],
};

/**
 * Caches so small that what backfill reads comes from the object store: its records are a multiple of both.
 */
const SMALL_CACHES = ['--tail-cache-bytes', '8MiB', '--block-cache-bytes', '8MiB'];

export const SCENARIOS: readonly Scenario[] = [
  {
    ...BASE,
    name: 'pathological',
    summary: 'one-record batches of 10 bytes, interleaved over 1000 partitions by a seeded shuffle',
    phases: [{ ...PHASE, batches: 1000 }],
  },
  {
    ...BASE,
    name: 'trickle',
    summary: 'tiny batches at a fixed rate; latency counts from the time at which a request was due',
    inFlight: 16_384,
    phases: [{ ...PHASE, pace: { kind: 'rate', recordsPerS: 1000 }, durationMs: 30_000 }],
  },
  {
    ...BASE,
    name: 'burst',
    summary: 'ten bursts of 10,000 records, one every three seconds',
    inFlight: 16_384,
    phases: [{ ...PHASE, pace: { kind: 'bursts', count: 10, everyMs: 3000 }, batches: 100 }],
  },
  {
    ...BASE,
    name: 'hot',
    summary: 'one partition takes everything',
    partitions: 1,
    phases: [{ ...PHASE, batches: 300_000 }],
  },
  {
    ...BASE,
    name: 'wide',
    summary: 'a few records for each of 100,000 partitions',
    partitions: 100_000,
    phases: [{ ...PHASE, batches: 3 }],
  },
  {
    ...BASE,
    name: 'tail',
    summary: 'producers at a fixed rate and a consumer at the tail of every partition; end-to-end latency',
    partitions: 100,
    inFlight: 16_384,
    phases: [
      {
        ...PHASE,
        pace: { kind: 'rate', recordsPerS: 2000 },
        durationMs: 30_000,
        readers: { kind: 'tail', count: 100 },
      },
    ],
  },
  {
    ...BASE,
    name: 'backfill',
    summary: 'lagging readers beside producers, against the same producers alone',
    valueBytes: 1000,
    inFlight: 16_384,
    serveArgs: SMALL_CACHES,
    phases: [
      { ...PHASE, name: 'preload', batches: 100, isMeasured: false },
      {
        ...PHASE,
        name: 'alone',
        pace: { kind: 'rate', recordsPerS: 2000 },
        durationMs: 20_000,
        isMeasured: false,
      },
      {
        ...PHASE,
        name: 'beside readers',
        pace: { kind: 'rate', recordsPerS: 2000 },
        durationMs: 20_000,
        readers: { kind: 'sweep', count: 4 },
      },
    ],
  },
  {
    ...BASE,
    name: 'segments',
    summary: 'a slice in every partition with every flush: a million segments through the commit path',
    partitions: 10_000,
    perRequest: 100,
    inFlight: 200,
    phases: [{ ...PHASE, batches: 100 }],
  },
  {
    ...BASE,
    name: 'mixed',
    summary: 'reads over all of 10,000 partitions while they are written',
    partitions: 10_000,
    perRequest: 10,
    phases: [
      {
        ...PHASE,
        pace: { kind: 'rate', recordsPerS: 10_000 },
        durationMs: 30_000,
        readers: { kind: 'sweep', count: 16 },
      },
    ],
  },
  {
    ...BASE,
    name: 'cold',
    summary: 'a broker started anew on what was written: random reads beside producers, from empty caches on',
    inFlight: 16_384,
    phases: [
      { ...PHASE, name: 'preload', batches: 1000, isMeasured: false },
      {
        ...PHASE,
        name: 'after a restart',
        pace: { kind: 'rate', recordsPerS: 5000 },
        durationMs: 60_000,
        readers: { kind: 'random', count: 16 },
        afterRestart: true,
      },
    ],
  },
  {
    ...BASE,
    name: 'churn',
    summary: 'what the caches do while topics are created, written and deleted',
    inFlight: 16_384,
    phases: [{ ...PHASE, pace: { kind: 'rate', recordsPerS: 5000 }, durationMs: 30_000, churn: true }],
  },
];
