/** `streamhouse migrate`: what it applies, what it only shows, and twenty at once. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import { nameOf, readSqlMigrations } from '../../../migrations/apply.ts';
import { systemClock } from '../../../src/core/clock.ts';
import { openMetadata } from '../../../storage/metadata/open-metadata-store.ts';
import { openSqliteConnection } from '../../../storage/metadata/sqlite/sqlite-connection.ts';
import { cli } from '../../support/test-shell.ts';

const MAIN = fileURLToPath(new URL('../../../src/main.ts', import.meta.url));
const KNOWN = readSqlMigrations('sqlite');
const ALL_APPLIED = KNOWN.map((migration) => `applied ${nameOf(migration)}\n`).join('');

const folder = mkdtempSync(join(tmpdir(), 'streamhouse-migrate-'));
after(() => rmSync(folder, { recursive: true }));
let fileCount = 0;
const newPath = () => join(folder, `migrated-${++fileCount}.db`);

async function migrate(path: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await cli(['migrate', '--metadata', `sqlite:${path}`, ...args]);
  assert.deepEqual([code, stderr], [0, '']);
  return stdout;
}

describe('migrate', () => {
  it('applies what is pending, says each, and then has nothing to do', async () => {
    const path = newPath();
    assert.equal(await migrate(path), ALL_APPLIED);
    assert.equal(await migrate(path), 'nothing to apply\n');
    assert.equal(await migrate(path, '--json'), '{"applied":[],"notes":[]}\n');
    const applied = JSON.parse(await migrate(newPath(), '--json')).applied;
    assert.deepEqual(
      applied,
      KNOWN.map(({ number, name, breaking }) => ({ number, name, breaking })),
    );
    (await openSqliteConnection({ path, role: 'reader', clock: systemClock })).close();
  });

  it('lists what is applied and pending, and prints what it would apply, and changes nothing', async () => {
    const path = newPath();
    const status = await migrate(path, '--status');
    assert.equal(status.split('\n').length, KNOWN.length + 2);
    assert.match(status, /^number {2}name +breaking {2}state\n +1 {2}metadata +yes +pending\n/);
    const dry = await migrate(path, '--dry-run');
    for (const { sql } of KNOWN) assert.ok(dry.includes(sql!.trim()));
    const { pending } = JSON.parse(await migrate(path, '--dry-run', '--json'));
    assert.deepEqual(
      pending.map(({ sql }: { sql: string }) => sql),
      KNOWN.map(({ sql }) => sql),
    );
    assert.deepEqual(
      readdirSync(folder).filter((name) => path.endsWith(name)),
      [],
    );

    await migrate(path);
    const newer = new Database(path);
    newer.exec(`INSERT INTO schema_migrations VALUES (${KNOWN.length + 1}, 'later', 'ab', 0, 0)`);
    newer.close();
    const after = JSON.parse(await migrate(path, '--status', '--json'));
    assert.deepEqual([after.schema, after.known], [KNOWN.length + 1, KNOWN.length]);
    assert.deepEqual(after.migrations.at(-1), {
      number: KNOWN.length + 1,
      name: 'later',
      breaking: false,
      applied: true,
    });
    assert.match(await migrate(path, '--status'), /later +no +applied, not known here\n$/);
    assert.equal(await migrate(path), 'nothing to apply\n');
    assert.equal(await migrate(path, '--dry-run'), 'nothing to apply\n');
  });

  it('looks at a store that a broker runs on, and finds nothing to do', async () => {
    const path = newPath();
    const broker = await openMetadata(`sqlite:${path}`, { role: 'broker' });
    try {
      assert.equal(await migrate(path), 'nothing to apply\n');
      assert.match(await migrate(path, '--status'), /applied/);
    } finally {
      await broker.close();
    }
  });

  it('is what a command names that finds the schema too old, with the URL that mends it', async () => {
    const path = newPath();
    new Database(path).exec('PRAGMA application_id = 0x53484d44').close();
    const { code, stderr } = await cli([
      'verify',
      '--metadata',
      `sqlite:${path}`,
      '--objects',
      `file:${folder}`,
    ]);
    assert.equal(code, 1);
    const line =
      /^streamhouse: the metadata store sqlite:.* has schema 0, this version of streamhouse needs \d: run `streamhouse (.*)`\n$/;
    const command = line.exec(stderr)?.[1] ?? assert.fail(stderr);
    assert.equal((await cli(command.split(' '))).code, 0);
    (await openSqliteConnection({ path, role: 'reader', clock: systemClock })).close();
  });

  it('is safe when twenty start at once: each migration is applied by one, and all end well', async () => {
    const path = newPath();
    const runs = Array.from({ length: 20 }, async () => {
      const args = [MAIN, 'migrate', '--metadata', `sqlite:${path}`];
      const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
      const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
      return { stdout, stderr };
    });
    const ends = await Promise.all(runs);
    assert.deepEqual(
      ends.map(({ stderr }) => stderr).filter((stderr) => stderr !== ''),
      [],
    );
    const applied = ends.flatMap(({ stdout }) =>
      stdout.split('\n').filter((line) => line.startsWith('applied')),
    );
    assert.deepEqual(applied.sort(), ALL_APPLIED.trim().split('\n'));
    const database = new Database(path, { readonly: true });
    assert.equal(database.prepare('SELECT count(*) FROM schema_migrations').pluck().get(), KNOWN.length);
    database.close();
  });

  it('answers wrong input with one clear line', async () => {
    const text = newPath();
    writeFileSync(text, 'no database, '.repeat(1000));
    const newer = newPath();
    await migrate(newer);
    const database = new Database(newer);
    database.exec(`INSERT INTO schema_migrations VALUES (${KNOWN.length + 1}, 'later', 'ab', 0, 1)`);
    database.close();
    const wrong: [string[], number, RegExp][] = [
      [['--metadata', 'nosuch://x:secret@y'], 2, /unknown metadata scheme 'nosuch:'; known are sqlite:PATH/],
      [['--metadata', 'memory:'], 2, /memory: has no schema to migrate/],
      [['--metadata', 'sqlite:'], 2, /names no file/],
      [['--metadata', `sqlite:${folder}/no/such.db`], 2, /there is no folder/],
      [['--metadata', `sqlite:${folder}`], 2, /is not a file/],
      [['--metadata', `sqlite:${text}`], 1, /file is not a database/],
      [['--metadata', `sqlite:${newer}`], 1, /cannot do without .*-later: use a newer one/],
      [['--metadata', `sqlite:${newer}`, '--dry-run'], 1, /use a newer one/],
      [['--status', '--dry-run'], 2, /--status and --dry-run do not go together/],
      [['--objects', 'file:x'], 2, /unknown option '--objects'/],
    ];
    for (const [args, code, message] of wrong) {
      const result = await cli(['migrate', ...args]);
      assert.equal(result.code, code, `${args.join(' ')}: ${result.stderr}`);
      assert.match(result.stderr, message);
      assert.match(result.stderr, /^streamhouse: [^\n]+\n$/);
      assert.doesNotMatch(result.stderr, /secret/);
      assert.equal(result.stdout, '');
    }
  });
});
