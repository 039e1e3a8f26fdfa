/**
 * The checker finds what it is there for: each rule of checker.ts against a hand-made history that breaks it and
 * nothing else, and a good history in which nothing is found.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type CheckResult, checkHistory, type FindingKind } from './checker.ts';
import {
  FINAL_READER,
  type HistoryEvent,
  HistoryLog,
  type ReadRow,
  type RecordResult,
  readHistory,
} from './history.ts';

const TOPIC = 't';

/** A history that is written step by step, one ms apart. */
class Story {
  readonly events: HistoryEvent[] = [];
  at = 0;
  #requests = 0;

  constructor() {
    this.events.push({ e: 'topic', at: 0, topic: TOPIC, partitions: 1 });
  }

  send(
    texts: readonly string[],
    more: { x?: boolean; q?: number; prod?: string; topic?: string; pipe?: string } = {},
  ): number {
    const { topic = TOPIC, prod = 'p', ...rest } = more;
    const r = ++this.#requests;
    const recs = texts.map((text) => [0, text] as const);
    this.events.push({ e: 'send', at: ++this.at, r, b: 'b1', prod, topic, recs, ...rest });
    return r;
  }

  done(r: number, ...res: RecordResult[]): this {
    this.events.push({ e: 'done', at: ++this.at, r, res });
    return this;
  }

  append(text: string, offset: number, more: { x?: boolean; q?: number; prod?: string } = {}): this {
    return this.done(this.send([text], more), offset);
  }

  read(
    from: number,
    texts: readonly (string | null)[],
    more: { inv?: number; c?: string; ts?: number } = {},
  ): this {
    const recs = texts.map((text, i): ReadRow => [from + i, more.ts ?? 7, 'p', text]);
    const inv = more.inv ?? ++this.at;
    const where = { topic: TOPIC, p: 0, c: more.c ?? 'c', b: 'b1' };
    this.events.push({ e: 'read', at: ++this.at, inv, ...where, from, recs });
    return this;
  }

  final(texts: readonly (string | null)[], end = texts.length): this {
    if (texts.length > 0) this.read(0, texts, { c: FINAL_READER });
    this.events.push({ e: 'final', at: ++this.at, topic: TOPIC, p: 0, end });
    return this;
  }

  ends(begin: number, end: number, inv = ++this.at): this {
    this.events.push({ e: 'ends', at: ++this.at, inv, b: 'b1', c: 'c', topic: TOPIC, p: 0, begin, end });
    return this;
  }

  outOfRange(from: number, inv = ++this.at): this {
    const where = { topic: TOPIC, p: 0, c: 'c', b: 'b1' };
    this.events.push({ e: 'out-of-range', at: ++this.at, inv, ...where, from, text: 'no' });
    return this;
  }

  check(): Promise<CheckResult> {
    return checkHistory(this.events);
  }
}

/** The kinds of what is found, each once. */
async function kinds(story: Story): Promise<FindingKind[]> {
  const { findings, findingCount } = await story.check();
  assert.equal(findings.length, findingCount);
  return [...new Set(findings.map(({ kind }) => kind))].sort();
}

const UNKNOWN = ['unknown', 'lost'] as const;
const NONE = ['none', 'busy'] as const;

/** Each breaks what its name says, and nothing else unless it must. */
const BAD: Record<string, { story: () => Story; finds: FindingKind[] }> = {
  'an acknowledged record is not there at the end': {
    story: () => new Story().append('a', 0).append('b', 1).final(['a']),
    finds: ['lost'],
  },
  'an acknowledged record is lost and another stands in its place': {
    story: () => {
      const story = new Story().append('a', 0);
      return story.done(story.send(['b']), UNKNOWN).final(['b']);
    },
    finds: ['changed', 'lost'],
  },
  'a record that a reader saw, though nobody acknowledged it, is gone later': {
    story: () => {
      const story = new Story();
      story.done(story.send(['a']), UNKNOWN);
      return story.read(0, ['a']).final([]);
    },
    finds: ['lost'],
  },
  'two records are acknowledged at one offset': {
    story: () => new Story().append('a', 0).append('b', 0).final(['a']),
    finds: ['changed'],
  },
  'two readers see two records at one offset': {
    story: () => {
      const story = new Story();
      const [a, b] = [story.send(['a']), story.send(['b'])];
      return story.read(0, ['a']).read(0, ['b']).done(a, UNKNOWN).done(b, UNKNOWN).final(['a']);
    },
    finds: ['changed'],
  },
  'a record has another timestamp at the second read': {
    story: () => new Story().append('a', 0).read(0, ['a'], { ts: 1 }).read(0, ['a'], { ts: 2 }).final([], 1),
    finds: ['changed', 'lost'],
  },
  'a plain record is there twice': {
    story: () => new Story().append('a', 0).final(['a', 'a']),
    finds: ['duplicate'],
  },
  'an idempotent record is there twice': {
    story: () => {
      const story = new Story();
      story.done(story.send(['a'], { x: true, q: 0 }), UNKNOWN);
      return story.append('a', 1, { x: true, q: 0 }).final(['a', 'a']);
    },
    finds: ['duplicate', 'order'],
  },
  'a repeated request is acknowledged at another offset': {
    story: () => {
      const story = new Story();
      const [first, again] = [story.send(['a'], { x: true }), story.send(['a'], { x: true })];
      return story.done(first, 0).done(again, 1).final(['a']);
    },
    finds: ['duplicate', 'lost', 'order'],
  },
  'a read leaves an offset out': {
    story: () => {
      const story = new Story().append('a', 0).append('b', 1).final(['a', 'b']);
      const recs: ReadRow[] = [[1, 7, 'p', 'b']];
      const where = { topic: TOPIC, p: 0, c: 'c', b: 'b1', from: 0 };
      story.events.push({ e: 'read', at: ++story.at, inv: story.at, ...where, recs });
      return story;
    },
    finds: ['not-dense'],
  },
  'the partition has a hole': {
    story: () =>
      new Story().append('a', 0).append('c', 2).read(2, ['c'], { c: FINAL_READER }).final(['a'], 3),
    finds: ['not-dense'],
  },
  'a record that nobody sent': {
    story: () => new Story().append('a', 0).final(['a', 'ghost']),
    finds: ['phantom'],
  },
  'a record without a value': {
    story: () => new Story().append('a', 0).final(['a', null]),
    finds: ['phantom'],
  },
  'a record with the key of another': {
    story: () => new Story().append('a', 0, { prod: 'q' }).final(['a']),
    finds: ['phantom'],
  },
  'a record of another topic': {
    story: () => {
      const story = new Story();
      story.events.push({ e: 'topic', at: 0, topic: 'u', partitions: 0 });
      story.done(story.send(['a'], { topic: 'u' }), UNKNOWN);
      return story.final(['a']);
    },
    finds: ['phantom'],
  },
  'a record of which the broker said that nothing happened': {
    story: () => {
      const story = new Story();
      story.done(story.send(['a']), NONE);
      return story.final(['a']);
    },
    finds: ['refused-but-there'],
  },
  'a record that was read between two requests, of which the first was said to have done nothing': {
    story: () => {
      const story = new Story();
      story.done(story.send(['a'], { x: true }), NONE).read(0, ['a']);
      return story.append('a', 0, { x: true }).final(['a']);
    },
    finds: ['refused-but-there'],
  },
  'a record behind one that was sent after its acknowledgement': {
    story: () => new Story().append('a', 1).append('b', 0).final(['b', 'a']),
    finds: ['order'],
  },
  'a record behind one that was sent after a reader saw it': {
    story: () => {
      const story = new Story();
      const first = story.send(['a']);
      story.read(1, ['a']);
      return story.done(first, UNKNOWN).append('b', 0).final(['b', 'a']);
    },
    finds: ['order'],
  },
  'an idempotent producer out of order, within what real time allows': {
    story: () => {
      const story = new Story();
      const first = story.send(['a'], { x: true, q: 0 });
      const second = story.send(['b'], { x: true, q: 1 });
      return story.done(first, 1).done(second, 0).final(['b', 'a']);
    },
    finds: ['order'],
  },
  'two requests that went over one connection, out of order': {
    story: () => {
      const story = new Story();
      const [first, second] = [story.send(['a'], { pipe: 'c' }), story.send(['b'], { pipe: 'c' })];
      return story.done(first, 1).done(second, 0).final(['b', 'a']);
    },
    finds: ['order'],
  },
  'the records of one request out of order': {
    story: () => {
      const story = new Story();
      return story.done(story.send(['a', 'b']), 1, 0).final(['b', 'a']);
    },
    finds: ['order'],
  },
  'a reader that waits at the end is told out of range': {
    story: () => new Story().append('a', 0).outOfRange(1).final(['a']),
    finds: ['out-of-range'],
  },
  'a reader of what it read itself is told out of range': {
    story: () => {
      const story = new Story();
      const first = story.send(['a']);
      return story.read(0, ['a']).outOfRange(0).done(first, UNKNOWN).final(['a']);
    },
    finds: ['out-of-range'],
  },
  'nothing is there where a record was acknowledged': {
    story: () => new Story().append('a', 0).read(0, []).final(['a']),
    finds: ['stale-read'],
  },
  'a partition ends before what was acknowledged': {
    story: () => new Story().append('a', 0).ends(0, 0).final(['a']),
    finds: ['stale-end'],
  },
  'a partition begins late': {
    story: () => new Story().append('a', 0).ends(1, 1).final(['a']),
    finds: ['stale-end'],
  },
  'a good request is refused for good': {
    story: () => {
      const story = new Story();
      const r = story.send(['a']);
      story.events.push({ e: 'done', at: ++story.at, r, res: [['none', 'gap']], forGood: true });
      return story.final([]);
    },
    finds: ['refused-for-good'],
  },
  'an answer without sense': {
    story: () => {
      const story = new Story().final([]);
      const call = { at: ++story.at, inv: story.at, b: 'b1', what: 'read', code: 'no list' };
      story.events.push({ e: 'trouble', ...call, wrong: true });
      return story;
    },
    finds: ['wrong-answer'],
  },
  'an offset that is none': {
    story: () => new Story().append('a', 1e12).final([]),
    finds: ['wrong-answer'],
  },
  'an acknowledgement of what was sent after the topic was gone': {
    story: () => {
      const story = new Story();
      story.events.push({ e: 'topic-end', at: ++story.at, topic: TOPIC, done: true });
      return story.append('a', 0);
    },
    finds: ['after-deletion'],
  },
  'an idempotent record that was never acknowledged': {
    story: () => {
      const story = new Story();
      story.done(story.send(['a'], { x: true }), UNKNOWN);
      return story.final([]);
    },
    finds: ['unfinished'],
  },
  'a partition that nobody read in the end': {
    story: () => new Story().append('a', 0),
    finds: ['unread'],
  },
};

describe('the checker of histories', () => {
  for (const [name, { story, finds }] of Object.entries(BAD)) {
    it(`finds: ${name}`, async () => {
      const made = story();
      assert.deepEqual(await kinds(made), finds, JSON.stringify((await made.check()).findings));
    });
  }

  it('has a bad history for every rule', () => {
    const rules: Record<FindingKind, true> = {
      lost: true,
      changed: true,
      duplicate: true,
      'not-dense': true,
      phantom: true,
      'refused-but-there': true,
      order: true,
      'out-of-range': true,
      'stale-read': true,
      'stale-end': true,
      'refused-for-good': true,
      'wrong-answer': true,
      'after-deletion': true,
      unfinished: true,
      unread: true,
    };
    const found = new Set(Object.values(BAD).flatMap(({ finds }) => finds));
    assert.deepEqual([...found].sort(), Object.keys(rules).sort());
  });

  it('finds nothing in a history in which all went well', async () => {
    const story = new Story();
    story.append('a', 0).append('b', 1, { x: true, q: 0 });
    // Refused, then taken; unknown, and there; unknown, and not there; unknown, then acknowledged where it is.
    story.done(story.send(['c']), NONE).append('c', 2);
    story.done(story.send(['d']), UNKNOWN).done(story.send(['e']), UNKNOWN);
    story.done(story.send(['f'], { x: true, q: 1 }), UNKNOWN).append('f', 4, { x: true, q: 1 });
    const refusedForNow = story.at;
    story.read(0, ['a', 'b']).read(1, ['b', 'c', 'd', 'f']).read(5, []).ends(0, 5).outOfRange(6);
    // These began before anything was known.
    story.read(0, [], { inv: 0.5 }).outOfRange(4, 0.5).ends(0, 0, 0.5);
    assert.ok(refusedForNow > 0);
    const result = await story.final(['a', 'b', 'c', 'd', 'f']).check();
    assert.deepEqual(result.findings, []);
    assert.deepEqual(
      { ...result.counts },
      {
        sent: 6,
        acknowledged: 4,
        maybe: 2,
        maybeThere: 1,
        refused: 0,
        reads: 5,
        recordsRead: 11,
        outOfRange: 2,
        partitions: 1,
        records: 5,
      },
    );
    assert.deepEqual(result.met, { 'none busy': 1, 'unknown lost': 3 });
  });

  it('reads what the log wrote', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'streamhouse-history-'));
    try {
      const log = new HistoryLog(join(folder, 'history.jsonl'));
      log.add({ e: 'topic', topic: TOPIC, partitions: 1 });
      const r = log.nextRequest();
      log.add({ e: 'send', r, b: 'b1', prod: 'p', topic: TOPIC, recs: [[0, 'a\u2028é']] });
      log.add({ e: 'done', r, res: [0] });
      await log.close();
      const events: HistoryEvent[] = [];
      for await (const event of readHistory(log.path)) events.push(event);
      assert.deepEqual(
        events.map(({ e }) => e),
        ['topic', 'send', 'done'],
      );
      assert.ok(events[0].at <= events[1].at && events[1].at <= events[2].at);
      const sent = events[1];
      assert.ok(sent.e === 'send' && sent.recs[0][1] === 'a\u2028é');
      assert.deepEqual(
        (await checkHistory(events)).findings.map(({ kind }) => kind),
        ['unread'],
      );
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
