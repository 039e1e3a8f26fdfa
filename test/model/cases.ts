/**
 * What is searched: the protocol at small and at large bounds, and every mutant with the violation that it
 * must show, so that a rule without a mutant does not compile.
 * Owns: the bounds, and what each search must find. Does not own: the models, the search. Main thread.
 */
import { AppendModel } from './append-model.ts';
import {
  APPEND_PROTOCOL,
  type AppendBounds,
  type AppendRules,
  type AppendViolation,
} from './append-state.ts';
import { type Exploration, explore } from './explorer.ts';
import { FoldModel } from './fold-model.ts';
import { FOLD_PROTOCOL, type FoldBounds, type FoldRules, type FoldViolation } from './fold-state.ts';
import { ObjectModel } from './object-model.ts';
import {
  OBJECT_PROTOCOL,
  type ObjectBounds,
  type ObjectRules,
  type ObjectViolation,
} from './object-state.ts';

/**
 * A search of the correct protocol: it must end by itself and find nothing, having witnessed all of `must`.
 */
export interface ProtocolCase {
  readonly name: string;
  readonly must: readonly string[];
  search(statesMax: number): Exploration;
}

/** A search of the protocol without one rule: it must find a violation of this kind after this many steps. */
export interface MutantCase {
  readonly name: string;
  /** The counterexample of the table in README.md that this rule closes, if it has a number there. */
  readonly finding: string;
  readonly kind: string;
  readonly steps: number;
  search(statesMax: number): Exploration;
}

interface Mutant<Kind extends string, Bounds> {
  readonly kind: Kind;
  readonly steps: number;
  readonly finding?: string;
  readonly bounds?: Partial<Bounds>;
}

// ---- appending and taking over ----

const APPEND: AppendBounds = {
  head: 'sql',
  agents: 2,
  takeovers: 2,
  timeouts: 2,
  slices: 2,
  retries: 0,
  trims: 0,
  releases: 0,
};

const APPEND_MUST = [
  'a late append was fenced off',
  'a resend conflicted with itself and was done',
  'an append was declared failed for ever',
  'an append was executed after its sender gave up waiting',
  'an unknown append was found done under a higher epoch',
  'an unknown raise was found done',
];
const TRIM_MUST = [
  'a takeover began its reading again because of a trim',
  'a takeover loaded a trimmed log',
  'an append whose seq was trimmed stayed unknown',
];
const RETRY_MUST = ['a duplicate was answered with its first offset'];

const APPEND_MUTANTS: Record<keyof AppendRules, Mutant<AppendViolation, AppendBounds>> = {
  seqChecked: { kind: 'head-not-dense', steps: 7 },
  epochChecked: { kind: 'failure-not-final', steps: 8 },
  raisesBeforeReading: { kind: 'offset-given-twice', steps: 8 },
  readsBackUnknown: { kind: 'acknowledged-lost', steps: 6 },
  comparesCommitId: { kind: 'acknowledged-lost', steps: 11 },
  looksForCommitIdFirst: { kind: 'failure-not-final', steps: 8, finding: 'C7' },
  knowsOwnConflict: { kind: 'failure-not-final', steps: 7 },
  trimmedStaysUnknown: { kind: 'failure-not-final', steps: 14, bounds: { trims: 1, timeouts: 1 } },
  resendsIdenticalBytes: { kind: 'acknowledged-lost', steps: 7 },
  stopsAtForeignCommit: { kind: 'offset-given-twice', steps: 12 },
  duplicateWaitsForCommit: { kind: 'acknowledged-lost', steps: 6, bounds: { retries: 1 } },
  copyConfirmedFirst: { kind: 'entry-unreadable', steps: 6, bounds: { head: 'dynamodb' } },
  copiesOnlyCommitted: { kind: 'entry-changed', steps: 12, bounds: { head: 'dynamodb', timeouts: 0 } },
  takeoverCopies: { kind: 'entry-unreadable', steps: 8, bounds: { head: 'dynamodb' } },
};

function appendCase(name: string, must: readonly string[], bounds: Partial<AppendBounds>): ProtocolCase {
  const model = (): AppendModel => new AppendModel(APPEND_PROTOCOL, { ...APPEND, ...bounds });
  return { name: `append/${name}`, must, search: (statesMax) => explore(model(), statesMax) };
}

// ---- pages, checkpoints, pointer, trimming, merging, readers ----

const FOLD: FoldBounds = {
  agents: 2,
  partitions: 1,
  pageRefs: 2,
  takeovers: 2,
  slices: 2,
  merges: 0,
  pageOuts: 2,
  checkpoints: 2,
  trims: 1,
  chunkDeletes: 0,
  timeouts: 1,
  reads: 0,
  readerTailFirst: false,
};

const FOLD_MUST = [
  'a late page lost against a higher stamp',
  'a pointer of an old epoch was refused',
  'a pointer that would go back was refused',
  'a takeover started from a checkpoint after a trim',
  'a takeover started from the checkpoint of another holder',
];
const MERGE_MUST = [
  'a merge was folded into a page',
  'pages were confirmed after a merge had rewritten them',
];
const READER_MUST = ['a reader found its offset', 'a reader met a gap in the tail and reloaded'];

const FOLD_MUTANTS: Record<keyof FoldRules, Mutant<FoldViolation, FoldBounds>> = {
  pagesConfirmedFirst: { kind: 'entry-hidden', steps: 5, finding: 'C1' },
  boundsFromFold: {
    kind: 'entry-hidden',
    steps: 15,
    finding: 'C2',
    bounds: { slices: 3, pageOuts: 3, timeouts: 0 },
  },
  mergeRewritesInPlace: {
    kind: 'wrong-object',
    steps: 13,
    finding: 'C3',
    bounds: { pageRefs: 1, merges: 1, takeovers: 1, trims: 0 },
  },
  stampsCompared: { kind: 'entry-hidden', steps: 11 },
  pointerNeedsEpoch: { kind: 'startup-incomplete', steps: 11 },
  pointerForwardOnly: { kind: 'trimmed-above-pointer', steps: 15 },
  trimsThroughReadBack: { kind: 'trimmed-above-pointer', steps: 9 },
  foldsOnlyConfirmed: { kind: 'wrong-object', steps: 8 },
  readerWantsDenseTail: { kind: 'entry-hidden', steps: 12, bounds: { reads: 1, timeouts: 0 } },
  deletesChunksOnlyBelow: { kind: 'checkpoint-missing', steps: 14, bounds: { chunkDeletes: 1 } },
};

function foldCase(name: string, must: readonly string[], bounds: Partial<FoldBounds>): ProtocolCase {
  const model = (): FoldModel => new FoldModel(FOLD_PROTOCOL, { ...FOLD, ...bounds });
  return { name: `fold/${name}`, must, search: (statesMax) => explore(model(), statesMax) };
}

// ---- objects, references, collection ----

const OBJECT: ObjectBounds = {
  agents: 2,
  shards: 1,
  takeovers: 3,
  objects: 1,
  removals: 1,
  sweeps: 1,
  timeouts: 1,
};

const OBJECT_MUST = [
  'a late PUT landed after the deletion',
  'a late row landed after the deletion',
  'a reference was dropped',
  'a writer abandoned what it had sealed for a shard that it lost',
  'an orphan was deleted',
  'an unknown append was found done under a higher epoch',
  'an unreferenced object was deleted',
];

const OBJECT_MUTANTS: Record<keyof ObjectRules, Mutant<ObjectViolation, ObjectBounds>> = {
  storedBeforeEntry: { kind: 'object-missing', steps: 6 },
  rowBeforeEntry: { kind: 'reference-missing', steps: 6 },
  orphansOnlyWhenFenced: { kind: 'object-missing', steps: 8, finding: 'C4' },
  sweepsOnlyLowerEpochs: { kind: 'reference-missing', steps: 11, finding: 'C5' },
  abandonsSealedOnLoss: { kind: 'object-missing', steps: 11, finding: 'C6' },
  looksForCommitIdFirst: { kind: 'reference-missing', steps: 11, finding: 'C7' },
  keepsReferenceWhenUnknown: { kind: 'reference-missing', steps: 10, finding: 'C7' },
  dropsAfterCommit: { kind: 'reference-missing', steps: 10 },
};

function objectCase(name: string, must: readonly string[], bounds: Partial<ObjectBounds>): ProtocolCase {
  const model = (): ObjectModel => new ObjectModel(OBJECT_PROTOCOL, { ...OBJECT, ...bounds });
  return { name: `object/${name}`, must, search: (statesMax) => explore(model(), statesMax) };
}

// ---- all of them ----

/** Searched by every `npm test`: a few seconds in all. */
export const SMALL_CASES: readonly ProtocolCase[] = [
  appendCase('sql', [...APPEND_MUST, ...RETRY_MUST], { slices: 3, retries: 1 }),
  appendCase('sql-trim', [...APPEND_MUST, ...TRIM_MUST], { trims: 1, releases: 1, timeouts: 1 }),
  appendCase('dynamodb', APPEND_MUST, { head: 'dynamodb' }),
  appendCase('dynamodb-trim', [...APPEND_MUST, ...TRIM_MUST], {
    head: 'dynamodb',
    slices: 1,
    trims: 1,
    timeouts: 1,
  }),
  foldCase('pages', FOLD_MUST, { slices: 3 }),
  foldCase('two-partitions', FOLD_MUST, { partitions: 2 }),
  foldCase('merge', [...FOLD_MUST, ...MERGE_MUST], { merges: 1 }),
  foldCase('chunks', [...FOLD_MUST, 'old checkpoint chunks were deleted'], { chunkDeletes: 1 }),
  foldCase('reader', [...FOLD_MUST, ...READER_MUST], { reads: 1, timeouts: 0 }),
  foldCase('reader-tail-first', [...FOLD_MUST, ...READER_MUST], {
    reads: 1,
    timeouts: 0,
    readerTailFirst: true,
  }),
  objectCase('one-object', OBJECT_MUST, { sweeps: 2 }),
  objectCase('two-objects', OBJECT_MUST, { objects: 2, takeovers: 2 }),
  objectCase('two-shards', OBJECT_MUST, { shards: 2 }),
];

/** Searched by `run.ts --bounds large`: some minutes in all. */
export const LARGE_CASES: readonly ProtocolCase[] = [
  appendCase('sql-large', [...APPEND_MUST, ...RETRY_MUST], {
    takeovers: 3,
    timeouts: 3,
    slices: 3,
    retries: 1,
  }),
  appendCase('sql-3-agents', APPEND_MUST, { agents: 3, takeovers: 3, retries: 1 }),
  appendCase('sql-trim-large', [...APPEND_MUST, ...TRIM_MUST], { trims: 2, releases: 1 }),
  appendCase('dynamodb-large', [...APPEND_MUST, ...RETRY_MUST], {
    head: 'dynamodb',
    timeouts: 3,
    slices: 3,
    retries: 1,
  }),
  appendCase('dynamodb-3-agents', APPEND_MUST, { head: 'dynamodb', agents: 3, takeovers: 3 }),
  appendCase('dynamodb-trim-large', [...APPEND_MUST, ...TRIM_MUST], {
    head: 'dynamodb',
    takeovers: 3,
    trims: 1,
  }),
  foldCase('pages-large', FOLD_MUST, { slices: 4, pageOuts: 3 }),
  foldCase('pages-3-agents', FOLD_MUST, { agents: 3, takeovers: 3, slices: 3 }),
  foldCase('two-partitions-large', FOLD_MUST, { partitions: 2, slices: 3 }),
  foldCase('merge-large', [...FOLD_MUST, ...MERGE_MUST], {
    slices: 3,
    merges: 1,
    pageOuts: 3,
    chunkDeletes: 1,
  }),
  foldCase('two-merges', [...FOLD_MUST, ...MERGE_MUST], { merges: 2, pageOuts: 3, trims: 2 }),
  foldCase('reader-merge', [...FOLD_MUST, ...READER_MUST, ...MERGE_MUST], { merges: 1, reads: 2 }),
  foldCase('reader-merge-tail-first', [...FOLD_MUST, ...READER_MUST, ...MERGE_MUST], {
    merges: 1,
    reads: 2,
    readerTailFirst: true,
  }),
  objectCase('two-objects-large', OBJECT_MUST, { objects: 2 }),
  objectCase('two-objects-sweeps', OBJECT_MUST, { objects: 2, sweeps: 2, timeouts: 2 }),
  objectCase('two-shards-large', OBJECT_MUST, { shards: 2, takeovers: 4 }),
  objectCase('3-agents', OBJECT_MUST, { agents: 3, takeovers: 4, objects: 2 }),
];

/** Every rule of every model, switched off alone. */
export const MUTANT_CASES: readonly MutantCase[] = [
  ...mutants('append', APPEND_MUTANTS, (rule, bounds) => {
    return new AppendModel({ ...APPEND_PROTOCOL, [rule]: false }, { ...APPEND, ...bounds });
  }),
  ...mutants('fold', FOLD_MUTANTS, (rule, bounds) => {
    return new FoldModel({ ...FOLD_PROTOCOL, [rule]: false }, { ...FOLD, ...bounds });
  }),
  ...mutants('object', OBJECT_MUTANTS, (rule, bounds) => {
    return new ObjectModel({ ...OBJECT_PROTOCOL, [rule]: false }, { ...OBJECT, ...bounds });
  }),
];

function mutants<Rule extends string, Kind extends string, Bounds, State>(
  model: string,
  table: Record<Rule, Mutant<Kind, Bounds>>,
  create: (rule: Rule, bounds: Partial<Bounds>) => Parameters<typeof explore<State, Kind>>[0],
): MutantCase[] {
  return (Object.keys(table) as Rule[]).map((rule) => {
    const { kind, steps, finding = '', bounds = {} } = table[rule];
    const search = (statesMax: number): Exploration => explore(create(rule, bounds), statesMax);
    return { name: `${model}/${rule}`, finding, kind, steps, search };
  });
}
