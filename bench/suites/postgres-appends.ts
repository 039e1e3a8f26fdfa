/**
 * Benchmarks of the PostgreSQL metadata store on a real server of its own, with fsync, over the storing thread:
 * - a flush over 64 shards by slices: packed entries through the store's own appendEntries, beside what the logs
 *   replace, a row per slice and a watermark row per partition in one statement (on this thread, without a hop);
 * - look-ups of pages among some millions of segments;
 * - what the server itself counts for a flush of 1,000 slices in topics of 1,000 and of 100,000 partitions: the
 *   statements and rows must be the same, and the suite fails if they are not.
 * Marks: 1,000 slices p99 < 5 ms, 10,000 slices p99 < 10 ms, a look-up p99 < 2 ms.
 */
import assert from 'node:assert/strict';
import pg from 'pg';
import { seededRandom } from '../../src/core/random.ts';
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { type PostgresServer, startPostgres } from '../../test/support/postgres-server.ts';
import { addPackedFlushes, FLUSH_INCARNATION, PackedFlushes } from '../packed-flushes.ts';
import { TOPIC_ID, upTo, WALL_MS } from '../sample-appends.ts';
import { OFFSETS_PER_PAGE, REFS_PER_PAGE, samplePages } from '../sample-pages.ts';
import { type Suite, type SuiteOptions, type TaskFigures, TaskSet } from '../suite.ts';

const SHARD_COUNT = 64;
const PAGES_PER_PARTITION = 2;

/** What the logs replace. */
class RowSchema {
  readonly #client: pg.Client;
  #number = 0;

  private constructor(client: pg.Client) {
    this.#client = client;
  }

  static async on(client: pg.Client): Promise<RowSchema> {
    await client.query(`
      CREATE TABLE segments (topic_id bigint, partition int, base_offset bigint, next_offset bigint,
        incarnation bigint, number bigint, position bigint, length int, max_timestamp_ms bigint,
        PRIMARY KEY (topic_id, partition, base_offset));
      CREATE TABLE watermarks (topic_id bigint, partition int, next_offset bigint,
        PRIMARY KEY (topic_id, partition)) WITH (fillfactor = 50)`);
    return new RowSchema(client);
  }

  /** One flush of a record to each of `count` partitions, in one statement. */
  async flush(topicId: number, count: number): Promise<void> {
    const number = ++this.#number;
    await this.#client.query({
      name: 'flushRows',
      text: `
        WITH raised AS (
          INSERT INTO watermarks SELECT $1, partition, $2::int8 + 1 FROM generate_series(0, $3::int4 - 1) AS partition
          ON CONFLICT (topic_id, partition) DO UPDATE SET next_offset = excluded.next_offset
        )
        INSERT INTO segments SELECT $1, partition, $2, $2::int8 + 1, $4, $2, position, 80, $5
        FROM unnest($6::int4[], $7::int8[]) AS row (partition, position)`,
      values: [
        topicId,
        number,
        count,
        FLUSH_INCARNATION,
        WALL_MS + number,
        `{${upTo(count).join()}}`,
        `{${upTo(count)
          .map((i) => 24 + i * 80)
          .join()}}`,
      ],
    });
  }
}

async function measureFlushes(
  store: MetadataStore,
  client: pg.Client,
  options: SuiteOptions,
): Promise<TaskFigures[]> {
  const flushes = await PackedFlushes.on(store, SHARD_COUNT);
  const rows = await RowSchema.on(client);
  const counts = options.smoke ? [100] : [100, 1_000, 10_000, 100_000];
  const figures: TaskFigures[] = [];
  const runAlone = async (count: number, add: (tasks: TaskSet) => void) => {
    // A set each: a task's first flush is made when it is added, and flushes of a store follow one another.
    const tasks = new TaskSet('postgres appends', options, { timeMs: 4000, runs: count > 10_000 ? 10 : 50 });
    add(tasks);
    figures.push(...(await tasks.run()));
  };
  for (const count of counts) {
    await runAlone(count, (tasks) =>
      addPackedFlushes(tasks, flushes, count, { against: `row per slice, ${count} slices` }),
    );
  }
  // Behind all of those: the server is busy for a while with what these leave (vacuum, checkpoints).
  for (const count of counts) {
    await runAlone(count, (tasks) =>
      tasks.add(`row per slice, ${count} slices`, () => rows.flush(count, count), {
        items: count,
        itemName: 'slice',
        details: { rows: count * 2 },
        hooks: { async: true },
      }),
    );
  }
  return figures;
}

async function measureLookUps(
  store: MetadataStore,
  client: pg.Client,
  options: SuiteOptions,
): Promise<TaskFigures[]> {
  const partitions = options.smoke ? 100 : 10_000;
  for (let from = 0; from < partitions; from += 100) {
    await store.putPages(upTo(100).flatMap((i) => samplePages(from + i, PAGES_PER_PARTITION, SHARD_COUNT)));
  }
  await client.query('ANALYZE');
  const random = seededRandom(11);
  const offsets = PAGES_PER_PARTITION * OFFSETS_PER_PAGE;
  const request = () => ({
    topicId: TOPIC_ID,
    partition: random.below(partitions),
    offset: random.below(offsets),
  });
  const find = async (count: number) => {
    const pages = await store.findPages(upTo(count).map(request));
    if (pages.includes(null)) throw new Error('a page was not found');
  };
  const tasks = new TaskSet('postgres look-ups', options, { timeMs: 4000 });
  const pageBytes = samplePages(0, 1, SHARD_COUNT)[0].bytes.length;
  const segments = partitions * PAGES_PER_PARTITION * REFS_PER_PAGE;
  for (const count of [1, 100]) {
    tasks.add(`${count} page${count > 1 ? 's' : ''} in one call`, () => find(count), {
      items: count,
      itemName: 'look-up',
      details: { 'segments stored': segments, 'page bytes': pageBytes },
      hooks: { async: true },
    });
  }
  return await tasks.run();
}

/** A store of its own, and flushes of 1,000 slices that are spread over so many partitions. */
async function openSpread(server: PostgresServer, schema: string, partitions: number, slices: number) {
  const url = server.storeUrl({ schema, durability: 'checked', application_name: schema });
  const opened = await openMetadata(url, { role: 'broker', migrate: true });
  const flushes = await PackedFlushes.on(opened.store, SHARD_COUNT);
  const byShard = flushes.byShard(upTo(slices).map((i) => i * (partitions / slices)));
  await flushes.append(flushes.next(byShard));
  return { opened, flushes, byShard };
}

/** What one flush of 1,000 slices among so many partitions takes, and what the server counts for it. */
async function costOfFlush(
  server: PostgresServer,
  client: pg.Client,
  partitions: number,
  options: SuiteOptions,
): Promise<TaskFigures> {
  const slices = 1_000;
  // A twin of one flush says what was written before the flushes that are counted: the server counts what a
  // connection wrote when the connection ends, or up to ten seconds later.
  const [schema, twin] = [`cost_${partitions}`, `twin_${partitions}`];
  await (await openSpread(server, twin, partitions, slices)).opened.close();
  const { opened, flushes, byShard } = await openSpread(server, schema, partitions, slices);
  await client.query('SELECT pg_stat_statements_reset()');
  const timesUs: number[] = [];
  for (const _ of upTo(options.smoke ? 20 : 500)) {
    const entries = flushes.next(byShard);
    const beganMs = performance.now();
    await flushes.append(entries);
    timesUs.push((performance.now() - beganMs) * 1000);
  }
  const counted = await client.query(
    `SELECT sum(calls)::int4 AS calls FROM pg_stat_statements
     WHERE query LIKE '%cost\\_%' OR query ~* '^(begin|commit)'`,
  );
  await opened.close();
  const runs = timesUs.length;
  const rows = (await rowsWritten(client, schema)) - (await rowsWritten(client, twin));
  timesUs.sort((a, b) => a - b);
  const p50Us = timesUs[runs >> 1];
  return {
    name: `packed entries, 1000 slices among ${partitions} partitions`,
    samples: runs,
    p50Us,
    p99Us: timesUs[Math.floor(runs * 0.99)],
    items: slices,
    itemName: 'slice',
    itemsPerS: (slices * 1e6) / p50Us,
    against: null,
    details: {
      'statements counted per flush': counted.rows[0].calls / runs,
      'rows counted per flush': rows / runs,
    },
  };
}

/** Rows inserted and updated in a schema; its connections, which bear its name, were closed. */
async function rowsWritten(client: pg.Client, schema: string): Promise<number> {
  for (let wait = 0; wait < 300; wait++) {
    const open = await client.query('SELECT 1 FROM pg_stat_activity WHERE application_name = $1', [schema]);
    if (open.rowCount === 0) {
      const { rows } = await client.query(
        'SELECT sum(n_tup_ins + n_tup_upd)::int4 AS written FROM pg_stat_user_tables WHERE schemaname = $1',
        [schema],
      );
      return rows[0].written;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('the connections did not end');
}

async function measureCosts(
  server: PostgresServer,
  client: pg.Client,
  options: SuiteOptions,
): Promise<TaskFigures[]> {
  await client.query('CREATE EXTENSION pg_stat_statements');
  const few = await costOfFlush(server, client, 1_000, options);
  const many = await costOfFlush(server, client, 100_000, options);
  assert.deepEqual(many.details, few.details, 'a flush costs more among more partitions');
  return [few, many];
}

async function measure(options: SuiteOptions): Promise<TaskFigures[]> {
  const server = await startPostgres({
    isDurable: true,
    flags: ['-c', 'shared_preload_libraries=pg_stat_statements'],
  });
  const client = new pg.Client({ connectionString: server.url });
  try {
    await client.connect();
    const opened = await openMetadata(server.storeUrl({ durability: 'checked' }), {
      role: 'broker',
      migrate: true,
    });
    try {
      return [
        ...(await measureLookUps(opened.store, client, options)),
        ...(await measureCosts(server, client, options)),
        ...(await measureFlushes(opened.store, client, options)),
      ];
    } finally {
      await opened.close();
    }
  } finally {
    await client.end();
    await server.stop();
  }
}

export const postgresAppendsSuite: Suite = {
  name: 'postgres-appends',
  title: 'PostgreSQL: one flush, by slices, and look-ups of pages',
  run: measure,
};
