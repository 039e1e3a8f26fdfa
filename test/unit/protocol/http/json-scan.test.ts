/** The scanner accepts exactly what JSON.parse accepts, and finds where each value ends. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { StreamHouseError } from '../../../../src/core/errors.ts';
import { isJsonText, JSON_DEPTH_MAX, skipJsonValue } from '../../../../src/protocol/http/json-scan.ts';

function parses(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

const SPECIMENS = [
  '',
  ' ',
  '0',
  '-0',
  '-',
  '01',
  '1.',
  '.5',
  '1.0',
  '1e5',
  '1E+5',
  '1e',
  '1e+',
  '-1.5e-7',
  '+1',
  '0x1',
  'NaN',
  'Infinity',
  'true',
  'tru',
  'trues',
  'false',
  'null',
  'nul',
  'nullx',
  '""',
  '"',
  '"a',
  '"\\',
  '"\\"',
  '"\\""',
  '"\\u12"',
  '"\\u12zz"',
  '"\\u12aF"',
  '"\\ud800"',
  '"\\x41"',
  '"\\/"',
  '"\n"',
  '"\u007f"',
  '"\u2028"',
  '{}',
  '{',
  '{"a"}',
  '{"a":}',
  '{"a":1',
  '{"a":1,}',
  '{,}',
  '{"a":1 "b":2}',
  '{"a":1,"a":2}',
  "{'a':1}",
  '{a:1}',
  '[]',
  '[',
  '[1',
  '[1,]',
  '[,1]',
  '[1 2]',
  '[1,2]]',
  '[[[]]]',
  '[{"a":[]}]',
  '[}',
  '{]',
  '{"a":[}',
  '[1,{"b":2}',
  '1 2',
  '// c\n1',
  '\ufeff1',
  '\u00a01',
  '\v1',
  '\f1',
  ' \t\r\n1 \t\r\n',
  '{"a":{"b":[1,{"c":null}]}}',
  'truE',
  '"\t"',
  '12345678901234567890',
  '1.0000000000000000001',
  '1e400',
  '"\u0000"',
  '{"\\u0061":1}',
  '"\u{1F600}"',
];

test('specimens are taken as JSON.parse takes them', () => {
  for (const text of SPECIMENS) {
    assert.equal(isJsonText(Buffer.from(text)), parses(text), JSON.stringify(text));
  }
});

test('any JSON is accepted, with any white space', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom('', ' ', '\t', '\n  '), (value, indent) => {
      const text = JSON.stringify(value, null, indent) ?? 'null';
      const bytes = Buffer.from(`${indent}${text}`);
      assert.equal(isJsonText(bytes), true);
      const end = skipJsonValue(bytes, Buffer.byteLength(indent), bytes.length);
      assert.equal(end, bytes.length);
    }),
    { numRuns: 500 },
  );
});

test('JSON with one byte changed, added or removed is taken as JSON.parse takes it', () => {
  const pieces = fc.constantFrom(...'{}[]",:\\u0019.eE+-tfn \n\u0001aZ'.split(''));
  fc.assert(
    fc.property(fc.jsonValue(), fc.nat(), pieces, fc.constantFrom(0, 1), (value, at, piece, removed) => {
      const text = JSON.stringify(value) ?? 'null';
      const i = at % (text.length + 1);
      const changed = text.slice(0, i) + piece + text.slice(i + removed);
      // A cut through a surrogate pair is not UTF-8 at all.
      if (!changed.isWellFormed()) return;
      assert.equal(isJsonText(Buffer.from(changed)), parses(changed), changed);
    }),
    { numRuns: 3000 },
  );
});

test('random strings of JSON tokens are taken as JSON.parse takes them', () => {
  const tokens = fc.constantFrom(
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '"a"',
    '"',
    '\\',
    '1',
    '-',
    '.',
    '0',
    'e',
    'true',
    'null',
    ' ',
    '"\\u0041"',
  );
  fc.assert(
    fc.property(fc.array(tokens, { maxLength: 12 }), (parts) => {
      const text = parts.join('');
      assert.equal(isJsonText(Buffer.from(text)), parses(text), text);
    }),
    { numRuns: 5000 },
  );
});

test('bytes that are not UTF-8 are not JSON text', () => {
  assert.equal(isJsonText(Buffer.from([0x22, 0xff, 0x22])), false);
  assert.equal(isJsonText(Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])), false);
});

test('nesting is taken up to the limit and refused beyond it, for both kinds', () => {
  for (const [open, inner, close] of [
    ['[', '', ']'],
    ['{"a":', '1', '}'],
  ]) {
    const nested = (depth: number) => Buffer.from(open.repeat(depth) + inner + close.repeat(depth));
    assert.equal(isJsonText(nested(JSON_DEPTH_MAX)), true);
    // Empty innermost containers are never entered, so they do not count.
    assert.equal(isJsonText(nested(JSON_DEPTH_MAX + 2)), false);
    assert.throws(() => skipJsonValue(nested(100_000), 0, nested(100_000).length), /nested deeper than 512/);
  }
});

test('a value never ends beyond the range that was given', () => {
  const bytes = Buffer.from('[1,2,3]');
  for (let end = 0; end < bytes.length; end++) {
    assert.throws(
      () => skipJsonValue(bytes, 0, end),
      (error) => error instanceof StreamHouseError && error.code === 'malformed-request',
    );
  }
  assert.equal(skipJsonValue(bytes, 1, 2), 2);
});
