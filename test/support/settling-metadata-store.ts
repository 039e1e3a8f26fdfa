/**
 * A metadata store behind what a careful caller does about faults: what was 'unavailable' is asked again, a write whose
 * outcome is 'unknown' is made again where the contract calls it idempotent, an append is settled as the batching
 * worker settles it (workers/shard-log), and other changes of heads by what the heads tell. Owns: just that, for running
 * the contract suite through faults. Calls that
 * can do neither (a topic created, an id given) pass their 'store-unknown' on. Tests only.
 */
import type { Clock } from '../../src/core/clock.ts';
import { StreamHouseError } from '../../src/core/errors.ts';
import type { Random } from '../../src/core/random.ts';
import {
  callMetadataStore,
  ForwardingMetadataStore,
  type MetadataArguments,
  type MetadataMethod,
  type MetadataResult,
} from '../../storage/metadata/forwarding-metadata-store.ts';
import type {
  AppendOutcome,
  CheckpointPointer,
  HeadOutcome,
  LogEntry,
  MetadataStore,
  ObjectRow,
  ShardHead,
} from '../../storage/metadata/metadata-store.ts';
import { backOff, type ShardLogParts, settleAppend } from '../../workers/shard-log.ts';

/** Made again with the same arguments, these leave what one call leaves. */
const IDEMPOTENT = new Set<MetadataMethod>([
  'initCluster',
  'forgetDeletedTopic',
  'trim',
  'putPages',
  'deletePages',
  'putCheckpoint',
  'deleteOldCheckpoints',
  'dropReferences',
  'markObjects',
  'forgetObjects',
  'deregisterAgent',
  'importRows',
  'importCluster',
  'setMovedTo',
]);

const TRIES_MAX = 30;

export class SettlingMetadataStore extends ForwardingMetadataStore {
  readonly description: string;
  readonly bodyBytesMax: number;
  /** Calls that were made again, and appends that were settled. */
  repeated = 0;
  settled = 0;
  readonly #inner: MetadataStore;
  readonly #parts: ShardLogParts;
  #isClosed = false;

  constructor(inner: MetadataStore, clock: Clock, random: Random) {
    super();
    this.#inner = inner;
    this.description = inner.description;
    this.bodyBytesMax = inner.bodyBytesMax;
    const stopped = new AbortController().signal;
    this.#parts = { store: inner, clock, random, stopped, onUnknown: () => this.settled++ };
  }

  protected override async forward<M extends MetadataMethod>(
    method: M,
    args: MetadataArguments<M>,
  ): Promise<MetadataResult<M>> {
    for (let attempt = 0; ; attempt++) {
      try {
        // The caller's bytes are its own again after the first wait.
        return await callMetadataStore(this.#inner, method, structuredClone(args));
      } catch (error) {
        const kind = error instanceof StreamHouseError ? error.kind : null;
        const mayRepeat = kind === 'unavailable' || (kind === 'unknown' && IDEMPOTENT.has(method));
        if (!mayRepeat || this.#isClosed || attempt === TRIES_MAX) throw error;
      }
      this.repeated++;
      await backOff(this.#parts, Math.min(attempt, 2));
    }
  }

  override async appendEntries(
    entries: readonly LogEntry[],
    objects: readonly ObjectRow[],
  ): Promise<AppendOutcome[]> {
    const taken = structuredClone({ entries, objects });
    const heads = await this.#headsOf(taken.entries);
    for (;;) {
      try {
        return await this.forward('appendEntries', [taken.entries, taken.objects]);
      } catch (error) {
        if (!(error instanceof StreamHouseError) || error.kind !== 'unknown') throw error;
        // Only rows that are put if absent, or an entry that nobody who knows the head would send: all once more.
        if (entries.length === 0 || taken.entries.some((entry, i) => isAhead(entry, heads[i]))) {
          this.repeated++;
          continue;
        }
        const outcomes: AppendOutcome[] = [];
        for (const [i, entry] of taken.entries.entries()) {
          outcomes.push(await this.#settle(entry, heads[i]!, taken.objects, error));
        }
        return outcomes;
      }
    }
  }

  override acquireLeases(
    incarnation: number,
    seen: readonly { shard: number; holder: number; epoch: number }[],
  ): Promise<HeadOutcome[]> {
    return this.#settleHeads(structuredClone(seen), {
      call: (some) => this.forward('acquireLeases', [incarnation, some]),
      isDue: (head, { holder, epoch }) => head.holder === holder && head.epoch === epoch,
      isDone: (head, { epoch }) => head.holder === incarnation && head.epoch === epoch + 1,
    });
  }

  override releaseLeases(
    incarnation: number,
    leases: readonly { shard: number; epoch: number }[],
  ): Promise<HeadOutcome[]> {
    return this.#settleHeads(structuredClone(leases), {
      call: (some) => this.forward('releaseLeases', [incarnation, some]),
      isDue: (head, { epoch }) => head.holder === incarnation && head.epoch === epoch,
      isDone: (head, { epoch }) => head.holder === 0 && head.epoch === epoch,
    });
  }

  override async movePointer(shard: number, epoch: number, pointer: CheckpointPointer): Promise<HeadOutcome> {
    const { seq, writer } = pointer;
    const [outcome] = await this.#settleHeads([{ shard }], {
      call: async () => [await this.forward('movePointer', [shard, epoch, { seq, writer }])],
      isDue: ({ checkpoint, ...head }) => head.epoch === epoch && (checkpoint?.seq ?? 0) < seq,
      isDone: ({ checkpoint }) => checkpoint?.seq === seq && checkpoint.writer === writer,
    });
    return outcome;
  }

  /** Where it was due before the call and is done after it, the call did it; where it is still due, it did not. */
  async #settleHeads<L extends { shard: number }>(
    changes: readonly L[],
    by: {
      call(some: readonly L[]): Promise<HeadOutcome[]>;
      isDue(head: ShardHead, change: L): boolean;
      isDone(head: ShardHead, change: L): boolean;
    },
  ): Promise<HeadOutcome[]> {
    const before = await this.#headsOf(changes);
    try {
      return await by.call(changes);
    } catch (error) {
      if (!(error instanceof StreamHouseError) || error.kind !== 'unknown') throw error;
    }
    // Nothing is done of a call with a shard that is none.
    if (before.includes(null)) return this.#settleHeads(changes, by);
    this.settled++;
    const outcomes: HeadOutcome[] = [];
    for (const [i, change] of changes.entries()) {
      const head = await this.readHead(change.shard);
      const isDone = by.isDue(before[i]!, change) && by.isDone(head, change);
      if (!isDone && by.isDue(head, change)) outcomes.push(...(await this.#settleHeads([change], by)));
      else outcomes.push({ kind: isDone ? 'done' : 'conflict', head });
    }
    return outcomes;
  }

  /** The heads before a change; null for a shard that is none. */
  async #headsOf(changes: readonly { shard: number }[]): Promise<(ShardHead | null)[]> {
    const heads: (ShardHead | null)[] = [];
    for (const { shard } of changes) {
      try {
        heads.push(await this.readHead(shard));
      } catch (error) {
        if (!(error instanceof StreamHouseError) || error.kind !== 'not-found') throw error;
        heads.push(null);
      }
    }
    return heads;
  }

  async #settle(
    entry: LogEntry,
    before: ShardHead,
    objects: readonly ObjectRow[],
    error: unknown,
  ): Promise<AppendOutcome> {
    // The head never goes back, nor does the epoch: such an entry was refused, whatever came of the reply.
    if (before.headSeq >= entry.seq || before.epoch > entry.epoch) {
      return { kind: 'conflict', head: await this.readHead(entry.shard) };
    }
    const verdict = await settleAppend(this.#parts, entry, objects, error);
    if (verdict === 'committed') return { kind: 'done' };
    if (verdict === 'never') return { kind: 'conflict', head: await this.readHead(entry.shard) };
    throw new Error(`entry ${entry.shard}/${entry.seq} is ${verdict}`);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#inner.close();
  }
}

/** No such shard, a gap, or an epoch that nobody was given. */
function isAhead(entry: LogEntry, before: ShardHead | null): boolean {
  return !before || before.headSeq < entry.seq - 1 || before.epoch < entry.epoch;
}
