/**
 * Commits what is queued: one call for all shards that have something to append and nothing outstanding. Owns: the
 * calls, and telling the lanes what came of them. Does not own: the holders and their queues (sequencer, shard-holder),
 * the certain outcome of one append (shard-log). Runs in the batching worker.
 *
 *   queues -> plans -> appendEntries --- done ---> states -> lanes (index, tail cache, answers)
 *                          ^            '-- in doubt -> settles by itself -> committed | shard lost
 *                          '-- what was queued meanwhile
 */
import type { Clock } from '../src/core/clock.ts';
import { type ErrorCode, operatingError, StreamHouseError } from '../src/core/errors.ts';
import type { AppendOutcome, MetadataStore, ObjectRow } from '../storage/metadata/metadata-store.ts';
import type { PlannedAnswers, QueuedPart } from './entry-plan.ts';
import type { LaneDesk } from './lane-desk.ts';
import type { CommittedEntry, SharedObject } from './messages.ts';
import type { ObjectPipeline } from './object-pipeline.ts';
import {
  type PlannedAnswersOnly,
  type PlannedAppend,
  type ShardHolder,
  verdictCode,
} from './shard-holder.ts';
import type { ThreadCounters } from './shared-counters.ts';

export interface CommitterParts {
  store: MetadataStore;
  clock: Clock;
  counters: ThreadCounters;
  lanes: LaneDesk;
  pipeline: Pick<ObjectPipeline, 'settled' | 'share'>;
  stopped: AbortSignal;
  holders(): Iterable<ShardHolder>;
  lose(holder: ShardHolder, error: unknown): void;
  /** An entry is known to be committed. */
  committed(shard: number, seq: number): void;
  /** Something was settled. */
  changed(): void;
  /** Entries were committed and the lanes were told. */
  published(): void;
}

export class Committer {
  readonly #parts: CommitterParts;
  #committing = false;

  constructor(parts: CommitterParts) {
    this.#parts = parts;
  }

  /** Answers every append of a part that goes no further. */
  failPart(part: QueuedPart, code: ErrorCode): void {
    const { appends } = part.object;
    for (const slice of part.slices) {
      for (let a = slice.firstAppend; a < slice.firstAppend + slice.appendCount; a++) {
        this.#parts.counters.add('appendsAbandonedTotal');
        this.#parts.lanes.answer(appends.lane[a], appends.slot[a], appends.generation[a], code, -1);
      }
    }
    this.#partSettled(part);
  }

  #partSettled(part: QueuedPart): void {
    this.#parts.pipeline.settled(part);
    this.#parts.changed();
  }

  /** One call for all shards that have something to append and nothing outstanding. */
  commit(): void {
    const { counters, stopped, store, holders } = this.#parts;
    if (this.#committing || stopped.aborted) return;
    const plans: PlannedAppend[] = [];
    for (const holder of holders()) {
      while (holder.wantsToAppend) {
        const plan = holder.plan(store.bodyBytesMax);
        if (plan === null) break;
        counters.add('appendsDuplicateTotal', plan.duplicates);
        counters.add('appendsRefusedTotal', plan.refused);
        if ('row' in plan) {
          plans.push(plan);
          continue;
        }
        void this.#answerOnly(holder, plan);
      }
    }
    this.#parts.lanes.flushAnswers();
    if (plans.length === 0) return;
    void this.#append(plans);
  }

  /**
   * Answers of what needs no entry. Duplicates hold at once. A refusal may come of a state that somebody else's
   * entries have overtaken, and a producer may take it for final: it counts only if the shard is held still.
   */
  async #answerOnly(holder: ShardHolder, plan: PlannedAnswersOnly): Promise<void> {
    if (plan.refused > 0) {
      try {
        if (!(await holder.stillHolds())) {
          throw new StreamHouseError('fenced', `shard ${holder.shard} was taken over`);
        }
      } catch (error) {
        for (const part of plan.parts) this.failPart(part, 'not-leader');
        this.#parts.lanes.flushAnswers();
        this.#parts.lose(holder, operatingError(error));
        return;
      }
    }
    this.#answerAll(plan.answers);
    this.#parts.lanes.flushAnswers();
    for (const part of plan.parts) this.#partSettled(part);
  }

  async #append(plans: PlannedAppend[]): Promise<void> {
    const { store, counters, clock } = this.#parts;
    this.#committing = true;
    const startMs = clock.monotonicMs();
    counters.add('appendCallsTotal');
    // All of this incarnation's, so that the number alone tells them apart; several shards name the same.
    const rows = new Map<number, ObjectRow>();
    for (const plan of plans) for (const row of plan.objects) rows.set(row.object.number, row);
    let outcomes: AppendOutcome[] | StreamHouseError;
    try {
      outcomes = await store.appendEntries(
        plans.map((plan) => plan.row),
        [...rows.values()],
      );
      counters.observe('appendMs', clock.monotonicMs() - startMs);
    } catch (error) {
      outcomes = operatingError(error);
    }
    this.#committing = false;
    if (Array.isArray(outcomes)) this.#settleCall(plans, outcomes);
    else for (const plan of plans) void this.#settleOne(plan, outcomes);
    this.commit();
  }

  /** The usual end of a call: all done. What is not done settles by itself. */
  #settleCall(plans: PlannedAppend[], outcomes: AppendOutcome[]): void {
    const done: PlannedAppend[] = [];
    for (let i = 0; i < plans.length; i++) {
      if (outcomes[i].kind === 'done') done.push(plans[i]);
      else void this.#settleOne(plans[i], outcomes[i]);
    }
    this.#publish(done);
  }

  async #settleOne(plan: PlannedAppend, first: unknown): Promise<void> {
    const { holder } = plan;
    try {
      const verdict = await holder.settle(plan, first);
      if (verdict === 'committed') {
        this.#publish([plan]);
        this.commit();
        return;
      }
      this.#parts.counters.add('appendsFencedTotal');
      const code = verdictCode(verdict);
      const failure = new StreamHouseError(
        'fenced',
        `shard ${holder.shard}: entry ${plan.row.seq} is ${verdict}`,
      );
      this.#failPlan(plan, code, failure);
      this.#parts.lose(holder, failure);
    } catch (error) {
      const failure = operatingError(error);
      this.#failPlan(plan, 'store-unknown', failure);
      this.#parts.lose(holder, failure);
    }
  }

  #failPlan(plan: PlannedAppend, code: ErrorCode, failure: StreamHouseError): void {
    plan.holder.outstanding = null;
    for (const part of plan.parts) this.failPart(part, code);
    plan.done?.(failure);
    this.#parts.lanes.flushAnswers();
  }

  /**
   * Entries are committed: into the states, then to the lanes (index first, then answers). An entry may turn out
   * committed after its shard was lost; then only its answers count.
   */
  #publish(plans: PlannedAppend[]): void {
    if (plans.length === 0) return;
    const { counters, clock } = this.#parts;
    const entries: CommittedEntry[] = [];
    const objects: SharedObject[] = [];
    for (const plan of plans) {
      const { holder } = plan;
      entries.push(holder.committed(plan));
      this.#parts.committed(holder.shard, plan.row.seq);
      counters.add('entriesCommittedTotal');
      counters.add('entryBytesTotal', plan.row.body.length);
      if (plan.entry.kind === 'slices') {
        for (const slice of plan.entry.slices) counters.add('recordsCommittedTotal', slice.recordCount);
      }
      for (const part of plan.parts) {
        const shared = this.#parts.pipeline.share(part.object);
        if (shared) {
          objects.push(shared);
          counters.observe('commitMs', clock.monotonicMs() - part.sealing.sealedAtMs);
        }
      }
      if (plan.answers) this.#answerAll(plan.answers);
    }
    this.#parts.lanes.committed(entries, objects);
    for (const plan of plans) {
      for (const part of plan.parts) this.#partSettled(part);
      plan.done?.(null);
    }
    this.#parts.changed();
    this.#parts.published();
  }

  #answerAll(answers: PlannedAnswers): void {
    for (const [lane, writer] of answers) {
      this.#parts.counters.add('appendsAnsweredTotal', writer.count);
      this.#parts.lanes.answerAll(lane, writer);
    }
  }
}
