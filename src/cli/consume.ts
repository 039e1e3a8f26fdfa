/**
 * `streamhouse consume`: records of a topic on standard output. Owns where each partition begins and ends, the
 * turn in which partitions are read, and printing. Does not own requests (client/rest-client.ts). Main thread.
 */
import type { Command } from 'commander';
import type { IncomingRecord, RestClient } from '../client/rest-client.ts';
import { RestError } from '../client/rest-error.ts';
import { sleep } from '../core/clock.ts';
import { StreamHouseError } from '../core/errors.ts';
import { PARTITIONS_PER_TOPIC_MAX } from '../core/ids.ts';
import { addClientOptions, type ClientOptions, wholeNumber, withClient } from './client-options.ts';
import { EXIT_INTERRUPTED, ExitError, print, type Shell, UsageError } from './shell.ts';

interface ConsumeOptions extends ClientOptions {
  partition?: number;
  from: string;
  follow?: boolean;
  max?: number;
  keys?: boolean;
  parallel: number;
}

const FETCH_BYTES = 4 * 1024 * 1024;
/** A long poll of a follower that has a connection for every partition. */
const FOLLOW_WAIT_MS = 10_000;
/** A follower of more partitions than connections pauses so long after a round without a record. */
const ROUND_PAUSE_MS = 100;
/** How long a reader waits for a record that the partition's end says is there. */
const MISSING_WAIT_MS = 1_000;
const MISSING_ROUNDS_MAX = 10;
const RETRY_PAUSE_MS = 500;
const RETRIES_MAX = 60;

export function define(command: Command, shell: Shell): void {
  command
    .description(
      'Prints the values of a topic, one per line; with --json one object per line:\n' +
        '{"topic","partition","offset","timestamp","key","value"}, bytes that are no UTF-8 as {"base64":"..."}.\n' +
        'Records of a partition come in order; partitions are read in parallel and mix. Without --follow it\n' +
        'ends where the partitions ended when it began.',
    )
    .argument('<topic>', 'the topic')
    .option(
      '--partition <number>',
      'this partition only',
      wholeNumber('--partition', 0, PARTITIONS_PER_TOPIC_MAX - 1),
    )
    .option(
      '--from <place>',
      'beginning, end, OFFSET (of one partition) or @TIME (ms since 1970 or ISO 8601)',
      'beginning',
    )
    .option('-f, --follow', 'go on with new records until Ctrl-C')
    .option('--max <count>', 'end after so many records', wholeNumber('--max', 1, Number.MAX_SAFE_INTEGER))
    .option('--keys', 'print key, tab, value')
    .option('--parallel <count>', 'partitions read at a time', wholeNumber('--parallel', 1, 1024), 16);
  addClientOptions(command).action(async (topic: string, options: ConsumeOptions) => {
    const settings = { connectionsMax: options.parallel };
    await withClient(options, shell, (client) => new Consumer(client, topic, options, shell).run(), settings);
    if (shell.stop.aborted) throw new ExitError(EXIT_INTERRUPTED);
  });
}

interface Cursor {
  partition: number;
  offset: number;
  /** Where to stop; Infinity for a follower. */
  end: number;
  emptyRounds: number;
}

class Consumer {
  readonly #client: RestClient;
  readonly #topic: string;
  readonly #options: ConsumeOptions;
  readonly #shell: Shell;
  #left: number;
  #done = false;
  /** Partitions that were read since the last record came; a whole round without one is a reason to pause. */
  #emptyInRow = 0;

  constructor(client: RestClient, topic: string, options: ConsumeOptions, shell: Shell) {
    this.#client = client;
    this.#topic = topic;
    this.#options = options;
    this.#shell = shell;
    this.#left = options.max ?? Number.POSITIVE_INFINITY;
  }

  async run(): Promise<void> {
    const { partition, from } = this.#options;
    const place = parsePlace(from);
    const { partitionCount } = await this.#client.getTopic(this.#topic);
    if (partition !== undefined && partition >= partitionCount) {
      throw new UsageError(`--partition: ${this.#topic} has the partitions 0 to ${partitionCount - 1}`);
    }
    const partitions =
      partition === undefined ? Array.from({ length: partitionCount }, (_, i) => i) : [partition];
    if (place.kind === 'offset' && partitions.length > 1) {
      throw new UsageError('--from OFFSET needs --partition: each partition has offsets of its own');
    }
    const waiting: Cursor[] = [];
    await this.#each(partitions, async (one) => {
      const cursor = await this.#retrying(() => this.#cursor(one, place));
      if (cursor.offset < cursor.end) waiting.push(cursor);
    });
    waiting.sort((a, b) => a.partition - b.partition);
    await this.#readAll(waiting);
  }

  /** Runs `work` on all items, `parallel` at a time. */
  async #each<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
    let next = 0;
    const worker = async (): Promise<void> => {
      while (next < items.length && !this.#ends()) await work(items[next++]);
    };
    await Promise.all(Array.from({ length: Math.min(this.#options.parallel, items.length) }, worker));
  }

  async #cursor(partition: number, place: Place): Promise<Cursor> {
    const bounds = await this.#client.offsets(this.#topic, partition);
    const end = this.#options.follow ? Number.POSITIVE_INFINITY : bounds.end;
    const offset =
      place.kind === 'beginning'
        ? bounds.beginning
        : place.kind === 'end'
          ? bounds.end
          : place.kind === 'offset'
            ? place.offset
            : await this.#client.offsetAt(this.#topic, partition, place.timestampMs);
    if (offset < bounds.beginning || offset > bounds.end) {
      const range = `${bounds.beginning} to ${bounds.end}`;
      throw new StreamHouseError('offset-out-of-range', `offset ${offset} is outside ${range}`);
    }
    return { partition, offset, end, emptyRounds: 0 };
  }

  /** Workers take the partition that waited longest, read once, and put it back at the end. */
  async #readAll(waiting: Cursor[]): Promise<void> {
    const cursorCount = waiting.length;
    const worker = async (): Promise<void> => {
      for (let cursor = waiting.shift(); cursor !== undefined && !this.#ends(); cursor = waiting.shift()) {
        const ownConnection = cursorCount <= this.#options.parallel;
        const current = cursor;
        const count = await this.#retrying(() => this.#readOnce(current, ownConnection)).catch((error) => {
          // Whoever printed the last record that was wanted closed the client under the others.
          if (this.#done) return 1;
          throw error;
        });
        if (count === 0 && !ownConnection && ++this.#emptyInRow % cursorCount === 0) {
          await sleep(this.#shell.clock, ROUND_PAUSE_MS, this.#shell.stop);
        }
        if (cursor.offset < cursor.end) waiting.push(cursor);
      }
    };
    await Promise.all(Array.from({ length: Math.min(this.#options.parallel, cursorCount) }, worker));
  }

  #ends(): boolean {
    return this.#done || this.#shell.stop.aborted || this.#shell.stdout.destroyed;
  }

  /** Reads are free of consequences: what fails for now is tried again for a while. */
  async #retrying<T>(read: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await read();
      } catch (error) {
        const again = error instanceof RestError && error.outcome !== 'refused' && error.status !== null;
        if (!again || attempt >= RETRIES_MAX || this.#ends()) throw error;
        await sleep(this.#shell.clock, error.retryAfterMs ?? RETRY_PAUSE_MS, this.#shell.stop);
      }
    }
  }

  async #readOnce(cursor: Cursor, ownConnection: boolean): Promise<number> {
    const follow = cursor.end === Number.POSITIVE_INFINITY;
    const waitMs = follow ? (ownConnection ? FOLLOW_WAIT_MS : 0) : MISSING_WAIT_MS;
    const records = await this.#client.fetch(this.#topic, cursor.partition, cursor.offset, {
      bytesMax: FETCH_BYTES,
      waitMs,
      embedded: 'binary',
    });
    if (records.length === 0) {
      if (!follow && ++cursor.emptyRounds >= MISSING_ROUNDS_MAX) {
        const where = `${this.#topic}, partition ${cursor.partition}, offset ${cursor.offset}`;
        throw new StreamHouseError(
          'store-unavailable',
          `${where}: no record came, though the end is ${cursor.end}`,
        );
      }
      return 0;
    }
    cursor.emptyRounds = 0;
    this.#emptyInRow = 0;
    await this.#print(cursor, records);
    return records.length;
  }

  async #print(cursor: Cursor, records: readonly IncomingRecord[]): Promise<void> {
    if (this.#done) return;
    const pieces: Buffer[] = [];
    for (const record of records) {
      if (record.offset < cursor.offset) continue;
      if (record.offset >= cursor.end || this.#left === 0) break;
      cursor.offset = record.offset + 1;
      this.#left--;
      pieces.push(this.#format(record));
    }
    // A follower ends at its count; what the others read meanwhile is theirs to drop.
    if (this.#left === 0) this.#finish();
    await print(this.#shell.stdout, Buffer.concat(pieces));
  }

  #finish(): void {
    this.#done = true;
    void this.#client.close();
  }

  #format(record: IncomingRecord): Buffer {
    const key = record.key as Buffer | null;
    const value = record.value as Buffer | null;
    if (this.#options.json) {
      const { topic, partition, offset, timestamp } = record;
      return Buffer.from(
        `${JSON.stringify({ topic, partition, offset, timestamp, key: text(key), value: text(value) })}\n`,
      );
    }
    const empty = Buffer.alloc(0);
    const head = this.#options.keys ? [key ?? empty, Buffer.from('\t')] : [];
    return Buffer.concat([...head, value ?? empty, Buffer.from('\n')]);
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Bytes for JSON: a text if they are UTF-8, else base64 that says so. */
function text(bytes: Buffer | null): string | null | { base64: string } {
  if (bytes === null) return null;
  try {
    return utf8.decode(bytes);
  } catch {
    return { base64: bytes.toString('base64') };
  }
}

type Place =
  | { kind: 'beginning' }
  | { kind: 'end' }
  | { kind: 'offset'; offset: number }
  | { kind: 'timestamp'; timestampMs: number };

function parsePlace(from: string): Place {
  if (from === 'beginning' || from === 'end') return { kind: from };
  if (/^[0-9]{1,15}$/.test(from)) return { kind: 'offset', offset: Number(from) };
  if (from.startsWith('@')) {
    const time = from.slice(1);
    const timestampMs = /^[0-9]{1,15}$/.test(time) ? Number(time) : Date.parse(time);
    if (timestampMs >= 0) return { kind: 'timestamp', timestampMs };
  }
  throw new UsageError(`--from: ${JSON.stringify(from)} is not beginning, end, an offset or @TIME`);
}
