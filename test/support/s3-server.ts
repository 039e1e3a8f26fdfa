/**
 * A small S3 server for tests, on loopback, objects in memory. Owns the parts of S3 that StreamHouse needs,
 * kept exactly: PUT with If-None-Match (also under races), GET with Range, HEAD, DELETE, ListObjectsV2, bucket
 * creation, aws-chunked bodies, XML errors; it demands a signature and checks the payload's hash, not the
 * signature itself. Injects faults and counts requests by kind. Whatever it does not know it refuses with
 * NotImplemented, so that no test passes by accident.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { decodeAwsChunked, errorXml, listXml, S3Refusal } from './s3-server-format.ts';

export type S3RequestKind = 'put' | 'get' | 'head' | 'delete' | 'list' | 'create-bucket';

export interface S3Request {
  readonly kind: S3RequestKind;
  readonly bucket: string;
  /** Empty for bucket requests. */
  readonly key: string;
  /** 1 for the first request of this kind that the server got. */
  readonly number: number;
}

export type S3Fault =
  /** Nothing happens; the answer is this status (503: SlowDown). */
  | { readonly kind: 'error'; readonly status: number }
  | { readonly kind: 'delay'; readonly ms: number }
  /** It happens; the answer says it failed. */
  | { readonly kind: 'error-after-success'; readonly status: number }
  /** Nothing happens; the connection is cut. */
  | { readonly kind: 'cut' }
  | { readonly kind: 'cut-after-success' }
  /** Nothing happens and no answer comes. */
  | { readonly kind: 'hang' }
  | { readonly kind: 'hang-after-success' }
  /** Of a get: half of the body comes, then the connection is cut, or nothing more comes. */
  | { readonly kind: 'cut-in-body' }
  | { readonly kind: 'hang-in-body' };

export interface S3ServerOptions {
  /** Made at the start. Default 'test-bucket'. */
  readonly bucket?: string;
  /** Default 0: a free port. Give the port of a stopped server to bring it back. */
  readonly port?: number;
  /** The objects of a stopped server, to bring it back. */
  readonly buckets?: S3Buckets;
  readonly fault?: S3FaultHook;
}

export type S3FaultHook = (request: S3Request) => S3Fault | undefined;

export interface S3Object {
  readonly bytes: Buffer;
  readonly etag: string;
  readonly modifiedMs: number;
}

export type S3Buckets = Map<string, Map<string, S3Object>>;

export interface S3Server {
  /** An object URL for openObjectStore and `serve --objects`: the bucket, no prefix. */
  readonly url: string;
  /** http://127.0.0.1:PORT */
  readonly endpoint: string;
  readonly port: number;
  readonly bucket: string;
  /** Environment that makes the SDK use this server's keys, and only them. */
  readonly env: Readonly<Record<string, string>>;
  /** Asked for each request; may be replaced at any time. */
  fault: S3FaultHook;
  /** Requests that arrived, by kind, whatever became of them. */
  readonly counts: Record<S3RequestKind, number>;
  /** What it holds. Tests may change it behind the client's back. */
  readonly buckets: S3Buckets;
  /** Calls `seen` for each connection that comes from now on. */
  connections(seen: (socket: Socket) => void): void;
  /** Cuts all connections and frees the port; the objects stay in `buckets`. */
  stop(): Promise<void>;
}

/** The same for the server of our own and for Ceph, so that one process can use both. */
export const S3_TEST_ENV = {
  AWS_ACCESS_KEY_ID: 'AKTEST',
  AWS_SECRET_ACCESS_KEY: 'SKTEST',
  AWS_EC2_METADATA_DISABLED: 'true',
} as const;

export async function startS3Server(options: S3ServerOptions = {}): Promise<S3Server> {
  const bucket = options.bucket ?? 'test-bucket';
  const buckets: S3Buckets = options.buckets ?? new Map();
  if (!buckets.has(bucket)) buckets.set(bucket, new Map());
  const counts = { put: 0, get: 0, head: 0, delete: 0, list: 0, 'create-bucket': 0 };
  const http = createServer((request, response) => {
    handle(server, request, response).catch((error: unknown) => {
      // The client went away, or a bug of this server: either way the test sees a cut connection.
      response.destroy(error instanceof Error ? error : undefined);
    });
  });
  await new Promise<void>((resolve, reject) => {
    http.once('error', reject);
    http.listen(options.port ?? 0, '127.0.0.1', resolve);
  });
  const { port } = http.address() as AddressInfo;
  const endpoint = `http://127.0.0.1:${port}`;
  const server: S3Server = {
    url: `s3://${bucket}?endpoint=${encodeURIComponent(endpoint)}&region=us-east-1`,
    endpoint,
    port,
    bucket,
    env: S3_TEST_ENV,
    fault: options.fault ?? (() => undefined),
    counts,
    buckets,
    connections: (seen) => void http.on('connection', seen),
    async stop() {
      if (!http.listening) return;
      await new Promise<void>((resolve) => {
        http.close(() => resolve());
        http.closeAllConnections();
      });
    },
  };
  return server;
}

interface Answer {
  readonly status: number;
  readonly headers?: Record<string, string | number>;
  readonly body?: Buffer;
}

async function handle(server: S3Server, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', server.endpoint);
  let answer: Answer;
  let fault: S3Fault | undefined;
  try {
    const call = classify(server, request, url);
    const raw = await readAll(request);
    fault = server.fault(call);
    if (fault?.kind === 'delay') await sleepMs(fault.ms);
    if (fault?.kind === 'cut') return void response.destroy();
    if (fault?.kind === 'hang') return;
    if (fault?.kind === 'error') throw refusalOf(fault.status);
    checkSigned(request, url);
    answer = perform(server, call, request, url, raw);
    if (fault?.kind === 'cut-after-success') return void response.destroy();
    if (fault?.kind === 'hang-after-success') return;
    if (fault?.kind === 'error-after-success') throw refusalOf(fault.status);
  } catch (error) {
    if (!(error instanceof S3Refusal)) throw error;
    request.resume();
    answer = { status: error.status, headers: { 'content-type': 'application/xml' }, body: errorXml(error) };
  }
  await send(request, response, answer, fault);
}

async function send(
  request: IncomingMessage,
  response: ServerResponse,
  answer: Answer,
  fault: S3Fault | undefined,
): Promise<void> {
  const { status, headers, body = Buffer.alloc(0) } = answer;
  response.writeHead(status, { 'content-length': body.length, ...headers });
  if (request.method === 'HEAD') return void response.end();
  if (fault?.kind !== 'cut-in-body' && fault?.kind !== 'hang-in-body') return void response.end(body);
  await new Promise<void>((resolve) => {
    response.write(body.subarray(0, body.length >> 1), () => resolve());
  });
  if (fault.kind === 'cut-in-body') response.destroy();
}

function classify(server: S3Server, request: IncomingMessage, url: URL): S3Request {
  const [, bucketPart = '', ...rest] = url.pathname.split('/');
  const bucket = decodeURIComponent(bucketPart);
  const key = decodeURIComponent(rest.join('/'));
  const kind = kindOf(request.method ?? '', key, url);
  if (kind === null) {
    throw new S3Refusal(501, 'NotImplemented', `${request.method} ${url.pathname}${url.search}`);
  }
  server.counts[kind]++;
  return { kind, bucket, key, number: server.counts[kind] };
}

const LIST_PARAMETERS = new Set([
  'list-type',
  'prefix',
  'start-after',
  'continuation-token',
  'max-keys',
  'encoding-type',
]);

function kindOf(method: string, key: string, url: URL): S3RequestKind | null {
  // The SDK marks each operation with x-id; any other parameter would change the meaning.
  const parameters = [...url.searchParams.keys()].filter((name) => name !== 'x-id');
  if (key === '') {
    if (method === 'PUT' && parameters.length === 0) return 'create-bucket';
    const plain = parameters.every((name) => LIST_PARAMETERS.has(name));
    return method === 'GET' && plain && url.searchParams.get('list-type') === '2' ? 'list' : null;
  }
  if (parameters.length > 0) return null;
  const kinds: Record<string, S3RequestKind> = { PUT: 'put', GET: 'get', HEAD: 'head', DELETE: 'delete' };
  return kinds[method] ?? null;
}

async function readAll(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function refusalOf(status: number): S3Refusal {
  const codes: Record<number, string> = {
    403: 'AccessDenied',
    404: 'NoSuchKey',
    409: 'ConditionalRequestConflict',
    412: 'PreconditionFailed',
    429: 'TooManyRequests',
    500: 'InternalError',
    503: 'SlowDown',
  };
  return new S3Refusal(status, codes[status] ?? 'InjectedFault', 'a fault injected by the test');
}

function checkSigned(request: IncomingMessage, url: URL): void {
  const header = request.headers.authorization ?? '';
  if (header === '' && !url.searchParams.has('X-Amz-Signature')) {
    throw new S3Refusal(403, 'AccessDenied', 'the request is not signed');
  }
  if (
    header !== '' &&
    !/^AWS4-HMAC-SHA256 Credential=.+SignedHeaders=.+Signature=[0-9a-f]{64}$/.test(header)
  ) {
    throw new S3Refusal(403, 'SignatureDoesNotMatch', 'the signature has the wrong form');
  }
  if (header !== '' && !header.includes(`Credential=${S3_TEST_ENV.AWS_ACCESS_KEY_ID}/`)) {
    throw new S3Refusal(403, 'InvalidAccessKeyId', 'the access key is not known');
  }
}

/** All that a request does happens in one turn of the event loop: that makes the conditional PUT exact. */
function perform(server: S3Server, call: S3Request, request: IncomingMessage, url: URL, raw: Buffer): Answer {
  if (call.kind === 'create-bucket') {
    if (!server.buckets.has(call.bucket)) server.buckets.set(call.bucket, new Map());
    return { status: 200 };
  }
  const objects = server.buckets.get(call.bucket);
  if (objects === undefined) {
    throw new S3Refusal(404, 'NoSuchBucket', `the bucket ${call.bucket} is not there`);
  }
  switch (call.kind) {
    case 'put':
      return put(objects, call.key, request, raw);
    case 'get':
      return get(objects, call.key, request.headers.range);
    case 'head':
      return get(objects, call.key, undefined);
    case 'delete':
      objects.delete(call.key);
      return { status: 204 };
    case 'list':
      return {
        status: 200,
        headers: { 'content-type': 'application/xml' },
        body: listXml(objects, call, url),
      };
  }
}

function put(objects: Map<string, S3Object>, key: string, request: IncomingMessage, raw: Buffer): Answer {
  const hash = String(request.headers['x-amz-content-sha256'] ?? '');
  const chunked = hash.startsWith('STREAMING-');
  const bytes = chunked ? decodeAwsChunked(raw) : raw;
  if (/^[0-9a-f]{64}$/.test(hash) && createHash('sha256').update(bytes).digest('hex') !== hash) {
    throw new S3Refusal(400, 'XAmzContentSHA256Mismatch', 'the body is not what was signed');
  }
  if (chunked && Number(request.headers['x-amz-decoded-content-length']) !== bytes.length) {
    throw new S3Refusal(400, 'IncompleteBody', 'the decoded length is wrong');
  }
  if (request.headers['if-match'] !== undefined) throw new S3Refusal(501, 'NotImplemented', 'If-Match');
  const condition = request.headers['if-none-match'];
  if (condition !== undefined && condition !== '*') {
    throw new S3Refusal(501, 'NotImplemented', 'If-None-Match with an etag');
  }
  if (condition === '*' && objects.has(key)) {
    throw new S3Refusal(412, 'PreconditionFailed', 'the object is there');
  }
  const etag = `"${createHash('md5').update(bytes).digest('hex')}"`;
  objects.set(key, { bytes, etag, modifiedMs: Date.now() });
  return { status: 200, headers: { etag } };
}

function get(objects: Map<string, S3Object>, key: string, range: string | undefined): Answer {
  const object = objects.get(key);
  if (object === undefined) throw new S3Refusal(404, 'NoSuchKey', `the key ${key} is not there`);
  const { bytes, etag, modifiedMs } = object;
  const headers = {
    etag,
    'last-modified': new Date(modifiedMs).toUTCString(),
    'accept-ranges': 'bytes',
    'content-type': 'application/octet-stream',
  };
  const match = /^bytes=(\d*)-(\d*)$/.exec(range ?? '');
  if (match === null || (match[1] === '' && match[2] === '')) return { status: 200, headers, body: bytes };
  const first = match[1] === '' ? Math.max(0, bytes.length - Number(match[2])) : Number(match[1]);
  const last =
    match[1] === '' || match[2] === '' ? bytes.length - 1 : Math.min(Number(match[2]), bytes.length - 1);
  if (first > last) throw new S3Refusal(416, 'InvalidRange', 'the range cannot be satisfied');
  return {
    status: 206,
    headers: { ...headers, 'content-range': `bytes ${first}-${last}/${bytes.length}` },
    body: bytes.subarray(first, last + 1),
  };
}
