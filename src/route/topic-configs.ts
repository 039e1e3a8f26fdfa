/**
 * The configs that a topic can have. Owns: their names, values and meaning; a config that the broker does not
 * obey is refused, never just stored. Pure; main thread.
 */
import type { Topic } from '../../storage/metadata/metadata-store.ts';
import { StreamHouseError } from '../core/errors.ts';

interface TopicConfig {
  help: string;
  /** What is wrong with the value, or null. */
  fault(value: string): string | null;
}

/** Kafka's names for Kafka's meanings. */
export const TOPIC_CONFIGS: Readonly<Record<string, TopicConfig>> = {
  'max.message.bytes': {
    help: "Largest record, key and value together, bytes; the broker's own limit holds besides.",
    fault: (value) =>
      /^[1-9][0-9]{0,9}$/.test(value) && Number(value) <= 2_147_483_647
        ? null
        : 'it must be a whole number from 1 to 2147483647',
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

/** The topic's own limit of a record's bytes, if it has one. */
export function recordBytesMaxOf(topic: Topic): number | undefined {
  const value = topic.configs['max.message.bytes'];
  return value === undefined ? undefined : Number(value);
}
