/**
 * What the append model is made of: the head, the log's items, the requests under way, the agents, and the
 * rules that a mutant switches off one at a time.
 * Owns: the state's shape, its copy, its order. Does not own: any step (append-model.ts). Plain data, no
 * thread.
 */

/**
 * The protocol's rules; true everywhere is the protocol. Each names the sentence of DESIGN.md it stands for.
 */
export interface AppendRules {
  /** Section 2: an append succeeds only if the head's seq is the one before the entry's. */
  readonly seqChecked: boolean;
  /** Section 2: ... and only if the head's epoch is the writer's. */
  readonly epochChecked: boolean;
  /** Section 2: a takeover raises the epoch first and reads the state afterwards. */
  readonly raisesBeforeReading: boolean;
  /** Section 2: a lost reply means reading back, never taking it for done. */
  readonly readsBackUnknown: boolean;
  /** Section 2: done means that the entry at our seq bears our commitId, not that there is some entry. */
  readonly comparesCommitId: boolean;
  /** Section 2: the commitId is looked for before a higher epoch is taken for "never" (C7). */
  readonly looksForCommitIdFirst: boolean;
  /** Section 2: a resend that conflicts with our own commitId is a success. */
  readonly knowsOwnConflict: boolean;
  /** Section 2: an outcome whose seq is already trimmed stays unknown. */
  readonly trimmedStaysUnknown: boolean;
  /** Section 2: only the byte-identical entry is sent again under the same commitId. */
  readonly resendsIdenticalBytes: boolean;
  /** Section 2: after a foreign commitId the writer stops; it never adopts what it finds. */
  readonly stopsAtForeignCommit: boolean;
  /** Section 2: a duplicate answers its first offset only once that entry is committed. */
  readonly duplicateWaitsForCommit: boolean;
  /** Section 2, DynamoDB: the head moves on only after the copy of its body was confirmed. */
  readonly copyConfirmedFirst: boolean;
  /** Section 2, DynamoDB: only a body known to be committed is copied to its own item. */
  readonly copiesOnlyCommitted: boolean;
  /** Section 2, DynamoDB: a takeover copies the head's body too. */
  readonly takeoverCopies: boolean;
}

export const APPEND_PROTOCOL: AppendRules = {
  seqChecked: true,
  epochChecked: true,
  raisesBeforeReading: true,
  readsBackUnknown: true,
  comparesCommitId: true,
  looksForCommitIdFirst: true,
  knowsOwnConflict: true,
  trimmedStaysUnknown: true,
  resendsIdenticalBytes: true,
  stopsAtForeignCommit: true,
  duplicateWaitsForCommit: true,
  copyConfirmedFirst: true,
  copiesOnlyCommitted: true,
  takeoverCopies: true,
};

/** How often each thing may happen in one run; together they make the search finite. */
export interface AppendBounds {
  /** SQL inserts the entry with the head; DynamoDB's head item carries the newest body. */
  readonly head: 'sql' | 'dynamodb';
  readonly agents: number;
  readonly takeovers: number;
  readonly timeouts: number;
  /** Slices that clients send, each once unless retried. */
  readonly slices: number;
  readonly retries: number;
  readonly trims: number;
  readonly releases: number;
}

/** What the promise forbids. */
export type AppendViolation =
  /** The head's seq did not go from seq-1 to seq. */
  | 'head-not-dense'
  /** A committed entry above the trim cannot be read. */
  | 'entry-unreadable'
  /** A committed entry reads as something else than what was committed. */
  | 'entry-changed'
  /** An entry's base is not the next offset: an offset was given twice, or one was left out. */
  | 'offset-given-twice'
  /** A reader would see one slice under two offsets. */
  | 'slice-committed-twice'
  /** An acknowledged slice is not in the log at the offset its client was told. */
  | 'acknowledged-lost'
  /** A client was told "failed for ever", and yet the entry is, or later becomes, committed. */
  | 'failure-not-final';

/** A committed decision. A Takeover names no slices. */
export interface Entry {
  readonly commitId: string;
  readonly epoch: number;
  /** Offset of the first slice; a slice is one record long here. */
  readonly base: number;
  readonly slices: readonly number[];
}

export interface Head {
  seq: number;
  commitId: string;
  epoch: number;
  /** The agent's name, or '' when released. */
  holder: string;
  trimmedThrough: number;
  /** DynamoDB only: the newest entry, which has no item of its own yet. */
  body: Entry | null;
}

/**
 * Under way to the store: it may be executed at any later moment, or never. `awaited` falls when its sender
 * gives up waiting, which never takes the request back.
 */
export type Request =
  | { readonly kind: 'raise'; readonly from: number; readonly awaited: boolean; readonly seen: Claim }
  | EntryRequest
  | { readonly kind: 'trim'; readonly from: number; readonly awaited: boolean; readonly through: number }
  | { readonly kind: 'release'; readonly from: number; readonly awaited: boolean; readonly epoch: number };

/** An append, or DynamoDB's copy of a body to its own item. */
export interface EntryRequest {
  readonly kind: 'append' | 'copy';
  readonly from: number;
  readonly awaited: boolean;
  readonly seq: number;
  readonly entry: Entry;
}

/** Who holds the shard, and under which epoch. */
export interface Claim {
  readonly holder: string;
  readonly epoch: number;
}

/**
 * An agent's phases:
 *
 *   idle -> raising -> loading -> reading -> [copying ->] appending (the Takeover) -> serving
 *   raising -> raise-unknown -> raising | loading | idle
 *   serving -> appending -> serving | append-unknown | idle
 *   append-unknown -> appending (the same entry again) | serving | idle
 *   serving -> copying -> serving                              (DynamoDB, between two appends)
 */
export type Phase =
  | 'idle'
  | 'raising'
  | 'raise-unknown'
  | 'loading'
  | 'reading'
  | 'copying'
  | 'appending'
  | 'append-unknown'
  | 'serving';

export interface Agent {
  phase: Phase;
  hasActed: boolean;
  epoch: number;
  /** The state: the log is applied through this seq. */
  seq: number;
  next: number;
  /** Offset of each slice that the applied log names; -1 for the others. */
  offsets: number[];
  /** The claim that a raise is conditional on. */
  seen: Claim | null;
  /** The head as a takeover read it, before it reads the items. */
  headRead: { readonly seq: number; readonly trimmedThrough: number; readonly body: Entry | null } | null;
  /** Of a Takeover not yet appended: it follows the copy. */
  takesOver: boolean;
  outstanding: Entry | null;
  /** DynamoDB: the entry at `seq`, until its copy is confirmed. */
  uncopied: Entry | null;
}

export interface AppendState {
  head: Head;
  /** The log's items by seq - 1. */
  items: (Entry | null)[];
  /** What only the checker knows: the entry committed at each seq. */
  history: Entry[];
  agents: Agent[];
  /** Sorted, for requests have no order. */
  requests: Request[];
  /** What only the checker knows: the offset each client was told; -1 for none. One per slice sent so far. */
  acknowledged: number[];
  /** What only the checker knows: commitIds whose clients were told "failed for ever". */
  declaredFailed: string[];
  left: { takeovers: number; timeouts: number; retries: number; trims: number; releases: number };
  /** Set by a step that breaks the promise by itself. */
  broken: { kind: AppendViolation; text: string } | null;
}

export function idleAgent(hasActed: boolean): Agent {
  return {
    phase: 'idle',
    hasActed,
    epoch: 0,
    seq: 0,
    next: 0,
    offsets: [],
    seen: null,
    headRead: null,
    takesOver: false,
    outstanding: null,
    uncopied: null,
  };
}

export function initialAppendState(bounds: AppendBounds): AppendState {
  const { takeovers, timeouts, retries, trims, releases } = bounds;
  return {
    head: { seq: 0, commitId: '', epoch: 0, holder: '', trimmedThrough: 0, body: null },
    items: [],
    history: [],
    agents: Array.from({ length: bounds.agents }, () => idleAgent(false)),
    requests: [],
    acknowledged: [],
    declaredFailed: [],
    left: { takeovers, timeouts, retries, trims, releases },
    broken: null,
  };
}

/** A copy whose fields a step may change; entries and requests are never changed, only replaced. */
export function copyAppendState(state: AppendState): AppendState {
  return {
    head: { ...state.head },
    items: state.items.slice(),
    history: state.history.slice(),
    agents: state.agents.map((agent) => ({ ...agent, offsets: agent.offsets.slice() })),
    requests: state.requests.slice(),
    acknowledged: state.acknowledged.slice(),
    declaredFailed: state.declaredFailed.slice(),
    left: { ...state.left },
    broken: state.broken,
  };
}
