/**
 * Record batches: what is written is what Kafka's format says, comes back record by record, and damage is named.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { crc32c } from '../../../src/core/crc32c.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import {
  type BatchRecord,
  batchBytes,
  checkBatchCrc,
  type ProducerStamp,
  patchBatch,
  readBatchHeader,
  readRecords,
  writeBatch,
} from '../../../src/core/record-batch.ts';

type Pair = [Uint8Array | null, Uint8Array | null];

function build(pairs: Pair[], timestampMs: number, producer: ProducerStamp | null, lead = 0): Buffer {
  const spans: number[] = [];
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const bytes of pairs.flat()) {
    spans.push(bytes ? at : -1, bytes ? at + bytes.length : -1);
    if (bytes) {
      parts.push(bytes);
      at += bytes.length;
    }
  }
  const records = { source: Buffer.concat(parts), spans };
  const bytes = batchBytes(records, 0, pairs.length);
  const out = Buffer.alloc(lead + bytes, 0xee);
  assert.equal(writeBatch(out, lead, records, 0, pairs.length, timestampMs, producer), lead + bytes);
  return out;
}

function recordsIn(bytes: Buffer, position = 0): BatchRecord[] {
  const records: BatchRecord[] = [];
  readRecords(bytes, position, (record) => records.push(record));
  return records;
}

const bytes = fc.option(fc.uint8Array({ maxLength: 200 }));
const pairs = fc.array(fc.tuple(bytes, bytes), { minLength: 1, maxLength: 40 });
const producer = fc.option(
  fc.record(
    { producerId: fc.maxSafeNat(), producerEpoch: fc.nat(32767), baseSequence: fc.nat(2 ** 31 - 1) },
    { noNullPrototype: true },
  ),
);

describe('record batch', () => {
  it('gives back keys, values and nulls exactly, at the offsets that were patched in', () => {
    fc.assert(
      fc.property(
        pairs,
        fc.nat(2 ** 42),
        producer,
        fc.maxSafeNat(),
        fc.nat(9),
        (made, at, stamp, base, lead) => {
          const batch = build(made, at, stamp, lead);
          const baseOffset = Math.min(base, Number.MAX_SAFE_INTEGER - made.length);
          patchBatch(batch, lead, baseOffset, 12);
          const header = readBatchHeader(batch, lead);
          assert.ok(checkBatchCrc(batch, header), 'the checksum does not cover what is patched');
          assert.equal(header.baseOffset, baseOffset);
          assert.equal(batch.readInt32BE(lead + 12), 12);
          assert.deepEqual(
            [header.producerId, header.producerEpoch, header.baseSequence],
            stamp ? [stamp.producerId, stamp.producerEpoch, stamp.baseSequence] : [-1, -1, -1],
          );
          assert.deepEqual(
            recordsIn(batch, lead).map(({ offset, timestampMs, key, value, headers }) => ({
              offset,
              timestampMs,
              key: key && new Uint8Array(key),
              value: value && new Uint8Array(value),
              headers,
            })),
            made.map(([key, value], i) => ({
              offset: baseOffset + i,
              timestampMs: at,
              key,
              value,
              headers: [],
            })),
          );
        },
      ),
      { numRuns: 200 },
    );
  });

  it('writes the bytes that Kafka writes', () => {
    const batch = build([[Buffer.from('k'), Buffer.from('v')]], 1_700_000_000_000, null);
    const body =
      '0000' +
      '00000000' +
      '0000018bcfe56800' +
      '0000018bcfe56800' +
      'ffffffffffffffff' +
      'ffff' +
      'ffffffff';
    const record = '00000001' + '10' + '00' + '00' + '00' + '02' + '6b' + '02' + '76' + '00';
    const covered = Buffer.from(body + record, 'hex');
    const head = Buffer.from('0000000000000000' + '0000003a' + 'ffffffff' + '02' + '00000000', 'hex');
    head.writeUInt32BE(crc32c(covered), 17);
    assert.equal(batch.toString('hex'), Buffer.concat([head, covered]).toString('hex'));
  });

  it('notices every flipped bit that the checksum covers', () => {
    const batch = build([[null, Buffer.from('value')]], 5, null);
    for (let at = 21; at < batch.length; at++) {
      const damaged = Buffer.from(batch);
      damaged[at] ^= 4;
      assert.throws(() => recordsIn(damaged), { code: 'corrupt-batch' }, `byte ${at}`);
    }
  });

  it('names truncation, foreign magic and nonsense; a compressed batch is not opened', () => {
    const batch = build([[null, Buffer.from('value')]], 5, null);
    for (let length = 0; length < batch.length; length++) {
      assert.throws(() => readBatchHeader(batch.subarray(0, length), 0), { code: 'corrupt-batch' });
    }
    const with32 = (at: number, value: number) => {
      const changed = Buffer.from(batch);
      changed.writeInt32BE(value, at);
      return changed;
    };
    for (const changed of [
      with32(8, -1),
      with32(8, 2 ** 31 - 1),
      with32(57, 0),
      with32(57, -5),
      with32(23, 7),
    ]) {
      assert.throws(() => readBatchHeader(changed, 0), { code: 'corrupt-batch' });
    }
    const old = Buffer.from(batch);
    old[16] = 1;
    assert.throws(() => readBatchHeader(old, 0), { code: 'corrupt-batch' });
    const compressed = reseal(batch, (copy) => copy.writeUInt16BE(1, 21));
    assert.throws(() => recordsIn(compressed), { code: 'invalid-record' });
  });

  it('survives any bytes behind a right checksum', () => {
    const batch = build(
      [
        [Buffer.from('key'), Buffer.from('value')],
        [null, null],
      ],
      5,
      null,
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 }), (changes) => {
        const hostile = reseal(batch, (copy) => {
          for (const [place, value] of changes) copy[21 + (place % (copy.length - 21))] = value;
        });
        try {
          recordsIn(hostile);
        } catch (error) {
          assert.ok(error instanceof StreamHouseError, String(error));
          assert.ok(['corrupt-batch', 'invalid-record'].includes(error.code));
        }
      }),
      { numRuns: 1000 },
    );
  });
});

function reseal(batch: Buffer, change: (copy: Buffer) => void): Buffer {
  const copy = Buffer.from(batch);
  change(copy);
  copy.writeUInt32BE(crc32c(copy, 21), 17);
  return copy;
}
