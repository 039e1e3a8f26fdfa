/**
 * Benchmarks of committing a flush over 64 shards by CockroachDB's code, beside PostgreSQL's on the same server with
 * fsync in the same run, both over their storing threads. The server is PostgreSQL: no CockroachDB is measured here,
 * only what its code asks of a server beyond what PostgreSQL's asks (SERIALIZABLE, its own statements).
 */
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { cockroachUrlOn } from '../../test/support/cockroach-on-postgres.ts';
import { startPostgres } from '../../test/support/postgres-server.ts';
import { addPackedFlushes, PackedFlushes } from '../packed-flushes.ts';
import { type Suite, type SuiteOptions, type TaskFigures, TaskSet } from '../suite.ts';

const SHARD_COUNT = 64;

async function measure(
  cockroach: MetadataStore,
  postgres: MetadataStore,
  options: SuiteOptions,
): Promise<TaskFigures[]> {
  const [theirs, ours] = [
    await PackedFlushes.on(postgres, SHARD_COUNT),
    await PackedFlushes.on(cockroach, SHARD_COUNT),
  ];
  const figures: TaskFigures[] = [];
  for (const count of options.smoke ? [100] : [100, 1_000, 10_000, 100_000]) {
    const against = `PostgreSQL's code, packed entries, ${count} slices`;
    for (const [name, flushes] of [
      [`CockroachDB's code, packed entries, ${count} slices`, ours],
      [against, theirs],
    ] as const) {
      // A set each: a task's first flush is made when it is added, and flushes of a store follow one another.
      const tasks = new TaskSet('cockroach appends', options, {
        timeMs: 4000,
        runs: count > 10_000 ? 10 : 50,
      });
      addPackedFlushes(tasks, flushes, count, { name, ...(name !== against && { against }) });
      figures.push(...(await tasks.run()));
    }
  }
  return figures;
}

export const cockroachAppendsSuite: Suite = {
  name: 'cockroachdb-appends',
  title: "CockroachDB's code on PostgreSQL, no CockroachDB: one flush, by slices",
  async run(options) {
    const server = await startPostgres({ isDurable: true });
    try {
      const open = (url: string) => openMetadata(url, { role: 'broker', migrate: true });
      const cockroach = await open(cockroachUrlOn(server.storeUrl()));
      const postgres = await open(server.storeUrl({ durability: 'checked' }));
      try {
        return await measure(cockroach.store, postgres.store, options);
      } finally {
        await cockroach.close();
        await postgres.close();
      }
    } finally {
      await server.stop();
    }
  },
};
