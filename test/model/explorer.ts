/**
 * Explicit-state breadth-first search: visits every state that a model can reach, shortest paths first, and
 * stops at the first one that breaks a promise, with the steps that lead there.
 * Owns: the search, the set of states seen, the trace. Does not own: what a state is or which steps there are
 * (the models), nor which models are run at which size (cases.ts). Runs on the main thread of a test; it
 * reads no clock and draws no random number, so that the same model always gives the same counts and the same
 * trace.
 */

/** How a state or a step broke the promise: a kind that tests compare, and words for a reader. */
export interface Violation<Kind extends string> {
  readonly kind: Kind;
  readonly text: string;
}

/** Receives one step out of a state. `describe` is called only when the step is part of a counterexample. */
export type TakeStep<State> = (describe: () => string, next: State) => void;

/**
 * A protocol over one shard, small enough to be searched. A state is plain data: `JSON.stringify` of it is
 * its identity, so that fields keep their order and what has no order is kept sorted.
 */
export interface Model<State, Kind extends string> {
  initial(): State;
  /** Offers every step possible in `state`, in a fixed order; never changes `state` itself. */
  steps(state: State, take: TakeStep<State>): void;
  /** What is wrong in this state, or null. */
  violation(state: State): Violation<Kind> | null;
  /** Names of the noteworthy things that happened in some step so far: proof that the search is not idle. */
  readonly witnessed: ReadonlySet<string>;
}

/** What a search found. */
export interface Exploration {
  readonly states: number;
  readonly steps: number;
  /** Steps of the longest shortest path. */
  readonly depth: number;
  /** True when every reachable state was visited and none broke the promise. */
  readonly complete: boolean;
  readonly counterexample: Counterexample | null;
  readonly witnessed: readonly string[];
}

/** A broken promise, and the shortest way to it in words, one string a step. */
export interface Counterexample {
  readonly kind: string;
  readonly text: string;
  readonly trace: readonly string[];
}

/**
 * Searches `model` until a state breaks the promise, until no state is new, or until `statesMax` states are
 * known (then `complete` is false).
 */
export function explore<State, Kind extends string>(
  model: Model<State, Kind>,
  statesMax: number,
): Exploration {
  const seen = new FingerprintSet();
  const paths = new Paths();
  const first = JSON.stringify(model.initial());
  seen.add(first);
  // A frontier of strings: a tenth of the memory of live objects, and no state can be changed by accident.
  let frontier = [first];
  let frontierIds = [0];
  let steps = 0;
  let depth = 0;
  let found: { violation: Violation<Kind>; id: number } | null = null;
  let isCut = false;

  while (frontier.length > 0 && found === null && !isCut) {
    const nextFrontier: string[] = [];
    const nextIds: number[] = [];
    for (let i = 0; i < frontier.length && found === null && !isCut; i++) {
      const state = JSON.parse(frontier[i]!) as State;
      frontier[i] = '';
      const parent = frontierIds[i]!;
      let choice = 0;
      model.steps(state, (_describe, next) => {
        const taken = choice++;
        if (found !== null || isCut) return;
        steps++;
        const key = JSON.stringify(next);
        if (!seen.add(key)) return;
        const id = paths.add(parent, taken);
        const violation = model.violation(next);
        if (violation !== null) found = { violation, id };
        if (paths.count >= statesMax) isCut = true;
        nextFrontier.push(key);
        nextIds.push(id);
      });
    }
    if (nextFrontier.length > 0) depth++;
    frontier = nextFrontier;
    frontierIds = nextIds;
  }

  const counterexample = found === null ? null : tell(model, paths, found);
  return {
    states: paths.count,
    steps,
    depth,
    complete: !isCut && found === null,
    counterexample,
    witnessed: [...model.witnessed].sort(),
  };
}

/** Walks the path to the broken state once more, this time asking each step for its words. */
function tell<State, Kind extends string>(
  model: Model<State, Kind>,
  paths: Paths,
  found: { violation: Violation<Kind>; id: number },
): Counterexample {
  const trace: string[] = [];
  let key = JSON.stringify(model.initial());
  for (const wanted of paths.choicesTo(found.id)) {
    const state = JSON.parse(key) as State;
    let choice = 0;
    model.steps(state, (describe, next) => {
      if (choice++ !== wanted) return;
      trace.push(describe());
      key = JSON.stringify(next);
    });
  }
  return { kind: found.violation.kind, text: found.violation.text, trace };
}

/** Of each state: from which state it was first reached, and by which of that state's steps. */
class Paths {
  #parents = new Int32Array(1 << 16).fill(-1);
  #choices = new Uint16Array(1 << 16);
  #count = 1;

  get count(): number {
    return this.#count;
  }

  add(parent: number, choice: number): number {
    if (this.#count === this.#parents.length) {
      const parents = new Int32Array(this.#count * 2);
      parents.set(this.#parents);
      this.#parents = parents;
      const choices = new Uint16Array(this.#count * 2);
      choices.set(this.#choices);
      this.#choices = choices;
    }
    this.#parents[this.#count] = parent;
    this.#choices[this.#count] = choice;
    return this.#count++;
  }

  choicesTo(id: number): number[] {
    const choices: number[] = [];
    for (let at = id; at > 0; at = this.#parents[at]!) choices.push(this.#choices[at]!);
    return choices.reverse();
  }
}

/**
 * The states seen, each as a 64-bit fingerprint in an open-addressed table of 8 bytes a slot. Two states that
 * share a fingerprint would be taken for one; among 5 million states the chance of that is below 1 in a
 * million.
 */
class FingerprintSet {
  #slots = new Uint32Array(2 << 16);
  #mask = (1 << 16) - 1;
  #count = 0;

  /** Adds the text's fingerprint; false if it was there. */
  add(text: string): boolean {
    let a = 0xdeadbeef;
    let b = 0x41c6ce57;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      a = Math.imul(a ^ code, 2654435761);
      b = Math.imul(b ^ code, 1597334677);
    }
    const low = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909);
    const high = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909);
    // A slot of two zeros is empty, so no fingerprint may be that.
    if (!this.#insert(low >>> 0 || 1, high >>> 0)) return false;
    if (++this.#count * 2 > this.#mask) this.#grow();
    return true;
  }

  #insert(low: number, high: number): boolean {
    for (let slot = low & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const storedLow = this.#slots[slot * 2]!;
      if (storedLow === 0) {
        this.#slots[slot * 2] = low;
        this.#slots[slot * 2 + 1] = high;
        return true;
      }
      if (storedLow === low && this.#slots[slot * 2 + 1] === high) return false;
    }
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Uint32Array(old.length * 2);
    this.#mask = this.#mask * 2 + 1;
    for (let i = 0; i < old.length; i += 2) if (old[i] !== 0) this.#insert(old[i]!, old[i + 1]!);
  }
}
