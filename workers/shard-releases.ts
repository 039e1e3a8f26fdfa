/**
 * Handing shards over: from the moment when a shard takes no more appends to the moment when its lease is given back.
 * Owns: that course, and the calls that give leases back. Does not own: which shards go (src/agent), refusing and
 * sealing (sequencer, object-pipeline), the one call's certain outcome (shard-lease). Runs in the batching worker.
 *
 *   begin -> settled -> checkpoint, if the tail is worth it -> lanes closed -> lease given back -> released
 *      '--------'------------------'--------------------------------'--> lost (taken over, in doubt)
 *
 * Settled: nothing of the shard is being uploaded, queued or outstanding, so everybody whose append was taken has an
 * answer. The lanes are closed before the lease is given back: from then on a successor may commit, and nobody may
 * read here what it has overtaken. Once begun there is no way back to serving; the shard can be taken anew afterwards.
 * Shards that get there while a call is out ride in the next.
 */
import type { HeadOutcome } from '../storage/metadata/metadata-store.ts';
import type { ShardHolder } from './shard-holder.ts';
import type { ShardLogParts } from './shard-log.ts';

export interface ShardReleasesParts extends ShardLogParts {
  incarnation: number;
  /** At this many bytes of log a checkpoint is due anyway. */
  checkpointLogBytes: number;
  /** Whether parts of sealed objects of this shard are not settled yet. */
  hasUnsettled(shard: number): boolean;
  /** Resolves when it is written or given up. */
  writeCheckpoint(holder: ShardHolder): Promise<void>;
  /** Whether the whole worker drains, with no successor in sight. */
  isDraining(): boolean;
  closeLanes(shard: number): void;
  released(holder: ShardHolder): void;
  lost(holder: ShardHolder, error: unknown): void;
}

/**
 * A tail of less than this part of what makes a checkpoint due is not worth one: the successor reads it in less time
 * than the checkpoint would keep the shard from being served.
 */
const TAIL_WORTH_PART = 8;

export class ShardReleases {
  readonly #parts: ShardReleasesParts;
  #waiters: (() => void)[] = [];
  /** Ends of the checkpoints asked for so far: one is written at a time, for other shards are served meanwhile. */
  #checkpoints: Promise<void> = Promise.resolve();
  /** Settled and closed; each gets its outcome from the next call. */
  #ready: { holder: ShardHolder; called: (outcome: HeadOutcome | unknown) => void }[] = [];
  #calling = false;

  constructor(parts: ShardReleasesParts) {
    this.#parts = parts;
  }

  /** Hands a shard over that is served; `opened`: the lanes have it. It ends by `released` or `lost`. */
  begin(holder: ShardHolder, opened: boolean): void {
    holder.phase = 'releasing';
    void this.#run(holder, opened);
  }

  /** Something was settled or lost, or the worker stops. */
  changed(): void {
    for (const resolve of this.#waiters.splice(0)) resolve();
  }

  async #run(holder: ShardHolder, opened: boolean): Promise<void> {
    const { stopped, closeLanes, released, lost } = this.#parts;
    const goesOn = () => holder.phase === 'releasing' && !stopped.aborted;
    try {
      while (goesOn() && !this.#isSettled(holder)) {
        await new Promise<void>((resolve) => this.#waiters.push(resolve));
      }
      if (goesOn() && opened) await this.#checkpoint(holder);
      if (!goesOn()) return;
      closeLanes(holder.shard);
      const outcome = await this.#giveBack(holder);
      await holder.settleRelease(outcome);
      if (goesOn()) released(holder);
    } catch (error) {
      lost(holder, error);
    }
  }

  #isSettled(holder: ShardHolder): boolean {
    return holder.idle && !this.#parts.hasUnsettled(holder.shard);
  }

  async #checkpoint(holder: ShardHolder): Promise<void> {
    const { checkpointLogBytes, writeCheckpoint, isDraining } = this.#parts;
    // One that is under way already moves the pointer, and trims, under our epoch.
    await holder.checkpointing;
    // When all is given up nobody waits for the shard, and the next start is quicker.
    if (!isDraining() && holder.tailBytes * TAIL_WORTH_PART < checkpointLogBytes) return;
    const written = this.#checkpoints.then(async () => {
      if (holder.phase === 'releasing') await writeCheckpoint(holder);
    });
    this.#checkpoints = written.catch(() => undefined);
    await written;
  }

  /** The outcome of the first call that gives the lease back, or its error. */
  #giveBack(holder: ShardHolder): Promise<HeadOutcome | unknown> {
    return new Promise((called) => {
      this.#ready.push({ holder, called });
      if (!this.#calling) void this.#call();
    });
  }

  async #call(): Promise<void> {
    const { store, incarnation } = this.#parts;
    this.#calling = true;
    while (this.#ready.length > 0) {
      const batch = this.#ready.splice(0);
      const leases = batch.map(({ holder: { shard, epoch } }) => ({ shard, epoch }));
      let outcomes: HeadOutcome[] | null = null;
      let failure: unknown;
      try {
        outcomes = await store.releaseLeases(incarnation, leases);
      } catch (error) {
        failure = error;
      }
      batch.forEach(({ called }, i) => {
        called(outcomes ? outcomes[i] : failure);
      });
    }
    this.#calling = false;
  }
}
