/**
 * The brokers of the harness's own: one, or several on one metadata store and one object store. Owns: starting them one
 * after another, what /metrics says of all together, killing one, adding one, noticing that one died, ending them.
 * Does not own: the process of a broker (own-broker), when which one is killed (cluster-story). Main thread.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RestClient } from '../client/rest-client.ts';
import { RestError } from '../client/rest-error.ts';
import { MetricsSnapshot } from './metrics-snapshot.ts';
import { OwnBroker, type OwnBrokerOptions } from './own-broker.ts';

/** A broker that has not told its metrics by then is counted as it was at the last look. */
const PROBE_MS_MAX = 5000;

export interface ClusterMember {
  readonly name: string;
  readonly broker: OwnBroker;
  readonly url: string;
  /** Of this broker alone. */
  readonly client: RestClient;
  /** Of the monotonic clock: when its process was started, and when it was killed. */
  readonly startedMs: number;
  killedMs: number | null;
  /** What it told first and last. */
  first: MetricsSnapshot;
  newest: MetricsSnapshot;
  /** As long as it runs the system knows; bytes. */
  rssMax: number | null;
}

export class OwnCluster {
  readonly members: ClusterMember[] = [];
  readonly #own: OwnBrokerOptions;
  /** Null: each broker makes its own, as one alone does. */
  readonly #directory: string | null;
  readonly #isShared: boolean;
  /** Resolves with which and how, when one ends without having been told to. */
  readonly died: Promise<string>;
  #die: (how: string) => void = () => undefined;

  private constructor(own: OwnBrokerOptions, directory: string | null, isShared: boolean) {
    this.#own = own;
    this.#directory = directory;
    this.#isShared = isShared;
    this.died = new Promise((resolve) => (this.#die = resolve));
  }

  /** Like OwnBroker.start. With several brokers the metadata store must be one that they can share. */
  static async start(own: OwnBrokerOptions, brokers: number): Promise<OwnCluster> {
    const isShared = brokers > 1;
    const directory =
      isShared && own.data === null ? await mkdtemp(join(tmpdir(), 'streamhouse-load-')) : null;
    const cluster = new OwnCluster(own, directory, isShared);
    try {
      // One after the other: the first makes the schema and the cluster.
      for (let i = 0; i < brokers; i++) await cluster.add();
    } catch (error) {
      await cluster.close();
      throw error;
    }
    return cluster;
  }

  get living(): ClusterMember[] {
    return this.members.filter(({ killedMs }) => killedMs === null);
  }

  get urls(): string[] {
    return this.living.map(({ url }) => url);
  }

  /** Of the one that was there first. */
  get readyMs(): number {
    return this.members[0].broker.readyMs;
  }

  async add(): Promise<ClusterMember> {
    const own = this.#own;
    const name = `b${this.members.length + 1}`;
    const startedMs = own.clock.monotonicMs();
    const broker = await OwnBroker.start(
      this.#isShared ? { ...own, agentId: name, data: own.data ?? this.#directory } : own,
    );
    const { url } = broker;
    const client = new RestClient(url, { connectionsMax: 2, timeoutMs: PROBE_MS_MAX });
    const none = new MetricsSnapshot('');
    const parts = { killedMs: null, first: none, newest: none, rssMax: null };
    const member: ClusterMember = { name, broker, url, client, startedMs, ...parts };
    this.members.push(member);
    const who = this.#isShared ? `broker ${name}` : 'the broker';
    void broker.died.then((how) => this.#die(`${who} ended (${how})`));
    return member;
  }

  /** SIGKILL; what it told until then is kept. */
  async kill(member: ClusterMember): Promise<void> {
    member.rssMax = member.broker.rssMax();
    member.killedMs = this.#own.clock.monotonicMs();
    await member.broker.kill();
    await member.client.close();
  }

  /** Counters count from here; those of a broker that comes later count from its start. */
  async beginCounting(): Promise<MetricsSnapshot> {
    const together = await this.metrics();
    for (const member of this.members) member.first = member.newest;
    return together;
  }

  /** A RestError when none of them can be asked. */
  async metrics(): Promise<MetricsSnapshot> {
    const { living } = this;
    const looks = await Promise.all(living.map((member) => this.look(member)));
    const failed = looks.filter((error) => error !== null);
    if (living.length > 0 && failed.length === living.length) throw failed[0];
    const gone = this.members.filter(({ killedMs }) => killedMs !== null);
    const newest = ({ newest }: ClusterMember) => newest;
    return MetricsSnapshot.together(this.living.map(newest), gone.map(newest));
  }

  /** What came of it: null, or why it could not be asked. */
  async look(member: ClusterMember): Promise<RestError | null> {
    try {
      member.newest = new MetricsSnapshot(await member.client.metricsText());
      return null;
    } catch (error) {
      if (error instanceof RestError) return error;
      throw error;
    }
  }

  /** Of all together, in bytes, each at its worst; null where the system does not tell. */
  rssMax(): number | null {
    let sum = 0;
    for (const { killedMs, rssMax, broker } of this.members) {
      const one = killedMs === null ? broker.rssMax() : rssMax;
      if (one === null) return null;
      sum += one;
    }
    return sum;
  }

  /** Of one alone. */
  async restart(): Promise<void> {
    await this.members[0].broker.restart();
  }

  async close(): Promise<void> {
    for (const { client } of this.members) await client.close();
    // All at once, else each would wait for the others to take its shards.
    await Promise.all(this.members.map(({ broker }) => broker.close()));
    if (this.#directory !== null) await rm(this.#directory, { recursive: true, force: true });
  }
}
