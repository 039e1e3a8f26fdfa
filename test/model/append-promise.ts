/**
 * What the append model promises: what a reader finds in the log, and that it is what was committed and
 * acknowledged.
 * Owns: reading and replaying the model's log, and the check made in every state. Does not own: the steps
 * (append-model.ts). Pure functions, no thread.
 */
import type { AppendState, AppendViolation, Entry } from './append-state.ts';
import type { Violation } from './explorer.ts';

/** What the state of a whole log is: `apply` of all its entries. */
export interface Applied {
  readonly seq: number;
  readonly next: number;
  readonly offsets: number[];
}

/** The entry at `seq` as the store holds it: DynamoDB's newest is in the head item, all others in the log. */
export function entryAt(state: AppendState, seq: number): Entry | null {
  const { head } = state;
  return (head.seq === seq ? head.body : null) ?? state.items[seq - 1] ?? null;
}

/** The committed log as a reader sees it; what is trimmed is in the checkpoint. */
export function readCommittedLog(state: AppendState): (Entry | null)[] {
  const { seq: through, trimmedThrough } = state.head;
  return Array.from({ length: through }, (_, i) =>
    i < trimmedThrough ? state.history[i]! : entryAt(state, i + 1),
  );
}

/** `apply` over a whole log, as whoever replays it does: base must be next. */
export function applyAll(draft: AppendState, entries: readonly (Entry | null)[]): Applied {
  const offsets: number[] = [];
  let next = 0;
  for (const [i, entry] of entries.entries()) {
    if (entry === null) breakPromise(draft, 'entry-unreadable', `a takeover finds no entry ${i + 1}`);
    else if (entry.base !== next)
      breakPromise(draft, 'offset-given-twice', `a takeover finds base ${entry.base}, next is ${next}`);
    for (const slice of entry?.slices ?? []) setOffset(offsets, slice, next++);
  }
  return { seq: entries.length, next, offsets };
}

/** The first broken promise of a state, or null. */
export function appendViolation(state: AppendState): Violation<AppendViolation> | null {
  return entriesViolation(state) ?? offsetsViolation(state);
}

/** Every committed entry is readable, and reads as it was committed. */
function entriesViolation(state: AppendState): Violation<AppendViolation> | null {
  const read = readCommittedLog(state);
  for (const [i, committed] of state.history.entries()) {
    const entry = read[i] ?? null;
    if (entry === null) return { kind: 'entry-unreadable', text: `committed entry ${i + 1} cannot be read` };
    if (!isSameEntry(entry, committed))
      return {
        kind: 'entry-changed',
        text: `entry ${i + 1} was committed as ${entryInWords(committed)}, reads ${entryInWords(entry)}`,
      };
  }
  return null;
}

/** Offsets are dense, no slice has two, and every acknowledged slice is at the offset its client was told. */
function offsetsViolation(state: AppendState): Violation<AppendViolation> | null {
  const offsets: number[] = [];
  let next = 0;
  for (const { commitId, base, slices } of state.history) {
    if (base !== next)
      return { kind: 'offset-given-twice', text: `${commitId} has base ${base}, next is ${next}` };
    for (const slice of slices) {
      if ((offsets[slice] ?? -1) !== -1)
        return { kind: 'slice-committed-twice', text: `slice ${slice} is at ${offsets[slice]} and ${next}` };
      setOffset(offsets, slice, next++);
    }
  }
  for (const [slice, told] of state.acknowledged.entries())
    if (told !== -1 && offsets[slice] !== told) {
      const actual = offsets[slice] ?? -1;
      return {
        kind: 'acknowledged-lost',
        text: `slice ${slice} was acknowledged at ${told}, is ${actual === -1 ? 'nowhere' : `at ${actual}`}`,
      };
    }
  return null;
}

/** Notes that the step being taken breaks the promise by itself; the first such note stays. */
export function breakPromise(draft: AppendState, kind: AppendViolation, text: string): void {
  draft.broken ??= { kind, text };
}

/** Sets a slice's offset in a list in which -1 stands for none. */
export function setOffset(offsets: number[], slice: number, offset: number): void {
  while (offsets.length < slice) offsets.push(-1);
  offsets[slice] = offset;
}

export function entryInWords(entry: Entry): string {
  const what = entry.slices.length === 0 ? 'Takeover' : `slices ${entry.slices} from offset ${entry.base}`;
  return `${entry.commitId} (${what})`;
}

function isSameEntry(a: Entry, b: Entry): boolean {
  return (
    a.commitId === b.commitId &&
    a.epoch === b.epoch &&
    a.base === b.base &&
    a.slices.length === b.slices.length &&
    a.slices.every((slice, i) => slice === b.slices[i])
  );
}
