/**
 * The shards' logs. Owns: appending, reading and trimming entries. Does not own: heads as such (dynamodb-heads), the
 * copy of the newest entry (dynamodb-entry-copies), objects' rows (dynamodb-objects). The thread that hosts the
 * store.
 *
 * An append of entry n, each step confirmed before the next:
 *   1. entry n - 1 has an item of its own, so that the head may forget it
 *   2. the objects' rows are there; the chunks of a body that does not fit the head are there
 *   3. ONE conditional update: the head stands at n - 1 under this epoch -> it moves to n and carries entry n
 *   4. in the background, nobody waits: entry n is copied to its own item (step 1 of the next append)
 * A crash anywhere leaves the log as it was or with entry n in the head, where every reader finds it.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import { checkEntries, checkInteger, checkObjectRows } from '../check-input.ts';
import type { AppendOutcome, LogEntry, ObjectRow, ShardHead } from '../metadata-store.ts';
import {
  type ChunkPlace,
  cutBody,
  HEAD_BODY_BYTES_MAX,
  putChunks,
  readBody,
  storedBytes,
} from './dynamodb-bodies.ts';
import { EntryCopies } from './dynamodb-entry-copies.ts';
import type { DynamodbHeads } from './dynamodb-heads.ts';
import {
  allEntryChunks,
  entryChunks,
  entryItem,
  entryKey,
  entryOf,
  headKey,
  ordered,
  type StoredEntry,
} from './dynamodb-items.ts';
import type { DynamodbObjects } from './dynamodb-objects.ts';
import { allDone, allWritten, worstOf } from './dynamodb-outcomes.ts';
import type { DynamodbRequests } from './dynamodb-requests.ts';
import { type Item, ItemReader, type Value } from './dynamodb-values.ts';

/** Step 3, for a body that the head carries and for one that lies in chunks. */
const ADVANCE_CONDITION = '#seq = :before AND #epoch = :epoch';
const ADVANCE = 'SET #seq = :seq, #commit = :commit, #entryEpoch = :epoch';
const ADVANCE_INLINE = `${ADVANCE}, #body = :body REMOVE #spill`;
const ADVANCE_SPILLED = `${ADVANCE}, #spill = :spill REMOVE #body`;

/** A guess of an entry's least bytes: bounds what a read for little asks for. */
const ENTRY_BYTES_LEAST = 256;
const QUERY_ITEMS_MAX = 1000;
/** How often a read begins anew because the log was trimmed under it. */
const READS_MAX = 5;

interface Prepared {
  entry: StoredEntry;
  chunks: Item[];
}

export class DynamodbLog {
  readonly copies: EntryCopies;
  readonly #requests: DynamodbRequests;
  readonly #heads: DynamodbHeads;
  readonly #objects: DynamodbObjects;
  readonly #bodyBytesMax: number;

  constructor(
    requests: DynamodbRequests,
    heads: DynamodbHeads,
    objects: DynamodbObjects,
    bodyBytesMax: number,
  ) {
    this.#requests = requests;
    this.#heads = heads;
    this.#objects = objects;
    this.#bodyBytesMax = bodyBytesMax;
    this.copies = new EntryCopies(requests);
  }

  // -- Append --------------------------------------------------------------------------------------------

  async append(entries: readonly LogEntry[], objects: readonly ObjectRow[]): Promise<AppendOutcome[]> {
    checkEntries(entries, this.#bodyBytesMax);
    checkObjectRows(objects);
    // Before anything is awaited: the caller's bytes may change after that.
    const prepared = entries.map(prepareEntry);
    const rows = structuredClone(objects) as ObjectRow[];
    await this.#heads.ensureExist(entries.map(({ shard }) => shard));
    const refused = await this.#confirmFormer(prepared);
    await this.#putBefore(prepared, refused, rows);
    const moved = prepared.map((one, i) => refused[i] ?? this.#advance(one.entry));
    return allWritten(
      moved.map(async (outcome) => outcome),
      ({ kind }) => kind === 'done',
      rows.length > 0,
    );
  }

  /** Step 1 for each entry; the conflicts that it found on the way. If it fails, nothing happened. */
  async #confirmFormer(prepared: readonly Prepared[]): Promise<(AppendOutcome | null)[]> {
    const confirmed = await Promise.allSettled(prepared.map(({ entry }) => this.#confirmBefore(entry)));
    const errors = confirmed.flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []));
    if (errors.length === 0) {
      return confirmed.map((one) => (one as PromiseFulfilledResult<AppendOutcome | null>).value);
    }
    const worst = worstOf(errors);
    // A copy of what is committed is nothing that happened, whether it is there or not.
    if (!(worst instanceof StreamHouseError) || worst.kind !== 'unknown') throw worst;
    throw new StreamHouseError(
      'store-unavailable',
      `the entry before: ${worst.message}`,
      worst.detail,
      worst,
    );
  }

  async #confirmBefore({ shard, seq, epoch }: StoredEntry): Promise<AppendOutcome | null> {
    if (seq === 1) return null;
    const known = this.copies.confirm(shard, seq - 1);
    if (known !== null) {
      await known;
      return null;
    }
    // What the head carries now is committed, whoever wrote it.
    const { head, entry } = await this.#heads.readWithEntry(shard);
    // A head never goes back and an epoch never falls: this append can have no success any more, or not yet.
    if (head.headSeq !== seq - 1 || head.epoch !== epoch) return { kind: 'conflict', head };
    if (entry === null || entry.seq <= head.trimmedThrough) return null;
    this.copies.note(entry);
    await this.copies.confirm(shard, seq - 1);
    return null;
  }

  /** Step 2. If it fails, no head moves in this call. */
  async #putBefore(
    prepared: readonly Prepared[],
    refused: readonly (AppendOutcome | null)[],
    rows: readonly ObjectRow[],
  ): Promise<void> {
    const chunks = prepared.filter((_, i) => refused[i] === null).flatMap((one) => one.chunks);
    const [chunksPut, rowsPut] = await Promise.allSettled([
      putChunks(this.#requests, chunks, 'commit'),
      this.#objects.insert(rows),
    ]);
    if (rowsPut.status === 'rejected') throw rowsPut.reason;
    if (chunksPut.status === 'fulfilled') return;
    const error: unknown = chunksPut.reason;
    if (!(error instanceof StreamHouseError)) throw error;
    // Chunks that nothing refers to are nothing that happened; rows are.
    const code = rows.length > 0 ? 'store-unknown' : 'store-unavailable';
    throw new StreamHouseError(code, error.message, error.detail, error);
  }

  /** Steps 3 and 4. */
  async #advance(entry: StoredEntry): Promise<AppendOutcome> {
    const { shard, seq, epoch, commitId, stored } = entry;
    const values: Record<string, Value> = { before: seq - 1, seq, epoch, commit: commitId };
    let set = ADVANCE_INLINE;
    if (stored.spill !== undefined) {
      values.spill = stored.spill;
      set = ADVANCE_SPILLED;
    } else {
      values.body = stored.body ?? new Uint8Array(0);
    }
    const change = { set, condition: ADVANCE_CONDITION, values };
    const item = await this.#requests.update(headKey(shard), change, 'once');
    if (item === null) return { kind: 'conflict', head: await this.#heads.read(shard) };
    this.copies.note(entry);
    return { kind: 'done' };
  }

  // -- Read ----------------------------------------------------------------------------------------------

  async read(shard: number, afterSeq: number, bytesMax: number): Promise<LogEntry[]> {
    for (let attempt = 1; ; attempt++) {
      const { head, entry } = await this.#heads.readWithEntry(shard);
      const entries: LogEntry[] = [];
      let bytes = 0;
      let damage: string | null = null;
      for await (const stored of this.#storedEntries(head, entry, afterSeq, bytesMax)) {
        const reader = () => new ItemReader(entryItem(stored));
        bytes += storedBytes(stored.stored, reader);
        if (entries.length > 0 && bytes > bytesMax) break;
        const expected = (entries.at(-1)?.seq ?? Math.max(afterSeq, head.trimmedThrough)) + 1;
        const body = await readBody(this.#requests, stored.stored, chunkPlace(stored), reader, 'commit');
        if (stored.seq !== expected && this.#heads.isWhole) damage = `entry ${expected} is missing`;
        else if ('damage' in body) damage = `entry ${stored.seq}: ${body.damage}`;
        if (damage !== null || 'damage' in body) break;
        const { seq, epoch, commitId } = stored;
        entries.push({ shard, seq, epoch, commitId, body });
      }
      const end = Math.max(afterSeq, head.trimmedThrough);
      if (damage === null && entries.length === 0 && head.headSeq > end && this.#heads.isWhole) {
        damage = `entry ${end + 1} is missing`;
      }
      if (damage === null) return entries;
      // Deleted under this read: whoever trims has moved the head's mark before.
      const { trimmedThrough } = await this.#heads.read(shard);
      if (trimmedThrough === head.trimmedThrough || attempt === READS_MAX) {
        throw new StreamHouseError('corrupt-store', `shard ${shard}: ${damage}`, { shard });
      }
    }
  }

  /** Committed entries after `afterSeq` and above the trim: their own items, then the one that the head carries. */
  async *#storedEntries(
    head: ShardHead,
    newest: StoredEntry | null,
    afterSeq: number,
    bytesMax: number,
  ): AsyncGenerator<StoredEntry, void> {
    const first = Math.max(afterSeq, head.trimmedThrough) + 1;
    const last = newest === null ? head.headSeq : head.headSeq - 1;
    if (first <= last) {
      const items = this.#requests.query({
        pk: entryKey(head.shard, 0).pk,
        range: {
          text: '#sk BETWEEN :first AND :last',
          values: { first: ordered(first), last: ordered(last) },
        },
        limit: Math.min(QUERY_ITEMS_MAX, 1 + Math.floor(bytesMax / ENTRY_BYTES_LEAST)),
        lane: 'commit',
      });
      for await (const some of items) for (const item of some) yield entryOf(head.shard, item);
    }
    if (newest !== null && newest.seq >= first) yield newest;
  }

  // -- Trim ----------------------------------------------------------------------------------------------

  async trim(shard: number, throughSeq: number): Promise<void> {
    checkInteger(throughSeq, 'throughSeq');
    const { checkpoint, trimmedThrough } = await this.#heads.read(shard);
    const pointerSeq = checkpoint?.seq ?? 0;
    if (throughSeq > pointerSeq) {
      throw new StreamHouseError(
        'conflict',
        `trim of shard ${shard} through ${throughSeq}, above its checkpoint at ${pointerSeq}`,
      );
    }
    if (throughSeq > trimmedThrough) {
      // Forward only, so that it may be sent twice. The pointer was above and never goes back.
      const change = { set: 'SET #trimmed = :to', condition: '#trimmed < :to', values: { to: throughSeq } };
      await this.#requests.update(headKey(shard), change, 'idempotent');
    }
    if (throughSeq === 0) return;
    // Also where the mark stood already: whoever set it may have ended before it deleted. Everything in the range
    // goes, known or not: chunks of appends that never came about, copies that came late.
    const below = { text: '#sk < :end', values: { end: ordered(throughSeq + 1) } };
    await allDone([
      this.#requests.removeRange(entryKey(shard, 0).pk, below),
      ...allEntryChunks(shard).map((pk) => this.#requests.removeRange(pk, below)),
    ]);
  }

  // -- Moving --------------------------------------------------------------------------------------------

  /** Entries as they are, over what is there, without a look at the head. */
  async import(entries: readonly LogEntry[]): Promise<void> {
    const prepared = entries.map(prepareEntry);
    await putChunks(
      this.#requests,
      prepared.flatMap(({ chunks }) => chunks),
      'bulk',
    );
    const items = prepared.map(({ entry }) => entryItem(entry));
    await allWritten(items.map((item) => this.#requests.put(item, 'idempotent', { lane: 'bulk' })));
  }
}

function prepareEntry({ shard, seq, epoch, commitId, body }: LogEntry): Prepared {
  const place = chunkPlace({ shard, seq });
  const { stored, chunks } = cutBody(Uint8Array.from(body), HEAD_BODY_BYTES_MAX, place, commitId);
  return { entry: { shard, seq, epoch, commitId, stored }, chunks };
}

function chunkPlace({ shard, seq }: { shard: number; seq: number }): ChunkPlace {
  return { pk: entryChunks(shard, seq), prefix: `${ordered(seq)}#` };
}
