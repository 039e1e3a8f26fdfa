/**
 * Many seeds on a few threads. Owns: sharing them out, summing up, telling of a failure so that it can be
 * replayed. Does not own: a run (simulation.ts). The caller's thread and its worker threads, each of which runs
 * this file.
 */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { addCoverage, type CoverageCounts, noCoverage } from './coverage.ts';
import type { Mutant } from './mutants.ts';
import { type SimResult, simulate } from './simulation.ts';

export interface SeedsOptions {
  from: number;
  count: number;
  threads: number;
  mutant?: Mutant | null;
  strict?: boolean;
  /** Every thread ends with the first of its seeds that fails. */
  stopAtFailure?: boolean;
}

export interface SeedsSummary {
  seeds: number;
  events: number;
  coverage: CoverageCounts;
  failures: SimResult[];
}

/** Each of `threads` workers takes every `threads`-th seed; with `stopAtFailure` each ends with its first failure. */
export async function runSeeds(options: SeedsOptions): Promise<SeedsSummary> {
  const { threads } = options;
  const stopped = new Int32Array(new SharedArrayBuffer(4));
  const shares = await Promise.all(
    Array.from({ length: threads }, (_, share) => runShare(options, share, threads, stopped)),
  );
  const summary: SeedsSummary = { seeds: 0, events: 0, coverage: noCoverage(), failures: [] };
  for (const share of shares) {
    summary.seeds += share.seeds;
    summary.events += share.events;
    summary.failures.push(...share.failures);
    addCoverage(summary.coverage, share.coverage);
  }
  summary.failures.sort((a, b) => a.seed - b.seed);
  return summary;
}

function runShare(
  options: SeedsOptions,
  share: number,
  shares: number,
  stopped: Int32Array,
): Promise<SeedsSummary> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), {
      workerData: { simShare: { options, share, shares, stopped } },
    });
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

async function work(
  options: SeedsOptions,
  share: number,
  shares: number,
  stopped: Int32Array,
): Promise<SeedsSummary> {
  const summary: SeedsSummary = { seeds: 0, events: 0, coverage: noCoverage(), failures: [] };
  for (let i = share; i < options.count && Atomics.load(stopped, 0) === 0; i += shares) {
    const { mutant, strict } = options;
    const result = await simulate({ seed: options.from + i, mutant, strict });
    summary.seeds++;
    summary.events += result.events;
    addCoverage(summary.coverage, result.coverage);
    if (result.violation === null) continue;
    summary.failures.push(result);
    if (options.stopAtFailure) {
      Atomics.store(stopped, 0, 1);
      break;
    }
  }
  return summary;
}

/** What a person needs to see and to replay a failing seed. */
export function describeFailure(result: SimResult): string {
  return [
    `seed ${result.seed} failed: ${result.violation}`,
    ...result.lastLines.map((line) => `  ${line}`),
    `replay: npm run sim -- --seed ${result.seed} --trace`,
    '',
  ].join('\n');
}

if (!isMainThread && workerData?.simShare) {
  const { options, share, shares, stopped } = workerData.simShare;
  // Errors are the daily bread here and their stacks a tenth of the time; a replay has them.
  Error.stackTraceLimit = 0;
  parentPort?.postMessage(await work(options, share, shares, stopped));
}
