/**
 * Every statement of the SQLite backend, named by intent, prepared once per connection, parameters bound. Owns:
 * the SQL and the shapes of rows. Does not own: transactions or meaning (sqlite-metadata-store.ts). The storing
 * thread.
 */
import type Database from 'better-sqlite3';
import type { Agent, ClusterInfo, LogEntry, ShardHead, Topic } from '../metadata-store.ts';

export interface TopicRow extends Omit<Topic, 'configs'> {
  configs: string;
}

export type ClusterRow = Omit<ClusterInfo, 'groups'> & { shardGroups: string | null };

export interface HeadRow extends Omit<ShardHead, 'checkpoint'> {
  checkpointSeq: number | null;
  checkpointWriter: number | null;
}

export type EntryRow = Omit<LogEntry, 'body'> & { body: Buffer };

export interface PageRow {
  topicId: number;
  partition: number;
  shard: number;
  baseOffset: number;
  stamp: number;
  bytes: Buffer;
}

export interface ObjectRowStored {
  incarnation: number;
  number: number;
  bytes: number;
  createdAtMs: number;
  shardReferences: Buffer;
  markedAtMs: number | null;
}

const TOPIC_COLUMNS = `topic_id AS topicId, name, partition_count AS partitionCount, configs,
  created_at_ms AS createdAtMs, version`;
const HEAD_COLUMNS = `shard, head_seq AS headSeq, head_commit_id AS headCommitId, epoch, holder,
  checkpoint_seq AS checkpointSeq, checkpoint_writer AS checkpointWriter, trimmed_through AS trimmedThrough`;
const PAGE_COLUMNS = 'topic_id AS topicId, partition, shard, base_offset AS baseOffset, stamp, bytes';
const OBJECT_COLUMNS = `incarnation, number, bytes, created_at_ms AS createdAtMs,
  shard_references AS shardReferences, marked_at_ms AS markedAtMs`;
const AGENT_COLUMNS = `agent_id AS agentId, incarnation, address, zone, agent_group AS "group", version,
  heartbeat_count AS heartbeatCount, registered_at_ms AS registeredAtMs`;

export type SqliteStatements = ReturnType<typeof prepareStatements>;

export function prepareStatements(db: Database.Database) {
  return {
    begin: db.prepare('BEGIN IMMEDIATE'),
    commit: db.prepare('COMMIT'),
    rollback: db.prepare('ROLLBACK'),
    ...prepareCatalogue(db),
    ...prepareLog(db),
    ...preparePages(db),
    ...prepareObjects(db),
    ...prepareAgents(db),
    ...prepareMoving(db),
  };
}

function prepareCatalogue(db: Database.Database) {
  return {
    nextId: db
      .prepare<[number, string], number>('UPDATE counters SET last = last + ? WHERE name = ? RETURNING last')
      .pluck(),
    getCluster: db.prepare<[], ClusterRow>(
      `SELECT cluster_id AS clusterId, store_incarnation AS storeIncarnation, shard_count AS shardCount,
         shard_groups AS shardGroups, created_at_ms AS createdAtMs, generation, copied_from AS copiedFrom, moved_to AS movedTo FROM cluster`,
    ),
    putCluster: db.prepare<ClusterRow>(
      `INSERT OR REPLACE INTO cluster (only_row, cluster_id, store_incarnation, shard_count, created_at_ms,
         generation, copied_from, moved_to, shard_groups)
         VALUES (1, @clusterId, @storeIncarnation, @shardCount, @createdAtMs, @generation, @copiedFrom, @movedTo,
           @shardGroups)`,
    ),
    insertHead: db.prepare<[number]>(`INSERT INTO heads VALUES (?, 0, '', 0, 0, NULL, NULL, 0)`),
    insertTopic: db.prepare<[number, string, number, string, number, number]>(
      'INSERT INTO topics (topic_id, name, partition_count, configs, created_at_ms, version) VALUES (?, ?, ?, ?, ?, ?)',
    ),
    getTopic: db.prepare<[string], TopicRow>(`SELECT ${TOPIC_COLUMNS} FROM topics WHERE name = ?`),
    getTopicById: db.prepare<[number], TopicRow>(`SELECT ${TOPIC_COLUMNS} FROM topics WHERE topic_id = ?`),
    listTopics: db.prepare<[number], TopicRow>(`SELECT ${TOPIC_COLUMNS} FROM topics ORDER BY name LIMIT ?`),
    listTopicsAfter: db.prepare<[string, number], TopicRow>(
      `SELECT ${TOPIC_COLUMNS} FROM topics WHERE name > ? ORDER BY name LIMIT ?`,
    ),
    changeTopic: db.prepare<[number, string, number], TopicRow>(
      `UPDATE topics SET partition_count = ?, configs = ?, version = version + 1 WHERE topic_id = ?
         RETURNING ${TOPIC_COLUMNS}`,
    ),
    deleteTopic: db.prepare<[number]>('DELETE FROM topics WHERE topic_id = ?'),
    insertDeletedTopic: db.prepare<[number, string, number, string, number, number]>(
      `INSERT INTO deleted_topics (topic_id, name, partition_count, configs, created_at_ms, version)
         VALUES (?, ?, ?, ?, ?, ?)`,
    ),
    listDeletedTopics: db.prepare<[number, number], TopicRow>(
      `SELECT ${TOPIC_COLUMNS} FROM deleted_topics WHERE topic_id > ? ORDER BY topic_id LIMIT ?`,
    ),
    forgetDeletedTopic: db.prepare<[number]>('DELETE FROM deleted_topics WHERE topic_id = ?'),
  };
}

function prepareLog(db: Database.Database) {
  return {
    /** The fence: moves only from (seq - 1, epoch). */
    advanceHead: db.prepare<{ shard: number; seq: number; epoch: number; commitId: string }>(
      `UPDATE heads SET head_seq = @seq, head_commit_id = @commitId
         WHERE shard = @shard AND head_seq = @seq - 1 AND epoch = @epoch`,
    ),
    insertEntry: db.prepare<[number, number, number, string, Uint8Array]>(
      'INSERT INTO entries (shard, seq, epoch, commit_id, body) VALUES (?, ?, ?, ?, ?)',
    ),
    readEntries: db.prepare<[number, number], EntryRow>(
      `SELECT shard, seq, epoch, commit_id AS commitId, body FROM entries
         WHERE shard = ? AND seq > ? ORDER BY seq`,
    ),
    getHead: db.prepare<[number], HeadRow>(`SELECT ${HEAD_COLUMNS} FROM heads WHERE shard = ?`),
    listHeads: db.prepare<[], HeadRow>(`SELECT ${HEAD_COLUMNS} FROM heads ORDER BY shard`),
    setTrimmed: db.prepare<[number, number]>('UPDATE heads SET trimmed_through = ? WHERE shard = ?'),
    deleteEntries: db.prepare<[number, number]>('DELETE FROM entries WHERE shard = ? AND seq <= ?'),
    movePointer: db.prepare<{ shard: number; epoch: number; seq: number; writer: number }>(
      `UPDATE heads SET checkpoint_seq = @seq, checkpoint_writer = @writer
         WHERE shard = @shard AND epoch = @epoch AND @seq > coalesce(checkpoint_seq, 0) AND @seq <= head_seq`,
    ),
    putCheckpoint: db.prepare<[number, number, number, Uint8Array]>(
      `INSERT INTO checkpoints (shard, seq, writer, bytes) VALUES (?, ?, ?, ?)
         ON CONFLICT (shard, seq, writer) DO NOTHING`,
    ),
    getCheckpoint: db
      .prepare<[number, number, number], Buffer>(
        'SELECT bytes FROM checkpoints WHERE shard = ? AND seq = ? AND writer = ?',
      )
      .pluck(),
    deleteCheckpointsBelow: db.prepare<[number, number]>(
      'DELETE FROM checkpoints WHERE shard = ? AND seq < ?',
    ),
    acquireLease: db.prepare<[number, number, number, number]>(
      'UPDATE heads SET epoch = epoch + 1, holder = ? WHERE shard = ? AND holder = ? AND epoch = ?',
    ),
    releaseLease: db.prepare<[number, number, number]>(
      'UPDATE heads SET holder = 0 WHERE shard = ? AND holder = ? AND epoch = ?',
    ),
  };
}

function preparePages(db: Database.Database) {
  return {
    putPage: db.prepare<[number, number, number, number, number, Uint8Array]>(
      `INSERT INTO pages (topic_id, partition, base_offset, shard, stamp, bytes) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (topic_id, partition, base_offset) DO UPDATE
         SET shard = excluded.shard, stamp = excluded.stamp, bytes = excluded.bytes
         WHERE excluded.stamp > pages.stamp`,
    ),
    findPage: db.prepare<[number, number, number], PageRow>(
      `SELECT ${PAGE_COLUMNS} FROM pages WHERE topic_id = ? AND partition = ? AND base_offset <= ?
         ORDER BY base_offset DESC LIMIT 1`,
    ),
    listPages: db.prepare<[number, number, number, number], PageRow>(
      `SELECT ${PAGE_COLUMNS} FROM pages WHERE topic_id = ? AND partition = ? AND base_offset >= ?
         ORDER BY base_offset LIMIT ?`,
    ),
    deletePages: db.prepare<[number, number, number]>(
      'DELETE FROM pages WHERE topic_id = ? AND partition = ? AND base_offset < ?',
    ),
  };
}

function prepareObjects(db: Database.Database) {
  return {
    insertObject: db.prepare<[number, number, number, number, number, Uint8Array]>(
      `INSERT INTO objects (incarnation, number, bytes, created_at_ms, reference_count, shard_references)
         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (incarnation, number) DO NOTHING`,
    ),
    getObject: db.prepare<[number, number], ObjectRowStored>(
      `SELECT ${OBJECT_COLUMNS} FROM objects WHERE incarnation = ? AND number = ?`,
    ),
    listObjects: db.prepare<[number, number, number], ObjectRowStored>(
      `SELECT ${OBJECT_COLUMNS} FROM objects WHERE (incarnation, number) > (?, ?)
         ORDER BY incarnation, number LIMIT ?`,
    ),
    listUnreferencedObjects: db.prepare<[number, number, number], ObjectRowStored>(
      `SELECT ${OBJECT_COLUMNS} FROM objects WHERE reference_count = 0 AND (incarnation, number) > (?, ?)
         ORDER BY incarnation, number LIMIT ?`,
    ),
    setReferences: db.prepare<[number, Uint8Array, number, number]>(
      'UPDATE objects SET reference_count = ?, shard_references = ? WHERE incarnation = ? AND number = ?',
    ),
    markObject: db.prepare<[number, number, number]>(
      `UPDATE objects SET marked_at_ms = ?
         WHERE incarnation = ? AND number = ? AND reference_count = 0 AND marked_at_ms IS NULL`,
    ),
    forgetObject: db.prepare<[number, number]>(
      `DELETE FROM objects
         WHERE incarnation = ? AND number = ? AND reference_count = 0 AND marked_at_ms IS NOT NULL`,
    ),
  };
}

function prepareAgents(db: Database.Database) {
  return {
    putAgent: db.prepare<Agent>(
      `INSERT OR REPLACE INTO agents (agent_id, incarnation, address, zone, agent_group, version,
         heartbeat_count, registered_at_ms)
         VALUES (@agentId, @incarnation, @address, @zone, @group, @version, @heartbeatCount, @registeredAtMs)`,
    ),
    heartbeat: db.prepare<[string, number]>(
      'UPDATE agents SET heartbeat_count = heartbeat_count + 1 WHERE agent_id = ? AND incarnation = ?',
    ),
    getAgent: db.prepare<[string], Agent>(`SELECT ${AGENT_COLUMNS} FROM agents WHERE agent_id = ?`),
    /** A null filter lets all pass. */
    listAgents: db.prepare<{ group: string | null; zone: string | null }, Agent>(
      `SELECT ${AGENT_COLUMNS} FROM agents WHERE (@group IS NULL OR agent_group = @group)
         AND (@zone IS NULL OR zone = @zone) ORDER BY agent_id`,
    ),
    deleteAgent: db.prepare<[string, number]>('DELETE FROM agents WHERE agent_id = ? AND incarnation = ?'),
  };
}

/** Of `metadata copy`: rows as another store holds them. */
function prepareMoving(db: Database.Database) {
  return {
    lastId: db.prepare<[string], number>('SELECT last FROM counters WHERE name = ?').pluck(),
    raiseLastId: db.prepare<[number, string]>('UPDATE counters SET last = max(last, ?) WHERE name = ?'),
    scanPages: db.prepare<[number, number, number, number], PageRow>(
      `SELECT ${PAGE_COLUMNS} FROM pages WHERE (topic_id, partition, base_offset) > (?, ?, ?)
         ORDER BY topic_id, partition, base_offset LIMIT ?`,
    ),
    importTopic: db.prepare<TopicRow>(
      `INSERT OR REPLACE INTO topics (topic_id, name, partition_count, configs, created_at_ms, version)
         VALUES (@topicId, @name, @partitionCount, @configs, @createdAtMs, @version)`,
    ),
    importDeletedTopic: db.prepare<TopicRow>(
      `INSERT OR REPLACE INTO deleted_topics (topic_id, name, partition_count, configs, created_at_ms, version)
         VALUES (@topicId, @name, @partitionCount, @configs, @createdAtMs, @version)`,
    ),
    importHead: db.prepare<HeadRow>(
      `INSERT OR REPLACE INTO heads (shard, head_seq, head_commit_id, epoch, holder, checkpoint_seq,
         checkpoint_writer, trimmed_through)
         VALUES (@shard, @headSeq, @headCommitId, @epoch, @holder, @checkpointSeq, @checkpointWriter,
           @trimmedThrough)`,
    ),
    importEntry: db.prepare<[number, number, number, string, Uint8Array]>(
      'INSERT OR REPLACE INTO entries (shard, seq, epoch, commit_id, body) VALUES (?, ?, ?, ?, ?)',
    ),
    importObject: db.prepare<[number, number, number, number, number, Uint8Array, number | null]>(
      `INSERT OR REPLACE INTO objects (incarnation, number, bytes, created_at_ms, reference_count,
         shard_references, marked_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)`,
    ),
  };
}
