/**
 * When the produce router sends: small requests of a turn together at its end, a full message at once, each append
 * exactly once and in order; and a lane that is away answers later, never from inside of submit.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { systemClock } from '../../../src/core/clock.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import type { ProduceRequest, ProduceResult } from '../../../src/route/broker.ts';
import { ProduceRouter } from '../../../src/route/produce-router.ts';
import type { Topic } from '../../../storage/metadata/metadata-store.ts';
import { AnswerWriter, forEachProduce } from '../../../workers/append-codec.ts';
import { allHere, noCarrier } from '../../support/fake-places.ts';

const TOPIC: Topic = {
  topicId: 3,
  name: 'orders',
  partitionCount: 100,
  configs: {},
  createdAtMs: 0,
  version: 1,
};
const MIB = 1024 * 1024;

interface Rig {
  router: ProduceRouter;
  messages: Uint8Array[];
  results: (ProduceResult | undefined)[];
  submit(partition: number, valueBytes: number): void;
}

function rig(laneIsUp: () => boolean = () => true): Rig {
  const messages: Uint8Array[] = [];
  const results: (ProduceResult | undefined)[] = [];
  const router = new ProduceRouter({
    settings: {
      laneCount: 1,
      layout: oneGroup(8),
      inFlightBytesMax: 64 * MIB,
      recordBytesMax: MIB,
      appendBytesMax: 16 * MIB,
    },
    clock: systemClock,
    places: allHere,
    carrier: noCarrier,
    counters: { add: () => undefined },
    topicDeleted: () => undefined,
    toLane: (_, bytes) => {
      if (!laneIsUp()) return false;
      messages.push(bytes);
      return true;
    },
  });
  const submit = (partition: number, valueBytes: number) => {
    const request: ProduceRequest = {
      topic: TOPIC,
      partitions: [partition],
      producer: null,
      source: Buffer.alloc(valueBytes, partition),
      spans: [-1, -1, 0, valueBytes],
      timeoutMs: 60_000,
    };
    const place = results.push(undefined) - 1;
    router.submit(request, (result) => {
      assert.equal(results[place], undefined, 'answered once');
      results[place] = result;
    });
  };
  return { router, messages, results, submit };
}

/** Partitions of all appends of all messages, in order. */
function partitionsOf(messages: readonly Uint8Array[]): number[] {
  const partitions: number[] = [];
  for (const message of messages) forEachProduce(message, ({ partition }) => partitions.push(partition));
  return partitions;
}

describe('messages of the produce router', () => {
  it('small requests of one turn are one message at its end', async () => {
    const { router, messages, submit } = rig();
    for (let i = 0; i < 100; i++) submit(i, 10);
    assert.equal(messages.length, 0);
    await turn();
    assert.equal(messages.length, 1);
    assert.deepEqual(
      partitionsOf(messages),
      Array.from({ length: 100 }, (_, i) => i),
    );
    router.close();
  });

  it('a full message does not wait for the end of the turn; nothing is sent twice', async () => {
    const { router, messages, results, submit } = rig();
    const sent = Array.from({ length: 500 }, (_, i) => i % 100);
    for (const partition of sent) submit(partition, 1000);
    const before = messages.length;
    assert.ok(before >= 7, `${before} messages of 500 KB within the turn`);
    for (const { length } of messages)
      assert.ok(length >= 64 * 1024 && length < 66 * 1024, `${length} bytes`);
    await turn();
    assert.equal(messages.length, before + 1);
    assert.deepEqual(partitionsOf(messages), sent);
    const answers = new AnswerWriter();
    let offset = 0;
    for (const message of messages) {
      forEachProduce(message, ({ slot, generation }) => answers.add(slot, generation, null, offset++));
    }
    router.answers(answers.take() as Uint8Array);
    assert.deepEqual(
      results,
      sent.map((_, i) => ({ offsets: [i], errors: null })),
    );
    assert.equal(router.outstanding, 0);
    assert.equal(router.inFlightBytes, 0);
    router.close();
  });

  it('a lane that is being started again refuses, after submit has returned', async () => {
    const { router, results, submit } = rig(() => false);
    submit(1, 100_000);
    submit(2, 10);
    assert.equal(results.filter(Boolean).length, 0);
    await turn();
    await turn();
    for (const result of results) assert.equal(result?.errors?.[0]?.code, 'not-leader');
    assert.equal(router.outstanding, 0);
    assert.equal(router.inFlightBytes, 0);
    router.close();
  });
});
