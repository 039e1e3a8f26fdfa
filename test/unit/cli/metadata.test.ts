/** `streamhouse metadata`: what it prints, and one clear line for what is wrong. The copy itself has its own tests. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { openMetadata } from '../../../storage/metadata/open-metadata-store.ts';
import { type CliResult, cli } from '../../support/test-shell.ts';

const folder = mkdtempSync(join(tmpdir(), 'streamhouse-metadata-'));
after(() => rmSync(folder, { recursive: true }));
const url = (name: string) => `sqlite:${join(folder, name)}`;

async function makeSource(name: string, clusterId = 'c-1'): Promise<void> {
  const { store, close } = await openMetadata(url(name), { role: 'broker' });
  await store.initCluster({ clusterId, storeIncarnation: `s-${name}`, shardCount: 2, createdAtMs: 1 });
  await store.createTopic({ name: 'a', partitionCount: 1, configs: {}, createdAtMs: 1 });
  await store.acquireLeases(1, [{ shard: 0, holder: 0, epoch: 0 }]);
  await store.appendEntries([{ shard: 0, seq: 1, epoch: 1, commitId: 'x', body: new Uint8Array(9) }], []);
  await close();
}

function copy(from: string, to: string, ...more: string[]): Promise<CliResult> {
  return cli(['metadata', 'copy', '--from', from, '--to', to, ...more]);
}

describe('metadata', () => {
  before(() => makeSource('source.db'));

  it('copies, prints counts and checksums, and says what is next', async () => {
    const rehearsed = await copy(url('source.db'), url('target.db'), '--keep-source');
    assert.equal(rehearsed.code, 0, rehearsed.stderr);
    assert.match(rehearsed.stderr, /^applied 0001-metadata to sqlite:.*target\.db\n/);
    assert.match(
      rehearsed.stdout,
      /^rows +source +checksum +copy +checksum\nheads +2 +[0-9a-f]{16} +2 +[0-9a-f]{16} +same\n/,
    );
    assert.match(rehearsed.stdout, /the copy is whole\. sqlite:.*source\.db stays in use/);
    const moved = await copy(url('source.db'), url('target.db'));
    assert.deepEqual([moved.code, moved.stderr], [0, '']);
    assert.match(
      moved.stdout,
      /\nmoved: start brokers with --metadata sqlite:.*target\.db and the same objects/,
    );
  });

  it('says what differs, with exit code 1, and then the target must be emptied', async () => {
    await makeSource('changing.db');
    assert.equal((await copy(url('changing.db'), url('behind.db'), '--keep-source')).code, 0);
    const source = await openMetadata(url('changing.db'), { role: 'broker' });
    await source.store.deleteTopic('a');
    await source.store.forgetDeletedTopic(1);
    await source.close();
    const differs = await copy(url('changing.db'), url('behind.db'));
    assert.deepEqual([differs.code, differs.stderr], [1, '']);
    assert.match(differs.stdout, /\ntopics +0 +0{16} +1 +[0-9a-f]{16} +DIFFERENT\n/);
    assert.match(differs.stdout, /empty sqlite:.*behind\.db, copy again\n$/);
    const json = await copy(url('changing.db'), url('behind.db'), '--json');
    assert.equal(json.code, 1);
    const { ok, opened, differences } = JSON.parse(json.stdout);
    assert.deepEqual([ok, opened, differences], [false, null, [{ group: 'topics', shards: [] }]]);
    assert.equal((await copy(url('changing.db'), url('emptied.db'))).code, 0);
  });

  it('answers wrong input with one clear line, and creates nothing', async () => {
    await makeSource('open.db');
    await makeSource('other.db', 'c-2');
    await makeSource('running.db');
    writeFileSync(join(folder, 'text.db'), 'no database, '.repeat(1000));
    await (await openMetadata(url('empty.db'), { role: 'broker' })).close();
    const running = await openMetadata(url('running.db'), { role: 'broker' });
    const before = readdirSync(folder);
    const [from, new_] = [url('open.db'), url('new.db')];
    const wrong: [string[], number, RegExp][] = [
      [[], 2, /which command\?/],
      [['move'], 2, /unknown command 'move'/],
      [['copy', '--to', new_], 2, /required option '--from <url>' not specified/],
      [['copy', '--from', from], 2, /required option '--to <url>' not specified/],
      [['copy', '--from', from, '--to', from], 2, /--from and --to are one store, sqlite:/],
      [['copy', '--from', from, '--to', `sqlite:${folder}/./open.db`], 2, /are one store/],
      [
        ['copy', '--from', url('absent.db'), '--to', new_],
        2,
        /--from: metadata store: there is no file .*absent\.db/,
      ],
      [
        ['copy', '--from', 'nosuch://u:secret@h', '--to', new_],
        2,
        /--from: unknown metadata scheme 'nosuch:'/,
      ],
      [['copy', '--from', from, '--to', 'nosuch://u:secret@h'], 2, /--to: unknown metadata scheme 'nosuch:'/],
      [['copy', '--from', 'memory:', '--to', new_], 2, /--from: memory: ends with its process/],
      [
        ['copy', '--from', from, '--to', `sqlite:${folder}/no/such.db`],
        2,
        /--to: metadata store: there is no folder/,
      ],
      [['copy', '--from', from, '--to', `sqlite:${folder}`], 2, /--to: metadata store: .* is not a file/],
      [['copy', '--from', from, '--to', url('text.db')], 1, /text\.db: file is not a database/],
      [['copy', '--from', url('text.db'), '--to', new_], 1, /text\.db: file is not a database/],
      [['copy', '--from', url('empty.db'), '--to', new_], 2, /--from: .* holds no cluster/],
      [
        ['copy', '--from', from, '--to', url('other.db')],
        1,
        /holds cluster c-2 \(generation 1\): copy into an empty store/,
      ],
      [['copy', '--from', url('source.db'), '--to', url('target.db')], 1, /holds the finished copy of/],
      [['copy', '--from', url('source.db'), '--to', new_], 1, /was copied to another store already/],
      [['copy', '--from', url('running.db'), '--to', new_], 1, /another broker is running on .*running\.db/],
      [['copy', '--from', from, '--to', url('running.db')], 1, /another broker is running on .*running\.db/],
      [['reopen', '--metadata', url('absent.db')], 2, /there is no file/],
      [['reopen', '--metadata', url('empty.db')], 2, /holds no cluster/],
      [['reopen', '--metadata', url('running.db')], 1, /another broker is running/],
    ];
    for (const [args, code, message] of wrong) {
      const result = await cli(['metadata', ...args]);
      assert.equal(result.code, code, `${args.join(' ')}: ${result.stderr}`);
      assert.match(result.stderr, message);
      assert.match(result.stderr, /^streamhouse: [^\n]+\n$/);
      assert.doesNotMatch(result.stderr, /secret/);
      assert.equal(result.stdout, '');
    }
    await running.close();
    const made = readdirSync(folder).filter(
      (name) => !before.includes(name) && !/-(lock|wal|shm)$/.test(name),
    );
    assert.deepEqual(made, []);
  });

  it('reopens a source that was given up, with a warning where the objects cannot be seen', async () => {
    const stores = ['--metadata', url('source.db'), '--objects'];
    const unseen = await cli(['metadata', 'reopen', ...stores, `file:${folder}/nowhere`]);
    assert.equal(unseen.code, 0);
    assert.match(
      unseen.stderr,
      /^warning: whether a broker was started on the copy is not known \([^\n]+\n$/,
    );
    assert.match(unseen.stdout, /^reopened: /);
    mkdirSync(join(folder, 'objects'));
    const again = await cli(['metadata', 'reopen', ...stores, `file:${folder}/objects`]);
    assert.deepEqual([again.code, again.stderr], [0, '']);
    assert.equal(again.stdout, 'nothing to do: it is not marked as copied to another store\n');
    const json = await cli(['metadata', 'reopen', ...stores, `file:${folder}/objects`, '--json']);
    assert.equal(json.stdout, '{"reopened":null}\n');
  });
});
