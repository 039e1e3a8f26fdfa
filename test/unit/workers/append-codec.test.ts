/**
 * The packed messages between threads: headers, answers, and a lane's way from records to record batches.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ERROR_CODES, type ErrorCode } from '../../../src/core/errors.ts';
import { checkBatchCrc, readBatchHeader } from '../../../src/core/record-batch.ts';
import {
  ANSWER_BYTES,
  AnswerWriter,
  APPEND_HEADER_BYTES,
  blankAppendHeader,
  bufferOver,
  errorNumber,
  errorOfNumber,
  readAnswers,
  readAppendHeader,
  writeAppendHeader,
} from '../../../workers/append-codec.ts';
import { forEachAppend } from '../../../workers/batch-builder.ts';
import { fullReason, sealReason } from '../../../workers/flush-policy.ts';
import { buildAppends } from '../../../workers/lane-produce.ts';
import { packProduce, payloadsOf, type SimAppend } from '../../sim/payloads.ts';

type Answer = [number, number, ErrorCode | null, number];

const anyAnswer: fc.Arbitrary<Answer> = fc.tuple(
  fc.nat(2 ** 32 - 1),
  fc.nat(2 ** 32 - 1),
  fc.constantFrom(null, ...ERROR_CODES),
  fc.oneof(fc.constant(-1), fc.maxSafeNat()),
);

function read(message: Uint8Array | null): Answer[] {
  const answers: Answer[] = [];
  if (message) readAnswers(message, (...answer) => answers.push(answer));
  return answers;
}

describe('append codec', () => {
  it('numbers every error and knows it again', () => {
    for (const code of ERROR_CODES) assert.equal(errorOfNumber(errorNumber(code)), code);
    assert.equal(errorOfNumber(0), null);
    assert.equal(new Set(ERROR_CODES.map(errorNumber)).size, ERROR_CODES.length);
  });

  it('keeps every field of a header', () => {
    const whole = {
      slot: 2 ** 32 - 1,
      generation: 2 ** 32 - 2,
      topicId: 2 ** 33 - 1,
      partition: 2 ** 20 - 1,
      recordCount: 100_000,
      dataBytes: 2 ** 31,
      producerId: Number.MAX_SAFE_INTEGER,
      producerEpoch: -1,
      baseSequence: -1,
    };
    const bytes = Buffer.alloc(100);
    writeAppendHeader(bytes, 13, whole);
    const header = blankAppendHeader();
    readAppendHeader(bytes, 13, header);
    assert.deepEqual(header, whole);
  });

  it('gathers answers, takes over those of another writer, and gives each once', () => {
    fc.assert(
      fc.property(fc.array(fc.array(anyAnswer, { maxLength: 150 }), { maxLength: 5 }), (groups) => {
        const whole = new AnswerWriter();
        for (const group of groups) {
          const some = new AnswerWriter();
          for (const answer of group) some.add(...answer);
          whole.append(some);
          assert.equal(some.count, 0);
          assert.equal(some.take(), null);
          some.add(1, 2, null, 3);
        }
        assert.equal(whole.count, groups.flat().length);
        const message = whole.take();
        assert.deepEqual(read(message), groups.flat());
        assert.equal(message?.length ?? 0, groups.flat().length * ANSWER_BYTES);
        assert.equal(whole.take(), null);
        whole.add(9, 9, 'overloaded', -1);
        assert.deepEqual(read(whole.take()), [[9, 9, 'overloaded', -1]]);
      }),
      { numRuns: 60 },
    );
  });

  it('builds one valid record batch of each append, in order', () => {
    const appends: SimAppend[] = [
      {
        slot: 1,
        generation: 2,
        topicId: 3,
        partition: 4,
        producer: null,
        payloads: ['a', '', 'c'.repeat(5000)],
      },
      {
        slot: 5,
        generation: 6,
        topicId: 7,
        partition: 8,
        producer: { producerId: 99, producerEpoch: 3, baseSequence: 2147483647 },
        payloads: ['z'],
      },
    ];
    const built = buildAppends(packProduce(appends), 1_700_000_000_123);
    assert.equal(built.count, 2);
    const bytes = bufferOver(built.bytes);
    let seen = 0;
    forEachAppend(bytes, (header, position) => {
      const { slot, generation, topicId, partition, producer, payloads } = appends[seen++];
      assert.deepEqual(
        [header.slot, header.generation, header.topicId, header.partition, header.recordCount],
        [slot, generation, topicId, partition, payloads.length],
      );
      const at = position + APPEND_HEADER_BYTES;
      const batch = readBatchHeader(bytes, at);
      assert.ok(checkBatchCrc(bytes, batch));
      assert.equal(batch.length, header.dataBytes);
      assert.equal(batch.producerId, producer?.producerId ?? -1);
      assert.equal(batch.baseSequence, producer?.baseSequence ?? -1);
      assert.equal(batch.maxTimestampMs, 1_700_000_000_123);
      assert.equal(bytes.readDoubleLE(position + 56), 1_700_000_000_123);
      assert.deepEqual(payloadsOf(bytes.subarray(at, at + batch.length)), payloads);
    });
    assert.equal(seen, 2);
    assert.equal(buildAppends(new Uint8Array(0), 1).count, 0);
  });
});

describe('flush policy', () => {
  const limits = { windowMs: 100, bytesMax: 1000, slicesMax: 10 };
  const weight = (bytes: number, sliceCount: number, appendCount = sliceCount) => ({
    bytes,
    sliceCount,
    appendCount,
  });

  it('seals what is full at once, what is old at the end of its window, and never what is empty', () => {
    assert.equal(sealReason(limits, weight(0, 0), 1e9), null);
    assert.equal(sealReason(limits, weight(999, 9), 98.9), null);
    assert.equal(sealReason(limits, weight(999, 9), 99), 'window');
    assert.equal(sealReason(limits, weight(1000, 9), 0), 'bytes');
    assert.equal(sealReason(limits, weight(999, 10), 0), 'slices');
    assert.equal(fullReason(limits, weight(1000, 10)), 'bytes');
    assert.equal(fullReason(limits, weight(1, 1, 131_071)), null);
    assert.equal(fullReason(limits, weight(1, 1, 131_072)), 'slices');
  });
});
