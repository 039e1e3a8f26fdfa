/**
 * What happens to the brokers of a run while it lasts, and what it looked like: one is killed, one is added. Owns: when,
 * which one, the events on the axis of time, the figures between them, whose acknowledgements stopped for how long. Does
 * not own: the brokers (own-cluster), the generators (generator-fleet). Main thread.
 *
 *   before -> [killed] -> its shards are held by others -> without it -> [added] -> it holds its share -> with it
 *
 * The figures between events are of answers that came then, as generators tell them, twice a second.
 */
import { RestError } from '../client/rest-error.ts';
import { type Clock, sleep } from '../core/clock.ts';
import { addCounts, type GeneratorFleet } from './generator-fleet.ts';
import { Latencies } from './latency.ts';
import type { Interval, PartitionGaps } from './messages.ts';
import { MetricsChange } from './metrics-snapshot.ts';
import type { ClusterMember, OwnCluster } from './own-cluster.ts';
import type { ClusterReport } from './report-schema.ts';

/** What is to happen, ms after the beginning of the measured phase; null: it does not. */
export interface ClusterPlan {
  brokers: number;
  killAfterMs: number | null;
  addAfterMs: number | null;
}

const LOOK_MS = 250;
/** For the brokers to share the shards out before a run. */
const SETTLE_MS_MAX = 60_000;

interface Span {
  name: string;
  fromMs: number;
  toMs: number | null;
  acked: number;
  latencies: Latencies;
  failures: Record<string, number>;
  retried: Record<string, number>;
}

/** A moment that the generators were told of, and the partitions that it is about. */
interface Marked {
  atMs: number;
  event: string;
  of: string;
  partitions: ReadonlySet<number>;
}

export interface StoryParts {
  cluster: OwnCluster;
  plan: ClusterPlan;
  topic: string;
  seed: number;
  clock: Clock;
}

function held({ newest }: ClusterMember): number {
  return newest.value('streamhouse_shards_held') ?? 0;
}

export class ClusterStory {
  readonly #parts: StoryParts;
  #shardCount = 0;
  readonly #events: { atMs: number; what: string }[] = [];
  readonly #spans: Span[] = [];
  readonly #marked: Marked[] = [];
  readonly #ended = new AbortController();
  #running: Promise<unknown> = Promise.resolve();
  readonly #done = { killed: false, added: false };

  constructor(parts: StoryParts) {
    this.#parts = parts;
  }

  /** Resolves when every broker holds its share of the shards. */
  async settled(): Promise<void> {
    const { cluster, clock, plan } = this.#parts;
    const beganMs = clock.monotonicMs();
    const { length } = await cluster.members[0].client.listShards();
    this.#shardCount = length;
    const [least, most] = [Math.floor(length / plan.brokers), Math.ceil(length / plan.brokers)];
    for (;;) {
      await cluster.metrics();
      if (cluster.living.every((member) => held(member) >= least && held(member) <= most)) return;
      if (clock.monotonicMs() - beganMs > SETTLE_MS_MAX) {
        throw new Error(`the brokers did not share out ${length} shards within ${SETTLE_MS_MAX / 1000} s`);
      }
      await sleep(clock, LOOK_MS);
    }
  }

  /** The measured phase begins at `beganMs`. */
  begin(beganMs: number, fleet: GeneratorFleet): void {
    const { plan, clock } = this.#parts;
    const { killAfterMs, addAfterMs } = plan;
    this.#cut('before', beganMs);
    const at = async (afterMs: number | null, what: () => Promise<void>): Promise<void> => {
      if (afterMs === null) return;
      await sleep(clock, Math.max(0, beganMs + afterMs - clock.monotonicMs()), this.#ended.signal);
      if (!this.#ended.signal.aborted) await what();
    };
    const first = Math.min(killAfterMs ?? Number.POSITIVE_INFINITY, addAfterMs ?? Number.POSITIVE_INFINITY);
    this.#running = Promise.all([
      // As long as nothing happens, to compare with.
      at(Number.isFinite(first) ? first / 2 : null, async () => {
        this.#mark(fleet, 'nothing', 'all', new Set());
      }),
      at(killAfterMs, () => this.#killOne(fleet)),
      at(addAfterMs, () => this.#addOne(fleet)),
    ]);
    // It is waited for in `end`.
    this.#running.catch(() => undefined);
  }

  heard(interval: Interval, latencies: Latencies): void {
    const span = this.#spans.at(-1);
    if (span === undefined) return;
    span.acked += interval.acked;
    span.latencies.merge(latencies);
    addCounts(span.failures, interval.failures);
    addCounts(span.retried, interval.retried);
  }

  /** The measured phase is over. Resolves with what of the plan did not happen; null: everything did. */
  async end(): Promise<string | null> {
    const { plan, clock } = this.#parts;
    this.#ended.abort();
    const failed = await this.#running.then(
      () => null,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    const last = this.#spans.at(-1);
    if (last !== undefined) last.toMs ??= clock.monotonicMs();
    if (failed !== null) return `what was to happen to a broker failed (${failed})`;
    if (plan.killAfterMs !== null && !this.#done.killed)
      return 'the load was over before a broker was killed';
    if (plan.addAfterMs !== null && !this.#done.added) return 'the load was over before a broker was added';
    return null;
  }

  #cut(name: string, atMs: number): void {
    const last = this.#spans.at(-1);
    if (last !== undefined) last.toMs = atMs;
    this.#spans.push({
      name,
      fromMs: atMs,
      toMs: null,
      acked: 0,
      latencies: new Latencies(),
      failures: {},
      retried: {},
    });
  }

  #happened(what: string): number {
    const atMs = this.#parts.clock.monotonicMs();
    this.#events.push({ atMs, what });
    return atMs;
  }

  #mark(fleet: GeneratorFleet, event: string, of: string, partitions: ReadonlySet<number>): void {
    fleet.mark();
    this.#marked.push({ atMs: this.#parts.clock.monotonicMs(), event, of, partitions });
  }

  /** Looks until something holds; false when the phase ended before. */
  async #until(holds: () => boolean): Promise<boolean> {
    const { cluster, clock } = this.#parts;
    while (!this.#ended.signal.aborted) {
      try {
        await cluster.metrics();
        if (holds()) return true;
      } catch (error) {
        // All are too busy to answer just now.
        if (!(error instanceof RestError)) throw error;
      }
      await sleep(clock, LOOK_MS, this.#ended.signal);
    }
    return false;
  }

  async #killOne(fleet: GeneratorFleet): Promise<void> {
    const { cluster, seed } = this.#parts;
    const { living } = cluster;
    const victim = living[seed % living.length];
    await cluster.look(victim);
    const partitions = await this.#ledBy(victim);
    const what = `${victim.name} killed`;
    this.#mark(fleet, what, `led by ${victim.name}`, partitions);
    this.#cut(what, this.#happened(what));
    this.#done.killed = true;
    await cluster.kill(victim);
    const isTaken = await this.#until(() => {
      const sum = cluster.living.reduce((shards, member) => shards + held(member), 0);
      return sum >= this.#shardCount;
    });
    if (!isTaken) return;
    const atMs = this.#happened(`its shards are held by others`);
    if (this.#spans.at(-1)?.name === what) this.#cut(`without ${victim.name}`, atMs);
  }

  async #addOne(fleet: GeneratorFleet): Promise<void> {
    const { cluster } = this.#parts;
    const name = `b${cluster.members.length + 1}`;
    const what = `${name} added`;
    this.#cut(what, this.#happened(`${name} started`));
    this.#done.added = true;
    const partitions = new Set<number>();
    this.#mark(fleet, what, `led by ${name}`, partitions);
    const member = await cluster.add();
    this.#happened(`${name} ready`);
    fleet.addBroker(member.url);
    const share = () => Math.floor(this.#shardCount / cluster.living.length);
    const hasShare = await this.#until(() => held(member) >= share());
    if (hasShare) {
      const atMs = this.#happened(`${name} holds ${held(member)} shards`);
      if (this.#spans.at(-1)?.name === what) this.#cut(`with ${name}`, atMs);
    }
    for (const partition of await this.#ledBy(member)) partitions.add(partition);
  }

  /** As the broker itself knows. */
  async #ledBy({ client, name }: ClusterMember): Promise<Set<number>> {
    const brokers = await client.listBrokers();
    const id = brokers.find(({ agentId, state }) => agentId === name && state === 'live')?.brokerId;
    const leaders = await client.partitionLeaders(this.#parts.topic);
    return new Set(leaders.flatMap((leader, partition) => (leader === id ? [partition] : [])));
  }

  /** `originMs`: of the series, on the monotonic clock. */
  report(originMs: number, gaps: readonly PartitionGaps[], retried: Record<string, number>): ClusterReport {
    const { members } = this.#parts.cluster;
    const seconds = (atMs: number) => Math.round((atMs - originMs) / 100) / 10;
    const brokers = members.map((member) => brokerReport(member, seconds));
    const sum = (of: (broker: ClusterReport['brokers'][number]) => number) =>
      brokers.reduce((total, broker) => total + of(broker), 0);
    const forwarded = sum(({ forwarded_appends }) => forwarded_appends);
    const fromClients = sum(({ appends, received_appends }) => appends - received_appends) + forwarded;
    return {
      brokers,
      events: this.#events.map(({ atMs, what }) => ({ t_s: seconds(atMs), what })),
      spans: this.#spans.map((span) => spanReport(span, seconds)),
      stops: this.#marked.flatMap((marked, i) => stopReports(marked, gaps[i], seconds)),
      forwarded_share: fromClients === 0 ? null : Number((forwarded / fromClients).toFixed(3)),
      retried,
    };
  }
}

function brokerReport(
  { name, startedMs, killedMs, broker, first, newest, rssMax }: ClusterMember,
  seconds: (atMs: number) => number,
): ClusterReport['brokers'][number] {
  const change = new MetricsChange(first, newest);
  const calls = newest.names(/^streamhouse_metadata_\w+_seconds_count$/);
  const cpuS = change.of('process_cpu_seconds_total');
  const rss = killedMs === null ? broker.rssMax() : rssMax;
  return {
    name,
    started_s: seconds(startedMs),
    killed_s: killedMs === null ? null : seconds(killedMs),
    ready_ms: Math.round(broker.readyMs),
    shards_held: newest.value('streamhouse_shards_held') ?? 0,
    takeovers: change.count('streamhouse_takeovers_total'),
    records_committed: change.count('streamhouse_records_committed_total'),
    appends: change.count('streamhouse_appends_total'),
    forwarded_appends: change.count('streamhouse_forwarded_appends_total'),
    received_appends: change.count('streamhouse_received_appends_total'),
    metadata_calls: calls.reduce((sum, call) => sum + change.count(call), 0),
    objects_uploaded: change.count('streamhouse_objects_put_total'),
    cpu_s: cpuS === null ? null : Number(cpuS.toFixed(2)),
    rss_max_mb: rss === null ? null : Math.round(rss / 1024 / 1024),
  };
}

const NO_LATENCIES = { p50: null, p95: null, p99: null, p999: null, max: null };

function spanReport(
  { name, fromMs, toMs, acked, latencies, failures, retried }: Span,
  seconds: (atMs: number) => number,
): ClusterReport['spans'][number] {
  const tookMs = (toMs ?? fromMs) - fromMs;
  return {
    name,
    from_s: seconds(fromMs),
    to_s: seconds(toMs ?? fromMs),
    acked,
    rate_per_s: tookMs <= 0 ? 0 : Math.round((acked * 1000) / tookMs),
    produce_ms: latencies.figures() ?? NO_LATENCIES,
    failures,
    retried,
  };
}

/** Those that the moment is about, and all others. */
function stopReports(
  { atMs, event, of, partitions }: Marked,
  gaps: PartitionGaps | undefined,
  seconds: (atMs: number) => number,
): ClusterReport['stops'] {
  if (gaps === undefined) return [];
  const all = gaps.gapMs.map((_, partition) => partition);
  const groups: [string, number[]][] = [
    [of, all.filter((partition) => partitions.has(partition))],
    [of === 'all' ? of : 'all others', all.filter((partition) => !partitions.has(partition))],
  ];
  return groups.flatMap(([name, group]) => {
    if (group.length === 0) return [];
    const stopped = sorted(gaps.gapMs, group);
    const longest = sorted(gaps.longestMs, group);
    const ends = sorted(gaps.endMs, group);
    return [
      {
        event,
        t_s: seconds(atMs),
        of: name,
        partitions: group.length,
        stopped_ms: stopFigures(stopped),
        longest_ms: stopFigures(longest),
        again_ms: ends.at(-1) ?? null,
        not_again: group.length - stopped.length,
      },
    ];
  });
}

/** Those of the group that are known, rising. */
function sorted(times: readonly number[], group: readonly number[]): number[] {
  const known = group.map((partition) => times[partition]).filter((ms) => ms >= 0);
  return known.sort((a, b) => a - b);
}

function stopFigures(rising: readonly number[]): ClusterReport['stops'][number]['stopped_ms'] {
  const of = (part: number) => rising[Math.min(rising.length - 1, Math.floor(rising.length * part))] ?? null;
  return { p50: of(0.5), p99: of(0.99), max: rising.at(-1) ?? null };
}
