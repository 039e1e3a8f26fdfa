/**
 * The broker's log: one line of JSON on standard error per event that an operator acts on. Owns: the logger's
 * shape. Main thread (the other threads send theirs).
 */
import { destination, type Logger, pino } from 'pino';

export type { Logger };

/** A logger on standard error. `level`: fatal, error, warn, info, debug, trace or silent. */
export function createLogger(level: string, agentId: string): Logger {
  // Written at once: the last line before an end is the one that matters.
  return pino({ level, base: { agent: agentId } }, destination({ fd: 2, sync: true }));
}
