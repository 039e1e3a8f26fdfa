/**
 * The shapes of the HTTP door's requests and answers, once: the door validates with them and /openapi.json is
 * made of them. Names and members are Kafka REST Proxy's (v2 for data, v3 for the rest) unless said
 * otherwise. Pure.
 */
import Type, { type TObject, type TProperties, type TSchema } from 'typebox';
import { PARTITIONS_PER_TOPIC_MAX } from '../../core/ids.ts';
import { FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX, RECORDS_PER_REQUEST_MAX } from '../../core/limits.ts';

function closed<P extends TProperties>(properties: P, description?: string): TObject<P> {
  return Type.Object(properties, { additionalProperties: false, ...(description ? { description } : {}) });
}

function orNull<T extends TSchema>(schema: T) {
  return Type.Union([schema, Type.Null()]);
}

const offset = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const partition = Type.Integer({ minimum: 0, maximum: 2147483647 });

// -- Errors -----------------------------------------------------------------------------------------------

export const ErrorBody = Type.Object(
  {
    error_code: Type.Integer(),
    message: Type.String(),
    code: Type.String({ description: 'The name of the error in the table of the documentation.' }),
    outcome: Type.Union([Type.Literal('none'), Type.Literal('unknown')], {
      description: 'none: nothing happened. unknown: what was asked may have happened or not.',
    }),
    retriable: Type.Boolean({ description: 'Whether the same request, unchanged, may succeed later.' }),
    beginning_offset: Type.Optional(offset),
    end_offset: Type.Optional(offset),
  },
  { description: 'Every answer of status 400 and above.' },
);

// -- Produce ----------------------------------------------------------------------------------------------

function produceBody<T extends TSchema>(content: T) {
  return closed({
    records: Type.Array(
      closed({
        key: Type.Optional(content),
        value: Type.Optional(content),
        partition: Type.Optional(orNull(partition)),
      }),
      { minItems: 1, maxItems: RECORDS_PER_REQUEST_MAX },
    ),
  });
}

/** application/vnd.kafka.json.v2+json: any JSON, stored as the very bytes sent. */
export const ProduceBodyJson = produceBody(Type.Unknown());

/** application/vnd.kafka.binary.v2+json: strings of base64, or null. */
export const ProduceBodyBinary = produceBody(orNull(Type.String({ contentEncoding: 'base64' })));

export const ProduceAnswer = Type.Object({
  offsets: Type.Array(
    Type.Object({
      partition,
      offset: orNull(offset),
      error_code: Type.Optional(Type.Integer({ description: 'Only where the record was not committed.' })),
      error: Type.Optional(Type.String()),
    }),
  ),
});

// -- Topics and records, v2 -------------------------------------------------------------------------------

export const TopicNames = Type.Array(Type.String());

const ReplicaV2 = Type.Object({ broker: Type.Integer(), leader: Type.Boolean(), in_sync: Type.Boolean() });

export const PartitionV2 = Type.Object({
  partition,
  leader: Type.Integer({ description: 'A broker id; -1 while none is known.' }),
  replicas: Type.Array(ReplicaV2),
});

export const TopicV2 = Type.Object({
  name: Type.String(),
  configs: Type.Record(Type.String(), Type.String()),
  partitions: Type.Array(PartitionV2),
});

export const OffsetsQuery = closed({
  timestamp: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: Number.MAX_SAFE_INTEGER,
      description: 'Milliseconds since 1970: also answer the first offset of a record that is not older.',
    }),
  ),
});

export const OffsetsAnswer = Type.Object({
  beginning_offset: offset,
  end_offset: offset,
  offset: Type.Optional(orNull(offset)),
  timestamp: Type.Optional(orNull(Type.Integer())),
});

export const RecordsQuery = closed({
  offset: Type.Optional(
    Type.String({
      pattern: '^(earliest|latest|[0-9]{1,16})$',
      description: 'An offset, earliest (the default) or latest (what comes after this request).',
    }),
  ),
  max_bytes: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: FETCH_BYTES_MAX,
      description: 'Bytes of stored batches to read; at least one batch is always read. Default 1048576.',
    }),
  ),
  timeout: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: FETCH_WAIT_MS_MAX,
      description: 'Milliseconds to wait for a record when there is none. Default 0.',
    }),
  ),
});

export const RecordsAnswer = Type.Array(
  Type.Object({
    topic: Type.String(),
    partition,
    offset,
    timestamp: Type.Integer(),
    key: Type.Unknown(),
    value: Type.Unknown(),
  }),
);

// -- Clusters, brokers, topics and configs, v3 ------------------------------------------------------------

const Link = Type.Object({ related: Type.String() });
const Metadata = Type.Object({ self: Type.String(), resource_name: Type.Optional(Type.String()) });

function list<T extends TSchema>(kind: string, item: T) {
  return Type.Object({
    kind: Type.Literal(kind),
    metadata: Type.Object({ self: Type.String(), next: orNull(Type.String()) }),
    data: Type.Array(item),
  });
}

export const ClusterV3 = Type.Object({
  kind: Type.Literal('KafkaCluster'),
  metadata: Metadata,
  cluster_id: Type.String(),
  brokers: Link,
  topics: Link,
});
export const ClusterListV3 = list('KafkaClusterList', ClusterV3);

export const BrokerV3 = Type.Object({
  kind: Type.Literal('KafkaBroker'),
  metadata: Metadata,
  cluster_id: Type.String(),
  broker_id: Type.Integer(),
  host: orNull(Type.String()),
  port: orNull(Type.Integer()),
  rack: orNull(Type.String({ description: 'Its zone.' })),
  agent_id: Type.String({ description: 'Stays the same when the broker is started again.' }),
  group: Type.String(),
  version: Type.String(),
  state: Type.Union([Type.Literal('live'), Type.Literal('leaving'), Type.Literal('dead')], {
    description: 'As the broker that answers sees it.',
  }),
  heartbeat_age_ms: Type.Integer({ minimum: 0, description: 'Since its heartbeat was last seen to move.' }),
  registered_at: orNull(Type.String({ format: 'date-time' })),
  shards: Type.Integer({ minimum: 0, description: 'How many it holds.' }),
});
export const BrokerListV3 = list('KafkaBrokerList', BrokerV3);

export const BrokerListQuery = closed({
  zone: Type.Optional(Type.String({ minLength: 1, description: 'Only brokers of this zone.' })),
});

export const ShardV3 = Type.Object({
  kind: Type.Literal('StreamhouseShard'),
  cluster_id: Type.String(),
  shard: Type.Integer({ minimum: 0 }),
  group: Type.String({ description: 'The group of brokers of which one holds it.' }),
  broker_id: orNull(Type.Integer({ description: 'null: nobody holds it.' })),
  agent_id: orNull(Type.String({ description: 'null: the holder is registered no more.' })),
  epoch: Type.Integer({ minimum: 0, description: 'One more with every change of the holder.' }),
  since: orNull(
    Type.String({ format: 'date-time', description: "By the holder's clock; null: it could not be asked." }),
  ),
  head_seq: Type.Integer({ minimum: 0, description: "Number of the newest entry of the shard's log." }),
});
export const ShardListV3 = list('StreamhouseShardList', ShardV3);

export const TopicV3 = Type.Object({
  kind: Type.Literal('KafkaTopic'),
  metadata: Metadata,
  cluster_id: Type.String(),
  topic_name: Type.String(),
  is_internal: Type.Boolean(),
  replication_factor: Type.Integer(),
  partitions_count: Type.Integer(),
  partitions: Link,
  configs: Link,
});
export const TopicListV3 = list('KafkaTopicList', TopicV3);

export const TopicListQuery = closed({
  page_size: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 10000, description: 'Default: all at once.' }),
  ),
  page_token: Type.Optional(
    Type.String({ minLength: 1, description: 'From metadata.next of the page before.' }),
  ),
});

const configValue = orNull(Type.String());

export const CreateTopicBody = closed({
  topic_name: Type.String(),
  partitions_count: Type.Optional(
    Type.Integer({ minimum: 1, maximum: PARTITIONS_PER_TOPIC_MAX, description: 'Default 1.' }),
  ),
  replication_factor: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 32767,
      description: 'Taken and ignored: the object store keeps the copies.',
    }),
  ),
  configs: Type.Optional(Type.Array(closed({ name: Type.String(), value: configValue }), { maxItems: 1000 })),
});

export const GrowTopicBody = closed({
  partitions_count: Type.Integer({ minimum: 1, maximum: PARTITIONS_PER_TOPIC_MAX }),
});

export const PartitionV3 = Type.Object({
  kind: Type.Literal('KafkaPartition'),
  metadata: Metadata,
  cluster_id: Type.String(),
  topic_name: Type.String(),
  partition_id: partition,
  leader: orNull(Link),
});
export const PartitionListV3 = list('KafkaPartitionList', PartitionV3);

export const ConfigV3 = Type.Object({
  kind: Type.Literal('KafkaTopicConfig'),
  metadata: Metadata,
  cluster_id: Type.String(),
  topic_name: Type.String(),
  name: Type.String(),
  value: configValue,
  is_default: Type.Boolean(),
  is_read_only: Type.Boolean(),
  is_sensitive: Type.Boolean(),
  source: Type.String(),
});
export const ConfigListV3 = list('KafkaTopicConfigList', ConfigV3);

export const PutConfigBody = closed({ value: configValue });

export const AlterConfigsBody = closed({
  data: Type.Array(
    closed({
      name: Type.String(),
      value: Type.Optional(configValue),
      operation: Type.Optional(orNull(Type.Union([Type.Literal('SET'), Type.Literal('DELETE')]))),
    }),
    { minItems: 1, maxItems: 1000 },
  ),
});

export const ProducerIdAnswer = Type.Object({
  producer_id: Type.Integer(),
  producer_epoch: Type.Integer(),
});

// -- Operations -------------------------------------------------------------------------------------------

export const HealthAnswer = Type.Object({
  live: Type.Boolean(),
  ready: Type.Boolean(),
  reasons: Type.Array(Type.String()),
});
export const NoQuery = closed({});
