/**
 * The entry of a pool thread: one long-lived piscina task that is one lane. Owns: nothing but this name, which
 * piscina calls. Runs on a pool thread.
 */
import { type LaneTask, runLane } from './run-lane.ts';

/** Resolves when the lane was told to close. */
export function partitionWorker(task: LaneTask): Promise<void> {
  return runLane(task);
}
