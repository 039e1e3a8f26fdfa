/**
 * What a broker asks of other brokers besides taking appends: notices, a topic's end, what they hold, who they are,
 * and reads. Owns: the requests, their time-outs, what a failure says. Does not own: connections (peer-pools). Main
 * thread.
 */
import { Compile } from 'typebox/compile';
import type { Dispatcher } from 'undici';
import type { Clock } from '../core/clock.ts';
import { connectionFailure } from '../core/connection-failure.ts';
import { ERROR_CODES, StreamHouseError } from '../core/errors.ts';
import {
  PEER_ANSWER_BYTES_MAX,
  PEER_CONNECT_MS_MAX,
  PEER_DUTY_MS_MAX,
  PEER_END_TOPIC_MS_MAX,
} from '../core/limits.ts';
import { HeldAnswer, WhoAnswer } from '../protocol/peer/duty-schemas.ts';
import {
  PEER_END_TOPIC_PATH,
  PEER_HELD_PATH,
  PEER_LEASES_MOVED_PATH,
  PEER_WHO_PATH,
  type PeerIdentity,
  peerHeaders,
} from '../protocol/peer/peer-headers.ts';
import type { HeldShard, LeasesMoved } from '../route/peer-duties.ts';
import type { PeerAddress } from '../route/shard-places.ts';
import type { PeerPools } from './peer-pools.ts';

/**
 * answered    a broker; it may be of another cluster
 * stranger    something else listens there
 * refused     its machine says that nobody listens there
 * no-answer   nothing came: it may be stopped, very slow, cut off, or its name be unknown here
 */
export type Who =
  | { kind: 'answered'; clusterId: string; agentId: string; incarnation: number }
  | { kind: 'stranger' | 'refused' | 'no-answer' };

export interface PeerClientParts {
  self: PeerIdentity;
  pools: PeerPools;
  clock: Clock;
}

interface Ask {
  method: 'GET' | 'POST';
  path: string;
  headers: Record<string, string>;
  body?: unknown;
  timeoutMs: number;
}

const heldCheck = Compile(HeldAnswer);
const whoCheck = Compile(WhoAnswer);

export class PeerClient {
  readonly #parts: PeerClientParts;

  constructor(parts: PeerClientParts) {
    this.#parts = parts;
  }

  /** Tells that shards were released for it. Rejects when it does not hear; nothing depends on it. */
  async notify(peer: PeerAddress, notice: Omit<LeasesMoved, 'from'>): Promise<void> {
    const { leaving, shards } = notice;
    await this.#ask(peer, 'POST', PEER_LEASES_MOVED_PATH, { leaving, shards }, PEER_DUTY_MS_MAX);
  }

  /** 'not-leader' when it does not hold one of the shards, or is not reached; 'peer-lost' when nobody knows. */
  async endTopic(peer: PeerAddress, topicId: number, shards: readonly number[]): Promise<void> {
    await this.#ask(peer, 'POST', PEER_END_TOPIC_PATH, { topicId, shards }, PEER_END_TOPIC_MS_MAX);
  }

  /** What it holds. */
  async held(peer: PeerAddress): Promise<HeldShard[]> {
    const text = await this.#ask(peer, 'GET', PEER_HELD_PATH, undefined, PEER_DUTY_MS_MAX);
    return parsed(text, heldCheck, peer.address).shards;
  }

  /** Who answers at an address. Never rejects. */
  async who(address: string, timeoutMs = PEER_CONNECT_MS_MAX): Promise<Who> {
    try {
      const text = await this.#request(address, {
        method: 'GET',
        path: PEER_WHO_PATH,
        headers: {},
        timeoutMs,
      });
      return { kind: 'answered', ...parsed(text, whoCheck, address) };
    } catch (error) {
      if (!(error instanceof StreamHouseError)) throw error;
      const { answered, refused } = error.detail ?? {};
      if (answered) return { kind: 'stranger' };
      return { kind: refused ? 'refused' : 'no-answer' };
    }
  }

  #ask(
    peer: PeerAddress,
    method: Ask['method'],
    path: string,
    body: unknown,
    timeoutMs: number,
  ): Promise<string> {
    const headers = peerHeaders(this.#parts.self, peer.incarnation);
    return this.#request(peer.address, { method, path, headers, body, timeoutMs });
  }

  async #request(address: string, { method, path, headers, body, timeoutMs }: Ask): Promise<string> {
    const { clock, pools } = this.#parts;
    const abort = new AbortController();
    const timer = clock.after(timeoutMs, () => abort.abort(new Error(`no answer in ${timeoutMs} ms`)));
    let answer: Dispatcher.ResponseData;
    let text: string;
    try {
      answer = await pools.get(address, 'duties').request({
        method,
        path,
        headers: body === undefined ? headers : { ...headers, 'content-type': 'application/json' },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        signal: abort.signal,
      });
      text = await bounded(answer.body);
    } catch (error) {
      throw peerFailure(error, address);
    } finally {
      timer.cancel();
    }
    if (answer.statusCode >= 200 && answer.statusCode < 300) return text;
    throw answerError(answer.statusCode, text, address);
  }
}

async function bounded(body: AsyncIterable<Buffer>): Promise<string> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of body) {
    bytes += piece.length;
    if (bytes > PEER_ANSWER_BYTES_MAX)
      throw new Error(`an answer of more than ${PEER_ANSWER_BYTES_MAX} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString('utf8');
}

/** 'not-leader' where there was no connection, so that nothing happened; else 'peer-lost'. */
export function peerFailure(error: unknown, address: string): StreamHouseError {
  if (error instanceof StreamHouseError) return error;
  const { code, text, wasNeverMade } = connectionFailure(error);
  return wasNeverMade
    ? new StreamHouseError('not-leader', `no connection to broker ${address} (${code})`, {
        refused: code === 'ECONNREFUSED',
      })
    : new StreamHouseError('peer-lost', `the answer of broker ${address} was lost: ${text}`);
}

/** The other broker's own error, if it is one; else 'peer-lost'. */
function answerError(status: number, text: string, address: string): StreamHouseError {
  let answer: { code?: unknown; message?: unknown } = {};
  try {
    answer = (JSON.parse(text) ?? {}) as typeof answer;
  } catch {
    // Not a broker of ours: its status must do.
  }
  const code = ERROR_CODES.find((one) => one === answer.code);
  const message = typeof answer.message === 'string' ? answer.message : `HTTP ${status}`;
  const where = `broker ${address}: ${message.slice(0, 500)}`;
  return new StreamHouseError(code ?? 'peer-lost', where, { answered: true });
}

function parsed<T>(text: string, check: { Check(value: unknown): value is T }, address: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (check.Check(value)) return value;
  throw new StreamHouseError('peer-lost', `broker ${address} answered something else than asked`, {
    answered: true,
  });
}
