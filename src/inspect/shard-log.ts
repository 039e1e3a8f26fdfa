/**
 * Reads a shard as somebody who takes it over would: head, checkpoint, log after it. Owns: doing so beside a
 * broker that moves the pointer and trims meanwhile (the reading begins again then), and telling that from a log
 * that lacks something. Does not own: what the bytes mean. Reads only; main thread.
 */

import type { LogEntry, MetadataStore, ShardHead } from '../../storage/metadata/metadata-store.ts';
import { StreamHouseError } from '../core/errors.ts';

/** Bytes of entries asked for in one call. */
const READ_BYTES_MAX = 4 * 1024 * 1024;

/** A reading takes some ms, a pointer moves every some seconds: that it does so this often is no coincidence. */
export const READINGS_MAX = 20;

/** Who takes in what is read, in this order: `begin`, then the entries, then perhaps a gap. */
export interface ShardLogReader {
  /** All that was read before is void: it begins. `checkpoint` is 'missing' if the pointer points to none. */
  begin(head: ShardHead, checkpoint: Uint8Array | null | 'missing'): void;
  /** The next entry after the pointer, dense, up to the head. False ends the reading. */
  entry(row: LogEntry): boolean;
  /** Entry `seq` is not in the log, though it lies between pointer and head; `next` is the one there instead. */
  gap(seq: number, next: number | null): void;
}

/** Errors of the store; 'store-unavailable' when the shard did not hold still through READINGS_MAX readings. */
export async function readShardLog(
  store: MetadataStore,
  shard: number,
  reader: ShardLogReader,
): Promise<void> {
  for (let reading = 1; reading <= READINGS_MAX; reading++) {
    const head = await store.readHead(shard);
    if (await readOnce(store, head, reader)) return;
  }
  throw new StreamHouseError(
    'store-unavailable',
    `shard ${shard}: its checkpoint moved on during each of ${READINGS_MAX} readings; try again`,
  );
}

/** False: the pointer moved on, so that what was missing has its reason. */
async function readOnce(store: MetadataStore, head: ShardHead, reader: ShardLogReader): Promise<boolean> {
  const { shard, checkpoint: pointer } = head;
  let checkpoint: Uint8Array | null | 'missing' = null;
  if (pointer !== null) {
    try {
      checkpoint = await store.getCheckpoint(shard, pointer);
    } catch (error) {
      if (!(error instanceof StreamHouseError) || error.code !== 'checkpoint-not-found') throw error;
      if (await hasMoved(store, head)) return false;
      checkpoint = 'missing';
    }
  }
  reader.begin(head, checkpoint);
  for (let seq = pointer?.seq ?? 0; seq < head.headSeq; ) {
    const rows = await store.readEntries(shard, seq, READ_BYTES_MAX);
    if (rows.length === 0 || rows[0].seq !== seq + 1) {
      if (await hasMoved(store, head)) return false;
      reader.gap(seq + 1, rows[0]?.seq ?? null);
      return true;
    }
    for (const row of rows) {
      if (row.seq > head.headSeq) break;
      if (row.seq !== seq + 1) {
        reader.gap(seq + 1, row.seq);
        return true;
      }
      if (!reader.entry(row)) return true;
      seq = row.seq;
    }
  }
  return true;
}

async function hasMoved(store: MetadataStore, head: ShardHead): Promise<boolean> {
  const now = await store.readHead(head.shard);
  return now.checkpoint?.seq !== head.checkpoint?.seq || now.checkpoint?.writer !== head.checkpoint?.writer;
}
