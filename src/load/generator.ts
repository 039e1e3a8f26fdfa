/**
 * A generator: one of the processes that send. Owns: its records in their order, one phase at a time, what is booked
 * of each answer, sending again what certainly did not happen. Does not own: pacing (pacing), requests (produce-sender), when phases begin (run-load). A process
 * of its own, forked by the harness; it ends with the channel to it.
 */
import { systemClock } from '../core/clock.ts';
import { type Random, seededRandom } from '../core/random.ts';
import { AckGaps } from './ack-gaps.ts';
import { AckLog, REFUSED_OFFSET, UNKNOWN_OFFSET, UNSENT_OFFSET } from './ack-log.ts';
import { Latencies } from './latency.ts';
import { type LoadPlan, type PlannedPhase, shareOf } from './load-plan.ts';
import type { FromGenerator, GeneratorTask, Interval, PhaseResult, ToGenerator } from './messages.ts';
import { burstSchedule, ClosedLoop, OpenLoop, type Pacer, rateSchedule } from './pacing.ts';
import { type Batch, type BatchResult, ProduceSender } from './produce-sender.ts';
import { RecordOrder } from './record-order.ts';

const INTERVAL_MS = 500;
/** A server that was not there for so long is gone. */
const ABSENT_MS_MAX = 3000;
/** So long a record is sent again; longer than a cluster takes to notice that a broker is dead. */
const RETRY_MS_MAX = 120_000;
const BACKOFF_MS_MIN = 50;
const BACKOFF_MS_MAX = 1000;

const clock = systemClock;

function tell(message: FromGenerator): void {
  process.send?.(message);
}

class Generator {
  readonly #task: GeneratorTask;
  readonly #order: RecordOrder;
  readonly #sender: ProduceSender;
  readonly #log: AckLog | null;
  readonly #beganMs = clock.monotonicMs();
  /** The next record's index, over all phases. */
  #index = 0;
  #running: RunningPhase | null = null;

  constructor(task: GeneratorTask) {
    this.#task = task;
    const { plan, urls, topic, generator, readsOffsets } = task;
    const { generators, seed, valueBytes, perRequest } = plan;
    this.#order = new RecordOrder(plan, generator);
    // Every broker gets some of them.
    const connections = Math.max(urls.length, shareOfCount(plan.connections, plan, generator));
    const pipelining = Math.ceil(shareOfCount(plan.inFlight, plan, generator) / connections);
    const shape = { valueBytes, perRequest, seed, generator, generators, readsOffsets };
    this.#sender = new ProduceSender({ urls, topic, connections, pipelining, clock, ...shape });
    this.#log = task.ackLog === null ? null : new AckLog(task.ackLog);
  }

  async run(phase: PlannedPhase, beginWallMs: number): Promise<PhaseResult> {
    const beginMs = clock.monotonicMs() + (beginWallMs - clock.wallMs());
    await new Promise<void>(
      (resolve) => void clock.after(Math.max(0, beginMs - clock.monotonicMs()), resolve),
    );
    const { plan, generator } = this.#task;
    const records = shareOf(phase.records, plan, generator);
    this.#running = new RunningPhase(this.#task, phase, beginMs, records, {
      takeBatch: (count, dueMs) => this.#takeBatch(count, dueMs),
      send: (batch, done) => this.#sender.send(batch, done),
      book: (batch, result, nowMs) => this.#book(batch, result, nowMs),
    });
    const result = await this.#running.start(generator);
    this.#running = null;
    this.#log?.flush();
    return result;
  }

  stop(): void {
    this.#running?.stop();
  }

  addBroker(url: string): void {
    this.#sender.addBroker(url);
  }

  mark(atWallMs: number): void {
    this.#running?.mark(clock.monotonicMs() + (atWallMs - clock.wallMs()));
  }

  async close(): Promise<void> {
    this.#log?.close();
    await this.#sender.close();
  }

  #takeBatch(count: number, dueMs: number): Batch {
    const indexes = new Array<number>(count);
    const partitions = new Array<number>(count);
    for (let i = 0; i < count; i++) {
      indexes[i] = this.#index++;
      partitions[i] = this.#order.next();
    }
    return { indexes, partitions, dueMs, sentMs: 0 };
  }

  #book(batch: Batch, { offsets }: BatchResult, nowMs: number): void {
    if (this.#log === null) return;
    const sentMs = batch.sentMs - this.#beganMs;
    const toldMs = nowMs - this.#beganMs;
    for (let i = 0; i < offsets.length; i++) this.#log.add(batch.indexes[i], offsets[i], sentMs, toldMs);
  }
}

interface PhaseParts {
  takeBatch(count: number, dueMs: number): Batch;
  send(batch: Batch, done: (batch: Batch, result: BatchResult) => void): void;
  book(batch: Batch, result: BatchResult, nowMs: number): void;
}

function count(counts: Record<string, number>, name: string, by: number): void {
  counts[name] = (counts[name] ?? 0) + by;
}

function shareOfCount(count: number, plan: LoadPlan, generator: number): number {
  return Math.max(1, Math.floor(count / plan.generators) + (generator < count % plan.generators ? 1 : 0));
}

/** One phase from its first request to its last answer. */
class RunningPhase {
  readonly #plan: LoadPlan;
  readonly #retries: boolean;
  readonly #random: Random;
  readonly #gaps: AckGaps | null;
  readonly #phase: PlannedPhase;
  readonly #beginMs: number;
  readonly #parts: PhaseParts;
  #left: number;
  #pacer: Pacer | null = null;
  readonly #total = new Latencies();
  readonly #recent = new Latencies();
  readonly #failures: Record<string, number> = {};
  readonly #retried: Record<string, number> = {};
  #recentFailures: Record<string, number> = {};
  #recentRetried: Record<string, number> = {};
  readonly #counts = { sent: 0, acked: 0, failed: 0, unknown: 0, measured: 0 };
  readonly #told = { sent: 0, acked: 0, failed: 0 };
  #outstanding = 0;
  #lateMsMax = 0;
  #lastAnswerMs = 0;
  #lastThereMs: number;
  #isStopped = false;
  #end: () => void = () => undefined;

  constructor(
    { plan, generator, retries }: GeneratorTask,
    phase: PlannedPhase,
    beginMs: number,
    records: number,
    parts: PhaseParts,
  ) {
    this.#plan = plan;
    this.#retries = retries;
    this.#random = seededRandom(plan.seed * 7919 + generator);
    const { partitions, generators } = plan;
    this.#gaps = retries ? new AckGaps(partitions, generator, generators, beginMs) : null;
    this.#phase = phase;
    this.#beginMs = beginMs;
    this.#lastThereMs = clock.monotonicMs();
    this.#parts = parts;
    this.#left = records;
  }

  async start(generator: number): Promise<PhaseResult> {
    const cpuBefore = process.cpuUsage();
    const ended = new Promise<void>((resolve) => (this.#end = resolve));
    this.#tick();
    this.#pacer = this.#makePacer(generator);
    this.#endIfDone();
    await ended;
    this.#interval();
    const cpu = process.cpuUsage(cpuBefore);
    const { measured, ...counts } = this.#counts;
    const tookMs = Math.max(1, this.#lastAnswerMs - this.#beginMs);
    return {
      ...counts,
      failures: this.#failures,
      retried: this.#retried,
      gaps: this.#gaps?.gaps() ?? [],
      tookMs,
      measured: {
        latencies: this.#total.encode(),
        acked: measured,
        tookMs: Math.max(1, tookMs - this.#warmUpMs()),
      },
      cpuS: (cpu.user + cpu.system) / 1e6,
      lateMsMax: this.#lateMsMax,
    };
  }

  stop(): void {
    this.#isStopped = true;
    this.#pacer?.stop();
    this.#endIfDone();
  }

  mark(atMs: number): void {
    this.#gaps?.mark(atMs);
  }

  #warmUpMs(): number {
    return this.#phase.isMeasured ? this.#plan.warmUpMs : 0;
  }

  #makePacer(generator: number): Pacer {
    const { pace, records, durationMs } = this.#phase;
    const { perRequest } = this.#plan;
    const mine = records === 0 ? 0 : this.#left / records;
    if (durationMs !== null && pace.kind === 'closed') clock.after(durationMs, () => this.stop());
    const next = (dueMs: number) => this.#sendNext(dueMs);
    const inFlight = shareOfCount(this.#plan.inFlight, this.#plan, generator);
    if (pace.kind === 'closed') return new ClosedLoop(clock, inFlight, next);
    const schedule =
      pace.kind === 'rate'
        ? rateSchedule((pace.recordsPerS * mine) / perRequest)
        : burstSchedule(Math.ceil(this.#left / pace.count / perRequest), pace.everyMs);
    return new OpenLoop(clock, schedule, this.#beginMs, inFlight, next);
  }

  #sendNext(dueMs: number): boolean {
    if (this.#left === 0 || this.#isStopped) return false;
    const count = Math.min(this.#left, this.#plan.perRequest);
    this.#left -= count;
    const batch = this.#parts.takeBatch(count, dueMs);
    this.#counts.sent += count;
    this.#outstanding++;
    this.#parts.send(batch, this.#answered);
    const lateMs = batch.sentMs - dueMs;
    if (lateMs > this.#lateMsMax) this.#lateMsMax = lateMs;
    return true;
  }

  /** What certainly did not happen, a while later, perhaps elsewhere. Until then it counts as unanswered. */
  #sendAgain(batch: Batch, { again, code }: BatchResult): void {
    const tries = (batch.tries ?? 0) + 1;
    count(this.#retried, code ?? 'refused', again.length);
    count(this.#recentRetried, code ?? 'refused', again.length);
    const rest: Batch = {
      indexes: again.map((i) => batch.indexes[i]),
      partitions: again.map((i) => batch.partitions[i]),
      dueMs: batch.dueMs,
      sentMs: batch.sentMs,
      tries,
      giveUpMs: batch.giveUpMs ?? clock.monotonicMs() + RETRY_MS_MAX,
    };
    this.#outstanding++;
    const longestMs = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(tries, 10));
    clock.after(longestMs * (0.5 + this.#random.unit() / 2), () => {
      if (!this.#isStopped) return this.#parts.send(rest, this.#answered);
      const offsets = rest.indexes.map(() => REFUSED_OFFSET);
      this.#answered(rest, { offsets, acked: 0, code, again: [], isDisconnected: false });
    });
  }

  #mayAgain(batch: Batch, { again }: BatchResult): boolean {
    if (!this.#retries || again.length === 0 || this.#isStopped) return false;
    return batch.giveUpMs === undefined || clock.monotonicMs() < batch.giveUpMs;
  }

  readonly #answered = (batch: Batch, result: BatchResult): void => {
    const nowMs = clock.monotonicMs();
    this.#outstanding--;
    this.#lastAnswerMs = nowMs;
    const isAgain = this.#mayAgain(batch, result);
    // What is refused only for now is booked so, and again with its last answer.
    this.#parts.book(batch, result, nowMs);
    if (isAgain) this.#sendAgain(batch, result);
    if (result.acked > 0) {
      this.#bookGaps(batch, result, nowMs);
      const latencyMs = nowMs - batch.dueMs;
      this.#recent.add(latencyMs);
      if (batch.dueMs - this.#beginMs >= this.#warmUpMs()) {
        this.#total.add(latencyMs);
        this.#counts.measured += result.acked;
      }
    }
    this.#counts.acked += result.acked;
    const failed = batch.partitions.length - result.acked - (isAgain ? result.again.length : 0);
    if (failed > 0) this.#countFailed(result, failed);
    if (!result.isDisconnected) this.#lastThereMs = nowMs;
    // One that is sent again still has its place among the unanswered.
    if (!isAgain) this.#pacer?.answered(result.isDisconnected);
    this.#endIfDone();
  };

  #bookGaps({ partitions }: Batch, { offsets }: BatchResult, nowMs: number): void {
    if (this.#gaps === null) return;
    for (let i = 0; i < offsets.length; i++) {
      if (offsets[i] < UNSENT_OFFSET) this.#gaps.acked(partitions[i], nowMs);
    }
  }

  #countFailed({ offsets, code, isDisconnected }: BatchResult, failed: number): void {
    this.#counts.failed += failed;
    for (const offset of offsets) if (offset === UNKNOWN_OFFSET) this.#counts.unknown++;
    const name = code ?? 'refused';
    count(this.#failures, name, failed);
    count(this.#recentFailures, name, failed);
    // Of several brokers one may be away, and for as long the answers of the others wait.
    const absentMsMax = this.#retries ? RETRY_MS_MAX : ABSENT_MS_MAX;
    if (!isDisconnected || clock.monotonicMs() - this.#lastThereMs < absentMsMax || this.#isStopped) return;
    tell({ type: 'lost', message: `the broker has not answered for ${absentMsMax / 1000} s (${name})` });
    this.stop();
  }

  #endIfDone(): void {
    if (this.#outstanding === 0 && (this.#left === 0 || this.#isStopped)) this.#end();
  }

  #tick(): void {
    clock.after(INTERVAL_MS, () => {
      if (this.#outstanding === 0 && (this.#left === 0 || this.#isStopped)) return;
      this.#interval();
      this.#tick();
    });
  }

  #interval(): void {
    const { sent, acked, failed } = this.#counts;
    const told = this.#told;
    const interval: Interval = {
      sent: sent - told.sent,
      acked: acked - told.acked,
      failed: failed - told.failed,
      outstanding: this.#outstanding,
      failures: this.#recentFailures,
      retried: this.#recentRetried,
      latencies: this.#recent.encode(),
    };
    this.#recentFailures = {};
    this.#recentRetried = {};
    Object.assign(told, { sent, acked, failed });
    this.#recent.reset();
    tell({ type: 'interval', interval });
  }
}

let generator: Generator | null = null;

process.on('message', async (message: ToGenerator) => {
  switch (message.type) {
    case 'begin':
      generator = new Generator(message.task);
      tell({ type: 'ready' });
      break;
    case 'phase':
      if (generator)
        tell({ type: 'phase-done', result: await generator.run(message.phase, message.beginWallMs) });
      break;
    case 'broker':
      generator?.addBroker(message.url);
      break;
    case 'mark':
      generator?.mark(message.atWallMs);
      break;
    case 'stop':
      generator?.stop();
      break;
    case 'close':
      await generator?.close();
      process.send?.({ type: 'closed' } satisfies FromGenerator, () => process.exit());
      break;
  }
});
// The harness decides when to end: Ctrl-C on a terminal reaches this process too.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined);
process.on('disconnect', () => process.exit());
// A full disk, or a bug: what it has told so far is all that there is.
process.on('uncaughtException', (error) => {
  process.send?.({ type: 'broken', message: error.message } satisfies FromGenerator, () => process.exit(1));
});
