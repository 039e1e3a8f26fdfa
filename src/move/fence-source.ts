/**
 * Keeps every writer off a store from which a cluster has been moved, one that sleeps included. Owns: raising all
 * epochs, and finding out whether anything was committed since the copy was verified. Main thread.
 *
 * The store is marked as moved before. A holder's next append then finds a higher epoch and is refused; to take the
 * shard again it would raise the epoch itself, and after that it looks at the mark (workers/shard-holder).
 */
import type { MetadataStore, ShardHead } from '../../storage/metadata/metadata-store.ts';
import type { Clock } from '../core/clock.ts';
import { StreamHouseError } from '../core/errors.ts';
import type { Random } from '../core/random.ts';

/** Tries against brokers that take the shard at the same moment; those that see the mark stop. */
const TRIES_MAX = 20;

/** The heads as they are for good; 'conflict' if a writer keeps taking a shard. */
export async function fenceSource(parts: {
  store: MetadataStore;
  clock: Clock;
  random: Random;
}): Promise<ShardHead[]> {
  const { store, clock, random } = parts;
  // Only for an incarnation that nobody else ever has.
  const { agentId, incarnation } = await store.registerAgent({
    agentId: `metadata-copy-${random.hex(4)}`,
    address: '',
    zone: '',
    group: '',
    version: '',
    registeredAtMs: Math.max(0, Math.floor(clock.wallMs())),
  });
  const fenced: ShardHead[] = [];
  let rest = await store.listLeases();
  for (let tried = 0; rest.length > 0; tried++) {
    if (tried === TRIES_MAX) {
      const shards = rest.map(({ shard }) => shard).join(', ');
      throw new StreamHouseError('conflict', `a broker on ${store.description} keeps taking shard ${shards}`);
    }
    const seen = rest.map(({ shard, holder, epoch }) => ({ shard, holder, epoch }));
    const outcomes = await store.acquireLeases(incarnation, seen);
    // A conflict that shows us as the holder is a call that was made twice.
    const isOurs = ({ kind, head }: (typeof outcomes)[number]) =>
      kind === 'done' || head.holder === incarnation;
    fenced.push(...outcomes.filter(isOurs).map(({ head }) => head));
    rest = outcomes.filter((outcome) => !isOurs(outcome)).map(({ head }) => head);
  }
  await store.deregisterAgent(agentId, incarnation);
  return fenced.sort((a, b) => a.shard - b.shard);
}
