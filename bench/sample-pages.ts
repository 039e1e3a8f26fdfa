/**
 * Made-up index pages for suites that look pages up in metadata stores: full pages, one after the other. Owns: making
 * them, the same every time. Pure.
 */
import { encodePage } from '../index/page-codec.ts';
import { blankRefs, packRef } from '../index/segment-ref.ts';
import type { IndexPage } from '../storage/metadata/metadata-store.ts';
import { TOPIC_ID, upTo, WALL_MS } from './sample-appends.ts';

export const REFS_PER_PAGE = 256;
const RECORDS_PER_REF = 10;
export const OFFSETS_PER_PAGE = REFS_PER_PAGE * RECORDS_PER_REF;
const INCARNATION = 3;

/** The first `count` pages of one partition. */
export function samplePages(partition: number, count: number, shardCount: number, stamp = 900): IndexPage[] {
  return upTo(count).map((place) => {
    const baseOffset = place * OFFSETS_PER_PAGE;
    const refs = blankRefs(REFS_PER_PAGE);
    for (let i = 0; i < REFS_PER_PAGE; i++) {
      const number = place * REFS_PER_PAGE + i;
      packRef(refs, i, {
        baseOffset: baseOffset + i * RECORDS_PER_REF,
        nextOffset: baseOffset + (i + 1) * RECORDS_PER_REF,
        incarnation: INCARNATION,
        number,
        position: 24 + ((partition * 7919 + number) % 100_000) * 80,
        length: 800,
        maxTimestampSoFarMs: WALL_MS + number * 100,
      });
    }
    const nextOffset = baseOffset + OFFSETS_PER_PAGE;
    const key = { topicId: TOPIC_ID, partition, baseOffset, stamp };
    const bytes = encodePage({ ...key, nextOffset, refCount: REFS_PER_PAGE, refs });
    return { ...key, shard: partition % shardCount, bytes };
  });
}
