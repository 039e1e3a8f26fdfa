/**
 * `streamhouse shards ...`: who holds which shard of a cluster. Owns arguments and printing only. Main thread.
 */
import type { Command } from 'commander';
import type { BrokerView, ShardView } from '../client/rest-client.ts';
import { heartbeatText } from './agents.ts';
import { addClientOptions, type ClientOptions, withClient } from './client-options.ts';
import { print, type Shell, table } from './shell.ts';

/** A shard with its holder, if that is registered. */
interface Row {
  shard: ShardView;
  holder: BrokerView | undefined;
}

export function define(command: Command, shell: Shell): void {
  command.description('Shows the shards of a cluster and their holders.');
  const list = command
    .command('list')
    .description("Who holds each shard, since when, at which epoch, and the age of the holder's heartbeat.");
  addClientOptions(list).action(async (options: ClientOptions) => {
    const rows = await withClient(options, shell, async (client) => {
      const shards = await client.listShards();
      const brokers = new Map((await client.listBrokers()).map((broker) => [broker.brokerId, broker]));
      return shards.map((shard) => ({ shard, holder: brokers.get(shard.brokerId ?? 0) }));
    });
    await print(shell.stdout, options.json ? `${JSON.stringify(rows.map(json))}\n` : text(rows));
  });
}

function agentOf({ shard, holder }: Row): string | null {
  return shard.agentId ?? holder?.agentId ?? null;
}

function json(row: Row): Record<string, unknown> {
  const { shard, holder } = row;
  return {
    shard: shard.shard,
    group: shard.group,
    agent: agentOf(row),
    broker: shard.brokerId,
    epoch: shard.epoch,
    since: shard.since,
    headSeq: shard.headSeq,
    state: holder?.state ?? null,
    heartbeatAgeMs: holder?.heartbeatAgeMs ?? null,
  };
}

function text(rows: readonly Row[]): string {
  const head = ['shard', 'group', 'agent', 'broker', 'epoch', 'since', 'head', 'state', 'heartbeat'];
  return table(
    head,
    rows.map((row) => {
      const { shard, holder } = row;
      return [
        shard.shard,
        shard.group,
        agentOf(row) ?? '-',
        shard.brokerId ?? '-',
        shard.epoch,
        shard.since ?? '-',
        shard.headSeq,
        holder?.state ?? '-',
        holder === undefined ? '-' : heartbeatText(holder.heartbeatAgeMs),
      ];
    }),
  );
}
