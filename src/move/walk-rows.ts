/**
 * All rows of a metadata store that belong to a cluster, through the contract alone, in bounded pieces. Owns: what is
 * copied and how much of it is in memory at a time. Used to copy and, on both stores, to verify the copy. Does not
 * own: what becomes of the rows. Main thread.
 *
 * Memory: SHARDS_IN_FLIGHT x (ENTRY_BYTES or one body, and one checkpoint), then two pieces of a list.
 */
import type {
  CheckpointPointer,
  IndexPage,
  LastIds,
  ListedObject,
  LogEntry,
  MetadataStore,
  ShardHead,
  Topic,
} from '../../storage/metadata/metadata-store.ts';
import { eachBounded } from './bounded.ts';

const SHARDS_IN_FLIGHT = 4;
const ENTRY_BYTES = 1024 * 1024;
const HEADS_PIECE = 256;
const ROWS_PIECE = 500;
/** A page of 256 segments takes some 6 KB. */
const PAGES_PIECE = 200;

export type MoveStage = 'heads' | 'topics' | 'objects' | 'shards' | 'pages';

/** Told of every piece, in the order of `walkRows`; the pieces of several shards come at the same time. */
export interface RowVisitor {
  heads(heads: ShardHead[]): Promise<void>;
  lastIds(lastIds: LastIds): Promise<void>;
  topics(topics: Topic[]): Promise<void>;
  deletedTopics(topics: Topic[]): Promise<void>;
  objects(objects: ListedObject[]): Promise<void>;
  checkpoint(shard: number, pointer: CheckpointPointer, bytes: Uint8Array): Promise<void>;
  entries(entries: LogEntry[]): Promise<void>;
  pages(pages: IndexPage[]): Promise<void>;
  /** `total` null: not known. */
  progress(stage: MoveStage, done: number, total: number | null): void;
}

/**
 * The holders are left out of the heads: agents do not move, so nobody holds anything in the other store. Of the log
 * everything behind trimmedThrough, of the checkpoints those that are pointed to. The store's own errors;
 * 'checkpoint-not-found' where a head points nowhere.
 */
export async function walkRows(store: MetadataStore, visitor: RowVisitor): Promise<void> {
  const heads = (await store.listLeases()).map((head) => ({ ...head, holder: 0 }));
  for (let i = 0; i < heads.length; i += HEADS_PIECE) await visitor.heads(heads.slice(i, i + HEADS_PIECE));
  visitor.progress('heads', heads.length, heads.length);
  await visitor.lastIds(await store.getLastIds());
  await walkTopics(store, visitor);
  await walkObjects(store, visitor);
  let done = 0;
  await eachBounded(heads, SHARDS_IN_FLIGHT, async (head) => {
    await walkShard(store, head, visitor);
    visitor.progress('shards', ++done, heads.length);
  });
  await walkPages(store, visitor);
}

/** Reads a piece while the one before is used. `read` gives null at the end. */
async function piecewise<T>(
  read: () => Promise<T[] | null>,
  use: (rows: T[]) => Promise<void>,
): Promise<void> {
  let rows = await read();
  while (rows) [, rows] = await Promise.all([use(rows), read()]);
}

/** All topics, and those that are deleted. */
export async function walkTopics(
  store: MetadataStore,
  visitor: Pick<RowVisitor, 'topics' | 'deletedTopics' | 'progress'>,
): Promise<void> {
  let done = 0;
  const count = (topics: Topic[]): void => visitor.progress('topics', (done += topics.length), null);
  let after: string | undefined;
  const live = async (): Promise<Topic[] | null> => {
    const topics = await store.listTopics({ after, limit: ROWS_PIECE });
    after = topics.at(-1)?.name;
    return topics.length === 0 ? null : topics;
  };
  await piecewise(live, async (topics) => {
    await visitor.topics(topics);
    count(topics);
  });
  let afterTopicId = 0;
  const deleted = async (): Promise<Topic[] | null> => {
    const topics = await store.listDeletedTopics({ afterTopicId, limit: ROWS_PIECE });
    afterTopicId = topics.at(-1)?.topicId ?? 0;
    return topics.length === 0 ? null : topics;
  };
  await piecewise(deleted, async (topics) => {
    await visitor.deletedTopics(topics);
    count(topics);
  });
}

async function walkObjects(store: MetadataStore, visitor: RowVisitor): Promise<void> {
  let done = 0;
  let after: ListedObject['object'] | undefined;
  const read = async (): Promise<ListedObject[] | null> => {
    const objects = await store.listObjects({ after, limit: ROWS_PIECE });
    after = objects.at(-1)?.object;
    return objects.length === 0 ? null : objects;
  };
  await piecewise(read, async (objects) => {
    await visitor.objects(objects);
    visitor.progress('objects', (done += objects.length), null);
  });
}

async function walkShard(store: MetadataStore, head: ShardHead, visitor: RowVisitor): Promise<void> {
  const { shard, checkpoint, trimmedThrough } = head;
  if (checkpoint) {
    await visitor.checkpoint(shard, checkpoint, await store.getCheckpoint(shard, checkpoint));
  }
  for (let after = trimmedThrough; ; ) {
    const entries = await store.readEntries(shard, after, ENTRY_BYTES);
    if (entries.length === 0) return;
    await visitor.entries(entries);
    after = entries[entries.length - 1].seq;
  }
}

async function walkPages(store: MetadataStore, visitor: RowVisitor): Promise<void> {
  let done = 0;
  let cursor: string | null = null;
  let isEnd = false;
  const read = async (): Promise<IndexPage[] | null> => {
    if (isEnd) return null;
    const scanned = await store.scanPages({ cursor, limit: PAGES_PIECE });
    cursor = scanned.cursor;
    isEnd = cursor === null;
    return scanned.pages;
  };
  await piecewise(read, async (pages) => {
    if (pages.length > 0) await visitor.pages(pages);
    visitor.progress('pages', (done += pages.length), null);
  });
}
