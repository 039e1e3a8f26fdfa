/**
 * The broker as an agent: registration, heartbeats, and the loop that compares which shards it holds with which it
 * should hold, and takes and hands over in bounded moves. Owns: that comparison, what other agents are told. Does not
 * own: who is alive (membership), who should hold what (shard-plan), what is here and moves (own-shards), when it looks
 * (look-pace), takeover and handover themselves (batching worker). Main thread.
 *
 * One look, with each heartbeat and whenever something happened:
 *   leases read -> heartbeat, which lists all agents -> membership -> plan -> take, release
 * The leases are read first: a holder that is not among the agents of a later read is registered no more.
 *
 * Taken is what the plan gives to us and nobody alive holds; from the living nothing is ever taken: they release what
 * is not theirs any more. Whatever this loop believes, the head's compare-and-set decides.
 */
import type { Agent, MetadataStore, ShardHead } from '../../storage/metadata/metadata-store.ts';
import type { SeenLease } from '../../workers/messages.ts';
import type { Clock } from '../core/clock.ts';
import { asOperatingError, kindOf, type PlainError, StreamHouseError } from '../core/errors.ts';
import type { Random } from '../core/random.ts';
import type { HeldShard, LeasesMoved } from '../route/peer-duties.ts';
import { LookPace } from './look-pace.ts';
import { type Member, Membership } from './membership.ts';
import { OwnShards } from './own-shards.ts';
import { planShards } from './shard-plan.ts';
import { StoreTouch } from './store-touch.ts';

export interface AgentSettings {
  agentId: string;
  zone: string;
  group: string;
  version: string;
  shardCount: number;
  heartbeatMs: number;
  /** Silence after which an agent is dead; at least three heartbeats. */
  deadAgentMs: number;
  /** Nobody else can use the store: then no silence of ours lets anybody else take what we hold. */
  isAlone: boolean;
}

export interface AgentParts {
  settings: AgentSettings;
  store: MetadataStore;
  clock: Clock;
  random: Random;
  /** Where others reach this broker, HOST:PORT. */
  address(): string;
  /** The group whose agents hold a shard. */
  groupOf(shard: number): string;
  take(leases: SeenLease[]): void;
  release(shards: number[]): void;
  /** Tells another agent; what is lost on the way its next look mends. */
  notify(agent: Agent, notice: LeasesMoved): Promise<void>;
  /** `mayServe` is false since, or others took shards of ours: reads under way are not to be answered. */
  outOfTouch(): void;
  /** A shard is served here since, or no longer. */
  changed(shard: number): void;
  /** Some agent is gone, in whatever way: what it had begun is to be ended by another. */
  agentGone(): void;
  /** This agent's registration was replaced: another process runs under its id. */
  replaced(error: StreamHouseError): void;
  /** This agent's registration was removed while it was silent: it needs a new incarnation. */
  reaped(): void;
  info(message: string, fields: Record<string, unknown>): void;
  warn(message: string, fields: Record<string, unknown>): void;
}

/** A dead agent's row is removed when it has been dead for so many times the time after which it is. */
const REAP_FACTOR = 4;
/** Heartbeats that failed in a row, after which an agent that leaves hands nothing over any more. */
const STORE_AWAY_FAILURES = 2;
export class AgentLoop {
  readonly #parts: AgentParts;
  readonly #membership: Membership;
  readonly #touch: StoreTouch;
  readonly #shards = new OwnShards();
  readonly #pace: LookPace;
  /** The newest leases read; empty before the first look. */
  #leases: readonly ShardHead[] = [];
  /** By shard, who should hold it. */
  #plan = new Map<number, number>();
  #incarnation = 0;
  /** The incarnation under which the others have been told that it is there, and beats. */
  #greetedAs = 0;
  /** Incarnations that were heard of for the first time: they may not know either that we are alive. */
  readonly #toAnswer = new Set<number>();
  /** From the first try to register until one is answered: the store may know a newer incarnation than we do. */
  #registering = false;
  /** A batching worker runs. */
  #serving = false;
  #leaving = false;
  #stopped = false;
  #heartbeatFailures = 0;
  /** Incarnations that were registered, and are not known to be gone. */
  #present = new Set<number>();
  #settledWaiters: (() => void)[] = [];

  constructor(parts: AgentParts) {
    this.#parts = parts;
    const { deadAgentMs, isAlone } = parts.settings;
    this.#membership = new Membership({ deadMs: deadAgentMs, pauseMsMax: deadAgentMs / 2 });
    this.#pace = new LookPace({
      clock: parts.clock,
      look: () => this.#look(),
      pauseMs: () => this.#pauseMs(),
    });
    this.#touch = new StoreTouch(parts.clock, (deadAgentMs * 2) / 3, () => isAlone || parts.outOfTouch());
  }

  // -- What others ask ---------------------------------------------------------------------------------

  get incarnation(): number {
    return this.#incarnation;
  }

  /** The epoch under which a shard is served here; undefined: it is not, or is being handed over. */
  epochHere(shard: number): number | undefined {
    return this.#shards.epochHere(shard);
  }

  /** What is held, being handed over or not. */
  held(): HeldShard[] {
    return this.#shards.list();
  }

  get heldCount(): number {
    return this.#shards.heldCount;
  }

  /** Shards that are being handed over. */
  get releasingCount(): number {
    return this.#shards.releasingCount;
  }

  /** All leases as of the last look; empty before the first. */
  get leases(): readonly ShardHead[] {
    return this.#leases;
  }

  /** It hands everything over and gets nothing more. */
  get isLeaving(): boolean {
    return this.#leaving;
  }

  /** Registered agents as of the last look. */
  members(): Member[] {
    return this.#membership.members();
  }

  /**
   * Whether reads may be answered: not when our last confirmed heartbeat is so old that others may have taken our
   * shards. DESIGN.md section 6.
   */
  mayServe(): boolean {
    return this.#parts.settings.isAlone || this.#touch.isKept;
  }

  /** Why this broker does not do all that it should; for people. */
  reasons(): string[] {
    const reasons: string[] = [];
    const missing = [...this.#plan].filter(([shard, owner]) => {
      return owner === this.#incarnation && !this.#shards.isHeld(shard);
    });
    if (this.#leases.length === 0) reasons.push('the leases have not been read yet');
    if (missing.length > 0) reasons.push(`${missing.length} shards that should be served here are not`);
    if (!this.mayServe()) reasons.push('its heartbeats do not reach the metadata store');
    return reasons;
  }

  // -- Registration ------------------------------------------------------------------------------------

  /** Registers this agent anew; the incarnation under which the next batching worker writes. */
  async register(): Promise<number> {
    const { agentId, zone, group, version } = this.#parts.settings;
    const { store, clock } = this.#parts;
    const address = this.#parts.address();
    const registeredAtMs = Math.max(0, Math.floor(clock.wallMs()));
    this.#registering = true;
    const sentMs = clock.monotonicMs();
    const agent = await store.registerAgent({ agentId, address, zone, group, version, registeredAtMs });
    this.#registering = false;
    this.#touch.confirmed(sentMs);
    this.#incarnation = agent.incarnation;
    return agent.incarnation;
  }

  // -- The batching worker -----------------------------------------------------------------------------

  /** A batching worker runs under the newest incarnation and holds nothing. */
  sequencerUp(): void {
    this.#serving = true;
    this.#forgetShards();
    this.lookSoon();
  }

  sequencerLost(): void {
    this.#serving = false;
    this.#forgetShards();
  }

  #forgetShards(): void {
    for (const shard of this.#shards.forgetAll()) this.#parts.changed(shard);
  }

  heldNow(shard: number, epoch: number): void {
    this.#shards.held(shard, epoch, this.#parts.clock.wallMs());
    this.#parts.changed(shard);
    this.#settle();
  }

  lost(shard: number, error: PlainError): void {
    const delayMs = this.#shards.lost(shard, this.#parts.clock.monotonicMs());
    // Somebody else was first: that is how rivals part.
    const isRivalry = kindOf(error.code) === 'conflict';
    this.#parts[isRivalry ? 'info' : 'warn']('a shard was lost', { shard, error });
    this.#parts.changed(shard);
    this.lookSoon(delayMs);
    this.#settle();
  }

  released(shard: number, epoch: number): void {
    this.#shards.released(shard);
    this.#parts.changed(shard);
    this.#tellSuccessor(shard, epoch);
    this.lookSoon();
    this.#settle();
  }

  #tellSuccessor(shard: number, epoch: number): void {
    const owner = this.#plan.get(shard);
    const successor = this.members().find(({ agent }) => agent.incarnation === owner);
    if (successor && owner !== this.#incarnation) this.#tell(successor.agent, [{ shard, epoch }]);
  }

  #tell(agent: Agent, shards: LeasesMoved['shards']): void {
    const notice = { from: this.#incarnation, leaving: this.#leaving, shards };
    this.#parts.notify(agent, notice).catch((error: unknown) => {
      const failure = asOperatingError(error, 'not-leader', 'telling another agent');
      this.#parts.info('an agent could not be told', { agent: agent.agentId, error: failure.toPlain() });
    });
  }

  /** Another agent tells that it released shards, or that it leaves. */
  leasesMoved({ from, leaving }: LeasesMoved): void {
    const known = this.members().find(({ agent }) => agent.incarnation === from);
    if (!known?.isSeen) this.#toAnswer.add(from);
    this.#membership.noteHeard(from);
    if (leaving) this.#membership.noteLeaving(from);
    this.lookSoon();
  }

  // -- Looking -----------------------------------------------------------------------------------------

  /** Looks after `delayMs`, or soon after if looks come too fast. */
  lookSoon(delayMs = 0): void {
    this.#pace.soon(delayMs);
  }

  /**
   * From one look to the next, if nothing happens: a heartbeat; less when a rival is late, so that its death is seen
   * soon.
   */
  #pauseMs(): number {
    const { heartbeatMs, deadAgentMs } = this.#parts.settings;
    const late = this.#membership.someoneIsLate(this.#incarnation, heartbeatMs * 1.5);
    const pauseMs = late ? Math.min(heartbeatMs, deadAgentMs / 15) : heartbeatMs;
    return pauseMs * (0.9 + this.#parts.random.unit() / 10);
  }

  async #look(): Promise<void> {
    const { store, clock, settings } = this.#parts;
    const incarnation = this.#incarnation;
    if (incarnation === 0 || this.#registering || this.#stopped) return;
    try {
      const beganMs = clock.monotonicMs();
      const leases = await store.listLeases();
      const askedMs = clock.monotonicMs();
      const agents = await store.heartbeat(settings.agentId, incarnation);
      if (this.#stopped || this.#registering || incarnation !== this.#incarnation) return;
      // As of the leases: should we have slept since they were read, the heartbeat says nothing of what they say.
      this.#touch.confirmed(beganMs);
      this.#heartbeatFailures = 0;
      this.#membership.observe(agents, askedMs, clock.monotonicMs());
      this.#leases = leases;
      this.#dropOvertaken();
      this.#compare();
      this.#greet();
      this.#answerGreetings();
      await this.#reap();
    } catch (error) {
      await this.#lookFailed(asOperatingError(error, 'store-unavailable', 'heartbeat'), incarnation);
    }
  }

  async #lookFailed(failure: StreamHouseError, incarnation: number): Promise<void> {
    // Whoever stops has given its registration up: a heartbeat still under way finds it gone.
    if (this.#stopped) return;
    this.#membership.broken();
    // A batching worker that is started again registers anew: that is no rival.
    const ours = this.#registering || incarnation !== this.#incarnation;
    if (failure.code === 'agent-not-found') {
      if (!ours) await this.#notRegistered();
      return;
    }
    this.#heartbeatFailures++;
    this.#parts.warn('a heartbeat failed', { error: failure.toPlain(), inARow: this.#heartbeatFailures });
    this.#settle();
  }

  /** Our row is gone: another process has our name, or we were silent for so long that we were buried. */
  async #notRegistered(): Promise<void> {
    const { store, settings } = this.#parts;
    let row: Agent | null;
    try {
      row = await store.getAgent(settings.agentId);
    } catch (error) {
      const failure = asOperatingError(error, 'store-unavailable', 'looking for our registration');
      this.#parts.warn('a heartbeat failed', { error: failure.toPlain(), inARow: ++this.#heartbeatFailures });
      return;
    }
    if (this.#stopped || this.#registering || row?.incarnation === this.#incarnation) return;
    if (row && row.incarnation > this.#incarnation) {
      this.#parts.replaced(
        new StreamHouseError(
          'conflict',
          `another broker has registered as agent ${settings.agentId}; this one stops`,
        ),
      );
      return;
    }
    this.#parts.warn('this agent was taken for dead and its registration removed; it registers anew', {});
    this.#parts.reaped();
  }

  /** Rows of the long dead that hold nothing are removed, by one agent. */
  async #reap(): Promise<void> {
    const { store, clock, settings } = this.#parts;
    const members = this.members();
    const first = members.find(({ state }) => state === 'live');
    if (first?.agent.incarnation !== this.#incarnation) return;
    const beforeMs = clock.monotonicMs() - settings.deadAgentMs * REAP_FACTOR;
    for (const { agent, state, silentSinceMs } of members) {
      if (state !== 'dead' || silentSinceMs > beforeMs) continue;
      if (this.#leases.some(({ holder }) => holder === agent.incarnation)) continue;
      this.#parts.info('a dead agent is removed', { agent: agent.agentId, incarnation: agent.incarnation });
      await store.deregisterAgent(agent.agentId, agent.incarnation);
    }
  }

  /** The others look at once, and need not wait for a heartbeat to find out what is theirs and ours from now on. */
  #greet(): void {
    if (!this.#serving || this.#greetedAs === this.#incarnation) return;
    this.#greetedAs = this.#incarnation;
    for (const { agent } of this.#others()) this.#tell(agent, []);
  }

  /** Tells those who have just come that we are alive, which they would else know with our next heartbeat. */
  #answerGreetings(): void {
    for (const { agent } of this.#others()) if (this.#toAnswer.has(agent.incarnation)) this.#tell(agent, []);
    // One that is not registered was none of ours, or has gone.
    this.#toAnswer.clear();
  }

  /**
   * Others have taken shards over that we still serve: while we were asleep or cut off, and nothing was written here
   * since. The leases were read before the heartbeat by which reads are answered again, so none is in between.
   */
  #dropOvertaken(): void {
    const overtaken = this.#leases.filter(({ shard, epoch }) => this.#shards.isOvertaken(shard, epoch));
    if (overtaken.length === 0) return;
    for (const { shard } of overtaken) {
      this.#shards.released(shard);
      this.#parts.changed(shard);
    }
    this.#parts.warn('shards were taken over by others', { shards: overtaken.map(({ shard }) => shard) });
    // Reads that are under way may have been answered from what is old by now.
    this.#parts.outOfTouch();
    // It looks at the heads itself, lets them go, and tells.
    this.#parts.take(overtaken.map(({ shard, holder, epoch }) => ({ shard, holder, epoch })));
  }

  // -- Comparing ---------------------------------------------------------------------------------------

  #compare(): void {
    const members = this.members();
    this.#noteGone(members);
    const holders = new Set(this.#leases.map(({ holder }) => holder));
    const able = members.filter(({ agent, state, isSeen }) => {
      if (agent.incarnation === this.#incarnation) return !this.#leaving;
      return state === 'live' && (isSeen || holders.has(agent.incarnation));
    });
    const { groupOf } = this.#parts;
    const shards = this.#leases.map(({ shard, holder }) => ({ shard, holder, group: groupOf(shard) }));
    this.#plan = planShards(
      shards,
      able.map(({ agent }) => agent),
    );
    if (this.#serving) {
      this.#takeMissing();
      this.#releaseForeign();
      void this.#releaseForgotten();
    }
    this.#settle();
  }

  /** Whoever died, left or began anew may have left something behind that another must end. */
  #noteGone(members: readonly Member[]): void {
    const before = this.#present;
    this.#present = new Set();
    for (const { agent, state } of members) {
      const { incarnation, agentId } = agent;
      if (state !== 'dead') this.#present.add(incarnation);
      else if (before.has(incarnation)) this.#parts.warn('an agent is dead', { agent: agentId, incarnation });
    }
    for (const incarnation of before) {
      if (this.#present.has(incarnation)) continue;
      this.#parts.agentGone();
      return;
    }
  }

  /** Takes what should be ours and nobody alive holds. */
  #takeMissing(): void {
    const wanted = this.#leases.filter(({ shard, holder }) => {
      return this.#plan.get(shard) === this.#incarnation && this.#isFree(holder);
    });
    const { leases, waitMs } = this.#shards.take(wanted, this.#parts.clock.monotonicMs());
    if (waitMs !== null) this.lookSoon(waitMs);
    if (leases.length > 0) this.#parts.take(leases);
  }

  /** Whether nobody else serves under a lease of this holder. */
  #isFree(holder: number): boolean {
    return holder === 0 || holder === this.#incarnation || this.#membership.isGone(holder);
  }

  /** Hands over what should be another's. */
  #releaseForeign(): void {
    const shards = this.#shards.release((shard) => this.#isForeign(shard), this.#parts.clock.monotonicMs());
    if (shards.length === 0) return;
    for (const shard of shards) this.#parts.changed(shard);
    this.#parts.release(shards);
  }

  /** Whether somebody else should hold it. */
  #isForeign(shard: number): boolean {
    const owner = this.#plan.get(shard);
    return owner !== undefined && owner !== this.#incarnation;
  }

  /** Leases that bear us though we serve nothing under them, for shards that others should hold. */
  async #releaseForgotten(): Promise<void> {
    const leases = this.#leases.filter(({ shard, holder }) => {
      return holder === this.#incarnation && !this.#shards.isOurs(shard) && this.#isForeign(shard);
    });
    if (leases.length === 0) return;
    try {
      await this.#parts.store.releaseLeases(this.#incarnation, leases);
    } catch (error) {
      const failure = asOperatingError(error, 'store-unavailable', 'releasing leases');
      this.#parts.warn('leases could not be released', { error: failure.toPlain() });
      return;
    }
    for (const { shard, epoch } of leases) this.#tellSuccessor(shard, epoch);
  }

  // -- Waiting -----------------------------------------------------------------------------------------

  /**
   * Resolves when every shard of our group is served by us or leased by somebody who is not known to be gone. Whoever
   * has just come knows of nobody that it is dead.
   */
  async settled(signal: AbortSignal): Promise<void> {
    await this.#until(signal, () => this.#isSettled());
  }

  #isSettled(): boolean {
    if (this.#leases.length === 0 || this.#shards.takingCount > 0) return false;
    const { groupOf, settings } = this.#parts;
    return this.#leases.every(({ shard, holder }) => {
      if (groupOf(shard) !== settings.group || this.#shards.isHeld(shard)) return true;
      return holder !== 0 && holder !== this.#incarnation && !this.#membership.isGone(holder);
    });
  }

  /**
   * Hands all shards over to the other live agents of the group; resolves when none is held, or there is nobody to take
   * them, or no store to tell of it. The agent beats on until `stop`.
   */
  async leave(signal: AbortSignal): Promise<void> {
    this.#leaving = true;
    for (const { agent } of this.#others()) this.#tell(agent, []);
    this.lookSoon();
    await this.#until(signal, () => {
      if (this.#shards.heldCount === 0 && this.#shards.takingCount === 0) return true;
      // Those that might take over may leave as well meanwhile, or die; or the store is away from us.
      return !this.#hasSuccessor() || this.#heartbeatFailures >= STORE_AWAY_FAILURES;
    });
  }

  #hasSuccessor(): boolean {
    return this.#others().some(({ agent }) => agent.group === this.#parts.settings.group);
  }

  #others(): Member[] {
    return this.members().filter(({ agent, state }) => {
      return state === 'live' && agent.incarnation !== this.#incarnation;
    });
  }

  #until(signal: AbortSignal, holds: () => boolean): Promise<void> {
    if (holds() || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const look = () => {
        if (!holds() && !signal.aborted) {
          this.#settledWaiters.push(look);
          return;
        }
        signal.removeEventListener('abort', look);
        resolve();
      };
      signal.addEventListener('abort', look, { once: true });
      this.#settledWaiters.push(look);
    });
  }

  #settle(): void {
    for (const look of this.#settledWaiters.splice(0)) look();
  }

  /** Ends the loop; `deregister` besides when the shards were released. */
  stop(): void {
    this.#stopped = true;
    this.#touch.stop();
    this.#pace.stop();
  }

  async deregister(): Promise<void> {
    await this.#parts.store.deregisterAgent(this.#parts.settings.agentId, this.#incarnation);
  }
}
