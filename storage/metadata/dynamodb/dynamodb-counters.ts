/**
 * The counters from which ids are given. Owns: their items. The thread that hosts the store.
 *
 * An update whose reply is lost is sent again: what the first gave, if it came, is given to nobody.
 */
import type { LastIds } from '../metadata-store.ts';
import { type CounterKind, counterKey } from './dynamodb-items.ts';
import { allWritten } from './dynamodb-outcomes.ts';
import type { DynamodbRequests } from './dynamodb-requests.ts';
import { ItemReader } from './dynamodb-values.ts';

const KINDS: readonly CounterKind[] = ['topic', 'incarnation', 'producer'];

export class DynamodbCounters {
  readonly #requests: DynamodbRequests;

  constructor(requests: DynamodbRequests) {
    this.#requests = requests;
  }

  /** The first of `count` fresh ids, from 1. */
  async next(kind: CounterKind, count: number): Promise<number> {
    const change = { set: 'ADD #last :count', values: { count } };
    const item = await this.#requests.update(counterKey(kind), change, 'idempotent', { returnsItem: true });
    return new ItemReader(item ?? {}).number('last') - count + 1;
  }

  async last(): Promise<LastIds> {
    const items = await this.#requests.getMany(KINDS.map(counterKey));
    const [topic, incarnation, producer] = items.map((item) =>
      item ? new ItemReader(item).number('last') : 0,
    );
    return { topic, incarnation, producer };
  }

  /** Raises counters to these, never lowers one. */
  async raise(lastIds: LastIds): Promise<void> {
    const raise = (kind: CounterKind) => {
      const condition = 'attribute_not_exists(#last) OR #last < :to';
      const change = { set: 'SET #last = :to', condition, values: { to: lastIds[kind] } };
      return this.#requests.update(counterKey(kind), change, 'idempotent');
    };
    await allWritten(KINDS.map(raise));
  }
}
