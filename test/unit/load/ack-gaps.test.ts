/** How long acknowledgements stopped around a moment, by partition. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AckGaps } from '../../../src/load/ack-gaps.ts';

describe('gaps of acknowledgements', () => {
  it('run over the moment, whatever comes of before it, to the first one after', () => {
    // The partitions 1 and 3 of 4.
    const gaps = new AckGaps(4, 1, 2, 0);
    gaps.acked(1, 900);
    gaps.acked(3, 950);
    gaps.mark(1000);
    // Was on its way.
    gaps.acked(1, 1100);
    gaps.acked(3, 1550);
    gaps.acked(1, 4100);
    gaps.acked(1, 4200);
    gaps.acked(3, 1900);
    assert.deepEqual(gaps.gaps(), [{ gapMs: [3000, 600], endMs: [3100, 550], longestMs: [3000, 600] }]);
  });

  it('say which partitions were acknowledged no more', () => {
    const gaps = new AckGaps(2, 0, 1, 0);
    gaps.mark(100);
    gaps.acked(0, 800);
    assert.deepEqual(gaps.gaps(), [{ gapMs: [800, -1], endMs: [700, -1], longestMs: [800, -1] }]);
  });

  it('are of one moment each, and the longest is until the next', () => {
    const gaps = new AckGaps(1, 0, 1, 0);
    gaps.mark(0);
    gaps.acked(0, 600);
    gaps.acked(0, 5000);
    gaps.mark(5500);
    gaps.acked(0, 6100);
    gaps.acked(0, 6200);
    assert.deepEqual(gaps.gaps(), [
      { gapMs: [600], endMs: [600], longestMs: [4400] },
      { gapMs: [1100], endMs: [600], longestMs: [1100] },
    ]);
  });

  it('are none before the first moment', () => {
    const gaps = new AckGaps(1, 0, 1, 0);
    gaps.acked(0, 9000);
    assert.deepEqual(gaps.gaps(), []);
  });
});
