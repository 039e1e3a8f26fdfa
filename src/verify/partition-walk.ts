/**
 * Judges one partition's index pages against the fold of its shard's log, and says which segments a reader gets.
 * Owns: density, bounds, stamps, and the comparison of pages with the log where both are there. Does not own:
 * reading pages (shard-walk), objects (object-check). Takes one page at a time, in the order of bases. Main thread.
 *
 *   log start            checkpoint's end              end
 *      |---- pages only -------|---- the log has it too ---|~~~~ pages of a later stamp: newer than this reading
 *
 * A page may be newer than the reading of the log: what it holds beyond the end is left out. Below the checkpoint's
 * end only density, bounds and timestamps can be judged: the entries are gone. A closed page has PAGE_REFS_MAX
 * segments: no version so far merges segments of pages that its log has let go.
 */
import { applyMerge, type PackedRefs, splitOverlays } from '../../index/merge-overlay.ts';
import { decodePage, type Page } from '../../index/page-codec.ts';
import { foldAppend, PAGE_REFS_MAX, type PartitionFold } from '../../index/page-fold.ts';
import {
  blankRefs,
  REF_BASE,
  REF_INCARNATION,
  REF_LENGTH,
  REF_MAX_TIMESTAMP,
  REF_NUMBER,
  REF_NUMBERS,
  REF_POSITION,
} from '../../index/segment-ref.ts';
import type { IndexPage } from '../../storage/metadata/metadata-store.ts';
import type { Finding, FindingKind } from './finding.ts';
import {
  messageOf,
  type PartitionTail,
  TAIL_BASE,
  TAIL_COUNT,
  TAIL_EPOCH,
  TAIL_INCARNATION,
  TAIL_LENGTH,
  TAIL_MAX_TIMESTAMP,
  TAIL_NUMBER,
  TAIL_NUMBERS,
  TAIL_POSITION,
  TAIL_SEQ,
} from './shard-fold.ts';

/** Takes a segment that readers get. `epoch` 0 and `maxTimestampMs` NaN: not known. */
export type EmitSegment = (
  baseOffset: number,
  recordCount: number,
  incarnation: number,
  number: number,
  position: number,
  length: number,
  epoch: number,
  maxTimestampMs: number,
) => void;

export interface PartitionWalkParts {
  shard: number;
  /** The log was folded through this entry. */
  seq: number;
  fold: PartitionFold;
  tail: PartitionTail | undefined;
  find(finding: Finding): void;
  emit: EmitSegment;
  /** The shard's head as of now, at least `seq` if it is anywhere. */
  headSeq(seq: number): Promise<number>;
}

export class PartitionWalk {
  readonly #parts: PartitionWalkParts;
  /** The partition as the checkpoint has it. */
  readonly #before: PartitionFold;
  /** Bases of pages that begin in the part of the log that is still there. */
  readonly #tailBases = new Set<number>();
  /** The pages so far are dense up to here; null before the first and after one that cannot be read. */
  #covered: number | null = null;
  #pageCount = 0;
  #maxTimestampMs = Number.NEGATIVE_INFINITY;
  #sawOpenPage = false;
  #isBroken = false;
  /** Segments below this offset are emitted or gone. */
  #emitted: number;

  constructor(parts: PartitionWalkParts) {
    this.#parts = parts;
    const { fold, tail } = parts;
    this.#before = tail?.before ?? fold;
    this.#emitted = fold.logStart;
    if (tail) {
      const at = { ...tail.before };
      for (let i = 0; i < tail.slices.length; i += TAIL_NUMBERS) {
        if (foldAppend(at, tail.slices[i + TAIL_COUNT], 0)) this.#tailBases.add(at.pageBase);
      }
    }
  }

  #find(kind: FindingKind, offset: number, expected: string, found: string): void {
    const { shard, fold, find } = this.#parts;
    find({ kind, shard, topicId: fold.topicId, partition: fold.partition, offset, expected, found });
  }

  // -- Pages -------------------------------------------------------------------------------------------

  async page(stored: IndexPage): Promise<void> {
    const page = await this.#decoded(stored);
    this.#pageCount++;
    if (page === null) {
      this.#isBroken = true;
      this.#covered = null;
      return;
    }
    if (page.baseOffset >= this.#parts.fold.nextOffset && page.stamp > this.#parts.seq) return;
    this.#checkDensity(page);
    this.#checkBounds(page);
    this.#checkTimestamps(page);
    this.#checkAgainstLog(page);
    this.#covered = Math.max(page.nextOffset, this.#covered ?? 0);
    this.#emitPage(page);
  }

  async #decoded(stored: IndexPage): Promise<Page | null> {
    const { shard, fold, headSeq } = this.#parts;
    let page: Page;
    try {
      page = decodePage(stored.bytes);
    } catch (error) {
      this.#find('page-corrupt', stored.baseOffset, 'a page', messageOf(error));
      return null;
    }
    const says = `topic ${page.topicId} partition ${page.partition} base ${page.baseOffset} stamp ${page.stamp}`;
    const isOwn =
      page.topicId === fold.topicId &&
      page.partition === fold.partition &&
      page.baseOffset === stored.baseOffset;
    if (!isOwn || page.stamp !== stored.stamp || stored.shard !== shard) {
      const { topicId, partition, baseOffset, stamp } = stored;
      const row = `topic ${topicId} partition ${partition} base ${baseOffset} stamp ${stamp}`;
      const found = `${says}${stored.shard === shard ? '' : `, kept under shard ${stored.shard}`}`;
      this.#find('page-mismatch', baseOffset, `${row} of shard ${shard}`, found);
      if (!isOwn) return null;
    }
    const head = await headSeq(page.stamp);
    if (page.stamp > head) {
      this.#find('page-stamp', page.baseOffset, `a stamp up to the head ${head}`, `stamp ${page.stamp}`);
    }
    return page;
  }

  #checkDensity(page: Page): void {
    const { fold } = this.#parts;
    if (this.#covered === null) {
      const isFirst = this.#pageCount === 1;
      if (isFirst && page.baseOffset > fold.logStart && fold.logStart < this.#before.nextOffset) {
        this.#find('page-missing', fold.logStart, 'a page with the log start', `page ${page.baseOffset}`);
      }
    } else if (page.baseOffset > this.#covered) {
      this.#find('page-missing', this.#covered, `a page at ${this.#covered}`, `page ${page.baseOffset}`);
    } else if (page.baseOffset < this.#covered) {
      const found = `page [${page.baseOffset}, ${page.nextOffset})`;
      this.#find('page-overlap', page.baseOffset, `a page at ${this.#covered}`, found);
    }
  }

  #checkBounds(page: Page): void {
    const { pageBase, pageRefs } = this.#before;
    const { baseOffset, nextOffset, refCount } = page;
    const range = `[${baseOffset}, ${nextOffset})`;
    if (pageRefs > 0 && baseOffset === pageBase) {
      this.#sawOpenPage = true;
    } else if (pageRefs > 0 && baseOffset < pageBase) {
      if (nextOffset > pageBase) {
        this.#find('page-bounds', baseOffset, `an end at or below page base ${pageBase}`, range);
      } else if (refCount !== PAGE_REFS_MAX && !this.#hasMerges(page)) {
        const found = `${range} with ${refCount}`;
        this.#find('page-bounds', baseOffset, `${PAGE_REFS_MAX} segments in a closed page`, found);
      }
    } else if (baseOffset !== 0 && !this.#tailBases.has(baseOffset)) {
      const bases = [pageBase, ...this.#tailBases].filter((base) => base < nextOffset).slice(-3);
      this.#find('page-bounds', baseOffset, `page bases ${bases.join(', ')}`, range);
    }
  }

  #hasMerges(page: Page): boolean {
    const { tail } = this.#parts;
    if (!tail || tail.merges.length === 0) return false;
    return splitOverlays(tail.merges, page.baseOffset, page.nextOffset).inside.length > 0;
  }

  #checkTimestamps({ baseOffset, nextOffset, refs, refCount }: Page): void {
    const first = refs[REF_MAX_TIMESTAMP];
    const last = refs[(refCount - 1) * REF_NUMBERS + REF_MAX_TIMESTAMP];
    if (first < this.#maxTimestampMs) {
      this.#find('page-timestamp', baseOffset, `at least ${this.#maxTimestampMs}`, String(first));
    }
    const { nextOffset: checkpointed, maxTimestampMs } = this.#before;
    if (nextOffset === checkpointed && last !== maxTimestampMs) {
      this.#find('page-timestamp', baseOffset, `${maxTimestampMs} at ${nextOffset}`, String(last));
    }
    this.#maxTimestampMs = last;
  }

  /** The part of a page whose entries are still there must be what they say, through its stamp and no further. */
  #checkAgainstLog(page: Page): void {
    const { seq, fold, tail } = this.#parts;
    const { baseOffset, nextOffset, stamp, refs, refCount } = page;
    if (nextOffset > fold.nextOffset && stamp <= seq) {
      const expected = `an end at or below ${fold.nextOffset}, where the log ends at entry ${seq}`;
      this.#find('page-stamp', baseOffset, expected, `an end of ${nextOffset} under stamp ${stamp}`);
    }
    if (!tail || tail.merges.length > 0) return;
    const from = this.#before.nextOffset;
    for (let i = 0; i < refCount; i++) {
      const base = refs[i * REF_NUMBERS];
      const next = i + 1 < refCount ? refs[(i + 1) * REF_NUMBERS] : nextOffset;
      if (next <= from || base >= fold.nextOffset) continue;
      this.#checkRef(page, i, base, next);
    }
    const after = this.#tailAt(nextOffset);
    if (after < 0 || this.#tailBases.has(nextOffset)) return;
    if (tail.slices[after + TAIL_SEQ] <= stamp) {
      const found = `an end of ${nextOffset}`;
      const expected = `the segment of entry ${tail.slices[after + TAIL_SEQ]} under stamp ${stamp}`;
      this.#find('page-stamp', baseOffset, expected, found);
    }
  }

  #checkRef(page: Page, index: number, base: number, next: number): void {
    const { slices } = this.#parts.tail as PartitionTail;
    const { refs, stamp } = page;
    const at = index * REF_NUMBERS;
    const found = segmentText(base, next, refs, at);
    const slice = this.#tailAt(base);
    if (slice < 0) {
      this.#find('page-segment', base, 'a segment of the log', found);
      return;
    }
    const isSame =
      next - base === slices[slice + TAIL_COUNT] &&
      refs[at + REF_INCARNATION] === slices[slice + TAIL_INCARNATION] &&
      refs[at + REF_NUMBER] === slices[slice + TAIL_NUMBER] &&
      refs[at + REF_POSITION] === slices[slice + TAIL_POSITION] &&
      refs[at + REF_LENGTH] === slices[slice + TAIL_LENGTH];
    if (!isSame) {
      this.#find('page-segment', base, `the segment of entry ${slices[slice + TAIL_SEQ]}`, found);
    }
    if (slices[slice + TAIL_SEQ] > stamp) {
      const expected = `nothing above stamp ${stamp}`;
      this.#find('page-stamp', page.baseOffset, expected, `a segment of entry ${slices[slice + TAIL_SEQ]}`);
    }
  }

  /** The place in the packed tail of the slice that begins at `offset`; -1 if none does. */
  #tailAt(offset: number): number {
    const { tail } = this.#parts;
    if (!tail) return -1;
    let low = 0;
    let high = tail.slices.length / TAIL_NUMBERS;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (tail.slices[middle * TAIL_NUMBERS + TAIL_BASE] < offset) low = middle + 1;
      else high = middle;
    }
    const at = low * TAIL_NUMBERS;
    return at < tail.slices.length && tail.slices[at + TAIL_BASE] === offset ? at : -1;
  }

  // -- Segments ----------------------------------------------------------------------------------------

  /** Pages give what the log no longer has; with merges of the log in them, all that they hold. */
  #emitPage(page: Page): void {
    const { tail, fold, emit } = this.#parts;
    let packed: PackedRefs = page;
    let until = this.#before.nextOffset;
    if (tail && tail.merges.length > 0) {
      for (const { seq, refs } of splitOverlays(tail.merges, page.baseOffset, page.nextOffset).inside) {
        if (seq > page.stamp) packed = this.#merged(page.baseOffset, packed, refs);
      }
      until = fold.nextOffset;
    }
    for (let i = 0; i < packed.refCount; i++) {
      const at = i * REF_NUMBERS;
      const base = packed.refs[at + REF_BASE];
      const next = i + 1 < packed.refCount ? packed.refs[at + REF_NUMBERS] : packed.nextOffset;
      if (next <= this.#emitted || base >= until) continue;
      emitRef(emit, packed.refs, at, base, next);
      this.#emitted = next;
    }
  }

  #merged(offset: number, packed: PackedRefs, refs: Parameters<typeof applyMerge>[1]): PackedRefs {
    try {
      return applyMerge(packed, refs);
    } catch (error) {
      this.#find('page-segment', offset, 'segments that a merge covers exactly', messageOf(error));
      return packed;
    }
  }

  /** All pages were given. */
  finish(): void {
    const { fold } = this.#parts;
    const { nextOffset, pageBase, pageRefs } = this.#before;
    if (fold.logStart < nextOffset && !this.#isBroken) {
      const covered = this.#covered ?? fold.logStart;
      if (covered < nextOffset) {
        const found = this.#pageCount === 0 ? 'no page' : `pages up to ${covered}`;
        this.#find('page-missing', covered, `pages up to ${nextOffset}`, found);
      } else if (pageRefs > 0 && !this.#sawOpenPage) {
        this.#find('page-bounds', pageBase, `a page base at ${pageBase}`, 'none');
      }
    }
    this.#emitTail();
  }

  #emitTail(): void {
    const { tail, emit } = this.#parts;
    if (!tail) return;
    const { slices, merges } = tail;
    if (merges.length > 0) {
      this.#emitMergedTail(tail);
      return;
    }
    for (let i = 0; i < slices.length; i += TAIL_NUMBERS) {
      const base = slices[i + TAIL_BASE];
      const count = slices[i + TAIL_COUNT];
      if (base + count <= this.#emitted) continue;
      emit(
        base,
        count,
        slices[i + TAIL_INCARNATION],
        slices[i + TAIL_NUMBER],
        slices[i + TAIL_POSITION],
        slices[i + TAIL_LENGTH],
        slices[i + TAIL_EPOCH],
        slices[i + TAIL_MAX_TIMESTAMP],
      );
    }
  }

  #emitMergedTail({ slices, merges }: PartitionTail): void {
    const { emit, fold } = this.#parts;
    const from = this.#emitted;
    const first: number[] = [];
    for (let i = 0; i < slices.length; i += TAIL_NUMBERS) {
      if (slices[i + TAIL_BASE] >= from) first.push(i);
    }
    if (first.length === 0) return;
    const refs = blankRefs(first.length);
    first.forEach((i, index) => {
      const at = index * REF_NUMBERS;
      refs[at + REF_BASE] = slices[i + TAIL_BASE];
      refs[at + REF_INCARNATION] = slices[i + TAIL_INCARNATION];
      refs[at + REF_NUMBER] = slices[i + TAIL_NUMBER];
      refs[at + REF_POSITION] = slices[i + TAIL_POSITION];
      refs[at + REF_LENGTH] = slices[i + TAIL_LENGTH];
      refs[at + REF_MAX_TIMESTAMP] = slices[i + TAIL_MAX_TIMESTAMP];
    });
    let packed: PackedRefs = { refs, refCount: first.length, nextOffset: fold.nextOffset };
    const base = slices[first[0] + TAIL_BASE];
    for (const { refs: merge } of splitOverlays(merges, base, fold.nextOffset).inside) {
      packed = this.#merged(base, packed, merge);
    }
    for (let i = 0; i < packed.refCount; i++) {
      const at = i * REF_NUMBERS;
      const next = i + 1 < packed.refCount ? packed.refs[at + REF_NUMBERS] : packed.nextOffset;
      emitRef(emit, packed.refs, at, packed.refs[at + REF_BASE], next);
    }
  }
}

function emitRef(emit: EmitSegment, refs: readonly number[], at: number, base: number, next: number): void {
  emit(
    base,
    next - base,
    refs[at + REF_INCARNATION],
    refs[at + REF_NUMBER],
    refs[at + REF_POSITION],
    refs[at + REF_LENGTH],
    0,
    Number.NaN,
  );
}

function segmentText(base: number, next: number, refs: readonly number[], at: number): string {
  const object = `${refs[at + REF_INCARNATION]}-${refs[at + REF_NUMBER]}`;
  const end = refs[at + REF_POSITION] + refs[at + REF_LENGTH];
  return `[${base}, ${next}) at ${refs[at + REF_POSITION]} to ${end} of object ${object}`;
}
