/**
 * Object URL to object store. Owns the table of backends and what their URLs look like:
 *
 *   file:DIR                                  a directory, relative to the working directory or absolute
 *   s3://BUCKET/PREFIX?endpoint=URL&region=R  keys from the SDK's usual places, never from the URL
 *   memory:  memory:NAME                      this thread's memory; for tests
 *   delayed:P50,P99,MAX:URL                   the store of URL, every call delayed by so many ms; for load tests.
 *   delayed:P50,P99,MAX,SEED:URL
 *
 * Does not own the backends, and adds no retries or counting: the caller decorates. Each thread, and each
 * reader that must not slow others (cold reads), opens an instance of its own. Any thread.
 */
import { fileURLToPath } from 'node:url';
import type { Clock } from '../../src/core/clock.ts';
import { StreamHouseError } from '../../src/core/errors.ts';
import type { Random } from '../../src/core/random.ts';
import { DelayedObjectStore } from './delayed-object-store.ts';
import { FilesystemObjectStore } from './filesystem-object-store.ts';
import { MemoryObjectStore } from './memory-object-store.ts';
import { type ObjectStore, objectKeyFault } from './object-store.ts';
import { S3ObjectStore } from './s3-object-store.ts';

export interface OpenObjectStoreOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** S3: connections at most. Default 64. */
  readonly socketsMax?: number;
  /** S3: to connect. Default 3 s. */
  readonly connectMsMax?: number;
  /** S3: from asking for a connection to the head of the answer, and between two pieces of a body. Default 30 s. */
  readonly requestMsMax?: number;
}

type OpenBackend = (url: string, options: OpenObjectStoreOptions) => Promise<ObjectStore>;

/** By the URL's scheme. The contract suite has a row for each: a backend without a test does not compile. */
export const OBJECT_BACKENDS = {
  file: openFile,
  s3: openS3,
  memory: openMemory,
  delayed: openDelayed,
} as const satisfies Record<string, OpenBackend>;

export type ObjectBackendName = keyof typeof OBJECT_BACKENDS;

/** Room for a key of full length in S3's 1024 bytes. */
const PREFIX_BYTES_MAX = 200;
const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$/;

/**
 * Opens the store that `url` names; nothing is asked of S3 yet. Errors: `invalid-setting` with one clear line,
 * `disk-full`.
 */
export async function openObjectStore(url: string, options: OpenObjectStoreOptions): Promise<ObjectStore> {
  const scheme = /^([a-z0-9]+):/.exec(url)?.[1] ?? '';
  if (!Object.hasOwn(OBJECT_BACKENDS, scheme)) {
    throw wrong(url, 'it must begin with file:, s3:// or memory:');
  }
  return OBJECT_BACKENDS[scheme as ObjectBackendName](url, options);
}

function wrong(url: string, why: string): StreamHouseError {
  // Whatever stands before an @ may be a secret.
  const shown = url.replace(/\/\/[^/?]*@/, '//...@');
  return new StreamHouseError('invalid-setting', `object URL ${JSON.stringify(shown.slice(0, 200))}: ${why}`);
}

async function openFile(url: string, options: OpenObjectStoreOptions): Promise<ObjectStore> {
  let directory = url.slice('file:'.length);
  if (directory.startsWith('//')) {
    try {
      directory = fileURLToPath(url);
    } catch {
      throw wrong(url, 'use file:DIR or file:///DIR');
    }
  }
  if (directory === '' || directory.includes('\0')) throw wrong(url, 'the directory is missing');
  return FilesystemObjectStore.open(directory, { clock: options.clock, random: options.random });
}

async function openMemory(url: string, options: OpenObjectStoreOptions): Promise<ObjectStore> {
  const name = url.slice('memory:'.length);
  if (!/^[A-Za-z0-9._-]*$/.test(name)) throw wrong(url, 'use memory: or memory:NAME');
  return new MemoryObjectStore(options.clock, name);
}

/** Longest delay, ms: beyond it an upload is given up anyway. */
const DELAY_MS_MAX = 60_000;

async function openDelayed(url: string, options: OpenObjectStoreOptions): Promise<ObjectStore> {
  const match = /^delayed:(\d{1,5}),(\d{1,5}),(\d{1,5})(?:,(\d{1,9}))?:(.+)$/s.exec(url);
  if (match === null) throw wrong(url, 'use delayed:P50,P99,MAX:URL with whole ms');
  const [p50Ms, p99Ms, maxMs] = [Number(match[1]), Number(match[2]), Number(match[3])];
  if (!(p50Ms >= 1 && p50Ms <= p99Ms && p99Ms <= maxMs && maxMs <= DELAY_MS_MAX)) {
    throw wrong(url, `delays must rise from 1 to ${DELAY_MS_MAX} ms`);
  }
  if (match[5].startsWith('delayed:')) throw wrong(url, 'it is delayed twice');
  const inner = await openObjectStore(match[5], options);
  return new DelayedObjectStore(inner, options.clock, { p50Ms, p99Ms, maxMs, seed: Number(match[4] ?? 1) });
}

async function openS3(url: string, options: OpenObjectStoreOptions): Promise<ObjectStore> {
  const parsed = parseS3Url(url);
  const { socketsMax, connectMsMax, requestMsMax } = options;
  return S3ObjectStore.open({ ...parsed, socketsMax, connectMsMax, requestMsMax });
}

interface S3Place {
  readonly bucket: string;
  readonly prefix: string;
  readonly endpoint?: string;
  readonly region?: string;
}

function parseS3Url(url: string): S3Place {
  if (!url.startsWith('s3://') || !URL.canParse(url)) throw wrong(url, 'use s3://BUCKET/PREFIX');
  const parsed = new URL(url);
  if (parsed.username !== '' || parsed.password !== '') {
    throw wrong(url, 'keys do not belong in the URL; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY');
  }
  const bucket = parsed.host;
  if (!BUCKET.test(bucket)) throw wrong(url, 'the bucket name is missing or not valid');
  let prefix: string;
  try {
    prefix = decodeURIComponent(parsed.pathname).replace(/^\/+|\/+$/g, '');
  } catch {
    throw wrong(url, 'the prefix is not valid percent-encoding');
  }
  const fault = prefix === '' ? null : objectKeyFault(prefix);
  if (fault !== null) throw wrong(url, `the prefix cannot be used: ${fault}`);
  if (Buffer.byteLength(prefix) > PREFIX_BYTES_MAX) {
    throw wrong(url, `the prefix is longer than ${PREFIX_BYTES_MAX} bytes`);
  }
  for (const name of parsed.searchParams.keys()) {
    if (name !== 'endpoint' && name !== 'region') {
      throw wrong(url, `${JSON.stringify(name)} is no option of it; there are endpoint and region`);
    }
  }
  const region = parsed.searchParams.get('region') ?? undefined;
  const endpoint = parsed.searchParams.get('endpoint') ?? undefined;
  if (endpoint !== undefined) checkEndpoint(url, endpoint);
  if (region === '') throw wrong(url, 'the region is empty');
  return { bucket, prefix, endpoint, region };
}

function checkEndpoint(url: string, endpoint: string): void {
  const parsed = URL.canParse(endpoint) ? new URL(endpoint) : null;
  if (parsed === null || (parsed.protocol !== 'http:' && parsed.protocol !== 'https:')) {
    throw wrong(url, 'the endpoint must be an http:// or https:// URL');
  }
  if (parsed.username !== '' || parsed.password !== '')
    throw wrong(url, 'keys do not belong in the endpoint');
}
