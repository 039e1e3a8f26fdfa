/**
 * A page in memory, or the part of it that is: the refs of one partition between two page bases as one flat
 * array. Owns: search and change inside a block, its bytes, and the lists that blocks are chained in. Does not
 * own: which blocks there are (partition-index.ts) or when they come and go (segment-index.ts). A lane's thread.
 *
 *   base            from                    next
 *     | only stored  | refs in memory         |      from = base: the block is complete
 *
 *   CLEAN    complete, the store has it; in the lane's list of clean blocks, last used first; may be evicted
 *   DIRTY    changed since it was last encoded; in its shard's list of dirty blocks
 *   WRITING  encoded and on its way to the store; still in the dirty list; a change makes it DIRTY again
 *   DROPPED  no longer part of the index (evicted, retired by log start or deletion, shard closed)
 */
import { PAGE_REFS_MAX } from './page-fold.ts';
import { blankRefs, REF_MAX_TIMESTAMP, REF_NUMBERS, searchRefs } from './segment-ref.ts';

export const CLEAN = 0;
export const DIRTY = 1;
export const WRITING = 2;
export const DROPPED = 3;

/** What a block weighs besides its refs: the object, the array's head, a tree's entry (measured, rounded up). */
export const BLOCK_OVERHEAD_BYTES = 208;

/** What a block belongs to; PartitionIndex in truth. */
export interface BlockOwner {
  readonly topicId: number;
  readonly partition: number;
}

export class PageBlock<Owner extends BlockOwner = BlockOwner> {
  readonly owner: Owner;
  /** The page's base offset. */
  readonly base: number;
  /** The first offset whose ref is in memory (`next` if none is). */
  from: number;
  next: number;
  refCount = 0;
  refs: number[];
  state: typeof CLEAN | typeof DIRTY | typeof WRITING | typeof DROPPED = DROPPED;
  /** Refs below `storedNext` came from a page with this stamp (0: none did), so they fold the log through it. */
  stamp = 0;
  storedNext: number;
  /** The neighbours in the one list that the block is in. */
  newer: PageBlock<Owner> | null = null;
  older: PageBlock<Owner> | null = null;

  constructor(owner: Owner, base: number, from: number, next: number, refs: number[], refCount: number) {
    this.owner = owner;
    this.base = base;
    this.from = from;
    this.next = next;
    this.refs = refs;
    this.refCount = refCount;
    this.storedNext = base;
  }

  get bytes(): number {
    return BLOCK_OVERHEAD_BYTES + this.refs.length * 8;
  }

  get isComplete(): boolean {
    return this.from === this.base;
  }

  /** Appends a ref that begins at `next` (a page takes PAGE_REFS_MAX). Returns by how many bytes the block grew. */
  push(
    nextOffset: number,
    incarnation: number,
    number: number,
    position: number,
    length: number,
    maxTimestampSoFarMs: number,
  ): number {
    let refs = this.refs;
    let at = this.refCount * REF_NUMBERS;
    let grownBytes = 0;
    if (at === refs.length) {
      // By half, but a page that fills up has no room to spare.
      const grown = blankRefs(Math.min(this.refCount + (this.refCount >>> 1) + 1, PAGE_REFS_MAX));
      for (let i = 0; i < at; i++) grown[i] = refs[i];
      grownBytes = (grown.length - refs.length) * 8;
      this.refs = refs = grown;
    }
    refs[at++] = this.next;
    refs[at++] = incarnation;
    refs[at++] = number;
    refs[at++] = position;
    refs[at++] = length;
    refs[at] = maxTimestampSoFarMs;
    this.refCount++;
    this.next = nextOffset;
    return grownBytes;
  }

  /** The ref that contains `offset`; from <= offset < next. */
  indexOf(offset: number): number {
    return searchRefs(this.refs, this.refCount, offset);
  }

  /** The end of ref `index`. */
  nextOffsetOf(index: number): number {
    return index + 1 < this.refCount ? this.refs[(index + 1) * REF_NUMBERS] : this.next;
  }

  maxTimestampOf(index: number): number {
    return this.refs[index * REF_NUMBERS + REF_MAX_TIMESTAMP];
  }

  /** Puts other refs in place of all; returns by how many bytes the block grew (shrank if negative). */
  setRefs(refs: number[], refCount: number, from: number): number {
    const grownBytes = (refs.length - this.refs.length) * 8;
    this.refs = refs;
    this.refCount = refCount;
    this.from = from;
    return grownBytes;
  }
}

/** A chain of blocks, newest first. A block is in one chain at most; adding and removing take no memory. */
export class BlockList<Owner extends BlockOwner = BlockOwner> {
  #newest: PageBlock<Owner> | null = null;
  #oldest: PageBlock<Owner> | null = null;
  #count = 0;

  get count(): number {
    return this.#count;
  }

  get oldest(): PageBlock<Owner> | null {
    return this.#oldest;
  }

  /** Adds a block that is in no list. */
  add(block: PageBlock<Owner>): void {
    block.older = this.#newest;
    if (this.#newest !== null) this.#newest.newer = block;
    else this.#oldest = block;
    this.#newest = block;
    this.#count++;
  }

  /** Removes a block that is in this list. */
  remove(block: PageBlock<Owner>): void {
    if (block.newer !== null) block.newer.older = block.older;
    else this.#newest = block.older;
    if (block.older !== null) block.older.newer = block.newer;
    else this.#oldest = block.newer;
    block.newer = null;
    block.older = null;
    this.#count--;
  }

  /** Makes a block of this list its newest. */
  touch(block: PageBlock<Owner>): void {
    if (this.#newest === block) return;
    this.remove(block);
    this.add(block);
  }

  toArray(): PageBlock<Owner>[] {
    const all: PageBlock<Owner>[] = [];
    for (let block = this.#oldest; block !== null; block = block.newer) all.push(block);
    return all;
  }
}
