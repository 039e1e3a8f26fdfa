/**
 * Which agents are alive, as this one has observed. Owns: the observations and the rule by which a silent agent is
 * dead. Does not own: heartbeats (agent-loop), what follows from a death (shard-plan). No I/O, no timers. Main thread.
 *
 *   joining   registered, has not beaten yet: it may not be able to serve
 *   live      its heartbeat count rises
 *   leaving   it said that it stops; counts as live for the shards that it still holds, and gets no more
 *   dead      its count stood still for too long
 *
 * An observation is a list of all agents that was read from the store, with our own monotonic times before and after
 * the read; no other clock is looked at. A count that is first seen by one observation was raised after the observation
 * before it: that earlier moment is where the silence begins, but no more than a third of `deadMs` back. So an agent
 * is dead `deadMs` after its last heartbeat, as soon as somebody looks, and never before two thirds of that: when it
 * has stopped serving by itself (agent-loop, `mayServe`).
 *
 * Whoever has just come finds rows of which some may be of agents that died long ago. It cannot know them for dead yet,
 * nor for alive before their count rises or they are heard of otherwise (`isSeen`): shards that they hold are left to
 * them, but none is meant for them.
 *
 * Only unbroken observation proves a death: after a read that failed, or a pause in which nothing was read (we slept),
 * the silence of all rivals begins anew, for the store may have been away for all of them.
 */
import type { Agent } from '../../storage/metadata/metadata-store.ts';

export type MemberState = 'joining' | 'live' | 'leaving' | 'dead';

export interface Member {
  readonly agent: Agent;
  readonly state: MemberState;
  /** Monotonic ms at which its silence began. */
  readonly silentSinceMs: number;
  /** It has given a sign of life since we look. */
  readonly isSeen: boolean;
}

export interface MembershipSettings {
  /** Silence after which an agent is dead, ms. */
  deadMs: number;
  /** Between the end of one observation and the beginning of the next, ms; more breaks the watch. */
  pauseMsMax: number;
}

interface Watched {
  agent: Agent;
  silentSinceMs: number;
  isDead: boolean;
  isSeen: boolean;
}

export class Membership {
  readonly #settings: MembershipSettings;
  /** By incarnation. */
  #watched = new Map<number, Watched>();
  /** Incarnations that said that they leave; forgotten when they are registered no more. */
  readonly #leaving = new Set<number>();
  /** End of the last observation; null: the watch is broken. */
  #observedAtMs: number | null = null;
  #newestIncarnation = 0;
  #isFirst = true;

  constructor(settings: MembershipSettings) {
    this.#settings = settings;
  }

  /** Agents as a read found them that was asked at `askedAtMs` and answered at `answeredAtMs`, both monotonic. */
  observe(agents: readonly Agent[], askedAtMs: number, answeredAtMs: number): void {
    const before = this.#observedAtMs;
    const unbroken = before !== null && askedAtMs - before <= this.#settings.pauseMsMax;
    const watched = new Map<number, Watched>();
    for (const agent of agents) {
      const { incarnation } = agent;
      this.#newestIncarnation = Math.max(this.#newestIncarnation, incarnation);
      const known = this.#watched.get(incarnation);
      let silentSinceMs = answeredAtMs;
      const raised = known !== undefined && known.agent.heartbeatCount !== agent.heartbeatCount;
      if (unbroken && known) {
        const { deadMs } = this.#settings;
        silentSinceMs = raised ? Math.max(before, answeredAtMs - deadMs / 3) : known.silentSinceMs;
      }
      const isDead = askedAtMs - silentSinceMs >= this.#settings.deadMs;
      // One that was not there the last time has just come.
      const isSeen = raised || (known ? known.isSeen : !this.#isFirst);
      watched.set(incarnation, { agent, silentSinceMs, isDead, isSeen });
    }
    this.#watched = watched;
    this.#isFirst = false;
    for (const incarnation of this.#leaving) if (!watched.has(incarnation)) this.#leaving.delete(incarnation);
    this.#observedAtMs = answeredAtMs;
  }

  /** A read failed: until now nobody can be said to have been silent. */
  broken(): void {
    this.#observedAtMs = null;
  }

  /** An agent said something. */
  noteHeard(incarnation: number): void {
    const watched = this.#watched.get(incarnation);
    if (watched) watched.isSeen = true;
  }

  /** An agent said that it leaves. Nothing if it is not registered as far as is known. */
  noteLeaving(incarnation: number): void {
    if (this.#watched.has(incarnation)) this.#leaving.add(incarnation);
  }

  /** All registered agents as of the last observation, by incarnation. */
  members(): Member[] {
    const all = [...this.#watched.values()].sort((a, b) => a.agent.incarnation - b.agent.incarnation);
    return all.map((watched) => ({
      agent: watched.agent,
      silentSinceMs: watched.silentSinceMs,
      isSeen: watched.isSeen,
      state: this.#stateOf(watched),
    }));
  }

  #stateOf({ agent, isDead }: Watched): MemberState {
    if (isDead) return 'dead';
    if (this.#leaving.has(agent.incarnation)) return 'leaving';
    return agent.heartbeatCount === 0 ? 'joining' : 'live';
  }

  /**
   * Whether nobody acts as this incarnation any more, as far as anybody can know: it is dead, or it was observed to be
   * registered no more. One that is newer than all that were observed is not gone: it has come since.
   */
  isGone(incarnation: number): boolean {
    const watched = this.#watched.get(incarnation);
    if (watched) return watched.isDead;
    return incarnation <= this.#newestIncarnation;
  }

  /** Whether some rival of `self` has been silent for longer than `ms` and is not dead yet: then look more often. */
  someoneIsLate(self: number, ms: number): boolean {
    const now = this.#observedAtMs;
    if (now === null) return false;
    for (const { agent, silentSinceMs, isDead } of this.#watched.values()) {
      if (agent.incarnation !== self && !isDead && now - silentSinceMs > ms) return true;
    }
    return false;
  }
}
