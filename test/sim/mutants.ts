/**
 * Stores, networks and code that break one rule each, to show that the simulation would notice. Owns: the list, and
 * how each rule is broken. Does not own: the simulation. Most break the environment; those of a release that the
 * environment cannot break are in the code itself. The simulation's only thread.
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

import { BatchBuilder } from '../../workers/batch-builder.ts';
import { LaneDesk } from '../../workers/lane-desk.ts';
import { ObjectPipeline } from '../../workers/object-pipeline.ts';
import { ShardHolder } from '../../workers/shard-holder.ts';

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
  'take-ignores-lease',
  'release-lowers-epoch',
  'release-before-settled',
  'release-drops-gathered',
  'gather-refuses-silently',
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
    case 'take-ignores-lease': {
      const acquire = store.acquireLeases.bind(store);
      store.acquireLeases = (incarnation, seen) =>
        acquire(
          incarnation,
          seen.map(({ shard }) => ({ ...state.shards[shard].head })),
        );
      break;
    }
    case 'release-lowers-epoch': {
      const release = store.releaseLeases.bind(store);
      store.releaseLeases = async (incarnation, leases) => {
        const outcomes = await release(incarnation, leases);
        for (const { kind, head } of outcomes) if (kind === 'done') state.shards[head.shard].head.epoch--;
        return outcomes;
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

/** The mutant of the run that is under way; one at a time in a thread. */
let broken: Mutant | null = null;
let patched = false;

/** Breaks the code under test where the mutant is one of those; mends it for any other, and for none. */
export function breakCode(mutant: Mutant | null): void {
  broken = mutant;
  if (patched) return;
  patched = true;
  // It gives the lease back while appends are on their way.
  const { hasUnsettled } = ObjectPipeline.prototype;
  ObjectPipeline.prototype.hasUnsettled = function (shard) {
    return broken !== 'release-before-settled' && hasUnsettled.call(this, shard);
  };
  const idle = Object.getOwnPropertyDescriptor(ShardHolder.prototype, 'idle') as { get(): boolean };
  Object.defineProperty(ShardHolder.prototype, 'idle', {
    get(this: ShardHolder) {
      return broken === 'release-before-settled' || idle.get.call(this);
    },
  });
  // It forgets what was gathered.
  const { hasShardOf } = BatchBuilder.prototype;
  BatchBuilder.prototype.hasShardOf = function (shards) {
    if (broken !== 'release-drops-gathered') return hasShardOf.call(this, shards);
    for (const shard of shards) this.removeShard(shard, () => undefined);
    return false;
  };
  // What comes meanwhile is refused, and nobody is told.
  const { gather } = ObjectPipeline.prototype;
  ObjectPipeline.prototype.gather = function (lane, message) {
    gathering = true;
    gather.call(this, lane, message);
    gathering = false;
  };
  const { answer } = LaneDesk.prototype;
  LaneDesk.prototype.answer = function (lane, slot, generation, code, baseOffset) {
    if (broken === 'gather-refuses-silently' && gathering && code === 'not-leader') return;
    answer.call(this, lane, slot, generation, code, baseOffset);
  };
}

let gathering = false;
