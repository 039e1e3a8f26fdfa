/**
 * What a backend gives to the rest: a way to open its store and a way to migrate its schema. Owns the interfaces
 * only, apart from the table of backends so that neither imports the other in a circle.
 */
import type { MessagePort } from 'node:worker_threads';
import type { Migration, MigrationTarget } from '../../migrations/apply.ts';
import type { Clock } from '../../src/core/clock.ts';
import type { Random } from '../../src/core/random.ts';
import type { DatabaseCounter, StatementCount } from './database-counter.ts';
import type { MetadataStore } from './metadata-store.ts';
import type { StoreCounters } from './store-counters.ts';

/**
 * 'broker': writes; 'conflict' if another broker owns the store and the backend takes one only. 'reader': for
 * tools; never writes, and may open a store while a broker runs on it.
 */
export type MetadataRole = 'broker' | 'reader';

/** What crosses to the thread that opens a store. */
export interface OpenMetadataSettings {
  role: MetadataRole;
  /**
   * Whether pending migrations are applied on opening (a broker on SQLite always does, and never a reader);
   * else they fail it as 'schema-too-old'.
   */
  migrate: boolean;
}

export interface OpenBackendOptions extends OpenMetadataSettings {
  clock: Clock;
  random: Random;
  counters: StoreCounters;
}

export interface OpenedBackend {
  store: MetadataStore;
  /** Between calls, after a write: the store's own housekeeping. */
  afterWrite?: () => void;
}

export interface OpenMigrationsOptions {
  clock: Clock;
  random: Random;
  /** Only `applied` is asked, and nothing is created; false if left out. */
  readOnly?: boolean;
}

/** A backend's schema, reached without opening its store. */
export interface OpenedMigrations {
  /** Described as the store itself is. */
  target: MigrationTarget;
  /** Those that this version knows, by number. */
  known: readonly Migration[];
  /** Lines for whoever migrates: what the migrations leave to them. */
  notes?: readonly string[];
  close(): Promise<void>;
}

export interface MetadataBackend {
  /** `url` as it was given, scheme included. 'invalid-setting' for one that cannot be; 'schema-too-old', 'schema-too-new'. */
  open(url: string, options: OpenBackendOptions): Promise<OpenedBackend>;
  /**
   * Creates nothing by itself, save what holds the record of migrations and cannot be without it (a file); nothing
   * at all with `readOnly`, when only `applied` is asked. 'conflict' when others that migrate or own the store keep
   * it for longer than one waits.
   */
  openMigrations(url: string, options: OpenMigrationsOptions): Promise<OpenedMigrations>;
  /** What the store counts as `statements` of its own (store-counters), and who does. */
  readonly ownCount: Omit<StatementCount, 'statements'>;
  /** Left out, or null for this URL, where the database counts nothing that can be asked. 'invalid-setting' as `open`. */
  databaseCounter?(url: string, options: { clock: Clock }): DatabaseCounter | null;
}

/** A store that runs behind ports. */
export interface HostedStore {
  readonly description: string;
  readonly bodyBytesMax: number;
  readonly lost: Promise<never>;
  /** The client's end of a new channel to the store. */
  port(): MessagePort;
  close(): Promise<void>;
}
