/**
 * Objects in an S3 bucket, any endpoint. Owns: the SDK's client and its sockets, put-if-absent by
 * `If-None-Match: *` with a read-back when the key is taken, ranged gets into one buffer. Does not own:
 * retries (the SDK makes one attempt; retrying-object-store.ts), the meaning of errors (s3-error.ts). The SDK
 * is loaded at the first open, so that a broker on files does not pay for it (114 ms). Any thread, one
 * instance each. Needs a store that lists in key order: not S3 Express directory buckets.
 */
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import type { Readable } from 'node:stream';
import type { _Object, GetObjectCommandOutput, S3Client } from '@aws-sdk/client-s3';
import { StreamHouseError } from '../../src/core/errors.ts';
import {
  assertByteRange,
  type ByteRange,
  type CallOptions,
  checkObjectBytes,
  checkObjectKey,
  givenUp,
  type ListOptions,
  type ObjectListing,
  type ObjectStore,
  objectExists,
  objectKeyFault,
  objectNotFound,
  rangeBeyondEnd,
  storeClosed,
} from './object-store.ts';
import { readS3Failure, s3Error } from './s3-error.ts';

type Sdk = typeof import('@aws-sdk/client-s3');

export interface S3ObjectStoreOptions {
  readonly bucket: string;
  /** Keys lie under `prefix/`; empty for the bucket itself. */
  readonly prefix: string;
  /** A store other than AWS; buckets are then named in the path. */
  readonly endpoint?: string;
  /** Default: us-east-1 with an endpoint, else the SDK's usual places. */
  readonly region?: string;
  /** Connections kept open at most; further calls wait for one. */
  readonly socketsMax?: number;
  readonly connectMsMax?: number;
  /** From asking for a connection to the head of the answer, and between two pieces of a body. */
  readonly requestMsMax?: number;
}

const SOCKETS_MAX = 64;
const CONNECT_MS_MAX = 3_000;
const REQUEST_MS_MAX = 30_000;

/** The most keys that S3 gives in one answer. */
const LIST_KEYS_MAX = 1000;

const CONTENT_RANGE = /^bytes (\d+)-(\d+)\/(\d+|\*)$/;

export class S3ObjectStore implements ObjectStore {
  readonly description: string;
  readonly #sdk: Sdk;
  readonly #client: S3Client;
  readonly #bucket: string;
  /** Empty or ending in a slash. */
  readonly #prefix: string;
  #closed = false;

  private constructor(sdk: Sdk, client: S3Client, options: S3ObjectStoreOptions) {
    this.#sdk = sdk;
    this.#client = client;
    this.#bucket = options.bucket;
    this.#prefix = options.prefix === '' ? '' : `${options.prefix}/`;
    const at = options.endpoint === undefined ? '' : ` at ${options.endpoint}`;
    this.description = `s3://${options.bucket}/${options.prefix}${at}`;
  }

  /** Makes the client; nothing goes over the network yet. `invalid-setting` when no region can be found. */
  static async open(options: S3ObjectStoreOptions): Promise<S3ObjectStore> {
    const sdk = await import('@aws-sdk/client-s3');
    const agent = { keepAlive: true, maxSockets: options.socketsMax ?? SOCKETS_MAX };
    const requestMsMax = options.requestMsMax ?? REQUEST_MS_MAX;
    const client = new sdk.S3Client({
      region: options.region ?? (options.endpoint === undefined ? undefined : 'us-east-1'),
      endpoint: options.endpoint,
      forcePathStyle: options.endpoint !== undefined,
      maxAttempts: 1,
      // Other stores refuse or ignore the checksums that are the SDK's default; our formats have their own.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      // With it the SDK opens a connection of its own for each PUT above 2 MiB.
      expectContinueHeader: false,
      requestHandler: {
        connectionTimeout: options.connectMsMax ?? CONNECT_MS_MAX,
        requestTimeout: requestMsMax,
        throwOnRequestTimeout: true,
        socketTimeout: requestMsMax,
        httpAgent: new HttpAgent(agent),
        httpsAgent: new HttpsAgent(agent),
      },
    });
    try {
      await client.config.region();
    } catch (error) {
      client.destroy();
      const what = `s3://${options.bucket}: no region; add ?region=... to the object URL or set AWS_REGION`;
      throw new StreamHouseError('invalid-setting', what, undefined, error);
    }
    return new S3ObjectStore(sdk, client, options);
  }

  async put(key: string, bytes: Uint8Array, options?: CallOptions): Promise<void> {
    const doing = this.#begin('put', key, options);
    checkObjectBytes(key, bytes.length);
    const command = new this.#sdk.PutObjectCommand({
      Bucket: this.#bucket,
      Key: this.#prefix + key,
      // A view, not a copy: the SDK hashes it and the socket sends it from shared memory as well.
      Body: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
      ContentLength: bytes.length,
      ContentType: 'application/octet-stream',
      IfNoneMatch: '*',
    });
    try {
      await this.#client.send(command, { abortSignal: options?.signal });
    } catch (error) {
      const { status } = readS3Failure(error);
      // 412: the key is taken. 409: another write of the key is going on, or has just won.
      if (status !== 412 && status !== 409) throw this.#error(error, doing, true, options);
      await this.#proveSame(key, bytes, doing, options);
    }
  }

  async get(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    const doing = this.#begin('get', key, options);
    if (range !== undefined) assertByteRange(range);
    try {
      if (range?.length === 0) return await this.#getNothing(key, range, options);
      const answer = await this.#request(key, range, options);
      const length = checkAnswer(key, range, answer);
      return await readBody(answer.Body as Readable, length);
    } catch (error) {
      throw this.#readError(error, key, range, doing, options);
    }
  }

  async list(prefix: string, options: ListOptions): Promise<ObjectListing[]> {
    const doing = `list ${prefix} in ${this.description}`;
    if (this.#closed) throw storeClosed(this.description);
    if (options.signal?.aborted) throw givenUp(doing, 'no');
    const found: ObjectListing[] = [];
    // Asked by key, not by the store's token: the two name the same place, and a key outlives the answer.
    let after = options.after === undefined ? undefined : this.#prefix + options.after;
    while (found.length < options.limit) {
      const command = new this.#sdk.ListObjectsV2Command({
        Bucket: this.#bucket,
        Prefix: this.#prefix + prefix,
        StartAfter: after,
        MaxKeys: Math.min(options.limit - found.length, LIST_KEYS_MAX),
        EncodingType: 'url',
      });
      const answer = await this.#client
        .send(command, { abortSignal: options.signal })
        .catch((error: unknown) => {
          throw this.#error(error, doing, false, options);
        });
      const encoded = answer.EncodingType === 'url';
      const before = after;
      for (const object of answer.Contents ?? []) {
        after = plainKey(object, encoded);
        const key = after.slice(this.#prefix.length);
        if (objectKeyFault(key) !== null) continue;
        found.push({ key, bytes: object.Size ?? 0, modifiedMs: object.LastModified?.getTime() ?? 0 });
      }
      if (answer.IsTruncated !== true) break;
      if (after === before) {
        throw new StreamHouseError('object-store-unavailable', `${doing}: a truncated answer without keys`);
      }
    }
    return found;
  }

  async delete(key: string, options?: CallOptions): Promise<void> {
    const doing = this.#begin('delete', key, options);
    const command = new this.#sdk.DeleteObjectCommand({ Bucket: this.#bucket, Key: this.#prefix + key });
    try {
      await this.#client.send(command, { abortSignal: options?.signal });
    } catch (error) {
      const failure = readS3Failure(error);
      if (failure.status === 404 && failure.name !== 'NoSuchBucket') return;
      throw this.#error(error, doing, true, options);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#client.destroy();
  }

  #begin(call: string, key: string, options: CallOptions | undefined): string {
    if (this.#closed) throw storeClosed(this.description);
    checkObjectKey(key);
    const doing = `${call} ${key} in ${this.description}`;
    if (options?.signal?.aborted) throw givenUp(doing, 'no');
    return doing;
  }

  #error(
    error: unknown,
    doing: string,
    changes: boolean,
    options: CallOptions | undefined,
  ): StreamHouseError {
    if (options?.signal?.aborted && !(error instanceof StreamHouseError)) {
      return givenUp(doing, changes ? 'maybe' : 'no');
    }
    return s3Error(error, doing, changes);
  }

  #readError(
    error: unknown,
    key: string,
    range: ByteRange | undefined,
    doing: string,
    options: CallOptions | undefined,
  ): StreamHouseError {
    const failure = readS3Failure(error);
    if (failure.status === 416 && range !== undefined) return rangeBeyondEnd(key, range);
    if (failure.status === 404 && failure.name !== 'NoSuchBucket') return objectNotFound(key);
    return this.#error(error, doing, false, options);
  }

  #request(
    key: string,
    range: ByteRange | undefined,
    options: CallOptions | undefined,
  ): Promise<GetObjectCommandOutput> {
    const command = new this.#sdk.GetObjectCommand({
      Bucket: this.#bucket,
      Key: this.#prefix + key,
      Range: range && `bytes=${range.position}-${range.position + range.length - 1}`,
    });
    return this.#client.send(command, { abortSignal: options?.signal });
  }

  /** A range of no bytes cannot be asked of HTTP: only whether the object reaches that far. */
  async #getNothing(key: string, range: ByteRange, options: CallOptions | undefined): Promise<Buffer> {
    const command = new this.#sdk.HeadObjectCommand({ Bucket: this.#bucket, Key: this.#prefix + key });
    const answer = await this.#client.send(command, { abortSignal: options?.signal });
    const objectBytes = answer.ContentLength ?? 0;
    if (range.position > objectBytes) throw rangeBeyondEnd(key, range, objectBytes);
    return Buffer.allocUnsafeSlow(0);
  }

  /** The key is taken: by these bytes (then the put has happened), or by others. */
  async #proveSame(key: string, bytes: Uint8Array, doing: string, options?: CallOptions): Promise<void> {
    let there: Buffer;
    try {
      const answer = await this.#request(key, undefined, options);
      if (answer.ContentLength !== bytes.length) {
        (answer.Body as Readable).destroy();
        throw objectExists(key);
      }
      there = await readBody(answer.Body as Readable, bytes.length);
    } catch (error) {
      if (readS3Failure(error).status === 404) {
        throw new StreamHouseError(
          'object-store-unavailable',
          `${doing}: the key was taken and is free again`,
        );
      }
      // Our own PUT was refused, so this call changed nothing; an earlier one may have.
      throw this.#error(error, doing, false, options);
    }
    if (!there.equals(bytes)) throw objectExists(key);
  }
}

function plainKey(object: _Object, encoded: boolean): string {
  const key = object.Key ?? '';
  return encoded ? decodeURIComponent(key.replaceAll('+', ' ')) : key;
}

/** The bytes that the answer's body will have; throws when they are not the bytes that were asked. */
function checkAnswer(key: string, range: ByteRange | undefined, answer: GetObjectCommandOutput): number {
  try {
    const { ContentLength: length } = answer;
    if (length === undefined) throw badAnswer(key, 'an answer without a length');
    if (range !== undefined) checkPart(key, range, length, answer);
    checkObjectBytes(key, length);
    return length;
  } catch (error) {
    (answer.Body as Readable).destroy();
    throw error;
  }
}

/** A store may ignore a range and answer with the whole object, which has no content range. */
function checkPart(key: string, range: ByteRange, length: number, answer: GetObjectCommandOutput): void {
  const { ContentRange: contentRange, $metadata: metadata } = answer;
  const part = CONTENT_RANGE.exec(contentRange ?? '');
  const isWhole = contentRange === undefined && metadata.httpStatusCode === 200;
  const from = part === null ? 0 : Number(part[1]);
  if ((part === null && !isWhole) || from !== range.position || length > range.length) {
    throw badAnswer(key, 'the store ignored the range');
  }
  if (length === range.length) return;
  // A short answer that does not reach the object's end (a proxy's bound) would be taken for that end.
  if (!isWhole && Number(part?.[3]) !== from + length)
    throw badAnswer(key, 'less than was asked and is there');
  if (!range.mayEndEarly || length === 0) throw rangeBeyondEnd(key, range, from + length);
}

function badAnswer(key: string, what: string): StreamHouseError {
  return new StreamHouseError('object-store-unavailable', `get ${key}: ${what}`);
}

/** Reads a body of known length into one buffer of its own. */
async function readBody(body: Readable, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(length);
  let at = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    if (at + chunk.length > length) break;
    bytes.set(chunk, at);
    at += chunk.length;
  }
  if (at !== length) {
    throw new StreamHouseError('object-store-unavailable', `a body ended after ${at} of ${length} bytes`);
  }
  return bytes;
}
