/**
 * Reads every partition of a run from offset 0 to its end and gives it to the verifier. Owns: the requests, several
 * partitions at a time, and the end of a partition. Does not own: what is right (record-verifier). Main thread.
 */
import type { RestClient } from '../client/rest-client.ts';
import { RestError } from '../client/rest-error.ts';
import { type Clock, sleep } from '../core/clock.ts';
import type { RecordVerifier } from './record-verifier.ts';

const PARTITIONS_AT_A_TIME = 16;
const FETCH_BYTES = 1024 * 1024;
const TRIES_MAX = 20;
const RETRY_MS = 250;

export interface ReadBackOptions {
  client: RestClient;
  topic: string;
  partitions: number;
  verifier: RecordVerifier;
  clock: Clock;
  signal: AbortSignal;
  onPartition(done: number): void;
}

/** Rejects with the broker's error when a partition cannot be read; ends early when the signal aborts. */
export async function readBack(options: ReadBackOptions): Promise<void> {
  const { partitions, signal, onPartition } = options;
  let next = 0;
  let done = 0;
  const loop = async (): Promise<void> => {
    while (next < partitions && !signal.aborted) {
      await readPartition(options, next++);
      onPartition(++done);
    }
  };
  await Promise.all(Array.from({ length: PARTITIONS_AT_A_TIME }, loop));
}

/** Until the end that the broker names; what comes short of it is missing. */
async function readPartition(options: ReadBackOptions, partition: number): Promise<void> {
  const { client, topic, verifier, signal } = options;
  const { end } = await again(options, () => client.offsets(topic, partition));
  for (let offset = 0; offset < end && !signal.aborted; ) {
    const records = await again(options, () =>
      client.fetch(topic, partition, offset, { bytesMax: FETCH_BYTES, waitMs: 0, embedded: 'json' }),
    );
    if (records.length === 0) break;
    verifier.read(partition, records);
    offset = records[records.length - 1].offset + 1;
  }
  verifier.endPartition(partition);
}

/** A broker may be busy, or its reads refused for their number: that is no finding. */
async function again<T>({ clock, signal }: ReadBackOptions, call: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await call();
    } catch (error) {
      const mayPass = error instanceof RestError && error.outcome !== 'refused';
      if (!mayPass || tries === TRIES_MAX || signal.aborted) throw error;
      await sleep(clock, RETRY_MS, signal);
    }
  }
}
