/**
 * Carries appends to the brokers that hold their shards. Owns: one link for each broker, and looking after them. Does
 * not own: which broker holds what (route/shard-places). Main thread.
 */
import type { ThreadCounters } from '../../workers/shared-counters.ts';
import type { Clock, Timer } from '../core/clock.ts';
import type { ErrorCode } from '../core/errors.ts';
import { PEER_IDLE_MS_MAX } from '../core/limits.ts';
import {
  APPENDS_TYPE,
  PEER_PRODUCE_PATH,
  type PeerIdentity,
  peerHeaders,
} from '../protocol/peer/peer-headers.ts';
import type { AppendCarrier } from '../route/produce-router.ts';
import type { PeerAddress } from '../route/shard-places.ts';
import { AppendLink } from './append-link.ts';
import type { PeerPools } from './peer-pools.ts';

export interface PeerAppendsParts {
  self: PeerIdentity;
  pools: PeerPools;
  clock: Clock;
  counters: Pick<ThreadCounters, 'add' | 'observe'>;
  /** Time after which a broker that sends nothing is given up, ms: the time that a produce request has. */
  silenceMsMax: number;
  /** Exactly once for each append that was taken. */
  answered(slot: number, generation: number, code: ErrorCode | null, baseOffset: number): void;
  warn(message: string, fields: Record<string, unknown>): void;
}

const LOOK_MS = 250;

export class PeerAppends implements AppendCarrier {
  readonly #parts: PeerAppendsParts;
  /** By incarnation. */
  readonly #links = new Map<number, AppendLink>();
  #timer: Timer | null = null;
  #isClosed = false;

  constructor(parts: PeerAppendsParts) {
    this.#parts = parts;
  }

  /** Messages that other brokers are answering. */
  get streams(): number {
    let count = 0;
    for (const link of this.#links.values()) count += link.streams;
    return count;
  }

  send(peer: PeerAddress, packed: Buffer): ErrorCode | null {
    if (this.#isClosed) return 'shutting-down';
    let link = this.#links.get(peer.incarnation);
    if (!link) this.#links.set(peer.incarnation, (link = this.#makeLink(peer)));
    this.#lookLater();
    return link.send(packed);
  }

  #makeLink(peer: PeerAddress): AppendLink {
    const { self, pools, clock, counters, silenceMsMax, answered, warn } = this.#parts;
    return new AppendLink({
      clock,
      silenceMsMax,
      post: (exchange, body) => {
        counters.add('forwardMessagesTotal');
        const headers = { ...peerHeaders(self, peer.incarnation), 'content-type': APPENDS_TYPE };
        const options = { method: 'POST', path: PEER_PRODUCE_PATH, headers, body } as const;
        void exchange.run(
          () => pools.get(peer.address, 'appends'),
          options,
          () => clock.monotonicMs(),
        );
      },
      answered,
      roundTrip: (ms) => counters.observe('peerRoundTripMs', ms),
      warn: (message, fields) => warn(message, { peer: peer.agentId, address: peer.address, ...fields }),
    });
  }

  #lookLater(): void {
    if (this.#timer) return;
    this.#timer = this.#parts.clock.after(LOOK_MS, () => {
      this.#timer = null;
      const nowMs = this.#parts.clock.monotonicMs();
      for (const [incarnation, link] of this.#links) {
        link.look(nowMs);
        if (link.isIdle && nowMs - link.usedAtMs > PEER_IDLE_MS_MAX) this.#links.delete(incarnation);
      }
      if (this.#links.size > 0) this.#lookLater();
    });
  }

  /** Sends nothing any more; what is under way is lost. */
  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
    for (const link of this.#links.values()) link.close();
  }
}
