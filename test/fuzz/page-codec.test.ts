/** The page decoder on hostile bytes: it answers a page or corrupt-page, quickly, and nothing else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodePage, encodePage } from '../../index/page-codec.ts';
import { crc32c } from '../../src/core/crc32c.ts';
import { StreamHouseError } from '../../src/core/errors.ts';

const RUNS = Number(process.env.FUZZ_RUNS ?? 2000);
const HEADER = Buffer.from('5348495000010000', 'hex');

/** A page, or the one error; a page that decodes must encode and decode to itself. */
function decodeAny(bytes: Uint8Array): void {
  let page: ReturnType<typeof decodePage>;
  try {
    page = decodePage(bytes);
  } catch (error) {
    assert.ok(error instanceof StreamHouseError && error.code === 'corrupt-page', String(error));
    return;
  }
  assert.ok(page.refCount >= 1 && page.refCount <= 256 && page.refs.length === page.refCount * 6);
  assert.ok(page.refs.every(Number.isSafeInteger));
  assert.deepEqual(decodePage(encodePage(page)), page);
}

test('arbitrary bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => decodeAny(bytes)),
    { numRuns: RUNS },
  );
});

test('arbitrary contents behind a right header and before a right checksum', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (contents) => {
      const bytes = Buffer.concat([HEADER, contents, Buffer.alloc(4)]);
      bytes.writeUInt32BE(crc32c(bytes, 0, bytes.length - 4), bytes.length - 4);
      decodeAny(bytes);
    }),
    { numRuns: RUNS },
  );
});

test('small numbers behind a right header: close to pages', () => {
  const contents = fc.array(fc.oneof(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 255 })), {
    maxLength: 60,
  });
  fc.assert(
    fc.property(contents, (numbers) => {
      const bytes = Buffer.concat([HEADER, Uint8Array.from(numbers), Buffer.alloc(4)]);
      bytes.writeUInt32BE(crc32c(bytes, 0, bytes.length - 4), bytes.length - 4);
      decodeAny(bytes);
    }),
    { numRuns: RUNS },
  );
});
