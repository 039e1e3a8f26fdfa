/**
 * Which agents of a store are alive, told by watching: a heartbeat raises a counter, and an agent whose counter
 * stands still for longer than any heartbeat interval is dead (a crashed one leaves its row behind, so that a row means
 * nothing by itself). Owns: that rule. No clock of the store or of another machine is compared with ours. Main thread;
 * commands.
 */
import type { Agent, MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { type Clock, sleep } from '../core/clock.ts';

/** No broker may beat slower than every 5 s (the setting's bound); half as much again for a slow store. */
export const AGENT_WATCH_MS = 7500;
const LOOK_MS = 250;

export interface LiveAgentOptions {
  watchMs?: number;
  /** Agents that are not looked at. */
  isOurs?: (agent: Agent) => boolean;
  /** Ends the watch early: rejects with its reason. */
  stop?: AbortSignal;
  /** Told once, before the wait for these. */
  watching?: (agents: readonly Agent[]) => void;
}

/**
 * The first agent that shows a sign of life within `watchMs`; null if none does. Returns at once when there is nobody to
 * watch.
 */
export async function findLiveAgent(
  store: MetadataStore,
  clock: Clock,
  options: LiveAgentOptions = {},
): Promise<Agent | null> {
  const { watchMs = AGENT_WATCH_MS, isOurs = () => false, stop, watching } = options;
  const others = async () => (await store.listAgents()).filter((agent) => !isOurs(agent));
  const startMs = clock.monotonicMs();
  const first = new Map((await others()).map((agent) => [agent.agentId, agent]));
  if (first.size > 0) watching?.([...first.values()]);
  for (let now = [...first.values()]; now.length > 0; now = await others()) {
    const alive = now.find((agent) => hasMoved(agent, first.get(agent.agentId)));
    if (alive) return alive;
    if (clock.monotonicMs() - startMs >= watchMs) return null;
    await sleep(clock, LOOK_MS, stop);
    stop?.throwIfAborted();
  }
  return null;
}

/** It beat, it registered anew, or it came while it was watched. */
function hasMoved(now: Agent, first: Agent | undefined): boolean {
  return now.incarnation !== first?.incarnation || now.heartbeatCount !== first.heartbeatCount;
}
