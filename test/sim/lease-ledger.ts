/**
 * What one batching worker was asked and has answered about the shards' leases. Owns: the checks that an agent can make
 * of it: what is taken is taken from a lease that was seen, its epochs rise, every question has an answer. Does not own:
 * what other workers hold (simulation), the heads themselves (store-truth). The simulation's only thread.
 */

export class LeaseLedger {
  readonly #violate: (what: string) => void;
  /** Epochs of the leases from which each shard was to be taken. */
  readonly #seen = new Map<number, Set<number>>();
  /** The newest epoch under which a shard was held, and whether it is still. */
  readonly #held = new Map<number, { epoch: number; still: boolean }>();
  readonly #open = new Set<number>();

  constructor(violate: (what: string) => void) {
    this.#violate = violate;
  }

  /** Shards of which something was asked that is not answered. */
  get open(): number[] {
    return [...this.#open];
  }

  taking(shard: number, epochSeen: number): void {
    this.#open.add(shard);
    this.#seen.set(shard, (this.#seen.get(shard) ?? new Set()).add(epochSeen));
  }

  releasing(shard: number): void {
    this.#open.add(shard);
  }

  held(shard: number, epoch: number): void {
    this.#open.delete(shard);
    const before = this.#held.get(shard);
    if (before?.still && before.epoch === epoch) return;
    if (before && epoch <= before.epoch) {
      this.#violate(`shard ${shard} is held under epoch ${epoch} after ${before.epoch}`);
    }
    if (!this.#seen.get(shard)?.has(epoch - 1)) {
      this.#violate(
        `shard ${shard} was taken under epoch ${epoch}, but no lease of epoch ${epoch - 1} was seen`,
      );
    }
    this.#held.set(shard, { epoch, still: true });
  }

  /** Lost or released. */
  ended(shard: number): void {
    this.#open.delete(shard);
    const held = this.#held.get(shard);
    if (held) held.still = false;
  }
}
