/**
 * Which agents of a store are alive, told by watching: a heartbeat raises a counter, and an agent whose counter
 * stands still for longer than any heartbeat interval is dead. Owns: that rule. No clock of the store or of another
 * machine is compared with ours. Main thread; commands.
 */
import type { Agent, MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { type Clock, sleep } from '../core/clock.ts';

/** No broker may beat slower than every 5 s (the setting's bound); a second more for a slow store. */
export const AGENT_WATCH_MS = 6000;
const LOOK_MS = 250;

/**
 * The first agent, besides those that `isOurs` names, that shows a sign of life within `watchMs`; null if none does.
 * Returns at once when there is nobody to watch.
 */
export async function findLiveAgent(
  store: MetadataStore,
  clock: Clock,
  options: { watchMs?: number; isOurs?: (agent: Agent) => boolean } = {},
): Promise<Agent | null> {
  const { watchMs = AGENT_WATCH_MS, isOurs = () => false } = options;
  const others = async () => (await store.listAgents()).filter((agent) => !isOurs(agent));
  const startMs = clock.monotonicMs();
  const first = new Map((await others()).map((agent) => [agent.agentId, agent]));
  for (let now = [...first.values()]; now.length > 0; now = await others()) {
    const alive = now.find((agent) => hasMoved(agent, first.get(agent.agentId)));
    if (alive) return alive;
    if (clock.monotonicMs() - startMs >= watchMs) return null;
    await sleep(clock, LOOK_MS);
  }
  return null;
}

/** It beat, it registered anew, or it came while it was watched. */
function hasMoved(now: Agent, first: Agent | undefined): boolean {
  return now.incarnation !== first?.incarnation || now.heartbeatCount !== first.heartbeatCount;
}
