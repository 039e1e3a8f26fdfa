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

/** Why a batch of this size and age is to be sealed now, or null. */
export function sealReason(
  limits: FlushLimits,
  bytes: number,
  sliceCount: number,
  ageMs: number,
): SealReason | null {
  if (sliceCount === 0) return null;
  if (bytes >= limits.bytesMax) return 'bytes';
  if (sliceCount >= limits.slicesMax) return 'slices';
  // Timers fire up to a millisecond early by the monotonic clock.
  if (ageMs >= limits.windowMs - 1) return 'window';
  return null;
}
