/**
 * Planning an entry: which batches are accepted, where slices split, what everybody is answered.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { SealedObject } from '../../../workers/batch-builder.ts';
import { encodeEntry, type SlicesEntry } from '../../../workers/entry-codec.ts';
import {
  planSlices,
  type QueuedPart,
  type SlicesPlan,
  type WasAbandoned,
} from '../../../workers/entry-plan.ts';
import { ShardState } from '../../../workers/shard-state.ts';
import { payloadsOf } from '../../sim/payloads.ts';
import { answersOf, partOf, sealSample } from '../../support/sealed-samples.ts';

const BODY_BYTES_MAX = 1 << 20;
const nobody: WasAbandoned = () => false;

function plan(state: ShardState, objects: SealedObject[], wasAbandoned = nobody): SlicesPlan {
  const planned = planSlices(state, objects.map(partOf), BODY_BYTES_MAX, wasAbandoned);
  assert.ok(planned);
  return planned;
}

function applied(state: ShardState, body: SlicesEntry | null): ShardState {
  assert.ok(body);
  state.apply({ shard: 0, seq: state.seq + 1, epoch: 0, timeMs: 1000, ...body });
  return state;
}

const stamp = (baseSequence: number, producerId = 9) => ({ producerId, producerEpoch: 0, baseSequence });

describe('planning an entry', () => {
  it('answers a duplicate of what is committed, though a later batch of its producer was given up', () => {
    const first = plan(new ShardState(0), [
      sealSample([{ partition: 0, payloads: ['a'], producer: stamp(0) }]),
    ]);
    const state = applied(new ShardState(0), first.body);
    const again = sealSample([{ partition: 0, payloads: ['a'], producer: stamp(0) }], 2);
    const planned = plan(state, [again], () => true);
    assert.equal(planned.body, null);
    assert.deepEqual([...answersOf(planned.answers)], [[2000, 0]]);
    assert.deepEqual([planned.duplicates, planned.refused], [1, 0]);
  });

  it('gives offsets in the order of sealing, several objects in one entry', () => {
    const state = new ShardState(0);
    const first = sealSample([
      { partition: 1, payloads: ['a', 'b'] },
      { partition: 0, payloads: ['c'] },
      { partition: 1, payloads: ['d'] },
    ]);
    const second = sealSample([{ partition: 1, payloads: ['e'], lane: 2 }], 1);
    const planned = plan(state, [first, second]);
    assert.deepEqual(
      planned.body?.slices.map((s) => [s.objectIndex, s.partition, s.baseOffset, s.recordCount]),
      [
        [0, 0, 0, 1],
        [0, 1, 0, 3],
        [1, 1, 3, 1],
      ],
    );
    assert.deepEqual(planned.body?.objects, [first.id, second.id]);
    assert.deepEqual([...planned.answers.keys()], [0, 2]);
    assert.deepEqual([...answersOf(planned.answers)].sort(), [
      [0, 0],
      [1, 0],
      [1000, 3],
      [2, 2],
    ]);
    applied(state, planned.body);
    assert.equal(
      plan(state, [sealSample([{ partition: 1, payloads: ['f'] }], 2)]).body?.slices[0].baseOffset,
      4,
    );
  });

  it('splits a slice at a refused batch and points at exactly the bytes of the others', () => {
    const object = sealSample([
      { partition: 0, payloads: ['a'], producer: stamp(0) },
      { partition: 0, payloads: ['gap'], producer: stamp(5) },
      { partition: 0, payloads: ['b', 'c'], producer: stamp(1) },
      { partition: 0, payloads: ['plain'] },
      { partition: 0, payloads: ['b', 'c'], producer: stamp(1) },
      { partition: 0, payloads: ['d'], producer: stamp(3) },
    ]);
    const planned = plan(new ShardState(0), [object]);
    const slices = planned.body?.slices ?? [];
    const read = slices.map((s) => payloadsOf(object.bytes.subarray(s.position, s.position + s.length)));
    assert.deepEqual(read, [['a'], ['b', 'c', 'plain'], ['d']]);
    assert.deepEqual(
      slices.map((s) => s.baseOffset),
      [0, 1, 4],
    );
    const answers = answersOf(planned.answers);
    assert.deepEqual(
      [0, 1, 2, 3, 4, 5].map((slot) => answers.get(slot)),
      [0, 'out-of-order-sequence', 1, 3, 1, 4],
    );
    assert.deepEqual([planned.duplicates, planned.refused], [1, 1]);
    applied(new ShardState(0), planned.body);
  });

  it('needs no entry for duplicates and refusals alone, and changes nothing by planning', () => {
    const state = new ShardState(0);
    const object = sealSample([{ partition: 0, payloads: ['a'], producer: stamp(0) }]);
    assert.deepEqual(plan(state, [object]).body, plan(state, [object]).body);
    applied(state, plan(state, [object]).body);
    const again = plan(state, [object]);
    assert.equal(again.body, null);
    assert.deepEqual([...answersOf(again.answers).values()], [0]);
    assert.equal(planSlices(state, [], BODY_BYTES_MAX, nobody), null);
  });

  it('names no object of which it accepts nothing', () => {
    const refused = sealSample([{ partition: 0, payloads: ['x'], producer: stamp(5) }]);
    const accepted = sealSample([{ partition: 0, payloads: ['y'] }], 1);
    assert.deepEqual(plan(new ShardState(0), [refused, accepted]).body?.objects, [accepted.id]);
  });

  it('refuses deleted topics, and runs of a producer whose earlier batch was given up', () => {
    const state = new ShardState(0);
    state.apply({ shard: 0, seq: 1, epoch: 0, timeMs: 1, kind: 'topic-deleted', topicId: 2 });
    const object = sealSample([
      { topicId: 2, partition: 0, payloads: ['gone'] },
      { partition: 0, payloads: ['a'], producer: stamp(0) },
      { partition: 0, payloads: ['b'], producer: stamp(0, 10) },
    ]);
    const asked: unknown[] = [];
    const planned = plan(state, [object], (key, producerId, number) => {
      asked.push([key, producerId, number]);
      return producerId === 9;
    });
    const answers = answersOf(planned.answers);
    assert.deepEqual(
      [0, 1, 2].map((slot) => answers.get(slot)),
      ['topic-not-found', 'append-abandoned', 0],
    );
    assert.deepEqual(asked, [
      [1 << 20, 9, 0],
      [1 << 20, 10, 0],
    ]);
  });

  it('takes no more than surely fits, at least one part, and leaves the rest in order', () => {
    const objects = Array.from({ length: 12 }, (_, n) =>
      sealSample(
        Array.from({ length: 9 }, (_, i) => ({ partition: i, payloads: ['v'], producer: stamp(n, 100 + i) })),
        n,
      ),
    );
    const state = new ShardState(0);
    const queue: QueuedPart[] = objects.map(partOf);
    const taken: number[] = [];
    while (queue.length > 0) {
      const planned = planSlices(state, queue, 4000, nobody);
      assert.ok(planned?.body);
      taken.push(...planned.parts.map((part) => part.object.id.number));
      const entry = { shard: 0, seq: state.seq + 1, epoch: 0, timeMs: 1000, ...planned.body };
      assert.ok(encodeEntry(entry).length <= 4000);
      state.apply(entry);
    }
    assert.deepEqual(taken, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert.ok(state.seq > 1 && state.seq < 12, `${state.seq} entries`);
    assert.equal(planSlices(new ShardState(0), [partOf(objects[0])], 1, nobody)?.parts.length, 1);
  });
});
