/**
 * `streamhouse topics ...`: the catalogue over HTTP. Owns arguments and printing only. Main thread.
 */
import type { Command } from 'commander';
import type { ConfigView, PartitionOffsets, RestClient, TopicView } from '../client/rest-client.ts';
import { PARTITIONS_PER_TOPIC_MAX } from '../core/ids.ts';
import { GROUP_CONFIG } from '../core/shard-layout.ts';
import { addClientOptions, type ClientOptions, wholeNumber, withClient } from './client-options.ts';
import { print, type Shell, table, UsageError } from './shell.ts';

const partitionCount = wholeNumber('partitions', 1, PARTITIONS_PER_TOPIC_MAX);

/** Requests for offsets of one topic at a time. */
const OFFSET_REQUESTS_MAX = 16;

type Act<O> = (client: RestClient, names: string[], options: O) => Promise<{ json: unknown; text: string }>;

export function define(command: Command, shell: Shell): void {
  command.description('Creates, shows, changes and deletes topics.');
  const sub = <O extends ClientOptions>(usage: string, summary: string, act: Act<O>): Command => {
    const child = command.command(usage).description(summary);
    addClientOptions(child);
    return child.action(async (...args: unknown[]) => {
      const names = args.slice(0, child.registeredArguments.length).map(String);
      const options = child.opts() as O;
      const result = await withClient(options, shell, (client) => act(client, names, options));
      await print(shell.stdout, options.json ? `${JSON.stringify(result.json)}\n` : result.text);
    });
  };

  sub<CreateOptions>('create <topic>', 'create a topic', create)
    .option('-p, --partitions <count>', 'how many partitions', partitionCount, 1)
    .option('-c, --config <name=value>', 'a config; may be repeated', gather, [])
    .option('--group <name>', `the group of brokers that serves it: config ${GROUP_CONFIG}`);
  sub('list', 'list all topics', list);
  sub<ClientOptions & { partitions?: boolean }>(
    'describe <topic>',
    'show a topic and its partitions',
    describe,
  );
  sub('grow <topic> <partitions>', 'raise the number of partitions', grow);
  sub<ClientOptions & { set: string[]; unset: string[] }>('config <topic>', 'show or change configs', config)
    .option('--set <name=value>', 'set a config; may be repeated', gather, [])
    .option('--unset <name>', 'back to the default; may be repeated', gather, []);
  sub('delete <topic>', 'delete a topic and its records', remove);
}

function gather(value: string, before: string[]): string[] {
  return [...before, value];
}

function pairs(texts: readonly string[], flag: string): Record<string, string> {
  const out: Record<string, string> = {};
  for (const text of texts) {
    const at = text.indexOf('=');
    if (at < 1) throw new UsageError(`${flag}: ${JSON.stringify(text)} is not name=value`);
    out[text.slice(0, at)] = text.slice(at + 1);
  }
  return out;
}

function topicJson(topic: TopicView): Record<string, unknown> {
  return { topic: topic.name, partitions: topic.partitionCount };
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

interface CreateOptions extends ClientOptions {
  partitions: number;
  config: string[];
  group?: string;
}

const create: Act<CreateOptions> = async (client, [name], options) => {
  const configs = pairs(options.config, '--config');
  const { group } = options;
  if (group !== undefined) {
    if ((configs[GROUP_CONFIG] ?? group) !== group) {
      throw new UsageError(`--group ${group} and --config ${GROUP_CONFIG}=${configs[GROUP_CONFIG]} differ`);
    }
    configs[GROUP_CONFIG] = group;
  }
  const topic = await client.createTopic({ name, partitionCount: options.partitions, configs });
  const text = `created ${topic.name} with ${counted(topic.partitionCount, 'partition')}\n`;
  return { json: topicJson(topic), text };
};

const list: Act<ClientOptions> = async (client) => {
  const topics = await client.listTopics();
  const rows = topics.map((topic) => [topic.name, topic.partitionCount]);
  return { json: topics.map(topicJson), text: table(['topic', 'partitions'], rows) };
};

const describe: Act<ClientOptions> = async (client, [name]) => {
  const topic = await client.getTopic(name);
  const configs = await client.topicConfigs(name);
  const offsets = await allOffsets(client, topic);
  const json = {
    ...topicJson(topic),
    configs: Object.fromEntries(configs.map((row) => [row.name, row.value])),
    offsets: offsets.map(({ beginning, end }, partition) => ({ partition, beginning, end })),
  };
  const rows = offsets.map(({ beginning, end }, i) => [String(i), beginning, end, end - beginning]);
  const recordCount = offsets.reduce((sum, { beginning, end }) => sum + end - beginning, 0);
  const head = `${topic.name}: ${counted(topic.partitionCount, 'partition')}, ${counted(recordCount, 'record')}\n`;
  const text = `${head}${configTable(configs)}${table(['partition', 'beginning', 'end', 'records'], rows)}`;
  return { json, text };
};

async function allOffsets(client: RestClient, topic: TopicView): Promise<PartitionOffsets[]> {
  const out: PartitionOffsets[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < topic.partitionCount) {
      const partition = next++;
      out[partition] = await client.offsets(topic.name, partition);
    }
  };
  await Promise.all(Array.from({ length: OFFSET_REQUESTS_MAX }, work));
  return out;
}

const grow: Act<ClientOptions> = async (client, [name, count]) => {
  const topic = await client.growTopic(name, partitionCount(count));
  return {
    json: topicJson(topic),
    text: `${topic.name} has ${counted(topic.partitionCount, 'partition')}\n`,
  };
};

const config: Act<ClientOptions & { set: string[]; unset: string[] }> = async (client, [name], options) => {
  const changes: Record<string, string | null> = pairs(options.set, '--set');
  for (const config of options.unset) changes[config] = null;
  if (Object.keys(changes).length > 0) await client.alterConfigs(name, changes);
  const configs = await client.topicConfigs(name);
  const json = configs.map(({ name: config, value, isDefault }) => ({
    name: config,
    value,
    default: isDefault,
  }));
  return { json, text: configTable(configs) };
};

function configTable(configs: readonly ConfigView[]): string {
  if (configs.length === 0) return '';
  const rows = configs.map((row) => [row.name, row.value ?? '', row.isDefault ? 'default' : 'set']);
  return table(['config', 'value', 'source'], rows);
}

const remove: Act<ClientOptions> = async (client, [name]) => {
  await client.deleteTopic(name);
  return { json: { topic: name, deleted: true }, text: `deleted ${name}\n` };
};
