/**
 * What a run of the harness is given. Owns: the type. Does not own: where it comes from (cli/load). Main thread.
 */
import type { DatabaseCounter, StatementCount } from '../../storage/metadata/database-counter.ts';
import type { Clock } from '../core/clock.ts';
import type { Random } from '../core/random.ts';
import type { ClusterPlan } from './cluster-story.ts';
import type { Prices } from './cost.ts';
import type { LoadPlan } from './load-plan.ts';
import type { OwnBrokerOptions } from './own-broker.ts';

/** What a run is doing, for a progress bar. */
export interface LoadProgress {
  stage: string;
  done: number;
  total: number;
  ratePerS: number;
  p99Ms: number;
}

export interface RunLoadOptions {
  plan: LoadPlan;
  /** A broker that runs already; null: one of its own. */
  url: string | null;
  own: OwnBrokerOptions;
  /** Several brokers of its own, and what happens to them; null: one. */
  cluster: ClusterPlan | null;
  verify: boolean;
  /** Measures how long the own broker takes to start on what the run left. */
  restart: boolean;
  /** Measures a bare echo server under the same load, before and after. */
  echo: boolean;
  database: {
    /** What the broker's own count of statements is. */
    ownCount: Omit<StatementCount, 'statements'>;
    /** Counts at the broker's metadata store; null: the broker's own count must do. The run closes it. */
    counter: DatabaseCounter | null;
  };
  prices: Prices;
  command: string;
  clock: Clock;
  random: Random;
  signal: AbortSignal;
  progress(progress: LoadProgress): void;
}
