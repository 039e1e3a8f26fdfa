/**
 * The metadata store on CockroachDB. Owns: the contract's meaning where it is this database's own: rows with a home
 * region, bodies in chunks. Does not own: the SQL (cockroach-statements), what it shares with PostgreSQL, connections,
 * retries of what collided and phases (pg-wire), opening (cockroach-open). The storing thread; calls run side by side.
 *
 * Almost every call is one statement that commits by itself. Those with bodies too large for it are a transaction of
 * several. Whatever a caller hands in is taken over before the first wait.
 */
import assert from 'node:assert/strict';
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
  ShardHead,
} from '../metadata-store.ts';
import { encodeReferences } from '../object-references.ts';
import type { PgConnections } from '../pg-wire/pg-connections.ts';
import {
  keyOfObject,
  newestPages,
  objectKeys,
  PgMetadataStore,
  rowOfShard,
  shardNotFound,
  sharedImportCalls,
} from '../pg-wire/pg-metadata-store.ts';
import { agentOf, clusterOf, headColumns, headOf } from '../pg-wire/pg-rows.ts';
import type { PgRow, PgSession, PgStatement, PgValue } from '../pg-wire/pg-session.ts';
import { integerArray, joinBytes } from '../pg-wire/pg-values.ts';
import { storedGroups } from '../stored-groups.ts';
import {
  BODY_BYTES_MAX,
  chunkBatches,
  inStatements,
  isLarge,
  rowShare,
  wholeBody,
} from './cockroach-bodies.ts';
import type { CockroachCapabilities, CockroachSchema } from './cockroach-capabilities.ts';
import { splitByShard } from './cockroach-regions.ts';
import {
  entryColumns,
  entryOf,
  objectColumns,
  objectOf,
  type PackedColumns,
  pageColumns,
  pageOf,
} from './cockroach-rows.ts';
import { type CockroachStatements, cockroachStatements } from './cockroach-statements.ts';

/** Entries that one statement looks at: their lengths are added up there before any is sent. */
const ENTRIES_READ_MAX = 256;

/** Entries that one statement deletes: a transaction keeps what it changes in memory. */
const ENTRIES_TRIMMED_MAX = 2000;

/** Times that a row and its chunks are read when they do not fit together: somebody may be replacing them. */
const WHOLE_TRIES_MAX = 3;

/** Where the chunks of a row lie: see migrations/cockroach/0010-body-chunks.sql. */
type ChunkKey = readonly [kind: 'e' | 'c' | 'p', key1: number, key2: number, key3: number];

export interface CockroachStoreSettings {
  schema: CockroachSchema;
  capabilities: CockroachCapabilities;
  role: 'broker' | 'reader';
  /** The region of this process, where the rows of its shards go; '' in a database without regions. */
  region: string;
  /** All regions of the database; [''] without. */
  regions: readonly string[];
}

export class CockroachMetadataStore extends PgMetadataStore<CockroachStatements> implements MetadataStore {
  readonly bodyBytesMax = BODY_BYTES_MAX;
  readonly #settings: CockroachStoreSettings;
  readonly #region: string;

  /** Takes the connections over: `close` closes them. */
  constructor(connections: PgConnections, settings: CockroachStoreSettings) {
    super(connections, cockroachStatements(settings.schema, settings.capabilities), settings.role);
    this.#settings = settings;
    this.#region = settings.region;
  }

  // -- Cluster -----------------------------------------------------------------------------------------

  async initCluster(proposed: NewCluster): Promise<ClusterInfo> {
    const cluster = newCluster(proposed);
    const { clusterId, storeIncarnation, shardCount, createdAtMs } = cluster;
    const present = await this.getCluster();
    if (present) return present;
    this.checkWriter();
    // Before there is anything to move, and again if this ends here: a split that is there is no change.
    await splitByShard(this.connections, this.#settings, shardCount);
    const groups = storedGroups(cluster);
    const values = [clusterId, storeIncarnation, shardCount, createdAtMs, groups, this.#region];
    await this.write(this.sql.createCluster, values);
    const created = await this.getCluster();
    if (!created) throw unfinishedCopy(this.description);
    return created;
  }

  /**
   * The home region of every shard, where its rows lie and its last holder lives; '' without regions. For choosing
   * shards, not for truth: on CockroachDB it is some seconds old, and empty in a store's first seconds.
   */
  async listShardHomes(): Promise<Map<number, string>> {
    try {
      const rows = await this.read(this.sql.listHomes);
      return new Map(rows.map(({ shard, region }) => [shard as number, region as string]));
    } catch (error) {
      // The tables are younger than the past that is read.
      if (error instanceof StreamHouseError && error.code === 'schema-too-old') return new Map();
      throw error;
    }
  }

  // -- Log -----------------------------------------------------------------------------------------------

  async appendEntries(entries: readonly LogEntry[], objects: readonly ObjectRow[]): Promise<AppendOutcome[]> {
    checkEntries(entries, this.bodyBytesMax);
    checkObjectRows(objects);
    this.checkWriter();
    if (entries.length === 0 && objects.length === 0) return [];
    const taken = { entries: takeEntries(entries), objects: objectColumns(objects) };
    const isOneStatement =
      !entries.some(({ body }) => isLarge(body)) && inStatements(entries, bodyBytesOf).length <= 1;
    if (isOneStatement) {
      const values = appendValues(entryColumns(taken.entries), taken.objects, this.#region);
      const rows = await this.connections.commit(this.sql.appendEntries, values);
      if (rows.length === entries.length) return outcomesOf(taken.entries, rows);
      // A shard that is none, or at home elsewhere: nothing happened.
    }
    return await this.connections.transaction((session) => this.#appendApart(session, taken));
  }

  /** Home by home and in several statements: all of them or, where a shard is none, nothing. */
  async #appendApart(
    session: PgSession,
    { entries, objects }: { entries: readonly LogEntry[]; objects: PackedColumns },
  ): Promise<AppendOutcome[]> {
    const rows: PgRow[] = [];
    const homes = await session.run(this.sql.homesOf, [integerArray(entries.map(({ shard }) => shard))]);
    const homeOf = new Map(homes.map(({ shard, region }) => [shard as number, region as string]));
    for (const { shard } of entries) if (!homeOf.has(shard)) throw shardNotFound(shard);
    // An object's row lies where its writer lives, wherever the shards do.
    await session.run(this.sql.appendEntries, appendValues(entryColumns([]), objects, this.#region));
    for (const home of new Set(homeOf.values())) {
      const atHome = entries.filter(({ shard }) => homeOf.get(shard) === home);
      for (const part of inStatements(atHome, bodyBytesOf)) {
        const values = appendValues(entryColumns(part), objectColumns([]), home);
        const found = await session.run(this.sql.appendEntries, values);
        assert.equal(found.length, part.length, 'a home was moved while its head was locked');
        rows.push(...found);
        for (const { shard, seq, body } of part) {
          const isDone = found.some((row) => row.shard === shard && row.changed);
          if (isDone) await this.#putChunks(session, ['e', shard, seq, 0], body, home);
        }
      }
    }
    return outcomesOf(entries, rows);
  }

  async readEntries(shard: number, afterSeq: number, bytesMax: number): Promise<LogEntry[]> {
    const entries: LogEntry[] = [];
    const { headSeq, trimmedThrough } = await this.readHead(shard);
    let bytesLeft = bytesMax;
    // Rows that were deleted lie below the trim until they are collected: a scan must not begin there.
    for (let after = Math.max(afterSeq, trimmedThrough); after < headSeq; after = entries.at(-1)!.seq) {
      const values = [shard, after, ENTRIES_READ_MAX, Math.max(bytesLeft, 0), entries.length === 0];
      const some = await this.#readWhole(
        this.sql.readEntries,
        values,
        (row) => ['e', shard, row.seq as number, 0],
        entryOf,
      );
      for (const entry of some) bytesLeft -= entry.body.length;
      entries.push(...some);
      if (some.length < ENTRIES_READ_MAX || bytesLeft < 0) break;
    }
    return entries;
  }

  async trim(shard: number, throughSeq: number): Promise<void> {
    checkInteger(throughSeq, 'throughSeq');
    this.checkWriter();
    for (;;) {
      const { checkpoint, trimmedThrough } = await this.readHead(shard);
      const pointerSeq = checkpoint?.seq ?? 0;
      if (throughSeq > pointerSeq) {
        throw new StreamHouseError(
          'conflict',
          `trim of shard ${shard} through ${throughSeq}, above its checkpoint at ${pointerSeq}`,
        );
      }
      if (throughSeq <= trimmedThrough) return;
      const next = Math.min(throughSeq, trimmedThrough + ENTRIES_TRIMMED_MAX);
      // No row: somebody else trimmed meanwhile, and the next look at the head shows how far.
      await this.write(this.sql.trim, [shard, trimmedThrough, next]);
    }
  }

  // -- Bodies --------------------------------------------------------------------------------------------

  /** The rest of a body whose row was written in the same transaction. */
  async #putChunks(session: PgSession, key: ChunkKey, body: Uint8Array, region: string): Promise<void> {
    for (const chunks of chunkBatches(body)) {
      const { bytes, positions, lengths } = joinBytes(chunks.map((chunk) => chunk.bytes));
      const numbers = integerArray(chunks.map(({ chunk }) => chunk));
      const places = [integerArray(positions), integerArray(lengths)];
      await session.run(this.sql.putChunks, [region, ...key, numbers, ...places, bytes]);
    }
  }

  /** Rows with their bodies put together. `body` is the row's column that holds its share (body, or bytes). */
  async #readWhole<T>(
    statement: PgStatement,
    values: readonly PgValue[],
    keyOf: (row: PgRow) => ChunkKey,
    makeValue: (row: PgRow, body: Uint8Array) => T,
  ): Promise<T[]> {
    for (let attempt = 1; ; attempt++) {
      const rows = await this.read(statement, values);
      try {
        const whole: T[] = [];
        for (const row of rows) whole.push(makeValue(row, await this.#bodyOf(row, keyOf(row))));
        return whole;
      } catch (error) {
        const isTorn = error instanceof StreamHouseError && error.code === 'corrupt-store';
        if (!isTorn || attempt === WHOLE_TRIES_MAX) throw error;
      }
    }
  }

  async #bodyOf(row: PgRow, key: ChunkKey): Promise<Uint8Array> {
    const share = (row.body ?? row.bytes) as Uint8Array;
    const bodyBytes = row.bodyBytes as number;
    if (share.length === bodyBytes) return share;
    const chunks =
      key[0] === 'p'
        ? await this.read(this.sql.readPageChunks, [...key, row.stamp as number])
        : await this.read(this.sql.readChunks, key);
    return wholeBody(
      share,
      chunks.map(({ bytes }) => bytes as Uint8Array),
      bodyBytes,
      `${this.description}: the body of ${key.join('/')}`,
    );
  }

  protected override readPages(statement: PgStatement, values: readonly PgValue[]): Promise<IndexPage[]> {
    return this.#readWhole(statement, values, pageKeyOf, pageOf);
  }

  protected override async readObjects(
    statement: PgStatement,
    values: readonly PgValue[],
  ): Promise<ListedObject[]> {
    return (await this.read(statement, values)).map(objectOf);
  }

  // -- Pages and checkpoints -----------------------------------------------------------------------------

  async putPages(pages: readonly IndexPage[]): Promise<void> {
    checkPages(pages, this.bodyBytesMax);
    this.checkWriter();
    const newest = newestPages(pages);
    const parts = inStatements(newest, ({ bytes }) => rowShare(bytes).length);
    if (parts.length === 0) return;
    if (parts.length === 1 && !newest.some(({ bytes }) => isLarge(bytes))) {
      await this.write(this.sql.putPages, this.#pageValues(newest));
      return;
    }
    const taken = parts.map((part) => part.map((page) => ({ ...page, bytes: page.bytes.slice() })));
    await this.connections.transaction(async (session) => {
      for (const part of taken) await this.#putPagesWithin(session, part);
    });
  }

  async #putPagesWithin(session: PgSession, pages: readonly IndexPage[]): Promise<void> {
    const stored = await session.run(this.sql.putPages, this.#pageValues(pages));
    const keys = new Set(stored.map((row) => `${row.topicId}/${row.partition}/${row.baseOffset}`));
    for (const { topicId, partition, baseOffset, bytes } of pages) {
      if (!keys.has(`${topicId}/${partition}/${baseOffset}`)) continue;
      await this.#putChunks(session, ['p', topicId, partition, baseOffset], bytes, this.#region);
    }
  }

  #pageValues(pages: readonly IndexPage[]): PgValue[] {
    const { columns, bytes } = pageColumns(pages);
    return [...columns, this.#region, bytes];
  }

  async findPages(requests: readonly (PartitionId & { offset: number })[]): Promise<(IndexPage | null)[]> {
    if (requests.length === 0) return [];
    const pages = new Array<IndexPage | null>(requests.length).fill(null);
    const [{ topicId, partition, offset }] = requests;
    const columns = [
      integerArray(requests.map((request) => request.topicId)),
      integerArray(requests.map((request) => request.partition)),
      integerArray(requests.map((request) => request.offset)),
    ];
    const placed = await this.#readWhole(
      requests.length === 1 ? this.sql.findPage : this.sql.findPages,
      requests.length === 1 ? [topicId, partition, offset] : columns,
      pageKeyOf,
      (row, bytes) => ({ place: row.place as number, page: pageOf(row, bytes) }),
    );
    for (const { place, page } of placed) pages[place - 1] = page;
    return pages;
  }

  async putCheckpoint(shard: number, pointer: CheckpointPointer, bytes: Uint8Array): Promise<void> {
    const { seq, writer } = pointer;
    checkInteger(seq, 'seq');
    checkInteger(writer, 'writer');
    checkBody(bytes, this.bodyBytesMax, 'a checkpoint');
    this.checkWriter();
    const body = bytes.slice();
    const values = [shard, seq, writer, this.#region, Buffer.from(rowShare(body)), body.length];
    if (!isLarge(body)) {
      const [row] = await this.write(this.sql.putCheckpoint, values);
      if (!row) throw shardNotFound(shard);
      return;
    }
    await this.connections.transaction(async (session) => {
      const [row] = await session.run(this.sql.putCheckpoint, values);
      if (!row) throw shardNotFound(shard);
      if (row.stored) await this.#putChunks(session, ['c', shard, seq, writer], body, this.#region);
    });
  }

  async getCheckpoint(shard: number, pointer: CheckpointPointer): Promise<Uint8Array> {
    const { seq, writer } = pointer;
    const bodies = await this.#readWhole(
      this.sql.getCheckpoint,
      [shard, seq, writer],
      () => ['c', shard, seq, writer],
      (_, body) => body,
    );
    if (bodies.length === 1) return bodies[0];
    await this.readHead(shard);
    throw new StreamHouseError(
      'checkpoint-not-found',
      `shard ${shard} has no checkpoint at ${seq} by ${writer}`,
    );
  }

  // -- Objects -------------------------------------------------------------------------------------------

  async dropReferences(drops: readonly ReferenceDrop[]): Promise<void> {
    checkDrops(drops);
    this.checkWriter();
    if (drops.length === 0) return;
    const objects = [...new Map(drops.map(({ object }) => [keyOfObject(object), { ...object }])).values()];
    const bounds = dropBounds(drops);
    await this.connections.transaction(async (session) => {
      const rows = await session.run(this.sql.lockObjects, objectKeys(objects));
      const changed = rows.map(objectOf).flatMap((row) => {
        const shards = row.shards.filter(
          ({ shard, epoch }) => epoch >= (bounds.get(`${keyOfObject(row.object)}/${shard}`) ?? 0),
        );
        return shards.length < row.shards.length ? [{ ...row, shards }] : [];
      });
      if (changed.length === 0) return;
      const { bytes, positions, lengths } = joinBytes(changed.map(({ shards }) => encodeReferences(shards)));
      await session.run(this.sql.setReferences, [
        ...objectKeys(changed.map(({ object }) => object)),
        integerArray(changed.map(({ shards }) => shards.length)),
        integerArray(positions),
        integerArray(lengths),
        bytes,
      ]);
    });
  }

  // -- Agents and leases ---------------------------------------------------------------------------------

  async registerAgent(agent: Omit<Agent, 'incarnation' | 'heartbeatCount'>): Promise<Agent> {
    const { agentId, address, zone, group, version, registeredAtMs } = agent;
    const values = [agentId, address, zone, group, version, registeredAtMs, this.#region];
    const [row] = await this.write(this.sql.registerAgent, values);
    return agentOf(row);
  }

  /** A shard whose lease is taken moves its home to the region of whoever takes it. */
  async acquireLeases(
    incarnation: number,
    seen: readonly { shard: number; holder: number; epoch: number }[],
  ): Promise<HeadOutcome[]> {
    checkLeases(incarnation, seen);
    const shards = seen.map(({ shard }) => shard);
    const holders = integerArray(seen.map(({ holder }) => holder));
    const epochs = integerArray(seen.map(({ epoch }) => epoch));
    const values = [integerArray(shards), holders, epochs, incarnation, this.#region];
    const changed = (head: ShardHead) => ({ ...head, holder: incarnation, epoch: head.epoch + 1 });
    return await this.changeLeases(this.sql.acquireLeases, values, shards, changed);
  }

  // -- Moving --------------------------------------------------------------------------------------------

  async importRows(rows: ImportedRows): Promise<void> {
    checkImportedRows(rows, this.bodyBytesMax);
    this.checkWriter();
    const taken = structuredClone(rows);
    await this.connections.transaction(async (session) => {
      if (hasImportedRows(taken)) {
        const [row] = await session.run(this.sql.getCluster);
        checkImportTarget(taken, row ? clusterOf(row) : null);
      }
      for (const [statement, values] of this.#importCalls(taken)) await session.run(statement, values);
      await this.#importEntries(session, taken.entries ?? []);
    });
  }

  #importCalls(rows: ImportedRows): [PgStatement, PgValue[]][] {
    const { sql } = this;
    const calls = sharedImportCalls(sql, rows);
    if (rows.heads?.length) calls.push([sql.importHeads, [...headColumns(rows.heads), this.#region]]);
    if (rows.objects?.length) {
      const { columns, bytes } = objectColumns(rows.objects);
      const marks = integerArray(rows.objects.map(({ markedAtMs }) => markedAtMs));
      calls.push([sql.deleteObjects, objectKeys(rows.objects.map(({ object }) => object))]);
      calls.push([sql.insertObjects, [...columns, marks, this.#region, bytes]]);
    }
    return calls;
  }

  async #importEntries(session: PgSession, entries: readonly LogEntry[]): Promise<void> {
    for (const part of inStatements(entries, bodyBytesOf)) {
      const { columns, bytes } = entryColumns(part);
      await session.run(this.sql.deleteEntries, columns.slice(0, 2));
      await session.run(this.sql.insertEntries, [...columns, this.#region, bytes]);
      for (const { shard, seq, body } of part) {
        await this.#putChunks(session, ['e', shard, seq, 0], body, this.#region);
      }
    }
  }
}

/** Bytes of their own, in one piece, so that a caller may change his. */
function takeEntries(entries: readonly LogEntry[]): LogEntry[] {
  const { bytes, positions, lengths } = joinBytes(entries.map(({ body }) => body));
  return entries.map((entry, i) => ({
    ...entry,
    body: bytes.subarray(positions[i] - 1, positions[i] - 1 + lengths[i]),
  }));
}

function bodyBytesOf({ body }: LogEntry): number {
  return rowShare(body).length;
}

function appendValues(entries: PackedColumns, objects: PackedColumns, region: string): PgValue[] {
  return [...entries.columns, region, entries.bytes, ...objects.columns, objects.bytes];
}

function outcomesOf(entries: readonly LogEntry[], rows: readonly PgRow[]): AppendOutcome[] {
  const found = new Map(rows.map((row) => [row.shard as number, row]));
  return entries.map(({ shard }) => {
    const row = rowOfShard(found, shard);
    return row.changed ? { kind: 'done' } : { kind: 'conflict', head: headOf(row) };
  });
}

/** By object and shard: references of an epoch below this go. Several drops of one reference count together. */
function dropBounds(drops: readonly ReferenceDrop[]): Map<string, number> {
  const bounds = new Map<string, number>();
  for (const { object, shard, belowEpoch } of drops) {
    const key = `${keyOfObject(object)}/${shard}`;
    const bound = belowEpoch ?? Number.POSITIVE_INFINITY;
    bounds.set(key, Math.max(bounds.get(key) ?? 0, bound));
  }
  return bounds;
}

function pageKeyOf(row: PgRow): ChunkKey {
  return ['p', row.topicId as number, row.partition as number, row.baseOffset as number];
}
