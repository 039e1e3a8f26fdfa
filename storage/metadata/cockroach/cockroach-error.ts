/**
 * What a failure of CockroachDB means to a caller of the metadata store. Owns: the table from SQLSTATE and phase to
 * the operating errors. What is not in the table is a bug of ours (a constraint, a wrong parameter) and is thrown on
 * as it is. Pure; the storing thread.
 *
 * Unlike PostgreSQL, a server that answers is only the gateway: the commit runs on other nodes, and an error in the
 * phase 'commit' tells that nothing happened only where CockroachDB says so (CERTAIN). The rest is unknown.
 */
import type { ErrorCode } from '../../../src/core/errors.ts';
import type { PgFailure, PgMeaning } from '../pg-wire/pg-failure.ts';

/** By SQLSTATE, or by its class (the first two characters) where all of it means the same. */
const MEANING_OF: Record<string, ErrorCode> = {
  /** The outcome is not known: after a read, or before a COMMIT was sent, that means that nothing happened. */
  '40003': 'store-unavailable',
  '08': 'store-unavailable',
  /** A node that only reads, or a transaction that waited for its client too long. */
  '25006': 'store-unavailable',
  '25P03': 'store-unavailable',
  /** A plan from before a migration changed a column's type: the next connection makes another. */
  '0A000': 'store-unavailable',
  /** A prepared statement that is not there, or there already: a pool of connections stands between. */
  '26000': 'store-unavailable',
  '42P05': 'store-unavailable',
  '28': 'store-unavailable',
  '3D000': 'store-unavailable',
  '42501': 'store-unavailable',
  /** Tables, or their schema, are not there. */
  '3F000': 'schema-too-old',
  '42P01': 'schema-too-old',
  '42703': 'schema-too-old',
  /** Out of memory (53200), of connections (53300), of space (53100), of a limit of the cluster's (53400). */
  '53': 'store-unavailable',
  '53100': 'disk-full',
  /** A row or a command above what the cluster takes. */
  '54': 'item-too-large',
  '55P03': 'store-unavailable',
  /** Cancelled or timed out (57014), the node is draining (57P01), crashed (57P02) or starting (57P03). */
  '57': 'store-unavailable',
  /** A range or a node that cannot be reached (58C00, 58C01). */
  '58': 'store-unavailable',
  /** Internal errors, and errors that have no code of their own (XXUUU): most come from a cluster in trouble. */
  XX: 'store-unavailable',
  XX001: 'corrupt-store',
  XX002: 'corrupt-store',
  /** Every insert looks first or says what to do: a key that is taken all the same means damaged rows. */
  '23505': 'corrupt-store',
};

/** Two transactions collided and this one was given up, at COMMIT too: nothing of it happened, and it is run again. */
const COLLIDED = /^(40001|40P01)$/;

/** Given before a statement began to write, or together with its rollback: nothing happened, in every phase. */
const CERTAIN = /^(0A000|2....|28...|3....|42...|53...|54...|55P03)$/;

/** At the first connection these say that the URL is wrong; later that somebody is changing the cluster. */
const WRONG_SETTING = /^(28...|3D000|42501)$/;

/** Errors of the driver and of TLS, at the first connection: waiting will not help. */
const WRONG_TLS =
  /does not support SSL|establishing an SSL connection|certificate|self.signed|altnames|SASL|SCRAM|password must be/i;

export function cockroachMeaning(failure: PgFailure): PgMeaning {
  const { kind, phase, isFatal, message } = failure;
  if (kind === 'not-connected') {
    return phase === 'open' && WRONG_TLS.test(message) ? 'invalid-setting' : 'store-unavailable';
  }
  if (kind !== 'answered') return phase === 'commit' ? 'store-unknown' : 'store-unavailable';
  const state = failure.sqlState ?? '';
  if (COLLIDED.test(state)) return 'retry';
  if (phase === 'open' && WRONG_SETTING.test(state)) return 'invalid-setting';
  const meaning = MEANING_OF[state] ?? MEANING_OF[state.slice(0, 2)];
  if (!meaning && !isFatal) return 'bug';
  // No statement of ours makes a server end its connection: an operator's limit does, or a pool in between.
  if (!meaning) return phase === 'commit' ? 'store-unknown' : 'store-unavailable';
  if (phase !== 'commit' || meaning === 'corrupt-store') return meaning;
  return CERTAIN.test(state) && !isFatal ? meaning : 'store-unknown';
}
