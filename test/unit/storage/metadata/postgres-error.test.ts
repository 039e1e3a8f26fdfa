/** What a failure of PostgreSQL means, by SQLSTATE and phase: the whole table, row by row. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PgFailure, PgMeaning, PgPhase } from '../../../../storage/metadata/pg-wire/pg-failure.ts';
import { postgresMeaning } from '../../../../storage/metadata/postgres/postgres-error.ts';

const PHASES: readonly PgPhase[] = ['open', 'connect', 'read', 'write', 'commit'];

function answered(sqlState: string, phase: PgPhase, isFatal = false): PgMeaning {
  const failure: PgFailure = { kind: 'answered', phase, sqlState, isFatal, message: 'm', cause: null };
  return postgresMeaning(failure);
}

function unanswered(kind: 'lost' | 'timed-out' | 'not-connected', phase: PgPhase, message = 'm'): PgMeaning {
  return postgresMeaning({ kind, phase, sqlState: null, isFatal: true, message, cause: null });
}

describe('an error of PostgreSQL', () => {
  it('is unknown only where a commit may have happened', () => {
    for (const kind of ['lost', 'timed-out'] as const) {
      assert.deepEqual(
        PHASES.map((phase) => unanswered(kind, phase)),
        [...Array(4).fill('store-unavailable'), 'store-unknown'],
        kind,
      );
    }
    // A server that goes down may say so between the commit and its confirmation.
    for (const sqlState of [
      '57P01',
      '57P02',
      '57P03',
      '57P05',
      '25P03',
      '53300',
      '58000',
      'XX001',
      'XX000',
    ]) {
      assert.equal(answered(sqlState, 'commit', true), 'store-unknown', sqlState);
    }
    for (const sqlState of ['57P01', '57P02', '57P03', '53300', '25P04', 'XX000', 'F0000']) {
      for (const phase of PHASES.slice(0, 4)) {
        assert.equal(answered(sqlState, phase, true), 'store-unavailable', `${sqlState} ${phase}`);
      }
    }
    for (const sqlState of ['40003', '08006', '08007', '08P01']) {
      assert.equal(answered(sqlState, 'commit'), 'store-unknown', sqlState);
      assert.equal(answered(sqlState, 'write'), 'store-unavailable', sqlState);
      assert.equal(answered(sqlState, 'read'), 'store-unavailable', sqlState);
    }
  });

  it('is answered with ERROR only after the server rolled back', () => {
    const expected: Record<string, PgMeaning> = {
      '40001': 'retry',
      '40P01': 'retry',
      '55P03': 'store-unavailable',
      '57014': 'store-unavailable',
      '57P01': 'store-unavailable',
      '53000': 'store-unavailable',
      '53100': 'disk-full',
      '53200': 'store-unavailable',
      '53300': 'store-unavailable',
      '58030': 'store-unavailable',
      '58P01': 'store-unavailable',
      '25006': 'store-unavailable',
      '26000': 'store-unavailable',
      '0A000': 'store-unavailable',
      '42P05': 'store-unavailable',
      '42501': 'store-unavailable',
      '3F000': 'schema-too-old',
      '42P01': 'schema-too-old',
      '42703': 'schema-too-old',
      XX001: 'corrupt-store',
      XX002: 'corrupt-store',
      '23505': 'corrupt-store',
    };
    for (const [sqlState, meaning] of Object.entries(expected)) {
      for (const phase of ['read', 'write', 'commit'] as const) {
        assert.equal(answered(sqlState, phase), meaning, `${sqlState} ${phase}`);
      }
    }
  });

  it('is a bug of ours when nothing outside can cause it', () => {
    for (const sqlState of [
      '42601',
      '22P02',
      '22021',
      '23502',
      '23514',
      '21000',
      '25P02',
      '42883',
      'XX000',
    ]) {
      for (const phase of ['read', 'write', 'commit'] as const) {
        assert.equal(answered(sqlState, phase), 'bug', `${sqlState} ${phase}`);
      }
    }
  });

  it('means a wrong setting at the first connection only', () => {
    for (const sqlState of ['28P01', '28000', '3D000', '42501']) {
      assert.equal(answered(sqlState, 'open', true), 'invalid-setting', sqlState);
      assert.equal(answered(sqlState, 'connect', true), 'store-unavailable', sqlState);
    }
    for (const message of [
      'The server does not support SSL connections',
      'self-signed certificate',
      'unable to verify the first certificate',
      "Hostname/IP does not match certificate's altnames",
      'SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be a string',
    ]) {
      assert.equal(unanswered('not-connected', 'open', message), 'invalid-setting', message);
      assert.equal(unanswered('not-connected', 'connect', message), 'store-unavailable', message);
    }
    for (const message of [
      'connect ECONNREFUSED 127.0.0.1:1',
      'getaddrinfo ENOTFOUND db',
      'timeout expired',
    ]) {
      assert.equal(unanswered('not-connected', 'open', message), 'store-unavailable', message);
    }
  });
});
