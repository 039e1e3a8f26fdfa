/**
 * What happened in a run, counted, so that a simulation in which nothing happens cannot pass. Owns: the kinds,
 * and the taps on the code under test that see what no counter of its own tells. Does not own: any check. The
 * simulation's only thread.
 */
import { StreamHouseError } from '../../src/core/errors.ts';
import { AnswerWriter } from '../../workers/append-codec.ts';
import { LaneDesk } from '../../workers/lane-desk.ts';
import { ShardHolder } from '../../workers/shard-holder.ts';

/** Every kind must have happened in the seeds that the tests run. */
export const COVERAGE_KINDS = [
  'entriesCommitted',
  'recordsAcknowledged',
  'recordsRead',
  'unknownThenCommitted',
  'unknownThenNever',
  'unknownThenDoubtful',
  'resendMetItself',
  'zombieAppendsRefused',
  'zombiePointersRefused',
  'takeovers',
  'takeoversAfterTrim',
  'takeoversLost',
  'staleTakesRefused',
  'takesWhileReleasing',
  'releases',
  'releasesLost',
  'releasesTwice',
  'releasesWhileTaking',
  'releasesInDoubt',
  'releasesFenced',
  'releasesAsleep',
  'releasesDrained',
  'appendsMetRelease',
  'handovers',
  'takenAgain',
  'laneReopensDuringCommits',
  'laneCrashes',
  'workerCrashes',
  'processCrashes',
  'pauses',
  'drains',
  'checkpoints',
  'checkpointsAborted',
  'trims',
  'duplicatesAnswered',
  'splitByRefusal',
  'abandonedRuns',
  'uploadsGivenUp',
  'uploadsHedged',
  'pagesIn',
  'pagesEvicted',
  'pagesBeyondFirst',
  'lowerStampsRefused',
  'topicsDeleted',
  'coldReads',
  'watchesWoken',
] as const;

export type CoverageKind = (typeof COVERAGE_KINDS)[number];
export type CoverageCounts = Record<CoverageKind, number>;

export function noCoverage(): CoverageCounts {
  return Object.fromEntries(COVERAGE_KINDS.map((kind) => [kind, 0])) as CoverageCounts;
}

export function addCoverage(to: CoverageCounts, from: CoverageCounts): void {
  for (const kind of COVERAGE_KINDS) to[kind] += from[kind];
}

/** The counts of the run that is under way; one at a time in a thread. */
let current = noCoverage();
let tapped = false;
let planning = false;
/** Shards whose lane is being reopened, per desk, with whether anything was committed meanwhile. */
const reopening = new WeakMap<LaneDesk, Map<number, boolean>>();

/** Begins a run's counts and puts the taps in, once for the thread. */
export function beginCoverage(): CoverageCounts {
  current = noCoverage();
  if (!tapped) {
    tapped = true;
    tapSettle();
    tapPlan();
    tapReopen();
    tapRelease();
  }
  return current;
}

function tapSettle(): void {
  const settle = ShardHolder.prototype.settle;
  ShardHolder.prototype.settle = async function (planned, first) {
    const verdict = await settle.call(this, planned, first);
    if (first instanceof Error) {
      if (verdict === 'committed') current.unknownThenCommitted++;
      else if (verdict === 'never') current.unknownThenNever++;
      else current.unknownThenDoubtful++;
    }
    return verdict;
  };
}

function tapPlan(): void {
  const plan = ShardHolder.prototype.plan;
  const add = AnswerWriter.prototype.add;
  ShardHolder.prototype.plan = function (bodyBytesMax) {
    planning = true;
    const planned = plan.call(this, bodyBytesMax);
    planning = false;
    if (planned && 'entry' in planned && planned.entry.kind === 'slices') {
      const keys = planned.entry.slices.map((s) => `${s.objectIndex}/${s.topicId}/${s.partition}`);
      if (new Set(keys).size < keys.length) current.splitByRefusal++;
    }
    return planned;
  };
  AnswerWriter.prototype.add = function (slot, generation, code, baseOffset) {
    if (planning && code === 'append-abandoned') current.abandonedRuns++;
    add.call(this, slot, generation, code, baseOffset);
  };
}

function tapRelease(): void {
  const { settleRelease, lose } = ShardHolder.prototype;
  ShardHolder.prototype.settleRelease = async function (first) {
    try {
      await settleRelease.call(this, first);
      if (first instanceof StreamHouseError && first.kind === 'unknown') current.releasesInDoubt++;
    } catch (error) {
      if (error instanceof StreamHouseError && error.code === 'fenced') current.releasesFenced++;
      throw error;
    }
  };
  ShardHolder.prototype.lose = function (each) {
    if (this.phase === 'releasing') current.releasesLost++;
    lose.call(this, each);
  };
}

function tapReopen(): void {
  const beginReopen = LaneDesk.prototype.beginReopen;
  const committed = LaneDesk.prototype.committed;
  LaneDesk.prototype.beginReopen = function (lane, shard, epoch) {
    const ready = beginReopen.call(this, lane, shard, epoch);
    const shards = reopening.get(this) ?? new Map<number, boolean>();
    reopening.set(this, shards.set(shard, false));
    return (order) => {
      if (shards.get(shard)) current.laneReopensDuringCommits++;
      shards.delete(shard);
      ready(order);
    };
  };
  LaneDesk.prototype.committed = function (entries, objects) {
    const shards = reopening.get(this);
    if (shards) for (const { shard } of entries) if (shards.has(shard)) shards.set(shard, true);
    committed.call(this, entries, objects);
  };
}
