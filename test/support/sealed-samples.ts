/**
 * Sealed objects for tests, made as the broker makes them: produce messages through a lane's packing and the batch
 * builder. Owns: these samples. Tests only.
 */
import { shardOf } from '../../src/core/ids.ts';
import type { ProducerStamp } from '../../src/core/record-batch.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import { bufferOver, readAnswers } from '../../workers/append-codec.ts';
import { BatchBuilder, forEachAppend, type SealedObject } from '../../workers/batch-builder.ts';
import type { PlannedAnswers, QueuedPart } from '../../workers/entry-plan.ts';
import { buildAppends } from '../../workers/lane-produce.ts';
import { packProduce } from '../sim/payloads.ts';

export interface SampleAppend {
  topicId?: number;
  partition: number;
  payloads: string[];
  producer?: ProducerStamp;
  lane?: number;
}

/** Adds appends to a builder, a message each; their slots count up from `firstSlot`. */
export function addAppends(
  builder: BatchBuilder,
  appends: readonly SampleAppend[],
  shardCount = 1,
  firstSlot = 0,
  wallMs = 1000,
): void {
  appends.forEach((append, i) => {
    const { topicId = 1, partition, payloads, producer = null, lane = 0 } = append;
    const slot = firstSlot + i;
    const message = packProduce([{ slot, generation: 7, topicId, partition, payloads, producer }]);
    const chunk = bufferOver(buildAppends(message, wallMs + i).bytes);
    builder.beginChunk(lane, chunk);
    forEachAppend(chunk, (header, position) => {
      builder.add(header, shardOf(header.topicId, header.partition, oneGroup(shardCount)), position);
    });
  });
}

export function sealSample(appends: readonly SampleAppend[], number = 0, shardCount = 1): SealedObject {
  const builder = new BatchBuilder();
  addAppends(builder, appends, shardCount, number * 1000);
  return builder.seal({ incarnation: 5, number });
}

/** All of an object as one part of shard 0's queue. */
export function partOf(object: SealedObject): QueuedPart {
  const sealing = { sealedAtMs: 0, sealedWallMs: 0, shards: [{ shard: 0, epoch: 1 }] };
  return { object, sealing, shard: 0, epoch: 1, slices: object.slices };
}

/** Answers by slot: a base offset, or an error code. */
export function answersOf(answers: PlannedAnswers): Map<number, number | string> {
  const bySlot = new Map<number, number | string>();
  for (const writer of answers.values()) {
    const message = writer.take();
    if (!message) continue;
    readAnswers(message, (slot, generation, code, baseOffset) => {
      if (generation !== 7) throw new Error(`generation ${generation}`);
      if (bySlot.has(slot)) throw new Error(`slot ${slot} is answered twice`);
      bySlot.set(slot, code ?? baseOffset);
    });
  }
  return bySlot;
}
