/**
 * The numbers under which errors cross between brokers. Owns: the table, which only ever grows: a number is never used
 * again for another code, for brokers of different versions talk to each other. Pure; any thread.
 */
import type { ErrorCode } from '../../core/errors.ts';

/** Total, so that a new code without a number does not compile. 0 is no error. */
const NUMBER_OF: Readonly<Record<ErrorCode, number>> = {
  'topic-not-found': 1,
  'partition-not-found': 2,
  'shard-not-found': 3,
  'agent-not-found': 4,
  'object-not-found': 5,
  'page-not-found': 6,
  'checkpoint-not-found': 7,
  'entry-not-found': 8,
  'route-not-found': 9,
  'topic-exists': 10,
  'object-exists': 11,
  'invalid-topic-name': 12,
  'invalid-partition-count': 13,
  'invalid-config': 14,
  'invalid-request': 15,
  'malformed-request': 16,
  'invalid-record': 17,
  'invalid-setting': 18,
  'unsupported-media-type': 19,
  'not-acceptable': 20,
  'method-not-allowed': 21,
  'offset-out-of-range': 22,
  'out-of-order-sequence': 23,
  'producer-fenced': 24,
  'record-too-large': 25,
  'batch-too-large': 26,
  'body-too-large': 27,
  'item-too-large': 28,
  conflict: 29,
  fenced: 30,
  'cluster-mismatch': 31,
  'schema-too-new': 32,
  'schema-too-old': 33,
  'corrupt-object': 34,
  'corrupt-entry': 35,
  'corrupt-page': 36,
  'corrupt-checkpoint': 37,
  'corrupt-batch': 38,
  'corrupt-store': 39,
  'store-went-back': 40,
  overloaded: 41,
  'shutting-down': 42,
  'not-leader': 43,
  'store-unavailable': 44,
  'object-store-unavailable': 45,
  'append-abandoned': 46,
  'disk-full': 47,
  'store-unknown': 48,
  'object-store-unknown': 49,
  'deadline-exceeded': 50,
  'thread-lost': 51,
  'peer-lost': 52,
};

const CODE_OF = new Map(Object.entries(NUMBER_OF).map(([code, number]) => [number, code as ErrorCode]));

export function wireNumberOf(code: ErrorCode): number {
  return NUMBER_OF[code];
}

/** A number of a newer version says that it failed, and not whether it happened: 'peer-lost'. */
export function codeOfWireNumber(number: number): ErrorCode {
  return CODE_OF.get(number) ?? 'peer-lost';
}
