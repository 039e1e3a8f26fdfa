/**
 * `metadata copy` as a process that is killed with SIGKILL, later and later, until one run gets to its end: after
 * each, at most one of the two stores can be started, and the next run goes on.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { digestStore } from '../../src/move/row-digest.ts';
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { cli } from '../support/test-shell.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const SHARDS = 8;
const ENTRIES = 10;
const PAGES = 5000;
/** Earlier than a process can be done. */
const KILL_MS_FIRST = 100;
const KILL_MS_STEP = 80;
const RUNS_MAX = 100;

const folder = mkdtempSync(join(tmpdir(), 'streamhouse-copy-'));
after(() => rmSync(folder, { recursive: true }));
const [from, to] = ['source', 'target'].map((name) => `sqlite:${join(folder, name)}.db`);

async function fill(store: MetadataStore): Promise<void> {
  await store.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount: SHARDS, createdAtMs: 1 });
  const shards = Array.from({ length: SHARDS }, (_, shard) => shard);
  await store.acquireLeases(
    1,
    shards.map((shard) => ({ shard, holder: 0, epoch: 0 })),
  );
  const body = new Uint8Array(50_000).fill(7);
  for (let seq = 1; seq <= ENTRIES; seq++) {
    const entries = shards.map((shard) => ({ shard, seq, epoch: 1, commitId: `c-${shard}-${seq}`, body }));
    await store.appendEntries(entries, []);
  }
  for (let first = 0; first < PAGES; first += 1000) {
    const pages = Array.from({ length: 1000 }, (_, i) => {
      const partition = first + i;
      return {
        topicId: 1,
        partition,
        shard: partition % SHARDS,
        baseOffset: 0,
        stamp: 1,
        bytes: body.subarray(0, 500),
      };
    });
    await store.putPages(pages);
  }
}

/** Whether a broker would start on it; false where there is no store yet. */
async function isStartable(url: string): Promise<boolean> {
  const opened = await openMetadata(url, { role: 'reader' }).catch(() => null);
  const cluster = await opened?.store.getCluster();
  await opened?.close();
  return cluster !== undefined && cluster !== null && cluster.movedTo === null;
}

/** Exit code, or null when the kill came first. */
async function copyKilledAfter(ms: number): Promise<number | null> {
  const args = [MAIN, 'metadata', 'copy', '--from', from, '--to', to];
  const child = spawn(process.execPath, args, { stdio: 'ignore' });
  const timer = setTimeout(() => child.kill('SIGKILL'), ms);
  const [code] = (await once(child, 'exit')) as [number | null];
  clearTimeout(timer);
  return code;
}

describe('a copy that is killed', () => {
  it('is completed by the next run, and two stores can never be started', async (test) => {
    const source = await openMetadata(from, { role: 'broker' });
    await fill(source.store);
    const before = await digestStore(source.store, () => undefined);
    await source.close();

    let runs = 0;
    for (let code: number | null = null; code === null && !(await isStartable(to)); runs++) {
      assert(runs < RUNS_MAX, 'no run ever gets to its end');
      code = await copyKilledAfter(KILL_MS_FIRST + runs * KILL_MS_STEP);
      const startable = [await isStartable(from), await isStartable(to)];
      assert(!(startable[0] && startable[1]), `both after run ${runs}`);
      assert(code === null || code === 0, `run ${runs} ended with ${code}`);
    }
    test.diagnostic(`${runs} runs`);
    assert(runs > 2, 'the first kills came too late');
    assert.deepEqual([await isStartable(from), await isStartable(to)], [false, true]);
    const again = await cli(['metadata', 'copy', '--from', from, '--to', to]);
    assert.match(again.stderr, /holds the finished copy of/);
    const target = await openMetadata(to, { role: 'reader' });
    const copied = await digestStore(target.store, () => undefined);
    await target.close();
    // A run that was killed behind the fence leaves the epochs raised and an id more.
    const other = copied
      .differencesFrom(before)
      .filter(({ group }) => group !== 'heads' && group !== 'last ids');
    assert.deepEqual(other, []);
  });
});
