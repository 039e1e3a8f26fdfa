/**
 * Entries: whatever is written comes back, the frozen corpus keeps its meaning, damage is a named error.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { crc32c } from '../../../src/core/crc32c.ts';
import { decodeEntry, ENTRY_SLICE_BYTES_MAX, type Entry, encodeEntry } from '../../../workers/entry-codec.ts';
import { anyEntry } from '../../support/entry-samples.ts';

interface GoldenEntry {
  name: string;
  hex: string;
  entry: Entry;
}

const golden: GoldenEntry[] = JSON.parse(
  readFileSync(new URL('../../golden/entries-v1.json', import.meta.url), 'utf8'),
);

describe('entry codec', () => {
  it('gives back what was written, in shared memory', () => {
    fc.assert(
      fc.property(anyEntry, (entry) => {
        const bytes = encodeEntry(entry);
        assert.ok(bytes.buffer instanceof SharedArrayBuffer);
        assert.deepEqual(decodeEntry(bytes), entry);
      }),
      { numRuns: 400 },
    );
  });

  it('reads the frozen corpus to the same meaning and still writes it', () => {
    assert.deepEqual([...new Set(golden.map(({ entry }) => entry.kind))].sort(), [
      'log-start',
      'merged',
      'slices',
      'takeover',
      'topic-deleted',
    ]);
    for (const { name, hex, entry } of golden) {
      assert.deepEqual(decodeEntry(Buffer.from(hex, 'hex')), entry, name);
      assert.equal(Buffer.from(encodeEntry(entry)).toString('hex'), hex, name);
    }
  });

  it('keeps a slice and a producer batch within the bound that planning counts on', () => {
    const slice = {
      topicId: 2 ** 33 - 1,
      partition: 2 ** 20 - 1,
      objectIndex: 0,
      baseOffset: Number.MAX_SAFE_INTEGER - 1,
      recordCount: 2 ** 31 - 1,
      position: 2 ** 40,
      length: 2 ** 31,
      maxTimestampMs: -(2 ** 51) + 1,
    };
    const at = { shard: 1, seq: 1, epoch: 1, timeMs: 2 ** 51 - 1, kind: 'slices' as const };
    const objects = [{ incarnation: 1, number: 1 }];
    const without = encodeEntry({ ...at, objects, slices: [], producerBatches: [] }).length;
    const withOne = encodeEntry({ ...at, objects, slices: [slice], producerBatches: [] }).length;
    assert.ok(withOne - without <= ENTRY_SLICE_BYTES_MAX, `${withOne - without} bytes`);
  });

  it('refuses a wrong version, an unknown kind and trailing bytes even with a right checksum', () => {
    const bytes = Buffer.from(golden[0].hex, 'hex');
    for (const [position, value] of [
      [0, 2],
      [1, 9],
    ]) {
      const changed = Buffer.from(bytes);
      changed[position] = value;
      changed.writeUInt32BE(crc32c(changed, 0, changed.length - 4), changed.length - 4);
      assert.throws(() => decodeEntry(changed), { code: 'corrupt-entry', message: /version|kind/ });
    }
    assert.throws(() => decodeEntry(new Uint8Array(0)), { code: 'corrupt-entry' });
    assert.throws(() => decodeEntry(Buffer.concat([bytes, Buffer.alloc(1)])), { code: 'corrupt-entry' });
  });
});
