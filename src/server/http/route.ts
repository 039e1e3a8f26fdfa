/**
 * What a route of the HTTP door is: method, path, the schemas it validates with and is documented by, and its
 * handler. Owns: the types and the checking of parameters, query and body. Main thread.
 */
import { isUtf8 } from 'node:buffer';
import type { Static, TObject, TSchema } from 'typebox';
import Type from 'typebox';
import { Compile, type Validator } from 'typebox/compile';
import { StreamHouseError } from '../../core/errors.ts';
import { NoQuery } from '../../protocol/http/schemas.ts';
import { type PeerIdentity, peerKey } from '../../protocol/peer/peer-headers.ts';
import type { Broker } from '../../route/broker.ts';
import type { DoorContext } from './door-context.ts';
import type { DoorRequest } from './door-request.ts';

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
export const METHODS: readonly Method[] = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'];

/** An answer of a handler; body null: none (204). */
export interface Reply {
  status: number;
  contentType: string;
  body: string | Uint8Array | null;
  retryAfter?: string | undefined;
  /** Bytes of the body that were admitted already. */
  admitted?: number;
}

/** A checked request as its handler sees it. */
export interface Call<Query, Body> {
  params: PathParams;
  query: Query;
  body: Body;
  request: DoorRequest;
}

export interface AnswerDoc {
  status: number;
  description: string;
  schema: TSchema | null;
  contentTypes: readonly string[];
}

export interface RouteSpec<Query extends TObject, Body extends TSchema> {
  method: Method;
  /** As in OpenAPI: `/topics/{topic}`. */
  path: string;
  tag: string;
  summary: string;
  query?: Query;
  /** A JSON body that must be there. */
  body?: Body;
  answer: AnswerDoc;
  handle(context: DoorContext, call: Call<Static<Query>, Static<Body>>): Reply | Promise<Reply>;
}

/** A route as the door runs it. */
export interface Route {
  readonly method: Method;
  readonly path: string;
  readonly tag: string;
  readonly summary: string;
  readonly querySchema: TObject;
  readonly bodySchema: TSchema | null;
  readonly answer: AnswerDoc;
  /** Checks what came and runs the handler; throws or rejects with operating errors. */
  run(
    context: DoorContext,
    request: DoorRequest,
    rawParams: Record<string, string | undefined>,
    search: string,
    body: Buffer | null,
  ): Reply | Promise<Reply>;
}

/** This broker as its peers know it. */
export function identityOf({ cluster, info }: Broker): PeerIdentity {
  let key = keys.get(cluster);
  if (key === undefined) keys.set(cluster, (key = peerKey(cluster)));
  return { key, incarnation: () => info.incarnation };
}

/** Made once for each cluster, of which there is one. */
const keys = new WeakMap<Broker['cluster'], string>();

/** The path (and query) of a request target, which may be a whole URL (RFC 9112 section 3.2.2). */
export function pathOf(target: string): string {
  if (!target.startsWith('http://')) return target;
  const slash = target.indexOf('/', 7);
  return slash === -1 ? '/' : target.slice(slash);
}

const PARTITION_MAX = 2147483647;

/** Every parameter that a path may have; the schemas are those of the documentation too. */
export const PATH_PARAMS = {
  topic: Type.String({ description: 'Name of a topic.' }),
  partition: Type.Integer({ minimum: 0, maximum: PARTITION_MAX, description: 'Number of a partition.' }),
  cluster: Type.String({ description: 'Id of this cluster, from GET /v3/clusters.' }),
  broker: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
  name: Type.String({ description: 'Name of a config.' }),
} as const;

export interface PathParams {
  topic: string;
  partition: number;
  cluster: string;
  broker: number;
  name: string;
}

/** Makes a route of its spec; compiles its schemas. */
export function defineRoute<Query extends TObject = typeof NoQuery, Body extends TSchema = TSchema>(
  spec: RouteSpec<Query, Body>,
): Route {
  const querySchema: TObject = spec.query ?? NoQuery;
  const queryCheck = Compile(querySchema);
  const bodyCheck = spec.body ? Compile(spec.body as TSchema) : null;
  return {
    method: spec.method,
    path: spec.path,
    tag: spec.tag,
    summary: spec.summary,
    querySchema,
    bodySchema: spec.body ?? null,
    answer: spec.answer,
    run(context, request, rawParams, search, body) {
      const params = readParams(rawParams);
      const query = readQuery(querySchema, queryCheck, search) as Static<Query>;
      const parsed = (bodyCheck && body ? readJsonBody(bodyCheck, body) : null) as Static<Body>;
      return spec.handle(context, { params, query, body: parsed, request });
    },
  };
}

function readParams(raw: Record<string, string | undefined>): PathParams {
  const params: PathParams = { topic: '', partition: -1, cluster: '', broker: -1, name: '' };
  if (raw.topic !== undefined) params.topic = raw.topic;
  if (raw.cluster !== undefined) params.cluster = raw.cluster;
  if (raw.name !== undefined) params.name = raw.name;
  if (raw.partition !== undefined) {
    params.partition = partitionNumber(raw.partition);
  }
  if (raw.broker !== undefined) {
    if (!/^[0-9]{1,16}$/.test(raw.broker)) throw new StreamHouseError('route-not-found', 'no such broker');
    params.broker = Number(raw.broker);
  }
  return params;
}

/** A path's partition; 'partition-not-found' for what is no partition number at all. */
export function partitionNumber(text: string): number {
  const number = /^[0-9]{1,10}$/.test(text) ? Number(text) : -1;
  if (number >= 0 && number <= PARTITION_MAX) return number;
  throw new StreamHouseError('partition-not-found', `${JSON.stringify(text)} is not a partition number`);
}

function readQuery(schema: TObject, check: Validator, search: string): Record<string, string | number> {
  const query: Record<string, string | number> = {};
  if (search === '') return query;
  const properties = schema.properties as Record<string, TSchema & { type?: string }>;
  for (const [name, text] of new URLSearchParams(search)) {
    if (!Object.hasOwn(properties, name)) {
      const known = Object.keys(properties);
      throw new StreamHouseError(
        'malformed-request',
        `unknown query parameter ${JSON.stringify(name.slice(0, 60))}` +
          (known.length === 0 ? ': none is taken here' : `: there are ${known.join(', ')}`),
      );
    }
    if (Object.hasOwn(query, name)) {
      throw new StreamHouseError('malformed-request', `query parameter ${name} is given twice`);
    }
    const isNumber = properties[name].type === 'integer' && /^-?[0-9]{1,16}$/.test(text);
    query[name] = isNumber ? Number(text) : text;
  }
  if (!check.Check(query)) {
    throw new StreamHouseError('malformed-request', `query parameter ${firstFault(check, query)}`);
  }
  return query;
}

function readJsonBody(check: Validator, body: Buffer): unknown {
  if (!isUtf8(body)) throw new StreamHouseError('malformed-request', 'the body is not valid UTF-8');
  let value: unknown;
  try {
    value = JSON.parse(body.toString('utf8'));
  } catch (error) {
    throw new StreamHouseError('malformed-request', `not JSON: ${(error as Error).message}`);
  }
  if (!check.Check(value)) throw new StreamHouseError('invalid-request', firstFault(check, value));
  return value;
}

/** The first fault that the schema finds, in words: `/configs/0/name must be string`. */
function firstFault(check: Validator, value: unknown): string {
  const faults = check.Errors(value);
  for (const fault of faults) {
    if (fault.keyword === 'additionalProperties') {
      const names = (fault.params as { additionalProperties: string[] }).additionalProperties;
      return `${fault.instancePath || 'the body'} has an unknown member ${JSON.stringify(names[0])}`;
    }
  }
  const fault = faults[0];
  const pattern =
    fault.keyword === 'pattern' ? ` (${String((fault.params as { pattern: unknown }).pattern)})` : '';
  return `${fault.instancePath.replace(/^\//, '') || 'the body'} ${fault.message}${pattern}`;
}
