/**
 * Benchmarks of planning entries: which appends of a sealed object are accepted, at which offsets, and what each
 * is answered; then encoding what was decided. One thread.
 */
import { encodeEntry } from '../../workers/entry-codec.ts';
import { planSlices, type QueuedPart } from '../../workers/entry-plan.ts';
import { buildAppends } from '../../workers/lane-produce.ts';
import { ShardState } from '../../workers/shard-state.ts';
import { type ProduceShape, produceMessage, WALL_MS } from '../sample-appends.ts';
import { type Suite, TaskSet } from '../suite.ts';
import { sealMessage } from './batch-building.ts';

const BODY_BYTES_MAX = 16 * 1024 * 1024;

function addPlan(tasks: TaskSet, shape: ProduceShape): void {
  const { bytes } = buildAppends(produceMessage(shape), WALL_MS);
  const object = sealMessage(bytes, 1);
  const sealing = { sealedWallMs: WALL_MS, sealedAtMs: 0, shards: [{ shard: 0, epoch: 1 }] };
  const part: QueuedPart = { object, sealing, shard: 0, epoch: 1, slices: object.slices };
  const state = new ShardState(0);
  const never = () => false;
  const { partitions, appendsEach, idempotent } = shape;
  const what = `${partitions} slices x ${appendsEach} appends${idempotent ? ' of producers' : ''}`;
  const per = { items: partitions * appendsEach, itemName: 'append' };
  const plan = () => {
    const body = planSlices(state, [part], BODY_BYTES_MAX, never)?.body;
    if (body?.slices.length !== partitions) throw new Error('not everything was accepted');
    return body;
  };
  tasks.add(`plan, ${what}`, plan, per);
  const encoded = () => encodeEntry({ shard: 0, seq: 1, epoch: 1, timeMs: WALL_MS, ...plan() });
  tasks.add(`plan and encode, ${what}`, encoded, { ...per, details: { 'entry bytes': encoded().length } });
}

export const planningSuite: Suite = {
  name: 'planning',
  title: 'planning: what an entry accepts and answers, per append',
  run(options) {
    const partitions = options.smoke ? 50 : 1_000;
    const tasks = new TaskSet('planning', options);
    const base = { partitions, recordsPerAppend: 1, valueBytes: 10 };
    addPlan(tasks, { ...base, appendsEach: 10 });
    addPlan(tasks, { ...base, appendsEach: 10, idempotent: true });
    addPlan(tasks, { ...base, partitions: partitions * 10, appendsEach: 1 });
    return tasks.run();
  },
};
