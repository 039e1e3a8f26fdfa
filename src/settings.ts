/**
 * Reading the settings of `serve`: flags, environment, file and defaults, in that order, into a frozen, validated
 * object. Owns: where a value comes from, what is wrong with it, in one line. Does not own: which settings there are
 * (setting-table), nor how a URL's backend reads the rest of its URL. Main thread, before anything else is created.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism, hostname } from 'node:os';
import { StreamHouseError } from './core/errors.ts';
import { splitAddress } from './core/host-port.ts';
import { withoutSecrets } from './core/printable-url.ts';
import {
  formatShardGroups,
  GROUPS_MAX,
  oneGroup,
  parseShardGroups,
  SHARDS_MAX,
  type ShardLayout,
} from './core/shard-layout.ts';
import {
  NAME_TEXT,
  type NumberSetting,
  SETTINGS,
  type SettingName,
  type SettingSpec,
  type ValueOf,
} from './setting-table.ts';
import { formatBytes, formatDuration, parseBytes, parseDuration } from './setting-values.ts';

export { splitAddress };

const KIB = 1024;
/** Room for one block of the block reader and its keeping, rounded up. */
const BLOCK_CACHE_BYTES_PER_LANE_MIN = 512 * KIB;

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
