/**
 * What clients sent and what they were told, and the comparison with what can be read: the promise of DESIGN.md
 * section 1 as a check. Owns: the book, the reading of whole partitions, the check. Does not own: sending
 * (produce-load). Any process.
 *
 *   acknowledged  is read exactly once, at its offset, byte by byte
 *   unknown       is read once or not at all
 *   refused       (the broker said that nothing happened) is not read
 *   and: offsets are dense, nothing is read that was not sent, a producer's records are in its order
 */
import assert from 'node:assert/strict';
import type { IncomingRecord, RestClient } from '../../src/client/rest-client.ts';

export type SentOutcome = 'pending' | 'acknowledged' | 'refused' | 'unknown';

export interface SentRecord {
  /** Who sent it, and its place among all that this producer sent. */
  readonly producer: number;
  readonly sequence: number;
  readonly partition: number;
  readonly value: string;
  outcome: SentOutcome;
  offset: number;
}

export interface LedgerCounts {
  acknowledged: number;
  refused: number;
  unknown: number;
  /** Of the unknown ones, those that are there. */
  unknownFound: number;
  read: number;
}

const FETCH_BYTES = 4 * 1024 * 1024;

export class RecordLedger {
  readonly topic: string;
  readonly #byValue = new Map<string, SentRecord>();

  constructor(topic: string) {
    this.topic = topic;
  }

  /** Books a record before it is sent; its value is unlike all others. */
  book(producer: number, sequence: number, partition: number, pad: string): SentRecord {
    const value = `${producer}/${sequence}/${pad}`;
    const sent: SentRecord = { producer, sequence, partition, value, outcome: 'pending', offset: -1 };
    assert.ok(!this.#byValue.has(value), `booked twice: ${value}`);
    this.#byValue.set(value, sent);
    return sent;
  }

  count(outcome: SentOutcome): number {
    let count = 0;
    for (const sent of this.#byValue.values()) if (sent.outcome === outcome) count++;
    return count;
  }

  get size(): number {
    return this.#byValue.size;
  }

  /**
   * Reads every partition from its beginning and compares; throws on the first contradiction. Clients may go on
   * meanwhile: what was acknowledged before the call must be there.
   */
  async check(client: RestClient, partitionCount: number): Promise<LedgerCounts> {
    const acknowledged = [...this.#byValue.values()].filter(({ outcome }) => outcome === 'acknowledged');
    const found = new Set<SentRecord>();
    const partitions = Array.from({ length: partitionCount }, (_, partition) => partition);
    await Promise.all(
      partitions.map(async (partition) => {
        const records = await readPartition(client, this.topic, partition);
        this.#checkPartition(partition, records, found);
      }),
    );
    for (const sent of acknowledged) assert.ok(found.has(sent), `lost: ${describe(sent)}`);
    const counts = {
      acknowledged: acknowledged.length,
      refused: 0,
      unknown: 0,
      unknownFound: 0,
      read: found.size,
    };
    for (const sent of this.#byValue.values()) {
      const there = found.has(sent);
      if (sent.outcome === 'refused') {
        assert.ok(!there, `there, though the broker said that nothing happened: ${describe(sent)}`);
        counts.refused++;
      } else if (sent.outcome === 'unknown') {
        counts.unknown++;
        if (there) counts.unknownFound++;
      }
    }
    return counts;
  }

  #checkPartition(partition: number, records: readonly IncomingRecord[], found: Set<SentRecord>): void {
    const lastOf = new Map<number, number>();
    for (const [offset, record] of records.entries()) {
      const where = `${this.topic}/${partition}@${offset}`;
      assert.equal(record.offset, offset, `${where}: offsets are dense from 0`);
      const sent = this.#byValue.get(record.value as string);
      assert.ok(sent, `${where}: never sent: ${String(record.value).slice(0, 60)}`);
      assert.equal(sent.partition, partition, `${where}: sent to another partition: ${describe(sent)}`);
      assert.equal(record.key, `k${sent.producer}`, `${where}: key`);
      assert.ok(!found.has(sent), `${where}: read twice: ${describe(sent)}`);
      found.add(sent);
      if (sent.outcome === 'acknowledged') {
        assert.equal(sent.offset, offset, `${where}: acknowledged elsewhere: ${describe(sent)}`);
      }
      const last = lastOf.get(sent.producer) ?? -1;
      assert.ok(sent.sequence > last, `${where}: after ${last} of its producer: ${describe(sent)}`);
      lastOf.set(sent.producer, sent.sequence);
    }
  }
}

function describe({ producer, sequence, partition, offset, outcome }: SentRecord): string {
  return `producer ${producer} record ${sequence} partition ${partition} (${outcome}, offset ${offset})`;
}

/** All records of a partition from `from` to its end as of the call. */
export async function readPartition(
  client: RestClient,
  topic: string,
  partition: number,
  from = 0,
): Promise<IncomingRecord[]> {
  const { end } = await client.offsets(topic, partition);
  const records: IncomingRecord[] = [];
  for (let offset = from; offset < end; ) {
    const options = { bytesMax: FETCH_BYTES, waitMs: 0, embedded: 'json' } as const;
    const read = await client.fetch(topic, partition, offset, options);
    assert.ok(read.length > 0, `${topic}/${partition}: nothing at ${offset}, the end is ${end}`);
    for (const record of read) {
      assert.equal(record.offset, offset, `${topic}/${partition}: offsets are dense`);
      records.push(record);
      offset++;
    }
  }
  return records;
}
