/**
 * Benchmarks of committing a flush over 64 shards by CockroachDB's code, beside PostgreSQL's on the same server with
 * fsync in the same run, both over their storing threads. The server is PostgreSQL: no CockroachDB is measured here,
 * only what its code asks of a server beyond what PostgreSQL's asks (SERIALIZABLE, its own statements).
 */
import type { LogEntry, MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { cockroachUrlOn } from '../../test/support/cockroach-on-postgres.ts';
import { startPostgres } from '../../test/support/postgres-server.ts';
import { addPackedFlushes, PackedFlushes } from '../packed-flushes.ts';
import { upTo } from '../sample-appends.ts';
import { type Suite, type SuiteOptions, type TaskFigures, TaskSet } from '../suite.ts';

const SHARD_COUNT = 64;

async function measure(
  cockroach: MetadataStore,
  postgres: MetadataStore,
  options: SuiteOptions,
): Promise<TaskFigures[]> {
  const theirs = await PackedFlushes.on(postgres, SHARD_COUNT);
  const ours = await PackedFlushes.on(cockroach, SHARD_COUNT);
  const figures: TaskFigures[] = [];
  for (const count of options.smoke ? [100] : [100, 1_000, 10_000, 100_000]) {
    // A set each: a task's first flush is made when it is added, and flushes of a store follow one another.
    const runAlone = async (add: (tasks: TaskSet) => void) => {
      const tasks = new TaskSet('cockroach appends', options, {
        timeMs: 3000,
        runs: count > 10_000 ? 10 : 50,
      });
      add(tasks);
      figures.push(...(await tasks.run()));
    };
    const against = `PostgreSQL's code, packed entries, ${count} slices`;
    await runAlone((tasks) => addByTurns(tasks, ours, theirs, count, against));
    await runAlone((tasks) => addPackedFlushes(tasks, theirs, count, { name: against }));
  }
  return figures;
}

/** A flush of each, one after the other; entries are encoded outside of both times. */
function addByTurns(
  tasks: TaskSet,
  ours: PackedFlushes,
  theirs: PackedFlushes,
  count: number,
  against: string,
): void {
  const byShard = ours.byShard(upTo(count));
  let [mine, other]: LogEntry[][] = [];
  tasks.add(`CockroachDB's code, packed entries, ${count} slices`, () => ours.append(mine), {
    items: count,
    itemName: 'slice',
    against,
    byTurns: () => theirs.append(other),
    hooks: {
      async: true,
      beforeEach: () => {
        [mine, other] = [ours.next(byShard), theirs.next(byShard)];
      },
    },
  });
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
