/**
 * The division of shards among groups: its text, and that every shard and every topic has one group.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  formatShardGroups,
  groupOfShard,
  groupOfTopic,
  hasGroup,
  layoutOf,
  oneGroup,
  parseShardGroups,
  shardsOfTopic,
  topicIdClassOf,
} from '../../../src/core/shard-layout.ts';

const layouts = fc
  .uniqueArray(
    fc.record({ name: fc.stringMatching(/^[A-Za-z0-9._-]{1,8}$/), shards: fc.integer({ min: 1, max: 16 }) }),
    { minLength: 1, maxLength: 64, selector: ({ name }) => name },
  )
  .map((groups) => ({
    shardCount: groups.reduce((sum, { shards }) => sum + shards, 0),
    groups: groups.map((group) => ({ ...group })),
  }));

describe('a layout of shards', () => {
  it('is what its text says', () => {
    fc.assert(
      fc.property(layouts, (layout) => {
        assert.deepEqual(parseShardGroups(formatShardGroups(layout.groups)), layout);
      }),
    );
    assert.deepEqual(parseShardGroups('default:1024'), oneGroup(1024));
  });

  it('is no text of other kinds', () => {
    const texts = [
      '',
      ',',
      ':',
      'a',
      'a:',
      ':1',
      'a:0',
      'a:-1',
      'a:01',
      'a:1.5',
      'a:1e2',
      'a:1,',
      ',a:1',
      'a:1,a:2',
    ];
    texts.push('a:1025', 'a:1000,b:25', 'a b:1', 'a:1, b:1', 'ä:1', `${'x'.repeat(101)}:1`, 'a:1:2', 'a:１');
    texts.push(Array.from({ length: 65 }, (_, i) => `g${i}:1`).join());
    for (const text of texts) assert.equal(parseShardGroups(text), null, text);
  });

  it('gives every shard to one group, in ranges, and every topic to the group whose id class its id is of', () => {
    fc.assert(
      fc.property(layouts, fc.integer({ min: 1, max: 2 ** 33 - 1 }), (layout, topicId) => {
        const owners = Array.from({ length: layout.shardCount }, (_, shard) => groupOfShard(layout, shard));
        assert.deepEqual(
          owners,
          layout.groups.flatMap(({ name, shards }) => new Array(shards).fill(name)),
        );
        const group = groupOfTopic(layout, topicId);
        const own = shardsOfTopic(layout, topicId);
        assert.deepEqual(
          own,
          owners.flatMap((owner, shard) => (owner === group ? [shard] : [])),
        );
        const { modulus, residue } = topicIdClassOf(layout, group) ?? assert.fail(group);
        assert.equal(topicId % modulus, residue);
        assert(hasGroup(layout, group));
      }),
    );
  });

  it('knows no other shard and no other group', () => {
    const layout = oneGroup(8);
    assert.equal(groupOfShard(layout, 7), 'default');
    assert.throws(() => groupOfShard(layout, 8), RangeError);
    assert.equal(topicIdClassOf(layout, 'heavy'), null);
    assert(!hasGroup(layout, 'heavy'));
    const cluster = { clusterId: 'c', ...layout };
    assert.deepEqual(layoutOf(cluster), layout);
  });
});
