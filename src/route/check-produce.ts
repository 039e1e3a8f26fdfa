/**
 * What a produce request must be, before anything is done with it. Owns: those rules. Pure; main thread, once for
 * every request.
 */
import { StreamHouseError } from '../core/errors.ts';
import { RECORDS_PER_REQUEST_MAX } from '../core/limits.ts';
import type { ProduceRequest } from './broker.ts';
import { recordBytesMaxOf } from './topic-configs.ts';

/** Throws what is wrong with the request; returns the bytes of its keys and values. */
export function checkProduce(
  request: ProduceRequest,
  limits: { recordBytesMax: number; appendBytesMax: number },
): number {
  const { topic, partitions, spans, producer } = request;
  const count = partitions.length;
  if (count === 0) throw new StreamHouseError('invalid-request', 'a produce request without records');
  if (count > RECORDS_PER_REQUEST_MAX) {
    throw new StreamHouseError(
      'batch-too-large',
      `${count} records in one request, at most ${RECORDS_PER_REQUEST_MAX} are taken`,
    );
  }
  const { recordBytesMax, appendBytesMax } = limits;
  const limit = Math.min(recordBytesMax, recordBytesMaxOf(topic) ?? recordBytesMax);
  let total = 0;
  for (let i = 0; i < count; i++) {
    const s = i * 4;
    const bytes =
      (spans[s] < 0 ? 0 : spans[s + 1] - spans[s]) + (spans[s + 2] < 0 ? 0 : spans[s + 3] - spans[s + 2]);
    if (bytes > limit) {
      throw new StreamHouseError(
        'record-too-large',
        `record ${i} has ${bytes} bytes, at most ${limit} are taken`,
        {
          record: i,
          bytes,
          limit,
        },
      );
    }
    if (partitions[i] >= topic.partitionCount || partitions[i] < 0) {
      throw new StreamHouseError(
        'partition-not-found',
        `topic ${topic.name} has no partition ${partitions[i]}; it has ${topic.partitionCount}`,
      );
    }
    if (producer && partitions[i] !== partitions[0]) {
      throw new StreamHouseError(
        'invalid-request',
        'records of an idempotent producer must go to one partition in a request',
      );
    }
    total += bytes;
  }
  if (total > appendBytesMax) {
    throw new StreamHouseError(
      'batch-too-large',
      `the request has ${total} bytes of records, at most ${appendBytesMax} are taken`,
    );
  }
  return total;
}
