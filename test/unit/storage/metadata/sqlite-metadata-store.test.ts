/** What the contract suite cannot ask of SQLite: its file, its lock, its disk, its errors. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import { systemClock } from '../../../../src/core/clock.ts';
import { type ErrorCode, StreamHouseError } from '../../../../src/core/errors.ts';
import type { MetadataStore } from '../../../../storage/metadata/metadata-store.ts';
import { openMetadata } from '../../../../storage/metadata/open-metadata-store.ts';
import {
  openSqliteConnection,
  type SqliteConnection,
} from '../../../../storage/metadata/sqlite/sqlite-connection.ts';
import { type SqlitePhase, sqliteErrorMeaning } from '../../../../storage/metadata/sqlite/sqlite-error.ts';
import { SqliteMetadataStore } from '../../../../storage/metadata/sqlite/sqlite-metadata-store.ts';
import { StoreCounters } from '../../../../storage/metadata/store-counters.ts';
import { appendedBody, CHILD_SHARDS } from './sqlite-append-body.ts';

let folder: string;
let fileCount = 0;
const newPath = () => join(folder, `metadata-${++fileCount}.sqlite`);

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'streamhouse-'));
});
after(() => rm(folder, { recursive: true }));

const connect = (path: string, role: 'broker' | 'reader' = 'broker') =>
  openSqliteConnection({ path, role, clock: systemClock });

async function open(path: string, role: 'broker' | 'reader' = 'broker') {
  return new SqliteMetadataStore(await connect(path, role));
}

async function prepare(store: MetadataStore, shards = 8): Promise<void> {
  await store.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount: 8, createdAtMs: 1 });
  const seen = Array.from({ length: shards }, (_, shard) => ({ shard, holder: 0, epoch: 0 }));
  await store.acquireLeases(1, seen);
}

function entriesAt(seq: number, bodyBytes: number, shards = 8) {
  return Array.from({ length: shards }, (_, shard) => ({
    shard,
    seq,
    epoch: 1,
    commitId: `c-${shard}-${seq}`,
    body: new Uint8Array(bodyBytes).fill(seq),
  }));
}

async function failsToOpen(path: string, code: ErrorCode, role: 'broker' | 'reader' = 'broker') {
  await assert.rejects(open(path, role), (error: unknown) => {
    assert(error instanceof StreamHouseError, `${error}`);
    assert.equal(error.code, code, error.message);
    assert(!error.message.includes('\n'));
    return true;
  });
}

describe('an SQLite file', () => {
  it('is fsynced at every commit, in WAL mode', async () => {
    const { database, close } = await connect(newPath());
    assert.equal(database.pragma('synchronous', { simple: true }), 2);
    assert.equal(database.pragma('journal_mode', { simple: true }), 'wal');
    close();
  });

  it('holds everything over close and open', async () => {
    const path = newPath();
    const store = await open(path);
    await prepare(store);
    const topic = await store.createTopic({
      name: 'a',
      partitionCount: 2,
      configs: { x: 'y' },
      createdAtMs: 3,
    });
    await store.appendEntries(entriesAt(1, 9000), []);
    await store.putPages([
      { topicId: 1, partition: 0, shard: 0, baseOffset: 0, stamp: 1, bytes: new Uint8Array([1, 2]) },
    ]);
    await store.putCheckpoint(0, { seq: 1, writer: 1 }, new Uint8Array([3]));
    await store.movePointer(0, 1, { seq: 1, writer: 1 });
    const agent = await store.registerAgent({
      agentId: 'a',
      address: '',
      zone: '',
      group: '',
      version: '',
      registeredAtMs: 1,
    });
    await store.allocateProducerIds(10);
    const heads = await store.listLeases();
    await store.close();

    const again = await open(path);
    assert.deepEqual(await again.listLeases(), heads);
    assert.deepEqual(await again.getTopic('a'), topic);
    assert.deepEqual(await again.readEntries(3, 0, 1e9), [entriesAt(1, 9000)[3]]);
    assert.deepEqual(await again.getCheckpoint(0, { seq: 1, writer: 1 }), new Uint8Array([3]));
    assert.deepEqual(await again.getAgent('a'), agent);
    assert.equal(await again.allocateProducerIds(1), 11);
    await again.close();
  });

  it('costs one transaction for a heartbeat, and one statement for all leases', async () => {
    const counters = new StoreCounters();
    const store = new SqliteMetadataStore(await connect(newPath()), counters);
    await prepare(store);
    const agent = { agentId: 'a', address: '', zone: '', group: '', version: '', registeredAtMs: 1 };
    const { incarnation } = await store.registerAgent(agent);
    for (let i = 0; i < 9; i++) await store.registerAgent({ ...agent, agentId: `b-${i}` });
    const before = counters.read('statements');
    assert.equal((await store.heartbeat('a', incarnation)).length, 10);
    assert.equal(counters.read('statements') - before, 1);
    assert.equal((await store.listLeases()).length, 8);
    assert.equal(counters.read('statements') - before, 2);
    await store.close();
  });

  it('has one broker at a time, by whatever path, and readers beside it', async () => {
    const path = newPath();
    await failsToOpen(path, 'invalid-setting', 'reader');
    const store = await open(path);
    await prepare(store);
    const link = newPath();
    await symlink(path, link);
    await failsToOpen(path, 'conflict');
    await failsToOpen(link, 'conflict');
    await assert.rejects(openMetadata(`sqlite:${path}`, { role: 'broker' }), { code: 'conflict' });

    const reader = await openMetadata(`sqlite:${path}`, { role: 'reader' });
    await store.appendEntries(entriesAt(1, 100), []);
    assert.equal((await reader.store.readHead(7)).headSeq, 1);
    // A reader that writes is a bug: it costs the reader its thread, and the broker nothing.
    await assert.rejects(reader.store.allocateProducerIds(1), { code: 'store-unknown' });
    await assert.rejects(reader.lost, /reader was asked to write/);
    await reader.close();
    assert.equal(await store.allocateProducerIds(1), 1);
    await store.close();
    const next = await open(link);
    await next.close();
  });

  it('that is damaged or something else is named, not crashed on', async () => {
    const garbage = newPath();
    await writeFile(garbage, Buffer.alloc(50_000, 'not a database, '));
    await failsToOpen(garbage, 'corrupt-store');
    await failsToOpen(garbage, 'corrupt-store', 'reader');

    const path = newPath();
    const store = await open(path);
    await prepare(store);
    for (let seq = 1; seq <= 40; seq++) await store.appendEntries(entriesAt(seq, 9000), []);
    await store.close();
    const whole = (await readFile(path)).length;
    for (const length of [10, 100, 512, 5000, whole >> 1, whole - 8192]) {
      const cut = newPath();
      await cp(path, cut);
      await truncate(cut, length);
      await failsToOpen(cut, 'corrupt-store');
    }
    // Less than a page is missing: SQLite cannot tell at once.
    const frayed = newPath();
    await cp(path, frayed);
    await truncate(frayed, whole - 1);
    await readsRightOrCorrupt(frayed);
    // Holes: whatever is read is right, or the error is named; a write may find the damage too.
    for (let hole = 1; hole <= 12; hole++) {
      const holed = newPath();
      const bytes = await readFile(path);
      bytes.fill(0xee, (whole / 13) * hole, (whole / 13) * hole + 8192);
      await writeFile(holed, bytes);
      await readsRightOrCorrupt(holed);
    }
    const foreign = newPath();
    new Database(foreign).exec('CREATE TABLE notes (text)').close();
    await failsToOpen(foreign, 'invalid-setting');
    await failsToOpen(join(folder, 'no', 'folder'), 'invalid-setting');
    await failsToOpen(folder, 'invalid-setting');
  });
});

async function readsRightOrCorrupt(path: string): Promise<void> {
  let store: SqliteMetadataStore | undefined;
  try {
    store = await open(path);
    for (let shard = 0; shard < 8; shard++) {
      assert.equal((await store.readHead(shard)).headSeq, 40);
      for (const entry of await store.readEntries(shard, 0, 1e9)) {
        // The store promises rows, not bytes inside them: bodies have a checksum of their own.
        assert.equal(entry.body.length, 9000);
      }
    }
    await store.appendEntries(entriesAt(41, 9000), []);
  } catch (error) {
    assert(error instanceof StreamHouseError, `${error}`);
    assert.equal(error.code, 'corrupt-store', error.message);
  } finally {
    await store?.close();
  }
}

describe('a full disk', () => {
  let connection: SqliteConnection;
  let store: SqliteMetadataStore;
  const limitPages = (count: number) => connection.database.pragma(`max_page_count = ${count}`);

  before(async () => {
    connection = await connect(newPath());
    store = new SqliteMetadataStore(connection);
    await prepare(store);
  });
  after(() => store.close());

  it('refuses the whole append, and goes on when there is space', async () => {
    let seq = 0;
    limitPages((connection.database.pragma('page_count', { simple: true }) as number) + 60);
    const row = (number: number) => ({
      object: { incarnation: 1, number },
      bytes: 1,
      createdAtMs: 1,
      shards: [],
    });
    for (let refused = 0; refused < 3; ) {
      try {
        await store.appendEntries(entriesAt(seq + 1, 20_000), [row(seq + 1)]);
        seq++;
      } catch (error) {
        assert(error instanceof StreamHouseError && error.code === 'disk-full', `${error}`);
        refused++;
        store.writeBackIfDue();
      }
      for (const head of await store.listLeases()) assert.equal(head.headSeq, seq);
      assert.deepEqual(await store.getObjects([row(seq + 1).object]), [null]);
      assert.equal((await store.readEntries(5, 0, 1e9)).length, seq);
    }
    assert(seq >= 1);
    limitPages(1_000_000);
    await store.appendEntries(entriesAt(seq + 1, 20_000), [row(seq + 1)]);
    assert.equal((await store.readHead(0)).headSeq, seq + 1);
  });
});

describe('what an error of SQLite means', () => {
  const cases: [string, SqlitePhase, ErrorCode][] = [
    ['SQLITE_FULL', 'write', 'disk-full'],
    ['SQLITE_FULL', 'commit', 'disk-full'],
    ['SQLITE_BUSY', 'write', 'store-unavailable'],
    ['SQLITE_BUSY_SNAPSHOT', 'commit', 'store-unavailable'],
    ['SQLITE_LOCKED_SHAREDCACHE', 'read', 'store-unavailable'],
    ['SQLITE_IOERR_READ', 'read', 'store-unavailable'],
    ['SQLITE_IOERR_WRITE', 'write', 'store-unavailable'],
    ['SQLITE_IOERR_FSYNC', 'commit', 'store-unknown'],
    ['SQLITE_IOERR', 'commit', 'store-unknown'],
    ['SQLITE_NOMEM', 'commit', 'store-unknown'],
    ['SQLITE_CORRUPT', 'read', 'corrupt-store'],
    ['SQLITE_CORRUPT_INDEX', 'write', 'corrupt-store'],
    ['SQLITE_CORRUPT', 'commit', 'store-unknown'],
    ['SQLITE_NOTADB', 'open', 'corrupt-store'],
    ['SQLITE_CONSTRAINT_PRIMARYKEY', 'write', 'corrupt-store'],
  ];
  for (const [code, phase, expected] of cases) {
    it(`${code} at ${phase} is ${expected}`, () => {
      const error = new Database.SqliteError('why', code);
      const meaning = sqliteErrorMeaning(error, phase, '/a/b');
      assert(meaning instanceof StreamHouseError);
      assert.equal(meaning.code, expected);
      assert.equal(meaning.cause, error);
    });
  }

  it('leaves bugs as they are', () => {
    for (const error of [
      new Database.SqliteError('near "SELEKT": syntax error', 'SQLITE_ERROR'),
      new Database.SqliteError('NOT NULL constraint failed', 'SQLITE_CONSTRAINT_NOTNULL'),
      new Database.SqliteError('bad parameter', 'SQLITE_MISUSE'),
      new TypeError('x'),
    ]) {
      assert.equal(sqliteErrorMeaning(error, 'commit', '/a'), error);
    }
  });

  it('calls rows that contradict the heads corrupt', async () => {
    const connection = await connect(newPath());
    const store = new SqliteMetadataStore(connection);
    await prepare(store);
    await store.appendEntries(entriesAt(1, 10), []);
    connection.database.exec('UPDATE heads SET head_seq = 0 WHERE shard = 2');
    await assert.rejects(store.appendEntries([entriesAt(1, 10)[2]], []), { code: 'corrupt-store' });
    connection.database.exec("UPDATE topics SET configs = '{'");
    assert.equal((await store.readHead(2)).headSeq, 0);
    await store.close();
  });
});

describe('a process that ends in the middle', () => {
  const script = fileURLToPath(new URL('./sqlite-append-child.ts', import.meta.url));

  /** Runs the child until `stop` says so, kills it with SIGKILL, and returns the lines it said. */
  async function run(child: ChildProcess, stop: (lines: string[]) => boolean): Promise<string[]> {
    const lines: string[] = [];
    const exited = once(child, 'close');
    for await (const line of createInterface({ input: child.stdout! })) {
      lines.push(line);
      if (stop(lines)) child.kill('SIGKILL');
    }
    await exited;
    return lines;
  }

  /** All shards dense to one head, bodies as written; returns the head. */
  async function checkFile(path: string): Promise<number> {
    const store = await open(path);
    const { headSeq } = await store.readHead(0);
    for (let shard = 0; shard < CHILD_SHARDS; shard++) {
      const head = await store.readHead(shard);
      assert.equal(head.headSeq, headSeq, 'an append of several shards is one transaction');
      const entries = await store.readEntries(shard, 0, 1e9);
      assert.deepEqual(
        entries.map(({ seq }) => seq),
        Array.from({ length: headSeq }, (_, i) => i + 1),
      );
      for (const { seq, body } of entries) assert(Buffer.from(body).equals(appendedBody(shard, seq)));
      assert.equal(entries.at(-1)?.commitId ?? '', head.headCommitId);
    }
    const objects = await store.listObjects({ limit: 100_000 });
    assert.equal(objects.length, headSeq);
    await store.close();
    return headSeq;
  }

  const ackedBy = (lines: string[]) => Number(/^acked (\d+)$/.exec(lines.at(-1) ?? '')?.[1] ?? 0);

  it('keeps what was answered over kill -9, round after round, and frees the lock', async () => {
    const path = newPath();
    let head = 0;
    for (let round = 0; round < 6; round++) {
      const child = spawn(process.execPath, [script, path], { stdio: ['ignore', 'pipe', 'inherit'] });
      const target = head + 5 + round * 9;
      const lines = await run(child, (said) => ackedBy(said) >= target);
      assert.equal(lines[0], `ready ${head}`);
      const acked = ackedBy(lines);
      head = await checkFile(path);
      assert(head === acked || head === acked + 1, `acked ${acked}, found ${head}`);
    }
  });

  it('says unknown when the file cannot grow at a commit, and loses nothing that was answered', async () => {
    const path = newPath();
    // The limit of the shell makes writes fail with EFBIG; 1 or 2 MB, depending on the shell's unit.
    const limited = `ulimit -f 2000; exec "$0" "$@"`;
    const child = spawn('sh', ['-c', limited, process.execPath, script, path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const lines = await run(child, () => false);
    assert.equal(child.exitCode, 7);
    const failed = lines.filter((line) => line.startsWith('failed'));
    assert.equal(failed.length, 3);
    for (const line of failed) assert.match(line, /^failed (store-unknown|store-unavailable)$/);
    const acked = ackedBy(lines.filter((line) => line.startsWith('acked')));
    assert(acked > 2);
    const head = await checkFile(path);
    assert(head === acked || head === acked + 1, `acked ${acked}, found ${head}`);
  });
});
