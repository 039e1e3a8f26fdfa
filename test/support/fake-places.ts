/**
 * Places of shards for tests: all of them here, or as a test says. Owns no leases.
 */
import type { AppendCarrier } from '../../src/route/produce-router.ts';
import type { PeerPlace, ShardPlace, ShardPlaces } from '../../src/route/shard-places.ts';

type Places = Pick<ShardPlaces, 'isHere' | 'place' | 'find' | 'refused'>;

/** Everything is held here. */
export const allHere: Places = {
  isHere: () => true,
  place: () => ({ kind: 'here' }),
  find: async () => ({ kind: 'here' }),
  refused: () => undefined,
};

/** For a router of which nothing goes elsewhere. */
export const noCarrier: AppendCarrier = {
  send() {
    throw new Error('nothing was to go to another broker');
  },
};

/** Another broker, as the holder of a shard under an epoch. */
export function peerPlace(shard: number, incarnation: number, address = '127.0.0.1:1', epoch = 1): PeerPlace {
  return {
    kind: 'peer',
    peer: { agentId: `agent-${incarnation}`, incarnation, address, zone: 'z' },
    lease: { shard, holder: incarnation, epoch, asOfMs: 0 },
  };
}

/** Places that a test sets, by shard; what is not set is unknown, and `find` waits until it is or `refuse` is called. */
export class FakePlaces implements Places {
  readonly places = new Map<number, ShardPlace>();
  readonly refusals: ShardPlace[] = [];
  readonly #waiting = new Map<number, { found(place: never): void; failed(error: Error): void }[]>();

  isHere(shard: number): boolean {
    return this.places.get(shard)?.kind === 'here';
  }

  place(shard: number): ShardPlace {
    return this.places.get(shard) ?? { kind: 'unknown' };
  }

  find(shard: number): Promise<Exclude<ShardPlace, { kind: 'unknown' }>> {
    const place = this.place(shard);
    if (place.kind !== 'unknown') return Promise.resolve(place);
    return new Promise((found, failed) => {
      const waiting = this.#waiting.get(shard) ?? [];
      waiting.push({ found, failed });
      this.#waiting.set(shard, waiting);
    });
  }

  /** The shard has this place from now on, and who waits for it gets it. */
  set(shard: number, place: ShardPlace): void {
    this.places.set(shard, place);
    if (place.kind === 'unknown') return;
    for (const { found } of this.#waiting.get(shard) ?? []) found(place as never);
    this.#waiting.delete(shard);
  }

  /** Whoever waits for the shard does so no more. */
  refuse(shard: number, error: Error): void {
    for (const { failed } of this.#waiting.get(shard) ?? []) failed(error);
    this.#waiting.delete(shard);
  }

  refused(place: ShardPlace): void {
    this.refusals.push(place);
  }
}
