/**
 * The one table, keyed by two texts. Owns: what it is made of besides what the URL says of capacity and protection.
 * Does not own: how a table is created (storage/metadata/dynamodb/dynamodb-migrations). Frozen: its checksum is that
 * of what it declares.
 *
 * One table, so that one point-in-time recovery gives one state of everything: heads, logs and catalogue restored
 * from different moments would be another history than any that was confirmed. No index: what is listed has items of
 * its own, which a strongly consistent read finds.
 */
import type { DynamodbMigration } from './migration.ts';

const TABLE = {
  suffix: 'metadata',
  partitionKey: { name: 'pk', type: 'S' },
  sortKey: { name: 'sk', type: 'S' },
} as const;

export const metadataTable: DynamodbMigration = {
  number: 1,
  name: 'metadata-table',
  breaking: true,
  declares: { createTable: TABLE },
  apply: (steps) => steps.createTable(TABLE),
};
