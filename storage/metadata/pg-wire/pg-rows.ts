/**
 * Rows that every backend of PostgreSQL's protocol keeps alike as the contract's values, and values as columns of
 * parameters. Owns: both shapes. Does not own: the SQL (pg-statements). Pure.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { Agent, ClusterInfo, HeadOutcome, ShardHead, Topic } from '../metadata-store.ts';
import { groupsOfStored } from '../stored-groups.ts';
import type { PgRow, PgValue } from './pg-session.ts';
import { escapeText, integerArray, unescapeText } from './pg-values.ts';

export function clusterOf(row: PgRow): ClusterInfo {
  const { shardGroups, ...cluster } = row as unknown as Omit<ClusterInfo, 'groups'> & {
    shardGroups: string | null;
  };
  return { ...cluster, groups: groupsOfStored(shardGroups, cluster.shardCount) };
}

/** Columns bear the names of the contract's fields, so that most rows are values as they are. */
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
