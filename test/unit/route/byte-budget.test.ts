/** A budget of bytes: at once, in turn, not at all. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ByteBudget } from '../../../src/route/byte-budget.ts';

describe('byte budget', () => {
  it('serves who waits in turn, nobody overtaking, and refuses when too many wait', async () => {
    const budget = new ByteBudget(100, 2);
    const served: string[] = [];
    assert.equal(budget.take(80), undefined);
    const large = budget.take(60)?.then(() => served.push('large'));
    const small = budget.take(10)?.then(() => served.push('small'));
    assert.equal(budget.tryTake(1), false);
    assert.throws(() => budget.take(1), { code: 'overloaded' });
    assert.deepEqual([budget.bytes, served], [80, []]);
    budget.release(80);
    await Promise.all([large, small]);
    assert.deepEqual(served, ['large', 'small']);
    assert.equal(budget.bytes, 70);
    budget.release(60);
    budget.release(10);
    assert.equal(budget.bytes, 0);
    assert.equal(budget.tryTake(100), true);
  });

  it('counts more than the whole as the whole, so that nothing waits for ever', async () => {
    const budget = new ByteBudget(100, 1);
    assert.equal(budget.take(5), undefined);
    const whole = budget.take(1_000_000);
    budget.release(5);
    await whole;
    assert.equal(budget.bytes, 100);
    budget.release(budget.counted(1_000_000));
    assert.equal(budget.bytes, 0);
  });
});
