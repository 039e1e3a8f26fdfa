/**
 * Reads pages from the store for one lane. Owns: one read a page at a time however many wait for it, one store
 * call for all that is asked in one turn, and refusing what may be older than what was written meanwhile. Does
 * not own: what a page must look like (page-join.ts). A lane's thread.
 */
import { StreamHouseError } from '../src/core/errors.ts';
import type { BlockLedger } from './block-ledger.ts';
import type { IndexCounters } from './index-counters.ts';
import { joinPage } from './page-join.ts';
import type { FindPages, StoredPage } from './page-store.ts';
import type { Block, PageLoad, PartitionIndex, ShardIndex } from './partition-index.ts';

/** Pages of one store call: some 4 KB each, so about half a megabyte. */
export const FIND_PAGES_MAX = 128;

/** Reads of pages that may be under way in one lane; beyond, a look-up is refused as overloaded. */
export const PAGE_LOADS_MAX = 8192;

export class PageLoader {
  readonly #findPages: FindPages;
  readonly #ledger: BlockLedger;
  readonly #counters: IndexCounters;
  #queue: PageLoad[] = [];
  #pending = 0;

  constructor(findPages: FindPages, ledger: BlockLedger, counters: IndexCounters) {
    this.#findPages = findPages;
    this.#ledger = ledger;
    this.#counters = counters;
  }

  /** Reads that are under way. */
  get pending(): number {
    return this.#pending;
  }

  /**
   * Resolves to the complete block that covers `offset`, or to null if the log start has passed it meanwhile.
   * With `mayJoinNearby` it waits for any read of the same partition, the nearest: where pages begin is not known
   * before they are read, and who asks for two offsets of a partition at once often means one page. The block
   * may then be another one, and the caller asks again without it.
   */
  load(owner: PartitionIndex, offset: number, mayJoinNearby: boolean): Promise<Block | null> {
    const running = nearest(owner.loads, offset);
    if (running !== null && (mayJoinNearby || running.offset === offset)) {
      this.#counters.add('joined', 1);
      return running.promise;
    }
    if (this.#pending >= PAGE_LOADS_MAX) {
      throw new StreamHouseError('overloaded', `${PAGE_LOADS_MAX} index pages are being read already`);
    }
    const load: PageLoad = { owner, offset, isStale: false, ...Promise.withResolvers<Block | null>() };
    owner.loads ??= [];
    owner.loads.push(load);
    this.#pending++;
    this.#enqueue(load);
    return load.promise;
  }

  /** A page [base, next) of a partition was written: reads of it that are under way must be done again. */
  pageWritten(owner: PartitionIndex, base: number, next: number): void {
    if (owner.loads === null) return;
    for (const load of owner.loads) if (load.offset >= base && load.offset < next) load.isStale = true;
  }

  /** Fails all reads of a partition that is no longer ours to serve. */
  fail(owner: PartitionIndex, error: StreamHouseError): void {
    for (const load of owner.loads ?? []) {
      this.#pending--;
      load.reject(error);
    }
    owner.loads = null;
  }

  #enqueue(load: PageLoad): void {
    this.#queue.push(load);
    if (this.#queue.length === 1) queueMicrotask(() => this.#flush());
  }

  #flush(): void {
    const queue = this.#queue;
    this.#queue = [];
    for (let at = 0; at < queue.length; at += FIND_PAGES_MAX) {
      void this.#read(queue.slice(at, at + FIND_PAGES_MAX));
    }
  }

  /** One store call; never rejects, its loads do. */
  async #read(loads: PageLoad[]): Promise<void> {
    const wanted = loads.filter(isWanted);
    if (wanted.length === 0) return;
    const requests = wanted.map(({ owner, offset }) => ({
      topicId: owner.topicId,
      partition: owner.partition,
      offset,
    }));
    let found: (StoredPage | null)[];
    try {
      found = await this.#findPages(requests);
      if (found.length !== wanted.length) {
        throw new StreamHouseError(
          'corrupt-store',
          `${wanted.length} index pages asked for, ${found.length} answers`,
        );
      }
    } catch (error) {
      for (const load of wanted) this.#settle(load, () => load.reject(error));
      return;
    }
    for (let i = 0; i < wanted.length; i++) this.#arrived(wanted[i], found[i]);
  }

  #arrived(load: PageLoad, stored: StoredPage | null): void {
    if (!isWanted(load)) return;
    const { owner, offset } = load;
    const present = offset < owner.nextOffset ? owner.blockAt(offset) : null;
    if (load.isStale) this.#counters.add('staleReads', 1);
    if (present?.isComplete) {
      this.#settle(load, () => load.resolve(present));
    } else if (load.isStale) {
      load.isStale = false;
      this.#enqueue(load);
    } else {
      try {
        const block = this.#join(owner, offset, stored);
        this.#settle(load, () => load.resolve(block));
      } catch (error) {
        // Below the log start pages come to an end; who waits will find out that the offset is gone.
        const isGone = offset < owner.logStart;
        this.#settle(load, () => (isGone ? load.resolve(null) : load.reject(error)));
      }
    }
  }

  #join(owner: PartitionIndex, offset: number, stored: StoredPage | null): Block {
    if (stored === null) {
      throw new StreamHouseError(
        'corrupt-page',
        `no index page of topic ${owner.topicId} partition ${owner.partition} covers offset ${offset}`,
      );
    }
    const block = joinPage(owner, offset, stored, this.#ledger);
    this.#counters.add('pagedIn', 1);
    return block;
  }

  #settle(load: PageLoad, settle: () => void): void {
    const { owner } = load;
    if (!isWanted(load)) return;
    owner.loads = owner.loads!.length === 1 ? null : owner.loads!.filter((other) => other !== load);
    this.#pending--;
    settle();
  }
}

/** Whether anybody waits for it: a shard that was closed or a topic that was deleted has failed it already. */
function isWanted(load: PageLoad): boolean {
  return load.owner.loads?.includes(load) ?? false;
}

function nearest(loads: readonly PageLoad[] | null, offset: number): PageLoad | null {
  let best: PageLoad | null = null;
  for (const load of loads ?? []) {
    if (best === null || Math.abs(load.offset - offset) < Math.abs(best.offset - offset)) best = load;
  }
  return best;
}

/** Fails the reads of all partitions of a shard. */
export function failShard(loader: PageLoader, state: ShardIndex, error: StreamHouseError): void {
  for (const owner of state.partitions.values()) loader.fail(owner, error);
}
