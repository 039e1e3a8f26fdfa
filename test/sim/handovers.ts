/**
 * Brokers that give shards to one another: a release, a notice of it, a take from the lease that the notice tells of.
 * Owns: who gives what to whom, and what disturbs them in it. Does not own: how often (simulation), what is checked
 * (lease-ledger, store-truth). The simulation's only thread.
 */
import type { Random } from '../../src/core/random.ts';
import type { SimBroker } from './broker.ts';
import type { CoverageCounts } from './coverage.ts';
import type { Scheduler } from './scheduler.ts';

export interface HandoverWorld {
  scheduler: Scheduler;
  random: Random;
  coverage: CoverageCounts;
  shards: readonly number[];
  leaderOf(shard: number): SimBroker | null;
  anyBroker(): SimBroker;
  /** The holder loses touch with the store, and somebody takes the shard from it. */
  overthrow(shard: number): void;
  drain(broker: SimBroker): void;
}

export class Handovers {
  readonly #world: HandoverWorld;
  /** Shards on their way from one to the other. */
  readonly #going = new Map<number, { from: SimBroker; to: SimBroker }>();
  /** The newest notice of each shard. */
  readonly #noticed = new Map<number, { by: SimBroker; from: SimBroker; epoch: number }>();

  constructor(world: HandoverWorld) {
    this.#world = world;
  }

  /** A holder gives a shard, or all it has, to somebody else, and perhaps is disturbed in it. */
  begin(shard: number): void {
    const { random, leaderOf, anyBroker, scheduler } = this.#world;
    // Now and then one that does not hold it, or is only taking it.
    const from = (random.below(6) > 0 && leaderOf(shard)) || anyBroker();
    const to = random.below(5) === 0 ? from : anyBroker();
    const shards = random.below(3) === 0 ? this.#world.shards : [shard];
    for (const each of shards) this.#going.set(each, { from, to });
    if (random.below(5) === 0) from.take(shard);
    from.release(shards);
    scheduler.after(random.unit() * 20, () => this.#disturb(from, shard));
  }

  #disturb(from: SimBroker, shard: number): void {
    const { random, coverage, scheduler, anyBroker, overthrow, drain } = this.#world;
    const isReleasing = from.worker?.sequencer.holder(shard)?.phase === 'releasing';
    switch (random.below(8)) {
      case 0:
        from.release([shard]);
        break;
      case 1:
        from.take(shard);
        break;
      case 2:
        from.takeByOldLeases(shard);
        break;
      case 3:
        // It sleeps in the midst of it, and somebody takes the shard that it is about to give away.
        if (isReleasing) coverage.releasesAsleep++;
        from.host.pause();
        scheduler.after(random.unit() * 40, () => anyBroker().take(shard));
        scheduler.after(random.unit() * 400, () => from.host.resume());
        break;
      case 4:
        if (random.below(3) > 0) break;
        if (isReleasing) coverage.releasesDrained++;
        drain(from);
        break;
      case 5:
        overthrow(shard);
        break;
      default:
    }
  }

  /** The notice, late or not: who gets it takes the shard from the lease that it tells of. */
  released(from: SimBroker, shard: number, epoch: number): void {
    const { random, scheduler } = this.#world;
    const going = this.#going.get(shard);
    if (going?.from !== from) return;
    this.#going.delete(shard);
    scheduler.after(random.below(3) === 0 ? random.unit() * 120 : 1, () => {
      this.#noticed.set(shard, { by: going.to, from, epoch });
      going.to.takeFrom({ shard, holder: 0, epoch });
    });
  }

  held(by: SimBroker, shard: number, epoch: number): void {
    const noticed = this.#noticed.get(shard);
    if (noticed?.by !== by || epoch !== noticed.epoch + 1) return;
    if (noticed.from === by) this.#world.coverage.takenAgain++;
    else this.#world.coverage.handovers++;
  }
}
