/**
 * The heart of the batching worker: which shards are held, and the way of what is appended to them. Owns: the holders,
 * from take to released or lost, and what the main thread is told of them. Does not own: the open batch and uploads
 * (object-pipeline), a shard's state and entries (shard-holder), the calls that append (committer), when checkpoints are
 * due (checkpointer), how a shard is handed over (shard-releases), ports and threads (batching-worker), which shards
 * should be held (src/agent). Runs in the batching worker, and in the simulation over simulated stores and time.
 *
 *   lanes -> pipeline -> queues of the shards, in the order of sealing
 *         -> one appendEntries for all shards that have something and nothing outstanding
 *         -> states -> lanes (index, tail cache, answers)
 *
 * What is uploaded while an append is out rides in the next. A shard whose append's outcome is in doubt settles by
 * itself while the others go on.
 */
import type { Clock } from '../src/core/clock.ts';
import { operatingError, StreamHouseError } from '../src/core/errors.ts';
import type { Random } from '../src/core/random.ts';
import type { MetadataStore } from '../storage/metadata/metadata-store.ts';
import type { ObjectStore } from '../storage/objects/object-store.ts';
import { Checkpointer, type CheckpointSettings } from './checkpointer.ts';
import { Committer } from './committer.ts';
import type { EntryBody } from './entry-codec.ts';
import type { QueuedPart } from './entry-plan.ts';
import { LaneDesk, type LanePort } from './lane-desk.ts';
import type { LaneReport, OpenShardOrder, SeenLease, SequencerReply } from './messages.ts';
import { ObjectPipeline, type PipelineSettings } from './object-pipeline.ts';
import { type HolderParts, ShardHolder } from './shard-holder.ts';
import type { ShardLogParts } from './shard-log.ts';
import { ShardReleases } from './shard-releases.ts';
import type { ThreadCounters } from './shared-counters.ts';

export interface SequencerSettings extends PipelineSettings, CheckpointSettings {}

export interface SequencerParts {
  store: MetadataStore;
  objects: ObjectStore;
  clock: Clock;
  random: Random;
  incarnation: number;
  laneCount: number;
  settings: SequencerSettings;
  counters: ThreadCounters;
  /**
   * By shard, the newest entry that this process knows to be committed: in shared memory, so that a batching worker's
   * successor knows it too. Without it nothing is known yet.
   */
  knownSeq?: Float64Array;
  /** To the main thread. */
  report(reply: SequencerReply): void;
}

/** Page-outs that one batching worker can number before they would meet its successor's. */
const PAGE_OUTS_PER_INCARNATION = 2 ** 24;

export class Sequencer {
  readonly lanes: LaneDesk;
  readonly #parts: SequencerParts;
  readonly #stop = new AbortController();
  readonly #pipeline: ObjectPipeline;
  readonly #checkpointer: Checkpointer;
  readonly #committer: Committer;
  readonly #releases: ShardReleases;
  readonly #holders = new Map<number, ShardHolder>();
  readonly #epochsHad = new Map<number, number>();
  readonly #knownSeq: Float64Array;
  #commitNumber = 0;
  #draining = false;
  #idleWaiters: (() => void)[] = [];

  constructor(parts: SequencerParts) {
    this.#parts = parts;
    const { objects, clock, counters, incarnation, settings } = parts;
    this.#knownSeq = parts.knownSeq ?? new Float64Array(settings.layout.shardCount);
    this.lanes = new LaneDesk(parts.laneCount, incarnation * PAGE_OUTS_PER_INCARNATION);
    this.#pipeline = new ObjectPipeline({
      settings,
      objects,
      clock,
      counters,
      incarnation,
      epochOf: (shard) => {
        const holder = this.#holders.get(shard);
        return holder?.phase === 'serving' ? holder.epoch : undefined;
      },
      refuse: (lane, slot, generation, code) => this.lanes.answer(lane, slot, generation, code, -1),
      ready: (ready, uploaded) => this.#enqueue(ready, uploaded),
      advanced: () => {
        this.lanes.flushAnswers();
        this.#committer.commit();
      },
      givenUp: (error) => this.#objectGivenUp(error),
    });
    this.#checkpointer = new Checkpointer({
      settings,
      clock,
      counters,
      holders: () => this.#holders.values(),
      pageOut: (shard) => this.lanes.pageOut(shard),
      warn: (message, fields) => this.#log('warn', message, fields),
    });
    this.#committer = new Committer({
      store: parts.store,
      clock,
      counters,
      lanes: this.lanes,
      pipeline: this.#pipeline,
      stopped: this.#stop.signal,
      holders: () => this.#holders.values(),
      lose: (holder, error) => this.#lose(holder, error),
      committed: (shard, seq) => this.#noteSeq(shard, seq),
      changed: () => this.#changed(),
      published: () => void this.#checkpointer.look(false),
    });
    this.#releases = new ShardReleases({
      ...this.#logParts(),
      incarnation,
      checkpointLogBytes: settings.checkpointLogBytes,
      hasUnsettled: (shard) => this.#pipeline.hasUnsettled(shard),
      isDraining: () => this.#draining,
      writeCheckpoint: (holder) => this.#checkpointer.write(holder),
      closeLanes: (shard) => this.lanes.close(shard),
      released: (holder) => this.#released(holder),
      lost: (holder, error) => this.#lose(holder, error),
    });
  }

  #objectGivenUp(error: StreamHouseError): void {
    if (error.code === 'object-exists') {
      // Incarnations are never given twice, so the store that gives them has lost what it confirmed.
      const what = `incarnation ${this.#parts.incarnation} is in use: ${error.message}`;
      this.#die(new StreamHouseError('store-went-back', what));
      return;
    }
    this.#log('warn', 'an object was given up', { error: error.toPlain() });
  }

  // -- Shards ------------------------------------------------------------------------------------------

  /** Takes a shard over from the lease seen, or looks whether it is held still: see messages for what is answered. */
  take(seen: SeenLease): void {
    const { shard } = seen;
    const present = this.#holders.get(shard);
    if (present?.phase === 'serving') void this.#reassure(present);
    if (present && present.phase !== 'lost') return;
    if (this.#draining) {
      this.#reportLost(
        shard,
        new StreamHouseError('shutting-down', 'the batching worker takes no more shards'),
      );
      return;
    }
    const holder = new ShardHolder(shard, this.#holderParts());
    this.#holders.set(shard, holder);
    holder.take(seen, this.#knownSeq[shard]).then(
      (order) => this.#taken(holder, order),
      (error) => this.#lose(holder, error),
    );
  }

  #taken(holder: ShardHolder, order: OpenShardOrder): void {
    if (holder.phase !== 'serving') return;
    const { shard, epoch } = holder;
    this.#parts.counters.add('takeoversTotal');
    this.#noteSeq(shard, holder.state.seq);
    if (holder.releaseWanted) {
      this.#releases.begin(holder, false);
      return;
    }
    this.lanes.open(order, () => {
      if (holder.phase === 'serving') this.#parts.report({ type: 'held', shard, epoch });
    });
    this.#countHeld();
    this.#committer.commit();
  }

  /** Somebody thinks that a shard that is served here is not: perhaps it was taken over and nobody has noticed. */
  async #reassure(holder: ShardHolder): Promise<void> {
    try {
      if (!(await holder.stillHolds())) {
        throw new StreamHouseError('fenced', `shard ${holder.shard} was taken over`);
      }
    } catch (error) {
      this.#lose(holder, operatingError(error));
      return;
    }
    const { shard, epoch } = holder;
    if (holder.phase === 'serving') this.#parts.report({ type: 'held', shard, epoch });
  }

  holder(shard: number): ShardHolder | undefined {
    return this.#holders.get(shard);
  }

  #logParts(): ShardLogParts {
    const { store, clock, random, counters } = this.#parts;
    const onUnknown = () => counters.add('appendsUnknownTotal');
    return { store, clock, random, stopped: this.#stop.signal, onUnknown };
  }

  #holderParts(): HolderParts {
    const { incarnation, settings } = this.#parts;
    return {
      ...this.#logParts(),
      incarnation,
      shardCount: settings.layout.shardCount,
      epochsHad: this.#epochsHad,
      nextCommitNumber: () => this.#commitNumber++,
      wasAbandoned: (key, producerId, number) => this.#pipeline.wasAbandoned(key, producerId, number),
    };
  }

  /** Hands shards over; each ends by 'released' or 'lost'. */
  release(shards: readonly number[]): void {
    const leaving: ShardHolder[] = [];
    for (const shard of new Set(shards)) {
      const holder = this.#holders.get(shard);
      if (!holder)
        this.#reportLost(shard, new StreamHouseError('not-leader', `shard ${shard} is not held here`));
      else if (holder.phase === 'serving') leaving.push(holder);
      else holder.releaseWanted = true;
    }
    if (leaving.length === 0) return;
    // Sealed while it is served still: nothing of it is in the open batch from here on.
    this.#pipeline.sealFor(new Set(leaving.map(({ shard }) => shard)));
    for (const holder of leaving) this.#releases.begin(holder, true);
    this.#countHeld();
  }

  #released(holder: ShardHolder): void {
    const { shard, epoch } = holder;
    holder.phase = 'released';
    this.#holders.delete(shard);
    this.#parts.counters.add('shardsReleasedTotal');
    this.#parts.report({ type: 'released', shard, epoch });
    this.#changed();
  }

  /** Lets a shard go: everything queued or gathered for it fails, the lanes drop it. Never takes it back by itself. */
  #lose(holder: ShardHolder, error: unknown): void {
    const { shard } = holder;
    if (this.#holders.get(shard) !== holder) return;
    const failure = operatingError(error);
    holder.lose((part) => this.#committer.failPart(part, 'append-abandoned'));
    this.#pipeline.removeShard(shard);
    this.#holders.delete(shard);
    this.lanes.close(shard);
    this.#countHeld();
    this.lanes.flushAnswers();
    if (failure.code !== 'shutting-down') {
      this.#parts.counters.add('shardsLostTotal');
      if (failure.code === 'store-went-back') this.#die(failure);
      else this.#reportLost(shard, failure);
    }
    this.#changed();
  }

  #reportLost(shard: number, error: StreamHouseError): void {
    this.#parts.report({ type: 'lost', shard, error: error.toPlain() });
  }

  #countHeld(): void {
    let held = 0;
    for (const holder of this.#holders.values()) if (holder.phase === 'serving') held++;
    this.#parts.counters.set('shardsHeld', held);
  }

  #noteSeq(shard: number, seq: number): void {
    if (seq > this.#knownSeq[shard]) this.#knownSeq[shard] = seq;
  }

  // -- Lanes -------------------------------------------------------------------------------------------

  /** A lane's thread is there (anew): it gets every shard that is served. */
  connectLane(lane: number, port: LanePort): void {
    this.lanes.connect(lane, port);
    this.#reopenLane(lane);
  }

  /** A lane's thread ended. What it had forwarded goes on; its answers have nowhere to go. */
  disconnectLane(lane: number): void {
    this.lanes.disconnect(lane);
  }

  #reopenLane(lane: number): void {
    for (const holder of this.#holders.values()) {
      // One that is being handed over is read until then, and its checkpoint wants all lanes.
      if (!holder.isHeld) continue;
      const ready = this.lanes.beginReopen(lane, holder.shard, holder.epoch);
      holder.reopenOrder().then(ready, (error) => {
        if (holder.isHeld && !this.#stop.signal.aborted) this.#lose(holder, error);
      });
    }
  }

  /** A message from a lane. */
  fromLane(lane: number, report: LaneReport): void {
    switch (report.type) {
      case 'append':
        this.#pipeline.gather(lane, report.bytes);
        this.lanes.flushAnswers();
        break;
      case 'opened':
        this.lanes.opened(lane, report.shard, report.epoch);
        break;
      case 'paged-out':
        this.lanes.pagedOut(lane, report.requestId, report.error);
        break;
      case 'pressure':
        void this.#checkpointer.look(true);
        break;
    }
  }

  /** The parts of the next object in the order of sealing go to the queues of their shards. */
  #enqueue(parts: readonly QueuedPart[], uploaded: boolean): void {
    for (const part of parts) {
      const holder = this.#holders.get(part.shard);
      // A writer that lost the shard in between abandons what it had sealed before, though it hold it again.
      if (uploaded && holder?.isHeld && holder.epoch === part.epoch) holder.enqueue(part);
      else this.#committer.failPart(part, 'append-abandoned');
    }
  }

  // -- Decisions ---------------------------------------------------------------------------------------

  /** Appends a decision to these shards; rejects if one is not served (then to none) or lost on the way. */
  async decideOn(shards: readonly number[], body: EntryBody): Promise<void> {
    const holders: ShardHolder[] = [];
    for (const shard of new Set(shards)) {
      const holder = this.#holders.get(shard);
      if (holder?.phase !== 'serving') {
        throw new StreamHouseError('not-leader', `shard ${shard} is not served here now`);
      }
      holders.push(holder);
    }
    // Nothing may throw between the first of these promises and the wait for all: a rejection nobody waits for
    // would end the thread.
    const waits = holders.map(
      (holder) =>
        new Promise<void>((resolve, reject) => {
          holder.decide(body, (error) => (error ? reject(error) : resolve()));
        }),
    );
    this.#committer.commit();
    await Promise.all(waits);
  }

  // -- Ending ------------------------------------------------------------------------------------------

  /**
   * Refuses new appends and takeovers, seals what is gathered, and hands every shard over; resolves when all of them are
   * released or lost and every append is answered. Rejects when the worker stops before.
   */
  async drain(): Promise<void> {
    this.#draining = true;
    this.#pipeline.drain();
    this.release([...this.#holders.keys()]);
    while (this.#holders.size > 0 || !this.#pipeline.idle) {
      if (this.#stop.signal.aborted) throw new StreamHouseError('shutting-down', 'the batching worker stops');
      await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
    }
  }

  /** Something was settled, released or lost: whoever waits for that looks again. */
  #changed(): void {
    this.#releases.changed();
    for (const resolve of this.#idleWaiters.splice(0)) resolve();
  }

  /** The store contradicts what is known to be committed: from here on nothing is acknowledged or written. */
  #die(error: StreamHouseError): void {
    if (this.#stop.signal.aborted) return;
    this.stop();
    this.#parts.report({ type: 'fatal', error: error.toPlain() });
  }

  /** Ends all waiting at once; whatever is outstanding stays as it is in the store. */
  stop(): void {
    this.#stop.abort();
    this.#pipeline.stop();
    this.#checkpointer.stop();
    this.#changed();
  }

  #log(level: 'info' | 'warn' | 'error', message: string, fields: Record<string, unknown>): void {
    this.#parts.report({ type: 'log', level, message, fields });
  }
}
