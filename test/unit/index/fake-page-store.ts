/**
 * A page store for the index's tests: keeps pages by the rules of the metadata store (stamps, greatest base <=
 * offset) and can be slow, fail before, fail after the fact, or hold calls back until told. Knows nothing of
 * what is in a page.
 */
import type { StoredPage } from '../../../index/page-store.ts';
import { type Clock, systemClock } from '../../../src/core/clock.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import { type PartitionId, partitionKey } from '../../../src/core/ids.ts';

/** Timers fire in the next turn of the event loop, whatever their delay. */
export const turnClock: Clock = {
  ...systemClock,
  after(_delayMs, fire) {
    const handle = setImmediate(fire);
    return { cancel: () => clearImmediate(handle) };
  },
};

export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export class FakePageStore {
  readonly pages = new Map<number, Map<number, StoredPage>>();
  /** Each call's number of requests or pages. */
  readonly finds: number[] = [];
  readonly puts: number[] = [];
  /** Called before a call takes effect; what it throws fails the call and nothing happens. */
  before: (call: 'find' | 'put') => void | Promise<void> = () => undefined;
  /** Called after a call took effect; what it throws is the caller's answer all the same. */
  after: (call: 'find' | 'put') => void | Promise<void> = () => undefined;

  readonly findPages = async (
    requests: readonly (PartitionId & { offset: number })[],
  ): Promise<(StoredPage | null)[]> => {
    this.finds.push(requests.length);
    await this.before('find');
    const found = requests.map((request) => structuredClone(this.#find(request)));
    await this.after('find');
    return found;
  };

  readonly putPages = async (pages: readonly StoredPage[]): Promise<void> => {
    this.puts.push(pages.length);
    const copies = structuredClone(pages);
    await this.before('put');
    for (const page of copies) this.put(page);
    await this.after('put');
  };

  put(page: StoredPage): void {
    const key = partitionKey(page.topicId, page.partition);
    let ofPartition = this.pages.get(key);
    if (ofPartition === undefined) this.pages.set(key, (ofPartition = new Map()));
    const there = ofPartition.get(page.baseOffset);
    if (there === undefined || there.stamp < page.stamp) ofPartition.set(page.baseOffset, page);
  }

  /** A partition's pages by base. */
  list(topicId: number, partition: number): StoredPage[] {
    const ofPartition = this.pages.get(partitionKey(topicId, partition));
    return [...(ofPartition?.values() ?? [])].sort((a, b) => a.baseOffset - b.baseOffset);
  }

  deletePages(topicId: number, partition: number, belowBaseOffset: number): void {
    const ofPartition = this.pages.get(partitionKey(topicId, partition));
    for (const base of ofPartition?.keys() ?? []) if (base < belowBaseOffset) ofPartition!.delete(base);
  }

  #find(request: PartitionId & { offset: number }): StoredPage | null {
    let best: StoredPage | null = null;
    for (const page of this.pages.get(partitionKey(request.topicId, request.partition))?.values() ?? []) {
      const isBetter = best === null || page.baseOffset > best.baseOffset;
      if (page.baseOffset <= request.offset && isBetter) best = page;
    }
    return best;
  }
}

export function unavailable(): StreamHouseError {
  return new StreamHouseError('store-unavailable', 'the fake store was told to fail');
}
