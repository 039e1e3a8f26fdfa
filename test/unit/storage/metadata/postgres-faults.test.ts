/**
 * PostgreSQL on bad days: replies lost after success, requests lost before, a server that is silent, stopped, started,
 * slow, or all of whose connections are busy. What is unknown is told as unknown and proven by settleAppend; what is
 * told as "nothing happened" did not happen; the store heals by itself.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { systemClock } from '../../../../src/core/clock.ts';
import { type ErrorCode, StreamHouseError } from '../../../../src/core/errors.ts';
import { systemRandom } from '../../../../src/core/random.ts';
import type { LogEntry, MetadataStore } from '../../../../storage/metadata/metadata-store.ts';
import { openMetadata } from '../../../../storage/metadata/open-metadata-store.ts';
import { settleAppend, untilAvailable } from '../../../../workers/shard-log.ts';
import { type PostgresServer, startPostgres } from '../../../support/postgres-server.ts';
import {
  entryAt,
  type OpenedPostgres,
  openPostgresStore,
  plainClient,
  prepareCluster,
  schemaOf,
} from '../../../support/postgres-stores.ts';
import { TcpProxy } from '../../../support/tcp-proxy.ts';

let server: PostgresServer;
let proxy: TcpProxy;

before(async () => {
  // One of its own, for it is stopped on the way. It keeps what it confirmed over a crash of its processes.
  server = await startPostgres({ isDurable: false, flags: ['-c', 'synchronous_commit=on'] });
  proxy = await TcpProxy.start(server.port);
});
after(async () => {
  await proxy.stop();
  await server.stop();
});

const codeOf = (promise: Promise<unknown>): Promise<ErrorCode | 'done'> =>
  promise.then(
    () => 'done' as const,
    (error) => {
      assert(error instanceof StreamHouseError, `${error}`);
      return error.code;
    },
  );

function settleParts(store: MetadataStore) {
  let unknowns = 0;
  return {
    parts: {
      store,
      clock: systemClock,
      random: systemRandom,
      stopped: new AbortController().signal,
      onUnknown: () => void unknowns++,
    },
    unknowns: () => unknowns,
  };
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if (await condition()) return;
    await sleepMs(10);
  }
  throw new Error('it did not come to be in 5 s');
}

describe('a connection to PostgreSQL through a bad network', () => {
  let direct: OpenedPostgres;
  let far: OpenedPostgres;

  beforeEach(async () => {
    proxy.heal();
    const url = server.storeUrl();
    direct = await openPostgresStore(url);
    await prepareCluster(direct.store);
    far = await openPostgresStore(proxy.through(url), { migrate: false });
    await far.store.appendEntries([entryAt(7, 1)], []);
  });
  afterEach(async () => {
    proxy.heal();
    await far.store.close();
    await direct.store.close();
  });

  it('that loses the reply after success is unknown, and settles as committed', async () => {
    const entry = entryAt(0, 1);
    proxy.faults.dropsReplies = true;
    const appended = far.store.appendEntries([entry], []).catch((error) => error);
    await until(async () => (await direct.store.readHead(0)).headSeq === 1);
    proxy.cut();
    const first = await appended;
    assert.equal(first.code, 'store-unknown');
    assert.equal(far.counters.read('unknownOutcomes'), 1);
    assert(far.counters.read('connectionsLost') >= 1);
    proxy.heal();
    const settling = settleParts(far.store);
    assert.equal(await settleAppend(settling.parts, entry, [], first), 'committed');
    assert.equal(settling.unknowns(), 1);
    assert.equal((await direct.store.readHead(0)).headSeq, 1);
  });

  it('that loses the request is unknown too, and settles by sending it again', async () => {
    const entry = entryAt(1, 1);
    proxy.faults.dropsRequests = true;
    const appended = far.store.appendEntries([entry], []).catch((error) => error);
    await sleepMs(50);
    assert.equal((await direct.store.readHead(1)).headSeq, 0);
    proxy.cut();
    const first = await appended;
    assert.equal(first.code, 'store-unknown');
    proxy.heal();
    assert.equal(await settleAppend(settleParts(far.store).parts, entry, [], first), 'committed');
    assert.deepEqual(await direct.store.readEntries(1, 0, 1e9), [entry]);
  });

  it('that loses the reply, while a rival takes the shard, settles as what the log says', async () => {
    const [lost, never] = [entryAt(2, 1), entryAt(3, 1)];
    proxy.faults.dropsReplies = true;
    const appended = far.store.appendEntries([lost], []).catch((error) => error);
    await until(async () => (await direct.store.readHead(2)).headSeq === 1);
    proxy.cut();
    proxy.faults.dropsReplies = false;
    proxy.faults.dropsRequests = true;
    const refused = far.store.appendEntries([never], []).catch((error) => error);
    await sleepMs(100);
    proxy.cut();
    proxy.heal();
    await direct.store.acquireLeases(9, [
      { shard: 2, holder: 1, epoch: 1 },
      { shard: 3, holder: 1, epoch: 1 },
    ]);
    await direct.store.appendEntries([{ ...entryAt(2, 2, 'rival'), epoch: 2 }], []);
    const { parts } = settleParts(far.store);
    assert.equal(await settleAppend(parts, lost, [], await appended), 'committed');
    assert.equal(await settleAppend(parts, never, [], await refused), 'never');
  });

  it('that is cut under a read, or cannot be made, says that nothing happened', async () => {
    proxy.faults.dropsReplies = true;
    const reads = [far.store.getCluster(), far.store.readHead(0), far.store.listTopics({ limit: 1 })];
    await sleepMs(50);
    proxy.cut();
    assert.deepEqual(await Promise.all(reads.map(codeOf)), Array(3).fill('store-unavailable'));
    proxy.heal();
    proxy.faults.refuses = true;
    proxy.cut();
    await sleepMs(20);
    assert.equal(await codeOf(far.store.appendEntries([entryAt(0, 1)], [])), 'store-unavailable');
    assert.equal(await codeOf(far.store.getCluster()), 'store-unavailable');
    assert.equal((await direct.store.readHead(0)).headSeq, 0);
    proxy.heal();
    assert.equal(await codeOf(far.store.appendEntries([entryAt(0, 1)], [])), 'done');
  });

  it('that is slow takes its time and changes no order', async () => {
    proxy.faults.delayMs = 30;
    for (let seq = 1; seq <= 5; seq++) {
      assert.deepEqual(await far.store.appendEntries([entryAt(4, seq)], []), [{ kind: 'done' }]);
    }
    assert.equal((await far.store.readEntries(4, 0, 1e9)).length, 5);
  });
});

describe('a PostgreSQL that is half open', () => {
  it('is given up by time: writes are unknown, reads did nothing, the connection is not used again', async () => {
    proxy.heal();
    const url = server.storeUrl({ statement_timeout_ms: '200', connect_timeout_ms: '400' });
    const direct = await openPostgresStore(url);
    await prepareCluster(direct.store);
    const far = await openPostgresStore(proxy.through(url), { migrate: false });
    await far.store.appendEntries([entryAt(0, 1)], []);
    await far.store.readHead(0);
    proxy.faults.dropsReplies = true;
    const codes = await Promise.all([
      codeOf(far.store.appendEntries([entryAt(0, 2)], [])),
      codeOf(far.store.readHead(0)),
      // No connection is left for these, and a new one gets no answer.
      codeOf(far.store.allocateProducerIds(1)),
      codeOf(far.store.getCluster()),
    ]);
    assert.deepEqual(codes, ['store-unknown', 'store-unavailable', 'store-unavailable', 'store-unavailable']);
    const entry = entryAt(0, 2);
    proxy.heal();
    const first = new StreamHouseError('store-unknown', 'as above');
    assert.equal(await settleAppend(settleParts(far.store).parts, entry, [], first), 'committed');
    assert.equal((await far.store.readHead(0)).headSeq, 2);
    await far.store.close();
    await direct.store.close();
  });
});

describe('a busy PostgreSQL', () => {
  it('with all connections taken holds up the next for a while, and commits never', async () => {
    const url = server.storeUrl({ connect_timeout_ms: '300', lock_timeout_ms: '1500' });
    const { store } = await openPostgresStore(url);
    await prepareCluster(store);
    const client = await plainClient(server.url);
    await client.query(`BEGIN; LOCK TABLE "${schemaOf(url)}".topics IN ACCESS EXCLUSIVE MODE`);
    const blocked = Array.from({ length: 7 }, () => codeOf(store.getTopic('a')));
    await untilWaiting(client, 7);
    const beganMs = performance.now();
    assert.equal(await codeOf(store.readHead(0)), 'store-unavailable');
    assert(performance.now() - beganMs < 1200, 'it waited for longer than it may');
    for (let seq = 1; seq <= 20; seq++) {
      assert.deepEqual(await store.appendEntries([entryAt(0, seq)], []), [{ kind: 'done' }]);
    }
    // At most eight connections, whatever is asked.
    const { rows } = await client.query(
      `SELECT count(*)::int AS count FROM pg_stat_activity WHERE application_name = 'streamhouse'`,
    );
    assert.equal(rows[0].count, 8);
    assert.deepEqual(await Promise.all(blocked), Array(7).fill('store-unavailable'));
    await client.query('COMMIT');
    assert.equal(await store.getTopic('a'), null);
    await client.end();
    await store.close();
  });

  it('that ends a statement by its time did nothing of it', async () => {
    const url = server.storeUrl({ statement_timeout_ms: '300', lock_timeout_ms: '60000' });
    const { store, counters } = await openPostgresStore(url);
    await prepareCluster(store);
    const client = await plainClient(server.url);
    const locks = await openLocked(client, url, 0);
    assert.equal(await codeOf(store.appendEntries([entryAt(0, 1), entryAt(1, 1)], [])), 'store-unavailable');
    await locks.release();
    assert.deepEqual(
      (await store.listLeases()).map(({ headSeq }) => headSeq),
      Array(8).fill(0),
    );
    assert.equal(counters.read('connectionsLost'), 0);
    assert.equal(await codeOf(store.appendEntries([entryAt(0, 1), entryAt(1, 1)], [])), 'done');
    await client.end();
    await store.close();
  });

  it('whose operator ends a connection leaves an append unknown, and a transaction undone', async () => {
    const url = server.storeUrl();
    const { store } = await openPostgresStore(url);
    await prepareCluster(store);
    const client = await plainClient(server.url);
    // Rows go into a store without a cluster only.
    await client.query(`DELETE FROM ${schemaOf(url)}.cluster`);
    const locks = await openLocked(client, url, 0);
    const head = await store.readHead(1);
    const appended = codeOf(store.appendEntries([entryAt(0, 1)], []));
    const heads = [{ ...head, shard: 0, headSeq: 5 }];
    const imported = codeOf(store.importRows({ lastIds: { topic: 9, incarnation: 9, producer: 9 }, heads }));
    await untilWaiting(client, 2);
    await client.query('SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted');
    assert.deepEqual([await appended, await imported], ['store-unknown', 'store-unavailable']);
    await locks.release();
    assert.equal((await store.readHead(0)).headSeq, 0);
    assert.equal((await store.getLastIds()).topic, 0);
    await client.end();
    await store.close();
  });

  it('that finds a deadlock is asked again, and that is counted', async () => {
    const url = server.storeUrl({ lock_timeout_ms: '60000' });
    const { store, counters } = await openPostgresStore(url);
    await prepareCluster(store);
    const client = await plainClient(server.url);
    await client.query(`SET deadlock_timeout = '60s'`);
    const schema = schemaOf(url);
    // It holds 1 and wants 0; the append takes 0 and wants 1: the one whose patience ends first is given up.
    await client.query('BEGIN');
    await client.query(`SELECT FROM "${schema}".heads WHERE shard = 1 FOR UPDATE`);
    const appended = store.appendEntries([entryAt(0, 1), entryAt(1, 1)], []);
    await untilWaiting(client, 1);
    await client.query(`SELECT FROM "${schema}".heads WHERE shard = 0 FOR UPDATE`);
    await client.query('COMMIT');
    assert.deepEqual(await appended, [{ kind: 'done' }, { kind: 'done' }]);
    assert.equal(counters.read('conflictRetries'), 1);
    await client.end();
    await store.close();
  });
});

/** Until so many wait for a lock. */
function untilWaiting(client: Awaited<ReturnType<typeof plainClient>>, count: number): Promise<void> {
  return until(async () => {
    const { rows } = await client.query('SELECT count(*)::int AS count FROM pg_locks WHERE NOT granted');
    return rows[0].count === count;
  });
}

async function openLocked(client: Awaited<ReturnType<typeof plainClient>>, url: string, shard: number) {
  await client.query('BEGIN');
  await client.query(`SELECT FROM "${schemaOf(url)}".heads WHERE shard = ${shard} FOR UPDATE`);
  return { release: () => client.query('COMMIT') };
}

describe('a PostgreSQL that is stopped and started', () => {
  it('is found again under load by itself, and nothing confirmed is missing', async () => {
    const url = server.storeUrl({ connect_timeout_ms: '1000' });
    const opened = await openMetadata(url, { role: 'broker', migrate: true });
    const { store, counters } = opened;
    await prepareCluster(store, 4);
    const log: LogEntry[][] = [[], [], [], []];
    let isStopping = false;
    const settling = settleParts(store);
    const write = async (shard: number) => {
      while (!isStopping) {
        const entry = entryAt(shard, log[shard].length + 1);
        const first = await store.appendEntries([entry], []).then(
          ([outcome]) => outcome,
          (error) => error,
        );
        assert.equal(await settleAppend(settling.parts, entry, [], first), 'committed');
        log[shard].push(entry);
      }
    };
    const read = async () => {
      while (!isStopping) await untilAvailable(settling.parts, () => store.listLeases());
    };
    const running = Promise.all([write(0), write(1), write(2), write(3), read(), read()]);
    let before = 0;
    for (const halt of [server.halt, server.crash, server.halt]) {
      await until(async () => log.every((entries) => entries.length > before + 20));
      await halt();
      await sleepMs(300);
      await server.resume();
      before = Math.max(...log.map((entries) => entries.length));
    }
    await until(async () => log.every((entries) => entries.length > before + 20));
    isStopping = true;
    await running;
    for (const [shard, entries] of log.entries()) {
      assert.deepEqual(await store.readEntries(shard, 0, 1e9), entries);
    }
    assert(counters.read('connectionsLost') > 0);
    assert(counters.read('connects') < 200, `a storm of ${counters.read('connects')} connects`);
    await opened.close();
  });
});
