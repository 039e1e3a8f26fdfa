/**
 * How every operating error looks at the HTTP door: one total table, so that a new code without a mapping
 * does not compile. Owns: statuses, error codes, Retry-After. `errorCode`s below xxx90 are Kafka REST
 * Proxy's; those from xxx90 on are our own. Main thread.
 */
import { type ErrorCode, kindOf, type PlainError } from '../../core/errors.ts';

export interface HttpError {
  status: number;
  errorCode: number;
  /** Seconds for Retry-After; only where surely nothing happened. */
  retryAfterS?: number;
}

const INTERNAL: HttpError = { status: 500, errorCode: 50002 };
const CORRUPT: HttpError = { status: 500, errorCode: 50090 };
/** REST Proxy's "bad request" of the administration. */
const BAD_REQUEST: HttpError = { status: 400, errorCode: 40002 };
/** REST Proxy's "retriable Kafka error". */
const RETRIABLE: HttpError = { status: 503, errorCode: 50003, retryAfterS: 1 };

export const HTTP_ERRORS: Readonly<Record<ErrorCode, HttpError>> = {
  'topic-not-found': { status: 404, errorCode: 40401 },
  'partition-not-found': { status: 404, errorCode: 40402 },
  'route-not-found': { status: 404, errorCode: 404 },
  'shard-not-found': INTERNAL,
  'agent-not-found': INTERNAL,
  'object-not-found': INTERNAL,
  'page-not-found': INTERNAL,
  'checkpoint-not-found': INTERNAL,
  'entry-not-found': INTERNAL,
  'topic-exists': BAD_REQUEST,
  'object-exists': INTERNAL,
  'invalid-topic-name': BAD_REQUEST,
  'invalid-partition-count': BAD_REQUEST,
  'invalid-config': BAD_REQUEST,
  'invalid-request': { status: 422, errorCode: 422 },
  'malformed-request': { status: 400, errorCode: 400 },
  'invalid-record': { status: 422, errorCode: 42206 },
  'invalid-setting': INTERNAL,
  'unsupported-media-type': { status: 415, errorCode: 415 },
  'not-acceptable': { status: 406, errorCode: 40601 },
  'method-not-allowed': { status: 405, errorCode: 405 },
  'offset-out-of-range': { status: 416, errorCode: 41690 },
  'out-of-order-sequence': { status: 409, errorCode: 40990 },
  'producer-fenced': { status: 409, errorCode: 40991 },
  conflict: { status: 409, errorCode: 40992 },
  'record-too-large': { status: 413, errorCode: 41390 },
  'batch-too-large': { status: 413, errorCode: 41391 },
  'body-too-large': { status: 413, errorCode: 413 },
  'item-too-large': { status: 413, errorCode: 41392 },
  fenced: { status: 503, errorCode: 50390, retryAfterS: 1 },
  'cluster-mismatch': { status: 409, errorCode: 40993 },
  'schema-too-new': INTERNAL,
  'schema-too-old': INTERNAL,
  'corrupt-object': CORRUPT,
  'corrupt-entry': CORRUPT,
  'corrupt-page': CORRUPT,
  'corrupt-checkpoint': CORRUPT,
  'corrupt-batch': CORRUPT,
  'corrupt-store': CORRUPT,
  'store-went-back': CORRUPT,
  overloaded: { status: 429, errorCode: 42990, retryAfterS: 1 },
  'shutting-down': { status: 503, errorCode: 50391, retryAfterS: 1 },
  'not-leader': { status: 503, errorCode: 50392, retryAfterS: 1 },
  'store-unavailable': RETRIABLE,
  'object-store-unavailable': RETRIABLE,
  'append-abandoned': RETRIABLE,
  'disk-full': { status: 503, errorCode: 50393, retryAfterS: 5 },
  'store-unknown': { status: 504, errorCode: 50490 },
  'object-store-unknown': { status: 504, errorCode: 50490 },
  'deadline-exceeded': { status: 504, errorCode: 50490 },
  'thread-lost': { status: 504, errorCode: 50490 },
  'peer-lost': { status: 504, errorCode: 50490 },
};

/** What the body says of an error; members as in ErrorBody of the schemas. */
export function errorBody(error: PlainError): string {
  const { errorCode, retryAfterS } = HTTP_ERRORS[error.code];
  const unknown = kindOf(error.code) === 'unknown';
  const body: Record<string, unknown> = {
    error_code: errorCode,
    message: error.message,
    code: error.code,
    outcome: unknown ? 'unknown' : 'none',
    retriable: unknown || retryAfterS !== undefined,
  };
  if (error.code === 'offset-out-of-range') {
    body.beginning_offset = error.detail?.logStart;
    body.end_offset = error.detail?.nextOffset;
  }
  return JSON.stringify(body);
}
