/**
 * The metadata store on PostgreSQL. Owns: the contract's meaning where it is this database's own; almost every call is one statement that commits by
 * itself, so that it takes one round trip and nothing is held between two. Does not own: the SQL
 * (postgres-statements), rows (postgres-rows), connections, retries and phases (pg-wire), opening (postgres-open).
 * Runs on the storing thread; calls run side by side.
 *
 * Whatever a caller hands in is taken over before the first wait, so that it may change its bytes after the call.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { PartitionId } from '../../../src/core/ids.ts';
import {
  checkBody,
  checkDrops,
  checkEntries,
  checkImportedRows,
  checkImportTarget,
  checkInteger,
  checkLeases,
  checkObjectRows,
  checkPages,
  hasImportedRows,
  newCluster,
  unfinishedCopy,
} from '../check-input.ts';
import type {
  Agent,
  AppendOutcome,
  CheckpointPointer,
  ClusterInfo,
  HeadOutcome,
  ImportedRows,
  IndexPage,
  ListedObject,
  LogEntry,
  MetadataStore,
  NewCluster,
  ObjectRow,
  ReferenceDrop,
} from '../metadata-store.ts';
import type { PgConnections } from '../pg-wire/pg-connections.ts';
import {
  newestPages,
  objectKeys,
  PgMetadataStore,
  rowOfShard,
  shardNotFound,
} from '../pg-wire/pg-metadata-store.ts';
import { agentOf, clusterOf, headOf } from '../pg-wire/pg-rows.ts';
import type { PgRow, PgStatement, PgValue } from '../pg-wire/pg-session.ts';
import { integerArray } from '../pg-wire/pg-values.ts';
import { storedGroups } from '../stored-groups.ts';
import { importCalls } from './postgres-import.ts';
import {
  entryColumns,
  entryOf,
  objectColumns,
  objectOf,
  pageColumns,
  pageOf,
  partsOf,
} from './postgres-rows.ts';
import { type PostgresStatements, postgresStatements } from './postgres-statements.ts';

/** A body lives in memory a few times on its way, twice as long as text; PostgreSQL itself would take 1 GB. */
const BODY_BYTES_MAX = 16 * 1024 * 1024;

/** Entries that one statement looks at: their lengths are added up there before any is sent. */
const ENTRIES_READ_MAX = 1000;

export interface PostgresStoreSettings {
  schema: string;
  role: 'broker' | 'reader';
}

export class PostgresMetadataStore extends PgMetadataStore<PostgresStatements> implements MetadataStore {
  readonly bodyBytesMax = BODY_BYTES_MAX;

  /** Takes the connections over: `close` closes them. */
  constructor(connections: PgConnections, { schema, role }: PostgresStoreSettings) {
    super(connections, postgresStatements(schema), role);
  }

  // -- Cluster -----------------------------------------------------------------------------------------

  async initCluster(proposed: NewCluster): Promise<ClusterInfo> {
    const cluster = newCluster(proposed);
    const { clusterId, storeIncarnation, shardCount, createdAtMs } = cluster;
    const present = await this.getCluster();
    if (present) return present;
    const values = [clusterId, storeIncarnation, shardCount, createdAtMs, storedGroups(cluster)];
    const [created] = await this.write(this.sql.createCluster, values);
    if (created) return clusterOf(created);
    // Somebody else was first, and has committed: the statement waited for that.
    const other = await this.getCluster();
    if (!other) throw unfinishedCopy(this.description);
    return other;
  }

  protected override async readPages(
    statement: PgStatement,
    values: readonly PgValue[],
  ): Promise<IndexPage[]> {
    return (await this.read(statement, values)).map(pageOf);
  }

  protected override async readObjects(
    statement: PgStatement,
    values: readonly PgValue[],
  ): Promise<ListedObject[]> {
    return (await this.read(statement, values)).map(objectOf);
  }

  // -- Log -----------------------------------------------------------------------------------------------

  async appendEntries(entries: readonly LogEntry[], objects: readonly ObjectRow[]): Promise<AppendOutcome[]> {
    checkEntries(entries, this.bodyBytesMax);
    checkObjectRows(objects);
    this.checkWriter();
    if (entries.length === 0 && objects.length === 0) return [];
    const shards = entries.map(({ shard }) => shard);
    const parts = partsOf(entries, ({ body }) => body.length);
    const calls = parts.map((part, i) => [...entryColumns(part), ...objectColumns(i === 0 ? objects : [])]);
    // One statement sees for itself whether all shards are there; several must not begin before that is known.
    if (calls.length > 1) await this.#checkShards(shards);
    const rows = await inTurn(calls, (values) => this.connections.commit(this.sql.appendEntries, values));
    const found = new Map(rows.map((row) => [row.shard as number, row]));
    return shards.map((shard) => {
      const row = rowOfShard(found, shard);
      return row.changed ? { kind: 'done' } : { kind: 'conflict', head: headOf(row) };
    });
  }

  async #checkShards(shards: readonly number[]): Promise<void> {
    const [{ count }] = await this.read(this.sql.countHeads, [integerArray(shards)]);
    if (count === shards.length) return;
    throw new StreamHouseError('shard-not-found', `of shards ${shards} there are only ${count}`);
  }

  async readEntries(shard: number, afterSeq: number, bytesMax: number): Promise<LogEntry[]> {
    const entries: LogEntry[] = [];
    let bytesLeft = bytesMax;
    for (;;) {
      const after = entries.at(-1)?.seq ?? afterSeq;
      const values = [shard, after, ENTRIES_READ_MAX, Math.max(bytesLeft, 0), entries.length === 0];
      const rows = await this.read(this.sql.readEntries, values);
      if (rows.length === 0) throw shardNotFound(shard);
      const some = rows.filter(({ seq }) => seq !== null).map(entryOf);
      for (const entry of some) bytesLeft -= entry.body.length;
      entries.push(...some);
      if (some.length < ENTRIES_READ_MAX || bytesLeft < 0) return entries;
    }
  }

  async trim(shard: number, throughSeq: number): Promise<void> {
    checkInteger(throughSeq, 'throughSeq');
    const [row] = await this.write(this.sql.trim, [shard, throughSeq]);
    if (!row) throw shardNotFound(shard);
    const pointerSeq = headOf(row).checkpoint?.seq ?? 0;
    if (throughSeq <= pointerSeq) return;
    throw new StreamHouseError(
      'conflict',
      `trim of shard ${shard} through ${throughSeq}, above its checkpoint at ${pointerSeq}`,
    );
  }

  // -- Pages and checkpoints -----------------------------------------------------------------------------

  async putPages(pages: readonly IndexPage[]): Promise<void> {
    checkPages(pages, this.bodyBytesMax);
    if (pages.length === 0) return;
    const calls = partsOf(newestPages(pages), ({ bytes }) => bytes.length).map(pageColumns);
    await inTurn(calls, (values) => this.write(this.sql.putPages, values));
  }

  async findPages(requests: readonly (PartitionId & { offset: number })[]): Promise<(IndexPage | null)[]> {
    if (requests.length === 0) return [];
    const pages = new Array<IndexPage | null>(requests.length).fill(null);
    const rows = await this.read(this.sql.findPages, [
      integerArray(requests.map(({ topicId }) => topicId)),
      integerArray(requests.map(({ partition }) => partition)),
      integerArray(requests.map(({ offset }) => offset)),
    ]);
    for (const row of rows) pages[(row.place as number) - 1] = pageOf(row);
    return pages;
  }

  async putCheckpoint(shard: number, pointer: CheckpointPointer, bytes: Uint8Array): Promise<void> {
    checkInteger(pointer.seq, 'seq');
    checkInteger(pointer.writer, 'writer');
    checkBody(bytes, this.bodyBytesMax, 'a checkpoint');
    const values = [shard, pointer.seq, pointer.writer, Buffer.from(bytes)];
    const [row] = await this.write(this.sql.putCheckpoint, values);
    if (!row) throw shardNotFound(shard);
  }

  async getCheckpoint(shard: number, pointer: CheckpointPointer): Promise<Uint8Array> {
    const [row] = await this.read(this.sql.getCheckpoint, [shard, pointer.seq, pointer.writer]);
    if (!row) throw shardNotFound(shard);
    if (row.bytes !== null) return row.bytes as Uint8Array;
    throw new StreamHouseError(
      'checkpoint-not-found',
      `shard ${shard} has no checkpoint at ${pointer.seq} by ${pointer.writer}`,
    );
  }

  // -- Objects -------------------------------------------------------------------------------------------

  async dropReferences(drops: readonly ReferenceDrop[]): Promise<void> {
    checkDrops(drops);
    if (drops.length === 0) return;
    await this.write(this.sql.dropReferences, [
      ...objectKeys(drops.map(({ object }) => object)),
      integerArray(drops.map(({ shard }) => shard)),
      integerArray(drops.map(({ belowEpoch }) => belowEpoch)),
    ]);
  }

  // -- Agents and leases ---------------------------------------------------------------------------------

  async registerAgent(agent: Omit<Agent, 'incarnation' | 'heartbeatCount'>): Promise<Agent> {
    const { agentId, address, zone, group, version, registeredAtMs } = agent;
    const values = [agentId, address, zone, group, version, registeredAtMs];
    const [row] = await this.write(this.sql.registerAgent, values);
    return agentOf(row);
  }

  async acquireLeases(
    incarnation: number,
    seen: readonly { shard: number; holder: number; epoch: number }[],
  ): Promise<HeadOutcome[]> {
    checkLeases(incarnation, seen);
    const shards = integerArray(seen.map(({ shard }) => shard));
    const holders = integerArray(seen.map(({ holder }) => holder));
    const epochs = integerArray(seen.map(({ epoch }) => epoch));
    return await this.changeLeases(
      this.sql.acquireLeases,
      [shards, holders, epochs, incarnation],
      seen.map(({ shard }) => shard),
      (head) => ({ ...head, holder: incarnation, epoch: head.epoch + 1 }),
    );
  }

  // -- Moving --------------------------------------------------------------------------------------------

  async importRows(rows: ImportedRows): Promise<void> {
    checkImportedRows(rows, this.bodyBytesMax);
    this.checkWriter();
    const calls = importCalls(this.sql, rows);
    await this.connections.transaction(async (session) => {
      if (hasImportedRows(rows)) {
        // No cluster comes to be from here to the commit.
        await session.run(this.sql.lockCluster);
        const [row] = await session.run(this.sql.getCluster);
        checkImportTarget(rows, row ? clusterOf(row) : null);
      }
      for (const [statement, values] of calls) await session.run(statement, values);
    });
  }
}

/** The parts of a call, each of which commits by itself: where one fails and did nothing, those before it happened. */
async function inTurn(
  calls: readonly PgValue[][],
  run: (values: PgValue[]) => Promise<PgRow[]>,
): Promise<PgRow[]> {
  const rows: PgRow[] = [];
  for (const [i, values] of calls.entries()) {
    try {
      rows.push(...(await run(values)));
    } catch (error) {
      if (i === 0 || !(error instanceof StreamHouseError) || error.kind !== 'unavailable') throw error;
      throw new StreamHouseError('store-unknown', `done in part: ${error.message}`, error.detail, error);
    }
  }
  return rows;
}
