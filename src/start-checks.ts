/**
 * What is looked at before a broker's parts are made, so that what cannot work ends with one line and leaves nothing
 * behind. Owns: the data directory, the listen address, the shards' groups, the other brokers. Does not own: the stores.
 * Main thread.
 */
import { once } from 'node:events';
import { mkdir, open, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { hasOneOwner } from '../storage/metadata/metadata-backends.ts';
import type { Agent, MetadataStore } from '../storage/metadata/metadata-store.ts';
import { makeDirectories } from '../storage/objects/make-directories.ts';
import { findLiveAgent } from './agent/live-agents.ts';
import type { Clock } from './core/clock.ts';
import { StreamHouseError } from './core/errors.ts';
import {
  formatShardGroups,
  groupNames,
  hasGroup,
  parseShardGroups,
  type ShardLayout,
} from './core/shard-layout.ts';
import { newLayout, type Settings, splitAddress } from './settings.ts';

/** Nothing is made where both URLs point elsewhere. 'invalid-setting'. */
export async function makeDataDirectory({ data, metadata, objects }: Settings): Promise<void> {
  if (!metadata.startsWith(`sqlite:${data}`) && !objects.startsWith(`file:${data}`)) return;
  try {
    await makeDirectories(data, { mkdir, open, stat });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new StreamHouseError('invalid-setting', `the data directory ${data} cannot be made (${code})`);
  }
}

/**
 * One broker holds all shards: two on one store would take them from each other without end. Nothing would be lost,
 * and nothing would be served. 'conflict'.
 */
export async function refuseBesideOthers(
  store: MetadataStore,
  settings: Settings,
  clock: Clock,
): Promise<void> {
  if (hasOneOwner(settings.metadata)) return;
  const { agentId } = settings;
  // One of our own name is a former self: registering replaces it.
  const isOurs = (agent: Agent) => agent.agentId === agentId;
  const other = await findLiveAgent(store, clock, { isOurs });
  if (!other) return;
  throw new StreamHouseError(
    'conflict',
    `broker ${other.agentId} (${other.address}) is running on ${store.description}: only one may`,
  );
}

/**
 * A broker of a group that the cluster does not have would never serve anything, and groups that it was not made with
 * cannot be had. Before there is a cluster: the one that would be made. 'invalid-setting'.
 */
export async function checkGroups(store: MetadataStore, settings: Settings): Promise<void> {
  checkLayout((await store.getCluster()) ?? newLayout(settings), settings);
}

/** 'invalid-setting' unless the settings fit the cluster's groups. */
export function checkLayout(layout: ShardLayout, { group, shardGroups }: Settings): void {
  if (shardGroups !== null) {
    const asked = formatShardGroups(parseShardGroups(shardGroups)?.groups ?? []);
    const own = formatShardGroups(layout.groups);
    if (asked !== own) {
      throw new StreamHouseError(
        'invalid-setting',
        `setting shard-groups: the cluster was made with ${own} and keeps that; ${asked} is another`,
      );
    }
  }
  if (hasGroup(layout, group)) return;
  throw new StreamHouseError(
    'invalid-setting',
    `setting group: the cluster has no group ${group}; its groups: ${groupNames(layout)}`,
  );
}

/** A number of shards that was asked for and is not obeyed, in words; null if there is none. */
export function unheededShards({ shardCount }: ShardLayout, { shards }: Settings): string | null {
  if (shards === null || shards === shardCount) return null;
  return `the cluster was made with ${shardCount} shards and keeps them: setting shards (${shards}) has no effect`;
}

/** An address that cannot be listened on is told before anything is created. 'conflict', 'invalid-setting'. */
export async function checkListenAddress(listen: string): Promise<void> {
  const { host, port } = splitAddress(listen) as { host: string; port: number };
  const probe = createServer();
  try {
    probe.listen(port, host);
    await once(probe, 'listening');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EADDRINUSE') {
      throw new StreamHouseError('conflict', `listen address ${listen}: it is in use already`);
    }
    throw new StreamHouseError('invalid-setting', `listen address ${listen}: it cannot be had (${code})`);
  } finally {
    probe.close();
  }
}
