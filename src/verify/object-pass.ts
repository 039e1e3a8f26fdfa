/**
 * Checks all objects that a batch of segments names. Owns: their order, rows in bulk, how many are read at a time.
 * Does not own: the judgement of one object (object-check). Main thread.
 */
import type { ListedObject, MetadataStore } from '../../storage/metadata/metadata-store.ts';
import type { ObjectId } from '../core/ids.ts';
import { type CheckedSegment, checkObject, type ObjectCheckParts } from './object-check.ts';
import type { ObjectSet } from './object-set.ts';
import type { SegmentBatch } from './segment-batch.ts';

/** Objects under way at a time: 8 of 16 MiB at most, or their windows. */
const OBJECTS_IN_FLIGHT_MAX = 8;
/** Rows asked for in one call. */
const ROWS_MAX = 128;

export interface ObjectPassParts extends ObjectCheckParts {
  store: MetadataStore;
  /** All objects that were named go here. */
  named: ObjectSet;
  /** Null: all objects; else only these. */
  only: ReadonlySet<string> | null;
  stop: AbortSignal;
  progress(done: number, total: number): void;
}

/** The name by which `only` knows an object. */
export function objectName({ incarnation, number }: ObjectId): string {
  return `${incarnation}-${number}`;
}

/** Checks what the batch holds and clears it. */
export async function checkObjects(parts: ObjectPassParts, batch: SegmentBatch): Promise<void> {
  const { order, starts } = batch.byObject();
  const { columns } = batch;
  const idAt = (group: number): ObjectId => {
    const first = order[starts[group]];
    return { incarnation: columns.incarnation[first], number: columns.number[first] };
  };
  let done = 0;
  for (let at = 0; at < starts.length; at += ROWS_MAX) {
    const groups: { id: ObjectId; segments: () => CheckedSegment[] }[] = [];
    for (let group = at; group < Math.min(at + ROWS_MAX, starts.length); group++) {
      const id = idAt(group);
      parts.named.add(id);
      if (parts.only !== null && !parts.only.has(objectName(id))) continue;
      const end = starts[group + 1] ?? order.length;
      groups.push({ id, segments: () => segmentsOf(batch, order.subarray(starts[group], end)) });
    }
    const rows = groups.length > 0 ? await parts.store.getObjects(groups.map(({ id }) => id)) : [];
    await inParallel(groups.length, async (i) => {
      parts.stop.throwIfAborted();
      await checkObject(parts, groups[i].id, rows[i] as ListedObject | null, groups[i].segments());
      parts.progress(at + ++done, starts.length);
    });
    done = 0;
  }
  batch.clear();
}

/** Calls `work` for 0 to count - 1, a bounded number at a time; the first error ends it. */
async function inParallel(count: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) {
      try {
        await work(next++);
      } catch (error) {
        next = count;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(count, OBJECTS_IN_FLIGHT_MAX) }, lane));
}

function segmentsOf(batch: SegmentBatch, order: Uint32Array): CheckedSegment[] {
  const { columns } = batch;
  return Array.from(order, (i) => ({
    shard: columns.shard[i],
    key: columns.key[i],
    baseOffset: columns.baseOffset[i],
    recordCount: columns.recordCount[i],
    position: columns.position[i],
    length: columns.length[i],
    epoch: columns.epoch[i],
    maxTimestampMs: columns.maxTimestampMs[i],
  }));
}
