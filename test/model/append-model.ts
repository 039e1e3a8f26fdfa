/**
 * Model of appending and taking over: unknown outcomes, resends, requests executed long after their sender
 * gave them up, DynamoDB's copies, trimming. One shard, one partition, slices of one record.
 * Owns: the steps. Does not own: the state's shape (append-state.ts), what must hold (append-promise.ts),
 * pages and checkpoints (fold-model.ts; here a trimmed entry counts as folded), objects (object-model.ts).
 * Main thread.
 *
 * A reply is received in the moment the request is executed, unless its sender gave up before: what an agent
 * does with a reply touches only itself, so a reply that dawdles is no other run. A lost reply and a late
 * request are the same here: first the sender times out, then the store executes.
 */
import {
  appendViolation,
  applyAll,
  breakPromise,
  entryAt,
  entryInWords,
  readCommittedLog,
  setOffset,
} from './append-promise.ts';
import {
  type AppendBounds,
  type AppendRules,
  type AppendState,
  type AppendViolation,
  copyAppendState,
  type Entry,
  type EntryRequest,
  idleAgent,
  initialAppendState,
  type Request,
} from './append-state.ts';
import type { Model, TakeStep, Violation } from './explorer.ts';
import { abandonRequests, agentName, distinctRequests, insertSorted } from './in-flight.ts';

/** What a reply's receiver learns of the head when its append was refused. */
type HeadFound = Pick<AppendState['head'], 'seq' | 'commitId' | 'epoch'>;

export class AppendModel implements Model<AppendState, AppendViolation> {
  readonly witnessed = new Set<string>();
  readonly #rules: AppendRules;
  readonly #bounds: AppendBounds;
  readonly #isDynamo: boolean;

  constructor(rules: AppendRules, bounds: AppendBounds) {
    this.#rules = rules;
    this.#bounds = bounds;
    this.#isDynamo = bounds.head === 'dynamodb';
  }

  initial(): AppendState {
    return initialAppendState(this.#bounds);
  }

  steps(state: AppendState, take: TakeStep<AppendState>): void {
    for (const [index, request] of distinctRequests(state.requests)) {
      const draft = copyAppendState(state);
      draft.requests.splice(index, 1);
      this.#execute(draft, request);
      take(() => `the store executes ${inWords(request)}`, draft);
    }
    for (const index of state.agents.keys()) this.#agentSteps(state, index, take);
  }

  /** Every step that agent `index` can do by itself in its phase. */
  #agentSteps(state: AppendState, index: number, take: TakeStep<AppendState>): void {
    const agent = state.agents[index]!;
    const name = agentName(index);
    const { seq, epoch, holder } = state.head;
    const step = (describe: () => string, change: (draft: AppendState) => void): void => {
      const draft = copyAppendState(state);
      change(draft);
      take(describe, draft);
    };
    switch (agent.phase) {
      case 'idle': {
        // Agents are alike: the next new one is always the first that has not acted.
        const isNext = index === 0 || state.agents[index - 1]!.hasActed;
        if (state.left.takeovers > 0 && isNext)
          step(
            () => `${name} reads the head (holder ${holder || 'none'}, epoch ${epoch}) and sends a raise`,
            (draft) => this.#beginTakeover(draft, index),
          );
        break;
      }
      case 'raise-unknown':
        step(
          () => `${name} reads the head back after its unknown raise: holder ${holder}, epoch ${epoch}`,
          (draft) => this.#resolveRaise(draft, index),
        );
        break;
      case 'loading':
        step(
          () => `${name} reads the head: seq ${seq}, epoch ${epoch}`,
          (draft) => this.#readHead(draft, index),
        );
        break;
      case 'reading':
        step(
          () => `${name} reads the log through ${agent.headRead!.seq}`,
          (draft) => this.#readLog(draft, index),
        );
        break;
      case 'append-unknown':
        step(
          () =>
            `${name} reads head and entry back: seq ${seq}, epoch ${epoch}, commit ${state.head.commitId}`,
          (draft) => this.#resolveAppend(draft, index),
        );
        break;
      case 'serving':
        this.#servingSteps(state, index, step);
        break;
    }
    const isWaiting = agent.phase === 'raising' || agent.phase === 'appending' || agent.phase === 'copying';
    if (isWaiting && state.left.timeouts > 0)
      step(
        () => `${name} waits no longer (${agent.phase})`,
        (draft) => this.#timeOut(draft, index),
      );
    const outstanding = agent.outstanding;
    if (!this.#rules.duplicateWaitsForCommit && outstanding !== null && state.left.retries > 0)
      for (const slice of outstanding.slices)
        step(
          () => `${name} answers a duplicate of slice ${slice} from its outstanding entry`,
          (draft) => {
            draft.left.retries--;
            acknowledge(draft, slice, outstanding.base + outstanding.slices.indexOf(slice));
          },
        );
  }

  #servingSteps(
    state: AppendState,
    index: number,
    step: (describe: () => string, change: (draft: AppendState) => void) => void,
  ): void {
    const agent = state.agents[index]!;
    const name = agentName(index);
    if (agent.uncopied !== null && this.#rules.copyConfirmedFirst) {
      step(
        () => `${name} sends the copy of entry ${agent.seq}`,
        (draft) => this.#sendCopy(draft, index),
      );
    } else {
      const sent = state.acknowledged.length;
      if (sent < this.#bounds.slices)
        step(
          () => `${name} sends append ${agent.seq + 1} with slice ${sent} at offset ${agent.next}`,
          (draft) => {
            draft.acknowledged.push(-1);
            this.#sendSlice(draft, index, sent);
          },
        );
      for (let slice = 0; slice < sent && state.left.retries > 0; slice++)
        if (state.acknowledged[slice] === -1)
          step(
            () =>
              `slice ${slice}'s client retries at ${name}, which knows it at ${agent.offsets[slice] ?? -1}`,
            (draft) => this.#retrySlice(draft, index, slice),
          );
    }
    if (state.left.trims > 0 && agent.seq > state.head.trimmedThrough)
      step(
        () => `${name} sends a trim through ${agent.seq}`,
        (draft) => {
          draft.left.trims--;
          insertSorted(draft.requests, { kind: 'trim', from: index, awaited: false, through: agent.seq });
        },
      );
    if (state.left.releases > 0)
      step(
        () => `${name} releases the shard`,
        (draft) => {
          draft.left.releases--;
          insertSorted(draft.requests, { kind: 'release', from: index, awaited: false, epoch: agent.epoch });
          this.#stop(draft, index);
        },
      );
  }

  // ---- the store ----

  #execute(draft: AppendState, request: Request): void {
    const { head } = draft;
    switch (request.kind) {
      case 'raise':
        this.#executeRaise(draft, request);
        break;
      case 'append':
        this.#executeAppend(draft, request);
        break;
      case 'copy':
        draft.items[request.seq - 1] = request.entry;
        if (request.awaited) this.#copyConfirmed(draft, request.from);
        break;
      case 'trim':
        for (let seq = 1; seq <= request.through; seq++) draft.items[seq - 1] = null;
        head.trimmedThrough = Math.max(head.trimmedThrough, request.through);
        break;
      case 'release':
        if (head.holder === agentName(request.from) && head.epoch === request.epoch) head.holder = '';
        break;
    }
  }

  /** Section 2, lease and takeover: raise the epoch by compare-and-set against the claim that was seen. */
  #executeRaise(draft: AppendState, request: Request & { kind: 'raise' }): void {
    const { head } = draft;
    const isAsSeen = head.holder === request.seen.holder && head.epoch === request.seen.epoch;
    if (isAsSeen) {
      head.holder = agentName(request.from);
      head.epoch++;
    }
    if (!request.awaited) return;
    if (isAsSeen) this.#raised(draft, request.from);
    else this.#stop(draft, request.from);
  }

  /**
   * Section 2: move the head from seq-1 to seq and insert the entry, in one atomic step, if seq and epoch
   * fit.
   */
  #executeAppend(draft: AppendState, request: EntryRequest): void {
    const { head } = draft;
    const { seq, entry } = request;
    const isSeqRight = !this.#rules.seqChecked || head.seq === seq - 1;
    const isEpochRight = !this.#rules.epochChecked || head.epoch === entry.epoch;
    if (!isSeqRight || !isEpochRight) {
      if (!request.awaited && head.epoch > entry.epoch) this.witnessed.add('a late append was fenced off');
      if (request.awaited) this.#appendRefused(draft, request.from, head);
      return;
    }
    if (head.seq !== seq - 1)
      breakPromise(draft, 'head-not-dense', `the head went from ${head.seq} to ${seq}`);
    if (draft.declaredFailed.includes(entry.commitId))
      breakPromise(draft, 'failure-not-final', `${entry.commitId} was declared failed and is committed now`);
    head.seq = seq;
    head.commitId = entry.commitId;
    if (this.#isDynamo) head.body = entry;
    else draft.items[seq - 1] = entry;
    draft.history[seq - 1] = entry;
    if (request.awaited) this.#appendDone(draft, request.from);
    else this.witnessed.add('an append was executed after its sender gave up waiting');
  }

  // ---- taking over ----

  #beginTakeover(draft: AppendState, index: number): void {
    const agent = draft.agents[index]!;
    draft.left.takeovers--;
    agent.hasActed = true;
    agent.seen = { holder: draft.head.holder, epoch: draft.head.epoch };
    agent.phase = 'raising';
    // Mutant: what the agent knows was read before the raise.
    if (!this.#rules.raisesBeforeReading) Object.assign(agent, applyAll(draft, readCommittedLog(draft)));
    insertSorted(draft.requests, { kind: 'raise', from: index, awaited: true, seen: agent.seen });
  }

  #raised(draft: AppendState, index: number): void {
    const agent = draft.agents[index]!;
    agent.epoch = draft.head.epoch;
    agent.seen = null;
    if (this.#rules.raisesBeforeReading) {
      agent.phase = 'loading';
      return;
    }
    agent.seq = draft.head.seq;
    this.#sendEntry(draft, index, []);
  }

  /**
   * Section 2: a raise whose reply was lost is read back too; ours if the head says so, sent again if
   * unmoved.
   */
  #resolveRaise(draft: AppendState, index: number): void {
    const agent = draft.agents[index]!;
    const { head } = draft;
    const seen = agent.seen!;
    if (head.holder === agentName(index) && head.epoch === seen.epoch + 1) {
      this.witnessed.add('an unknown raise was found done');
      this.#raised(draft, index);
    } else if (head.holder === seen.holder && head.epoch === seen.epoch) {
      agent.phase = 'raising';
      insertSorted(draft.requests, { kind: 'raise', from: index, awaited: true, seen });
    } else {
      this.#stop(draft, index);
    }
  }

  #readHead(draft: AppendState, index: number): void {
    const agent = draft.agents[index]!;
    if (draft.head.epoch !== agent.epoch) {
      this.#stop(draft, index);
      return;
    }
    const { seq, trimmedThrough, body } = draft.head;
    agent.headRead = { seq, trimmedThrough, body };
    agent.phase = 'reading';
    // Without a trim, nothing that happens between the two reads can show: they may as well be one.
    if (this.#bounds.trims === 0) this.#readLog(draft, index);
  }

  /**
   * Section 2: checkpoint and log to the head. What a rival trims between the two reads makes it start again.
   */
  #readLog(draft: AppendState, index: number): void {
    const agent = draft.agents[index]!;
    const through = agent.headRead!;
    if (draft.head.trimmedThrough > through.trimmedThrough) {
      this.witnessed.add('a takeover began its reading again because of a trim');
      agent.headRead = null;
      agent.phase = 'loading';
      return;
    }
    const entries: (Entry | null)[] = [];
    for (let seq = 1; seq <= through.seq; seq++) {
      const isNewest = this.#isDynamo && seq === through.seq;
      entries.push(
        seq <= through.trimmedThrough
          ? draft.history[seq - 1]!
          : isNewest
            ? through.body
            : (draft.items[seq - 1] ?? null),
      );
    }
    if (through.trimmedThrough > 0) this.witnessed.add('a takeover loaded a trimmed log');
    Object.assign(agent, applyAll(draft, entries));
    agent.headRead = null;
    if (this.#isDynamo && agent.seq > 0 && this.#rules.takeoverCopies) {
      agent.uncopied = through.body;
      agent.takesOver = true;
      this.#sendCopy(draft, index);
    } else {
      this.#sendEntry(draft, index, []);
    }
  }

  // ---- appending ----

  #sendSlice(draft: AppendState, index: number, slice: number): void {
    const agent = draft.agents[index]!;
    // Mutant: the copy goes out, but nobody waits for it.
    if (agent.uncopied !== null) {
      const copy: Request = {
        kind: 'copy',
        from: index,
        awaited: false,
        seq: agent.seq,
        entry: agent.uncopied,
      };
      insertSorted(draft.requests, copy);
      agent.uncopied = null;
    }
    this.#sendEntry(draft, index, [slice]);
  }

  /** Section 2: an entry holds the decision, base offset included; it is fixed before it is sent. */
  #sendEntry(draft: AppendState, index: number, slices: readonly number[]): void {
    const agent = draft.agents[index]!;
    const seq = agent.seq + 1;
    const commitId = `${agentName(index)}${agent.epoch}.${seq}`;
    agent.outstanding = { commitId, epoch: agent.epoch, base: agent.next, slices };
    agent.phase = 'appending';
    agent.takesOver = false;
    const { outstanding: entry } = agent;
    insertSorted(draft.requests, { kind: 'append', from: index, awaited: true, seq, entry });
    if (this.#isDynamo && !this.#rules.copiesOnlyCommitted)
      insertSorted(draft.requests, { kind: 'copy', from: index, awaited: false, seq, entry });
  }

  /** Section 2: a duplicate answers its first offset; what the state does not name is appended. */
  #retrySlice(draft: AppendState, index: number, slice: number): void {
    draft.left.retries--;
    const offset = draft.agents[index]!.offsets[slice] ?? -1;
    if (offset === -1) {
      this.#sendSlice(draft, index, slice);
      return;
    }
    this.witnessed.add('a duplicate was answered with its first offset');
    acknowledge(draft, slice, offset);
  }

  /** The outstanding entry is committed: it is applied, its clients are answered. */
  #appendDone(draft: AppendState, index: number): void {
    const agent = draft.agents[index]!;
    const entry = agent.outstanding!;
    for (const slice of entry.slices) {
      setOffset(agent.offsets, slice, agent.next);
      acknowledge(draft, slice, agent.next);
      agent.next++;
    }
    agent.seq++;
    agent.outstanding = null;
    if (this.#isDynamo) agent.uncopied = entry;
    agent.phase = 'serving';
  }

  /**
   * The head is not as the entry wants it. Our own commitId there means that an earlier send of it was done.
   */
  #appendRefused(draft: AppendState, index: number, found: HeadFound): void {
    const agent = draft.agents[index]!;
    if (found.commitId === agent.outstanding!.commitId && found.seq === agent.seq + 1) {
      if (this.#rules.knowsOwnConflict) {
        this.witnessed.add('a resend conflicted with itself and was done');
        this.#appendDone(draft, index);
      } else {
        this.#declareFailed(draft, index);
      }
    } else if (this.#rules.stopsAtForeignCommit) {
      agent.phase = 'append-unknown';
    } else {
      agent.seq = found.seq;
      agent.epoch = found.epoch;
      agent.outstanding = null;
      agent.phase = 'serving';
    }
  }

  /** Section 2, unknown outcome: look for the commitId first; then the epoch; then the same bytes again. */
  #resolveAppend(draft: AppendState, index: number): void {
    const agent = draft.agents[index]!;
    const { head } = draft;
    const seq = agent.seq + 1;
    const isFenced = head.epoch > agent.epoch;
    if (isFenced && !this.#rules.looksForCommitIdFirst) {
      this.#declareFailed(draft, index);
      return;
    }
    const isReached = head.seq >= seq;
    const entry = !isReached ? null : entryAt(draft, seq);
    const isOurs = this.#rules.comparesCommitId
      ? entry?.commitId === agent.outstanding!.commitId
      : isReached && seq > head.trimmedThrough;
    if (isOurs) {
      this.witnessed.add(`an unknown append was found done${isFenced ? ' under a higher epoch' : ''}`);
      this.#appendDone(draft, index);
      if (isFenced) this.#stop(draft, index);
    } else if (isReached && seq <= head.trimmedThrough && this.#rules.trimmedStaysUnknown) {
      this.witnessed.add('an append whose seq was trimmed stayed unknown');
      this.#stop(draft, index);
    } else if (isReached || isFenced) {
      this.#declareFailed(draft, index);
    } else {
      this.#resend(draft, index);
    }
  }

  #resend(draft: AppendState, index: number): void {
    const agent = draft.agents[index]!;
    // Mutant: a slice that came meanwhile rides along under the same commitId.
    if (!this.#rules.resendsIdenticalBytes && draft.acknowledged.length < this.#bounds.slices) {
      const outstanding = agent.outstanding!;
      agent.outstanding = { ...outstanding, slices: [...outstanding.slices, draft.acknowledged.length] };
      draft.acknowledged.push(-1);
    }
    const entry = agent.outstanding!;
    insertSorted(draft.requests, { kind: 'append', from: index, awaited: true, seq: agent.seq + 1, entry });
    agent.phase = 'appending';
  }

  /** "Never": the clients are told that their slices will not be there. */
  #declareFailed(draft: AppendState, index: number): void {
    const { commitId } = draft.agents[index]!.outstanding!;
    if (draft.history.some((entry) => entry.commitId === commitId))
      breakPromise(draft, 'failure-not-final', `${commitId} is declared failed and is committed`);
    if (!draft.declaredFailed.includes(commitId)) insertSorted(draft.declaredFailed, commitId);
    this.witnessed.add('an append was declared failed for ever');
    this.#stop(draft, index);
  }

  // ---- DynamoDB's copies, time, stopping ----

  #sendCopy(draft: AppendState, index: number): void {
    const agent = draft.agents[index]!;
    const { seq, uncopied: entry } = agent;
    insertSorted(draft.requests, { kind: 'copy', from: index, awaited: true, seq, entry: entry! });
    agent.phase = 'copying';
  }

  #copyConfirmed(draft: AppendState, index: number): void {
    const agent = draft.agents[index]!;
    agent.uncopied = null;
    if (agent.takesOver) this.#sendEntry(draft, index, []);
    else agent.phase = 'serving';
  }

  /** The reply is waited for no longer; the request stays under way. */
  #timeOut(draft: AppendState, index: number): void {
    const agent = draft.agents[index]!;
    draft.left.timeouts--;
    draft.requests = abandonRequests(draft.requests, index);
    if (agent.phase === 'raising') agent.phase = 'raise-unknown';
    else if (agent.phase === 'copying') this.#sendCopy(draft, index);
    else if (this.#rules.readsBackUnknown) agent.phase = 'append-unknown';
    else this.#appendDone(draft, index);
  }

  #stop(draft: AppendState, index: number): void {
    draft.requests = abandonRequests(draft.requests, index);
    draft.agents[index] = idleAgent(true);
  }

  violation(state: AppendState): Violation<AppendViolation> | null {
    return state.broken ?? appendViolation(state);
  }
}

/** Tells a slice's client its offset; a client that was told another one has lost its record. */
function acknowledge(draft: AppendState, slice: number, offset: number): void {
  const told = draft.acknowledged[slice]!;
  if (told !== -1 && told !== offset)
    breakPromise(draft, 'acknowledged-lost', `slice ${slice} was acknowledged at ${told} and at ${offset}`);
  draft.acknowledged[slice] = offset;
}

function inWords(request: Request): string {
  const whose = `${agentName(request.from)}'s ${request.awaited ? '' : 'late '}${request.kind}`;
  switch (request.kind) {
    case 'raise':
      return `${whose} above epoch ${request.seen.epoch}`;
    case 'append':
    case 'copy':
      return `${whose} of entry ${request.seq}, ${entryInWords(request.entry)}`;
    case 'trim':
      return `${whose} through ${request.through}`;
    case 'release':
      return `${whose} of epoch ${request.epoch}`;
  }
}
