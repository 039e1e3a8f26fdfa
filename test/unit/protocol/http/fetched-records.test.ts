/** Fetched batches as JSON: verbatim values, what cannot be shown, where an answer ends. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32c } from '../../../../src/core/crc32c.ts';
import { StreamHouseError } from '../../../../src/core/errors.ts';
import { encodeFetchedRecords } from '../../../../src/protocol/http/fetched-records.ts';
import { acceptedFormat, bodyFormat, isJsonBody } from '../../../../src/protocol/http/media-type.ts';
import { batchOf, type StoredRecord } from '../../../support/fake-broker.ts';

const place = { topic: 't', partition: 2, offset: 10 };

function stored(value: string | Buffer | null, key: string | null = null): StoredRecord {
  return {
    key: key === null ? null : Buffer.from(key),
    value: value === null ? null : Buffer.from(value as string),
    timestampMs: 1700,
  };
}

function refusal(batches: Buffer, format: 'json' | 'binary' = 'json'): StreamHouseError {
  try {
    encodeFetchedRecords(place, batches, format);
  } catch (error) {
    assert(error instanceof StreamHouseError);
    return error;
  }
  return assert.fail('taken');
}

test('values are verbatim in json and base64 in binary; earlier records are left out', () => {
  const batches = Buffer.concat([
    batchOf([stored('"no"'), stored('12345678901234567890', '"k"')], 9),
    batchOf([stored(null), stored(' { "a":1.0 } ')], 11),
  ]);
  assert.equal(
    encodeFetchedRecords(place, batches, 'json').toString(),
    '[{"topic":"t","partition":2,"offset":10,"timestamp":1700,"key":"k","value":12345678901234567890},' +
      '{"topic":"t","partition":2,"offset":11,"timestamp":1700,"key":null,"value":null},' +
      '{"topic":"t","partition":2,"offset":12,"timestamp":1700,"key":null,"value": { "a":1.0 } }]',
  );
  const binary = JSON.parse(encodeFetchedRecords(place, batches, 'binary').toString());
  assert.equal(Buffer.from(binary[0].key, 'base64').toString(), '"k"');
  assert.equal(binary[1].value, null);
  assert.equal(encodeFetchedRecords(place, Buffer.alloc(0), 'json').toString(), '[]');
});

test('an answer grows far beyond its batches: many tiny records, both formats, every size', () => {
  for (let count = 1; count < 200; count++) {
    const batches = batchOf(
      Array.from({ length: count }, (_, i) => stored(String(i), '"k"')),
      10,
    );
    for (const format of ['json', 'binary'] as const) {
      const shown = JSON.parse(encodeFetchedRecords(place, batches, format).toString());
      assert.equal(shown.length, count);
      const last = shown[count - 1].value;
      assert.equal(format === 'json' ? last : Number(Buffer.from(last, 'base64').toString()), count - 1);
    }
  }
});

test('a record that is not JSON ends a json answer, and is an error when it is first', () => {
  const bad = batchOf([stored('1'), stored(Buffer.from([0xff])), stored('2')], 10);
  assert.equal(JSON.parse(encodeFetchedRecords(place, bad, 'json').toString()).length, 1);
  const first = refusal(batchOf([stored('not json')], 10));
  assert.equal(first.code, 'not-acceptable');
  assert.match(first.message, /t-2 at offset 10 .*binary\.v2/);
  assert.match(refusal(batchOf([stored('1', 'plain key')], 10)).message, /the key of/);
  assert.equal(JSON.parse(encodeFetchedRecords(place, bad, 'binary').toString()).length, 3);
});

/** Patches the attributes of a batch and its checksum. */
function withAttributes(batch: Buffer, attributes: number): Buffer {
  batch.writeUInt16BE(attributes, 21);
  batch.writeUInt32BE(crc32c(batch, 21), 17);
  return batch;
}

test('compressed, control and damaged batches', () => {
  const compressed = withAttributes(batchOf([stored('1')], 10), 4);
  assert.match(refusal(compressed).message, /from offset 10 on are compressed \(zstd\)/);
  const control = withAttributes(batchOf([stored('1')], 10), 0x20);
  const after = batchOf([stored('2')], 11);
  assert.match(encodeFetchedRecords(place, Buffer.concat([control, after]), 'json').toString(), /"value":2/);
  const damaged = batchOf([stored('1')], 10);
  damaged[damaged.length - 2] ^= 1;
  assert.equal(refusal(damaged).code, 'corrupt-batch');
  const cut = Buffer.concat([batchOf([stored('1')], 10), after.subarray(0, 30)]);
  assert.equal(JSON.parse(encodeFetchedRecords(place, cut, 'json').toString()).length, 1);
});

test('a topic name is escaped in the answer', () => {
  const answer = encodeFetchedRecords({ ...place, topic: 'a"b' }, batchOf([stored('1')], 10), 'json');
  assert.equal(JSON.parse(answer.toString())[0].topic, 'a"b');
});

test('content types', () => {
  assert.equal(bodyFormat('application/vnd.kafka.json.v2+json'), 'json');
  assert.equal(bodyFormat('Application/Vnd.Kafka.Binary.V2+JSON ; charset="UTF-8"'), 'binary');
  assert.equal(bodyFormat('application/json; charset=utf-8'), 'json');
  assert.equal(bodyFormat('application/json; charset=latin1'), null);
  assert.equal(bodyFormat('application/vnd.kafka.avro.v2+json'), null);
  assert.equal(bodyFormat(undefined), null);
  assert.equal(isJsonBody('application/json'), true);
  assert.equal(isJsonBody('text/plain'), false);
  assert.equal(acceptedFormat(undefined), 'json');
  assert.equal(acceptedFormat('*/*'), 'json');
  assert.equal(acceptedFormat('application/vnd.kafka.binary.v2+json'), 'binary');
  assert.equal(
    acceptedFormat('application/json;q=0.5, application/vnd.kafka.binary.v2+json;q=0.9'),
    'binary',
  );
  assert.equal(acceptedFormat('*/*, application/vnd.kafka.binary.v2+json'), 'binary');
  assert.equal(acceptedFormat('text/html, application/vnd.kafka.json.v2+json;q=0'), null);
  assert.equal(acceptedFormat('text/html'), null);
});
