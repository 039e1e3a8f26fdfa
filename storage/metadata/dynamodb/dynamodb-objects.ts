/**
 * Objects' rows and their references. Owns: rows, the list of those that nobody refers to. Does not own: when a row
 * must exist (dynamodb-log puts them before any head moves). The thread that hosts the store.
 *
 * A row's references only ever shrink and its bytes are packed the same way every time: equal bytes mean an unchanged
 * row, which is what the conditions compare.
 *
 * `unreferenced` names the rows without references, so that garbage is found without reading all rows. It is written
 * before a row loses its last reference and deleted after the row is gone: it may name a row that still has
 * references, or none that is there, never too few. Whoever lists looks at each row itself, and deletes the names of
 * rows that are gone; not those with `leading`, whose row may be about to come.
 */

import { StreamHouseError } from '../../../src/core/errors.ts';
import type { ObjectId } from '../../../src/core/ids.ts';
import { checkDrops, checkInteger } from '../check-input.ts';
import type { ListedObject, ObjectRow, ReferenceDrop } from '../metadata-store.ts';
import { encodeReferences } from '../object-references.ts';
import {
  incarnationKey,
  NO_REFERENCES,
  OBJECT_INCARNATIONS,
  objectItem,
  objectKey,
  objectOf,
  objectOfUnreferenced,
  objects,
  ordered,
  UNREFERENCED,
  unreferencedKey,
} from './dynamodb-items.ts';
import { allDone, allWritten } from './dynamodb-outcomes.ts';
import type { DynamodbRequests, Expression } from './dynamodb-requests.ts';
import { keyItem, keyOf, toItem } from './dynamodb-values.ts';

/** Rivals that drop references of one object at once: each round one of them gets through. */
const DROP_ATTEMPTS_MAX = 20;
/** Incarnations that this instance knows to be named; writers have one each, a copying tool has them all. */
const NAMED_MAX = 10_000;
/** `unreferenced` items looked at in one go. */
const CONFIRM_COUNT = 100;

export class DynamodbObjects {
  readonly #requests: DynamodbRequests;
  readonly #named = new Set<number>();

  constructor(requests: DynamodbRequests) {
    this.#requests = requests;
  }

  /** Puts rows that are not there, with what leads to them first. All are confirmed when this resolves. */
  async insert(rows: readonly ObjectRow[]): Promise<void> {
    await this.#lead(rows);
    const items = rows.map((row) => objectItem({ ...row, markedAtMs: null }));
    await allWritten(items.map((item) => this.#requests.putIfAbsent(item)));
  }

  /** Puts rows as they are. */
  async import(rows: readonly ListedObject[]): Promise<void> {
    await this.#lead(rows);
    await allWritten(rows.map((row) => this.#requests.put(objectItem(row), 'idempotent', { lane: 'bulk' })));
  }

  /** What a listing finds rows by: before the rows, or one would be there that nobody ever finds. */
  async #lead(rows: readonly ObjectRow[]): Promise<void> {
    const incarnations = new Set(rows.map(({ object }) => object.incarnation));
    const unnamed = [...incarnations].filter((incarnation) => !this.#named.has(incarnation));
    const bare = rows.filter(({ shards }) => shards.length === 0);
    const named = unnamed.map((incarnation) => keyItem(incarnationKey(incarnation)));
    const names = bare.map(({ object }) => toItem(unreferencedKey(object), { leading: 1 }));
    await allWritten([...named, ...names].map((item) => this.#requests.put(item, 'idempotent')));
    if (this.#named.size + unnamed.length > NAMED_MAX) this.#named.clear();
    for (const incarnation of unnamed) this.#named.add(incarnation);
  }

  async get(ids: readonly ObjectId[]): Promise<(ListedObject | null)[]> {
    if (ids.length === 0) this.#requests.checkOpen();
    const items = await this.#requests.getMany(ids.map(objectKey), { lane: 'look-up' });
    return items.map((item) => (item === null ? null : objectOf(item)));
  }

  async list(page: { after?: ObjectId; limit: number; unreferencedOnly?: boolean }): Promise<ListedObject[]> {
    this.#requests.checkOpen();
    if (page.limit <= 0) return [];
    return page.unreferencedOnly ? this.#listUnreferenced(page) : this.#listAll(page);
  }

  async #listAll({ after, limit }: { after?: ObjectId; limit: number }): Promise<ListedObject[]> {
    const found: ListedObject[] = [];
    const from = { text: '#sk >= :from', values: { from: ordered(after?.incarnation ?? 0) } };
    for await (const some of this.#requests.query({ pk: OBJECT_INCARNATIONS, range: from })) {
      for (const item of some) {
        const incarnation = Number(keyOf(item).sk);
        const isFirst = incarnation === after?.incarnation;
        const range = isFirst
          ? { text: '#sk > :after', values: { after: ordered(after.number) } }
          : undefined;
        const rows = await this.#requests.queryFirst(
          { pk: objects(incarnation), range },
          limit - found.length,
        );
        found.push(...rows.map(objectOf));
        if (found.length >= limit) return found;
      }
    }
    return found;
  }

  async #listUnreferenced({ after, limit }: { after?: ObjectId; limit: number }): Promise<ListedObject[]> {
    const found: ListedObject[] = [];
    const range = after && { text: '#sk > :after', values: { after: unreferencedKey(after).sk } };
    const query = { pk: UNREFERENCED, range, limit: Math.max(CONFIRM_COUNT, Math.min(limit, 1000)) };
    for await (const some of this.#requests.query(query)) {
      const ids = some.map((item) => objectOfUnreferenced(keyOf(item)));
      const rows = await this.get(ids);
      // The row went and whoever deleted it ended before this: numbers are not given again.
      const stale = ids.filter((_, i) => rows[i] === null);
      if (!this.#requests.isReadOnly) await this.#unlist(stale, { text: 'attribute_not_exists(#leading)' });
      found.push(...rows.filter((row) => row !== null && row.shards.length === 0).map((row) => row!));
      if (found.length >= limit) break;
    }
    return found.slice(0, limit);
  }

  async drop(drops: readonly ReferenceDrop[]): Promise<void> {
    checkDrops(drops);
    this.#requests.checkOpen();
    const byObject = new Map<string, ReferenceDrop[]>();
    for (const drop of drops) {
      const { sk } = unreferencedKey(drop.object);
      const same = byObject.get(sk);
      if (same === undefined) byObject.set(sk, [drop]);
      else same.push(drop);
    }
    const groups = [...byObject.values()];
    const rows = await this.get(groups.map(([{ object }]) => object));
    await allWritten(groups.map((group, i) => this.#dropFrom(rows[i], group)));
  }

  /** One row's drops in one conditional write, again on the row as it is when a rival was faster. */
  async #dropFrom(found: ListedObject | null, drops: readonly ReferenceDrop[]): Promise<void> {
    let row = found;
    for (let attempt = 1; row !== null; attempt++) {
      const left = row.shards.filter(
        ({ shard, epoch }) => !drops.some((drop) => isDropped(drop, shard, epoch)),
      );
      if (left.length === row.shards.length) return;
      if (left.length === 0) await this.#requests.put(keyItem(unreferencedKey(row.object)), 'idempotent');
      const change = {
        set: 'SET #refs = :left',
        condition: '#refs = :before',
        values: { left: encodeReferences(left), before: encodeReferences(row.shards) },
      };
      // A repeated attempt that finds its own first one done reads the row again and has nothing left to drop.
      if ((await this.#requests.update(objectKey(row.object), change, 'idempotent')) !== null) return;
      if (attempt === DROP_ATTEMPTS_MAX) {
        const { incarnation, number } = row.object;
        const what = `references of object ${incarnation}/${number}: rivals were faster ${attempt} times`;
        throw new StreamHouseError('store-unavailable', what);
      }
      await this.#requests.backOff(attempt - 1);
      [row] = await this.get([row.object]);
    }
  }

  async mark(ids: readonly ObjectId[], markedAtMs: number): Promise<void> {
    checkInteger(markedAtMs, 'markedAtMs');
    this.#requests.checkOpen();
    const change = {
      set: 'SET #marked = :marked',
      condition: '#refs = :none AND attribute_not_exists(#marked)',
      values: { marked: markedAtMs, none: NO_REFERENCES },
    };
    await allWritten(ids.map((id) => this.#requests.update(objectKey(id), change, 'idempotent')));
  }

  async forget(ids: readonly ObjectId[]): Promise<void> {
    this.#requests.checkOpen();
    const condition = {
      text: '#refs = :none AND attribute_exists(#marked)',
      values: { none: NO_REFERENCES },
    };
    const forget = async (id: ObjectId) => {
      await this.#requests.remove(objectKey(id), condition);
      // Whether this call removed it or an earlier one: if the row stays, its listing must too.
      const [row] = await this.get([id]);
      if (row === null) await this.#unlist([id]);
    };
    await allWritten(ids.map(forget));
  }

  async #unlist(ids: readonly ObjectId[], condition?: Expression): Promise<void> {
    await allDone(ids.map((id) => this.#requests.remove(unreferencedKey(id), condition)));
  }
}

function isDropped({ shard, belowEpoch }: ReferenceDrop, ofShard: number, epoch: number): boolean {
  return shard === ofShard && (belowEpoch === null || epoch < belowEpoch);
}
