/**
 * Model of objects, their rows, the shards' references to them, and collection. One or two shards; PUTs,
 * rows, appends and drops of references may each be executed at any later moment; the collector acts on what
 * it reads.
 * Owns: the steps, and what must hold after each. Does not own: the state's shape (object-state.ts), offsets
 * and unknown outcomes of the log itself (append-model.ts), the index (fold-model.ts). Main thread.
 *
 * Raising an epoch and reading the log behind it are one step here: append-model.ts shows that nothing slips
 * in.
 */
import type { Model, TakeStep, Violation } from './explorer.ts';
import { abandonRequests, agentName, distinctRequests, insertSorted } from './in-flight.ts';
import {
  type AppendObject,
  copyObjectState,
  initialObjectState,
  liveObjects,
  type ObjectBounds,
  type ObjectEntry,
  type ObjectRequest,
  type ObjectRules,
  type ObjectState,
  type ObjectViolation,
  type Row,
} from './object-state.ts';

type Step = (describe: () => string, change: (draft: ObjectState) => void) => void;

export class ObjectModel implements Model<ObjectState, ObjectViolation> {
  readonly witnessed = new Set<string>();
  readonly #rules: ObjectRules;
  readonly #bounds: ObjectBounds;

  constructor(rules: ObjectRules, bounds: ObjectBounds) {
    this.#rules = rules;
    this.#bounds = bounds;
  }

  initial(): ObjectState {
    return initialObjectState(this.#bounds);
  }

  steps(state: ObjectState, take: TakeStep<ObjectState>): void {
    const step: Step = (describe, change) => {
      const draft = copyObjectState(state);
      change(draft);
      take(describe, draft);
    };
    for (const [index, request] of distinctRequests(state.requests))
      step(
        () => `the store executes ${inWords(request)}`,
        (draft) => {
          draft.requests.splice(index, 1);
          this.#execute(draft, request);
        },
      );
    for (const index of state.agents.keys()) {
      for (const shard of state.shards.keys()) this.#holderSteps(state, index, shard, step);
      this.#writerSteps(state, index, step);
    }
    for (const object of state.objects.keys()) this.#collectorSteps(state, object, step);
  }

  /** What an agent does about one shard: take it over, serve it, remove data, sweep references. */
  #holderSteps(state: ObjectState, index: number, shard: number, step: Step): void {
    const { left } = state;
    const { epoch, holder, log } = state.shards[shard]!;
    const hold = state.agents[index]!.holds[shard]!;
    const name = agentName(index);
    // Agents are alike: the next new one is always the first that has not acted.
    const isNext = index === 0 || state.agents[index - 1]!.hasActed;
    if (left.takeovers > 0 && holder !== index && isNext)
      step(
        () => `${name} raises shard ${shard} to epoch ${epoch + 1} and reads its log`,
        (draft) => this.#takeOver(draft, index, shard),
      );
    if (hold === null) return;
    if (!hold.serves) {
      step(
        () => `${name} appends its Takeover of shard ${shard} under epoch ${hold.epoch}`,
        (draft) => {
          const isDone = commit(draft, index, shard, { kind: 'takeover', epoch: hold.epoch });
          if (isDone) draft.agents[index]!.holds[shard] = { ...hold, seq: hold.seq + 1, serves: true };
        },
      );
      return;
    }
    const known = liveObjects(log, hold.seq);
    if (left.removals > 0 && known.size > 0 && state.agents[index]!.writing === null)
      step(
        () => `${name} appends a removal of objects ${[...known]} to shard ${shard}`,
        (draft) => this.#remove(draft, index, shard, [...known]),
      );
    if (left.sweeps > 0)
      for (const object of state.objects.keys())
        if (!known.has(object) && this.#maySweep(state, index, shard, object))
          step(
            () => `${name}, under epoch ${hold.epoch}, finds object ${object} not in shard ${shard}'s state`,
            (draft) => {
              draft.left.sweeps--;
              insertSorted(draft.requests, { kind: 'drop', from: index, awaited: false, object, shard });
            },
          );
  }

  /**
   * Section 5: unlogged, a shard's reference is dropped only by a holder whose epoch is higher than the
   * row's.
   */
  #maySweep(state: ObjectState, index: number, shard: number, object: number): boolean {
    const { row, writer } = state.objects[object]!;
    if (row === null || !row.refs[shard]) return false;
    if (this.#rules.sweepsOnlyLowerEpochs)
      return row.epochs[shard]! < state.agents[index]!.holds[shard]!.epoch;
    return writer !== index;
  }

  /** What an agent does about the object that it is writing. */
  #writerSteps(state: ObjectState, index: number, step: Step): void {
    const { holds, writing } = state.agents[index]!;
    const name = agentName(index);
    if (writing === null) {
      if (state.left.objects > 0 && holds.some((hold) => hold?.serves))
        step(
          () => `${name} seals object ${state.objects.length}`,
          (draft) => this.#seal(draft, index),
        );
      return;
    }
    const { object, phase } = writing;
    if (phase === 'ready') {
      for (const shard of writing.shards)
        if (holds[shard]?.serves)
          step(
            () => `${name} sends the append of object ${object} to shard ${shard}`,
            (draft) => this.#sendAppend(draft, index, shard),
          );
    } else if (phase === 'append-unknown') {
      step(
        () => `${name} reads head and entry of shard ${writing.appendingTo} back`,
        (draft) => this.#resolveAppend(draft, index),
      );
      if (!this.#rules.keepsReferenceWhenUnknown)
        step(
          () => `${name} gives its append up and drops shard ${writing.appendingTo}'s reference`,
          (draft) => this.#giveUpAndDrop(draft, index),
        );
    } else if (state.left.timeouts > 0) {
      step(
        () => `${name} waits no longer (${phase} object ${object})`,
        (draft) => this.#timeOut(draft, index),
      );
    }
  }

  // ---- the store ----

  #execute(draft: ObjectState, request: ObjectRequest): void {
    const object = draft.objects[request.object]!;
    switch (request.kind) {
      case 'put':
        if (object.body === 'deleted') this.witnessed.add('a late PUT landed after the deletion');
        object.body = 'stored';
        if (request.awaited) this.#stored(draft, request.from);
        break;
      case 'row':
        if (object.row === null && object.body === 'deleted')
          this.witnessed.add('a late row landed after the deletion');
        object.row ??= rowOf(object.sealedUnder);
        if (request.awaited) this.#ready(draft, request.from);
        break;
      case 'append':
        this.#executeAppend(draft, request);
        break;
      case 'drop':
        if (object.row !== null) {
          const refs = object.row.refs.map((isHeld, shard) => isHeld && shard !== request.shard);
          object.row = { ...object.row, refs };
          this.witnessed.add('a reference was dropped');
        }
        break;
    }
  }

  /** Section 2: head and epoch must be what the writer believes. */
  #executeAppend(draft: ObjectState, request: AppendObject): void {
    const { epoch, log } = draft.shards[request.shard]!;
    if (epoch === request.epoch && log.length === request.seq - 1) {
      log.push({ kind: 'slices', epoch, object: request.object });
      if (request.awaited) this.#appendDone(draft, request.from);
    } else if (request.awaited) {
      const agent = draft.agents[request.from]!;
      agent.writing = { ...agent.writing!, phase: 'append-unknown' };
    }
  }

  // ---- holders ----

  /** Section 5: a writer that lost a shard abandons, for that shard, all that it had sealed before. */
  #takeOver(draft: ObjectState, index: number, shard: number): void {
    const agent = draft.agents[index]!;
    const head = draft.shards[shard]!;
    draft.left.takeovers--;
    head.epoch++;
    head.holder = index;
    agent.hasActed = true;
    agent.holds[shard] = { epoch: head.epoch, seq: head.log.length, serves: false };
    if (agent.writing?.shards.includes(shard)) this.#lostShard(draft, index, shard);
  }

  /** What was sealed for the shard is given up; the object may still be wanted for other shards. */
  #lostShard(draft: ObjectState, index: number, shard: number): void {
    const agent = draft.agents[index]!;
    const writing = agent.writing!;
    if (writing.appendingTo === shard) {
      draft.requests = abandonRequests(draft.requests, index);
      agent.writing = { ...writing, phase: 'ready', appendingTo: -1 };
    }
    if (!this.#rules.abandonsSealedOnLoss) return;
    this.witnessed.add('a writer abandoned what it had sealed for a shard that it lost');
    this.#doneWith(draft, index, shard);
  }

  #doneWith(draft: ObjectState, index: number, shard: number): void {
    const agent = draft.agents[index]!;
    const shards = agent.writing!.shards.filter((wanted) => wanted !== shard);
    if (shards.length > 0) {
      agent.writing = { ...agent.writing!, shards };
      return;
    }
    agent.writing = null;
    draft.requests = abandonRequests(draft.requests, index);
  }

  /** Section 2: Merged and LogStart are appended first; what they remove is dropped afterwards. */
  #remove(draft: ObjectState, index: number, shard: number, objects: readonly number[]): void {
    const hold = draft.agents[index]!.holds[shard]!;
    draft.left.removals--;
    const isDone = commit(draft, index, shard, { kind: 'removal', epoch: hold.epoch, objects });
    if (isDone) draft.agents[index]!.holds[shard] = { ...hold, seq: hold.seq + 1 };
    if (!isDone && this.#rules.dropsAfterCommit) return;
    for (const object of objects)
      insertSorted(draft.requests, { kind: 'drop', from: index, awaited: false, object, shard });
  }

  // ---- writers ----

  /** An object is sealed with slices of every shard that its writer serves. */
  #seal(draft: ObjectState, index: number): void {
    const agent = draft.agents[index]!;
    const object = draft.objects.length;
    draft.left.objects--;
    const sealedUnder = agent.holds.map((hold) => (hold?.serves ? hold.epoch : 0));
    const shards = [...sealedUnder.keys()].filter((shard) => sealedUnder[shard]! > 0);
    draft.objects.push({ writer: index, sealedUnder, body: 'unwritten', row: null });
    const awaited = this.#rules.storedBeforeEntry;
    insertSorted(draft.requests, { kind: 'put', from: index, awaited, object });
    agent.writing = { phase: 'putting', object, shards, appendingTo: -1 };
    if (!awaited) this.#stored(draft, index);
  }

  #stored(draft: ObjectState, index: number): void {
    const agent = draft.agents[index]!;
    const { object } = agent.writing!;
    const awaited = this.#rules.rowBeforeEntry;
    insertSorted(draft.requests, { kind: 'row', from: index, awaited, object });
    agent.writing = { ...agent.writing!, phase: 'registering' };
    if (!awaited) this.#ready(draft, index);
  }

  #ready(draft: ObjectState, index: number): void {
    const agent = draft.agents[index]!;
    agent.writing = { ...agent.writing!, phase: 'ready', appendingTo: -1 };
  }

  #sendAppend(draft: ObjectState, index: number, shard: number): void {
    const agent = draft.agents[index]!;
    const { object } = agent.writing!;
    const { epoch, seq } = agent.holds[shard]!;
    agent.writing = { ...agent.writing!, phase: 'appending', appendingTo: shard };
    insertSorted(draft.requests, {
      kind: 'append',
      from: index,
      awaited: true,
      object,
      shard,
      seq: seq + 1,
      epoch,
    });
  }

  #appendDone(draft: ObjectState, index: number): void {
    const agent = draft.agents[index]!;
    const shard = agent.writing!.appendingTo;
    const hold = agent.holds[shard]!;
    agent.holds[shard] = { ...hold, seq: hold.seq + 1 };
    this.#ready(draft, index);
    this.#doneWith(draft, index, shard);
  }

  /** Section 2, unknown outcome: look for the commitId first; then the epoch; then the same bytes again. */
  #resolveAppend(draft: ObjectState, index: number): void {
    const agent = draft.agents[index]!;
    const { object, appendingTo: shard } = agent.writing!;
    const hold = agent.holds[shard]!;
    const { epoch, log } = draft.shards[shard]!;
    const isFenced = epoch > hold.epoch;
    if (isFenced && !this.#rules.looksForCommitIdFirst) {
      this.#giveUpAndDrop(draft, index);
      return;
    }
    const found = log[hold.seq];
    if (found?.kind === 'slices' && found.object === object && found.epoch === hold.epoch) {
      this.witnessed.add(`an unknown append was found done${isFenced ? ' under a higher epoch' : ''}`);
      this.#appendDone(draft, index);
      if (isFenced) agent.holds[shard] = null;
    } else if (isFenced) {
      this.#lostShard(draft, index, shard);
      agent.holds[shard] = null;
    } else {
      this.#sendAppend(draft, index, shard);
    }
  }

  /** Mutants only: the writer takes its append for failed and drops the reference itself. */
  #giveUpAndDrop(draft: ObjectState, index: number): void {
    const { object, appendingTo: shard } = draft.agents[index]!.writing!;
    insertSorted(draft.requests, { kind: 'drop', from: index, awaited: false, object, shard });
    this.#ready(draft, index);
    this.#doneWith(draft, index, shard);
    draft.agents[index]!.holds[shard] = null;
  }

  /**
   * The reply is waited for no longer; the request stays under way. PUT and row are sent once more as they
   * are.
   */
  #timeOut(draft: ObjectState, index: number): void {
    const agent = draft.agents[index]!;
    const { object, phase } = agent.writing!;
    draft.left.timeouts--;
    draft.requests = abandonRequests(draft.requests, index);
    if (phase === 'appending') {
      agent.writing = { ...agent.writing!, phase: 'append-unknown' };
      return;
    }
    const kind = phase === 'putting' ? 'put' : 'row';
    insertSorted(draft.requests, { kind, from: index, awaited: true, object });
  }

  // ---- the collector ----

  /**
   * Section 5: what no shard refers to is deleted, then forgotten; what has no row only once its writer is
   * fenced.
   */
  #collectorSteps(state: ObjectState, object: number, step: Step): void {
    const { body, row, sealedUnder } = state.objects[object]!;
    if (row === null) {
      const isFenced = sealedUnder.every((epoch, shard) => epoch === 0 || state.shards[shard]!.epoch > epoch);
      if (body === 'stored' && (isFenced || !this.#rules.orphansOnlyWhenFenced))
        step(
          () => `the collector finds object ${object} without a row and deletes it`,
          (draft) => {
            draft.objects[object]!.body = 'deleted';
            this.witnessed.add('an orphan was deleted');
          },
        );
    } else if (!row.refs.includes(true)) {
      if (body === 'stored')
        step(
          () => `the collector finds object ${object} without references and deletes it`,
          (draft) => {
            draft.objects[object]!.body = 'deleted';
            this.witnessed.add('an unreferenced object was deleted');
          },
        );
      else
        step(
          () => `the collector forgets object ${object}'s row`,
          (draft) => {
            draft.objects[object]!.row = null;
          },
        );
    }
  }

  // ---- what must hold ----

  /** In every state: what a committed entry names, and no later one removed, is there with its reference. */
  violation(state: ObjectState): Violation<ObjectViolation> | null {
    for (const [shard, { log }] of state.shards.entries())
      for (const object of liveObjects(log, log.length)) {
        const { body, row } = state.objects[object]!;
        const named = `a committed entry of shard ${shard} names object ${object}`;
        if (body !== 'stored') return { kind: 'object-missing', text: `${named}, which is ${body}` };
        if (row === null) return { kind: 'reference-missing', text: `${named}, which has no row` };
        if (!row.refs[shard])
          return { kind: 'reference-missing', text: `${named}, whose row does not refer to the shard` };
      }
    return null;
  }
}

/** Appends at once what has no outcome to lose here. A refusal tells the agent that it lost the shard. */
function commit(draft: ObjectState, index: number, shard: number, entry: ObjectEntry): boolean {
  const { epoch, log } = draft.shards[shard]!;
  const agent = draft.agents[index]!;
  if (epoch === entry.epoch && log.length === agent.holds[shard]!.seq) {
    log.push(entry);
    return true;
  }
  agent.holds[shard] = null;
  return false;
}

function rowOf(sealedUnder: readonly number[]): Row {
  return { refs: sealedUnder.map((epoch) => epoch > 0), epochs: sealedUnder };
}

function inWords(request: ObjectRequest): string {
  const whose = `${agentName(request.from)}'s ${request.awaited ? '' : 'late '}${request.kind}`;
  switch (request.kind) {
    case 'put':
    case 'row':
      return `${whose} of object ${request.object}`;
    case 'append': {
      const { object, shard, seq, epoch } = request;
      return `${whose} of object ${object} as entry ${seq} of shard ${shard} under epoch ${epoch}`;
    }
    case 'drop':
      return `${whose} of shard ${request.shard}'s reference to object ${request.object}`;
  }
}
