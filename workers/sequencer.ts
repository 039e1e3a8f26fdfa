/**
 * The heart of the batching worker: gathers appends of all lanes, seals and uploads objects, and commits them to
 * the logs of the shards that this agent holds. Owns: the open batch, the order of commits, the holders, what
 * the lanes are told. Does not own: a shard's state and entries (shard-holder), uploads (uploader), ports and
 * threads (batching-worker), which shards should be held (src/agent). Runs in the batching worker, and in the
 * simulation over simulated stores and time.
 *
 *   lanes -> append -> open batch -> seal -> upload -> queues of the shards, in the order of sealing
 *         -> one appendEntries for all shards that have something and nothing outstanding
 *         -> states -> lanes (index, tail cache, answers)
 *
 * Objects reach the shards' queues in the order of sealing: one that is still being uploaded holds back those
 * behind it, one that was given up fails its appends and lets them pass. What finishes while an append is out
 * rides in the next. A shard whose append's outcome is in doubt settles by itself while the others go on.
 */
import type { Clock, Timer } from '../src/core/clock.ts';
import { type ErrorCode, operatingError, StreamHouseError } from '../src/core/errors.ts';
import { shardOf } from '../src/core/ids.ts';
import type { Random } from '../src/core/random.ts';
import type { AppendOutcome, MetadataStore, ObjectRow } from '../storage/metadata/metadata-store.ts';
import type { ObjectStore } from '../storage/objects/object-store.ts';
import { type AnswerWriter, bufferOver } from './append-codec.ts';
import { BatchBuilder, forEachAppend, type SealedObject } from './batch-builder.ts';
import type { EntryBody } from './entry-codec.ts';
import type { PlannedAnswers, QueuedPart, Sealing } from './entry-plan.ts';
import { type FlushLimits, fullReason, type SealReason, sealReason } from './flush-policy.ts';
import { LaneDesk, type LanePort } from './lane-desk.ts';
import type { CommittedEntry, LaneReport, SequencerReply, SharedObject } from './messages.ts';
import {
  type HolderParts,
  type PlannedAnswersOnly,
  type PlannedAppend,
  ShardHolder,
  verdictCode,
} from './shard-holder.ts';
import type { ThreadCounters } from './shared-counters.ts';
import { Uploader } from './uploader.ts';

export interface SequencerSettings extends FlushLimits {
  shardCount: number;
  uploadsInFlightMax: number;
  uploadDeadlineMs: number;
  /** A checkpoint is due when this many bytes of log lie behind the pointer. */
  checkpointLogBytes: number;
  /** A checkpoint is due when the pointer is this old and anything was appended since. */
  checkpointIntervalMs: number;
}

export interface SequencerParts {
  store: MetadataStore;
  objects: ObjectStore;
  clock: Clock;
  random: Random;
  incarnation: number;
  laneCount: number;
  settings: SequencerSettings;
  counters: ThreadCounters;
  /** To the main thread. */
  report(reply: SequencerReply): void;
}

/** A sealed object on its way to its shards' queues. */
interface InFlight {
  object: SealedObject;
  sealing: Sealing;
  state: 'uploading' | 'uploaded' | 'failed';
  /** Shards whose entry for this object is not settled yet. */
  unsettled: number;
  /** The bytes have been handed to the lanes. */
  shared: boolean;
}

/** A producer's run in a partition that was broken by an upload given up. */
interface AbandonedRun {
  /** Objects through this number may hold batches that follow the lost one. */
  throughObject: number;
}

const SEAL_COUNTERS = {
  window: 'sealWindowTotal',
  bytes: 'sealBytesTotal',
  slices: 'sealSlicesTotal',
  drain: 'sealDrainTotal',
} as const;

/** How often due checkpoints are looked for, ms. */
const CHECKPOINT_LOOK_MS = 1000;

export class Sequencer {
  readonly lanes: LaneDesk;
  readonly #parts: SequencerParts;
  readonly #stop = new AbortController();
  readonly #uploader: Uploader;
  readonly #holders = new Map<number, ShardHolder>();
  /** Newest entry of each shard that this process knows to be committed. */
  readonly #knownSeq = new Map<number, number>();
  readonly #builder = new BatchBuilder();
  readonly #inFlight: InFlight[] = [];
  readonly #inFlightOf = new Map<SealedObject, InFlight>();
  readonly #abandoned = new Map<string, AbandonedRun>();
  #objectNumber = 0;
  #commitNumber = 0;
  #windowTimer: Timer | null = null;
  #batchBeganMs = 0;
  #committing = false;
  #checkpointing = false;
  #checkpointTimer: Timer | null = null;
  #draining = false;
  #idleWaiters: (() => void)[] = [];

  constructor(parts: SequencerParts) {
    this.#parts = parts;
    const { counters, clock, incarnation } = parts;
    this.lanes = new LaneDesk(parts.laneCount);
    this.#uploader = new Uploader(parts.objects, clock, parts.settings, {
      uploaded: (ms, bytes) => {
        counters.add('objectsPutTotal');
        counters.add('objectBytesTotal', bytes);
        counters.observe('uploadMs', ms);
      },
      failed: (error) => {
        counters.add('objectsFailedTotal');
        if (error.code === 'object-exists') {
          // Incarnations are never given twice, so the store that gives them has lost what it confirmed.
          const went = new StreamHouseError(
            'store-went-back',
            `incarnation ${incarnation} is in use: ${error.message}`,
          );
          parts.report({ type: 'fatal', error: went.toPlain() });
        }
        this.#log('warn', 'an object was given up', { error: error.toPlain() });
      },
      hedged: () => counters.add('uploadHedgesTotal'),
    });
    this.#scheduleCheckpoints();
  }

  // -- Shards ------------------------------------------------------------------------------------------

  /** Takes a shard over; 'held' or 'lost' is reported. */
  take(shard: number): void {
    const present = this.#holders.get(shard);
    if (present && present.phase !== 'lost') return;
    const holder = new ShardHolder(shard, this.#holderParts());
    this.#holders.set(shard, holder);
    holder.take(this.#knownSeq.get(shard) ?? 0).then(
      (order) => {
        if (holder.phase !== 'serving') return;
        this.#parts.counters.add('takeoversTotal');
        this.#noteSeq(shard, holder.state.seq);
        this.lanes.open(order, () => {
          if (holder.phase === 'serving') this.#parts.report({ type: 'held', shard, epoch: holder.epoch });
        });
        this.#countHeld();
        this.#commit();
      },
      (error) => this.#lose(holder, error),
    );
  }

  holder(shard: number): ShardHolder | undefined {
    return this.#holders.get(shard);
  }

  #holderParts(): HolderParts {
    const { store, clock, random, incarnation, settings, counters } = this.#parts;
    return {
      store,
      clock,
      random,
      incarnation,
      shardCount: settings.shardCount,
      stopped: this.#stop.signal,
      onUnknown: () => counters.add('appendsUnknownTotal'),
      nextCommitNumber: () => this.#commitNumber++,
      wasAbandoned: (key, producerId, objectNumber) => {
        const run = this.#abandoned.get(`${key}/${producerId}`);
        return run !== undefined && objectNumber <= run.throughObject;
      },
    };
  }

  /** Lets a shard go: everything queued or gathered for it fails, the lanes drop it. Never takes it back by itself. */
  #lose(holder: ShardHolder, error: unknown): void {
    const { shard } = holder;
    if (this.#holders.get(shard) !== holder) return;
    const failure = operatingError(error);
    holder.lose((part) => this.#failPart(part, 'append-abandoned'));
    this.#builder.removeShard(shard, (lane, slot, generation) => {
      this.#parts.counters.add('appendsAbandonedTotal');
      this.lanes.answer(lane, slot, generation, 'not-leader', -1);
    });
    this.#holders.delete(shard);
    this.lanes.close(shard);
    this.#countHeld();
    this.lanes.flushAnswers();
    if (failure.code === 'shutting-down') return;
    this.#parts.counters.add('shardsLostTotal');
    if (failure.code === 'store-went-back') {
      this.#parts.report({ type: 'fatal', error: failure.toPlain() });
      return;
    }
    this.#parts.report({ type: 'lost', shard, error: failure.toPlain() });
    this.#resolveIdle();
  }

  #countHeld(): void {
    let held = 0;
    for (const holder of this.#holders.values()) if (holder.phase === 'serving') held++;
    this.#parts.counters.set('shardsHeld', held);
  }

  #noteSeq(shard: number, seq: number): void {
    if (seq > (this.#knownSeq.get(shard) ?? 0)) this.#knownSeq.set(shard, seq);
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
      if (holder.phase !== 'serving') continue;
      const ready = this.lanes.beginReopen(lane, holder.shard, holder.epoch);
      holder.reopenOrder().then(ready, (error) => {
        if (holder.phase === 'serving' && !this.#stop.signal.aborted) this.#lose(holder, error);
      });
    }
  }

  /** A message from a lane. */
  fromLane(lane: number, report: LaneReport): void {
    switch (report.type) {
      case 'append':
        this.#gather(lane, report.bytes);
        break;
      case 'opened':
        this.lanes.opened(lane, report.shard, report.epoch);
        break;
      case 'paged-out':
        this.lanes.pagedOut(lane, report.requestId, report.error);
        break;
      case 'pressure':
        void this.#checkpointDue(true);
        break;
    }
  }

  // -- Gathering and sealing ---------------------------------------------------------------------------

  #gather(lane: number, message: Uint8Array): void {
    const { settings, counters } = this.#parts;
    const chunk = bufferOver(message);
    let count = 0;
    let refused = 0;
    this.#builder.beginChunk(lane, chunk);
    forEachAppend(chunk, (header, position) => {
      count++;
      const shard = shardOf(header.topicId, header.partition, settings.shardCount);
      if (this.#draining || this.#holders.get(shard)?.phase !== 'serving') {
        refused++;
        const code = this.#draining ? 'shutting-down' : 'not-leader';
        this.lanes.answer(lane, header.slot, header.generation, code, -1);
        return;
      }
      if (this.#builder.sliceCount === 0) this.#beginWindow();
      this.#builder.add(header, shard, position);
      const full = fullReason(settings, this.#builder);
      if (full === null) return;
      this.#seal(full);
      this.#builder.beginChunk(lane, chunk);
    });
    counters.add('appendsTotal', count);
    if (refused > 0) {
      counters.add('appendsRefusedTotal', refused);
      this.lanes.flushAnswers();
    }
    this.#sealIfDue();
  }

  #beginWindow(): void {
    const { clock, settings } = this.#parts;
    this.#batchBeganMs = clock.monotonicMs();
    this.#windowTimer = clock.after(settings.windowMs, () => this.#sealIfDue());
  }

  #sealIfDue(): void {
    const ageMs = this.#parts.clock.monotonicMs() - this.#batchBeganMs;
    const reason = sealReason(this.#parts.settings, this.#builder, ageMs);
    if (reason !== null) this.#seal(reason);
    else {
      this.#parts.counters.set('openBatchBytes', this.#builder.bytes);
      this.#parts.counters.set('openBatchSlices', this.#builder.sliceCount);
    }
  }

  #seal(reason: SealReason): void {
    const { counters, clock, incarnation } = this.#parts;
    this.#windowTimer?.cancel();
    this.#windowTimer = null;
    counters.add(SEAL_COUNTERS[reason]);
    const sealedAtMs = clock.monotonicMs();
    counters.observe('batchAgeMs', sealedAtMs - this.#batchBeganMs);
    const object = this.#builder.seal({ incarnation, number: this.#objectNumber++ });
    const shards = new Set(object.slices.map((slice) => slice.shard));
    const sealing: Sealing = {
      sealedAtMs,
      sealedWallMs: Math.max(0, Math.floor(clock.wallMs())),
      shards: [...shards]
        .sort((a, b) => a - b)
        .map((shard) => ({ shard, epoch: (this.#holders.get(shard) as ShardHolder).epoch })),
    };
    const inFlight: InFlight = { object, sealing, state: 'uploading', unsettled: shards.size, shared: false };
    this.#inFlight.push(inFlight);
    this.#inFlightOf.set(object, inFlight);
    this.#uploader.upload(object).then(
      () => {
        inFlight.state = 'uploaded';
        counters.add('slicesTotal', object.slices.length);
        this.#advance();
      },
      () => {
        inFlight.state = 'failed';
        this.#abandonProducers(object);
        this.#advance();
      },
    );
    this.#gauges();
  }

  /** Later batches of these producers, already gathered, must not overtake what is lost: they fail as it does. */
  #abandonProducers(object: SealedObject): void {
    for (const slice of object.slices) {
      for (let a = slice.firstAppend; a < slice.firstAppend + slice.appendCount; a++) {
        const producerId = object.appends.producerId[a];
        if (producerId < 0) continue;
        this.#abandoned.set(`${slice.key}/${producerId}`, { throughObject: this.#objectNumber });
      }
    }
  }

  #gauges(): void {
    const { counters } = this.#parts;
    counters.set('openBatchBytes', this.#builder.bytes);
    counters.set('openBatchSlices', this.#builder.sliceCount);
    counters.set('uploadsInFlight', this.#uploader.active);
    counters.set('objectsInFlight', this.#inFlightOf.size);
  }

  // -- Committing --------------------------------------------------------------------------------------

  /** Moves what is uploaded, in the order of sealing, to the queues of its shards. */
  #advance(): void {
    while (this.#inFlight.length > 0 && this.#inFlight[0].state !== 'uploading') {
      const inFlight = this.#inFlight.shift() as InFlight;
      const { object, sealing } = inFlight;
      for (const { shard, epoch } of sealing.shards) {
        const slices = object.slices.filter((slice) => slice.shard === shard);
        const part: QueuedPart = { object, sealing, slices };
        const holder = this.#holders.get(shard);
        // A writer that lost the shard in between abandons what it had sealed before, though it hold it again.
        const mayCommit =
          inFlight.state === 'uploaded' && holder?.phase === 'serving' && holder.epoch === epoch;
        if (mayCommit) holder.enqueue(part);
        else this.#failPart(part, 'append-abandoned');
      }
    }
    this.lanes.flushAnswers();
    this.#forgetAbandoned();
    this.#commit();
  }

  #forgetAbandoned(): void {
    if (this.#abandoned.size === 0) return;
    let oldest = this.#objectNumber;
    for (const { object } of this.#inFlightOf.values()) oldest = Math.min(oldest, object.id.number);
    for (const [name, run] of this.#abandoned) if (run.throughObject < oldest) this.#abandoned.delete(name);
  }

  #failPart(part: QueuedPart, code: ErrorCode): void {
    const { appends } = part.object;
    for (const slice of part.slices) {
      for (let a = slice.firstAppend; a < slice.firstAppend + slice.appendCount; a++) {
        this.#parts.counters.add('appendsAbandonedTotal');
        this.lanes.answer(appends.lane[a], appends.slot[a], appends.generation[a], code, -1);
      }
    }
    this.#partSettled(part);
  }

  #partSettled(part: QueuedPart): void {
    const inFlight = this.#inFlightOf.get(part.object);
    if (!inFlight) return;
    inFlight.unsettled--;
    if (inFlight.unsettled === 0) this.#inFlightOf.delete(part.object);
    this.#gauges();
    this.#resolveIdle();
  }

  /** One call for all shards that have something to append and nothing outstanding. */
  #commit(): void {
    if (this.#committing || this.#stop.signal.aborted) return;
    const { counters } = this.#parts;
    const plans: PlannedAppend[] = [];
    for (const holder of this.#holders.values()) {
      while (holder.wantsToAppend) {
        const plan = holder.plan(this.#parts.store.bodyBytesMax);
        if (plan === null) break;
        counters.add('appendsDuplicateTotal', plan.duplicates);
        counters.add('appendsRefusedTotal', plan.refused);
        if ('row' in plan) {
          plans.push(plan);
          continue;
        }
        void this.#answerOnly(holder, plan);
      }
    }
    this.lanes.flushAnswers();
    if (plans.length === 0) return;
    void this.#append(plans);
  }

  /**
   * Answers of what needs no entry. Duplicates hold at once. A refusal may come of a state that somebody else's
   * entries have overtaken, and a producer may take it for final: it counts only if the shard is held still.
   */
  async #answerOnly(holder: ShardHolder, plan: PlannedAnswersOnly): Promise<void> {
    if (plan.refused > 0) {
      try {
        if (!(await holder.stillHolds())) {
          throw new StreamHouseError('fenced', `shard ${holder.shard} was taken over`);
        }
      } catch (error) {
        for (const part of plan.parts) this.#failPart(part, 'not-leader');
        this.lanes.flushAnswers();
        this.#lose(holder, operatingError(error));
        return;
      }
    }
    this.#answerAll(plan.answers);
    this.lanes.flushAnswers();
    for (const part of plan.parts) this.#partSettled(part);
  }

  async #append(plans: PlannedAppend[]): Promise<void> {
    const { store, counters, clock } = this.#parts;
    this.#committing = true;
    const startMs = clock.monotonicMs();
    counters.add('appendCallsTotal');
    const rows = new Map<SealedObject, ObjectRow>();
    for (const plan of plans) {
      const objects = [...new Set(plan.parts.map((part) => part.object))];
      for (let i = 0; i < objects.length; i++) rows.set(objects[i], plan.objects[i]);
    }
    let outcomes: AppendOutcome[] | StreamHouseError;
    try {
      outcomes = await store.appendEntries(
        plans.map((plan) => plan.row),
        [...rows.values()],
      );
      counters.observe('appendMs', clock.monotonicMs() - startMs);
    } catch (error) {
      outcomes = operatingError(error);
    }
    this.#committing = false;
    if (Array.isArray(outcomes)) this.#settleCall(plans, outcomes);
    else for (const plan of plans) void this.#settleOne(plan, outcomes);
    this.#commit();
  }

  /** The usual end of a call: all done. What is not done settles by itself. */
  #settleCall(plans: PlannedAppend[], outcomes: AppendOutcome[]): void {
    const done: PlannedAppend[] = [];
    for (let i = 0; i < plans.length; i++) {
      if (outcomes[i].kind === 'done') done.push(plans[i]);
      else void this.#settleOne(plans[i], outcomes[i]);
    }
    this.#publish(done);
  }

  async #settleOne(plan: PlannedAppend, first: unknown): Promise<void> {
    const { holder } = plan;
    try {
      const verdict = await holder.settle(plan, first);
      if (verdict === 'committed') {
        this.#publish([plan]);
        this.#commit();
        return;
      }
      this.#parts.counters.add('appendsFencedTotal');
      const code = verdictCode(verdict);
      const failure = new StreamHouseError(
        'fenced',
        `shard ${holder.shard}: entry ${plan.row.seq} is ${verdict}`,
      );
      this.#failPlan(plan, code, failure);
      this.#lose(holder, failure);
    } catch (error) {
      const failure = operatingError(error);
      this.#failPlan(plan, 'store-unknown', failure);
      this.#lose(holder, failure);
    }
  }

  #failPlan(plan: PlannedAppend, code: ErrorCode, failure: StreamHouseError): void {
    plan.holder.outstanding = null;
    for (const part of plan.parts) this.#failPart(part, code);
    plan.done?.(failure);
    this.lanes.flushAnswers();
  }

  /**
   * Entries are committed: into the states, then to the lanes (index first, then answers). An entry may turn out
   * committed after its shard was lost; then only its answers count.
   */
  #publish(plans: PlannedAppend[]): void {
    if (plans.length === 0) return;
    const { counters, clock } = this.#parts;
    const entries: CommittedEntry[] = [];
    const objects: SharedObject[] = [];
    for (const plan of plans) {
      const { holder } = plan;
      entries.push(holder.committed(plan));
      this.#noteSeq(holder.shard, plan.row.seq);
      counters.add('entriesCommittedTotal');
      counters.add('entryBytesTotal', plan.row.body.length);
      if (plan.entry.kind === 'slices') {
        for (const slice of plan.entry.slices) counters.add('recordsCommittedTotal', slice.recordCount);
      }
      for (const part of plan.parts) {
        const inFlight = this.#inFlightOf.get(part.object);
        if (inFlight && !inFlight.shared) {
          inFlight.shared = true;
          objects.push({ ...part.object.id, bytes: part.object.bytes });
          counters.observe('commitMs', clock.monotonicMs() - part.sealing.sealedAtMs);
        }
      }
      if (plan.answers) this.#answerAll(plan.answers);
    }
    this.lanes.committed(entries, objects);
    for (const plan of plans) {
      for (const part of plan.parts) this.#partSettled(part);
      plan.done?.(null);
    }
    this.#resolveIdle();
    void this.#checkpointDue(false);
  }

  #answerAll(answers: PlannedAnswers): void {
    for (const [lane, writer] of answers) {
      this.#parts.counters.add('appendsAnsweredTotal', writer.count);
      this.lanes.answerAll(lane, writer as AnswerWriter);
    }
  }

  // -- Decisions ---------------------------------------------------------------------------------------

  /** Appends a decision to every shard held; rejects if a shard is not held or lost on the way. */
  async decideOnAll(body: EntryBody): Promise<void> {
    const holders: ShardHolder[] = [];
    for (let shard = 0; shard < this.#parts.settings.shardCount; shard++) {
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
    this.#commit();
    await Promise.all(waits);
  }

  // -- Checkpoints -------------------------------------------------------------------------------------

  #scheduleCheckpoints(): void {
    this.#checkpointTimer = this.#parts.clock.after(CHECKPOINT_LOOK_MS, () => {
      void this.#checkpointDue(false);
      if (!this.#stop.signal.aborted) this.#scheduleCheckpoints();
    });
  }

  /** Writes the checkpoints that are due, one shard at a time; with `anyway` of every shard that has a tail. */
  async #checkpointDue(anyway: boolean): Promise<void> {
    if (this.#checkpointing || this.#stop.signal.aborted) return;
    this.#checkpointing = true;
    try {
      for (const holder of [...this.#holders.values()]) {
        if (this.#isCheckpointDue(holder, anyway)) await this.#checkpoint(holder);
      }
    } finally {
      this.#checkpointing = false;
    }
  }

  #isCheckpointDue(holder: ShardHolder, anyway: boolean): boolean {
    const { checkpointLogBytes, checkpointIntervalMs } = this.#parts.settings;
    if (holder.phase !== 'serving' || holder.tailBytes === 0 || this.#stop.signal.aborted) return false;
    if (anyway || holder.tailBytes >= checkpointLogBytes) return true;
    return this.#parts.clock.monotonicMs() - holder.checkpointedAtMs >= checkpointIntervalMs;
  }

  async #checkpoint(holder: ShardHolder): Promise<void> {
    const { counters } = this.#parts;
    try {
      const written = await holder.checkpoint(() => this.lanes.pageOut(holder.shard));
      if (written === null) return;
      counters.add('checkpointsTotal');
      counters.add('checkpointBytesTotal', written.bytes);
    } catch (error) {
      // Pages and pointer stay as they were, the log keeps what they lack; the next look tries again.
      holder.checkpointedAtMs = this.#parts.clock.monotonicMs();
      counters.add('checkpointsFailedTotal');
      const failure = operatingError(error);
      this.#log('warn', 'a checkpoint was given up', { shard: holder.shard, error: failure.toPlain() });
      if (failure.kind === 'fenced') this.#lose(holder, failure);
    }
  }

  // -- Ending ------------------------------------------------------------------------------------------

  /** Refuses new appends, seals what is gathered, waits until everything is settled, releases the shards. */
  async drain(): Promise<void> {
    this.#draining = true;
    if (this.#builder.sliceCount > 0) this.#seal('drain');
    while (this.#inFlightOf.size > 0 || [...this.#holders.values()].some((holder) => !holder.idle)) {
      await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
    }
    const held = [...this.#holders.values()].filter((holder) => holder.phase === 'serving');
    for (const holder of held) await this.#checkpoint(holder);
    const leases = held.map((holder) => ({ shard: holder.shard, epoch: holder.epoch }));
    if (leases.length > 0) await this.#parts.store.releaseLeases(this.#parts.incarnation, leases);
  }

  #resolveIdle(): void {
    for (const resolve of this.#idleWaiters.splice(0)) resolve();
  }

  /** Ends all waiting at once; whatever is outstanding stays as it is in the store. */
  stop(): void {
    this.#stop.abort();
    this.#windowTimer?.cancel();
    this.#checkpointTimer?.cancel();
  }

  #log(level: 'info' | 'warn' | 'error', message: string, fields: Record<string, unknown>): void {
    this.#parts.report({ type: 'log', level, message, fields });
  }
}
