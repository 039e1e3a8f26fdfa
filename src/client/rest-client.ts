/**
 * A small client of the HTTP door: for the command line, the demo and tests. Owns the paths and shapes of the API
 * (docs/http-api.md) as a client sees them. Does not own which broker is asked (broker-set.ts), nor batching, order
 * and trying again later: record-sender.ts. Main thread.
 */
import type { Random } from '../core/random.ts';
import type { RestCall } from './broker-connection.ts';
import { BrokerSet, isElsewhere } from './broker-set.ts';
import { codeName, failure, outcomeOfErrorCode, RestError } from './rest-error.ts';

const JSON_V2 = 'application/vnd.kafka.json.v2+json';
const BINARY_V2 = 'application/vnd.kafka.binary.v2+json';

/** `json`: keys and values are JSON; `binary`: they are bytes. */
export type Embedded = 'json' | 'binary';

export interface TopicView {
  name: string;
  partitionCount: number;
}

/** A registered broker. */
export interface BrokerView {
  agentId: string;
  /** New with every start. */
  brokerId: number;
  /** HOST:PORT; null if what it advertised is no address. */
  address: string | null;
  zone: string;
  group: string;
  version: string;
  /** live, leaving or dead. */
  state: string;
  heartbeatAgeMs: number;
  /** ISO 8601, by its own clock. */
  registeredAt: string | null;
  shardCount: number;
}

/** Who holds a shard. */
export interface ShardView {
  shard: number;
  /** The group whose brokers may hold it. */
  group: string;
  /** null: nobody. */
  brokerId: number | null;
  /** null: nobody, or one that is registered no more. */
  agentId: string | null;
  epoch: number;
  /** ISO 8601, by the holder's clock; null: not known. */
  since: string | null;
  headSeq: number;
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
  /** Open connections to a broker at most, and so requests in flight. Default 16. */
  connectionsMax?: number;
  /** For a whole request, ms; long polls have their wait on top. Default 60 s. */
  timeoutMs?: number;
  /** Ends everything in flight. */
  signal?: AbortSignal;
}

export class RestClient {
  readonly #brokers: BrokerSet;

  /**
   * `url`: a broker, or several of one cluster, of which the first that can serve is asked. 'invalid-url' (as a
   * RestError) for what is not http:// or https://.
   */
  constructor(url: string | readonly string[], options: RestClientOptions = {}) {
    this.#brokers = new BrokerSet(typeof url === 'string' ? [url] : url, {
      connectionsMax: options.connectionsMax ?? 16,
      timeoutMs: options.timeoutMs ?? 60_000,
      signal: options.signal,
    });
  }

  /** Of the broker that is asked now. */
  get url(): string {
    return this.#brokers.url;
  }

  /** Ends idle connections and whatever is still open on the others. */
  close(): Promise<void> {
    return this.#brokers.close();
  }

  // -- The cluster ------------------------------------------------------------------------------------
  clusterId(): Promise<string> {
    return this.#brokers.clusterId();
  }

  /** All registered brokers, or those of one zone. */
  async listBrokers(zone?: string): Promise<BrokerView[]> {
    const search = zone === undefined ? '' : `?zone=${encodeURIComponent(zone)}`;
    const path = `/v3/clusters/${encodeURIComponent(await this.clusterId())}/brokers${search}`;
    return listed(await this.#json({ method: 'GET', path }), 'brokers').map(brokerView);
  }

  /** Who holds which shard. */
  async listShards(): Promise<ShardView[]> {
    const path = `/v3/clusters/${encodeURIComponent(await this.clusterId())}/shards`;
    return listed(await this.#json({ method: 'GET', path }), 'shards').map(shardView);
  }

  /**
   * Asks once for the live brokers of a zone and goes to one that answers, at random, from then on; those given stay
   * as the next ones. Returns its URL; null: there is none (or only https:// is allowed, which brokers do not speak).
   */
  async useZone(zone: string, random: Random): Promise<string | null> {
    if (this.url.startsWith('https:')) return null;
    const brokers = await this.listBrokers(zone);
    const live = brokers.filter(({ state, address }) => state === 'live' && address !== null);
    const from = Math.floor(random.unit() * live.length);
    const urls = [...live.slice(from), ...live.slice(0, from)].map(({ address }) => `http://${address}`);
    return this.#brokers.prefer(urls);
  }

  // -- Topics -----------------------------------------------------------------------------------------
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
      const call: RestCall = { method: 'GET', path };
      const { text, broker } = await this.#brokers.request(call);
      const answer = parsed(call, text) as { metadata?: { next?: string | null } };
      topics.push(...listed(answer, 'topics').map(topicView));
      const next: string | null = answer.metadata?.next ?? null;
      path = next === null ? null : broker.pathOf(next);
    }
    return topics;
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

  /** By partition, the id of the broker that leads it, as far as the broker asked knows; null: it does not. */
  async partitionLeaders(topic: string): Promise<(number | null)[]> {
    const path = `/topics/${encodeURIComponent(topic)}/partitions`;
    const answer = await this.#json({ method: 'GET', path });
    if (!Array.isArray(answer)) throw failure('the list of partitions is no list', 'bad-answer');
    return answer.map((row: { leader?: unknown }) => {
      const leader = wholeNumber(row.leader);
      return leader < 0 ? null : leader;
    });
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
    const call: RestCall = {
      method: 'POST',
      path,
      body,
      headers: { ...headers, 'content-type': contentType },
    };
    const { text, broker } = await this.#brokers.request(call);
    const { offsets } = parsed(call, text) as { offsets?: unknown };
    if (!Array.isArray(offsets) || offsets.length !== records.length) {
      throw failure('the broker did not answer every record', 'bad-answer', 'unknown');
    }
    const answers = offsets.map(recordAnswer);
    // Whoever sends these records again asks another broker, if there is one.
    if (answers.some(({ error }) => error !== null && isElsewhere(error))) this.#brokers.leave(broker);
    return answers;
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
  async metricsText(): Promise<string> {
    return (await this.#brokers.request({ method: 'GET', path: '/metrics' })).text;
  }

  // -- One request ------------------------------------------------------------------------------------
  async #json(call: RestCall): Promise<unknown> {
    return parsed(call, (await this.#brokers.request(call)).text);
  }
}

function parsed(call: RestCall, text: string): unknown {
  if (text === '') return {};
  try {
    return JSON.parse(text);
  } catch {
    throw failure(`${call.method} ${call.path} was not answered in JSON`, 'bad-answer', 'unknown');
  }
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

function listed(answer: unknown, what: string): Record<string, unknown>[] {
  const { data } = answer as { data?: unknown };
  if (!Array.isArray(data)) throw failure(`the list of ${what} is no list`, 'bad-answer');
  return data;
}

function textOrNull(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}

function brokerView(row: Record<string, unknown>): BrokerView {
  const { host, port, rack } = row;
  const isReachable = typeof host === 'string' && typeof port === 'number' && port > 0;
  return {
    agentId: String(row.agent_id),
    brokerId: wholeNumber(row.broker_id),
    address: isReachable ? `${host.includes(':') ? `[${host}]` : host}:${port}` : null,
    zone: typeof rack === 'string' ? rack : '',
    group: String(row.group),
    version: String(row.version),
    state: String(row.state),
    heartbeatAgeMs: wholeNumber(row.heartbeat_age_ms),
    registeredAt: textOrNull(row.registered_at),
    shardCount: wholeNumber(row.shards),
  };
}

function shardView(row: Record<string, unknown>): ShardView {
  return {
    shard: wholeNumber(row.shard),
    group: String(row.group),
    brokerId: row.broker_id === null ? null : wholeNumber(row.broker_id),
    agentId: textOrNull(row.agent_id),
    epoch: wholeNumber(row.epoch),
    since: textOrNull(row.since),
    headSeq: wholeNumber(row.head_seq),
  };
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
