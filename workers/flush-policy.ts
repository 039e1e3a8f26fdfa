/**
 * When the open batch is sealed. Pure. Owns: the decision and its reasons. Does not own: timers or the batch.
 */

export interface FlushLimits {
  /** From the first append of a batch to its sealing, ms. */
  windowMs: number;
  /** Bytes of record batches in one object. */
  bytesMax: number;
  /** Partitions in one object. */
  slicesMax: number;
}

export type SealReason = 'window' | 'bytes' | 'slices' | 'drain';

/**
 * Appends in one object at most. Its entry may need, for every append, a slice and a producer's batch of its own
 * (entry-codec's bounds, 112 bytes), and an entry must fit the 16 MiB that the smallest store takes.
 */
export const APPENDS_PER_OBJECT_MAX = 131_072;

/** What a batch weighs. */
export interface BatchWeight {
  bytes: number;
  sliceCount: number;
  appendCount: number;
}

/** Why a batch of this weight is to be sealed whatever its age, or null. */
export function fullReason(limits: FlushLimits, batch: BatchWeight): 'bytes' | 'slices' | null {
  if (batch.bytes >= limits.bytesMax) return 'bytes';
  if (batch.sliceCount >= limits.slicesMax || batch.appendCount >= APPENDS_PER_OBJECT_MAX) return 'slices';
  return null;
}

/** Why a batch of this weight and age is to be sealed now, or null. */
export function sealReason(limits: FlushLimits, batch: BatchWeight, ageMs: number): SealReason | null {
  if (batch.sliceCount === 0) return null;
  const full = fullReason(limits, batch);
  if (full) return full;
  // Timers fire up to a millisecond early by the monotonic clock.
  if (ageMs >= limits.windowMs - 1) return 'window';
  return null;
}
