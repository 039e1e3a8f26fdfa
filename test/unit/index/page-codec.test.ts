/** The page format: what goes in comes out, the golden file stays readable, everything else is corrupt-page. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { decodePage, encodePage, PAGE_BYTES_MAX, type Page, refsOfPage } from '../../../index/page-codec.ts';
import { blankRefs, packRef, type SegmentRef } from '../../../index/segment-ref.ts';
import { crc32c } from '../../../src/core/crc32c.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import { seededRandom } from '../../../src/core/random.ts';

const GOLDEN = new URL('../../golden/page-v1.hex', import.meta.url);

function pageOf(topicId: number, partition: number, stamp: number, refs: SegmentRef[]): Page {
  const packed = blankRefs(refs.length);
  for (let i = 0; i < refs.length; i++) packRef(packed, i, refs[i]);
  const [first] = refs;
  const nextOffset = refs[refs.length - 1].nextOffset;
  const baseOffset = first.baseOffset;
  return { topicId, partition, stamp, baseOffset, nextOffset, refCount: refs.length, refs: packed };
}

function ref(
  baseOffset: number,
  nextOffset: number,
  of: Omit<SegmentRef, 'baseOffset' | 'nextOffset'>,
): SegmentRef {
  return { baseOffset, nextOffset, ...of };
}

const golden = pageOf(4711, 99_999, 123_456, [
  ref(1_000, 1_001, { incarnation: 3, number: 17, position: 24, length: 81, maxTimestampSoFarMs: -1 }),
  ref(1_001, 1_500, {
    incarnation: 3,
    number: 18,
    position: 8_000_000,
    length: 70_000,
    maxTimestampSoFarMs: 1.7e12,
  }),
  ref(1_500, 1_501, { incarnation: 4, number: 0, position: 24, length: 1, maxTimestampSoFarMs: 1.7e12 }),
]);

function isCorrupt(error: unknown): boolean {
  return error instanceof StreamHouseError && error.code === 'corrupt-page';
}

/** Changes bytes and makes the checksum right again. */
function resealed(bytes: Uint8Array, change: (bytes: Uint8Array) => void): Uint8Array {
  const copy = Uint8Array.from(bytes);
  change(copy);
  new DataView(copy.buffer).setUint32(copy.length - 4, crc32c(copy, 0, copy.length - 4));
  return copy;
}

test('the golden page encodes to the same bytes and decodes to the same page', () => {
  const hex = readFileSync(GOLDEN, 'utf8').replaceAll(/\s/g, '');
  assert.equal(Buffer.from(encodePage(golden)).toString('hex'), hex);
  assert.deepEqual(decodePage(Buffer.from(hex, 'hex')), golden);
});

test('random pages come back as they were', () => {
  const random = seededRandom(5);
  for (let round = 0; round < 300; round++) {
    const refs: SegmentRef[] = [];
    let offset = random.below(3) === 0 ? random.below(2 ** 40) : random.below(100);
    let maxTimestampSoFarMs = random.below(2 ** 41) - 1;
    for (let i = 1 + random.below(round % 3 === 0 ? 256 : 4); i > 0; i--) {
      const nextOffset = offset + 1 + random.below(random.below(2) === 0 ? 2 : 1e6);
      maxTimestampSoFarMs += random.below(3) * random.below(1000);
      refs.push({
        baseOffset: offset,
        nextOffset,
        incarnation: random.below(1000),
        number: random.below(2 ** 40),
        position: random.below(2 ** 33),
        length: 1 + random.below(2 ** 23),
        maxTimestampSoFarMs,
      });
      offset = nextOffset;
    }
    const page = pageOf(1 + random.below(2 ** 33 - 2), random.below(2 ** 20), random.below(2 ** 45), refs);
    const bytes = encodePage(page);
    assert.ok(bytes.length <= PAGE_BYTES_MAX);
    assert.deepEqual(decodePage(bytes), page);
    assert.deepEqual(refsOfPage(page), refs);
  }
});

test('the greatest page stays below its bound', () => {
  const huge = 2 ** 52 - 1;
  const refs = Array.from({ length: 256 }, (_, i) => {
    const isOdd = i % 2 === 1;
    const at = isOdd ? huge : 0;
    const of = { incarnation: at, number: at, position: at, length: at + 1, maxTimestampSoFarMs: huge };
    return ref(i * 2 ** 44, (i + 1) * 2 ** 44, of);
  });
  const page = pageOf(2 ** 33 - 1, 2 ** 20 - 1, huge, refs);
  const bytes = encodePage(page);
  assert.ok(bytes.length <= PAGE_BYTES_MAX, `${bytes.length}`);
  assert.deepEqual(decodePage(bytes), page);
});

test('every truncation and every changed byte is corrupt-page', () => {
  const bytes = encodePage(golden);
  for (let length = 0; length < bytes.length; length++) {
    assert.throws(() => decodePage(bytes.subarray(0, length)), isCorrupt);
  }
  assert.throws(() => decodePage(Buffer.concat([bytes, Buffer.from([0])])), isCorrupt);
  for (let at = 0; at < bytes.length; at++) {
    const copy = Uint8Array.from(bytes);
    copy[at] ^= 1 << (at % 8);
    assert.throws(() => decodePage(copy), isCorrupt, `byte ${at}`);
  }
});

test('a right checksum does not make wrong contents right', () => {
  const bytes = encodePage(golden);
  assert.throws(() => decodePage(resealed(bytes, (b) => (b[5] = 2))), isCorrupt, 'version');
  assert.throws(() => decodePage(resealed(bytes, (b) => (b[7] = 1))), isCorrupt, 'flags');
  const noRefs = encodePage({ ...golden, refCount: 0, nextOffset: golden.baseOffset });
  assert.throws(() => decodePage(noRefs), isCorrupt, 'no refs');
  // Byte 18 begins the page's recordCount, 501: the refs then end before the page, or after it.
  assert.equal(bytes[18], 0xf5);
  assert.throws(() => decodePage(resealed(bytes, (b) => (b[18] = 0xf6))), isCorrupt, 'refs end too early');
  assert.throws(() => decodePage(resealed(bytes, (b) => (b[18] = 0xf4))), isCorrupt, 'refs end too late');
  const cases: [string, Partial<SegmentRef>][] = [
    ['length 0', { length: 0 }],
    ['negative position', { position: -1 }],
    ['negative number', { number: -5 }],
    ['negative incarnation', { incarnation: -5 }],
  ];
  for (const [what, change] of cases) {
    const [first] = refsOfPage(golden);
    const page = pageOf(1, 1, 1, [{ ...first, ...change }]);
    assert.throws(() => decodePage(encodePage(page)), isCorrupt, what);
  }
  const many = pageOf(
    1,
    1,
    1,
    Array.from({ length: 257 }, (_, i) => ({ ...refsOfPage(golden)[0], baseOffset: i, nextOffset: i + 1 })),
  );
  assert.throws(() => decodePage(encodePage(many)), isCorrupt, '257 refs');
});
