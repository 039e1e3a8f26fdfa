/**
 * A small client of the HTTP door, over undici: for the command line, the demo and tests. Owns connections, the
 * paths and shapes of the API (docs/http-api.md) as a client sees them, and how failures are told apart. Does
 * not retry, batch or keep order: record-sender.ts does. Main thread.
 */
import { type Dispatcher, Pool } from 'undici';
import {
  connectionError,
  outcomeOfErrorCode,
  outcomeOfStatus,
  RestError,
  type RestOutcome,
} from './rest-error.ts';

const JSON_V2 = 'application/vnd.kafka.json.v2+json';
const BINARY_V2 = 'application/vnd.kafka.binary.v2+json';

/** `json`: keys and values are JSON; `binary`: they are bytes. */
export type Embedded = 'json' | 'binary';

export interface TopicView {
  name: string;
  partitionCount: number;
}

export interface ConfigView {
  name: string;
  value: string | null;
  isDefault: boolean;
}

/** One record to append. With `binary` keys and values are Buffers (or null), else anything that JSON has. */
export interface OutgoingRecord {
  key?: unknown;
  value: unknown;
  partition?: number;
}

/** What became of one record. */
export type RecordAnswer =
  | { error: null; partition: number; offset: number }
  | { error: RestError; partition: number | null };

/** An idempotent producer's stamp on a request to one partition (KIP-98). */
export interface RestProducerStamp {
  producerId: number;
  producerEpoch: number;
  /** Sequence number of the request's first record. */
  baseSequence: number;
}

/** One record as read; with `binary` keys and values are Buffers (or null). */
export interface IncomingRecord {
  topic: string;
  partition: number;
  offset: number;
  /** Ms since 1970. */
  timestamp: number;
  key: unknown;
  value: unknown;
}

export interface PartitionOffsets {
  /** The first readable offset. */
  beginning: number;
  /** The offset that the next record will get. */
  end: number;
}

export interface RestClientOptions {
  /** Open connections at most, and so requests in flight. Default 16. */
  connectionsMax?: number;
  /** For a whole request, ms; long polls have their wait on top. Default 60 s. */
  timeoutMs?: number;
  /** Ends everything in flight. */
  signal?: AbortSignal;
}

interface Call {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE' | 'PATCH';
  path: string;
  body?: string;
  headers?: Record<string, string>;
  /** On top of the client's timeout. */
  waitMs?: number;
}

/** A file's worth of the answer's text is enough for a message. */
const MESSAGE_CHARACTERS_MAX = 500;

export class RestClient {
  readonly url: string;
  readonly #pool: Pool;
  readonly #prefix: string;
  readonly #timeoutMs: number;
  readonly #signal: AbortSignal | undefined;
  #clusterId: string | null = null;

  /** 'invalid-url' (as a RestError) unless `url` is http:// or https://. */
  constructor(url: string, options: RestClientOptions = {}) {
    const parsed = URL.canParse(url) ? new URL(url) : null;
    if (parsed === null || (parsed.protocol !== 'http:' && parsed.protocol !== 'https:')) {
      throw failure(`${JSON.stringify(url.slice(0, 200))} is not an http:// or https:// URL`, 'invalid-url');
    }
    this.url = parsed.origin + parsed.pathname.replace(/\/+$/, '');
    this.#prefix = parsed.pathname.replace(/\/+$/, '');
    this.#timeoutMs = options.timeoutMs ?? 60_000;
    this.#signal = options.signal;
    this.#pool = new Pool(parsed.origin, {
      connections: options.connectionsMax ?? 16,
      pipelining: 1,
      connectTimeout: 5_000,
    });
  }

  /** Ends idle connections and whatever is still open on the others. */
  async close(): Promise<void> {
    await this.#pool.destroy();
  }

  // -- Topics -----------------------------------------------------------------------------------------
  async clusterId(): Promise<string> {
    if (this.#clusterId === null) {
      const answer = (await this.#json({ method: 'GET', path: '/v3/clusters' })) as {
        data?: { cluster_id?: unknown }[];
      };
      const id = answer.data?.[0]?.cluster_id;
      if (typeof id !== 'string') throw failure('the broker named no cluster', 'bad-answer');
      this.#clusterId = id;
    }
    return this.#clusterId;
  }

  async #topicsPath(): Promise<string> {
    return `/v3/clusters/${encodeURIComponent(await this.clusterId())}/topics`;
  }

  async #topicPath(name: string): Promise<string> {
    return `${await this.#topicsPath()}/${encodeURIComponent(name)}`;
  }

  /** Every topic, by name. */
  async listTopics(): Promise<TopicView[]> {
    const topics: TopicView[] = [];
    let path: string | null = await this.#topicsPath();
    while (path !== null) {
      const answer = (await this.#json({ method: 'GET', path })) as {
        data?: unknown[];
        metadata?: { next?: string | null };
      };
      if (!Array.isArray(answer.data)) throw failure('the list of topics is no list', 'bad-answer');
      topics.push(...answer.data.map(topicView));
      const next: string | null = answer.metadata?.next ?? null;
      path = next === null ? null : this.#pathOf(next);
    }
    return topics;
  }

  /** A link of an answer as a path under the client's own base: the host that it names may not be ours. */
  #pathOf(link: string): string {
    const parsed = new URL(link, this.url);
    const path = parsed.pathname + parsed.search;
    return path.startsWith(`${this.#prefix}/`) ? path.slice(this.#prefix.length) : path;
  }

  /** 'topic-not-found'. */
  async getTopic(name: string): Promise<TopicView> {
    return topicView(await this.#json({ method: 'GET', path: await this.#topicPath(name) }));
  }

  /** 'topic-exists', 'refused' for what the broker does not take. */
  async createTopic(topic: {
    name: string;
    partitionCount: number;
    configs?: Record<string, string>;
  }): Promise<TopicView> {
    const body = JSON.stringify({
      topic_name: topic.name,
      partitions_count: topic.partitionCount,
      configs: Object.entries(topic.configs ?? {}).map(([name, value]) => ({ name, value })),
    });
    return topicView(await this.#json({ method: 'POST', path: await this.#topicsPath(), body }));
  }

  /** Sets a higher partition count. */
  async growTopic(name: string, partitionCount: number): Promise<TopicView> {
    const body = JSON.stringify({ partitions_count: partitionCount });
    await this.#json({ method: 'PATCH', path: await this.#topicPath(name), body });
    return this.getTopic(name);
  }

  async deleteTopic(name: string): Promise<void> {
    await this.#json({ method: 'DELETE', path: await this.#topicPath(name) });
  }

  async topicConfigs(name: string): Promise<ConfigView[]> {
    const answer = (await this.#json({ method: 'GET', path: `${await this.#topicPath(name)}/configs` })) as {
      data?: { name?: unknown; value?: unknown; is_default?: unknown }[];
    };
    if (!Array.isArray(answer.data)) throw failure('the list of configs is no list', 'bad-answer');
    return answer.data.map((row) => ({
      name: String(row.name),
      value: row.value === null || row.value === undefined ? null : String(row.value),
      isDefault: row.is_default === true,
    }));
  }

  /** Sets (a string) and resets (null) several configs in one step. */
  async alterConfigs(name: string, changes: Record<string, string | null>): Promise<void> {
    const data = Object.entries(changes).map(([config, value]) =>
      value === null ? { name: config, operation: 'DELETE' } : { name: config, value },
    );
    const path = `${await this.#topicPath(name)}/configs:alter`;
    await this.#json({ method: 'POST', path, body: JSON.stringify({ data }) });
  }

  async offsets(topic: string, partition: number): Promise<PartitionOffsets> {
    const path = `/topics/${encodeURIComponent(topic)}/partitions/${partition}/offsets`;
    const answer = (await this.#json({ method: 'GET', path })) as Record<string, unknown>;
    return { beginning: wholeNumber(answer.beginning_offset), end: wholeNumber(answer.end_offset) };
  }

  /** The first offset whose record is not older than `timestampMs`; the partition's end if there is none. */
  async offsetAt(topic: string, partition: number, timestampMs: number): Promise<number> {
    const path = `/topics/${encodeURIComponent(topic)}/partitions/${partition}/offsets?timestamp=${timestampMs}`;
    const answer = (await this.#json({ method: 'GET', path })) as Record<string, unknown>;
    return typeof answer.offset === 'number' ? answer.offset : wholeNumber(answer.end_offset);
  }

  // -- Records ----------------------------------------------------------------------------------------
  /** Appends records to the partitions that they name, or by their key. One answer per record, in order. */
  produce(topic: string, records: readonly OutgoingRecord[], embedded: Embedded): Promise<RecordAnswer[]> {
    const path = `/topics/${encodeURIComponent(topic)}`;
    return this.#produce(path, records, embedded, {});
  }

  /** Appends records to one partition, idempotently with a stamp. One answer per record, in order. */
  produceToPartition(
    topic: string,
    partition: number,
    records: readonly OutgoingRecord[],
    embedded: Embedded,
    stamp: RestProducerStamp | null,
  ): Promise<RecordAnswer[]> {
    const path = `/topics/${encodeURIComponent(topic)}/partitions/${partition}`;
    const headers: Record<string, string> = {};
    if (stamp !== null) {
      headers['streamhouse-producer-id'] = String(stamp.producerId);
      headers['streamhouse-producer-epoch'] = String(stamp.producerEpoch);
      headers['streamhouse-producer-sequence'] = String(stamp.baseSequence);
    }
    return this.#produce(path, records, embedded, headers);
  }

  async #produce(
    path: string,
    records: readonly OutgoingRecord[],
    embedded: Embedded,
    headers: Record<string, string>,
  ): Promise<RecordAnswer[]> {
    const body = JSON.stringify({
      records: records.map(({ key, value, partition }) => ({
        ...(key === undefined ? {} : { key: encode(key, embedded) }),
        value: encode(value, embedded),
        ...(partition === undefined ? {} : { partition }),
      })),
    });
    const contentType = embedded === 'json' ? JSON_V2 : BINARY_V2;
    const answer = (await this.#json({
      method: 'POST',
      path,
      body,
      headers: { ...headers, 'content-type': contentType },
    })) as { offsets?: unknown };
    if (!Array.isArray(answer.offsets) || answer.offsets.length !== records.length) {
      throw failure('the broker did not answer every record', 'bad-answer', 'unknown');
    }
    return answer.offsets.map(recordAnswer);
  }

  /** Records from `offset` on; waits up to `waitMs` for the first. 'offset-out-of-range'. */
  async fetch(
    topic: string,
    partition: number,
    offset: number,
    options: { bytesMax: number; waitMs: number; embedded: Embedded },
  ): Promise<IncomingRecord[]> {
    const { bytesMax, waitMs, embedded } = options;
    const query = `offset=${offset}&max_bytes=${bytesMax}&timeout=${waitMs}`;
    const path = `/topics/${encodeURIComponent(topic)}/partitions/${partition}/records?${query}`;
    const accept = embedded === 'json' ? JSON_V2 : BINARY_V2;
    const answer = await this.#json({ method: 'GET', path, headers: { accept }, waitMs });
    if (!Array.isArray(answer)) throw failure('the records are no list', 'bad-answer');
    const records = answer as IncomingRecord[];
    if (embedded === 'binary') {
      for (const record of records) {
        record.key = decode(record.key);
        record.value = decode(record.value);
      }
    }
    return records;
  }

  /** A fresh producer id for idempotent producing; its epoch is 0. */
  async allocateProducerId(): Promise<{ producerId: number; producerEpoch: number }> {
    const path = `/v3/clusters/${encodeURIComponent(await this.clusterId())}/producer-ids`;
    const answer = (await this.#json({ method: 'POST', path, body: '{}' })) as Record<string, unknown>;
    return { producerId: wholeNumber(answer.producer_id), producerEpoch: wholeNumber(answer.producer_epoch) };
  }

  /** Prometheus text. */
  metricsText(): Promise<string> {
    return this.#text({ method: 'GET', path: '/metrics' });
  }

  // -- One request ------------------------------------------------------------------------------------
  async #json(call: Call): Promise<unknown> {
    const text = await this.#text(call);
    if (text === '') return {};
    try {
      return JSON.parse(text);
    } catch {
      throw failure(`${call.method} ${call.path} was not answered in JSON`, 'bad-answer', 'unknown');
    }
  }

  async #text(call: Call): Promise<string> {
    const timeoutMs = this.#timeoutMs + (call.waitMs ?? 0);
    let answer: Dispatcher.ResponseData;
    let text: string;
    try {
      answer = await this.#pool.request({
        method: call.method,
        path: this.#prefix + call.path,
        headers: {
          accept: 'application/json',
          ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
          ...call.headers,
        },
        body: call.body,
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
        signal: this.#signal,
      });
      text = await answer.body.text();
    } catch (error) {
      throw connectionError(error, this.url);
    }
    if (answer.statusCode >= 200 && answer.statusCode < 300) return text;
    throw answerError(answer, text);
  }
}

function failure(message: string, code: string, outcome: 'refused' | 'unknown' = 'refused'): RestError {
  return new RestError(message, { outcome, code, status: null, errorCode: null, retryAfterMs: null });
}

/** A Buffer as base64 where the form is binary. */
function encode(value: unknown, embedded: Embedded): unknown {
  if (embedded === 'json' || value === null) return value;
  return (value as Buffer).toString('base64');
}

function decode(value: unknown): Buffer | null {
  return typeof value === 'string' ? Buffer.from(value, 'base64') : null;
}

function wholeNumber(value: unknown): number {
  if (typeof value === 'number' && Number.isSafeInteger(value)) return value;
  throw failure(`a number was expected, ${JSON.stringify(value)} came`, 'bad-answer');
}

function topicView(answer: unknown): TopicView {
  const row = answer as { topic_name?: unknown; partitions_count?: unknown };
  return { name: String(row.topic_name), partitionCount: wholeNumber(row.partitions_count) };
}

function recordAnswer(row: unknown): RecordAnswer {
  const { partition, offset, error_code, error } = row as Record<string, unknown>;
  if (typeof error_code === 'number') {
    const outcome = outcomeOfErrorCode(error_code);
    const fields = {
      outcome,
      code: codeName(error_code),
      status: 200,
      errorCode: error_code,
      retryAfterMs: null,
    };
    const message = typeof error === 'string' ? error : `error ${error_code}`;
    return {
      error: new RestError(message, fields),
      partition: typeof partition === 'number' ? partition : null,
    };
  }
  return { error: null, partition: wholeNumber(partition), offset: wholeNumber(offset) };
}

/** What an error's body may hold beside its status. */
interface ErrorBody {
  error_code?: unknown;
  message?: unknown;
  code?: unknown;
  outcome?: unknown;
  retriable?: unknown;
}

function answerError(answer: Dispatcher.ResponseData, text: string): RestError {
  const { statusCode: status, headers } = answer;
  let body: ErrorBody = {};
  try {
    body = (JSON.parse(text) ?? {}) as ErrorBody;
  } catch {
    // Some other server in between answered: its status must do.
  }
  const errorCode = typeof body.error_code === 'number' ? body.error_code : null;
  const message = typeof body.message === 'string' ? body.message.slice(0, MESSAGE_CHARACTERS_MAX) : '';
  const seconds = Number(headers['retry-after']);
  return new RestError(message || `the answer was HTTP ${status}`, {
    outcome: outcomeOf(body, status),
    code: typeof body.code === 'string' ? body.code : codeName(errorCode ?? status),
    status,
    errorCode,
    retryAfterMs: headers['retry-after'] !== undefined && seconds >= 0 ? seconds * 1000 : null,
  });
}

function outcomeOf(body: ErrorBody, status: number): RestOutcome {
  if (body.outcome === 'unknown') return 'unknown';
  if (body.outcome === 'none') return body.retriable === true ? 'nothing' : 'refused';
  return outcomeOfStatus(status);
}

/** Words for the codes that single records are answered with; the rest is named by its number. */
const CODE_NAMES: Record<number, string> = {
  40401: 'topic-not-found',
  40402: 'partition-not-found',
  40990: 'out-of-order-sequence',
  40991: 'producer-fenced',
  41390: 'record-too-large',
  41391: 'batch-too-large',
  42206: 'invalid-record',
  42990: 'overloaded',
  50003: 'store-unavailable',
  50391: 'shutting-down',
  50392: 'not-leader',
  50490: 'deadline-exceeded',
};

function codeName(code: number): string {
  return CODE_NAMES[code] ?? `http-${code}`;
}
