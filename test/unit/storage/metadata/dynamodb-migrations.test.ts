/** The schema on DynamoDB: made by twenty at once, refused where it is missing, older, newer or another's. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { applyMigrations } from '../../../../migrations/apply.ts';
import { seededRandom } from '../../../../src/core/random.ts';
import { dynamodbBackend } from '../../../../storage/metadata/dynamodb/dynamodb-backend.ts';
import {
  DYNAMODB_MIGRATIONS,
  knownMigrations,
} from '../../../../storage/metadata/dynamodb/dynamodb-migrations.ts';
import { StoreCounters } from '../../../../storage/metadata/store-counters.ts';
import { failsWith } from '../../../contract/metadata-store-rig.ts';
import { type DynaliteServer, startDynalite } from '../../../support/dynalite-server.ts';
import { DynamodbProxy } from '../../../support/dynamodb-proxy.ts';
import { hurriedClock } from '../../../support/dynamodb-rig.ts';
import { ROOT } from '../../../support/source-scan.ts';

const parts = { clock: hurriedClock, random: seededRandom(1) };

let server: DynaliteServer;
let proxy: DynamodbProxy;
let count = 0;
let table = '';
before(async () => {
  server = await startDynalite({ createTableMs: 100 });
  proxy = await DynamodbProxy.start(server.endpoint);
});
after(async () => {
  await proxy.close();
  await server.close();
});
beforeEach(() => {
  proxy.clear();
  table = `m${++count}`;
});

const urlWith = (options = '') =>
  `dynamodb://us-east-1/${table}?endpoint=${encodeURIComponent(proxy.endpoint)}${options}`;

async function migrate(url = urlWith()): Promise<number> {
  const { target, known, close } = await dynamodbBackend.openMigrations(url, parts);
  try {
    return (await applyMigrations(target, known)).length;
  } finally {
    await close();
  }
}

function open(migrates: boolean, role: 'broker' | 'reader' = 'broker') {
  const settings = { role, migrate: migrates, counters: new StoreCounters(), ...parts };
  return dynamodbBackend.open(urlWith(), settings);
}

/** As another version would have left it. */
async function putRecord(number: number, checksum: string): Promise<void> {
  const sk = String(number).padStart(16, '0');
  const item = {
    pk: { S: 'schema' },
    sk: { S: sk },
    name: { S: 'other' },
    checksum: { S: checksum },
    appliedAt: { N: '1' },
  };
  await post('PutItem', { TableName: `${table}-metadata`, Item: item });
}

async function post(action: string, body: unknown): Promise<void> {
  const headers = {
    'content-type': 'application/x-amz-json-1.0',
    'x-amz-target': `DynamoDB_20120810.${action}`,
    'x-amz-date': '20260101T000000Z',
    authorization: 'AWS4-HMAC-SHA256 Credential=a/b/c/dynamodb/aws4_request, SignedHeaders=host, Signature=s',
  };
  const answer = await fetch(server.endpoint, { method: 'POST', headers, body: JSON.stringify(body) });
  assert.equal(answer.status, 200, await answer.text());
}

/** Migrations there are. */
const ALL = knownMigrations().length;

describe('migrations of DynamoDB', () => {
  it('are those of the folder, numbered from 1, with a checksum of what they declare', () => {
    const files = readdirSync(join(ROOT, 'migrations/dynamodb')).filter((file) => /^\d/.test(file));
    const known = knownMigrations();
    assert.deepEqual(
      known.map(({ number, name }) => `${String(number).padStart(4, '0')}-${name}.ts`),
      files.sort(),
    );
    // Frozen: a store that was migrated by an earlier version bears this.
    assert.equal(known[0].checksum, 'd22dde98f26b5b1758932c80a495841817a9ea35bcb199b507c20bfcb09f2477');
    assert.equal(known[1].checksum, '0c5b85fc796cf0912a8e618bf6a6824432fa3926a97a49444703672ba3e335f9');
    assert.deepEqual(new Set(known.map(({ sql }) => sql)), new Set([null]));
    assert.equal(new Set(DYNAMODB_MIGRATIONS.map(({ number }) => number)).size, known.length);
  });

  it('are safe for twenty at once', async () => {
    await Promise.all(Array.from({ length: 20 }, () => migrate()));
    assert.equal(await migrate(), 0);
    const { store } = await open(false);
    await store.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount: 2, createdAtMs: 1 });
    await store.close();
  });

  it('go on where one ended between the table and its record', async () => {
    const mend = proxy.inject({ on: 'PutItem', effect: { kind: 'refuse', name: 'AccessDeniedException' } });
    const error = await failsWith('store-unavailable', migrate());
    assert.match(error.message, /docs\/dynamodb\.md/);
    mend();
    await failsWith('schema-too-old', open(false));
    assert.equal(await migrate(), ALL);
    await (await open(false)).store.close();
  });

  it('wait for a table that somebody else is creating', async () => {
    await post('CreateTable', {
      TableName: `${table}-metadata`,
      BillingMode: 'PAY_PER_REQUEST',
      AttributeDefinitions: ['pk', 'sk'].map((name) => ({ AttributeName: name, AttributeType: 'S' })),
      KeySchema: [
        { AttributeName: 'pk', KeyType: 'HASH' },
        { AttributeName: 'sk', KeyType: 'RANGE' },
      ],
    });
    assert.equal(await migrate(), ALL);
  });

  it('survive throttling, a lost reply and a broken service', async () => {
    proxy.inject({ on: 'CreateTable', effect: { kind: 'refuse', name: 'LimitExceededException' }, times: 2 });
    proxy.inject({ on: 'CreateTable', effect: { kind: 'drop-reply' }, times: 1 });
    proxy.inject({
      on: 'DescribeTable',
      effect: { kind: 'refuse', name: 'InternalServerError', status: 500 },
      times: 2,
    });
    assert.equal(await migrate(), ALL);
  });
});

describe('a process that only migrates', () => {
  it('lives until the table is there', async () => {
    const slow = await startDynalite({ createTableMs: 700 });
    try {
      const url = `dynamodb://us-east-1/slow?endpoint=${encodeURIComponent(slow.endpoint)}`;
      const script = `
        import { applyMigrations } from './migrations/apply.ts';
        import { systemClock as clock } from './src/core/clock.ts';
        import { systemRandom as random } from './src/core/random.ts';
        import { dynamodbBackend } from './storage/metadata/dynamodb/dynamodb-backend.ts';
        const { target, known, close } = await dynamodbBackend.openMigrations(${JSON.stringify(url)}, { clock, random });
        console.log((await applyMigrations(target, known)).length);
        await close();`;
      const args = ['--input-type=module-typescript', '--eval', script];
      const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: ROOT });
      assert.equal(stdout, `${ALL}\n`);
    } finally {
      await slow.close();
    }
  });
});

describe('opening', () => {
  it('refuses a store without a schema, with the line to run, and creates nothing', async () => {
    for (const role of ['broker', 'reader'] as const) {
      const error = await failsWith('schema-too-old', open(false, role));
      assert.match(error.message, /run `streamhouse migrate --metadata URL`/);
    }
    // A reader never migrates.
    await failsWith('schema-too-old', open(true, 'reader'));
    assert(!proxy.calls.some(({ action }) => action === 'CreateTable'));
  });

  it('migrates when told to', async () => {
    await (await open(true)).store.close();
    await (await open(false, 'reader')).store.close();
  });

  it('refuses a newer schema, and one that another version made', async () => {
    await migrate();
    await putRecord(ALL + 1, 'x');
    await failsWith('schema-too-new', open(false));
    await failsWith('schema-too-new', open(true));
    await failsWith('schema-too-new', migrate());
    table = `m${++count}`;
    await migrate();
    await putRecord(1, 'y');
    await failsWith('conflict', open(false));
    await failsWith('conflict', migrate());
  });

  it('lets a reader write nothing', async () => {
    await migrate();
    const { store } = await open(false, 'reader');
    assert.deepEqual(await store.listTopics({ limit: 5 }), []);
    // A name of a row that is gone: whoever may write deletes it.
    const sk = `${'0'.repeat(15)}1#${'0'.repeat(15)}2`;
    await post('PutItem', {
      TableName: `${table}-metadata`,
      Item: { pk: { S: 'unreferenced' }, sk: { S: sk } },
    });
    assert.deepEqual(await store.listObjects({ limit: 5, unreferencedOnly: true }), []);
    await assert.rejects(store.allocateProducerIds(1), { name: 'AssertionError' });
    await store.close();
  });
});

describe('the table', () => {
  const created = () => proxy.calls.find(({ action }) => action === 'CreateTable')?.body;

  it('is on demand and unprotected on another server, unless told', async () => {
    await migrate();
    const { BillingMode, DeletionProtectionEnabled, Tags, ProvisionedThroughput } = created();
    assert.deepEqual(
      [BillingMode, DeletionProtectionEnabled, Tags, ProvisionedThroughput],
      ['PAY_PER_REQUEST', undefined, undefined, undefined],
    );
    assert(!proxy.calls.some(({ action }) => action === 'UpdateContinuousBackups'));
  });

  it('has the capacity, the protection and the tags that the URL says', async () => {
    const on = 'UpdateContinuousBackups';
    // It cannot be turned on at once.
    proxy.inject({ on, effect: { kind: 'refuse', name: 'ContinuousBackupsUnavailableException' }, times: 2 });
    proxy.inject({ on, effect: { kind: 'reply', body: {} } });
    const options =
      '&billing=provisioned&read-units=5&write-units=7&deletion-protection=on&point-in-time-recovery=on';
    assert.equal(await migrate(urlWith(`${options}&tag.team=a%20b`)), ALL);
    const { BillingMode, ProvisionedThroughput, DeletionProtectionEnabled, Tags } = created();
    assert.deepEqual([BillingMode, DeletionProtectionEnabled], ['PROVISIONED', true]);
    assert.deepEqual(ProvisionedThroughput, { ReadCapacityUnits: 5, WriteCapacityUnits: 7 });
    assert.deepEqual(Tags, [{ Key: 'team', Value: 'a b' }]);
    const protect = proxy.calls.filter(({ action }) => action === on);
    assert.equal(protect.length, 3);
    assert.deepEqual(protect[2].body, {
      TableName: `${table}-metadata`,
      PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true },
    });
  });

  it('gets its auto-scaling by commands that migrate tells, on AWS', async () => {
    const url =
      'dynamodb://eu-central-1/p?billing=provisioned&read-units=5&write-units=7&write-units-max=70&utilisation=60';
    const { notes = [], close } = await dynamodbBackend.openMigrations(url, parts);
    await close();
    const text = notes.join('\n');
    assert.match(
      text,
      /--resource-id table\/p-metadata --scalable-dimension dynamodb:table:ReadCapacityUnits --min-capacity 5 --max-capacity 50/,
    );
    assert.match(text, /dynamodb:table:WriteCapacityUnits --min-capacity 7 --max-capacity 70/);
    assert.match(text, /"TargetValue":60\.0,.*DynamoDBWriteCapacityUtilization/);
    assert.equal(notes.length, 5);
    const onDemand = await dynamodbBackend.openMigrations('dynamodb://eu-central-1/p', parts);
    await onDemand.close();
    assert.deepEqual(onDemand.notes, []);
  });
});
