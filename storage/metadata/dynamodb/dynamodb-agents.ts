/**
 * Agents and the leases of shards. Owns: agents' items, and the raise of epochs on heads. Does not own: heads as such
 * (dynamodb-heads). The thread that hosts the store.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import { checkLeases } from '../check-input.ts';
import type { Agent, HeadOutcome } from '../metadata-store.ts';
import type { DynamodbCounters } from './dynamodb-counters.ts';
import type { EntryCopies } from './dynamodb-entry-copies.ts';
import type { DynamodbHeads } from './dynamodb-heads.ts';
import { AGENTS, agentItem, agentKey, agentOf, isKeyText } from './dynamodb-items.ts';
import { allWritten } from './dynamodb-outcomes.ts';
import type { DynamodbRequests } from './dynamodb-requests.ts';

const SAME_LEASE = '#holder = :seenHolder AND #epoch = :seenEpoch';

export class DynamodbAgents {
  readonly #requests: DynamodbRequests;
  readonly #counters: DynamodbCounters;
  readonly #heads: DynamodbHeads;
  readonly #copies: EntryCopies;

  constructor(
    requests: DynamodbRequests,
    counters: DynamodbCounters,
    heads: DynamodbHeads,
    copies: EntryCopies,
  ) {
    this.#requests = requests;
    this.#counters = counters;
    this.#heads = heads;
    this.#copies = copies;
  }

  async register(agent: Omit<Agent, 'incarnation' | 'heartbeatCount'>): Promise<Agent> {
    const { agentId, address, zone, group, version, registeredAtMs } = agent;
    if (!isKeyText(agentId))
      throw new StreamHouseError('invalid-setting', 'the agent id is too long, or no text');
    const incarnation = await this.#counters.next('incarnation', 1);
    const row = { agentId, incarnation, address, zone, group, version, heartbeatCount: 0, registeredAtMs };
    // Of two that register at once the newer stays; the older's heartbeats fail, as after any replacement.
    const condition = {
      text: 'attribute_not_exists(#pk) OR #incarnation < :incarnation',
      values: { incarnation },
    };
    try {
      await this.#requests.put(agentItem(row), 'once', { condition });
    } catch (error) {
      if (!(error instanceof StreamHouseError) || error.kind !== 'unknown') throw error;
      if ((await this.get(agentId))?.incarnation !== incarnation) throw error;
    }
    return row;
  }

  /**
   * Two requests: the beat, sent again when a reply is lost (one that counts twice is still a beat), and then a strongly
   * consistent listing, which sees at least what was there at the beat. Who is replaced in between is told so.
   */
  async heartbeat(agentId: string, incarnation: number): Promise<Agent[]> {
    if (await this.#beat(agentId, incarnation)) {
      const agents = await this.#listAfterBeat();
      if (agents.some((agent) => agent.incarnation === incarnation && agent.agentId === agentId))
        return agents;
    }
    throw new StreamHouseError('agent-not-found', `agent '${agentId}' is not registered as ${incarnation}`);
  }

  async #beat(agentId: string, incarnation: number): Promise<boolean> {
    if (!isKeyText(agentId)) return false;
    const change = {
      set: 'ADD #beats :one',
      condition: '#incarnation = :incarnation',
      values: { one: 1, incarnation },
    };
    return (await this.#requests.update(agentKey(agentId), change, 'idempotent')) !== null;
  }

  /** 'store-unknown' when it fails: the beat has counted. */
  async #listAfterBeat(): Promise<Agent[]> {
    try {
      return await this.list();
    } catch (error) {
      if (!(error instanceof StreamHouseError) || error.kind !== 'unavailable') throw error;
      throw new StreamHouseError('store-unknown', `done in part: ${error.message}`, error.detail, error);
    }
  }

  async get(agentId: string): Promise<Agent | null> {
    if (!isKeyText(agentId)) return null;
    const item = await this.#requests.get(agentKey(agentId));
    return item === null ? null : agentOf(item);
  }

  /** All agents are one query: there are as many as brokers. */
  async list(filter: { group?: string; zone?: string } = {}): Promise<Agent[]> {
    const { group, zone } = filter;
    const agents: Agent[] = [];
    for await (const some of this.#requests.query({ pk: AGENTS, lane: 'commit' }))
      agents.push(...some.map(agentOf));
    return agents.filter(
      (agent) =>
        (group === undefined || agent.group === group) && (zone === undefined || agent.zone === zone),
    );
  }

  async deregister(agentId: string, incarnation: number): Promise<void> {
    if (!isKeyText(agentId)) return;
    await this.#requests.remove(agentKey(agentId), {
      text: '#incarnation = :incarnation',
      values: { incarnation },
    });
  }

  async acquire(
    incarnation: number,
    seen: readonly { shard: number; holder: number; epoch: number }[],
  ): Promise<HeadOutcome[]> {
    checkLeases(incarnation, seen);
    await this.#heads.ensureExist(seen.map(({ shard }) => shard));
    const acquire = async ({ shard, holder, epoch }: { shard: number; holder: number; epoch: number }) => {
      const values = { seenHolder: holder, seenEpoch: epoch, epoch: epoch + 1, holder: incarnation };
      const change = { set: 'SET #epoch = :epoch, #holder = :holder', condition: SAME_LEASE, values };
      const { outcome, entry } = await this.#heads.change(shard, change);
      // The former holder may have ended before it copied this; ours is the next append.
      if (entry !== null && entry.seq > outcome.head.trimmedThrough) this.#copies.note(entry);
      return outcome;
    };
    return allWritten(seen.map(acquire), ({ kind }) => kind === 'done');
  }

  async release(
    incarnation: number,
    leases: readonly { shard: number; epoch: number }[],
  ): Promise<HeadOutcome[]> {
    checkLeases(incarnation, leases);
    await this.#heads.ensureExist(leases.map(({ shard }) => shard));
    const release = async ({ shard, epoch }: { shard: number; epoch: number }) => {
      const values = { seenHolder: incarnation, seenEpoch: epoch, nobody: 0 };
      const change = { set: 'SET #holder = :nobody', condition: SAME_LEASE, values };
      return (await this.#heads.change(shard, change)).outcome;
    };
    return allWritten(leases.map(release), ({ kind }) => kind === 'done');
  }
}
