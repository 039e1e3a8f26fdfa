/**
 * One shard as its holder: takeover, the queue of sealed slices, the one outstanding append, checkpoints. Owns:
 * the shard's state, and the only place where offsets are given. Does not own: gathering and uploading objects
 * or grouping several shards' appends into one call (sequencer). Runs in the batching worker.
 *
 *   idle -> taking -> serving -> releasing -> released
 *             '---------'------------'------> lost
 *   taking     raise the epoch by compare-and-set, read checkpoint and tail, append Takeover
 *   serving    entries are planned from the queue, appended one at a time, then applied
 *   releasing  the same, but nothing new is taken in; then the lease is given back (shard-releases)
 *   lost       fenced, in doubt, or told to let go; everything queued is failed. A new holder object, under a new
 *              epoch, takes the shard again: nothing is carried over. So it is after released.
 */

import type { ErrorCode } from '../src/core/errors.ts';
import { StreamHouseError } from '../src/core/errors.ts';
import type { ObjectId } from '../src/core/ids.ts';
import type {
  CheckpointPointer,
  HeadOutcome,
  LogEntry,
  ObjectRow,
  ShardHead,
} from '../storage/metadata/metadata-store.ts';
import type { SealedObject } from './batch-builder.ts';
import { decodeCheckpoint, encodeCheckpoint } from './checkpoint-codec.ts';
import { decodeEntry, type Entry, type EntryBody, encodeEntry } from './entry-codec.ts';
import { type PlannedAnswers, planSlices, type QueuedPart, type SlicesPlan } from './entry-plan.ts';
import type { CommittedEntry, OpenShardOrder, SeenLease } from './messages.ts';
import { raiseLease, settleRelease } from './shard-lease.ts';
import {
  type AppendVerdict,
  backOff,
  checkHeadNotBelow,
  type ShardLogParts,
  settleAppend,
  untilAvailable,
} from './shard-log.ts';
import { ShardState } from './shard-state.ts';

/**
 * How far one holder's wall clock may run ahead of the log's own time, besides the time that really passes: a clock
 * that jumps by a day must not make the log forget its producers.
 */
const CLOCK_LEAD_MS_MAX = 60 * 60 * 1000;

/** Entries read in one call while loading, bytes. */
const LOAD_BYTES_MAX = 8 * 1024 * 1024;

export type HolderPhase = 'idle' | 'taking' | 'serving' | 'releasing' | 'released' | 'lost';

export interface HolderParts extends ShardLogParts {
  incarnation: number;
  shardCount: number;
  /** By shard, the highest epoch that this incarnation held it under: kept from one holder object to the next. */
  epochsHad: Map<number, number>;
  /** Unique within the incarnation. */
  nextCommitNumber(): number;
  /** Records whose producer was abandoned lately: see sequencer. */
  wasAbandoned(key: number, producerId: number, objectNumber: number): boolean;
}

/** An entry on its way: what it says, whom it answers. */
export interface PlannedAppend {
  holder: ShardHolder;
  entry: Entry;
  row: LogEntry;
  objects: ObjectRow[];
  answers: PlannedAnswers | null;
  parts: QueuedPart[];
  duplicates: number;
  refused: number;
  /** Of a decision that somebody waits for. */
  done: ((error: StreamHouseError | null) => void) | null;
}

/** What was queued needs no entry: its answers hold at once. */
export type PlannedAnswersOnly = Pick<SlicesPlan, 'parts' | 'answers' | 'duplicates' | 'refused'>;

/** The tail of the log since the pointer, as much as a lane needs to begin. */
interface Tail {
  pointer: CheckpointPointer | null;
  checkpoint: Uint8Array | null;
  entries: CommittedEntry[];
}

export class ShardHolder {
  readonly shard: number;
  phase: HolderPhase = 'idle';
  /** Under which this holder writes; 0 before the raise. */
  epoch = 0;
  state: ShardState;
  pointer: CheckpointPointer | null = null;
  /** Bytes of entries after the pointer; what a start-up would have to replay. */
  tailBytes = 0;
  /** Monotonic time of the pointer's last move or of the takeover. */
  checkpointedAtMs = 0;
  /** Settles when the checkpoint that is being written is written or given up; null: there is none. */
  checkpointing: Promise<void> | null = null;
  /** It is to be handed over as soon as it is taken. */
  releaseWanted = false;
  outstanding: PlannedAppend | null = null;
  /** The log's time and the monotonic time when the log was loaded: bounds for the times of entries. */
  #loadedTimeMs = 0;
  #loadedAtMs = 0;
  readonly #parts: HolderParts;
  readonly #queue: QueuedPart[] = [];
  readonly #decisions: { body: EntryBody; done: (error: StreamHouseError | null) => void }[] = [];

  constructor(shard: number, parts: HolderParts) {
    this.shard = shard;
    this.#parts = parts;
    this.state = new ShardState(shard);
  }

  // -- Takeover ----------------------------------------------------------------------------------------

  /**
   * Takes the shard over from the lease `seen` and returns what the lanes need to serve it. `knownSeq`: an entry that
   * this process knows to be committed. Rejects with 'conflict' when the head bears another lease than that, with
   * 'fenced' when somebody else took it meanwhile, with 'cluster-mismatch' when the store was copied to another one,
   * with 'store-went-back' or corruption when the store is not to be trusted.
   */
  async take(seen: SeenLease, knownSeq: number): Promise<OpenShardOrder> {
    const { incarnation, epochsHad } = this.#parts;
    this.phase = 'taking';
    try {
      const epochHad = epochsHad.get(this.shard) ?? 0;
      const head = await raiseLease(this.#parts, incarnation, seen, epochHad, () => this.#stillTaking());
      this.epoch = head.epoch;
      epochsHad.set(this.shard, head.epoch);
      await this.#checkNotMoved();
      checkHeadNotBelow(head, knownSeq);
      const tail = await this.#load(head);
      const takeover = await this.#appendTakeover();
      tail.entries.push(takeover);
      this.#stillTaking();
      this.phase = 'serving';
      this.checkpointedAtMs = this.#parts.clock.monotonicMs();
      return this.#openOrder(tail);
    } catch (error) {
      this.phase = 'lost';
      throw error;
    }
  }

  #stillTaking(): void {
    if (this.phase !== 'taking') throw new StreamHouseError('fenced', `shard ${this.shard} was let go`);
  }

  /**
   * After the raise: whoever moves a cluster marks the store first and raises all epochs then, so that a holder either
   * sees the mark here or is fenced by that raise.
   */
  async #checkNotMoved(): Promise<void> {
    const cluster = await untilAvailable(this.#parts, () => this.#parts.store.getCluster());
    if (!cluster || cluster.movedTo === null) return;
    throw new StreamHouseError(
      'cluster-mismatch',
      `the metadata store was copied to another one (${cluster.movedTo}), which is to be used instead of it`,
    );
  }

  /** Checkpoint and tail as of `head`, folded into the state. */
  async #load(head: ShardHead): Promise<Tail> {
    const tail = await this.#readTail(head, head.headSeq);
    const state = tail.checkpoint
      ? decodeCheckpoint(tail.checkpoint, this.shard)
      : new ShardState(this.shard);
    let bytes = 0;
    for (const entry of tail.entries) {
      state.apply(decodeEntry(entry.body));
      bytes += entry.body.length;
    }
    this.state = state;
    this.#loadedTimeMs = state.timeMs;
    this.#loadedAtMs = this.#parts.clock.monotonicMs();
    this.pointer = tail.pointer;
    this.tailBytes = bytes;
    return tail;
  }

  /**
   * Checkpoint and log through `through`, dense. While they are read the log may be trimmed under a newer pointer:
   * then all is read again from there, unless somebody else moved it ('fenced').
   */
  async #readTail(head: ShardHead, through: number): Promise<Tail> {
    let from = head;
    for (;;) {
      if (from.epoch !== this.epoch) {
        throw new StreamHouseError('fenced', `shard ${this.shard} was taken over at epoch ${from.epoch}`);
      }
      try {
        return await this.#readTailOnce(from.checkpoint, through);
      } catch (error) {
        if (!(error instanceof StreamHouseError)) throw error;
        const now = await untilAvailable(this.#parts, () => this.#parts.store.readHead(this.shard));
        if (now.epoch === from.epoch && now.checkpoint?.seq === from.checkpoint?.seq) throw error;
        from = now;
      }
    }
  }

  async #readTailOnce(pointer: CheckpointPointer | null, through: number): Promise<Tail> {
    const { store } = this.#parts;
    const checkpoint =
      pointer && (await untilAvailable(this.#parts, () => store.getCheckpoint(this.shard, pointer)));
    const entries: CommittedEntry[] = [];
    let seq = pointer ? pointer.seq : 0;
    while (seq < through) {
      const after = seq;
      const read = await untilAvailable(this.#parts, () =>
        store.readEntries(this.shard, after, LOAD_BYTES_MAX),
      );
      for (const entry of read) {
        if (entry.seq > through) break;
        if (entry.seq !== seq + 1) throw this.#gap(seq + 1);
        entries.push({ shard: this.shard, seq: entry.seq, body: toShared(entry.body) });
        seq = entry.seq;
      }
      if (seq === after) throw this.#gap(seq + 1);
    }
    return { pointer, checkpoint, entries };
  }

  #gap(seq: number): StreamHouseError {
    return new StreamHouseError(
      'corrupt-store',
      `shard ${this.shard}: entry ${seq} is neither in the log nor under the checkpoint`,
      { shard: this.shard, seq },
    );
  }

  async #appendTakeover(): Promise<CommittedEntry> {
    const body: EntryBody = { kind: 'takeover', incarnation: this.#parts.incarnation };
    const { entry, row } = this.#row(body);
    let first: unknown;
    try {
      [first] = await this.#parts.store.appendEntries([row], []);
    } catch (error) {
      first = error;
    }
    const verdict = await settleAppend(this.#parts, row, [], first);
    if (verdict !== 'committed') {
      throw new StreamHouseError('fenced', `shard ${this.shard} was taken over at epoch ${this.epoch}`);
    }
    return this.#apply(entry, row);
  }

  #openOrder(tail: Tail): OpenShardOrder {
    return {
      type: 'open-shard',
      shard: this.shard,
      epoch: this.epoch,
      shardCount: this.#parts.shardCount,
      pointerSeq: tail.pointer ? tail.pointer.seq : 0,
      checkpoint: tail.checkpoint && toShared(tail.checkpoint),
      tail: tail.entries,
    };
  }

  /** What a lane that was started anew needs: the tail through the newest applied entry as of the call. */
  async reopenOrder(): Promise<OpenShardOrder> {
    const through = this.state.seq;
    const head = await untilAvailable(this.#parts, () => this.#parts.store.readHead(this.shard));
    checkHeadNotBelow(head, through);
    return this.#openOrder(await this.#readTail(head, through));
  }

  /** Whether nobody has taken the shard over, as of some moment after the call. */
  async stillHolds(): Promise<boolean> {
    const head = await untilAvailable(this.#parts, () => this.#parts.store.readHead(this.shard));
    return head.epoch === this.epoch;
  }

  /** Whether entries may be appended: what was taken in before a release is committed in its course. */
  get isHeld(): boolean {
    return this.phase === 'serving' || this.phase === 'releasing';
  }

  /** Resolves when the lease is given back for certain, after a first call with this outcome; see shard-lease. */
  settleRelease(first: HeadOutcome | unknown): Promise<void> {
    return settleRelease(
      this.#parts,
      this.#parts.incarnation,
      { shard: this.shard, epoch: this.epoch },
      first,
    );
  }

  // -- Appending ---------------------------------------------------------------------------------------

  enqueue(part: QueuedPart): void {
    this.#queue.push(part);
  }

  /** Appends a decision that is not about slices (a deleted topic, ...) before any slices that come later. */
  decide(body: EntryBody, done: (error: StreamHouseError | null) => void): void {
    this.#decisions.push({ body, done });
  }

  get wantsToAppend(): boolean {
    return this.isHeld && this.outstanding === null && (this.#queue.length > 0 || this.#decisions.length > 0);
  }

  /** Whether nothing is queued or outstanding. */
  get idle(): boolean {
    return this.outstanding === null && this.#queue.length === 0 && this.#decisions.length === 0;
  }

  /**
   * The wall time, but no later than the log's time at loading plus what has passed since plus the lead. After a
   * long stop the log's time lags behind the wall, and things expire late; they never expire early.
   */
  #entryTimeMs(): number {
    const wallMs = Math.max(0, Math.floor(this.#parts.clock.wallMs()));
    if (this.#loadedTimeMs === 0) return wallMs;
    const passedMs = Math.floor(this.#parts.clock.monotonicMs() - this.#loadedAtMs);
    return Math.min(wallMs, this.#loadedTimeMs + passedMs + CLOCK_LEAD_MS_MAX);
  }

  #row(body: EntryBody): { entry: Entry; row: LogEntry } {
    const entry: Entry = {
      shard: this.shard,
      seq: this.state.seq + 1,
      epoch: this.epoch,
      timeMs: this.#entryTimeMs(),
      ...body,
    };
    const commitId = `${this.#parts.incarnation}-${this.#parts.nextCommitNumber()}`;
    return {
      entry,
      row: { shard: this.shard, seq: entry.seq, epoch: this.epoch, commitId, body: encodeEntry(entry) },
    };
  }

  /**
   * The next entry from what is queued, as much as fits `bodyBytesMax`; its answers hold only once it is
   * committed. When nothing queued needs an entry (all duplicates or refused) there is none, and the answers
   * hold at once.
   */
  plan(bodyBytesMax: number): PlannedAppend | PlannedAnswersOnly | null {
    const decision = this.#decisions.shift();
    if (decision) {
      const counts = { duplicates: 0, refused: 0 };
      const planned = { holder: this, ...this.#row(decision.body), objects: [], answers: null, parts: [] };
      this.outstanding = { ...planned, ...counts, done: decision.done };
      return this.outstanding;
    }
    const plan = planSlices(this.state, this.#queue, bodyBytesMax, this.#parts.wasAbandoned);
    if (plan === null || plan.body === null) return plan;
    const { body, ...rest } = plan;
    const objects = distinctObjects(plan.parts).map((object) => objectRow(object, plan.parts));
    this.outstanding = { holder: this, ...this.#row(body), objects, ...rest, done: null };
    return this.outstanding;
  }

  /** The outcome of the outstanding append, certain; see shard-log. */
  settle(planned: PlannedAppend, first: unknown): Promise<AppendVerdict> {
    return settleAppend(this.#parts, planned.row, planned.objects, first);
  }

  /** The outstanding entry is committed: the state takes it in. */
  committed(planned: PlannedAppend): CommittedEntry {
    this.outstanding = null;
    return this.#apply(planned.entry, planned.row);
  }

  #apply(entry: Entry, row: LogEntry): CommittedEntry {
    this.state.apply(entry);
    this.tailBytes += row.body.length;
    return { shard: this.shard, seq: row.seq, body: row.body };
  }

  /** Lets go of everything; calls `each` for every queued part. The outstanding append stays with its settler. */
  lose(each: (part: QueuedPart) => void): void {
    this.phase = 'lost';
    for (const part of this.#queue.splice(0)) each(part);
    for (const decision of this.#decisions.splice(0)) {
      decision.done(new StreamHouseError('not-leader', `shard ${this.shard} was lost`));
    }
  }

  // -- Checkpoints -------------------------------------------------------------------------------------

  /**
   * Writes a checkpoint of the state as it is now, in the one order that loses nothing: all pages that fold
   * entries through it confirmed (`pagesConfirmed`, by all lanes), the checkpoint, the pointer, the pointer read
   * back, the log trimmed up to it, older checkpoints deleted. Null when there is nothing to do or the shard was
   * let go meanwhile, 'fenced' when somebody else has taken it.
   */
  async checkpoint(pagesConfirmed: () => Promise<void>): Promise<{ bytes: number } | null> {
    const { store, incarnation } = this.#parts;
    const pointer: CheckpointPointer = { seq: this.state.seq, writer: incarnation };
    if (this.pointer && pointer.seq <= this.pointer.seq) return null;
    const bytes = encodeCheckpoint(this.state);
    const tailBytes = this.tailBytes;
    await pagesConfirmed();
    if (!this.isHeld) return null;
    await this.#certain(() => store.putCheckpoint(this.shard, pointer, bytes));
    if (!this.isHeld) return null;
    if (!(await this.#movePointer(pointer))) return null;
    this.pointer = pointer;
    this.tailBytes -= tailBytes;
    this.checkpointedAtMs = this.#parts.clock.monotonicMs();
    await this.#certain(() => store.trim(this.shard, pointer.seq));
    await this.#certain(() => store.deleteOldCheckpoints(this.shard));
    return { bytes: bytes.length };
  }

  async #movePointer(pointer: CheckpointPointer): Promise<boolean> {
    const { store } = this.#parts;
    await this.#certain(() => store.movePointer(this.shard, this.epoch, pointer));
    const head = await untilAvailable(this.#parts, () => store.readHead(this.shard));
    if (head.epoch !== this.epoch) {
      throw new StreamHouseError('fenced', `shard ${this.shard} was taken over at epoch ${head.epoch}`);
    }
    return (
      head.checkpoint !== null &&
      head.checkpoint.seq === pointer.seq &&
      head.checkpoint.writer === pointer.writer
    );
  }

  /** Repeats an idempotent call until its outcome is known. */
  async #certain<T>(call: () => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await untilAvailable(this.#parts, call);
      } catch (error) {
        if (!(error instanceof StreamHouseError) || error.kind !== 'unknown' || this.#parts.stopped.aborted) {
          throw error;
        }
        await backOff(this.#parts, attempt);
      }
    }
  }
}

/** Entries go to several lanes: shared memory saves a copy for each. */
function toShared(bytes: Uint8Array): Uint8Array {
  if (bytes.buffer instanceof SharedArrayBuffer) return bytes;
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
  shared.set(bytes);
  return shared;
}

function distinctObjects(parts: readonly QueuedPart[]): SealedObject[] {
  return [...new Set(parts.map((part) => part.object))];
}

/** The row names all shards of the object under the epochs of its sealing, whichever shard's entry comes first. */
function objectRow(object: SealedObject, parts: readonly QueuedPart[]): ObjectRow {
  const part = parts.find((candidate) => candidate.object === object) as QueuedPart;
  return {
    object: object.id satisfies ObjectId,
    bytes: object.byteLength,
    createdAtMs: part.sealing.sealedWallMs,
    shards: part.sealing.shards,
  };
}

/** What an append is answered when its entry did not come to be committed. */
export function verdictCode(verdict: Exclude<AppendVerdict, 'committed'>): ErrorCode {
  return verdict === 'never' ? 'append-abandoned' : 'store-unknown';
}
