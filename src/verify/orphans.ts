/**
 * Notes what lies in the bucket and in the objects' rows without anybody naming it. Owns: that comparison. Nothing
 * of it is wrong: uploads are under way or were given up, appends were refused. Bounded memory: pages of rows and
 * keys, and bitmaps of ids. Main thread.
 */
import type { ListedObject, MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { BATCH_KEY_PREFIX, batchObjectKey, parseObjectKey } from '../../storage/objects/object-key.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import type { Notes } from './finding.ts';
import { ObjectSet } from './object-set.ts';

/** Keys and rows of one call. */
const PAGE_MAX = 1000;

export interface OrphanParts {
  store: MetadataStore;
  objects: ObjectStore;
  /** Objects that a segment names. */
  named: ObjectSet;
  notes: Notes;
  stop: AbortSignal;
  progress(done: number): void;
}

/** The counts of rows and of objects that were listed. */
export async function noteOrphans(parts: OrphanParts): Promise<{ rows: number; keys: number }> {
  const { objects, store, notes, stop } = parts;
  const present = new ObjectSet();
  let keys = 0;
  for (let after: string | undefined; ; ) {
    stop.throwIfAborted();
    const listed = await objects.list(BATCH_KEY_PREFIX, { after, limit: PAGE_MAX });
    const ids = listed.map(({ key }) => parseObjectKey(key));
    const known = ids.filter((id) => id !== null);
    const rows = known.length > 0 ? await store.getObjects(known) : [];
    for (let i = 0, k = 0; i < listed.length; i++) {
      const id = ids[i];
      if (id === null) {
        notes.add('object-not-ours', listed[i].key, listed[i].bytes);
        continue;
      }
      present.add(id);
      if (rows[k++] === null) notes.add('object-without-row', listed[i].key, listed[i].bytes);
    }
    keys += listed.length;
    parts.progress(keys);
    if (listed.length < PAGE_MAX) break;
    after = listed[listed.length - 1].key;
  }
  return { keys, rows: await noteRows(parts, present) };
}

async function noteRows(parts: OrphanParts, present: ObjectSet): Promise<number> {
  const { store, stop } = parts;
  let count = 0;
  for (let after: { incarnation: number; number: number } | undefined; ; ) {
    stop.throwIfAborted();
    const rows = await store.listObjects({ after, limit: PAGE_MAX });
    const absent: ListedObject[] = [];
    for (const row of rows) if (!noteRow(parts, row, present)) absent.push(row);
    for (const row of absent) await noteAbsent(parts, row);
    count += rows.length;
    if (rows.length < PAGE_MAX) return count;
    after = rows[rows.length - 1].object;
  }
}

/** False: the bucket's listing did not have its object. */
function noteRow({ named, notes }: OrphanParts, row: ListedObject, present: ObjectSet): boolean {
  const key = batchObjectKey(row.object.incarnation, row.object.number);
  if (named.has(row.object)) return true;
  if (!present.has(row.object)) return false;
  if (row.shards.length === 0) notes.add('row-unreferenced', key, row.bytes);
  else notes.add('row-unused', key, row.bytes);
  return true;
}

/** The row may be younger than the listing. */
async function noteAbsent({ objects, notes }: OrphanParts, row: ListedObject): Promise<void> {
  const key = batchObjectKey(row.object.incarnation, row.object.number);
  const [listed] = await objects.list(key, { limit: 1 });
  if (listed?.key !== key) notes.add('row-without-object', key, row.bytes);
}
