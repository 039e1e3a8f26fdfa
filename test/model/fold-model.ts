/**
 * Model of pages, checkpoints, the pointer, trimming, merging and readers. One shard, one or two partitions,
 * slices of one record; appends are atomic here (append-model.ts has their unknown outcomes), while
 * everything else that a holder sends may be executed at any later moment.
 * Owns: the steps. Does not own: the state's shape (fold-state.ts), what must hold (fold-promise.ts), objects
 * (object-model.ts). Main thread.
 */
import type { Model, TakeStep, Violation } from './explorer.ts';
import { breakPromise, committedNext, foldViolation, pageFor, resolve, truthOf } from './fold-promise.ts';
import {
  copyFoldState,
  type DeletePage,
  type FoldBounds,
  type FoldRequest,
  type FoldRules,
  type FoldState,
  type FoldViolation,
  type Holder,
  idleHolder,
  idleReader,
  initialFoldState,
  type Job,
  type Page,
  type PartitionIndex,
  type PutPage,
  type Snapshot,
  UNCONFIRMED,
} from './fold-state.ts';
import { abandonRequests, agentName, distinctRequests, insertSorted } from './in-flight.ts';

type Step = (describe: () => string, change: (draft: FoldState) => void) => void;

export class FoldModel implements Model<FoldState, FoldViolation> {
  readonly witnessed = new Set<string>();
  readonly #rules: FoldRules;
  readonly #bounds: FoldBounds;

  constructor(rules: FoldRules, bounds: FoldBounds) {
    this.#rules = rules;
    this.#bounds = bounds;
  }

  initial(): FoldState {
    return initialFoldState(this.#bounds);
  }

  steps(state: FoldState, take: TakeStep<FoldState>): void {
    const step: Step = (describe, change) => {
      const draft = copyFoldState(state);
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
    for (const index of state.holders.keys()) this.#holderSteps(state, index, step);
    if (state.reader.readsLeft > 0) this.#readerSteps(state, step);
  }

  #holderSteps(state: FoldState, index: number, step: Step): void {
    const holder = state.holders[index]!;
    const { head, left } = state;
    const name = agentName(index);
    if (holder.phase === 'idle') {
      // Agents are alike: the next new one is always the first that has not acted.
      const isNext = index === 0 || state.holders[index - 1]!.hasActed;
      if (left.takeovers > 0 && isNext)
        step(
          () =>
            `${name} raises the epoch to ${head.epoch + 1} and reads the pointer: ${head.pointer.through}`,
          (draft) => this.#raise(draft, index),
        );
      return;
    }
    if (holder.epoch !== head.epoch)
      step(
        () => `${name} learns that it is no longer the holder`,
        (draft) => this.#stop(draft, index),
      );
    if (holder.phase === 'loading') {
      if (holder.epoch === head.epoch)
        step(
          () => `${name} loads checkpoint ${holder.pointer!.through} and the log through ${head.seq}`,
          (draft) => this.#load(draft, index),
        );
      return;
    }
    this.#commitSteps(state, index, step);
    if (holder.job === null) this.#foldSteps(state, index, step);
    else if (left.timeouts > 0)
      step(
        () => `${name} waits no longer for its ${holder.job!.kind}`,
        (draft) => this.#giveUp(draft, index),
      );
  }

  /** Section 2: an append succeeds if head and epoch are what the writer believes. */
  #commitSteps(state: FoldState, index: number, step: Step): void {
    const holder = state.holders[index]!;
    const { head, left } = state;
    if (head.epoch !== holder.epoch || head.seq !== holder.seq || holder.hasUnconfirmed) return;
    const name = agentName(index);
    for (const [partition, { next }] of holder.partitions.entries()) {
      if (left.slices > 0)
        step(
          () => `${name} commits entry ${head.seq + 1}: a slice at offset ${next} of partition ${partition}`,
          (draft) => {
            draft.left.slices--;
            this.#commit(draft, index, { kind: 'slice', partition, offset: next });
          },
        );
      if (left.merges > 0 && next > 0)
        step(
          () => `${name} commits entry ${head.seq + 1}: Merged of partition ${partition} below ${next}`,
          (draft) => {
            draft.left.merges--;
            this.#commit(draft, index, { kind: 'merged', partition, next });
          },
        );
    }
  }

  /**
   * What a serving holder does in the background: pages, checkpoint and pointer, trim, deletion of chunks.
   */
  #foldSteps(state: FoldState, index: number, step: Step): void {
    const holder = state.holders[index]!;
    const { head, left } = state;
    const name = agentName(index);
    const { through } = head.pointer;
    const hasUnpaged = holder.partitions.some(({ paged, next }) => paged < next);
    if (left.pageOuts > 0 && hasUnpaged)
      step(
        () => `${name} sends pages that fold the log through ${holder.seq}`,
        (draft) => this.#sendPages(draft, index),
      );
    const fold = this.#foldToCheckpoint(holder);
    const isWritten = state.checkpoints.some((c) => c.through === fold?.through && c.writer === name);
    if (left.checkpoints > 0 && fold !== null && !isWritten)
      step(
        () => `${name} writes checkpoint ${fold.through} and sends the pointer's move to it`,
        (draft) => this.#sendCheckpoint(draft, index, fold),
      );
    const trimThrough = this.#rules.trimsThroughReadBack ? through : holder.pointerSent;
    if (left.trims > 0 && trimThrough > head.trimmedThrough)
      step(
        () => `${name} reads the pointer, ${through}, and sends a trim through ${trimThrough}`,
        (draft) => {
          draft.left.trims--;
          const request: FoldRequest = { kind: 'trim', from: index, awaited: false, through: trimThrough };
          insertSorted(draft.requests, request);
        },
      );
    if (left.chunkDeletes > 0 && through > 0)
      step(
        () => `${name} reads the pointer, ${through}, and sends a deletion of old checkpoint chunks`,
        (draft) => {
          draft.left.chunkDeletes--;
          const { pointer } = draft.head;
          insertSorted(draft.requests, { kind: 'delete-chunks', from: index, awaited: false, pointer });
        },
      );
  }

  // ---- the store ----

  #execute(draft: FoldState, request: FoldRequest): void {
    const { head } = draft;
    switch (request.kind) {
      case 'put-page':
        this.#executePutPage(draft, request);
        break;
      case 'delete-page': {
        const pages = draft.pages[request.partition]!;
        const at = pages.findIndex((page) => page.base === request.base && page.stamp < request.stamp);
        if (at >= 0) pages.splice(at, 1);
        break;
      }
      case 'move-pointer':
        this.#executeMovePointer(draft, request);
        break;
      case 'trim':
        draft.isInLog.fill(false, 0, request.through);
        head.trimmedThrough = Math.max(head.trimmedThrough, request.through);
        break;
      case 'delete-chunks':
        draft.checkpoints = draft.checkpoints.filter(({ through, writer }) =>
          this.#rules.deletesChunksOnlyBelow
            ? through >= request.pointer.through
            : through === request.pointer.through && writer === request.pointer.writer,
        );
        this.witnessed.add('old checkpoint chunks were deleted');
        break;
    }
    if (request.awaited) this.#replied(draft, request.from);
  }

  /** Section 2: a store never replaces a higher stamp by a lower one. */
  #executePutPage(draft: FoldState, { partition, page }: PutPage): void {
    const pages = draft.pages[partition]!;
    const at = pages.findIndex(({ base }) => base >= page.base);
    const found = at >= 0 && pages[at]!.base === page.base ? pages[at]! : null;
    if (found !== null && this.#rules.stampsCompared && found.stamp >= page.stamp) {
      this.witnessed.add('a late page lost against a higher stamp');
      return;
    }
    if (found !== null) pages[at] = page;
    else pages.splice(at >= 0 ? at : pages.length, 0, page);
    const isMerge = page.refs.some((ref) => ref > 0 && draft.history[ref - 1]!.kind === 'merged');
    if (isMerge) this.witnessed.add('a merge was folded into a page');
  }

  /** Section 2: the pointer moves forward only, current epoch only. */
  #executeMovePointer(draft: FoldState, request: FoldRequest & { kind: 'move-pointer' }): void {
    const { head } = draft;
    const isCurrent = request.epoch === head.epoch;
    const isForward = request.pointer.through > head.pointer.through;
    if (!isCurrent) this.witnessed.add('a pointer of an old epoch was refused');
    if (!isForward) this.witnessed.add('a pointer that would go back was refused');
    if (this.#rules.pointerNeedsEpoch && !isCurrent) return;
    if (this.#rules.pointerForwardOnly && !isForward) return;
    head.pointer = request.pointer;
  }

  // ---- taking over ----

  /**
   * Section 2: the epoch is raised first; then the pointer is read (that the raise may fail is elsewhere).
   */
  #raise(draft: FoldState, index: number): void {
    const holder = draft.holders[index]!;
    draft.left.takeovers--;
    draft.head.epoch++;
    holder.hasActed = true;
    holder.epoch = draft.head.epoch;
    holder.pointer = draft.head.pointer;
    holder.phase = 'loading';
  }

  /**
   * Section 2: start-up = checkpoint + tail. The open pages are read too, for the holder goes on with them.
   */
  #load(draft: FoldState, index: number): void {
    const holder = draft.holders[index]!;
    const { through, writer } = holder.pointer!;
    const checkpoint = draft.checkpoints.find((c) => c.through === through && c.writer === writer);
    if (checkpoint === undefined && through > 0) {
      breakPromise(draft, 'startup-incomplete', `start-up finds no checkpoint ${through} of ${writer}`);
      return;
    }
    holder.partitions = draft.pages.map((_, partition) => {
      const paged = checkpoint?.paged[partition] ?? 0;
      const next = checkpoint?.next[partition] ?? 0;
      const heldBase = this.#openBase(paged);
      const held = draft.pages[partition]!.find(({ base }) => base === heldBase)?.refs ?? [];
      if (heldBase + held.length < paged)
        breakPromise(draft, 'startup-incomplete', `start-up finds no open page at ${heldBase}`);
      return { next, paged, heldBase, held: held.slice(0, paged - heldBase), isMerged: false };
    });
    holder.seq = through;
    for (let seq = through + 1; seq <= draft.head.seq; seq++) {
      if (!draft.isInLog[seq - 1]) {
        breakPromise(
          draft,
          'startup-incomplete',
          `entry ${seq} is neither in the log nor under the checkpoint`,
        );
        return;
      }
      apply(draft, holder, seq);
    }
    for (const [partition, { next }] of holder.partitions.entries()) {
      const committed = committedNext(draft, partition);
      if (next !== committed)
        breakPromise(
          draft,
          'offset-given-twice',
          `the new holder goes on at ${next}, committed is ${committed}`,
        );
    }
    if (draft.head.trimmedThrough > 0)
      this.witnessed.add('a takeover started from a checkpoint after a trim');
    if (writer !== '' && writer !== agentName(index))
      this.witnessed.add('a takeover started from the checkpoint of another holder');
    holder.pointer = null;
    holder.phase = 'serving';
  }

  #commit(draft: FoldState, index: number, entry: FoldState['history'][number]): void {
    draft.head.seq++;
    draft.history.push(entry);
    draft.isInLog.push(true);
    apply(draft, draft.holders[index]!, draft.head.seq);
  }

  // ---- pages, checkpoint, pointer ----

  /** The page that an offset belongs to begins here; or, for the mutant, wherever paging-out has come to. */
  #openBase(offset: number): number {
    return this.#rules.boundsFromFold ? offset - (offset % this.#bounds.pageRefs) : offset;
  }

  /** Section 2: for a checkpoint at S the pages are written out through S, and all must be confirmed. */
  #sendPages(draft: FoldState, index: number): void {
    const holder = draft.holders[index]!;
    const { pageRefs } = this.#bounds;
    draft.left.pageOuts--;
    holder.hasUnconfirmed = !this.#rules.foldsOnlyConfirmed;
    const deletes: DeletePage[] = [];
    let waiting = 0;
    for (const [partition, part] of holder.partitions.entries()) {
      if (part.paged === part.next) continue;
      const covers = part.isMerged && !this.#rules.mergeRewritesInPlace;
      for (const page of this.#pagesOf(part, holder.seq, covers)) {
        insertSorted(draft.requests, { kind: 'put-page', from: index, awaited: true, partition, page });
        waiting++;
      }
      if (!covers) continue;
      for (let base = pageRefs; base < part.next; base += pageRefs)
        deletes.push({ kind: 'delete-page', from: index, awaited: true, partition, base, stamp: holder.seq });
    }
    const next = holder.partitions.map((part) => part.next);
    holder.job = { kind: 'pages', waiting, through: holder.seq, next, deletes };
  }

  #pagesOf(part: PartitionIndex, seq: number, covers: boolean): Page[] {
    const { heldBase } = part;
    // Mutant: the entry under way, at seq + 1, is folded in as if it were confirmed.
    const refs = this.#rules.foldsOnlyConfirmed ? part.held : [...part.held, UNCONFIRMED];
    const stamp = this.#rules.foldsOnlyConfirmed ? seq : seq + 1;
    const isOnePage = covers || !this.#rules.boundsFromFold;
    const width = isOnePage ? refs.length : this.#bounds.pageRefs;
    const pages: Page[] = [];
    for (let at = 0; at < refs.length; at += width)
      pages.push({ base: heldBase + at, stamp, refs: refs.slice(at, at + width) });
    return pages;
  }

  /**
   * What a checkpoint may say: the newest fold whose pages are confirmed (or, for the mutant, the present).
   */
  #foldToCheckpoint(holder: Holder): Snapshot | null {
    if (this.#rules.pagesConfirmedFirst) return holder.snapshot;
    if (holder.seq === 0) return null;
    const next = holder.partitions.map((part) => part.next);
    return { through: holder.seq, next, paged: holder.partitions.map((part) => part.paged) };
  }

  #sendCheckpoint(draft: FoldState, index: number, fold: Snapshot): void {
    const holder = draft.holders[index]!;
    const { through, next } = fold;
    const writer = agentName(index);
    draft.left.checkpoints--;
    insertSorted(draft.checkpoints, { ...fold, writer });
    const pointer = { through, writer };
    const request: FoldRequest = {
      kind: 'move-pointer',
      from: index,
      awaited: true,
      epoch: holder.epoch,
      pointer,
    };
    insertSorted(draft.requests, request);
    holder.job = { kind: 'pointer', waiting: 1, through, next, deletes: [] };
    if (!this.#rules.trimsThroughReadBack) holder.pointerSent = through;
  }

  /** One reply of the holder's job came; with the last one the job is done. */
  #replied(draft: FoldState, index: number): void {
    const holder = draft.holders[index]!;
    const job = holder.job!;
    if (job.waiting > 1) {
      holder.job = { ...job, waiting: job.waiting - 1 };
    } else if (job.deletes.length > 0) {
      for (const request of job.deletes) insertSorted(draft.requests, request);
      holder.job = { ...job, waiting: job.deletes.length, deletes: [] };
    } else {
      holder.job = null;
      if (job.kind === 'pages') this.#pagesConfirmed(draft, holder, job);
    }
  }

  /** Refs in confirmed pages need not be held any longer, unless a merge rewrote them meanwhile. */
  #pagesConfirmed(draft: FoldState, holder: Holder, job: Job): void {
    const { through, next } = job;
    holder.snapshot = { through, next, paged: next };
    const since = draft.history.slice(through, holder.seq);
    for (const [partition, part] of holder.partitions.entries()) {
      const isRewritten = since.some((entry) => entry.kind === 'merged' && entry.partition === partition);
      if (isRewritten) {
        this.witnessed.add('pages were confirmed after a merge had rewritten them');
        continue;
      }
      part.paged = next[partition]!;
      part.isMerged = false;
      const keepFrom = this.#openBase(part.paged);
      part.held = part.held.slice(keepFrom - part.heldBase);
      part.heldBase = keepFrom;
    }
  }

  #giveUp(draft: FoldState, index: number): void {
    draft.left.timeouts--;
    draft.requests = abandonRequests(draft.requests, index);
    draft.holders[index]!.job = null;
  }

  #stop(draft: FoldState, index: number): void {
    draft.requests = abandonRequests(draft.requests, index);
    draft.holders[index] = idleHolder(true);
  }

  // ---- readers ----

  /** A reader reads the head, then page and tail in either order, none of it at one instant. */
  #readerSteps(state: FoldState, step: Step): void {
    const { reader, head } = state;
    if (reader.phase === 'idle') {
      for (let partition = 0; partition < this.#bounds.partitions; partition++)
        for (let offset = 0; offset < committedNext(state, partition); offset++)
          step(
            () => `a reader of offset ${offset} reads the head: pointer ${head.pointer.through}`,
            (draft) => {
              const truthAtStart = truthOf(draft, partition, offset);
              const pointer = draft.head.pointer.through;
              Object.assign(draft.reader, { phase: 'first', partition, offset, pointer, truthAtStart });
            },
          );
      return;
    }
    const readsTail = (reader.phase === 'first') === this.#bounds.readerTailFirst;
    step(
      () => `the reader reads the ${readsTail ? 'tail' : 'page'}`,
      (draft) => {
        const isReloading = readsTail && !this.#readTail(draft);
        if (!readsTail) draft.reader.page = pageFor(draft, reader.partition, reader.offset);
        if (isReloading) draft.reader = idleReader(reader.readsLeft - 1);
        else if (reader.phase === 'first') draft.reader.phase = 'second';
        else this.#finishRead(draft);
      },
    );
  }

  /** Section 2: a reader wants a tail that is dense from pointer+1; false if it must reload. */
  #readTail(draft: FoldState): boolean {
    const { reader, head } = draft;
    const tail: number[] = [];
    for (let seq = reader.pointer + 1; seq <= head.seq; seq++) if (draft.isInLog[seq - 1]) tail.push(seq);
    if (tail.length < head.seq - reader.pointer && this.#rules.readerWantsDenseTail) {
      this.witnessed.add('a reader met a gap in the tail and reloaded');
      return false;
    }
    reader.tail = tail;
    return true;
  }

  #finishRead(draft: FoldState): void {
    const { partition, offset, page, tail, truthAtStart, readsLeft } = draft.reader;
    const ref = resolve(draft, partition, offset, page, tail);
    if (ref === 0) breakPromise(draft, 'entry-hidden', `the reader misses committed offset ${offset}`);
    else if (ref !== truthAtStart && ref !== truthOf(draft, partition, offset))
      breakPromise(draft, 'wrong-object', `the reader resolves offset ${offset} to entry ${ref}'s object`);
    this.witnessed.add('a reader found its offset');
    draft.reader = idleReader(readsLeft - 1);
  }

  violation(state: FoldState): Violation<FoldViolation> | null {
    return state.broken ?? foldViolation(state);
  }
}

/** `apply(state, entry)`: a slice adds a ref; a merge names one object for all offsets below its next. */
function apply(draft: FoldState, holder: Holder, seq: number): void {
  const entry = draft.history[seq - 1]!;
  const part = holder.partitions[entry.partition]!;
  holder.seq = seq;
  if (entry.kind === 'slice') {
    if (entry.offset !== part.next)
      breakPromise(
        draft,
        'offset-given-twice',
        `entry ${seq} has base ${entry.offset}, next is ${part.next}`,
      );
    part.held.push(seq);
    part.next++;
  } else {
    part.held = Array.from({ length: entry.next }, () => seq);
    part.heldBase = 0;
    part.paged = 0;
    part.isMerged = true;
  }
}

function inWords(request: FoldRequest): string {
  const whose = `${agentName(request.from)}'s ${request.awaited ? '' : 'late '}${request.kind}`;
  switch (request.kind) {
    case 'put-page': {
      const { base, stamp, refs } = request.page;
      return `${whose} of partition ${request.partition}: base ${base}, stamp ${stamp}, refs to ${refs}`;
    }
    case 'delete-page':
      return `${whose} of partition ${request.partition}: base ${request.base} below stamp ${request.stamp}`;
    case 'move-pointer':
      return `${whose} to ${request.pointer.through} under epoch ${request.epoch}`;
    case 'trim':
      return `${whose} through ${request.through}`;
    case 'delete-chunks':
      return `${whose}, the pointer having been ${request.pointer.through}`;
  }
}
