/**
 * `streamhouse produce`: lines of a file or of standard input as records of a topic. Owns reading, keys,
 * progress and the closing line. Does not own batching, order or resending (client/record-sender.ts).
 * Main thread.
 */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { SingleBar } from 'cli-progress';
import { type Command, Option } from 'commander';
import { RecordSender } from '../client/record-sender.ts';
import type { OutgoingRecord, RestClient } from '../client/rest-client.ts';
import { StreamHouseError } from '../core/errors.ts';
import { PARTITIONS_PER_TOPIC_MAX } from '../core/ids.ts';
import { systemRandom } from '../core/random.ts';
import { addClientOptions, type ClientOptions, wholeNumber, withClient } from './client-options.ts';
import { lines } from './lines.ts';
import { EXIT_INTERRUPTED, ExitError, print, type Shell, UsageError } from './shell.ts';

interface ProduceOptions extends ClientOptions {
  format: 'lines' | 'json';
  keyField?: string;
  partition?: number;
  idempotent?: boolean;
  inFlight: number;
  batchRecords: number;
}

export function define(command: Command, shell: Shell): void {
  command
    .description(
      'Appends one record per line of FILE, or of standard input without FILE or with -.\n' +
        'Records of a partition keep their order. What the broker certainly did not take (it was busy, there\n' +
        'was no connection) is sent again for up to a minute once it has begun. When a reply is lost, the records of that request\n' +
        'may or may not have been appended: produce then stops and says how many are in doubt; with\n' +
        '--idempotent it sends them again under the same sequence numbers, so that each is appended once.',
    )
    .argument('<topic>', 'an existing topic')
    .argument('[file]', 'where the lines are; - is standard input')
    .addOption(
      new Option('--format <format>', 'lines: a value is the line; json: the line must be JSON')
        .choices(['lines', 'json'])
        .default('lines'),
    )
    .option('--key-field <name>', 'with --format json: the key is this field of the object')
    .option(
      '--partition <number>',
      'all records to this partition; else by key, without a key in turn',
      wholeNumber('--partition', 0, PARTITIONS_PER_TOPIC_MAX - 1),
    )
    .option('--idempotent', 'send with a producer id, so that a resend never appends twice')
    .option('--in-flight <count>', 'requests at a time', wholeNumber('--in-flight', 1, 256), 8)
    .option(
      '--batch-records <count>',
      'records in a request',
      wholeNumber('--batch-records', 1, 100_000),
      5_000,
    );
  addClientOptions(command).action(
    async (topic: string, file: string | undefined, options: ProduceOptions) => {
      if (options.keyField !== undefined && options.format !== 'json') {
        throw new UsageError('--key-field needs --format json');
      }
      const settings = { connectionsMax: options.inFlight, closeOnStop: false };
      await withClient(options, shell, (client) => produce(client, topic, file, options, shell), settings);
    },
  );
}

async function produce(
  client: RestClient,
  topic: string,
  file: string | undefined,
  options: ProduceOptions,
  shell: Shell,
): Promise<void> {
  const { partitionCount } = await client.getTopic(topic);
  if (options.partition !== undefined && options.partition >= partitionCount) {
    throw new UsageError(`--partition: ${topic} has the partitions 0 to ${partitionCount - 1}`);
  }
  const fromFile = file !== undefined && file !== '-';
  const inputBytes = fromFile ? await fileBytes(file) : null;
  const producer = options.idempotent ? await client.allocateProducerId() : null;
  const startedMs = shell.clock.monotonicMs();
  const progress = openProgress(inputBytes, shell);
  const sender = new RecordSender({
    client,
    topic,
    partitionCount,
    embedded: 'binary',
    clock: shell.clock,
    random: systemRandom,
    producer,
    inFlightMax: options.inFlight,
    batchRecordsMax: options.batchRecords,
  });
  const input = fromFile ? createReadStream(file, { highWaterMark: 256 * 1024 }) : shell.stdin;
  const interrupt = (): void => {
    sender.stop(new ExitError(EXIT_INTERRUPTED));
    input.destroy();
  };
  shell.stop.addEventListener('abort', interrupt, { once: true });
  let error: unknown = null;
  try {
    await sendAll(input, sender, options, progress);
  } catch (cause) {
    error = shell.stop.aborted ? new ExitError(EXIT_INTERRUPTED) : cause;
  } finally {
    shell.stop.removeEventListener('abort', interrupt);
    if (error !== null) {
      sender.stop(error instanceof Error ? error : new Error(String(error)));
      await sender.settled();
    }
    progress.stop();
  }
  await summarize(sender, topic, shell.clock.monotonicMs() - startedMs, error, options, shell);
}

/** The size of what may be a pipe is null. A file that cannot be read is a wrong argument. */
async function fileBytes(file: string): Promise<number | null> {
  try {
    const found = await stat(file);
    if (found.isDirectory()) throw new UsageError(`${file} is a directory`);
    return found.isFile() ? found.size : null;
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`${file} cannot be read (${(error as NodeJS.ErrnoException).code})`);
  }
}

interface Progress {
  update(bytes: number, acknowledged: number): void;
  stop(): void;
}

/** A bar on a terminal, over the file's bytes; of a pipe the end is not known, so only the counts move. */
function openProgress(inputBytes: number | null, shell: Shell): Progress {
  if (!shell.stderr.isTTY) return { update: () => undefined, stop: () => undefined };
  const format =
    inputBytes === null
      ? '{acknowledged} records acknowledged, {duration_formatted}'
      : '{bar} {percentage}%, {acknowledged} records acknowledged, {eta_formatted} to go';
  const bar = new SingleBar({
    format,
    stream: shell.stderr as NodeJS.WriteStream,
    barsize: 30,
    clearOnComplete: true,
    hideCursor: false,
    etaBuffer: 200,
  });
  bar.start(inputBytes ?? 1, 0, { acknowledged: 0 });
  return {
    update: (bytes, acknowledged) => bar.update(inputBytes === null ? 0 : bytes, { acknowledged }),
    stop: () => bar.stop(),
  };
}

async function sendAll(
  input: AsyncIterable<Buffer | string>,
  sender: RecordSender,
  options: ProduceOptions,
  progress: Progress,
): Promise<void> {
  let bytes = 0;
  let line = 0;
  for await (const text of lines(input)) {
    line++;
    bytes += text.length + 1;
    let record: OutgoingRecord | null;
    try {
      record = toRecord(text, line, options);
    } catch (error) {
      // What came before it is sent all the same.
      await sender.flush();
      throw error;
    }
    if (record === null) continue;
    const room = sender.add(record);
    if (room !== undefined) {
      await room;
      progress.update(bytes, sender.counts.acknowledged);
    }
  }
  await sender.flush();
  progress.update(bytes, sender.counts.acknowledged);
}

/** A line as a record; null for an empty line of JSON input. The value is the line's bytes as they came. */
function toRecord(text: Buffer, line: number, options: ProduceOptions): OutgoingRecord | null {
  if (options.format === 'lines') return { key: null, value: text, partition: options.partition };
  const source = text.toString('utf8');
  if (source.trim() === '') return null;
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch {
    throw new StreamHouseError('invalid-record', `line ${line} is not JSON`);
  }
  return { key: keyOf(value, line, options.keyField), value: text, partition: options.partition };
}

/** A text is a key as it is, anything else as JSON; null or a missing field is no key. */
function keyOf(value: unknown, line: number, field: string | undefined): Buffer | null {
  if (field === undefined) return null;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new StreamHouseError(
      'invalid-record',
      `line ${line} is not a JSON object, so it has no field ${JSON.stringify(field)}`,
    );
  }
  const key: unknown = Object.hasOwn(value, field) ? (value as Record<string, unknown>)[field] : null;
  if (key === null) return null;
  return Buffer.from(typeof key === 'string' ? key : JSON.stringify(key));
}

/** Prints the counts, whatever happened, and throws what happened. */
async function summarize(
  sender: RecordSender,
  topic: string,
  elapsedMs: number,
  error: unknown,
  options: ProduceOptions,
  shell: Shell,
): Promise<void> {
  const { acknowledged, unknown, failed, requests, resent } = sender.counts;
  if (options.json) {
    const counts = { acknowledged, unknown, failed, requests, resent, ms: Math.round(elapsedMs) };
    await print(shell.stdout, `${JSON.stringify({ topic, ...counts })}\n`);
  } else {
    const rate = elapsedMs > 0 ? `, ${Math.round((acknowledged * 1000) / elapsedMs)}/s` : '';
    const parts = [`${acknowledged} acknowledged in ${(elapsedMs / 1000).toFixed(1)} s${rate}`];
    if (unknown > 0) parts.push(`${unknown} in doubt`);
    if (failed > 0) parts.push(`${failed} not appended`);
    if (resent > 0) parts.push(`${resent} sent again`);
    await print(shell.stdout, `${parts.join('; ')}\n`);
  }
  if (error !== null) throw error;
}
