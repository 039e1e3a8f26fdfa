/**
 * The connections to the other brokers. Owns: pools by broker and purpose, their limits, and closing those of brokers
 * that nobody asks any more. Does not own: what is sent. Main thread.
 *
 * A broker that is stopped or very slow takes connections and answers nothing, so nothing is shared between brokers,
 * and for one broker appends, reads and duties have connections apart: neither ten thousand long polls nor a hundred
 * messages that wait can keep the others from their way. No pool queues: who asks keeps within its limit.
 */
import { type Dispatcher, Pool } from 'undici';
import type { Clock, Timer } from '../core/clock.ts';
import { StreamHouseError } from '../core/errors.ts';
import {
  FORWARD_READS_MAX,
  FORWARD_STREAMS_MAX,
  PEER_CONNECT_MS_MAX,
  PEER_DUTY_CONNECTIONS_MAX,
  PEER_IDLE_MS_MAX,
  PEER_KEEP_ALIVE_MS,
} from '../core/limits.ts';

export type PeerPurpose = 'appends' | 'reads' | 'duties';

const CONNECTIONS: Readonly<Record<PeerPurpose, number>> = {
  appends: FORWARD_STREAMS_MAX,
  reads: FORWARD_READS_MAX,
  duties: PEER_DUTY_CONNECTIONS_MAX,
};

interface PeerPool {
  pool: Pool;
  usedAtMs: number;
}

export class PeerPools {
  readonly #clock: Clock;
  /** By address and purpose. The address is what connects; who listens there is checked by headers. */
  readonly #pools = new Map<string, PeerPool>();
  #sweep: Timer | null = null;
  #isClosed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Connections open now, to all brokers. */
  get connections(): number {
    let count = 0;
    for (const { pool } of this.#pools.values()) count += pool.stats.connected;
    return count;
  }

  /** To be used at once. 'not-leader' for an address that is none. */
  get(address: string, purpose: PeerPurpose): Dispatcher {
    const key = `${purpose} ${address}`;
    let found = this.#pools.get(key);
    if (!found) this.#pools.set(key, (found = { pool: this.#make(address, purpose), usedAtMs: 0 }));
    found.usedAtMs = this.#clock.monotonicMs();
    this.#sweepLater();
    return found.pool;
  }

  #make(address: string, purpose: PeerPurpose): Pool {
    const origin = `http://${address}`;
    if (!URL.canParse(origin) || new URL(origin).origin !== origin.toLowerCase()) {
      throw new StreamHouseError('not-leader', `${JSON.stringify(address)} is no address of a broker`);
    }
    return new Pool(origin, {
      connections: CONNECTIONS[purpose],
      pipelining: 1,
      connect: { timeout: PEER_CONNECT_MS_MAX, noDelay: true },
      // Silence is watched by who asks, by the clock that was passed in.
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: PEER_KEEP_ALIVE_MS,
      keepAliveMaxTimeout: PEER_KEEP_ALIVE_MS,
    });
  }

  #sweepLater(): void {
    if (this.#sweep || this.#isClosed) return;
    this.#sweep = this.#clock.after(PEER_IDLE_MS_MAX / 2, () => {
      this.#sweep = null;
      const beforeMs = this.#clock.monotonicMs() - PEER_IDLE_MS_MAX;
      for (const [key, { pool, usedAtMs }] of this.#pools) {
        const { running, pending, queued } = pool.stats;
        if (usedAtMs > beforeMs || running + pending + queued > 0) continue;
        this.#pools.delete(key);
        void pool.close();
      }
      if (this.#pools.size > 0) this.#sweepLater();
    });
  }

  /** Ends all connections; what is under way on them fails. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#sweep?.cancel();
    await Promise.all([...this.#pools.values()].map(({ pool }) => pool.destroy()));
    this.#pools.clear();
  }
}
