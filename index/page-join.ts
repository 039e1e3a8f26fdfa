/**
 * Joins a page from the store to what is in memory of its partition. Owns: the checks that make a stored page
 * trustworthy (right partition, no hole, no overlap that the log could not have made), and the rules of joining
 * by offset. Does not own: reading the page (page-loader.ts). A lane's thread.
 *
 * A page may be newer than the log as applied here: an earlier holder wrote it out later than the checkpoint
 * that this one began with. Its refs below what is in memory are taken, the others come by the log. Merges that
 * the page's stamp includes are in it; those above the stamp wait in the partition's overlays and are applied.
 */
import { StreamHouseError } from '../src/core/errors.ts';
import type { BlockLedger } from './block-ledger.ts';
import {
  applyMerge,
  type MergeOverlay,
  OVERLAY_REF_BYTES,
  type PackedRefs,
  splitOverlays,
} from './merge-overlay.ts';
import { PageBlock } from './page-block.ts';
import { decodePage, type Page } from './page-codec.ts';
import type { StoredPage } from './page-store.ts';
import type { Block, PartitionIndex } from './partition-index.ts';
import { blankRefs, REF_NUMBERS, searchRefs } from './segment-ref.ts';

/**
 * The complete block of a stored page that is to cover `offset`. 'corrupt-page' for a page that is damaged, not
 * this partition's, or leaves a hole; 'not-leader' for one that is ahead of the log as applied here.
 */
export function joinPage(
  owner: PartitionIndex,
  offset: number,
  stored: StoredPage,
  ledger: BlockLedger,
): Block {
  const page = decodePage(stored.bytes);
  checkIdentity(owner, stored, page);
  const present = blockOfPage(owner, page);
  const until = present !== null ? present.from : untilOf(owner, page);
  checkCovers(owner, page, present !== null ? present.next : until, offset);
  if (present?.isComplete) return present;
  const { joined, isMerged, waiting } = mergeOverlays(owner, page, until);
  const kept = cutAt(owner, page, joined, until);
  if (waiting !== owner.overlays) setOverlays(owner, waiting, ledger);
  let block: Block;
  if (present !== null) {
    const refCount = kept + present.refCount;
    const refs = blankRefs(refCount);
    for (let i = 0; i < kept * REF_NUMBERS; i++) refs[i] = joined.refs[i];
    for (let i = 0, to = kept * REF_NUMBERS; to < refs.length; ) refs[to++] = present.refs[i++];
    block = present;
    ledger.changed(block, block.setRefs(refs, refCount, block.base));
  } else {
    const refs =
      kept * REF_NUMBERS === joined.refs.length ? joined.refs : joined.refs.slice(0, kept * REF_NUMBERS);
    block = new PageBlock(owner, page.baseOffset, page.baseOffset, until, refs, kept);
    if (page.baseOffset === owner.pageBase) owner.open = block;
    else owner.addClosed(block);
  }
  block.stamp = page.stamp;
  block.storedNext = until;
  if (present === null) {
    if (isMerged) ledger.addDirty(block);
    else ledger.addClean(block);
  }
  return block;
}

function corrupt(owner: PartitionIndex, what: string): StreamHouseError {
  const { topicId, partition } = owner;
  return new StreamHouseError('corrupt-page', `index of topic ${topicId} partition ${partition}: ${what}`, {
    topicId,
    partition,
  });
}

function checkIdentity(owner: PartitionIndex, stored: StoredPage, page: Page): void {
  if (page.topicId !== owner.topicId || page.partition !== owner.partition) {
    throw corrupt(owner, `a page of topic ${page.topicId} partition ${page.partition} lies in its place`);
  }
  if (page.baseOffset !== stored.baseOffset || page.stamp !== stored.stamp) {
    throw corrupt(
      owner,
      `page ${page.baseOffset} of stamp ${page.stamp} is kept as ${stored.baseOffset} of stamp ${stored.stamp}`,
    );
  }
}

/** The block in memory of the same page; the page may not lie across any other block's. */
function blockOfPage(owner: PartitionIndex, page: Page): Block | null {
  if (page.baseOffset === owner.pageBase) return owner.open;
  if (page.baseOffset > owner.pageBase || page.nextOffset > owner.pageBase) {
    throw corrupt(
      owner,
      `page [${page.baseOffset}, ${page.nextOffset}) where page ${owner.pageBase} is the last`,
    );
  }
  const below = owner.closedAtOrBelow(page.baseOffset);
  if (below !== null && below.base === page.baseOffset) {
    if (page.nextOffset <= below.next) return below;
    throw corrupt(owner, `page [${page.baseOffset}, ${page.nextOffset}) should end at ${below.next}`);
  }
  const above = owner.closedAbove(page.baseOffset);
  if ((below !== null && below.next > page.baseOffset) || (above !== null && above.base < page.nextOffset)) {
    throw corrupt(owner, `page [${page.baseOffset}, ${page.nextOffset}) lies across another page's bounds`);
  }
  return null;
}

/** How far a page reaches of which nothing is in memory: the open one to the end, a closed one as far as it does. */
function untilOf(owner: PartitionIndex, page: Page): number {
  return page.baseOffset === owner.pageBase ? owner.nextOffset : page.nextOffset;
}

/**
 * Applies the waiting merges that begin in [page's base, until) and are above its stamp, and says which still
 * wait when that is done.
 */
function mergeOverlays(
  owner: PartitionIndex,
  page: Page,
  until: number,
): { joined: PackedRefs; isMerged: boolean; waiting: MergeOverlay[] | null } {
  let joined: PackedRefs = page;
  let isMerged = false;
  if (owner.overlays === null) return { joined, isMerged, waiting: null };
  const { inside, outside } = splitOverlays(owner.overlays, page.baseOffset, until);
  for (const { seq, refs } of inside) {
    if (seq <= page.stamp) continue;
    joined = applyMerge(joined, refs);
    isMerged = true;
  }
  return { joined, isMerged, waiting: outside };
}

/** Sets a partition's waiting merges and accounts for them. */
export function setOverlays(
  owner: PartitionIndex,
  overlays: readonly MergeOverlay[] | null,
  ledger: BlockLedger,
): void {
  const before = countRefs(owner.overlays);
  owner.overlays = overlays !== null && overlays.length > 0 ? [...overlays] : null;
  if (owner.overlays !== null) owner.shard.overlaid.add(owner);
  else owner.shard.overlaid.delete(owner);
  ledger.pend((countRefs(owner.overlays) - before) * OVERLAY_REF_BYTES);
}

function countRefs(overlays: readonly MergeOverlay[] | null): number {
  let count = 0;
  if (overlays !== null) for (const overlay of overlays) count += overlay.refs.length;
  return count;
}

/** How many of the refs lie below `until`, where what is in memory begins: they must end there. */
function cutAt(owner: PartitionIndex, page: Page, joined: PackedRefs, until: number): number {
  if (joined.nextOffset < until) {
    throw corrupt(owner, `page ${page.baseOffset} ends at ${joined.nextOffset}, a hole up to ${until}`);
  }
  if (joined.nextOffset === until) return joined.refCount;
  const index = searchRefs(joined.refs, joined.refCount, until);
  if (joined.refs[index * REF_NUMBERS] === until) return index;
  if (page.stamp > owner.shard.seq) {
    throw new StreamHouseError('not-leader', 'the index has not caught up with its shard yet; try again');
  }
  throw corrupt(owner, `page ${page.baseOffset} has a ref across offset ${until}, where another begins`);
}

function checkCovers(owner: PartitionIndex, page: Page, next: number, offset: number): void {
  if (offset >= page.baseOffset && offset < next) return;
  throw corrupt(owner, `offset ${offset} lies in no page; the one below is [${page.baseOffset}, ${next})`);
}
