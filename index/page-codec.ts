/**
 * Index page format v1: some hundred refs of one partition as the metadata store keeps them. Owns: the layout
 * below, encoder and decoder. Does not own: where pages begin (page-fold.ts) or when they are written
 * (page-out.ts). Bytes come from a store and are never asserted on: whatever is wrong with them is
 * `corrupt-page` with the reason. Frozen by test/golden/page-v1.hex. Pure; any thread.
 *
 *   magic          u32     'SHIP'
 *   version        u16     1
 *   flags          u16     0; a reader refuses flags it does not know
 *   topicId        varint
 *   partition      varint
 *   stamp          varint  the page folds its shard's log through this seq
 *   baseOffset     varint
 *   recordCount    varint  of all refs together: the page covers [baseOffset, baseOffset + recordCount)
 *   refCount       varint  1 to PAGE_REFS_MAX
 *   refs           refCount times, in order, each beginning where the one before ended
 *     recordCount  varint  1 or more
 *     incarnation  zigzag  minus that of the ref before (0 before the first), and so on:
 *     number       zigzag  minus that of the ref before
 *     position     zigzag  minus that of the ref before
 *     length       zigzag  minus that of the ref before
 *     maxTimestampSoFarMs  zigzag for the first, then varint: minus that of the ref before
 *   crc            u32     CRC-32C of all before it
 *
 * Integers are big endian, varints as in core/bytes. A usual ref takes 10 to 14 bytes.
 */
import { ByteReader, ByteWriter } from '../src/core/bytes.ts';
import { crc32c } from '../src/core/crc32c.ts';
import { StreamHouseError } from '../src/core/errors.ts';
import { PARTITIONS_PER_TOPIC_MAX, TOPIC_ID_MAX } from '../src/core/ids.ts';
import { PAGE_REFS_MAX } from './page-fold.ts';
import {
  blankRefs,
  REF_BASE,
  REF_INCARNATION,
  REF_LENGTH,
  REF_MAX_TIMESTAMP,
  REF_NUMBER,
  REF_NUMBERS,
  REF_POSITION,
  type SegmentRef,
  unpackRef,
} from './segment-ref.ts';

const MAGIC = 0x53484950;
const VERSION = 1;
const NO_FLAGS = 0;

/** Six varints of a byte each. */
const REF_BYTES_MIN = 6;
/** Six varints of 8 bytes at most. */
const REF_BYTES_MAX = 48;
const HEADER_BYTES = 8;
const CRC_BYTES = 4;

/** No page is longer. */
export const PAGE_BYTES_MAX = HEADER_BYTES + 6 * 8 + PAGE_REFS_MAX * REF_BYTES_MAX + CRC_BYTES;

/** Integers of a ref and a stamp stay below this, so that differences of any two fit a zigzag. */
const NUMBER_BOUND = 2 ** 52;

/** A page: its refs packed as in segment-ref.ts. */
export interface Page {
  topicId: number;
  partition: number;
  stamp: number;
  baseOffset: number;
  nextOffset: number;
  refCount: number;
  refs: number[];
}

/** Encodes a page of 1 to PAGE_REFS_MAX refs that begin at its base and end at its nextOffset; not checked here. */
export function encodePage(page: Readonly<Page>): Uint8Array<ArrayBuffer> {
  const { refs, refCount, nextOffset } = page;
  const writer = new ByteWriter(64 + refCount * 16);
  writer.u32(MAGIC).u16(VERSION).u16(NO_FLAGS);
  writer.varint(page.topicId).varint(page.partition).varint(page.stamp);
  writer
    .varint(page.baseOffset)
    .varint(nextOffset - page.baseOffset)
    .varint(refCount);
  let incarnation = 0;
  let number = 0;
  let position = 0;
  let length = 0;
  let timestampMs = 0;
  for (let i = 0, at = 0; i < refCount; i++, at += REF_NUMBERS) {
    const next = i + 1 < refCount ? refs[at + REF_NUMBERS] : nextOffset;
    writer.varint(next - refs[at + REF_BASE]);
    writer.zigzag(refs[at + REF_INCARNATION] - incarnation);
    writer.zigzag(refs[at + REF_NUMBER] - number);
    writer.zigzag(refs[at + REF_POSITION] - position);
    writer.zigzag(refs[at + REF_LENGTH] - length);
    if (i === 0) writer.zigzag(refs[at + REF_MAX_TIMESTAMP]);
    else writer.varint(refs[at + REF_MAX_TIMESTAMP] - timestampMs);
    incarnation = refs[at + REF_INCARNATION];
    number = refs[at + REF_NUMBER];
    position = refs[at + REF_POSITION];
    length = refs[at + REF_LENGTH];
    timestampMs = refs[at + REF_MAX_TIMESTAMP];
  }
  return writer.u32(crc32c(writer.view())).take();
}

/** A page's bytes back; 'corrupt-page' if they are anything but what encodePage made. */
export function decodePage(bytes: Uint8Array): Page {
  if (bytes.length < HEADER_BYTES + CRC_BYTES || bytes.length > PAGE_BYTES_MAX) {
    throw new StreamHouseError('corrupt-page', `an index page of ${bytes.length} bytes`);
  }
  const reader = new ByteReader(bytes, 'corrupt-page', 0, bytes.length - CRC_BYTES);
  if (reader.u32() !== MAGIC) reader.fail('not an index page');
  const version = reader.u16();
  if (version !== VERSION) reader.fail(`index page version ${version} is not known`);
  const flags = reader.u16();
  if (flags !== NO_FLAGS) reader.fail(`index page flags ${flags} are not known`);
  const crc = new ByteReader(bytes, 'corrupt-page', bytes.length - CRC_BYTES).u32();
  if (crc !== crc32c(bytes, 0, bytes.length - CRC_BYTES))
    reader.fail('the checksum of an index page is wrong');

  const topicId = within(reader, 'topicId', reader.varint(), 0, TOPIC_ID_MAX);
  const partition = within(reader, 'partition', reader.varint(), 0, PARTITIONS_PER_TOPIC_MAX - 1);
  const stamp = within(reader, 'stamp', reader.varint(), 0, NUMBER_BOUND);
  const baseOffset = reader.varint();
  const nextOffset = baseOffset + reader.varint();
  if (!Number.isSafeInteger(nextOffset)) reader.fail(`a page that ends at ${nextOffset}`);
  const refCount = within(reader, 'refCount', reader.count(REF_BYTES_MIN), 1, PAGE_REFS_MAX);
  const page = { topicId, partition, stamp, baseOffset, nextOffset, refCount, refs: blankRefs(refCount) };
  decodeRefs(reader, page);
  reader.end();
  return page;
}

function decodeRefs(reader: ByteReader, page: Page): void {
  const { refs, refCount } = page;
  let offset = page.baseOffset;
  let incarnation = 0;
  let number = 0;
  let position = 0;
  let length = 0;
  let timestampMs = 0;
  for (let i = 0, at = 0; i < refCount; i++, at += REF_NUMBERS) {
    refs[at + REF_BASE] = offset;
    offset += within(reader, 'recordCount', reader.varint(), 1, page.nextOffset - offset);
    incarnation = within(reader, 'incarnation', incarnation + reader.zigzag(), 0, NUMBER_BOUND);
    number = within(reader, 'number', number + reader.zigzag(), 0, NUMBER_BOUND);
    position = within(reader, 'position', position + reader.zigzag(), 0, NUMBER_BOUND);
    length = within(reader, 'length', length + reader.zigzag(), 1, NUMBER_BOUND);
    timestampMs += i === 0 ? reader.zigzag() : reader.varint();
    within(reader, 'timestamp', timestampMs, -NUMBER_BOUND, NUMBER_BOUND);
    refs[at + REF_INCARNATION] = incarnation;
    refs[at + REF_NUMBER] = number;
    refs[at + REF_POSITION] = position;
    refs[at + REF_LENGTH] = length;
    refs[at + REF_MAX_TIMESTAMP] = timestampMs;
  }
  if (offset !== page.nextOffset) reader.fail(`refs end at ${offset}, their page at ${page.nextOffset}`);
}

function within(reader: ByteReader, what: string, value: number, least: number, most: number): number {
  if (value < least || value > most) reader.fail(`${what} ${value} of an index page`);
  return value;
}

/** A page's refs as objects; for tools that print them. */
export function refsOfPage(page: Readonly<Page>): SegmentRef[] {
  const { refs, refCount, nextOffset } = page;
  return Array.from({ length: refCount }, (_, i) =>
    unpackRef(refs, i, i + 1 < refCount ? refs[(i + 1) * REF_NUMBERS] : nextOffset),
  );
}
