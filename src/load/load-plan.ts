/**
 * What a run will do: a scenario with the options applied, checked, and divided among the generators. Owns: defaults,
 * bounds and the arithmetic of records. Does not own: the scenarios' sizes (scenarios), parsing of flags (cli/).
 * Pure.
 *
 * Record numbers: generator g of G sends the records g, g + G, g + 2G, ... over the whole run, to the partitions
 * g, g + G, ..., so that a number says who sent it and when in its order.
 */
import { PARTITIONS_PER_TOPIC_MAX } from '../core/ids.ts';
import { RECORDS_PER_REQUEST_MAX } from '../core/limits.ts';
import type { Phase, Scenario } from './scenarios.ts';

export interface PlanOptions {
  partitions?: number;
  batches?: number;
  valueBytes?: number;
  perRequest?: number;
  /** Records a second: a fixed rate instead of the scenario's pace. */
  ratePerS?: number;
  durationMs?: number;
  connections?: number;
  inFlight?: number;
  generators?: number;
  seed?: number;
  warmUpMs?: number;
}

export interface PlannedPhase extends Omit<Phase, 'batches'> {
  /** Of all generators, at most. */
  records: number;
}

export interface LoadPlan {
  scenario: string;
  partitions: number;
  valueBytes: number;
  perRequest: number;
  /** Of all generators together. */
  connections: number;
  inFlight: number;
  generators: number;
  seed: number;
  /** The first so many ms of the measured phase are not in `produce_ms`. */
  warmUpMs: number;
  phases: PlannedPhase[];
  /** Of all phases. */
  records: number;
}

/** A record's number is 32 bits. Verification keeps 13 bytes of memory for each. */
export const RECORDS_MAX = 2 ** 31;
export const GENERATORS_MAX = 16;
/** At 10,000 requests a second enough for answers that take a second and a half. */
const IN_FLIGHT_AT_RATE = 16_384;
/** The shortest JSON text that says which record it is and that nothing of it was changed. */
export const VALUE_BYTES_MIN = 10;

/** The options do not give a run that can be made. */
export class PlanError extends Error {
  override readonly name = 'PlanError';
}

export function makePlan(scenario: Scenario, options: PlanOptions): LoadPlan {
  const partitions = options.partitions ?? scenario.partitions;
  const perRequest = options.perRequest ?? scenario.perRequest;
  const connections = options.connections ?? scenario.connections;
  // At a rate the number must not be what bounds it.
  const ownInFlight = options.ratePerS === undefined ? scenario.inFlight : IN_FLIGHT_AT_RATE;
  const inFlight = options.inFlight ?? ownInFlight;
  const generators = Math.min(options.generators ?? 1, partitions, connections, GENERATORS_MAX);
  if (partitions > PARTITIONS_PER_TOPIC_MAX) {
    throw new PlanError(`--partitions: a topic has at most ${PARTITIONS_PER_TOPIC_MAX}`);
  }
  if (perRequest > RECORDS_PER_REQUEST_MAX) {
    throw new PlanError(`--per-request: a request takes at most ${RECORDS_PER_REQUEST_MAX} records`);
  }
  if (inFlight < connections) {
    throw new PlanError(`--in-flight (${inFlight}) must not be below --connections (${connections})`);
  }
  const phases = scenario.phases.map((phase) => planPhase(phase, partitions, options));
  const records = phases.reduce((sum, phase) => sum + phase.records, 0);
  if (records > RECORDS_MAX) {
    throw new PlanError(`${records} records are more than one run can tell apart (${RECORDS_MAX})`);
  }
  return {
    scenario: scenario.name,
    partitions,
    valueBytes: options.valueBytes ?? scenario.valueBytes,
    perRequest,
    connections,
    inFlight,
    generators,
    seed: options.seed ?? 1,
    warmUpMs: options.warmUpMs ?? 0,
    phases,
    records,
  };
}

function planPhase(phase: Phase, partitions: number, options: PlanOptions): PlannedPhase {
  const { batches, ...rest } = phase;
  const hasRate = phase.pace.kind === 'rate';
  const isAtRate = hasRate || (phase.isMeasured && options.ratePerS !== undefined);
  // What only prepares a measurement ends by its records.
  const asked = phase.isMeasured || hasRate ? options.durationMs : undefined;
  const durationMs = asked ?? (hasRate ? phase.durationMs : null);
  let records = (options.batches ?? batches) * partitions;
  let { pace } = phase;
  if (isAtRate) {
    const recordsPerS = options.ratePerS ?? (pace as { recordsPerS: number }).recordsPerS;
    pace = { kind: 'rate', recordsPerS };
    if (durationMs !== null) records = Math.ceil((recordsPerS * durationMs) / 1000);
  } else if (pace.kind === 'bursts' && asked !== undefined) {
    pace = { ...pace, everyMs: asked / pace.count };
  }
  return { ...rest, pace, durationMs, records };
}

/** Records of one generator out of so many of all, in proportion to its partitions. */
export function shareOf(records: number, plan: LoadPlan, generator: number): number {
  const before = partitionsBelow(plan, generator);
  const through = partitionsBelow(plan, generator + 1);
  return Math.floor((records * through) / plan.partitions) - Math.floor((records * before) / plan.partitions);
}

/** Partitions of the generators below this one. */
function partitionsBelow({ partitions, generators }: LoadPlan, generator: number): number {
  let sum = 0;
  for (let g = 0; g < generator; g++) sum += Math.ceil((partitions - g) / generators);
  return sum;
}
