/**
 * The broker as an agent: registration, heartbeats, and the loop that compares which shards are held with which
 * should be. Owns: that comparison and its retries; it holds no other state. Does not own: takeover itself
 * (batching worker). Main thread. A broker that is alone should hold every shard.
 */
import type { Agent, MetadataStore } from '../../storage/metadata/metadata-store.ts';
import type { Clock, Timer } from '../core/clock.ts';
import { asOperatingError, type PlainError, StreamHouseError } from '../core/errors.ts';

export interface AgentSettings {
  agentId: string;
  address: string;
  zone: string;
  group: string;
  version: string;
  shardCount: number;
  heartbeatMs: number;
}

export interface AgentParts {
  settings: AgentSettings;
  store: MetadataStore;
  clock: Clock;
  /** Reads the leases of all shards anew, in one statement; with each heartbeat. */
  refreshLeases(): Promise<void>;
  take(shards: number[]): void;
  /** This agent's registration was replaced: another process runs under its id. */
  replaced(error: StreamHouseError): void;
  info(message: string, fields: Record<string, unknown>): void;
  warn(message: string, fields: Record<string, unknown>): void;
}

/** Between two tries to take a shard that was lost, ms: doubled with each loss in a row. */
const RETAKE_MS_FIRST = 50;
const RETAKE_MS_MAX = 5000;

export class AgentLoop {
  readonly #parts: AgentParts;
  readonly #held = new Map<number, number>();
  readonly #losses = new Map<number, number>();
  readonly #timers = new Set<Timer>();
  #incarnation = 0;
  /** From the first try to register until one is answered: the store may know a newer incarnation than we do. */
  #registering = false;
  #serving = false;
  #stopped = false;
  #heartbeatFailures = 0;

  constructor(parts: AgentParts) {
    this.#parts = parts;
  }

  get incarnation(): number {
    return this.#incarnation;
  }

  /** Registers this agent anew; the incarnation under which the next batching worker writes. */
  async register(): Promise<number> {
    const { agentId, address, zone, group, version } = this.#parts.settings;
    const registeredAtMs = Math.max(0, Math.floor(this.#parts.clock.wallMs()));
    this.#registering = true;
    const agent: Agent = await this.#parts.store.registerAgent({
      agentId,
      address,
      zone,
      group,
      version,
      registeredAtMs,
    });
    this.#registering = false;
    const isFirst = this.#incarnation === 0;
    this.#incarnation = agent.incarnation;
    if (isFirst) this.#scheduleHeartbeat();
    return agent.incarnation;
  }

  /** The epoch under which a shard is held; undefined: it is not. */
  epochOf(shard: number): number | undefined {
    return this.#held.get(shard);
  }

  get heldCount(): number {
    return this.#held.size;
  }

  /** A batching worker runs and holds nothing: it should hold everything. */
  sequencerUp(): void {
    this.#serving = true;
    this.#held.clear();
    this.#parts.take(Array.from({ length: this.#parts.settings.shardCount }, (_, shard) => shard));
  }

  sequencerLost(): void {
    this.#serving = false;
    this.#held.clear();
  }

  held(shard: number, epoch: number): void {
    this.#held.set(shard, epoch);
    this.#losses.delete(shard);
    if (this.#held.size === this.#parts.settings.shardCount) {
      this.#parts.info('all shards are served', { shards: this.#held.size, incarnation: this.#incarnation });
    }
  }

  lost(shard: number, error: PlainError): void {
    this.#held.delete(shard);
    const losses = this.#losses.get(shard) ?? 0;
    this.#losses.set(shard, losses + 1);
    this.#parts.warn('a shard was lost', { shard, error });
    const delayMs = Math.min(RETAKE_MS_MAX, RETAKE_MS_FIRST * 2 ** Math.min(losses, 10));
    this.#later(delayMs, () => {
      if (this.#serving && !this.#held.has(shard)) this.#parts.take([shard]);
    });
  }

  /** It was handed over. */
  released(shard: number): void {
    this.#held.delete(shard);
  }

  #later(delayMs: number, fire: () => void): void {
    const timer = this.#parts.clock.after(delayMs, () => {
      this.#timers.delete(timer);
      if (!this.#stopped) fire();
    });
    this.#timers.add(timer);
  }

  #scheduleHeartbeat(): void {
    this.#later(this.#parts.settings.heartbeatMs, () => {
      void this.#refreshLeases();
      void this.#heartbeat().finally(() => {
        if (!this.#stopped) this.#scheduleHeartbeat();
      });
    });
  }

  async #heartbeat(): Promise<void> {
    const incarnation = this.#incarnation;
    try {
      await this.#parts.store.heartbeat(this.#parts.settings.agentId, incarnation);
      this.#heartbeatFailures = 0;
    } catch (error) {
      const failure = asOperatingError(error, 'store-unavailable', 'heartbeat');
      // Whoever stops has given its registration up: a heartbeat still under way finds it gone.
      if (this.#stopped) return;
      // A batching worker that is started again registers anew: that is no rival.
      const ours = this.#registering || incarnation !== this.#incarnation;
      if (failure.code === 'agent-not-found' && !ours) {
        this.#parts.replaced(
          new StreamHouseError(
            'conflict',
            `another broker has registered as agent ${this.#parts.settings.agentId}; this one stops`,
          ),
        );
        return;
      }
      this.#heartbeatFailures++;
      this.#parts.warn('a heartbeat failed', { error: failure.toPlain(), inARow: this.#heartbeatFailures });
    }
  }

  /** No heartbeat waits for it: what is known of the leases only grows old. */
  async #refreshLeases(): Promise<void> {
    try {
      await this.#parts.refreshLeases();
    } catch (error) {
      if (this.#stopped) return;
      const failure = asOperatingError(error, 'store-unavailable', 'reading the leases');
      this.#parts.warn('the leases could not be read anew', { error: failure.toPlain() });
    }
  }

  /** Ends the loop; `deregister` besides when the shards were released. */
  stop(): void {
    this.#stopped = true;
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }

  async deregister(): Promise<void> {
    await this.#parts.store.deregisterAgent(this.#parts.settings.agentId, this.#incarnation);
  }
}
