/** The lane pool's contract on both kinds: piscina's threads, and this thread. */
import { InlineLanePool, ThreadLanePool } from '../../workers/lane-pool.ts';
import { lanePoolContract } from './lane-pool.ts';

lanePoolContract('threads', (laneCount, events) => new ThreadLanePool(laneCount, events));
lanePoolContract('inline', (_laneCount, events) => new InlineLanePool(events));
