/** When requests are sent, on a clock of the test's own: closed and open loop, and what a late one counts from. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Clock } from '../../../src/core/clock.ts';
import { burstSchedule, ClosedLoop, OpenLoop, rateSchedule } from '../../../src/load/pacing.ts';

/** Time that passes only when the test says so. */
class ManualClock implements Clock {
  #nowMs = 0;
  #timers: { atMs: number; fire: () => void }[] = [];

  wallMs(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, fire: () => void) {
    const timer = { atMs: this.#nowMs + delayMs, fire };
    this.#timers.push(timer);
    return { cancel: () => (this.#timers = this.#timers.filter((one) => one !== timer)) };
  }

  /** Fires what is due on the way, in its order. */
  advance(ms: number): void {
    const endMs = this.#nowMs + ms;
    for (;;) {
      const due = this.#timers.filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((one) => one !== due);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.fire();
    }
    this.#nowMs = endMs;
  }

  /** Passes without any timer: the process was busy. */
  freeze(ms: number): void {
    this.#nowMs += ms;
  }
}

describe('a closed loop', () => {
  it('keeps so many unanswered, and ends when there are no more', () => {
    const clock = new ManualClock();
    const sent: number[] = [];
    const loop = new ClosedLoop(clock, 1000, (dueMs) => sent.length < 1003 && sent.push(dueMs) > 0);
    clock.advance(5);
    assert.equal(sent.length, 1000);
    loop.answered(false);
    assert.equal(sent.length, 1001);
    for (let i = 0; i < 10; i++) loop.answered(false);
    assert.equal(sent.length, 1003);
  });

  it('waits a little before it tries again where nobody is', () => {
    const clock = new ManualClock();
    let sent = 0;
    const loop = new ClosedLoop(clock, 1, () => ++sent > 0);
    loop.answered(true);
    assert.equal(sent, 1);
    clock.advance(99);
    assert.equal(sent, 1);
    clock.advance(1);
    assert.equal(sent, 2);
    loop.stop();
    loop.answered(false);
    assert.equal(sent, 2);
  });
});

describe('an open loop', () => {
  it('sends by the schedule, whatever becomes of what was sent', () => {
    const clock = new ManualClock();
    const due: number[] = [];
    new OpenLoop(clock, rateSchedule(100), 0, 1000, (dueMs) => due.push(dueMs) > 0);
    clock.advance(100);
    assert.deepEqual(due, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
  });

  it('sends what became due while the process was busy, each due when it was due: nothing is omitted', () => {
    const clock = new ManualClock();
    const late: number[] = [];
    const loop = new OpenLoop(
      clock,
      rateSchedule(1000),
      0,
      1000,
      (dueMs) => late.push(clock.monotonicMs() - dueMs) > 0,
    );
    clock.freeze(500);
    clock.advance(0);
    assert.equal(late.length, 501);
    assert.equal(late[1], 499);
    assert.equal(late[500], 0);
    loop.stop();
    clock.advance(100);
    assert.equal(late.length, 501);
  });

  it('holds back when too many are unanswered; what waits is late, and comes when answers do', () => {
    const clock = new ManualClock();
    const late: number[] = [];
    const next = (dueMs: number) => late.push(clock.monotonicMs() - dueMs) > 0;
    const loop = new OpenLoop(clock, rateSchedule(100), 0, 3, next);
    clock.advance(100);
    assert.deepEqual(late, [0, 0, 0]);
    loop.answered();
    loop.answered();
    clock.advance(0);
    assert.deepEqual(late, [0, 0, 0, 70, 60]);
    for (let i = 0; i < 3; i++) loop.answered();
    clock.advance(15);
    assert.deepEqual(late.slice(5), [50, 40, 30]);
    loop.stop();
    loop.answered();
    clock.advance(100);
    assert.equal(late.length, 8);
  });

  it('sends a burst at once, and the next when its time comes', () => {
    const clock = new ManualClock();
    let left = 6000;
    new OpenLoop(clock, burstSchedule(3000, 1000), 0, 10_000, () => left-- > 0);
    clock.advance(1);
    assert.equal(left, 3000);
    clock.advance(998);
    assert.equal(left, 3000);
    clock.advance(1);
    assert.ok(left <= 0);
  });
});
