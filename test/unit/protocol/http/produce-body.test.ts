/** Spans of a produce body are the client's very bytes, and the check equals the schema over JSON.parse. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Compile } from 'typebox/compile';
import { type ErrorCode, StreamHouseError } from '../../../../src/core/errors.ts';
import { RECORDS_PER_REQUEST_MAX } from '../../../../src/core/limits.ts';
import { parseProduceBody } from '../../../../src/protocol/http/produce-body.ts';
import { ProduceBodyBinary, ProduceBodyJson } from '../../../../src/protocol/http/schemas.ts';

interface Parsed {
  key: string | null;
  value: string | null;
  partition: number;
}

function parse(text: string | Buffer, format: 'json' | 'binary' = 'json'): Parsed[] {
  const { source, spans, partitions } = parseProduceBody(Buffer.from(text as string), format);
  assert.equal(spans.length, partitions.length * 4);
  const at = (from: number, to: number) => (from < 0 ? null : Buffer.from(source.subarray(from, to)));
  return partitions.map((partition, i) => ({
    key: at(spans[i * 4], spans[i * 4 + 1])?.toString('latin1') ?? null,
    value: at(spans[i * 4 + 2], spans[i * 4 + 3])?.toString('latin1') ?? null,
    partition,
  }));
}

function code(text: string | Buffer, format: 'json' | 'binary' = 'json'): ErrorCode | 'taken' {
  try {
    parse(text, format);
    return 'taken';
  } catch (error) {
    assert(error instanceof StreamHouseError, String(error));
    return error.code;
  }
}

test('numbers, spaces and escapes survive as sent', () => {
  const records = parse(
    '{"records":[{"value":12345678901234567890},{"value":1.0},{"key":"\\u0061","value":{ "b" : [1, 2.50 ] }},{"value":-0e0}]}',
  );
  assert.deepEqual(
    records.map((record) => record.value),
    ['12345678901234567890', '1.0', '{ "b" : [1, 2.50 ] }', '-0e0'],
  );
  assert.equal(records[2].key, '"\\u0061"');
});

test('null, missing, empty record, partition', () => {
  assert.deepEqual(
    parse('{"records":[{"key":null,"value":null},{},{"value":0,"partition":3},{"partition":null}]}'),
    [
      { key: null, value: null, partition: -1 },
      { key: null, value: null, partition: -1 },
      { key: null, value: '0', partition: 3 },
      { key: null, value: null, partition: -1 },
    ],
  );
});

test('the last of several members of one name counts, even after a wrong one', () => {
  assert.deepEqual(
    parse('{"records":7,"records":[{"value":1}],"records":[{"value":2,"value":3,"key":1,"key":null}]}'),
    [{ key: null, value: '3', partition: -1 }],
  );
  assert.deepEqual(parse('{"records":[{"nonsense":1}],"records":[{"partition":"x","partition":2}]}'), [
    { key: null, value: null, partition: 2 },
  ]);
  assert.deepEqual(parse('{"records":[{"value":5,"value":"YQ=="}]}', 'binary')[0].value, 'a');
  assert.equal(code('{"records":[{"value":1}],"records":7}'), 'invalid-request');
});

test('member names are compared after their escapes', () => {
  assert.deepEqual(parse('{"\\u0072ecords":[{"\\u0076alue":1,"k\\u0065y":2,"parti\\u0074ion":0}]}'), [
    { key: '2', value: '1', partition: 0 },
  ]);
  assert.equal(code('{"records":[{"\\\\u0076alue":1}]}'), 'invalid-request');
  assert.equal(code('{"records":[{"Value":1}]}'), 'invalid-request');
});

test('what is wrong is told apart: syntax, shape, size', () => {
  for (const text of [
    '',
    ' ',
    '{',
    '{"records":[{"value":1}]',
    '{"records":[{"value":1}]}x',
    '{"records":[{"value":01}]}',
    '[1,]',
    '{"records":[{}],}',
    '\ufeff{}',
    '{"x":1,"records":}',
  ])
    assert.equal(code(text), 'malformed-request', text);
  for (const text of [
    '{}',
    '[]',
    '1',
    'null',
    '"records"',
    '{"records":[]}',
    '{"records":{}}',
    '{"records":null}',
    '{"records":[1]}',
    '{"records":[null]}',
    '{"records":[{"x":1}]}',
    '{"records":[{}],"x":1}',
    '{"records":[{}],"value":1}',
    '{"records":[{"records":1}]}',
    '{"records":[{"partition":-1}]}',
    '{"records":[{"partition":1.5}]}',
    '{"records":[{"partition":"1"}]}',
    '{"records":[{"partition":2147483648}]}',
    '{"records":[{"partition":true}]}',
    '{"records":[{"partition":[1]}]}',
    '{"records":[{"__proto__":1}]}',
    '{"__proto__":{},"records":[{}]}',
  ])
    assert.equal(code(text), 'invalid-request', text);
  assert.equal(code(Buffer.from([0x7b, 0xff, 0x7d])), 'malformed-request');
  const most = `{"records":[${'{},'.repeat(RECORDS_PER_REQUEST_MAX - 1)}{}]}`;
  assert.equal(code(most), 'taken');
  assert.equal(code(most.replace('[', '[{},')), 'batch-too-large');
});

test('partition takes any JSON number that is an integer in range', () => {
  assert.deepEqual(
    parse('{"records":[{"partition":1.0},{"partition":1e2},{"partition":-0},{"partition":2147483647}]}').map(
      (r) => r.partition,
    ),
    [1, 100, 0, 2147483647],
  );
});

test('messages name the record', () => {
  assert.throws(() => parse('{"records":[{},{},{"partition":-1}]}'), /records\[2\]\.partition/);
  assert.throws(() => parse('{"records":[{},{"valeu":1}]}'), /records\[1\] has an unknown member "valeu"/);
  assert.throws(
    () => parse('{"records":[{"value":"!!!!"}]}', 'binary'),
    /records\[0\]\.value is not valid base64/,
  );
  assert.throws(() => parse('{"records":[{"key":1}]}', 'binary'), /records\[0\]\.key must be a string/);
});

test('binary: strict base64, with JSON escapes in it', () => {
  const records = parse(
    '{"records":[{"key":"AQI=","value":"\\/\\/8="},{"value":"","key":null},{"value":"\\u0041A=="}]}',
    'binary',
  );
  assert.deepEqual(records, [
    { key: '\x01\x02', value: '\xff\xff', partition: -1 },
    { key: null, value: '', partition: -1 },
    { key: null, value: '\0', partition: -1 },
  ]);
  for (const bad of [
    'A',
    'AA',
    'AAA',
    'AAAAA',
    'A===',
    '====',
    'AB==',
    'AAB=',
    'AA=A',
    'A A=',
    'AA==AA==',
    'AA--',
    '\\u0000AAA',
    'ä==',
  ])
    assert.equal(code(`{"records":[{"value":"${bad}"}]}`, 'binary'), 'invalid-request', bad);
});

test('binary: any bytes come through', () => {
  fc.assert(
    fc.property(
      fc.array(fc.option(fc.uint8Array({ maxLength: 70 })), { minLength: 1, maxLength: 5 }),
      (values) => {
        const encoded = values.map((v) => ({ value: v === null ? null : Buffer.from(v).toString('base64') }));
        const records = parse(JSON.stringify({ records: encoded }), 'binary');
        assert.deepEqual(
          records.map((r) => r.value),
          values.map((v) => (v === null ? null : Buffer.from(v).toString('latin1'))),
        );
      },
    ),
    { numRuns: 300 },
  );
});

/** A produce body as text, written member by member, so that duplicates, spaces and escapes occur. */
const space = fc.constantFrom('', ' ', '\n\t');
const memberName = fc.constantFrom(
  '"value"',
  '"key"',
  '"partition"',
  '"\\u0076alue"',
  '"records"',
  '"other"',
  '"va\\u006cue"',
);
const anyValue = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }).map((value) => JSON.stringify(value) ?? 'null'),
  fc.constantFrom('null', '1.0', '"YQ=="', '0', '-1', '3', '"x"', '1e1', '{}', '[]'),
);
const member = fc
  .tuple(space, memberName, space, anyValue)
  .map(([s, n, t, v]) => `${s}${n}${t}:${s}${v}${t}`);
const goodMember = fc
  .tuple(fc.constantFrom('"value"', '"key"', '"\\u006bey"'), anyValue)
  .map(([n, v]) => `${n}:${v}`);
const record = fc.oneof(
  { weight: 4, arbitrary: fc.array(goodMember, { maxLength: 3 }).map((m) => `{${m.join(',')}}`) },
  { weight: 1, arbitrary: fc.array(member, { maxLength: 4 }).map((m) => `{${m.join(',')}}`) },
  { weight: 1, arbitrary: anyValue },
);
const recordsValue = fc.oneof(
  { weight: 5, arbitrary: fc.array(record, { maxLength: 4 }).map((r) => `[${r.join(' ,')}]`) },
  { weight: 1, arbitrary: anyValue },
);
const bodyText = fc
  .array(
    fc.oneof(
      { weight: 6, arbitrary: recordsValue.map((v) => `"records":${v}`) },
      { weight: 1, arbitrary: member },
    ),
    { minLength: 1, maxLength: 2 },
  )
  .map((m) => `{${m.join(',')}}`);

const checkJson = Compile(ProduceBodyJson);
const checkBinary = Compile(ProduceBodyBinary);

interface BodyShape {
  records: { key?: unknown; value?: unknown; partition?: number | null }[];
}

test('json: taken exactly when the schema takes what JSON.parse gives, with the same values', () => {
  fc.assert(
    fc.property(bodyText, (text) => {
      const value: unknown = JSON.parse(text);
      const got = code(text);
      assert.equal(got, checkJson.Check(value) ? 'taken' : 'invalid-request', text);
      if (got !== 'taken') return;
      const expected = (value as BodyShape).records.map((r) => ({
        key: r.key ?? null,
        value: r.value ?? null,
        partition: (r.partition ?? -1) + 0,
      }));
      const { source, spans, partitions } = parseProduceBody(Buffer.from(text), 'json');
      const at = (from: number, to: number): unknown =>
        from < 0 ? null : JSON.parse(Buffer.from(source.subarray(from, to)).toString());
      const records = partitions.map((partition, i) => ({
        key: at(spans[i * 4], spans[i * 4 + 1]),
        value: at(spans[i * 4 + 2], spans[i * 4 + 3]),
        partition,
      }));
      assert.deepEqual(records, expected);
    }),
    { numRuns: 3000 },
  );
});

test('binary: taken exactly when the schema and strict base64 take it', () => {
  const strict = (text: unknown) =>
    typeof text !== 'string' || Buffer.from(text, 'base64').toString('base64') === text;
  fc.assert(
    fc.property(bodyText, (text) => {
      const value: unknown = JSON.parse(text);
      const fits =
        checkBinary.Check(value) &&
        (value as BodyShape).records.every((r) => strict(r.key) && strict(r.value));
      assert.equal(code(text, 'binary'), fits ? 'taken' : 'invalid-request', text);
    }),
    { numRuns: 2000 },
  );
});
