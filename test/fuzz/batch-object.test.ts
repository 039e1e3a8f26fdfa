/**
 * Fuzzing of the batch object decoder: any object that can be built comes back; whatever else is fed to it ends
 * as `corrupt-object`, soon, and never as anything else. FUZZ_RUNS raises the number of runs.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { crc32c } from '../../src/core/crc32c.ts';
import { StreamHouseError } from '../../src/core/errors.ts';
import { decodeBatchObject } from '../../storage/objects/batch-object.ts';
import { buildSampleObject, type SampleSlice } from '../support/batch-object-sample.ts';

const numRuns = Number(process.env.FUZZ_RUNS ?? 500);

const timestampMs = fc.integer({ min: -(2 ** 51) + 1, max: 2 ** 51 - 1 });
const slice: fc.Arbitrary<SampleSlice> = fc
  .record({
    topicId: fc.oneof(fc.nat(5), fc.maxSafeNat()),
    partition: fc.oneof(fc.nat(5), fc.nat(2 ** 31 - 1)),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 300 }),
    recordCount: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
    times: fc.tuple(timestampMs, timestampMs),
    gapBytes: fc.oneof(fc.constant(0), fc.nat(20)),
  })
  .map(({ times, ...rest }) => ({
    ...rest,
    minTimestampMs: Math.min(...times),
    maxTimestampMs: Math.max(...times),
  }));
const header = fc.record(
  { incarnation: fc.maxSafeNat(), number: fc.maxSafeNat() },
  { noNullPrototype: true },
);
const object = fc.tuple(
  header,
  fc
    .array(slice, { maxLength: 40 })
    .map((slices) => slices.sort((a, b) => a.topicId - b.topicId || a.partition - b.partition)),
);

/** Decodes what may be anything; true when it was read. */
function decodes(bytes: Uint8Array): boolean {
  try {
    decodeBatchObject(bytes);
    return true;
  } catch (error) {
    assert.ok(
      error instanceof StreamHouseError,
      `${String(error)} for ${Buffer.from(bytes).toString('hex')}`,
    );
    assert.equal(error.code, 'corrupt-object');
    assert.ok(error.message.length > 10);
    return false;
  }
}

function reseal(bytes: Buffer): void {
  const trailer = bytes.length - 32;
  const directoryBytes = bytes.readUInt32BE(trailer + 8);
  const start = trailer - directoryBytes;
  if (start >= 0) bytes.writeUInt32BE(crc32c(bytes, start, trailer), trailer + 16);
  bytes.writeUInt32BE(crc32c(bytes, trailer, trailer + 24, crc32c(bytes, 0, 24)), trailer + 24);
}

describe('batch object, fuzzed', () => {
  it('reads back every object that can be built', () => {
    fc.assert(
      fc.property(object, ([name, samples]) => {
        const { bytes, slices } = buildSampleObject(name, samples);
        assert.deepEqual(decodeBatchObject(bytes), { header: name, slices });
      }),
      { numRuns },
    );
  });

  it('ends in order for any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        assert.equal(decodes(bytes), false);
      }),
      { numRuns },
    );
  });

  it('refuses every object that was cut, at either end', () => {
    fc.assert(
      fc.property(object, fc.nat(), fc.boolean(), ([name, samples], at, front) => {
        const { bytes } = buildSampleObject(name, samples);
        const cut = at % bytes.length;
        assert.equal(decodes(front ? bytes.subarray(cut + 1) : bytes.subarray(0, cut)), false);
      }),
      { numRuns },
    );
  });

  it('ends in order when bytes are changed and the checksums made to fit: what an enemy would write', () => {
    const change = fc.tuple(fc.nat(), fc.nat(255));
    fc.assert(
      fc.property(object, fc.array(change, { minLength: 1, maxLength: 4 }), ([name, samples], changes) => {
        const { bytes, slices } = buildSampleObject(name, samples);
        const outside = bytes.length - (slices.at(-1)?.position ?? 0);
        for (const [at, value] of changes) bytes[bytes.length - 1 - (at % outside)] = value;
        reseal(bytes);
        if (!decodes(bytes)) return;
        // Where it was still read, what it says lies within the object.
        let end = 24;
        for (const { position, length } of decodeBatchObject(bytes).slices) {
          assert.ok(position >= end && length >= 1 && position + length <= bytes.length - 32);
          end = position + length;
        }
      }),
      { numRuns },
    );
  });
});
