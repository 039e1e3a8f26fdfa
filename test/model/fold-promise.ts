/**
 * What the fold model promises: every committed offset is found through pointer, page and tail, in the object
 * that the log names for it.
 * Owns: the look-up as a reader does it, the truth to compare it with, and the check made in every state.
 * Does not own: the steps (fold-model.ts). Pure functions, no thread.
 */
import type { Violation } from './explorer.ts';
import type { FoldEntry, FoldState, FoldViolation, Page, Ref } from './fold-state.ts';

/**
 * In every state: a reader that reads all at one instant finds every committed offset, in the right object.
 */
export function foldViolation(state: FoldState): Violation<FoldViolation> | null {
  const { head } = state;
  const { through, writer } = head.pointer;
  if (through > 0 && !state.checkpoints.some((c) => c.through === through && c.writer === writer))
    return { kind: 'checkpoint-missing', text: `the pointer names checkpoint ${through} of ${writer}` };
  const tail: number[] = [];
  for (let seq = through + 1; seq <= head.seq; seq++) {
    if (!state.isInLog[seq - 1])
      return { kind: 'trimmed-above-pointer', text: `entry ${seq} is trimmed, the pointer is ${through}` };
    tail.push(seq);
  }
  for (const partition of state.pages.keys())
    for (let offset = 0; offset < committedNext(state, partition); offset++) {
      const page = pageFor(state, partition, offset);
      const ref = resolve(state, partition, offset, page, tail);
      const truth = truthOf(state, partition, offset);
      if (ref === truth) continue;
      const where = `pointer ${through}, page ${page === null ? 'none' : JSON.stringify(page)}`;
      if (ref === 0) return { kind: 'entry-hidden', text: `offset ${offset} cannot be found: ${where}` };
      const text = `offset ${offset} resolves to entry ${ref}'s object, the log says ${truth}'s: ${where}`;
      return { kind: 'wrong-object', text };
    }
  return null;
}

/** Notes that the step being taken breaks the promise by itself; the first such note stays. */
export function breakPromise(draft: FoldState, kind: FoldViolation, text: string): void {
  draft.broken ??= { kind, text };
}

/** The next offset of a partition, from the committed entries alone. */
export function committedNext(state: FoldState, partition: number): number {
  let next = 0;
  for (const entry of state.history) if (entry.kind === 'slice' && entry.partition === partition) next++;
  return next;
}

function names(entry: FoldEntry, partition: number, offset: number): boolean {
  if (entry.partition !== partition) return false;
  return entry.kind === 'slice' ? entry.offset === offset : offset < entry.next;
}

/** The newest entry that names an object for this offset. */
export function truthOf(state: FoldState, partition: number, offset: number): Ref {
  return state.history.findLastIndex((entry) => names(entry, partition, offset)) + 1;
}

/** Section 5: the page for an offset is the one with the greatest base <= offset. */
export function pageFor(state: FoldState, partition: number, offset: number): Page | null {
  return state.pages[partition]!.findLast(({ base }) => base <= offset) ?? null;
}

/** Look-up: what the page says, and over it the tail's entries that are above the page's stamp. */
export function resolve(
  state: FoldState,
  partition: number,
  offset: number,
  page: Page | null,
  tail: readonly number[],
): Ref {
  const inPage = page?.refs[offset - page.base];
  const stamp = inPage === undefined ? 0 : page!.stamp;
  let ref = inPage ?? 0;
  for (const seq of tail) if (seq > stamp && names(state.history[seq - 1]!, partition, offset)) ref = seq;
  return ref;
}
