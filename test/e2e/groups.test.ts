/**
 * Groups of brokers from the outside: topics are bound to a group at their creation and lie in its shards alone. On SQLite
 * one broker serves every group; on a store that brokers share each serves its own.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import Database from 'better-sqlite3';
import { RestClient } from '../../src/client/rest-client.ts';
import { openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { BrokerProcess } from '../support/broker-process.ts';
import { readPartition } from '../support/record-ledger.ts';
import { sharedPostgres } from '../support/shared-postgres.ts';
import { cli } from '../support/test-shell.ts';

const GROUPS = ['--shard-groups', 'default:3,heavy:5'];
const FAST = ['--flush-window', '5ms', '--lanes', '2', '--log-level', 'warn'];
const PARTITIONS = 40;

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'streamhouse-groups-'));
});
after(async () => {
  await rm(folder, { recursive: true });
});

async function on(url: string, args: string[], stdin = ''): Promise<string> {
  const { code, stdout, stderr } = await cli([...args, '--url', url], { stdin });
  assert.equal(code, 0, stderr);
  return stdout;
}

/** One record for every partition; fails unless all are acknowledged. */
async function fill(url: string, topic: string, value: string): Promise<void> {
  const client = new RestClient(url);
  try {
    const records = Array.from({ length: PARTITIONS }, (_, partition) => ({ partition, value }));
    for (const answer of await client.produce(topic, records, 'json')) assert.equal(answer.error, null);
  } finally {
    await client.close();
  }
}

async function valuesOf(url: string, topic: string): Promise<unknown[][]> {
  const client = new RestClient(url);
  try {
    const all: unknown[][] = [];
    for (let partition = 0; partition < PARTITIONS; partition++) {
      all.push((await readPartition(client, topic, partition)).map(({ value }) => value));
    }
    return all;
  } finally {
    await client.close();
  }
}

/** Shards with entries beyond those of takeovers: with anything in any object. */
async function shardsWithRecords(metadata: string): Promise<number[]> {
  const opened = await openMetadata(metadata, { role: 'reader' });
  try {
    const rows = await opened.store.listObjects({ limit: 10_000 });
    const shards = new Set(rows.flatMap((row) => row.shards.map(({ shard }) => shard)));
    return [...shards].sort((a, b) => a - b);
  } finally {
    await opened.close();
  }
}

async function refusal(args: string[]): Promise<string> {
  const { code, log } = await BrokerProcess.startInVain([...args, ...FAST]);
  assert.equal(code, 2, log.join('\n'));
  assert.equal(log.length, 1, log.join('\n'));
  return log[0];
}

describe('two groups on SQLite', () => {
  let where: string[];
  let database: string;

  it('refuse a broker of another group before anything is made', async () => {
    const data = join(folder, 'sqlite');
    database = join(data, 'metadata.db');
    where = ['--data', data];
    assert.match(
      await refusal([...where, ...GROUPS, '--group', 'light']),
      /setting group: the cluster has no group light; its groups: default, heavy/,
    );
    const opened = await openMetadata(`sqlite:${database}`, { role: 'broker' });
    assert.equal(await opened.store.getCluster(), null);
    await opened.close();
  });

  it('keep topics apart, each in the shards of its own, and say which is whose', async () => {
    const broker = await BrokerProcess.start([...where, ...GROUPS, ...FAST]);
    try {
      const { url } = broker;
      await on(url, ['topics', 'create', 'a', '-p', String(PARTITIONS)]);
      await fill(url, 'a', 'of a');
      assert.deepEqual(await shardsWithRecords(`sqlite:${database}`), [0, 1, 2]);
      await on(url, ['topics', 'create', 'b', '-p', String(PARTITIONS), '--group', 'heavy']);
      await on(url, ['topics', 'create', 'c', '-p', '7', '--config', 'streamhouse.group=default']);
      await fill(url, 'b', 'of b');
      assert.deepEqual(await shardsWithRecords(`sqlite:${database}`), [0, 1, 2, 3, 4, 5, 6, 7]);
      for (const [topic, group] of [
        ['a', 'default'],
        ['b', 'heavy'],
        ['c', 'default'],
      ]) {
        const described = JSON.parse(await on(url, ['topics', 'describe', topic, '--json']));
        assert.deepEqual(described.configs, { 'streamhouse.group': group }, topic);
      }
      const refused = await cli(['topics', 'create', 'd', '--group', 'light', '--url', url]);
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /the cluster has no such group; its groups: default, heavy/);
      const moved = await cli(['topics', 'config', 'a', '--set', 'streamhouse.group=heavy', '--url', url]);
      assert.equal(moved.code, 1);
      assert.match(moved.stderr, /is given when a topic is created and cannot be changed/);
      const client = new RestClient(url);
      const path = `${url}/v3/clusters/${await client.clusterId()}/topics/a/configs/streamhouse.group`;
      await client.close();
      assert.equal(((await (await fetch(path)).json()) as { is_read_only: boolean }).is_read_only, true);
      assert.equal((await fetch(path, { method: 'DELETE' })).status, 400);
    } finally {
      await broker.stop();
    }
  });

  it('are the same after a start without the setting, where topics are deleted and made anew', async () => {
    const broker = await BrokerProcess.start([...where, ...FAST, '--shards', '99']);
    try {
      const { url } = broker;
      assert(
        broker.log.some((line) => line.includes('setting shards (99) has no effect')),
        broker.log.join('\n'),
      );
      assert.deepEqual(await valuesOf(url, 'a'), new Array(PARTITIONS).fill(['of a']));
      assert.deepEqual(await valuesOf(url, 'b'), new Array(PARTITIONS).fill(['of b']));
      await on(url, ['topics', 'delete', 'b']);
      await on(url, ['topics', 'create', 'b', '-p', String(PARTITIONS), '--group', 'default']);
      await fill(url, 'b', 'of the new b');
      assert.deepEqual(await valuesOf(url, 'b'), new Array(PARTITIONS).fill(['of the new b']));
    } finally {
      await broker.stop();
    }
    assert.match(
      await refusal([...where, '--shard-groups', 'default:8']),
      /setting shard-groups: the cluster was made with default:3,heavy:5 and keeps that; default:8 is another/,
    );
  });

  it('are what verify goes by: other groups, and topics that name another, are found', async () => {
    const verify = async (): Promise<{ code: number; kinds: string[] }> => {
      const { code, stdout } = await cli(['verify', '--json', ...where]);
      const { findings } = JSON.parse(stdout) as { findings: { kind: string }[] };
      return { code, kinds: [...new Set(findings.map(({ kind }) => kind))].sort() };
    };
    assert.deepEqual(await verify(), { code: 0, kinds: [] });
    for (const topic of ['a', 'b']) {
      const { code, stdout, stderr } = await cli(['inspect', 'segments', topic, '0', ...where]);
      assert.equal(code, 0, stderr);
      assert.match(stdout, /shard [012]: offsets \[0, 1\)/);
    }
    const change = (sql: string): void => {
      const opened = new Database(database);
      opened.exec(sql);
      opened.close();
    };
    change(`UPDATE topics SET configs = '{"streamhouse.group":"heavy"}' WHERE name = 'a'`);
    assert.deepEqual(await verify(), { code: 1, kinds: ['topic-group'] });
    change(`UPDATE topics SET configs = '{"streamhouse.group":"default"}' WHERE name = 'a'`);
    change(`UPDATE cluster SET shard_groups = 'default:1,heavy:7'`);
    const { code, kinds } = await verify();
    assert.equal(code, 1);
    assert(kinds.includes('foreign-partition'), `${kinds}`);
  });
});

describe('two groups on a store that brokers share', () => {
  it('are served by brokers of their own, whoever else is there', async () => {
    const metadata = (await sharedPostgres()).storeUrl();
    const where = [
      '--metadata',
      metadata,
      '--objects',
      `file:${join(folder, 'shared')}`,
      '--migrate',
      ...FAST,
    ];
    const light = await BrokerProcess.start([...where, ...GROUPS, '--agent-id', 'light']);
    const heavy = await BrokerProcess.start([...where, '--group', 'heavy', '--agent-id', 'heavy']);
    const others = await BrokerProcess.start([...where, '--group', 'heavy', '--agent-id', 'heavy-2']);
    try {
      const opened = await openMetadata(metadata, { role: 'reader' });
      const agents = new Map((await opened.store.listAgents()).map((agent) => [agent.incarnation, agent]));
      const groups = (await opened.store.listLeases()).map(({ holder }) => agents.get(holder)?.group);
      await opened.close();
      assert.deepEqual(groups.slice(0, 3), ['default', 'default', 'default']);
      // Those that change hands among the brokers of their group may be nobody's.
      for (const group of groups.slice(3)) assert(group === 'heavy' || group === undefined, `${groups}`);
      assert(groups.includes('heavy'));
      await on(light.url, ['topics', 'create', 'a', '-p', String(PARTITIONS)]);
      await fill(light.url, 'a', 'of a');
      assert.deepEqual(await valuesOf(light.url, 'a'), new Array(PARTITIONS).fill(['of a']));
      assert.deepEqual(await shardsWithRecords(metadata), [0, 1, 2]);
    } finally {
      await Promise.all([light, heavy, others].map((broker) => broker.stop()));
    }
  });
});
