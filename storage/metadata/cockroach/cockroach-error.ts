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
import { PG_SQLSTATES, PG_WRONG_SETTING } from '../pg-wire/pg-sqlstates.ts';

/** Besides what all of the protocol say. */
const MEANING_OF: Record<string, ErrorCode> = {
  ...PG_SQLSTATES,
  /** The outcome is not known: after a read, or before a COMMIT was sent, that means that nothing happened. */
  '40003': 'store-unavailable',
  '08': 'store-unavailable',
  /** A row or a command above what the cluster takes. */
  '54': 'item-too-large',
  /** Internal errors, and errors that have no code of their own (XXUUU): most come from a cluster in trouble. */
  XX: 'store-unavailable',
};

/** Two transactions collided and this one was given up, at COMMIT too: nothing of it happened, and it is run again. */
const COLLIDED = /^(40001|40P01)$/;

/** Given before a statement began to write, or together with its rollback: nothing happened, in every phase. */
const CERTAIN = /^(0A000|2....|28...|3....|42...|53...|54...|55P03)$/;

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
  if (phase === 'open' && PG_WRONG_SETTING.test(state)) return 'invalid-setting';
  const meaning = MEANING_OF[state] ?? MEANING_OF[state.slice(0, 2)];
  if (!meaning && !isFatal) return 'bug';
  // No statement of ours makes a server end its connection: an operator's limit does, or a pool in between.
  if (!meaning) return phase === 'commit' ? 'store-unknown' : 'store-unavailable';
  if (phase !== 'commit' || meaning === 'corrupt-store') return meaning;
  return CERTAIN.test(state) && !isFatal ? meaning : 'store-unknown';
}
