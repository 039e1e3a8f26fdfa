/**
 * Requests to one table, with what may be repeated repeated. Owns: the retries, the number in flight, what was
 * consumed. Does not own: what the items mean, nor the table's creation (dynamodb-migrations). The thread that
 * hosts the store.
 *
 *                    read               idempotent write      conditional write that conflicts with itself
 *   throttled        again              again                 again                    nothing happened
 *   not connected    again              again                 again                    nothing happened
 *   5xx, no answer   again              again                 'store-unknown'          it may have happened
 *   refused          'store-unavailable', or 'store-unknown' if an earlier attempt may have happened
 *   out of attempts  'store-unavailable', or 'store-unknown' if any attempt may have happened
 *
 * All reads are strongly consistent.
 */
import assert from 'node:assert/strict';
import {
  BatchGetItemCommand,
  BatchWriteItemCommand,
  type ConsumedCapacity,
  DeleteItemCommand,
  type DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
  QueryCommand,
  ScanCommand,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb';
import { type Clock, sleep } from '../../../src/core/clock.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { Random } from '../../../src/core/random.ts';
import type { StoreCounters } from '../store-counters.ts';
import { dynamodbError, readDynamodbFailure } from './dynamodb-error.ts';
import { allDone } from './dynamodb-outcomes.ts';
import type { DynamodbPlace } from './dynamodb-url.ts';
import { type Item, type ItemKey, keyItem, keyOf, namesIn, type Value, valuesOf } from './dynamodb-values.ts';
import { InFlight } from './in-flight.ts';

/**
 * Each lane has requests of its own in flight, so that commits do not wait behind look-ups (pages, checkpoints,
 * listings), nor these behind bulk work (writing pages out, deletions, imports). At 10 ms each, 64 are 6,400 requests a
 * second: several times what a writer's flushes make.
 */
const IN_FLIGHT_MAX: Record<Lane, number> = { commit: 64, 'look-up': 32, bulk: 32 };
export type Lane = 'commit' | 'look-up' | 'bulk';

/** Attempts in all. With the waits below the first give up after at most 5 s of throttling. */
const THROTTLED_ATTEMPTS_MAX = 9;
const UNCLEAR_ATTEMPTS_MAX = 4;
/** Full jitter: a wait is anything up to this, doubled with every attempt. */
const BACKOFF_MS_FIRST = 25;
const BACKOFF_MS_MAX = 2_000;

/** The service's own bounds. */
const BATCH_GET_KEYS_MAX = 100;
const BATCH_WRITE_ITEMS_MAX = 25;

/** What one attempt may be followed by. */
type Repeat = 'read' | 'idempotent' | 'once';

/** Text of an expression, and the values of its `:names`. */
export interface Expression {
  text: string;
  values?: Record<string, Value>;
}

export interface QueryRange {
  pk: string;
  /** Of the sort key, `#sk` and the values' names; all items of `pk` if left out. */
  range?: Expression;
  descending?: boolean;
  /** Of one request. */
  limit?: number;
  lane?: Lane;
  keysOnly?: boolean;
}

export interface RequestParts {
  client: DynamoDBClient;
  place: DynamodbPlace;
  clock: Clock;
  random: Random;
  counters: StoreCounters;
  /** For a reader: any write is a bug. */
  isReadOnly?: boolean;
}

const CONDITION_FAILED = Symbol('condition failed');
type ConditionFailed = typeof CONDITION_FAILED;

interface Attempted {
  ConsumedCapacity?: ConsumedCapacity | ConsumedCapacity[];
}

export class DynamodbRequests {
  readonly description: string;
  readonly #parts: RequestParts;
  readonly #lanes: Record<Lane, InFlight>;
  readonly #stop = new AbortController();

  /** Takes the client over: `close` ends it. */
  constructor(parts: RequestParts) {
    this.#parts = parts;
    this.description = parts.place.description;
    const lane = (name: Lane) => new InFlight(IN_FLIGHT_MAX[name]);
    this.#lanes = { commit: lane('commit'), 'look-up': lane('look-up'), bulk: lane('bulk') };
  }

  /** Of a reader's store: whatever would write must not. */
  get isReadOnly(): boolean {
    return this.#parts.isReadOnly === true;
  }

  /** 'store-unavailable' once closed. */
  checkOpen(): void {
    if (this.#stop.signal.aborted) throw closed(this.description);
  }

  /** Refuses further requests, waits for those in flight, ends the connections. */
  async close(): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    await Promise.all(Object.values(this.#lanes).map((lane) => lane.idle()));
    this.#parts.client.destroy();
  }

  /** A wait before trying again what rivals were faster with. */
  backOff(attempt: number): Promise<void> {
    const most = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_FIRST * 2 ** Math.min(attempt, 10));
    return sleep(this.#parts.clock, most * this.#parts.random.unit(), this.#stop.signal);
  }

  // -- Reads -------------------------------------------------------------------------------------------

  async get(key: ItemKey, options: { projection?: string; lane?: Lane } = {}): Promise<Item | null> {
    const { projection, lane = 'commit' } = options;
    const command = new GetItemCommand({
      TableName: this.#parts.place.table,
      Key: keyItem(key),
      ConsistentRead: true,
      ProjectionExpression: projection,
      ExpressionAttributeNames: projection === undefined ? undefined : namesIn(projection),
      ReturnConsumedCapacity: 'TOTAL',
    });
    const answer = await this.#read('GetItem', lane, () => this.#parts.client.send(command));
    return answer.Item ?? null;
  }

  /** Items in the order of `keys`, null for those that are not there; a key may come twice. */
  async getMany(
    keys: readonly ItemKey[],
    options: { projection?: string; lane?: Lane } = {},
  ): Promise<(Item | null)[]> {
    const names = keys.map(({ pk, sk }) => JSON.stringify([pk, sk]));
    const distinct = new Map(names.map((name, i) => [name, keys[i]]));
    const found = new Map<string, Item>();
    const all = [...distinct.values()];
    const batches: Promise<void>[] = [];
    for (let i = 0; i < all.length; i += BATCH_GET_KEYS_MAX) {
      batches.push(this.#getBatch(all.slice(i, i + BATCH_GET_KEYS_MAX), options, found));
    }
    await allDone(batches);
    return names.map((name) => found.get(name) ?? null);
  }

  async #getBatch(
    keys: readonly ItemKey[],
    { projection, lane = 'commit' }: { projection?: string; lane?: Lane },
    found: Map<string, Item>,
  ): Promise<void> {
    const { table } = this.#parts.place;
    // The items must tell which they are.
    const projected = projection === undefined ? undefined : `#pk, #sk, ${projection}`;
    let left: Item[] = keys.map(keyItem);
    for (let attempt = 0; left.length > 0; attempt++) {
      const command = new BatchGetItemCommand({
        RequestItems: {
          [table]: {
            Keys: left,
            ConsistentRead: true,
            ProjectionExpression: projected,
            ExpressionAttributeNames: projected === undefined ? undefined : namesIn(projected),
          },
        },
        ReturnConsumedCapacity: 'TOTAL',
      });
      const answer = await this.#read('BatchGetItem', lane, () => this.#parts.client.send(command));
      const items = answer.Responses?.[table] ?? [];
      for (const item of items) {
        const { pk, sk } = keyOf(item);
        found.set(JSON.stringify([pk, sk]), item);
      }
      left = answer.UnprocessedKeys?.[table]?.Keys ?? [];
      // What did not fit the answer is asked for at once; an answer with nothing in it means throttling.
      if (left.length > 0 && items.length === 0)
        await this.#throttledPart(attempt, 'BatchGetItem', 'store-unavailable');
    }
  }

  /** Items of one partition key by sort key, request by request. */
  async *query(query: QueryRange): AsyncGenerator<Item[], void> {
    const { pk, range, descending = false, limit, lane = 'look-up', keysOnly = false } = query;
    const condition = range === undefined ? '#pk = :pk' : `#pk = :pk AND ${range.text}`;
    const projection = keysOnly ? '#pk, #sk' : undefined;
    for (let start: Item | undefined; ; ) {
      const command = new QueryCommand({
        TableName: this.#parts.place.table,
        KeyConditionExpression: condition,
        ProjectionExpression: projection,
        ExpressionAttributeNames: namesIn(condition, projection),
        ExpressionAttributeValues: valuesOf({ pk, ...range?.values }),
        ConsistentRead: true,
        ScanIndexForward: !descending,
        Limit: limit,
        ExclusiveStartKey: start,
        ReturnConsumedCapacity: 'TOTAL',
      });
      const answer = await this.#read('Query', lane, () => this.#parts.client.send(command));
      yield answer.Items ?? [];
      start = answer.LastEvaluatedKey;
      if (start === undefined) return;
    }
  }

  /** The first `count` items of a query. */
  async queryFirst(query: QueryRange, count: number): Promise<Item[]> {
    if (count <= 0) return [];
    const items: Item[] = [];
    for await (const some of this.query({ ...query, limit: count })) {
      items.push(...some);
      if (items.length >= count) break;
    }
    return items.slice(0, count);
  }

  /** One request of a scan of the whole table; `limit` bounds the items looked at. */
  async scan(
    filter: Expression,
    start: ItemKey | null,
    limit: number,
  ): Promise<{ items: Item[]; next: ItemKey | null }> {
    const command = new ScanCommand({
      TableName: this.#parts.place.table,
      FilterExpression: filter.text,
      ExpressionAttributeNames: namesIn(filter.text),
      ExpressionAttributeValues: valuesOf(filter.values ?? {}),
      ConsistentRead: true,
      ExclusiveStartKey: start === null ? undefined : keyItem(start),
      Limit: limit,
      ReturnConsumedCapacity: 'TOTAL',
    });
    const answer = await this.#read('Scan', 'bulk', () => this.#parts.client.send(command));
    const last = answer.LastEvaluatedKey;
    return { items: answer.Items ?? [], next: last === undefined ? null : keyOf(last) };
  }

  // -- Writes ------------------------------------------------------------------------------------------

  /**
   * Puts an item. With a condition: false if it did not hold. `repeat` 'idempotent' where a second put of the same
   * item changes nothing; false then may also mean that an earlier attempt of this call put it.
   */
  async put(
    item: Item,
    repeat: 'idempotent' | 'once',
    options: { condition?: Expression; lane?: Lane } = {},
  ): Promise<boolean> {
    const { condition, lane = 'commit' } = options;
    const command = new PutItemCommand({
      TableName: this.#parts.place.table,
      Item: item,
      ConditionExpression: condition?.text,
      ExpressionAttributeNames: condition && namesIn(condition.text),
      ExpressionAttributeValues: condition && valuesOf(condition.values ?? {}),
      ReturnConsumedCapacity: 'TOTAL',
    });
    const answer = await this.#send('PutItem', repeat, lane, () => this.#parts.client.send(command));
    return answer !== CONDITION_FAILED;
  }

  /** Puts an item that nobody ever changes: false if it, or another under its key, was there. */
  putIfAbsent(item: Item, lane: Lane = 'commit'): Promise<boolean> {
    return this.put(item, 'idempotent', { condition: { text: 'attribute_not_exists(#pk)' }, lane });
  }

  /** Updates an item. null if the condition did not hold; else the whole item as it is now if asked for. */
  async update(
    key: ItemKey,
    change: { set: string; condition?: string; values: Record<string, Value> },
    repeat: 'idempotent' | 'once',
    options: { returnsItem?: boolean; lane?: Lane } = {},
  ): Promise<Item | null> {
    const { returnsItem = false, lane = 'commit' } = options;
    const command = new UpdateItemCommand({
      TableName: this.#parts.place.table,
      Key: keyItem(key),
      UpdateExpression: change.set,
      ConditionExpression: change.condition,
      ExpressionAttributeNames: namesIn(change.set, change.condition),
      ExpressionAttributeValues: valuesOf(change.values),
      ReturnValues: returnsItem ? 'ALL_NEW' : 'NONE',
      ReturnConsumedCapacity: 'TOTAL',
    });
    const answer = await this.#send('UpdateItem', repeat, lane, () => this.#parts.client.send(command));
    return answer === CONDITION_FAILED ? null : (answer.Attributes ?? {});
  }

  /** Deletes an item: false if the condition did not hold. Idempotent. */
  async remove(
    key: ItemKey,
    condition?: Expression,
    repeat: 'idempotent' | 'once' = 'idempotent',
  ): Promise<boolean> {
    const command = new DeleteItemCommand({
      TableName: this.#parts.place.table,
      Key: keyItem(key),
      ConditionExpression: condition?.text,
      ExpressionAttributeNames: condition && namesIn(condition.text),
      ExpressionAttributeValues: condition && valuesOf(condition.values ?? {}),
      ReturnConsumedCapacity: 'TOTAL',
    });
    const answer = await this.#send('DeleteItem', repeat, 'commit', () => this.#parts.client.send(command));
    return answer !== CONDITION_FAILED;
  }

  /** Deletes every item of a range, whatever is in it. */
  async removeRange(pk: string, range?: Expression): Promise<void> {
    for await (const items of this.query({ pk, range, keysOnly: true, lane: 'bulk' })) {
      const batches: Promise<void>[] = [];
      for (let i = 0; i < items.length; i += BATCH_WRITE_ITEMS_MAX) {
        batches.push(this.#removeBatch(items.slice(i, i + BATCH_WRITE_ITEMS_MAX)));
      }
      await allDone(batches);
    }
  }

  async #removeBatch(keys: readonly Item[]): Promise<void> {
    const { table } = this.#parts.place;
    let left = keys.map((item) => ({ DeleteRequest: { Key: keyItem(keyOf(item)) } }));
    for (let attempt = 0; left.length > 0; attempt++) {
      const before = left.length;
      const command = new BatchWriteItemCommand({
        RequestItems: { [table]: left },
        ReturnConsumedCapacity: 'TOTAL',
      });
      const answer = await this.#send('BatchWriteItem', 'idempotent', 'bulk', () =>
        this.#parts.client.send(command),
      );
      assert(answer !== CONDITION_FAILED, 'a batch has no condition');
      const unprocessed = answer.UnprocessedItems?.[table] ?? [];
      left = unprocessed.map(({ DeleteRequest }) => ({ DeleteRequest: { Key: DeleteRequest?.Key ?? {} } }));
      if (left.length === 0) return;
      // Attempts are bounded as long as nothing comes of them.
      if (left.length < before) attempt = 0;
      await this.#throttledPart(attempt, 'BatchWriteItem', 'store-unknown');
    }
  }

  // -- Attempts ----------------------------------------------------------------------------------------

  /** A batch of which a part was left undone for want of capacity. */
  async #throttledPart(
    attempt: number,
    action: string,
    code: 'store-unavailable' | 'store-unknown',
  ): Promise<void> {
    if (attempt >= THROTTLED_ATTEMPTS_MAX) {
      throw new StreamHouseError(
        code,
        `${this.description}: ${action}: a part of it is throttled again and again`,
      );
    }
    this.#parts.counters.add('throttleRetries');
    await this.backOff(attempt);
  }

  async #read<T extends Attempted>(action: string, lane: Lane, attempt: () => Promise<T>): Promise<T> {
    const answer = await this.#send(action, 'read', lane, attempt);
    assert(answer !== CONDITION_FAILED, 'a read has no condition');
    return answer;
  }

  async #send<T extends Attempted>(
    action: string,
    repeat: Repeat,
    lane: Lane,
    attempt: () => Promise<T>,
  ): Promise<T | ConditionFailed> {
    assert(
      repeat === 'read' || this.#parts.isReadOnly !== true,
      'a store opened by a reader was asked to write',
    );
    const { counters } = this.#parts;
    let mayHaveHappened = false;
    let unclear = 0;
    for (let tries = 1; ; tries++) {
      if (this.#stop.signal.aborted) {
        throw mayHaveHappened
          ? this.#unknown(action, 'closed before it was clear')
          : closed(this.description);
      }
      let error: unknown;
      await this.#lanes[lane].enter();
      try {
        counters.add('statements');
        const answer = await attempt();
        this.#countUnits(repeat, answer.ConsumedCapacity);
        return answer;
      } catch (thrown) {
        error = thrown;
      } finally {
        this.#lanes[lane].leave();
      }
      const failure = readDynamodbFailure(error);
      if (failure.kind === 'bug') throw error;
      if (failure.kind === 'condition') return CONDITION_FAILED;
      const isUnclear = failure.kind === 'unclear' || failure.kind === 'unreached';
      if (isUnclear) unclear++;
      if (failure.kind === 'unclear' && repeat !== 'read') mayHaveHappened = true;
      const mayRepeat =
        failure.kind === 'throttled'
          ? tries < THROTTLED_ATTEMPTS_MAX
          : isUnclear && unclear < UNCLEAR_ATTEMPTS_MAX && !(repeat === 'once' && mayHaveHappened);
      if (!mayRepeat) {
        const code = mayHaveHappened ? 'store-unknown' : 'store-unavailable';
        if (mayHaveHappened) counters.add('unknownOutcomes');
        throw dynamodbError(failure, code, `${this.description}: ${action}`, error);
      }
      if (failure.kind === 'throttled') counters.add('throttleRetries');
      await this.backOff(tries - 1);
    }
  }

  #unknown(action: string, why: string): StreamHouseError {
    this.#parts.counters.add('unknownOutcomes');
    return new StreamHouseError('store-unknown', `${this.description}: ${action}: ${why}`);
  }

  #countUnits(repeat: Repeat, consumed: ConsumedCapacity | ConsumedCapacity[] | undefined): void {
    if (consumed === undefined) return;
    const all = Array.isArray(consumed) ? consumed : [consumed];
    const units = all.reduce((sum, { CapacityUnits }) => sum + (CapacityUnits ?? 0), 0);
    this.#parts.counters.add(repeat === 'read' ? 'readUnits' : 'writeUnits', units);
  }
}

function closed(description: string): StreamHouseError {
  return new StreamHouseError('store-unavailable', `${description} is closed`);
}
