/** The parts of pg-wire that need no server: URLs and values. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { StreamHouseError } from '../../../../src/core/errors.ts';
import { schemeOf } from '../../../../storage/metadata/metadata-backends.ts';
import {
  escapeText,
  integerArray,
  joinBytes,
  PG_TYPES,
  quoteIdentifier,
  unescapeText,
} from '../../../../storage/metadata/pg-wire/pg-values.ts';
import { readPostgresUrl } from '../../../../storage/metadata/postgres/postgres-open.ts';

describe('a PostgreSQL URL', () => {
  it('gives what it says, and defaults', () => {
    const { url, ...own } = readPostgresUrl('postgres://u%40x:p%2Fw@db.example:6432/meta%20data');
    assert.deepEqual(own, { schema: 'streamhouse', behindPgbouncer: false, isDurabilityChecked: true });
    assert.deepEqual(url.server, {
      host: 'db.example',
      port: 6432,
      user: 'u@x',
      password: 'p/w',
      database: 'meta data',
    });
    assert.deepEqual([url.connectionsMax, url.connectMs, url.lockMs, url.statementMs], [8, 5000, 4000, 8000]);
    assert.equal(url.description, 'postgres://db.example:6432/meta data, schema streamhouse');
    // What is left out is the environment's to say.
    assert.deepEqual(readPostgresUrl('postgres://').url.server, {});
    assert.equal(readPostgresUrl('postgres://h/d?sslmode=disable').url.server.ssl, false);
    assert.equal(readPostgresUrl('postgres://[::1]:5/d').url.server.host, '::1');
    assert.equal(readPostgresUrl('postgres:///d?host=/run/pg').url.server.host, '/run/pg');
  });

  it('takes settings, each once and within bounds', () => {
    const { url, ...own } = readPostgresUrl(
      'postgresql://h/d?schema=A-b&pgbouncer=true&durability=unchecked&connections=2&connect_timeout_ms=1' +
        '&lock_timeout_ms=2&statement_timeout_ms=3&application_name=me&sslmode=no-verify',
    );
    assert.deepEqual(own, { schema: 'A-b', behindPgbouncer: true, isDurabilityChecked: false });
    assert.deepEqual(
      [url.connectionsMax, url.connectMs, url.lockMs, url.statementMs, url.applicationName],
      [2, 1, 2, 3, 'me'],
    );
    assert.deepEqual(url.server.ssl, { rejectUnauthorized: false });
    assert.deepEqual(readPostgresUrl('postgres://h/d?sslmode=require').url.server.ssl, {
      rejectUnauthorized: true,
    });
  });

  it('is refused in one line without its secrets', () => {
    const secret = 'hunter2';
    for (const rest of [
      'h:port/d',
      'h/d%zz',
      'h/d?nonsense=1',
      'h/d?connections=9',
      'h/d?connections=1',
      'h/d?connections=2&connections=2',
      'h/d?statement_timeout_ms=0',
      'h/d?lock_timeout_ms=1.5',
      'h/d?sslmode=prefer',
      'h/d?sslrootcert=/nowhere',
      'h/d?sslmode=require&sslrootcert=/nowhere',
      'h/d?schema=',
      'h/d?schema=a"b',
      `h/d?schema=${'x'.repeat(64)}`,
      'h/d?pgbouncer=1',
      'h/d?durability=off',
    ]) {
      assert.throws(
        () => readPostgresUrl(`postgres://u:${secret}@${rest}`),
        (error: unknown) => {
          assert(error instanceof StreamHouseError, `${rest}: ${error}`);
          assert.equal(error.code, 'invalid-setting', rest);
          assert(!error.message.includes(secret) && !error.message.includes('\n'), error.message);
          return true;
        },
        rest,
      );
    }
    assert.throws(() => readPostgresUrl('postgres:d'), { code: 'invalid-setting' });
  });

  it('has two names for one scheme', () => {
    assert.equal(schemeOf('postgres://h/d'), 'postgres');
    assert.equal(schemeOf('postgresql://h/d'), 'postgres');
    assert.throws(
      () => schemeOf('postgresq://u:hunter2@h/d'),
      (error: Error) => !error.message.includes('hunter2'),
    );
  });
});

describe('values of PostgreSQL', () => {
  const parse = (oid: number, text: string) => PG_TYPES.getTypeParser(oid, 'text')(text);

  it('are read by type, and what is none of ours stops loudly', () => {
    assert.equal(parse(20, '9007199254740991'), Number.MAX_SAFE_INTEGER);
    assert.throws(() => parse(20, '9007199254740992'), { code: 'corrupt-store' });
    assert.equal(parse(16, 't'), true);
    assert.equal(parse(16, 'f'), false);
    assert.deepEqual(parse(1007, '{}'), []);
    assert.deepEqual(parse(1016, '{1,-2,3}'), [1, -2, 3]);
    assert.deepEqual(parse(17, '\\x00ff7f'), new Uint8Array([0, 255, 127]));
    assert.deepEqual(parse(17, '\\x'), new Uint8Array(0));
    assert.throws(() => parse(17, '\\000'), { code: 'invalid-setting' });
    assert.throws(() => parse(17, '\\xzz'), { code: 'corrupt-store' });
    assert.throws(() => PG_TYPES.getTypeParser(3802, 'text'), /no parser/);
    assert.throws(() => PG_TYPES.getTypeParser(20, 'binary'), /no parser/);
  });

  it('give bytes a memory of their own', () => {
    const bytes = parse(17, '\\x0102') as Uint8Array;
    assert.equal(bytes.buffer.byteLength, 2);
  });

  it('are written as arrays and as one run of bytes', () => {
    assert.equal(integerArray([]), '{}');
    assert.equal(integerArray([1, null, 3]), '{1,NULL,3}');
    const { bytes, positions, lengths } = joinBytes([
      new Uint8Array([1, 2]),
      new Uint8Array(0),
      new Uint8Array([3]),
    ]);
    assert.deepEqual(
      [[...bytes], positions, lengths],
      [
        [1, 2, 3],
        [1, 3, 3],
        [2, 0, 1],
      ],
    );
    assert.equal(quoteIdentifier('a"b'), '"a""b"');
  });

  it('escape U+0000 and keep the order of bytes', () => {
    const texts = [
      '',
      '\0',
      '\0\0',
      '\0\x01',
      '\0a',
      '\x01',
      '\x01\0',
      '\x01\x01',
      '\x01\x02',
      '\x02',
      'a',
      'a\0b',
      'a\x01',
    ];
    for (const text of texts) {
      assert.equal(unescapeText(escapeText(text)), text, JSON.stringify(text));
      assert(!escapeText(text).includes('\0'));
    }
    const byBytes = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));
    const sorted = [...texts].sort(byBytes);
    assert.deepEqual(
      [...texts].sort((a, b) => byBytes(escapeText(a), escapeText(b))),
      sorted,
    );
    assert.equal(escapeText('plain-Name_1.x'), 'plain-Name_1.x');
  });
});
