/**
 * Benchmarks of committing a flush to SQLite (synchronous=FULL, the storing thread, 8 shards) by slices per flush:
 * packed entries through the store's own appendEntries, beside a row per slice and a watermark row per partition
 * in a plain table of the same settings, which is what the logs replace. The time of packed entries must grow with
 * bytes, not with rows. The plain tables are written on this thread, without a hop. Two threads.
 */
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { shardOf } from '../../src/core/ids.ts';
import type { LogEntry, MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { encodeEntry } from '../../workers/entry-codec.ts';
import { sliceBody, TOPIC_ID, upTo, WALL_MS } from '../sample-appends.ts';
import { inScratchDirectory } from '../scratch-directory.ts';
import { type Suite, type SuiteOptions, type TaskFigures, TaskSet } from '../suite.ts';

const SHARD_COUNT = 8;
const INCARNATION = 3;

/** Partitions 0 to count - 1 by shard. */
function partitionsByShard(count: number): number[][] {
  const byShard: number[][] = Array.from({ length: SHARD_COUNT }, () => []);
  for (const partition of upTo(count)) byShard[shardOf(TOPIC_ID, partition, SHARD_COUNT)].push(partition);
  return byShard;
}

/** Flushes that follow one another on one store. */
class Flushes {
  readonly #store: MetadataStore;
  readonly #seqs = new Array<number>(SHARD_COUNT).fill(0);
  #number = 0;

  constructor(store: MetadataStore) {
    this.#store = store;
  }

  /** The entries of the next flush of one record to each partition. */
  next(byShard: readonly number[][]): LogEntry[] {
    const number = ++this.#number;
    const entries: LogEntry[] = [];
    for (let shard = 0; shard < SHARD_COUNT; shard++) {
      if (byShard[shard].length === 0) continue;
      const seq = ++this.#seqs[shard];
      const body = sliceBody(number, byShard[shard], number);
      const bytes = encodeEntry({ shard, seq, epoch: 1, timeMs: WALL_MS + number * 100, ...body });
      entries.push({ shard, seq, epoch: 1, commitId: `${INCARNATION}-${shard}-${seq}`, body: bytes });
    }
    return entries;
  }

  async append(entries: readonly LogEntry[]): Promise<void> {
    const shards = entries.map(({ shard, epoch }) => ({ shard, epoch }));
    const object = { incarnation: INCARNATION, number: this.#number };
    const row = { object, bytes: 1_000_000, createdAtMs: WALL_MS, shards };
    const outcomes = await this.#store.appendEntries(entries, [row]);
    for (const { kind } of outcomes) if (kind !== 'done') throw new Error(`an append ended as ${kind}`);
  }
}

function addPacked(tasks: TaskSet, flushes: Flushes, count: number): void {
  const byShard = partitionsByShard(count);
  const sample = flushes.next(byShard);
  let entries: LogEntry[] | null = sample;
  const bytes = sample.reduce((sum, { body }) => sum + body.length, 0);
  const prepare = () => {
    entries ??= flushes.next(byShard);
  };
  const append = async () => {
    await flushes.append(entries as LogEntry[]);
    entries = null;
  };
  tasks.add(`packed entries, ${count} slices`, append, {
    items: count,
    itemName: 'slice',
    against: `row per slice, ${count} slices`,
    // Entries inserted, heads moved, one object.
    details: { rows: sample.length * 2 + 1, 'entry bytes': bytes },
    hooks: { async: true, beforeEach: prepare },
  });
}

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
      insert.run(topicId, partition, number, number + 1, INCARNATION, number, position, 80, WALL_MS + number);
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
    const { store } = opened;
    await store.initCluster({
      clusterId: 'b',
      storeIncarnation: 'b',
      shardCount: SHARD_COUNT,
      createdAtMs: 1,
    });
    const seen = upTo(SHARD_COUNT).map((shard) => ({ shard, holder: 0, epoch: 0 }));
    await store.acquireLeases(INCARNATION, seen);
    const flushes = new Flushes(store);
    const counts = options.smoke ? [100] : [100, 1_000, 10_000];
    const figures: TaskFigures[] = [];
    for (const count of counts) {
      // A set each: a task's first flush is made when it is added, and flushes of a store follow one another.
      const tasks = new TaskSet('sqlite appends', options, { timeMs: 3000, runs: 50 });
      addPacked(tasks, flushes, count);
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
