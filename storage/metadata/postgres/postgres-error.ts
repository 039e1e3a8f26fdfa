/**
 * What a failure of PostgreSQL means to a caller of the metadata store. Owns: the table from SQLSTATE and phase to
 * the operating errors. What is not in the table is a bug of ours (a constraint, a wrong parameter) and is thrown on
 * as it is. Pure; the storing thread.
 *
 * A statement that commits by itself and is answered with an ERROR did nothing: the server answers after it rolled
 * back, and a time limit is switched off before the commit begins. A FATAL answer is another matter: a server that
 * shuts down may send it between the commit and its confirmation.
 */
import type { ErrorCode } from '../../../src/core/errors.ts';
import type { PgFailure, PgMeaning } from '../pg-wire/pg-failure.ts';
import { PG_SQLSTATES, PG_WRONG_SETTING } from '../pg-wire/pg-sqlstates.ts';

/** Besides what all of the protocol say. */
const MEANING_OF: Record<string, ErrorCode | 'retry'> = {
  ...PG_SQLSTATES,
  /** Two transactions collided and this one was given up. */
  '40001': 'retry',
  '40P01': 'retry',
};

/** Errors of the driver, of TLS and of PgBouncer, at the first connection: waiting will not help. */
const WRONG_CONNECTION =
  /unsupported startup parameter|does not support SSL|establishing an SSL connection|certificate|self.signed|altnames|SASL|SCRAM|password must be/i;

/** The server itself, or what stands before it, says that it does not know. */
const NOBODY_KNOWS = /^(40003|08...)$/;

export function postgresMeaning(failure: PgFailure): PgMeaning {
  const { kind, phase, sqlState, isFatal, message } = failure;
  if (kind === 'not-connected') {
    return phase === 'open' && WRONG_CONNECTION.test(message) ? 'invalid-setting' : 'store-unavailable';
  }
  if (kind === 'lost' || kind === 'timed-out')
    return phase === 'commit' ? 'store-unknown' : 'store-unavailable';
  const state = sqlState ?? '';
  if (phase === 'open' && (PG_WRONG_SETTING.test(state) || WRONG_CONNECTION.test(message)))
    return 'invalid-setting';
  if (phase === 'commit' && (isFatal || NOBODY_KNOWS.test(state))) return 'store-unknown';
  if (NOBODY_KNOWS.test(state)) return 'store-unavailable';
  // No statement of ours makes a server end its connection: an operator's limit does, or a pool in between.
  return MEANING_OF[state] ?? MEANING_OF[state.slice(0, 2)] ?? (isFatal ? 'store-unavailable' : 'bug');
}
