/**
 * Benchmarks of looking a topic up: in the cache (as the HTTP door does, without a promise, and through the
 * contract), through the cache with a miss, and in the SQLite store on its own thread. Two threads.
 */
import { join } from 'node:path';
import { systemClock } from '../../src/core/clock.ts';
import { CachedMetadataStore } from '../../storage/metadata/cached-metadata-store.ts';
import { openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { inScratchDirectory } from '../scratch-directory.ts';
import { type Suite, type SuiteOptions, type TaskFigures, TaskSet } from '../suite.ts';

const nothing = () => undefined;
const OBSERVER = { hit: nothing, miss: nothing, eviction: nothing, staleFill: nothing, drop: nothing };
const PARTS = { clock: systemClock, observer: OBSERVER, shardCount: 8 };
const UNCACHED = 'SQLite store, no cache';

async function measure(directory: string, options: SuiteOptions): Promise<TaskFigures[]> {
  const opened = await openMetadata(`sqlite:${join(directory, 'metadata.db')}`, { role: 'broker' });
  const { store } = opened;
  try {
    await store.initCluster({ clusterId: 'b', storeIncarnation: 'b', shardCount: 8, createdAtMs: 1 });
    const names = Array.from({ length: options.smoke ? 16 : 1_000 }, (_, i) => `topic-${i}`);
    for (const name of names) {
      await store.createTopic({ name, partitionCount: 100, configs: {}, createdAtMs: 1 });
    }
    const cached = new CachedMetadataStore(store, PARTS);
    for (const name of names) await cached.getTopic(name);
    // One place only: whatever is asked for next was evicted.
    const missing = new CachedMetadataStore(store, { ...PARTS, settings: { topicCountMax: 1 } });
    let next = 0;
    const name = () => names[next++ % names.length];
    const tasks = new TaskSet('metadata cache', options);
    const hit = { itemName: 'look-up', against: UNCACHED };
    const many = 100;
    tasks.add(
      `hit, as the door asks, ${many} times`,
      () => {
        for (let i = 0; i < many; i++) if (cached.peekTopic(name()) === undefined) throw new Error('a miss');
      },
      { ...hit, items: many },
    );
    const async = { hooks: { async: true } };
    tasks.add('hit, through the contract', () => cached.getTopic(name()), { ...hit, ...async });
    tasks.add('miss, through the cache to SQLite', () => missing.getTopic(name()), { ...hit, ...async });
    tasks.add(UNCACHED, () => store.getTopic(name()), { itemName: 'look-up', ...async });
    return await tasks.run();
  } finally {
    await opened.close();
  }
}

export const metadataCacheSuite: Suite = {
  name: 'metadata-cache',
  title: 'metadata cache: a topic by name',
  run: (options) => inScratchDirectory((directory) => measure(directory, options)),
};
