/**
 * A SegmentRef: where a run of a partition's records lies. Owns: its fields, the packed form that blocks and
 * pages use (a ref is REF_NUMBERS neighbours of one flat array: no object per ref), and the list in which a
 * look-up gives its result. Does not own: how refs are cut into pages (page-fold.ts) or kept (page-block.ts).
 * Pure; any thread, in practice the lanes.
 */
import type { ObjectId } from '../src/core/ids.ts';

/** Offsets [baseOffset, nextOffset) of a partition lie in `length` bytes at `position` of one object. */
export interface SegmentRef extends ObjectId {
  baseOffset: number;
  /** Refs of a partition are dense: the base of the ref that follows, or the partition's end. */
  nextOffset: number;
  position: number;
  /** Bytes, 1 or more. */
  length: number;
  /**
   * The greatest record timestamp of the partition's whole log up to and including this ref: never falls from
   * one ref to the next, so that time look-ups can bisect.
   */
  maxTimestampSoFarMs: number;
}

/** Numbers a packed ref takes: the fields below, by their place. nextOffset is derived. */
export const REF_NUMBERS = 6;
export const REF_BASE = 0;
export const REF_INCARNATION = 1;
export const REF_NUMBER = 2;
export const REF_POSITION = 3;
export const REF_LENGTH = 4;
export const REF_MAX_TIMESTAMP = 5;

/**
 * The pattern that packed arrays are cut from: an array of fractions, for an array that once held a fraction
 * keeps 8 unboxed bytes a number, whatever is put into it later.
 */
const BLANK: number[] = Array.from({ length: 256 * REF_NUMBERS }, () => 0.5);

/** Room for `refCount` packed refs, of exactly that capacity. */
export function blankRefs(refCount: number): number[] {
  let room = BLANK.slice(0, refCount * REF_NUMBERS);
  while (room.length < refCount * REF_NUMBERS) {
    room = room.concat(BLANK.slice(0, refCount * REF_NUMBERS - room.length));
  }
  return room;
}

/** Ref `index` of a packed array as an object. */
export function unpackRef(refs: readonly number[], index: number, nextOffset: number): SegmentRef {
  const at = index * REF_NUMBERS;
  return {
    baseOffset: refs[at + REF_BASE],
    nextOffset,
    incarnation: refs[at + REF_INCARNATION],
    number: refs[at + REF_NUMBER],
    position: refs[at + REF_POSITION],
    length: refs[at + REF_LENGTH],
    maxTimestampSoFarMs: refs[at + REF_MAX_TIMESTAMP],
  };
}

/** Writes a ref into place `index` of a packed array. */
export function packRef(refs: number[], index: number, ref: SegmentRef): void {
  const at = index * REF_NUMBERS;
  refs[at + REF_BASE] = ref.baseOffset;
  refs[at + REF_INCARNATION] = ref.incarnation;
  refs[at + REF_NUMBER] = ref.number;
  refs[at + REF_POSITION] = ref.position;
  refs[at + REF_LENGTH] = ref.length;
  refs[at + REF_MAX_TIMESTAMP] = ref.maxTimestampSoFarMs;
}

/**
 * The index of the ref with the greatest base <= offset among the first `refCount` (at least one, and the first
 * must not lie above the offset).
 */
export function searchRefs(refs: readonly number[], refCount: number, offset: number): number {
  let low = 0;
  let high = refCount;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (refs[middle * REF_NUMBERS] <= offset) low = middle;
    else high = middle;
  }
  return low;
}

/** The index of the first of `refCount` refs whose running maximum timestamp is >= timestampMs; refCount if none. */
export function searchTimestamps(refs: readonly number[], refCount: number, timestampMs: number): number {
  let low = 0;
  let high = refCount;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (refs[middle * REF_NUMBERS + REF_MAX_TIMESTAMP] >= timestampMs) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The refs a look-up found: contiguous, in log order, packed. Made to be used again and again. */
export class SegmentRefList {
  /** Packed refs; only the first `count` mean anything. */
  readonly numbers: number[] = [];
  count = 0;
  /** The end of the last ref. */
  nextOffset = 0;
  /** Sum of the refs' lengths. */
  bytes = 0;

  clear(): void {
    this.count = 0;
    this.nextOffset = 0;
    this.bytes = 0;
  }

  /** Takes over ref `index` of a packed array; it must follow the one before. */
  add(refs: readonly number[], index: number, nextOffset: number): void {
    let from = index * REF_NUMBERS;
    let to = this.count * REF_NUMBERS;
    for (let i = 0; i < REF_NUMBERS; i++) this.numbers[to++] = refs[from++];
    this.bytes += this.numbers[to - REF_NUMBERS + REF_LENGTH];
    this.count++;
    this.nextOffset = nextOffset;
  }

  /** Ref `index` as an object; 0 <= index < count. */
  get(index: number): SegmentRef {
    const next = index + 1 < this.count ? this.numbers[(index + 1) * REF_NUMBERS] : this.nextOffset;
    return unpackRef(this.numbers, index, next);
  }

  toArray(): SegmentRef[] {
    return Array.from({ length: this.count }, (_, i) => this.get(i));
  }
}
