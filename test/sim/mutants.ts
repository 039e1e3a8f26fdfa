/**
 * Stores and networks that break one rule each, to show that the simulation would notice. Owns: the list, and how
 * each rule is broken. Does not own: the simulation. They break the environment, never the code under test. The
 * simulation's only thread.
 */
import { partitionKey } from '../../src/core/ids.ts';
import type { MemoryMetadataState } from '../../storage/metadata/memory/memory-metadata-state.ts';
import { MemoryMetadataStore } from '../../storage/metadata/memory/memory-metadata-store.ts';
import type {
  AppendOutcome,
  HeadOutcome,
  IndexPage,
  LogEntry,
} from '../../storage/metadata/metadata-store.ts';

export const MUTANTS = [
  'append-ignores-epoch',
  'append-ignores-seq',
  'pages-ignore-stamps',
  'trim-ignores-pointer',
  'pointer-ignores-epoch',
  'lost-reply-is-done',
  'lease-ignores-rival',
  'put-forgets-object',
  'page-lost',
] as const;

export type Mutant = (typeof MUTANTS)[number];

/** The memory store over `state`, whole or with one rule broken. */
export function storeOver(state: MemoryMetadataState, mutant: Mutant | null): MemoryMetadataStore {
  const store = new MemoryMetadataStore(state);
  switch (mutant) {
    case 'append-ignores-epoch':
      wrapAppend(state, store, (entry) => ({ ...entry, epoch: state.shards[entry.shard].head.epoch }));
      break;
    case 'append-ignores-seq':
      wrapAppend(state, store, (entry) => ({ ...entry, seq: state.shards[entry.shard].head.headSeq + 1 }));
      break;
    case 'pages-ignore-stamps':
      wrapPages(state, store);
      break;
    case 'trim-ignores-pointer':
      store.trim = async (shard) => {
        const { head, entries } = state.shards[shard];
        head.trimmedThrough = head.headSeq;
        entries.splice(0);
      };
      break;
    case 'pointer-ignores-epoch':
      store.movePointer = async (shard, _epoch, pointer): Promise<HeadOutcome> => {
        const { head } = state.shards[shard];
        head.checkpoint = { ...pointer };
        return { kind: 'done', head: { ...head, checkpoint: { ...pointer } } };
      };
      break;
    case 'lease-ignores-rival': {
      const acquire = store.acquireLeases.bind(store);
      store.acquireLeases = (incarnation, seen) => {
        for (const { shard, holder, epoch } of seen)
          Object.assign(state.shards[shard].head, { holder, epoch });
        return acquire(incarnation, seen);
      };
      break;
    }
    case 'page-lost': {
      const put = store.putPages.bind(store);
      let count = 0;
      store.putPages = (pages) => (++count % 5 === 0 ? Promise.resolve() : put(pages));
      break;
    }
    default:
  }
  return store;
}

/** Executes an append as if the writer had asked for what `change` makes of it; the body stays what it was. */
function wrapAppend(
  state: MemoryMetadataState,
  store: MemoryMetadataStore,
  change: (entry: LogEntry) => LogEntry,
): void {
  const append = store.appendEntries.bind(store);
  store.appendEntries = async (entries, objects): Promise<AppendOutcome[]> => {
    const outcomes = await append(entries.map(change), objects);
    // As a store that has no such condition at all: the same row a second time is no news to it either.
    return outcomes.map((outcome, i) =>
      state.shards[entries[i].shard].head.headCommitId === entries[i].commitId ? { kind: 'done' } : outcome,
    );
  };
}

function wrapPages(state: MemoryMetadataState, store: MemoryMetadataStore): void {
  const put = store.putPages.bind(store);
  store.putPages = async (pages: readonly IndexPage[]) => {
    for (const page of pages) {
      const list = state.pages.get(partitionKey(page.topicId, page.partition));
      const at = list?.findIndex(({ baseOffset }) => baseOffset === page.baseOffset) ?? -1;
      if (list && at >= 0) list.splice(at, 1);
    }
    return put(pages);
  };
}
