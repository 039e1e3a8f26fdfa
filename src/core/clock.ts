/**
 * Time, passed in. The only file that touches the system's clocks and timers (a test bans the rest), so that
 * the simulation can run the same code on virtual time. Any thread.
 */

/** A pending timer; `cancel` after it fired does nothing. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Wall time in ms since the epoch; may jump. For timestamps that users see, never for durations. */
  wallMs(): number;
  /** Monotonic time in ms with fractions, from an arbitrary zero. For durations and deadlines. */
  monotonicMs(): number;
  /** Calls `fire` once after `delayMs`. The timer does not keep the process alive. */
  after(delayMs: number, fire: () => void): Timer;
}

/** Name of the environment's variable, in ms: lets a test run one process as if its machine's clock were wrong. */
const OFFSET_VARIABLE = 'STREAMHOUSE_TEST_CLOCK_OFFSET_MS';

/** Read once: threads are started with the process's environment. */
const wallOffsetMs = Number(process.env[OFFSET_VARIABLE] ?? 0);
if (!Number.isSafeInteger(wallOffsetMs)) throw new Error(`${OFFSET_VARIABLE} is no whole number`);

export const systemClock: Clock = {
  wallMs: () => Date.now() + wallOffsetMs,
  monotonicMs: () => performance.now(),
  after(delayMs, fire) {
    const handle = setTimeout(fire, delayMs);
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
};

/** Resolves after `delayMs` of the clock's time, or at once when the signal aborts. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const stop = () => {
      timer.cancel();
      resolve();
    };
    const timer = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', stop);
      resolve();
    });
    signal?.addEventListener('abort', stop, { once: true });
  });
}
