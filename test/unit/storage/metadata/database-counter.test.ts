/**
 * What databases count of themselves, against what was asked of them: PostgreSQL with and without pg_stat_statements,
 * and DynamoDB's requests as its server sees them. Servers are real, and of these tests alone.
 */
import assert from 'node:assert/strict';
import type { Server } from 'node:http';
import { after, before, describe, it } from 'node:test';
import dynalite from 'dynalite';
import pg from 'pg';
import { systemClock } from '../../../../src/core/clock.ts';
import type { DatabaseCounter } from '../../../../storage/metadata/database-counter.ts';
import { loadBackend } from '../../../../storage/metadata/metadata-backends.ts';
import type { MetadataStore } from '../../../../storage/metadata/metadata-store.ts';
import { type OpenedMetadata, openMetadata } from '../../../../storage/metadata/open-metadata-store.ts';
import { PgDatabaseCounter } from '../../../../storage/metadata/pg-wire/pg-database-counter.ts';
import { readPgUrl } from '../../../../storage/metadata/pg-wire/pg-url.ts';
import { cockroachUrlOn } from '../../../support/cockroach-on-postgres.ts';
import { giveKeys } from '../../../support/dynalite-server.ts';
import { ManualClock } from '../../../support/manual-clock.ts';
import { type PostgresServer, startPostgres } from '../../../support/postgres-server.ts';

async function counterOf(url: string): Promise<DatabaseCounter> {
  const counter = (await loadBackend(url)).databaseCounter?.(url, { clock: systemClock });
  assert.ok(counter);
  return counter;
}

/** Calls of one statement each, of both pools, and one transaction of several statements at the end. */
async function callStore(store: MetadataStore, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    await Promise.all([store.getTopic(`none-${i}`), store.allocateProducerIds(1)]);
  }
  // Not an empty one: the server tells of those with the next that is not.
  await store.importRows({ lastIds: { topic: 1, incarnation: 1, producer: 1 } });
}

describe("PostgreSQL's count", () => {
  let server: PostgresServer;
  let admin: pg.Client;
  let plainUrl = '';
  before(async () => {
    server = await startPostgres({
      isDurable: false,
      // A vacuum that comes by itself is a transaction too.
      flags: ['shared_preload_libraries=pg_stat_statements', 'autovacuum=off'].flatMap((one) => ['-c', one]),
    });
    admin = new pg.Client({ connectionString: server.url });
    await admin.connect();
    await admin.query('CREATE EXTENSION pg_stat_statements');
    await admin.query('CREATE DATABASE plain');
    plainUrl = server.url.replace(/postgres$/, 'plain');
  });
  after(async () => {
    await admin.end();
    await server.stop();
  });

  const opened = async (url: string): Promise<OpenedMetadata> => {
    const metadata = await openMetadata(url, { role: 'broker', migrate: true });
    const parts = { clusterId: 'c', storeIncarnation: 's', shardCount: 4, createdAtMs: 1 };
    await metadata.store.initCluster(parts);
    // Connections that are opened later ask for more.
    await callStore(metadata.store, 1);
    return metadata;
  };

  it('is that of pg_stat_statements where it is: every statement, and none of its own', async () => {
    for (const url of [server.storeUrl(), cockroachUrlOn(server.storeUrl())]) {
      const { store, counters, close } = await opened(url);
      const counter = await counterOf(url);
      try {
        await counter.start();
        const before = counters.read('statements');
        await callStore(store, 40);
        const counted = await counter.count();
        const sent = counters.read('statements') - before;
        assert.deepEqual(counted, { statements: sent, unit: 'statements', source: 'pg_stat_statements' });
        assert.ok(sent > 80);
      } finally {
        await counter.close();
        await close();
      }
    }
  });

  it('is no figure once the server forgot a part of it', async () => {
    const counter = await counterOf(server.storeUrl());
    try {
      await counter.start();
      await admin.query('SELECT pg_stat_statements_reset()');
      const { statements, source } = await counter.count();
      assert.equal(statements, null);
      assert.equal(
        source,
        'pg_stat_statements could not be asked: it forgot what it had counted before the end',
      );
    } finally {
      await counter.close();
    }
  });

  it('is that of transactions, without the extension, however late the server tells them', async () => {
    const url = `${plainUrl}?durability=unchecked`;
    const { store, close } = await opened(url);
    const counter = await counterOf(url);
    try {
      await counter.start();
      await callStore(store, 40);
      const { statements, unit, source } = await counter.count();
      // The last transactions of idle connections are those that a look without a wait does not have.
      assert.deepEqual([statements, unit], [81, 'transactions'], source);
      assert.match(source, /^pg_stat_database /);
    } finally {
      await counter.close();
      await close();
    }
  });

  it('takes off what it asked itself, with nobody else there', async () => {
    for (const delayMs of [1, 1500]) {
      const counter = new PgDatabaseCounter(readPgUrl(plainUrl, []), { clock: systemClock, delayMs });
      try {
        await counter.start();
        assert.equal((await counter.count()).statements, 0);
      } finally {
        await counter.close();
      }
    }
  });

  it('tells why there is none, and throws nothing', async () => {
    const nowhere = new PgDatabaseCounter(readPgUrl('postgres://x:y@127.0.0.1:1/none', []), {
      clock: new ManualClock(),
    });
    await nowhere.start();
    const { statements, source } = await nowhere.count();
    await nowhere.close();
    assert.equal(statements, null);
    assert.match(source, /could not be asked: .*ECONNREFUSED/);

    const lost = await counterOf(server.storeUrl());
    await lost.start();
    await admin.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'streamhouse counter'",
    );
    assert.equal((await lost.count()).statements, null);
    await lost.close();
  });

  it('is asked neither through a pool of connections nor of CockroachDB itself', async () => {
    for (const url of ['postgres://localhost/x?pgbouncer=true', 'cockroachdb://localhost/x']) {
      assert.equal((await loadBackend(url)).databaseCounter?.(url, { clock: systemClock }), null);
    }
  });
});

describe("DynamoDB's requests", () => {
  it('are counted by the store as the server gets them', async () => {
    giveKeys();
    const server: Server = dynalite({ createTableMs: 0, deleteTableMs: 0 });
    let received = 0;
    server.on('request', () => received++);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const endpoint = encodeURIComponent(`http://127.0.0.1:${port}`);
    const url = `dynamodb://us-east-1/count?endpoint=${endpoint}&deletion-protection=off&point-in-time-recovery=off`;
    const { store, counters, close } = await openMetadata(url, { role: 'broker', migrate: true });
    try {
      const parts = { clusterId: 'c', storeIncarnation: 's', shardCount: 4, createdAtMs: 1 };
      await store.initCluster(parts);
      const before = { received, counted: counters.read('statements') };
      for (let i = 0; i < 30; i++) {
        await Promise.all([store.getTopic(`none-${i}`), store.allocateProducerIds(1)]);
      }
      const heads = await Promise.all([0, 1, 2, 3].map((shard) => store.readHead(shard)));
      assert.equal(heads.length, 4);
      assert.equal(counters.read('statements') - before.counted, received - before.received);
      assert.ok(received - before.received >= 60);
      assert.ok(counters.read('readUnits') > 0 && counters.read('writeUnits') > 0);
    } finally {
      await close();
      server.closeAllConnections();
      server.close();
    }
  });
});
