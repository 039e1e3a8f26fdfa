/**
 * What a benchmark suite is, and how tinybench's results become figures. Owns: the shape of figures, the set of
 * tasks that a suite fills. Does not own: what is measured (suites/) nor how it is shown (report.ts). The process
 * that runs the suite.
 *
 * One run of a task may do many things (`items`: appends, slices, records); figures are of a run, rates of items,
 * and a task compares itself with another of the same suite (`against`) by its time per item.
 */
import { Bench, type FnOptions } from 'tinybench';

/** A figure beside the times: text, or a number with its unit in the name. */
export type Detail = number | string;

/** What one task of a suite came to. */
export interface TaskFigures {
  name: string;
  samples: number;
  /** Of one run. */
  p50Us: number;
  p99Us: number;
  /** What a run does, `items` of them. */
  items: number;
  itemName: string;
  itemsPerS: number;
  /** The task of this suite that it is compared with; null: none. */
  against: string | null;
  /** The rate of `against` by turns with this task, each of its runs before one of this; left out: see its own row. */
  againstItemsPerS?: number;
  details: Record<string, Detail>;
}

export interface SuiteOptions {
  /** Tiny sizes and times, to show that it works; the figures mean nothing then. */
  smoke: boolean;
  /** Of each measurement of the suites that run whole processes. */
  seconds: number;
}

export interface Suite {
  name: string;
  title: string;
  run(options: SuiteOptions): Promise<TaskFigures[]>;
}

interface TaskSettings {
  items?: number;
  itemName?: string;
  against?: string;
  /**
   * Runs `against`, as many items, before every run of this task: what both are bound by (a disk, a database) may be
   * another minute by minute.
   */
  byTurns?: () => unknown;
  details?: Record<string, Detail>;
  hooks?: FnOptions;
}

interface TaskSetSettings {
  /** Measured time of each task, ms, and its least number of runs. */
  timeMs?: number;
  runs?: number;
  /** Least number of runs of its warm-up. */
  warmUpRuns?: number;
}

/** The tasks of a suite, run one after the other by tinybench. */
export class TaskSet {
  readonly #bench: Bench;
  readonly #settings = new Map<string, TaskSettings>();
  /** Times of what ran by turns, by the task's name. */
  readonly #turns = new Map<string, number[]>();

  constructor(name: string, { smoke }: SuiteOptions, settings: TaskSetSettings = {}) {
    const { timeMs = 500, runs = 64, warmUpRuns = 16 } = settings;
    this.#bench = new Bench({
      name,
      time: smoke ? 2 : timeMs,
      warmupTime: smoke ? 1 : Math.max(100, timeMs / 4),
      iterations: smoke ? 2 : runs,
      warmupIterations: smoke ? 1 : warmUpRuns,
      timestampProvider: 'hrtimeNow',
      throws: true,
    });
  }

  add(name: string, run: () => unknown, settings: TaskSettings = {}): void {
    const { byTurns, hooks } = settings;
    this.#settings.set(name, settings);
    this.#bench.add(name, run, byTurns === undefined ? hooks : this.#withTurns(name, byTurns, hooks));
  }

  #withTurns(name: string, other: () => unknown, hooks: FnOptions = {}): FnOptions {
    const timesMs: number[] = [];
    this.#turns.set(name, timesMs);
    return {
      ...hooks,
      async beforeEach(mode) {
        await hooks.beforeEach?.call(this, mode);
        const beganMs = performance.now();
        await other();
        if (mode === 'run') timesMs.push(performance.now() - beganMs);
      },
    };
  }

  #againstPerS(name: string, items: number): { againstItemsPerS?: number } {
    const timesMs = this.#turns.get(name);
    if (timesMs === undefined) return {};
    const sorted = Float64Array.from(timesMs).sort();
    return { againstItemsPerS: (items * 1000) / Math.max(sorted[sorted.length >> 1], 1e-6) };
  }

  async run(): Promise<TaskFigures[]> {
    await this.#bench.run();
    return this.#bench.tasks.map((task) => {
      const { result } = task;
      if (result.state !== 'completed') throw new Error(`${task.name}: ${result.state}`);
      const { p50, p99, samplesCount } = result.latency;
      const {
        items = 1,
        itemName = 'run',
        against = null,
        details = {},
      } = this.#settings.get(task.name) as TaskSettings;
      return {
        name: task.name,
        samples: samplesCount,
        p50Us: p50 * 1000,
        p99Us: p99 * 1000,
        items,
        itemName,
        // The clock ticks in nanoseconds: a run below its own overhead counts as one tick.
        itemsPerS: (items * 1000) / Math.max(p50, 1e-6),
        against,
        ...this.#againstPerS(task.name, items),
        details,
      };
    });
  }
}
