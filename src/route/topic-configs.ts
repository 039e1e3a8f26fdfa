/**
 * The configs that a topic can have. Owns: their names, values and meaning; a config that the broker does not
 * obey is refused, never just stored. Pure; main thread.
 */
import type { Topic } from '../../storage/metadata/metadata-store.ts';
import { StreamHouseError } from '../core/errors.ts';
import {
  GROUP_CONFIG,
  groupNames,
  type ShardLayout,
  type TopicIdClass,
  topicIdClassOf,
} from '../core/shard-layout.ts';

interface TopicConfig {
  help: string;
  /** What is wrong with the value, or null. */
  fault(value: string): string | null;
  /** Given when the topic is created or never. */
  isFixed: boolean;
}

/** Kafka's names for Kafka's meanings. */
export const TOPIC_CONFIGS: Readonly<Record<string, TopicConfig>> = {
  'max.message.bytes': {
    help: "Largest record, key and value together, bytes; the broker's own limit holds besides.",
    fault: (value) =>
      /^[1-9][0-9]{0,9}$/.test(value) && Number(value) <= 2_147_483_647
        ? null
        : 'it must be a whole number from 1 to 2147483647',
    isFixed: false,
  },
  [GROUP_CONFIG]: {
    help: "Group of brokers that serves the topic, one of the cluster's; by default the first.",
    // What groups there are is the cluster's affair: bindToGroup.
    fault: () => null,
    isFixed: true,
  },
};

/** 'invalid-config' unless every config is known and its value fits; null removes one. */
export function checkTopicConfigs(configs: Readonly<Record<string, string | null>>): void {
  for (const [name, value] of Object.entries(configs)) {
    if (!Object.hasOwn(TOPIC_CONFIGS, name)) {
      const known = Object.keys(TOPIC_CONFIGS).join(', ');
      throw new StreamHouseError('invalid-config', `unknown topic config '${name}'; known: ${known}`);
    }
    const fault = value === null ? null : TOPIC_CONFIGS[name].fault(value);
    if (fault) throw new StreamHouseError('invalid-config', `topic config ${name}=${value}: ${fault}`);
  }
}

/** Whether a config is given when a topic is created or never. */
export function isFixedConfig(name: string): boolean {
  return Object.hasOwn(TOPIC_CONFIGS, name) && TOPIC_CONFIGS[name].isFixed;
}

/** 'invalid-config' for a change of a config that stands for as long as the topic. */
export function checkChangeable(changes: Readonly<Record<string, string | null>>): void {
  for (const name of Object.keys(changes)) {
    if (!isFixedConfig(name)) continue;
    throw new StreamHouseError(
      'invalid-config',
      `topic config ${name} is given when a topic is created and cannot be changed`,
    );
  }
}

/**
 * What becomes of a new topic's configs and id: where there are several groups, every topic's configs name its own.
 * 'invalid-config' for a group that the cluster does not have.
 */
export function bindToGroup(
  configs: Readonly<Record<string, string>>,
  layout: ShardLayout,
): { configs: Record<string, string>; idClass: TopicIdClass } {
  const asked: string | undefined = configs[GROUP_CONFIG];
  const group = asked ?? layout.groups[0].name;
  const idClass = topicIdClassOf(layout, group);
  if (idClass === null) {
    throw new StreamHouseError(
      'invalid-config',
      `topic config ${GROUP_CONFIG}=${group}: the cluster has no such group; its groups: ${groupNames(layout)}`,
    );
  }
  const isNamed = asked !== undefined || layout.groups.length > 1;
  return { configs: isNamed ? { ...configs, [GROUP_CONFIG]: group } : { ...configs }, idClass };
}

/** The topic's own limit of a record's bytes, if it has one. */
export function recordBytesMaxOf(topic: Topic): number | undefined {
  const value = topic.configs['max.message.bytes'];
  return value === undefined ? undefined : Number(value);
}
