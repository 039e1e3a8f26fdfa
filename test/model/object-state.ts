/**
 * What the object model is made of: shards' heads and logs, objects with their rows, writers, and the rules
 * that a mutant switches off one at a time.
 * Owns: the state's shape and its copy. Does not own: any step (object-model.ts). Plain data, no thread.
 */

/**
 * The protocol's rules; true everywhere is the protocol. Each names the sentence of DESIGN.md it stands for.
 */
export interface ObjectRules {
  /** Section 1: a record is acknowledged, so committed, only when its object is in the object store. */
  readonly storedBeforeEntry: boolean;
  /** Section 5: an object's row exists before any entry names it. */
  readonly rowBeforeEntry: boolean;
  /** Section 5: an object without a row is deleted only if every shard's epoch is above its writer's (C4). */
  readonly orphansOnlyWhenFenced: boolean;
  /** Section 5: an unlogged reference is dropped only from a higher epoch than the row's (C5). */
  readonly sweepsOnlyLowerEpochs: boolean;
  /**
   * Section 5: a writer that lost a shard abandons what it had sealed, even if it takes the shard back (C6).
   */
  readonly abandonsSealedOnLoss: boolean;
  /** Section 2: the commitId is looked for before a higher epoch is taken for "never" (C7). */
  readonly looksForCommitIdFirst: boolean;
  /** Section 5: a writer never drops a reference after a failed append. */
  readonly keepsReferenceWhenUnknown: boolean;
  /** Section 5: a reference is dropped because of a *committed* entry; deletion follows the log. */
  readonly dropsAfterCommit: boolean;
}

export const OBJECT_PROTOCOL: ObjectRules = {
  storedBeforeEntry: true,
  rowBeforeEntry: true,
  orphansOnlyWhenFenced: true,
  sweepsOnlyLowerEpochs: true,
  abandonsSealedOnLoss: true,
  looksForCommitIdFirst: true,
  keepsReferenceWhenUnknown: true,
  dropsAfterCommit: true,
};

/** How often each thing may happen in one run; together they make the search finite. */
export interface ObjectBounds {
  readonly agents: number;
  readonly shards: number;
  readonly takeovers: number;
  readonly objects: number;
  /** Merged or LogStart entries, each dropping all that its shard's state names. */
  readonly removals: number;
  readonly sweeps: number;
  readonly timeouts: number;
}

/** What the promise forbids. */
export type ObjectViolation =
  /** A committed entry names an object that is not in the object store. */
  | 'object-missing'
  /** A committed entry names an object whose row has no reference of that shard: it may go at any time. */
  | 'reference-missing';

/** A committed decision: a Takeover; Slices naming one object; Merged or LogStart removing objects. */
export type ObjectEntry =
  | { readonly kind: 'takeover'; readonly epoch: number }
  | { readonly kind: 'slices'; readonly epoch: number; readonly object: number }
  | { readonly kind: 'removal'; readonly epoch: number; readonly objects: readonly number[] };

export interface Shard {
  epoch: number;
  /** The agent's number; -1 for none. */
  holder: number;
  /** The head's seq is the log's length. */
  log: ObjectEntry[];
}

/**
 * Per shard: does the row hold its reference, and the epoch under which the row was written (0: not at all).
 */
export interface Row {
  readonly refs: readonly boolean[];
  readonly epochs: readonly number[];
}

export interface StoredObject {
  readonly writer: number;
  /** Per shard: the epoch that the writer held when it sealed; 0 if the object has no slice of that shard. */
  readonly sealedUnder: readonly number[];
  body: 'unwritten' | 'stored' | 'deleted';
  row: Row | null;
}

/** Under way to the store: executed at any later moment, or never. `awaited` falls when nobody waits. */
export type ObjectRequest =
  | {
      readonly kind: 'put' | 'row';
      readonly from: number;
      readonly awaited: boolean;
      readonly object: number;
    }
  | AppendObject
  | {
      readonly kind: 'drop';
      readonly from: number;
      readonly awaited: boolean;
      readonly object: number;
      readonly shard: number;
    };

export interface AppendObject {
  readonly kind: 'append';
  readonly from: number;
  readonly awaited: boolean;
  readonly object: number;
  readonly shard: number;
  readonly seq: number;
  readonly epoch: number;
}

/** An agent's hold on one shard; it serves once its Takeover is committed. */
export interface Hold {
  readonly epoch: number;
  /** The log is applied through this seq. */
  readonly seq: number;
  readonly serves: boolean;
}

/**
 * The one object that an agent is writing:
 *
 *   putting -> registering (its row) -> ready -> appending -> ready | (all shards done) none
 *   appending -> append-unknown -> appending (again) | ready | none
 */
export interface Writing {
  readonly phase: 'putting' | 'registering' | 'ready' | 'appending' | 'append-unknown';
  readonly object: number;
  /** Shards whose entry is still to be committed. */
  readonly shards: readonly number[];
  /** The shard of the outstanding append; -1 for none. */
  readonly appendingTo: number;
}

export interface Writer {
  hasActed: boolean;
  holds: (Hold | null)[];
  writing: Writing | null;
}

export interface ObjectState {
  shards: Shard[];
  objects: StoredObject[];
  agents: Writer[];
  /** Sorted, for requests have no order. */
  requests: ObjectRequest[];
  left: { takeovers: number; objects: number; removals: number; sweeps: number; timeouts: number };
}

export function initialObjectState(bounds: ObjectBounds): ObjectState {
  const { takeovers, objects, removals, sweeps, timeouts } = bounds;
  return {
    shards: Array.from({ length: bounds.shards }, () => ({ epoch: 0, holder: -1, log: [] })),
    objects: [],
    agents: Array.from({ length: bounds.agents }, () => ({
      hasActed: false,
      holds: Array.from({ length: bounds.shards }, () => null),
      writing: null,
    })),
    requests: [],
    left: { takeovers, objects, removals, sweeps, timeouts },
  };
}

/** A copy whose fields a step may change; entries, rows, holds and requests are only ever replaced. */
export function copyObjectState(state: ObjectState): ObjectState {
  return {
    shards: state.shards.map((shard) => ({ ...shard, log: shard.log.slice() })),
    objects: state.objects.map((object) => ({ ...object })),
    agents: state.agents.map((agent) => ({ ...agent, holds: agent.holds.slice() })),
    requests: state.requests.slice(),
    left: { ...state.left },
  };
}

/** The objects that a log names and has not removed again: what its first `length` entries keep alive. */
export function liveObjects(log: readonly ObjectEntry[], length: number): Set<number> {
  const live = new Set<number>();
  for (let i = 0; i < length; i++) {
    const entry = log[i]!;
    if (entry.kind === 'slices') live.add(entry.object);
    else if (entry.kind === 'removal') for (const object of entry.objects) live.delete(object);
  }
  return live;
}
