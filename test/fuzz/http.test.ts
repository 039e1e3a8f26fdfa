/**
 * Garbage for everything of the HTTP door that reads outside bytes: produce bodies, fetched batches, the
 * socket. Smoke size by default; FUZZ_RUNS=n multiplies the runs. A failure prints fast-check's seed.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { StreamHouseError } from '../../src/core/errors.ts';
import { encodeFetchedRecords } from '../../src/protocol/http/fetched-records.ts';
import { parseProduceBody } from '../../src/protocol/http/produce-body.ts';
import { batchOf } from '../support/fake-broker.ts';
import {
  BINARY_V2,
  call,
  eventually,
  JSON_V2,
  produceText,
  RawClient,
  startDoor,
} from '../support/http-door-harness.ts';

const FACTOR = Number(process.env.FUZZ_RUNS ?? 1);

const EXPECTED = new Set(['malformed-request', 'invalid-request', 'batch-too-large']);

const seeds = [
  '{"records":[{"key":"k","value":{"a":[1,2.5,null]},"partition":3}]}',
  '{"records":[{"value":"YWJj"},{"key":"QUE9","value":null}]}',
  '{"\\u0072ecords":[{"\\u0076alue":"\\u0041\\/\\n"}],"records":[{}]}',
].map((text) => Buffer.from(text));

/** A specimen with some bytes overwritten, and cut or doubled. */
const mutated = (specimens: readonly Buffer[]) =>
  fc
    .tuple(
      fc.constantFrom(...specimens),
      fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { maxLength: 6 }),
      fc.nat(),
      fc.constantFrom('keep', 'cut', 'double'),
    )
    .map(([specimen, changes, at, how]) => {
      const bytes = Buffer.from(specimen);
      for (const [i, byte] of changes) bytes[i % bytes.length] = byte;
      if (how === 'cut') return bytes.subarray(0, at % bytes.length);
      return how === 'double' ? Buffer.concat([bytes, bytes]) : bytes;
    });

test('produce bodies: taken or refused with a code, and what is taken is JSON', () => {
  const bodies = fc.oneof(
    mutated(seeds),
    fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
  );
  fc.assert(
    fc.property(bodies, fc.constantFrom('json' as const, 'binary' as const), (bytes, format) => {
      try {
        const { source, spans, partitions } = parseProduceBody(bytes, format);
        JSON.parse(bytes.toString());
        assert.equal(spans.length, partitions.length * 4);
        for (let i = 0; i < spans.length; i += 2) {
          assert(
            spans[i] === -1 || (spans[i] >= 0 && spans[i] <= spans[i + 1] && spans[i + 1] <= source.length),
          );
          if (format === 'json' && spans[i] >= 0) {
            JSON.parse(Buffer.from(source.subarray(spans[i], spans[i + 1])).toString());
          }
        }
      } catch (error) {
        assert(error instanceof StreamHouseError && EXPECTED.has(error.code), String(error));
      }
    }),
    { numRuns: 5000 * FACTOR },
  );
});

test('fetched batches: shown or refused with a code, never records that fail their checksum', () => {
  const record = { key: Buffer.from('"k"'), value: Buffer.from('{"a":1}'), timestampMs: 5 };
  const specimens = [
    batchOf([record], 0),
    Buffer.concat([batchOf([record, { ...record, key: null }], 0), batchOf([{ ...record, value: null }], 2)]),
  ];
  fc.assert(
    fc.property(mutated(specimens), fc.constantFrom('json' as const, 'binary' as const), (bytes, format) => {
      try {
        const text = encodeFetchedRecords({ topic: 't', partition: 0, offset: 0 }, bytes, format).toString();
        for (const shown of JSON.parse(text)) {
          if (shown.value === null) continue;
          const value =
            format === 'json' ? JSON.stringify(shown.value) : Buffer.from(shown.value, 'base64').toString();
          assert.equal(value, '{"a":1}');
        }
      } catch (error) {
        assert(error instanceof StreamHouseError, String(error));
        assert(['corrupt-batch', 'not-acceptable'].includes(error.code), error.code);
      }
    }),
    { numRuns: 3000 * FACTOR },
  );
});

test('the socket: the door outlives any bytes and holds nothing afterwards', async (t) => {
  const under = await startDoor(t, { headerBytesMax: 4096, bodyBytesMax: 5000 });
  under.broker.addTopic('t', 2);
  const specimens = [
    Buffer.from(produceText('/topics/t', '{"records":[{"value":1}]}')),
    Buffer.from(
      `POST /topics/t/partitions/1 HTTP/1.1\r\nHost: h\r\nContent-Type: ${BINARY_V2}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"rec\r\n12\r\nords":[{"value":""}]}\r\n0\r\n\r\n`,
    ),
    Buffer.from(
      `GET /topics/t/partitions/0/records?offset=0&max_bytes=10 HTTP/1.1\r\nHost: h\r\nAccept: ${JSON_V2}\r\n\r\n`,
    ),
    Buffer.from(
      'PATCH /v3/clusters/fake-cluster/topics/t HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n{"partitions_count":3}',
    ),
    Buffer.from(
      'PUT /v3/clusters/fake-cluster/topics/%74/configs/a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"value":"x"}',
    ),
  ];
  await fc.assert(
    fc.asyncProperty(
      fc.array(mutated(specimens), { minLength: 1, maxLength: 4 }),
      fc.boolean(),
      async (parts, polite) => {
        const client = new RawClient(under.port);
        for (const part of parts) client.send(part);
        // Half of the clients say that they are done, the others are just gone.
        if (polite) {
          client.socket.end();
          await client.untilEnd();
        } else {
          await new Promise((resolve) => setTimeout(resolve, 1));
          client.destroy();
        }
      },
    ),
    { numRuns: 300 * FACTOR },
  );
  assert.equal((await call(under, 'GET', '/health/live')).status, 200);
  assert.deepEqual(under.internal, []);
  await eventually(() => under.admission.held === 0, 'nothing is held');
});
