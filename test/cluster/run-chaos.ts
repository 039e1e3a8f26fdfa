/**
 * One run of the cluster test: a cluster, its clients, faults by the seed's schedule, and then what the clients' history
 * says. Owns: the course of it. Does not own: faults, clients, rules. The runner's process; whatever happens, no broker
 * outlives the call, and what is wrong leaves its logs and its history.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { seededRandom } from '../../src/core/random.ts';
import type { ProcessEnd } from '../support/broker-process.ts';
import { AckWatch } from './ack-watch.ts';
import { type ChaosReport, isGood } from './chaos-report.ts';
import { checkHistory } from './checker.ts';
import { Cluster, type StoreKind } from './cluster.ts';
import type { ClusterBroker } from './cluster-broker.ts';
import { Doors } from './doors.ts';
import { faultSchedule, type ScheduledFault } from './fault-schedule.ts';
import { FAULTS, type FaultScene } from './faults.ts';
import { HistoryLog, readHistory } from './history.ts';
import { USUAL_SIZE, Workload, type WorkloadSize } from './workload.ts';

export interface ChaosOptions {
  seed: number;
  store: StoreKind;
  brokers: number;
  /** No fault begins later. */
  minutes: number;
  /** Only these kinds; those that need more brokers are left out. Default: all. */
  kinds?: readonly string[];
  /** At most so many faults. */
  faultsMax?: number;
  size?: Partial<WorkloadSize>;
  heartbeatMs?: number;
  deadAgentMs?: number;
  shards?: number;
  /** Logs and history stay even when nothing is wrong. */
  keep?: boolean;
  /** Told as it goes. */
  progress?: (line: string) => void;
}

/** Longest wait of a client for one answer. */
const REQUEST_MS_MAX = 3000;
/** Every partition must be served so long after a fault at the latest. */
const SERVED_MS_MAX = 60_000;
const STOP_MS_MAX = 60_000;
const CALM_MS = 500;
const START_TRIES = 3;

export async function runChaos(options: ChaosOptions): Promise<ChaosReport> {
  const folder = await mkdtemp(join(tmpdir(), `streamhouse-chaos-${options.seed}-`));
  const run = new ChaosRun(options, folder);
  const report = await run.run();
  if (isGood(report) && !options.keep) {
    await rm(folder, { recursive: true });
    report.folder = null;
  } else {
    await writeFile(join(folder, 'report.json'), JSON.stringify(report, null, 2));
  }
  return report;
}

class ChaosRun {
  readonly #options: ChaosOptions;
  readonly #folder: string;
  readonly #history: HistoryLog;
  readonly #doors: Doors;
  readonly #watch = new AckWatch();
  readonly #startMs = performance.now();
  readonly #faults: Record<string, number> = {};
  readonly #unservedMs: Record<string, number[]> = {};
  readonly #findings: string[] = [];
  readonly #restarts = new Set<Promise<void>>();
  #cluster: Cluster | null = null;
  #isOver = false;

  constructor(options: ChaosOptions, folder: string) {
    this.#options = options;
    this.#folder = folder;
    this.#history = new HistoryLog(join(folder, 'history.jsonl'));
    this.#doors = new Doors(seededRandom(options.seed ^ 0x5bd1e995));
  }

  async run(): Promise<ChaosReport> {
    const { seed, store, brokers, deadAgentMs = 3000 } = this.#options;
    const killAll = () => {
      for (const { process: child } of this.#cluster?.brokers ?? []) {
        if (child && !child.ended) process.kill(child.pid, 'SIGKILL');
      }
    };
    process.once('exit', killAll);
    let workload: Workload | null = null;
    try {
      workload = await this.#begin();
      await this.#faultsUntilTime();
      await this.#end(workload);
    } catch (error) {
      this.#found(`the run broke off: ${error instanceof Error ? (error.stack ?? error.message) : error}`);
    } finally {
      this.#isOver = true;
      workload?.abandon();
      await this.#cluster?.dispose();
      process.removeListener('exit', killAll);
      await this.#history.close();
    }
    return {
      seed,
      store,
      brokers,
      deadAgentMs,
      seconds: (performance.now() - this.#startMs) / 1000,
      faults: this.#faults,
      unservedMs: this.#unservedMs,
      topicsMadeAnew: workload?.churnedLives ?? 0,
      check: await checkHistory(readHistory(this.#history.path)),
      findings: this.#findings,
      folder: this.#folder,
    };
  }

  // -- The course --------------------------------------------------------------------------------------

  async #begin(): Promise<Workload> {
    const { store, brokers, seed, heartbeatMs = 500, deadAgentMs = 3000 } = this.#options;
    const { shards = store === 'dynamodb' ? 8 : 12, size } = this.#options;
    this.#note('begin', { seed, store, brokers, folder: this.#folder });
    this.#cluster = await Cluster.start({
      store,
      brokers,
      shards,
      heartbeatMs,
      deadAgentMs,
      folder: this.#folder,
      doors: this.#doors,
      requestTimeoutMs: REQUEST_MS_MAX,
      died: (broker, end) => this.#died(broker, end),
    });
    const parts = { history: this.#history, doors: this.#doors, watch: this.#watch, seed };
    const workload = new Workload({ ...parts, size: { ...USUAL_SIZE, ...size } });
    await workload.start();
    await this.#served('the first appends');
    return workload;
  }

  async #faultsUntilTime(): Promise<void> {
    const { seed, brokers, minutes, faultsMax = Number.POSITIVE_INFINITY } = this.#options;
    const wanted = this.#options.kinds ?? Object.keys(FAULTS);
    const kinds = wanted.filter((kind) => FAULTS[kind].brokersMin <= brokers);
    const endMs = performance.now() + minutes * 60_000;
    for (const fault of faultSchedule(seed, kinds)) {
      if (fault.index > faultsMax || performance.now() > endMs) return;
      await this.#fault(fault);
      await sleepMs(CALM_MS * (0.5 + fault.random.unit()));
    }
  }

  async #fault({ index, kind, random }: ScheduledFault): Promise<void> {
    const cluster = this.#cluster as Cluster;
    const victim = cluster.brokers[random.below(cluster.brokers.length)];
    this.#note('fault', { index, kind, broker: victim.name });
    this.#faults[kind] = (this.#faults[kind] ?? 0) + 1;
    const scene: FaultScene = {
      cluster,
      random,
      served: (what) => this.#served(what),
      finding: (what) => this.#found(`fault ${index} (${kind}): ${what}`),
      note: (what, more) => this.#note(what, more),
      measure: async (name, step) => {
        this.#watch.begin();
        const result = await step();
        const { gapMs, partition } = this.#watch.longest();
        (this.#unservedMs[name] ??= []).push(Math.round(gapMs));
        this.#note(`unserved: ${name}`, { ms: Math.round(gapMs), partition });
        return result;
      },
    };
    try {
      await FAULTS[kind].run(scene, victim);
    } catch (error) {
      this.#found(`fault ${index} (${kind} of ${victim.name}): ${(error as Error).message}`);
      await this.#mend();
    }
    await Promise.all(this.#restarts);
  }

  /** After a fault that did not go as it must: all brokers are up, or the run is over. */
  async #mend(): Promise<void> {
    const { brokers } = this.#cluster as Cluster;
    for (const broker of brokers) {
      broker.heal();
      broker.wake();
      if (broker.state === 'down') await this.#restart(broker);
    }
    await this.#served('everything was mended');
  }

  async #end(workload: Workload): Promise<void> {
    const cluster = this.#cluster as Cluster;
    this.#note('the last reads');
    for (const late of await workload.stop(STOP_MS_MAX)) this.#found(late);
    this.#isOver = true;
    const ends = await Promise.all(
      cluster.brokers.map(async (broker) => ({ broker, end: await broker.stop() })),
    );
    for (const { broker, end } of ends) {
      if (end !== null && end.code !== 0) {
        this.#found(`the last SIGTERM: ${broker.name} ended with ${end.signal ?? `code ${end.code}`}`);
      }
    }
    const { code, stdout, stderr } = await cluster.verify();
    await writeFile(join(this.#folder, 'verify.json'), stdout);
    if (code !== 0)
      this.#found(`verify ended with code ${code}: ${stdout.slice(0, 2000)} ${stderr.slice(0, 1000)}`);
  }

  // -- What faults and brokers tell --------------------------------------------------------------------

  async #served(what: string): Promise<void> {
    const since = performance.now();
    for (;;) {
      const unserved = this.#watch.unserved(since);
      if (unserved.length === 0) return;
      if (performance.now() - since > SERVED_MS_MAX) {
        throw new Error(`${what}: not served after ${SERVED_MS_MAX} ms: ${unserved.join(' ')}`);
      }
      await sleepMs(20);
    }
  }

  /** A broker ended by itself: that is wrong, whatever it met, and it is started again as a supervisor would. */
  #died(broker: ClusterBroker, { code, signal, log }: ProcessEnd): void {
    if (this.#isOver) return;
    this.#found(`${broker.name} ended by itself (${signal ?? `code ${code}`}): ${log.slice(-3).join(' | ')}`);
    const restart = this.#restart(broker).catch((error) => this.#found(`${broker.name}: ${error.message}`));
    this.#restarts.add(restart);
    void restart.then(() => this.#restarts.delete(restart));
  }

  async #restart(broker: ClusterBroker): Promise<void> {
    for (let attempt = 1; !this.#isOver; attempt++) {
      await sleepMs(1000);
      if (broker.state !== 'down') return;
      try {
        await broker.start();
        return;
      } catch (error) {
        if (attempt === START_TRIES) throw error;
      }
    }
  }

  #found(what: string): void {
    this.#findings.push(what);
    this.#note('FOUND', { found: what });
  }

  #note(what: string, more: Record<string, unknown> = {}): void {
    this.#history.add({ e: 'note', what, ...more });
    const seconds = ((performance.now() - this.#startMs) / 1000).toFixed(1);
    const words = Object.entries(more).map(([name, value]) => `${name} ${value}`);
    this.#options.progress?.(`${seconds.padStart(7)} s  ${what} ${words.join(', ')}`);
  }
}
