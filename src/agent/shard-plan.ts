/**
 * Which agent should hold which shard: a pure function of the leases and the agents, so that all agents that see the
 * same come to the same plan. Owns: that function. Does not own: acting on it (agent-loop). Main thread.
 *
 * Every live agent of a group gets floor(S / n) or ceil(S / n) of the group's S shards. Whoever holds a shard keeps it
 * unless it holds more than its share: then it gives up those for which it scores lowest. What is free goes to agents
 * below their share, each shard to the one that scores highest for it (rendezvous hashing). So an agent that joins
 * receives its fair share and nothing else moves, and an agent that is gone leaves its shards to all others: a plan
 * that knows nothing of present holders moves more (docs/decisions/shard-assignment.md has the numbers).
 */

/** A shard's lease as far as the plan is concerned. */
export interface PlannedShard {
  readonly shard: number;
  /** The holder's incarnation; 0 for none. */
  readonly holder: number;
  /** The group whose agents may hold it. */
  readonly group: string;
}

/** An agent that may get shards. */
export interface PlannedAgent {
  readonly agentId: string;
  readonly incarnation: number;
  readonly group: string;
}

/** Of the agent for the shard, 0 to 2^32 - 1: FNV-1a over both, mixed. */
export function rendezvousScore(agentId: string, shard: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < agentId.length; i++) hash = Math.imul(hash ^ agentId.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ shard, 0x9e3779b1);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** By shard, the incarnation that should hold it; a shard whose group has no agent is not in it. */
export function planShards(
  shards: readonly PlannedShard[],
  agents: readonly PlannedAgent[],
): Map<number, number> {
  const plan = new Map<number, number>();
  for (const group of new Set(shards.map((shard) => shard.group))) {
    const own = shards.filter((shard) => shard.group === group);
    const able = agents.filter((agent) => agent.group === group);
    if (able.length > 0) planGroup(own, able, plan);
  }
  return plan;
}

interface Share {
  agent: PlannedAgent;
  held: number[];
  target: number;
}

function planGroup(
  shards: readonly PlannedShard[],
  agents: readonly PlannedAgent[],
  plan: Map<number, number>,
): void {
  const shares = new Map<number, Share>();
  for (const agent of agents) shares.set(agent.incarnation, { agent, held: [], target: 0 });
  const free: number[] = [];
  for (const { shard, holder } of shards) (shares.get(holder)?.held ?? free).push(shard);

  // Those that hold most get the larger shares, so that the fewest shards move.
  const ordered = [...shares.values()].sort(
    (a, b) => b.held.length - a.held.length || compare(a.agent.agentId, b.agent.agentId),
  );
  const floor = Math.floor(shards.length / ordered.length);
  const larger = shards.length % ordered.length;
  for (const [i, share] of ordered.entries()) share.target = floor + (i < larger ? 1 : 0);

  for (const { agent, held, target } of ordered) {
    const score = (shard: number) => rendezvousScore(agent.agentId, shard);
    held.sort((a, b) => score(b) - score(a) || a - b);
    free.push(...held.splice(target));
    for (const shard of held) plan.set(shard, agent.incarnation);
  }
  free.sort((a, b) => a - b);
  for (const shard of free) {
    let best: Share | null = null;
    for (const share of ordered) {
      if (share.held.length >= share.target) continue;
      if (best === null || isBefore(share.agent, best.agent, shard)) best = share;
    }
    // The shares add up to the shards.
    if (best === null) throw new Error(`shard ${shard} finds no agent below its share`);
    best.held.push(shard);
    plan.set(shard, best.agent.incarnation);
  }
}

function isBefore(a: PlannedAgent, b: PlannedAgent, shard: number): boolean {
  const difference = rendezvousScore(a.agentId, shard) - rendezvousScore(b.agentId, shard);
  return difference > 0 || (difference === 0 && compare(a.agentId, b.agentId) < 0);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
