/**
 * Copying a cluster between two stores: all rows, a crash between any two calls, replies that are lost, writers that
 * are alive or asleep, what an earlier run left.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Clock } from '../../../src/core/clock.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import { seededRandom } from '../../../src/core/random.ts';
import { type CopyParts, copyCluster } from '../../../src/move/copy-cluster.ts';
import { reopenStore } from '../../../src/move/reopen-store.ts';
import { digestStore } from '../../../src/move/row-digest.ts';
import { MemoryMetadataStore } from '../../../storage/metadata/memory/memory-metadata-store.ts';
import type { IndexPage, LogEntry, MetadataStore } from '../../../storage/metadata/metadata-store.ts';
import { ShardHolder } from '../../../workers/shard-holder.ts';
import { HookedMetadataStore } from '../../support/hooked-metadata-store.ts';

const SHARDS = 6;
const GROUPS = [
  { name: 'default', shards: 2 },
  { name: 'heavy', shards: 4 },
];

/** Every wait ends at once, and its time has passed. */
function skippingClock(): Clock {
  let nowMs = 0;
  return {
    wallMs: () => 1_700_000_000_000 + nowMs,
    monotonicMs: () => nowMs,
    after(delayMs, fire) {
      let live = true;
      setImmediate(() => {
        nowMs += delayMs;
        if (live) fire();
      });
      return { cancel: () => void (live = false) };
    },
  };
}

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function entry(shard: number, seq: number, epoch = 1): LogEntry {
  return { shard, seq, epoch, commitId: `c-${shard}-${seq}`, body: bytes(`entry ${shard}/${seq}`) };
}

function page(topicId: number, partition: number, baseOffset: number): IndexPage {
  const name = bytes(`page ${topicId}/${partition}/${baseOffset}`);
  return { topicId, partition, shard: partition % SHARDS, baseOffset, stamp: 3, bytes: name };
}

/** Some of everything: an empty shard, trimmed ones, pages of a deleted topic, objects in every state. */
async function fill(store: MetadataStore): Promise<void> {
  await store.initCluster({
    clusterId: 'c',
    storeIncarnation: 's-A',
    shardCount: SHARDS,
    groups: GROUPS,
    createdAtMs: 5,
  });
  await store.registerAgent({
    agentId: 'a',
    address: 'x:1',
    zone: '',
    group: '',
    version: '',
    registeredAtMs: 1,
  });
  await store.deregisterAgent('a', 1);
  const seen = Array.from({ length: SHARDS - 1 }, (_, shard) => ({ shard, holder: 0, epoch: 0 }));
  await store.acquireLeases(1, seen);
  for (const name of ['kept', 'grown', 'deleted', 'forgotten']) {
    await store.createTopic({ name, partitionCount: 2, configs: { b: '1', a: 'ü' }, createdAtMs: 7 });
  }
  await store.growTopic('grown', 9);
  await store.deleteTopic('deleted');
  await store.forgetDeletedTopic((await store.deleteTopic('forgotten')).topicId);
  await store.allocateProducerIds(1000);
  for (let seq = 1; seq <= 10; seq++) {
    const objects = [
      {
        object: { incarnation: 1, number: seq },
        bytes: 9,
        createdAtMs: seq,
        shards: [{ shard: 0, epoch: 1 }],
      },
    ];
    await store.appendEntries(
      seen.map(({ shard }) => entry(shard, seq)),
      objects,
    );
  }
  await store.dropReferences(
    [1, 2].map((number) => ({ shard: 0, object: { incarnation: 1, number }, belowEpoch: null })),
  );
  await store.markObjects([{ incarnation: 1, number: 1 }], 99);
  for (const shard of [1, 2]) {
    const pointer = { seq: shard === 1 ? 6 : 10, writer: 1 };
    await store.putCheckpoint(shard, pointer, bytes(`checkpoint ${shard}`));
    await store.movePointer(shard, 1, pointer);
    await store.trim(shard, pointer.seq);
  }
  for (const partition of [0, 1, 5]) {
    await store.putPages([0, 256, 512].map((base) => page(1, partition, base)));
    await store.putPages([page(3, partition, 0)]);
  }
}

interface Rig {
  source: HookedMetadataStore;
  target: HookedMetadataStore;
  said: string[];
  copy(more?: Partial<CopyParts>): ReturnType<typeof copyCluster>;
}

let seeds = 0;

async function rig(): Promise<Rig> {
  const source = new HookedMetadataStore(new MemoryMetadataStore(), 'store A');
  const target = new HookedMetadataStore(new MemoryMetadataStore(), 'store B');
  await fill(source);
  const said: string[] = [];
  const copy = (more: Partial<CopyParts> = {}) =>
    copyCluster({
      source,
      target,
      ownsSource: false,
      force: false,
      keepSource: false,
      clock: skippingClock(),
      random: seededRandom(++seeds),
      stop: new AbortController().signal,
      say: (line) => void said.push(line),
      progress: () => undefined,
      ...more,
    });
  return { source, target, said, copy };
}

async function isStartable(store: MetadataStore): Promise<boolean> {
  const cluster = await store.getCluster();
  return cluster !== null && cluster.movedTo === null;
}

async function fails(code: string, message: RegExp, promise: Promise<unknown>): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert(error instanceof StreamHouseError, `${error}`);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });
}

describe('a copied cluster', () => {
  it('has every row, is of the next generation, and goes on where the source stopped', async () => {
    const { source, target, copy } = await rig();
    const before = await digestStore(source, () => undefined);
    const { opened, differences } = await copy();
    assert.deepEqual(differences, []);
    assert.deepEqual(
      ['heads', 'checkpoints', 'entries', 'pages', 'topics', 'deleted topics', 'objects'].map(
        (group) => before.total(group as 'heads').count,
      ),
      [6, 2, 34, 12, 2, 1, 10],
    );
    const marked = await source.getCluster();
    assert.equal(marked?.movedTo, opened?.storeIncarnation);
    assert.deepEqual(await target.getCluster(), {
      clusterId: 'c',
      storeIncarnation: marked?.movedTo,
      shardCount: SHARDS,
      groups: GROUPS,
      createdAtMs: 5,
      generation: 2,
      copiedFrom: 's-A',
      movedTo: null,
    });
    const after = await digestStore(target, () => undefined);
    // The last ids of the source rose by the fence's own.
    assert.deepEqual(after.differencesFrom(before), [{ group: 'last ids', shards: [] }]);
    assert.deepEqual(await target.getLastIds(), { topic: 4, incarnation: 2, producer: 1000 });
    assert.deepEqual(await target.appendEntries([entry(0, 11)], []), [{ kind: 'done' }]);
    assert.equal(await target.allocateProducerIds(1), 1001);
    assert.deepEqual(await target.listAgents(), []);
    assert.ok((await target.listLeases()).every(({ holder }) => holder === 0));
    await fails('conflict', /store B holds the finished copy of store A/, copy());
  });

  it('is mended by a second run after a crash between any two calls, and never two stores can be started', async () => {
    class Crash extends Error {}
    const ended = { crashes: 0, closed: 0 };
    for (const [which, when] of [
      ['source', 'before'],
      ['source', 'after'],
      ['target', 'before'],
      ['target', 'after'],
    ] as const) {
      for (let at = 1; ; at++) {
        const { source, target, copy } = await rig();
        const stores = { source, target };
        let calls = 0;
        stores[which].hook = (_method, now) => {
          if (now === when && ++calls === at) throw new Crash();
        };
        const crashed = await copy().then(
          () => false,
          (error: unknown) => error instanceof Crash,
        );
        source.hook = target.hook = () => undefined;
        const startable = [await isStartable(source), await isStartable(target)];
        assert(!(startable[0] && startable[1]), `both after ${which} ${when} ${at}`);
        if (!crashed) break;
        ended.crashes++;
        if (!startable[0] && !startable[1]) ended.closed++;
        if (startable[1]) {
          await fails('conflict', /finished copy/, copy());
        } else {
          const { opened, differences } = await copy();
          assert.deepEqual(differences, []);
          assert.notEqual(opened, null);
        }
        assert.deepEqual([await isStartable(source), await isStartable(target)], [false, true]);
        const { epoch } = await target.readHead(0);
        assert.deepEqual(await target.appendEntries([entry(0, 11, epoch)], []), [{ kind: 'done' }]);
      }
    }
    assert(ended.crashes > 80, `${ended.crashes} crashes`);
    assert(ended.closed > 10, `${ended.closed} of them left both closed`);
  });

  it('may be given up after a crash: the source is reopened and goes on', async () => {
    const { source, target, copy } = await rig();
    target.hook = (method) => {
      if (method === 'importCluster') throw new Error('crash');
    };
    await assert.rejects(copy(), /crash/);
    assert.deepEqual([await isStartable(source), await isStartable(target)], [false, false]);
    await reopenStore(source, null);
    assert.deepEqual([await isStartable(source), await isStartable(target)], [true, false]);
    assert.equal(await reopenStore(source, null), null);
    target.hook = () => undefined;
    const { opened } = await copy();
    assert.equal(opened?.generation, 3);
  });

  it('comes about although calls fail and replies are lost', async () => {
    for (const code of ['store-unavailable', 'store-unknown'] as const) {
      for (const when of ['before', 'after'] as const) {
        const { source, target, copy } = await rig();
        const struck = new Map<string, number>();
        for (const store of [source, target]) {
          // Each method fails at its first two calls.
          store.hook = (method, now) => {
            const key = `${store.description} ${method}`;
            const times = struck.get(key) ?? 0;
            if (now !== when || times === 2) return;
            struck.set(key, times + 1);
            throw new StreamHouseError(code, 'no answer');
          };
        }
        const { differences, opened } = await copy();
        assert.deepEqual(differences, []);
        assert.notEqual(opened, null);
        assert(struck.size > 15);
        source.hook = target.hook = () => undefined;
        assert.deepEqual([await isStartable(source), await isStartable(target)], [false, true]);
      }
    }
  });

  it('is not opened when the target holds what the source has no more, and says where', async () => {
    const leftovers: [string, (target: MetadataStore) => Promise<unknown>][] = [
      ['heads', (target) => target.importRows({ heads: [{ ...HEAD, shard: SHARDS }] })],
      ['entries', (target) => target.importRows({ entries: [entry(0, 11)] })],
      ['pages', (target) => target.putPages([page(9, 0, 0)])],
      ['pages', (target) => target.putPages([{ ...page(1, 0, 0), bytes: bytes('other') }])],
      ['checkpoints', (target) => target.putCheckpoint(1, { seq: 6, writer: 1 }, bytes('other'))],
      ['topics', (target) => target.importRows({ topics: [{ ...TOPIC, name: 'gone meanwhile' }] })],
      ['deleted topics', (target) => target.importRows({ deletedTopics: [TOPIC] })],
      [
        'objects',
        (target) =>
          target.importRows({
            objects: [
              { object: { incarnation: 9, number: 1 }, bytes: 1, createdAtMs: 1, shards: [], markedAtMs: 1 },
            ],
          }),
      ],
      ['last ids', (target) => target.importRows({ lastIds: { topic: 0, incarnation: 0, producer: 9999 } })],
    ];
    for (const [group, leave] of leftovers) {
      const { source, target, copy } = await rig();
      await target.importRows({ heads: await source.listLeases() });
      await leave(target);
      const { differences, opened } = await copy();
      assert.deepEqual(
        differences.map((difference) => difference.group),
        [group],
      );
      assert.equal(opened, null);
      assert.deepEqual([await isStartable(source), await isStartable(target)], [true, false]);
    }
  });

  it('is given up, and the source given back, when something is committed after the verification', async () => {
    const deletion = (source: MetadataStore) => source.deleteTopic('kept');
    const commits: ((source: MetadataStore) => Promise<unknown>)[] = [
      (source) => source.appendEntries([entry(3, 11)], []),
      (source) => source.createTopic({ name: 'late', partitionCount: 1, configs: {}, createdAtMs: 1 }),
      (source) => source.growTopic('kept', 20),
      (source) => source.alterTopic('kept', { a: 'other' }),
      deletion,
    ];
    for (const commit of commits) {
      const { source, target, copy } = await rig();
      source.hook = async (method, when) => {
        if (method !== 'setMovedTo' || when !== 'before') return;
        source.hook = () => undefined;
        await commit(source);
      };
      await fails('conflict', /store A was written to during the copy \((shard 3|topics)\)/, copy());
      assert.deepEqual([await isStartable(source), await isStartable(target)], [true, false]);
      const { opened, differences } = await copy();
      // What is gone from the source is in the target still: that one is not opened, ever.
      if (commit === deletion) assert.deepEqual(differences, [{ group: 'topics', shards: [] }]);
      else assert.notEqual(opened, null);
    }
  });

  it('that slept while another copy took over neither marks the source anew nor gives it back', async () => {
    for (const isWritten of [true, false]) {
      const { source, target, copy } = await rig();
      const third = new HookedMetadataStore(new MemoryMetadataStore(), 'store C');
      let other: Awaited<ReturnType<typeof copyCluster>> | undefined;
      source.hook = async (method, when) => {
        if (method !== 'setMovedTo' || when !== 'before') return;
        source.hook = () => undefined;
        if (isWritten) await source.appendEntries([entry(3, 11)], []);
        other = await copy({ target: third });
      };
      await fails('conflict', /is marked as moved to another store/, copy());
      assert.equal((await source.getCluster())?.movedTo, other?.opened?.storeIncarnation);
      const stores = [source, target, third];
      assert.deepEqual(await Promise.all(stores.map(isStartable)), [false, false, true]);
    }
  });

  it('fences a writer that slept through it: neither its append nor its takeover comes through', async () => {
    const { source, copy } = await rig();
    await copy();
    const [outcome] = await source.appendEntries([entry(4, 11)], []);
    assert.equal(outcome.kind, 'conflict');
    const holder = new ShardHolder(4, {
      store: source,
      clock: skippingClock(),
      random: seededRandom(1),
      stopped: new AbortController().signal,
      onUnknown: () => undefined,
      incarnation: 1,
      shardCount: SHARDS,
      epochsHad: new Map(),
      nextCommitNumber: () => 1,
      wasAbandoned: () => false,
    });
    await fails('cluster-mismatch', /copied to another/, holder.take(await source.readHead(4), 0));
    assert.equal(holder.phase, 'lost');
    assert.equal((await source.readHead(4)).headSeq, 10);
  });

  it('is not made beside a live broker; a dead one is watched, and nobody waits when there is none', async () => {
    const agent = { agentId: 'b-1', address: 'h:1', zone: '', group: '', version: '', registeredAtMs: 1 };
    const dead = await rig();
    await dead.source.registerAgent(agent);
    const { opened } = await dead.copy();
    assert.notEqual(opened, null);
    assert.match(dead.said.join('\n'), /registered in store A \(b-1\): watching for 7.5 s/);

    const alive = await rig();
    const { incarnation } = await alive.source.registerAgent(agent);
    let looks = 0;
    alive.source.hook = async (method, when) => {
      if (method === 'listAgents' && when === 'before' && ++looks === 10) {
        await alive.source.heartbeat('b-1', incarnation);
      }
    };
    await fails('conflict', /broker b-1 \(h:1\) runs on store A: stop all brokers first/, alive.copy());
    assert.equal(await alive.target.getCluster(), null);
    assert.equal((await alive.target.listLeases()).length, 0);
    alive.source.hook = () => undefined;
    assert.notEqual((await alive.copy({ force: true })).opened, null);

    const none = await rig();
    await none.copy();
    assert.deepEqual(none.said, []);
    const owned = await rig();
    await owned.source.registerAgent(agent);
    await owned.copy({ ownsSource: true });
    assert.deepEqual(owned.said, []);
  });

  it('is only a rehearsal if the source is kept: nothing of it changes, and no broker starts on the copy', async () => {
    const { source, target, copy } = await rig();
    const before = [await source.getCluster(), await source.listLeases(), await source.getLastIds()];
    const { differences, opened } = await copy({ keepSource: true });
    assert.deepEqual([differences, opened], [[], null]);
    assert.deepEqual(
      [await source.getCluster(), await source.listLeases(), await source.getLastIds()],
      before,
    );
    assert.equal(await target.getCluster(), null);
    await fails(
      'conflict',
      /a copy of a cluster that was not finished/,
      target.initCluster({ clusterId: 'x', storeIncarnation: 'y', shardCount: 1, createdAtMs: 1 }),
    );
    assert.notEqual((await copy()).opened, null);
  });

  it('is refused over another cluster, of nothing, and of a source that was moved elsewhere', async () => {
    const { source, target, copy } = await rig();
    const other = new MemoryMetadataStore();
    await fails('conflict', /memory holds no cluster/, copy({ source: other }));
    await other.initCluster({ clusterId: 'o', storeIncarnation: 's-O', shardCount: 1, createdAtMs: 1 });
    await fails(
      'conflict',
      /memory holds cluster o \(generation 1\): copy into an empty/,
      copy({ target: other }),
    );
    await copy();
    const third = new HookedMetadataStore(new MemoryMetadataStore(), 'store C');
    await fails('cluster-mismatch', /store A was copied to another store already/, copy({ target: third }));
    assert.equal((await third.listLeases()).length, 0);
    // The way back: from the copy, into an empty store.
    const { opened } = await copy({ source: target, target: third });
    assert.deepEqual([opened?.generation, opened?.clusterId], [3, 'c']);
    assert.deepEqual(
      [await isStartable(source), await isStartable(target), await isStartable(third)],
      [false, false, true],
    );
  });

  it('ends where it is when it is stopped, and a second run completes it', async () => {
    const { target, copy } = await rig();
    const stop = new AbortController();
    target.hook = (method) => {
      if (method === 'putPages') stop.abort();
    };
    await assert.rejects(copy({ stop: stop.signal }), { name: 'AbortError' });
    target.hook = () => undefined;
    assert.notEqual((await copy()).opened, null);
  });

  it('is opened all the same when it is stopped between mark and opening', async () => {
    const { source, target, copy } = await rig();
    const stop = new AbortController();
    source.hook = (method) => {
      if (method === 'setMovedTo') stop.abort();
    };
    assert.notEqual((await copy({ stop: stop.signal })).opened, null);
    assert.deepEqual([await isStartable(source), await isStartable(target)], [false, true]);
  });
});

const HEAD = {
  shard: 0,
  headSeq: 0,
  headCommitId: '',
  epoch: 0,
  holder: 0,
  checkpoint: null,
  trimmedThrough: 0,
};
const TOPIC = { topicId: 4, name: 'forgotten', partitionCount: 1, configs: {}, createdAtMs: 1, version: 2 };
