/** CockroachDB's tables without a server: what failures mean, the two profiles, URLs, words of SQL, cut bodies. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readSqlMigrations, sqlOf } from '../../../../migrations/apply.ts';
import {
  chunkBatches,
  inStatements,
  ROW_BYTES_MAX,
  rowShare,
  STATEMENT_BYTES_MAX,
  wholeBody,
} from '../../../../storage/metadata/cockroach/cockroach-bodies.ts';
import {
  COCKROACH,
  migrationText,
  POSTGRES,
} from '../../../../storage/metadata/cockroach/cockroach-capabilities.ts';
import { cockroachMeaning } from '../../../../storage/metadata/cockroach/cockroach-error.ts';
import { migrationMeaning } from '../../../../storage/metadata/cockroach/cockroach-migrations.ts';
import { readCockroachUrl, wrongServer } from '../../../../storage/metadata/cockroach/cockroach-open.ts';
import { byHome, splitStatements } from '../../../../storage/metadata/cockroach/cockroach-regions.ts';
import { cockroachStatements } from '../../../../storage/metadata/cockroach/cockroach-statements.ts';
import type { PgFailure, PgPhase } from '../../../../storage/metadata/pg-wire/pg-failure.ts';

const PHASES: PgPhase[] = ['open', 'connect', 'read', 'write', 'commit'];

function failure(sqlState: string | null, phase: PgPhase, other: Partial<PgFailure> = {}): PgFailure {
  const kind = sqlState === null ? 'lost' : 'answered';
  return { kind, phase, sqlState, isFatal: false, message: 'it went wrong', cause: null, ...other };
}

const meaningsOf = (sqlState: string | null, other: Partial<PgFailure> = {}) =>
  PHASES.map((phase) => cockroachMeaning(failure(sqlState, phase, other)));

const unavailable = 'store-unavailable';

describe('what a failure of CockroachDB means', () => {
  it('retries what collided, in every phase', () => {
    for (const state of ['40001', '40P01']) assert.deepEqual(meaningsOf(state), Array(5).fill('retry'));
  });

  it('knows the outcome of all but what was committing', () => {
    const open = [unavailable, unavailable, unavailable, unavailable, 'store-unknown'];
    // Ambiguous, cancelled by time, a node that drains, a range out of reach, internal, without a code, a lost link.
    for (const state of ['40003', '57014', '57P01', '58C00', 'XX000', 'XXUUU', '08006', null]) {
      assert.deepEqual(meaningsOf(state), open, String(state));
    }
    assert.deepEqual(meaningsOf(null, { kind: 'timed-out' }), open);
  });

  it('is certain where nothing was begun, unless the connection ended with it', () => {
    for (const state of ['53200', '53300', '55P03', '25006', '42P05', '26000', '0A000']) {
      assert.deepEqual(meaningsOf(state), Array(5).fill(unavailable), state);
      assert.equal(cockroachMeaning(failure(state, 'commit', { isFatal: true })), 'store-unknown');
    }
    assert.deepEqual(meaningsOf('53100'), Array(5).fill('disk-full'));
    assert.deepEqual(meaningsOf('54000'), Array(5).fill('item-too-large'));
    assert.deepEqual(meaningsOf('42P01'), Array(5).fill('schema-too-old'));
    assert.deepEqual(meaningsOf('23505'), Array(5).fill('corrupt-store'));
    assert.deepEqual(meaningsOf('XX001'), Array(5).fill('corrupt-store'));
  });

  it('finds wrong settings at the first connection only', () => {
    for (const state of ['28P01', '3D000', '42501']) {
      assert.deepEqual(meaningsOf(state), ['invalid-setting', ...Array(4).fill(unavailable)], state);
    }
    const tls = { kind: 'not-connected', message: 'The server does not support SSL connections' } as const;
    assert.deepEqual(meaningsOf(null, tls), ['invalid-setting', ...Array(4).fill(unavailable)]);
    assert.deepEqual(meaningsOf(null, { kind: 'not-connected' }), Array(5).fill(unavailable));
  });

  it('leaves what only a bug could do to be thrown', () => {
    for (const state of ['42601', '22P02', '23502'])
      assert.deepEqual(meaningsOf(state), Array(5).fill('bug'));
    // A server that ends the connection does so for reasons of its own.
    const ended = [...Array(4).fill(unavailable), 'store-unknown'];
    for (const state of ['25P04', 'F0000']) assert.deepEqual(meaningsOf(state, { isFatal: true }), ended);
  });

  it('in migrations repeats what a rival was doing too, and shows the operator the rest', () => {
    for (const state of ['42P07', '42710', '23505', '55000', '40001']) {
      assert.equal(migrationMeaning(failure(state, 'read')), 'retry');
    }
    assert.equal(migrationMeaning(failure('42704', 'read')), 'invalid-setting');
    assert.equal(migrationMeaning(failure('0A000', 'read')), 'invalid-setting');
    assert.equal(migrationMeaning(failure(null, 'read')), unavailable);
  });
});

describe('the profiles', () => {
  const server = 'cockroachdb://root@127.0.0.1:26257/streamhouse';
  const version = {
    cockroach: 'CockroachDB CCL v25.2.1 (x86_64-pc-linux-gnu)',
    postgres: 'PostgreSQL 18.4 on x86_64',
  };

  it('refuse the other server, and anything but serializable', () => {
    for (const profile of ['cockroach', 'postgres'] as const) {
      const settings = readCockroachUrl(`${server}?profile=${profile}`);
      for (const [name, text] of Object.entries(version)) {
        const error = wrongServer({ version: text, isolation: 'serializable' }, settings);
        if (name === profile) assert.equal(error, null);
        else {
          assert.equal(error?.code, 'invalid-setting');
          assert.match(error?.message ?? '', new RegExp(`the profile '${profile}' is not for`));
        }
      }
      const weak = wrongServer({ version: version[profile], isolation: 'read committed' }, settings);
      assert.match(weak?.message ?? '', /must be serializable/);
    }
  });

  it('differ in words, and every migration has no other', () => {
    const regional = { name: 's', isRegional: true };
    const plain = { name: 's', isRegional: false };
    const texts = readSqlMigrations('cockroach').map((migration) => sqlOf(migration));
    const withRegions = texts.map((text) => migrationText(text, COCKROACH, regional));
    const without = texts.map((text) => migrationText(text, COCKROACH, plain));
    const onPostgres = texts.map((text) => migrationText(text, POSTGRES, plain));
    const count = (all: (string | null)[], pattern: RegExp) =>
      all.filter((text) => text && pattern.test(text)).length;
    assert.equal(count(withRegions, /LOCALITY REGIONAL BY ROW AS region$/), 7);
    assert.equal(count(withRegions, /LOCALITY GLOBAL$/), 3);
    assert.equal(count(withRegions, /region public\.crdb_internal_region NOT NULL/), 7);
    assert.equal(count(without, /LOCALITY|crdb_internal_region/), 0);
    assert.equal(count(without, /CONFIGURE ZONE USING gc\.ttlseconds/), 3);
    assert.equal(count(onPostgres, /LOCALITY|crdb_internal_region|ZONE/), 0);
    assert.equal(onPostgres.filter((text) => text === null).length, 3);
    for (const text of [...withRegions, ...without, ...onPostgres])
      assert.doesNotMatch(text ?? '', /[{}]|--|;/);
    // One change each, and it may run again.
    for (const text of without) assert.match(text ?? '', /IF NOT EXISTS|CONFIGURE ZONE|ON CONFLICT/);
    assert.throws(() => migrationText('CREATE {nonsense}', POSTGRES, plain), /unknown word/);
    assert.throws(() => migrationText('-- needs: wings\nSELECT 1', POSTGRES, plain), /needs 'wings'/);
  });

  it('read the past on CockroachDB, and only where the present is not needed', () => {
    const pasts = (capabilities: typeof COCKROACH) =>
      Object.values(cockroachStatements({ name: 's', isRegional: false }, capabilities))
        .filter(({ text }) => text.includes('AS OF SYSTEM TIME'))
        .map(({ name }) => name);
    assert.deepEqual(pasts(COCKROACH), ['listHomes']);
    assert.deepEqual(pasts(POSTGRES), []);
  });

  it('take only URLs that make sense', () => {
    const read = (query: string) => readCockroachUrl(`${server}?${query}`);
    assert.deepEqual(read('').wanted, null);
    assert.equal(read('').schemaName, 'streamhouse');
    assert.equal(read('').url.server.port, 26257);
    const three = read(
      'primary-region=us-east1&regions=us-west1,eu-west1,us-east1&survival=region&region=eu-west1',
    );
    assert.deepEqual(three.wanted, {
      primary: 'us-east1',
      all: ['us-east1', 'us-west1', 'eu-west1'],
      survival: 'region',
    });
    assert.equal(three.region, 'eu-west1');
    assert.equal(read('pre-split=off').capabilities.splits, false);
    for (const [query, message] of [
      ['profile=mysql', /profile in the metadata URL is cockroach or postgres/],
      ['regions=us-east1', /need a primary-region/],
      ['survival=region', /need a primary-region/],
      ['primary-region=a&regions=b&survival=region', /three regions/],
      ['primary-region=a&survival=planet', /survival in the metadata URL is zone or region/],
      ['primary-region=a%22b', /no region's name/],
      ['region=a;b', /no region's name/],
      ['profile=postgres&region=a', /its profile has not/],
      ['profile=postgres&primary-region=a', /its profile has not/],
      ['schema=a%22', /no schema's name/],
      ['pgbouncer=true', /no setting 'pgbouncer'/],
    ] as const) {
      assert.throws(() => read(query), { code: 'invalid-setting', message }, query);
    }
  });
});

describe('regions', () => {
  it('split both tables by shard, in every region, some at a time', () => {
    const plain = splitStatements({ name: 'sh', isRegional: false }, [''], 4);
    assert.deepEqual(plain, [
      'ALTER TABLE "sh".heads SPLIT AT VALUES (1), (2), (3)',
      `ALTER TABLE "sh".entries SPLIT AT VALUES ('', 1), ('', 2), ('', 3)`,
    ]);
    const regional = splitStatements({ name: 'sh', isRegional: true }, ['a', 'b'], 64);
    assert.equal(regional.length, 2 * Math.ceil((63 * 2) / 8));
    assert.match(regional[0], /^ALTER TABLE "sh"\.heads SPLIT AT VALUES \('a', 1\), \('a', 2\)/);
    assert.match(regional.at(-1)!, /^ALTER TABLE "sh"\.entries SPLIT AT VALUES .*\('b', 63\)$/);
    assert.deepEqual(splitStatements({ name: 'sh', isRegional: false }, [''], 1), []);
  });

  it('put the shards at home first, and lose none', () => {
    const homes = new Map([
      [0, 'a'],
      [1, 'b'],
      [2, 'a'],
    ]);
    assert.deepEqual(byHome([3, 2, 1, 0], homes, 'a'), [2, 0, 3, 1]);
    assert.deepEqual(byHome([3, 2, 1, 0], new Map(), 'a'), [3, 2, 1, 0]);
  });
});

describe('bodies', () => {
  const body = (length: number) => new Uint8Array(length).map((_, i) => (i * 7 + (i >> 16)) & 0xff);

  for (const length of [0, 1, ROW_BYTES_MAX, ROW_BYTES_MAX + 1, 3 * ROW_BYTES_MAX, 16 * ROW_BYTES_MAX]) {
    it(`of ${length} bytes are cut and put together`, () => {
      const whole = body(length);
      const batches = chunkBatches(whole);
      const chunks = batches.flat();
      assert.deepEqual(
        chunks.map(({ chunk }) => chunk),
        chunks.map((_, i) => i + 1),
      );
      for (const { bytes } of chunks) assert(bytes.length > 0 && bytes.length <= ROW_BYTES_MAX);
      for (const batch of batches) {
        assert(batch.reduce((sum, { bytes }) => sum + bytes.length, 0) <= STATEMENT_BYTES_MAX);
      }
      const parts = chunks.map(({ bytes }) => bytes);
      const joined = wholeBody(rowShare(whole), parts, length, 'x');
      assert(Buffer.from(joined).equals(whole));
      if (parts.length > 0) {
        assert.throws(() => wholeBody(rowShare(whole), parts.slice(1), length, 'x'), {
          code: 'corrupt-store',
        });
      }
    });
  }

  it('go into statements in order, as many as fit, and one that is larger alone', () => {
    const sizes = [3, 5, 1, 9, 2].map((size) => size * 1024 * 1024);
    assert.deepEqual(
      inStatements(sizes, (size) => size).map((group) => group.length),
      [2, 1, 1, 1],
    );
    assert.deepEqual(
      inStatements([], () => 1),
      [],
    );
  });
});
