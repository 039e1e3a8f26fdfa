/**
 * Points a client that names its zone to a broker there. Owns: which live broker of a zone is named, by turns. Does
 * not own: who is live (the broker's view), nor whether the client goes there: the request is answered here as ever.
 * Main thread.
 */
import type { Clock } from '../../core/clock.ts';
import { splitAddress } from '../../core/host-port.ts';
import type { Broker } from '../../route/broker.ts';

/** The client's zone; lower case as Node gives names of headers. */
export const ZONE_HEADER = 'streamhouse-zone';
/** Where a broker of that zone is. */
export const ZONE_BROKER_HEADER = 'Streamhouse-Zone-Broker';

/** How long the members are believed: a heartbeat takes longer, and requests may come by tens of thousands a second. */
const MEMBERS_MS_MAX = 250;

export class ZonePointer {
  readonly #broker: Broker;
  readonly #clock: Clock;
  /** URLs of live brokers by zone, as of `#asOfMs`; as many as are registered. */
  #byZone = new Map<string, string[]>();
  #asOfMs = Number.NEGATIVE_INFINITY;
  #turn = 0;

  constructor(broker: Broker, clock: Clock) {
    this.#broker = broker;
    this.#clock = clock;
  }

  /** http://HOST:PORT of a live broker in `zone`; null: this broker's own zone, or nobody is there. */
  brokerIn(zone: string): string | null {
    if (zone === this.#broker.info.zone) return null;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#asOfMs > MEMBERS_MS_MAX) this.#look(nowMs);
    const urls = this.#byZone.get(zone);
    if (urls === undefined) return null;
    this.#turn = (this.#turn + 1) % 0x40000000;
    return urls[this.#turn % urls.length];
  }

  #look(nowMs: number): void {
    this.#asOfMs = nowMs;
    this.#byZone = new Map();
    for (const { address, state, zone, isSelf } of this.#broker.view.members()) {
      const parts = splitAddress(address);
      if (state !== 'live' || isSelf || parts === null || parts.port === 0) continue;
      const url = `http://${address}`;
      const urls = this.#byZone.get(zone);
      if (urls === undefined) this.#byZone.set(zone, [url]);
      else urls.push(url);
    }
  }
}
