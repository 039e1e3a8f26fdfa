/**
 * The OpenAPI 3.1 page, made of the routes and the very schemas that requests are validated with. Pure.
 */
import type { TSchema } from 'typebox';
import { BINARY_V2, JSON_V2, KAFKA_V2, PLAIN_JSON } from '../../protocol/http/media-type.ts';
import { ErrorBody, ProduceAnswer, ProduceBodyBinary, ProduceBodyJson } from '../../protocol/http/schemas.ts';
import { PARTITION_ROUTE, TOPIC_ROUTE } from './produce-endpoint.ts';
import { PATH_PARAMS, type Route } from './route.ts';
import { ZONE_BROKER_HEADER } from './zone-pointer.ts';

type Json = Record<string, unknown>;

function contentOf(types: readonly string[], schema: TSchema): Json {
  return Object.fromEntries(types.map((type) => [type, { schema }]));
}

const errorAnswer: Json = {
  description: 'Refused or failed; see error_code.',
  content: { [PLAIN_JSON]: { schema: { $ref: '#/components/schemas/Error' } } },
};

function pathParameters(path: string): Json[] {
  return [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => {
    const schema = PATH_PARAMS[name as keyof typeof PATH_PARAMS];
    return { name, in: 'path', required: true, schema };
  });
}

function queryParameters(route: Route): Json[] {
  const properties = route.querySchema.properties as Record<string, TSchema>;
  return Object.entries(properties).map(([name, schema]) => ({ name, in: 'query', required: false, schema }));
}

/** What any request may bear. */
const zoneHeader: Json = {
  name: 'Streamhouse-Zone',
  in: 'header',
  required: false,
  description: "The client's zone: an answer from another zone names a live broker there.",
  schema: { type: 'string' },
};

/** What any answer may bear. */
const answerHeaders: Json = {
  [ZONE_BROKER_HEADER]: {
    description: 'http://HOST:PORT of a live broker in the zone that the request named.',
    schema: { type: 'string' },
  },
};

function operationId(method: string, path: string): string {
  const words = path
    .split(/[^A-Za-z0-9]+/)
    .filter((word) => word !== '')
    .map((word) => word[0].toUpperCase() + word.slice(1));
  return `${method.toLowerCase()}${words.join('') || 'Root'}`;
}

function operation(route: Route): Json {
  const { answer } = route;
  const answers: Json = {
    [answer.status]: {
      description: answer.description,
      headers: answerHeaders,
      ...(answer.schema ? { content: contentOf(answer.contentTypes, answer.schema) } : {}),
    },
    default: errorAnswer,
  };
  return {
    operationId: operationId(route.method, route.path),
    tags: [route.tag],
    summary: route.summary,
    parameters: [...pathParameters(route.path), ...queryParameters(route), zoneHeader],
    ...(route.bodySchema
      ? { requestBody: { required: true, content: contentOf([PLAIN_JSON], route.bodySchema) } }
      : {}),
    responses: answers,
  };
}

function producerHeaders(): Json[] {
  const of = (name: string, maximum: number) => ({
    name,
    in: 'header',
    required: false,
    description: 'For an idempotent producer; all three or none.',
    schema: { type: 'integer', minimum: 0, maximum },
  });
  return [
    of('Streamhouse-Producer-Id', Number.MAX_SAFE_INTEGER),
    of('Streamhouse-Producer-Epoch', 32767),
    of('Streamhouse-Producer-Sequence', 2147483647),
  ];
}

function produceOperation(path: string): Json {
  const ofPartition = path === PARTITION_ROUTE;
  return {
    operationId: operationId('POST', path),
    tags: ['Records'],
    summary: ofPartition ? 'Appends records to one partition.' : 'Appends records to a topic.',
    parameters: [...pathParameters(path), ...(ofPartition ? producerHeaders() : []), zoneHeader],
    requestBody: {
      required: true,
      content: {
        ...contentOf([JSON_V2, PLAIN_JSON], ProduceBodyJson),
        ...contentOf([BINARY_V2], ProduceBodyBinary),
      },
    },
    responses: {
      200: {
        description: 'One entry per record, in order; those with error_code were not committed.',
        headers: answerHeaders,
        content: contentOf([KAFKA_V2], ProduceAnswer),
      },
      default: errorAnswer,
    },
  };
}

/** The document as JSON text. */
export function openApiText(routes: readonly Route[], version: string): string {
  const paths: Record<string, Json> = {};
  for (const path of [TOPIC_ROUTE, PARTITION_ROUTE]) paths[path] = { post: produceOperation(path) };
  for (const route of routes) {
    paths[route.path] = { ...paths[route.path], [route.method.toLowerCase()]: operation(route) };
  }
  return JSON.stringify({
    openapi: '3.1.0',
    info: {
      title: 'StreamHouse',
      version,
      description: 'Records in the shape of Kafka REST Proxy v2, administration in the shape of v3.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    paths,
    components: { schemas: { Error: ErrorBody } },
  });
}
