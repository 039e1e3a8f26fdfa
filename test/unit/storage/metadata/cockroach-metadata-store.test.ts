/**
 * What is CockroachDB's own, on a PostgreSQL server: rows with a home region (an enum stands for the database's
 * regions), bodies in chunks, trims in steps.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import pg from 'pg';
import { readSqlMigrations, sqlOf } from '../../../../migrations/apply.ts';
import { systemClock } from '../../../../src/core/clock.ts';
import { systemRandom } from '../../../../src/core/random.ts';
import { ROW_BYTES_MAX } from '../../../../storage/metadata/cockroach/cockroach-bodies.ts';
import { migrationText, POSTGRES } from '../../../../storage/metadata/cockroach/cockroach-capabilities.ts';
import { CockroachMetadataStore } from '../../../../storage/metadata/cockroach/cockroach-metadata-store.ts';
import {
  connectCockroach,
  openCockroachStore,
  readCockroachUrl,
} from '../../../../storage/metadata/cockroach/cockroach-open.ts';
import type { IndexPage, LogEntry, MetadataStore } from '../../../../storage/metadata/metadata-store.ts';
import { StoreCounters } from '../../../../storage/metadata/store-counters.ts';
import { bytesOf, failsWith, objectRow } from '../../../contract/metadata-store-rig.ts';
import { onPostgres } from '../../../support/cockroach-store.ts';

const CLUSTER = { clusterId: 'c', storeIncarnation: 's', shardCount: 8, createdAtMs: 1 };
const parts = () => ({ clock: systemClock, random: systemRandom, counters: new StoreCounters() });

function entry(shard: number, seq: number, epoch: number, body = bytesOf(`${shard}/${seq}`)): LogEntry {
  return { shard, seq, epoch, commitId: `c-${shard}-${seq}-${epoch}`, body };
}

/** Bytes that tell their place. */
function bodyOf(length: number, seed = 7): Uint8Array {
  return new Uint8Array(length).map((_, i) => (i * seed + (i >> 12)) & 0xff);
}

async function queries(url: string): Promise<{ client: pg.Client; schema: string }> {
  const given = new URL(url.replace(/^cockroachdb:/, 'postgres:'));
  const schema = given.searchParams.get('schema')!;
  given.search = '';
  const client = new pg.Client({ connectionString: given.href });
  await client.connect();
  return { client, schema };
}

describe('rows with a home region', () => {
  const REGIONS = ['us-east1', 'us-west1', 'eu-west1'];
  const stores: CockroachMetadataStore[] = [];
  let client: pg.Client;
  let schema: string;
  let [east, west, europe] = [] as CockroachMetadataStore[];

  before(async () => {
    const { url } = await onPostgres();
    ({ client, schema } = await queries(url));
    const names = REGIONS.map((name) => `'${name}'`).join(', ');
    await client.query(`CREATE SCHEMA ${schema}; CREATE TYPE public.crdb_internal_region AS ENUM (${names})`);
    const regional = { name: schema, isRegional: true };
    for (const migration of readSqlMigrations('cockroach')) {
      const text = migrationText(sqlOf(migration), POSTGRES, regional);
      if (text !== null) await client.query(text.replace(/LOCALITY .*$/, ''));
    }
    for (const region of REGIONS) {
      const connections = await connectCockroach(readCockroachUrl(url), 'broker', parts());
      const settings = {
        schema: regional,
        capabilities: POSTGRES,
        role: 'broker',
        region,
        regions: REGIONS,
      } as const;
      stores.push(new CockroachMetadataStore(connections, settings));
    }
    [east, west, europe] = stores;
    await east.initCluster(CLUSTER);
  });
  after(async () => {
    for (const store of stores) await store.close();
    await client.query(`DROP SCHEMA ${schema} CASCADE; DROP TYPE public.crdb_internal_region`);
    await client.end();
  });

  async function regionsOf(table: string, where: string): Promise<string[]> {
    const { rows } = await client.query(`SELECT region FROM ${schema}.${table} WHERE ${where} ORDER BY 1`);
    return rows.map(({ region }) => region);
  }

  it('follow the holder of their shard, and the log is whole wherever it is read', async () => {
    assert.equal((await europe.acquireLeases(7, [{ shard: 0, holder: 0, epoch: 0 }]))[0].kind, 'done');
    const first = [1, 2].map((seq) => entry(0, seq, 1));
    for (const one of first) assert.deepEqual(await europe.appendEntries([one], []), [{ kind: 'done' }]);
    assert.deepEqual(await regionsOf('heads', 'shard = 0'), ['eu-west1']);
    assert.deepEqual(await regionsOf('entries', 'shard = 0'), ['eu-west1', 'eu-west1']);
    assert.equal((await europe.listShardHomes()).get(0), 'eu-west1');
    assert.equal((await europe.listShardHomes()).get(1), 'us-east1');

    assert.equal((await west.acquireLeases(8, [{ shard: 0, holder: 7, epoch: 1 }]))[0].kind, 'done');
    const [fenced] = await europe.appendEntries([entry(0, 3, 1)], []);
    assert.equal(fenced.kind === 'conflict' && fenced.head.epoch, 2);
    const third = entry(0, 3, 2);
    assert.deepEqual(await west.appendEntries([third], [objectRow(8, 1)]), [{ kind: 'done' }]);
    assert.deepEqual(await regionsOf('heads', 'shard = 0'), ['us-west1']);
    assert.deepEqual(await regionsOf('entries', 'shard = 0'), ['us-west1', 'eu-west1', 'eu-west1']);
    assert.deepEqual(await regionsOf('objects', 'incarnation = 8'), ['us-west1']);
    for (const store of stores) assert.deepEqual(await store.readEntries(0, 0, 1e9), [...first, third]);
    assert.deepEqual(await east.readEntries(0, 1, 1e9), [first[1], third]);

    // Trimmed and deleted in whatever region.
    await west.movePointer(0, 2, { seq: 3, writer: 8 });
    await west.trim(0, 2);
    assert.deepEqual(await regionsOf('entries', 'shard = 0'), ['us-west1']);
    assert.deepEqual(await europe.readEntries(0, 0, 1e9), [third]);
  });

  it('are appended in one statement per home, also when the head lives elsewhere than its writer', async () => {
    // Shards that nobody ever took live where the cluster was made.
    const [taken] = await west.acquireLeases(8, [{ shard: 2, holder: 0, epoch: 0 }]);
    assert.equal(taken.kind, 'done');
    const entries = [entry(1, 1, 0), entry(2, 1, 1), entry(3, 5, 0)];
    const outcomes = await west.appendEntries(entries, [objectRow(8, 2)]);
    assert.deepEqual(
      outcomes.map(({ kind }) => kind),
      ['done', 'done', 'conflict'],
    );
    assert.equal(outcomes[2].kind === 'conflict' && outcomes[2].head.headSeq, 0);
    assert.deepEqual(await regionsOf('entries', 'shard IN (1, 2)'), ['us-east1', 'us-west1']);
    assert.deepEqual(await regionsOf('objects', 'number = 2'), ['us-west1']);
    assert.deepEqual(await west.readEntries(1, 0, 1e9), [entries[0]]);
    const all = [entry(1, 2, 0), entry(2, 2, 1), entry(99, 1, 0)];
    await failsWith('shard-not-found', west.appendEntries(all, [objectRow(8, 3)]));
    assert.equal((await west.readHead(1)).headSeq, 1);
    assert.deepEqual(await west.getObjects([{ incarnation: 8, number: 3 }]), [null]);
  });

  it('exist once: pages, agents and copied rows move, and leave nothing behind', async () => {
    const page = (stamp: number): IndexPage => ({
      topicId: 1,
      partition: 0,
      shard: 1,
      baseOffset: 0,
      stamp,
      bytes: bytesOf(`@${stamp}`),
    });
    await europe.putPages([page(1)]);
    await west.putPages([page(2)]);
    await europe.putPages([page(1)]);
    assert.deepEqual(await east.findPages([{ topicId: 1, partition: 0, offset: 9 }]), [page(2)]);
    assert.deepEqual(await regionsOf('pages', 'topic_id = 1'), ['us-west1']);

    const agent = { agentId: 'a', address: 'x:1', zone: 'z', group: 'g', version: '1', registeredAtMs: 1 };
    await europe.registerAgent(agent);
    const { incarnation } = await west.registerAgent(agent);
    assert.deepEqual(await regionsOf('agents', "agent_id = 'a'"), ['us-west1']);
    const [beaten] = await east.heartbeat('a', incarnation);
    assert.deepEqual([beaten.incarnation, beaten.heartbeatCount], [incarnation, 1]);

    const copied = { ...entry(4, 1, 3), commitId: 'copied' };
    const head = { ...(await east.readHead(4)), headSeq: 1, headCommitId: 'copied', epoch: 3 };
    const object = { ...objectRow(5, 5), markedAtMs: null };
    await client.query(`DELETE FROM ${schema}.cluster`);
    for (const store of [europe, west]) {
      await store.importRows({ heads: [head], entries: [copied], objects: [object] });
    }
    assert.deepEqual(await regionsOf('entries', 'shard = 4'), ['us-west1']);
    assert.deepEqual(await regionsOf('objects', 'incarnation = 5'), ['us-west1']);
    assert.deepEqual(await east.readEntries(4, 0, 1e9), [copied]);
    assert.deepEqual(await east.getObjects([object.object]), [object]);
  });

  it('of objects are found, dropped and forgotten from any region', async () => {
    const object = { incarnation: 8, number: 1 };
    await europe.dropReferences([{ shard: 0, object, belowEpoch: null }]);
    assert.deepEqual((await east.getObjects([object]))[0]?.shards, []);
    const listed = await east.listObjects({ limit: 10, unreferencedOnly: true });
    assert.deepEqual(
      listed.map((one) => one.object),
      [object],
    );
    await europe.markObjects([object], 5);
    await east.forgetObjects([object]);
    assert.deepEqual(await west.getObjects([object]), [null]);
  });
});

describe('bodies in chunks', () => {
  let store: MetadataStore;
  let client: pg.Client;
  let schema: string;

  before(async () => {
    const { url } = await onPostgres();
    store = await openCockroachStore(url, { ...parts(), role: 'broker', migrate: true });
    ({ client, schema } = await queries(url));
    await store.initCluster(CLUSTER);
    await store.acquireLeases(
      7,
      [0, 1, 2, 3].map((shard) => ({ shard, holder: 0, epoch: 0 })),
    );
  });
  after(async () => {
    await store.close();
    await client.end();
  });

  async function chunks(kind: string): Promise<number> {
    const { rows } = await client.query(
      `SELECT count(*)::int AS count FROM ${schema}.body_chunks WHERE kind = '${kind}'`,
    );
    return rows[0].count;
  }

  it('are read whole beside small ones, and go with the trim', async () => {
    const bodies = [
      bytesOf('small'),
      bodyOf(ROW_BYTES_MAX),
      bodyOf(ROW_BYTES_MAX + 1),
      bodyOf(3.5 * ROW_BYTES_MAX),
    ];
    const entries = bodies.map((body, i) => entry(0, i + 1, 1, body));
    for (const one of entries) assert.deepEqual(await store.appendEntries([one], []), [{ kind: 'done' }]);
    assert.equal(await chunks('e'), 1 + 3);
    const same = (found: LogEntry[], expected: LogEntry[]) => {
      assert.equal(found.length, expected.length);
      found.forEach((one, i) => {
        assert.equal(one.commitId, expected[i].commitId);
        assert(Buffer.from(one.body).equals(expected[i].body), `${one.seq}`);
      });
    };
    same(await store.readEntries(0, 0, 1e9), entries);
    same(await store.readEntries(0, 1, 2 * ROW_BYTES_MAX + 1), entries.slice(1, 3));
    same(await store.readEntries(0, 1, 2 * ROW_BYTES_MAX), entries.slice(1, 2));
    await store.movePointer(0, 1, { seq: 4, writer: 7 });
    await store.trim(0, 3);
    assert.equal(await chunks('e'), 3);
    same(await store.readEntries(0, 0, 1e9), entries.slice(3));
  });

  it('of several shards in one call commit together with the heads, each shard on its own', async () => {
    await store.appendEntries([entry(2, 1, 1)], []);
    const before = await chunks('e');
    const body = bodyOf(9 * ROW_BYTES_MAX, 3);
    const entries = [1, 2, 3].map((shard) => entry(shard, 1, 1, body));
    const outcomes = await store.appendEntries(entries, [objectRow(1, 1)]);
    assert.deepEqual(
      outcomes.map(({ kind }) => kind),
      ['done', 'conflict', 'done'],
    );
    assert.equal((await chunks('e')) - before, 2 * 8);
    const [read] = await store.readEntries(3, 0, 1);
    assert(Buffer.from(read.body).equals(body));
    await failsWith(
      'shard-not-found',
      store.appendEntries([entry(1, 2, 1, body), entry(77, 1, 1)], [objectRow(1, 2)]),
    );
    assert.equal((await store.readHead(1)).headSeq, 1);
    assert.equal((await chunks('e')) - before, 2 * 8);
    assert.deepEqual(await store.getObjects([{ incarnation: 1, number: 2 }]), [null]);
  });

  it('take the bytes as they were at the call', async () => {
    const body = bodyOf(2 * ROW_BYTES_MAX);
    const kept = body.slice();
    const appended = store.appendEntries([entry(3, 2, 1, body)], []);
    body.fill(0);
    await appended;
    const [read] = await store.readEntries(3, 1, 1);
    assert(Buffer.from(read.body).equals(kept));
  });

  it('of a page go when it is replaced or deleted', async () => {
    const page = (stamp: number, length: number): IndexPage => ({
      topicId: 1,
      partition: 0,
      shard: 0,
      baseOffset: 0,
      stamp,
      bytes: bodyOf(length, stamp),
    });
    const read = async () => (await store.findPages([{ topicId: 1, partition: 0, offset: 5 }]))[0]!;
    const large = page(2, 2.5 * ROW_BYTES_MAX);
    await store.putPages([large, { ...page(1, 10), partition: 1 }]);
    assert(Buffer.from((await read()).bytes).equals(large.bytes));
    await store.putPages([page(1, 3 * ROW_BYTES_MAX)]);
    assert.equal(await chunks('p'), 2);
    assert(Buffer.from((await read()).bytes).equals(large.bytes));
    const larger = page(3, 4 * ROW_BYTES_MAX);
    await store.putPages([larger]);
    assert.equal(await chunks('p'), 3);
    const { pages } = await store.scanPages({ cursor: null, limit: 10 });
    assert(Buffer.from(pages[0].bytes).equals(larger.bytes));
    await store.putPages([page(4, 10)]);
    assert.equal(await chunks('p'), 0);
    assert.equal((await read()).stamp, 4);
    await store.putPages([page(5, 2 * ROW_BYTES_MAX)]);
    await store.deletePages({ topicId: 1, partition: 0, belowBaseOffset: 1 });
    assert.equal(await chunks('p'), 0);
  });

  it('of a checkpoint stay the first ones, and go with it', async () => {
    const first = bodyOf(2 * ROW_BYTES_MAX, 3);
    await store.putCheckpoint(0, { seq: 1, writer: 7 }, first);
    await store.putCheckpoint(0, { seq: 1, writer: 7 }, bodyOf(3 * ROW_BYTES_MAX, 5));
    assert(Buffer.from(await store.getCheckpoint(0, { seq: 1, writer: 7 })).equals(first));
    assert.equal(await chunks('c'), 1);
    await store.deleteOldCheckpoints(0);
    assert.equal(await chunks('c'), 0);
    await failsWith('checkpoint-not-found', store.getCheckpoint(0, { seq: 1, writer: 7 }));
  });

  it('of pages that are replaced while they are read are of one page, if they are as long too', async () => {
    const { url } = await onPostgres();
    const writer = await openCockroachStore(url, { ...parts(), role: 'broker', migrate: true });
    const connections = await connectCockroach(readCockroachUrl(url), 'reader', parts());
    const schema = { name: new URL(url).searchParams.get('schema')!, isRegional: false };
    const settings = { schema, capabilities: POSTGRES, role: 'reader', region: '', regions: [''] } as const;
    const reader = new CockroachMetadataStore(connections, settings);
    const page = (stamp: number): IndexPage => {
      const bytes = new Uint8Array(2 * ROW_BYTES_MAX).fill(stamp);
      return { topicId: 1, partition: 0, shard: 0, baseOffset: 0, stamp, bytes };
    };
    const { read } = connections;
    let stamp = 1;
    connections.read = async (statement, values) => {
      if (/chunks/i.test(statement.name) && stamp === 1) await writer.putPages([page(++stamp)]);
      return await read.call(connections, statement, values);
    };
    try {
      await writer.putPages([page(1)]);
      const [found] = await reader.findPages([{ topicId: 1, partition: 0, offset: 0 }]);
      assert.equal(stamp, 2);
      const distinct = new Set(found?.bytes);
      assert.deepEqual([found?.stamp, [...distinct]], [2, [2]]);
    } finally {
      await reader.close();
      await writer.close();
    }
  });

  it('that are not as long as their row says are damage', async () => {
    await client.query(`DELETE FROM ${schema}.body_chunks WHERE kind = 'e' AND key_1 = 3 AND chunk = 2`);
    await failsWith('corrupt-store', store.readEntries(3, 0, 1));
  });

  it('are copied over what was there', async () => {
    const large = entry(1, 1, 1, bodyOf(2 * ROW_BYTES_MAX, 9));
    const small = { ...large, body: bytesOf('small') };
    const before = await chunks('e');
    await client.query(`DELETE FROM ${schema}.cluster`);
    await store.importRows({ entries: [small] });
    assert.deepEqual(await store.readEntries(1, 0, 1), [small]);
    assert.equal(before - (await chunks('e')), 8);
    await store.importRows({ entries: [large] });
    await store.importRows({ entries: [large] });
    assert(Buffer.from((await store.readEntries(1, 0, 1))[0].body).equals(large.body));
  });
});

describe('a long log', () => {
  it('is trimmed in steps, read in parts, and read from its trim on', { timeout: 60_000 }, async () => {
    const { url } = await onPostgres();
    const store = await openCockroachStore(url, { ...parts(), role: 'broker', migrate: true });
    try {
      const entries = Array.from({ length: 5000 }, (_, i) => entry(0, i + 1, 0));
      const at5000 = { shard: 0, headSeq: 5000, headCommitId: entries[4999].commitId, epoch: 0, holder: 0 };
      const checkpoint = { seq: 4900, writer: 1 };
      await store.importRows({ heads: [{ ...at5000, checkpoint, trimmedThrough: 0 }] });
      for (let i = 0; i < entries.length; i += 500)
        await store.importRows({ entries: entries.slice(i, i + 500) });
      assert.deepEqual(await store.readEntries(0, 0, 1e9), entries);
      const bytes = entries.slice(100, 400).reduce((sum, { body }) => sum + body.length, 0);
      assert.deepEqual(await store.readEntries(0, 100, bytes), entries.slice(100, 400));
      await store.trim(0, 4500);
      assert.deepEqual(await store.readEntries(0, 0, 1e9), entries.slice(4500));
      // Two at once: each sees what the other has done, and both end.
      await Promise.all([store.trim(0, 4900), store.trim(0, 4800), store.trim(0, 4700)]);
      assert.equal((await store.readHead(0)).trimmedThrough, 4900);
      assert.deepEqual(await store.readEntries(0, 0, 1e9), entries.slice(4900));
    } finally {
      await store.close();
    }
  });
});
