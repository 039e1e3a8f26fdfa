/**
 * `streamhouse load SCENARIO`: options, progress, the summary, the files. Owns nothing of the load itself (src/load).
 * Main thread.
 */
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { SingleBar } from 'cli-progress';
import { type Command, Option } from 'commander';
import { hasOneOwner, loadBackend } from '../../storage/metadata/metadata-backends.ts';
import { systemRandom } from '../core/random.ts';
import type { ClusterPlan } from '../load/cluster-story.ts';
import { defaultPrices, PRICES, type Prices, parsePrices } from '../load/cost.ts';
import { GENERATORS_MAX, type LoadPlan, makePlan, PlanError, VALUE_BYTES_MIN } from '../load/load-plan.ts';
import { reportHtml } from '../load/report-html.ts';
import type { LoadReport } from '../load/report-schema.ts';
import { reportSummary } from '../load/report-summary.ts';
import { runLoad } from '../load/run-load.ts';
import type { LoadProgress, RunLoadOptions } from '../load/run-options.ts';
import { SCENARIOS } from '../load/scenarios.ts';
import { parseDuration } from '../setting-values.ts';
import { wholeNumber } from './client-options.ts';
import { EXIT_INTERRUPTED, ExitError, print, type Shell, UsageError } from './shell.ts';

interface LoadOptions {
  url?: string;
  data?: string;
  metadata?: string;
  objects?: string;
  objectLatency?: [number, number, number];
  crossPartition: boolean;
  brokers?: number;
  killOneAfter?: number;
  addOneAfter?: number;
  partitions?: number;
  batches?: number;
  valueBytes?: number;
  perRequest?: number;
  rate?: number;
  duration?: number;
  connections?: number;
  inFlight?: number;
  generators?: number;
  seed?: number;
  warmUp?: number;
  verify?: boolean;
  restart?: boolean;
  echo?: boolean;
  prices?: Prices;
  cpuProf?: string;
  json?: string;
  html?: string;
}

/** More than that on one machine measure how they get into each other's way. */
const BROKERS_MAX = 16;

/** The report was made, and what it says is not as it should be. */
const EXIT_FOUND = 1;

export function define(command: Command, shell: Shell): void {
  const scenarios = SCENARIOS.map(({ name, summary }) => `  ${name.padEnd(13)} ${summary}`);
  command
    .description(
      `Puts a broker under load and reports what it did.\n\n${scenarios.join('\n')}\n\n` +
        'Without --url it starts a broker of its own, with a temporary directory unless --data names one; what\n' +
        'follows -- goes to its `serve`. Every run writes a topic of its own.',
    )
    .argument('<scenario>', `one of ${SCENARIOS.map(({ name }) => name).join(', ')}`)
    .argument('[serve-args...]', 'after --: settings of the broker of its own, as `serve` takes them');
  addBrokerOptions(command);
  addSizeOptions(command);
  addReportOptions(command);
  command.action(async (scenario: string, serveArgs: string[], options: LoadOptions) => {
    const plan = planOf(scenario, options);
    checkTogether(options, serveArgs, plan);
    const cluster = clusterOf(options, plan);
    // A report that cannot be written is told before the run, not after it.
    for (const file of [options.json, options.html]) if (file !== undefined) writeReport(file, '');
    await load(plan, cluster, serveArgs, options, shell);
  });
}

function addBrokerOptions(command: Command): void {
  command
    .option('--url <url>', 'a broker that runs already; it must be able to create topics')
    .option(
      '--data <directory>',
      'of the broker of its own; it stays (default: a temporary one, removed at the end)',
    )
    .option('--metadata <url>', 'metadata store of the broker of its own (default: SQLite in its directory)')
    .option('--objects <url>', 'object store of the broker of its own (default: files in its directory)')
    .addOption(
      new Option(
        '--object-latency <p50,p99,max>',
        'delays every call to the object store of the broker of its own, like 40ms,250ms,1s',
      ).argParser(latencyTriple),
    )
    .option(
      '--no-cross-partition',
      'one object for each partition and window, to compare with (serve --object-per partition)',
    );
  addClusterOptions(command);
}

function addClusterOptions(command: Command): void {
  command
    .option(
      '--brokers <n>',
      'of its own, on one metadata store that several can share; requests go to them in turn (default: 1)',
      wholeNumber('--brokers', 1, BROKERS_MAX),
    )
    .option(
      '--kill-one-after <time>',
      'ends one of them with SIGKILL meanwhile',
      duration('--kill-one-after'),
    )
    .option('--add-one-after <time>', 'starts one more meanwhile', duration('--add-one-after'));
}

function addSizeOptions(command: Command): void {
  const whole = (flag: string, min: number, max: number) => wholeNumber(flag, min, max);
  command
    .option('--partitions <n>', 'of the topic', whole('--partitions', 1, 2 ** 31 - 1))
    .option('--batches <m>', 'records for each partition', whole('--batches', 1, 2 ** 31 - 1))
    .option('--value-bytes <b>', 'of each record', whole('--value-bytes', VALUE_BYTES_MIN, 1_000_000))
    .option('--per-request <k>', 'records in a request', whole('--per-request', 1, 100_000))
    .option(
      '--rate <r>',
      'records a second whatever the answers do (open loop: latency counts from when a request was due)',
      whole('--rate', 1, 100_000_000),
    )
    .option('--duration <time>', 'how long, like 30s; of a rate, how long it lasts', duration('--duration'))
    .option('--connections <c>', 'in all', whole('--connections', 1, 10_000))
    .option('--in-flight <n>', 'requests unanswered in all', whole('--in-flight', 1, 1_000_000))
    .option(
      '--generators <n>',
      'processes that send (default: a quarter of the cores)',
      whole('--generators', 1, GENERATORS_MAX),
    )
    .option('--seed <s>', 'of every random choice (default: 1)', whole('--seed', 0, 2 ** 31 - 1))
    .option('--warm-up <time>', 'at the beginning, not in the latencies and the rate', duration('--warm-up'));
}

function addReportOptions(command: Command): void {
  const prices = Object.entries(PRICES).map(
    ([name, { of, default: usd }]) => `${name}=${usd} (USD for ${of})`,
  );
  command
    .option('--verify', 'read every record back and compare; exit code 1 unless all is there as it was sent')
    .option('--echo', 'measure a bare node:http echo under the same load too, before and after')
    .option('--restart', 'measure how long the broker of its own takes to start on what the run left')
    .addOption(new Option('--prices <list>', `for the estimate: ${prices.join(', ')}`).argParser(pricesOf))
    .addOption(new Option('--cpu-prof <directory>', 'write a CPU profile of the broker of its own there'))
    .option('--json <file>', 'write the report there (docs/load-report.schema.json)')
    .option('--html <file>', 'write a page with plots there; it needs no network');
}

function duration(flag: string): (text: string) => number {
  return (text) => {
    const ms = parseDuration(text);
    if (ms !== null && ms > 0) return ms;
    throw new UsageError(`${flag}: ${JSON.stringify(text)} is not a duration (like 500ms, 30s, 2m)`);
  };
}

function latencyTriple(text: string): [number, number, number] {
  const parts = text.split(',').map((part) => parseDuration(part));
  const [p50, p99, max] = parts;
  if (parts.length === 3 && p50 && p99 && max && p50 <= p99 && p99 <= max && max <= 60_000)
    return [p50, p99, max];
  throw new UsageError(
    `--object-latency: ${JSON.stringify(text)} is not P50,P99,MAX, rising, like 40ms,250ms,1s`,
  );
}

function pricesOf(text: string): Prices {
  const prices = parsePrices(text);
  if (prices !== null) return prices;
  throw new UsageError(
    `--prices: ${JSON.stringify(text)} is not NAME=USD,... of ${Object.keys(PRICES).join(', ')}`,
  );
}

function planOf(name: string, options: LoadOptions): LoadPlan {
  const scenario = SCENARIOS.find((one) => one.name === name);
  if (scenario === undefined) {
    throw new UsageError(`no scenario ${name}; there are ${SCENARIOS.map((one) => one.name).join(', ')}`);
  }
  try {
    const { rate: ratePerS, duration: durationMs, warmUp: warmUpMs, ...sizes } = options;
    const generators = options.generators ?? Math.max(1, availableParallelism() >> 2);
    return makePlan(scenario, { ...sizes, generators, ratePerS, durationMs, warmUpMs });
  } catch (error) {
    if (error instanceof PlanError) throw new UsageError(error.message);
    throw error;
  }
}

function checkTogether(options: LoadOptions, serveArgs: readonly string[], plan: LoadPlan): void {
  const { url, data, metadata, objects, objectLatency, crossPartition, restart, cpuProf } = options;
  if (url === undefined) return;
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new UsageError(`--url: ${JSON.stringify(url.slice(0, 200))} is not an http:// or https:// URL`);
  }
  const own = { data, metadata, objects, 'object-latency': objectLatency, restart, 'cpu-prof': cpuProf };
  for (const [flag, value] of Object.entries(own)) {
    if (value !== undefined) throw new UsageError(`--${flag} is of a broker of its own: not with --url`);
  }
  if (!crossPartition) throw new UsageError('--no-cross-partition is of a broker of its own: not with --url');
  if (plan.phases.some(({ afterRestart }) => afterRestart)) {
    throw new UsageError(`${plan.scenario} starts a broker of its own anew: not with --url`);
  }
  if (serveArgs.length > 0) throw new UsageError(`${serveArgs[0]} is of a broker of its own: not with --url`);
}

/** Null: one broker, to which nothing happens. */
function clusterOf(options: LoadOptions, plan: LoadPlan): ClusterPlan | null {
  const { brokers = 1, killOneAfter, addOneAfter, metadata, url, restart } = options;
  const asked = { brokers: options.brokers, 'kill-one-after': killOneAfter, 'add-one-after': addOneAfter };
  const given = Object.entries(asked).filter(([, value]) => value !== undefined);
  if (given.length === 0) return null;
  if (url !== undefined) throw new UsageError(`--${given[0][0]} is of brokers of its own: not with --url`);
  if (brokers === 1) {
    if (given[0][0] === 'brokers' && given.length === 1) return null;
    throw new UsageError(`--${given.at(-1)?.[0]} needs --brokers 2 or more`);
  }
  if (metadata === undefined || hasOneOwner(metadata)) {
    const what = metadata === undefined ? 'SQLite, the default,' : `${metadata.split(':', 1)[0]}:`;
    throw new UsageError(
      `--brokers ${brokers}: ${what} has one owner; --metadata must name a store that several brokers can share: postgres, cockroachdb or dynamodb`,
    );
  }
  if (restart || plan.phases.some(({ afterRestart }) => afterRestart)) {
    throw new UsageError(`--brokers ${brokers}: what starts its broker anew has one`);
  }
  const measured = plan.phases.find(({ isMeasured }) => isMeasured);
  for (const [flag, afterMs] of [
    ['--kill-one-after', killOneAfter],
    ['--add-one-after', addOneAfter],
  ] as const) {
    const lastsMs = measured?.durationMs ?? null;
    if (afterMs !== undefined && lastsMs !== null && afterMs >= lastsMs) {
      throw new UsageError(`${flag}: the load is over after ${lastsMs / 1000} s`);
    }
  }
  return { brokers, killAfterMs: killOneAfter ?? null, addAfterMs: addOneAfter ?? null };
}

async function load(
  plan: LoadPlan,
  cluster: ClusterPlan | null,
  serveArgs: readonly string[],
  options: LoadOptions,
  shell: Shell,
): Promise<void> {
  const scenario = SCENARIOS.find(({ name }) => name === plan.scenario);
  const database = await databaseOf(options, shell);
  const bar = new LoadBar(shell);
  let report: LoadReport;
  try {
    report = await runLoad({
      plan,
      url: options.url ?? null,
      cluster,
      own: {
        agentId: null,
        data: options.data ?? null,
        metadata: options.metadata ?? null,
        objects: options.objects ?? null,
        objectDelayMs: options.objectLatency ?? null,
        objectPer: options.crossPartition ? 'window' : 'partition',
        seed: plan.seed,
        serveArgs: [...(scenario?.serveArgs ?? []), ...serveArgs],
        profileDirectory: options.cpuProf ?? null,
        env: shell.env,
        clock: shell.clock,
      },
      verify: options.verify ?? false,
      restart: options.restart ?? false,
      echo: options.echo ?? false,
      database,
      prices: options.prices ?? defaultPrices(),
      command: commandLine(plan, serveArgs, options),
      clock: shell.clock,
      random: systemRandom,
      signal: shell.stop,
      progress: (progress) => bar.update(progress),
    });
  } finally {
    bar.stop();
  }
  if (options.json !== undefined) writeReport(options.json, `${JSON.stringify(report, null, 2)}\n`);
  if (options.html !== undefined) writeReport(options.html, reportHtml(report));
  await print(shell.stdout, reportSummary(report));
  conclude(report, shell);
}

/** Of a broker that runs already nobody knows here where its metadata is. */
async function databaseOf({ url, metadata }: LoadOptions, shell: Shell): Promise<RunLoadOptions['database']> {
  if (url !== undefined)
    return { ownCount: { unit: 'statements', source: 'the broker, at its driver' }, counter: null };
  const where = metadata ?? 'sqlite:metadata.db';
  const { ownCount, databaseCounter } = await loadBackend(where);
  return { ownCount, counter: databaseCounter?.(where, { clock: shell.clock }) ?? null };
}

/** What it takes to run the same again; no secrets, for the settings may hold some. */
function commandLine(plan: LoadPlan, serveArgs: readonly string[], options: LoadOptions): string {
  const words = ['streamhouse load', plan.scenario];
  const { partitions, batches, valueBytes, perRequest, rate, connections, inFlight, generators, seed } =
    options;
  const numbers = {
    partitions,
    batches,
    valueBytes,
    perRequest,
    rate,
    connections,
    inFlight,
    generators,
    seed,
  };
  for (const [name, value] of Object.entries(numbers)) {
    if (value !== undefined)
      words.push(`--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)} ${value}`);
  }
  if (options.duration !== undefined) words.push(`--duration ${options.duration}ms`);
  if (options.warmUp !== undefined) words.push(`--warm-up ${options.warmUp}ms`);
  if (options.brokers !== undefined) words.push(`--brokers ${options.brokers}`);
  if (options.killOneAfter !== undefined) words.push(`--kill-one-after ${options.killOneAfter}ms`);
  if (options.addOneAfter !== undefined) words.push(`--add-one-after ${options.addOneAfter}ms`);
  if (options.objectLatency !== undefined) {
    words.push(`--object-latency ${options.objectLatency.map((ms) => `${ms}ms`).join(',')}`);
  }
  if (!options.crossPartition) words.push('--no-cross-partition');
  if (options.metadata !== undefined) words.push(`--metadata ${options.metadata.split(':', 1)[0]}:...`);
  if (options.objects !== undefined) words.push(`--objects ${options.objects.split(':', 1)[0]}:...`);
  for (const flag of ['verify', 'echo', 'restart'] as const) if (options[flag]) words.push(`--${flag}`);
  if (serveArgs.length > 0) words.push('--', ...serveArgs.map((arg) => (/:\/\//.test(arg) ? '...' : arg)));
  return words.join(' ');
}

function writeReport(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    throw new UsageError(`${file} cannot be written (${(error as NodeJS.ErrnoException).code})`);
  }
}

/** A run that was cut short, lost records or could not be verified is not a success. */
function conclude(report: LoadReport, shell: Shell): void {
  if (report.partial) {
    shell.stderr.write(`streamhouse: this report is partial: ${report.partial_reason}\n`);
    throw new ExitError(shell.stop.aborted ? EXIT_INTERRUPTED : EXIT_FOUND);
  }
  const { verify } = report;
  if (verify === null) return;
  const wrong = (['missing', 'duplicated', 'reordered', 'altered', 'refused_read', 'gaps'] as const)
    .filter((kind) => verify[kind] > 0)
    .map((kind) => `${verify[kind]} ${kind.replace('_', ' and ')}`);
  if (wrong.length === 0) return;
  shell.stderr.write(`streamhouse: what was read is not what was acknowledged: ${wrong.join(', ')}\n`);
  for (const example of verify.examples) shell.stderr.write(`  ${example}\n`);
  throw new ExitError(EXIT_FOUND);
}

/** A bar on a terminal. */
class LoadBar {
  readonly #shell: Shell;
  #bar: SingleBar | null = null;
  #stage = '';

  constructor(shell: Shell) {
    this.#shell = shell;
  }

  update({ stage, done, total, ratePerS, p99Ms }: LoadProgress): void {
    if (!this.#shell.stderr.isTTY) return;
    if (stage !== this.#stage) {
      this.stop();
      this.#stage = stage;
      this.#bar = new SingleBar({
        format:
          stage === 'sending'
            ? '{bar} {percentage}% {rate}/s, p99 {p99} ms, {duration_formatted}'
            : `{bar} {percentage}% ${stage}`,
        stream: this.#shell.stderr as NodeJS.WriteStream,
        barsize: 30,
        clearOnComplete: true,
        hideCursor: false,
      });
      this.#bar.start(Math.max(1, total), done, { rate: 0, p99: 0 });
    }
    this.#bar?.update(done, { rate: Math.round(ratePerS), p99: p99Ms });
  }

  stop(): void {
    this.#bar?.stop();
    this.#bar = null;
  }
}
