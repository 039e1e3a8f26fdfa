/**
 * What a migration of a DynamoDB store is. Owns: the types only. Does not own: how its steps are taken
 * (storage/metadata/dynamodb/dynamodb-migrations).
 */

interface KeyDeclaration {
  readonly name: string;
  readonly type: 'S' | 'N' | 'B';
}

export interface TableDeclaration {
  readonly suffix: string;
  readonly partitionKey: KeyDeclaration;
  readonly sortKey: KeyDeclaration;
}

/** What a migration may do; each step may be repeated. */
export interface MigrationSteps {
  createTable(table: TableDeclaration): Promise<void>;
}

export interface DynamodbMigration {
  number: number;
  name: string;
  /** Unless an older binary may go on reading and writing beside it: see migrations/apply. */
  breaking: boolean;
  /** Plain data, the same in the sources and in the compiled package: the checksum is taken of it. */
  declares: Record<string, unknown>;
  apply(steps: MigrationSteps): Promise<void>;
}
