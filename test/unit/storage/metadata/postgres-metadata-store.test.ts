/**
 * What the contract suite cannot ask of PostgreSQL: rivals at the row level, where READ COMMITTED shows a snapshot and
 * a lock shows more; migrations by many at once; roles; servers that must be refused.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { readSqlMigrations } from '../../../../migrations/apply.ts';
import { systemClock } from '../../../../src/core/clock.ts';
import { type ErrorCode, StreamHouseError } from '../../../../src/core/errors.ts';
import { seededRandom, systemRandom } from '../../../../src/core/random.ts';
import type { MetadataStore } from '../../../../storage/metadata/metadata-store.ts';
import { openMetadata } from '../../../../storage/metadata/open-metadata-store.ts';
import { postgresBackend } from '../../../../storage/metadata/postgres/postgres-backend.ts';
import { startPostgres } from '../../../support/postgres-server.ts';
import {
  entryAt,
  type OpenedPostgres,
  openPostgresStore,
  plainClient,
  prepareCluster,
  schemaOf,
} from '../../../support/postgres-stores.ts';
import { sharedPgbouncer, sharedPostgres } from '../../../support/shared-postgres.ts';

async function failsToOpen(url: string, code: ErrorCode, settings = {}): Promise<string> {
  const error = await openPostgresStore(url, settings).then(
    async ({ store }) => {
      await store.close();
      return new Error('it opened');
    },
    (reason) => reason,
  );
  assert(error instanceof StreamHouseError, `${error}`);
  assert.equal(error.code, code, error.message);
  assert(!error.message.includes('\n'));
  return error.message;
}

describe('rivals on PostgreSQL', () => {
  let url: string;
  let mine: OpenedPostgres;
  let other: OpenedPostgres;
  let store: MetadataStore;
  let rival: MetadataStore;

  before(async () => {
    url = (await sharedPostgres()).storeUrl();
    mine = await openPostgresStore(url);
    other = await openPostgresStore(url, { migrate: false });
    [store, rival] = [mine.store, other.store];
    await prepareCluster(store, 16);
  });
  after(async () => {
    await store.close();
    await rival.close();
  });

  it('are shown the newest head, not the snapshot that their statement began with', async () => {
    const client = await plainClient((await sharedPostgres()).url);
    const heads = `"${schemaOf(url)}".heads`;
    // Somebody holds the head at 0, moves it to 1 and takes a moment to commit.
    for (const [shard, seq, expected] of [
      [0, 1, 'conflict'],
      [1, 2, 'done'],
    ] as const) {
      await client.query('BEGIN');
      await client.query(`UPDATE ${heads} SET head_seq = 1, head_commit_id = 'other' WHERE shard = ${shard}`);
      const appended = store.appendEntries([entryAt(shard, seq)], []);
      await waiting(client);
      await client.query('COMMIT');
      const [outcome] = await appended;
      assert.equal(outcome.kind, expected);
      if (outcome.kind === 'conflict') {
        assert.deepEqual([outcome.head.headSeq, outcome.head.headCommitId], [1, 'other']);
      }
      assert.equal((await store.readHead(shard)).headSeq, Math.max(1, expected === 'done' ? seq : 1));
    }
    // A rollback leaves the head as it was: the one who waited has it.
    await client.query('BEGIN');
    await client.query(`UPDATE ${heads} SET head_seq = 1, head_commit_id = 'other' WHERE shard = 2`);
    const appended = store.appendEntries([entryAt(2, 1)], []);
    await waiting(client);
    await client.query('ROLLBACK');
    assert.deepEqual(await appended, [{ kind: 'done' }]);
    // The epoch is raised while the append waits.
    await client.query('BEGIN');
    await client.query(`UPDATE ${heads} SET epoch = 2, holder = 9 WHERE shard = 3`);
    const fenced = store.appendEntries([entryAt(3, 1)], []);
    await waiting(client);
    await client.query('COMMIT');
    const [outcome] = await fenced;
    assert(outcome.kind === 'conflict');
    assert.deepEqual([outcome.head.epoch, outcome.head.holder, outcome.head.headSeq], [2, 9, 0]);
    assert.deepEqual(await store.readEntries(3, 0, 1e9), []);
    await client.end();
  });

  it('append to overlapping shards in any order without a deadlock, one winner of each', async () => {
    const random = seededRandom(5);
    const shards = [4, 5, 6, 7, 8, 9, 10, 11];
    const shuffled = () =>
      shards
        .map((shard) => ({ shard, key: random.unit() }))
        .sort((a, b) => a.key - b.key)
        .slice(0, 5)
        .map(({ shard }) => shard);
    const seqs = new Map(shards.map((shard) => [shard, 0]));
    for (let round = 0; round < 150; round++) {
      const calls = [store, rival, store, rival].map((one, i) => {
        const entries = shuffled().map((shard) =>
          entryAt(shard, (seqs.get(shard) as number) + 1, `r${round}-${i}`),
        );
        const object = { incarnation: i, number: round };
        const shared = { incarnation: 99, number: round };
        const row = { bytes: 1, createdAtMs: 1, shards: [] };
        const objects = [object, shared].map((id) => ({ ...row, object: id }));
        return { entries, appended: one.appendEntries(entries, i % 2 ? objects : objects.reverse()) };
      });
      const winners = new Map<number, string[]>();
      for (const { entries, appended } of calls) {
        for (const [i, { kind }] of (await appended).entries()) {
          if (kind !== 'done') continue;
          const { shard, commitId } = entries[i];
          winners.set(shard, [...(winners.get(shard) ?? []), commitId]);
        }
      }
      const asked = new Set(calls.flatMap(({ entries }) => entries.map(({ shard }) => shard)));
      for (const shard of asked) {
        const won = winners.get(shard) ?? [];
        assert.equal(won.length, 1, `shard ${shard} in round ${round}: ${won}`);
        seqs.set(shard, (seqs.get(shard) as number) + 1);
        const head = await store.readHead(shard);
        assert.deepEqual([head.headSeq, head.headCommitId], [seqs.get(shard), won[0]]);
      }
    }
    const retries = mine.counters.read('conflictRetries') + other.counters.read('conflictRetries');
    assert.equal(retries, 0, 'a deadlock was found and resolved by the server');
  });

  it('put the same pages in opposite orders, and the highest stamp stays', async () => {
    const page = (partition: number, stamp: number) => ({
      topicId: 1,
      partition,
      shard: 0,
      baseOffset: 0,
      stamp,
      bytes: new Uint8Array(3000).fill(stamp),
    });
    const partitions = Array.from({ length: 40 }, (_, i) => i);
    for (let round = 0; round < 30; round++) {
      const [low, high] = [round * 2 + 1, round * 2 + 2];
      await Promise.all([
        store.putPages(partitions.map((partition) => page(partition, low))),
        rival.putPages([...partitions].reverse().map((partition) => page(partition, high))),
      ]);
      const found = await store.findPages(
        partitions.map((partition) => ({ topicId: 1, partition, offset: 0 })),
      );
      assert.deepEqual(
        found,
        partitions.map((partition) => page(partition, high)),
      );
    }
    assert.equal(mine.counters.read('conflictRetries') + other.counters.read('conflictRetries'), 0);
  });

  it('drop references of the same objects at once and lose none of the drops', async () => {
    const shards = Array.from({ length: 12 }, (_, shard) => ({ shard, epoch: 5 }));
    const ids = Array.from({ length: 20 }, (_, number) => ({ incarnation: 500, number }));
    await store.appendEntries(
      [],
      ids.map((object) => ({ object, bytes: 1, createdAtMs: 1, shards })),
    );
    await Promise.all(
      shards.map(({ shard }) => {
        const drops = ids.map((object) => ({ shard, object, belowEpoch: shard % 2 ? 6 : null }));
        return (shard % 3 ? store : rival).dropReferences(shard % 2 ? drops : drops.reverse());
      }),
    );
    for (const object of await store.getObjects(ids)) assert.deepEqual(object?.shards, []);
    const unreferenced = await store.listObjects({
      after: { incarnation: 499, number: 0 },
      limit: 100,
      unreferencedOnly: true,
    });
    assert.equal(unreferenced.length, ids.length);
    await Promise.all([store.markObjects(ids, 7), rival.markObjects([...ids].reverse(), 8)]);
    const marks = (await store.getObjects(ids)).map((object) => object?.markedAtMs);
    assert.equal(new Set(marks).size, 1);
    await Promise.all([store.forgetObjects(ids), rival.forgetObjects([...ids].reverse())]);
    assert.deepEqual(
      await store.getObjects(ids),
      ids.map(() => null),
    );
    assert.equal(mine.counters.read('conflictRetries') + other.counters.read('conflictRetries'), 0);
  });

  it('give the same object rows twice in one call, and the first stays', async () => {
    const row = (bytes: number) => ({
      object: { incarnation: 600, number: 1 },
      bytes,
      createdAtMs: 1,
      shards: [{ shard: bytes, epoch: 1 }],
    });
    await store.appendEntries([], [row(1), row(2), row(1)]);
    assert.deepEqual(await store.getObjects([row(1).object]), [{ ...row(1), markedAtMs: null }]);
  });

  it('delete and create a topic under a change of it', async () => {
    for (let round = 0; round < 40; round++) {
      const name = `life-${round}`;
      await store.createTopic({ name, partitionCount: 1, configs: {}, createdAtMs: 1 });
      const settled = await Promise.allSettled([
        rival.deleteTopic(name),
        store.growTopic(name, 5),
        store.alterTopic(name, { a: '1' }),
      ]);
      assert.equal(settled[0].status, 'fulfilled');
      for (const one of settled.slice(1)) {
        if (one.status === 'rejected') assert.equal(one.reason.code, 'topic-not-found');
      }
      assert.equal(await store.getTopic(name), null);
      const grew = settled.slice(1).filter(({ status }) => status === 'fulfilled').length;
      const gone = settled[0].status === 'fulfilled' ? settled[0].value : null;
      assert.equal(gone?.version, 2 + grew, 'the topic that was deleted has every change that was confirmed');
    }
  });

  it('never sees entries below the trim, though they are still there', async () => {
    const shard = 12;
    for (let seq = 1; seq <= 4; seq++) await store.appendEntries([entryAt(shard, seq)], []);
    await store.movePointer(shard, 1, { seq: 4, writer: 1 });
    const client = await plainClient((await sharedPostgres()).url);
    await client.query(`UPDATE "${schemaOf(url)}".heads SET trimmed_through = 3 WHERE shard = ${shard}`);
    assert.deepEqual(
      (await store.readEntries(shard, 0, 1e9)).map(({ seq }) => seq),
      [4],
    );
    // Trimming again, through what is trimmed already, clears away what was left.
    await store.trim(shard, 3);
    const { rows } = await client.query(`SELECT seq FROM "${schemaOf(url)}".entries WHERE shard = ${shard}`);
    assert.deepEqual(rows, [{ seq: '4' }]);
    await client.end();
  });

  it('trim a shard whose head moves meanwhile', async () => {
    const shard = 14;
    for (let seq = 1; seq <= 4; seq++) await store.appendEntries([entryAt(shard, seq)], []);
    await store.movePointer(shard, 1, { seq: 3, writer: 1 });
    const client = await plainClient((await sharedPostgres()).url);
    await client.query('BEGIN');
    await client.query(
      `UPDATE "${schemaOf(url)}".heads SET head_seq = 5, head_commit_id = 'five' WHERE shard = ${shard}`,
    );
    const trimmed = store.trim(shard, 3);
    await waiting(client);
    await client.query('COMMIT');
    await trimmed;
    const head = await store.readHead(shard);
    assert.deepEqual([head.headSeq, head.headCommitId, head.trimmedThrough], [5, 'five', 3]);
    assert.deepEqual(
      (await store.readEntries(shard, 0, 1e9)).map(({ seq }) => seq),
      [4],
    );
    await client.end();
  });

  it('drop many references in one call', async () => {
    const shards = Array.from({ length: 16 }, (_, shard) => ({ shard, epoch: 1 }));
    const ids = Array.from({ length: 2000 }, (_, number) => ({ incarnation: 700, number }));
    await store.appendEntries(
      [],
      ids.map((object) => ({ object, bytes: 1, createdAtMs: 1, shards })),
    );
    const beganMs = performance.now();
    await store.dropReferences(
      ids.flatMap((object) => shards.map(({ shard }) => ({ shard, object, belowEpoch: null }))),
    );
    assert(performance.now() - beganMs < 4000, 'its time grew with the square of their number');
    assert((await store.getObjects(ids)).every((object) => object?.shards.length === 0));
  });

  it('reads a log that is longer than one statement looks at', async () => {
    const shard = 13;
    const client = await plainClient((await sharedPostgres()).url);
    const schema = schemaOf(url);
    await client.query(
      `INSERT INTO "${schema}".entries SELECT ${shard}, seq, 1, 'c' || seq, '\\x0102' FROM generate_series(1, 2500) AS seq`,
    );
    await client.query(`UPDATE "${schema}".heads SET head_seq = 2500 WHERE shard = ${shard}`);
    const lengths = async (after: number, bytesMax: number) =>
      (await store.readEntries(shard, after, bytesMax)).length;
    assert.deepEqual(
      [
        await lengths(0, 1e9),
        await lengths(500, 1e9),
        await lengths(1500, 1e9),
        await lengths(0, 2000),
        await lengths(0, 2001),
        await lengths(0, 2002),
        await lengths(0, 1),
      ],
      [2500, 2000, 1000, 1000, 1000, 1001, 1],
    );
    await client.end();
  });

  it('takes more bodies than one statement holds, and nothing of them if a shard is none', async () => {
    const { store: large } = await openPostgresStore((await sharedPostgres()).storeUrl());
    await prepareCluster(large, 9);
    const body = new Uint8Array(large.bodyBytesMax).fill(7);
    const entries = Array.from({ length: 9 }, (_, shard) => ({ ...entryAt(shard, 1), body }));
    const wrong = entries.map((entry) => (entry.shard === 8 ? { ...entry, shard: 77 } : entry));
    await assert.rejects(large.appendEntries(wrong, []), { code: 'shard-not-found' });
    assert((await large.listLeases()).every(({ headSeq }) => headSeq === 0));
    const outcomes = await large.appendEntries(entries, []);
    assert(outcomes.every(({ kind }) => kind === 'done'));
    assert((await large.listLeases()).every(({ headSeq }) => headSeq === 1));
    await large.close();
  });

  it('says of more bodies than one statement holds that it may have happened when a part of them is in', async () => {
    const url = (await sharedPostgres()).storeUrl({ lock_timeout_ms: '200' });
    const { store: large } = await openPostgresStore(url);
    const client = await plainClient(url);
    try {
      await prepareCluster(large, 9);
      const bytes = new Uint8Array(large.bodyBytesMax).fill(7);
      const entries = Array.from({ length: 9 }, (_, shard) => ({ ...entryAt(shard, 1), body: bytes }));
      const page = { topicId: 1, shard: 0, baseOffset: 0, stamp: 1, bytes };
      const pages = entries.map(({ shard: partition }) => ({ ...page, partition }));
      const schema = `"${schemaOf(url)}"`;
      await large.putPages(pages.slice(8));
      await client.query(`BEGIN; SELECT FROM ${schema}.heads WHERE shard = 8 FOR UPDATE`);
      await client.query(`SELECT FROM ${schema}.pages WHERE partition = 8 FOR UPDATE`);
      await assert.rejects(large.appendEntries(entries, []), { code: 'store-unknown' });
      await assert.rejects(large.appendEntries(entries.slice(8), []), { code: 'store-unavailable' });
      const newer = pages.map((one) => ({ ...one, stamp: 2 }));
      await assert.rejects(large.putPages(newer), { code: 'store-unknown' });
      await client.query('ROLLBACK');
      assert.equal((await large.readHead(0)).headSeq, 1);
      assert.equal((await large.readHead(8)).headSeq, 0);
    } finally {
      await client.end();
      await large.close();
    }
  });
});

/** Until somebody waits for a lock that `client` holds. */
async function waiting(client: Awaited<ReturnType<typeof plainClient>>): Promise<void> {
  for (let tries = 0; tries < 1000; tries++) {
    const { rows } = await client.query(
      'SELECT count(*)::int AS count FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))',
    );
    if (rows[0].count > 0) return;
  }
  throw new Error('nobody waits');
}

describe('the schema of PostgreSQL', () => {
  it('is migrated once by twenty at the same time, each on a thread of its own', async () => {
    const url = (await sharedPostgres()).storeUrl();
    const opened = await Promise.all(
      Array.from({ length: 20 }, () => openMetadata(url, { role: 'broker', migrate: true })),
    );
    const clusters = await Promise.all(
      opened.map(({ store }, i) =>
        store.initCluster({ clusterId: `c-${i}`, storeIncarnation: 's', shardCount: 4, createdAtMs: 1 }),
      ),
    );
    assert.equal(new Set(clusters.map(({ clusterId }) => clusterId)).size, 1);
    await Promise.all(opened.map((one) => one.close()));
    const client = await plainClient((await sharedPostgres()).url);
    const { rows } = await client.query(
      `SELECT number, count(*)::int AS count FROM "${schemaOf(url)}".schema_migrations GROUP BY number ORDER BY number`,
    );
    assert.deepEqual(
      rows,
      readSqlMigrations('postgres').map(({ number }) => ({ number, count: 1 })),
    );
    await client.end();
  });

  it('is not made by who was not asked to', async () => {
    const url = (await sharedPostgres()).storeUrl();
    for (const settings of [{ migrate: false }, { role: 'reader' as const, migrate: true }]) {
      assert.match(
        await failsToOpen(url, 'schema-too-old', settings),
        /has schema 0, .* run `streamhouse migrate/,
      );
    }
    const parts = { clock: systemClock, random: systemRandom };
    const { target, known, close } = await postgresBackend.openMigrations(url, parts);
    assert.equal((await target.exclusively((session) => session.applied())).length, 0);
    const client = await plainClient((await sharedPostgres()).url);
    const schemas = await client.query('SELECT 1 FROM pg_namespace WHERE nspname = $1', [schemaOf(url)]);
    assert.equal(schemas.rowCount, 0, 'looking made the schema');
    // A migration that fails leaves nothing behind.
    const broken = { ...known[0], sql: `${known[0].sql}; SELECT 1 / 0;` };
    await assert.rejects(target.exclusively((session) => session.apply(broken)));
    assert.equal((await target.exclusively((session) => session.applied())).length, 0);
    for (const migration of known) await target.exclusively((session) => session.apply(migration));
    assert.equal((await target.exclusively((session) => session.applied())).length, known.length);
    await close();
    const { store } = await openPostgresStore(url, { migrate: false });
    await store.close();
    const migrations = `"${schemaOf(url)}".schema_migrations`;
    await client.query(
      `INSERT INTO ${migrations} VALUES (${known.length + 1}, 'of-tomorrow', 'x', 1, false)`,
    );
    await (await openPostgresStore(url, { migrate: false })).store.close();
    await client.query(`UPDATE ${migrations} SET breaking = true WHERE number = ${known.length + 1}`);
    await failsToOpen(url, 'schema-too-new');
    await client.end();
  });

  it('is one of several in a database', async () => {
    const server = await sharedPostgres();
    const one = await openPostgresStore(server.storeUrl({ schema: 'Two-Words' }));
    const two = await openPostgresStore(server.storeUrl({ schema: 'public' }));
    await prepareCluster(one.store, 2);
    assert.equal(await two.store.getCluster(), null);
    assert.match(one.store.description, /^postgres:\/\/127\.0\.0\.1:\d+\/postgres, schema Two-Words$/);
    await one.store.close();
    await two.store.close();
  });

  it('needs rights, and says which are missing', async () => {
    const server = await sharedPostgres();
    const client = await plainClient(server.url);
    await client.query(`DROP ROLE IF EXISTS weak; CREATE ROLE weak LOGIN PASSWORD 'weak-secret'`);
    const url = new URL(server.storeUrl());
    url.username = 'weak';
    url.password = 'weak-secret';
    assert.match(await failsToOpen(url.href, 'invalid-setting'), /permission denied for database/);
    // An operator made the schema: that is enough.
    await client.query(`CREATE SCHEMA "${schemaOf(url.href)}" AUTHORIZATION weak`);
    await (await openPostgresStore(url.href)).store.close();
    await client.query(`ALTER SCHEMA "${schemaOf(url.href)}" OWNER TO postgres`);
    const message = await failsToOpen(url.href, 'invalid-setting', { migrate: false });
    assert.match(message, /permission denied for schema/);
    assert(!message.includes('weak-secret'));
    await client.query(`DROP SCHEMA "${schemaOf(url.href)}" CASCADE; DROP ROLE weak`);
    await client.end();
  });

  it('that a migration changes under a running broker leaves stale plans, which are made anew', async () => {
    const url = (await sharedPostgres()).storeUrl();
    const { store, counters } = await openPostgresStore(url);
    const client = await plainClient(url);
    await prepareCluster(store, 2);
    const head = await store.readHead(0);
    await client.query(`ALTER TABLE "${schemaOf(url)}".heads ALTER COLUMN shard TYPE bigint`);
    await assert.rejects(store.readHead(0), { code: 'store-unavailable' });
    const connects = counters.read('connects');
    assert.deepEqual(await store.readHead(0), head);
    assert.equal(counters.read('connects'), connects + 1);
    await client.end();
    await store.close();
  });

  it('that is gone is told clearly, and ends nothing', async () => {
    const url = (await sharedPostgres()).storeUrl();
    const { store } = await openPostgresStore(url);
    const client = await plainClient((await sharedPostgres()).url);
    await client.query(`DROP SCHEMA "${schemaOf(url)}" CASCADE`);
    await assert.rejects(store.getTopic('a'), { code: 'schema-too-old' });
    await client.end();
    await store.close();
  });
});

describe('a reader of PostgreSQL', () => {
  it('never writes', async () => {
    const url = (await sharedPostgres()).storeUrl();
    const { store } = await openPostgresStore(url);
    await prepareCluster(store, 4);
    const reader = await openPostgresStore(url, { role: 'reader' });
    assert.equal((await reader.store.listLeases()).length, 4);
    const writes: (() => Promise<unknown>)[] = [
      () => reader.store.createTopic({ name: 'a', partitionCount: 1, configs: {}, createdAtMs: 1 }),
      () => reader.store.alterTopic('a', {}),
      () => reader.store.appendEntries([entryAt(0, 1)], []),
      () => reader.store.acquireLeases(2, [{ shard: 0, holder: 1, epoch: 1 }]),
      () => reader.store.importRows({ lastIds: { topic: 1, incarnation: 1, producer: 1 } }),
    ];
    for (const write of writes) await assert.rejects(write(), { name: 'AssertionError' });
    await reader.store.close();
    await store.close();
  });
});

describe('a PostgreSQL server', () => {
  it('that ends a transaction for a limit of its operator ends a call, and not the store', async () => {
    const url = new URL((await sharedPostgres()).storeUrl());
    const client = await plainClient((await sharedPostgres()).url);
    await client.query(`CREATE ROLE limited LOGIN SUPERUSER PASSWORD 'secret'`);
    await client.query(`ALTER ROLE limited SET transaction_timeout = '300ms'`);
    url.username = 'limited';
    url.password = 'secret';
    const { store } = await openPostgresStore(url.href);
    try {
      await client.query(`BEGIN; LOCK TABLE "${schemaOf(url.href)}".cluster`);
      await assert.rejects(store.getCluster(), { code: 'store-unavailable' });
      const rows = {
        topics: [{ topicId: 1, name: 'a', partitionCount: 1, configs: {}, createdAtMs: 1, version: 1 }],
      };
      await assert.rejects(store.importRows(rows), { code: 'store-unavailable' });
      await client.query('ROLLBACK');
      await store.importRows(rows);
    } finally {
      await store.close();
      await client.query(`DROP OWNED BY limited CASCADE; DROP ROLE limited`);
      await client.end();
    }
  });

  it('that may lose what it confirmed is refused', async () => {
    const server = await startPostgres({ isDurable: true });
    try {
      const client = await plainClient(server.url);
      const checked = server.storeUrl({ durability: 'checked' });
      await (await openPostgresStore(checked)).store.close();
      await client.query(`ALTER DATABASE postgres SET synchronous_commit = off`);
      assert.match(await failsToOpen(checked, 'invalid-setting'), /synchronous_commit is off/);
      await (await openPostgresStore(checked, { role: 'reader' })).store.close();
      await (await openPostgresStore(server.storeUrl())).store.close();
      await client.query(`ALTER DATABASE postgres SET synchronous_commit = local`);
      await (await openPostgresStore(checked)).store.close();
      for (const setting of ['fsync', 'full_page_writes']) {
        await client.query(`ALTER SYSTEM SET ${setting} = off`);
        await client.query('SELECT pg_reload_conf()');
        while ((await plain(server.url, `SHOW ${setting}`)) === 'on');
        assert.match(await failsToOpen(checked, 'invalid-setting'), new RegExp(`${setting} is off`));
        await client.query(`ALTER SYSTEM RESET ${setting}`);
        await client.query('SELECT pg_reload_conf()');
        while ((await plain(server.url, `SHOW ${setting}`)) === 'off');
      }
      await client.end();
    } finally {
      await server.stop();
    }
  });

  it('that takes no writes is refused to brokers, and taken back when it does', async () => {
    const server = await sharedPostgres();
    const client = await plainClient(server.url);
    await client.query('CREATE DATABASE meta_ro');
    const url = server.storeUrl().replace('/postgres?', '/meta_ro?');
    const { store } = await openPostgresStore(url);
    await prepareCluster(store);
    await client.query('ALTER DATABASE meta_ro SET default_transaction_read_only = on');
    await client.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'meta_ro'`);
    assert.match(await failsToOpen(url, 'store-unavailable'), /read-only/);
    await (await openPostgresStore(url, { role: 'reader' })).store.close();
    // The store that was open meets it with its next connections.
    let code: string | undefined;
    for (let tries = 0; tries < 5 && code === undefined; tries++) {
      await store.readHead(0).catch((error) => (code = error.code));
    }
    assert.equal(code, 'store-unavailable');
    await client.query('ALTER DATABASE meta_ro RESET default_transaction_read_only');
    assert.deepEqual(await store.appendEntries([entryAt(0, 1)], []), [{ kind: 'done' }]);
    await store.close();
    await client.end();
  });

  it('that is not to be reached, or not with this password, is one line without a secret', async () => {
    const server = await sharedPostgres();
    const url = new URL(server.storeUrl());
    url.password = 'hunter2';
    const wrongPassword = await failsToOpen(url.href, 'invalid-setting');
    assert.match(wrongPassword, /password authentication failed/);
    url.password = '';
    const noPassword = await failsToOpen(url.href, 'invalid-setting');
    const noDatabase = await failsToOpen(
      server.storeUrl().replace('/postgres?', '/nowhere?'),
      'invalid-setting',
    );
    const noTls = await failsToOpen(server.storeUrl({ sslmode: 'require' }), 'invalid-setting');
    assert.match(noTls, /does not support SSL/);
    url.port = '1';
    url.password = 'hunter2';
    const noServer = await failsToOpen(url.href, 'store-unavailable');
    for (const message of [wrongPassword, noPassword, noDatabase, noTls, noServer]) {
      assert(!/hunter2|for-tests/.test(message), message);
    }
  });
});

if (process.env.STREAMHOUSE_TEST_PGBOUNCER === '1') {
  describe('a PostgreSQL behind PgBouncer', () => {
    it('is refused with a hint where the URL does not say so', async () => {
      const { port } = await sharedPgbouncer();
      const url = new URL((await sharedPostgres()).storeUrl());
      url.port = String(port);
      assert.match(await failsToOpen(url.href, 'invalid-setting'), /needs \?pgbouncer=true$/);
    });
  });
}

async function plain(url: string, text: string): Promise<string> {
  const client = await plainClient(url);
  const { rows } = await client.query(text);
  await client.end();
  return Object.values(rows[0])[0] as string;
}
