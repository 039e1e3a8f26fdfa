/**
 * Benchmarks of committing a flush to SQLite (synchronous=FULL, the storing thread, 8 shards) by slices per flush:
 * packed entries through the store's own appendEntries, beside a row per slice and a watermark row per partition
 * in a plain table of the same settings, which is what the logs replace. The time of packed entries must grow with
 * bytes, not with rows. The plain tables are written on this thread, without a hop. Two threads.
 */
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { addPackedFlushes, FLUSH_INCARNATION, PackedFlushes } from '../packed-flushes.ts';
import { WALL_MS } from '../sample-appends.ts';
import { inScratchDirectory } from '../scratch-directory.ts';
import { type Suite, type SuiteOptions, type TaskFigures, TaskSet } from '../suite.ts';

const SHARD_COUNT = 8;

/** What the logs replace: segments and watermarks as rows, in one transaction. */
function openRows(directory: string): Database.Database {
  const db = new Database(join(directory, 'rows.db'));
  db.pragma('page_size = 8192');
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  db.pragma('cache_size = -32768');
  db.exec(`
    CREATE TABLE segments (topic_id INTEGER, partition INTEGER, base_offset INTEGER, next_offset INTEGER,
      incarnation INTEGER, number INTEGER, position INTEGER, length INTEGER, max_timestamp_ms INTEGER,
      PRIMARY KEY (topic_id, partition, base_offset)) WITHOUT ROWID;
    CREATE TABLE watermarks (topic_id INTEGER, partition INTEGER, next_offset INTEGER,
      PRIMARY KEY (topic_id, partition)) WITHOUT ROWID;
  `);
  return db;
}

function addRows(tasks: TaskSet, db: Database.Database, topicId: number, count: number): void {
  const insert = db.prepare('INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)');
  const raise = db.prepare(
    `INSERT INTO watermarks VALUES (?, ?, ?)
       ON CONFLICT (topic_id, partition) DO UPDATE SET next_offset = excluded.next_offset`,
  );
  let number = 0;
  const flush = db.transaction(() => {
    number++;
    for (let partition = 0; partition < count; partition++) {
      const position = 24 + partition * 80;
      insert.run(
        topicId,
        partition,
        number,
        number + 1,
        FLUSH_INCARNATION,
        number,
        position,
        80,
        WALL_MS + number,
      );
      raise.run(topicId, partition, number + 1);
    }
  });
  tasks.add(`row per slice, ${count} slices`, () => flush.immediate(), {
    items: count,
    itemName: 'slice',
    details: { rows: count * 2 },
  });
}

async function measure(directory: string, options: SuiteOptions): Promise<TaskFigures[]> {
  const opened = await openMetadata(`sqlite:${join(directory, 'metadata.db')}`, { role: 'broker' });
  const rows = openRows(directory);
  try {
    const flushes = await PackedFlushes.on(opened.store, SHARD_COUNT);
    const counts = options.smoke ? [100] : [100, 1_000, 10_000];
    const figures: TaskFigures[] = [];
    for (const count of counts) {
      // A set each: a task's first flush is made when it is added, and flushes of a store follow one another.
      const tasks = new TaskSet('sqlite appends', options, { timeMs: 3000, runs: 50 });
      addPackedFlushes(tasks, flushes, count, { against: `row per slice, ${count} slices` });
      addRows(tasks, rows, count, count);
      figures.push(...(await tasks.run()));
    }
    return figures;
  } finally {
    rows.close();
    await opened.close();
  }
}

export const sqliteAppendsSuite: Suite = {
  name: 'sqlite-appends',
  title: 'SQLite appends: one flush, by slices',
  run: (options) => inScratchDirectory((directory) => measure(directory, options)),
};
