/**
 * The table of the settings of `serve`, from which parsing, `serve --help`, error messages and docs/settings.md all
 * come. Owns: names, types, defaults, bounds, help. Does not own: reading them (settings), what a setting does. Pure.
 *
 *   name           the property of Settings; ends with its unit (flushWindowMs, flushBytes)
 *   flag           --flush-window      the name in kebab case without a final Ms, as durations say their unit
 *   environment    STREAMHOUSE_FLUSH_WINDOW
 *   file           {"flush-window": "100ms"}
 */
import { BODY_BYTES_MAX_DEFAULT, CONNECTIONS_MAX, RECORD_BYTES_MAX_DEFAULT } from './core/limits.ts';
import { SHARDS_MAX } from './core/shard-layout.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

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
export interface NumberSetting {
  type: 'bytes' | 'duration' | 'count';
  default: number | null;
  defaultText?: string;
  min: number;
  max: number;
  help: string;
}
export type SettingSpec = TextSetting | ChoiceSetting | NumberSetting | FlagSetting;

/** Of brokers, zones and groups. */
export const NAME = /^[A-Za-z0-9._-]{1,100}$/;
export const NAME_TEXT = '1 to 100 of the characters A-Z a-z 0-9 . _ -';

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

export type ValueOf<S extends SettingSpec> = S extends NumberSetting
  ? number
  : S extends FlagSetting
    ? boolean
    : S extends ChoiceSetting
      ? S['choices'][number]
      : string;
