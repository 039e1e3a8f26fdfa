/**
 * Several agent loops over one memory store and one clock that a test turns, each with a stand-in for its batching
 * worker that takes and releases leases in the store as the real one does. Owns: sleeping and waking, killing, cutting
 * an agent off from the store, what each serves. Does not own: the loop. No threads, no sockets.
 */
import assert from 'node:assert/strict';
import { AgentLoop } from '../../src/agent/agent-loop.ts';
import type { Clock, Timer } from '../../src/core/clock.ts';
import { asOperatingError, StreamHouseError } from '../../src/core/errors.ts';
import { seededRandom } from '../../src/core/random.ts';
import type { LeasesMoved } from '../../src/route/peer-duties.ts';
import { MemoryMetadataStore } from '../../storage/metadata/memory/memory-metadata-store.ts';
import type { SeenLease } from '../../workers/messages.ts';
import { FaultyMetadataStore } from './faulty-metadata-store.ts';
import { ManualClock } from './manual-clock.ts';

export const HEARTBEAT_MS = 5000;
export const DEAD_MS = 15_000;
/** What the stand-in needs for a takeover and for a handover. */
const TAKE_MS = 20;
const RELEASE_MS = 150;

/** A clock of one process, whose timers wait while it sleeps. Its time goes on, as a machine's does. */
class ProcessClock implements Clock {
  readonly #clock: ManualClock;
  readonly #late: (() => void)[] = [];
  isAsleep = false;
  isDead = false;

  constructor(clock: ManualClock) {
    this.#clock = clock;
  }

  wallMs(): number {
    return this.#clock.wallMs();
  }

  monotonicMs(): number {
    return this.#clock.monotonicMs();
  }

  after(delayMs: number, fire: () => void): Timer {
    let cancelled = false;
    const timer = this.#clock.after(delayMs, () => {
      if (cancelled || this.isDead) return;
      if (this.isAsleep) this.#late.push(() => cancelled || fire());
      else fire();
    });
    return {
      cancel: () => {
        cancelled = true;
        timer.cancel();
      },
    };
  }

  wake(): void {
    this.isAsleep = false;
    for (const fire of this.#late.splice(0)) fire();
  }
}

export class ClusterAgent {
  readonly agentId: string;
  readonly clock: ProcessClock;
  readonly store: FaultyMetadataStore;
  readonly loop: AgentLoop;
  readonly serving = new Map<number, number>();
  readonly taken: SeenLease[][] = [];
  readonly released: number[][] = [];
  readonly warned: string[] = [];
  readonly replaced: StreamHouseError[] = [];
  readonly notices: LeasesMoved[] = [];
  gone = 0;
  outOfTouch = 0;
  reaped = 0;

  constructor(cluster: AgentCluster, agentId: string, group: string) {
    this.agentId = agentId;
    this.clock = new ProcessClock(cluster.clock);
    this.store = new FaultyMetadataStore(cluster.store);
    this.loop = new AgentLoop({
      settings: {
        agentId,
        zone: 'z',
        group,
        version: '1',
        shardCount: cluster.shardCount,
        heartbeatMs: HEARTBEAT_MS,
        deadAgentMs: DEAD_MS,
        isAlone: false,
      },
      store: this.store,
      clock: this.clock,
      random: seededRandom(1 + cluster.agents.length),
      address: () => `${agentId}:1`,
      groupOf: cluster.groupOf,
      take: (leases) => {
        this.taken.push(leases);
        for (const lease of leases) this.clock.after(TAKE_MS, () => void this.#take(lease));
      },
      release: (shards) => {
        this.released.push(shards);
        for (const shard of shards) this.clock.after(RELEASE_MS, () => void this.#release(shard));
      },
      notify: async (agent, notice) => {
        const other = cluster.agents.find((known) => known.agentId === agent.agentId);
        if (cluster.losesNotices || !other || other.clock.isDead || other.clock.isAsleep) {
          throw new StreamHouseError('not-leader', 'connection refused');
        }
        other.notices.push(notice);
        other.loop.leasesMoved(notice);
      },
      outOfTouch: () => void this.outOfTouch++,
      changed: () => undefined,
      agentGone: () => void this.gone++,
      replaced: (error) => void this.replaced.push(error),
      reaped: () => {
        this.reaped++;
        void this.restart();
      },
      info: () => undefined,
      warn: (message) => void this.warned.push(message),
    });
  }

  /** As a process starts, or a batching worker is started again. */
  async restart(): Promise<void> {
    this.loop.sequencerLost();
    this.serving.clear();
    await this.loop.register();
    this.loop.sequencerUp();
  }

  async #take({ shard, holder, epoch }: SeenLease): Promise<void> {
    const { incarnation } = this.loop;
    const served = this.serving.get(shard);
    if (served !== undefined && served < epoch) {
      this.serving.delete(shard);
      return this.loop.lost(shard, { code: 'fenced', message: 'taken over' });
    }
    try {
      const [outcome] = await this.store.acquireLeases(incarnation, [{ shard, holder, epoch }]);
      if (outcome.kind !== 'done') throw new StreamHouseError('conflict', 'somebody was first');
      this.serving.set(shard, outcome.head.epoch);
      this.loop.heldNow(shard, outcome.head.epoch);
    } catch (error) {
      this.loop.lost(shard, asOperatingError(error, 'store-unknown', 'take').toPlain());
    }
  }

  async #release(shard: number): Promise<void> {
    const epoch = this.serving.get(shard);
    if (epoch === undefined) return;
    this.serving.delete(shard);
    try {
      await this.store.releaseLeases(this.loop.incarnation, [{ shard, epoch }]);
      this.loop.released(shard, epoch);
    } catch (error) {
      this.loop.lost(shard, asOperatingError(error, 'store-unknown', 'release').toPlain());
    }
  }

  /** As kill -9. */
  kill(): void {
    this.clock.isDead = true;
    this.loop.stop();
  }
}

export class AgentCluster {
  readonly clock = new ManualClock(1_000_000);
  readonly store = new MemoryMetadataStore();
  readonly agents: ClusterAgent[] = [];
  readonly shardCount: number;
  readonly groupOf: (shard: number) => string;
  losesNotices = false;

  private constructor(shardCount: number, groupOf: (shard: number) => string) {
    this.shardCount = shardCount;
    this.groupOf = groupOf;
  }

  static async create(shardCount: number, groupOf = (_shard: number) => 'g'): Promise<AgentCluster> {
    const cluster = new AgentCluster(shardCount, groupOf);
    const fixed = { clusterId: 'c', storeIncarnation: 's', createdAtMs: 0 };
    await cluster.store.initCluster({ ...fixed, shardCount });
    return cluster;
  }

  async start(agentId: string, group = 'g'): Promise<ClusterAgent> {
    const agent = new ClusterAgent(this, agentId, group);
    this.agents.push(agent);
    await agent.restart();
    return agent;
  }

  /** Time passes in small steps, so that calls of one agent land between those of another. */
  async pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 10) await this.clock.pass(Math.min(10, left));
  }

  /** Passes until it holds; the ms that it took. */
  async until(holds: () => boolean, msMax: number): Promise<number> {
    const startMs = this.clock.nowMs;
    while (!holds()) {
      assert.ok(this.clock.nowMs - startMs < msMax, `not within ${msMax} ms: ${holds}`);
      await this.pass(10);
    }
    return this.clock.nowMs - startMs;
  }

  /** Of each shard the agents that would serve it, by the store's head. */
  async holders(): Promise<(string | null)[]> {
    const heads = await this.store.listLeases();
    const registered = await this.store.listAgents();
    return heads.map(({ holder }) => registered.find((a) => a.incarnation === holder)?.agentId ?? null);
  }

  async loads(): Promise<Record<string, number>> {
    const loads: Record<string, number> = {};
    for (const holder of await this.holders()) loads[String(holder)] = (loads[String(holder)] ?? 0) + 1;
    return loads;
  }
}
