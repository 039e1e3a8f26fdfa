/**
 * The batching worker's side of the lanes: what each is told, in which order. Owns: the ports, gathering answers,
 * and the order of a shard's entries towards a lane that is being (re)opened. Does not own: what is committed
 * (sequencer) or what a lane does with it (lane). Runs in the batching worker.
 *
 * A lane sees each shard as: open-shard, then its committed entries without a gap, then perhaps close-shard.
 * While the tail for a reopened lane is being read, that shard's newer entries wait for it.
 */
import type { ErrorCode, PlainError } from '../src/core/errors.ts';
import { StreamHouseError } from '../src/core/errors.ts';
import { AnswerWriter } from './append-codec.ts';
import type { CommittedEntry, LaneOrder, OpenShardOrder, SharedObject } from './messages.ts';

/** Where orders for a lane go. */
export interface LanePort {
  post(order: LaneOrder): void;
}

interface LaneState {
  port: LanePort;
  answers: AnswerWriter;
  /** Shards whose open-shard order is still being prepared, with the entries that wait behind it. */
  reopening: Map<number, { epoch: number; waiting: CommittedEntry[] }>;
}

interface PageOut {
  shard: number;
  waiting: Set<number>;
  resolve: () => void;
  reject: (error: unknown) => void;
}

export class LaneDesk {
  readonly #laneCount: number;
  readonly #lanes = new Map<number, LaneState>();
  readonly #pageOuts = new Map<number, PageOut>();
  /** Shards that not all lanes have confirmed to have opened, and whom to tell then. */
  readonly #opening = new Map<number, { epoch: number; waiting: Set<number>; done: () => void }>();
  #requestId: number;

  /** Page-outs are numbered from `firstRequestId`: a late reply to an earlier batching worker must meet none of ours. */
  constructor(laneCount: number, firstRequestId: number) {
    this.#laneCount = laneCount;
    this.#requestId = firstRequestId;
  }

  connect(lane: number, port: LanePort): void {
    this.#lanes.set(lane, { port, answers: new AnswerWriter(), reopening: new Map() });
  }

  disconnect(lane: number): void {
    this.#lanes.delete(lane);
    for (const [id, pageOut] of this.#pageOuts) {
      if (!pageOut.waiting.has(lane)) continue;
      this.#pageOuts.delete(id);
      pageOut.reject(new StreamHouseError('thread-lost', `lane ${lane} ended while writing pages out`));
    }
  }

  // -- Shards ------------------------------------------------------------------------------------------

  /** Opens a shard that was just taken on all lanes; `opened` is called when all have confirmed. */
  open(order: OpenShardOrder, opened: () => void): void {
    const waiting = new Set<number>();
    for (let lane = 0; lane < this.#laneCount; lane++) waiting.add(lane);
    this.#opening.set(order.shard, { epoch: order.epoch, waiting, done: opened });
    for (const state of this.#lanes.values()) {
      state.reopening.delete(order.shard);
      state.port.post(order);
    }
  }

  /** A lane confirms. */
  opened(lane: number, shard: number, epoch: number): void {
    const opening = this.#opening.get(shard);
    if (!opening || opening.epoch !== epoch) return;
    opening.waiting.delete(lane);
    if (opening.waiting.size > 0) return;
    this.#opening.delete(shard);
    opening.done();
  }

  close(shard: number): void {
    this.#opening.delete(shard);
    for (const state of this.#lanes.values()) {
      state.reopening.delete(shard);
      state.port.post({ type: 'close-shard', shard });
    }
  }

  /**
   * A lane that was started anew will get this shard: from now on the shard's entries wait for its open-shard
   * order, which the returned function takes when it is ready.
   */
  beginReopen(lane: number, shard: number, epoch: number): (order: OpenShardOrder) => void {
    const state = this.#lanes.get(lane);
    const gate = { epoch, waiting: [] as CommittedEntry[] };
    state?.reopening.set(shard, gate);
    return (order) => {
      // The lane ended again, or the shard was lost or taken anew, while the order was being prepared.
      if (!state || this.#lanes.get(lane) !== state || state.reopening.get(shard) !== gate) return;
      state.reopening.delete(shard);
      state.port.post(order);
      const last = order.tail.length > 0 ? order.tail[order.tail.length - 1].seq : order.pointerSeq;
      const entries = gate.waiting.filter((entry) => entry.seq > last);
      if (entries.length > 0) state.port.post({ type: 'committed', entries, objects: [], answers: null });
    };
  }

  // -- Commits and answers -----------------------------------------------------------------------------

  /** Tells every lane what was committed, with the answers gathered for it so far. */
  committed(entries: CommittedEntry[], objects: SharedObject[]): void {
    for (const state of this.#lanes.values()) {
      let passing = entries;
      if (state.reopening.size > 0) {
        passing = [];
        for (const entry of entries) {
          const gate = state.reopening.get(entry.shard);
          if (gate) gate.waiting.push(entry);
          else passing.push(entry);
        }
      }
      state.port.post({ type: 'committed', entries: passing, objects, answers: state.answers.take() });
    }
  }

  answer(lane: number, slot: number, generation: number, code: ErrorCode | null, baseOffset: number): void {
    this.#lanes.get(lane)?.answers.add(slot, generation, code, baseOffset);
  }

  /** Takes over a plan's answers; they go out with the next `committed` or `flushAnswers`. */
  answerAll(lane: number, answers: AnswerWriter): void {
    this.#lanes.get(lane)?.answers.append(answers);
  }

  /** Sends answers that wait for nothing. */
  flushAnswers(): void {
    for (const state of this.#lanes.values()) {
      const answers = state.answers.take();
      if (answers) state.port.post({ type: 'committed', entries: [], objects: [], answers });
    }
  }

  // -- Pages -------------------------------------------------------------------------------------------

  /** Resolves when every lane has written out its pages of the shard that fold all entries it was told so far. */
  pageOut(shard: number): Promise<void> {
    const requestId = this.#requestId++;
    return new Promise((resolve, reject) => {
      const waiting = new Set<number>();
      for (let lane = 0; lane < this.#laneCount; lane++) {
        const state = this.#lanes.get(lane);
        if (!state || state.reopening.has(shard)) {
          reject(new StreamHouseError('thread-lost', `lane ${lane} is being started again`));
          return;
        }
        waiting.add(lane);
      }
      this.#pageOuts.set(requestId, { shard, waiting, resolve, reject });
      for (const state of this.#lanes.values()) state.port.post({ type: 'page-out', shard, requestId });
    });
  }

  /** A lane confirms its pages, or says why not. */
  pagedOut(lane: number, requestId: number, error: PlainError | null): void {
    const pageOut = this.#pageOuts.get(requestId);
    if (!pageOut) return;
    if (error) {
      this.#pageOuts.delete(requestId);
      pageOut.reject(StreamHouseError.fromPlain(error));
      return;
    }
    pageOut.waiting.delete(lane);
    if (pageOut.waiting.size > 0) return;
    this.#pageOuts.delete(requestId);
    pageOut.resolve();
  }
}
