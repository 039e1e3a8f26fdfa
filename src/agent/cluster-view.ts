/**
 * The cluster as this broker sees it, for people and for clients that look for a broker. Owns: putting together what
 * the agent loop has observed and what the holders answer. Does not own: any of it. Nothing here fences. Main thread.
 */
import type { CachedMetadataStore } from '../../storage/metadata/cached-metadata-store.ts';
import type { Agent } from '../../storage/metadata/metadata-store.ts';
import type { Clock } from '../core/clock.ts';
import { operatingError } from '../core/errors.ts';
import type { ClusterMember, ClusterView, ShardHolding } from '../route/broker.ts';
import type { HeldShard } from '../route/peer-duties.ts';
import type { AgentLoop } from './agent-loop.ts';

export interface ClusterViewParts {
  agent: AgentLoop;
  store: CachedMetadataStore;
  clock: Clock;
  shardOf(topicId: number, partition: number): number;
  /** Asks another agent what it holds; operating errors where it cannot be asked. */
  heldBy(agent: Agent): Promise<readonly HeldShard[]>;
}

export function clusterView(parts: ClusterViewParts): ClusterView {
  return {
    members: () => membersOf(parts),
    shards: () => shardsOf(parts),
    leaderOf(topicId, partition) {
      const shard = parts.shardOf(topicId, partition);
      if (parts.agent.epochHere(shard) !== undefined) return parts.agent.incarnation;
      return parts.store.peekLease(shard)?.holder ?? null;
    },
  };
}

function membersOf({ agent: loop, clock }: ClusterViewParts): ClusterMember[] {
  const nowMs = clock.monotonicMs();
  const shardCounts = new Map<number, number>();
  for (const { holder } of loop.leases) shardCounts.set(holder, (shardCounts.get(holder) ?? 0) + 1);
  return loop.members().map(({ agent, state, silentSinceMs }) => {
    const { heartbeatCount: _, ...registered } = agent;
    const isSelf = agent.incarnation === loop.incarnation;
    return {
      ...registered,
      isSelf,
      // One that has registered and not beaten yet is about to.
      state: isSelf && loop.isLeaving ? 'leaving' : state === 'joining' ? 'live' : state,
      heartbeatAgeMs: Math.max(0, Math.floor(nowMs - silentSinceMs)),
      shardCount: isSelf ? loop.heldCount : (shardCounts.get(agent.incarnation) ?? 0),
    };
  });
}

async function shardsOf(parts: ClusterViewParts): Promise<ShardHolding[]> {
  const { agent: loop, store, heldBy } = parts;
  const leases = await store.listLeases();
  const members = loop.members().map(({ agent }) => agent);
  const since = new Map<string, number>();
  const note = (incarnation: number, held: readonly HeldShard[]) => {
    for (const { shard, epoch, sinceMs } of held) since.set(`${incarnation}/${shard}/${epoch}`, sinceMs);
  };
  note(loop.incarnation, loop.held());
  const holders = members.filter(({ incarnation }) => {
    return incarnation !== loop.incarnation && leases.some(({ holder }) => holder === incarnation);
  });
  await Promise.all(
    holders.map(async (agent) => {
      try {
        note(agent.incarnation, await heldBy(agent));
      } catch (error) {
        // It stays unknown since when; a bug of ours is thrown on.
        operatingError(error);
      }
    }),
  );
  return leases.map(({ shard, holder, epoch, headSeq }) => {
    const agentId = members.find(({ incarnation }) => incarnation === holder)?.agentId ?? null;
    return {
      shard,
      holder,
      agentId,
      epoch,
      sinceMs: since.get(`${holder}/${shard}/${epoch}`) ?? null,
      headSeq,
    };
  });
}
