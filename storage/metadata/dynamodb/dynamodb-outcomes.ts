/**
 * What several requests of one call come to together. Owns: which error stands for all, and when a call that failed
 * has happened in part. Pure; any thread.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';

/**
 * Waits for all of them, also when some fail, so that nothing of a call still runs when it ends; then the worst
 * error: a bug first, then one that leaves something open.
 */
export async function allDone<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  const settled = await Promise.allSettled(promises);
  const errors = settled.flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []));
  if (errors.length > 0) throw worstOf(errors);
  return settled.map((one) => (one as PromiseFulfilledResult<T>).value);
}

export function worstOf(errors: readonly unknown[]): unknown {
  const rank = (error: unknown) => {
    if (!(error instanceof StreamHouseError)) return 3;
    if (error.kind === 'unknown') return 2;
    return error.kind === 'unavailable' ? 0 : 1;
  };
  return errors.reduce((worst, error) => (rank(error) > rank(worst) ? error : worst));
}

/**
 * As `allDone` for writes that are each on their own but one call together: when some failed and others happened, the
 * whole may have happened in part, which is 'store-unknown'. `happened` tells that something did before them.
 */
export async function allWritten<T>(
  promises: readonly Promise<T>[],
  isEffect: (result: T) => boolean = () => true,
  happened = false,
): Promise<T[]> {
  const settled = await Promise.allSettled(promises);
  const errors = settled.flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []));
  if (errors.length === 0) return settled.map((one) => (one as PromiseFulfilledResult<T>).value);
  const worst = worstOf(errors);
  const inPart = happened || settled.some((one) => one.status === 'fulfilled' && isEffect(one.value));
  if (inPart && worst instanceof StreamHouseError && worst.kind === 'unavailable') {
    throw new StreamHouseError('store-unknown', `done in part: ${worst.message}`, worst.detail, worst);
  }
  throw worst;
}
