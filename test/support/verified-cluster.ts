/**
 * A healthy cluster for tests of `verify`: a real broker makes it once, on SQLite and a directory, with hundreds of
 * partitions, several pages in one, checkpoints, trimmed logs and a tail behind each pointer. Owns: making it, and
 * copies of its database to damage. Does not own: the damage.
 */
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import Database from 'better-sqlite3';
import { startBroker } from '../../src/compose.ts';
import { systemClock } from '../../src/core/clock.ts';
import { readSettings } from '../../src/settings.ts';
import { type VerifyReport, verifyCluster } from '../../src/verify/verify.ts';
import { openSqliteConnection } from '../../storage/metadata/sqlite/sqlite-connection.ts';
import { SqliteMetadataStore } from '../../storage/metadata/sqlite/sqlite-metadata-store.ts';
import { MemoryObjectStore } from '../../storage/objects/memory-object-store.ts';
import { batchObjectKey } from '../../storage/objects/object-key.ts';
import { cli } from './test-shell.ts';

export const WIDE = { topic: 'wide', partitions: 300 };
export const LONG = { topic: 'long', partition: 0 };
/** Appends to the one partition of LONG, each a segment: three pages, the last one open. */
const LONG_APPENDS = 600;
const APPENDS_IN_FLIGHT = 16;

export interface VerifiedCluster {
  directory: string;
  /** The records acknowledged, of all topics that are left. */
  records: number;
  /** All that lies in the bucket. */
  objects: Map<string, Buffer>;
  remove(): void;
}

/** Three brokers, one after the other: every epoch ends with checkpoints, but the last, which has a tail. */
export async function makeCluster(): Promise<VerifiedCluster> {
  const directory = mkdtempSync(join(tmpdir(), 'streamhouse-verify-'));
  const live = join(directory, 'live');
  await withBroker(live, {}, fillWide);
  // Every append is sealed alone, so that it becomes a segment of its own.
  await withBroker(live, { 'flush-slices-max': '1' }, fillLong);
  await withBroker(live, {}, async (url) => {
    await run(url, [...KEYED, '--idempotent'], lines(200));
    const database = new Database(join(live, 'metadata.db'), { readonly: true });
    database.prepare('VACUUM INTO ?').run(join(directory, 'healthy.db'));
    database.close();
  });
  const bucket = join(live, 'objects');
  const objects = new Map<string, Buffer>();
  for (const file of readdirSync(bucket, { recursive: true, withFileTypes: true })) {
    if (!file.isFile()) continue;
    const path = join(file.parentPath, file.name);
    objects.set(relative(bucket, path), readFileSync(path));
  }
  const remove = (): void => rmSync(directory, { recursive: true, force: true });
  return { directory, records: 5000 + 300 + LONG_APPENDS + 200, objects, remove };
}

async function withBroker(
  data: string,
  more: Record<string, string>,
  use: (url: string) => Promise<void>,
): Promise<void> {
  const flags = {
    data,
    listen: '127.0.0.1:0',
    lanes: '2',
    'flush-window': '1ms',
    'checkpoint-log-bytes': '4KiB',
    'log-level': 'silent',
    ...more,
  };
  const broker = await startBroker(readSettings({ flags, env: {} }));
  try {
    await use(broker.url);
  } finally {
    await broker.close();
  }
}

async function run(url: string, args: string[], stdin = ''): Promise<void> {
  const result = await cli([...args, '--url', url], { stdin });
  if (result.code !== 0) throw new Error(`${args.join(' ')}: ${result.stderr}`);
}

const KEYED = ['produce', WIDE.topic, '--format', 'json', '--key-field', 'key', '--batch-records', '500'];

function lines(count: number): string {
  return Array.from({ length: count }, (_, i) => `{"key":${i % 997},"text":"value ${i}"}\n`).join('');
}

async function fillWide(url: string): Promise<void> {
  await run(url, ['topics', 'create', WIDE.topic, '--partitions', String(WIDE.partitions)]);
  await run(url, ['topics', 'create', LONG.topic, '--partitions', '1']);
  await run(url, ['topics', 'create', 'gone', '--partitions', '20']);
  await run(url, ['produce', 'gone'], 'one\ntwo\n'.repeat(50));
  await run(url, KEYED, lines(5000));
  await run(url, [...KEYED, '--idempotent'], lines(300));
  await run(url, ['topics', 'delete', 'gone']);
}

async function fillLong(url: string): Promise<void> {
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < LONG_APPENDS) {
      const value = `append ${String(next++).padStart(6, '0')}`;
      const answer = await fetch(`${url}/topics/${LONG.topic}/partitions/${LONG.partition}`, {
        method: 'POST',
        headers: { 'content-type': 'application/vnd.kafka.json.v2+json' },
        body: JSON.stringify({ records: [{ value }] }),
      });
      if (answer.status !== 200) throw new Error(`${value}: ${answer.status} ${await answer.text()}`);
      await answer.arrayBuffer();
    }
  };
  await Promise.all(Array.from({ length: APPENDS_IN_FLIGHT }, work));
}

/** A copy of the healthy database and of what lies in the bucket, for a test to damage. */
export class DamagedCluster {
  readonly database: Database.Database;
  readonly files: Map<string, Buffer>;
  readonly #path: string;

  constructor(cluster: VerifiedCluster) {
    this.files = new Map(cluster.objects);
    this.#path = join(cluster.directory, 'damaged.db');
    copyFileSync(join(cluster.directory, 'healthy.db'), this.#path);
    this.database = new Database(this.#path);
  }

  objectKey(incarnation: number, number: number): string {
    return batchObjectKey(incarnation, number);
  }

  /** Changes what lies under a key (null: nothing any more). */
  changeFile(key: string, change: (bytes: Buffer) => Buffer | null): void {
    const before = this.files.get(key);
    if (before === undefined) throw new Error(`there is no ${key}`);
    const after = change(Buffer.from(before));
    if (after === null) this.files.delete(key);
    else this.files.set(key, after);
  }

  /** Verifies as the command does, within this thread and with the bucket in memory. */
  async verify({ deep = false, topic = null as string | null } = {}): Promise<VerifyReport> {
    const connection = await openSqliteConnection({ path: this.#path, role: 'reader', clock: systemClock });
    const store = new SqliteMetadataStore(connection);
    const objects = new MemoryObjectStore(systemClock);
    for (const [key, bytes] of this.files) await objects.put(key, bytes);
    const cluster = await store.getCluster();
    if (cluster === null) throw new Error('the database has no cluster');
    const stop = new AbortController().signal;
    const progress = (): void => undefined;
    try {
      return await verifyCluster({
        store,
        objects,
        cluster,
        clock: systemClock,
        stop,
        deep,
        topic,
        progress,
      });
    } finally {
      await store.close();
    }
  }

  /** The flags that name these stores, the bucket written to a directory. */
  settings(): string[] {
    const bucket = `${this.#path}.objects`;
    for (const [key, bytes] of this.files) {
      mkdirSync(dirname(join(bucket, key)), { recursive: true });
      writeFileSync(join(bucket, key), bytes);
    }
    return ['--metadata', `sqlite:${this.#path}`, '--objects', `file:${bucket}`];
  }

  close(): void {
    this.database.close();
    rmSync(this.#path, { force: true });
    rmSync(`${this.#path}.objects`, { recursive: true, force: true });
  }
}
