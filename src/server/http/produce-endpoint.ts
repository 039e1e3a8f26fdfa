/**
 * `POST /topics/{topic}` and `POST /topics/{topic}/partitions/{partition}`, the hot path of the door. Owns:
 * from the headers of such a request to its answer, one object per request and no promise on the usual way.
 * Does not own: the form of the body (protocol/http/produce-body) nor what happens to records (route). Main
 * thread.
 *
 *   begin -> (body) onBody -> [catalogue re-read] -> submit -> answer
 */
import type { ServerResponse } from 'node:http';
import { type PlainError, StreamHouseError } from '../../core/errors.ts';
import { partitionOfKeyBytes } from '../../core/partitioner.ts';
import type { ProducerStamp } from '../../core/record-batch.ts';
import {
  BINARY_V2,
  bodyFormat,
  type EmbeddedFormat,
  JSON_V2,
  KAFKA_V2,
  PLAIN_JSON,
} from '../../protocol/http/media-type.ts';
import { type ProduceBody, parseProduceBody } from '../../protocol/http/produce-body.ts';
import type { ProduceRequest, ProduceResult } from '../../route/broker.ts';
import type { DoorContext } from './door-context.ts';
import type { BodyFault, BodySink, DoorRequest } from './door-request.ts';
import { HTTP_ERRORS } from './error-table.ts';

type Topic = ProduceRequest['topic'];

export const TOPIC_ROUTE = '/topics/{topic}';
export const PARTITION_ROUTE = '/topics/{topic}/partitions/{partition}';

/** Headers of an idempotent producer, lower case as Node gives them. */
const PRODUCER_HEADERS = [
  ['streamhouse-producer-id', Number.MAX_SAFE_INTEGER],
  ['streamhouse-producer-epoch', 32767],
  ['streamhouse-producer-sequence', 2147483647],
] as const;

/** The partition asked for by the path; -1: none, each record finds its own. */
const NO_PARTITION = -1;

export class ProduceEndpoint {
  readonly #context: DoorContext;
  /** Where the next request's records without a key go: one partition per request makes the fewest slices. */
  #turn = 0;

  constructor(context: DoorContext) {
    this.#context = context;
  }

  /**
   * Takes a request if it is a produce request for a topic in the cache, by its plain path; false: not so.
   */
  takeIfHot(request: DoorRequest, response: ServerResponse, url: string): boolean {
    if (!url.startsWith('/topics/')) return false;
    const slash = url.indexOf('/', 8);
    const name = slash === -1 ? url.slice(8) : url.slice(8, slash);
    const topic = this.#context.broker.topics.peek(name);
    if (topic === undefined) return false;
    let partition = NO_PARTITION;
    if (slash !== -1) {
      partition = partitionOfPath(url, slash);
      if (partition < 0) return false;
    }
    this.begin(request, response, name, partition, topic);
    return true;
  }

  /**
   * `topic` is undefined when the cache does not know it; the name is then looked up once the body is there.
   */
  begin(
    request: DoorRequest,
    response: ServerResponse,
    name: string,
    partition: number,
    topic: Topic | undefined,
  ): void {
    request.route = partition === NO_PARTITION ? TOPIC_ROUTE : PARTITION_ROUTE;
    const { responder } = this.#context;
    const format = bodyFormat(request.headers['content-type']);
    if (format === null) {
      responder.refuseUnread(request, response, unsupportedType(request.headers['content-type']));
      return;
    }
    const exchange = new ProduceExchange(this, this.#context, response, name, partition, topic, format);
    startBody(this.#context, request, response, exchange);
  }

  nextTurn(partitionCount: number): number {
    this.#turn = (this.#turn + 1) % 0x40000000;
    return this.#turn % partitionCount;
  }
}

function partitionOfPath(url: string, slash: number): number {
  if (!url.startsWith('/partitions/', slash)) return -1;
  const start = slash + 12;
  if (url.length === start || url.length > start + 10) return -1;
  let partition = 0;
  for (let i = start; i < url.length; i++) {
    const digit = url.charCodeAt(i) - 48;
    if (digit < 0 || digit > 9) return -1;
    partition = partition * 10 + digit;
  }
  return partition <= 2147483647 ? partition : -1;
}

/**
 * Begins to collect a body for `sink`, or answers at once if it is too long or there is no room for it now.
 * In the turn of the event loop in which the request came.
 */
export function startBody(
  context: DoorContext,
  request: DoorRequest,
  response: ServerResponse,
  sink: BodySink,
  bodyBytesMax = context.settings.bodyBytesMax,
): void {
  const admission = context.admission.bodies;
  const declared = request.declaredBytes();
  const refuse = (fault: BodyFault) => refuseBody(context, request, response, fault, bodyBytesMax);
  if (declared > bodyBytesMax) refuse('too-large');
  else if (declared > 0 && !admission.admit(declared)) refuse('not-admitted');
  else request.collect(sink, admission, declared, bodyBytesMax);
}

/** Answers a request whose body could not be taken. */
export function refuseBody(
  context: DoorContext,
  request: DoorRequest,
  response: ServerResponse,
  fault: BodyFault,
  bodyBytesMax = context.settings.bodyBytesMax,
): void {
  const error: PlainError =
    fault === 'too-large'
      ? { code: 'body-too-large', message: `the body is over the limit of ${bodyBytesMax} bytes` }
      : { code: 'overloaded', message: 'too many bytes of request bodies under way; nothing was read' };
  context.responder.refuseUnread(request, response, error);
}

function unsupportedType(given: string | undefined): PlainError {
  return {
    code: 'unsupported-media-type',
    message:
      `Content-Type ${given === undefined ? 'is missing' : JSON.stringify(given)}: ` +
      `records come as ${JSON_V2}, ${PLAIN_JSON} or ${BINARY_V2}`,
  };
}

/** One produce request. */
class ProduceExchange implements BodySink {
  readonly #endpoint: ProduceEndpoint;
  readonly #context: DoorContext;
  readonly #response: ServerResponse;
  readonly #name: string;
  readonly #partition: number;
  readonly #topic: Topic | undefined;
  readonly #format: EmbeddedFormat;

  constructor(
    endpoint: ProduceEndpoint,
    context: DoorContext,
    response: ServerResponse,
    name: string,
    partition: number,
    topic: Topic | undefined,
    format: EmbeddedFormat,
  ) {
    this.#endpoint = endpoint;
    this.#context = context;
    this.#response = response;
    this.#name = name;
    this.#partition = partition;
    this.#topic = topic;
    this.#format = format;
  }

  onBodyFault(request: DoorRequest, fault: BodyFault): void {
    refuseBody(this.#context, request, this.#response, fault);
  }

  onBody(request: DoorRequest, bytes: Buffer): void {
    try {
      const body = parseProduceBody(bytes, this.#format);
      const producer = this.#producer(request);
      const highest = this.#highestPartition(body);
      const topic = this.#topic;
      if (topic !== undefined && highest < topic.partitionCount) this.#submit(request, topic, body, producer);
      else this.#submitLater(request, highest, body, producer);
    } catch (error) {
      request.releaseBody();
      this.#context.responder.failure(request, this.#response, error);
    }
  }

  /** The topic is not cached, or seems to have too few partitions: ask the catalogue. */
  #submitLater(
    request: DoorRequest,
    highest: number,
    body: ProduceBody,
    producer: ProducerStamp | null,
  ): void {
    const { topics } = this.#context.broker;
    const found = highest < 0 ? topics.get(this.#name) : topics.getWithPartition(this.#name, highest);
    found
      .then((topic) => this.#submit(request, topic, body, producer))
      .catch((error: unknown) => {
        request.releaseBody();
        this.#context.responder.failure(request, this.#response, error);
      });
  }

  #submit(request: DoorRequest, topic: Topic, body: ProduceBody, producer: ProducerStamp | null): void {
    const partitions = this.#assign(body, topic.partitionCount);
    this.#context.broker.produce.submit(
      {
        topic,
        partitions,
        producer,
        source: body.source,
        spans: body.spans,
        timeoutMs: this.#context.settings.produceTimeoutMs,
      },
      (result) => this.#done(request, partitions, result),
    );
    request.releaseBody();
  }

  /** The greatest partition that the request names; -1: none. */
  #highestPartition(body: ProduceBody): number {
    if (this.#partition !== NO_PARTITION) {
      if (body.partitionsGiven) {
        throw new StreamHouseError(
          'invalid-request',
          'a record must not name a partition where the path does',
        );
      }
      return this.#partition;
    }
    if (!body.partitionsGiven) return -1;
    let highest = -1;
    for (const partition of body.partitions) if (partition > highest) highest = partition;
    return highest;
  }

  #assign(body: ProduceBody, partitionCount: number): number[] {
    const { partitions, spans, source } = body;
    if (this.#partition !== NO_PARTITION) return partitions.fill(this.#partition);
    let keyless = -1;
    for (let i = 0; i < partitions.length; i++) {
      if (partitions[i] >= 0) continue;
      const start = spans[i * 4];
      if (start >= 0) partitions[i] = partitionOfKeyBytes(source, start, spans[i * 4 + 1], partitionCount);
      else {
        if (keyless < 0) keyless = this.#endpoint.nextTurn(partitionCount);
        partitions[i] = keyless;
      }
    }
    return partitions;
  }

  /** The stamp of an idempotent producer; null without its headers. */
  #producer(request: DoorRequest): ProducerStamp | null {
    const { headers } = request;
    let given = 0;
    for (const [name] of PRODUCER_HEADERS) if (headers[name] !== undefined) given++;
    if (given === 0) return null;
    if (given < PRODUCER_HEADERS.length) {
      throw new StreamHouseError(
        'invalid-request',
        'Streamhouse-Producer-Id, -Epoch and -Sequence go together',
      );
    }
    if (this.#partition === NO_PARTITION) {
      throw new StreamHouseError(
        'invalid-request',
        'an idempotent producer writes to one partition: POST /topics/{topic}/partitions/{partition}',
      );
    }
    const [producerId, producerEpoch, baseSequence] = PRODUCER_HEADERS.map(([name, max]) => {
      const text = String(headers[name]);
      const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : -1;
      if (value >= 0 && value <= max) return value;
      throw new StreamHouseError('invalid-request', `header ${name} must be an integer from 0 to ${max}`);
    });
    return { producerId, producerEpoch, baseSequence };
  }

  /** Called from inside the broker's commit path, which no fault of an answer may disturb. */
  #done(request: DoorRequest, partitions: readonly number[], result: ProduceResult): void {
    try {
      this.#answer(request, partitions, result);
    } catch (error) {
      this.#context.observer.internalError(error, request.route);
      this.#response.destroy();
    }
  }

  #answer(request: DoorRequest, partitions: readonly number[], result: ProduceResult): void {
    const { responder } = this.#context;
    const { offsets, errors } = result;
    if (errors === null) {
      let text = '{"offsets":[';
      for (let i = 0; i < offsets.length; i++) {
        text += `${i === 0 ? '' : ','}{"partition":${partitions[i]},"offset":${offsets[i]}}`;
      }
      responder.ascii(request, this.#response, 200, KAFKA_V2, `${text}]}`);
      return;
    }
    const common = commonError(errors);
    if (common !== null) {
      responder.error(request, this.#response, common);
      return;
    }
    const entries = offsets.map((offset, i) => {
      const error = errors[i];
      if (error === null) return { partition: partitions[i], offset };
      const { errorCode } = HTTP_ERRORS[error.code];
      return { partition: partitions[i], offset: null, error_code: errorCode, error: error.message };
    });
    responder.send(request, this.#response, 200, KAFKA_V2, JSON.stringify({ offsets: entries }));
  }
}

/** The error with which every record failed; null if some did not or if their codes differ. */
function commonError(errors: readonly (PlainError | null)[]): PlainError | null {
  const first = errors[0];
  if (first === null || first === undefined) return null;
  for (const error of errors) if (error === null || error.code !== first.code) return null;
  return first;
}
