/**
 * One run of the load harness, from the broker to the report. Owns: the order of things, ending early. Does not own:
 * what the parts do, parsing, printing (cli/load). Main thread.
 *
 *   broker -> topic -> [echo] -> generators -> phases, each with its readers -> [echo] -> [read back] -> [restart]
 *
 * A run ends early when it is interrupted, the broker dies, or no broker is found any more; then what is known so far
 * is reported, and said to be partial.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RestClient } from '../client/rest-client.ts';
import { blankAckColumns, readAckLog } from './ack-log.ts';
import { BrokerSampler } from './broker-sampler.ts';
import { LoadChild } from './child-process.ts';
import { ClusterStory } from './cluster-story.ts';
import { EchoTurns } from './echo-turns.ts';
import { ackLogFile, GeneratorFleet } from './generator-fleet.ts';
import type { Latencies } from './latency.ts';
import { type LoadPlan, type PlannedPhase, shareOf } from './load-plan.ts';
import type { FromReader, Interval, ReaderResult, ToReader } from './messages.ts';
import { MetricsSnapshot } from './metrics-snapshot.ts';
import { OwnCluster } from './own-cluster.ts';
import { readBack } from './read-back.ts';
import { RecordVerifier } from './record-verifier.ts';
import type { ClusterReport, LoadReport, VerifyReport } from './report-schema.ts';
import type { RunLoadOptions } from './run-options.ts';
import { type PhaseOutcome, runReport } from './run-report.ts';
import { TopicChurn } from './topic-churn.ts';

/** So long after everything is ready a phase begins, that all processes know. */
const LEAD_MS = 200;
/** A broker that has not told its metrics by then leaves a gap in the series. */
const PROBE_MS_MAX = 5000;
/** Tail readers get so long to read what was acknowledged last. */
const TAIL_MS = 1000;

/** From where on the broker and its database are looked at: the beginning, or the last restart. */
interface Watched {
  sampler: BrokerSampler;
  /** The first phase that it is of. */
  watchedFrom: number;
  before: MetricsSnapshot;
  beganMs: number;
}

export function runLoad(options: RunLoadOptions): Promise<LoadReport> {
  return new LoadRun(options).run();
}

class LoadRun {
  readonly #options: RunLoadOptions;
  #own: OwnCluster | null = null;
  /** With several brokers of its own. */
  #story: ClusterStory | null = null;
  #client!: RestClient;
  /** Looks at the broker: it must not wait for long. */
  #probe!: RestClient;
  #urls: readonly string[] = [];
  #topic = '';
  #scratch: string | null = null;
  #watched: Watched | null = null;
  /** Of the last time that a phase had the broker started anew. */
  #restartMs: number | null = null;
  #fleet: GeneratorFleet | null = null;
  /** Why the run ends before its time. */
  #ended: string | null = null;
  readonly #ending = new AbortController();
  readonly #seen = { acked: 0, recentAcked: 0, recentMs: 0, ratePerS: 0, p99Ms: 0 };

  constructor(options: RunLoadOptions) {
    this.#options = options;
    this.#seen.recentMs = options.clock.monotonicMs();
  }

  async run(): Promise<LoadReport> {
    const { signal, verify } = this.#options;
    const interrupt = (): void => this.#end('it was interrupted');
    signal.addEventListener('abort', interrupt, { once: true });
    if (signal.aborted) interrupt();
    try {
      await this.#connect();
      if (verify) this.#scratch = await mkdtemp(join(tmpdir(), 'streamhouse-load-answers-'));
      return await this.#measure();
    } finally {
      signal.removeEventListener('abort', interrupt);
      await this.#closeFleet();
      await this.#options.database.counter?.close();
      await this.#watched?.sampler.stop();
      await this.#probe?.close();
      await this.#client?.close();
      await this.#own?.close();
      if (this.#scratch !== null) await rm(this.#scratch, { recursive: true, force: true });
    }
  }

  #end(why: string): void {
    this.#ended ??= why;
    this.#ending.abort();
  }

  #say(stage: string, done: number, total: number): void {
    const { ratePerS, p99Ms } = this.#seen;
    this.#options.progress({ stage, done, total, ratePerS, p99Ms });
  }

  async #connect(): Promise<void> {
    const { url, own, plan, random, cluster, clock } = this.#options;
    this.#say('starting', 0, plan.records);
    if (url === null) this.#own = await OwnCluster.start(own, cluster?.brokers ?? 1);
    this.#urls = this.#own?.urls ?? [url as string];
    this.#client = new RestClient(this.#urls, { connectionsMax: 32 });
    this.#probe = new RestClient(this.#urls, { connectionsMax: 2, timeoutMs: PROBE_MS_MAX });
    void this.#own?.died.then((how) => this.#end(how));
    this.#topic = `load-${plan.scenario}-${random.hex(4)}`;
    if (this.#own === null || cluster === null) return;
    const parts = { cluster: this.#own, plan: cluster, topic: this.#topic, seed: plan.seed, clock };
    this.#story = new ClusterStory(parts);
    await this.#story.settled();
  }

  async #measure(): Promise<LoadReport> {
    const { plan, clock, echo, verify, restart } = this.#options;
    const createMs = await this.#timed(() =>
      this.#client.createTopic({ name: this.#topic, partitionCount: plan.partitions }),
    );
    const startMs = this.#own?.readyMs ?? null;
    const echoTurns = echo ? new EchoTurns(plan, clock) : null;
    if (this.#ended === null) await echoTurns?.turn();
    const fleet = await this.#startFleet();
    await this.#watch(0);
    const outcomes = await this.#phases(fleet);
    const { sampler, watchedFrom, before, beganMs } = this.#watched as Watched;
    const tookMs = clock.monotonicMs() - beganMs;
    await sampler.stop();
    const after = sampler.newest;
    const { counter } = this.#options.database;
    if (counter !== null) this.#say('waiting for what the database counted', plan.records, plan.records);
    const counted = (await counter?.count()) ?? null;
    const rssMax = this.#own?.rssMax() ?? sampler.rssMax;
    if (this.#ended === null) await echoTurns?.turn();
    const checked = verify && this.#ended === null ? await this.#verify() : null;
    const restartMs = restart && this.#ended === null ? await this.#restart() : this.#restartMs;
    if (this.#options.url !== null && this.#ended === null) await this.#client.deleteTopic(this.#topic);
    return runReport({
      options: this.#options,
      partialReason: this.#ended,
      outcomes,
      before,
      after,
      watchedFrom,
      beganMs,
      tookMs,
      counted,
      series: sampler.points,
      verify: checked,
      cluster: this.#clusterReport(sampler.beganMs, outcomes),
      echo: echoTurns,
      broker: {
        rss_max_mb: rssMax === 0 ? null : Math.round(rssMax / 1024 / 1024),
        start_ms: startMs === null ? null : Math.round(startMs),
        restart_ms: restartMs,
        create_topic_ms: createMs,
      },
    });
  }

  #clusterReport(originMs: number, outcomes: readonly PhaseOutcome[]): ClusterReport | null {
    const measured = outcomes.find(({ phase }) => phase.isMeasured);
    const { gaps, retried } = measured?.totals ?? { gaps: [], retried: {} };
    return this.#story?.report(originMs, gaps, retried) ?? null;
  }

  /** Begins anew where it began before: counters of a process end with it. */
  async #watch(watchedFrom: number): Promise<void> {
    const { clock, plan, database } = this.#options;
    await this.#watched?.sampler.stop();
    this.#watched = null;
    const { counter } = database;
    if (counter !== null) this.#say('waiting for what the database counted before', 0, plan.records);
    await counter?.start();
    const own = this.#own;
    const read = own ? () => own.metrics() : async () => new MetricsSnapshot(await this.#probe.metricsText());
    const before = await (own ? own.beginCounting() : read());
    const sampler = new BrokerSampler(read, clock, before);
    this.#watched = { sampler, watchedFrom, before, beganMs: clock.monotonicMs() };
  }

  async #timed(call: () => Promise<unknown>): Promise<number> {
    const { clock } = this.#options;
    const startMs = clock.monotonicMs();
    await call();
    return Number((clock.monotonicMs() - startMs).toFixed(1));
  }

  // -- Phases ------------------------------------------------------------------------------------------

  async #startFleet(): Promise<GeneratorFleet> {
    const { plan, clock } = this.#options;
    const fleet = await GeneratorFleet.start({
      urls: this.#urls,
      topic: this.#topic,
      plan,
      scratch: this.#scratch,
      readsOffsets: true,
      retries: this.#story !== null,
      clock,
      heard: (interval, latencies) => this.#heard(interval, latencies),
    });
    this.#fleet = fleet;
    void fleet.lost.then((message) => this.#end(message));
    return fleet;
  }

  async #phases(fleet: GeneratorFleet): Promise<PhaseOutcome[]> {
    const { plan } = this.#options;
    const stop = (): void => fleet.stop();
    this.#ending.signal.addEventListener('abort', stop, { once: true });
    if (this.#ending.signal.aborted) stop();
    const outcomes: PhaseOutcome[] = [];
    try {
      const sentBefore = plan.phases.map(() => 0);
      for (const phase of plan.phases) {
        if (this.#ended !== null) break;
        outcomes.push(await this.#phase(fleet, phase, firstIndexes(plan, sentBefore)));
        sentBefore[plan.phases.indexOf(phase)] = phase.records;
      }
    } finally {
      this.#ending.signal.removeEventListener('abort', stop);
      await this.#closeFleet();
    }
    return outcomes;
  }

  async #closeFleet(): Promise<void> {
    const fleet = this.#fleet;
    this.#fleet = null;
    await fleet?.close();
  }

  async #phase(fleet: GeneratorFleet, phase: PlannedPhase, firstIndex: number[]): Promise<PhaseOutcome> {
    const { clock } = this.#options;
    const reader = phase.readers === null ? null : await this.#startReader(phase);
    const churn = phase.churn ? new TopicChurn(this.#client, this.#topic, clock) : null;
    try {
      if (phase.afterRestart) {
        this.#restartMs = await this.#restart();
        await this.#watch(this.#options.plan.phases.indexOf(phase));
      }
      const beganMs = clock.monotonicMs() + LEAD_MS;
      const beginWallMs = clock.wallMs() + LEAD_MS;
      const read = reader?.next('done') ?? null;
      read?.catch(() => undefined);
      reader?.send({ type: 'phase', phase, beginWallMs, firstIndex });
      const story = phase.isMeasured ? this.#story : null;
      story?.begin(beganMs, fleet);
      const totals = await fleet.runPhase(phase, beginWallMs);
      const notHappened = (await story?.end()) ?? null;
      if (notHappened !== null) this.#end(notHappened);
      if (this.#ended === null) await churn?.stop();
      let readers: ReaderResult | null = null;
      if (reader && read) {
        if (phase.readers?.kind === 'tail' && this.#ended === null) {
          await new Promise<void>((resolve) => void clock.after(TAIL_MS, resolve));
        }
        reader.send({ type: 'stop' });
        readers = (await read).result;
      }
      return { phase, beganMs, totals, readers, churn: churn?.counts ?? null };
    } finally {
      // Whatever topics are left when a run ends early stay: there may be nobody to delete them.
      void churn?.stop();
      await reader?.kill();
    }
  }

  async #startReader({ readers }: PlannedPhase): Promise<LoadChild<ToReader, FromReader>> {
    const { plan } = this.#options;
    const { kind, count } = readers as NonNullable<PlannedPhase['readers']>;
    const reader = new LoadChild<ToReader, FromReader>('reader', () => undefined);
    const ready = reader.next('ready');
    reader.send({ type: 'begin', task: { urls: this.#urls, topic: this.#topic, plan, kind, count } });
    await ready;
    return reader;
  }

  #heard(interval: Interval, latencies: Latencies): void {
    const { clock, plan } = this.#options;
    const seen = this.#seen;
    this.#watched?.sampler.heard(interval, latencies);
    this.#story?.heard(interval, latencies);
    seen.acked += interval.acked;
    seen.recentAcked += interval.acked;
    const nowMs = clock.monotonicMs();
    if (nowMs - seen.recentMs >= 400) {
      seen.ratePerS = (seen.recentAcked * 1000) / (nowMs - seen.recentMs);
      seen.recentAcked = 0;
      seen.recentMs = nowMs;
      if (latencies.count > 0) seen.p99Ms = latencies.quantileMs(0.99);
    }
    this.#say('sending', seen.acked, plan.records);
  }

  // -- Afterwards --------------------------------------------------------------------------------------

  /** Null when the run ends before everything was read: half a check is none. */
  async #verify(): Promise<VerifyReport | null> {
    const { plan, clock } = this.#options;
    const { partitions, generators } = plan;
    const acks = blankAckColumns(plan.records);
    for (let generator = 0; generator < generators; generator++) {
      readAckLog(ackLogFile(this.#scratch as string, generator), generator, generators, acks);
    }
    const verifier = new RecordVerifier(plan, acks);
    const startMs = clock.monotonicMs();
    // Of several brokers by way of the youngest.
    const client = new RestClient([...(this.#own?.urls ?? this.#urls)].reverse(), { connectionsMax: 32 });
    try {
      await readBack({
        client,
        topic: this.#topic,
        partitions,
        verifier,
        clock,
        signal: this.#ending.signal,
        onPartition: (done) => this.#say('reading back', done, partitions),
      });
    } catch (error) {
      // A broker that died in the middle of it: the report says so.
      if (this.#ended === null) throw error;
    } finally {
      await client.close();
    }
    if (this.#ended !== null) return null;
    const counts = verifier.finish();
    const tookS = Math.round(clock.monotonicMs() - startMs) / 1000;
    return { ...counts, took_s: tookS, examples: [...verifier.examples] };
  }

  async #restart(): Promise<number | null> {
    if (this.#own === null) return null;
    await this.#own.restart();
    return Math.round(this.#own.readyMs);
  }
}

/** By generator: the index of its first record of a phase, after so many records of the phases before. */
function firstIndexes(plan: LoadPlan, sentBefore: readonly number[]): number[] {
  return Array.from({ length: plan.generators }, (_, generator) =>
    sentBefore.reduce((sum, records) => sum + shareOf(records, plan, generator), 0),
  );
}
