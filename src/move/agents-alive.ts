/**
 * Whether brokers run on a metadata store. Owns: how that is told, and for how long one has to look. A crashed broker
 * leaves its row behind, so a row means nothing by itself: it is dead when its count stands still. Main thread.
 */
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { type Clock, sleep } from '../core/clock.ts';
import { StreamHouseError } from '../core/errors.ts';

/** Longer than the longest time between two heartbeats (5 s), with room for a slow one. */
const WATCH_MS = 7500;
const LOOK_MS = 500;

/** 'conflict' if any heartbeat comes while one watches; at once if no broker is registered. */
export async function checkNoneAlive(parts: {
  store: MetadataStore;
  clock: Clock;
  stop: AbortSignal;
  say: (line: string) => void;
}): Promise<void> {
  const { store, clock, stop, say } = parts;
  const before = new Map((await store.listAgents()).map((agent) => [agent.agentId, agent]));
  if (before.size === 0) return;
  const names = [...before.keys()].join(', ');
  say(
    `brokers are registered in ${store.description} (${names}): watching for ${WATCH_MS / 1000} s whether one is alive`,
  );
  const endMs = clock.monotonicMs() + WATCH_MS;
  while (clock.monotonicMs() < endMs) {
    await sleep(clock, LOOK_MS, stop);
    stop.throwIfAborted();
    for (const agent of await store.listAgents()) {
      const then = before.get(agent.agentId);
      if (then?.incarnation === agent.incarnation && then.heartbeatCount === agent.heartbeatCount) continue;
      throw new StreamHouseError(
        'conflict',
        `broker ${agent.agentId} (${agent.address}) runs on ${store.description}: stop all brokers first`,
      );
    }
  }
  say('none of them is');
}
