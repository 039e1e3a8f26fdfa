/**
 * The copy of a shard's newest entry from its head to an item of its own. Owns: what this instance knows to be
 * copied, and copying in the background. Does not own: when an append may go on (dynamodb-log asks). The thread that
 * hosts the store.
 *
 * Of each shard the newest entry that this instance knows to be committed:
 *
 *   note -> copying -- put confirmed ----> copied      the next append may move the head
 *              ^  '--- put failed -------> failed
 *              '--- the next append asks -----'        and fails too if that fails: it never goes on without
 *
 * Two instances may copy the same entry, late, after it was trimmed too: an entry's item is put if absent and always
 * with the same bytes, since only what is committed is copied and a seq is committed once. A copy that comes after
 * the trim lies below the head's mark, where no reader looks, until the next trim deletes it. An item that is there
 * already is looked at all the same: what another cluster left under the key must not pass for the copy.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import { entryItem, entryKey, entryOf, type StoredEntry } from './dynamodb-items.ts';
import type { DynamodbRequests } from './dynamodb-requests.ts';

interface Newest {
  seq: number;
  /** null once it is copied: its bytes are not needed any more. */
  entry: StoredEntry | null;
  /** Resolves with whether the attempt that goes on, if any, was confirmed; never rejects. */
  copying: Promise<boolean> | null;
}

export class EntryCopies {
  readonly #requests: DynamodbRequests;
  readonly #newest = new Map<number, Newest>();

  constructor(requests: DynamodbRequests) {
    this.#requests = requests;
  }

  /** Takes note of a committed entry and begins to copy it. */
  note(entry: StoredEntry): void {
    const known = this.#newest.get(entry.shard);
    if (known !== undefined && known.seq >= entry.seq) return;
    const newest: Newest = { seq: entry.seq, entry, copying: null };
    this.#newest.set(entry.shard, newest);
    // What it fails with is not lost: nothing waits for this attempt, and the next append makes another.
    newest.copying = this.#copy(newest, entry).then(
      () => true,
      () => false,
    );
  }

  /**
   * Resolves when entry (shard, seq) is confirmed in its own item; rejects when that cannot be had now. null: this
   * instance does not know the entry.
   */
  confirm(shard: number, seq: number): Promise<void> | null {
    const newest = this.#newest.get(shard);
    if (newest?.seq !== seq) return null;
    return this.#confirm(newest);
  }

  async #confirm(newest: Newest): Promise<void> {
    if ((await newest.copying) || newest.entry === null) return;
    await this.#copy(newest, newest.entry);
  }

  async #copy(newest: Newest, entry: StoredEntry): Promise<void> {
    if (!(await this.#requests.putIfAbsent(entryItem(entry)))) {
      const there = await this.#requests.get(entryKey(entry.shard, entry.seq));
      // null: trimmed meanwhile, and so needed no more.
      if (there !== null && entryOf(entry.shard, there).commitId !== entry.commitId) {
        const what = `another entry lies where entry ${entry.seq} of shard ${entry.shard} is to be copied`;
        throw new StreamHouseError('corrupt-store', what, { shard: entry.shard, seq: entry.seq });
      }
    }
    newest.entry = null;
  }

  /** What is known of these shards may not be so any more: rows were put over them. */
  forget(shards: readonly number[]): void {
    for (const shard of shards) this.#newest.delete(shard);
  }
}
