/**
 * The schema of a DynamoDB store: which migrations there are, how a table is created, and the record of what was
 * applied, which lies in the table itself. Owns: those. Does not own: what a migration declares
 * (migrations/dynamodb/). The thread that opens the store.
 *
 * Nothing here excludes a rival; every step may be taken by twenty at once and again after a crash:
 *   create the table -> 'in use' means that a rival did -> wait until it is active -> protect it -> put the record
 *   if absent -> the record that is there must be the same
 */
import { createHash } from 'node:crypto';
import {
  CreateTableCommand,
  type CreateTableCommandInput,
  DescribeTableCommand,
  type DynamoDBClient,
  UpdateContinuousBackupsCommand,
} from '@aws-sdk/client-dynamodb';
import type {
  AppliedMigration,
  Migration,
  MigrationSession,
  MigrationTarget,
} from '../../../migrations/apply.ts';
import { metadataTable } from '../../../migrations/dynamodb/0001-metadata-table.ts';
import { shardGroups } from '../../../migrations/dynamodb/0002-shard-groups.ts';
import type {
  DynamodbMigration,
  MigrationSteps,
  TableDeclaration,
} from '../../../migrations/dynamodb/migration.ts';
import { type Clock, sleep } from '../../../src/core/clock.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import { dynamodbError, readDynamodbFailure } from './dynamodb-error.ts';
import { ordered, SCHEMA } from './dynamodb-items.ts';
import type { DynamodbRequests } from './dynamodb-requests.ts';
import type { DynamodbUrl } from './dynamodb-url.ts';
import { ItemReader, toItem } from './dynamodb-values.ts';

/** All there are, by number; a test holds them against the folder. */
export const DYNAMODB_MIGRATIONS: readonly DynamodbMigration[] = [metadataTable, shardGroups];

/** A table is created in some seconds. */
const ACTIVE_MS_MAX = 300_000;
const POLL_MS_FIRST = 50;
const POLL_MS_MAX = 2_000;
/** Point-in-time recovery can be turned on some seconds after the table is active. */
const PROTECT_MS_MAX = 120_000;

export function knownMigrations(): Migration[] {
  return DYNAMODB_MIGRATIONS.map(({ number, name, breaking, declares }) => {
    const checksum = createHash('sha256').update(JSON.stringify(declares)).digest('hex');
    return { number, name, breaking, checksum, sql: null };
  });
}

export interface MigrationParts {
  client: DynamoDBClient;
  requests: DynamodbRequests;
  url: DynamodbUrl;
  clock: Clock;
}

/** What was applied to the store, by number; nothing where there is no table. */
export async function appliedMigrations(requests: DynamodbRequests): Promise<AppliedMigration[]> {
  const applied: AppliedMigration[] = [];
  try {
    for await (const items of requests.query({ pk: SCHEMA })) {
      for (const item of items) {
        const reader = new ItemReader(item);
        const number = Number(reader.text('sk'));
        const breaking = reader.numberOrNull('breaking') !== 0;
        applied.push({ number, name: reader.text('name'), checksum: reader.text('checksum'), breaking });
      }
    }
  } catch (error) {
    if (!isMissingTable(error)) throw error;
  }
  return applied;
}

function isMissingTable(error: unknown): boolean {
  return error instanceof StreamHouseError && error.detail?.dynamodb === 'ResourceNotFoundException';
}

export function migrationTarget(parts: MigrationParts): MigrationTarget {
  const { requests, clock } = parts;
  const session: MigrationSession = {
    applied: () => appliedMigrations(requests),
    async apply(migration) {
      const { number, name, checksum, breaking } = migration;
      const known = DYNAMODB_MIGRATIONS.find((one) => one.number === number);
      if (known === undefined) throw new Error(`no code for migration ${number}-${name}`);
      await known.apply(new TableSteps(parts));
      const key = { pk: SCHEMA, sk: ordered(number) };
      const appliedAt = Math.floor(clock.wallMs());
      await requests.putIfAbsent(toItem(key, { name, checksum, breaking: breaking ? 1 : 0, appliedAt }));
      const recorded = (await appliedMigrations(requests)).find((one) => one.number === number);
      if (recorded?.checksum === checksum) return;
      throw new StreamHouseError(
        'conflict',
        `${requests.description}: another version migrated it at the same time`,
      );
    },
  };
  return { description: requests.description, exclusively: (work) => work(session) };
}

class TableSteps implements MigrationSteps {
  readonly #parts: MigrationParts;

  constructor(parts: MigrationParts) {
    this.#parts = parts;
  }

  async createTable(declared: TableDeclaration): Promise<void> {
    const { client, url } = this.#parts;
    const table = `${url.prefix}-${declared.suffix}`;
    const command = new CreateTableCommand(tableInput(table, declared, url));
    await this.#control('CreateTable', ACTIVE_MS_MAX, async () => {
      try {
        await client.send(command);
      } catch (error) {
        // A rival's, or that of an earlier attempt.
        if (!(error instanceof Error) || error.name !== 'ResourceInUseException') throw error;
      }
      return true;
    });
    await this.#control('DescribeTable', ACTIVE_MS_MAX, async () => {
      const { Table } = await client.send(new DescribeTableCommand({ TableName: table }));
      return Table?.TableStatus === 'ACTIVE';
    });
    if (!url.pointInTimeRecovery) return;
    const protect = new UpdateContinuousBackupsCommand({
      TableName: table,
      PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true },
    });
    await this.#control('UpdateContinuousBackups', PROTECT_MS_MAX, async () => {
      try {
        await client.send(protect);
        return true;
      } catch (error) {
        if (!(error instanceof Error) || error.name !== 'ContinuousBackupsUnavailableException') throw error;
        return false;
      }
    });
  }

  /** Repeats a step that may be repeated until it is done; waits grow, and end after `msMax`. */
  async #control(action: string, msMax: number, step: () => Promise<boolean>): Promise<void> {
    const { clock, requests } = this.#parts;
    const doing = `${requests.description}: ${action}`;
    const endMs = clock.monotonicMs() + msMax;
    for (let pauseMs = POLL_MS_FIRST; ; pauseMs = Math.min(pauseMs * 2, POLL_MS_MAX)) {
      requests.checkOpen();
      let last = 'the service needs longer';
      try {
        if (await step()) return;
      } catch (error) {
        const failure = readDynamodbFailure(error);
        if (failure.kind === 'bug') throw error;
        // Just after its creation a table may not be found yet.
        const mayPass =
          failure.kind === 'throttled' || failure.kind === 'unclear' || failure.kind === 'no-table';
        if (!mayPass) throw dynamodbError(failure, 'store-unavailable', doing, error);
        last = `${failure.name}: ${failure.message}`;
      }
      if (clock.monotonicMs() >= endMs) {
        const what = `${doing}: not done after ${Math.round(msMax / 1000)} s: ${last}`;
        throw new StreamHouseError('store-unavailable', what);
      }
      await sleep(clock, pauseMs);
    }
  }
}

export function tableInput(
  table: string,
  declared: TableDeclaration,
  url: DynamodbUrl,
): CreateTableCommandInput {
  const { partitionKey, sortKey } = declared;
  const { provisioned, deletionProtection, tags } = url;
  return {
    TableName: table,
    AttributeDefinitions: [partitionKey, sortKey].map(({ name, type }) => ({
      AttributeName: name,
      AttributeType: type,
    })),
    KeySchema: [
      { AttributeName: partitionKey.name, KeyType: 'HASH' },
      { AttributeName: sortKey.name, KeyType: 'RANGE' },
    ],
    ...(provisioned === null
      ? { BillingMode: 'PAY_PER_REQUEST' }
      : {
          BillingMode: 'PROVISIONED',
          ProvisionedThroughput: {
            ReadCapacityUnits: provisioned.readUnits,
            WriteCapacityUnits: provisioned.writeUnits,
          },
        }),
    ...(deletionProtection && { DeletionProtectionEnabled: true }),
    ...(tags.length > 0 && { Tags: tags }),
  };
}

/**
 * What `migrate` leaves to whoever runs it: auto-scaling of a provisioned table belongs to another service, for whose
 * client these few calls are no reason.
 */
export function scalingCommands(url: DynamodbUrl): string[] {
  const { provisioned, region, table, endpoint } = url;
  if (provisioned === null || endpoint !== undefined) return [];
  const target = (dimension: string) =>
    `--region ${region} --service-namespace dynamodb --resource-id table/${table} --scalable-dimension dynamodb:table:${dimension}`;
  const commands = (what: 'Read' | 'Write', least: number, most: number) => [
    `aws application-autoscaling register-scalable-target ${target(`${what}CapacityUnits`)} ` +
      `--min-capacity ${least} --max-capacity ${most}`,
    `aws application-autoscaling put-scaling-policy ${target(`${what}CapacityUnits`)} ` +
      `--policy-name ${table}-${what.toLowerCase()} --policy-type TargetTrackingScaling ` +
      `--target-tracking-scaling-policy-configuration '{"TargetValue":${provisioned.utilisation}.0,` +
      `"PredefinedMetricSpecification":{"PredefinedMetricType":"DynamoDB${what}CapacityUtilization"}}'`,
  ];
  return [
    'The table has a fixed capacity until auto-scaling is turned on:',
    ...commands('Read', provisioned.readUnits, provisioned.readUnitsMax),
    ...commands('Write', provisioned.writeUnits, provisioned.writeUnitsMax),
  ];
}
