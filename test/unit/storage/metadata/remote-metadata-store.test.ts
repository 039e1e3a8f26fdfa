/** A store behind a port: messages per turn, order, bytes, and what becomes of calls when the other end dies. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { MessageChannel, Worker } from 'node:worker_threads';
import { StreamHouseError } from '../../../../src/core/errors.ts';
import { MemoryMetadataStore } from '../../../../storage/metadata/memory/memory-metadata-store.ts';
import type { MetadataStore } from '../../../../storage/metadata/metadata-store.ts';
import { attachMetadata, openMetadata } from '../../../../storage/metadata/open-metadata-store.ts';
import { RemoteMetadataStore } from '../../../../storage/metadata/remote-metadata-store.ts';
import { serveMetadataStore } from '../../../../storage/metadata/served-metadata-store.ts';
import { FaultyMetadataStore } from '../../../support/faulty-metadata-store.ts';

const CLUSTER = { clusterId: 'c', storeIncarnation: 's', shardCount: 4, createdAtMs: 1 };

/** A remote over a served store on this thread, counting messages in both directions. */
function connected(inner: MetadataStore, afterWrite?: () => void) {
  const { port1, port2 } = new MessageChannel();
  const counts = { requests: 0, replies: 0 };
  port1.on('message', () => counts.requests++);
  port2.on('message', () => counts.replies++);
  serveMetadataStore(inner, port1, {
    ...(afterWrite && { afterWrite }),
    onBug: () => port1.close(),
  });
  return { remote: new RemoteMetadataStore(port2, inner), counts, served: port1 };
}

const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'ok',
    (error: unknown) => (error instanceof StreamHouseError ? error.code : `${error}`),
  );

describe('a remote metadata store', () => {
  it('sends the calls of one turn in one message and answers reads in one', async () => {
    const { remote, counts } = connected(new MemoryMetadataStore());
    await remote.initCluster(CLUSTER);
    counts.requests = 0;
    counts.replies = 0;
    const direct = Array.from({ length: 50 }, () => remote.readHead(0));
    // Called from later microtasks of the same turn: the same message still.
    const chained = Promise.resolve()
      .then(() => undefined)
      .then(() => remote.readHead(1));
    await Promise.all([...direct, chained]);
    assert.deepEqual(counts, { requests: 1, replies: 1 });
    await remote.close();
  });

  it('runs calls in the order they were made, and housekeeping after each write', async () => {
    let housekeeping = 0;
    const faulty = new FaultyMetadataStore(new MemoryMetadataStore());
    const { remote } = connected(faulty, () => housekeeping++);
    const names = Array.from({ length: 20 }, (_, i) => `t-${i}`);
    const calls = names.flatMap((name) => [
      remote.createTopic({ name, partitionCount: 1, configs: {}, createdAtMs: 1 }),
      remote.getTopic(name),
    ]);
    const answers = await Promise.all(calls);
    assert(answers.every((topic) => topic !== null));
    assert.deepEqual(
      faulty.calls.map(({ args: [arg] }) => (typeof arg === 'string' ? arg : (arg as { name: string }).name)),
      names.flatMap((name) => [name, name]),
    );
    assert(housekeeping >= 19);
    await remote.close();
  });

  it('carries errors with code, message and detail, to the call they belong to', async () => {
    const { remote } = connected(new MemoryMetadataStore(undefined, { bodyBytesMax: 5 }));
    await remote.initCluster(CLUSTER);
    const bad = remote.readHead(9);
    const good = remote.readHead(3);
    await assert.rejects(bad, { name: 'StreamHouseError', code: 'shard-not-found', message: /shard 9/ });
    assert.equal((await good).shard, 3);
    const tooLarge = remote.putCheckpoint(0, { seq: 1, writer: 1 }, new Uint8Array(6));
    await assert.rejects(tooLarge, { code: 'item-too-large', detail: { bytes: 6, bytesMax: 5 } });
  });

  it('leaves the caller its bytes, views of a pool included, and sends only what they show', async () => {
    const { remote } = connected(new MemoryMetadataStore());
    await remote.initCluster(CLUSTER);
    await remote.acquireLeases(1, [{ shard: 0, holder: 0, epoch: 0 }]);
    const pooled = Buffer.from('pooled');
    const body = new Uint8Array(new ArrayBuffer(100), 40, 4).fill(7);
    const append = remote.appendEntries([{ shard: 0, seq: 1, epoch: 1, commitId: 'a', body }], []);
    const put = remote.putCheckpoint(0, { seq: 1, writer: 1 }, pooled);
    const page = { topicId: 1, partition: 0, shard: 0, baseOffset: 0, stamp: 1, bytes: pooled };
    const pages = remote.putPages([page, { ...page, baseOffset: 10 }]);
    body.fill(8);
    assert.equal(body.length, 4);
    assert.equal(pooled.toString(), 'pooled');
    await Promise.all([append, put, pages]);
    assert.equal(pooled.toString(), 'pooled');
    const [entry] = await remote.readEntries(0, 0, 1e6);
    assert.deepEqual(entry.body, new Uint8Array(4).fill(7));
    assert.equal(entry.body.buffer.byteLength, 4);
    const found = await remote.findPages([
      { topicId: 1, partition: 0, offset: 3 },
      { topicId: 2, partition: 0, offset: 3 },
      { topicId: 1, partition: 0, offset: 30 },
    ]);
    assert.deepEqual(found, [
      { ...page, bytes: new Uint8Array(pooled) },
      null,
      { ...page, baseOffset: 10, bytes: new Uint8Array(pooled) },
    ]);
  });

  it('fails outstanding writes as unknown and reads as unavailable when the port closes', async () => {
    const faulty = new FaultyMetadataStore(new MemoryMetadataStore());
    const { remote, served } = connected(faulty);
    await remote.initCluster(CLUSTER);
    faulty.inject({ on: () => true, effect: { kind: 'hang' } });
    const outstanding = [
      remote.allocateProducerIds(1),
      remote.readHead(0),
      remote.appendEntries([], []),
      remote.listTopics({ limit: 1 }),
    ];
    await new Promise((resolve) => setTimeout(resolve, 20));
    served.close();
    const expected = ['store-unknown', 'store-unavailable', 'store-unknown', 'store-unavailable'];
    assert.deepEqual(await Promise.all(outstanding.map(codeOf)), expected);
    assert.equal(await codeOf(remote.allocateProducerIds(1)), 'store-unavailable');
    assert.equal(await codeOf(remote.readHead(0)), 'store-unavailable');
    await remote.close();
  });

  it('waits for outstanding answers when it is closed, and takes no more', async () => {
    const faulty = new FaultyMetadataStore(new MemoryMetadataStore());
    const { remote } = connected(faulty);
    await remote.initCluster(CLUSTER);
    const { promise, resolve } = Promise.withResolvers<void>();
    faulty.inject({ on: 'readHead', effect: { kind: 'delay', before: promise } });
    const read = remote.readHead(2);
    const closed = remote.close();
    assert.equal(await codeOf(remote.readHead(1)), 'store-unavailable');
    resolve();
    assert.equal((await read).shard, 2);
    await closed;
  });

  it('fails the calls of a turn that cannot be cloned, and only these', async () => {
    const { remote } = connected(new MemoryMetadataStore());
    await remote.initCluster(CLUSTER);
    const hopeless = { a: () => undefined } as unknown as Record<string, string>;
    await assert.rejects(remote.alterTopic('a', hopeless), { name: 'DataCloneError' });
    assert.equal((await remote.readHead(1)).shard, 1);
  });

  it('is not stopped by one port that closes while others go on', async () => {
    const store = new MemoryMetadataStore();
    await store.initCluster(CLUSTER);
    const [a, b] = [connected(store), connected(store)];
    await a.remote.readHead(0);
    await a.remote.close();
    assert.equal((await b.remote.readHead(0)).shard, 0);
  });
});

describe('the storing thread', () => {
  /** Opens a fresh file, runs `test`, and ends everything. */
  async function onFreshFile(test: (opened: Awaited<ReturnType<typeof openMetadata>>) => Promise<void>) {
    const folder = await mkdtemp(join(tmpdir(), 'streamhouse-'));
    const opened = await openMetadata(`sqlite:${join(folder, 'metadata.sqlite')}`, { role: 'broker' });
    try {
      await test(opened);
    } finally {
      await opened.close();
      await rm(folder, { recursive: true });
    }
  }

  it('that ends leaves nobody waiting, on any thread, and frees the file', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'streamhouse-'));
    const url = `sqlite:${join(folder, 'metadata.sqlite')}`;
    const opened = await openMetadata(url, { role: 'broker' });
    await opened.store.initCluster(CLUSTER);
    const other = attachMetadata(opened.threadHandle().handle);
    assert.equal((await other.readHead(1)).shard, 1);
    // A parameter that SQLite cannot bind is a bug of ours; it ends the thread, loudly.
    const bug = codeOf(opened.store.getTopic({} as unknown as string));
    const write = codeOf(other.allocateProducerIds(1));
    assert.equal(await bug, 'store-unavailable');
    assert(['ok', 'store-unknown'].includes(await write));
    await assert.rejects(opened.lost, RangeError);
    assert.equal(await codeOf(other.readHead(1)), 'store-unavailable');
    assert.equal(await codeOf(opened.store.readHead(1)), 'store-unavailable');
    // A handle made after the death is as dead as the thread.
    const late = attachMetadata(opened.threadHandle().handle);
    assert.equal(await codeOf(late.readHead(1)), 'store-unavailable');
    await opened.close();
    const again = await openMetadata(url, { role: 'broker' });
    assert.equal((await again.store.getCluster())?.clusterId, 'c');
    await again.close();
    await rm(folder, { recursive: true });
  });

  it('serves clients on other threads', () =>
    onFreshFile(async ({ store, threadHandle }) => {
      await store.initCluster(CLUSTER);
      const module = new URL('../../../../storage/metadata/open-metadata-store.ts', import.meta.url);
      const code = `
        import { parentPort, workerData } from 'node:worker_threads';
        const { attachMetadata } = await import(${JSON.stringify(module.href)});
        const store = attachMetadata(workerData);
        const ids = await Promise.all(Array.from({ length: 50 }, () => store.allocateProducerIds(2)));
        await store.close();
        parentPort.postMessage(ids);`;
      const workers = [1, 2].map(() => {
        const { handle, transfer } = threadHandle();
        const source = new URL(`data:text/javascript,${encodeURIComponent(code)}`);
        return new Worker(source, { workerData: handle, transferList: transfer });
      });
      const all = await Promise.all(
        workers.map(async (worker) => {
          const exit = once(worker, 'exit');
          const [ids] = (await once(worker, 'message')) as [number[]];
          await exit;
          return ids;
        }),
      );
      assert.equal(new Set(all.flat()).size, 100);
      assert.equal(await store.allocateProducerIds(1), 201);
    }));

  it('writes its WAL back between calls', () =>
    onFreshFile(async ({ store }) => {
      await store.initCluster(CLUSTER);
      await store.acquireLeases(1, [{ shard: 0, holder: 0, epoch: 0 }]);
      const path = store.description.slice('sqlite:'.length);
      const { statSync } = await import('node:fs');
      for (let seq = 1; seq <= 40; seq++) {
        const body = new Uint8Array(500_000);
        await store.appendEntries([{ shard: 0, seq, epoch: 1, commitId: `c-${seq}`, body }], []);
      }
      assert(statSync(path).size > 10_000_000, `database of ${statSync(path).size} bytes`);
      assert(statSync(`${path}-wal`).size < 12_000_000, `WAL of ${statSync(`${path}-wal`).size} bytes`);
    }));
});
