/**
 * `streamhouse inspect` over a real broker's stores: what it shows is what was written, wrong input is one line, and
 * corrupt bytes are a named error with their position.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { shownBytes } from '../../../src/cli/inspect-text.ts';
import { shardOf } from '../../../src/core/ids.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import { type CliResult, cli } from '../../support/test-shell.ts';
import {
  DamagedCluster,
  LONG,
  makeCluster,
  type VerifiedCluster,
  WIDE,
} from '../../support/verified-cluster.ts';

let cluster: VerifiedCluster;
let stores: DamagedCluster;
let settings: string[];
before(async () => {
  cluster = await makeCluster();
  stores = new DamagedCluster(cluster);
  settings = stores.settings();
});
after(() => {
  stores.close();
  cluster.remove();
});

const LONG_SHARD = shardOf(2, 0, oneGroup(8));

function inspect(...args: string[]): Promise<CliResult> {
  return cli(['inspect', ...args, ...settings]);
}

async function json<T>(...args: string[]): Promise<T> {
  const { code, stdout, stderr } = await inspect(...args, '--json');
  assert.deepEqual([code, stderr], [0, '']);
  return JSON.parse(stdout) as T;
}

async function jsonLines<T>(...args: string[]): Promise<T[]> {
  const { code, stdout, stderr } = await inspect(...args, '--json');
  assert.deepEqual([code, stderr], [0, '']);
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

interface Segment {
  baseOffset: number;
  nextOffset: number;
  incarnation: number;
  number: number;
  position: number;
  length: number;
  source: string;
}
interface Head {
  shard: number;
  headSeq: number;
  epoch: number;
  checkpoint: { seq: number; writer: number };
}

describe('inspect', () => {
  it('lists segments, dense, from any offset, and finds their records in their objects', async () => {
    const all = await jsonLines<Segment>('segments', LONG.topic, '0');
    assert.equal(all.length, 600);
    assert.deepEqual(
      all.map(({ baseOffset, nextOffset }) => [baseOffset, nextOffset]),
      Array.from({ length: 600 }, (_, i) => [i, i + 1]),
    );
    const some = await jsonLines<Segment>('segments', LONG.topic, '0', '--from', '300', '--limit', '2');
    assert.deepEqual(some, all.slice(300, 302));
    const [{ incarnation, number, position, length }] = some;
    const object = await json<{
      slices: {
        position: number;
        length: number;
        crcOk: boolean;
        batches: { records: { value: string }[] }[];
      }[];
    }>('object', `${incarnation}-${number}`, '--records');
    const slice = object.slices.find((candidate) => candidate.position === position)!;
    assert.deepEqual([slice.length, slice.crcOk], [length, true]);
    assert.match(slice.batches[0].records[0].value, /^"append \d{6}"$/);
    const text = await inspect('segments', LONG.topic, '0', '--limit', '3');
    assert.match(text.stdout, /^long partition 0, shard \d: offsets \[0, 600\)\nbase {2}next {2}object/);
    assert.equal(text.stdout.split('\n').length, 6);
  });

  it('shows log and pages of one partition as one', async () => {
    let fromLog = 0;
    for (let partition = 0; partition < 20; partition++) {
      const segments = await jsonLines<Segment>('segments', WIDE.topic, String(partition));
      for (let i = 0; i < segments.length; i++) {
        assert.equal(segments[i].baseOffset, i === 0 ? 0 : segments[i - 1].nextOffset);
      }
      fromLog += segments.filter(({ source }) => source === 'log').length;
    }
    assert.ok(fromLog > 0);
  });

  it('shows heads, checkpoints, pages and entries', async () => {
    const heads = await json<Head[]>('heads');
    assert.deepEqual(
      heads.map(({ shard, epoch }) => [shard, epoch]),
      Array.from({ length: 8 }, (_, shard) => [shard, 3]),
    );
    const { headSeq, checkpoint } = heads[LONG_SHARD];
    const state = await json<{ seq: number; partitions: { topicId: number; nextOffset: number }[] }>(
      'checkpoint',
      String(LONG_SHARD),
    );
    assert.equal(state.seq, checkpoint.seq);
    assert.equal(state.partitions.find(({ topicId }) => topicId === 2)?.nextOffset, 600);
    const page = await json<{
      baseOffset: number;
      nextOffset: number;
      refCount: number;
      segments: Segment[];
    }>('page', LONG.topic, '0', '511');
    assert.deepEqual([page.baseOffset, page.nextOffset, page.refCount], [256, 512, 256]);
    assert.equal(page.segments.length, 256);
    assert.equal((await json<{ baseOffset: number }>('page', LONG.topic, '0')).baseOffset, 512);
    const tail = await jsonLines<{ seq: number; kind: string }>('entry', String(LONG_SHARD), '--tail', '1');
    assert.deepEqual(
      tail.map(({ seq }) => seq),
      [headSeq],
    );
    const range = `${checkpoint.seq + 1}-${headSeq}`;
    const entries = await jsonLines<{ seq: number; kind: string }>('entry', String(LONG_SHARD), range);
    assert.equal(entries.length, headSeq - checkpoint.seq);
    assert.equal(entries[0].kind, 'takeover');
    for (const args of [
      ['heads'],
      ['checkpoint', '0'],
      ['page', LONG.topic, '0'],
      ['entry', '0', '--tail', '2'],
    ]) {
      const { code, stdout, stderr } = await inspect(...args);
      assert.deepEqual([code, stderr], [0, ''], args.join(' '));
      assert.ok(stdout.length > 50);
    }
  });

  it('answers wrong input with one clear line', async () => {
    const wrong: [string[], number, RegExp][] = [
      [['object'], 2, /which object\? give its key, INCARNATION-NUMBER, or --file PATH/],
      [['object', '900-1'], 1, /object batch\/.* is not there/],
      [['object', 'no/such'], 1, /object no\/such is not there/],
      [['object', '../x'], 1, /a part begins with a dot/],
      [['entry', 'x', '1'], 2, /SHARD: "x" is not a whole number/],
      [['entry', '0', '5-2'], 2, /"5-2" is neither a seq from 1 nor a range FROM-TO/],
      [['entry', '0', '999999'], 1, /shard 0 has no entry 999999: its log goes from \d+ to \d+/],
      [['entry', '0'], 2, /which entries\? give a seq, a range FROM-TO, or --tail N/],
      [['entry', '77', '1'], 1, /shard 77/],
      [['page', 'nowhere', '0'], 1, /there is no topic nowhere/],
      [['page', LONG.topic, '9'], 1, /long has the partitions 0 to 0/],
      [['segments', LONG.topic, '-1'], 2, /unknown option|PARTITION/],
      [['checkpoint', '77'], 1, /shard 77/],
    ];
    for (const [args, code, message] of wrong) {
      const result = await inspect(...args);
      assert.equal(result.code, code, `${args.join(' ')}: ${result.stderr}`);
      assert.match(result.stderr, message);
      assert.match(result.stderr, /^streamhouse: [^\n]+\n$/);
      assert.equal(result.stdout, '');
    }
  });

  it('names what is corrupt, with its position', async () => {
    const [{ incarnation, number, position }] = await jsonLines<Segment>(
      'segments',
      LONG.topic,
      '0',
      '--limit',
      '1',
    );
    const bytes = Buffer.from(stores.files.get(stores.objectKey(incarnation, number)) as Buffer);
    const path = join(cluster.directory, 'object');
    bytes[position + 64] ^= 1;
    writeFileSync(path, bytes);
    const slice = await cli(['inspect', 'object', '--file', path, '--records']);
    assert.equal(slice.code, 1);
    assert.match(slice.stdout, /WRONG/);
    assert.match(
      slice.stderr,
      /^streamhouse: 1 slices? .*damaged.* at byte 24: corrupt-object: .*checksum.*\n$/,
    );
    writeFileSync(path, bytes.subarray(0, bytes.length - 3));
    const cut = await cli(['inspect', 'object', '--file', path, '--json']);
    assert.equal(cut.code, 1);
    assert.equal(JSON.parse(cut.stderr).error.code, 'corrupt-object');

    const damaged = new DamagedCluster(cluster);
    try {
      const database = damaged.database;
      database.prepare('UPDATE pages SET bytes = substr(bytes, 1, 40) WHERE topic_id = 2').run();
      database.prepare("UPDATE checkpoints SET bytes = x'00112233445566778899aabbccddeeff'").run();
      database.prepare('UPDATE entries SET body = substr(body, 1, length(body) - 1)').run();
      const flags = damaged.settings();
      for (const [args, message] of [
        [['page', LONG.topic, '0', '0'], /page 0 of long partition 0: .*\(at byte \d+\)/],
        [['checkpoint', '0'], /checkpoint \d+ of shard 0: .*\(at byte \d+\)/],
        [['entry', '0', '--tail', '1'], /shard 0 entry \d+: .*\(at byte \d+\)/],
        [['segments', LONG.topic, '0'], /\(at byte \d+\)/],
      ] as const) {
        const { code, stderr } = await cli(['inspect', ...args, ...flags]);
        assert.equal(code, 1);
        assert.match(stderr, message);
      }
    } finally {
      damaged.close();
    }
  });

  it('shows keys and values without what a terminal would act on', () => {
    assert.equal(shownBytes(null), 'null');
    assert.equal(shownBytes(Buffer.from('plain "text"\n')), '"plain \\"text\\"\\n"');
    assert.equal(shownBytes(Buffer.from('\u001b[2J\u009b\u202e')), '"\\u001b[2J\\u009b\\u202e"');
    assert.equal(shownBytes(Buffer.from([0xff, 0x00])), '0xff00');
    assert.equal(shownBytes(Buffer.from('é'.repeat(100))), `"${'é'.repeat(60)}"... (200 bytes)`);
    assert.equal(shownBytes(Buffer.from(`x${'é'.repeat(100)}`)), `"x${'é'.repeat(59)}"... (201 bytes)`);
    assert.equal(shownBytes(Buffer.from('\ufeffbom')), '"\\ufeffbom"');
    assert.equal(shownBytes(Buffer.from('after')), '"after"');
  });
});
