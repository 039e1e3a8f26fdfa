/**
 * SQLSTATEs that mean the same whatever answers in PostgreSQL's protocol. Owns: that table. Does not own: what collided,
 * what is unknown in which phase, nor what a backend says besides (each backend's error table). Pure.
 */
import type { ErrorCode } from '../../../src/core/errors.ts';

/** By SQLSTATE, or by its class (the first two characters) where all of it means the same. */
export const PG_SQLSTATES = {
  /** A server that only reads (a standby, or one demoted a moment ago); a transaction that waited for its client. */
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
  /** Tables or their schema are not there. */
  '3F000': 'schema-too-old',
  '42P01': 'schema-too-old',
  '42703': 'schema-too-old',
  /** Out of memory (53200), of connections (53300), of space (53100), of a configured limit (53400). */
  '53': 'store-unavailable',
  '53100': 'disk-full',
  '55P03': 'store-unavailable',
  /** Cancelled or timed out (57014), the server is shutting down (57P01), crashed (57P02) or starting (57P03). */
  '57': 'store-unavailable',
  '58': 'store-unavailable',
  XX001: 'corrupt-store',
  XX002: 'corrupt-store',
  /** Every insert looks first or says what to do: a key that is taken all the same means damaged rows. */
  '23505': 'corrupt-store',
} as const satisfies Record<string, ErrorCode>;

/** At the first connection these say that the URL is wrong; later that somebody is changing the server. */
export const PG_WRONG_SETTING = /^(28...|3D000|42501)$/;
