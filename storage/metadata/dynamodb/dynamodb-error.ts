/**
 * What a failed DynamoDB request means. Owns: the table from what the SDK throws (the service's errors by name,
 * transport errors, missing credentials) to what may have happened and what can be done. Does not own: retries
 * (dynamodb-requests). Pure; any thread.
 *
 * What is in no row is a bug of ours (a wrong expression, an item over 400 KB) and is thrown on as it is.
 */
import { type ErrorCode, StreamHouseError } from '../../../src/core/errors.ts';

export type FailureKind =
  /** The condition of a write did not hold; nothing happened. */
  | 'condition'
  /** Nothing happened; the service asks to slow down. */
  | 'throttled'
  /** No connection came about, or the request was not looked at: nothing happened. */
  | 'unreached'
  /** The service or the way to it failed: a write may have happened or may still happen. */
  | 'unclear'
  /** Refused, and it will be until somebody mends something; nothing happened. */
  | 'refused'
  /** The table is not there. */
  | 'no-table'
  | 'bug';

const BY_NAME: Record<string, FailureKind> = {
  ConditionalCheckFailedException: 'condition',
  ProvisionedThroughputExceededException: 'throttled',
  ThrottlingException: 'throttled',
  Throttling: 'throttled',
  RequestLimitExceeded: 'throttled',
  LimitExceededException: 'throttled',
  ResourceNotFoundException: 'no-table',
  TableNotFoundException: 'no-table',
  InternalServerError: 'unclear',
  InternalServerErrorException: 'unclear',
  InternalFailure: 'unclear',
  ServiceUnavailable: 'unclear',
  ServiceUnavailableException: 'unclear',
  TimeoutError: 'unclear',
  AbortError: 'unclear',
};

/** A request that is wrong: no other answer of status 400 is our doing. */
const WRONG_REQUEST = new Set([
  'ValidationException',
  'SerializationException',
  'ItemCollectionSizeLimitExceededException',
]);

/** Refusals, each with what an operator has to mend. */
const HINTS: Record<string, string> = {
  AccessDeniedException:
    'these keys may not do that; docs/dynamodb.md lists the actions that the policy needs',
  UnrecognizedClientException: 'the service does not know this access key',
  InvalidClientTokenId: 'the service does not know this access key',
  InvalidSignatureException: 'the secret key is wrong, or the clock of this machine is',
  IncompleteSignatureException: 'the keys are not of the form of keys',
  MissingAuthenticationTokenException: 'the request bears no keys; the endpoint may not be DynamoDB',
  MissingAuthenticationToken: 'the request bears no keys; the endpoint may not be DynamoDB',
  ExpiredTokenException: 'the session token has expired',
  ExpiredToken: 'the session token has expired',
  OptInRequired: 'the account has not turned this region on',
  CredentialsProviderError: 'no keys were found (AWS_ACCESS_KEY_ID, ~/.aws, an instance role)',
  KMSAccessDeniedException: "these keys may not use the table's encryption key",
  KMSDisabledException: "the table's encryption key is turned off",
  KMSNotFoundException: "the table's encryption key is gone",
  KMSInvalidStateException: "the table's encryption key cannot be used now",
  InaccessibleEncryptionCredentialsException: "the table's encryption key cannot be used",
  UnknownOperationException: 'the endpoint does not know this request; it may not be DynamoDB',
  InvalidEndpointException: 'the endpoint is not the one of this region',
};

/** Transport errors before any byte of the request was sent. */
const NOT_CONNECTED = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EAI_FAIL',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EADDRNOTAVAIL',
]);

/** The SDK's words when its limit for connecting ran out: the name says only that something did. */
const CONNECT_TIMEOUT = /did not establish a connection/;

export interface DynamodbFailure {
  kind: FailureKind;
  /** The service's name for it, or the system's code. */
  name: string;
  message: string;
  /** HTTP status; 0 when no answer came. */
  status: number;
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

export function readDynamodbFailure(error: unknown): DynamodbFailure {
  if (!(error instanceof Error)) return { kind: 'bug', name: '', message: String(error), status: 0 };
  const fields = error as unknown as Record<string, unknown>;
  const metadata = fields.$metadata as { httpStatusCode?: unknown } | undefined;
  const status = typeof metadata?.httpStatusCode === 'number' ? metadata.httpStatusCode : 0;
  const code = textOf(fields.code);
  const { name, message } = error;
  return { kind: kindOf(error, { name, status, code }), name: code || name, message, status };
}

function kindOf(
  error: Error,
  { name, status, code }: { name: string; status: number; code: string },
): FailureKind {
  if (NOT_CONNECTED.has(code) || textOf((error as { syscall?: unknown }).syscall) === 'connect')
    return 'unreached';
  if (name === 'TimeoutError' && CONNECT_TIMEOUT.test(error.message)) return 'unreached';
  // The signature was of another time than the service's; the next request bears the right one.
  if ((error as { $metadata?: { clockSkewCorrected?: unknown } }).$metadata?.clockSkewCorrected === true) {
    return 'unreached';
  }
  // A connection that is refused at every address of a name.
  if (error instanceof AggregateError && error.errors.length > 0) {
    const all = error.errors.map((one) => readDynamodbFailure(one).kind);
    if (all.every((kind) => kind === 'unreached')) return 'unreached';
  }
  if (Object.hasOwn(HINTS, name)) return 'refused';
  if (Object.hasOwn(BY_NAME, name)) return BY_NAME[name];
  // A status without one of the service's names may come from a proxy, after the fact.
  if (status >= 500 || status === 408) return 'unclear';
  if (status === 429) return 'throttled';
  // What the service does not say by one of its names comes from something before it.
  if (status >= 300 && status < 500 && !WRONG_REQUEST.has(name)) return 'refused';
  // No answer of the service's: a reset connection, a broken answer, TLS.
  if (status === 0 && (code !== '' || isBrokenAnswer(error))) return 'unclear';
  // An answer with a good status that cannot be read is no answer.
  if (status >= 200 && status < 300) return 'unclear';
  return 'bug';
}

function isBrokenAnswer(error: Error): boolean {
  return error instanceof SyntaxError || /socket hang up|aborted|Deserialization/i.test(error.message);
}

/** The operating error of a failure that is not retried any more; `code` says whether something may have happened. */
export function dynamodbError(
  failure: DynamodbFailure,
  code: ErrorCode,
  doing: string,
  cause: unknown,
): StreamHouseError {
  const hint = failure.kind === 'no-table' ? 'the table is not there' : HINTS[failure.name];
  const said = [failure.status || '', failure.name].filter(Boolean).join(' ');
  const detail: Record<string, unknown> = { status: failure.status, dynamodb: failure.name };
  if (failure.kind === 'refused' || failure.kind === 'no-table') detail.permanent = true;
  const why = hint ?? failure.message;
  return new StreamHouseError(code, `${doing}: ${said}${why ? `: ${why}` : ''}`, detail, cause);
}
