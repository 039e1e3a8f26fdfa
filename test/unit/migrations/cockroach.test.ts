/**
 * Migrations without a lock: twenty at once, cut off at every statement, an older and a newer version, the wrong
 * server. CockroachDB's own, on a PostgreSQL server.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { applyMigrations, parseMigration, readSqlMigrations } from '../../../migrations/apply.ts';
import { systemClock } from '../../../src/core/clock.ts';
import { systemRandom } from '../../../src/core/random.ts';
import { cockroachBackend } from '../../../storage/metadata/cockroach/cockroach-backend.ts';
import { StoreCounters } from '../../../storage/metadata/store-counters.ts';
import { onPostgres } from '../../support/cockroach-store.ts';
import { startPostgresWireProxy } from '../../support/postgres-wire-proxy.ts';

const parts = () => ({ clock: systemClock, random: systemRandom, counters: new StoreCounters() });
const known = readSqlMigrations('cockroach');

/** What is recorded, and whether a broker can work on it. */
async function checkSchema(url: string): Promise<void> {
  const opened = await cockroachBackend.openMigrations(url, parts());
  const applied = await opened.target.exclusively((session) => session.applied());
  await opened.close();
  assert.deepEqual(
    applied.map(({ number, name, checksum }) => ({ number, name, checksum })),
    known.map(({ number, name, checksum }) => ({ number, name, checksum })),
  );
  const { store } = await cockroachBackend.open(url, { ...parts(), role: 'broker', migrate: false });
  await store.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount: 2, createdAtMs: 1 });
  assert.equal(
    (await store.createTopic({ name: 't', partitionCount: 1, configs: {}, createdAtMs: 1 })).topicId,
    1,
  );
  assert.equal(await store.allocateProducerIds(1), 1);
  await store.close();
}

describe("CockroachDB's migrations", () => {
  it('are numbered from 1 without gaps, one statement each', () => {
    known.forEach(({ number, sql }, i) => {
      assert.equal(number, i + 1);
      assert.doesNotMatch(sql!.replace(/--.*$/gm, ''), /;/);
    });
  });

  it('are applied by twenty at once, and recorded once', { timeout: 120_000 }, async () => {
    const { url } = await onPostgres({ connections: '2' });
    const done = await Promise.all(
      Array.from({ length: 20 }, async () => {
        const opened = await cockroachBackend.openMigrations(url, parts());
        const applied = await applyMigrations(opened.target, opened.known);
        await opened.close();
        return applied.length;
      }),
    );
    // Who finds a step undone does it, so that several may have done the same one.
    assert(Math.max(...done) >= 1);
    await checkSchema(url);
    const again = await cockroachBackend.openMigrations(url, parts());
    assert.deepEqual(await applyMigrations(again.target, again.known), []);
    await again.close();
  });

  it('go on where they were cut off, at whatever statement', { timeout: 120_000 }, async () => {
    const { url } = await onPostgres({ connections: '2' });
    const direct = new URL(url);
    const proxy = await startPostgresWireProxy({ host: direct.hostname, port: Number(direct.port) });
    const through = url.replace(`:${direct.port}/`, `:${proxy.port}/`);
    const changes = new Set<string>();
    let cuts = 0;
    for (let attempt = 1; ; attempt++) {
      assert(attempt < 1000);
      // Each attempt gets one change further than the one before, which is done and then not heard of.
      let isCut = false;
      proxy.setPlan(({ text }) => {
        if (isCut || !/^(create|alter|insert)/i.test(text) || changes.has(text)) return null;
        changes.add(text);
        isCut = true;
        return { kind: 'cut-after' };
      });
      const opened = await cockroachBackend.openMigrations(through, parts());
      try {
        await applyMigrations(opened.target, opened.known);
        break;
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'store-unavailable');
        cuts++;
      } finally {
        await opened.close();
      }
    }
    proxy.setPlan(null);
    await proxy.close();
    assert(cuts >= known.length, `${cuts} cuts`);
    await checkSchema(url);
  });

  it('are asked for by whoever may not apply them, and refused by an older version', async () => {
    const { url } = await onPostgres();
    for (const role of ['broker', 'reader'] as const) {
      await assert.rejects(cockroachBackend.open(url, { ...parts(), role, migrate: false }), {
        code: 'schema-too-old',
        message: /has schema 0, this version of streamhouse needs \d+: run `streamhouse migrate/,
      });
    }
    const opened = await cockroachBackend.openMigrations(url, parts());
    try {
      const future = parseMigration(`${String(known.length + 1).padStart(4, '0')}-future.sql`, 'SELECT 1');
      assert.equal((await applyMigrations(opened.target, [...known, future])).length, known.length + 1);
      await assert.rejects(applyMigrations(opened.target, known), { code: 'schema-too-new' });
      const edited = { ...known[0], checksum: 'other' };
      await assert.rejects(applyMigrations(opened.target, [edited, ...known.slice(1), future]), {
        code: 'conflict',
      });
    } finally {
      await opened.close();
    }
    await assert.rejects(cockroachBackend.open(url, { ...parts(), role: 'broker', migrate: true }), {
      code: 'schema-too-new',
    });
  });

  it('show the operator what the server refuses', async () => {
    const { url } = await onPostgres();
    const opened = await cockroachBackend.openMigrations(url, parts());
    const broken = parseMigration('0001-broken.sql', 'CREATE TABLE nowhere.t (x INT8)');
    await assert.rejects(applyMigrations(opened.target, [broken]), {
      code: 'invalid-setting',
      message: /schema "nowhere" does not exist/,
    });
    await opened.close();
  });

  it('and stores refuse a server that is not of their profile', async () => {
    const { url } = await onPostgres();
    const wrong = url.replace('profile=postgres', 'profile=cockroach');
    const refused = {
      code: 'invalid-setting',
      message: /the server is 'PostgreSQL .*PostgreSQL has the scheme postgres:/,
    };
    await assert.rejects(cockroachBackend.openMigrations(wrong, parts()), refused);
    await assert.rejects(
      cockroachBackend.open(wrong, { ...parts(), role: 'broker', migrate: true }),
      refused,
    );
  });
});
