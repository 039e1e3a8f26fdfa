/**
 * A stand-in for a broker's HTTP door, for tests of the client and the command line only: topics and records in
 * memory, the paths and shapes of docs/http-api.md, and faults on request. It promises nothing that a broker
 * does, and tests of the broker do not use it.
 */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { partitionOfKeyBytes } from '../../src/core/partitioner.ts';

export interface StoredRecord {
  key: Buffer | null;
  value: Buffer | null;
}

interface FakeTopic {
  partitions: StoredRecord[][];
  configs: Map<string, string>;
}

/** What happens to a request instead of, or after, what it asks for. */
export type Fault =
  | { kind: 'status'; status: number; errorCode?: number; message?: string; retryAfterS?: number }
  /** The connection ends before anything is done. */
  | { kind: 'drop' }
  /** It is done, and the connection ends before the answer. */
  | { kind: 'drop-after' }
  /** Every record of the request is answered with this error and none is appended. */
  | { kind: 'record-errors'; errorCode: number; message: string };

class Refusal extends Error {
  readonly status: number;
  readonly errorCode: number;
  constructor(status: number, errorCode: number, message: string) {
    super(message);
    this.status = status;
    this.errorCode = errorCode;
  }
}

export class FakeRestServer {
  readonly topics: Map<string, FakeTopic>;
  clusterId = 'fake';
  /** Rows of the lists of brokers and of shards. */
  brokers: { rack: string; [member: string]: unknown }[] = [];
  shards: Record<string, unknown>[] = [];
  /** Paths of all requests, in the order of their arrival. */
  readonly requests: { method: string; path: string; records: number }[] = [];
  /** Asked for every request; null: none. */
  fault: (method: string, path: string) => Fault | null = () => null;
  /** Produce requests that were open at a time, at most. */
  openMax = 0;
  delayMs = 0;
  #open = 0;
  #nextProducerId = 1;
  readonly #sequences: Map<string, { next: number; lastFirst: number; lastOffset: number }>;
  readonly #server: Server;

  /** `beside`: another one of the same cluster, with the same topics and producers. */
  constructor(beside?: FakeRestServer) {
    this.topics = beside?.topics ?? new Map();
    this.#sequences = beside ? beside.#sequences : new Map();
    this.#server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const answer = (status: number, body: unknown, headers: Record<string, string> = {}): void => {
          response.writeHead(status, { 'content-type': 'application/json', ...headers });
          response.end(body === null ? undefined : typeof body === 'string' ? body : JSON.stringify(body));
        };
        this.#open++;
        this.openMax = Math.max(this.openMax, this.#open);
        setTimeout(() => {
          this.#open--;
          this.#answer(request, Buffer.concat(chunks).toString(), answer, () => request.socket.destroy());
        }, this.delayMs);
      });
    });
  }

  static async start(beside?: FakeRestServer): Promise<FakeRestServer> {
    const fake = new FakeRestServer(beside);
    await new Promise<void>((resolve) => fake.#server.listen(0, '127.0.0.1', resolve));
    return fake;
  }

  /** Its row in a list of brokers. */
  row(brokerId: number, changes: Record<string, unknown> = {}): FakeRestServer['brokers'][number] {
    return {
      broker_id: brokerId,
      agent_id: `agent-${brokerId}`,
      host: '127.0.0.1',
      port: Number(new URL(this.url).port),
      rack: 'z1',
      group: 'default',
      version: '1.2.3',
      state: 'live',
      heartbeat_age_ms: 420,
      registered_at: '2026-01-31T12:00:00.000Z',
      shards: 4,
      ...changes,
    };
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  addTopic(name: string, partitionCount: number): FakeTopic {
    const topic = { partitions: Array.from({ length: partitionCount }, () => []), configs: new Map() };
    this.topics.set(name, topic);
    return topic;
  }

  /** The values of one partition as texts. */
  values(name: string, partition: number): (string | null)[] {
    const records = this.topics.get(name)?.partitions[partition] ?? [];
    return records.map(({ value }) => value?.toString() ?? null);
  }

  #answer(
    request: IncomingMessage,
    body: string,
    answer: (status: number, body: unknown, headers?: Record<string, string>) => void,
    drop: () => void,
  ): void {
    const method = request.method ?? '';
    const url = new URL(request.url ?? '', 'http://fake');
    const parsed = body === '' ? {} : JSON.parse(body);
    this.requests.push({ method, path: url.pathname + url.search, records: parsed.records?.length ?? 0 });
    const fault = this.fault(method, url.pathname);
    if (fault?.kind === 'drop') {
      drop();
      return;
    }
    if (fault?.kind === 'status') {
      const { status, errorCode = status * 100 + 1, message = 'as the test asked', retryAfterS } = fault;
      const headers = retryAfterS === undefined ? undefined : { 'retry-after': String(retryAfterS) };
      answer(status, { error_code: errorCode, message }, headers);
      return;
    }
    if (fault?.kind === 'record-errors') {
      const error = { partition: 0, offset: null, error_code: fault.errorCode, error: fault.message };
      answer(200, { offsets: parsed.records.map(() => error) });
      return;
    }
    try {
      const [status, result] = this.#route(method, url, parsed, request);
      if (fault?.kind === 'drop-after') drop();
      else answer(status, result);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      answer(error.status, { error_code: error.errorCode, message: error.message });
    }
  }

  #route(method: string, url: URL, body: Record<string, never>, request: IncomingMessage): [number, unknown] {
    const path = url.pathname.split('/').slice(1).map(decodeURIComponent);
    // It counts nothing.
    if (url.pathname === '/metrics') return [200, ''];
    if (url.pathname === '/v3/clusters') return [200, { data: [{ cluster_id: this.clusterId }] }];
    if (path[0] === 'v3' && path[2] === this.clusterId) {
      const zone = url.searchParams.get('zone');
      if (path[3] === 'brokers') {
        return [200, { data: this.brokers.filter(({ rack }) => zone === null || rack === zone) }];
      }
      if (path[3] === 'shards') return [200, { data: this.shards }];
      if (path[3] === 'producer-ids') {
        return [200, { producer_id: this.#nextProducerId++, producer_epoch: 0 }];
      }
      if (path[3] === 'topics') return this.#catalogue(method, path.slice(4), body);
    }
    if (path[0] === 'topics') return this.#records(method, path.slice(1), url, body, request);
    throw new Refusal(404, 404, `there is no ${url.pathname}`);
  }

  #topic(name: string): FakeTopic {
    const topic = this.topics.get(name);
    if (topic === undefined) throw new Refusal(404, 40401, `there is no topic ${name}`);
    return topic;
  }

  #view(name: string): unknown {
    return { topic_name: name, partitions_count: this.#topic(name).partitions.length };
  }

  #catalogue(method: string, [name, configs]: string[], body: Record<string, unknown>): [number, unknown] {
    if (name === undefined && method === 'GET') {
      return [200, { data: [...this.topics.keys()].sort().map((one) => this.#view(one)) }];
    }
    if (name === undefined) {
      const created = String(body.topic_name);
      if (this.topics.has(created)) throw new Refusal(409, 40901, `there is a topic ${created}`);
      const topic = this.addTopic(created, Number(body.partitions_count));
      for (const one of body.configs as { name: string; value: string }[])
        topic.configs.set(one.name, one.value);
      return [201, this.#view(created)];
    }
    const topic = this.#topic(name);
    if (configs === 'configs') {
      const data = [...topic.configs].map(([config, value]) => ({ name: config, value, is_default: false }));
      return [200, { data }];
    }
    if (configs === 'configs:alter') {
      for (const row of body.data as { name: string; value: string; operation?: string }[]) {
        if (row.operation === 'DELETE') topic.configs.delete(row.name);
        else topic.configs.set(row.name, row.value);
      }
      return [204, null];
    }
    if (method === 'DELETE') this.topics.delete(name);
    if (method === 'PATCH') {
      const count = Number(body.partitions_count);
      if (count <= topic.partitions.length) throw new Refusal(400, 40002, 'the count must grow');
      while (topic.partitions.length < count) topic.partitions.push([]);
    }
    return method === 'DELETE' ? [204, null] : [200, this.#view(name)];
  }

  #records(
    method: string,
    [name, , number, what]: string[],
    url: URL,
    body: Record<string, unknown>,
    request: IncomingMessage,
  ): [number, unknown] {
    const topic = this.#topic(name);
    const partition = number === undefined ? null : Number(number);
    if (partition !== null && topic.partitions[partition] === undefined) {
      throw new Refusal(404, 40402, `${name} has no partition ${partition}`);
    }
    if (method === 'POST') return [200, { offsets: this.#append(topic, partition, body, request) }];
    const records = topic.partitions[partition ?? 0];
    if (what === 'offsets') {
      const timestamp = url.searchParams.get('timestamp');
      // The fake's clock: the record at offset n was written at n seconds.
      if (timestamp !== null)
        return [200, { offset: Math.ceil(Number(timestamp) / 1000), end_offset: records.length }];
      return [200, { beginning_offset: 0, end_offset: records.length }];
    }
    const offset = Number(url.searchParams.get('offset'));
    if (offset > records.length)
      throw new Refusal(416, 41601, `offset ${offset} is outside 0 to ${records.length}`);
    const binary = request.headers.accept?.includes('binary');
    const form = (bytes: Buffer | null): unknown =>
      bytes === null ? null : binary ? bytes.toString('base64') : JSON.parse(bytes.toString());
    // A page at a time, so that readers have to come back.
    const page = records.slice(offset, offset + 3);
    const rows = page.map(({ key, value }, i) => ({
      topic: name,
      partition,
      offset: offset + i,
      timestamp: (offset + i) * 1000,
      key: form(key),
      value: form(value),
    }));
    return [200, rows];
  }

  #append(
    topic: FakeTopic,
    partition: number | null,
    body: Record<string, unknown>,
    request: IncomingMessage,
  ) {
    const binary = request.headers['content-type']?.includes('binary');
    const bytes = (value: unknown): Buffer | null =>
      value === null || value === undefined
        ? null
        : binary
          ? Buffer.from(String(value), 'base64')
          : Buffer.from(JSON.stringify(value));
    const records = body.records as { key?: unknown; value: unknown; partition?: number }[];
    const first = this.#sequence(topic, partition, records.length, request);
    return records.map((record, i) => {
      if (first !== null) return { partition, offset: first + i };
      const key = bytes(record.key);
      const count = topic.partitions.length;
      const to = partition ?? record.partition ?? (key ? partitionOfKeyBytes(key, 0, key.length, count) : 0);
      topic.partitions[to].push({ key, value: bytes(record.value) });
      return { partition: to, offset: topic.partitions[to].length - 1 };
    });
  }

  /** The first offset of a duplicate of the producer's last batch; null: it is new. */
  #sequence(
    topic: FakeTopic,
    partition: number | null,
    count: number,
    request: IncomingMessage,
  ): number | null {
    const producerId = request.headers['streamhouse-producer-id'];
    if (producerId === undefined || partition === null) return null;
    const first = Number(request.headers['streamhouse-producer-sequence']);
    const id = `${producerId}/${partition}`;
    const state = this.#sequences.get(id) ?? { next: 0, lastFirst: -1, lastOffset: -1 };
    if (first === state.lastFirst) return state.lastOffset;
    if (first !== state.next)
      throw new Refusal(409, 40903, `sequence ${first} does not follow ${state.next}`);
    const lastOffset = topic.partitions[partition].length;
    this.#sequences.set(id, { next: first + count, lastFirst: first, lastOffset });
    return null;
  }
}
