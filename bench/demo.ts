/**
 * `npm run demo`: a broker on the embedded default, real data in through the HTTP door, everything out again and
 * compared record by record. Owns the data sets, their keys, the comparison and the table. The exit code is 0
 * only if every record came back equal and in order. Its own process; the broker is another.
 *
 *   --once       end after the table, on a terminal too        --data DIR   keep the data there
 *   --limit N    of each data set the first N records only
 */
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { SingleBar } from 'cli-progress';
import { build, type Histogram } from 'hdr-histogram-js';
import { table } from '../src/cli/shell.ts';
import { RecordSender } from '../src/client/record-sender.ts';
import { RestClient } from '../src/client/rest-client.ts';
import { systemClock } from '../src/core/clock.ts';
import { partitionOfKeyBytes } from '../src/core/partitioner.ts';
import { systemRandom } from '../src/core/random.ts';
import { BrokerProcess } from '../test/support/broker-process.ts';
import { labelValues, metricSum } from './metrics-text.ts';

interface DemoRecord {
  key: string;
  value: unknown;
}

interface DataSet {
  topic: string;
  partitionCount: number;
  /** What the key is, in words. */
  keyedBy: string;
  records: DemoRecord[];
}

/** Enough requests at a time to fill the window, few enough records in each to be many small appends. */
const REQUESTS_IN_FLIGHT = 64;
const RECORDS_PER_REQUEST = 200;
const READERS = 8;
const FETCH_BYTES = 1024 * 1024;

const folder = fileURLToPath(new URL('../node_modules/vega-datasets/data/', import.meta.url));

function readJson(name: string): unknown {
  return JSON.parse(readFileSync(join(folder, name), 'utf8'));
}

/** A flight has no route in this data; its distance stands for one, since two airports are always as far apart. */
function flights(limit: number): DataSet {
  const rows = readJson('flights-200k.json') as { delay: number; distance: number; time: number }[];
  const records = rows.slice(0, limit).map((row) => ({ key: `${row.distance} mi`, value: row }));
  return { topic: 'flights', partitionCount: 100, keyedBy: 'distance (for the route)', records };
}

function earthquakes(limit: number): DataSet {
  const { features } = readJson('earthquakes.json') as { features: { properties: { net: string } }[] };
  const records = features.slice(0, limit).map((row) => ({ key: row.properties.net, value: row }));
  return { topic: 'earthquakes', partitionCount: 12, keyedBy: 'seismic network', records };
}

/** What each partition must hold, by position: the number of the record in the data set. */
function expectedOf(data: DataSet): number[][] {
  const expected: number[][] = Array.from({ length: data.partitionCount }, () => []);
  for (const [number, { key }] of data.records.entries()) {
    const bytes = Buffer.from(JSON.stringify(key));
    expected[partitionOfKeyBytes(bytes, 0, bytes.length, data.partitionCount)].push(number);
  }
  return expected;
}

interface Bar {
  tick(value: number): void;
  stop(): void;
}

function progress(what: string, total: number): Bar {
  if (!process.stderr.isTTY) return { tick: () => undefined, stop: () => undefined };
  const format = `${what.padEnd(22)} {bar} {percentage}%  {value}/{total}  {duration_formatted}`;
  const bar = new SingleBar({ format, barsize: 30, stream: process.stderr, hideCursor: false });
  bar.start(total, 0);
  return { tick: (value) => bar.update(value), stop: () => bar.stop() };
}

interface Produced {
  seconds: number;
  latencies: Histogram;
  /** What was acknowledged under another place than it was sent for. */
  faults: string[];
}

async function produce(client: RestClient, data: DataSet, expected: number[][]): Promise<Produced> {
  const latencies = build({ highestTrackableValue: 600_000, numberOfSignificantValueDigits: 3 });
  const faults: string[] = [];
  const numbers = new Map(data.records.map((record, number) => [record, number]));
  const bar = progress(`${data.topic}: produce`, data.records.length);
  const sender = new RecordSender({
    client,
    topic: data.topic,
    partitionCount: data.partitionCount,
    embedded: 'json',
    clock: systemClock,
    random: systemRandom,
    inFlightMax: REQUESTS_IN_FLIGHT,
    batchRecordsMax: RECORDS_PER_REQUEST,
    onRequest: (latencyMs) => {
      latencies.recordValue(Math.max(1, Math.round(latencyMs)));
      bar.tick(sender.counts.acknowledged);
    },
    onAcknowledged: (record, partition, offset) => {
      const number = numbers.get(record as DemoRecord);
      if (number === undefined || expected[partition]?.[offset] !== number) {
        faults.push(`${data.topic}: record ${number} was given partition ${partition}, offset ${offset}`);
      }
    },
  });
  const startedMs = performance.now();
  try {
    for (const record of data.records) {
      const room = sender.add(record);
      if (room !== undefined) await room;
    }
    await sender.flush();
  } finally {
    bar.tick(sender.counts.acknowledged);
    bar.stop();
  }
  return { seconds: (performance.now() - startedMs) / 1000, latencies, faults };
}

interface Consumed {
  seconds: number;
  recordCount: number;
  faults: string[];
}

/** Reads every partition to its end and compares each record with the one that must stand there. */
async function consume(client: RestClient, data: DataSet, expected: number[][]): Promise<Consumed> {
  const bar = progress(`${data.topic}: read and compare`, data.records.length);
  const consumed: Consumed = { seconds: 0, recordCount: 0, faults: [] };
  const startedMs = performance.now();
  let next = 0;
  const reader = async (): Promise<void> => {
    while (next < data.partitionCount) await readPartition(client, data, next++, expected, consumed, bar);
  };
  try {
    await Promise.all(Array.from({ length: READERS }, reader));
  } finally {
    bar.stop();
  }
  consumed.seconds = (performance.now() - startedMs) / 1000;
  return consumed;
}

async function readPartition(
  client: RestClient,
  data: DataSet,
  partition: number,
  expected: number[][],
  consumed: Consumed,
  bar: Bar,
): Promise<void> {
  const wanted = expected[partition];
  const { beginning, end } = await client.offsets(data.topic, partition);
  const where = `${data.topic}, partition ${partition}`;
  if (beginning !== 0 || end !== wanted.length) {
    consumed.faults.push(`${where}: offsets ${beginning} to ${end}, not 0 to ${wanted.length}`);
  }
  let offset = beginning;
  while (offset < end) {
    const options = { bytesMax: FETCH_BYTES, waitMs: 1000, embedded: 'json' } as const;
    const records = await client.fetch(data.topic, partition, offset, options);
    if (records.length === 0) {
      consumed.faults.push(`${where}: no record at offset ${offset}, though the end is ${end}`);
      return;
    }
    for (const record of records) {
      const sent = data.records[wanted[offset]];
      const same =
        record.offset === offset &&
        record.key === sent?.key &&
        JSON.stringify(record.value) === JSON.stringify(sent.value);
      if (!same) consumed.faults.push(`${where}, offset ${offset}: another record than was sent`);
      offset++;
    }
    consumed.recordCount += records.length;
    bar.tick(consumed.recordCount);
  }
}

/** Counters that only rise, as they stood at a moment. */
interface Counters {
  objects: number | null;
  slices: number | null;
  hits: Map<string, { hits: number; misses: number }>;
}

/** Caches of records and of metadata, and the label that names each. */
const CACHE_FAMILIES = [
  ['streamhouse_cache', 'cache'],
  ['streamhouse_metadata_cache', 'kind'],
] as const;

async function counters(client: RestClient): Promise<Counters> {
  const text = await client.metricsText();
  const hits = new Map<string, { hits: number; misses: number }>();
  for (const [family, label] of CACHE_FAMILIES) {
    for (const cache of labelValues(text, `${family}_hits_total`, label)) {
      hits.set(cache, {
        hits: metricSum(text, `${family}_hits_total`, { [label]: cache }) ?? 0,
        misses: metricSum(text, `${family}_misses_total`, { [label]: cache }) ?? 0,
      });
    }
  }
  return {
    objects: metricSum(text, 'streamhouse_objects_put_total'),
    slices: metricSum(text, 'streamhouse_slices_total'),
    hits,
  };
}

function difference(after: number | null, before: number | null): number | null {
  return after === null ? null : after - (before ?? 0);
}

function cacheText(after: Counters, before: Counters): string {
  const shares: string[] = [];
  for (const [cache, { hits, misses }] of after.hits) {
    const hitCount = hits - (before.hits.get(cache)?.hits ?? 0);
    const all = hitCount + misses - (before.hits.get(cache)?.misses ?? 0);
    if (all > 0) shares.push(`${cache} ${((hitCount / all) * 100).toFixed(1)}%`);
  }
  return shares.join(', ') || 'no look-ups';
}

/** One data set, in and out; prints its table and returns what was wrong. */
async function run(client: RestClient, data: DataSet): Promise<string[]> {
  const { topic, partitionCount, keyedBy, records } = data;
  await client.createTopic({ name: topic, partitionCount });
  const expected = expectedOf(data);
  const before = await counters(client);
  const produced = await produce(client, data, expected);
  const written = await counters(client);
  const consumed = await consume(client, data, expected);
  const after = await counters(client);
  const faults = [...produced.faults, ...consumed.faults];
  if (consumed.recordCount !== records.length) {
    faults.push(`${topic}: ${consumed.recordCount} records came back of ${records.length}`);
  }
  const objects = difference(written.objects, before.objects);
  const slices = difference(written.slices, before.slices);
  const latency = (percentile: number): string => `${produced.latencies.getValueAtPercentile(percentile)} ms`;
  const rate = (seconds: number): string => `${Math.round(records.length / seconds).toLocaleString('en')}/s`;
  const saved = objects !== null && slices !== null && slices > 0 ? (1 - objects / slices) * 100 : null;
  const rows = [
    ['records', `${records.length.toLocaleString('en')}, keyed by ${keyedBy}, ${partitionCount} partitions`],
    ['produced', `${rate(produced.seconds)}, in requests of up to ${RECORDS_PER_REQUEST} records`],
    ['acknowledged after', `p50 ${latency(50)}, p99 ${latency(99)}`],
    ['objects written', objects === null ? 'not reported' : objects.toLocaleString('en')],
    [
      'one per partition',
      slices === null ? 'not reported' : `and window would have been ${slices.toLocaleString('en')}`,
    ],
    ['fewer puts', saved === null ? 'not reported' : `${saved.toFixed(1)}%`],
    ['read back', rate(consumed.seconds)],
    ['cache hits', cacheText(after, before)],
    ['equal and in order', faults.length === 0 ? 'yes, every record' : `NO, ${faults.length} faults`],
  ];
  process.stdout.write(`\n${table([topic, ''], rows)}`);
  return faults;
}

function howToTry(url: string): string {
  const json = 'application/vnd.kafka.json.v2+json';
  const cli = 'npm run -s streamhouse --';
  return `
The broker still serves on ${url}. To try, in another terminal:

  curl -s ${url}/topics
  curl -s -H 'Accept: ${json}' '${url}/topics/flights/partitions/7/records?offset=0&max_bytes=1000'
  curl -s -X POST -H 'Content-Type: ${json}' \\
    -d '{"records":[{"key":"ci","value":{"mag":1.5}}]}' ${url}/topics/earthquakes
  curl -s ${url}/metrics | grep -v '^#'
  ${cli} topics describe earthquakes --url ${url}
  ${cli} consume earthquakes --from end --follow --json --url ${url}

Ctrl-C ends it${keptData === null ? ' and removes its data' : ''}.
`;
}

const { values: options } = parseArgs({
  options: { once: { type: 'boolean' }, data: { type: 'string' }, limit: { type: 'string' } },
});
const limit = options.limit === undefined ? Number.POSITIVE_INFINITY : Number(options.limit);
const keptData = options.data ?? null;

async function main(): Promise<number> {
  const data = keptData ?? mkdtempSync(join(tmpdir(), 'streamhouse-demo-'));
  let broker: BrokerProcess | null = null;
  let client: RestClient | null = null;
  const interrupted = new AbortController();
  const interrupt = (): void => {
    interrupted.abort();
    void client?.close();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, interrupt);
  try {
    broker = await BrokerProcess.start(['--data', data]);
    client = new RestClient(broker.url, { connectionsMax: REQUESTS_IN_FLIGHT });
    const faults: string[] = [];
    for (const load of [flights, earthquakes]) faults.push(...(await run(client, load(limit))));
    for (const fault of faults.slice(0, 20)) process.stderr.write(`${fault}\n`);
    if (faults.length > 0) return 1;
    if (process.stdout.isTTY && !options.once && !interrupted.signal.aborted) {
      process.stdout.write(howToTry(broker.url));
      await Promise.race([broker.gone(), once(interrupted.signal, 'abort')]);
    }
    return 0;
  } catch (error) {
    if (interrupted.signal.aborted) return 130;
    process.stderr.write(`demo: ${error instanceof Error ? error.message : error}\n`);
    for (const line of broker?.log ?? []) process.stderr.write(`  ${line}\n`);
    return 1;
  } finally {
    await client?.close();
    await broker?.stop();
    if (keptData === null) rmSync(data, { recursive: true, force: true });
  }
}

process.exitCode = await main();
