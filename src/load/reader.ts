/**
 * A process that reads beside the producers. Owns: its ways of reading, and what it measures. Does not own: when
 * they begin and end (run-load). A process of its own, forked by the harness; it ends with the channel to it.
 *
 *   tail   a long poll on every partition, from its end; each record tells by its number when it was due, and so how
 *          long it took from there to here
 *   sweep  so many loops over all partitions, each read from offset 0 to its end, again and again
 *   random so many loops that each read one record at a random offset below the end that a partition had at first
 */
import { RestClient } from '../client/rest-client.ts';
import { RestError } from '../client/rest-error.ts';
import { sleep, systemClock } from '../core/clock.ts';
import { type Random, seededRandom } from '../core/random.ts';
import { Latencies } from './latency.ts';
import { type PlannedPhase, shareOf } from './load-plan.ts';
import type { FromReader, ReaderResult, ReaderTask, ToReader } from './messages.ts';
import { RecordValues } from './record-value.ts';

const clock = systemClock;
const POLL_MS = 2000;
const FETCH_BYTES = 1024 * 1024;
const RETRY_MS = 100;

function tell(message: FromReader): void {
  process.send?.(message);
}

class Reader {
  readonly #task: ReaderTask;
  readonly #client: RestClient;
  readonly #values: RecordValues;
  readonly #draws: Random;
  readonly #fetch = new Latencies();
  readonly #endToEnd = new Latencies();
  readonly #failures: Record<string, number> = {};
  readonly #counts = { records: 0, requests: 0, failed: 0 };
  readonly #stopped = new AbortController();
  #dueWallMs: (number: number) => number | null = () => null;
  /** By partition, where it ended when this began. */
  #ends: (number | null)[] = [];

  constructor(task: ReaderTask) {
    this.#task = task;
    const { plan, urls, kind, count } = task;
    const connectionsMax = kind === 'tail' ? plan.partitions : count;
    this.#client = new RestClient(urls, { connectionsMax, signal: this.#stopped.signal });
    this.#values = new RecordValues(plan.seed, plan.valueBytes);
    this.#draws = seededRandom(plan.seed);
  }

  /** Where all partitions end before anything of the phase is sent, so that nothing of it is passed over. */
  async prepare(): Promise<void> {
    const { plan, kind } = this.#task;
    if (kind === 'sweep') return;
    const partitions = Array.from({ length: plan.partitions }, (_, partition) => partition);
    this.#ends = await Promise.all(partitions.map((partition) => this.#endOf(partition)));
  }

  async run(phase: PlannedPhase, beginWallMs: number, firstIndex: readonly number[]): Promise<ReaderResult> {
    const { plan, kind, count } = this.#task;
    this.#dueWallMs = this.#dueTimes(phase, beginWallMs, firstIndex);
    const beganMs = clock.monotonicMs();
    const loops = { tail: plan.partitions, sweep: count, random: count }[kind];
    const loop = {
      tail: (partition: number) => this.#tail(partition),
      sweep: (first: number) => this.#sweep(first),
      random: () => this.#random(),
    }[kind];
    await Promise.all(Array.from({ length: loops }, (_, i) => loop(i)));
    await this.#client.close();
    return {
      ...this.#counts,
      failures: this.#failures,
      fetch: this.#fetch.encode(),
      endToEnd: kind === 'tail' ? this.#endToEnd.encode() : null,
      tookMs: clock.monotonicMs() - beganMs,
    };
  }

  stop(): void {
    this.#stopped.abort();
  }

  /** Of an open loop at a fixed rate, as the generators compute it; of anything else nothing is known. */
  #dueTimes(
    { pace, records }: PlannedPhase,
    beginWallMs: number,
    firstIndex: readonly number[],
  ): (number: number) => number | null {
    if (pace.kind !== 'rate') return () => null;
    const { plan } = this.#task;
    const { generators, perRequest } = plan;
    const requestsPerMs = Array.from(
      { length: generators },
      (_, g) => (pace.recordsPerS * shareOf(records, plan, g)) / records / perRequest / 1000,
    );
    return (number) => {
      const generator = number % generators;
      const index = Math.floor(number / generators) - firstIndex[generator];
      return index < 0 ? null : beginWallMs + Math.floor(index / perRequest) / requestsPerMs[generator];
    };
  }

  async #tail(partition: number): Promise<void> {
    let offset = this.#ends[partition];
    while (offset !== null && !this.#stopped.signal.aborted) {
      const records = await this.#read(partition, offset, POLL_MS);
      if (records === null) continue;
      const nowMs = clock.wallMs();
      for (const record of records) {
        const number = this.#values.numberOf(record.value, partition);
        const dueMs = number === null ? null : this.#dueWallMs(number);
        if (dueMs !== null) this.#endToEnd.add(nowMs - dueMs);
        offset = record.offset + 1;
      }
    }
  }

  async #endOf(partition: number): Promise<number | null> {
    while (!this.#stopped.signal.aborted) {
      try {
        return (await this.#client.offsets(this.#task.topic, partition)).end;
      } catch (error) {
        await this.#failed(error);
      }
    }
    return null;
  }

  async #sweep(first: number): Promise<void> {
    const { partitions } = this.#task.plan;
    for (let partition = first % partitions; !this.#stopped.signal.aborted; ) {
      for (let offset = 0; !this.#stopped.signal.aborted; ) {
        const records = await this.#read(partition, offset, 0);
        if (records === null) continue;
        if (records.length === 0) break;
        offset = records[records.length - 1].offset + 1;
      }
      partition = (partition + this.#task.count) % partitions;
    }
  }

  async #random(): Promise<void> {
    const { partitions } = this.#task.plan;
    while (!this.#stopped.signal.aborted) {
      const partition = this.#draws.below(partitions);
      const end = this.#ends[partition] ?? 0;
      // A partition that was empty costs a turn, so that a topic without records does not spin.
      if (end === 0) await sleep(clock, RETRY_MS, this.#stopped.signal);
      else await this.#read(partition, this.#draws.below(end), 0, 1);
    }
  }

  async #read(partition: number, offset: number, waitMs: number, bytesMax = FETCH_BYTES) {
    const startMs = clock.monotonicMs();
    try {
      const options = { bytesMax, waitMs, embedded: 'json' } as const;
      const records = await this.#client.fetch(this.#task.topic, partition, offset, options);
      this.#counts.requests++;
      this.#counts.records += records.length;
      if (waitMs === 0) this.#fetch.add(clock.monotonicMs() - startMs);
      return records;
    } catch (error) {
      await this.#failed(error);
      return null;
    }
  }

  async #failed(error: unknown): Promise<void> {
    // What the end of the phase cut off did not fail.
    if (this.#stopped.signal.aborted) return;
    if (!(error instanceof RestError)) throw error;
    this.#counts.failed++;
    this.#failures[error.code] = (this.#failures[error.code] ?? 0) + 1;
    await sleep(clock, RETRY_MS, this.#stopped.signal);
  }
}

let reader: Reader | null = null;

process.on('message', async (message: ToReader) => {
  switch (message.type) {
    case 'begin':
      reader = new Reader(message.task);
      await reader.prepare();
      tell({ type: 'ready' });
      break;
    case 'phase': {
      if (!reader) break;
      const result = await reader.run(message.phase, message.beginWallMs, message.firstIndex);
      process.send?.({ type: 'done', result } satisfies FromReader, () => process.exit());
      break;
    }
    case 'stop':
      reader?.stop();
      break;
  }
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined);
process.on('disconnect', () => process.exit());
