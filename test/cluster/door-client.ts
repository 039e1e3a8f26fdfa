/**
 * The HTTP interface as a client of a cluster under test uses it (docs/http-api.md), over undici. Owns: requests to one
 * broker, and what an answer or its absence says: nothing happened, or nobody knows. Never rejects, never repeats; does
 * not use the project's own client, so that a mistake in that cannot hide one of the broker. The runner's process.
 */
import { Pool } from 'undici';
import type { Outcome, ReadRow, RecordResult } from './history.ts';

export const BINARY = 'application/vnd.kafka.binary.v2+json';
const CONNECTIONS_MAX = 64;
const READ_BYTES_MAX = 256 * 1024;

/** These say that no connection was made, so that nothing was sent. */
const NEVER_CONNECTED = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EADDRNOTAVAIL',
  'UND_ERR_CONNECT_TIMEOUT',
]);

export interface Refusal {
  outcome: Outcome;
  code: string;
  /** No retry mends it. */
  forGood: boolean;
}

export type Answer<T> = ({ ok: true } & T) | { ok: false; refusal: Refusal; text: string };

export interface OutgoingRecord {
  partition: number;
  key: string;
  text: string;
}

export interface Stamp {
  producerId: number;
  producerEpoch: number;
  sequence: number;
}

export class DoorClient {
  readonly url: string;
  readonly #pool: Pool;
  readonly #timeoutMs: number;
  #cluster: string | null = null;

  constructor(url: string, timeoutMs: number) {
    this.url = url;
    this.#timeoutMs = timeoutMs;
    this.#pool = new Pool(url, { connections: CONNECTIONS_MAX, pipelining: 1, connectTimeout: timeoutMs });
  }

  async close(): Promise<void> {
    await this.#pool.destroy();
  }

  /** With a stamp all records go to the partition of the first, in one request of the endpoint for that. */
  async append(
    topic: string,
    records: readonly OutgoingRecord[],
    stamp: Stamp | null,
  ): Promise<Answer<{ results: RecordResult[] }>> {
    const path = `/topics/${topic}${stamp === null ? '' : `/partitions/${records[0].partition}`}`;
    const rows = records.map(({ partition, key, text }) => ({
      key: base64(key),
      value: base64(text),
      ...(stamp === null ? { partition } : {}),
    }));
    const headers: Record<string, string> = { 'content-type': BINARY };
    if (stamp !== null) {
      headers['streamhouse-producer-id'] = String(stamp.producerId);
      headers['streamhouse-producer-epoch'] = String(stamp.producerEpoch);
      headers['streamhouse-producer-sequence'] = String(stamp.sequence);
    }
    const answer = await this.#call('POST', path, { headers, body: JSON.stringify({ records: rows }) });
    if (!answer.ok) return answer;
    return appendResults(answer.body, records);
  }

  /** Records from `from` on; none if there are none yet after `waitMs`. */
  async read(
    topic: string,
    partition: number,
    from: number,
    waitMs: number,
  ): Promise<Answer<{ rows: ReadRow[] }>> {
    const path = `/topics/${topic}/partitions/${partition}/records`;
    const query = `?offset=${from}&max_bytes=${READ_BYTES_MAX}&timeout=${waitMs}`;
    const answer = await this.#call('GET', path + query, { headers: { accept: BINARY }, waitMs });
    if (!answer.ok) return answer;
    if (!Array.isArray(answer.body)) return nonsense('records that are no list');
    const rows = (answer.body as Record<string, unknown>[]).map((row): ReadRow => {
      return [row.offset as number, row.timestamp as number, textOf(row.key), textOf(row.value)];
    });
    return { ok: true, rows };
  }

  async ends(topic: string, partition: number): Promise<Answer<{ begin: number; end: number }>> {
    const answer = await this.#call('GET', `/topics/${topic}/partitions/${partition}/offsets`);
    if (!answer.ok) return answer;
    const { beginning_offset: begin, end_offset: end } = answer.body as Record<string, unknown>;
    if (typeof begin !== 'number' || typeof end !== 'number') return nonsense('offsets that are no numbers');
    return { ok: true, begin, end };
  }

  async createTopic(name: string, partitions: number): Promise<Answer<object>> {
    const body = JSON.stringify({ topic_name: name, partitions_count: partitions });
    return this.#inCluster('POST', '/topics', body);
  }

  async deleteTopic(name: string): Promise<Answer<object>> {
    return this.#inCluster('DELETE', `/topics/${name}`);
  }

  async allocateProducerId(): Promise<Answer<{ producerId: number; producerEpoch: number }>> {
    const answer = await this.#inCluster('POST', '/producer-ids', '{}');
    if (!answer.ok) return answer;
    const { producer_id: producerId, producer_epoch: producerEpoch } = answer.body as Record<string, unknown>;
    if (typeof producerId !== 'number' || typeof producerEpoch !== 'number')
      return nonsense('no producer id');
    return { ok: true, producerId, producerEpoch };
  }

  /** Whether it says, within this time, that it is ready. */
  async isReady(withinMs: number): Promise<boolean> {
    return (await this.#text('GET', '/health/ready', { timeoutMs: withinMs })).ok;
  }

  async #inCluster(
    method: 'POST' | 'DELETE',
    path: string,
    body?: string,
  ): Promise<Answer<{ body: unknown }>> {
    if (this.#cluster === null) {
      const answer = await this.#call('GET', '/v3/clusters');
      if (!answer.ok) return answer;
      const id = (answer.body as { data?: { cluster_id?: unknown }[] }).data?.[0]?.cluster_id;
      if (typeof id !== 'string') return nonsense('no cluster');
      this.#cluster = id;
    }
    const headers: Record<string, string> = body === undefined ? {} : { 'content-type': 'application/json' };
    return this.#call(method, `/v3/clusters/${this.#cluster}${path}`, { headers, body });
  }

  async #call(method: Method, path: string, parts: CallParts = {}): Promise<Answer<{ body: unknown }>> {
    const answer = await this.#text(method, path, parts);
    if (!answer.ok || answer.text === '') return answer.ok ? { ok: true, body: {} } : answer;
    try {
      return { ok: true, body: JSON.parse(answer.text) };
    } catch {
      return nonsense('not JSON');
    }
  }

  async #text(method: Method, path: string, parts: CallParts): Promise<Answer<{ text: string }>> {
    const { headers = {}, body, waitMs = 0, timeoutMs = this.#timeoutMs } = parts;
    const signal = AbortSignal.timeout(timeoutMs + waitMs);
    try {
      const answer = await this.#pool.request({ method, path, headers, body, signal });
      const text = await answer.body.text();
      if (answer.statusCode < 300) return { ok: true, text };
      return { ok: false, text, refusal: refusalOf(answer.statusCode, text) };
    } catch (error) {
      const { code = '', name, message } = error as NodeJS.ErrnoException;
      const outcome = NEVER_CONNECTED.has(code) ? 'none' : 'unknown';
      const why = signal.aborted ? 'timed-out' : `connection ${code || name}`;
      return { ok: false, text: message, refusal: { outcome, code: why, forGood: false } };
    }
  }
}

type Method = 'GET' | 'POST' | 'DELETE';

interface CallParts {
  headers?: Record<string, string>;
  body?: string;
  waitMs?: number;
  timeoutMs?: number;
}

/** An answer that no broker may give; what it was asked for may have happened. */
export const NONSENSE = 'nonsense';

/** The answer to an append, record by record. */
export function appendResults(
  body: unknown,
  records: readonly OutgoingRecord[],
): Answer<{ results: RecordResult[] }> {
  const offsets = (body as { offsets?: unknown } | null)?.offsets;
  if (!Array.isArray(offsets) || offsets.length !== records.length) {
    return nonsense('not an answer for every record');
  }
  const results: RecordResult[] = [];
  for (const [index, row] of (offsets as Record<string, unknown>[]).entries()) {
    if (typeof row.error_code === 'number') {
      results.push([entryOutcome(row.error_code), String(row.error_code)]);
    } else if (typeof row.offset === 'number' && row.partition === records[index].partition) {
      results.push(row.offset);
    } else return nonsense(`entry ${index} is ${JSON.stringify(row)}`);
  }
  return { ok: true, results };
}

function nonsense(what: string): { ok: false; refusal: Refusal; text: string } {
  return {
    ok: false,
    text: what,
    refusal: { outcome: 'unknown', code: NONSENSE, forGood: false },
  };
}

/** As the interface's page says: an entry with an error was not committed, except with 504's. */
function entryOutcome(errorCode: number): Outcome {
  return Math.floor(errorCode / 100) === 504 ? 'unknown' : 'none';
}

/** What an answer from 300 on says. */
export function refusalOf(status: number, text: string): Refusal {
  let body: Record<string, unknown> = {};
  try {
    body = JSON.parse(text) as Record<string, unknown>;
  } catch {
    // Counted as an answer that says nothing.
  }
  const { code, outcome, retriable } = body;
  return {
    outcome: outcome === 'none' ? 'none' : 'unknown',
    code: typeof code === 'string' ? code : `http-${status}`,
    forGood: outcome === 'none' && retriable === false,
  };
}

export function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

function textOf(value: unknown): string | null {
  if (typeof value !== 'string') return null;
  try {
    return utf8.decode(Buffer.from(value, 'base64'));
  } catch {
    return `base64:${value}`;
  }
}
