/**
 * Appends and answers between brokers: what is written reads back, damaged bytes end as the named error before any
 * append is handed out, answers arrive in pieces of any length, and neither layout nor numbers ever change.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ERROR_CODES, type ErrorCode, kindOf, StreamHouseError } from '../../../../src/core/errors.ts';
import {
  AnswerReader,
  AppendMessage,
  MESSAGE_HEADER_BYTES,
  WIRE_ANSWER_BYTES,
  WIRE_APPEND_HEADER_BYTES,
  type WireAppend,
  writeMessageHeader,
  writeWireAnswer,
  writeWireAppend,
} from '../../../../src/protocol/peer/append-message.ts';
import { codeOfWireNumber, wireNumberOf } from '../../../../src/protocol/peer/error-numbers.ts';

const numRuns = Number(process.env.FUZZ_RUNS ?? 500);
const LIMITS = { recordBytesMax: 100, appendBytesMax: 1000 };

type Sent = Omit<WireAppend, 'refusal'>;
type Bytes = Uint8Array | null;

function packedRecords(records: readonly (readonly [Bytes, Bytes])[]): Buffer {
  const lengths = Buffer.alloc(records.length * 8);
  const data: Uint8Array[] = [];
  records.forEach(([key, value], i) => {
    lengths.writeInt32LE(key ? key.length : -1, i * 8);
    lengths.writeInt32LE(value ? value.length : -1, i * 8 + 4);
    for (const bytes of [key, value]) if (bytes) data.push(bytes);
  });
  return Buffer.concat([lengths, ...data]);
}

function messageOf(appends: readonly Sent[]): Buffer {
  const bytes = appends.reduce((sum, one) => sum + WIRE_APPEND_HEADER_BYTES + one.bytes.length, 0);
  const out = Buffer.alloc(MESSAGE_HEADER_BYTES + bytes);
  writeMessageHeader(out, appends.length);
  let at = MESSAGE_HEADER_BYTES;
  for (const append of appends) at = writeWireAppend(out, at, append);
  assert.equal(at, out.length);
  return out;
}

function read(body: Buffer, limits = LIMITS): WireAppend[] {
  const appends: WireAppend[] = [];
  new AppendMessage(body, limits).forEach((append, index) => {
    assert.equal(index, appends.length);
    appends.push({ ...append, bytes: Buffer.from(append.bytes) });
  });
  return appends;
}

const anyBytes = fc.option(fc.uint8Array({ maxLength: 20 }));
const anyAppend: fc.Arbitrary<Sent> = fc
  .record({
    topicId: fc.integer({ min: 1, max: 2 ** 33 - 1 }),
    partition: fc.integer({ min: 0, max: 2 ** 20 - 1 }),
    records: fc.array(fc.tuple(anyBytes, anyBytes), { minLength: 1, maxLength: 5 }),
    producer: fc.option(
      fc.record({
        producerId: fc.maxSafeNat(),
        producerEpoch: fc.integer({ min: 0, max: 32767 }),
        baseSequence: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
      }),
    ),
  })
  .map(({ topicId, partition, records, producer }) => ({
    topicId,
    partition,
    recordCount: records.length,
    ...(producer ?? { producerId: -1, producerEpoch: -1, baseSequence: -1 }),
    bytes: packedRecords(records),
  }));
const anyMessage = fc.array(anyAppend, { minLength: 1, maxLength: 6 });

const ONE: Sent = {
  topicId: 258,
  partition: 3,
  recordCount: 2,
  producerId: 9,
  producerEpoch: 1,
  baseSequence: 7,
  bytes: packedRecords([
    [Buffer.from('k'), Buffer.from('val')],
    [null, null],
  ]),
};

function refusal(body: Buffer): string {
  try {
    new AppendMessage(body, LIMITS);
  } catch (error) {
    assert.ok(error instanceof StreamHouseError, String(error));
    assert.equal(error.code, 'malformed-request');
    return error.message;
  }
  return assert.fail('it was taken');
}

describe('a message of appends', () => {
  it('reads back as it was written', () => {
    fc.assert(
      fc.property(anyMessage, (appends) => {
        assert.deepEqual(
          read(messageOf(appends)),
          appends.map((append) => ({ ...append, refusal: null })),
        );
      }),
      { numRuns },
    );
  });

  it('has these bytes for ever', () => {
    const hex =
      '5348413101000000' + // 'SHA1', one append
      '0000000000207040' + // topic 258
      '0300000002000000' + // partition 3, two records
      '04000000' + // four bytes of data
      '0000000000002240' + // producer 9
      '0100000007000000' + // epoch 1, sequence 7
      '0100000003000000ffffffffffffffff' + // lengths
      '6b76616c'; // k, val
    assert.equal(messageOf([ONE]).toString('hex'), hex);
    assert.deepEqual(read(Buffer.from(hex, 'hex')), [{ ...ONE, refusal: null }]);
  });

  it('is refused as a whole, by name, whatever bytes come', () => {
    fc.assert(
      fc.property(
        anyMessage,
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }),
        (appends, changes) => {
          const body = messageOf(appends);
          for (const [place, value] of changes) body[place % body.length] = value;
          try {
            read(body);
          } catch (error) {
            assert.ok(error instanceof StreamHouseError, `${error} for ${body.toString('hex')}`);
            assert.equal(error.code, 'malformed-request');
          }
        },
      ),
      { numRuns },
    );
    fc.assert(
      fc.property(anyMessage, fc.nat(), (appends, place) => {
        const body = messageOf(appends);
        refusal(body.subarray(0, place % body.length));
        refusal(Buffer.concat([body, Buffer.alloc(1 + (place % 50))]));
      }),
      { numRuns },
    );
  });

  it('names what is wrong with it', () => {
    const wrong = (change: (body: Buffer) => void): string => {
      const body = messageOf([ONE]);
      change(body);
      return refusal(body);
    };
    assert.match(refusal(Buffer.alloc(3)), /3 bytes/);
    assert.match(
      wrong((body) => body.writeUInt8(0x32, 3)),
      /version 1/,
    );
    assert.match(
      wrong((body) => body.writeUInt32LE(0xffffffff, 4)),
      /append 1 is cut short/,
    );
    assert.match(refusal(messageOf([])), /no append/);
    assert.match(
      wrong((body) => body.writeDoubleLE(0.5, 8)),
      /topic id 0.5/,
    );
    assert.match(
      wrong((body) => body.writeDoubleLE(Number.NaN, 8)),
      /topic id NaN/,
    );
    assert.match(
      wrong((body) => body.writeUInt32LE(1 << 20, 16)),
      /partition 1048576/,
    );
    assert.match(
      wrong((body) => body.writeUInt32LE(0xffffffff, 20)),
      /4294967295 records/,
    );
    assert.match(
      wrong((body) => body.writeUInt32LE(0xfffffff0, 24)),
      /cut short/,
    );
    assert.match(
      wrong((body) => body.writeDoubleLE(-1, 28)),
      /producer/,
    );
    assert.match(
      wrong((body) => body.writeInt32LE(32768, 36)),
      /producer/,
    );
    assert.match(
      wrong((body) => body.writeInt32LE(-2, 44)),
      /negative/,
    );
    assert.match(
      wrong((body) => body.writeInt32LE(2147483647, 48)),
      /bytes of records, not 4/,
    );
  });

  it('refuses by itself an append that is well formed and over the limits', () => {
    const large = { ...ONE, recordCount: 1, bytes: packedRecords([[null, Buffer.alloc(101)]]) };
    const many = {
      ...ONE,
      recordCount: 11,
      bytes: packedRecords(Array.from({ length: 11 }, () => [null, Buffer.alloc(100)] as const)),
    };
    const refusals = read(messageOf([ONE, large, ONE, many])).map((append) => append.refusal);
    assert.deepEqual(refusals, [null, 'record-too-large', null, 'batch-too-large']);
  });
});

type Answer = [index: number, code: ErrorCode | null, baseOffset: number];

function answersOf(answers: readonly Answer[]): Buffer {
  const out = Buffer.alloc(answers.length * WIRE_ANSWER_BYTES);
  answers.forEach(([index, code, base], i) => {
    writeWireAnswer(out, i * WIRE_ANSWER_BYTES, index, code, base);
  });
  return out;
}

describe('answers', () => {
  const anyAnswer: fc.Arbitrary<Answer> = fc.oneof(
    fc.tuple(fc.nat(2 ** 31), fc.constant(null), fc.maxSafeNat()),
    fc.tuple(fc.nat(2 ** 31), fc.constantFrom(...ERROR_CODES), fc.constant(-1)),
  );

  it('read back out of pieces of any length', () => {
    fc.assert(
      fc.property(
        fc.array(anyAnswer, { maxLength: 20 }),
        fc.array(fc.integer({ min: 1, max: 40 })),
        (sent, cuts) => {
          const got: Answer[] = [];
          const reader = new AnswerReader((...answer) => got.push(answer));
          let rest = answersOf(sent);
          for (const cut of cuts) {
            reader.push(rest.subarray(0, cut));
            rest = rest.subarray(cut);
          }
          reader.push(rest);
          assert.deepEqual(got, sent);
          assert.equal(reader.restBytes, 0);
        },
      ),
      { numRuns },
    );
  });

  it('with an offset that is none are no answers', () => {
    for (const offset of [-1, 0.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY]) {
      const reader = new AnswerReader(() => assert.fail('it was believed'));
      assert.throws(() => reader.push(answersOf([[0, null, offset]])), { code: 'malformed-request' });
    }
  });

  it('survive any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (noise) => {
        const reader = new AnswerReader((_index, code, base) => assert.ok(code !== null || base >= 0));
        try {
          reader.push(Buffer.from(noise));
        } catch (error) {
          assert.equal((error as StreamHouseError).code, 'malformed-request');
        }
      }),
      { numRuns },
    );
  });
});

describe('error numbers', () => {
  it('are all different, and lead back', () => {
    assert.equal(new Set(ERROR_CODES.map(wireNumberOf)).size, ERROR_CODES.length);
    for (const code of ERROR_CODES) {
      assert.notEqual(wireNumberOf(code), 0);
      assert.equal(codeOfWireNumber(wireNumberOf(code)), code);
    }
  });

  it('never change', () => {
    const some = [
      'topic-not-found',
      'not-leader',
      'overloaded',
      'append-abandoned',
      'thread-lost',
      'peer-lost',
    ];
    assert.deepEqual(
      some.map((code) => wireNumberOf(code as ErrorCode)),
      [1, 43, 41, 46, 51, 52],
    );
  });

  it('that are not known say that nobody knows', () => {
    assert.equal(kindOf(codeOfWireNumber(0xffffffff)), 'unknown');
  });
});
