/**
 * The statements of the PostgreSQL backend that are its own, beside those that it shares (pg-wire/pg-statements):
 * named by intent, parameters bound, tables qualified by the store's schema (a search path would be lost behind a pool
 * of connections). Owns: the SQL. Does not own: what rows mean
 * (postgres-rows), when they run (postgres-metadata-store). Pure.
 *
 * Two rules carry what happens under READ COMMITTED:
 * - What a condition is about is read FOR UPDATE in a CTE of its own, in key order, so that calls that overlap never
 *   deadlock. That read waits and then gives the newest version of the row, not the snapshot's; the change that
 *   follows compares with it and nothing else, for it meets the same locked version. Its rows are also what a
 *   refused caller is told.
 * - A condition on the snapshot alone is used only where it can never become false again (a pointer that moves
 *   forward).
 */
import type { PgStatement } from '../pg-wire/pg-session.ts';
import { AGENT_COLUMNS, CLUSTER_COLUMNS, headColumns, sharedTexts } from '../pg-wire/pg-statements.ts';
import { quoteIdentifier } from '../pg-wire/pg-values.ts';

const pageColumns = (of = '') => `${of}topic_id AS "topicId", ${of}partition, ${of}shard,
  ${of}base_offset AS "baseOffset", ${of}stamp, ${of}bytes`;
const objectColumns = (
  of = '',
) => `${of}incarnation, ${of}number, ${of}bytes, ${of}created_at_ms AS "createdAtMs",
  ${of}shards, ${of}epochs, ${of}marked_at_ms AS "markedAtMs"`;
type StatementName = keyof ReturnType<typeof statementTexts>;

export type PostgresStatements = Readonly<Record<StatementName, PgStatement>>;

/** The statements of a store in that schema. */
export function postgresStatements(schema: string): PostgresStatements {
  const texts = Object.entries(statementTexts(quoteIdentifier(schema)));
  return Object.fromEntries(texts.map(([name, text]) => [name, { name, text }])) as PostgresStatements;
}

function statementTexts(s: string) {
  return {
    ...sharedTexts(s),
    ...clusterTexts(s),
    ...logTexts(s),
    ...pageTexts(s),
    ...objectTexts(s),
    ...agentTexts(s),
    ...movingTexts(s),
  };
}

function clusterTexts(s: string) {
  return {
    /** No row when there is a cluster already, or heads without one. */
    createCluster: `
      WITH created AS (
        INSERT INTO ${s}.cluster (cluster_id, store_incarnation, shard_count, created_at_ms, shard_groups, generation)
        SELECT $1::text, $2::text, $3::int4, $4::int8, $5::text, 1 WHERE NOT EXISTS (SELECT 1 FROM ${s}.heads)
        ON CONFLICT (only_row) DO NOTHING RETURNING *
      ), heads AS (
        INSERT INTO ${s}.heads (shard, head_seq, head_commit_id, epoch, holder, trimmed_through)
        SELECT shard, 0, '', 0, 0, 0 FROM created, generate_series(0, created.shard_count - 1) AS shard
      )
      SELECT ${CLUSTER_COLUMNS} FROM created`,
  };
}

function logTexts(s: string) {
  return {
    /**
     * The fence. All heads are locked, in shard order, before any moves: the count reads `found` to its end. A shard
     * that is none leaves the count short, and then nothing happens. $1 to $6 are the entries' columns with the
     * place of each body in $7; $8 to $13 the objects' with the place of each one's references in $14, $15.
     */
    appendEntries: `
      WITH asked AS MATERIALIZED (
        SELECT * FROM unnest($1::int4[], $2::int8[], $3::int8[], $4::text[], $5::int4[], $6::int4[])
          AS asked (shard, seq, epoch, commit_id, position, length)
      ), found AS MATERIALIZED (
        SELECT * FROM ${s}.heads WHERE shard = ANY($1::int4[]) ORDER BY shard FOR NO KEY UPDATE
      ), moved AS (
        UPDATE ${s}.heads AS head SET head_seq = asked.seq, head_commit_id = asked.commit_id
        FROM found JOIN asked USING (shard)
        WHERE head.shard = found.shard AND found.head_seq = asked.seq - 1 AND found.epoch = asked.epoch
          AND (SELECT count(*) FROM found) = cardinality($1::int4[])
        RETURNING head.shard
      ), inserted AS (
        INSERT INTO ${s}.entries (shard, seq, epoch, commit_id, body)
        SELECT shard, seq, epoch, commit_id, substring($7::bytea FROM position FOR length)
        FROM moved JOIN asked USING (shard)
      ), stored AS (
        INSERT INTO ${s}.objects (incarnation, number, bytes, created_at_ms, shards, epochs, unreferenced)
        SELECT incarnation, number, bytes, created_at_ms, ($14::int4[])[first : past - 1],
          ($15::int8[])[first : past - 1], first = past
        FROM unnest($8::int8[], $9::int8[], $10::int8[], $11::int8[], $12::int4[], $13::int4[])
          AS row (incarnation, number, bytes, created_at_ms, first, past)
        WHERE (SELECT count(*) FROM found) = cardinality($1::int4[])
        ON CONFLICT (incarnation, number) DO NOTHING
      )
      SELECT ${headColumns('found.')}, moved.shard IS NOT NULL AS changed FROM found LEFT JOIN moved USING (shard)`,
    countHeads: `SELECT count(*)::int4 AS count FROM ${s}.heads WHERE shard = ANY($1::int4[])`,
    /**
     * At most $3 entries of at most $4 bytes in all, or one if $5. No row when the shard is none; one without a seq
     * when there is no entry. Starting at the trim spares reading what was deleted and not yet cleared away.
     */
    readEntries: `
      SELECT head.shard, entry.seq, entry.epoch, entry.commit_id AS "commitId", entry.body
      FROM ${s}.heads AS head LEFT JOIN LATERAL (
        SELECT *, sum(octet_length(body)) OVER (ORDER BY seq) AS total, row_number() OVER (ORDER BY seq) AS place
        FROM (
          SELECT * FROM ${s}.entries WHERE entries.shard = $1 AND seq > greatest($2, head.trimmed_through)
          ORDER BY seq LIMIT $3
        ) AS part
      ) AS entry ON entry.total <= $4 OR ($5 AND entry.place = 1)
      WHERE head.shard = $1 ORDER BY entry.seq`,
    /**
     * The head as it was. The pointer never moves back, so that the snapshot's may allow; the entries go first and
     * the head is held only from then to the commit.
     */
    trim: `
      WITH found AS MATERIALIZED (
        SELECT * FROM ${s}.heads WHERE shard = $1
      ), deleted AS (
        DELETE FROM ${s}.entries WHERE shard = $1 AND seq <= $2 AND $2 <= (SELECT checkpoint_seq FROM found)
        RETURNING seq
      ), trimmed AS (
        UPDATE ${s}.heads AS head SET trimmed_through = $2 FROM (SELECT count(*) FROM deleted) AS done
        WHERE head.shard = $1 AND head.trimmed_through < $2 AND $2 <= (SELECT checkpoint_seq FROM found)
      )
      SELECT ${headColumns()} FROM found`,
    putCheckpoint: `
      WITH found AS (
        SELECT shard FROM ${s}.heads WHERE shard = $1
      ), stored AS (
        INSERT INTO ${s}.checkpoints (shard, seq, writer, bytes) SELECT shard, $2::int8, $3::int8, $4::bytea FROM found
        ON CONFLICT (shard, seq, writer) DO NOTHING
      )
      SELECT shard FROM found`,
    getCheckpoint: `
      SELECT head.shard, checkpoint.bytes FROM ${s}.heads AS head LEFT JOIN ${s}.checkpoints AS checkpoint
        ON checkpoint.shard = head.shard AND checkpoint.seq = $2 AND checkpoint.writer = $3
      WHERE head.shard = $1`,
    movePointer: `
      WITH found AS MATERIALIZED (
        SELECT * FROM ${s}.heads WHERE shard = $1 FOR NO KEY UPDATE
      ), moved AS (
        UPDATE ${s}.heads AS head SET checkpoint_seq = $3, checkpoint_writer = $4 FROM found
        WHERE head.shard = found.shard AND found.epoch = $2 AND $3 > coalesce(found.checkpoint_seq, 0)
          AND $3 <= found.head_seq
        RETURNING head.shard
      )
      SELECT ${headColumns('found.')}, moved.shard IS NOT NULL AS changed FROM found LEFT JOIN moved USING (shard)`,
    deleteOldCheckpoints: `
      WITH found AS (
        SELECT shard, checkpoint_seq FROM ${s}.heads WHERE shard = $1
      ), deleted AS (
        DELETE FROM ${s}.checkpoints WHERE shard = $1 AND seq < (SELECT checkpoint_seq FROM found)
      )
      SELECT shard FROM found`,
    /** Heads as they were; all or none are looked at, as in appendEntries. */
    acquireLeases: `
      WITH asked AS MATERIALIZED (
        SELECT * FROM unnest($1::int4[], $2::int8[], $3::int8[]) AS asked (shard, holder, epoch)
      ), found AS MATERIALIZED (
        SELECT * FROM ${s}.heads WHERE shard = ANY($1::int4[]) ORDER BY shard FOR NO KEY UPDATE
      ), moved AS (
        UPDATE ${s}.heads AS head SET epoch = found.epoch + 1, holder = $4
        FROM found JOIN asked USING (shard)
        WHERE head.shard = found.shard AND found.holder = asked.holder AND found.epoch = asked.epoch
          AND (SELECT count(*) FROM found) = cardinality($1::int4[])
        RETURNING head.shard
      )
      SELECT ${headColumns('found.')}, moved.shard IS NOT NULL AS changed FROM found LEFT JOIN moved USING (shard)`,
    releaseLeases: `
      WITH asked AS MATERIALIZED (
        SELECT * FROM unnest($1::int4[], $2::int8[]) AS asked (shard, epoch)
      ), found AS MATERIALIZED (
        SELECT * FROM ${s}.heads WHERE shard = ANY($1::int4[]) ORDER BY shard FOR NO KEY UPDATE
      ), moved AS (
        UPDATE ${s}.heads AS head SET holder = 0
        FROM found JOIN asked USING (shard)
        WHERE head.shard = found.shard AND found.holder = $3 AND found.epoch = asked.epoch
          AND (SELECT count(*) FROM found) = cardinality($1::int4[])
        RETURNING head.shard
      )
      SELECT ${headColumns('found.')}, moved.shard IS NOT NULL AS changed FROM found LEFT JOIN moved USING (shard)`,
  };
}

function pageTexts(s: string) {
  return {
    /** Keys differ and are in order: rivals that put the same pages wait for one another, and never in a circle. */
    putPages: `
      INSERT INTO ${s}.pages AS page (topic_id, partition, base_offset, shard, stamp, bytes)
      SELECT topic_id, partition, base_offset, shard, stamp, substring($8::bytea FROM position FOR length)
      FROM unnest($1::int8[], $2::int4[], $3::int8[], $4::int4[], $5::int8[], $6::int4[], $7::int4[])
        AS row (topic_id, partition, base_offset, shard, stamp, position, length)
      ON CONFLICT (topic_id, partition, base_offset) DO UPDATE
      SET shard = excluded.shard, stamp = excluded.stamp, bytes = excluded.bytes WHERE excluded.stamp > page.stamp`,
    /** By the place of the request, from 1; none for a request without a page. */
    findPages: `
      SELECT asked.place, ${pageColumns('page.')}
      FROM unnest($1::int8[], $2::int4[], $3::int8[]) WITH ORDINALITY AS asked (topic_id, partition, start, place)
      CROSS JOIN LATERAL (
        SELECT * FROM ${s}.pages
        WHERE pages.topic_id = asked.topic_id AND pages.partition = asked.partition AND base_offset <= asked.start
        ORDER BY base_offset DESC LIMIT 1
      ) AS page`,
    listPages: `
      SELECT ${pageColumns()} FROM ${s}.pages WHERE topic_id = $1 AND partition = $2 AND base_offset >= $3
      ORDER BY base_offset LIMIT $4`,
    deletePages: `DELETE FROM ${s}.pages WHERE topic_id = $1 AND partition = $2 AND base_offset < $3`,
    scanPages: `
      SELECT ${pageColumns()} FROM ${s}.pages WHERE (topic_id, partition, base_offset) > ($1, $2, $3)
      ORDER BY topic_id, partition, base_offset LIMIT $4`,
  };
}

function objectTexts(s: string) {
  const asked = `unnest($1::int8[], $2::int8[]) AS asked (incarnation, number)`;
  /** The rows that are asked for, locked in the order of their keys. */
  const locked = (columns: string) => `
        SELECT ${columns} FROM ${s}.objects AS object
        WHERE (object.incarnation, object.number) IN (SELECT incarnation, number FROM ${asked})
        ORDER BY object.incarnation, object.number FOR UPDATE`;
  return {
    getObjects: `
      SELECT ${objectColumns('object.')} FROM ${s}.objects AS object JOIN ${asked} USING (incarnation, number)`,
    listObjects: `
      SELECT ${objectColumns()} FROM ${s}.objects WHERE (incarnation, number) > ($1, $2)
      ORDER BY incarnation, number LIMIT $3`,
    listUnreferencedObjects: `
      SELECT ${objectColumns()} FROM ${s}.objects WHERE unreferenced AND (incarnation, number) > ($1, $2)
      ORDER BY incarnation, number LIMIT $3`,
    /** $3 the shard and $4 the bound of each drop; several of one reference count together. */
    dropReferences: `
      WITH dropped AS MATERIALIZED (
        SELECT incarnation, number, shard, bool_or(below_epoch IS NULL) AS always, max(below_epoch) AS below_epoch
        FROM unnest($1::int8[], $2::int8[], $3::int4[], $4::int8[])
          AS asked (incarnation, number, shard, below_epoch)
        GROUP BY incarnation, number, shard
      ), found AS MATERIALIZED (${locked('object.incarnation, object.number, object.shards, object.epochs')}
      ), reference AS MATERIALIZED (
        SELECT found.incarnation, found.number, held.shard, held.epoch, held.place,
          coalesce(dropped.always OR held.epoch < dropped.below_epoch, false) AS goes
        FROM found CROSS JOIN LATERAL unnest(found.shards, found.epochs) WITH ORDINALITY AS held (shard, epoch, place)
        LEFT JOIN dropped ON dropped.incarnation = found.incarnation AND dropped.number = found.number
          AND dropped.shard = held.shard
      ), kept AS (
        SELECT incarnation, number,
          coalesce(array_agg(shard ORDER BY place) FILTER (WHERE NOT goes), '{}') AS shards,
          coalesce(array_agg(epoch ORDER BY place) FILTER (WHERE NOT goes), '{}') AS epochs
        FROM reference GROUP BY incarnation, number HAVING bool_or(goes)
      )
      UPDATE ${s}.objects AS object
      SET shards = kept.shards, epochs = kept.epochs, unreferenced = cardinality(kept.shards) = 0
      FROM kept WHERE object.incarnation = kept.incarnation AND object.number = kept.number`,
    markObjects: `
      WITH found AS MATERIALIZED (${locked('object.incarnation, object.number, object.unreferenced, object.marked_at_ms')}
      )
      UPDATE ${s}.objects AS object SET marked_at_ms = $3 FROM found
      WHERE object.incarnation = found.incarnation AND object.number = found.number
        AND found.unreferenced AND found.marked_at_ms IS NULL`,
    forgetObjects: `
      WITH found AS MATERIALIZED (${locked('object.incarnation, object.number, object.unreferenced, object.marked_at_ms')}
      )
      DELETE FROM ${s}.objects AS object USING found
      WHERE object.incarnation = found.incarnation AND object.number = found.number
        AND found.unreferenced AND found.marked_at_ms IS NOT NULL`,
  };
}

function agentTexts(s: string) {
  return {
    /** Registrations follow one another by the counter's row, so that the highest incarnation stays. */
    registerAgent: `
      WITH given AS (
        UPDATE ${s}.counters SET last = last + 1 WHERE name = 'incarnation' RETURNING last
      )
      INSERT INTO ${s}.agents (agent_id, incarnation, address, zone, agent_group, version, heartbeat_count,
        registered_at_ms)
      SELECT $1::text, last, $2::text, $3::text, $4::text, $5::text, 0, $6::int8 FROM given
      ON CONFLICT (agent_id) DO UPDATE SET incarnation = excluded.incarnation, address = excluded.address,
        zone = excluded.zone, agent_group = excluded.agent_group, version = excluded.version,
        heartbeat_count = excluded.heartbeat_count, registered_at_ms = excluded.registered_at_ms
      RETURNING ${AGENT_COLUMNS}`,
  };
}

/** Of `metadata copy`: rows as another store holds them. */
function movingTexts(s: string) {
  return {
    /** Against the cluster's row, not against others that import. */
    lockCluster: `LOCK TABLE ${s}.cluster IN SHARE MODE`,
    importHeads: `
      INSERT INTO ${s}.heads (shard, head_seq, head_commit_id, epoch, holder, checkpoint_seq, checkpoint_writer,
        trimmed_through)
      SELECT * FROM unnest($1::int4[], $2::int8[], $3::text[], $4::int8[], $5::int8[], $6::int8[], $7::int8[],
        $8::int8[])
      ON CONFLICT (shard) DO UPDATE SET head_seq = excluded.head_seq, head_commit_id = excluded.head_commit_id,
        epoch = excluded.epoch, holder = excluded.holder, checkpoint_seq = excluded.checkpoint_seq,
        checkpoint_writer = excluded.checkpoint_writer, trimmed_through = excluded.trimmed_through`,
    importEntries: `
      INSERT INTO ${s}.entries (shard, seq, epoch, commit_id, body)
      SELECT shard, seq, epoch, commit_id, substring($7::bytea FROM position FOR length)
      FROM unnest($1::int4[], $2::int8[], $3::int8[], $4::text[], $5::int4[], $6::int4[])
        AS row (shard, seq, epoch, commit_id, position, length)
      ON CONFLICT (shard, seq) DO UPDATE
      SET epoch = excluded.epoch, commit_id = excluded.commit_id, body = excluded.body`,
    /** The places of each row's references as in appendEntries. */
    importObjects: `
      INSERT INTO ${s}.objects (incarnation, number, bytes, created_at_ms, shards, epochs, unreferenced, marked_at_ms)
      SELECT incarnation, number, bytes, created_at_ms, ($7::int4[])[first : past - 1], ($8::int8[])[first : past - 1],
        first = past, marked_at_ms
      FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int4[], $6::int4[], $9::int8[])
        AS row (incarnation, number, bytes, created_at_ms, first, past, marked_at_ms)
      ON CONFLICT (incarnation, number) DO UPDATE SET bytes = excluded.bytes, created_at_ms = excluded.created_at_ms,
        shards = excluded.shards, epochs = excluded.epochs, unreferenced = excluded.unreferenced,
        marked_at_ms = excluded.marked_at_ms`,
  };
}
