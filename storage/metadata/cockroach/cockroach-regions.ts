/**
 * Where rows lie: the regions of the database, ranges split by shard, and which shards a process likes best. Owns:
 * the statements for that, all of which may be repeated. Does not own: tables' localities (migrations/cockroach), the
 * home of a row (cockroach-statements). Nothing here runs without the capability for it. The storing thread.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { PgConnections } from '../pg-wire/pg-connections.ts';
import type { PgSession } from '../pg-wire/pg-session.ts';
import { quoteIdentifier } from '../pg-wire/pg-values.ts';
import type { CockroachCapabilities, CockroachSchema } from './cockroach-capabilities.ts';

/** The regions that a database should have. */
export interface WantedRegions {
  primary: string;
  /** With the primary. */
  all: readonly string[];
  survival: 'zone' | 'region' | null;
}

/** A region's name as cloud providers make them: it stands in statements that take no parameters. */
export const REGION_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/** Splits of one statement, which has a time limit: they follow one another, some tens of ms each or more. */
const SPLITS_PER_STATEMENT = 8;

/** The database's regions, the primary first; none in a database without regions. */
export async function readRegions(
  session: PgSession,
  capabilities: CockroachCapabilities,
): Promise<string[]> {
  if (!capabilities.regions) return [];
  const text = 'SELECT region, "primary" AS "isPrimary" FROM [SHOW REGIONS FROM DATABASE]';
  const rows = await session.runText(text);
  return rows
    .sort(
      (a, b) => Number(b.isPrimary) - Number(a.isPrimary) || String(a.region).localeCompare(String(b.region)),
    )
    .map(({ region }) => region as string);
}

/** Gives the database the regions it should have, and takes none away. 'invalid-setting' for another primary one. */
export async function ensureRegions(
  session: PgSession,
  capabilities: CockroachCapabilities,
  wanted: WantedRegions,
): Promise<void> {
  const [{ name }] = await session.runText('SELECT current_database()::TEXT AS name');
  const database = quoteIdentifier(name as string);
  const present = await readRegions(session, capabilities);
  if (present.length === 0) {
    await session.runText(`ALTER DATABASE ${database} SET PRIMARY REGION ${quoteIdentifier(wanted.primary)}`);
  } else if (present[0] !== wanted.primary) {
    throw new StreamHouseError(
      'invalid-setting',
      `the database's primary region is ${present[0]}, not ${wanted.primary}; ALTER DATABASE changes it`,
    );
  }
  for (const region of wanted.all) {
    if (region === wanted.primary || present.includes(region)) continue;
    await session.runText(`ALTER DATABASE ${database} ADD REGION IF NOT EXISTS ${quoteIdentifier(region)}`);
  }
  if (wanted.survival) {
    await session.runText(`ALTER DATABASE ${database} SURVIVE ${wanted.survival.toUpperCase()} FAILURE`);
  }
}

/**
 * Gives every shard ranges of its own in the two tables that every flush writes, in each region: from its first
 * entry on, a new cluster then works on all nodes, and not on the one that holds the first range.
 */
export async function splitByShard(
  connections: PgConnections,
  settings: { schema: CockroachSchema; capabilities: CockroachCapabilities; regions: readonly string[] },
  shardCount: number,
): Promise<void> {
  if (!settings.capabilities.splits) return;
  for (const statement of splitStatements(settings.schema, settings.regions, shardCount)) {
    // 'read': whatever goes wrong, a split more or less changes nothing that anybody reads.
    await connections.readWithin((session) => session.runText(statement));
  }
}

/** As text, since ALTER takes no parameters; region names have passed REGION_NAME or come from the database. */
export function splitStatements(
  schema: CockroachSchema,
  regions: readonly string[],
  shardCount: number,
): string[] {
  const text = (region: string) => `'${region.replaceAll("'", "''")}'`;
  const shards = Array.from({ length: shardCount - 1 }, (_, i) => i + 1);
  // The key of heads has the region in front only where rows have homes; that of entries always.
  const byRegion = regions.flatMap((region) => shards.map((shard) => `(${text(region)}, ${shard})`));
  const keys = {
    heads: schema.isRegional ? byRegion : shards.map((shard) => `(${shard})`),
    entries: byRegion,
  };
  return Object.entries(keys).flatMap(([table, values]) => {
    const statements: string[] = [];
    for (let start = 0; start < values.length; start += SPLITS_PER_STATEMENT) {
      const some = values.slice(start, start + SPLITS_PER_STATEMENT).join(', ');
      statements.push(`ALTER TABLE ${quoteIdentifier(schema.name)}.${table} SPLIT AT VALUES ${some}`);
    }
    return statements;
  });
}

/**
 * Shards in the order in which a process of `region` should want them: those at home there first, each group in the
 * order given. `homes` as CockroachMetadataStore.listShardHomes has it; a shard that it does not know is a stranger.
 */
export function byHome(
  shards: readonly number[],
  homes: ReadonlyMap<number, string>,
  region: string,
): number[] {
  const isAtHome = (shard: number) => homes.get(shard) === region;
  return [...shards.filter(isAtHome), ...shards.filter((shard) => !isAtHome(shard))];
}
