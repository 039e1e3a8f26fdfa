/**
 * Which metadata store may be started on a bucket: the first one, a copy after its source, one of two copies, the
 * source after it was given back; and which is refused.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { joinCluster } from '../../src/cluster-stamp.ts';
import { systemClock } from '../../src/core/clock.ts';
import { StreamHouseError } from '../../src/core/errors.ts';
import { systemRandom } from '../../src/core/random.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import { copyCluster } from '../../src/move/copy-cluster.ts';
import { reopenStore } from '../../src/move/reopen-store.ts';
import { checkClusterStamp } from '../../src/verify/stamp-check.ts';
import { MemoryMetadataStore } from '../../storage/metadata/memory/memory-metadata-store.ts';
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { claimGenerations, clusterStampKey, readNewestStamp } from '../../storage/objects/cluster-stamps.ts';
import { MemoryObjectStore } from '../../storage/objects/memory-object-store.ts';
import { HookedMetadataStore } from '../support/hooked-metadata-store.ts';

let bucketCount = 0;

class Bucket {
  readonly name = `stamps-${++bucketCount}`;
  readonly objects = new MemoryObjectStore(systemClock, this.name);

  start(store: MetadataStore): Promise<unknown> {
    return joinCluster({
      store,
      metadataUrl: `nosuch://user:secret@host/${store.description}`,
      objectsUrl: `memory:${this.name}`,
      layout: oneGroup(2),
      clock: systemClock,
      random: systemRandom,
    });
  }

  async refuses(store: MetadataStore, message: RegExp): Promise<void> {
    await assert.rejects(this.start(store), (error: unknown) => {
      assert(error instanceof StreamHouseError, `${error}`);
      assert.equal(error.code, 'cluster-mismatch');
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n|secret/);
      return true;
    });
  }

  async stamps(): Promise<string[]> {
    return (await this.objects.list('', { limit: 100 })).map(({ key }) => key);
  }
}

function newStore(name: string): HookedMetadataStore {
  return new HookedMetadataStore(new MemoryMetadataStore(), name);
}

async function copy(source: MetadataStore, target: MetadataStore, keepSource = false): Promise<void> {
  const { differences } = await copyCluster({
    source,
    target,
    ownsSource: true,
    force: false,
    keepSource,
    clock: systemClock,
    random: systemRandom,
    stop: new AbortController().signal,
    say: () => undefined,
    progress: () => undefined,
  });
  assert.deepEqual(differences, []);
}

/** A cluster that was started, with a record's object in it. */
async function started(bucket: Bucket): Promise<HookedMetadataStore> {
  const store = newStore('A');
  await bucket.start(store);
  const row = { object: { incarnation: 1, number: 0 }, bytes: 1, createdAtMs: 1, shards: [] };
  await store.appendEntries([], [row]);
  return store;
}

describe('the stamps of a bucket', () => {
  it('bind it to the first store, which starts again and again', async () => {
    const bucket = new Bucket();
    const a = await started(bucket);
    await Promise.all([bucket.start(a), bucket.start(a)]);
    assert.deepEqual(await bucket.stamps(), ['cluster.json']);
    await bucket.refuses(
      newStore('empty'),
      /^the metadata store empty is empty, but the objects at .* belong to cluster/,
    );
    const other = newStore('other');
    await new Bucket().start(other);
    await bucket.refuses(
      other,
      /^the objects at .* belong to cluster \w+, the metadata store to cluster \w+ \(other\)$/,
    );
    await new Bucket().refuses(a, /bear no cluster stamp, but cluster \w+ has objects/);
  });

  it('let a copy take over, and neither the source nor a copy of older days after it', async () => {
    const bucket = new Bucket();
    const [a, b, c] = [await started(bucket), newStore('B'), newStore('C')];
    await copy(a, b);
    await bucket.refuses(
      a,
      /^the metadata store A was copied to another one \([^)]+\), which is to be used; .*reopen --metadata nosuch:\/\/\*\*\*@host\/A`$/,
    );
    await bucket.start(b);
    await bucket.start(b);
    assert.deepEqual(await bucket.stamps(), ['cluster-2.json', 'cluster.json']);
    // Whatever becomes of the mark, the bucket knows.
    await a.setMovedTo(null, (await a.getCluster())?.movedTo ?? null);
    await bucket.refuses(a, /are used by a copy of the metadata store .* that was started since \(A\)$/);
    await copy(b, c);
    await bucket.refuses(b, /was copied to another one/);
    await bucket.start(c);
    assert.equal((await readNewestStamp(bucket.objects))?.generation, 3);
    await bucket.refuses(a, /that was started since/);
    for (const store of [a, b, c]) {
      const finding = await checkClusterStamp(bucket.objects, (await store.getCluster())!);
      assert.equal(finding?.kind, store === c ? undefined : 'cluster-stamp');
    }
  });

  it('decide between two copies of one source, also when both start at once', async () => {
    for (let round = 0; round < 20; round++) {
      const bucket = new Bucket();
      const [a, b, c] = [await started(bucket), newStore('B'), newStore('C')];
      await copy(a, b);
      await reopenStore(a, bucket.objects);
      await copy(a, c);
      await reopenStore(a, bucket.objects);
      // Generations 2 (B), 3 (C) and 3 (A itself).
      const ends = await Promise.allSettled([a, b, c].map((store) => bucket.start(store)));
      const winners = ends.flatMap(({ status }, i) => (status === 'fulfilled' ? [[a, b, c][i]] : []));
      assert.equal(winners.length, 1, `${winners.map(({ description }) => description)} started`);
      for (const store of [a, b, c]) {
        if (store === winners[0]) await bucket.start(store);
        else await bucket.refuses(store, /^the objects at .* (belong to|are used by)/);
      }
    }
  });

  it('decide between two that looked before either of them stamped', async () => {
    const bucket = new Bucket();
    const [a, b, c] = [await started(bucket), newStore('B'), newStore('C')];
    await copy(a, b);
    await reopenStore(a, bucket.objects);
    await copy(a, c);
    // C of generation 3 claims 2 as well, so that B cannot slip in below it.
    const [ofB, ofC] = [(await b.getCluster())!, (await c.getCluster())!];
    assert.deepEqual([ofB.generation, ofC.generation], [2, 3]);
    assert.equal(await claimGenerations(bucket.objects, 2, ofC), true);
    assert.equal(await claimGenerations(bucket.objects, 2, ofB), false);
    assert.equal(await claimGenerations(bucket.objects, 2, ofC), true);
    await bucket.refuses(b, /started since/);
    await bucket.start(c);
  });

  it('are completed after a crash between them', async () => {
    const bucket = new Bucket();
    const [a, c] = [await started(bucket), newStore('C')];
    await copy(a, newStore('B'));
    await reopenStore(a, bucket.objects);
    await copy(a, c);
    const cluster = (await c.getCluster())!;
    await bucket.objects.put(
      clusterStampKey(2),
      Buffer.from(
        `${JSON.stringify({ clusterId: cluster.clusterId, storeIncarnation: cluster.storeIncarnation })}\n`,
      ),
    );
    await bucket.start(c);
    assert.equal((await readNewestStamp(bucket.objects))?.generation, 3);
  });

  it('give a source that was reopened the right again, and take it from the copy', async () => {
    const bucket = new Bucket();
    const [a, b] = [await started(bucket), newStore('B')];
    await copy(a, b);
    await reopenStore(a, bucket.objects);
    // As long as no broker was started, verify takes either for right.
    for (const store of [a, b]) {
      assert.equal(await checkClusterStamp(bucket.objects, (await store.getCluster())!), null);
    }
    await bucket.start(a);
    await bucket.refuses(b, /belong to another incarnation of the metadata store/);
    await bucket.start(a);
  });

  it('refuse to reopen a source once a broker was started on the copy', async () => {
    const bucket = new Bucket();
    const [a, b] = [await started(bucket), newStore('B')];
    await copy(a, b);
    await bucket.start(b);
    await assert.rejects(reopenStore(a, bucket.objects), {
      code: 'cluster-mismatch',
      message: /are used by a copy .* started since: copy that one back instead/,
    });
    assert.notEqual((await a.getCluster())?.movedTo, null);
    // Without a look at the bucket it is refused at its start.
    await reopenStore(a, null);
    await bucket.refuses(a, /belong to another incarnation/);
    await bucket.start(b);
  });

  it('keep a copy off that was never finished, or whose source was never started here', async () => {
    const bucket = new Bucket();
    const [a, rehearsal, b, c] = [await started(bucket), newStore('R'), newStore('B'), newStore('C')];
    await copy(a, rehearsal, true);
    await bucket.refuses(rehearsal, /^the metadata store R holds a copy that was not finished: run/);
    await new Bucket().refuses(rehearsal, /holds a copy that was not finished/);
    await bucket.start(a);
    await copy(a, b);
    await copy(b, c);
    await bucket.refuses(c, /belong to the metadata store \w+, and this one was copied from another/);
    await reopenStore(b, bucket.objects);
    await bucket.start(b);
  });

  it('are read in the order of their numbers, and damage is named', async () => {
    const bucket = new Bucket();
    const put = (key: string, text: string) => bucket.objects.put(key, Buffer.from(text));
    const stamp = (storeIncarnation: string) => JSON.stringify({ clusterId: 'c', storeIncarnation });
    assert.equal(await readNewestStamp(bucket.objects), null);
    for (const generation of [1, 2, 9, 10]) await put(clusterStampKey(generation), stamp(`s-${generation}`));
    for (const foreign of [
      'cluster-11.json.bak',
      'cluster-x.json',
      'cluster-012.json',
      'clusters/cluster-99.json',
    ]) {
      await put(foreign, stamp('foreign'));
    }
    const newest = { generation: 10, clusterId: 'c', storeIncarnation: 's-10' };
    assert.deepEqual(await readNewestStamp(bucket.objects), newest);
    await put(clusterStampKey(11), 'no JSON');
    await assert.rejects(readNewestStamp(bucket.objects), {
      code: 'corrupt-object',
      message: /cluster-11\.json/,
    });
    const a = newStore('A');
    await a.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount: 1, createdAtMs: 1 });
    const finding = await checkClusterStamp(bucket.objects, (await a.getCluster())!);
    assert.match(finding?.found ?? '', /cluster-11\.json is not JSON/);
  });
});
