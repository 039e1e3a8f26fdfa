/**
 * CRC-32C and Kafka's murmur2 against published vectors.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { crc32c } from '../../../src/core/crc32c.ts';
import { murmur2, partitionOfKeyBytes } from '../../../src/core/partitioner.ts';

describe('CRC-32C', () => {
  it('agrees with RFC 3720, appendix B.4, and the usual check value', () => {
    const rising = Uint8Array.from({ length: 32 }, (_, i) => i);
    const iscsiRead = Buffer.from(
      '01c00000000000000000000000000000140000000000040000000014000000182800000000000000' + '0200000000000000',
      'hex',
    );
    assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
    assert.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
    assert.equal(crc32c(rising), 0x46dd794e);
    assert.equal(crc32c(rising.toReversed()), 0x113fdb5c);
    assert.equal(crc32c(iscsiRead), 0xd9963a56);
    assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283);
    assert.equal(crc32c(new Uint8Array(0)), 0);
  });

  it('can be taken in parts, at any alignment', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(), fc.nat(9), (bytes, cut, lead) => {
        const shifted = new Uint8Array(bytes.length + lead + 3);
        shifted.set(bytes, lead);
        const at = bytes.length === 0 ? 0 : cut % (bytes.length + 1);
        const first = crc32c(shifted, lead, lead + at);
        assert.equal(crc32c(shifted, lead + at, lead + bytes.length, first), crc32c(bytes));
      }),
    );
  });
});

describe('partitioner', () => {
  it("is Kafka's murmur2: the vectors of its own tests", () => {
    const vectors: [string, number][] = [
      ['21', -973932308],
      ['foobar', -790332482],
      ['a-little-bit-long-string', -985981536],
      ['a-little-bit-longer-string', -1486304829],
      ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
      ['abc', 479470107],
    ];
    for (const [key, hash] of vectors) {
      const bytes = Buffer.from(`<<${key}>>`);
      assert.equal(murmur2(Buffer.from(key)), hash, key);
      assert.equal(murmur2(bytes, 2, bytes.length - 2), hash, key);
    }
  });

  it('masks the sign and stays within the partitions', () => {
    const key = Buffer.from('21');
    assert.equal(partitionOfKeyBytes(key, 0, 2, 10), (-973932308 & 0x7fffffff) % 10);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 50 }), fc.integer({ min: 1, max: 100_000 }), (bytes, count) => {
        const partition = partitionOfKeyBytes(bytes, 0, bytes.length, count);
        assert.ok(Number.isInteger(partition) && partition >= 0 && partition < count);
      }),
    );
  });
});
