/**
 * Reads of partitions that another broker holds: the request goes there as it came, its answer comes back as it is.
 * Owns: finding the holder, the second try, the bounds. Does not own: connections (peer-pools), which broker holds
 * what (route/shard-places). Main thread.
 *
 * A read changes nothing, so one that was refused, or whose connection broke before an answer, is tried once more
 * after the lease was read anew; and one that is lost for good is answered as 'not-leader', to be tried again.
 */
import type { Dispatcher } from 'undici';
import type { ThreadCounters } from '../../workers/shared-counters.ts';
import type { Clock } from '../core/clock.ts';
import { connectionFailure } from '../core/connection-failure.ts';
import { StreamHouseError } from '../core/errors.ts';
import { shardOf } from '../core/ids.ts';
import { FORWARD_READ_MS_MAX, FORWARD_READS_MAX, PLACE_WAIT_MS_MAX } from '../core/limits.ts';
import type { ShardLayout } from '../core/shard-layout.ts';
import { type PeerIdentity, peerHeaders, TOPIC_HEADER } from '../protocol/peer/peer-headers.ts';
import type { ForwardedRead, ForwardedReadAnswer, ReadForwarder } from '../route/peer-duties.ts';
import type { PeerPlace, ShardPlaces } from '../route/shard-places.ts';
import { discardBody } from './discard-body.ts';
import type { PeerPools } from './peer-pools.ts';

export interface PeerReadsParts {
  self: PeerIdentity;
  pools: PeerPools;
  clock: Clock;
  layout: ShardLayout;
  places: Pick<ShardPlaces, 'isHere' | 'find' | 'refused'>;
  counters: Pick<ThreadCounters, 'add'>;
}

const TRIES = 2;

export class PeerReads implements ReadForwarder {
  readonly #parts: PeerReadsParts;
  /** Reads under way, by incarnation. */
  readonly #running = new Map<number, number>();

  constructor(parts: PeerReadsParts) {
    this.#parts = parts;
  }

  /** Reads that other brokers are answering. */
  get running(): number {
    let count = 0;
    for (const running of this.#running.values()) count += running;
    return count;
  }

  isElsewhere(topicId: number, partition: number): boolean {
    const { places, layout } = this.#parts;
    return !places.isHere(shardOf(topicId, partition, layout));
  }

  async forward(
    topicId: number,
    partition: number,
    read: ForwardedRead,
  ): Promise<ForwardedReadAnswer | null> {
    const { places, layout } = this.#parts;
    const shard = shardOf(topicId, partition, layout);
    for (let tries = 1; ; tries++) {
      const place = await places.find(shard, PLACE_WAIT_MS_MAX);
      if (place.kind === 'here') return null;
      read.signal.throwIfAborted();
      try {
        return await this.#ask(place, topicId, read);
      } catch (error) {
        read.signal.throwIfAborted();
        if (!(error instanceof StreamHouseError)) throw error;
        if (error.code !== 'not-leader') throw error;
        places.refused(place);
        if (tries >= TRIES || error.detail?.isLate) throw error;
      }
    }
  }

  async #ask(place: PeerPlace, topicId: number, read: ForwardedRead): Promise<ForwardedReadAnswer> {
    const { incarnation } = place.peer;
    const running = this.#running.get(incarnation) ?? 0;
    if (running >= FORWARD_READS_MAX) {
      throw new StreamHouseError(
        'overloaded',
        `${running} reads wait for the leader of the partition; try again later`,
      );
    }
    this.#running.set(incarnation, running + 1);
    this.#parts.counters.add('forwardedReadsTotal');
    try {
      return await this.#request(place, topicId, read);
    } finally {
      const left = (this.#running.get(incarnation) as number) - 1;
      if (left > 0) this.#running.set(incarnation, left);
      else this.#running.delete(incarnation);
    }
  }

  async #request({ peer }: PeerPlace, topicId: number, read: ForwardedRead): Promise<ForwardedReadAnswer> {
    const { clock, pools, self } = this.#parts;
    const late = new AbortController();
    const timer = clock.after(read.waitMs + FORWARD_READ_MS_MAX, () => late.abort());
    const headers = { ...peerHeaders(self, peer.incarnation), [TOPIC_HEADER]: String(topicId) };
    try {
      const answer = await pools.get(peer.address, 'reads').request({
        method: 'GET',
        path: read.target,
        headers: read.accept === undefined ? headers : { ...headers, accept: read.accept },
        signal: AbortSignal.any([late.signal, read.signal]),
      });
      return await takeAnswer(answer, read);
    } catch (error) {
      read.signal.throwIfAborted();
      if (error instanceof StreamHouseError) throw error;
      const { text } = connectionFailure(error);
      const isLate = late.signal.aborted;
      throw new StreamHouseError(
        'not-leader',
        `the leader of the partition did not answer (${isLate ? 'in time' : text}); try again`,
        { isLate },
      );
    } finally {
      timer.cancel();
    }
  }
}

/** Reads an answer into memory that was admitted. */
async function takeAnswer(
  answer: Dispatcher.ResponseData,
  read: ForwardedRead,
): Promise<ForwardedReadAnswer> {
  const { statusCode: status, headers, body } = answer;
  const length = Number(headers['content-length']);
  if (!Number.isSafeInteger(length)) {
    discardBody(body);
    throw new Error('an answer of unknown length');
  }
  if (length > 0 && !read.admit(length)) {
    discardBody(body);
    throw new StreamHouseError(
      'overloaded',
      'too many bytes of answers under way; ask for fewer or try again',
    );
  }
  try {
    const bytes = Buffer.allocUnsafeSlow(length);
    let at = 0;
    for await (const piece of body) at += (piece as Buffer).copy(bytes, at);
    if (at !== length) throw new Error(`an answer of ${at} bytes instead of ${length}`);
    refuseIfElsewhere(status, bytes);
    const contentType = String(headers['content-type'] ?? 'application/octet-stream');
    const retryAfter = headers['retry-after'];
    return {
      status,
      contentType,
      retryAfter: typeof retryAfter === 'string' ? retryAfter : undefined,
      body: bytes,
      admitted: length,
    };
  } catch (error) {
    read.release(length);
    throw error;
  }
}

/** What means that the wrong broker was asked, or for the wrong topic. Other errors are the client's to see. */
function refuseIfElsewhere(status: number, body: Buffer): void {
  if (status !== 503 && status !== 409 && status !== 404) return;
  let code: unknown;
  try {
    code = (JSON.parse(body.toString('utf8')) as { code?: unknown }).code;
  } catch {
    return;
  }
  if (code === 'topic-not-found') {
    throw new StreamHouseError('topic-not-found', 'the topic was deleted');
  }
  if (code !== 'not-leader' && code !== 'cluster-mismatch' && code !== 'shutting-down') return;
  throw new StreamHouseError('not-leader', 'the partition has another leader by now; try again');
}
