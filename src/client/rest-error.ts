/**
 * What a request to a broker's HTTP door may fail with, as a client sees it. Owns the one question that decides
 * what a client may do next: did it happen? Does not own the server's table of codes (server/). Any thread.
 */
import { connectionFailure } from '../core/connection-failure.ts';

/**
 * refused   the broker said no and will say no again; nothing happened
 * nothing   nothing happened and the same request may succeed later (busy, starting, no connection)
 * unknown   it may have happened: the reply was lost, or the broker itself does not know
 */
export type RestOutcome = 'refused' | 'nothing' | 'unknown';

export interface RestErrorFields {
  outcome: RestOutcome;
  /** Words for machines: 'topic-not-found', 'overloaded', 'connection-failed', 'http-404' where nothing better is known. */
  code: string;
  /** HTTP status; null when there was no answer. */
  status: number | null;
  /** The answer's `error_code` (40401 and kin); null when there was none. */
  errorCode: number | null;
  /** How long the broker asks to wait; null when it did not. */
  retryAfterMs: number | null;
}

export class RestError extends Error {
  override readonly name = 'RestError';
  readonly outcome: RestOutcome;
  readonly code: string;
  readonly status: number | null;
  readonly errorCode: number | null;
  readonly retryAfterMs: number | null;

  constructor(message: string, fields: RestErrorFields, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.outcome = fields.outcome;
    this.code = fields.code;
    this.status = fields.status;
    this.errorCode = fields.errorCode;
    this.retryAfterMs = fields.retryAfterMs;
  }
}

/** What an HTTP status says about whether it happened. */
export function outcomeOfStatus(status: number): RestOutcome {
  if (status === 429 || status === 503) return 'nothing';
  if (status === 408 || status >= 500) return 'unknown';
  return 'refused';
}

/** REST Proxy's "retriable Kafka error": given only where nothing happened. */
const RETRIABLE_ERROR_CODE = 50003;

/** The same for an `error_code`, the first three digits of which are otherwise an HTTP status. */
export function outcomeOfErrorCode(errorCode: number): RestOutcome {
  if (errorCode === RETRIABLE_ERROR_CODE) return 'nothing';
  const status = errorCode >= 10_000 ? Math.floor(errorCode / 100) : errorCode;
  return status >= 400 && status < 600 ? outcomeOfStatus(status) : 'unknown';
}

/** An error of the HTTP client (undici, or the system's under it) as a RestError. */
export function connectionError(error: unknown, where: string): RestError {
  const { code, text, wasNeverMade } = connectionFailure(error);
  const fields = { status: null, errorCode: null, retryAfterMs: null };
  return wasNeverMade
    ? new RestError(
        `no connection to ${where} (${code})`,
        { ...fields, outcome: 'nothing', code: 'connection-failed' },
        error,
      )
    : new RestError(
        `the answer of ${where} was lost (${text})`,
        { ...fields, outcome: 'unknown', code: 'connection-lost' },
        error,
      );
}

/** What an error's body may hold beside its status. */
interface ErrorBody {
  error_code?: unknown;
  message?: unknown;
  code?: unknown;
  outcome?: unknown;
  retriable?: unknown;
}

/** A file's worth of the answer's text is enough for a message. */
const MESSAGE_CHARACTERS_MAX = 500;

/** An answer of another status than 2xx. `retryAfter`: its header, if any. */
export function answerError(status: number, retryAfter: unknown, text: string): RestError {
  let body: ErrorBody = {};
  try {
    body = (JSON.parse(text) ?? {}) as ErrorBody;
  } catch {
    // Some other server in between answered: its status must do.
  }
  const errorCode = typeof body.error_code === 'number' ? body.error_code : null;
  const message = typeof body.message === 'string' ? body.message.slice(0, MESSAGE_CHARACTERS_MAX) : '';
  const seconds = Number(retryAfter);
  return new RestError(message || `the answer was HTTP ${status}`, {
    outcome: outcomeOf(body, status),
    code: typeof body.code === 'string' ? body.code : codeName(errorCode ?? status),
    status,
    errorCode,
    retryAfterMs: retryAfter !== undefined && seconds >= 0 ? seconds * 1000 : null,
  });
}

function outcomeOf(body: ErrorBody, status: number): RestOutcome {
  if (body.outcome === 'unknown') return 'unknown';
  if (body.outcome === 'none') return body.retriable === true ? 'nothing' : 'refused';
  return outcomeOfStatus(status);
}

/** Words for the codes that single records are answered with; the rest is named by its number. */
const CODE_NAMES: Record<number, string> = {
  40401: 'topic-not-found',
  40402: 'partition-not-found',
  40990: 'out-of-order-sequence',
  40991: 'producer-fenced',
  41390: 'record-too-large',
  41391: 'batch-too-large',
  42206: 'invalid-record',
  42990: 'overloaded',
  50003: 'store-unavailable',
  50391: 'shutting-down',
  50392: 'not-leader',
  50490: 'deadline-exceeded',
};

/** The name of an `error_code`. */
export function codeName(code: number): string {
  return CODE_NAMES[code] ?? `http-${code}`;
}

/** An answer that is none, or a request that cannot be made. */
export function failure(
  message: string,
  code: string,
  outcome: 'refused' | 'unknown' = 'refused',
): RestError {
  return new RestError(message, { outcome, code, status: null, errorCode: null, retryAfterMs: null });
}
