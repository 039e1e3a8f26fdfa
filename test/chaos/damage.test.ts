/**
 * Damage: objects whose bytes changed or that are gone, a metadata database that is cut short or rubbish, a disk
 * that is full. A reader is told by name and never given a wrong record; what is whole stays readable; a start on
 * a damaged database ends with one clear line.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  copyFile,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  truncate,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { BrokerProcess } from '../support/broker-process.ts';
import { httpCall } from '../support/http-call.ts';
import { ProduceLoad } from '../support/produce-load.ts';
import { RecordLedger } from '../support/record-ledger.ts';
import { startTestBroker, type TestBroker } from '../support/running-broker.ts';

const NAMED = ['corrupt-object', 'corrupt-batch'];

async function objectFiles(directory: string): Promise<string[]> {
  const entries = await readdir(join(directory, 'objects'), { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile() && !entry.parentPath.endsWith('.tmp'));
  return files.map((entry) => join(entry.parentPath, entry.name));
}

describe('damaged objects', () => {
  /** One object each; each is damaged at another place. */
  const OBJECTS = 40;
  const value = (i: number): string => `record ${i} ${'x'.repeat(50 + i)}`;
  let directory: string;
  let broker: TestBroker;
  let files: string[];

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'streamhouse-damage-'));
    broker = await startTestBroker({ data: directory, 'flush-window': '1ms' });
    await broker.client.createTopic({ name: 'damaged', partitionCount: 1 });
    await broker.client.createTopic({ name: 'whole', partitionCount: 1 });
    const known = new Set(await objectFiles(directory));
    files = [];
    for (let i = 0; i < OBJECTS; i++) {
      await broker.client.produceToPartition('damaged', 0, [{ value: value(i) }], 'json', null);
      const added = (await objectFiles(directory)).filter((file) => !known.has(file));
      assert.equal(added.length, 1);
      known.add(added[0]);
      files.push(added[0]);
    }
    const records = Array.from({ length: 10 }, (_, i) => ({ value: value(i) }));
    await broker.client.produceToPartition('whole', 0, records, 'json', null);
    await broker.close();
    for (const [i, file] of files.entries()) {
      // The last two: gone, and cut short.
      if (i === OBJECTS - 1) await unlink(file);
      else if (i === OBJECTS - 2) await truncate(file, (await stat(file)).size >> 1);
      else {
        const bytes = await readFile(file);
        bytes[Math.floor((bytes.length * i) / (OBJECTS - 2))] ^= 1 << (i % 8);
        await writeFile(file, bytes);
      }
    }
    broker = await startTestBroker({ data: directory });
  });

  after(async () => {
    await broker.close();
    await rm(directory, { recursive: true });
  });

  const read = (topic: string, offset: number) =>
    httpCall(`${broker.broker.url}/topics/${topic}/partitions/0/records?offset=${offset}&max_bytes=1`);

  it('are named to who reads them, and no wrong record is ever shown', async (t) => {
    let named = 0;
    for (let i = 0; i < OBJECTS; i++) {
      const { status, json, text } = await read('damaged', i);
      if (status === 200) {
        // The damage lies where nothing of this record is.
        assert.deepEqual([json[0].offset, json[0].value], [i, value(i)]);
        continue;
      }
      assert.deepEqual([status, json.error_code], [500, 50090], text);
      assert.ok(NAMED.includes(json.code), text);
      named++;
    }
    t.diagnostic(`${named} of ${OBJECTS} named`);
    assert.ok(named >= OBJECTS / 4);
    for (const i of [OBJECTS - 2, OBJECTS - 1]) assert.equal((await read('damaged', i)).status, 500);
  });

  it('leave other partitions and new records alone', async () => {
    for (let i = 0; i < 10; i++) assert.equal((await read('whole', i)).json[0].value, value(i));
    const [answer] = await broker.client.produceToPartition('damaged', 0, [{ value: 'new' }], 'json', null);
    assert.deepEqual(answer, { error: null, partition: 0, offset: OBJECTS });
    assert.equal((await read('damaged', OBJECTS)).json[0].value, 'new');
    assert.ok((await broker.metric('corrupt_slices_total')) > 0);
  });
});

describe('a damaged metadata database', () => {
  let directory: string;
  let database: string;

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'streamhouse-damage-'));
    database = join(directory, 'metadata.db');
    const broker = await startTestBroker({ data: directory, 'flush-window': '1ms' });
    await broker.client.createTopic({ name: 't', partitionCount: 50 });
    for (let i = 0; i < 20; i++) {
      const records = Array.from({ length: 50 }, (_, partition) => ({ value: i, partition }));
      await broker.client.produce('t', records, 'json');
    }
    await broker.close();
    await copyFile(database, `${database}.good`);
  });

  after(() => rm(directory, { recursive: true }));

  async function startsInVain(says: RegExp): Promise<void> {
    for (const suffix of ['-wal', '-shm']) await rm(database + suffix, { force: true });
    const end = await BrokerProcess.startInVain(['--data', directory, '--log-level', 'fatal']);
    assert.equal(end.signal, null, `it ended by itself: ${end.log.join('\n')}`);
    assert.notEqual(end.code, 0);
    assert.equal(end.log.length, 1, end.log.join('\n'));
    assert.match(end.log[0], /^streamhouse: /);
    assert.match(end.log[0], says);
  }

  it('that is rubbish ends the start with one clear line', async () => {
    await writeFile(database, Buffer.alloc(100_000, 'rubbish '));
    await startsInVain(/metadata\.db|database|sqlite/i);
  });

  it('that is cut short does too', async () => {
    await copyFile(`${database}.good`, database);
    await truncate(database, 10_000);
    await startsInVain(/metadata\.db|database|sqlite|corrupt/i);
  });

  it('that is empty beside objects does too: it would look like an empty broker', async () => {
    await writeFile(database, '');
    await startsInVain(/cluster|bucket|objects/i);
  });

  it('that is put right again serves what it had', async () => {
    await copyFile(`${database}.good`, database);
    const broker = await startTestBroker({ data: directory });
    for (const partition of [0, 49]) assert.equal((await broker.client.offsets('t', partition)).end, 20);
    await broker.close();
  });
});

/** Whether this machine lets us mount; where not, the full disk is tested by its error only (metadata-store.test). */
function mountSmallDisk(directory: string): boolean {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=12m', 'tmpfs', directory], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

describe('a full disk', () => {
  for (const what of ['objects', 'metadata', 'data'] as const) {
    it(`under ${what}: refusals that can be tried again, and service by itself when there is room`, async (t) => {
      const directory = await mkdtemp(join(tmpdir(), 'streamhouse-disk-'));
      const disk = await mkdtemp(join(tmpdir(), 'streamhouse-full-'));
      const mounted = mountSmallDisk(disk);
      if (!mounted) {
        t.diagnostic('mounting is not permitted here; the error alone is tested elsewhere');
        await rm(directory, { recursive: true });
        await rm(disk, { recursive: true });
        return;
      }
      try {
        const urls = { objects: `file:${disk}`, metadata: `sqlite:${disk}/metadata.db`, data: disk };
        const flags = { data: directory, [what]: urls[what], 'flush-window': '5ms', 'request-timeout': '1s' };
        await fillAndFree(flags, join(disk, 'ballast'), t);
      } finally {
        execFileSync('umount', [disk]);
        await rm(disk, { recursive: true });
        await rm(directory, { recursive: true });
      }
    });
  }
});

async function fillAndFree(
  flags: Record<string, string>,
  ballast: string,
  t: { diagnostic(text: string): void },
): Promise<void> {
  const PARTITIONS = 4;
  const broker = await startTestBroker({ ...flags, 'upload-deadline': '1s' });
  try {
    await broker.client.createTopic({ name: 'full', partitionCount: PARTITIONS });
    const ledger = new RecordLedger('full');
    const options = { ledger, partitionCount: PARTITIONS, producers: 6, idempotent: 2, padMax: 500, seed: 1 };
    const load = new ProduceLoad({ ...options, client: () => broker.client });
    load.start();
    await load.moreAcknowledged(50, 5000);
    await fillUp(ballast);
    const deadline = performance.now() + 15_000;
    while (load.met.size === 0) {
      assert.ok(performance.now() < deadline, 'the disk never got full');
      await sleepMs(20);
    }
    const met = load.acknowledged;
    await sleepMs(1000);
    const live = await httpCall(`${broker.broker.url}/health/live`);
    assert.equal(live.status, 200);
    await rm(ballast);
    await load.moreInEachPartition(4, 10_000);
    await load.stop();
    const counts = await ledger.check(broker.client, PARTITIONS);
    t.diagnostic(`full after ${met} records, met ${load.metText()}, ${JSON.stringify(counts)}`);
  } finally {
    await broker.close();
  }
}

/** Writes until nothing more fits. */
async function fillUp(ballast: string): Promise<void> {
  const chunk = Buffer.alloc(4096);
  await writeFile(ballast, '');
  for (;;) {
    try {
      await writeFile(ballast, chunk, { flag: 'a' });
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
      return;
    }
  }
}
