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
import type { Who } from './peer/peer-client.ts';
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

export interface OtherBrokers {
  store: MetadataStore;
  settings: Settings;
  clusterId: string;
  version: string;
  clock: Clock;
  who(address: string): Promise<Who>;
  info(message: string, fields: Record<string, unknown>): void;
}

/**
 * Two brokers of one name would take each other's registration without end; two of versions that do not go together
 * might not understand each other's entries. Whoever is dead is no obstacle. 'conflict'.
 */
export async function refuseBesideOthers(others: OtherBrokers): Promise<void> {
  const { store, settings, version } = others;
  if (hasOneOwner(settings.metadata)) return;
  const agents = await store.listAgents();
  const namesake = agents.find(({ agentId }) => agentId === settings.agentId);
  if (namesake && (await isAlive(others, namesake))) {
    throw new StreamHouseError(
      'conflict',
      `a broker named ${namesake.agentId} is running at ${namesake.address}; give this one another --agent-id`,
    );
  }
  for (const agent of agents) {
    if (agent === namesake || fitsVersion(agent.version, version)) continue;
    if (!(await isAlive(others, agent))) continue;
    throw new StreamHouseError(
      'conflict',
      `broker ${agent.agentId} (${agent.address}) runs version ${agent.version}, which does not go together with ${version}`,
    );
  }
}

/** By asking it; where nobody answers, by watching its heartbeats. */
async function isAlive({ store, clock, clusterId, who, info }: OtherBrokers, agent: Agent): Promise<boolean> {
  const there = await who(agent.address);
  if (there.kind === 'refused') return false;
  if (there.kind === 'answered' && there.clusterId === clusterId && there.agentId === agent.agentId)
    return true;
  info('watching whether a broker is alive', { agent: agent.agentId, address: agent.address });
  const isOurs = ({ agentId }: Agent) => agentId !== agent.agentId;
  return (await findLiveAgent(store, clock, { isOurs })) !== null;
}

/** Same major version, and before 1.0 same minor version. */
export function fitsVersion(one: string, other: string): boolean {
  const [a, b] = [one, other].map((version) => version.split('.'));
  return a[0] === b[0] && (a[0] !== '0' || a[1] === b[1]);
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
