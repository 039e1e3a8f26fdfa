/**
 * Taking a shard's lease and giving it back, so that the outcome is certain. Owns: the two compare-and-sets, and what
 * to do when their reply is lost. Does not own: who should hold a shard (src/agent) nor what a holder does before and
 * after (shard-holder, shard-releases). Runs in the batching worker.
 *
 * A head's (holder, epoch) never comes back: an epoch is held by one incarnation, then perhaps by nobody, then the next
 * epoch begins. So a call that may have happened is simply made again, and the head that it conflicts with tells what
 * became of the first.
 *
 *   raise    (X, e) -> (we, e+1)    again: conflict with (we, e+1) is our own; any other head: somebody was first
 *   release  (we, e) -> (nobody, e) again: conflict with (nobody, e) is our own; any other head: it was taken over
 */
import { StreamHouseError } from '../src/core/errors.ts';
import type { HeadOutcome, ShardHead } from '../storage/metadata/metadata-store.ts';
import type { SeenLease } from './messages.ts';
import { backOff, type ShardLogParts } from './shard-log.ts';

/**
 * Raises the epoch of the lease `seen`, if the head bears exactly that; the head as raised. 'conflict' otherwise, with
 * the holder and the epoch found: what was decided on old knowledge takes nothing. `epochHad`: the highest epoch that
 * this incarnation held the shard under; `checkWanted` throws when the shard is wanted no more.
 */
export async function raiseLease(
  parts: ShardLogParts,
  incarnation: number,
  seen: SeenLease,
  epochHad: number,
  checkWanted: () => void,
): Promise<ShardHead> {
  // Without this an epoch that we held and lost since would look like the one whose reply was lost.
  if (seen.epoch < epochHad) throw takenBy(seen.shard, incarnation, epochHad);
  for (let attempt = 0; ; attempt++) {
    checkWanted();
    const outcome = await attempting(parts, () => parts.store.acquireLeases(incarnation, [seen]));
    if (outcome === null) {
      await backOff(parts, attempt);
      continue;
    }
    const { head } = outcome;
    if (outcome.kind === 'done') return head;
    if (head.holder === incarnation && head.epoch === seen.epoch + 1) return head;
    throw takenBy(seen.shard, head.holder, head.epoch);
  }
}

function takenBy(shard: number, holder: number, epoch: number): StreamHouseError {
  const message = `shard ${shard} is held by ${holder} under epoch ${epoch}: the lease seen is an older one`;
  return new StreamHouseError('conflict', message, { shard, holder, epoch });
}

/**
 * Finds out what became of a release that was sent once with outcome `first` (a HeadOutcome, or the error of the call),
 * sending it again until that is certain. Rejects with 'fenced' when somebody else has taken the shard, and with
 * 'shutting-down' when the worker stops.
 */
export async function settleRelease(
  parts: ShardLogParts,
  incarnation: number,
  lease: { shard: number; epoch: number },
  first: HeadOutcome | unknown,
): Promise<void> {
  const { shard, epoch } = lease;
  let outcome = checked(parts, first);
  for (let attempt = 0; outcome === null; attempt++) {
    await backOff(parts, attempt);
    outcome = await attempting(parts, () => parts.store.releaseLeases(incarnation, [lease]));
  }
  const { head } = outcome;
  if (outcome.kind === 'done' || (head.holder === 0 && head.epoch === epoch)) return;
  const { holder } = head;
  throw new StreamHouseError('fenced', `shard ${shard} was taken over at epoch ${head.epoch}`, {
    shard,
    holder,
    epoch: head.epoch,
  });
}

/** The outcome of a call for one lease; null: it is not certain, or nothing happened, and it may be made again. */
async function attempting(
  parts: ShardLogParts,
  call: () => Promise<HeadOutcome[]>,
): Promise<HeadOutcome | null> {
  let outcome: HeadOutcome | unknown;
  try {
    [outcome] = await call();
  } catch (error) {
    outcome = error;
  }
  return checked(parts, outcome);
}

function checked(parts: ShardLogParts, outcome: HeadOutcome | unknown): HeadOutcome | null {
  if (!(outcome instanceof Error)) return outcome as HeadOutcome;
  if (!(outcome instanceof StreamHouseError)) throw outcome;
  if (outcome.kind !== 'unknown' && outcome.kind !== 'unavailable') throw outcome;
  if (parts.stopped.aborted) throw new StreamHouseError('shutting-down', 'the batching worker stops');
  return null;
}
