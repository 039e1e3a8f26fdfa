/**
 * Writing one entry to a shard's log so that its outcome is certain. Owns: the append, and what to do when its
 * reply is lost. Does not own: what is in the entry (shard-holder). Runs in the batching worker.
 *
 * Outcomes of one append, decided here and nowhere else:
 *   committed  the entry is in the log, perhaps under a head that moved on since
 *   never      it is not and will not be: a foreign entry has its seq, or the epoch was raised below it
 *   doubtful   its seq was trimmed: nobody can tell any more
 *
 *          send ----- done ---------------------------------> committed
 *           ^  \----- conflict, own commitId at own seq ----> committed
 *           |   \---- conflict, otherwise ----.
 *           |    \--- reply lost ------------. \
 *           |                                 v v
 *           |                             read back head, then entry
 *           |<-- head at seq-1, epoch ours --' |  |  `-- entry bears our commitId ----> committed
 *           |    (byte-identical resend)       |   `---- foreign entry, or head at
 *           |                                  |         seq-1 under a higher epoch ----> never
 *           '-- store unavailable: wait -------'-- seq trimmed ----> doubtful
 *
 * The commitId is looked for first, before any epoch is compared: a resend conflicts with itself, and an entry
 * may have been committed before somebody raised the epoch.
 */
import { type Clock, sleep } from '../src/core/clock.ts';
import { StreamHouseError } from '../src/core/errors.ts';
import type { Random } from '../src/core/random.ts';
import type {
  AppendOutcome,
  LogEntry,
  MetadataStore,
  ObjectRow,
  ShardHead,
} from '../storage/metadata/metadata-store.ts';

export type AppendVerdict = 'committed' | 'never' | 'doubtful';

export interface ShardLogParts {
  store: MetadataStore;
  clock: Clock;
  random: Random;
  /** Ends waits when the batching worker stops. */
  stopped: AbortSignal;
  onUnknown(): void;
}

/** Wait between tries while the store is away, ms: doubled from the first to the last, with jitter. */
const BACKOFF_MS_FIRST = 20;
const BACKOFF_MS_MAX = 1000;

/** Runs a call that may be repeated until the store answers; any error that is not 'unavailable' passes. */
export async function untilAvailable<T>(parts: ShardLogParts, call: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof StreamHouseError) || error.kind !== 'unavailable' || parts.stopped.aborted) {
        throw error;
      }
      await backOff(parts, attempt);
    }
  }
}

/** Waits before try `attempt` + 1. */
export function backOff(parts: ShardLogParts, attempt: number): Promise<void> {
  const limit = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_FIRST * 2 ** Math.min(attempt, 10));
  return sleep(parts.clock, limit * (0.5 + parts.random.unit() / 2), parts.stopped);
}

/** The entry in the log under `seq`, or null if it is not there. */
async function readEntry(parts: ShardLogParts, shard: number, seq: number): Promise<LogEntry | null> {
  const entries = await untilAvailable(parts, () => parts.store.readEntries(shard, seq - 1, 1));
  return entries.length > 0 && entries[0].seq === seq ? entries[0] : null;
}

/**
 * What became of `entry` by what the store says now; null: nothing yet, the byte-identical entry may be sent
 * again.
 */
async function readBack(parts: ShardLogParts, entry: LogEntry): Promise<AppendVerdict | null> {
  const head = await untilAvailable(parts, () => parts.store.readHead(entry.shard));
  checkHeadNotBelow(head, entry.seq - 1);
  if (head.headSeq >= entry.seq) {
    if (head.headSeq === entry.seq) return head.headCommitId === entry.commitId ? 'committed' : 'never';
    const found = await readEntry(parts, entry.shard, entry.seq);
    if (found === null) return 'doubtful';
    return found.commitId === entry.commitId ? 'committed' : 'never';
  }
  return head.epoch === entry.epoch ? null : 'never';
}

/** A head below what is known to be committed means that the store lost what it confirmed. */
export function checkHeadNotBelow(head: ShardHead, knownSeq: number): void {
  if (head.headSeq >= knownSeq) return;
  throw new StreamHouseError(
    'store-went-back',
    `shard ${head.shard}: the store's head is at ${head.headSeq}, but entry ${knownSeq} was committed`,
    { shard: head.shard, headSeq: head.headSeq, knownSeq },
  );
}

/**
 * Finds out what became of an entry that was sent once with outcome `first` (an AppendOutcome, or the error of
 * the call), sending it again, byte for byte, where that is right. Rejects only with 'store-went-back', with
 * corruption, or when the worker stops.
 */
export async function settleAppend(
  parts: ShardLogParts,
  entry: LogEntry,
  objects: readonly ObjectRow[],
  first: AppendOutcome | unknown,
): Promise<AppendVerdict> {
  let outcome = first;
  for (let attempt = 0; ; attempt++) {
    if (isOutcome(outcome)) {
      if (outcome.kind === 'done') return 'committed';
      const { head } = outcome;
      if (head.headSeq === entry.seq && head.headCommitId === entry.commitId) return 'committed';
    } else if (outcome instanceof StreamHouseError && outcome.kind === 'unknown') {
      parts.onUnknown();
    } else if (!(outcome instanceof StreamHouseError) || outcome.kind !== 'unavailable') {
      throw outcome;
    }
    if (parts.stopped.aborted) throw new StreamHouseError('shutting-down', 'the batching worker stops');
    if (attempt > 0 || !isOutcome(outcome)) await backOff(parts, attempt);
    const verdict = await readBack(parts, entry);
    if (verdict !== null) return verdict;
    outcome = await appendOnce(parts, entry, objects);
  }
}

function isOutcome(outcome: unknown): outcome is AppendOutcome {
  return typeof outcome === 'object' && outcome !== null && 'kind' in outcome && !(outcome instanceof Error);
}

async function appendOnce(
  parts: ShardLogParts,
  entry: LogEntry,
  objects: readonly ObjectRow[],
): Promise<AppendOutcome | unknown> {
  try {
    return (await parts.store.appendEntries([entry], objects))[0];
  } catch (error) {
    return error;
  }
}
