/**
 * What every backend checks of its arguments before it does anything, so that all of them refuse the same
 * things in the same way. Owns: the size bound ('item-too-large', an operating error, nothing happened) and
 * the assertions on what only a bug of ours could pass in (fractions, negative numbers, two entries for one
 * shard). Does not own: rules of names and configs, which the callers keep. Pure; any thread.
 */
import assert from 'node:assert/strict';
import { StreamHouseError } from '../../src/core/errors.ts';
import { PARTITIONS_PER_TOPIC_MAX } from '../../src/core/ids.ts';
import { oneGroup, type TopicIdClass } from '../../src/core/shard-layout.ts';
import type {
  ClusterInfo,
  ImportedRows,
  IndexPage,
  LogEntry,
  NewCluster,
  ObjectRow,
  ReferenceDrop,
} from './metadata-store.ts';

/** A commit id has 1 to 64 printable ASCII characters. */
const COMMIT_ID = /^[\x21-\x7e]{1,64}$/;

/** Shards of one call differ, and whoever takes or releases them is somebody. */
export function checkLeases(
  incarnation: number,
  leases: readonly { shard: number; epoch: number; holder?: number }[],
): void {
  checkInteger(incarnation, 'incarnation', 1);
  const shards = new Set<number>();
  for (const { shard, epoch, holder = 0 } of leases) {
    checkInteger(shard, 'shard');
    checkInteger(epoch, 'epoch');
    checkInteger(holder, 'holder');
    assert(!shards.has(shard), `shard ${shard} twice in one call`);
    shards.add(shard);
  }
}

/** Every number of the contract is a safe integer; `least` is 0 unless given. */
export function checkInteger(value: number, what: string, least = 0): void {
  assert(Number.isSafeInteger(value) && value >= least, `${what} must be an integer from ${least}: ${value}`);
}

const ANY_ID: TopicIdClass = { modulus: 1, residue: 0 };

/** The class of a new topic's id. */
export function checkIdClass(idClass: TopicIdClass = ANY_ID): TopicIdClass {
  const { modulus, residue } = idClass;
  checkInteger(modulus, 'modulus', 1);
  checkInteger(residue, 'residue');
  assert(residue < modulus, `residue ${residue} of modulus ${modulus}`);
  return idClass;
}

/** The id of the class among the `modulus` ids that end with `last`. */
export function idOfClass(last: number, { modulus, residue }: TopicIdClass): number {
  return last - ((last - residue) % modulus);
}

export function checkPartitionCount(count: number): void {
  checkInteger(count, 'partitionCount', 1);
  assert(count <= PARTITIONS_PER_TOPIC_MAX, `partitionCount over ${PARTITIONS_PER_TOPIC_MAX}: ${count}`);
}

/** Throws 'item-too-large' for a body over the bound. */
export function checkBody(bytes: Uint8Array, bodyBytesMax: number, what: string): void {
  assert(bytes instanceof Uint8Array, `${what} must be bytes`);
  if (bytes.length > bodyBytesMax) {
    throw new StreamHouseError(
      'item-too-large',
      `${what} of ${bytes.length} bytes, the store takes ${bodyBytesMax}`,
      { bytes: bytes.length, bytesMax: bodyBytesMax },
    );
  }
}

export function checkEntries(entries: readonly LogEntry[], bodyBytesMax: number): void {
  const shards = new Set<number>();
  for (const entry of entries) {
    assert(!shards.has(entry.shard), `two entries for shard ${entry.shard} in one call`);
    shards.add(entry.shard);
    checkEntry(entry, bodyBytesMax);
  }
}

function checkEntry(entry: LogEntry, bodyBytesMax: number): void {
  checkInteger(entry.shard, 'shard');
  checkInteger(entry.seq, 'seq', 1);
  checkInteger(entry.epoch, 'epoch');
  assert(COMMIT_ID.test(entry.commitId), `a commit id of 1 to 64 ASCII characters: '${entry.commitId}'`);
  checkBody(entry.body, bodyBytesMax, 'an entry');
}

/** What comes from another store has been checked there; this is against a mistake of the copying code's. */
export function checkImportedRows(rows: ImportedRows, bodyBytesMax: number): void {
  for (const topic of [...(rows.topics ?? []), ...(rows.deletedTopics ?? [])]) {
    checkInteger(topic.topicId, 'topicId', 1);
    checkPartitionCount(topic.partitionCount);
  }
  for (const head of rows.heads ?? []) {
    checkInteger(head.shard, 'shard');
    checkInteger(head.headSeq, 'headSeq');
    checkInteger(head.epoch, 'epoch');
  }
  for (const entry of rows.entries ?? []) checkEntry(entry, bodyBytesMax);
  checkObjectRows(rows.objects ?? []);
  for (const last of Object.values(rows.lastIds ?? {})) checkInteger(last, 'a last id');
}

/** Whether a call puts anything over what is there: ids are only raised. */
export function hasImportedRows({ lastIds: _, ...rows }: ImportedRows): boolean {
  return Object.values(rows).some((some) => some.length > 0);
}

/** Throws 'conflict' for rows where there is a cluster: brokers may have gone on from where its copy stood. */
export function checkImportTarget(rows: ImportedRows, present: ClusterInfo | null): void {
  if (present === null || !hasImportedRows(rows)) return;
  throw new StreamHouseError('conflict', `the store holds cluster ${present.clusterId} already`);
}

/** A cluster as it is in the store where it is created. */
export function newCluster(proposed: NewCluster): ClusterInfo {
  const { clusterId, storeIncarnation, shardCount, createdAtMs } = proposed;
  checkInteger(shardCount, 'shardCount', 1);
  const groups = proposed.groups ?? oneGroup(shardCount).groups;
  let sum = 0;
  for (const { name, shards } of groups) {
    checkInteger(shards, `shards of group ${name}`, 1);
    sum += shards;
  }
  assert(sum === shardCount, `groups of ${sum} shards, not ${shardCount}`);
  const copied = groups.map(({ name, shards }) => ({ name, shards }));
  const first = { generation: 1, copiedFrom: null, movedTo: null };
  return { clusterId, storeIncarnation, shardCount, groups: copied, createdAtMs, ...first };
}

/** Throws 'conflict' unless `cluster` may be written where `present` is and these heads are. */
export function checkImportedCluster(
  cluster: ClusterInfo,
  present: ClusterInfo | null,
  hasHead: (shard: number) => boolean,
): void {
  if (present && present.storeIncarnation !== cluster.storeIncarnation) {
    throw new StreamHouseError('conflict', `the store holds cluster ${present.clusterId} already`);
  }
  const isSame = present?.generation === cluster.generation && present.movedTo === cluster.movedTo;
  if (present && !isSame && present.generation >= cluster.generation) {
    const { clusterId, generation } = present;
    throw new StreamHouseError(
      'conflict',
      `the store holds generation ${generation} of cluster ${clusterId}`,
    );
  }
  for (let shard = 0; shard < cluster.shardCount; shard++) {
    if (!hasHead(shard)) throw new StreamHouseError('conflict', `the head of shard ${shard} was not copied`);
  }
}

/** The heads of a copy lie in the store, and no cluster: nobody may begin another over them. */
export function unfinishedCopy(description: string): StreamHouseError {
  return new StreamHouseError('conflict', `${description} holds a copy of a cluster that was not finished`);
}

/** Of `setMovedTo`: another copy was quicker. */
export function movedElsewhere(description: string, movedTo: string | null): StreamHouseError {
  const what =
    movedTo === null ? 'not marked as moved any more' : `marked as moved to another store (${movedTo})`;
  return new StreamHouseError('conflict', `${description} is ${what}`);
}

export function noCluster(description: string): StreamHouseError {
  return new StreamHouseError('conflict', `${description} holds no cluster`);
}

export function checkObjectRows(rows: readonly ObjectRow[]): void {
  for (const row of rows) {
    checkInteger(row.object.incarnation, 'incarnation');
    checkInteger(row.object.number, 'number');
    checkInteger(row.bytes, 'bytes');
    checkInteger(row.createdAtMs, 'createdAtMs');
    const shards = new Set<number>();
    for (const reference of row.shards) {
      checkInteger(reference.shard, 'shard');
      checkInteger(reference.epoch, 'epoch');
      assert(!shards.has(reference.shard), `shard ${reference.shard} twice in one object row`);
      shards.add(reference.shard);
    }
  }
}

export function checkPages(pages: readonly IndexPage[], bodyBytesMax: number): void {
  for (const page of pages) {
    checkInteger(page.topicId, 'topicId', 1);
    checkInteger(page.partition, 'partition');
    checkInteger(page.shard, 'shard');
    checkInteger(page.baseOffset, 'baseOffset');
    checkInteger(page.stamp, 'stamp');
    checkBody(page.bytes, bodyBytesMax, 'a page');
  }
}

export function checkDrops(drops: readonly ReferenceDrop[]): void {
  for (const drop of drops) {
    checkInteger(drop.shard, 'shard');
    checkInteger(drop.object.incarnation, 'incarnation');
    checkInteger(drop.object.number, 'number');
    if (drop.belowEpoch !== null) checkInteger(drop.belowEpoch, 'belowEpoch');
  }
}
