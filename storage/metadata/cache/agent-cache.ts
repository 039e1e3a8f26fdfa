/**
 * Agents by incarnation: from a lease's holder to the address where it is reached. Owns: what is remembered of
 * them. Does not own: which agents are alive (src/agent). Main thread.
 *
 * What an agent registered never changes under its incarnation, and an incarnation never comes back, so that what
 * is remembered can only be of an agent that is gone; whoever asks it finds out. A list of all agents, which every
 * heartbeat brings and else a read, replaces all that is remembered, unless a list that began later did before it, or
 * an agent was registered or deregistered here since it began. That there is no such agent is never answered from
 * memory; reads that follow one another begin `paceMs` apart.
 */
import type { Clock } from '../../../src/core/clock.ts';
import type { Agent, MetadataStore } from '../metadata-store.ts';
import type { MetadataCacheObserver } from './metadata-cache-observer.ts';
import { type Beginning, PacedReads } from './paced-reads.ts';

/** What is true of an agent for as long as it lives. */
export type RegisteredAgent = Readonly<Omit<Agent, 'heartbeatCount'>>;

export interface AgentCacheSettings {
  /** How long a list of the agents is believed. */
  agentMsMax: number;
  /** Between the beginnings of two reads for agents that were not found, ms. */
  paceMs: number;
}

const ALL = 'all agents';

export class AgentCache {
  readonly #clock: Clock;
  readonly #settings: AgentCacheSettings;
  /** By incarnation; as many as are registered. */
  #agents = new Map<number, RegisteredAgent>();
  /** When the list was read that they are of. */
  #asOfMs = Number.NEGATIVE_INFINITY;
  /** The event up to which they are right: a list that began before it knows less. */
  #asOfEvent = 0;
  readonly #observer: MetadataCacheObserver;
  #readAtMs = Number.NEGATIVE_INFINITY;
  readonly #reads: PacedReads<typeof ALL, Map<number, RegisteredAgent>>;

  constructor(
    store: MetadataStore,
    clock: Clock,
    observer: MetadataCacheObserver,
    settings: AgentCacheSettings,
  ) {
    this.#clock = clock;
    this.#settings = settings;
    this.#observer = observer;
    this.#reads = new PacedReads({
      clock,
      read: async () => {
        this.#readAtMs = clock.monotonicMs();
        return byIncarnation(await store.listAgents());
      },
      land: (_all, agents, began) => this.#land(agents, began),
      stale: () => observer.staleFill('agent'),
    });
  }

  /** undefined says nothing. */
  remembered(incarnation: number): RegisteredAgent | undefined {
    return this.#isFresh() ? this.#agents.get(incarnation) : undefined;
  }

  /** Past the memory; null: no such agent is registered any more. */
  async read(incarnation: number): Promise<RegisteredAgent | null> {
    const after = this.#reads.mark();
    const notBeforeMs = this.#readAtMs + this.#settings.paceMs;
    const isKnownAbsent = this.#isFresh() && !this.#agents.has(incarnation);
    const ticket = this.#reads.read(ALL, isKnownAbsent ? { after, notBeforeMs } : {});
    const agent = (await ticket.answer).get(incarnation);
    if (agent || !ticket.isOlder) return agent ?? null;
    return (await this.#reads.read(ALL, { after }).answer).get(incarnation) ?? null;
  }

  /** The moment from which on all agents are going to be listed by a call other than a look-up here. */
  begin(): Beginning {
    return this.#reads.begin();
  }

  /** All agents as a call listed them that began then. */
  see(agents: readonly Agent[], began: Beginning): void {
    this.#land(byIncarnation(agents), began);
  }

  #land(agents: Map<number, RegisteredAgent>, began: Beginning): void {
    if (began.order < this.#asOfEvent) {
      this.#observer.staleFill('agent');
      return;
    }
    this.#agents = agents;
    this.#asOfMs = began.atMs;
    this.#asOfEvent = began.order;
  }

  /** What is on its way was listed before what happens now. */
  #overtake(): void {
    this.#reads.overtake(ALL);
    this.#asOfEvent = this.#reads.mark();
  }

  #isFresh(): boolean {
    return this.#clock.monotonicMs() - this.#asOfMs < this.#settings.agentMsMax;
  }

  /** An agent was registered here: its former incarnation is gone. */
  registered(agent: Agent): void {
    this.#overtake();
    for (const { agentId, incarnation } of this.#agents.values()) {
      if (agentId === agent.agentId && incarnation < agent.incarnation) this.#agents.delete(incarnation);
    }
    this.#agents.set(agent.incarnation, registered(agent));
  }

  /** An agent was deregistered here, or perhaps: then the next read finds it again. */
  deregistered(incarnation: number): void {
    this.#overtake();
    this.#agents.delete(incarnation);
  }

  /** Nothing that was read is believed any more. */
  doubt(): void {
    this.#overtake();
    this.#asOfMs = Number.NEGATIVE_INFINITY;
  }
}

function byIncarnation(agents: readonly Agent[]): Map<number, RegisteredAgent> {
  return new Map(agents.map((agent) => [agent.incarnation, registered(agent)]));
}

function registered({ heartbeatCount: _, ...agent }: Agent): RegisteredAgent {
  return Object.freeze(agent);
}
