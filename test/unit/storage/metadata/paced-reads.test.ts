/** Who waits for which read, and which answers land; every read is answered by hand. */
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { PacedReads } from '../../../../storage/metadata/cache/paced-reads.ts';
import { ManualClock, turn } from '../../../support/manual-clock.ts';

interface Running {
  key: string;
  resolve(value: number): void;
  reject(error: Error): void;
}

let clock: ManualClock;
let running: Running[];
let landed: [string, number][];
let stale: number;
let reads: PacedReads<string, number>;

beforeEach(() => {
  clock = new ManualClock();
  running = [];
  landed = [];
  stale = 0;
  reads = new PacedReads({
    clock,
    read(key) {
      const { promise, resolve, reject } = Promise.withResolvers<number>();
      running.push({ key, resolve, reject });
      return promise;
    },
    land: (key, value) => landed.push([key, value]),
    stale: () => void stale++,
  });
});

describe('PacedReads', () => {
  it('runs one read for a key at a time, and one for each key', async () => {
    const first = reads.read('a');
    const second = reads.read('a');
    const other = reads.read('b');
    assert.deepEqual([first.isOlder, second.isOlder, other.isOlder], [false, true, false]);
    assert.equal(running.length, 2);
    running[0].resolve(1);
    running[1].resolve(2);
    assert.deepEqual(await Promise.all([first.answer, second.answer, other.answer]), [1, 1, 2]);
    assert.deepEqual(landed, [
      ['a', 1],
      ['b', 2],
    ]);
    assert.equal(reads.read('a').isOlder, false);
  });

  it('queues one read behind the running one for all who want one from after now', async () => {
    const first = reads.read('a');
    const later = [0, 1, 2].map(() => reads.read('a', { after: reads.mark() }));
    assert.equal(running.length, 1);
    assert.ok(later.every(({ isOlder }) => !isOlder));
    running[0].resolve(1);
    await turn();
    assert.equal(running.length, 2);
    // It began before this call, but after what this caller knows of.
    assert.equal(reads.read('a').isOlder, true);
    running[1].resolve(2);
    assert.deepEqual(await Promise.all([first, ...later].map(({ answer }) => answer)), [1, 2, 2, 2]);
    assert.deepEqual(landed, [
      ['a', 1],
      ['a', 2],
    ]);
  });

  it('begins a queued read though the running one fails, which only its own callers are told', async () => {
    const first = reads.read('a');
    const later = reads.read('a', { after: reads.mark() });
    running[0].reject(new Error('gone'));
    await assert.rejects(first.answer, /gone/);
    await turn();
    running[1].resolve(2);
    assert.equal(await later.answer, 2);
    assert.deepEqual(landed, [['a', 2]]);
  });

  it('waits for its pace, and whoever comes meanwhile waits with it', async () => {
    const paced = reads.read('a', { notBeforeMs: clock.nowMs + 50 });
    const joined = reads.read('a');
    await clock.pass(49);
    assert.equal(running.length, 0);
    await clock.pass(1);
    assert.equal(running.length, 1);
    running[0].resolve(3);
    assert.deepEqual(await Promise.all([paced.answer, joined.answer]), [3, 3]);
    assert.equal(joined.isOlder, false);
    assert.equal(clock.waiting, 0);
  });

  it('keeps no answer of what was overtaken, running or queued, and lets nobody wait for it', async () => {
    const first = reads.read('a');
    const queued = reads.read('a', { after: reads.mark() });
    reads.overtake('a');
    const fresh = reads.read('a');
    assert.deepEqual([fresh.isOlder, running.length], [false, 2]);
    running[1].resolve(20);
    assert.equal(await fresh.answer, 20);
    running[0].resolve(10);
    assert.equal(await first.answer, 10);
    await turn();
    running[2].resolve(30);
    assert.equal(await queued.answer, 30);
    assert.deepEqual(landed, [['a', 20]]);
    assert.equal(stale, 2);
  });

  it('overtakes every key at once', async () => {
    const both = [reads.read('a'), reads.read('b')];
    reads.overtakeAll();
    for (const { resolve } of running) resolve(1);
    await Promise.all(both.map(({ answer }) => answer));
    assert.deepEqual([landed.length, stale], [0, 2]);
  });
});
