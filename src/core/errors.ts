/**
 * The closed table of operating errors: every error that a user, an operator or another part can meet has a
 * code here, and every code has one kind. Owns: codes, kinds, and the plain form in which an error crosses a
 * thread. Does not own: how a kind looks on the wire (server/ has one total table per door).
 * Our own bugs are not here: they are assertions and stop the thread.
 */

/** What a caller may conclude from an error, and so what it may do next. */
export type ErrorKind =
  | 'not-found'
  | 'already-exists'
  /** A condition did not hold: somebody else was first. Nothing of the call happened. */
  | 'conflict'
  /** The caller is no longer the holder: a higher epoch exists. */
  | 'fenced'
  /** The request is wrong and will stay wrong. */
  | 'invalid'
  | 'too-large'
  /** Bytes that were stored do not read back as what was written. */
  | 'corrupt'
  /** A bound is reached; nothing happened; try later. */
  | 'overloaded'
  /** Nothing happened; try again. */
  | 'unavailable'
  /** It may have happened or not. Never guess. */
  | 'unknown';

const KIND_OF = {
  'topic-not-found': 'not-found',
  'partition-not-found': 'not-found',
  'shard-not-found': 'not-found',
  'agent-not-found': 'not-found',
  'object-not-found': 'not-found',
  'page-not-found': 'not-found',
  'checkpoint-not-found': 'not-found',
  'entry-not-found': 'not-found',
  'route-not-found': 'not-found',
  'topic-exists': 'already-exists',
  'object-exists': 'already-exists',
  'invalid-topic-name': 'invalid',
  'invalid-partition-count': 'invalid',
  'invalid-config': 'invalid',
  'invalid-request': 'invalid',
  /** The bytes of a request are not of the form they claim: not JSON, not UTF-8, an unknown query parameter. */
  'malformed-request': 'invalid',
  'invalid-record': 'invalid',
  'invalid-setting': 'invalid',
  'unsupported-media-type': 'invalid',
  'not-acceptable': 'invalid',
  'method-not-allowed': 'invalid',
  'offset-out-of-range': 'invalid',
  /** An idempotent producer's sequence does not follow its last one. */
  'out-of-order-sequence': 'invalid',
  /** A producer id is used under an older epoch than the newest one seen. */
  'producer-fenced': 'fenced',
  'record-too-large': 'too-large',
  'batch-too-large': 'too-large',
  'body-too-large': 'too-large',
  'item-too-large': 'too-large',
  conflict: 'conflict',
  fenced: 'fenced',
  'cluster-mismatch': 'conflict',
  'schema-too-new': 'conflict',
  'schema-too-old': 'conflict',
  'corrupt-object': 'corrupt',
  'corrupt-entry': 'corrupt',
  'corrupt-page': 'corrupt',
  'corrupt-checkpoint': 'corrupt',
  'corrupt-batch': 'corrupt',
  'corrupt-store': 'corrupt',
  /** A shard's head or log is below what this broker knows to be committed. */
  'store-went-back': 'corrupt',
  overloaded: 'overloaded',
  'shutting-down': 'unavailable',
  'not-leader': 'unavailable',
  'store-unavailable': 'unavailable',
  'object-store-unavailable': 'unavailable',
  /** An append was given up before it was committed; it will not be committed. */
  'append-abandoned': 'unavailable',
  'disk-full': 'unavailable',
  'store-unknown': 'unknown',
  'object-store-unknown': 'unknown',
  'deadline-exceeded': 'unknown',
  /** The thread that carried the request ended before it answered. */
  'thread-lost': 'unknown',
  /** The broker to which the request was forwarded, or the way to it, was lost before it answered. */
  'peer-lost': 'unknown',
} as const satisfies Record<string, ErrorKind>;

export type ErrorCode = keyof typeof KIND_OF;

export const ERROR_CODES = Object.keys(KIND_OF) as ErrorCode[];

export function kindOf(code: ErrorCode): ErrorKind {
  return KIND_OF[code];
}

/** An error's plain form: it survives structuredClone, which own fields of Error subclasses do not. */
export interface PlainError {
  code: ErrorCode;
  message: string;
  detail?: Record<string, unknown>;
}

/** An operating error of the closed table. `detail` holds plain data only (numbers, strings). */
export class StreamHouseError extends Error {
  override readonly name = 'StreamHouseError';
  readonly code: ErrorCode;
  readonly detail: Record<string, unknown> | undefined;

  constructor(code: ErrorCode, message: string, detail?: Record<string, unknown>, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.detail = detail;
  }

  get kind(): ErrorKind {
    return KIND_OF[this.code];
  }

  toPlain(): PlainError {
    return this.detail
      ? { code: this.code, message: this.message, detail: this.detail }
      : { code: this.code, message: this.message };
  }

  static fromPlain(plain: PlainError): StreamHouseError {
    return new StreamHouseError(plain.code, plain.message, plain.detail);
  }
}

/** Whether a retry of the same request, unchanged, may succeed. */
export function isRetriable(error: unknown): boolean {
  if (!(error instanceof StreamHouseError)) return false;
  const kind = error.kind;
  return kind === 'overloaded' || kind === 'unavailable' || kind === 'unknown';
}

/** An operating error as it is; anything else is a bug of ours and is thrown on, to stop the thread loudly. */
export function operatingError(error: unknown): StreamHouseError {
  if (error instanceof StreamHouseError) return error;
  throw error;
}

/**
 * Any thrown value as an operating error: ours pass through, everything else becomes `fallback` with the
 * original as its cause. For edges that call foreign code (drivers, the SDK, the file system).
 */
export function asOperatingError(error: unknown, fallback: ErrorCode, doing: string): StreamHouseError {
  if (error instanceof StreamHouseError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new StreamHouseError(fallback, `${doing}: ${message}`, undefined, error);
}
