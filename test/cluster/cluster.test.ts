/**
 * A short part of the cluster test with fixed seeds: each of the faults that say most, once, on PostgreSQL; the simplest
 * on DynamoDB. `npm run chaos` has all of them for as long as one likes. STREAMHOUSE_TEST_CHAOS_SEED asks for another
 * order of things.
 */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { isGood, reportText } from './chaos-report.ts';
import { type ChaosOptions, runChaos } from './run-chaos.ts';

const SEED = Number(process.env.STREAMHOUSE_TEST_CHAOS_SEED ?? 1);
const MINUTES_MAX = 10;

/** Each of the kinds once, in the seed's order. */
async function run(
  t: TestContext,
  options: Pick<ChaosOptions, 'store' | 'brokers' | 'size'>,
  kinds: readonly string[],
): Promise<void> {
  const once = { seed: SEED, minutes: MINUTES_MAX, kinds, faultsMax: kinds.length };
  const report = await runChaos({ ...options, ...once });
  t.diagnostic(reportText(report));
  assert.ok(isGood(report), reportText(report));
  // A run in which little happened proves little.
  const { counts } = report.check;
  assert.deepEqual(Object.keys(report.faults).sort(), [...kinds].sort());
  assert.ok(counts.acknowledged > 100 * kinds.length, `only ${counts.acknowledged} acknowledged`);
  assert.ok(counts.recordsRead > counts.acknowledged, `only ${counts.recordsRead} records were read`);
  assert.ok(report.topicsMadeAnew > 0, 'no topic was deleted');
}

describe('a cluster under faults', () => {
  it('keeps the promise on PostgreSQL', (t) =>
    run(t, { store: 'postgres', brokers: 3 }, [
      'kill',
      'term',
      'zombie',
      'database stalls',
      'objects refuse',
      'all killed',
      'added',
    ]));

  it('keeps the promise on DynamoDB', (t) => {
    const size = { topics: 2, partitionsPerTopic: 6, plain: 2, pipelined: 1, readers: 1, churned: 1 };
    return run(t, { store: 'dynamodb', brokers: 2, size }, ['kill', 'database silent']);
  });
});
