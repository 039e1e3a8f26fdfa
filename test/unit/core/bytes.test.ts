/**
 * The byte writer and reader: every number comes back, no reader leaves its bounds.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ByteReader, ByteWriter } from '../../../src/core/bytes.ts';

const CODE = 'corrupt-entry';

describe('bytes', () => {
  it('gives back integers of every form, growing from nothing', () => {
    const i64 = fc.oneof(fc.maxSafeInteger(), fc.integer());
    const zigzag = fc.oneof(fc.integer(), fc.integer({ min: -(2 ** 52) + 1, max: 2 ** 52 - 1 }));
    const fields = fc.tuple(
      fc.nat(255),
      fc.nat(65535),
      fc.nat(2 ** 32 - 1),
      fc.integer(),
      i64,
      fc.oneof(fc.maxSafeNat(), fc.nat(300)),
      zigzag,
      fc.string({ unit: 'grapheme' }),
      fc.uint8Array(),
    );
    fc.assert(
      fc.property(fields, ([u8, u16, u32, i32, wide, varint, signed, text, raw]) => {
        const out = new ByteWriter(1);
        out.u8(u8).u16(u16).u32(u32).i32(i32).i64(wide).varint(varint).zigzag(signed);
        out.string(text).sizedBytes(raw);
        const bytes = out.take();
        assert.equal(out.length, 0);
        const reader = new ByteReader(bytes, CODE);
        assert.deepEqual(
          [
            reader.u8(),
            reader.u16(),
            reader.u32(),
            reader.i32(),
            reader.i64(),
            reader.varint(),
            reader.zigzag(),
          ],
          [u8, u16, u32, i32, wide, varint, signed],
        );
        assert.equal(reader.string(), text);
        assert.deepEqual(new Uint8Array(reader.sizedBytes()), raw);
        reader.end();
        for (let length = 0; length < bytes.length; length += 7) {
          const cut = new ByteReader(bytes.subarray(0, length), CODE);
          assert.throws(
            () => {
              cut.bytes(length);
              cut.u8();
            },
            { code: CODE },
          );
        }
      }),
    );
  });

  it('takes one byte more for every seven bits of a varint', () => {
    for (let bits = 1; bits <= 53; bits++) {
      const value = 2 ** bits - 1;
      const bytes = new ByteWriter().varint(value).take();
      assert.equal(bytes.length, Math.ceil(bits / 7), `${bits} bits`);
      assert.equal(new ByteReader(bytes, CODE).varint(), value);
    }
  });

  it('refuses varints beyond 2^53, endless ones, counts and sections beyond the end', () => {
    const reader = (...bytes: number[]) => new ByteReader(Uint8Array.from(bytes), CODE);
    assert.throws(() => reader(255, 255, 255, 255, 255, 255, 255, 127).varint(), { code: CODE });
    assert.throws(() => reader(128, 128, 128, 128, 128, 128, 128, 128, 0).varint(), { code: CODE });
    assert.throws(() => reader(128).varint(), { code: CODE });
    assert.throws(() => reader(3, 0, 0).count(), { code: CODE });
    assert.equal(reader(2, 0, 0).count(), 2);
    assert.throws(() => reader(2, 0, 0).count(2), { code: CODE });
    assert.throws(() => reader(0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0).i64(), { code: CODE });
    assert.throws(() => reader(1).end(), { code: CODE });
    assert.throws(() => new ByteReader(new Uint8Array(4), CODE, 0, 5), { code: CODE });
    assert.throws(() => new ByteReader(new Uint8Array(4), CODE, 3, 2), { code: CODE });
    const section = new ByteReader(new Uint8Array(8), CODE, 2, 4);
    section.u16();
    assert.throws(() => section.u8(), { code: CODE });
  });

  it('keeps what was taken apart from what is written later', () => {
    const out = new ByteWriter(2).u32(1);
    const first = out.take();
    out.u32(0xffffffff);
    assert.deepEqual([...first], [0, 0, 0, 1]);
    out.patchU32(0, 7);
    assert.deepEqual([...out.view()], [0, 0, 0, 7]);
    assert.equal(out.reset().length, 0);
  });
});
