/** A damaged page in the store keeps no other page from being written. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { emptyFold } from '../../../index/page-fold.ts';
import type { StoredPage } from '../../../index/page-store.ts';
import { SegmentIndex } from '../../../index/segment-index.ts';
import { systemClock } from '../../../src/core/clock.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';

const PARTITIONS = 600;

it('writes all pages but the one whose stored part is damaged, and says so', async () => {
  const stored: StoredPage[] = [];
  const options = {
    layout: oneGroup(1),
    budgetBytes: 1 << 30,
    clock: systemClock,
    findPages: async (requests: readonly { partition: number }[]) =>
      requests.map(({ partition }) => stored.find((page) => page.partition === partition) ?? null),
  };
  const before = new SegmentIndex(options);
  before.openShard(0, [], 0);
  for (let p = 0; p < PARTITIONS; p++) before.append(0, 1, 1, p, 0, 1, 1, 1, 24, 70, 5);
  await before.pageOut(0, async (pages) => void stored.push(...pages));
  stored[3] = { ...stored[3], bytes: new Uint8Array(30) };

  const after = new SegmentIndex(options);
  const folds = Array.from({ length: PARTITIONS }, (_, p) => ({
    ...emptyFold(1, p),
    nextOffset: 1,
    pageRefs: 1,
    maxTimestampMs: 5,
  }));
  after.openShard(0, folds, 1);
  for (let p = 0; p < PARTITIONS; p++) after.append(0, 2, 1, p, 1, 1, 1, 2, 24, 70, 5);
  const written = new Set<number>();
  const putPages = async (pages: readonly StoredPage[]) => {
    for (const { partition } of pages) written.add(partition);
  };
  await assert.rejects(after.pageOut(0, putPages), { code: 'corrupt-page' });
  assert.equal(written.size, PARTITIONS - 1);
  assert.equal(written.has(stored[3].partition), false);
  assert.ok(after.dirtyBytes > 0 && after.dirtyBytes < 2000, `${after.dirtyBytes} bytes stay dirty`);
});
