/**
 * The REST Proxy v2 routes that read: topics, partitions, offsets and records. Produce is produce-endpoint's.
 * Main thread.
 */

import Type from 'typebox';
import { StreamHouseError } from '../../core/errors.ts';
import { encodeFetchedRecords } from '../../protocol/http/fetched-records.ts';
import { acceptedFormat, BINARY_V2, JSON_V2, KAFKA_V2 } from '../../protocol/http/media-type.ts';
import {
  OffsetsAnswer,
  OffsetsQuery,
  PartitionV2,
  RecordsAnswer,
  RecordsQuery,
  TopicNames,
  TopicV2,
} from '../../protocol/http/schemas.ts';
import { checkPeerHeaders, isFromPeer, topicIdFromPeer } from '../../protocol/peer/peer-headers.ts';
import type { Broker, ProduceRequest } from '../../route/broker.ts';
import type { DoorContext } from './door-context.ts';
import type { DoorRequest } from './door-request.ts';
import { defineRoute, identityOf, pathOf, type Reply, type Route } from './route.ts';

type Topic = ProduceRequest['topic'];

/** Topics per call of the catalogue. */
const PAGE = 1000;
const MAX_BYTES_DEFAULT = 1024 * 1024;

function kafkaJson(value: unknown): Reply {
  return { status: 200, contentType: KAFKA_V2, body: JSON.stringify(value) };
}

/** All topic names, page by page. */
async function listTopicNames(context: DoorContext): Promise<string[]> {
  const names: string[] = [];
  let after: string | undefined;
  for (;;) {
    const page = await context.broker.topics.list(
      after === undefined ? { limit: PAGE } : { after, limit: PAGE },
    );
    for (const topic of page) names.push(topic.name);
    if (page.length < PAGE) return names;
    after = page[page.length - 1].name;
  }
}

/** In place of a broker id where no leader is known, as in Kafka. */
const NO_LEADER = -1;

/**
 * One partition in v2's shape: the only copy that counts is the leader's; the object store keeps the rest.
 */
function partitionV2(broker: Broker, { topicId }: Topic, partition: number) {
  const leader = broker.view.leaderOf(topicId, partition);
  if (leader === null) return { partition, leader: NO_LEADER, replicas: [] };
  return { partition, leader, replicas: [{ broker: leader, leader: true, in_sync: true }] };
}

function partitionsV2(broker: Broker, topic: Topic) {
  return Array.from({ length: topic.partitionCount }, (_, partition) =>
    partitionV2(broker, topic, partition),
  );
}

/**
 * Runs with a signal that follows the client and the door, so that neither waits for a long poll. What had found nothing
 * out yet when the door closed is 'shutting-down': an empty answer would say that there is nothing.
 */
async function untilGone<T>(
  context: DoorContext,
  request: DoorRequest,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const gone = new AbortController();
  const abort = () => gone.abort();
  request.onGone(abort);
  context.closing.addEventListener('abort', abort, { once: true });
  if (context.closing.aborted) abort();
  try {
    return await run(gone.signal);
  } catch (error) {
    if (gone.signal.aborted) throw new StreamHouseError('shutting-down', 'the broker is stopping');
    throw error;
  } finally {
    context.closing.removeEventListener('abort', abort);
  }
}

/**
 * Runs a read of a partition. A topic that the log knows as deleted while the catalogue's cache still has it, for it was
 * deleted through another broker, is looked up anew once: its name may be another topic's.
 */
async function withPartition<T>(
  { broker }: DoorContext,
  request: DoorRequest,
  name: string,
  partition: number,
  run: (topic: Topic) => Promise<T>,
): Promise<T> {
  const { topics } = broker;
  let topic = await topics.getWithPartition(name, partition);
  if (isFromPeer(request.headers)) {
    checkPeerHeaders(request.headers, identityOf(broker));
    const asked = topicIdFromPeer(request.headers);
    if (topic.topicId !== asked) {
      topics.doubt(topic);
      topic = await topics.getWithPartition(name, partition);
    }
    if (topic.topicId !== asked) {
      throw new StreamHouseError('topic-not-found', `topic ${name} is ${topic.topicId}, no more ${asked}`);
    }
    return run(topic);
  }
  try {
    return await run(topic);
  } catch (error) {
    if (!(error instanceof StreamHouseError) || error.code !== 'topic-not-found') throw error;
    topics.doubt(topic);
    const now = await topics.getWithPartition(name, partition);
    if (now.topicId === topic.topicId) throw error;
    return run(now);
  }
}

/**
 * The answer of the broker that holds the partition; null: it is to be read here. What another broker sent is never sent on: it is answered here or not at all.
 */
async function readElsewhere(
  context: DoorContext,
  request: DoorRequest,
  topic: Topic,
  partition: number,
  waitMs: number,
): Promise<Reply | null> {
  const { broker, admission } = context;
  if (isFromPeer(request.headers)) return null;
  const { topicId } = topic;
  if (!broker.reads.isElsewhere(topicId, partition)) return null;
  return untilGone(context, request, (signal) =>
    broker.reads.forward(topicId, partition, {
      target: pathOf(request.url as string),
      accept: request.headers.accept,
      waitMs,
      signal,
      admit: (bytes) => admission.answers.admit(bytes),
      release: (bytes) => admission.answers.release(bytes),
    }),
  );
}

interface ReadQuery {
  offset?: string;
  max_bytes?: number;
  timeout?: number;
}

async function readRecordsOf(
  context: DoorContext,
  request: DoorRequest,
  topic: Topic,
  partition: number,
  query: ReadQuery,
): Promise<Reply> {
  const format = acceptedFormat(request.headers.accept);
  if (format === null) {
    throw new StreamHouseError('not-acceptable', `records are given as ${JSON_V2} or ${BINARY_V2}`);
  }
  const { fetch } = context.broker;
  const contentType = format === 'json' ? JSON_V2 : BINARY_V2;
  const elsewhere = await readElsewhere(context, request, topic, partition, query.timeout ?? 0);
  if (elsewhere !== null) return elsewhere;
  let offset: number;
  if (query.offset === undefined || query.offset === 'earliest' || query.offset === 'latest') {
    const bounds = await fetch.bounds(topic, partition);
    offset = query.offset === 'latest' ? bounds.nextOffset : bounds.logStart;
  } else offset = Number(query.offset);
  if (!Number.isSafeInteger(offset)) {
    throw new StreamHouseError('malformed-request', 'query parameter offset is beyond 2^53');
  }
  const bytesMax = query.max_bytes ?? MAX_BYTES_DEFAULT;
  const [result] = await untilGone(context, request, (signal) =>
    fetch.fetch([{ topic, partition, offset, bytesMax }], {
      bytesMax,
      bytesMin: 1,
      waitMs: query.timeout ?? 0,
      signal,
    }),
  );
  if (result.error !== null) throw StreamHouseError.fromPlain(result.error);
  const body = encodeFetchedRecords({ topic: topic.name, partition, offset }, result.batches, format);
  return { status: 200, contentType, body };
}

async function readOffsetsOf(
  context: DoorContext,
  request: DoorRequest,
  topic: Topic,
  partition: number,
  query: { timestamp?: number },
): Promise<Reply> {
  const { fetch } = context.broker;
  const elsewhere = await readElsewhere(context, request, topic, partition, 0);
  if (elsewhere !== null) return elsewhere;
  const bounds = await fetch.bounds(topic, partition);
  const answer = { beginning_offset: bounds.logStart, end_offset: bounds.nextOffset };
  if (query.timestamp === undefined) return kafkaJson(answer);
  const found = await fetch.offsetForTimestamp(topic, partition, query.timestamp);
  return kafkaJson({ ...answer, offset: found?.offset ?? null, timestamp: found?.timestampMs ?? null });
}

/** The v2 routes besides produce. */
export function topicRoutes(): Route[] {
  const kafkaAnswer = { status: 200, contentTypes: [KAFKA_V2] };
  return [
    defineRoute({
      method: 'GET',
      path: '/topics',
      tag: 'Topics',
      summary: 'Names of all topics.',
      answer: { ...kafkaAnswer, description: 'Names, sorted.', schema: TopicNames },
      handle: async (context) => kafkaJson(await listTopicNames(context)),
    }),
    defineRoute({
      method: 'GET',
      path: '/topics/{topic}',
      tag: 'Topics',
      summary: 'A topic with its configs and partitions.',
      answer: { ...kafkaAnswer, description: 'The topic.', schema: TopicV2 },
      async handle({ broker }, { params }) {
        const topic = await broker.topics.get(params.topic);
        const partitions = partitionsV2(broker, topic);
        return kafkaJson({ name: topic.name, configs: topic.configs, partitions });
      },
    }),
    defineRoute({
      method: 'GET',
      path: '/topics/{topic}/partitions',
      tag: 'Topics',
      summary: 'Partitions of a topic.',
      answer: { ...kafkaAnswer, description: 'The partitions.', schema: Type.Array(PartitionV2) },
      async handle({ broker }, { params }) {
        const topic = await broker.topics.get(params.topic);
        return kafkaJson(partitionsV2(broker, topic));
      },
    }),
    defineRoute({
      method: 'GET',
      path: '/topics/{topic}/partitions/{partition}',
      tag: 'Topics',
      summary: 'One partition.',
      answer: { ...kafkaAnswer, description: 'The partition.', schema: PartitionV2 },
      async handle({ broker }, { params }) {
        const topic = await broker.topics.getWithPartition(params.topic, params.partition);
        return kafkaJson(partitionV2(broker, topic, params.partition));
      },
    }),
    defineRoute({
      method: 'GET',
      path: '/topics/{topic}/partitions/{partition}/offsets',
      tag: 'Topics',
      summary: 'First and next offset of a partition, and the offset for a time.',
      query: OffsetsQuery,
      answer: {
        ...kafkaAnswer,
        description: 'With timestamp also the first record not older; null if there is none.',
        schema: OffsetsAnswer,
      },
      handle: (context, { params, query, request }) =>
        withPartition(context, request, params.topic, params.partition, (topic) =>
          readOffsetsOf(context, request, topic, params.partition, query),
        ),
    }),
    defineRoute({
      method: 'GET',
      path: '/topics/{topic}/partitions/{partition}/records',
      tag: 'Records',
      summary: 'Records from an offset on; waits for them up to timeout.',
      query: RecordsQuery,
      answer: {
        status: 200,
        description: 'Keys and values as JSON or, by the Accept header, as base64.',
        schema: RecordsAnswer,
        contentTypes: [JSON_V2, BINARY_V2],
      },
      handle: (context, { params, query, request }) =>
        withPartition(context, request, params.topic, params.partition, (topic) =>
          readRecordsOf(context, request, topic, params.partition, query),
        ),
    }),
  ];
}
