/**
 * The requests that a door measurement sends: produce requests of tiny records over many partitions. Owns their
 * bodies. Pure; the same for every client and server.
 */

/** A value of 10 bytes as JSON. */
const VALUE = '"8 bytes."';

export interface RequestShape {
  topic: string;
  partitions: number;
  /** 1: one record, to the partition of the path. More: one record for each of so many partitions. */
  recordsPerRequest: number;
}

export interface ProduceCall {
  path: string;
  body: string;
}

export const PRODUCE_CONTENT_TYPE = 'application/vnd.kafka.json.v2+json';

/** One request after the other until every partition has had its turn, a prime step apart. */
export function produceCalls({ topic, partitions, recordsPerRequest }: RequestShape): ProduceCall[] {
  const step = 7919 % partitions === 0 ? 1 : 7919;
  if (recordsPerRequest === 1) {
    return Array.from({ length: partitions }, (_, i) => ({
      path: `/topics/${topic}/partitions/${(i * step) % partitions}`,
      body: `{"records":[{"value":${VALUE}}]}`,
    }));
  }
  const requests = Math.max(1, Math.floor(partitions / Math.min(partitions, recordsPerRequest)));
  return Array.from({ length: requests }, (_, i) => {
    const records = Array.from({ length: recordsPerRequest }, (_, r) => {
      const partition = ((i * recordsPerRequest + r) * step) % partitions;
      return `{"partition":${partition},"value":${VALUE}}`;
    });
    return { path: `/topics/${topic}`, body: `{"records":[${records.join(',')}]}` };
  });
}
