/** Where pages begin: at every 257th append, whatever else happens. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  emptyFold,
  foldAppend,
  foldLogStart,
  NO_TIMESTAMP_MS,
  PAGE_REFS_MAX,
} from '../../../index/page-fold.ts';

test('a page takes 256 appends; the 257th begins the next at its base offset', () => {
  const fold = emptyFold(3, 4);
  for (let i = 0; i < 255; i++) assert.equal(foldAppend(fold, 2, i), false);
  assert.deepEqual([fold.pageBase, fold.pageRefs, fold.nextOffset], [0, 255, 510]);
  assert.equal(foldAppend(fold, 2, 0), false);
  assert.deepEqual([fold.pageBase, fold.pageRefs, fold.nextOffset], [0, PAGE_REFS_MAX, 512]);
  assert.equal(foldAppend(fold, 5, 0), true);
  assert.deepEqual([fold.pageBase, fold.pageRefs, fold.nextOffset], [512, 1, 517]);
});

test('the maximum timestamp never falls, and records without one do not count', () => {
  const fold = emptyFold(3, 4);
  foldAppend(fold, 1, NO_TIMESTAMP_MS);
  assert.equal(fold.maxTimestampMs, NO_TIMESTAMP_MS);
  foldAppend(fold, 1, 70);
  foldAppend(fold, 1, 60);
  foldAppend(fold, 1, NO_TIMESTAMP_MS);
  assert.equal(fold.maxTimestampMs, 70);
});

test('the log start goes forward only, at most to the end, and moves no page', () => {
  const fold = emptyFold(3, 4);
  assert.equal(foldLogStart(fold, 1), false);
  for (let i = 0; i < 300; i++) foldAppend(fold, 1, 0);
  assert.equal(foldLogStart(fold, 100), true);
  assert.equal(foldLogStart(fold, 100), false);
  assert.equal(foldLogStart(fold, 99), false);
  assert.equal(foldLogStart(fold, 1000), true);
  assert.deepEqual([fold.logStart, fold.pageBase, fold.pageRefs], [300, 256, 44]);
});
