/**
 * The bytes of one lane's index. Owns: what the blocks in memory weigh, which are clean and in what order they
 * were used, evicting clean ones beyond the budget, and the call for paging out when dirty ones press. Does not
 * own: what blocks hold. Dirty blocks always stay: nobody else has what is in them. A lane's thread.
 */
import type { IndexCounters } from './index-counters.ts';
import { BlockList, CLEAN, DIRTY, DROPPED, WRITING } from './page-block.ts';
import type { Block, PartitionIndex } from './partition-index.ts';

export class BlockLedger {
  /** Bytes of all blocks, and of merges that wait for their page. */
  bytes = 0;
  /** Those of dirty blocks, and of merges that wait. */
  dirtyBytes = 0;
  readonly #counters: IndexCounters;
  readonly #onPressure: () => void;
  /** Clean blocks, the last used first. */
  readonly #clean = new BlockList<PartitionIndex>();
  #budgetBytes: number;
  #isPressed = false;

  constructor(budgetBytes: number, counters: IndexCounters, onPressure: () => void) {
    this.#budgetBytes = budgetBytes;
    this.#counters = counters;
    this.#onPressure = onPressure;
  }

  get budgetBytes(): number {
    return this.#budgetBytes;
  }

  set budgetBytes(bytes: number) {
    this.#budgetBytes = bytes;
    this.#settle();
  }

  get cleanBlocks(): number {
    return this.#clean.count;
  }

  /** A new block of which the store does not have all. */
  addDirty(block: Block): void {
    block.state = DIRTY;
    block.owner.shard.dirty.add(block);
    this.bytes += block.bytes;
    this.dirtyBytes += block.bytes;
    this.#settle();
  }

  /** A new block that is as the store has it. */
  addClean(block: Block): void {
    block.state = CLEAN;
    this.#clean.add(block);
    this.bytes += block.bytes;
    this.#settle();
  }

  /** A block was changed and has grown by so many bytes. */
  changed(block: Block, grownBytes: number): void {
    if (block.state === CLEAN) {
      this.#clean.remove(block);
      block.owner.shard.dirty.add(block);
      this.dirtyBytes += block.bytes - grownBytes;
      block.state = DIRTY;
      this.pend(grownBytes);
    } else {
      block.state = DIRTY;
      if (grownBytes !== 0) this.pend(grownBytes);
    }
  }

  /** So many bytes more (or fewer) cannot go before they are paged out. */
  pend(bytes: number): void {
    this.bytes += bytes;
    this.dirtyBytes += bytes;
    this.#settle();
  }

  /** A block that was being written is in the store as it is. */
  written(block: Block): void {
    if (block.state !== WRITING) return;
    block.owner.shard.dirty.remove(block);
    this.dirtyBytes -= block.bytes;
    block.state = CLEAN;
    this.#clean.add(block);
    this.#settle();
  }

  /** A block was used. */
  touch(block: Block): void {
    if (block.state === CLEAN) this.#clean.touch(block);
  }

  /** Takes a block out of its partition and of the account. */
  drop(block: Block): void {
    if (block.state === DROPPED) return;
    if (block.state === CLEAN) {
      this.#clean.remove(block);
    } else {
      block.owner.shard.dirty.remove(block);
      this.dirtyBytes -= block.bytes;
    }
    this.bytes -= block.bytes;
    block.state = DROPPED;
    block.owner.remove(block);
    this.#settle();
  }

  #settle(): void {
    let evicted = 0;
    for (let block = this.#clean.oldest; this.bytes > this.#budgetBytes && block !== null; ) {
      this.#clean.remove(block);
      this.bytes -= block.bytes;
      block.state = DROPPED;
      block.owner.remove(block);
      evicted++;
      block = this.#clean.oldest;
    }
    if (evicted > 0) this.#counters.add('evicted', evicted);
    const isPressed = this.dirtyBytes * 2 > this.#budgetBytes;
    if (isPressed && !this.#isPressed) {
      this.#isPressed = true;
      this.#onPressure();
    } else if (!isPressed) {
      this.#isPressed = false;
    }
  }
}
