/**
 * The statements of the CockroachDB backend that are its own, named by intent, parameters bound, beside those that it
 * shares with PostgreSQL (pg-wire/pg-statements). Owns: the SQL. Does not own: what rows mean, when they run
 * (cockroach-metadata-store). Pure.
 *
 * Everything runs SERIALIZABLE, so a condition may stand on the statement's snapshot: what would make it wrong makes
 * the statement fail with 40001 instead, and it is run again. Heads are read FOR UPDATE where they are changed, only
 * to make that rare. What CockroachDB asks of a statement and PostgreSQL does not:
 * - no table is changed twice in one statement (it could not see its own change);
 * - a key that begins with the region is either given the region or asked for in any (`inAnyRegion`);
 * - rows that were deleted are walked over until they are collected, so a scan of a log begins at its trim.
 */
import type { PgStatement } from '../pg-wire/pg-session.ts';
import { AGENT_COLUMNS, headColumns, sharedTexts } from '../pg-wire/pg-statements.ts';
import { quoteIdentifier } from '../pg-wire/pg-values.ts';
import {
  type CockroachCapabilities,
  type CockroachSchema,
  inAnyRegion,
  regionType,
} from './cockroach-capabilities.ts';

type StatementName = keyof ReturnType<typeof statementTexts>;

export type CockroachStatements = Readonly<Record<StatementName, PgStatement>>;

export function cockroachStatements(
  schema: CockroachSchema,
  capabilities: CockroachCapabilities,
): CockroachStatements {
  const words: Words = {
    s: quoteIdentifier(schema.name),
    region: regionType(schema),
    anyRegion: (of = '') => inAnyRegion(schema, of),
    asOfThePast: capabilities.asOfThePast,
  };
  const texts = Object.entries(statementTexts(words));
  return Object.fromEntries(texts.map(([name, text]) => [name, { name, text }])) as CockroachStatements;
}

/** What statements are made with: the schema, the type of regions, the condition for any region. */
interface Words {
  s: string;
  region: string;
  anyRegion: (of?: string) => string;
  asOfThePast: string;
}

function statementTexts(words: Words) {
  return {
    ...sharedTexts(words.s),
    ...headTexts(words),
    ...logTexts(words),
    ...checkpointTexts(words),
    ...pageTexts(words),
    ...objectTexts(words),
    ...ownAgentTexts(words),
    ...ownMovingTexts(words),
  };
}

function headTexts({ s, region, asOfThePast }: Words) {
  /** Heads as they were and whether they changed; all or none, for a shard that is none leaves the count short. */
  const allFound = `(SELECT count(*) FROM found) = coalesce(array_length($1::INT8[], 1), 0)`;
  const answer = `SELECT ${headColumns('found.')}, moved.shard IS NOT NULL AS changed
      FROM found LEFT JOIN moved ON moved.shard = found.shard`;
  return {
    /** No row when there is a cluster already, or heads without one. */
    createCluster: `
      WITH created AS (
        INSERT INTO ${s}.cluster (cluster_id, store_incarnation, shard_count, created_at_ms, shard_groups, generation)
        SELECT $1::TEXT, $2::TEXT, $3::INT8, $4::INT8, $5::TEXT, 1 WHERE NOT EXISTS (SELECT 1 FROM ${s}.heads)
        ON CONFLICT (only_row) DO NOTHING RETURNING shard_count
      )
      INSERT INTO ${s}.heads (shard, region, head_seq, head_commit_id, epoch, holder, trimmed_through)
      SELECT every.shard, $6::${region}, 0, '', 0, 0, 0
      FROM created CROSS JOIN generate_series(0, $3::INT8 - 1) AS every (shard)
      RETURNING shard`,
    homesOf: `SELECT shard, region::TEXT AS region FROM ${s}.heads WHERE shard = ANY($1::INT8[])`,
    /** Some seconds old where the database can read the past: from the nearest replica, waiting for nobody. */
    listHomes: `SELECT shard, region::TEXT AS region FROM ${s}.heads${asOfThePast}`,
    /** Homes follow holders. */
    acquireLeases: `
      WITH asked AS (
        SELECT * FROM unnest($1::INT8[], $2::INT8[], $3::INT8[]) AS asked (shard, holder, epoch)
      ), found AS (
        SELECT * FROM ${s}.heads WHERE shard = ANY($1::INT8[]) FOR UPDATE
      ), moved AS (
        UPDATE ${s}.heads AS head SET epoch = asked.epoch + 1, holder = $4, region = $5::${region}
        FROM asked
        WHERE head.shard = asked.shard AND head.holder = asked.holder AND head.epoch = asked.epoch AND ${allFound}
        RETURNING head.shard
      )
      ${answer}`,
    releaseLeases: `
      WITH asked AS (
        SELECT * FROM unnest($1::INT8[], $2::INT8[]) AS asked (shard, epoch)
      ), found AS (
        SELECT * FROM ${s}.heads WHERE shard = ANY($1::INT8[]) FOR UPDATE
      ), moved AS (
        UPDATE ${s}.heads AS head SET holder = 0
        FROM asked
        WHERE head.shard = asked.shard AND head.holder = $3 AND head.epoch = asked.epoch AND ${allFound}
        RETURNING head.shard
      )
      ${answer}`,
    movePointer: `
      WITH found AS (
        SELECT * FROM ${s}.heads WHERE shard = $1 FOR UPDATE
      ), moved AS (
        UPDATE ${s}.heads AS head SET checkpoint_seq = $3, checkpoint_writer = $4
        WHERE head.shard = $1 AND head.epoch = $2 AND $3 > coalesce(head.checkpoint_seq, 0) AND $3 <= head.head_seq
        RETURNING head.shard
      )
      ${answer}`,
    /**
     * The fence, for heads whose home is region $8. $1 to $7 are the entries' columns (place and length of each body's
     * beginning in $9, and how long it is in all), $10 to $16 the objects', their references packed in $17. Looks at
     * heads of one region only, and inserts under keys that hold the region: nothing waits for another region but
     * what the survival goal asks for.
     */
    appendEntries: `
      WITH asked AS (
        SELECT * FROM unnest($1::INT8[], $2::INT8[], $3::INT8[], $4::TEXT[], $5::INT8[], $6::INT8[], $7::INT8[])
          AS asked (shard, seq, epoch, commit_id, position, length, body_bytes)
      ), found AS (
        SELECT * FROM ${s}.heads WHERE region = $8::${region} AND shard = ANY($1::INT8[]) FOR UPDATE
      ), moved AS (
        UPDATE ${s}.heads AS head SET head_seq = asked.seq, head_commit_id = asked.commit_id
        FROM asked
        WHERE head.region = $8::${region} AND head.shard = asked.shard AND head.head_seq = asked.seq - 1
          AND head.epoch = asked.epoch AND ${allFound}
        RETURNING head.shard
      ), inserted AS (
        INSERT INTO ${s}.entries (region, shard, seq, epoch, commit_id, body, body_bytes)
        SELECT $8::${region}, asked.shard, asked.seq, asked.epoch, asked.commit_id,
          substring($9::BYTEA, asked.position::INT4, asked.length::INT4), asked.body_bytes
        FROM asked JOIN moved ON moved.shard = asked.shard RETURNING shard
      ), stored AS (
        INSERT INTO ${s}.objects (region, incarnation, number, bytes, created_at_ms, reference_count, shard_references)
        SELECT $8::${region}, incarnation, number, bytes, created_at_ms, reference_count,
          substring($17::BYTEA, position::INT4, length::INT4)
        FROM unnest($10::INT8[], $11::INT8[], $12::INT8[], $13::INT8[], $14::INT8[], $15::INT8[], $16::INT8[])
          AS row_of (incarnation, number, bytes, created_at_ms, reference_count, position, length)
        WHERE ${allFound}
        ON CONFLICT (region, incarnation, number) DO NOTHING RETURNING number
      )
      ${answer}`,
  };
}

function logTexts({ s, region, anyRegion }: Words) {
  return {
    /** At most $3 entries of at most $4 bytes in all, or one if $5. */
    readEntries: `
      SELECT shard, seq, epoch, "commitId", body, "bodyBytes"
      FROM (
        SELECT shard, seq, epoch, commit_id AS "commitId", body, body_bytes AS "bodyBytes",
          sum(body_bytes) OVER (ORDER BY seq) AS total, row_number() OVER (ORDER BY seq) AS place
        FROM (
          SELECT shard, seq, epoch, commit_id, body, body_bytes FROM ${s}.entries
          WHERE ${anyRegion()} AND shard = $1 AND seq > $2 ORDER BY seq LIMIT $3
        ) AS few
      ) AS counted
      WHERE total <= $4 OR ($5 AND place = 1) ORDER BY seq`,
    /** From the trim at $2 to $3, as long as the head's is at $2 and its pointer not below $3. */
    trim: `
      WITH trimmed AS (
        UPDATE ${s}.heads SET trimmed_through = $3 WHERE shard = $1 AND trimmed_through = $2 AND checkpoint_seq >= $3
        RETURNING shard
      ), chunks AS (
        DELETE FROM ${s}.body_chunks
        WHERE ${anyRegion()} AND kind = 'e' AND key_1 = $1 AND key_2 > $2 AND key_2 <= $3
          AND EXISTS (SELECT 1 FROM trimmed)
        RETURNING chunk
      ), deleted AS (
        DELETE FROM ${s}.entries
        WHERE ${anyRegion()} AND shard = $1 AND seq > $2 AND seq <= $3 AND EXISTS (SELECT 1 FROM trimmed) RETURNING seq
      )
      SELECT shard FROM trimmed`,
    /** $2 to $5 the key of the body's row; each chunk's number, and its place in $9. */
    putChunks: `
      INSERT INTO ${s}.body_chunks (region, kind, key_1, key_2, key_3, chunk, bytes)
      SELECT $1::${region}, $2::TEXT, $3::INT8, $4::INT8, $5::INT8, chunk, substring($9::BYTEA, position::INT4, length::INT4)
      FROM unnest($6::INT8[], $7::INT8[], $8::INT8[]) AS row_of (chunk, position, length)
      ON CONFLICT (region, kind, key_1, key_2, key_3, chunk) DO UPDATE SET bytes = excluded.bytes`,
    readChunks: `
      SELECT bytes FROM ${s}.body_chunks
      WHERE ${anyRegion()} AND kind = $1 AND key_1 = $2 AND key_2 = $3 AND key_3 = $4 ORDER BY chunk`,
    /** Of a page, the one kind that is replaced: none unless it bears stamp $5 still. */
    readPageChunks: `
      SELECT bytes FROM ${s}.body_chunks
      WHERE ${anyRegion()} AND kind = $1 AND key_1 = $2 AND key_2 = $3 AND key_3 = $4
        AND EXISTS (SELECT 1 FROM ${s}.pages WHERE topic_id = $2 AND partition = $3 AND base_offset = $4 AND stamp = $5)
      ORDER BY chunk`,
  };
}

function checkpointTexts({ s, region, anyRegion }: Words) {
  return {
    /** `stored` is false when it was there already; no row when the shard is none. */
    putCheckpoint: `
      WITH found AS (
        SELECT shard FROM ${s}.heads WHERE shard = $1
      ), stored AS (
        INSERT INTO ${s}.checkpoints (shard, seq, writer, region, bytes, body_bytes)
        SELECT shard, $2::INT8, $3::INT8, $4::${region}, $5::BYTEA, $6::INT8 FROM found
        ON CONFLICT (shard, seq, writer) DO NOTHING RETURNING shard
      )
      SELECT found.shard, stored.shard IS NOT NULL AS stored FROM found LEFT JOIN stored ON stored.shard = found.shard`,
    getCheckpoint: `
      SELECT bytes, body_bytes AS "bodyBytes" FROM ${s}.checkpoints WHERE shard = $1 AND seq = $2 AND writer = $3`,
    deleteOldCheckpoints: `
      WITH found AS (
        SELECT shard, checkpoint_seq FROM ${s}.heads WHERE shard = $1
      ), chunks AS (
        DELETE FROM ${s}.body_chunks
        WHERE ${anyRegion()} AND kind = 'c' AND key_1 = $1 AND key_2 < (SELECT checkpoint_seq FROM found)
        RETURNING chunk
      ), deleted AS (
        DELETE FROM ${s}.checkpoints WHERE shard = $1 AND seq < (SELECT checkpoint_seq FROM found) RETURNING seq
      )
      SELECT shard FROM found`,
  };
}

function pageTexts({ s, region, anyRegion }: Words) {
  const pageColumns = (of = '') => `${of}topic_id AS "topicId", ${of}partition, ${of}shard,
  ${of}base_offset AS "baseOffset", ${of}stamp, ${of}bytes, ${of}body_bytes AS "bodyBytes"`;
  return {
    /** Keys differ. What a page that is replaced had in chunks goes with it. The rows that were stored. */
    putPages: `
      WITH stored AS (
        INSERT INTO ${s}.pages AS page (topic_id, partition, base_offset, region, shard, stamp, bytes, body_bytes)
        SELECT topic_id, partition, base_offset, $9::${region}, shard, stamp,
          substring($10::BYTEA, position::INT4, length::INT4), body_bytes
        FROM unnest($1::INT8[], $2::INT8[], $3::INT8[], $4::INT8[], $5::INT8[], $6::INT8[], $7::INT8[], $8::INT8[])
          AS row_of (topic_id, partition, base_offset, shard, stamp, position, length, body_bytes)
        ON CONFLICT (topic_id, partition, base_offset) DO UPDATE
        SET region = excluded.region, shard = excluded.shard, stamp = excluded.stamp, bytes = excluded.bytes,
          body_bytes = excluded.body_bytes
        WHERE excluded.stamp > page.stamp
        RETURNING topic_id, partition, base_offset
      ), chunks AS (
        DELETE FROM ${s}.body_chunks
        WHERE ${anyRegion()} AND kind = 'p'
          AND (key_1, key_2, key_3) IN (SELECT topic_id, partition, base_offset FROM stored)
        RETURNING chunk
      )
      SELECT topic_id AS "topicId", partition, base_offset AS "baseOffset" FROM stored`,
    /** By the place of the request, from 1; none for a request without a page. */
    findPages: `
      SELECT asked.place, ${pageColumns('page.')}
      FROM unnest($1::INT8[], $2::INT8[], $3::INT8[]) WITH ORDINALITY AS asked (topic_id, partition, start, place)
      CROSS JOIN LATERAL (
        SELECT * FROM ${s}.pages
        WHERE pages.topic_id = asked.topic_id AND pages.partition = asked.partition AND base_offset <= asked.start
        ORDER BY base_offset DESC LIMIT 1
      ) AS page`,
    /** The common case of the above, which needs no join. */
    findPage: `
      SELECT 1::INT8 AS place, ${pageColumns()} FROM ${s}.pages
      WHERE topic_id = $1 AND partition = $2 AND base_offset <= $3 ORDER BY base_offset DESC LIMIT 1`,
    listPages: `
      SELECT ${pageColumns()} FROM ${s}.pages WHERE topic_id = $1 AND partition = $2 AND base_offset >= $3
      ORDER BY base_offset LIMIT $4`,
    deletePages: `
      WITH chunks AS (
        DELETE FROM ${s}.body_chunks
        WHERE ${anyRegion()} AND kind = 'p' AND key_1 = $1 AND key_2 = $2 AND key_3 < $3 RETURNING chunk
      )
      DELETE FROM ${s}.pages WHERE topic_id = $1 AND partition = $2 AND base_offset < $3`,
    scanPages: `
      SELECT ${pageColumns()} FROM ${s}.pages WHERE (topic_id, partition, base_offset) > ($1, $2, $3)
      ORDER BY topic_id, partition, base_offset LIMIT $4`,
  };
}

function objectTexts({ s, anyRegion }: Words) {
  const columns = `incarnation, number, bytes, created_at_ms AS "createdAtMs", shard_references AS "references",
  marked_at_ms AS "markedAtMs"`;
  const isAsked = `${anyRegion()} AND (incarnation, number) IN (SELECT * FROM unnest($1::INT8[], $2::INT8[]))`;
  return {
    getObjects: `SELECT ${columns} FROM ${s}.objects WHERE ${isAsked}`,
    lockObjects: `SELECT ${columns} FROM ${s}.objects WHERE ${isAsked} FOR UPDATE`,
    listObjects: `
      SELECT ${columns} FROM ${s}.objects WHERE ${anyRegion()} AND (incarnation, number) > ($1, $2)
      ORDER BY incarnation, number LIMIT $3`,
    listUnreferencedObjects: `
      SELECT ${columns} FROM ${s}.objects WHERE reference_count = 0 AND (incarnation, number) > ($1, $2)
      ORDER BY incarnation, number LIMIT $3`,
    setReferences: `
      UPDATE ${s}.objects AS object
      SET reference_count = left_of.reference_count,
        shard_references = substring($6::BYTEA, left_of.position::INT4, left_of.length::INT4)
      FROM unnest($1::INT8[], $2::INT8[], $3::INT8[], $4::INT8[], $5::INT8[])
        AS left_of (incarnation, number, reference_count, position, length)
      WHERE ${anyRegion('object.')} AND object.incarnation = left_of.incarnation AND object.number = left_of.number`,
    markObjects: `
      UPDATE ${s}.objects SET marked_at_ms = $3 WHERE ${isAsked} AND reference_count = 0 AND marked_at_ms IS NULL`,
    forgetObjects: `
      DELETE FROM ${s}.objects WHERE ${isAsked} AND reference_count = 0 AND marked_at_ms IS NOT NULL`,
    deleteObjects: `DELETE FROM ${s}.objects WHERE ${isAsked}`,
  };
}

function ownAgentTexts({ s, region }: Words) {
  return {
    /** As PostgreSQL's, and the agent's row lives where the agent does. */
    registerAgent: `
      WITH given AS (
        UPDATE ${s}.counters SET last = last + 1 WHERE name = 'incarnation' RETURNING last
      )
      INSERT INTO ${s}.agents (agent_id, incarnation, address, zone, agent_group, version, heartbeat_count,
        registered_at_ms, region)
      SELECT $1::TEXT, last, $2::TEXT, $3::TEXT, $4::TEXT, $5::TEXT, 0, $6::INT8, $7::${region} FROM given
      ON CONFLICT (agent_id) DO UPDATE SET incarnation = excluded.incarnation, address = excluded.address,
        zone = excluded.zone, agent_group = excluded.agent_group, version = excluded.version,
        heartbeat_count = excluded.heartbeat_count, registered_at_ms = excluded.registered_at_ms,
        region = excluded.region
      RETURNING ${AGENT_COLUMNS}`,
  };
}

/** Of `metadata copy`: rows as another store holds them, all of them at home where the copy runs. */
function ownMovingTexts({ s, region, anyRegion }: Words) {
  return {
    importHeads: `
      INSERT INTO ${s}.heads (shard, head_seq, head_commit_id, epoch, holder, checkpoint_seq, checkpoint_writer,
        trimmed_through, region)
      SELECT shard, head_seq, head_commit_id, epoch, holder, checkpoint_seq, checkpoint_writer, trimmed_through,
        $9::${region}
      FROM unnest($1::INT8[], $2::INT8[], $3::TEXT[], $4::INT8[], $5::INT8[], $6::INT8[], $7::INT8[], $8::INT8[])
        AS row_of (shard, head_seq, head_commit_id, epoch, holder, checkpoint_seq, checkpoint_writer, trimmed_through)
      ON CONFLICT (shard) DO UPDATE SET head_seq = excluded.head_seq, head_commit_id = excluded.head_commit_id,
        epoch = excluded.epoch, holder = excluded.holder, checkpoint_seq = excluded.checkpoint_seq,
        checkpoint_writer = excluded.checkpoint_writer, trimmed_through = excluded.trimmed_through`,
    /** In whatever region they were; then they are inserted anew (a rival copies the same). */
    deleteEntries: `
      WITH chunks AS (
        DELETE FROM ${s}.body_chunks
        WHERE ${anyRegion()} AND kind = 'e' AND key_3 = 0
          AND (key_1, key_2) IN (SELECT * FROM unnest($1::INT8[], $2::INT8[]))
        RETURNING chunk
      )
      DELETE FROM ${s}.entries WHERE ${anyRegion()} AND (shard, seq) IN (SELECT * FROM unnest($1::INT8[], $2::INT8[]))`,
    insertEntries: `
      INSERT INTO ${s}.entries (region, shard, seq, epoch, commit_id, body, body_bytes)
      SELECT $8::${region}, shard, seq, epoch, commit_id, substring($9::BYTEA, position::INT4, length::INT4), body_bytes
      FROM unnest($1::INT8[], $2::INT8[], $3::INT8[], $4::TEXT[], $5::INT8[], $6::INT8[], $7::INT8[])
        AS row_of (shard, seq, epoch, commit_id, position, length, body_bytes)
      ON CONFLICT (region, shard, seq) DO UPDATE SET epoch = excluded.epoch, commit_id = excluded.commit_id,
        body = excluded.body, body_bytes = excluded.body_bytes`,
    insertObjects: `
      INSERT INTO ${s}.objects (region, incarnation, number, bytes, created_at_ms, reference_count, shard_references,
        marked_at_ms)
      SELECT $9::${region}, incarnation, number, bytes, created_at_ms, reference_count,
        substring($10::BYTEA, position::INT4, length::INT4), marked_at_ms
      FROM unnest($1::INT8[], $2::INT8[], $3::INT8[], $4::INT8[], $5::INT8[], $6::INT8[], $7::INT8[], $8::INT8[])
        AS row_of (incarnation, number, bytes, created_at_ms, reference_count, position, length, marked_at_ms)
      ON CONFLICT (region, incarnation, number) DO UPDATE SET bytes = excluded.bytes,
        created_at_ms = excluded.created_at_ms, reference_count = excluded.reference_count,
        shard_references = excluded.shard_references, marked_at_ms = excluded.marked_at_ms`,
  };
}
