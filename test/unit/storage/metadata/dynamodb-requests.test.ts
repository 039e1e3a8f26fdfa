/**
 * What failed requests to DynamoDB mean, which of them are made again, what is counted; the URL; the policy in the
 * docs.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import type { ErrorCode } from '../../../../src/core/errors.ts';
import { seededRandom } from '../../../../src/core/random.ts';
import { dynamodbBackend } from '../../../../storage/metadata/dynamodb/dynamodb-backend.ts';
import { readDynamodbFailure } from '../../../../storage/metadata/dynamodb/dynamodb-error.ts';
import { parseDynamodbUrl } from '../../../../storage/metadata/dynamodb/dynamodb-url.ts';
import { StoreCounters } from '../../../../storage/metadata/store-counters.ts';
import { failsWith } from '../../../contract/metadata-store-rig.ts';
import { DynamodbRig, entryOf, hurriedClock, touches } from '../../../support/dynamodb-rig.ts';
import { ROOT, sourceFiles } from '../../../support/source-scan.ts';

let rig: DynamodbRig;
before(async () => {
  rig = await DynamodbRig.start(8);
});
after(() => rig.close());
beforeEach(() => rig.proxy.clear());

function openAt(url: string) {
  const parts = { clock: hurriedClock, random: seededRandom(1), counters: new StoreCounters() };
  return dynamodbBackend.open(url, { role: 'broker', migrate: false, ...parts });
}

describe('a failed request', () => {
  const failure = (name: string, status: number, other: object = {}) =>
    readDynamodbFailure(Object.assign(new Error('m'), { name, $metadata: { httpStatusCode: status } }, other))
      .kind;
  const broken = (name: string, other: object = {}, message = 'm') =>
    readDynamodbFailure(Object.assign(new Error(message), { name, ...other })).kind;

  it('means what its name, its status or its system code says', () => {
    assert.equal(failure('ConditionalCheckFailedException', 400), 'condition');
    for (const name of [
      'ProvisionedThroughputExceededException',
      'ThrottlingException',
      'RequestLimitExceeded',
    ]) {
      assert.equal(failure(name, 400), 'throttled');
    }
    assert.equal(failure('Whatever', 429), 'throttled');
    assert.equal(failure('ResourceNotFoundException', 400), 'no-table');
    for (const name of [
      'AccessDeniedException',
      'UnrecognizedClientException',
      'InvalidSignatureException',
    ]) {
      assert.equal(failure(name, 400), 'refused');
    }
    // The SDK has learnt the service's time from the refusal.
    const skewed = { $metadata: { httpStatusCode: 400, clockSkewCorrected: true } };
    assert.equal(broken('InvalidSignatureException', skewed), 'unreached');
    assert.equal(broken('CredentialsProviderError'), 'refused');
    assert.equal(failure('Unknown', 404), 'refused');
    // A proxy's, not the service's.
    assert.equal(failure('Unknown', 400), 'refused');
    assert.equal(failure('InternalServerError', 500), 'unclear');
    assert.equal(failure('Unknown', 502), 'unclear');
    assert.equal(failure('Unknown', 408), 'unclear');
    assert.equal(failure('SyntaxError', 200), 'unclear');
    for (const code of ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN'])
      assert.equal(broken('Error', { code }), 'unreached');
    assert.equal(broken('Error', { code: 'ETIMEDOUT', syscall: 'connect' }), 'unreached');
    for (const code of ['ECONNRESET', 'EPIPE', 'ETIMEDOUT'])
      assert.equal(broken('Error', { code }), 'unclear');
    assert.equal(broken('TimeoutError'), 'unclear');
    const connect = 'the request socket did not establish a connection with the server within ...';
    assert.equal(broken('TimeoutError', {}, connect), 'unreached');
    const refusals = [1, 2].map(() => Object.assign(new Error('m'), { code: 'ECONNREFUSED' }));
    assert.equal(readDynamodbFailure(new AggregateError(refusals)).kind, 'unreached');
    for (const name of [
      'ValidationException',
      'SerializationException',
      'ItemCollectionSizeLimitExceededException',
    ]) {
      assert.equal(failure(name, 400), 'bug');
    }
    assert.equal(broken('TypeError'), 'bug');
    assert.equal(readDynamodbFailure('text').kind, 'bug');
  });
});

describe('reads', () => {
  it('are made again while the service is broken or throttles, and never are unknown', async () => {
    const store = rig.store();
    for (const effect of [
      { kind: 'drop-reply' },
      { kind: 'drop-request' },
      { kind: 'refuse', name: 'InternalServerError', status: 500 },
      { kind: 'refuse', name: 'ThrottlingException' },
    ] as const) {
      rig.proxy.clear();
      rig.proxy.inject({ on: 'GetItem', effect, times: 3 });
      assert.equal((await store.readHead(1)).epoch, 1);
      rig.proxy.clear();
      rig.proxy.inject({ on: 'GetItem', effect });
      await failsWith('store-unavailable', store.readHead(1));
      // Bounded: it gives up.
      assert(rig.proxy.calls.length <= 10);
    }
  });

  it('are all strongly consistent', async () => {
    const store = rig.store();
    await store.appendEntries([entryOf(2, 1)], []);
    await store.readEntries(2, 0, 1e9);
    await store.getTopicsById([1]);
    await store.listTopics({ limit: 1 });
    await store.listDeletedTopics({ afterTopicId: 0, limit: 1 });
    await store.listObjects({ limit: 1 });
    await store.listObjects({ limit: 1, unreferencedOnly: true });
    await store.findPages([{ topicId: 1, partition: 1, offset: 1 }]);
    await store.listAgents();
    await store.listLeases();
    await store.scanPages({ cursor: null, limit: 5 });
    const reads = rig.proxy.calls.filter(({ action }) => /Get|Query|Scan/.test(action));
    for (const { action, body } of reads) {
      const [batch] = Object.values(body.RequestItems ?? {}) as { ConsistentRead?: boolean }[];
      assert.equal((batch ?? body).ConsistentRead, true, action);
      assert.equal(body.IndexName, undefined);
    }
    assert(reads.length >= 10);
  });

  it('leave bodies out where only heads are asked for', async () => {
    const store = rig.store();
    await store.listLeases();
    await store.readHead(0);
    for (const { body } of rig.proxy.calls) {
      const text = JSON.stringify(body);
      assert(text.includes('ProjectionExpression') || body.Key?.pk.S === 'cluster', text);
      assert(!/#body|#spill/.test(text));
    }
  });
});

describe('every request', () => {
  it('is counted with what it consumed', async () => {
    const store = rig.store();
    const units = () =>
      (['statements', 'readUnits', 'writeUnits'] as const).map((name) => rig.counters.read(name));
    await store.readHead(3);
    const before = units();
    await store.readHead(3);
    assert.deepEqual(units(), [before[0] + 1, before[1] + 1, before[2]]);
    // A head with 2,000 bytes in it and its copy: 3 units and 2 to 3.
    await store.appendEntries([entryOf(3, 1, { body: new Uint8Array(2000) })], []);
    await store.close();
    const [statements, , written] = units();
    assert.equal(statements, before[0] + 3);
    assert(written - before[2] >= 5 && written - before[2] <= 6, String(written - before[2]));
  });

  it('is refused after close, which waits for those in flight', async () => {
    const store = rig.store();
    await store.readHead(4);
    const appending = store.appendEntries([entryOf(4, 1)], []);
    await new Promise((resolve) => setImmediate(resolve));
    await store.close();
    await appending.catch(({ code }) => assert.equal(code, 'store-unavailable'));
    await failsWith('store-unavailable', store.readHead(4));
  });

  it('of bulk work leaves room for commits and look-ups', async () => {
    const store = rig.store();
    await store.readHead(5);
    const { promise: until, resolve: release } = Promise.withResolvers<void>();
    rig.proxy.inject({ on: 'PutItem', effect: { kind: 'hold', until }, times: 500 });
    const page = (partition: number) => ({
      topicId: 1,
      partition,
      shard: 5,
      baseOffset: 0,
      stamp: 1,
      bytes: new Uint8Array(10),
    });
    const paging = store.putPages(Array.from({ length: 500 }, (_, i) => page(i)));
    assert.deepEqual(await store.appendEntries([entryOf(5, 1)], []), [{ kind: 'done' }]);
    assert((await store.readEntries(5, 0, 1e9)).length === 1);
    assert.deepEqual(await store.findPages([{ topicId: 2, partition: 0, offset: 0 }]), [null]);
    assert(rig.proxy.calls.filter(({ action }) => action === 'PutItem').length <= 33);
    release();
    await paging;
  });

  it('that is a bug of ours is thrown as it is', async () => {
    const store = rig.store();
    rig.proxy.inject({ on: touches('head#6'), effect: { kind: 'refuse', name: 'ValidationException' } });
    await assert.rejects(store.appendEntries([entryOf(6, 1)], []), { name: 'ValidationException' });
  });
});

describe('opening', () => {
  it('ends with one clear line where an operator has to mend something', async () => {
    const refusals: [string, RegExp][] = [
      ['AccessDeniedException', /may not do that; docs\/dynamodb\.md/],
      ['UnrecognizedClientException', /does not know this access key/],
      ['InvalidSignatureException', /secret key is wrong/],
      ['ExpiredTokenException', /session token has expired/],
    ];
    for (const [name, line] of refusals) {
      rig.proxy.clear();
      rig.proxy.inject({ on: 'Query', effect: { kind: 'refuse', name } });
      const error = await failsWith('store-unavailable', openAt(rig.url));
      assert.match(error.message, line);
      assert(!error.message.includes('\n'));
      assert.equal(rig.proxy.calls.length, 1, 'it is not tried again');
    }
  });

  it('tells that nothing listens, and what answers but is no DynamoDB', async () => {
    const server = createServer((_, response) => response.writeHead(404).end('<html>'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const url = `dynamodb://us-east-1/x?endpoint=${encodeURIComponent(endpoint)}`;
    await failsWith('store-unavailable', openAt(url));
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    const error = await failsWith('store-unavailable', openAt(url));
    assert.match(error.message, /ECONNREFUSED/);
  });

  it('tells that there are no keys', async () => {
    const names = [
      'AWS_ACCESS_KEY_ID',
      'AWS_SECRET_ACCESS_KEY',
      'AWS_EC2_METADATA_DISABLED',
      'AWS_SHARED_CREDENTIALS_FILE',
      'AWS_CONFIG_FILE',
    ];
    const kept = names.map((name) => [name, process.env[name]] as const);
    delete process.env.AWS_ACCESS_KEY_ID;
    delete process.env.AWS_SECRET_ACCESS_KEY;
    process.env.AWS_EC2_METADATA_DISABLED = 'true';
    process.env.AWS_SHARED_CREDENTIALS_FILE = process.env.AWS_CONFIG_FILE = '/nowhere';
    try {
      const error = await failsWith('store-unavailable', openAt(rig.url));
      assert.match(error.message, /no keys were found/);
    } finally {
      for (const [name, value] of kept) {
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      }
    }
  });
});

describe('the URL', () => {
  const AWS = 'dynamodb://eu-central-1/prod';

  it('names region, table and where', () => {
    const url = parseDynamodbUrl(AWS);
    assert.deepEqual([url.region, url.table, url.endpoint], ['eu-central-1', 'prod-metadata', undefined]);
    assert.deepEqual([url.provisioned, url.deletionProtection, url.pointInTimeRecovery], [null, true, true]);
    const local = parseDynamodbUrl(`${AWS}?endpoint=http%3A%2F%2F127.0.0.1%3A8000`);
    assert.deepEqual([local.deletionProtection, local.pointInTimeRecovery], [false, false]);
    assert.equal(local.description, 'dynamodb://eu-central-1/prod at http://127.0.0.1:8000');
    const provisioned = parseDynamodbUrl(
      `${AWS}?billing=provisioned&read-units=10&write-units=20`,
    ).provisioned;
    assert.deepEqual(provisioned, {
      readUnits: 10,
      writeUnits: 20,
      readUnitsMax: 100,
      writeUnitsMax: 200,
      utilisation: 70,
    });
  });

  it('is refused with one line for everything that it cannot mean', async () => {
    const wrong = [
      'dynamodb:',
      'dynamodb:/a/b',
      'dynamodb://eu-central-1',
      'dynamodb://eu-central-1/',
      'dynamodb://eu-central-1/a/b',
      'dynamodb://eu-central-1/a b',
      `dynamodb://eu-central-1/${'x'.repeat(201)}`,
      'dynamodb://nowhere/prod',
      'dynamodb://key:secret@eu-central-1/prod',
      `${AWS}#x`,
      `${AWS}?region=x`,
      `${AWS}?Endpoint=http://x`,
      `${AWS}?endpoint=ftp://x`,
      `${AWS}?endpoint=x`,
      `${AWS}?endpoint=http://key:secret@x`,
      `${AWS}?endpoint=http://x&endpoint=http://y`,
      `${AWS}?billing=free`,
      `${AWS}?read-units=5`,
      `${AWS}?billing=provisioned`,
      `${AWS}?billing=provisioned&read-units=0&write-units=5`,
      `${AWS}?billing=provisioned&read-units=5&write-units=1.5`,
      `${AWS}?billing=provisioned&read-units=5&write-units=5&write-units-max=4`,
      `${AWS}?billing=provisioned&read-units=5&write-units=5&utilisation=95`,
      `${AWS}?deletion-protection=yes`,
      `${AWS}?point-in-time-recovery=`,
      `${AWS}?tag.=x`,
    ];
    for (const url of wrong) {
      const error = await failsWith('invalid-setting' satisfies ErrorCode, openAt(url));
      assert(!/secret|\n/.test(error.message), error.message);
    }
  });
});

describe('the policy in docs/dynamodb.md', () => {
  const text = readFileSync(join(ROOT, 'docs/dynamodb.md'), 'utf8');
  const policy = JSON.parse(/```json\n([\s\S]*?)```/.exec(text)?.[1] ?? '{}');
  const actionsOf = (sid: string): string[] =>
    policy.Statement.find((one: { Sid: string }) => one.Sid === sid).Action;
  const used = (paths: RegExp) =>
    new Set(
      sourceFiles(['storage', 'migrations'])
        .filter(({ path }) => paths.test(path))
        .flatMap(({ code }) =>
          [...code.matchAll(/\bnew (\w+)Command\(/g)].map(([, name]) => `dynamodb:${name}`),
        ),
    );

  it('grants exactly the requests that the store makes', () => {
    assert.deepEqual(new Set(actionsOf('StreamHouseBroker')), used(/dynamodb-requests\.ts$/));
    const migrating = used(/dynamodb-migrations\.ts$|^migrations\/dynamodb\//);
    // Tags of a table that is being created are a right of their own.
    assert.deepEqual(
      new Set(actionsOf('StreamHouseMigrate')),
      new Set([...migrating, 'dynamodb:TagResource']),
    );
    assert.deepEqual(
      used(/./),
      new Set([...used(/dynamodb-requests\.ts$/), ...migrating, ...used(/objects\//)]),
    );
  });
});
