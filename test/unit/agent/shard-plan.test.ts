/** Plans over many seeded clusters: balanced, stable, and nothing moves that need not. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type PlannedAgent, planShards, rendezvousScore } from '../../../src/agent/shard-plan.ts';
import { seededRandom } from '../../../src/core/random.ts';

function makeAgents(count: number, firstIncarnation = 1, group = 'g'): PlannedAgent[] {
  return Array.from({ length: count }, (_, i) => {
    const incarnation = firstIncarnation + i;
    return { agentId: `broker-${incarnation}`, incarnation, group };
  });
}

function shardsOf(holders: readonly number[], group = 'g') {
  return holders.map((holder, shard) => ({ shard, holder, group }));
}

function holdersOf(plan: Map<number, number>, shardCount: number): number[] {
  return Array.from({ length: shardCount }, (_, shard) => plan.get(shard) ?? 0);
}

function loads(holders: readonly number[], agents: readonly PlannedAgent[]): number[] {
  return agents.map(({ incarnation }) => holders.filter((holder) => holder === incarnation).length);
}

describe('the plan of shards', () => {
  it('gives every agent its share, and is content with what it gave', () => {
    for (const shardCount of [1, 8, 64, 1000]) {
      for (const count of [1, 2, 3, 7, 64]) {
        const agents = makeAgents(count);
        const holders = holdersOf(planShards(shardsOf(new Array(shardCount).fill(0)), agents), shardCount);
        for (const load of loads(holders, agents)) {
          assert.ok(load >= Math.floor(shardCount / count) && load <= Math.ceil(shardCount / count));
        }
        assert.deepEqual(holdersOf(planShards(shardsOf(holders), agents), shardCount), holders);
      }
    }
  });

  it('moves to an agent that joins its fair share and nothing else', () => {
    for (let count = 1; count <= 12; count++) {
      const agents = makeAgents(count);
      const before = holdersOf(planShards(shardsOf(new Array(64).fill(0)), agents), 64);
      const joined = makeAgents(1, 100)[0];
      const after = holdersOf(planShards(shardsOf(before), [...agents, joined]), 64);
      const moved = after.filter((holder, shard) => holder !== before[shard]);
      assert.ok(moved.every((holder) => holder === joined.incarnation));
      assert.ok(
        moved.length === Math.floor(64 / (count + 1)) || moved.length === Math.ceil(64 / (count + 1)),
      );
    }
  });

  it('moves of an agent that went its own shards alone, to all others', () => {
    const agents = makeAgents(5);
    const before = holdersOf(planShards(shardsOf(new Array(64).fill(0)), agents), 64);
    const left = agents.slice(1);
    const after = holdersOf(planShards(shardsOf(before), left), 64);
    for (let shard = 0; shard < 64; shard++) {
      if (before[shard] !== agents[0].incarnation) assert.equal(after[shard], before[shard]);
    }
    for (const load of loads(after, left)) assert.equal(load, 16);
  });

  it('does not depend on the order in which anything is listed', () => {
    const random = seededRandom(7);
    const agents = makeAgents(6);
    const holders = Array.from({ length: 64 }, () => random.below(8));
    const expected = holdersOf(planShards(shardsOf(holders), agents), 64);
    for (let round = 0; round < 20; round++) {
      const shuffled = [...agents].sort(() => random.unit() - 0.5);
      const shards = shardsOf(holders).sort(() => random.unit() - 0.5);
      assert.deepEqual(holdersOf(planShards(shards, shuffled), 64), expected);
    }
  });

  it('is reached step by step from any state, in as many moves as needed and no more', () => {
    for (let seed = 0; seed < 200; seed++) {
      const random = seededRandom(seed);
      const agents = makeAgents(1 + random.below(9));
      const holders = Array.from({ length: 64 }, () => random.below(agents.length + 3));
      let moves = 0;
      for (;;) {
        const plan = holdersOf(planShards(shardsOf(holders), agents), 64);
        const wrong = holders.flatMap((holder, shard) => (holder === plan[shard] ? [] : [shard]));
        if (wrong.length === 0) break;
        // One shard moves at a time, and the plan is made anew.
        const shard = wrong[random.below(wrong.length)];
        holders[shard] = plan[shard];
        assert.ok(++moves <= 64, `seed ${seed} does not come to an end`);
      }
    }
  });

  it('keeps groups apart', () => {
    const agents = [...makeAgents(2), ...makeAgents(1, 50, 'other')];
    const shards = [...shardsOf([0, 0, 0, 0]), { shard: 4, holder: 1, group: 'other' }];
    const plan = planShards(shards, agents);
    assert.equal(plan.get(4), 50);
    assert.deepEqual(loads(holdersOf(plan, 4), agents), [2, 2, 0]);
    assert.equal(planShards([{ shard: 0, holder: 0, group: 'nobody' }], agents).size, 0);
  });

  it('spreads free shards evenly by score', () => {
    const counts = [0, 0, 0, 0];
    for (let shard = 0; shard < 4000; shard++) {
      const scores = [1, 2, 3, 4].map((i) => rendezvousScore(`broker-${i}`, shard));
      counts[scores.indexOf(Math.max(...scores))]++;
    }
    for (const count of counts) assert.ok(Math.abs(count - 1000) < 150, `${counts}`);
  });
});
