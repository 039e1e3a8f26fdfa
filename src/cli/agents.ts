/**
 * `streamhouse agents ...`: the brokers of a cluster, as one of them sees it. Owns arguments and printing only. Main
 * thread.
 */
import type { Command } from 'commander';
import type { BrokerView } from '../client/rest-client.ts';
import { addUrlOptions, type ClientOptions, withClient, zoneName } from './client-options.ts';
import { print, type Shell, table } from './shell.ts';

export function define(command: Command, shell: Shell): void {
  command.description('Shows the agents of a cluster: its registered brokers.');
  const list = command
    .command('list')
    .description('All registered brokers: where, in which state, since when, and how many shards each holds.')
    .option('--zone <zone>', 'only those of this zone', zoneName);
  addUrlOptions(list).action(async ({ zone, ...options }: ClientOptions) => {
    const brokers = await withClient(options, shell, (client) => client.listBrokers(zone));
    brokers.sort((a, b) => compare(a.agentId, b.agentId) || a.brokerId - b.brokerId);
    await print(shell.stdout, options.json ? `${JSON.stringify(brokers.map(json))}\n` : text(brokers));
  });
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function json(broker: BrokerView): Record<string, unknown> {
  return {
    agent: broker.agentId,
    broker: broker.brokerId,
    address: broker.address,
    zone: broker.zone,
    group: broker.group,
    version: broker.version,
    state: broker.state,
    heartbeatAgeMs: broker.heartbeatAgeMs,
    registeredAt: broker.registeredAt,
    shards: broker.shardCount,
  };
}

function text(brokers: readonly BrokerView[]): string {
  const head = [
    'agent',
    'broker',
    'address',
    'zone',
    'group',
    'version',
    'state',
    'heartbeat',
    'shards',
    'since',
  ];
  return table(
    head,
    brokers.map((broker) => [
      broker.agentId,
      broker.brokerId,
      broker.address ?? '-',
      broker.zone,
      broker.group,
      broker.version,
      broker.state,
      heartbeatText(broker.heartbeatAgeMs),
      broker.shardCount,
      broker.registeredAt ?? '-',
    ]),
  );
}

/** How long ago, for people. */
export function heartbeatText(ageMs: number): string {
  return `${(ageMs / 1000).toFixed(1)} s ago`;
}
