/**
 * Fuzzing of the decoders of entries and checkpoints: random flips, truncations, and hostile bodies under a right
 * checksum end as the named error, soon, never as anything else. FUZZ_RUNS raises the number of runs.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { crc32c } from '../../src/core/crc32c.ts';
import { StreamHouseError } from '../../src/core/errors.ts';
import { decodeCheckpoint, encodeCheckpoint } from '../../workers/checkpoint-codec.ts';
import { decodeEntry, encodeEntry } from '../../workers/entry-codec.ts';
import { anyEntry, anySteps, logOf, stateOf } from '../support/entry-samples.ts';

const numRuns = Number(process.env.FUZZ_RUNS ?? 500);

const decoders = [
  {
    name: 'entry',
    code: 'corrupt-entry',
    sample: anyEntry.map((entry) => Buffer.from(encodeEntry(entry))),
    decode: (bytes: Uint8Array) => decodeEntry(bytes),
  },
  {
    name: 'checkpoint',
    code: 'corrupt-checkpoint',
    sample: anySteps.map((steps) => Buffer.from(encodeCheckpoint(stateOf(logOf(steps))))),
    decode: (bytes: Uint8Array) => decodeCheckpoint(bytes, 3),
  },
] as const;

/** The last four bytes become the checksum of those before. */
function reseal(bytes: Buffer): Buffer {
  if (bytes.length >= 4) bytes.writeUInt32BE(crc32c(bytes, 0, bytes.length - 4), bytes.length - 4);
  return bytes;
}

for (const { name, code, sample, decode } of decoders) {
  const refusesOrReads = (bytes: Uint8Array): boolean => {
    try {
      decode(bytes);
      return true;
    } catch (error) {
      assert.ok(error instanceof StreamHouseError, `${error} for ${Buffer.from(bytes).toString('hex')}`);
      assert.equal(error.code, code);
      return false;
    }
  };

  describe(`fuzz: ${name}`, () => {
    it('notices every flipped bit and every truncation', () => {
      fc.assert(
        fc.property(sample, fc.nat(), fc.nat(7), (bytes, place, bit) => {
          const flipped = Buffer.from(bytes);
          flipped[place % bytes.length] ^= 1 << bit;
          assert.equal(refusesOrReads(flipped), false);
          assert.equal(refusesOrReads(bytes.subarray(0, place % bytes.length)), false);
        }),
        { numRuns },
      );
    });

    it('survives any bytes under a right checksum', () => {
      fc.assert(
        fc.property(sample, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }), (bytes, changes) => {
          const changed = Buffer.from(bytes);
          for (const [place, value] of changes) changed[place % changed.length] = value;
          refusesOrReads(reseal(changed));
        }),
        { numRuns },
      );
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 64 }), (noise) => {
          refusesOrReads(reseal(Buffer.from(noise)));
        }),
        { numRuns },
      );
    });

    it('refuses counts that the bytes cannot hold before it makes room for them', () => {
      const huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
      const heads =
        name === 'entry'
          ? [
              [1, 1, 3, 1, 1, 0],
              [1, 1, 3, 1, 1, 0, 0],
              [1, 3, 3, 1, 1, 0],
            ]
          : [];
      const magic = [0x53, 0x48, 0x43, 0x4b, 1, 3, 1, 1, 0];
      const all = name === 'checkpoint' ? [magic, [...magic, 0], [...magic, 0, 0]] : heads;
      for (const start of all) {
        const bytes = reseal(Buffer.from([...start, ...huge, 0, 0, 0, 0]));
        assert.throws(() => decode(bytes), { code, message: /count/ });
      }
    });
  });
}
