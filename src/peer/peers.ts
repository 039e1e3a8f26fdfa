/**
 * Everything by which this broker speaks to the other brokers of its cluster, as one part. Owns: their making and their
 * end. Does not own: what is said (peer-client, peer-appends, peer-reads), which broker holds what
 * (route/shard-places). Main thread.
 */
import type { ShardLayout } from '../core/shard-layout.ts';
import type { PeerAddress, ShardPlaces } from '../route/shard-places.ts';
import { PeerAppends, type PeerAppendsParts } from './peer-appends.ts';
import { PeerClient } from './peer-client.ts';
import { PeerPools } from './peer-pools.ts';
import { PeerReads } from './peer-reads.ts';

export interface PeersParts extends Omit<PeerAppendsParts, 'pools'> {
  layout: ShardLayout;
  places: ShardPlaces;
}

export class Peers {
  readonly client: PeerClient;
  readonly appends: PeerAppends;
  readonly reads: PeerReads;
  readonly #pools: PeerPools;

  constructor(parts: PeersParts) {
    this.#pools = new PeerPools(parts.clock);
    const shared = { ...parts, pools: this.#pools };
    this.client = new PeerClient(shared);
    this.appends = new PeerAppends(shared);
    this.reads = new PeerReads(shared);
  }

  /** Open connections to other brokers. */
  get connections(): number {
    return this.#pools.connections;
  }

  /** What is under way is lost. */
  async close(): Promise<void> {
    this.appends.close();
    await this.#pools.close();
  }
}

/** Who answers at an address, asked before there is a broker of ours. Its own connection. */
export async function whoIsAt(
  address: PeerAddress['address'],
  clock: PeersParts['clock'],
): Promise<Awaited<ReturnType<PeerClient['who']>>> {
  const pools = new PeerPools(clock);
  try {
    const self = { key: '', incarnation: () => 0 };
    return await new PeerClient({ self, pools, clock }).who(address);
  } finally {
    await pools.close();
  }
}
