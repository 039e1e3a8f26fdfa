/**
 * All generators of a run as one. Owns: their processes, one phase at a time over all of them, the sums of what they
 * tell. Does not own: what a generator does (generator), when phases begin (run-load). Main thread.
 */
import { join } from 'node:path';
import { type Clock, sleep } from '../core/clock.ts';
import { LoadChild } from './child-process.ts';
import { Latencies } from './latency.ts';
import type { LoadPlan, PlannedPhase } from './load-plan.ts';
import type {
  FromGenerator,
  GeneratorTask,
  Interval,
  PartitionGaps,
  PhaseResult,
  ToGenerator,
} from './messages.ts';

export interface FleetOptions {
  urls: readonly string[];
  topic: string;
  plan: LoadPlan;
  /** Where the logs of answers go; null: none are kept. */
  scratch: string | null;
  readsOffsets: boolean;
  /** Sends again what certainly did not happen, as is due with several brokers. */
  retries: boolean;
  clock: Clock;
  heard(interval: Interval, latencies: Latencies): void;
}

/** A phase of all generators. */
export interface PhaseTotals extends Omit<PhaseResult, 'measured' | 'gaps'> {
  /** By moment that was marked, by partition; empty when a generator did not live to tell. */
  gaps: PartitionGaps[];
  measured: { latencies: Latencies; acked: number; tookMs: number };
}

/** After a stop, for the answers to what is out. */
const STOP_MS_MAX = 10_000;

type Generator = LoadChild<ToGenerator, FromGenerator>;

export function ackLogFile(scratch: string, generator: number): string {
  return join(scratch, `answers-${generator}`);
}

export class GeneratorFleet {
  readonly #options: FleetOptions;
  readonly #generators: Generator[] = [];
  /** Of the phase that runs, as the intervals tell it. */
  #told = blankTotals();
  #phaseBeganMs = 0;
  readonly #stopped = new AbortController();
  #isBroken = false;
  /** Resolves with words when a generator finds no broker any more, or fails itself. */
  readonly lost: Promise<string>;
  #lose: (message: string) => void = () => undefined;

  private constructor(options: FleetOptions) {
    this.#options = options;
    this.lost = new Promise((resolve) => (this.#lose = resolve));
  }

  static async start(options: FleetOptions): Promise<GeneratorFleet> {
    const fleet = new GeneratorFleet(options);
    try {
      await fleet.#start();
    } catch (error) {
      await fleet.close();
      throw error;
    }
    return fleet;
  }

  async #start(): Promise<void> {
    const { urls, topic, plan, scratch, readsOffsets, retries } = this.#options;
    for (let generator = 0; generator < plan.generators; generator++) {
      const child: Generator = new LoadChild('generator', (message) => this.#heard(message));
      this.#generators.push(child);
      const ackLog = scratch === null ? null : ackLogFile(scratch, generator);
      const task: GeneratorTask = { urls, topic, plan, generator, ackLog, readsOffsets, retries };
      const ready = child.next('ready');
      child.send({ type: 'begin', task });
      await ready;
    }
  }

  #heard(message: FromGenerator): void {
    if (message.type === 'lost') this.#lose(message.message);
    if (message.type === 'broken') {
      this.#isBroken = true;
      this.#lose(`a generator failed (${message.message})`);
    }
    if (message.type !== 'interval') return;
    const { interval } = message;
    const latencies = Latencies.decode(interval.latencies);
    const told = this.#told;
    told.sent += interval.sent;
    told.acked += interval.acked;
    told.failed += interval.failed;
    addCounts(told.failures, interval.failures);
    addCounts(told.retried, interval.retried);
    told.measured.latencies.merge(latencies);
    this.#options.heard(interval, latencies);
  }

  /** Resolves when all that was sent is answered, or some time after `stop`. */
  async runPhase(phase: PlannedPhase, beginWallMs: number): Promise<PhaseTotals> {
    const { clock } = this.#options;
    this.#told = blankTotals();
    this.#phaseBeganMs = clock.monotonicMs();
    const done = Promise.all(
      this.#generators.map(async (child) => {
        const result = child.next('phase-done');
        child.send({ type: 'phase', phase, beginWallMs });
        return (await result).result;
      }),
    );
    const over = new AbortController();
    const ended = done.catch((error: unknown) => {
      if (this.#isBroken) return null;
      throw error;
    });
    try {
      const results = await Promise.race([ended, this.#givenUp(over.signal)]);
      return results === null ? this.#asTold() : sumOf(results);
    } finally {
      over.abort();
      // Whatever comes of a phase that was given up.
      ended.catch(() => undefined);
    }
  }

  /** Resolves so long after `stop`. */
  async #givenUp(over: AbortSignal): Promise<null> {
    await new Promise<void>((resolve) => {
      const stopped = this.#stopped.signal;
      if (stopped.aborted) resolve();
      stopped.addEventListener('abort', () => resolve(), { once: true });
      over.addEventListener('abort', () => resolve(), { once: true });
    });
    await sleep(this.#options.clock, STOP_MS_MAX, over);
    return null;
  }

  #asTold(): PhaseTotals {
    const tookMs = this.#options.clock.monotonicMs() - this.#phaseBeganMs;
    const { latencies } = this.#told.measured;
    return { ...this.#told, tookMs, measured: { latencies, acked: this.#told.acked, tookMs } };
  }

  /** There is one more broker. */
  addBroker(url: string): void {
    for (const child of this.#generators) child.send({ type: 'broker', url });
  }

  /** Something happens now that may hold answers up; see ack-gaps. */
  mark(): void {
    const atWallMs = this.#options.clock.wallMs();
    for (const child of this.#generators) child.send({ type: 'mark', atWallMs });
  }

  /** Sends nothing more. */
  stop(): void {
    this.#stopped.abort();
    for (const child of this.#generators) child.send({ type: 'stop' });
  }

  /** Ends the processes; their logs are whole unless one has to be killed. */
  async close(): Promise<void> {
    const over = new AbortController();
    const late = sleep(this.#options.clock, STOP_MS_MAX, over.signal);
    const closed = this.#generators.map((child) => {
      const end = child.next('closed').catch(() => undefined);
      child.send({ type: 'close' });
      return end;
    });
    await Promise.race([Promise.all(closed), late]);
    over.abort();
    for (const child of this.#generators) await child.kill();
  }
}

function blankTotals(): PhaseTotals {
  return {
    sent: 0,
    acked: 0,
    failed: 0,
    unknown: 0,
    failures: {},
    retried: {},
    gaps: [],
    tookMs: 0,
    measured: { latencies: new Latencies(), acked: 0, tookMs: 0 },
    cpuS: 0,
    lateMsMax: 0,
  };
}

function sumOf(results: readonly PhaseResult[]): PhaseTotals {
  const totals = blankTotals();
  for (const result of results) {
    totals.sent += result.sent;
    totals.acked += result.acked;
    totals.failed += result.failed;
    totals.unknown += result.unknown;
    addCounts(totals.failures, result.failures);
    addCounts(totals.retried, result.retried);
    totals.tookMs = Math.max(totals.tookMs, result.tookMs);
    totals.measured.latencies.merge(Latencies.decode(result.measured.latencies));
    totals.measured.acked += result.measured.acked;
    totals.measured.tookMs = Math.max(totals.measured.tookMs, result.measured.tookMs);
    totals.cpuS += result.cpuS;
    totals.lateMsMax = Math.max(totals.lateMsMax, result.lateMsMax);
  }
  totals.gaps = gapsOf(results);
  return totals;
}

/** Generator g of G has the partitions g, g + G, ... */
function gapsOf(results: readonly PhaseResult[]): PartitionGaps[] {
  return results[0].gaps.map((_, moment) => {
    const all: PartitionGaps = { gapMs: [], endMs: [], longestMs: [] };
    for (const [generator, { gaps }] of results.entries()) {
      for (const kind of ['gapMs', 'endMs', 'longestMs'] as const) {
        for (const [i, ms] of (gaps[moment]?.[kind] ?? []).entries()) {
          all[kind][generator + i * results.length] = ms;
        }
      }
    }
    return all;
  });
}

export function addCounts(sums: Record<string, number>, counts: Readonly<Record<string, number>>): void {
  for (const [code, count] of Object.entries(counts)) sums[code] = (sums[code] ?? 0) + count;
}
