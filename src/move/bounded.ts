/** Several pieces of work at a time, and a bound on how many. Any thread. */

/** Runs `work` on every item, at most `inFlightMax` at a time; the first failure ends it once all are done. */
export async function eachBounded<T>(
  items: readonly T[],
  inFlightMax: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0;
  let failure: { error: unknown } | null = null;
  const run = async (): Promise<void> => {
    while (next < items.length && failure === null) {
      try {
        await work(items[next++]);
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(inFlightMax, items.length) }, run));
  // The closures above set it, which the compiler cannot see.
  const ended = failure as { error: unknown } | null;
  if (ended !== null) throw ended.error;
}
