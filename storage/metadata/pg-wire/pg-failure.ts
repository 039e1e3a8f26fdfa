/**
 * What went wrong with a statement, as the protocol shows it. Owns: telling an answer of the server from a connection
 * that was lost, a time that ran out and a server that was not reached, and the moment it came. Does not own: what
 * that means (each backend has a table). Pure.
 */
import pg from 'pg';
import type { ErrorCode } from '../../../src/core/errors.ts';

/**
 * When it went wrong.
 *   open    the first connection: settings may be wrong
 *   connect a later one; nothing of the call was sent
 *   read    a statement that changes nothing
 *   write   a statement inside a transaction whose COMMIT was not sent
 *   commit  COMMIT, or a statement that commits by itself: the one phase after whose loss it may have happened
 */
export type PgPhase = 'open' | 'connect' | 'read' | 'write' | 'commit';

export interface PgFailure {
  kind: 'answered' | 'lost' | 'timed-out' | 'not-connected';
  phase: PgPhase;
  /** Five characters; null unless the server answered. */
  sqlState: string | null;
  /** The server ended the connection with its answer: it may have done so after the commit. */
  isFatal: boolean;
  /** One line, no secrets. */
  message: string;
  cause: unknown;
}

/** What a backend makes of a failure: make the call again (nothing happened), tell the caller, or a bug of ours. */
export type PgMeaning = 'retry' | ErrorCode | 'bug';

/** Crosses from a session to whoever runs the call; never leaves pg-wire. */
export class PgFailed extends Error {
  readonly failure: PgFailure;

  constructor(failure: PgFailure) {
    super(failure.message, { cause: failure.cause });
    this.failure = failure;
  }
}

const SEVERITIES_FATAL = new Set(['FATAL', 'PANIC']);

/** The server's own answer, or null if `error` is none. */
export function answeredFailure(error: unknown, phase: PgPhase): PgFailure | null {
  if (!(error instanceof pg.DatabaseError)) return null;
  const isFatal = SEVERITIES_FATAL.has(error.severity ?? '');
  const { code: sqlState = null, message } = error;
  const text = `${oneLine(message)} (${sqlState})`;
  return { kind: 'answered', phase, sqlState, isFatal, message: text, cause: error };
}

export function otherFailure(
  kind: Exclude<PgFailure['kind'], 'answered'>,
  phase: PgPhase,
  error: Error,
): PgFailure {
  return { kind, phase, sqlState: null, isFatal: true, message: oneLine(messageOf(error)), cause: error };
}

/** Some errors of sockets (several addresses tried) have no message but in their parts. */
function messageOf(error: Error): string {
  if (error.message !== '') return error.message;
  const [first] = error instanceof AggregateError ? error.errors : [];
  return first instanceof Error ? first.message : error.name;
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim();
}
