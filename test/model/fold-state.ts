/**
 * What the fold model is made of: head with checkpoint pointer, log, pages, checkpoints, holders, one reader,
 * and the rules that a mutant switches off one at a time.
 * Owns: the state's shape and its copy. Does not own: any step (fold-model.ts). Plain data, no thread.
 */

/**
 * The protocol's rules; true everywhere is the protocol. Each names the sentence of DESIGN.md it stands for.
 */
export interface FoldRules {
  /**
   * Section 2: all pages that fold entries up to S are confirmed before checkpoint and pointer say S (C1).
   */
  readonly pagesConfirmedFirst: boolean;
  /** Section 2: where a page begins is decided by the fold, never by when someone pages out (C2). */
  readonly boundsFromFold: boolean;
  /** Section 2: merging rewrites pages in place; a page above the log start never disappears (C3). */
  readonly mergeRewritesInPlace: boolean;
  /** Section 2: a store never replaces a higher stamp by a lower one. */
  readonly stampsCompared: boolean;
  /** Section 2: only the current epoch moves the pointer. */
  readonly pointerNeedsEpoch: boolean;
  /** Section 2: the pointer moves forward only. */
  readonly pointerForwardOnly: boolean;
  /** Section 2: the trim goes up to the pointer as it was read back, not as it was sent. */
  readonly trimsThroughReadBack: boolean;
  /** Section 2: pages are folds of confirmed entries. */
  readonly foldsOnlyConfirmed: boolean;
  /** Section 2: a reader wants a tail that is dense from pointer+1; if it is not, it reloads. */
  readonly readerWantsDenseTail: boolean;
  /** Section 2: only checkpoint chunks below the pointer are deleted. */
  readonly deletesChunksOnlyBelow: boolean;
}

export const FOLD_PROTOCOL: FoldRules = {
  pagesConfirmedFirst: true,
  boundsFromFold: true,
  mergeRewritesInPlace: true,
  stampsCompared: true,
  pointerNeedsEpoch: true,
  pointerForwardOnly: true,
  trimsThroughReadBack: true,
  foldsOnlyConfirmed: true,
  readerWantsDenseTail: true,
  deletesChunksOnlyBelow: true,
};

/** How often each thing may happen in one run; together they make the search finite. */
export interface FoldBounds {
  readonly agents: number;
  readonly partitions: number;
  /** A page holds this many offsets: the fold's page bounds are its multiples. */
  readonly pageRefs: number;
  readonly takeovers: number;
  readonly slices: number;
  readonly merges: number;
  readonly pageOuts: number;
  readonly checkpoints: number;
  readonly trims: number;
  readonly chunkDeletes: number;
  readonly timeouts: number;
  /** How many times the reader may begin; 0 for no reader beside the one that every state is checked with. */
  readonly reads: number;
  /** The order in which the reader reads; both must do. */
  readonly readerTailFirst: boolean;
}

/** What the promise forbids. */
export type FoldViolation =
  /** A committed offset cannot be found through pointer, page and tail. */
  | 'entry-hidden'
  /** An offset resolves to an object that the log no longer names there, or never did. */
  | 'wrong-object'
  /** An entry above the pointer is gone: neither log nor checkpoint have it. */
  | 'trimmed-above-pointer'
  /** The head's pointer names a checkpoint that is not there. */
  | 'checkpoint-missing'
  /** A new holder finds checkpoint, page or log entry missing. */
  | 'startup-incomplete'
  /** A new holder would go on at another offset than the committed next one. */
  | 'offset-given-twice';

/** A committed decision: one slice of one record, or a merge of all offsets below `next`. */
export type FoldEntry =
  | { readonly kind: 'slice'; readonly partition: number; readonly offset: number }
  | { readonly kind: 'merged'; readonly partition: number; readonly next: number };

/**
 * Which object an offset resolves to, as the seq of the entry that named it: a slice's own, or a merge's. The
 * truth for an offset is the highest seq that names it.
 */
export type Ref = number;

/** A ref of an append whose outcome its writer does not know. */
export const UNCONFIRMED: Ref = -1;

export interface Page {
  readonly base: number;
  /** The page folds the log through this seq. */
  readonly stamp: number;
  /** Of the offsets from base on. */
  readonly refs: readonly Ref[];
}

/** Names a checkpoint: `through` 0 is none. */
export interface Pointer {
  readonly through: number;
  readonly writer: string;
}

/** Per partition: the next offset, and the offset up to which pages hold the index. */
export interface Snapshot {
  readonly through: number;
  readonly next: readonly number[];
  readonly paged: readonly number[];
}

export interface Checkpoint extends Snapshot {
  readonly writer: string;
}

/** Under way to the store: executed at any later moment, or never. `awaited` falls when nobody waits. */
export type FoldRequest =
  | PutPage
  | DeletePage
  | {
      readonly kind: 'move-pointer';
      readonly from: number;
      readonly awaited: boolean;
      readonly epoch: number;
      readonly pointer: Pointer;
    }
  | { readonly kind: 'trim'; readonly from: number; readonly awaited: boolean; readonly through: number }
  | {
      readonly kind: 'delete-chunks';
      readonly from: number;
      readonly awaited: boolean;
      readonly pointer: Pointer;
    };

export interface PutPage {
  readonly kind: 'put-page';
  readonly from: number;
  readonly awaited: boolean;
  readonly partition: number;
  readonly page: Page;
}

export interface DeletePage {
  readonly kind: 'delete-page';
  readonly from: number;
  readonly awaited: boolean;
  readonly partition: number;
  readonly base: number;
  readonly stamp: number;
}

/** What a holder waits for in the background, one at a time; it commits entries meanwhile. */
export interface Job {
  readonly kind: 'pages' | 'pointer';
  /** Replies still to come. */
  readonly waiting: number;
  /** The log was folded through here when the job began. */
  readonly through: number;
  readonly next: readonly number[];
  /** Only of the mutant that deletes the pages a merge covers: what follows once its pages are confirmed. */
  readonly deletes: readonly DeletePage[];
}

/** A holder's index of one partition. */
export interface PartitionIndex {
  next: number;
  /** Pages are confirmed up to this offset. */
  paged: number;
  /** The offset of `held[0]`: the open page's base, or 0 after a merge. */
  heldBase: number;
  held: Ref[];
  /** A merge was applied that no confirmed page holds yet. */
  isMerged: boolean;
}

/** A holder's phases: idle -> loading -> serving -> idle (it learns that a higher epoch exists). */
export interface Holder {
  phase: 'idle' | 'loading' | 'serving';
  hasActed: boolean;
  epoch: number;
  seq: number;
  /** The pointer as it was read after the raise, until the checkpoint is loaded. */
  pointer: Pointer | null;
  partitions: PartitionIndex[];
  /** The newest fold all of whose pages are confirmed. */
  snapshot: Snapshot | null;
  job: Job | null;
  /** Only of the mutant that trims through a pointer it sent and never read back. */
  pointerSent: number;
  /** Only of the mutant that folds it into pages: an append of its own is under way, its outcome unknown. */
  hasUnconfirmed: boolean;
}

/** A reader's phases: idle -> first -> second -> idle; a gap in the tail sends it back to idle to reload. */
export interface Reader {
  phase: 'idle' | 'first' | 'second';
  readsLeft: number;
  partition: number;
  offset: number;
  pointer: number;
  /** The truth when it read the head: an object of then is still kept for it. */
  truthAtStart: Ref;
  page: Page | null;
  /** The tail's entries by seq. */
  tail: number[];
}

export interface FoldState {
  head: { seq: number; epoch: number; pointer: Pointer; trimmedThrough: number };
  /** What only the checker knows: the entry committed at each seq. */
  history: FoldEntry[];
  /** By seq - 1: is the entry still in the log? */
  isInLog: boolean[];
  /** Per partition, sorted by base. */
  pages: Page[][];
  checkpoints: Checkpoint[];
  holders: Holder[];
  /** Sorted, for requests have no order. */
  requests: FoldRequest[];
  reader: Reader;
  left: {
    takeovers: number;
    slices: number;
    merges: number;
    pageOuts: number;
    checkpoints: number;
    trims: number;
    chunkDeletes: number;
    timeouts: number;
  };
  /** Set by a step that breaks the promise by itself. */
  broken: { kind: FoldViolation; text: string } | null;
}

export function idleHolder(hasActed: boolean): Holder {
  return {
    phase: 'idle',
    hasActed,
    epoch: 0,
    seq: 0,
    pointer: null,
    partitions: [],
    snapshot: null,
    job: null,
    pointerSent: 0,
    hasUnconfirmed: false,
  };
}

export function idleReader(readsLeft: number): Reader {
  return {
    phase: 'idle',
    readsLeft,
    partition: 0,
    offset: 0,
    pointer: 0,
    truthAtStart: 0,
    page: null,
    tail: [],
  };
}

export function initialFoldState(bounds: FoldBounds): FoldState {
  const { takeovers, slices, merges, pageOuts, checkpoints, trims, chunkDeletes, timeouts } = bounds;
  return {
    head: { seq: 0, epoch: 0, pointer: { through: 0, writer: '' }, trimmedThrough: 0 },
    history: [],
    isInLog: [],
    pages: Array.from({ length: bounds.partitions }, () => []),
    checkpoints: [],
    holders: Array.from({ length: bounds.agents }, () => idleHolder(false)),
    requests: [],
    reader: idleReader(bounds.reads),
    left: { takeovers, slices, merges, pageOuts, checkpoints, trims, chunkDeletes, timeouts },
    broken: null,
  };
}

/** A copy whose fields a step may change; entries, pages, jobs and requests are only ever replaced. */
export function copyFoldState(state: FoldState): FoldState {
  return {
    head: { ...state.head },
    history: state.history.slice(),
    isInLog: state.isInLog.slice(),
    pages: state.pages.map((pages) => pages.slice()),
    checkpoints: state.checkpoints.slice(),
    holders: state.holders.map((holder) => ({
      ...holder,
      partitions: holder.partitions.map((index) => ({ ...index, held: index.held.slice() })),
    })),
    requests: state.requests.slice(),
    reader: { ...state.reader },
    left: { ...state.left },
    broken: state.broken,
  };
}
