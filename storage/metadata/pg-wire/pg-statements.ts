/**
 * Statements that every backend of PostgreSQL's protocol runs as they are: SQL that all of those databases take, under
 * READ COMMITTED as under SERIALIZABLE. Owns: their text, the columns of rows that all have. Does not own: statements
 * about rows whose shape or key differs (each backend's own). Pure.
 *
 * What a condition is about is read FOR UPDATE in a CTE of its own: that waits, and gives the newest version of the
 * row (or fails as a collision). No statement changes a table twice, and parameters without a column have a type.
 */
export const CLUSTER_COLUMNS = `cluster_id AS "clusterId", store_incarnation AS "storeIncarnation",
  shard_count AS "shardCount", shard_groups AS "shardGroups", created_at_ms AS "createdAtMs", generation, copied_from AS "copiedFrom",
  moved_to AS "movedTo"`;

const topicColumns = (
  of = '',
) => `${of}topic_id AS "topicId", ${of}name, ${of}partition_count AS "partitionCount",
  ${of}configs, ${of}created_at_ms AS "createdAtMs", ${of}version`;
export const headColumns = (
  of = '',
) => `${of}shard, ${of}head_seq AS "headSeq", ${of}head_commit_id AS "headCommitId",
  ${of}epoch, ${of}holder, ${of}checkpoint_seq AS "checkpointSeq", ${of}checkpoint_writer AS "checkpointWriter",
  ${of}trimmed_through AS "trimmedThrough"`;
export const AGENT_COLUMNS = `agent_id AS "agentId", incarnation, address, zone, agent_group AS "group", version,
  heartbeat_count AS "heartbeatCount", registered_at_ms AS "registeredAtMs"`;

export function sharedTexts(s: string) {
  return { ...clusterTexts(s), ...catalogueTexts(s), ...headTexts(s), ...agentTexts(s), ...movingTexts(s) };
}

function clusterTexts(s: string) {
  return {
    getCluster: `SELECT ${CLUSTER_COLUMNS} FROM ${s}.cluster`,
    setMovedTo: `
      UPDATE ${s}.cluster SET moved_to = $1
      WHERE moved_to IS NOT DISTINCT FROM $2::text OR moved_to IS NOT DISTINCT FROM $1::text
      RETURNING ${CLUSTER_COLUMNS}`,
    allocateProducerIds: `UPDATE ${s}.counters SET last = last + $1 WHERE name = 'producer' RETURNING last`,
    getLastIds: `SELECT name, last FROM ${s}.counters`,
  };
}

function catalogueTexts(s: string) {
  return {
    /**
     * No row when the name is taken; ids may be lost then, never given twice. $5, $6: modulus and residue of the id's
     * class, which has one of every `modulus` ids.
     */
    createTopic: `
      WITH given AS (
        UPDATE ${s}.counters SET last = last + $5::int8
        WHERE name = 'topic' AND NOT EXISTS (SELECT 1 FROM ${s}.topics WHERE topics.name = $1) RETURNING last
      )
      INSERT INTO ${s}.topics (topic_id, name, partition_count, configs, created_at_ms, version)
      SELECT last - (last - $6::int8) % $5::int8, $1, $2::int4, $3::text, $4::int8, 1 FROM given
      ON CONFLICT (name) DO NOTHING RETURNING ${topicColumns()}`,
    getTopic: `SELECT ${topicColumns()} FROM ${s}.topics WHERE name = $1`,
    getTopicsById: `SELECT ${topicColumns()} FROM ${s}.topics WHERE topic_id = ANY($1::int8[])`,
    listTopics: `SELECT ${topicColumns()} FROM ${s}.topics WHERE name > $1 ORDER BY name LIMIT $2`,
    listAllTopics: `SELECT ${topicColumns()} FROM ${s}.topics ORDER BY name LIMIT $1`,
    /** The topic as it was, and whether it grew. */
    growTopic: `
      WITH found AS MATERIALIZED (
        SELECT * FROM ${s}.topics WHERE name = $1 FOR UPDATE
      ), grown AS (
        UPDATE ${s}.topics AS topic SET partition_count = $2, version = found.version + 1
        FROM found WHERE topic.topic_id = found.topic_id AND found.partition_count < $2 RETURNING topic.topic_id
      )
      SELECT ${topicColumns('found.')}, grown.topic_id IS NOT NULL AS changed FROM found LEFT JOIN grown USING (topic_id)`,
    /** A comparison with the version that was read: no row when it is another by now. */
    changeConfigs: `
      UPDATE ${s}.topics SET configs = $3, version = version + 1
      WHERE topic_id = $1 AND version = $2 RETURNING ${topicColumns()}`,
    deleteTopic: `
      WITH gone AS (
        DELETE FROM ${s}.topics WHERE name = $1 AND ($2::bigint IS NULL OR topic_id = $2) RETURNING *
      )
      INSERT INTO ${s}.deleted_topics (topic_id, name, partition_count, configs, created_at_ms, version)
      SELECT topic_id, name, partition_count, configs, created_at_ms, version + 1 FROM gone RETURNING ${topicColumns()}`,
    listDeletedTopics: `
      SELECT ${topicColumns()} FROM ${s}.deleted_topics WHERE topic_id > $1 ORDER BY topic_id LIMIT $2`,
    forgetDeletedTopic: `DELETE FROM ${s}.deleted_topics WHERE topic_id = $1`,
  };
}

function headTexts(s: string) {
  return {
    readHead: `SELECT ${headColumns()} FROM ${s}.heads WHERE shard = $1`,
    listHeads: `SELECT ${headColumns()} FROM ${s}.heads ORDER BY shard`,
  };
}

function agentTexts(s: string) {
  return {
    /**
     * Its own row as raised and all others as they were when the statement began; no row when there is none to raise.
     * Under SERIALIZABLE two at once may collide, since each reads the row that the other writes.
     */
    heartbeat: `
      WITH raised AS (
        UPDATE ${s}.agents SET heartbeat_count = heartbeat_count + 1 WHERE agent_id = $1 AND incarnation = $2
        RETURNING *
      )
      SELECT ${AGENT_COLUMNS} FROM raised
      UNION ALL
      SELECT ${AGENT_COLUMNS} FROM ${s}.agents WHERE agent_id <> $1 AND EXISTS (SELECT 1 FROM raised)
      ORDER BY "agentId"`,
    getAgent: `SELECT ${AGENT_COLUMNS} FROM ${s}.agents WHERE agent_id = $1`,
    /** A null filter lets all pass. */
    listAgents: `
      SELECT ${AGENT_COLUMNS} FROM ${s}.agents
      WHERE ($1::text IS NULL OR agent_group = $1) AND ($2::text IS NULL OR zone = $2) ORDER BY agent_id`,
    deregisterAgent: `DELETE FROM ${s}.agents WHERE agent_id = $1 AND incarnation = $2`,
  };
}

/** Of `metadata copy`: rows as another store holds them. */
function movingTexts(s: string) {
  const importTopics = (table: string) => `
      INSERT INTO ${s}.${table} (topic_id, name, partition_count, configs, created_at_ms, version)
      SELECT * FROM unnest($1::int8[], $2::text[], $3::int4[], $4::text[], $5::int8[], $6::int8[])
      ON CONFLICT (topic_id) DO UPDATE SET name = excluded.name, partition_count = excluded.partition_count,
        configs = excluded.configs, created_at_ms = excluded.created_at_ms, version = excluded.version`;
  return {
    /** What has a name that is about to be another topic's: it was deleted there since an earlier copy. */
    clearTopicNames: `
      DELETE FROM ${s}.topics AS topic USING unnest($1::int8[], $2::text[]) AS taken (topic_id, name)
      WHERE topic.name = taken.name AND topic.topic_id <> taken.topic_id`,
    importTopics: importTopics('topics'),
    importDeletedTopics: importTopics('deleted_topics'),
    raiseLastIds: `
      UPDATE ${s}.counters AS counter SET last = greatest(counter.last, raised.last)
      FROM unnest($1::text[], $2::int8[]) AS raised (name, last) WHERE counter.name = raised.name`,
    /** No row unless all heads are there and the cluster that is there, if any, is of the same store and not newer. */
    importCluster: `
      INSERT INTO ${s}.cluster AS cluster (cluster_id, store_incarnation, shard_count, created_at_ms, generation,
        copied_from, moved_to, shard_groups)
      SELECT $1::text, $2::text, $3::int4, $4::int8, $5::int8, $6::text, $7::text, $8::text
      WHERE (SELECT count(*) FROM ${s}.heads WHERE shard < $3::int4) = $3::int4
      ON CONFLICT (only_row) DO UPDATE SET cluster_id = excluded.cluster_id, shard_count = excluded.shard_count,
        created_at_ms = excluded.created_at_ms, generation = excluded.generation, copied_from = excluded.copied_from,
        moved_to = excluded.moved_to, shard_groups = excluded.shard_groups
      WHERE cluster.store_incarnation = excluded.store_incarnation AND (cluster.generation < excluded.generation
        OR cluster.generation = excluded.generation AND cluster.moved_to IS NOT DISTINCT FROM excluded.moved_to)
      RETURNING store_incarnation`,
  };
}
