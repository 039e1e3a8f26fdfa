/**
 * The REST Proxy v3 routes: clusters, topics and their configs, and the ids of idempotent producers (ours); with
 * broker-routes' all of v3. Main thread.
 */
import { StreamHouseError } from '../../core/errors.ts';
import { PLAIN_JSON } from '../../protocol/http/media-type.ts';
import {
  AlterConfigsBody,
  ClusterListV3,
  ClusterV3,
  ConfigListV3,
  ConfigV3,
  CreateTopicBody,
  GrowTopicBody,
  PartitionListV3,
  PartitionV3,
  ProducerIdAnswer,
  PutConfigBody,
  TopicListQuery,
  TopicListV3,
  TopicV3,
} from '../../protocol/http/schemas.ts';
import type { Broker, ProduceRequest } from '../../route/broker.ts';
import { isFixedConfig } from '../../route/topic-configs.ts';
import { brokerPath, brokerRoutes } from './broker-routes.ts';
import type { DoorContext } from './door-context.ts';
import { type AnswerDoc, defineRoute, type Reply, type Route } from './route.ts';
import { checkCluster, clusterPath, documented, json, listOf } from './v3-answers.ts';

type Topic = ProduceRequest['topic'];

/** Topics per call of the catalogue. */
const PAGE = 1000;

const NOTHING: Reply = { status: 204, contentType: PLAIN_JSON, body: null };

const documentedNothing: AnswerDoc = { status: 204, description: 'Done.', schema: null, contentTypes: [] };

function topicPath(broker: Broker, topic: string): string {
  return `${clusterPath(broker)}/topics/${encodeURIComponent(topic)}`;
}

function clusterV3(broker: Broker) {
  const self = clusterPath(broker);
  return {
    kind: 'KafkaCluster',
    metadata: { self, resource_name: `crn:///kafka=${broker.cluster.clusterId}` },
    cluster_id: broker.cluster.clusterId,
    brokers: { related: `${self}/brokers` },
    topics: { related: `${self}/topics` },
  };
}

function topicV3(broker: Broker, topic: Topic) {
  const self = topicPath(broker, topic.name);
  return {
    kind: 'KafkaTopic',
    metadata: { self, resource_name: `crn:///kafka=${broker.cluster.clusterId}/topic=${topic.name}` },
    cluster_id: broker.cluster.clusterId,
    topic_name: topic.name,
    is_internal: false,
    replication_factor: 1,
    partitions_count: topic.partitionCount,
    partitions: { related: `${self}/partitions` },
    configs: { related: `${self}/configs` },
  };
}

function partitionV3(broker: Broker, topic: Topic, partition: number) {
  const leader = broker.view.leaderOf(topic.topicId, partition);
  return {
    kind: 'KafkaPartition',
    metadata: { self: `${topicPath(broker, topic.name)}/partitions/${partition}` },
    cluster_id: broker.cluster.clusterId,
    topic_name: topic.name,
    partition_id: partition,
    leader: leader === null ? null : { related: brokerPath(broker, leader) },
  };
}

function configV3(broker: Broker, topic: Topic, name: string) {
  return {
    kind: 'KafkaTopicConfig',
    metadata: { self: `${topicPath(broker, topic.name)}/configs/${encodeURIComponent(name)}` },
    cluster_id: broker.cluster.clusterId,
    topic_name: topic.name,
    name,
    value: topic.configs[name],
    is_default: false,
    is_read_only: isFixedConfig(name),
    is_sensitive: false,
    source: 'DYNAMIC_TOPIC_CONFIG',
  };
}

async function listTopics(
  context: DoorContext,
  query: { page_size?: number; page_token?: string },
): Promise<Reply> {
  const { broker } = context;
  const self = `${clusterPath(broker)}/topics`;
  const data: unknown[] = [];
  let after = query.page_token;
  for (;;) {
    const limit = query.page_size ?? PAGE;
    const page = await broker.topics.list(after === undefined ? { limit } : { after, limit });
    for (const topic of page) data.push(topicV3(broker, topic));
    if (page.length < limit) return listOf('KafkaTopicList', self, data);
    after = page[page.length - 1].name;
    if (query.page_size !== undefined) {
      const next = `${self}?page_size=${query.page_size}&page_token=${encodeURIComponent(after)}`;
      return listOf('KafkaTopicList', self, data, next);
    }
  }
}

function clusterRoutesOnly(): Route[] {
  const tag = 'Clusters';
  return [
    defineRoute({
      method: 'GET',
      path: '/v3/clusters',
      tag,
      summary: 'The cluster, as a list of one.',
      answer: documented('The clusters.', ClusterListV3),
      handle: ({ broker }) => listOf('KafkaClusterList', '/v3/clusters', [clusterV3(broker)]),
    }),
    defineRoute({
      method: 'GET',
      path: '/v3/clusters/{cluster}',
      tag,
      summary: 'The cluster.',
      answer: documented('The cluster.', ClusterV3),
      handle({ broker }, { params }) {
        checkCluster(broker, params.cluster);
        return json(clusterV3(broker));
      },
    }),
    defineRoute({
      method: 'POST',
      path: '/v3/clusters/{cluster}/producer-ids',
      tag: 'Records',
      summary: 'A new id for an idempotent producer (not part of REST Proxy).',
      answer: documented('Never given before.', ProducerIdAnswer),
      async handle({ broker }, { params }) {
        checkCluster(broker, params.cluster);
        return json({ producer_id: await broker.allocateProducerIds(1), producer_epoch: 0 });
      },
    }),
  ];
}

function topicAdminRoutes(): Route[] {
  const tag = 'Administration';
  const base = '/v3/clusters/{cluster}/topics';
  return [
    defineRoute({
      method: 'GET',
      path: base,
      tag,
      summary: 'All topics, or one page of them.',
      query: TopicListQuery,
      answer: documented('The topics, sorted by name.', TopicListV3),
      handle(context, { params, query }) {
        checkCluster(context.broker, params.cluster);
        return listTopics(context, query);
      },
    }),
    defineRoute({
      method: 'POST',
      path: base,
      tag,
      summary: 'Creates a topic.',
      body: CreateTopicBody,
      answer: documented('The new topic.', TopicV3, 201),
      async handle({ broker }, { params, body }) {
        checkCluster(broker, params.cluster);
        const configs: [string, string][] = [];
        for (const { name, value } of body.configs ?? []) if (value !== null) configs.push([name, value]);
        const topic = await broker.topics.create({
          name: body.topic_name,
          partitionCount: body.partitions_count ?? 1,
          configs: Object.fromEntries(configs),
        });
        return json(topicV3(broker, topic), 201);
      },
    }),
    defineRoute({
      method: 'GET',
      path: `${base}/{topic}`,
      tag,
      summary: 'A topic.',
      answer: documented('The topic.', TopicV3),
      async handle({ broker }, { params }) {
        checkCluster(broker, params.cluster);
        return json(topicV3(broker, await broker.topics.get(params.topic)));
      },
    }),
    defineRoute({
      method: 'PATCH',
      path: `${base}/{topic}`,
      tag,
      summary: 'Gives a topic more partitions.',
      body: GrowTopicBody,
      answer: documented('The topic as it is now.', TopicV3),
      async handle({ broker }, { params, body }) {
        checkCluster(broker, params.cluster);
        return json(topicV3(broker, await broker.topics.grow(params.topic, body.partitions_count)));
      },
    }),
    defineRoute({
      method: 'DELETE',
      path: `${base}/{topic}`,
      tag,
      summary: 'Deletes a topic and its records.',
      answer: documentedNothing,
      async handle({ broker }, { params }) {
        checkCluster(broker, params.cluster);
        await broker.topics.delete(params.topic);
        return NOTHING;
      },
    }),
    defineRoute({
      method: 'GET',
      path: `${base}/{topic}/partitions`,
      tag,
      summary: 'Partitions of a topic.',
      answer: documented('The partitions.', PartitionListV3),
      async handle({ broker }, { params }) {
        checkCluster(broker, params.cluster);
        const topic = await broker.topics.get(params.topic);
        const data: unknown[] = [];
        for (let i = 0; i < topic.partitionCount; i++) data.push(partitionV3(broker, topic, i));
        return listOf('KafkaPartitionList', `${topicPath(broker, topic.name)}/partitions`, data);
      },
    }),
    defineRoute({
      method: 'GET',
      path: `${base}/{topic}/partitions/{partition}`,
      tag,
      summary: 'One partition.',
      answer: documented('The partition.', PartitionV3),
      async handle({ broker }, { params }) {
        checkCluster(broker, params.cluster);
        const topic = await broker.topics.getWithPartition(params.topic, params.partition);
        return json(partitionV3(broker, topic, params.partition));
      },
    }),
  ];
}

function configRoutes(): Route[] {
  const tag = 'Administration';
  const base = '/v3/clusters/{cluster}/topics/{topic}/configs';
  return [
    defineRoute({
      method: 'GET',
      path: base,
      tag,
      summary: 'The configs that are set on a topic.',
      answer: documented('The configs.', ConfigListV3),
      async handle({ broker }, { params }) {
        checkCluster(broker, params.cluster);
        const topic = await broker.topics.get(params.topic);
        const data = Object.keys(topic.configs).map((name) => configV3(broker, topic, name));
        return listOf('KafkaTopicConfigList', `${topicPath(broker, topic.name)}/configs`, data);
      },
    }),
    defineRoute({
      method: 'POST',
      path: `${base}:alter`,
      tag,
      summary: 'Sets and resets several configs at once.',
      body: AlterConfigsBody,
      answer: documentedNothing,
      async handle({ broker }, { params, body }) {
        checkCluster(broker, params.cluster);
        const changes = body.data.map(({ name, value, operation }): [string, string | null] => {
          if (operation === 'DELETE') return [name, null];
          if (typeof value === 'string') return [name, value];
          throw new StreamHouseError('invalid-request', `config ${JSON.stringify(name)}: SET needs a value`);
        });
        await broker.topics.alter(params.topic, Object.fromEntries(changes));
        return NOTHING;
      },
    }),
    defineRoute({
      method: 'GET',
      path: `${base}/{name}`,
      tag,
      summary: 'One config that is set on a topic.',
      answer: documented('The config.', ConfigV3),
      async handle({ broker }, { params }) {
        checkCluster(broker, params.cluster);
        const topic = await broker.topics.get(params.topic);
        if (Object.hasOwn(topic.configs, params.name)) return json(configV3(broker, topic, params.name));
        throw new StreamHouseError(
          'route-not-found',
          `config ${JSON.stringify(params.name)} is not set on topic ${topic.name}`,
        );
      },
    }),
    defineRoute({
      method: 'PUT',
      path: `${base}/{name}`,
      tag,
      summary: 'Sets a config; null resets it.',
      body: PutConfigBody,
      answer: documentedNothing,
      async handle({ broker }, { params, body }) {
        checkCluster(broker, params.cluster);
        await broker.topics.alter(params.topic, Object.fromEntries([[params.name, body.value]]));
        return NOTHING;
      },
    }),
    defineRoute({
      method: 'DELETE',
      path: `${base}/{name}`,
      tag,
      summary: 'Resets a config.',
      answer: documentedNothing,
      async handle({ broker }, { params }) {
        checkCluster(broker, params.cluster);
        await broker.topics.alter(params.topic, Object.fromEntries([[params.name, null]]));
        return NOTHING;
      },
    }),
  ];
}

/** All v3 routes. */
export function clusterRoutes(): Route[] {
  return [...clusterRoutesOnly(), ...brokerRoutes(), ...topicAdminRoutes(), ...configRoutes()];
}
