/**
 * The command line against a fake door: what is printed, where, and with which exit code. Not the broker's own
 * behaviour, which the end-to-end tests see through the same commands.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { FakeRestServer } from '../../support/fake-rest-server.ts';
import { type CliInput, cli } from '../../support/test-shell.ts';

const directory = mkdtempSync(join(tmpdir(), 'streamhouse-cli-'));
after(() => rmSync(directory, { recursive: true, force: true }));

let server: FakeRestServer;
beforeEach(async () => {
  server = await FakeRestServer.start();
});
afterEach(() => server.close());

/** With the server's address in the environment. */
function run(args: string, input: CliInput = {}) {
  return cli(args.split(' '), { ...input, env: input.env ?? { STREAMHOUSE_URL: server.url } });
}

function assertOneLine(stderr: string, pattern: RegExp): void {
  assert.match(stderr, pattern);
  assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
}

describe('arguments', () => {
  it('answers wrong ones with one line and exit code 2', async () => {
    const cases: [string, RegExp][] = [
      ['nonsense', /^streamhouse: .*unknown command 'nonsense'/],
      ['produce', /^streamhouse: missing required argument 'topic'/],
      ['produce t --nonsense', /^streamhouse: unknown option '--nonsense'/],
      ['produce t f extra', /^streamhouse: too many arguments/],
      ['produce t --partition -1', /^streamhouse: --partition: "-1" is not a whole number from 0 to /],
      ['produce t --format xml', /^streamhouse: .*'xml' is invalid\. Allowed choices are lines, json/],
      ['produce t --key-field a', /^streamhouse: --key-field needs --format json/],
      ['topics', /^streamhouse: which command\?/],
      ['topics nonsense', /^streamhouse: .*unknown command 'nonsense'/],
      ['topics create', /^streamhouse: missing required argument 'topic'/],
      ['topics create t --partitions 0', /^streamhouse: partitions: "0" is not a whole number from 1 to /],
      ['topics create t --config a', /^streamhouse: --config: "a" is not name=value/],
      ['topics grow t x', /^streamhouse: partitions: "x" is not a whole number/],
      [
        'consume t --from yesterday',
        /^streamhouse: --from: "yesterday" is not beginning, end, an offset or @TIME/,
      ],
      ['consume t --url ftp://x', /^streamhouse: --url: "ftp:\/\/x" is not an http/],
      ['serve --flush-window soon', /^streamhouse: --flush-window: "soon" is not a duration/],
      ['serve --flushwindow 1', /^streamhouse: unknown option '--flushwindow'/],
      [
        'serve --config /nonexistent',
        /^streamhouse: settings file \/nonexistent: it cannot be read \(ENOENT\)/,
      ],
      ['serve extra', /^streamhouse: too many arguments/],
      ['--nonsense', /^streamhouse: unknown option '--nonsense'/],
    ];
    for (const [args, pattern] of cases) {
      const { code, stdout, stderr } = await cli(args.split(' '));
      assertOneLine(stderr, pattern);
      assert.equal(code, 2, args);
      assert.equal(stdout, '', args);
    }
    assert.equal((await cli([])).code, 2);
  });

  it('prints such errors as JSON when asked to, and stacks only in debugging', async () => {
    const { stderr } = await cli(['produce', '--json']);
    assert.deepEqual(JSON.parse(stderr), {
      error: { code: 'usage', message: "missing required argument 'topic'" },
    });
    const failed = await run('topics describe none --json');
    assert.equal(failed.code, 1);
    assert.deepEqual(JSON.parse(failed.stderr), {
      error: { code: 'topic-not-found', message: 'there is no topic none' },
    });
    const debug = await cli(['topics'], { env: { STREAMHOUSE_DEBUG: '1' } });
    assert.match(debug.stderr, /\n {4}at /);
  });

  it('helps, and prints its version', async () => {
    const top = await cli(['--help']);
    assert.equal(top.code, 0);
    for (const name of ['serve', 'topics', 'produce', 'consume'])
      assert.match(top.stdout, new RegExp(`^ +${name} `, 'm'));
    const serve = await cli(['serve', '--help']);
    assert.equal(serve.code, 0);
    assert.match(serve.stdout.replace(/\s+/g, ' '), /--flush-window <duration> .*\(default: 100 ms\)/);
    assert.match(serve.stdout.replace(/\s+/g, ' '), /--flush-bytes <bytes> .*\(default: 8 MiB\)/);
    assert.match((await cli(['--version'])).stdout, /^\d+\.\d+\.\d+\n$/);
  });

  it('says in one line that there is no broker', async () => {
    const env = { STREAMHOUSE_URL: server.url };
    await server.close();
    const { code, stderr } = await run('topics list', { env });
    assertOneLine(stderr, /^streamhouse: no connection to http:\/\/127\.0\.0\.1:\d+ \(ECONNREFUSED\)\n$/);
    assert.equal(code, 1);
    server = await FakeRestServer.start();
  });
});

describe('topics', () => {
  it('creates, lists, describes, grows, configures and deletes', async () => {
    const created = await run('topics create b.1 -p 2 --config retention.ms=1000 --config x=a=b');
    assert.deepEqual(created, { code: 0, stdout: 'created b.1 with 2 partitions\n', stderr: '' });
    server.addTopic('a', 1);
    const list = await run('topics list');
    assert.equal(list.stdout, 'topic  partitions\na               1\nb.1             2\n');
    assert.deepEqual(JSON.parse((await run('topics list --json')).stdout), [
      { topic: 'a', partitions: 1 },
      { topic: 'b.1', partitions: 2 },
    ]);
    assert.equal((await run('topics grow b.1 3')).stdout, 'b.1 has 3 partitions\n');
    server.topics.get('b.1')?.partitions[2].push({ key: null, value: null });
    assert.deepEqual(JSON.parse((await run('topics describe b.1 --json')).stdout), {
      topic: 'b.1',
      partitions: 3,
      configs: { 'retention.ms': '1000', x: 'a=b' },
      offsets: [
        { partition: 0, beginning: 0, end: 0 },
        { partition: 1, beginning: 0, end: 0 },
        { partition: 2, beginning: 0, end: 1 },
      ],
    });
    assert.match((await run('topics describe b.1')).stdout, /^b\.1: 3 partitions, 1 record\n/);
    const changed = await run('topics config b.1 --set retention.ms=5 --unset x --json');
    assert.deepEqual(JSON.parse(changed.stdout), [{ name: 'retention.ms', value: '5', default: false }]);
    assert.deepEqual(JSON.parse((await run('topics delete b.1 --json')).stdout), {
      topic: 'b.1',
      deleted: true,
    });
    assert.equal(server.topics.size, 1);
  });

  it('passes on what the broker says', async () => {
    server.addTopic('t', 2);
    const again = await run('topics create t');
    assertOneLine(again.stderr, /^streamhouse: there is a topic t\n$/);
    assert.equal(again.code, 1);
    assert.match((await run('topics grow t 2')).stderr, /the count must grow/);
    assert.match((await run('topics delete none')).stderr, /there is no topic none/);
  });
});

describe('produce', () => {
  it('appends lines byte for byte, the last one without an end too', async () => {
    server.addTopic('t', 1);
    const stdin = Buffer.concat([
      Buffer.from('one\n\ntwo\r\n'),
      Buffer.from([0xff, 0xfe, 10]),
      Buffer.from('last'),
    ]);
    const { code, stdout } = await run('produce t', { stdin });
    assert.equal(code, 0);
    assert.match(stdout, /^5 acknowledged in \d+\.\d s, \d+\/s\n$/);
    const values = server.topics.get('t')?.partitions[0].map(({ value }) => value);
    assert.deepEqual(
      values,
      ['one', '', 'two'].map((s) => Buffer.from(s)).concat([Buffer.from([0xff, 0xfe]), Buffer.from('last')]),
    );
  });

  it('takes keys from a field of JSON lines and keeps the order of each key', async () => {
    server.addTopic('t', 4);
    const rows = Array.from({ length: 200 }, (_, i) => `{"k": "key-${i % 10}",  "n":${i}}`);
    const path = join(directory, 'rows.jsonl');
    writeFileSync(path, `${rows.join('\n')}\n\n`);
    const { code, stdout } = await run(
      `produce t ${path} --format json --key-field k --batch-records 7 --json`,
    );
    assert.equal(code, 0);
    assert.equal(JSON.parse(stdout).acknowledged, 200);
    const stored = [0, 1, 2, 3].flatMap((p) => server.topics.get('t')?.partitions[p] ?? []);
    for (let k = 0; k < 10; k++) {
      const ofKey = stored
        .filter(({ key }) => key?.toString() === `key-${k}`)
        .map(({ value }) => value?.toString());
      assert.deepEqual(
        ofKey,
        rows.filter((_, i) => i % 10 === k),
      );
    }
  });

  it('knows keys that are no texts, and none', async () => {
    server.addTopic('t', 1);
    await run('produce t --format json --key-field k', {
      stdin: '{"k":5}\n{"k":null}\n{}\n{"k":{"a":1}}\n{"k":""}\n',
    });
    const keys = server.topics.get('t')?.partitions[0].map(({ key }) => key?.toString() ?? null);
    assert.deepEqual(keys, ['5', null, null, '{"a":1}', '']);
  });

  it('names the line that is wrong, after what came before it', async () => {
    server.addTopic('t', 1);
    const { code, stdout, stderr } = await run('produce t --format json', { stdin: '{}\n[]\n{"a"\n{}\n' });
    assert.equal(code, 1);
    assertOneLine(stderr, /^streamhouse: line 3 is not JSON\n$/);
    assert.match(stdout, /^\d acknowledged in/);
    assert.match(
      (await run('produce t --format json --key-field k', { stdin: '[]\n' })).stderr,
      /line 1 .*no field "k"/,
    );
  });

  it('refuses a partition or a topic that is not there, and a file that is not', async () => {
    server.addTopic('t', 2);
    const partition = await run('produce t --partition 2', { stdin: 'x\n' });
    assert.equal(partition.code, 2);
    assertOneLine(partition.stderr, /--partition: t has the partitions 0 to 1/);
    assert.equal((await run('produce none', { stdin: 'x\n' })).code, 1);
    const file = await run(`produce t ${join(directory, 'none')}`);
    assertOneLine(file.stderr, /^streamhouse: .*none cannot be read \(ENOENT\)/);
    assert.equal(file.code, 2);
  });

  it('says how many records are in doubt when a reply is lost', async () => {
    server.addTopic('t', 1);
    server.fault = (method) => (method === 'POST' ? { kind: 'drop-after' } : null);
    const { code, stdout, stderr } = await run('produce t --json', { stdin: 'a\nb\n' });
    assert.equal(code, 1);
    const { acknowledged, unknown, failed } = JSON.parse(stdout);
    assert.deepEqual({ acknowledged, unknown, failed }, { acknowledged: 0, unknown: 2, failed: 0 });
    assert.equal(JSON.parse(stderr).error.code, 'connection-lost');
  });

  it('appends once with --idempotent though replies are lost', async () => {
    server.addTopic('t', 3);
    let n = 0;
    server.fault = (method, path) =>
      method === 'POST' && path.includes('/partitions/') && ++n % 2 === 1 ? { kind: 'drop-after' } : null;
    const stdin = Array.from({ length: 30 }, (_, i) => `${i}\n`).join('');
    const { code } = await run('produce t --idempotent --batch-records 5', { stdin });
    assert.equal(code, 0);
    assert.deepEqual(
      [0, 1, 2].flatMap((p) => server.values('t', p)).sort(),
      Array.from({ length: 30 }, (_, i) => String(i)).sort(),
    );
  });

  it('stops on Ctrl-C with exit code 130 and without an error', async () => {
    server.addTopic('t', 1);
    const stop = new AbortController();
    const stdin = new Readable({ read: () => undefined });
    stdin.push('one\n');
    server.fault = (method) => {
      if (method === 'POST') setTimeout(() => stop.abort(), 20);
      return null;
    };
    const { code, stdout, stderr } = await run('produce t', { stdin, stop: stop.signal });
    assert.deepEqual({ code, stderr }, { code: 130, stderr: '' });
    assert.match(stdout, /^1 acknowledged/);
  });

  it('appends nothing from nothing', async () => {
    server.addTopic('t', 1);
    const { code, stdout } = await run('produce t --json', { stdin: '' });
    assert.equal(code, 0);
    assert.equal(JSON.parse(stdout).acknowledged, 0);
  });
});

describe('consume', () => {
  function fill(partitionCount: number, perPartition: number): void {
    const topic = server.addTopic('t', partitionCount);
    for (const [p, records] of topic.partitions.entries()) {
      for (let i = 0; i < perPartition; i++) {
        records.push({ key: Buffer.from(`k${p}`), value: Buffer.from(`${p}-${i}`) });
      }
    }
  }

  it('prints every value up to the end, each partition in order', async () => {
    fill(5, 20);
    for (const parallel of [1, 2, 16]) {
      const { code, stdout } = await run(`consume t --parallel ${parallel}`);
      assert.equal(code, 0);
      const values = stdout.trimEnd().split('\n');
      assert.equal(values.length, 100);
      for (let p = 0; p < 5; p++) {
        const own = values.filter((value) => value.startsWith(`${p}-`));
        assert.deepEqual(
          own,
          Array.from({ length: 20 }, (_, i) => `${p}-${i}`),
        );
      }
    }
  });

  it('begins where it is told to', async () => {
    fill(2, 10);
    const of = async (args: string): Promise<string> => (await run(`consume t ${args}`)).stdout;
    assert.equal(await of('--partition 1 --from 8'), '1-8\n1-9\n');
    assert.equal(await of('--partition 1 --from 10'), '');
    assert.equal(await of('--from end'), '');
    assert.equal(await of('--partition 0 --from @8500'), '0-9\n');
    assert.equal(await of('--partition 0 --from @1970-01-01T00:00:09Z'), '0-9\n');
    assert.equal(await of('--partition 0 --from 3 --max 4'), '0-3\n0-4\n0-5\n0-6\n');
    assert.equal((await of('--max 7')).trimEnd().split('\n').length, 7);
  });

  it('refuses an offset out of range, of several partitions, and a partition that is not there', async () => {
    fill(2, 3);
    const range = await run('consume t --partition 0 --from 4');
    assertOneLine(range.stderr, /^streamhouse: offset 4 is outside 0 to 3\n$/);
    assert.equal(range.code, 1);
    assert.equal((await run('consume t --from 1')).code, 2);
    assert.equal((await run('consume t --partition 2')).code, 2);
    assert.equal((await run('consume none')).code, 1);
  });

  it('prints JSON lines, with bytes that are no text as base64, and keys', async () => {
    const topic = server.addTopic('t', 1);
    topic.partitions[0].push(
      { key: Buffer.from('k'), value: Buffer.from('"v"\n') },
      { key: null, value: null },
      { key: Buffer.from([0xff]), value: Buffer.from('') },
    );
    const rows = (await run('consume t --json')).stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.deepEqual(rows, [
      { topic: 't', partition: 0, offset: 0, timestamp: 0, key: 'k', value: '"v"\n' },
      { topic: 't', partition: 0, offset: 1, timestamp: 1000, key: null, value: null },
      { topic: 't', partition: 0, offset: 2, timestamp: 2000, key: { base64: '/w==' }, value: '' },
    ]);
    assert.match((await run('consume t --keys --max 1')).stdout, /^k\t"v"\n/);
  });

  it('follows new records until Ctrl-C, with and without a connection for each partition', async () => {
    for (const parallel of [1, 4]) {
      server.topics.delete('t');
      fill(3, 2);
      const stop = new AbortController();
      let added = false;
      const onStdout = (text: string): void => {
        if (!added && text.trimEnd().split('\n').length === 6) {
          added = true;
          server.topics.get('t')?.partitions[2].push({ key: null, value: Buffer.from('new') });
        }
        if (text.endsWith('new\n')) stop.abort();
      };
      const args = `consume t --follow --parallel ${parallel}`;
      const { code, stdout, stderr } = await run(args, { onStdout, stop: stop.signal });
      assert.deepEqual({ code, stderr }, { code: 130, stderr: '' });
      assert.equal(stdout.trimEnd().split('\n').length, 7);
    }
  });

  it('tries again what the broker cannot answer for now', async () => {
    fill(1, 4);
    let n = 0;
    server.fault = (_method, path) =>
      path.endsWith('/records') && ++n % 2 === 1
        ? { kind: 'status', status: 503, errorCode: 50003, retryAfterS: 0 }
        : null;
    assert.equal((await run('consume t')).stdout, '0-0\n0-1\n0-2\n0-3\n');
  });
});
