/**
 * Rows of the PostgreSQL backend as the contract's values, and values as columns of parameters. Owns: both shapes.
 * Does not own: the SQL (postgres-statements). Pure.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import type {
  Agent,
  ClusterInfo,
  HeadOutcome,
  IndexPage,
  ListedObject,
  LogEntry,
  ObjectRow,
  ShardHead,
  Topic,
} from '../metadata-store.ts';
import type { PgRow, PgValue } from '../pg-wire/pg-session.ts';
import { escapeText, integerArray, joinBytes, unescapeText } from '../pg-wire/pg-values.ts';

/** Columns bear the names of the contract's fields, so that most rows are values as they are. */
export function clusterOf(row: PgRow): ClusterInfo {
  return row as unknown as ClusterInfo;
}

export function agentOf(row: PgRow): Agent {
  return row as unknown as Agent;
}

export function topicOf(row: PgRow): Topic {
  const { topicId, name, partitionCount, configs, createdAtMs, version } = row as unknown as Topic & {
    configs: string;
  };
  return {
    topicId,
    name: unescapeText(name),
    partitionCount,
    configs: configsOf(configs, topicId),
    createdAtMs,
    version,
  };
}

function configsOf(text: string, topicId: number): Record<string, string> {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new StreamHouseError('corrupt-store', `the configs of topic ${topicId}`, undefined, error);
  }
}

type HeadRow = Omit<ShardHead, 'checkpoint'> & {
  checkpointSeq: number | null;
  checkpointWriter: number | null;
};

export function headOf(row: PgRow): ShardHead {
  const { shard, headSeq, headCommitId, epoch, holder, checkpointSeq, checkpointWriter, trimmedThrough } =
    row as unknown as HeadRow;
  const checkpoint =
    checkpointSeq === null || checkpointWriter === null
      ? null
      : { seq: checkpointSeq, writer: checkpointWriter };
  return { shard, headSeq, headCommitId, epoch, holder, checkpoint, trimmedThrough };
}

/** From a row that holds the head before a change and whether that was made. */
export function headOutcomeOf(row: PgRow, changed: (head: ShardHead) => ShardHead): HeadOutcome {
  const head = headOf(row);
  return row.changed ? { kind: 'done', head: changed(head) } : { kind: 'conflict', head };
}

export function entryOf(row: PgRow): LogEntry {
  return row as unknown as LogEntry;
}

export function pageOf(row: PgRow): IndexPage {
  const { topicId, partition, shard, baseOffset, stamp, bytes } = row as unknown as IndexPage;
  return { topicId, partition, shard, baseOffset, stamp, bytes };
}

type StoredObject = Omit<ListedObject, 'object' | 'shards'> &
  ListedObject['object'] & { shards: number[]; epochs: number[] };

export function objectOf(row: PgRow): ListedObject {
  const { incarnation, number, bytes, createdAtMs, shards, epochs, markedAtMs } =
    row as unknown as StoredObject;
  return {
    object: { incarnation, number },
    bytes,
    createdAtMs,
    shards: shards.map((shard, i) => ({ shard, epoch: epochs[i] })),
    markedAtMs,
  };
}

export function topicColumns(topics: readonly Topic[]): PgValue[] {
  return [
    integerArray(topics.map(({ topicId }) => topicId)),
    topics.map(({ name }) => escapeText(name)),
    integerArray(topics.map(({ partitionCount }) => partitionCount)),
    topics.map(({ configs }) => JSON.stringify(configs)),
    integerArray(topics.map(({ createdAtMs }) => createdAtMs)),
    integerArray(topics.map(({ version }) => version)),
  ];
}

export function headColumns(heads: readonly ShardHead[]): PgValue[] {
  return [
    integerArray(heads.map(({ shard }) => shard)),
    integerArray(heads.map(({ headSeq }) => headSeq)),
    heads.map(({ headCommitId }) => headCommitId),
    integerArray(heads.map(({ epoch }) => epoch)),
    integerArray(heads.map(({ holder }) => holder)),
    integerArray(heads.map(({ checkpoint }) => checkpoint?.seq ?? null)),
    integerArray(heads.map(({ checkpoint }) => checkpoint?.writer ?? null)),
    integerArray(heads.map(({ trimmedThrough }) => trimmedThrough)),
  ];
}

/** All bodies in one parameter, cut by the statement: measured, an array of them costs twice the time. */
export function entryColumns(entries: readonly LogEntry[]): PgValue[] {
  const { bytes, positions, lengths } = joinBytes(entries.map(({ body }) => body));
  return [
    integerArray(entries.map(({ shard }) => shard)),
    integerArray(entries.map(({ seq }) => seq)),
    integerArray(entries.map(({ epoch }) => epoch)),
    entries.map(({ commitId }) => commitId),
    integerArray(positions),
    integerArray(lengths),
    bytes,
  ];
}

/**
 * In the order of their keys, so that two calls with the same objects never wait for one another in a circle. The
 * references of all of them are one column, and each row says where its own begin and end (from 1).
 */
export function objectColumns(rows: readonly ObjectRow[]): PgValue[] {
  const sorted = [...rows].sort(
    (a, b) => a.object.incarnation - b.object.incarnation || a.object.number - b.object.number,
  );
  let past = 1;
  const pasts = sorted.map(({ shards }) => (past += shards.length));
  const references = sorted.flatMap(({ shards }) => shards);
  return [
    integerArray(sorted.map(({ object }) => object.incarnation)),
    integerArray(sorted.map(({ object }) => object.number)),
    integerArray(sorted.map(({ bytes }) => bytes)),
    integerArray(sorted.map(({ createdAtMs }) => createdAtMs)),
    integerArray(pasts.map((end, i) => end - sorted[i].shards.length)),
    integerArray(pasts),
    integerArray(references.map(({ shard }) => shard)),
    integerArray(references.map(({ epoch }) => epoch)),
  ];
}

export function pageColumns(pages: readonly IndexPage[]): PgValue[] {
  const { bytes, positions, lengths } = joinBytes(pages.map((page) => page.bytes));
  return [
    integerArray(pages.map(({ topicId }) => topicId)),
    integerArray(pages.map(({ partition }) => partition)),
    integerArray(pages.map(({ baseOffset }) => baseOffset)),
    integerArray(pages.map(({ shard }) => shard)),
    integerArray(pages.map(({ stamp }) => stamp)),
    integerArray(positions),
    integerArray(lengths),
    bytes,
  ];
}
