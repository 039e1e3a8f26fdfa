/**
 * What a failed S3 call means. Owns the mapping from what the SDK throws (service errors, transport errors,
 * missing credentials) to operating errors, in particular whether the call may have taken effect. Does not own
 * retries: the SDK makes one attempt, retrying-object-store.ts does the rest. Pure; any thread.
 */
import { StreamHouseError } from '../../src/core/errors.ts';

/** Transport errors before any byte of the request was sent: nothing happened. */
const NOT_CONNECTED = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH']);

/** S3's own words for "I did nothing; slow down". A 503 in other words may come from a proxy after the fact. */
const THROTTLED = new Set([
  'SlowDown',
  'ServiceUnavailable',
  'TooManyRequests',
  'Throttling',
  'RequestLimitExceeded',
]);

/** What an operator has to mend; trying again soon does not help. */
const HINTS: Record<string, string> = {
  NoSuchBucket: 'the bucket is not there; create it or correct the object URL',
  InvalidBucketName: 'the bucket name is not valid',
  AccessDenied: "the store refuses these keys; check them and the bucket's policy",
  AllAccessDisabled: 'the store refuses all access to this bucket',
  InvalidAccessKeyId: 'the store does not know this access key',
  SignatureDoesNotMatch: 'the secret key is wrong',
  AuthorizationHeaderMalformed: 'the region or the keys are wrong',
  PermanentRedirect: 'the bucket is in another region; correct the region in the object URL',
  NotImplemented: 'the store lacks what is needed (conditional PUT: If-None-Match)',
  CredentialsProviderError: 'no keys were found (AWS_ACCESS_KEY_ID, ~/.aws, an instance role)',
};

interface S3Failure {
  readonly name: string;
  readonly message: string;
  /** HTTP status, 0 when no answer came. */
  readonly status: number;
  /** Of a transport error: the system's code. */
  readonly systemCode: string;
  readonly systemCall: string;
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** Picks the known fields out of whatever was thrown. */
export function readS3Failure(error: unknown): S3Failure {
  if (typeof error !== 'object' || error === null) {
    return { name: '', message: String(error), status: 0, systemCode: '', systemCall: '' };
  }
  const fields = error as Record<string, unknown>;
  const metadata = fields.$metadata as { httpStatusCode?: unknown } | undefined;
  const status = typeof metadata?.httpStatusCode === 'number' ? metadata.httpStatusCode : 0;
  return {
    name: textOf(fields.name),
    message: textOf(fields.message),
    status,
    systemCode: textOf(fields.code),
    systemCall: textOf(fields.syscall),
  };
}

/** Whether a failed call certainly had no effect. */
function hadNoEffect(failure: S3Failure): boolean {
  const { status, name, systemCode, systemCall } = failure;
  if (status === 0) {
    return NOT_CONNECTED.has(systemCode) || systemCall === 'connect' || name === 'CredentialsProviderError';
  }
  if (status === 429 || (status === 503 && THROTTLED.has(name))) return true;
  // 408: the store gave up waiting for the request; other 4xx are refusals.
  return status >= 300 && status < 500;
}

/**
 * The operating error of a failed call. `changes` says whether the call would have changed something (put,
 * delete): only then can its outcome be unknown.
 */
export function s3Error(error: unknown, doing: string, changes: boolean): StreamHouseError {
  if (error instanceof StreamHouseError) return error;
  const failure = readS3Failure(error);
  const hint = HINTS[failure.name];
  const code = changes && !hadNoEffect(failure) ? 'object-store-unknown' : 'object-store-unavailable';
  const said = [failure.status || '', failure.name, failure.systemCode].filter(Boolean).join(' ');
  const detail: Record<string, unknown> = { status: failure.status, s3: failure.name || failure.systemCode };
  if (hint !== undefined) detail.permanent = true;
  const why = hint ?? failure.message;
  return new StreamHouseError(code, `${doing}: ${said}${why ? `: ${why}` : ''}`, detail, error);
}
