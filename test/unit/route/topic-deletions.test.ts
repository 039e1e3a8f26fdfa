/**
 * Deletions by group: one where no broker lives keeps no other waiting, and is finished once one lives again.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../../src/core/clock.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import { groupOfTopic, parseShardGroups } from '../../../src/core/shard-layout.ts';
import { TopicDeletions } from '../../../src/route/topic-deletions.ts';
import { MemoryMetadataStore } from '../../../storage/metadata/memory/memory-metadata-store.ts';

const LAYOUT = parseShardGroups('light:3,heavy:5') ?? assert.fail();

/** `count` topics of each group in turn, all deleted; a group is reached while it is in `alive`. */
async function rig(count: number) {
  const store = new MemoryMetadataStore();
  for (let i = 0; i < count * 2; i++) {
    const name = `t-${i}`;
    await store.createTopic({ name, partitionCount: 1, configs: {}, createdAtMs: 1 });
    await store.deleteTopic(name);
  }
  const alive = new Set(['light', 'heavy']);
  const ended: number[] = [];
  const warned: unknown[] = [];
  const parts = {
    store,
    layout: LAYOUT,
    // A pause of a second is a moment here.
    clock: { ...systemClock, after: (ms: number, fire: () => void) => systemClock.after(ms / 100, fire) },
    async appendTopicDeleted(topicId: number) {
      if (!alive.has(groupOfTopic(LAYOUT, topicId))) throw new StreamHouseError('not-leader', 'nobody');
      ended.push(topicId);
    },
    warn: (_: string, fields: unknown) => void warned.push(fields),
  };
  const left = async () =>
    (await store.listDeletedTopics({ afterTopicId: 0, limit: 1000 })).map((t) => t.topicId);
  return { deletions: new TopicDeletions(parts), alive, ended, warned, left };
}

describe('deletions of topics', () => {
  it('are finished for all groups, each topic once its end is everywhere', async () => {
    const { deletions, ended, left } = await rig(150);
    await deletions.finish();
    assert.deepEqual(await left(), []);
    assert.deepEqual(
      ended.sort((a, b) => a - b),
      Array.from({ length: 300 }, (_, i) => i + 1),
    );
  });

  it('of a group go on while another one has nobody, and those of that one when it has', async (t) => {
    const { deletions, alive, warned, left } = await rig(3);
    t.after(() => deletions.stop());
    alive.delete('heavy');
    const all = deletions.finish();
    await deletions.finishGroup('light');
    assert.deepEqual(await left(), [1, 3, 5]);
    while (warned.length < 3) await new Promise(setImmediate);
    alive.add('heavy');
    await all;
    assert.deepEqual(await left(), []);
  });

  it('of one group alone leave the others be', async () => {
    const { deletions, ended, left } = await rig(2);
    await deletions.finishGroup('heavy');
    assert.deepEqual(ended, [1, 3]);
    assert.deepEqual(await left(), [2, 4]);
  });

  it('end with the broker, finished or not', async () => {
    const { deletions, alive, left } = await rig(1);
    alive.clear();
    const all = deletions.finish();
    deletions.stop();
    await all;
    assert.deepEqual(await left(), [1, 2]);
  });
});
