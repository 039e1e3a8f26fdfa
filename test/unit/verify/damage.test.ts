/**
 * `verify` on a healthy cluster, and on the same cluster after one thing in it was damaged by hand: each damage must
 * give its finding at its place, nothing else, and exit code 1. The cluster is a real broker's, made once.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { decodePage, encodePage, type Page } from '../../../index/page-codec.ts';
import { REF_MAX_TIMESTAMP, REF_NUMBERS, REF_POSITION } from '../../../index/segment-ref.ts';
import { partitionKey, shardOf } from '../../../src/core/ids.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import type { Finding } from '../../../src/verify/finding.ts';
import { encodeReferences } from '../../../storage/metadata/object-references.ts';
import { decodeCheckpoint, encodeCheckpoint } from '../../../workers/checkpoint-codec.ts';
import { decodeEntry, type Entry, encodeEntry, type SlicesEntry } from '../../../workers/entry-codec.ts';
import type { ShardState } from '../../../workers/shard-state.ts';
import { cli } from '../../support/test-shell.ts';
import {
  DamagedCluster,
  LONG,
  makeCluster,
  type VerifiedCluster,
  WIDE,
} from '../../support/verified-cluster.ts';

type Expected = Partial<Finding> & Pick<Finding, 'kind'>;
type SlicesRow = Entry & SlicesEntry;

const SHARDS = 8;
const WIDE_ID = 1;
const LONG_ID = 2;
const LONG_SHARD = shardOf(LONG_ID, 0, oneGroup(SHARDS));

let cluster: VerifiedCluster;
before(async () => {
  cluster = await makeCluster();
});
after(() => cluster.remove());

interface EntryRow {
  shard: number;
  seq: number;
  body: Buffer;
}

class Damage extends DamagedCluster {
  get<T>(sql: string, ...values: unknown[]): T {
    return this.database.prepare(sql).get(...values) as T;
  }

  run(sql: string, ...values: unknown[]): void {
    assert.ok(this.database.prepare(sql).run(...values).changes > 0, sql);
  }

  head(shard: number): { seq: number; epoch: number; pointer: number; trimmed: number; commitId: string } {
    const columns = `head_seq AS seq, epoch, coalesce(checkpoint_seq, 0) AS pointer, trimmed_through AS trimmed,
      head_commit_id AS commitId`;
    return this.get(`SELECT ${columns} FROM heads WHERE shard = ?`, shard);
  }

  /** A shard with several entries behind its pointer; its oldest and newest such entry. */
  tail(): { shard: number; first: number; last: number } {
    const found = this.get<{ shard: number; first: number; last: number }>(
      `SELECT shard, min(seq) AS first, max(seq) AS last FROM entries JOIN heads USING (shard)
         WHERE seq > checkpoint_seq GROUP BY shard HAVING count(*) >= 3 ORDER BY shard LIMIT 1`,
    );
    assert.ok(found, 'no shard has a tail');
    return found;
  }

  entry(shard: number, seq: number): Entry {
    const row = this.get<EntryRow>('SELECT * FROM entries WHERE shard = ? AND seq = ?', shard, seq);
    return decodeEntry(row.body);
  }

  /** The newest entry with slices of a partition of WIDE behind the pointer of its shard. */
  slicesEntry(): SlicesRow {
    const rows = this.database
      .prepare('SELECT shard, seq, body FROM entries JOIN heads USING (shard) WHERE seq > checkpoint_seq')
      .all() as EntryRow[];
    const entries = rows.map((row) => decodeEntry(row.body));
    const found = entries.findLast((entry) => entry.kind === 'slices' && entry.producerBatches.length > 0);
    assert.ok(found?.kind === 'slices', 'no entry with slices');
    return found;
  }

  putEntry(entry: Entry): void {
    const sql = 'UPDATE entries SET body = ? WHERE shard = ? AND seq = ?';
    this.run(sql, encodeEntry(entry), entry.shard, entry.seq);
  }

  /** Appends as a writer would. */
  append(entry: Entry, commitId: string): void {
    const sql = 'INSERT INTO entries (shard, seq, epoch, commit_id, body) VALUES (?, ?, ?, ?, ?)';
    this.run(sql, entry.shard, entry.seq, entry.epoch, commitId, encodeEntry(entry));
    const move = 'UPDATE heads SET head_seq = ?, head_commit_id = ? WHERE shard = ?';
    this.run(move, entry.seq, commitId, entry.shard);
  }

  page(base: number, topicId = LONG_ID, partition = 0): Page {
    const sql = 'SELECT bytes FROM pages WHERE topic_id = ? AND partition = ? AND base_offset = ?';
    return decodePage(this.get<{ bytes: Buffer }>(sql, topicId, partition, base).bytes);
  }

  /** Writes a page as it says, in place of the one at `base`. */
  putPage(page: Page, base = page.baseOffset): void {
    const sql = `UPDATE pages SET bytes = ?, base_offset = ?, stamp = ?
      WHERE topic_id = ? AND partition = ? AND base_offset = ?`;
    const { topicId, partition } = page;
    this.run(sql, encodePage(page), page.baseOffset, page.stamp, topicId, partition, base);
  }

  changeCheckpoint(shard: number, change: (state: ShardState) => void): void {
    const { bytes } = this.get<{ bytes: Buffer }>('SELECT bytes FROM checkpoints WHERE shard = ?', shard);
    const state = decodeCheckpoint(bytes, shard);
    change(state);
    this.run('UPDATE checkpoints SET bytes = ? WHERE shard = ?', encodeCheckpoint(state), shard);
  }

  /** Where segment `index` of LONG's first page lies. */
  longSegment(index: number): {
    key: string;
    position: number;
    length: number;
    incarnation: number;
    number: number;
  } {
    const { refs } = this.page(0);
    const [, incarnation, number, position, length] = refs.slice(index * REF_NUMBERS);
    return { key: this.objectKey(incarnation, number), position, length, incarnation, number };
  }
}

/** The findings have just these kinds and places; each says what was expected and found. */
function assertFindings(findings: Finding[], expected: Expected[]): void {
  const text = JSON.stringify(findings, null, 1);
  assert.equal(findings.length, expected.length, text);
  for (const finding of findings) assert.ok(finding.expected !== '' && finding.found !== '', text);
  const seen = findings.map((finding) => {
    const match = expected.find(({ kind, seq, offset, partition }) => {
      const isPlace = (seq ?? finding.seq) === finding.seq && (offset ?? finding.offset) === finding.offset;
      return kind === finding.kind && isPlace && (partition ?? finding.partition) === finding.partition;
    });
    assert.ok(match, text);
    return {
      match,
      part: Object.fromEntries(Object.keys(match).map((key) => [key, finding[key as 'kind']])),
    };
  });
  for (const { match, part } of seen) assert.deepEqual(part, match);
  assert.equal(new Set(seen.map(({ match }) => match)).size, expected.length, text);
}

function damaged(what: string, damage: (store: Damage) => Expected[]): void {
  it(what, async () => {
    const store = new Damage(cluster);
    try {
      const expected = damage(store);
      const report = await store.verify();
      assertFindings(report.findings, expected);
      assert.equal(report.findingCount, expected.length);
      assert.equal(report.passingFindings, 0);
    } finally {
      store.close();
    }
  });
}

const flip =
  (position: number) =>
  (bytes: Buffer): Buffer => {
    bytes[position] ^= 0x40;
    return bytes;
  };

const long = { topicId: LONG_ID, topic: LONG.topic, partition: 0, shard: LONG_SHARD };

describe('verify of a healthy cluster', () => {
  it('finds nothing wrong and counts every record', async () => {
    const store = new Damage(cluster);
    try {
      for (const deep of [false, true]) {
        const { findings, counts, noteCounts } = await store.verify({ deep });
        assertFindings(findings, []);
        assert.equal(counts.records, cluster.records);
        assert.equal(counts.shards, SHARDS);
        assert.equal(counts.checkpoints, SHARDS);
        assert.equal(counts.partitions, WIDE.partitions + 1);
        assert.ok(counts.entries > SHARDS && counts.pages > 200);
        assert.equal(counts.slices, counts.segments);
        // Every object was read once, but those that only the deleted topic had.
        assert.equal(counts.objects + noteCounts['row-unused'], counts.objectRows);
        assert.equal(counts.objectRows, counts.objectKeys);
      }
    } finally {
      store.close();
    }
  });

  it('takes one topic only', async () => {
    const store = new Damage(cluster);
    try {
      const { findings, counts } = await store.verify({ topic: LONG.topic });
      assertFindings(findings, []);
      assert.equal(counts.records, 600);
      assert.equal(counts.shards, 1);
      assert.equal(counts.objects, 600);
      await assert.rejects(store.verify({ topic: 'nowhere' }), { code: 'topic-not-found' });
    } finally {
      store.close();
    }
  });

  it('prints a table and a verdict, and ends with it', async () => {
    const store = new Damage(cluster);
    try {
      const stores = store.settings();
      const healthy = await cli(['verify', ...stores]);
      assert.equal(healthy.code, 0, healthy.stderr);
      assert.match(healthy.stdout, new RegExp(`^records +${cluster.records}$`, 'm'));
      assert.match(healthy.stdout, /^nothing is wrong$/m);
      const { incarnation, number, key } = store.longSegment(0);
      store.run('UPDATE objects SET bytes = 7 WHERE incarnation = ? AND number = ?', incarnation, number);
      const wrong = await cli(['verify', ...stores]);
      assert.equal(wrong.code, 1);
      assert.match(wrong.stdout, new RegExp(`^1 thing is wrong:\\nobject-mismatch: ${key}\\n`, 'm'));
      const json = await cli(['verify', '--json', '--topic', LONG.topic, ...stores]);
      assert.equal(json.code, 1);
      const report = JSON.parse(json.stdout);
      assert.equal(report.ok, false);
      assertFindings(report.findings, [{ kind: 'object-mismatch', object: key }]);
      const nowhere = await cli(['verify', '--topic', 'nowhere', ...stores]);
      assert.deepEqual([nowhere.code, nowhere.stderr], [1, 'streamhouse: there is no topic nowhere\n']);
    } finally {
      store.close();
    }
  });

  it('says in one line what cannot be opened', async () => {
    const missing = join(cluster.directory, 'nothing');
    const stores = ['--metadata', `sqlite:${missing}.db`, '--objects', `file:${missing}`];
    const { code, stderr } = await cli(['verify', ...stores]);
    assert.deepEqual([code, stderr], [2, `streamhouse: metadata store: there is no file ${missing}.db\n`]);
    const live = `sqlite:${join(cluster.directory, 'healthy.db')}`;
    const bucket = await cli(['verify', '--metadata', live, '--objects', `file:${missing}`]);
    assert.deepEqual(
      [bucket.code, bucket.stderr],
      [2, `streamhouse: object store: there is no folder ${missing}\n`],
    );
    assert.equal(existsSync(missing), false);
  });
});

describe('damaged objects', () => {
  damaged('a byte of a slice', (store) => {
    const { key, position } = store.longSegment(5);
    store.changeFile(key, flip(position + 70));
    return [{ kind: 'slice-corrupt', ...long, offset: 5, object: key }];
  });
  damaged('a byte of the directory', (store) => {
    const { key } = store.longSegment(5);
    store.changeFile(key, (bytes) => flip(bytes.length - 40)(bytes));
    return [{ kind: 'object-corrupt', object: key }];
  });
  damaged('an object cut short', (store) => {
    const { key, position } = store.longSegment(5);
    store.changeFile(key, (bytes) => bytes.subarray(0, position + 10));
    return [
      { kind: 'object-corrupt', object: key },
      { kind: 'object-mismatch', object: key },
      { kind: 'slice-outside-directory', ...long, offset: 5, object: key },
    ];
  });
  damaged('an object that is gone', (store) => {
    const { key } = store.longSegment(7);
    store.changeFile(key, () => null);
    return [{ kind: 'object-missing', ...long, offset: 7, object: key }];
  });
  damaged("another object in an object's place", (store) => {
    const { key } = store.longSegment(7);
    const other = store.longSegment(8);
    let bytes: Buffer = Buffer.alloc(0);
    store.changeFile(other.key, (there) => (bytes = there));
    store.changeFile(key, () => bytes);
    // Both appends are alike but for their text, and of the same length.
    return [{ kind: 'object-mismatch', object: key }];
  });
  damaged('a row that is gone', (store) => {
    const { key, incarnation, number } = store.longSegment(9);
    store.run('DELETE FROM objects WHERE incarnation = ? AND number = ?', incarnation, number);
    return [{ kind: 'object-row-missing', ...long, offset: 9, object: key }];
  });
  damaged('a row without the reference of the shard', (store) => {
    const { key, incarnation, number } = store.longSegment(9);
    const references = encodeReferences([{ shard: (LONG_SHARD + 1) % SHARDS, epoch: 1 }]);
    const sql = 'UPDATE objects SET shard_references = ? WHERE incarnation = ? AND number = ?';
    store.run(sql, references, incarnation, number);
    return [{ kind: 'object-reference-missing', ...long, offset: 9, object: key }];
  });
  damaged('a row of another epoch than the entry', (store) => {
    const { shard, objects, slices } = store.slicesEntry();
    const [{ incarnation, number }] = objects;
    const shards = Array.from({ length: SHARDS }, (_, i) => ({ shard: i, epoch: i === shard ? 7 : 3 }));
    const sql = 'UPDATE objects SET shard_references = ? WHERE incarnation = ? AND number = ?';
    store.run(sql, encodeReferences(shards), incarnation, number);
    return [
      {
        kind: 'object-epoch',
        shard,
        partition: slices[0].partition,
        object: store.objectKey(incarnation, number),
      },
    ];
  });
  damaged('a row of another size', (store) => {
    const { key, incarnation, number } = store.longSegment(9);
    store.run(
      'UPDATE objects SET bytes = bytes + 1 WHERE incarnation = ? AND number = ?',
      incarnation,
      number,
    );
    return [{ kind: 'object-mismatch', object: key }];
  });
  damaged("the bucket's stamp", (store) => {
    store.changeFile('cluster.json', () => Buffer.from('{"clusterId":"other","storeIncarnation":"x"}'));
    return [{ kind: 'cluster-stamp' }];
  });
});

describe('damaged logs', () => {
  damaged('an entry that is gone', (store) => {
    const { shard, first } = store.tail();
    store.run('DELETE FROM entries WHERE shard = ? AND seq = ?', shard, first + 1);
    return [{ kind: 'entry-missing', shard, seq: first + 1 }];
  });
  damaged('the newest entry gone', (store) => {
    const { shard, last } = store.tail();
    store.run('DELETE FROM entries WHERE shard = ? AND seq = ?', shard, last);
    return [{ kind: 'entry-missing', shard, seq: last }];
  });
  damaged('a byte of an entry', (store) => {
    const { shard, last } = store.tail();
    const body = flip(6)(Buffer.from(encodeEntry(store.entry(shard, last))));
    store.run('UPDATE entries SET body = ? WHERE shard = ? AND seq = ?', body, shard, last);
    return [{ kind: 'entry-corrupt', shard, seq: last }];
  });
  damaged("another entry in an entry's place", (store) => {
    const { shard, first, last } = store.tail();
    const body = encodeEntry(store.entry(shard, first));
    store.run('UPDATE entries SET body = ? WHERE shard = ? AND seq = ?', body, shard, last);
    return [{ kind: 'entry-mismatch', shard, seq: last }];
  });
  damaged('an entry that leaves out an offset', (store) => {
    const entry = store.slicesEntry();
    for (const slice of entry.slices) slice.baseOffset++;
    store.putEntry(entry);
    return [{ kind: 'entry-refused', shard: entry.shard, seq: entry.seq }];
  });
  damaged('an epoch that falls', (store) => {
    const { shard, last } = store.tail();
    store.putEntry({ ...store.entry(shard, last), epoch: 0 });
    store.run('UPDATE entries SET epoch = 0 WHERE shard = ? AND seq = ?', shard, last);
    // The entry's objects were sealed under epoch 1.
    return [
      { kind: 'epoch-fell', shard, seq: last },
      { kind: 'entry-refused', shard, seq: last },
    ];
  });
  damaged('a commit id twice', (store) => {
    const { shard, first, last } = store.tail();
    const sql = `UPDATE entries SET commit_id = (SELECT commit_id FROM entries WHERE shard = ? AND seq = ?)
      WHERE shard = ? AND seq = ?`;
    store.run(sql, shard, first, shard, last - 1);
    return [{ kind: 'commit-id-repeated', shard, seq: last - 1 }];
  });
  damaged('a head that bears another commit id than its entry', (store) => {
    const { shard, last } = store.tail();
    store.run("UPDATE heads SET head_commit_id = 'x' WHERE shard = ?", shard);
    return [{ kind: 'head-mismatch', shard, seq: last }];
  });
  damaged('a log trimmed beyond the pointer', (store) => {
    const { shard } = store.tail();
    store.run('UPDATE heads SET trimmed_through = checkpoint_seq + 1 WHERE shard = ?', shard);
    return [{ kind: 'head-mismatch', shard }];
  });
  damaged("a producer's batch appended twice", (store) => {
    const entry = store.slicesEntry();
    const { shard } = entry;
    const { seq, epoch } = store.head(shard);
    const batch = entry.producerBatches[0];
    const slice = entry.slices[batch.sliceIndex];
    const baseOffset = slice.baseOffset + slice.recordCount;
    const again = { ...slice, baseOffset, objectIndex: 0 };
    const objects = [entry.objects[slice.objectIndex]];
    const producerBatches = [{ ...batch, sliceIndex: 0 }];
    store.append({ ...entry, objects, slices: [again], producerBatches, seq: seq + 1, epoch }, 'again');
    const place = { shard, topicId: WIDE_ID, partition: slice.partition };
    return [
      { kind: 'producer-sequence', ...place, seq: seq + 1, offset: baseOffset + batch.offsetInSlice },
      { kind: 'slice-shared', ...place, offset: baseOffset },
    ];
  });
  damaged('a slice of a topic that was deleted, an epoch without its Takeover', (store) => {
    const entry = store.slicesEntry();
    const { shard, timeMs } = entry;
    const { seq } = store.head(shard);
    const slice = { ...entry.slices[0], topicId: 3, baseOffset: 0, objectIndex: 0 };
    let partition = 0;
    while (shardOf(3, partition, oneGroup(SHARDS)) !== shard) partition++;
    slice.partition = partition;
    store.run('UPDATE heads SET epoch = 4 WHERE shard = ?', shard);
    const objects = [entry.objects[0]];
    const bad: Entry = {
      kind: 'slices',
      objects,
      slices: [slice],
      producerBatches: [],
      shard,
      seq: seq + 1,
      epoch: 4,
      timeMs,
    };
    store.append(bad, 'late');
    const place = { shard, topicId: 3, partition };
    return [
      { kind: 'takeover-missing', shard, seq: seq + 1 },
      { kind: 'deleted-topic-slice', ...place, seq: seq + 1 },
      { kind: 'topic-unknown', ...place },
      { kind: 'object-epoch', ...place, offset: 0 },
      { kind: 'slice-shared' },
      { kind: 'slice-outside-directory', ...place, offset: 0 },
    ];
  });
});

describe('damaged checkpoints and catalogue', () => {
  damaged('a checkpoint that is gone', (store) => {
    store.run('DELETE FROM checkpoints WHERE shard = 2');
    return [{ kind: 'checkpoint-missing', shard: 2 }];
  });
  damaged('a byte of a checkpoint', (store) => {
    const { bytes } = store.get<{ bytes: Buffer }>('SELECT bytes FROM checkpoints WHERE shard = 2');
    store.run('UPDATE checkpoints SET bytes = ? WHERE shard = 2', flip(20)(bytes));
    return [{ kind: 'checkpoint-corrupt', shard: 2 }];
  });
  damaged('a checkpoint through another entry', (store) => {
    store.changeCheckpoint(2, (state) => state.seq--);
    return [{ kind: 'checkpoint-mismatch', shard: 2 }];
  });
  damaged('a checkpoint that forgot a partition', (store) => {
    let forgotten = -1;
    store.changeCheckpoint(2, (state) => {
      const { pointer, seq } = store.head(2);
      const inTail = new Set<number>();
      for (let at = pointer + 1; at <= seq; at++) {
        const entry = store.entry(2, at);
        if (entry.kind !== 'slices') continue;
        for (const slice of entry.slices) inTail.add(partitionKey(slice.topicId, slice.partition));
      }
      const key = [...state.partitions.keys()].find((candidate) => !inTail.has(candidate)) as number;
      assert.ok(key !== undefined);
      forgotten = state.partitions.get(key)!.partition;
      state.partitions.delete(key);
    });
    return [{ kind: 'page-unexpected', shard: 2, topicId: WIDE_ID, partition: forgotten, offset: 0 }];
  });
  damaged('a checkpoint that lost the last records of a partition', (store) => {
    const { pointer, seq } = store.head(LONG_SHARD);
    for (let at = pointer + 1; at <= seq; at++) {
      const entry = store.entry(LONG_SHARD, at);
      assert.ok(entry.kind !== 'slices' || entry.slices.every(({ topicId }) => topicId !== LONG_ID));
    }
    let end = 0;
    store.changeCheckpoint(LONG_SHARD, (state) => {
      const fold = state.partitions.get(partitionKey(LONG_ID, 0))!;
      end = --fold.nextOffset;
      fold.pageRefs--;
    });
    assert.ok(end > 0);
    return [{ kind: 'page-stamp', ...long, offset: 512 }];
  });
  damaged('a topic that is gone from the catalogue', (store) => {
    store.run('DELETE FROM topics WHERE topic_id = ?', LONG_ID);
    return [{ kind: 'topic-unknown', shard: LONG_SHARD, topicId: LONG_ID, partition: 0 }];
  });
  damaged('a topic with too few partitions', (store) => {
    store.run('UPDATE topics SET partition_count = ? WHERE topic_id = ?', WIDE.partitions - 1, WIDE_ID);
    return [{ kind: 'partition-unknown', topicId: WIDE_ID, partition: WIDE.partitions - 1 }];
  });
});

describe('damaged pages', () => {
  damaged('a page that is gone', (store) => {
    store.run('DELETE FROM pages WHERE topic_id = ? AND base_offset = 256', LONG_ID);
    return [{ kind: 'page-missing', ...long, offset: 256 }];
  });
  damaged('the first page gone', (store) => {
    store.run('DELETE FROM pages WHERE topic_id = ? AND base_offset = 0', LONG_ID);
    return [{ kind: 'page-missing', ...long, offset: 0 }];
  });
  damaged('the last page gone', (store) => {
    store.run('DELETE FROM pages WHERE topic_id = ? AND base_offset = 512', LONG_ID);
    return [{ kind: 'page-missing', ...long, offset: 512 }];
  });
  damaged('a page with a hole at its end', (store) => {
    const page = store.page(256);
    page.refs.length -= 6 * REF_NUMBERS;
    store.putPage({ ...page, refCount: 250, nextOffset: 506 });
    return [
      { kind: 'page-bounds', ...long, offset: 256 },
      { kind: 'page-missing', ...long, offset: 506 },
    ];
  });
  damaged('an older version of the last page', (store) => {
    const page = store.page(512);
    const refCount = page.refCount - 10;
    page.refs.length = refCount * REF_NUMBERS;
    store.putPage({ ...page, refCount, nextOffset: page.nextOffset - 10 });
    return [{ kind: 'page-missing', ...long, offset: page.nextOffset - 10 }];
  });
  damaged('a page that begins where none begins', (store) => {
    const first = store.page(256);
    const second = store.page(512);
    const moved = first.refs.slice(-REF_NUMBERS);
    first.refs.length -= REF_NUMBERS;
    store.putPage({ ...first, refCount: 255, nextOffset: 511 });
    const refs = [...moved, ...second.refs];
    store.putPage({ ...second, baseOffset: 511, refs, refCount: second.refCount + 1 }, 512);
    return [
      { kind: 'page-bounds', ...long, offset: 256 },
      { kind: 'page-bounds', ...long, offset: 511 },
      { kind: 'page-bounds', ...long, offset: 512 },
    ];
  });
  damaged('a page that covers what another does', (store) => {
    const page = store.page(0);
    const next = store.page(256);
    const refs = [...page.refs.slice(REF_NUMBERS * 2), ...next.refs.slice(0, REF_NUMBERS * 2)];
    // Not later than the first of the next page, so that the running maximum does not fall as well.
    refs[255 * REF_NUMBERS + REF_MAX_TIMESTAMP] = next.refs[REF_MAX_TIMESTAMP];
    store.putPage({ ...page, baseOffset: 2, nextOffset: 258, refs }, 0);
    return [
      { kind: 'page-missing', ...long, offset: 0 },
      { kind: 'page-overlap', ...long, offset: 256 },
    ];
  });
  damaged('a byte of a page', (store) => {
    const bytes = flip(100)(Buffer.from(encodePage(store.page(256))));
    store.run('UPDATE pages SET bytes = ? WHERE topic_id = ? AND base_offset = 256', bytes, LONG_ID);
    return [{ kind: 'page-corrupt', ...long, offset: 256 }];
  });
  damaged('a page stamped above the head', (store) => {
    store.putPage({ ...store.page(512), stamp: store.head(LONG_SHARD).seq + 100 });
    return [{ kind: 'page-stamp', ...long, offset: 512 }];
  });
  damaged('a page kept under another stamp than its own', (store) => {
    store.run('UPDATE pages SET stamp = stamp - 1 WHERE topic_id = ? AND base_offset = 512', LONG_ID);
    return [{ kind: 'page-mismatch', ...long, offset: 512 }];
  });
  damaged('a page kept under another shard', (store) => {
    store.run('UPDATE pages SET shard = ? WHERE topic_id = ? AND base_offset = 0', LONG_SHARD ^ 1, LONG_ID);
    return [{ kind: 'page-mismatch', ...long, offset: 0 }];
  });
  damaged('a running maximum timestamp that falls between pages', (store) => {
    const page = store.page(0);
    page.refs[255 * REF_NUMBERS + REF_MAX_TIMESTAMP] += 1e9;
    store.putPage(page);
    return [{ kind: 'page-timestamp', ...long, offset: 256 }];
  });
  damaged('a page stamped through entries that it lacks', (store) => {
    const entry = store.slicesEntry();
    const { partition } = entry.slices[0];
    const { base_offset: base } = store.get<{ base_offset: number }>(
      'SELECT max(base_offset) AS base_offset FROM pages WHERE topic_id = ? AND partition = ?',
      WIDE_ID,
      partition,
    );
    store.putPage({ ...store.page(base, WIDE_ID, partition), stamp: entry.seq });
    return [{ kind: 'page-stamp', shard: entry.shard, partition, offset: base }];
  });
  damaged('a segment that is not the one of the log', (store) => {
    const entry = store.slicesEntry();
    const { seq, shard } = entry;
    const { partition, topicId, baseOffset, recordCount, position, length, objectIndex } = entry.slices[0];
    const { incarnation, number } = entry.objects[objectIndex];
    const page = store.page(0, topicId, partition);
    // Written out through the entry, all but this one segment as it is; entries between are not of the partition.
    assert.equal(page.nextOffset, baseOffset);
    const newest = page.refs[(page.refCount - 1) * REF_NUMBERS + REF_MAX_TIMESTAMP] + 1;
    const refs = [...page.refs, baseOffset, incarnation, number, position + 1, length, newest];
    const nextOffset = baseOffset + recordCount;
    store.putPage({ ...page, refs, refCount: page.refCount + 1, nextOffset, stamp: seq });
    return [{ kind: 'page-segment', shard, partition, offset: baseOffset }];
  });
  damaged('a segment that names the bytes of another', (store) => {
    const page = store.page(0);
    const [, incarnation, number, position, length] = page.refs.slice(0, REF_NUMBERS);
    page.refs.splice(REF_NUMBERS + 1, 4, incarnation, number, position, length);
    store.putPage(page);
    return [{ kind: 'slice-shared', ...long, offset: 1 }];
  });
  damaged("a segment in another partition's slice", (store) => {
    const page = store.page(0, WIDE_ID, 0);
    page.refs[REF_POSITION] += 24;
    store.putPage(page);
    const place = { topicId: WIDE_ID, partition: 0, offset: 0 };
    // The bytes there begin in the middle of a batch, and the batch after it is named by its own partition.
    return [
      { kind: 'slice-outside-directory', ...place },
      { kind: 'slice-corrupt', ...place },
      { kind: 'slice-shared' },
    ];
  });
});

describe('what is no error', () => {
  it('objects and rows that nobody names are notes', async () => {
    const store = new Damage(cluster);
    try {
      const bytes = store.files.get(store.longSegment(0).key) as Buffer;
      store.files.set('batch/00/notes.txt', bytes);
      store.files.set(store.objectKey(900, 2), bytes);
      const sql = `INSERT INTO objects (incarnation, number, bytes, created_at_ms, reference_count, shard_references)
        VALUES (?, ?, 10, 0, ?, ?)`;
      store.run(sql, 900, 1, 0, encodeReferences([]));
      store.run(sql, 900, 3, 0, encodeReferences([]));
      store.files.set(store.objectKey(900, 3), bytes);
      const { findings, noteCounts, notes } = await store.verify();
      assertFindings(findings, []);
      const { 'row-unused': _, ...counts } = noteCounts;
      assert.deepEqual(counts, {
        'object-not-ours': 1,
        'object-without-row': 1,
        'row-without-object': 1,
        'row-unreferenced': 1,
      });
      assert.ok(notes.some(({ object }) => object === store.objectKey(900, 2)));
    } finally {
      store.close();
    }
  });
});
