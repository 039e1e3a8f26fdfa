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

/** By SQLSTATE, or by its class (the first two characters) where all of it means the same. */
const MEANING_OF: Record<string, ErrorCode | 'retry'> = {
  /** Two transactions collided and this one was given up. */
  '40001': 'retry',
  '40P01': 'retry',
  /** A server that only reads: a standby, or one that was demoted a moment ago. */
  '25006': 'store-unavailable',
  '25P03': 'store-unavailable',
  /** A plan from before a migration changed a column's type: the next connection makes another. */
  '0A000': 'store-unavailable',
  /** A prepared statement that is not there, or there already: a pool of connections without `pgbouncer=true`. */
  '26000': 'store-unavailable',
  '42P05': 'store-unavailable',
  '28': 'store-unavailable',
  '3D000': 'store-unavailable',
  '42501': 'store-unavailable',
  /** Tables or their schema are not there. */
  '3F000': 'schema-too-old',
  '42P01': 'schema-too-old',
  '42703': 'schema-too-old',
  '53': 'store-unavailable',
  '53100': 'disk-full',
  '55P03': 'store-unavailable',
  '57': 'store-unavailable',
  '58': 'store-unavailable',
  XX001: 'corrupt-store',
  XX002: 'corrupt-store',
  /** Every insert looks first or says what to do: a key that is taken all the same means damaged rows. */
  '23505': 'corrupt-store',
};

/** At the first connection these say that the URL is wrong; later that somebody is changing the server. */
const WRONG_SETTING = /^(28...|3D000|42501)$/;

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
  if (phase === 'open' && (WRONG_SETTING.test(state) || WRONG_CONNECTION.test(message)))
    return 'invalid-setting';
  if (phase === 'commit' && (isFatal || NOBODY_KNOWS.test(state))) return 'store-unknown';
  if (NOBODY_KNOWS.test(state)) return 'store-unavailable';
  // No statement of ours makes a server end its connection: an operator's limit does, or a pool in between.
  return MEANING_OF[state] ?? MEANING_OF[state.slice(0, 2)] ?? (isFatal ? 'store-unavailable' : 'bug');
}
