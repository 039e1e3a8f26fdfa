/**
 * Opening a CockroachDB metadata store and its schema's migrations. Owns: this backend's own settings, what is asked
 * of every connection, the order of opening. Does not own: the protocol (pg-wire), the schema (cockroach-migrations),
 * the store. The storing thread.
 *
 *   schema          the schema that holds the store's tables (streamhouse); several clusters may share a database
 *   primary-region  makes the database a multi-region one, before its first table: this is its primary region
 *   regions         more regions of the database, by commas
 *   survival        zone (default) | region: what the database survives; `region` takes three regions
 *   region          where this process lives, and so the rows of the shards that it holds (where its connection ends)
 *   pre-split       off leaves splitting ranges to the load (on)
 *   profile         cockroach | postgres: the latter for tests, on a PostgreSQL server
 */
import {
  applyMigrations,
  pendingMigrations,
  readSqlMigrations,
  schemaTooOld,
} from '../../../migrations/apply.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { MetadataRole, OpenBackendOptions, OpenedMigrations } from '../metadata-backend.ts';
import { PgConnections, type PgDialect } from '../pg-wire/pg-connections.ts';
import type { PgRow, PgSession } from '../pg-wire/pg-session.ts';
import { type PgUrl, readPgUrl } from '../pg-wire/pg-url.ts';
import { COCKROACH, type CockroachCapabilities, POSTGRES } from './cockroach-capabilities.ts';
import { cockroachMeaning } from './cockroach-error.ts';
import { CockroachMetadataStore, type CockroachStoreSettings } from './cockroach-metadata-store.ts';
import {
  checkShape,
  MIGRATION_MS,
  migrationMeaning,
  migrationTarget,
  readApplied,
  readSchema,
} from './cockroach-migrations.ts';
import { ensureRegions, REGION_NAME, readRegions, type WantedRegions } from './cockroach-regions.ts';

const OWN_SETTINGS = ['schema', 'primary-region', 'regions', 'survival', 'region', 'pre-split', 'profile'];

const SCHEMA = 'streamhouse';
const SCHEMA_NAME = /^[A-Za-z_][A-Za-z0-9_$-]{0,62}$/;
const PORT = 26257;

/** A transaction whose client went silent is ended by the server after this; ours send COMMIT at once. */
const IDLE_IN_TRANSACTION_MS = 10_000;

/**
 * Tries of a call that collides: under SERIALIZABLE all that meet on one row (a counter, a raced head) but one are
 * given up at a time. With the waits between them some 10 s, which is below the 15 s of a lease.
 */
const TRIES_MAX = 30;

export interface CockroachSettings {
  url: PgUrl;
  schemaName: string;
  capabilities: CockroachCapabilities;
  wanted: WantedRegions | null;
  /** Of this process; null: the server says. */
  region: string | null;
}

type OpenParts = Pick<OpenBackendOptions, 'clock' | 'random' | 'counters'>;

/** 'invalid-setting' for a URL that cannot be. */
export function readCockroachUrl(text: string): CockroachSettings {
  const url = readPgUrl(text, OWN_SETTINGS, PORT);
  const { own } = url;
  const schemaName = own.get('schema') ?? SCHEMA;
  if (!SCHEMA_NAME.test(schemaName)) throw invalid(`'${schemaName}' is no schema's name`);
  const profile = oneOf(own, 'profile', ['cockroach', 'postgres']) === 'postgres' ? POSTGRES : COCKROACH;
  const mayNotSplit = oneOf(own, 'pre-split', ['on', 'off']) === 'off';
  const capabilities = mayNotSplit ? { ...profile, splits: false } : profile;
  const wanted = readWanted(own);
  const region = own.get('region') ?? null;
  for (const name of [...(wanted?.all ?? []), region ?? 'x']) {
    if (!REGION_NAME.test(name)) throw invalid(`'${name}' is no region's name`);
  }
  if (!capabilities.regions && (wanted ?? region)) {
    throw invalid('the metadata URL has regions, which its profile has not');
  }
  const server = { ...url.server, port: url.server.port ?? (process.env.PGPORT ? undefined : PORT) };
  const described = { ...url, server, description: `${url.description}, schema ${schemaName}` };
  return { url: described, schemaName, capabilities, wanted, region };
}

function invalid(message: string): StreamHouseError {
  return new StreamHouseError('invalid-setting', message);
}

function oneOf(given: ReadonlyMap<string, string>, name: string, known: readonly string[]): string {
  const value = given.get(name) ?? known[0];
  if (known.includes(value)) return value;
  throw invalid(`${name} in the metadata URL is ${known.join(' or ')}, not '${value}'`);
}

function readWanted(own: ReadonlyMap<string, string>): WantedRegions | null {
  const primary = own.get('primary-region');
  const more = own.get('regions')?.split(',') ?? [];
  const survival = own.has('survival') ? oneOf(own, 'survival', ['zone', 'region']) : null;
  if (primary === undefined) {
    if (more.length > 0 || survival)
      throw invalid('regions and survival in the metadata URL need a primary-region');
    return null;
  }
  const all = [...new Set([primary, ...more])];
  if (survival === 'region' && all.length < 3) {
    throw invalid('a database survives the loss of a region with three regions or more');
  }
  return { primary, all, survival: survival as WantedRegions['survival'] };
}

/** 'schema-too-old' where migrations are pending and may not be applied, 'schema-too-new'; else as the first call. */
export async function openCockroachStore(
  text: string,
  options: OpenBackendOptions,
): Promise<CockroachMetadataStore> {
  const settings = readCockroachUrl(text);
  const { role, migrate } = options;
  if (role === 'broker' && migrate) await migrateSchema(settings, options);
  const connections = await connectCockroach(settings, role, options);
  try {
    const placed = await connections.readWithin((session) =>
      placeStore(session, settings, connections.description),
    );
    return new CockroachMetadataStore(connections, { ...placed, capabilities: settings.capabilities, role });
  } catch (error) {
    await connections.close();
    throw error;
  }
}

async function migrateSchema(settings: CockroachSettings, parts: OpenParts): Promise<void> {
  const connections = await connectForMigrations(settings, parts);
  const { wanted, capabilities } = settings;
  try {
    await applyMigrations(
      migrationTarget(connections, settings, parts.clock),
      readSqlMigrations('cockroach'),
    );
    // Regions that were named since: the tables follow by themselves.
    if (wanted) await connections.readWithin((session) => ensureRegions(session, capabilities, wanted));
  } finally {
    await connections.close();
  }
}

export async function openCockroachMigrations(
  text: string,
  parts: OpenParts & { readOnly: boolean },
): Promise<OpenedMigrations> {
  const settings = readCockroachUrl(text);
  const connections = await connectForMigrations(settings, parts, parts.readOnly ? 'reader' : 'broker');
  return {
    target: migrationTarget(connections, settings, parts.clock),
    known: readSqlMigrations('cockroach'),
    close: () => connections.close(),
  };
}

/** Whether the schema is what this version knows, how it was made, and where this process lives. */
async function placeStore(
  session: PgSession,
  settings: CockroachSettings,
  description: string,
): Promise<Pick<CockroachStoreSettings, 'schema' | 'region' | 'regions'>> {
  const { schemaName, capabilities, wanted } = settings;
  const known = readSqlMigrations('cockroach');
  const pending = pendingMigrations(description, known, await readApplied(session, schemaName));
  const schema = await readSchema(session, schemaName);
  if (pending.length > 0 || !schema) throw schemaTooOld(description, known, pending);
  checkShape(schema, wanted, description);
  if (!schema.isRegional) {
    if (settings.region !== null)
      throw invalid(`${description} was made without regions, so nobody lives in one`);
    return { schema, region: '', regions: [''] };
  }
  const regions = await readRegions(session, capabilities);
  const region = settings.region ?? (await gatewayRegion(session));
  if (regions.includes(region)) return { schema, region, regions };
  throw invalid(`the database has the regions ${regions.join(', ')}, and this process lives in '${region}'`);
}

async function gatewayRegion(session: PgSession): Promise<string> {
  const [{ region }] = await session.runText('SELECT gateway_region()::TEXT AS region');
  return region as string;
}

function connectForMigrations(
  settings: CockroachSettings,
  parts: OpenParts,
  role: MetadataRole = 'broker',
): Promise<PgConnections> {
  const url = { ...settings.url, statementMs: MIGRATION_MS, lockMs: MIGRATION_MS };
  return connectCockroach({ ...settings, url }, role, parts, migrationMeaning);
}

/** Connections of a store or, with the meaning of failures there, of its migrations. */
export async function connectCockroach(
  settings: CockroachSettings,
  role: MetadataRole,
  parts: OpenParts,
  meaning: PgDialect['meaning'] = cockroachMeaning,
): Promise<PgConnections> {
  const { clock, random, counters } = parts;
  const dialect = { ...dialectFor(settings, role), meaning };
  const connections = new PgConnections({ url: settings.url, dialect, clock, random, counters });
  try {
    await connections.open();
    return connections;
  } catch (error) {
    await connections.close();
    throw error;
  }
}

function dialectFor(settings: CockroachSettings, role: MetadataRole): PgDialect {
  const { url } = settings;
  return {
    meaning: cockroachMeaning,
    triesMax: TRIES_MAX,
    begin: 'BEGIN ISOLATION LEVEL SERIALIZABLE',
    named: true,
    sessionSettings: {
      statement_timeout: url.statementMs,
      lock_timeout: url.lockMs,
      idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_MS,
      default_transaction_isolation: 'serializable',
      // A broker leaves it as it is: where an operator made the database read-only, it is to be refused.
      ...(role === 'reader' && { default_transaction_read_only: 'on' }),
      bytea_output: 'hex',
    },
    checkStatement: {
      name: 'checkConnection',
      text: `SELECT version()::TEXT AS version,
        current_setting('default_transaction_isolation')::TEXT AS isolation`,
    },
    check: (row) => wrongServer(row, settings),
  };
}

/** What is wrong with a server, or null. Asked of every connection: the next one may lead to another server. */
export function wrongServer(row: PgRow, { url, capabilities }: CockroachSettings): StreamHouseError | null {
  const { profile } = capabilities;
  if (!capabilities.isOwnServer(row.version as string)) {
    return invalid(
      `${url.description}: the server is '${row.version}', which the profile '${profile}' is not for` +
        (profile === 'cockroach' ? '; PostgreSQL has the scheme postgres:' : ''),
    );
  }
  if (String(row.isolation).toLowerCase() === 'serializable') return null;
  return invalid(`${url.description}: transactions are ${row.isolation} and must be serializable`);
}
