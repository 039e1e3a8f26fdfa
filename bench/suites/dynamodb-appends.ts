/**
 * Benchmarks of committing a flush to DynamoDB (8 shards) by slices per flush: requests, write units and what they
 * cost by list price, beside an item per slice and a watermark item per partition, which is what the logs replace.
 * The units are those that the server reports for real requests. The server is dynalite, in this process: its times
 * say nothing about AWS, and only show what this end costs.
 */
import { type AttributeValue, BatchWriteItemCommand, DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { systemClock } from '../../src/core/clock.ts';
import { shardOf } from '../../src/core/ids.ts';
import { systemRandom } from '../../src/core/random.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import { dynamodbBackend } from '../../storage/metadata/dynamodb/dynamodb-backend.ts';
import type { LogEntry, MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { StoreCounters } from '../../storage/metadata/store-counters.ts';
import { type DynaliteServer, startDynalite } from '../../test/support/dynalite-server.ts';
import { encodeEntry } from '../../workers/entry-codec.ts';
import { sliceBody, TOPIC_ID, upTo, WALL_MS } from '../sample-appends.ts';
import { type Detail, type Suite, type SuiteOptions, type TaskFigures, TaskSet } from '../suite.ts';

const SHARD_COUNT = 8;
const INCARNATION = 3;
/** On demand, us-east-1, standard table class: USD for a million write units. */
const USD_PER_MILLION_WRITE_UNITS = 0.625;
/** Flushes whose requests and units are counted. */
const COUNTED_FLUSHES = 5;
/** Items of one batch that the service takes. */
const BATCH_ITEMS = 25;

/** What the requests between two moments came to, for each of `flushes`. */
function perFlush(units: number, requests: number, flushes: number): Record<string, Detail> {
  const each = units / flushes;
  return {
    requests: Math.round((requests / flushes) * 10) / 10,
    'write units': Math.round(each * 10) / 10,
    'USD per million flushes': Math.round(each * USD_PER_MILLION_WRITE_UNITS),
  };
}

/** Flushes that follow one another on one store of its own. */
class Flushes {
  readonly #store: MetadataStore;
  readonly #seqs = new Array<number>(SHARD_COUNT).fill(0);
  readonly #byShard: number[][];
  #number = 0;

  constructor(store: MetadataStore, partitions: number) {
    this.#store = store;
    this.#byShard = Array.from({ length: SHARD_COUNT }, () => []);
    for (const partition of upTo(partitions)) {
      this.#byShard[shardOf(TOPIC_ID, partition, oneGroup(SHARD_COUNT))].push(partition);
    }
  }

  /** The entries of the next flush: a record for each partition. */
  next(): LogEntry[] {
    const number = ++this.#number;
    const entries: LogEntry[] = [];
    for (let shard = 0; shard < SHARD_COUNT; shard++) {
      if (this.#byShard[shard].length === 0) continue;
      const seq = ++this.#seqs[shard];
      const slices = sliceBody(number, this.#byShard[shard], number);
      const body = encodeEntry({ shard, seq, epoch: 1, timeMs: WALL_MS + number * 100, ...slices });
      entries.push({ shard, seq, epoch: 1, commitId: `${INCARNATION}-${shard}-${seq}`, body });
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

async function openStore(
  server: DynaliteServer,
  prefix: string,
  counters: StoreCounters,
): Promise<MetadataStore> {
  const url = `dynamodb://us-east-1/${prefix}?endpoint=${encodeURIComponent(server.endpoint)}`;
  const parts = { clock: systemClock, random: systemRandom, counters };
  const { store } = await dynamodbBackend.open(url, { role: 'broker', migrate: true, ...parts });
  const cluster = { clusterId: 'b', storeIncarnation: 'b', shardCount: SHARD_COUNT, createdAtMs: 1 };
  await store.initCluster(cluster);
  return store;
}

/** A store whose shards are held by whom the flushes say. */
async function openHeld(
  server: DynaliteServer,
  prefix: string,
  counters: StoreCounters,
): Promise<MetadataStore> {
  const store = await openStore(server, prefix, counters);
  await store.acquireLeases(
    INCARNATION,
    upTo(SHARD_COUNT).map((shard) => ({ shard, holder: 0, epoch: 0 })),
  );
  return store;
}

/** Requests and units of some flushes, the copies that follow them included. */
async function counted(server: DynaliteServer, partitions: number): Promise<Record<string, Detail>> {
  const counters = new StoreCounters();
  const store = await openHeld(server, `counted-${partitions}`, counters);
  const flushes = new Flushes(store, partitions);
  const before = [counters.read('writeUnits'), counters.read('statements')];
  let bytes = 0;
  for (let i = 0; i < COUNTED_FLUSHES; i++) {
    const entries = flushes.next();
    bytes = entries.reduce((sum, { body }) => sum + body.length, 0);
    await flushes.append(entries);
  }
  // Waits for the last copies.
  await store.close();
  const [units, requests] = [
    counters.read('writeUnits') - before[0],
    counters.read('statements') - before[1],
  ];
  return { 'entry bytes': bytes, ...perFlush(units, requests, COUNTED_FLUSHES) };
}

async function addPacked(tasks: TaskSet, server: DynaliteServer, partitions: number, against?: string) {
  const details = await counted(server, partitions);
  const store = await openHeld(server, `timed-${partitions}`, new StoreCounters());
  const flushes = new Flushes(store, partitions);
  const run = () => flushes.append(flushes.next());
  tasks.add(`packed entries, ${partitions} slices`, run, {
    items: partitions,
    itemName: 'slice',
    ...(against !== undefined && { against }),
    details,
    hooks: { async: true },
  });
  return store;
}

/** What the logs replace: an item for each slice, and one for each partition's watermark, in unconditional batches. */
class Rows {
  readonly #client: DynamoDBClient;
  readonly #table: string;
  #number = 0;
  units = 0;
  requests = 0;

  constructor(server: DynaliteServer, table: string) {
    this.#client = new DynamoDBClient({ region: 'us-east-1', endpoint: server.endpoint });
    this.#table = table;
  }

  async flush(partitions: number): Promise<void> {
    const number = ++this.#number;
    const items = upTo(partitions).flatMap((partition): Record<string, AttributeValue>[] => {
      const pk = { S: `${TOPIC_ID}#${partition}` };
      const slice = {
        incarnation: INCARNATION,
        number,
        position: 24 + partition * 80,
        length: 80,
        timestamp: WALL_MS,
      };
      const attributes = Object.entries(slice).map(([name, value]) => [name, { N: String(value) }] as const);
      return [
        { pk, sk: { S: `segment#${number}` }, ...Object.fromEntries(attributes) },
        { pk, sk: { S: 'watermark' }, next: { N: String(number + 1) } },
      ];
    });
    for (let i = 0; i < items.length; i += BATCH_ITEMS) {
      const puts = items.slice(i, i + BATCH_ITEMS).map((Item) => ({ PutRequest: { Item } }));
      const request = { RequestItems: { [this.#table]: puts }, ReturnConsumedCapacity: 'TOTAL' } as const;
      const { ConsumedCapacity = [] } = await this.#client.send(new BatchWriteItemCommand(request));
      for (const { CapacityUnits = 0 } of ConsumedCapacity) this.units += CapacityUnits;
      this.requests++;
    }
  }

  close(): void {
    this.#client.destroy();
  }
}

async function addRows(tasks: TaskSet, server: DynaliteServer, partitions: number): Promise<Rows> {
  const prefix = `rows-${partitions}`;
  await (await openStore(server, prefix, new StoreCounters())).close();
  const rows = new Rows(server, `${prefix}-metadata`);
  await rows.flush(partitions);
  tasks.add(`row per slice, ${partitions} slices`, () => rows.flush(partitions), {
    items: partitions,
    itemName: 'slice',
    details: perFlush(rows.units, rows.requests, 1),
    hooks: { async: true },
  });
  return rows;
}

async function run(options: SuiteOptions): Promise<TaskFigures[]> {
  const server = await startDynalite();
  try {
    const figures: TaskFigures[] = [];
    for (const partitions of options.smoke ? [100] : [100, 1_000, 10_000, 100_000]) {
      // A set each: a store of one size does not carry what another's left.
      const tasks = new TaskSet('dynamodb appends', options, { timeMs: 500, runs: 10 });
      const isSmall = partitions <= 1_000;
      const rows = isSmall ? await addRows(tasks, server, partitions) : null;
      const store = await addPacked(
        tasks,
        server,
        partitions,
        isSmall ? `row per slice, ${partitions} slices` : undefined,
      );
      figures.push(...(await tasks.run()));
      rows?.close();
      await store.close();
    }
    return figures;
  } finally {
    await server.close();
  }
}

export const dynamodbAppendsSuite: Suite = {
  name: 'dynamodb-appends',
  title: 'DynamoDB appends: requests and write units of one flush, by slices (dynalite)',
  run,
};
