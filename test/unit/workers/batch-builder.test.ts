/**
 * Building batch objects: the layout that readers find, the order of arrival, what is taken out or let go.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { shardOf } from '../../../src/core/ids.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import { decodeBatchObject, verifySlice } from '../../../storage/objects/batch-object.ts';
import { bufferOver } from '../../../workers/append-codec.ts';
import { BatchBuilder } from '../../../workers/batch-builder.ts';
import { buildAppends } from '../../../workers/lane-produce.ts';
import { packProduce, payloadsOf } from '../../sim/payloads.ts';
import { addAppends, type SampleAppend, sealSample } from '../../support/sealed-samples.ts';

const anyAppends: fc.Arbitrary<SampleAppend[]> = fc.array(
  fc.record(
    {
      topicId: fc.integer({ min: 1, max: 3 }),
      partition: fc.nat(3),
      lane: fc.nat(2),
      payloads: fc.array(fc.string({ maxLength: 40 }), { minLength: 1, maxLength: 4 }),
    },
    { noNullPrototype: true },
  ),
  { minLength: 1, maxLength: 30 },
);

describe('batch builder', () => {
  it('lays out what the object format reads, each partition in its order of arrival', () => {
    fc.assert(
      fc.property(anyAppends, (appends) => {
        const object = sealSample(appends);
        const { header, slices } = decodeBatchObject(object.bytes);
        assert.deepEqual(header, { incarnation: 5, number: 0 });
        assert.equal(slices.length, object.slices.length);
        slices.forEach((slice, i) => {
          const bytes = object.bytes.subarray(slice.position, slice.position + slice.length);
          verifySlice(bytes, slice);
          const mine = appends.filter((a) => a.topicId === slice.topicId && a.partition === slice.partition);
          assert.deepEqual(
            payloadsOf(bytes),
            mine.flatMap((append) => append.payloads),
          );
          assert.equal(slice.recordCount, mine.flatMap((append) => append.payloads).length);
          const sealed = object.slices[i];
          assert.equal(sealed.position, slice.position);
          const slots = [];
          for (let a = sealed.firstAppend; a < sealed.firstAppend + sealed.appendCount; a++) {
            slots.push(object.appends.slot[a]);
            assert.equal(object.appends.generation[a], 7);
            assert.equal(object.appends.lane[a], appends[object.appends.slot[a]].lane);
            assert.equal(object.appends.producerId[a], -1);
          }
          assert.deepEqual(
            slots,
            mine.map((append) => appends.indexOf(append)),
          );
        });
        const total = appends.flatMap((append) => append.payloads).length;
        assert.equal(object.recordCount, total);
        assert.ok(object.bytes.buffer instanceof SharedArrayBuffer);
      }),
      { numRuns: 150 },
    );
  });

  it('starts afresh after sealing', () => {
    const builder = new BatchBuilder();
    addAppends(builder, [{ partition: 0, payloads: ['a'] }]);
    assert.deepEqual([builder.sliceCount, builder.appendCount, builder.bytes > 0], [1, 1, true]);
    builder.seal({ incarnation: 1, number: 0 });
    assert.deepEqual([builder.sliceCount, builder.appendCount, builder.bytes], [0, 0, 0]);
    addAppends(builder, [{ partition: 1, payloads: ['b'] }]);
    const object = builder.seal({ incarnation: 1, number: 1 });
    assert.deepEqual(
      object.slices.map((slice) => slice.partition),
      [1],
    );
    assert.equal(decodeBatchObject(object.bytes).slices.length, 1);
  });

  it('seals apart: an object for each partition, with the same records, and starts afresh', () => {
    fc.assert(
      fc.property(anyAppends, (appends) => {
        const whole = sealSample(appends);
        const builder = new BatchBuilder();
        addAppends(builder, appends);
        let number = 0;
        const objects = builder.sealApart(() => ({ incarnation: 5, number: number++ }));
        assert.deepEqual(
          objects.map(({ id }) => id.number),
          whole.slices.map((_, i) => i),
        );
        objects.forEach((object, i) => {
          const { slices } = decodeBatchObject(object.bytes);
          assert.equal(slices.length, 1);
          const [{ topicId, partition, position, length }] = slices;
          assert.equal(object.slices[0].firstAppend, 0);
          assert.equal(object.slices[0].appendCount, whole.slices[i].appendCount);
          const mine = appends.filter((a) => a.topicId === topicId && a.partition === partition);
          assert.deepEqual(
            payloadsOf(object.bytes.subarray(position, position + length)),
            mine.flatMap(({ payloads }) => payloads),
          );
        });
        assert.deepEqual([builder.sliceCount, builder.appendCount, builder.bytes], [0, 0, 0]);
      }),
      { numRuns: 50 },
    );
  });

  it('takes a lost shard out, telling whose appends they were, and keeps the others', () => {
    const builder = new BatchBuilder();
    const partitions = [0, 1, 2, 3, 4, 5, 6, 7];
    addAppends(
      builder,
      partitions.map((partition) => ({ partition, payloads: [`p${partition}`], lane: partition % 3 })),
      2,
    );
    const lost = partitions.filter((partition) => shardOf(1, partition, oneGroup(2)) === 1);
    assert.ok(lost.length > 0 && lost.length < 8);
    const told: number[][] = [];
    builder.removeShard(1, (lane, slot, generation) => told.push([lane, slot, generation]));
    assert.deepEqual(
      told,
      lost.map((partition) => [partition % 3, partition, 7]),
    );
    const object = builder.seal({ incarnation: 1, number: 0 });
    const kept = partitions.filter((partition) => !lost.includes(partition));
    assert.deepEqual(
      object.slices.map((slice) => slice.partition),
      kept,
    );
    assert.deepEqual(
      object.slices.map(({ position }, i) =>
        payloadsOf(object.bytes.subarray(position, position + object.appends.length[i])),
      ),
      kept.map((partition) => [`p${partition}`]),
    );
  });

  it('does not keep messages of which nothing was added', async () => {
    const builder = new BatchBuilder();
    const message = packProduce([
      { slot: 0, generation: 0, topicId: 1, partition: 0, producer: null, payloads: ['x'.repeat(1000)] },
    ]);
    const references: WeakRef<Buffer>[] = [];
    for (let i = 0; i < 50; i++) {
      const chunk = bufferOver(buildAppends(message, 0).bytes);
      references.push(new WeakRef(chunk));
      builder.beginChunk(0, chunk);
    }
    addAppends(builder, [{ partition: 3, payloads: ['kept'] }]);
    setFlagsFromString('--expose-gc');
    await new Promise((resolve) => setImmediate(resolve));
    runInNewContext('gc')();
    // One or two may still lie in a register or a dead stack slot.
    const kept = references.filter((reference) => reference.deref() !== undefined).length;
    assert.ok(kept <= 2, `${kept} of 50 messages are kept`);
    assert.deepEqual(payloadsOf(sliceBytes(builder)), ['kept']);
  });
});

function sliceBytes(builder: BatchBuilder): Buffer {
  const { bytes, slices, appends } = builder.seal({ incarnation: 1, number: 0 });
  return bytes.subarray(slices[0].position, slices[0].position + appends.length[0]);
}
