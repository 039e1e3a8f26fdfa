/**
 * Pages of the partitions' indexes, an item each. Owns: their stamps' fence, finding them by offset, chunks of those
 * that one item cannot hold. Does not own: what a page says (index/). The thread that hosts the store.
 *
 * A page that is replaced leaves its chunks behind until the next large page of that base, or until the partition's
 * pages are deleted through it: bounded garbage, for a page is a tenth of what an item holds.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { PartitionId } from '../../../src/core/ids.ts';
import { checkInteger, checkPages } from '../check-input.ts';
import type { IndexPage } from '../metadata-store.ts';
import { CHUNK_BYTES, type ChunkPlace, cutBody, putChunks, readBody } from './dynamodb-bodies.ts';
import {
  ordered,
  PAGE_PREFIX,
  pageChunks,
  pageItem,
  pageOf,
  pages,
  type StoredPage,
} from './dynamodb-items.ts';
import { allDone, allWritten } from './dynamodb-outcomes.ts';
import type { DynamodbRequests } from './dynamodb-requests.ts';
import { type Item, ItemReader } from './dynamodb-values.ts';

/** How often a page is read again because it was replaced while its chunks were read. */
const READS_MAX = 5;

export class DynamodbPages {
  readonly #requests: DynamodbRequests;
  readonly #bodyBytesMax: number;

  constructor(requests: DynamodbRequests, bodyBytesMax: number) {
    this.#requests = requests;
    this.#bodyBytesMax = bodyBytesMax;
  }

  async put(all: readonly IndexPage[]): Promise<void> {
    checkPages(all, this.#bodyBytesMax);
    this.#requests.checkOpen();
    await allWritten(all.map((page) => this.#put({ ...page, bytes: Uint8Array.from(page.bytes) })));
  }

  async #put({ bytes, ...page }: IndexPage): Promise<void> {
    const { stored, chunks } = cutBody(bytes, CHUNK_BYTES, chunkPlace(page), null);
    await putChunks(this.#requests, chunks, 'bulk');
    const condition = {
      text: 'attribute_not_exists(#stamp) OR #stamp < :stamp',
      values: { stamp: page.stamp },
    };
    const item = pageItem({ ...page, stored });
    await this.#requests.put(item, 'idempotent', { condition, lane: 'bulk' });
    if (chunks.length === 0) return;
    // What is below this stamp is no page's any more, whether this one was stored or met a higher one.
    const base = ordered(page.baseOffset);
    const values = { first: `${base}#`, last: `${base}#${ordered(page.stamp)}` };
    await this.#requests.removeRange(pageChunks(page), { text: '#sk BETWEEN :first AND :last', values });
  }

  async find(requests: readonly (PartitionId & { offset: number })[]): Promise<(IndexPage | null)[]> {
    this.#requests.checkOpen();
    return allDone(requests.map((request) => this.#find(request)));
  }

  async #find({ topicId, partition, offset }: PartitionId & { offset: number }): Promise<IndexPage | null> {
    checkInteger(offset, 'offset');
    const range = { text: '#sk <= :offset', values: { offset: ordered(offset) } };
    const query = { pk: pages({ topicId, partition }), range, descending: true };
    const read = async () => (await this.#requests.queryFirst(query, 1))[0] ?? null;
    return this.#whole(await read(), read);
  }

  async list(of: PartitionId & { fromBaseOffset: number; limit: number }): Promise<IndexPage[]> {
    this.#requests.checkOpen();
    const range = { text: '#sk >= :from', values: { from: ordered(of.fromBaseOffset) } };
    const items = await this.#requests.queryFirst({ pk: pages(of), range }, of.limit);
    return this.#allWhole(items);
  }

  async delete(of: PartitionId & { belowBaseOffset: number }): Promise<void> {
    checkInteger(of.belowBaseOffset, 'belowBaseOffset');
    const below = { text: '#sk < :below', values: { below: ordered(of.belowBaseOffset) } };
    // Pages first: a reader that misses a chunk then finds its page gone.
    await this.#requests.removeRange(pages(of), below);
    await this.#requests.removeRange(pageChunks(of), below);
  }

  /** All pages of the table; the cursor is the last item looked at, whatever it was. */
  async scan(page: {
    cursor: string | null;
    limit: number;
  }): Promise<{ pages: IndexPage[]; cursor: string | null }> {
    const start = page.cursor === null ? null : parseCursor(page.cursor);
    const filter = { text: 'begins_with(#pk, :pages)', values: { pages: PAGE_PREFIX } };
    const { items, next } = await this.#requests.scan(filter, start, page.limit);
    return {
      pages: await this.#allWhole(items),
      cursor: next === null ? null : JSON.stringify([next.pk, next.sk]),
    };
  }

  /** Pages of items that were read together; those that were deleted since are left out. */
  async #allWhole(items: readonly Item[]): Promise<IndexPage[]> {
    const whole = items.map((item) => {
      const { pk, sk } = { pk: new ItemReader(item).text('pk'), sk: new ItemReader(item).text('sk') };
      return this.#whole(item, () => this.#requests.get({ pk, sk }, { lane: 'look-up' }));
    });
    return (await allDone(whole)).filter((page) => page !== null);
  }

  /** The page of an item, its chunks put together; read anew while others replace it. */
  async #whole(found: Item | null, readAgain: () => Promise<Item | null>): Promise<IndexPage | null> {
    let item = found;
    for (let attempt = 1; ; attempt++) {
      if (item === null) return null;
      const page = pageOf(item);
      const reader = new ItemReader(item);
      const body = await readBody(this.#requests, page.stored, chunkPlace(page), () => reader);
      if (!('damage' in body)) {
        const { stored: _, ...rest } = page;
        return { ...rest, bytes: body };
      }
      const again = await readAgain();
      const now = again && pageOf(again);
      const isSame = now?.stamp === page.stamp && now.baseOffset === page.baseOffset;
      if (isSame || attempt === READS_MAX) {
        const { topicId, partition, baseOffset } = page;
        const what = `page ${topicId}/${partition}/${baseOffset}: ${body.damage}`;
        throw new StreamHouseError('corrupt-store', what);
      }
      item = again;
    }
  }
}

function chunkPlace(page: Omit<StoredPage, 'stored'>): ChunkPlace {
  return { pk: pageChunks(page), prefix: `${ordered(page.baseOffset)}#${ordered(page.stamp)}#` };
}

function parseCursor(cursor: string): { pk: string; sk: string } {
  const [pk, sk] = JSON.parse(cursor) as [string, string];
  return { pk, sk };
}
