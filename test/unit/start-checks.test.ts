/**
 * What a start refuses of groups and shards, before and after there is a cluster.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readSettings, type Settings } from '../../src/settings.ts';
import { checkGroups, unheededShards } from '../../src/start-checks.ts';
import { MemoryMetadataStore } from '../../storage/metadata/memory/memory-metadata-store.ts';

const settings = (flags: Record<string, string>): Settings => readSettings({ flags, env: {} });

async function clusterOf(text: string | null): Promise<MemoryMetadataStore> {
  const store = new MemoryMetadataStore();
  const groups = text?.split(',').map((part) => {
    const [name, shards] = part.split(':');
    return { name, shards: Number(shards) };
  });
  const shardCount = groups?.reduce((sum, { shards }) => sum + shards, 0) ?? 8;
  await store.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount, groups, createdAtMs: 1 });
  return store;
}

describe('the groups of a cluster', () => {
  it('are those with which it would be made, while there is none', async () => {
    const store = new MemoryMetadataStore();
    await checkGroups(store, settings({}));
    await checkGroups(store, settings({ 'shard-groups': 'a:1,b:2', group: 'b' }));
    await assert.rejects(checkGroups(store, settings({ group: 'heavy' })), {
      code: 'invalid-setting',
      message: 'setting group: the cluster has no group heavy; its groups: default',
    });
    await assert.rejects(checkGroups(store, settings({ 'shard-groups': 'a:1,b:2' })), {
      message: 'setting group: the cluster has no group default; its groups: a, b',
    });
    assert.equal(await store.getCluster(), null);
  });

  it('are the ones it was made with, whatever is asked for later', async () => {
    const store = await clusterOf('default:3,heavy:5');
    for (const group of ['default', 'heavy']) {
      await checkGroups(store, settings({ group }));
      await checkGroups(store, settings({ group, 'shard-groups': 'default:3,heavy:5' }));
    }
    await assert.rejects(checkGroups(store, settings({ group: 'other' })), {
      code: 'invalid-setting',
      message: 'setting group: the cluster has no group other; its groups: default, heavy',
    });
    for (const asked of [
      'default:5,heavy:3',
      'heavy:5,default:3',
      'default:8',
      'default:3,heavy:5,other:1',
    ]) {
      await assert.rejects(checkGroups(store, settings({ 'shard-groups': asked })), {
        code: 'invalid-setting',
        message: `setting shard-groups: the cluster was made with default:3,heavy:5 and keeps that; ${asked} is another`,
      });
    }
  });

  it('are one where none were asked for', async () => {
    const store = await clusterOf(null);
    await checkGroups(store, settings({ 'shard-groups': 'default:8' }));
    await assert.rejects(checkGroups(store, settings({ 'shard-groups': 'default:48,heavy:16' })), {
      message: /was made with default:8 and keeps that/,
    });
  });

  it('take no heed of another number of shards, and say so', async () => {
    const cluster = (await (await clusterOf(null)).getCluster()) ?? assert.fail();
    assert.equal(unheededShards(cluster, settings({})), null);
    assert.equal(unheededShards(cluster, settings({ metadata: 'postgres://db/x' })), null);
    assert.equal(unheededShards(cluster, settings({ shards: '8' })), null);
    assert.equal(
      unheededShards(cluster, settings({ shards: '16' })),
      'the cluster was made with 8 shards and keeps them: setting shards (16) has no effect',
    );
  });
});
