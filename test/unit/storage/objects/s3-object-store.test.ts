/** The S3 store when the network and the store fail: what each failure says, and that nothing hangs. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';
import { systemClock } from '../../../../src/core/clock.ts';
import { type ErrorCode, StreamHouseError } from '../../../../src/core/errors.ts';
import { seededRandom, systemRandom } from '../../../../src/core/random.ts';
import type { ObjectStore } from '../../../../storage/objects/object-store.ts';
import { openObjectStore } from '../../../../storage/objects/open-object-store.ts';
import { RetryingObjectStore } from '../../../../storage/objects/retrying-object-store.ts';
import {
  S3_TEST_ENV,
  type S3Fault,
  type S3RequestKind,
  type S3Server,
  startS3Server,
} from '../../../support/s3-server.ts';

Object.assign(process.env, S3_TEST_ENV);

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const options = { clock: systemClock, random: systemRandom };
/** Only for calls that are to end by it: the server is in this process, and the machine may be busy. */
const REQUEST_MS_MAX = 300;

function withCode(code: ErrorCode, message = /./, permanent?: true): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof StreamHouseError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n|SKTEST/);
    assert.equal(error.detail?.permanent, permanent);
    return true;
  };
}

describe('S3 object store', () => {
  let server: S3Server;
  let store: ObjectStore;
  let hasty: ObjectStore;
  before(async () => {
    server = await startS3Server();
    store = await openObjectStore(server.url, options);
    hasty = await openObjectStore(server.url, { ...options, requestMsMax: REQUEST_MS_MAX });
  });
  afterEach(() => {
    server.fault = () => undefined;
  });
  after(async () => {
    await store.close();
    await hasty.close();
    await server.stop();
  });

  /** The next request of the kind has the fault, later ones have none. */
  const once = (kind: S3RequestKind, fault: S3Fault): void => {
    server.fault = (request) => {
      if (request.kind !== kind) return undefined;
      server.fault = () => undefined;
      return fault;
    };
  };

  const storeFor = (fault: S3Fault): ObjectStore => (fault.kind.startsWith('hang') ? hasty : store);

  const putFaults: [fault: S3Fault, code: ErrorCode, stored: boolean][] = [
    [{ kind: 'error', status: 503 }, 'object-store-unavailable', false],
    [{ kind: 'error', status: 429 }, 'object-store-unavailable', false],
    [{ kind: 'error', status: 500 }, 'object-store-unknown', false],
    [{ kind: 'error', status: 502 }, 'object-store-unknown', false],
    [{ kind: 'error-after-success', status: 500 }, 'object-store-unknown', true],
    [{ kind: 'cut' }, 'object-store-unknown', false],
    [{ kind: 'cut-after-success' }, 'object-store-unknown', true],
    [{ kind: 'hang' }, 'object-store-unknown', false],
    [{ kind: 'hang-after-success' }, 'object-store-unknown', true],
  ];
  for (const [fault, code, stored] of putFaults) {
    const what = JSON.stringify(fault);
    it(`put: ${what} is ${code}, ${stored ? '' : 'not '}stored; the same put again succeeds`, async () => {
      const key = `put/${what.replaceAll(/\W/g, '')}`;
      once('put', fault);
      await assert.rejects(storeFor(fault).put(key, utf8('x')), withCode(code));
      assert.equal(server.buckets.get(server.bucket)?.has(key), stored);
      await store.put(key, utf8('x'));
      await assert.rejects(store.put(key, utf8('y')), withCode('object-exists'));
    });
  }

  it('put: 412 and 409 are settled by reading back', async () => {
    await store.put('settle/a', utf8('x'));
    once('put', { kind: 'error', status: 409 });
    await store.put('settle/a', utf8('x'));
    once('put', { kind: 'error', status: 409 });
    await assert.rejects(store.put('settle/a', utf8('y')), withCode('object-exists'));
    once('put', { kind: 'error', status: 409 });
    await assert.rejects(
      store.put('settle/b', utf8('y')),
      withCode('object-store-unavailable', /free again/),
    );
    for (const fault of [{ kind: 'cut' }, { kind: 'cut-in-body' }, { kind: 'hang-in-body' }] as const) {
      once('get', fault);
      const settling = storeFor(fault).put('settle/a', utf8('x'));
      await assert.rejects(settling, withCode('object-store-unavailable'));
    }
  });

  const readFaults: S3Fault[] = [
    { kind: 'error', status: 503 },
    { kind: 'error', status: 500 },
    { kind: 'cut' },
    { kind: 'hang' },
    { kind: 'cut-in-body' },
    { kind: 'hang-in-body' },
  ];
  for (const fault of readFaults) {
    it(`get and list: ${JSON.stringify(fault)} is unavailable, in time`, async () => {
      const bytes = new Uint8Array(300_000).fill(9);
      await store.put('read/a', bytes);
      for (const range of [undefined, { position: 100, length: 200_000 }]) {
        once('get', fault);
        const startMs = performance.now();
        const getting = storeFor(fault).get('read/a', range);
        await assert.rejects(getting, withCode('object-store-unavailable'));
        assert.ok(performance.now() - startMs < 3000);
      }
      once('list', fault);
      const listing = storeFor(fault).list('read/', { limit: 1 });
      await assert.rejects(listing, withCode('object-store-unavailable'));
      assert.equal((await store.get('read/a')).length, 300_000);
    });
  }

  it('delete: a lost reply is unknown, and the same delete again succeeds', async () => {
    await store.put('delete/a', utf8('x'));
    once('delete', { kind: 'cut-after-success' });
    await assert.rejects(store.delete('delete/a'), withCode('object-store-unknown'));
    await store.delete('delete/a');
    once('delete', { kind: 'error', status: 404 });
    await store.delete('delete/a');
  });

  for (const kind of ['hang', 'hang-in-body'] as const) {
    it(`a signal ends a get that hangs (${kind})`, async () => {
      const slow = await openObjectStore(server.url, options);
      await slow.put('signal/a', new Uint8Array(300_000));
      once('get', { kind });
      const signal = AbortSignal.timeout(50);
      await assert.rejects(slow.get('signal/a', undefined, { signal }), withCode('object-store-unavailable'));
      await slow.close();
    });
  }

  it('a signal ends a put that hangs: unknown', async () => {
    const slow = await openObjectStore(server.url, options);
    once('put', { kind: 'hang' });
    const signal = AbortSignal.timeout(50);
    await assert.rejects(slow.put('signal/b', utf8('x'), { signal }), withCode('object-store-unknown'));
    await slow.close();
  });

  it('close ends what is under way', async () => {
    const slow = await openObjectStore(server.url, options);
    once('put', { kind: 'hang' });
    const running = slow.put('closing/a', utf8('x'));
    setTimeout(() => void slow.close(), 50);
    await assert.rejects(running, withCode('object-store-unknown'));
  });

  it('says what an operator has to mend, as permanent', async () => {
    const elsewhere = await openObjectStore(server.url.replace(server.bucket, 'no-such-bucket'), options);
    const noBucket = withCode('object-store-unavailable', /NoSuchBucket: the bucket is not there/, true);
    await assert.rejects(elsewhere.put('a', utf8('x')), noBucket);
    await assert.rejects(elsewhere.get('a'), noBucket);
    await assert.rejects(elsewhere.list('', { limit: 1 }), noBucket);
    await assert.rejects(elsewhere.delete('a'), noBucket);
    await elsewhere.close();
    once('get', { kind: 'error', status: 403 });
    await assert.rejects(
      store.get('a'),
      withCode('object-store-unavailable', /AccessDenied: the store refuses/, true),
    );
    process.env.AWS_ACCESS_KEY_ID = 'SOMEBODY';
    const stranger = await openObjectStore(server.url, options);
    try {
      const unknownKey = /InvalidAccessKeyId: the store does not know/;
      await assert.rejects(stranger.get('a'), withCode('object-store-unavailable', unknownKey, true));
    } finally {
      Object.assign(process.env, S3_TEST_ENV);
      await stranger.close();
    }
  });

  it('lists more than one answer holds, foreign keys left out', async () => {
    const objects = server.buckets.get(server.bucket)!;
    const object = { bytes: Buffer.from('x'), etag: '"x"', modifiedMs: 1_700_000_000_000 };
    const keys = Array.from({ length: 2500 }, (_, i) => `many/${String(i).padStart(4, '0')}`);
    for (const key of keys) objects.set(key, object);
    for (let i = 0; i < 1500; i++) objects.set(`many/0100/../${i}`, object);
    objects.set('many/0200/', object);
    objects.set('many/0300\u0001', object);
    const listsBefore = server.counts.list;
    const listed = await store.list('many/', { limit: 10_000 });
    assert.deepEqual(
      listed.map((each) => each.key),
      keys,
    );
    assert.equal(listed[0].modifiedMs, 1_700_000_000_000);
    assert.equal(server.counts.list - listsBefore, 5);
    assert.equal((await store.list('many/', { limit: 1200 })).length, 1200);
    assert.deepEqual(await store.list('many/', { limit: 0 }), []);
  });

  it('under a prefix sees only what lies there', async () => {
    const below = await openObjectStore(server.url.replace('?', '/pre/fix?'), options);
    await below.put('k', utf8('x'));
    server.buckets.get(server.bucket)!.set('pre/fixed', { bytes: Buffer.from('x'), etag: '', modifiedMs: 0 });
    assert.ok(server.buckets.get(server.bucket)?.has('pre/fix/k'));
    assert.deepEqual(
      (await below.list('', { limit: 9 })).map((each) => each.key),
      ['k'],
    );
    assert.deepEqual(
      (await below.list('', { after: 'k', limit: 9 })).map((each) => each.key),
      [],
    );
    await below.close();
  });

  it('is served again when the store comes back on its port', async () => {
    const first = await startS3Server();
    const inner = await openObjectStore(first.url, options);
    const policy = { attemptsMax: 50, attemptMsMax: 1000, backoffMsFirst: 20, backoffMsMax: 40 };
    const retrying = new RetryingObjectStore(inner, { clock: systemClock, random: seededRandom(1), policy });
    await retrying.put('back/a', utf8('x'));
    await first.stop();
    await assert.rejects(inner.get('back/a'), withCode('object-store-unavailable'));
    await assert.rejects(inner.put('back/b', utf8('x')), withCode('object-store-unavailable'));
    const running = retrying.put('back/b', utf8('y'));
    const second = await startS3Server({ port: first.port, buckets: first.buckets });
    await running;
    assert.equal((await inner.get('back/b')).toString(), 'y');
    await inner.close();
    await second.stop();
  });

  it('reuses its connections, also for large objects', async () => {
    const sockets = new Set<unknown>();
    const one = await openObjectStore(server.url, { ...options, socketsMax: 1, connectMsMax: 30_000 });
    const large = new Uint8Array(new SharedArrayBuffer(3 * 1024 * 1024));
    const seen = (socket: unknown): void => void sockets.add(socket);
    server.connections(seen);
    for (let i = 0; i < 5; i++) await one.put(`reuse/${i}`, large);
    await Promise.all(Array.from({ length: 5 }, (_, i) => one.get(`reuse/${i}`)));
    await one.close();
    assert.equal(sockets.size, 1);
  });
});

describe('S3 object store: answers to a range, of stores and proxies that do as they like', () => {
  const ten = '0123456789';
  const many = 'x'.repeat(40);
  const [short, away]: ErrorCode[] = ['corrupt-object', 'object-store-unavailable'];
  /** What is answered to a get of bytes `from` to 12, and what becomes of it, wanted up to the end or not. */
  const cases: [
    what: string,
    from: number,
    range: string | null,
    sent: string,
    early: string,
    not: string,
  ][] = [
    ['the part up to the end', 4, '4-9/10', '456789', '456789', short],
    ['a part that ends before the end', 4, '4-6/10', '456', away, away],
    ['a part that may end before the end', 4, '4-9/*', '456789', away, away],
    ['a part from elsewhere', 4, '3-9/10', '3456789', away, away],
    ['a part longer than asked', 4, '4-40/41', 'x'.repeat(37), away, away],
    ['a part from nowhere', 0, 'what?', '456789', away, away],
    ['the whole, asked from its beginning', 0, null, ten, ten, short],
    ['the whole, asked from its middle', 4, null, ten, away, away],
    ['the whole, longer than asked', 0, null, many, away, away],
    ['the whole, which is empty', 0, null, '', short, short],
  ];

  for (const [what, from, range, sent, ...outcomes] of cases) {
    it(what, async () => {
      const http = createServer((request, response) => {
        assert.equal(request.headers.range, `bytes=${from}-12`);
        const contentRange = range === null ? {} : { 'content-range': `bytes ${range}` };
        response.writeHead(range === null ? 200 : 206, { 'content-length': sent.length, ...contentRange });
        response.end(sent);
      });
      await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
      const { port } = http.address() as AddressInfo;
      const url = `s3://bucket?endpoint=${encodeURIComponent(`http://127.0.0.1:${port}`)}`;
      const store = await openObjectStore(url, options);
      try {
        for (const [i, outcome] of outcomes.entries()) {
          const got = store.get('k', { position: from, length: 13 - from, mayEndEarly: i === 0 });
          if (outcome !== short && outcome !== away) assert.equal((await got).toString(), outcome);
          else await assert.rejects(got, withCode(outcome));
        }
      } finally {
        await store.close();
        http.closeAllConnections();
        await new Promise((resolve) => http.close(resolve));
      }
    });
  }
});

it('without keys anywhere says so', async () => {
  const kept = { ...process.env };
  delete process.env.AWS_ACCESS_KEY_ID;
  delete process.env.AWS_SECRET_ACCESS_KEY;
  process.env.AWS_SHARED_CREDENTIALS_FILE = '/nonexistent';
  process.env.AWS_CONFIG_FILE = '/nonexistent';
  const server = await startS3Server();
  const store = await openObjectStore(server.url, options);
  try {
    const noKeys = /CredentialsProviderError: no keys were found/;
    await assert.rejects(store.put('a', utf8('x')), withCode('object-store-unavailable', noKeys, true));
  } finally {
    process.env = kept;
    await store.close();
    await server.stop();
  }
});
