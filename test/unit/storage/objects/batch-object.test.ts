/** The batch object format: golden bytes, round trips, bounds, and precise words for whatever is wrong. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/core/clock.ts';
import { crc32c } from '../../../../src/core/crc32c.ts';
import { StreamHouseError } from '../../../../src/core/errors.ts';
import {
  BATCH_OBJECT_HEADER_BYTES,
  BATCH_OBJECT_TRAILER_BYTES,
  BatchObjectTailEncoder,
  decodeBatchObject,
  encodeHeader,
  encodeTail,
  readDirectory,
  TIMESTAMP_MS_BOUND,
  tailBytesMax,
  verifySlice,
} from '../../../../storage/objects/batch-object.ts';
import { MemoryObjectStore } from '../../../../storage/objects/memory-object-store.ts';
import { buildSampleObject, type SampleSlice } from '../../../support/batch-object-sample.ts';
import { FaultyObjectStore } from '../../../support/faulty-object-store.ts';

const GOLDEN = new URL('../../../golden/batch-object-v1.hex', import.meta.url);
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);

const goldenHeader = { incarnation: 7, number: 4_294_967_297 };
const goldenSamples: SampleSlice[] = [
  { topicId: 1, partition: 0, bytes: ascii('first'), recordCount: 3, maxTimestampMs: 1_700_000_000_250 },
  { topicId: 1, partition: 0, bytes: ascii('the same partition again') },
  { topicId: 1, partition: 300, bytes: ascii('x'), minTimestampMs: 1_699_999_999_000 },
  { topicId: 70_000, partition: 2_147_483_647, bytes: new Uint8Array(200).fill(0xab), recordCount: 200 },
  { topicId: 2 ** 40, partition: 5, bytes: ascii('no timestamp'), minTimestampMs: -1, gapBytes: 7 },
];

function corruptWith(pattern: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof StreamHouseError, String(error));
    assert.equal(error.code, 'corrupt-object');
    assert.match(error.message, pattern);
    return true;
  };
}

/** Recomputes the checksums of a changed object, so that the checks behind them are reached. */
function resealed(bytes: Buffer, directoryBytes?: number): Buffer {
  const trailer = bytes.length - BATCH_OBJECT_TRAILER_BYTES;
  const start = trailer - (directoryBytes ?? bytes.readUInt32BE(trailer + 8));
  if (start >= 0 && start <= trailer) bytes.writeUInt32BE(crc32c(bytes, start, trailer), trailer + 16);
  const headerCrc = crc32c(bytes, 0, BATCH_OBJECT_HEADER_BYTES);
  bytes.writeUInt32BE(crc32c(bytes, trailer, trailer + 24, headerCrc), trailer + 24);
  return bytes;
}

describe('batch object v1', () => {
  it('is, byte for byte, what it was when it was frozen', async () => {
    const golden = Buffer.from((await readFile(GOLDEN, 'utf8')).replace(/\s/g, ''), 'hex');
    const { bytes, slices } = buildSampleObject(goldenHeader, goldenSamples);
    assert.equal(bytes.toString('hex'), golden.toString('hex'));
    assert.deepEqual(decodeBatchObject(golden), { header: goldenHeader, slices });
  });

  it('gives slices whose bytes verify', () => {
    const { bytes } = buildSampleObject(goldenHeader, goldenSamples);
    decodeBatchObject(bytes).slices.forEach((slice, i) => {
      const own = bytes.subarray(slice.position, slice.position + slice.length);
      verifySlice(own, slice);
      assert.deepEqual(Buffer.from(goldenSamples[i].bytes), own);
    });
  });

  it('names the slice whose bytes are wrong', () => {
    const { bytes, slices } = buildSampleObject(goldenHeader, goldenSamples);
    const slice = slices[3];
    const own = Buffer.from(bytes.subarray(slice.position, slice.position + slice.length));
    own[100] ^= 1;
    assert.throws(
      () => verifySlice(own, slice),
      corruptWith(/checksum of the slice of topic 70000, partition/),
    );
    assert.throws(() => verifySlice(own.subarray(1), slice), corruptWith(/has 199 bytes, not 200/));
  });

  it('can be without slices', () => {
    const { bytes } = buildSampleObject({ incarnation: 0, number: 0 }, []);
    assert.equal(bytes.length, BATCH_OBJECT_HEADER_BYTES + BATCH_OBJECT_TRAILER_BYTES);
    assert.deepEqual(decodeBatchObject(bytes), { header: { incarnation: 0, number: 0 }, slices: [] });
  });

  it('keeps every field at its bounds, within tailBytesMax', () => {
    const header = { incarnation: Number.MAX_SAFE_INTEGER, number: Number.MAX_SAFE_INTEGER };
    const low = -TIMESTAMP_MS_BOUND + 1;
    const high = TIMESTAMP_MS_BOUND - 1;
    const common = { partition: 2 ** 31 - 1, recordCount: 2 ** 31 - 1, crc: 2 ** 32 - 1 };
    const far = 2 ** 52;
    const slices = [
      { ...common, topicId: 0, position: 24, length: 1, minTimestampMs: high, maxTimestampMs: high },
      { ...common, topicId: 1, position: 25, length: 2 ** 31 - 1, minTimestampMs: low, maxTimestampMs: high },
      {
        ...common,
        topicId: 2 ** 53 - 1,
        position: far,
        length: 9,
        minTimestampMs: high,
        maxTimestampMs: high,
      },
    ];
    const tail = encodeTail(header, slices, far + 9);
    assert.ok(tail.length <= tailBytesMax(3));
    // Such an object cannot be made; a sparse one cannot either. The directory alone can be checked.
    const encoder = new BatchObjectTailEncoder(header);
    for (const s of slices) {
      const { topicId, partition, position, length, recordCount, minTimestampMs, maxTimestampMs, crc } = s;
      encoder.add(topicId, partition, position, length, recordCount, minTimestampMs, maxTimestampMs, crc);
    }
    assert.deepEqual(encoder.finish(far + 9), tail);
    const small = slices.slice(0, 1).map((s) => ({ ...s, crc: crc32c(ascii('x')) }));
    const bytes = Buffer.concat([encodeHeader(header), ascii('x'), encodeTail(header, small, 25)]);
    assert.deepEqual(decodeBatchObject(bytes), { header, slices: small });
  });

  it('takes few bytes a slice: 10,000 neighbours', () => {
    const one = ascii('0123456789');
    const samples = Array.from({ length: 10_000 }, (_, i) => ({ topicId: 5, partition: i, bytes: one }));
    const { bytes, slices } = buildSampleObject({ incarnation: 1, number: 1 }, samples);
    assert.deepEqual(decodeBatchObject(bytes).slices, slices);
    const directoryBytes = bytes.length - BATCH_OBJECT_HEADER_BYTES - BATCH_OBJECT_TRAILER_BYTES - 100_000;
    assert.ok(directoryBytes <= 10_000 * 11 + 10, `${directoryBytes} bytes`);
  });

  it('asserts what the builder gives it', () => {
    const header = { incarnation: 1, number: 1 };
    const good = {
      topicId: 2,
      partition: 2,
      position: 24,
      length: 5,
      recordCount: 1,
      minTimestampMs: 1,
      maxTimestampMs: 1,
      crc: 0,
    };
    const after = { ...good, position: 29 };
    const throws = (...slices: (typeof good)[]): void => {
      assert.throws(() => encodeTail(header, slices, 1000), RangeError);
    };
    throws({ ...good, position: 23 });
    throws({ ...good, length: 0 });
    throws({ ...good, recordCount: 0 });
    throws({ ...good, maxTimestampMs: 0 });
    throws({ ...good, minTimestampMs: -TIMESTAMP_MS_BOUND });
    throws({ ...good, maxTimestampMs: TIMESTAMP_MS_BOUND });
    throws(good, { ...after, topicId: 1 });
    throws(good, { ...after, partition: 1 });
    throws(good, { ...after, position: 28 });
    assert.throws(() => encodeTail(header, [good], 28), RangeError);
    assert.throws(() => encodeHeader({ incarnation: -1, number: 0 }), RangeError);
    assert.throws(() => encodeHeader({ incarnation: 0, number: 0.5 }), RangeError);
    encodeTail(header, [good, after, { ...after, position: 100, topicId: 3, partition: 0 }], 1000);
  });
});

describe('batch object v1, malformed', () => {
  const sample = (): Buffer => buildSampleObject(goldenHeader, goldenSamples).bytes;
  const trailerAt = sample().length - BATCH_OBJECT_TRAILER_BYTES;
  const directoryAt = Number(sample().readBigUInt64BE(trailerAt));
  const refuses = (bytes: Buffer, pattern: RegExp): void => {
    assert.throws(() => decodeBatchObject(bytes), corruptWith(pattern));
  };

  it('is refused when it is cut short anywhere', () => {
    const bytes = sample();
    for (let length = 0; length < bytes.length; length++) {
      assert.throws(() => decodeBatchObject(bytes.subarray(0, length)), corruptWith(/./));
      assert.throws(() => decodeBatchObject(bytes.subarray(bytes.length - length)), corruptWith(/./));
    }
    refuses(bytes.subarray(0, 55), /55 bytes are too few/);
  });

  it('is refused when any bit outside the slices is flipped', () => {
    const { bytes, slices } = buildSampleObject(goldenHeader, goldenSamples);
    const inSlices = (at: number): boolean => at >= BATCH_OBJECT_HEADER_BYTES && at < directoryAt;
    for (let at = 0; at < bytes.length; at++) {
      for (let bit = 0; bit < 8; bit++) {
        bytes[at] ^= 1 << bit;
        if (inSlices(at)) assert.deepEqual(decodeBatchObject(bytes).slices, slices);
        else assert.throws(() => decodeBatchObject(bytes), corruptWith(/./));
        bytes[at] ^= 1 << bit;
      }
    }
  });

  it('says what is wrong with header and trailer', () => {
    const changed = (change: (bytes: Buffer) => void): Buffer => {
      const bytes = sample();
      change(bytes);
      return resealed(bytes);
    };
    refuses(
      changed((b) => b.write('SHBX', 0)),
      /no magic at the beginning/,
    );
    refuses(
      changed((b) => b.write('XXXX', trailerAt + 28)),
      /no magic at the end/,
    );
    refuses(
      changed((b) => b.writeUInt16BE(2, 4)),
      /version 2 in the header, only 1 is known/,
    );
    refuses(
      changed((b) => b.writeUInt16BE(9, trailerAt + 20)),
      /version 9 in the trailer/,
    );
    refuses(
      changed((b) => b.writeUInt16BE(1, 6)),
      /unknown flags 1 in the header/,
    );
    refuses(
      changed((b) => b.writeUInt16BE(4, trailerAt + 22)),
      /unknown flags 4 in the trailer/,
    );
    refuses(
      changed((b) => b.writeBigInt64BE(-1n, 8)),
      /negative incarnation/,
    );
    refuses(
      changed((b) => b.writeBigUInt64BE(2n ** 62n, 16)),
      /beyond 2\^53/,
    );
    refuses(
      changed((b) => b.writeBigUInt64BE(3n, trailerAt)),
      /directory lies in the header/,
    );
    refuses(
      changed((b) => b.writeBigUInt64BE(2n ** 50n, trailerAt)),
      /does not fit an object of/,
    );
    refuses(
      changed((b) => b.writeBigInt64BE(-5n, trailerAt)),
      /directory lies in the header/,
    );
    refuses(
      changed((b) => b.writeUInt32BE(2 ** 32 - 1, trailerAt + 8)),
      /does not fit an object of/,
    );
    refuses(
      changed((b) => b.writeUInt32BE(2 ** 32 - 1, trailerAt + 12)),
      /4294967295 slices are too many/,
    );
    refuses(
      changed((b) => b.writeUInt32BE(1_000_000, trailerAt + 12)),
      /1000000 slices do not fit/,
    );
    refuses(
      changed((b) => b.writeUInt32BE(0, trailerAt + 12)),
      /0 slices do not fit/,
    );
    const seal = sample();
    seal[9] ^= 1;
    refuses(seal, /checksum of header and trailer/);
    const directory = sample();
    directory[directoryAt] ^= 1;
    refuses(directory, /checksum of the directory/);
  });

  it('says what is wrong in a directory whose checksum is right', () => {
    const withDirectory = (count: number, ...entry: number[]): Buffer => {
      const directory = Buffer.from(entry);
      const trailer = Buffer.alloc(BATCH_OBJECT_TRAILER_BYTES);
      const slices = Buffer.alloc(100);
      trailer.writeBigUInt64BE(124n, 0);
      trailer.writeUInt32BE(directory.length, 8);
      trailer.writeUInt32BE(count, 12);
      trailer.writeUInt16BE(1, 20);
      trailer.write('OBHS', 28);
      const header = encodeHeader({ incarnation: 1, number: 1 });
      return resealed(Buffer.concat([header, slices, directory, trailer]), directory.length);
    };
    const max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
    const crc = [0, 0, 0, 0];
    assert.equal(decodeBatchObject(withDirectory(1, 0, 0, 0, 100, 1, 0, 0, ...crc)).slices.length, 1);
    refuses(withDirectory(1, 0, 0, 0, 101, 1, 0, 0, ...crc), /runs into the directory/);
    refuses(withDirectory(1, 0, 0, 99, 2, 1, 0, 0, ...crc), /runs into the directory/);
    refuses(withDirectory(1, 0, 0, ...max, 1, 1, 0, 0, ...crc), /runs into the directory/);
    refuses(withDirectory(1, 0, 0, 0, 0, 1, 0, 0, ...crc), /a slice of 0 bytes/);
    refuses(withDirectory(1, 0, 0, 0, ...max, 1, 0, 0, ...crc), /a slice of \d+ bytes/);
    refuses(withDirectory(1, 0, 0, 0, 1, 0, 0, 0, ...crc), /a slice of 0 records/);
    refuses(withDirectory(1, 0, ...max, 0, 1, 1, 0, 0, ...crc), /a partition beyond/);
    refuses(withDirectory(1, 0, 0, 0, 1, 1, ...max, 0, ...crc), /a timestamp out of bounds/);
    refuses(withDirectory(1, 0, 0, 0, 1, 1, 0, ...max, ...crc), /a timestamp out of bounds/);
    refuses(withDirectory(1, 0, 0, 0, 1, 1, 0, 0, ...crc, 0), /1 bytes too many/);
    refuses(
      withDirectory(1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80),
      /more than 8 bytes/,
    );
    const huge = [...max, 0, 0, 1, 1, 0, 0, ...crc];
    refuses(withDirectory(2, ...huge, ...huge), /topic id beyond/);
  });
});

describe('readDirectory', () => {
  const one = new Uint8Array(300).fill(3);
  const many = (count: number): SampleSlice[] =>
    Array.from({ length: count }, (_, i) => ({ topicId: 1, partition: i, bytes: one }));

  for (const [count, gets] of [
    [0, 1],
    [10, 1],
    [1000, 2],
    [20_000, 3],
  ]) {
    it(`reads ${count} slices by ${gets} ranged gets, and never the slices' own bytes`, async () => {
      const memory = new MemoryObjectStore(systemClock);
      const store = new FaultyObjectStore(memory, systemClock);
      const { bytes, slices } = buildSampleObject({ incarnation: 3, number: 4 }, many(count));
      await store.put('a/object', bytes);
      await store.put('a/object2', bytes);
      const directory = await readDirectory(store, 'a/object', bytes.length);
      assert.deepEqual(directory, { header: { incarnation: 3, number: 4 }, slices });
      assert.equal(store.counts.get, gets);
      assert.equal(store.counts.list, 0);
      assert.deepEqual(await readDirectory(store, 'a/object'), directory);
      assert.equal(store.counts.list, 1);
    });
  }

  it('gives named errors for what is missing, cut, foreign, or of another size than was said', async () => {
    const store = new MemoryObjectStore(systemClock);
    const { bytes } = buildSampleObject({ incarnation: 3, number: 4 }, many(1000));
    await store.put('whole', bytes);
    await store.put('cut', bytes.subarray(0, bytes.length - 1));
    await store.put('tiny', ascii('tiny'));
    await store.put('foreign', Buffer.alloc(100_000, 0x20));
    const code = (expected: string) => (error: unknown) =>
      error instanceof StreamHouseError && error.code === expected;
    await assert.rejects(readDirectory(store, 'who'), code('object-not-found'));
    await assert.rejects(readDirectory(store, 'who', 100), code('object-not-found'));
    for (const key of ['cut', 'tiny', 'foreign']) {
      await assert.rejects(readDirectory(store, key), code('corrupt-object'));
    }
    for (const wrongBytes of [0, 55, 56, bytes.length - 1, bytes.length + 1, 2 ** 50]) {
      await assert.rejects(readDirectory(store, 'whole', wrongBytes), code('corrupt-object'));
    }
  });

  it('notices a header that does not belong to its trailer', async () => {
    const store = new MemoryObjectStore(systemClock);
    const { bytes } = buildSampleObject({ incarnation: 3, number: 4 }, many(1000));
    bytes.set(encodeHeader({ incarnation: 3, number: 5 }));
    await store.put('mixed', bytes);
    await assert.rejects(readDirectory(store, 'mixed'), corruptWith(/checksum of header and trailer/));
  });
});
