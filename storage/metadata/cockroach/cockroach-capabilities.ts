/**
 * What only CockroachDB understands, in one table. Owns: the two profiles, and every word of SQL that differs between
 * them. Does not own: when those words are said (cockroach-migrations, cockroach-regions, cockroach-statements), nor
 * anything that both databases understand. Pure.
 *
 *   cockroach  all of it
 *   postgres   the same code on a PostgreSQL server: regions, splits, zone configuration and reads of the past are
 *              turned off, and nothing else. For tests: no CockroachDB is needed to run everything above those
 */
import { quoteIdentifier } from '../pg-wire/pg-values.ts';

export interface CockroachCapabilities {
  readonly profile: 'cockroach' | 'postgres';
  /** Whether `version()` is of the server that this profile is for. */
  isOwnServer(version: string): boolean;
  /** ALTER DATABASE ... PRIMARY REGION, and tables with a locality. */
  readonly regions: boolean;
  /** ALTER TABLE ... SPLIT AT. */
  readonly splits: boolean;
  /** ALTER TABLE ... CONFIGURE ZONE. */
  readonly zoneConfiguration: boolean;
  /** What follows a table's name to read it as it was some seconds ago, from the nearest replica; '' reads the present. */
  readonly asOfThePast: string;
  /** What follows TEXT so that it compares by bytes. */
  readonly bytewise: string;
}

export const COCKROACH: CockroachCapabilities = {
  profile: 'cockroach',
  isOwnServer: (version) => version.startsWith('CockroachDB '),
  regions: true,
  splits: true,
  zoneConfiguration: true,
  asOfThePast: ' AS OF SYSTEM TIME follower_read_timestamp()',
  bytewise: '',
};

export const POSTGRES: CockroachCapabilities = {
  profile: 'postgres',
  isOwnServer: (version) => version.startsWith('PostgreSQL '),
  regions: false,
  splits: false,
  zoneConfiguration: false,
  asOfThePast: '',
  bytewise: ' COLLATE "C"',
};

/** Names of what a migration may need, as its `-- needs: ` line says them. */
const NEEDS = ['regions', 'splits', 'zoneConfiguration'] as const;

/** How a store's tables are made: where they lie, and whether their rows have homes. */
export interface CockroachSchema {
  name: string;
  /** The database has regions: rows of the log live where their shard's holder does. */
  isRegional: boolean;
}

/** The type of a row's home region. Without regions every row's is ''. */
export function regionType({ isRegional }: CockroachSchema): string {
  return isRegional ? 'public.crdb_internal_region' : 'TEXT';
}

/**
 * The condition that stands for "in whatever region" in front of a key that begins with the region. With regions the
 * database knows all there are and looks into each; without, only the one value lets it use the key.
 */
export function inAnyRegion({ isRegional }: CockroachSchema, of = ''): string {
  return isRegional ? 'true' : `${of}region = ''`;
}

/** A migration's text as this database takes it; null where it needs what the profile has not. */
export function migrationText(
  text: string,
  capabilities: CockroachCapabilities,
  schema: CockroachSchema,
): string | null {
  const need = /^-- needs: (.*)$/m.exec(text)?.[1];
  if (need !== undefined) {
    const known = NEEDS.find((name) => name === need);
    if (!known) throw new Error(`a migration needs '${need}', which is none of ${NEEDS.join(', ')}`);
    if (!capabilities[known]) return null;
  }
  const words: Record<string, string> = {
    schema: quoteIdentifier(schema.name),
    region: regionType(schema),
    'by row': schema.isRegional ? 'LOCALITY REGIONAL BY ROW AS region' : '',
    global: schema.isRegional ? 'LOCALITY GLOBAL' : '',
    bytewise: capabilities.bytewise,
  };
  return withoutComments(text).replace(/\{([^}]*)\}/g, (_, word: string) => {
    if (words[word] === undefined) throw new Error(`a migration has the unknown word {${word}}`);
    return words[word];
  });
}

function withoutComments(text: string): string {
  return text.replace(/--.*$/gm, '').trim();
}
