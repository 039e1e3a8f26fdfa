/**
 * Settings: precedence of their sources, what each message says and what it keeps to itself. Not the values
 * of defaults, which docs/settings.md shows (settings-page.test.ts keeps that equal to the table).
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { StreamHouseError } from '../../../src/core/errors.ts';
import { withoutSecrets } from '../../../src/core/printable-url.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import { SETTINGS } from '../../../src/setting-table.ts';
import {
  environmentOf,
  flagOf,
  newLayout,
  printableSettings,
  readSettings,
  type SettingSources,
  settingNames,
  splitAddress,
} from '../../../src/settings.ts';

const directory = mkdtempSync(join(tmpdir(), 'streamhouse-settings-'));
after(() => rmSync(directory, { recursive: true, force: true }));

let fileCount = 0;
function file(content: string): string {
  const path = join(directory, `settings-${fileCount++}.json`);
  writeFileSync(path, content);
  return path;
}

function read(sources: Partial<SettingSources>) {
  return readSettings({ flags: {}, env: {}, ...sources });
}

function messageOf(sources: Partial<SettingSources>): string {
  try {
    read(sources);
  } catch (error) {
    assert.ok(error instanceof StreamHouseError);
    assert.equal(error.code, 'invalid-setting');
    assert.ok(!error.message.includes('\n'), 'one line');
    return error.message;
  }
  assert.fail('no error');
}

describe('settings', () => {
  it('takes the flag before the environment before the file before the default', () => {
    const configPath = file('{"flush-window": "7s", "lanes": 3, "zone": "file"}');
    const env = { STREAMHOUSE_FLUSH_WINDOW: '6s', STREAMHOUSE_LANES: '4' };
    const settings = read({ configPath, env, flags: { 'flush-window': '5s' } });
    assert.equal(settings.flushWindowMs, 5000);
    assert.equal(settings.lanes, 4);
    assert.equal(settings.zone, 'file');
    assert.equal(settings.connectionsMax, 10_000);
  });

  it('finds the file by environment, and an explicit one first', () => {
    const [a, b] = [file('{"zone": "a"}'), file('{"zone": "b"}')];
    assert.equal(read({ env: { STREAMHOUSE_CONFIG: a } }).zone, 'a');
    assert.equal(read({ env: { STREAMHOUSE_CONFIG: a }, configPath: b }).zone, 'b');
  });

  it('takes what is true or false from anywhere, and nothing else for it', () => {
    assert.equal(read({}).migrate, false);
    assert.equal(read({ flags: { migrate: 'true' } }).migrate, true);
    assert.equal(read({ env: { STREAMHOUSE_MIGRATE: 'true' } }).migrate, true);
    assert.equal(read({ configPath: file('{"migrate": true}') }).migrate, true);
    assert.equal(
      read({ configPath: file('{"migrate": true}'), env: { STREAMHOUSE_MIGRATE: 'false' } }).migrate,
      false,
    );
    for (const value of ['yes', '1', 'TRUE']) {
      const message = messageOf({ env: { STREAMHOUSE_MIGRATE: value } });
      assert.equal(message, `environment STREAMHOUSE_MIGRATE: "${value}" is neither true nor false`);
    }
    assert.match(
      messageOf({ configPath: file('{"migrate": 1}') }),
      /"migrate": 1 is neither true nor false$/,
    );
    assert.equal(printableSettings(read({})).migrate, false);
  });

  it('is frozen and derives both stores from the data directory alone', () => {
    const settings = read({ flags: { data: '/var/lib/x' } });
    assert.ok(Object.isFrozen(settings));
    assert.equal(settings.metadata, 'sqlite:/var/lib/x/metadata.db');
    assert.equal(settings.objects, 'file:/var/lib/x/objects');
    assert.equal(read({ flags: { data: './x' } }).metadata, 'sqlite:./x/metadata.db');
    assert.equal(read({ flags: { data: 'x//' } }).objects, 'file:x/objects');
    assert.deepEqual(newLayout(settings), oneGroup(8));
    assert.match(settings.agentId, /^[A-Za-z0-9._-]+$/);
    assert.ok(settings.lanes >= 1);
  });

  it('has more shards by default where statements are short', () => {
    const shardsWith = (flags: Record<string, string>) => newLayout(read({ flags })).shardCount;
    assert.equal(shardsWith({ metadata: 'postgres://db/x' }), 64);
    assert.equal(shardsWith({ metadata: 'dynamodb://eu/x' }), 8);
    assert.equal(shardsWith({ metadata: 'postgres://db/x', shards: '16' }), 16);
  });

  it('divides the shards of a new cluster among groups', () => {
    const groups = [
      { name: 'default', shards: 48 },
      { name: 'heavy', shards: 16 },
    ];
    const flags = { 'shard-groups': 'default:48,heavy:16' };
    assert.deepEqual(newLayout(read({ flags })), { shardCount: 64, groups });
    assert.deepEqual(newLayout(read({ flags: { ...flags, shards: '64' } })), { shardCount: 64, groups });
    const refuses = (given: Record<string, string>, why: RegExp) =>
      assert.throws(() => read({ flags: given }), { code: 'invalid-setting', message: why });
    refuses(
      { ...flags, shards: '32' },
      /^--shard-groups: default:48,heavy:16 are 64 shards, and shards says 32$/,
    );
    const wrong = [
      '',
      'a',
      'a:0',
      'a:1,',
      'a:1,a:2',
      'a:1 ,b:2',
      'a b:1',
      'a:1000,b:25',
      `${'a:1,'.repeat(2)}b:1`,
    ];
    for (const value of wrong) refuses({ 'shard-groups': value }, /^--shard-groups: /);
    const tooMany = Array.from({ length: 65 }, (_, i) => `g${i}:1`).join();
    refuses({ 'shard-groups': tooMany }, /at most 64 groups and 1024 shards in all$/);
  });

  it('reads sizes and durations as people write them', () => {
    for (const text of ['64MiB', '64mb', '64 M', '64m', '67108864', '0.0625GiB']) {
      assert.equal(read({ flags: { 'index-bytes': text } }).indexBytes, 67108864, text);
    }
    for (const text of ['1500ms', '1.5s', '1500', '0.025m', '0.025 min']) {
      assert.equal(read({ flags: { 'flush-window': text } }).flushWindowMs, 1500, text);
    }
    assert.equal(read({ configPath: file('{"flush-window": 250}') }).flushWindowMs, 250);
  });

  it('refuses what is no size, duration or count', () => {
    for (const text of [
      '',
      ' ',
      'lots',
      '64Mi',
      '-1',
      '1e9',
      '0x10',
      'NaN',
      '1.5',
      '9'.repeat(40),
      '64MiBs',
    ]) {
      assert.match(
        messageOf({ flags: { 'index-bytes': text } }),
        /^--index-bytes: .* (is not a size|is outside) /,
      );
    }
    assert.match(
      messageOf({ flags: { 'flush-window': '5 days' } }),
      /^--flush-window: "5 days" is not a duration/,
    );
    assert.match(messageOf({ flags: { lanes: '2.5' } }), /^--lanes: "2.5" is not a whole number/);
    assert.match(messageOf({ configPath: file('{"lanes": true}') }), /"lanes": true is not a whole number/);
    assert.match(messageOf({ configPath: file('{"lanes": null}') }), /"lanes": null is not a whole number/);
    assert.match(messageOf({ configPath: file('{"zone": 5}') }), /"zone": 5 is not a text/);
  });

  it('names the source of what is wrong', () => {
    const configPath = file('{"lanes": "many"}');
    assert.match(messageOf({ configPath }), /^settings file .*\.json, "lanes": "many" is not/);
    assert.match(
      messageOf({ env: { STREAMHOUSE_LANES: 'x' } }),
      /^environment STREAMHOUSE_LANES: "x" is not/,
    );
    assert.match(messageOf({ flags: { lanes: '65' } }), /^--lanes: "65" is outside 1 to 64$/);
    assert.match(
      messageOf({ flags: { 'flush-window': '1h' } }),
      /^--flush-window: "1h" is outside 1 ms to 10 s$/,
    );
  });

  it('refuses what it does not know, and says what may be meant', () => {
    assert.match(
      messageOf({ env: { STREAMHOUSE_LANE: '1' } }),
      /STREAMHOUSE_LANE: .*is STREAMHOUSE_LANES meant/,
    );
    assert.match(
      messageOf({ configPath: file('{"flush-windw": 1}') }),
      /"flush-windw": .*is flush-window meant/,
    );
    assert.match(messageOf({ configPath: file('{"xyz": 1}') }), /"xyz": there is no such setting$/);
    assert.match(
      messageOf({ configPath: file('{"__proto__": 1}') }),
      /"__proto__": there is no such setting$/,
    );
  });

  it('leaves names of the client, of tests and of others alone', () => {
    read({
      env: {
        STREAMHOUSE_URL: 'http://x',
        STREAMHOUSE_DEBUG: '1',
        STREAMHOUSE_TEST_CEPH: '1',
        STREAMHOUSE_LANES: '',
        PATH: '/bin',
        OTHER_LANES: 'x',
      },
    });
  });

  it('refuses a file that is missing, no JSON or no object, in one line and without quoting it', () => {
    assert.match(messageOf({ configPath: join(directory, 'none.json') }), /cannot be read \(ENOENT\)$/);
    const broken = messageOf({ configPath: file('{"metadata": "postgres://u:hunter2@db"') });
    assert.match(broken, /it is not valid JSON$/);
    assert.ok(!broken.includes('hunter2'));
    for (const text of ['[]', '3', 'null', '"x"']) {
      assert.match(messageOf({ configPath: file(text) }), /must hold one JSON object$/);
    }
  });

  it('checks what must fit together', () => {
    const message = messageOf({ flags: { 'record-bytes-max': '32MiB' } });
    assert.match(
      message,
      /^--record-bytes-max: record-bytes-max \(32 MiB\) must not be above body-bytes-max/,
    );
    assert.match(
      messageOf({ flags: { 'in-flight-bytes-max': '1MiB' } }),
      /^--in-flight-bytes-max: body-bytes-max \(16 MiB\) must not be above in-flight-bytes-max \(1 MiB\)/,
    );
    assert.match(
      messageOf({ flags: { lanes: '4', 'block-cache-bytes': '1MiB' } }),
      /^--block-cache-bytes: 4 lanes need a block cache of at least 2 MiB$/,
    );
  });

  it('takes addresses with names, IPv4 and IPv6, and nothing else', () => {
    assert.deepEqual(splitAddress('[::1]:0'), { host: '::1', port: 0 });
    assert.deepEqual(splitAddress('localhost:65535'), { host: 'localhost', port: 65535 });
    for (const text of ['localhost', ':80', '127.0.0.1:65536', 'a:b', '::1:80', 'http://x:1', 'x:1\n', '']) {
      assert.match(
        messageOf({ flags: { listen: text } }),
        /^--listen: .* is not HOST:PORT with a port up to 65535$/,
        text,
      );
    }
    assert.equal(read({ flags: { advertise: 'broker-1.local:80' } }).advertise, 'broker-1.local:80');
    assert.equal(read({}).advertise, null);
  });

  it('never shows secrets', () => {
    const settings = read({
      flags: {
        metadata: 'postgres://user:hunter2@db:5432/x?sslpassword=hunter3',
        objects: 's3://bucket/p?endpoint=http://a:hunter4@s3&secret_key=hunter5',
      },
    });
    const text = JSON.stringify(printableSettings(settings));
    assert.ok(!text.includes('hunter'), text);
    assert.match(text, /postgres:\/\/\*\*\*@db:5432\/x/);
    assert.equal(withoutSecrets('sqlite:./a@b.db'), 'sqlite:./a@b.db');
    assert.ok(!messageOf({ flags: { metadata: 'hunter2' } }).includes('hunter2'));
  });

  it('gives every setting its own flag and environment name, and a default inside its bounds', () => {
    const names = settingNames();
    assert.equal(new Set(names.map(flagOf)).size, names.length);
    assert.equal(new Set(names.map(environmentOf)).size, names.length);
    assert.equal(flagOf('uploadsInFlightMax'), 'uploads-in-flight-max');
    assert.equal(environmentOf('flushWindowMs'), 'STREAMHOUSE_FLUSH_WINDOW');
    for (const name of names) {
      const spec = SETTINGS[name];
      if ('min' in spec && spec.default !== null) {
        assert.ok(spec.min <= spec.default && spec.default <= spec.max, name);
      }
      assert.ok(spec.help.endsWith('.'), name);
    }
  });
});
