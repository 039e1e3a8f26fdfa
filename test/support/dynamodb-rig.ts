/**
 * DynamoDB stores for unit tests: each with requests of its own through one proxy, on one fresh table, with waits
 * that are short. Owns: opening and closing them, and a look past the store at the items.
 */
import {
  type AttributeValue,
  DeleteItemCommand,
  DynamoDBClient,
  PutItemCommand,
  QueryCommand,
  ScanCommand,
} from '@aws-sdk/client-dynamodb';
import { applyMigrations } from '../../migrations/apply.ts';
import { type Clock, systemClock } from '../../src/core/clock.ts';
import { seededRandom } from '../../src/core/random.ts';
import { connectDynamodb } from '../../storage/metadata/dynamodb/dynamodb-backend.ts';
import type { DynamodbClientOptions } from '../../storage/metadata/dynamodb/dynamodb-client.ts';
import { DynamodbMetadataStore } from '../../storage/metadata/dynamodb/dynamodb-metadata-store.ts';
import { knownMigrations, migrationTarget } from '../../storage/metadata/dynamodb/dynamodb-migrations.ts';
import { parseDynamodbUrl } from '../../storage/metadata/dynamodb/dynamodb-url.ts';
import type { LogEntry } from '../../storage/metadata/metadata-store.ts';
import { StoreCounters } from '../../storage/metadata/store-counters.ts';
import { sharedDynalite } from './dynalite-server.ts';
import { DynamodbProxy } from './dynamodb-proxy.ts';
import { deleteTable, freshUrl } from './dynamodb-target.ts';

type Item = Record<string, AttributeValue>;

/** Waits take a fiftieth of their time. */
export const hurriedClock: Clock = {
  ...systemClock,
  after: (delayMs, fire) => systemClock.after(delayMs / 50, fire),
};

export class DynamodbRig {
  readonly proxy: DynamodbProxy;
  readonly url: string;
  readonly counters = new StoreCounters();
  readonly #direct: DynamoDBClient;
  readonly #stores: DynamodbMetadataStore[] = [];
  readonly #table: string;

  private constructor(proxy: DynamodbProxy, url: string, directEndpoint: string) {
    this.proxy = proxy;
    this.url = url;
    this.#table = parseDynamodbUrl(url).table;
    this.#direct = new DynamoDBClient({ region: 'us-east-1', endpoint: directEndpoint });
  }

  /** A migrated table with a cluster of `shardCount` shards, all held by incarnation 7 under epoch 1; with 0 shards no cluster. */
  static async start(shardCount = 4): Promise<DynamodbRig> {
    const { endpoint } = await sharedDynalite();
    const proxy = await DynamodbProxy.start(endpoint);
    const url = freshUrl(`dynamodb://us-east-1/unit?endpoint=${encodeURIComponent(proxy.endpoint)}`);
    const rig = new DynamodbRig(proxy, url, endpoint);
    const parts = connectDynamodb(url, {
      clock: hurriedClock,
      random: seededRandom(1),
      counters: rig.counters,
    });
    await applyMigrations(migrationTarget(parts), knownMigrations());
    const store = new DynamodbMetadataStore(parts.requests);
    if (shardCount > 0) {
      const cluster = { clusterId: 'c', storeIncarnation: 's', shardCount, createdAtMs: 1_700_000_000_000 };
      await store.initCluster(cluster);
      const seen = Array.from({ length: shardCount }, (_, shard) => ({ shard, holder: 0, epoch: 0 }));
      await store.acquireLeases(7, seen);
    }
    await store.close();
    proxy.clear();
    return rig;
  }

  /** A store that knows nothing yet, as that of a broker that has just begun. */
  store(options: DynamodbClientOptions = {}): DynamodbMetadataStore {
    const { counters } = this;
    const parts = {
      clock: hurriedClock,
      random: seededRandom(2 + this.#stores.length),
      counters,
      ...options,
    };
    const store = new DynamodbMetadataStore(connectDynamodb(this.url, parts).requests);
    this.#stores.push(store);
    return store;
  }

  async close(): Promise<void> {
    for (const store of this.#stores) await store.close();
    this.#direct.destroy();
    await deleteTable(this.url);
    await this.proxy.close();
  }

  // -- Past the store ------------------------------------------------------------------------------------

  /** Items of one partition key, in order. */
  async items(pk: string): Promise<Item[]> {
    const items: Item[] = [];
    for (let start: Item | undefined; ; ) {
      const query = new QueryCommand({
        TableName: this.#table,
        KeyConditionExpression: 'pk = :pk',
        ExpressionAttributeValues: { ':pk': { S: pk } },
        ConsistentRead: true,
        ExclusiveStartKey: start,
      });
      const { Items = [], LastEvaluatedKey } = await this.#direct.send(query);
      items.push(...Items);
      start = LastEvaluatedKey;
      if (start === undefined) return items;
    }
  }

  async sortKeys(pk: string): Promise<string[]> {
    return (await this.items(pk)).map(({ sk }) => sk.S ?? '');
  }

  async allItems(): Promise<Item[]> {
    const items: Item[] = [];
    for (let start: Item | undefined; ; ) {
      const scan = new ScanCommand({
        TableName: this.#table,
        ConsistentRead: true,
        ExclusiveStartKey: start,
      });
      const { Items = [], LastEvaluatedKey } = await this.#direct.send(scan);
      items.push(...Items);
      start = LastEvaluatedKey;
      if (start === undefined) break;
    }
    const keyOf = ({ pk, sk }: Item) => `${pk.S}\u0000${sk.S}`;
    return items.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
  }

  async putItem(item: Item): Promise<void> {
    await this.#direct.send(new PutItemCommand({ TableName: this.#table, Item: item }));
  }

  async deleteItem(pk: string, sk: string): Promise<void> {
    const key = { pk: { S: pk }, sk: { S: sk } };
    await this.#direct.send(new DeleteItemCommand({ TableName: this.#table, Key: key }));
  }
}

let commits = 0;

/** An entry of its own commit id. */
export function entryOf(shard: number, seq: number, other: Partial<LogEntry> = {}): LogEntry {
  const commitId = `c-${++commits}`;
  return { shard, seq, epoch: 1, commitId, body: new TextEncoder().encode(`${shard}/${seq}`), ...other };
}

/** Requests that touch the item (pk, sk), or any of pk. */
export function touches(pk: string, sk?: string): (call: { action: string; body: unknown }) => boolean {
  return ({ body }) => {
    const { Key, Item } = body as { Key?: Item; Item?: Item };
    const key = Key ?? Item;
    return key?.pk?.S === pk && (sk === undefined || key.sk?.S === sk);
  };
}

/** Until it holds; fails after some ten seconds. */
export async function eventually(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let i = 0; i < 2000; i++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`never came true: ${what}`);
}

/** Something that waits until it is let go. */
export function gate(): { until: Promise<void>; release: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { until: promise, release: () => resolve() };
}
