/**
 * Topic configs: what is refused, and how a topic is bound to a group of brokers.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import {
  bindToGroup,
  checkChangeable,
  checkTopicConfigs,
  isFixedConfig,
} from '../../../src/route/topic-configs.ts';

const LAYOUT = {
  shardCount: 8,
  groups: [
    { name: 'light', shards: 3 },
    { name: 'heavy', shards: 5 },
  ],
};

describe('topic configs', () => {
  it('are known ones with values that fit', () => {
    checkTopicConfigs({ 'max.message.bytes': '100', 'streamhouse.group': 'heavy' });
    checkTopicConfigs({ 'max.message.bytes': null });
    for (const name of ['retention.ms', '__proto__', 'constructor', 'toString', '']) {
      const configs = Object.fromEntries([[name, '1']]);
      assert.throws(() => checkTopicConfigs(configs), {
        code: 'invalid-config',
        message: /streamhouse\.group/,
      });
      assert(!isFixedConfig(name), name);
    }
    assert.throws(() => checkTopicConfigs({ 'max.message.bytes': '0' }), { code: 'invalid-config' });
  });

  it('bind a topic to its group, the first one by default, and say so where there are several', () => {
    const bytes = { 'max.message.bytes': '100' };
    assert.deepEqual(bindToGroup(bytes, LAYOUT), {
      configs: { ...bytes, 'streamhouse.group': 'light' },
      idClass: { modulus: 2, residue: 0 },
    });
    assert.deepEqual(bindToGroup({ 'streamhouse.group': 'heavy' }, LAYOUT), {
      configs: { 'streamhouse.group': 'heavy' },
      idClass: { modulus: 2, residue: 1 },
    });
    const idClass = { modulus: 1, residue: 0 };
    assert.deepEqual(bindToGroup({}, oneGroup(8)), { configs: {}, idClass });
    const named = { 'streamhouse.group': 'default' };
    assert.deepEqual(bindToGroup(named, oneGroup(8)), { configs: named, idClass });
  });

  it('name no group that the cluster does not have', () => {
    for (const group of ['default', '', 'Heavy', 'heavy ', '__proto__']) {
      assert.throws(() => bindToGroup({ 'streamhouse.group': group }, LAYOUT), {
        code: 'invalid-config',
        message: `topic config streamhouse.group=${group}: the cluster has no such group; its groups: light, heavy`,
      });
    }
  });

  it('keep the group for as long as the topic is', () => {
    checkChangeable({ 'max.message.bytes': null });
    for (const value of ['heavy', 'light', null]) {
      assert.throws(() => checkChangeable({ 'max.message.bytes': '5', 'streamhouse.group': value }), {
        code: 'invalid-config',
        message: /^topic config streamhouse\.group is given when a topic is created and cannot be changed$/,
      });
    }
  });
});
