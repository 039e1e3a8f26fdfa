/**
 * The settings of `serve`: one table from which parsing, `serve --help`, error messages and docs/settings.md
 * all come, and one function that turns flags, environment, file and defaults, in that order, into a frozen,
 * validated object. Does not own what a setting does, nor how a URL's backend reads the rest of its URL.
 * Runs on the main thread, before anything else is created.
 *
 *   name           the property of Settings; ends with its unit (flushWindowMs, flushBytes)
 *   flag           --flush-window      the name in kebab case without a final Ms, as durations say their unit
 *   environment    STREAMHOUSE_FLUSH_WINDOW
 *   file           {"flush-window": "100ms"}
 */
import { readFileSync } from 'node:fs';
import { availableParallelism, hostname } from 'node:os';
import { StreamHouseError } from './core/errors.ts';
import { splitAddress } from './core/host-port.ts';
import { BODY_BYTES_MAX_DEFAULT, CONNECTIONS_MAX, RECORD_BYTES_MAX_DEFAULT } from './core/limits.ts';
import { withoutSecrets } from './core/printable-url.ts';
import {
  formatShardGroups,
  GROUPS_MAX,
  oneGroup,
  parseShardGroups,
  SHARDS_MAX,
  type ShardLayout,
} from './core/shard-layout.ts';
import { formatBytes, formatDuration, parseBytes, parseDuration } from './setting-values.ts';

export { splitAddress };

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** Room for one block of the block reader and its keeping, rounded up. */
const BLOCK_CACHE_BYTES_PER_LANE_MIN = 512 * KIB;

/** `default` null: none, or derived from other settings; `defaultText` says so in words then. */
interface TextSetting {
  type: 'text' | 'address' | 'url';
  default: string | null;
  defaultText?: string;
  pattern?: RegExp;
  patternText?: string;
  help: string;
}
interface ChoiceSetting {
  type: 'choice';
  choices: readonly string[];
  default: string;
  help: string;
}
/** Given by its flag alone, or as true or false elsewhere. */
interface FlagSetting {
  type: 'flag';
  default: boolean;
  help: string;
}
interface NumberSetting {
  type: 'bytes' | 'duration' | 'count';
  default: number | null;
  defaultText?: string;
  min: number;
  max: number;
  help: string;
}
export type SettingSpec = TextSetting | ChoiceSetting | NumberSetting | FlagSetting;

const NAME = /^[A-Za-z0-9._-]{1,100}$/;
const NAME_TEXT = '1 to 100 of the characters A-Z a-z 0-9 . _ -';

/** In the order in which `serve --help` and docs/settings.md show them. */
export const SETTINGS = {
  listen: {
    type: 'address',
    default: '127.0.0.1:8080',
    help: 'Address of the HTTP door, HOST:PORT; port 0 takes a free one.',
  },
  data: {
    type: 'text',
    default: './data',
    help: 'Directory for everything that has no URL of its own.',
  },
  metadata: {
    type: 'url',
    default: null,
    defaultText: 'sqlite:DATA/metadata.db',
    help: 'URL of the metadata store: sqlite:PATH, postgres://..., cockroachdb://... or dynamodb://REGION/PREFIX (docs/metadata-backends.md).',
  },
  migrate: {
    type: 'flag',
    default: false,
    help: 'Apply pending migrations of the metadata schema at the start; on SQLite they always are.',
  },
  objects: {
    type: 'url',
    default: null,
    defaultText: 'file:DATA/objects',
    help: 'URL of the object store: file:DIR or s3://BUCKET/PREFIX?endpoint=URL&region=R.',
  },
  agentId: {
    type: 'text',
    default: null,
    defaultText: 'the host name',
    pattern: NAME,
    patternText: NAME_TEXT,
    help: 'Name of this broker; no two live brokers of a cluster share one.',
  },
  zone: {
    type: 'text',
    default: 'default',
    pattern: NAME,
    patternText: NAME_TEXT,
    help: 'Availability zone of this broker.',
  },
  group: {
    type: 'text',
    default: 'default',
    pattern: NAME,
    patternText: NAME_TEXT,
    help: 'Group of brokers to which this one belongs: they share the shards of the group, and so its topics.',
  },
  advertise: {
    type: 'address',
    default: null,
    defaultText: 'the listen address',
    help: 'Address under which others reach this broker, HOST:PORT.',
  },
  shards: {
    type: 'count',
    default: null,
    defaultText: '8 on SQLite and DynamoDB, 64 elsewhere',
    min: 1,
    max: SHARDS_MAX,
    help: 'Metadata shards of a new cluster; an existing cluster keeps its own number.',
  },
  shardGroups: {
    type: 'text',
    default: null,
    defaultText: 'default, with all shards',
    help: 'Groups of a new cluster and the shards of each: default:48,heavy:16. Topics that name no group belong to the first. An existing cluster refuses others than its own.',
  },
  lanes: {
    type: 'count',
    default: null,
    defaultText: 'half the cores, at least 1',
    min: 1,
    max: 64,
    help: 'Threads that validate batches, hold the index and answer fetches.',
  },
  flushWindowMs: {
    type: 'duration',
    default: 100,
    min: 1,
    max: 10 * SECOND,
    help: 'Longest time that an append waits for others before its object is sealed.',
  },
  flushBytes: {
    type: 'bytes',
    default: 8 * MIB,
    min: 64 * KIB,
    max: 256 * MIB,
    help: 'Bytes at which an object is sealed before its window ends.',
  },
  flushSlicesMax: {
    type: 'count',
    default: 65_536,
    min: 1,
    max: 1_000_000,
    help: 'Partitions in one object at most.',
  },
  objectPer: {
    type: 'choice',
    choices: ['window', 'partition'],
    default: 'window',
    help: 'Which partitions share an object: window, all that have records in one flush window; partition, none. Only to measure what sharing saves: partition costs an upload for each partition and window.',
  },
  uploadsInFlightMax: {
    type: 'count',
    default: 8,
    min: 1,
    max: 256,
    help: 'Objects that are uploaded at the same time.',
  },
  uploadDeadlineMs: {
    type: 'duration',
    default: 10 * SECOND,
    min: 100,
    max: 10 * MINUTE,
    help: 'Time after which an upload is given up and its appends fail as retriable.',
  },
  requestTimeoutMs: {
    type: 'duration',
    default: 30 * SECOND,
    min: 100,
    max: 10 * MINUTE,
    help: 'Time after which a produce request that is still open is answered as timed out.',
  },
  inFlightBytesMax: {
    type: 'bytes',
    default: 256 * MIB,
    min: MIB,
    max: 64 * GIB,
    help: 'Bytes of produce requests held at a time; beyond them requests are refused.',
  },
  recordBytesMax: {
    type: 'bytes',
    default: RECORD_BYTES_MAX_DEFAULT,
    min: KIB,
    max: 64 * MIB,
    help: 'Largest record, key and value together.',
  },
  bodyBytesMax: {
    type: 'bytes',
    default: BODY_BYTES_MAX_DEFAULT,
    min: KIB,
    max: 256 * MIB,
    help: 'Largest body of an HTTP request.',
  },
  indexBytes: {
    type: 'bytes',
    default: 64 * MIB,
    min: MIB,
    max: 64 * GIB,
    help: 'Memory for the segment index.',
  },
  tailCacheBytes: {
    type: 'bytes',
    default: 64 * MIB,
    min: MIB,
    max: 64 * GIB,
    help: 'Memory for the newest records of all partitions.',
  },
  blockCacheBytes: {
    type: 'bytes',
    default: 64 * MIB,
    min: MIB,
    max: 64 * GIB,
    help: 'Memory for blocks of objects that cold reads fetched.',
  },
  topicCacheMax: {
    type: 'count',
    default: 50_000,
    min: 1,
    max: 10_000_000,
    help: 'Topics kept in memory, some 400 bytes each.',
  },
  topicCacheTtlMs: {
    type: 'duration',
    default: 5 * MINUTE,
    min: SECOND,
    max: HOUR,
    help: "Time after which another broker's change of a topic is seen at the latest.",
  },
  checkpointLogBytes: {
    type: 'bytes',
    default: 4 * MIB,
    min: 4 * KIB,
    max: GIB,
    help: 'Log bytes of a shard after which it writes a checkpoint.',
  },
  checkpointIntervalMs: {
    type: 'duration',
    default: 5 * MINUTE,
    min: SECOND,
    max: 24 * HOUR,
    help: 'Longest time between checkpoints of a shard that was written to.',
  },
  heartbeatMs: {
    type: 'duration',
    default: 5 * SECOND,
    min: 100,
    max: 5 * SECOND,
    help: 'Time between heartbeats; others count on at most 5 s.',
  },
  deadAgentMs: {
    type: 'duration',
    default: 15 * SECOND,
    min: 300,
    max: 10 * MINUTE,
    help: 'Silence after which a broker is dead and others take its shards; at least three heartbeats, the same for all brokers of a cluster.',
  },
  connectionsMax: {
    type: 'count',
    default: CONNECTIONS_MAX,
    min: 1,
    max: 1_000_000,
    help: 'Open connections at most.',
  },
  shutdownGraceMs: {
    type: 'duration',
    default: 10 * SECOND,
    min: 0,
    max: 10 * MINUTE,
    help: 'Time that a stopping broker gives to handing its shards over, and then to open requests to end.',
  },
  logLevel: {
    type: 'choice',
    choices: ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'],
    default: 'info',
    help: 'Least level that is logged, on standard error.',
  },
} as const satisfies Record<string, SettingSpec>;

export type SettingName = keyof typeof SETTINGS;

type ValueOf<S extends SettingSpec> = S extends NumberSetting
  ? number
  : S extends FlagSetting
    ? boolean
    : S extends ChoiceSetting
      ? S['choices'][number]
      : string;

/** Settings that may have no value. */
type OptionalSetting = 'advertise' | 'shards' | 'shardGroups';

/**
 * What `serve` runs on. Frozen. `advertise` null stands for the address bound; `shards` and `shardGroups` are null
 * unless they were given: see `newLayout`.
 */
export type Settings = Readonly<
  { [N in Exclude<SettingName, OptionalSetting>]: ValueOf<(typeof SETTINGS)[N]> } & {
    [N in OptionalSetting]: ValueOf<(typeof SETTINGS)[N]> | null;
  }
>;

/** One raw value and where it came from, for messages. */
interface Given {
  value: unknown;
  source: string;
}

export interface SettingSources {
  /** By flag name without dashes: {'flush-window': '100ms', migrate: 'true'}. */
  flags: Readonly<Record<string, string>>;
  env: Readonly<Record<string, string | undefined>>;
  /** Path of a JSON file; else STREAMHOUSE_CONFIG; else none. */
  configPath?: string;
}

/** Names of the environment that begin with STREAMHOUSE_ and are not settings of `serve`. */
const OTHER_ENVIRONMENT = new Set(['STREAMHOUSE_URL', 'STREAMHOUSE_DEBUG', 'STREAMHOUSE_CONFIG']);
const TEST_ENVIRONMENT = 'STREAMHOUSE_TEST_';

/** 'flushWindowMs' -> 'flush-window'. Also the key in the file. */
export function flagOf(name: string): string {
  return name.replace(/Ms$/, '').replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** 'flushWindowMs' -> 'STREAMHOUSE_FLUSH_WINDOW'. */
export function environmentOf(name: string): string {
  return `STREAMHOUSE_${flagOf(name).replaceAll('-', '_').toUpperCase()}`;
}

export function settingNames(): SettingName[] {
  return Object.keys(SETTINGS) as SettingName[];
}

function wrong(source: string, why: string): StreamHouseError {
  return new StreamHouseError('invalid-setting', `${source}: ${why}`);
}

/**
 * Reads and checks all settings. 'invalid-setting' with one line that names the source (flag, environment
 * name, or file and key) and never repeats a URL's secrets.
 */
export function readSettings(sources: SettingSources): Settings {
  const given = new Map<SettingName, Given>();
  const configPath = sources.configPath ?? (sources.env.STREAMHOUSE_CONFIG || undefined);
  if (configPath !== undefined) takeFile(configPath, given);
  takeEnvironment(sources.env, given);
  takeFlags(sources.flags, given);

  const draft: Record<string, unknown> = {};
  for (const name of settingNames()) {
    const spec: SettingSpec = SETTINGS[name];
    const value = given.get(name);
    draft[name] = value === undefined ? spec.default : parseSetting(spec, value);
  }
  const settings = derive(draft);
  checkTogether(settings, given);
  return Object.freeze(settings);
}

function namesByFlag(): Map<string, SettingName> {
  return new Map(settingNames().map((name) => [flagOf(name), name]));
}

function takeFile(path: string, given: Map<SettingName, Given>): void {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw wrong(`settings file ${path}`, `it cannot be read (${(error as NodeJS.ErrnoException).code})`);
  }
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    // The parser's own message quotes the text, which may hold a secret.
    throw wrong(`settings file ${path}`, 'it is not valid JSON');
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content)) {
    throw wrong(`settings file ${path}`, 'it must hold one JSON object');
  }
  const names = namesByFlag();
  for (const [key, value] of Object.entries(content)) {
    const name = names.get(key);
    const source = `settings file ${path}, ${JSON.stringify(key)}`;
    if (name === undefined) throw wrong(source, unknownText(key, [...names.keys()]));
    given.set(name, { value, source });
  }
}

/** An empty value in the environment counts as not set. */
function takeEnvironment(env: SettingSources['env'], given: Map<SettingName, Given>): void {
  const names = new Map(settingNames().map((name) => [environmentOf(name), name]));
  for (const [key, value] of Object.entries(env)) {
    if (!key.startsWith('STREAMHOUSE_') || value === undefined || value === '') continue;
    if (OTHER_ENVIRONMENT.has(key) || key.startsWith(TEST_ENVIRONMENT)) continue;
    const name = names.get(key);
    if (name === undefined) throw wrong(`environment ${key}`, unknownText(key, [...names.keys()]));
    given.set(name, { value, source: `environment ${key}` });
  }
}

function takeFlags(flags: SettingSources['flags'], given: Map<SettingName, Given>): void {
  const names = namesByFlag();
  for (const [flag, value] of Object.entries(flags)) {
    const name = names.get(flag);
    if (name === undefined) throw wrong(`--${flag}`, unknownText(flag, [...names.keys()]));
    given.set(name, { value, source: `--${flag}` });
  }
}

function unknownText(key: string, known: readonly string[]): string {
  const near = known.find((name) => name.includes(key) || key.includes(name) || nearlySame(name, key));
  return `there is no such setting${near === undefined ? '' : `; is ${near} meant?`}`;
}

/** Same but for one letter more, less or other. */
function nearlySame(a: string, b: string): boolean {
  if (Math.abs(a.length - b.length) > 1) return false;
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < Math.min(a.length, b.length) - head && a.at(-1 - tail) === b.at(-1 - tail)) tail++;
  return Math.max(a.length, b.length) - head - tail <= 1;
}

function parseSetting(spec: SettingSpec, { value, source }: Given): string | number | boolean {
  switch (spec.type) {
    case 'bytes':
    case 'duration':
    case 'count':
      return parseNumber(spec, value, source);
    case 'flag':
      if (value === true || value === 'true') return true;
      if (value === false || value === 'false') return false;
      throw wrong(source, `${shown(value)} is neither true nor false`);
    case 'choice': {
      if (typeof value === 'string' && spec.choices.includes(value)) return value;
      throw wrong(source, `${shown(value)} is not one of ${spec.choices.join(', ')}`);
    }
    case 'address':
      if (typeof value !== 'string' || splitAddress(value) === null) {
        throw wrong(source, `${shown(value)} is not HOST:PORT with a port up to 65535`);
      }
      return value;
    case 'url':
      if (typeof value !== 'string' || !/^[a-z][a-z0-9+]*:/.test(value)) {
        throw wrong(source, 'it is not a URL (like sqlite:PATH, file:DIR or s3://BUCKET/PREFIX)');
      }
      return value;
    case 'text':
      if (typeof value !== 'string' || value === '' || value.includes('\0')) {
        throw wrong(source, `${shown(value)} is not a text of at least one character`);
      }
      if (spec.pattern && !spec.pattern.test(value)) {
        throw wrong(source, `${shown(value)} is not ${spec.patternText}`);
      }
      return value;
  }
}

const UNIT_HINT = {
  bytes: 'a size (like 64MiB, 512k or a number of bytes)',
  duration: 'a duration (like 100ms, 5s, 2m or a number of ms)',
  count: 'a whole number',
} as const;

function parseNumber(spec: NumberSetting, value: unknown, source: string): number {
  const text = typeof value === 'number' ? String(value) : value;
  const parse = { bytes: parseBytes, duration: parseDuration, count: parseCount }[spec.type];
  const number = typeof text === 'string' ? parse(text) : null;
  if (number === null) throw wrong(source, `${shown(value)} is not ${UNIT_HINT[spec.type]}`);
  if (number < spec.min || number > spec.max) {
    const between = `${formatValue(spec, spec.min)} to ${formatValue(spec, spec.max)}`;
    throw wrong(source, `${shown(value)} is outside ${between}`);
  }
  return number;
}

function parseCount(text: string): number | null {
  return /^[0-9]{1,12}$/.test(text.trim()) ? Number(text) : null;
}

function shown(value: unknown): string {
  return JSON.stringify(value)?.slice(0, 100) ?? String(value);
}

/** A number in the unit that people read: 8 MiB, 5 s, 12. */
export function formatValue(spec: SettingSpec, value: number | string | boolean): string {
  if (typeof value !== 'number') return String(value);
  if (spec.type === 'bytes') return formatBytes(value);
  if (spec.type === 'duration') return formatDuration(value);
  return String(value);
}

/** What a setting is when it is not given, in words. */
export function defaultTextOf(spec: SettingSpec): string {
  if ('defaultText' in spec && spec.defaultText !== undefined) return spec.defaultText;
  return spec.default === null ? 'none' : formatValue(spec, spec.default);
}

function derive(draft: Record<string, unknown>): Settings {
  // As it was given: whoever makes the directory finds it again in both URLs.
  const folder = (draft.data as string).replace(/(?<=.)\/+$/, '');
  const metadata = (draft.metadata as string | null) ?? `sqlite:${folder}/metadata.db`;
  return {
    ...(draft as unknown as Settings),
    metadata,
    objects: (draft.objects as string | null) ?? `file:${folder}/objects`,
    agentId: (draft.agentId as string | null) ?? agentIdOfHost(hostname()),
    lanes: (draft.lanes as number | null) ?? Math.min(64, Math.max(1, availableParallelism() >> 1)),
  };
}

function agentIdOfHost(host: string): string {
  return host.replace(/[^A-Za-z0-9._-]/g, '-').slice(0, 100) || 'broker';
}

/** The shards of a cluster that is made with these settings. */
export function newLayout({ metadata, shards, shardGroups }: Settings): ShardLayout {
  const given = shardGroups === null ? null : parseShardGroups(shardGroups);
  if (given !== null) return given;
  const backend = metadata.slice(0, metadata.indexOf(':'));
  return oneGroup(shards ?? (['sqlite', 'dynamodb', 'memory'].includes(backend) ? 8 : 64));
}

/** Pairs of settings that do not go together, and those that are more than a text. */
function checkTogether(settings: Settings, given: Map<SettingName, Given>): void {
  const atMost = (small: SettingName, large: SettingName): void => {
    if ((settings[small] as number) <= (settings[large] as number)) return;
    const source = given.get(small)?.source ?? given.get(large)?.source ?? flagOf(small);
    const [a, b] = [small, large].map(
      (n) => `${flagOf(n)} (${formatValue(SETTINGS[n], settings[n] as number)})`,
    );
    throw wrong(source, `${a} must not be above ${b}`);
  };
  checkShardGroups(settings, given);
  atMost('recordBytesMax', 'bodyBytesMax');
  atMost('bodyBytesMax', 'inFlightBytesMax');
  atMost('flushBytes', 'inFlightBytesMax');
  atMost('flushWindowMs', 'requestTimeoutMs');
  if (settings.deadAgentMs < 3 * settings.heartbeatMs) {
    const source = given.get('deadAgentMs')?.source ?? given.get('heartbeatMs')?.source ?? 'dead-agent';
    const least = formatDuration(3 * settings.heartbeatMs);
    throw wrong(source, `dead-agent must be at least three heartbeats, ${least}`);
  }
  const blocksMin = settings.lanes * BLOCK_CACHE_BYTES_PER_LANE_MIN;
  if (settings.blockCacheBytes >= blocksMin) return;
  const source =
    given.get('blockCacheBytes')?.source ?? given.get('lanes')?.source ?? flagOf('blockCacheBytes');
  throw wrong(source, `${settings.lanes} lanes need a block cache of at least ${formatBytes(blocksMin)}`);
}

function checkShardGroups({ shards, shardGroups }: Settings, given: Map<SettingName, Given>): void {
  if (shardGroups === null) return;
  const source = given.get('shardGroups')?.source ?? flagOf('shardGroups');
  const layout = parseShardGroups(shardGroups);
  if (layout === null) {
    throw wrong(
      source,
      `${shown(shardGroups)} is not NAME:SHARDS,... (like default:48,heavy:16), each name once, ${NAME_TEXT}, ` +
        `with at most ${GROUPS_MAX} groups and ${SHARDS_MAX} shards in all`,
    );
  }
  if (shards === null || shards === layout.shardCount) return;
  const groups = formatShardGroups(layout.groups);
  throw wrong(source, `${groups} are ${layout.shardCount} shards, and shards says ${shards}`);
}

/** The settings for a log: URLs without user names, passwords and key-like parameters. */
export function printableSettings(settings: Settings): Record<string, string | number | boolean | null> {
  const out: Record<string, string | number | boolean | null> = {};
  for (const name of settingNames()) {
    const value = settings[name];
    out[name] = SETTINGS[name].type === 'url' ? withoutSecrets(String(value)) : value;
  }
  return out;
}
