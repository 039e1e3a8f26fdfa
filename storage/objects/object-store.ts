/**
 * The object store: what StreamHouse asks of S3 or a directory. Owns: the interface, the rules that every key
 * and range keeps, and what each error means. Does not own any backend (memory, filesystem, s3 beside this
 * file), retries or counting (decorators beside this file), or what the objects hold (batch-object.ts).
 * An object is written once and never changed: that is what makes a put idempotent, and a lost reply
 * provable. Each thread opens its own instance; an instance is used by the thread that opened it.
 */
import { StreamHouseError } from '../../src/core/errors.ts';

export interface ObjectListing {
  readonly key: string;
  readonly bytes: number;
  /** When the object was written, by the store's clock. Never proof of anything: a writer may sleep. */
  readonly modifiedMs: number;
}

/** Bytes [position, position + length) of an object. */
export interface ByteRange {
  readonly position: number;
  readonly length: number;
  /**
   * Of a get: should the object end inside the range, its bytes up to the end are the answer, at least one. For
   * those who read in units of their own without knowing the object's size. A range that begins at or beyond
   * the end is refused all the same, and one that lies within the object is answered as ever. Default false.
   */
  readonly mayEndEarly?: boolean;
}

export interface CallOptions {
  /**
   * Gives the call up. What was given up is `object-store-unknown` when it may have happened (a put or delete
   * that was on its way), else `object-store-unavailable`.
   */
  readonly signal?: AbortSignal;
}

/**
 * Every method may give `object-store-unavailable` (nothing happened; try again) and `invalid-request` (a key
 * that breaks the rules of {@link checkObjectKey}). An error whose detail has `permanent: true` will not go
 * away by trying again soon: a missing bucket, refused keys.
 */
export interface ObjectStore {
  /** What it is, for logs and errors; no secrets. */
  readonly description: string;
  /**
   * Put if absent, idempotent: resolves when the object `key` holds exactly `bytes` durably, whoever wrote
   * them. `bytes` may lie in shared memory; they must not change until the call ends.
   * Errors: `object-exists` when it holds others (nothing was changed), `object-store-unknown` when the outcome
   * is not known (put the same again to learn it), `disk-full`, `item-too-large`.
   */
  put(key: string, bytes: Uint8Array, options?: CallOptions): Promise<void>;
  /**
   * The whole object or a range of it, in memory of its own that can be moved to another thread.
   * Errors: `object-not-found`; `corrupt-object` for a range beyond the end (an index that points past the
   * object), unless it {@link ByteRange.mayEndEarly | may end early}; `item-too-large` for an answer above
   * {@link OBJECT_BYTES_MAX}.
   */
  get(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer>;
  /**
   * Keys that begin with `prefix`, in the order of their UTF-8 bytes, those after `after`, at most `limit`.
   * Names that no put could have made (temporary files, folder markers) are left out.
   */
  list(prefix: string, options: ListOptions): Promise<ObjectListing[]>;
  /** Idempotent: an object that is not there is deleted. `object-store-unknown` as in put. */
  delete(key: string, options?: CallOptions): Promise<void>;
  /** Gives sockets and files back. Calls in flight may fail; later calls fail. */
  close(): Promise<void>;
}

export interface ListOptions extends CallOptions {
  readonly after?: string;
  readonly limit: number;
}

/** The largest object, in bytes: S3 takes 5 GiB in one PUT, a Buffer less; a batch object is 8 MiB or so. */
export const OBJECT_BYTES_MAX = 512 * 1024 * 1024;

/** The longest key in UTF-8 bytes: S3 allows 1024, the rest is left to a store's own prefix. */
export const OBJECT_KEY_BYTES_MAX = 768;

/** The longest part between slashes in UTF-8 bytes: file systems allow 255. */
export const OBJECT_KEY_PART_BYTES_MAX = 200;

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it refuses
const FORBIDDEN = /[\u0000-\u001f\u007f\\]/;

/**
 * Why a key cannot be used, or null. The same for every backend, so that what works on one works on all: parts
 * are separated by single slashes, not empty, and do not begin with a dot (`..`, hidden and temporary files);
 * no control characters, backslashes or broken UTF-16. One key must not be the folder of another (`a` and
 * `a/b`): a directory cannot hold both.
 */
export function objectKeyFault(key: string): string | null {
  if (key.length === 0) return 'it is empty';
  if (Buffer.byteLength(key) > OBJECT_KEY_BYTES_MAX) return `it is longer than ${OBJECT_KEY_BYTES_MAX} bytes`;
  if (FORBIDDEN.test(key)) return 'it has a control character or a backslash';
  if (!key.isWellFormed()) return 'it is not well-formed Unicode';
  for (const part of key.split('/')) {
    if (part.length === 0) return 'it has an empty part';
    if (part.startsWith('.')) return 'a part begins with a dot';
    if (Buffer.byteLength(part) > OBJECT_KEY_PART_BYTES_MAX) {
      return `a part is longer than ${OBJECT_KEY_PART_BYTES_MAX} bytes`;
    }
  }
  return null;
}

/** Throws `invalid-request` for a key that {@link objectKeyFault} finds wrong. */
export function checkObjectKey(key: string): void {
  const fault = objectKeyFault(key);
  if (fault !== null) {
    throw new StreamHouseError(
      'invalid-request',
      `object key ${JSON.stringify(key.slice(0, 100))}: ${fault}`,
    );
  }
}

/** Throws `item-too-large` for bytes that no store takes. */
export function checkObjectBytes(key: string, bytes: number): void {
  if (bytes > OBJECT_BYTES_MAX) {
    throw new StreamHouseError(
      'item-too-large',
      `object ${key}: ${bytes} bytes, at most ${OBJECT_BYTES_MAX}`,
    );
  }
}

/** A range comes from our own index, whose decoders check it: a nonsensical one is our bug. */
export function assertByteRange(range: ByteRange): void {
  const { position, length } = range;
  if (!Number.isSafeInteger(position) || position < 0 || !Number.isSafeInteger(length) || length < 0) {
    throw new RangeError(`byte range position ${position}, length ${length}`);
  }
}

/** The part of an object of `objectBytes` that a get is to give; throws the contract's errors of ranges. */
export function rangeWithin(key: string, objectBytes: number, range: ByteRange | undefined): ByteRange {
  const { position, length } = range ?? { position: 0, length: objectBytes };
  const isBeyond = position + length > objectBytes;
  if (range !== undefined && isBeyond && !(range.mayEndEarly && position < objectBytes)) {
    throw rangeBeyondEnd(key, range, objectBytes);
  }
  const given = { position, length: isBeyond ? objectBytes - position : length };
  checkObjectBytes(key, given.length);
  return given;
}

export function rangeBeyondEnd(key: string, range: ByteRange, objectBytes?: number): StreamHouseError {
  const end = range.position + range.length;
  const size = objectBytes === undefined ? '' : ` of ${objectBytes} bytes`;
  return new StreamHouseError(
    'corrupt-object',
    `object ${key}: bytes ${range.position} to ${end} were asked, beyond its end${size}`,
  );
}

export function objectNotFound(key: string): StreamHouseError {
  return new StreamHouseError('object-not-found', `object ${key} is not there`);
}

export function objectExists(key: string): StreamHouseError {
  return new StreamHouseError('object-exists', `object ${key} is there already with other bytes`);
}

export function storeClosed(description: string): StreamHouseError {
  return new StreamHouseError('object-store-unavailable', `${description} is closed`);
}

/** The error of a call that its signal gave up; `happened` says whether it may have taken effect. */
export function givenUp(doing: string, happened: 'maybe' | 'no'): StreamHouseError {
  const code = happened === 'maybe' ? 'object-store-unknown' : 'object-store-unavailable';
  return new StreamHouseError(code, `${doing}: given up by its caller`);
}

/** The order of keys in a listing: by their UTF-8 bytes, found without making those bytes. */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const unitA = a.charCodeAt(i);
    const unitB = b.charCodeAt(i);
    if (unitA !== unitB) return utf8Rank(unitA) - utf8Rank(unitB);
  }
  return a.length - b.length;
}

/** UTF-16 puts surrogates (U+10000 and up) before U+E000 to U+FFFF, UTF-8 after them. */
function utf8Rank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit >= 0xe000 ? unit - 0x800 : unit + 0x2000;
}
