/**
 * What lies in the one table: keys and attributes of every item, and the codecs between them and the contract's
 * rows. Owns: the layouts, which are frozen (test/golden/dynamodb-items-v1.json). Does not own: any request, nor
 * bodies that are too large for their item (dynamodb-bodies). Pure; any thread.
 *
 *   pk                        sk                            attributes
 *   schema                    NUMBER                        name checksum breaking (1, 0) appliedAt
 *   cluster                   cluster                       clusterId storeIncarnation shardCount createdAt
 *                                                           generation copiedFrom? movedTo? groups?
 *   counter#KIND              last                          last
 *   topics                    =NAME                         topicId partitions configs createdAt version
 *   topic-id#ID               name                          name
 *   deleted-topics            ID                            name and the rest of the topic as it was, version + 1
 *   head#SHARD                head                          seq commit epoch holder trimmed pointerSeq? pointerWriter?
 *                                                           imported? (1: copied from another store)
 *                                                           | entryEpoch and BODY of the newest entry
 *   log#SHARD                 SEQ                           epoch commit BODY
 *   log-chunk#SHARD#SPREAD    SEQ#COMMIT#INDEX              body; SPREAD is SEQ mod 8
 *   checkpoint#SHARD          SEQ#WRITER                    BODY
 *   checkpoint-chunk#SHARD    SEQ#WRITER#HASH#INDEX         body
 *   page#TOPIC#PARTITION      BASE                          shard stamp BODY
 *   page-chunk#TOPIC#PART...  BASE#STAMP#HASH#INDEX         body
 *   object-incarnations       INCARNATION                   -
 *   object#INCARNATION        NUMBER                        bytes createdAt refs marked?
 *   unreferenced              INCARNATION#NUMBER            leading?
 *   agents                    =ID                           incarnation address zone group version beats registeredAt
 *
 *   BODY is `body` (bytes), or `spill` (text): COUNT:BYTES:CRC32C:TOKEN of its chunks; neither: no bytes
 *   upper-case words of a sort key are decimal numbers of 16 digits (INDEX: of 4), so that text order is theirs
 *   `refs` is storage/metadata/object-references.ts
 */

import type { ObjectId, PartitionId } from '../../../src/core/ids.ts';
import type {
  Agent,
  ClusterInfo,
  IndexPage,
  ListedObject,
  LogEntry,
  ShardHead,
  Topic,
} from '../metadata-store.ts';
import { decodeReferences, encodeReferences } from '../object-references.ts';
import { groupsOfStored, storedGroups } from '../stored-groups.ts';
import { type Attributes, type Item, type ItemKey, ItemReader, toItem } from './dynamodb-values.ts';

/** 2^53 - 1 has sixteen digits. */
const DIGITS = 16;

export function ordered(value: number): string {
  return String(value).padStart(DIGITS, '0');
}

// -- Keys ------------------------------------------------------------------------------------------------

export const SCHEMA = 'schema';
export const TOPICS = 'topics';
export const DELETED_TOPICS = 'deleted-topics';
export const OBJECT_INCARNATIONS = 'object-incarnations';
export const UNREFERENCED = 'unreferenced';
export const AGENTS = 'agents';
export const PAGE_PREFIX = 'page#';

export const CLUSTER_KEY: ItemKey = { pk: 'cluster', sk: 'cluster' };

export type CounterKind = 'topic' | 'incarnation' | 'producer';

export const counterKey = (kind: CounterKind): ItemKey => ({ pk: `counter#${kind}`, sk: 'last' });
export const topicKey = (name: string): ItemKey => ({ pk: TOPICS, sk: `=${name}` });
export const topicIdKey = (topicId: number): ItemKey => ({ pk: `topic-id#${topicId}`, sk: 'name' });
export const deletedTopicKey = (topicId: number): ItemKey => ({ pk: DELETED_TOPICS, sk: ordered(topicId) });
export const headKey = (shard: number): ItemKey => ({ pk: `head#${shard}`, sk: 'head' });
export const entryKey = (shard: number, seq: number): ItemKey => ({ pk: `log#${shard}`, sk: ordered(seq) });

export const checkpointChunks = (shard: number): string => `checkpoint-chunk#${shard}`;
export const checkpoints = (shard: number): string => `checkpoint#${shard}`;
export const pages = ({ topicId, partition }: PartitionId): string => `${PAGE_PREFIX}${topicId}#${partition}`;
export const pageChunks = ({ topicId, partition }: PartitionId): string =>
  `page-chunk#${topicId}#${partition}`;
export const objects = (incarnation: number): string => `object#${incarnation}`;
export const agentKey = (agentId: string): ItemKey => ({ pk: AGENTS, sk: `=${agentId}` });

export function objectKey({ incarnation, number }: ObjectId): ItemKey {
  return { pk: objects(incarnation), sk: ordered(number) };
}

export function incarnationKey(incarnation: number): ItemKey {
  return { pk: OBJECT_INCARNATIONS, sk: ordered(incarnation) };
}

export function unreferencedKey({ incarnation, number }: ObjectId): ItemKey {
  return { pk: UNREFERENCED, sk: `${ordered(incarnation)}#${ordered(number)}` };
}

export function objectOfUnreferenced({ sk }: ItemKey): ObjectId {
  const [incarnation, number] = sk.split('#').map(Number);
  return { incarnation, number };
}

/** A sort key has 1 to 1024 bytes of UTF-8: what cannot be one names nothing. */
export function isKeyText(text: string): boolean {
  return text.isWellFormed() && Buffer.byteLength(text) <= 1000;
}

/**
 * One partition key takes 1,000 write units a second, which the chunks of one shard's log exceed at ten flushes a
 * second of 100 KiB each: they are spread over this many.
 */
const CHUNK_SPREAD = 8;

export function entryChunks(shard: number, seq: number): string {
  return `log-chunk#${shard}#${seq % CHUNK_SPREAD}`;
}

export function allEntryChunks(shard: number): string[] {
  return Array.from({ length: CHUNK_SPREAD }, (_, seq) => entryChunks(shard, seq));
}

// -- Codecs ----------------------------------------------------------------------------------------------

/** Where a body lies; dynamodb-bodies makes and reads it. */
export interface StoredBody {
  body?: Uint8Array;
  spill?: string;
}

export function storedBodyOf(reader: ItemReader): StoredBody {
  const spill = reader.textOrNull('spill');
  if (spill !== null) return { spill };
  return { body: reader.bytesOrNull('body') ?? new Uint8Array(0) };
}

export function clusterItem(cluster: ClusterInfo): Item {
  const { clusterId, storeIncarnation, shardCount, createdAtMs, generation, copiedFrom, movedTo } = cluster;
  const attributes = {
    clusterId,
    storeIncarnation,
    shardCount,
    groups: storedGroups(cluster),
    createdAt: createdAtMs,
    generation,
    copiedFrom,
    movedTo,
  };
  return toItem(CLUSTER_KEY, attributes);
}

export function clusterOf(item: Item): ClusterInfo {
  const reader = new ItemReader(item);
  const shardCount = reader.number('shardCount');
  return {
    clusterId: reader.text('clusterId'),
    storeIncarnation: reader.text('storeIncarnation'),
    shardCount,
    groups: groupsOfStored(reader.textOrNull('groups'), shardCount),
    createdAtMs: reader.number('createdAt'),
    generation: reader.number('generation'),
    copiedFrom: reader.textOrNull('copiedFrom'),
    movedTo: reader.textOrNull('movedTo'),
  };
}

function topicAttributes({ topicId, partitionCount, configs, createdAtMs, version }: Topic): Attributes {
  return {
    topicId,
    partitions: partitionCount,
    configs: JSON.stringify(configs),
    createdAt: createdAtMs,
    version,
  };
}

export function topicItem(topic: Topic): Item {
  return toItem(topicKey(topic.name), topicAttributes(topic));
}

export function deletedTopicItem(topic: Topic): Item {
  return toItem(deletedTopicKey(topic.topicId), { name: topic.name, ...topicAttributes(topic) });
}

export function topicOf(item: Item): Topic {
  const reader = new ItemReader(item);
  return {
    topicId: reader.number('topicId'),
    name: reader.textOrNull('name') ?? reader.text('sk').slice(1),
    partitionCount: reader.number('partitions'),
    configs: reader.texts('configs'),
    createdAtMs: reader.number('createdAt'),
    version: reader.number('version'),
  };
}

/** Attributes of a head besides the newest entry's; for reading it without that. */
export const HEAD_PROJECTION = '#seq, #commit, #epoch, #holder, #trimmed, #pointerSeq, #pointerWriter';

/** A head without an entry in it: its newest entry, if any, has an item of its own. */
export function headItem(head: ShardHead, isImported: boolean): Item {
  return toItem(headKey(head.shard), {
    imported: isImported ? 1 : undefined,
    seq: head.headSeq,
    commit: head.headCommitId,
    epoch: head.epoch,
    holder: head.holder,
    trimmed: head.trimmedThrough,
    pointerSeq: head.checkpoint?.seq,
    pointerWriter: head.checkpoint?.writer,
  });
}

export function headOf(shard: number, item: Item): ShardHead {
  const reader = new ItemReader(item);
  const seq = reader.numberOrNull('pointerSeq');
  return {
    shard,
    headSeq: reader.number('seq'),
    headCommitId: reader.text('commit'),
    epoch: reader.number('epoch'),
    holder: reader.number('holder'),
    checkpoint: seq === null ? null : { seq, writer: reader.number('pointerWriter') },
    trimmedThrough: reader.number('trimmed'),
  };
}

/** An entry whose body may lie in chunks. */
export interface StoredEntry extends Omit<LogEntry, 'body'> {
  stored: StoredBody;
}

/** The newest entry as its head carries it; null where it has an item of its own, or there is none. */
export function entryOfHead(shard: number, item: Item): StoredEntry | null {
  const reader = new ItemReader(item);
  const epoch = reader.numberOrNull('entryEpoch');
  if (epoch === null) return null;
  return {
    shard,
    seq: reader.number('seq'),
    epoch,
    commitId: reader.text('commit'),
    stored: storedBodyOf(reader),
  };
}

export function entryItem({ shard, seq, epoch, commitId, stored }: StoredEntry): Item {
  return toItem(entryKey(shard, seq), { epoch, commit: commitId, ...stored });
}

export function entryOf(shard: number, item: Item): StoredEntry {
  const reader = new ItemReader(item);
  return {
    shard,
    seq: reader.sortNumber(),
    epoch: reader.number('epoch'),
    commitId: reader.text('commit'),
    stored: storedBodyOf(reader),
  };
}

export interface StoredPage extends Omit<IndexPage, 'bytes'> {
  stored: StoredBody;
}

export function pageItem(page: StoredPage): Item {
  const key = { pk: pages(page), sk: ordered(page.baseOffset) };
  return toItem(key, { shard: page.shard, stamp: page.stamp, ...page.stored });
}

export function pageOf(item: Item): StoredPage {
  const reader = new ItemReader(item);
  const [topicId, partition] = reader.text('pk').slice(PAGE_PREFIX.length).split('#').map(Number);
  return {
    topicId,
    partition,
    baseOffset: reader.sortNumber(),
    shard: reader.number('shard'),
    stamp: reader.number('stamp'),
    stored: storedBodyOf(reader),
  };
}

/** `refs` of a row that nothing refers to. */
export const NO_REFERENCES = encodeReferences([]);

export function objectItem({ object, bytes, createdAtMs, shards, markedAtMs }: ListedObject): Item {
  return toItem(objectKey(object), {
    bytes,
    createdAt: createdAtMs,
    refs: encodeReferences(shards),
    marked: markedAtMs,
  });
}

export function objectOf(item: Item): ListedObject {
  const reader = new ItemReader(item);
  return {
    object: { incarnation: Number(reader.text('pk').split('#')[1]), number: reader.sortNumber() },
    bytes: reader.number('bytes'),
    createdAtMs: reader.number('createdAt'),
    shards: decodeReferences(reader.bytes('refs')),
    markedAtMs: reader.numberOrNull('marked'),
  };
}

export function agentItem(agent: Agent): Item {
  const { agentId, incarnation, address, zone, group, version, heartbeatCount, registeredAtMs } = agent;
  const rest = { address, zone, group, version, beats: heartbeatCount, registeredAt: registeredAtMs };
  return toItem(agentKey(agentId), { incarnation, ...rest });
}

export function agentOf(item: Item): Agent {
  const reader = new ItemReader(item);
  return {
    agentId: reader.text('sk').slice(1),
    incarnation: reader.number('incarnation'),
    address: reader.text('address'),
    zone: reader.text('zone'),
    group: reader.text('group'),
    version: reader.text('version'),
    heartbeatCount: reader.number('beats'),
    registeredAtMs: reader.number('registeredAt'),
  };
}
