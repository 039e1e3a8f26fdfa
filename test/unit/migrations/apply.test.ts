/** Migrations: order, transactions, rivals, older and newer binaries. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import Database from 'better-sqlite3';
import { applyMigrations, parseMigration, readSqlMigrations } from '../../../migrations/apply.ts';
import { systemClock } from '../../../src/core/clock.ts';
import { migrationTarget, openSqliteConnection } from '../../../storage/metadata/sqlite/sqlite-connection.ts';

let folder: string;
let fileCount = 0;
const newPath = () => join(folder, `migrated-${++fileCount}.sqlite`);
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'streamhouse-'));
});
after(() => rm(folder, { recursive: true }));

const FIRST = parseMigration('0001-first.sql', 'CREATE TABLE a (x); INSERT INTO a VALUES (1);');
const SECOND = parseMigration('0002-second.sql', 'CREATE TABLE b (x); INSERT INTO b VALUES (2);');

function open() {
  const path = newPath();
  const database = new Database(path);
  return { path, database, target: migrationTarget(database, path, systemClock) };
}

describe('migrations', () => {
  it('are found, numbered from 1 without gaps', () => {
    const migrations = readSqlMigrations('sqlite');
    assert(migrations.length >= 1);
    assert.deepEqual(
      migrations.map(({ number }) => number),
      migrations.map((_, i) => i + 1),
    );
    for (const { checksum } of migrations) assert.match(checksum, /^[0-9a-f]{64}$/);
  });

  it('have the same checksum whatever the line endings, and a name of the form', () => {
    const unix = parseMigration('0001-a-b.sql', 'SELECT 1;\nSELECT 2;\n');
    assert.deepEqual(parseMigration('0001-a-b.sql', 'SELECT 1;\r\nSELECT 2;\r\n'), unix);
    assert.deepEqual([unix.number, unix.name], [1, 'a-b']);
    assert.throws(() => parseMigration('1-a.sql', ''), /NNNN-intent/);
    assert.throws(() => parseMigration('0001.sql', ''), /NNNN-intent/);
  });

  it('are applied in order, once, and recorded', async () => {
    const { database, target } = open();
    assert.deepEqual(await applyMigrations(target, [FIRST]), [FIRST]);
    assert.deepEqual(await applyMigrations(target, [FIRST]), []);
    assert.deepEqual(await applyMigrations(target, [FIRST, SECOND]), [SECOND]);
    assert.deepEqual(await applyMigrations(target, [FIRST, SECOND]), []);
    const rows = database.prepare('SELECT number, name, checksum FROM schema_migrations').all();
    assert.deepEqual(
      rows,
      [FIRST, SECOND].map(({ number, name, checksum }) => ({ number, name, checksum })),
    );
    assert.deepEqual(database.prepare('SELECT x FROM a').pluck().all(), [1]);
    database.close();
  });

  it('leave nothing of one that fails, and what came before it stays', async () => {
    const { database, target } = open();
    const broken = parseMigration('0002-broken.sql', 'CREATE TABLE b (x); INSERT INTO nowhere VALUES (1);');
    await assert.rejects(applyMigrations(target, [FIRST, broken]), /nowhere/);
    const tables = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name");
    assert.deepEqual(tables.pluck().all(), ['a', 'schema_migrations']);
    assert.deepEqual(await applyMigrations(target, [FIRST, SECOND]), [SECOND]);
    database.close();
  });

  it('of a newer version are refused by an older one, in one clear line', async () => {
    const { database, target } = open();
    await applyMigrations(target, [FIRST, SECOND]);
    await assert.rejects(applyMigrations(target, [FIRST]), {
      code: 'schema-too-new',
      message:
        /has schema 2, this version of streamhouse knows 1 and cannot do without 0002-second: use a newer one$/,
    });
    database.close();
    const path = newPath();
    const connection = await openSqliteConnection({ path, role: 'broker', clock: systemClock });
    const insert = 'INSERT INTO schema_migrations VALUES (?, ?, ?, 0, ?)';
    const next = readSqlMigrations('sqlite').length + 1;
    connection.database.prepare(insert).run(next, 'compatible', 'ab', 0);
    connection.close();
    for (const role of ['broker', 'reader'] as const) {
      (await openSqliteConnection({ path, role, clock: systemClock })).close();
    }
    const newer = new Database(path);
    newer.prepare(insert).run(next + 1, 'breaking', 'cd', 1);
    newer.close();
    for (const role of ['broker', 'reader'] as const) {
      await assert.rejects(openSqliteConnection({ path, role, clock: systemClock }), {
        code: 'schema-too-new',
        message: new RegExp(`cannot do without 000${next + 1}-breaking`),
      });
    }
  });

  it('are breaking unless their first line says that they are not', () => {
    const breaking = (sql: string) => parseMigration('0001-a.sql', sql).breaking;
    for (const sql of ['-- compatible', '-- compatible\nSELECT 1;', '-- compatible  \r\nSELECT 1;']) {
      assert.equal(breaking(sql), false, sql);
    }
    for (const sql of [
      '',
      'SELECT 1;',
      '\n-- compatible\n',
      ' -- compatible\n',
      '-- compatible, they say\n',
      '-- incompatible\n',
      'SELECT 1;\n-- compatible\n',
    ]) {
      assert.equal(breaking(sql), true, sql);
    }
  });

  it('that an older binary does not know let it go on if all of them are compatible', async () => {
    const { database, target } = open();
    const compatible = (number: number) =>
      parseMigration(`000${number}-more.sql`, `-- compatible\nCREATE TABLE t${number} (x);`);
    await applyMigrations(target, [FIRST, compatible(2), compatible(3)]);
    assert.deepEqual(await applyMigrations(target, [FIRST]), []);
    assert.deepEqual(await applyMigrations(target, [FIRST, compatible(2)]), []);
    const breaking = parseMigration('0004-breaking.sql', 'CREATE TABLE t4 (x);');
    await applyMigrations(target, [FIRST, compatible(2), compatible(3), breaking, { ...compatible(5) }]);
    for (const known of [[FIRST], [FIRST, compatible(2), compatible(3)]]) {
      await assert.rejects(applyMigrations(target, known), {
        code: 'schema-too-new',
        message: /has schema 5, .* cannot do without 0004-breaking/,
      });
    }
    assert.deepEqual(await applyMigrations(target, [FIRST, compatible(2), compatible(3), breaking]), []);
    database.close();
  });

  it('of a file from before they said whether they are breaking all are, and newer ones are told apart', async () => {
    const { database, target } = open();
    database.exec(
      `CREATE TABLE schema_migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL,
         applied_at_ms INTEGER NOT NULL) STRICT`,
    );
    const insert = 'INSERT INTO schema_migrations VALUES (?, ?, ?, 0)';
    database.prepare(insert).run(1, 'first', FIRST.checksum);
    assert.deepEqual(await applyMigrations(target, [FIRST]), []);
    await assert.rejects(applyMigrations(target, []), { code: 'schema-too-new' });
    const second = parseMigration('0002-more.sql', '-- compatible\nCREATE TABLE b (x);');
    assert.deepEqual(await applyMigrations(target, [FIRST, second]), [second]);
    const applied = await target.exclusively((session) => session.applied());
    assert.deepEqual(
      applied.map(({ breaking }) => breaking),
      [true, false],
    );
    database.close();
  });

  it('of another text under a known number are refused', async () => {
    const { database, target } = open();
    await applyMigrations(target, [FIRST]);
    const edited = parseMigration('0001-first.sql', `${FIRST.sql} -- edited`);
    await assert.rejects(applyMigrations(target, [edited, SECOND]), {
      code: 'conflict',
      message: /0001-first/,
    });
    database.close();
  });

  it('are not for readers: an older schema is said so', async () => {
    const path = newPath();
    new Database(path).exec('PRAGMA application_id = 0x53484d44').close();
    await assert.rejects(openSqliteConnection({ path, role: 'reader', clock: systemClock }), {
      code: 'schema-too-old',
      message: /has schema 0, this version of streamhouse needs \d+: run `streamhouse migrate/,
    });
  });

  it('are applied once when several start at once', async () => {
    const path = newPath();
    const apply = new URL('../../../migrations/apply.ts', import.meta.url).href;
    const connection = new URL('../../../storage/metadata/sqlite/sqlite-connection.ts', import.meta.url).href;
    const clock = new URL('../../../src/core/clock.ts', import.meta.url).href;
    const driver = import.meta.resolve('better-sqlite3');
    const migrations = Array.from({ length: 12 }, (_, i) =>
      parseMigration(`${String(i + 1).padStart(4, '0')}-step.sql`, `CREATE TABLE t${i} (x)`),
    );
    const code = `
      import { parentPort, workerData } from 'node:worker_threads';
      const { default: Database } = await import(${JSON.stringify(driver)});
      const { applyMigrations } = await import(${JSON.stringify(apply)});
      const { migrationTarget } = await import(${JSON.stringify(connection)});
      const { systemClock } = await import(${JSON.stringify(clock)});
      const database = new Database(workerData.path, { timeout: 20000 });
      const target = migrationTarget(database, workerData.path, systemClock);
      const applied = await applyMigrations(target, workerData.migrations);
      database.close();
      parentPort.postMessage(applied.length);`;
    const source = new URL(`data:text/javascript,${encodeURIComponent(code)}`);
    const counts = await Promise.all(
      [1, 2, 3].map(
        () =>
          new Promise<number>((resolve, reject) => {
            const worker = new Worker(source, { workerData: { path, migrations } });
            worker.once('message', resolve).once('error', reject);
          }),
      ),
    );
    assert.equal(
      counts.reduce((a, b) => a + b),
      12,
    );
    const database = new Database(path);
    assert.equal(database.prepare('SELECT count(*) FROM schema_migrations').pluck().get(), 12);
    database.close();
  });
});
