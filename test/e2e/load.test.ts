/**
 * `streamhouse load` as users run it, in processes of its own: every scenario at a small size on a real broker, with
 * every record read back; runs that end early; brokers that lose, double or change records; wrong input.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { LoadReport } from '../../src/load/report-schema.ts';
import { SCENARIOS } from '../../src/load/scenarios.ts';
import { BrokerProcess } from '../support/broker-process.ts';
import { FakeRestServer, type StoredRecord } from '../support/fake-rest-server.ts';
import { checkLoadReport } from '../support/load-report-check.ts';
import { MEASURED_PLACES } from '../support/metadata-places.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const COMPILE_CACHE = fileURLToPath(new URL('../../node_modules/.cache/compile', import.meta.url));

const folder = mkdtempSync(join(tmpdir(), 'streamhouse-load-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
  report: LoadReport | null;
  html: string | null;
}

let runs = 0;

/** Starts `streamhouse load ARGS`; `ended` resolves when it has ended. `temp`: where its temporary files go. */
function start(args: readonly string[], tmp = folder): { child: ChildProcess; ended: Promise<Ended> } {
  const file = join(folder, `report-${++runs}`);
  const serveAt = args.indexOf('--');
  const [own, serve] = serveAt < 0 ? [args, []] : [args.slice(0, serveAt), args.slice(serveAt)];
  const all = [MAIN, 'load', ...own, '--json', `${file}.json`, '--html', `${file}.html`, ...serve];
  const env = { NODE_COMPILE_CACHE: COMPILE_CACHE, ...process.env, TMPDIR: tmp };
  const child = spawn(process.execPath, all, { stdio: ['ignore', 'pipe', 'pipe'], env });
  const out = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => (out.stdout += chunk));
  child.stderr.on('data', (chunk: Buffer) => (out.stderr += chunk));
  const ended = once(child, 'close').then(([code]): Ended => {
    const json = existsSync(`${file}.json`) ? readFileSync(`${file}.json`, 'utf8') : '';
    const html = existsSync(`${file}.html`) ? readFileSync(`${file}.html`, 'utf8') : '';
    return {
      code,
      ...out,
      report: json === '' ? null : checkLoadReport(JSON.parse(json)),
      html: html || null,
    };
  });
  return { child, ended };
}

function load(...args: string[]): Promise<Ended> {
  return start(args).ended;
}

async function report(...args: string[]): Promise<LoadReport> {
  const { code, stderr, report: made, html } = await load(...args);
  assert.equal(code, 0, stderr);
  assert.ok(made);
  assert.match(html ?? '', /<svg/);
  return made;
}

/** Acknowledged, every one, and read back as it was sent. */
function assertWhole({ records, verify, partial }: LoadReport, count: number): void {
  assert.equal(partial, false);
  assert.deepEqual([records.sent, records.acked, records.failed], [count, count, 0]);
  assert.ok(verify);
  const { took_s, examples, ...counts } = verify;
  const none = {
    missing: 0,
    duplicated: 0,
    reordered: 0,
    altered: 0,
    refused_read: 0,
    gaps: 0,
    unknown_read: 0,
  };
  assert.deepEqual(counts, { read: count, ...none });
  assert.ok(took_s >= 0 && examples.length === 0);
}

/** Arguments of a small run of every scenario, and the records that it must have. A scenario without a row fails. */
const SMALL: Record<string, { args: string[]; records: number; check?: (report: LoadReport) => void }> = {
  pathological: {
    args: ['--partitions', '40', '--batches', '30', '--in-flight', '200', '--generators', '2', '--echo'],
    records: 1200,
    check: ({ objects, cache, flush, echo, broker, series, produce_ms, plan }) => {
      assert.equal(plan.generators, 2);
      assert.ok(objects.puts > 0 && objects.puts < 200);
      assert.ok(cache.topics.hit_rate !== null && cache.topics.hit_rate > 0.9);
      assert.ok(flush.count > 0 && flush.rows !== null && flush.rows >= 3 && flush.rows <= 2 * 8 + 40);
      assert.ok(echo !== null && echo.rate_per_s > 0 && echo.ratio > 0);
      assert.ok(
        broker.cpu_s !== null && broker.cpu_s > 0 && broker.rss_max_mb !== null && broker.rss_max_mb > 30,
      );
      assert.ok(series.length > 0 && series.reduce((sum, point) => sum + point.rate_per_s, 0) > 0);
      assert.ok(produce_ms.p50 !== null && produce_ms.max !== null && produce_ms.p50 <= produce_ms.max);
    },
  },
  trickle: {
    args: ['--partitions', '20', '--rate', '300', '--duration', '2s'],
    records: 600,
    check: ({ phases }) => assert.ok(phases[0].took_s >= 1.9, 'it keeps its rate'),
  },
  burst: { args: ['--partitions', '50', '--batches', '20', '--duration', '2s'], records: 1000 },
  hot: { args: ['--batches', '1000', '--in-flight', '100', '--per-request', '3'], records: 1000 },
  wide: {
    args: ['--partitions', '3000', '--batches', '1', '--per-request', '50', '--restart'],
    records: 3000,
    check: ({ broker, objects }) => {
      assert.ok(broker.restart_ms !== null && broker.restart_ms > 0);
      assert.ok(broker.create_topic_ms !== null && broker.create_topic_ms > 0);
      assert.ok((objects.slices_per_object ?? 0) > 100);
    },
  },
  tail: {
    args: ['--partitions', '10', '--rate', '300', '--duration', '2s'],
    records: 600,
    check: ({ end_to_end_ms: { p50, max }, phases }) => {
      assert.ok(p50 !== null && p50 > 5 && max !== null && max < 20_000, `end to end ${p50} ${max}`);
      assert.equal(phases[0].readers?.records, 600);
    },
  },
  backfill: {
    args: ['--partitions', '10', '--batches', '20', '--rate', '200', '--duration', '2s'],
    records: 1000,
    check: ({ p99_ratio, phases }) => {
      assert.ok(p99_ratio !== null && p99_ratio > 0);
      assert.ok((phases[2].readers?.records ?? 0) >= 200);
      assert.equal(phases[2].readers?.failed, 0);
    },
  },
  segments: {
    args: ['--partitions', '500', '--batches', '4', '--in-flight', '64'],
    records: 2000,
    check: ({ objects }) => assert.ok(objects.slices >= 500),
  },
  mixed: {
    args: ['--partitions', '50', '--rate', '500', '--duration', '2s'],
    records: 1000,
    check: ({ phases, cache, index_us }) => {
      assert.ok((phases[0].readers?.records ?? 0) > 0);
      assert.ok(cache.pages.hit_rate !== null && index_us.p99 !== null);
    },
  },
  cold: {
    args: ['--partitions', '40', '--batches', '30', '--rate', '300', '--duration', '2s'],
    records: 1800,
    check: ({ phases, cache, index_paged_ms, broker, objects, series }) => {
      assert.deepEqual(
        phases.map(({ after_restart }) => after_restart),
        [false, true],
      );
      const { readers } = phases[1];
      assert.ok(
        readers !== null && readers.kind === 'random' && readers.records > 40 && readers.failed === 0,
      );
      // Every page is read once from the store, and no look-up of before the restart is counted.
      assert.ok(cache.pages.misses !== null && cache.pages.misses > 0);
      assert.equal(index_paged_ms.count, cache.pages.misses);
      assert.ok((cache.topics.misses ?? 0) >= 1, 'the topic is not known at first');
      assert.ok((cache.pages.hits ?? 0) + (cache.pages.misses ?? 0) <= readers.requests + 40);
      assert.ok(objects.puts > 0 && objects.puts < 60, `${objects.puts}`);
      assert.ok(broker.restart_ms !== null && broker.restart_ms > 0);
      assert.ok(series.every(({ puts_per_s }) => puts_per_s === null || puts_per_s >= 0));
    },
  },
  churn: {
    args: ['--partitions', '50', '--rate', '300', '--duration', '3s'],
    records: 900,
    check: ({ phases }) => {
      const { churn } = phases[0];
      assert.ok(churn !== null && churn.topics_created > 2 && churn.topics_created === churn.topics_deleted);
      assert.equal(churn.failed, 0);
      assert.equal(churn.records, churn.topics_created * 20);
    },
  },
};

describe('streamhouse load', () => {
  for (const { name } of SCENARIOS) {
    it(`${name}: everything is acknowledged and read back`, async () => {
      const small = SMALL[name];
      assert.ok(small, `no small size of ${name}`);
      const made = await report(name, ...small.args, '--verify');
      assertWhole(made, small.records);
      small.check?.(made);
    });
  }

  it('measures what sharing objects saves, on the same run without it', async () => {
    const args = ['trickle', '--partitions', '30', '--rate', '300', '--duration', '2s', '--verify'];
    const [shared, apart] = [await report(...args), await report(...args, '--no-cross-partition')];
    assertWhole(apart, 600);
    assert.deepEqual([shared.plan.object_per, apart.plan.object_per], ['window', 'partition']);
    assert.equal(apart.objects.slices_per_object, 1);
    assert.ok(shared.objects.puts * 5 < apart.objects.puts, `${shared.objects.puts}, ${apart.objects.puts}`);
  });

  it('delays the object store, and hands settings on to its broker', async () => {
    const delayed = await report(
      ...['trickle', '--partitions', '5', '--rate', '100', '--duration', '2s', '--verify'],
      ...['--object-latency', '40ms,60ms,100ms', '--', '--flush-window', '20ms'],
    );
    assertWhole(delayed, 200);
    assert.ok((delayed.produce_ms.p50 ?? 0) >= 40, `p50 ${delayed.produce_ms.p50}`);
    assert.match(delayed.command, / -- --flush-window 20ms$/);
  });

  it('leaves nothing behind but what it was asked for', async () => {
    const temp = mkdtempSync(join(tmpdir(), 'streamhouse-load-temp-'));
    try {
      const { code } = await start(['hot', '--batches', '100', '--in-flight', '64', '--verify'], temp).ended;
      assert.equal(code, 0);
      assert.deepEqual(readdirSync(temp), []);
    } finally {
      rmSync(temp, { recursive: true });
    }
  });
});

describe('streamhouse load on PostgreSQL', () => {
  it('tells the statements that the server itself counted', async () => {
    const place = await MEASURED_PLACES.postgres();
    try {
      const url = await place.freshUrl();
      const args = ['trickle', '--partitions', '10', '--rate', '100', '--duration', '2s', '--verify'];
      const { database, flush } = await report(...args, '--metadata', url, '--', ...place.args);
      assert.deepEqual([database.unit, database.source], ['statements', 'pg_stat_statements']);
      assert.ok((database.statements ?? 0) >= flush.count && flush.count > 5);
      // The two are read a moment apart, and a heartbeat may come between.
      const difference = (database.statements ?? 0) - (database.by_broker ?? 0);
      assert.ok(Math.abs(difference) <= 3, `${database.statements}, ${database.by_broker}`);
    } finally {
      await place.end();
    }
  });
});

describe('streamhouse load on a broker that runs already', () => {
  let broker: BrokerProcess;
  before(async () => {
    broker = await BrokerProcess.start(['--data', join(folder, 'running'), '--log-level', 'warn']);
  });
  after(() => broker.kill());

  it('uses it, and takes its topic away again', async () => {
    const made = await report(
      'pathological',
      '--url',
      broker.url,
      '--partitions',
      '10',
      '--batches',
      '10',
      '--verify',
    );
    assertWhole(made, 100);
    assert.equal(made.plan.broker, broker.url);
    const topics = await (await fetch(`${broker.url}/topics`)).json();
    assert.deepEqual(topics, []);
  });

  it('tells clearly when it dies, with what was measured so far', async () => {
    const args = ['trickle', '--url', broker.url, '--rate', '200', '--duration', '60s', '--partitions', '10'];
    const { ended } = start(args);
    await sleepMs(4000);
    await broker.kill();
    const { code, stderr, report: made } = await ended;
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^streamhouse: this report is partial: the broker has not answered for 3 s \(connection-\w+\)\n$/,
    );
    assert.ok(made?.partial && made.records.acked > 100 && made.records.failed > 0);
  });
});

/** The process of a load's own broker: the child of it that serves. */
function brokerOf(parent: number): number {
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const read = (file: string): string => {
      try {
        return readFileSync(`/proc/${name}/${file}`, 'utf8');
      } catch {
        // It ended meanwhile.
        return '';
      }
    };
    const isChild = new RegExp(`^PPid:\\t${parent}$`, 'm').test(read('status'));
    if (isChild && read('cmdline').split('\0').includes('serve')) return Number(name);
  }
  assert.fail(`process ${parent} has no broker`);
}

describe('a load that ends early', () => {
  const long = ['trickle', '--rate', '200', '--duration', '60s', '--partitions', '10'];

  it('by Ctrl-C: reports what it has, says that it is partial, and ends its broker', async () => {
    const { child, ended } = start([...long, '--verify']);
    await sleepMs(5000);
    const broker = brokerOf(child.pid as number);
    child.kill('SIGINT');
    const { code, stderr, stdout, report: made, html } = await ended;
    assert.equal(code, 130);
    assert.match(stderr, /this report is partial: it was interrupted/);
    assert.match(stdout, /^trickle, 10 partitions \(partial\)/);
    assert.match(html ?? '', /This report is partial/);
    assert.ok(made?.partial && made.records.acked > 100);
    assert.equal(made.verify, null);
    assert.throws(() => process.kill(broker, 0), { code: 'ESRCH' });
  });

  it('because its broker dies: says so, and how', async () => {
    const { child, ended } = start(long);
    await sleepMs(5000);
    process.kill(brokerOf(child.pid as number), 'SIGKILL');
    const { code, stderr, report: made } = await ended;
    assert.equal(code, 1);
    assert.match(stderr, /this report is partial: the broker ended \(SIGKILL/);
    assert.ok(made?.partial && made.records.acked > 100);
  });
});

describe('a broker that does not keep its promise', () => {
  let fake: FakeRestServer;
  before(async () => {
    fake = await FakeRestServer.start();
  });
  after(() => fake.close());

  const damages: [string, RegExp, (records: StoredRecord[]) => void][] = [
    ['loses the newest record', /1 missing/, (records) => records.pop()],
    ['doubles a record', /1 duplicated/, (records) => records.push(records[0])],
    ['swaps two', /2 reordered/, (records) => records.splice(0, 2, records[1], records[0])],
    [
      'changes a byte',
      /1 missing, 1 altered/,
      (records) => (records[1] = { key: null, value: Buffer.from('"AAAAAAAA"') }),
    ],
  ];
  for (const [what, finding, damage] of damages) {
    it(`is found out when it ${what}`, async () => {
      let isDamaged = false;
      fake.fault = (method, path) => {
        // The first look at an end is the beginning of the reading.
        if (method !== 'GET' || !path.endsWith('/offsets') || isDamaged) return null;
        isDamaged = true;
        const topic = [...fake.topics.values()].at(-1);
        damage(topic?.partitions[1] as StoredRecord[]);
        return null;
      };
      const args = ['pathological', '--url', fake.url, '--partitions', '3', '--batches', '4', '--verify'];
      const { code, stderr, report: made } = await load(...args);
      assert.equal(code, 1);
      assert.match(stderr, /^streamhouse: what was read is not what was acknowledged: /);
      assert.match(stderr, finding);
      assert.equal(made?.partial, false);
      assert.ok((made?.verify?.examples.length ?? 0) > 0);
    });
  }

  it('or refuses: refusals are counted as failed, by their code', async () => {
    let count = 0;
    fake.fault = (method, path) =>
      method === 'POST' && path.startsWith('/topics/') && ++count % 4 === 0
        ? { kind: 'record-errors', errorCode: 42990, message: 'busy' }
        : null;
    const args = ['pathological', '--url', fake.url, '--partitions', '4', '--batches', '10', '--verify'];
    const { code, stderr, report: made } = await load(...args);
    assert.equal(code, 0, stderr);
    assert.equal(made?.records.failed, 10);
    assert.deepEqual(made.records.failures, { 42990: 10 });
    assert.equal(made.verify?.read, 30);
  });

  it('or drops connections: what was on its way is unknown, and never sent twice', async () => {
    let count = 0;
    fake.fault = (method, path) =>
      method === 'POST' && path.startsWith('/topics/') && ++count % 25 === 0 ? { kind: 'drop-after' } : null;
    const args = [
      'pathological',
      '--url',
      fake.url,
      '--partitions',
      '4',
      '--batches',
      '50',
      '--connections',
      '4',
    ];
    const { code, stderr, report: made } = await load(...args, '--in-flight', '32', '--verify');
    assert.equal(code, 0, stderr);
    assert.ok(made && made.records.unknown > 0 && made.records.failed === made.records.unknown);
    assert.equal(made.records.sent, 200);
    assert.equal(made.verify?.duplicated, 0);
  });
});

describe('wrong input is one clear line and exit code 2', () => {
  const cases: [string[], RegExp][] = [
    [[], /missing required argument 'scenario'/],
    [['nonsense'], /no scenario nonsense; there are pathological, trickle, burst, hot, wide, tail, backfill/],
    [['hot', '--partitions', '0'], /--partitions: "0" is not a whole number from 1/],
    [['hot', '--value-bytes', '9'], /--value-bytes: "9" is not a whole number from 10/],
    [['hot', '--rate', '1.5'], /--rate: "1.5" is not a whole number/],
    [['hot', '--duration', 'soon'], /--duration: "soon" is not a duration/],
    [['hot', '--object-latency', '40ms,1s'], /--object-latency: .* is not P50,P99,MAX/],
    [['hot', '--object-latency', '3s,2s,1s'], /rising/],
    [['hot', '--prices', 'gold=1'], /--prices: "gold=1" is not NAME=USD/],
    [
      ['hot', '--in-flight', '3', '--connections', '4'],
      /--in-flight \(3\) must not be below --connections \(4\)/,
    ],
    [['hot', '--url', 'ftp://x'], /--url: "ftp:\/\/x" is not an http:\/\/ or https:\/\/ URL/],
    [
      ['hot', '--url', 'http://127.0.0.1:1', '--restart'],
      /--restart is of a broker of its own: not with --url/,
    ],
    [['hot', '--url', 'http://127.0.0.1:1', '--no-cross-partition'], /not with --url/],
    [['cold', '--url', 'http://127.0.0.1:1'], /cold starts a broker of its own anew: not with --url/],
    [['hot', '--url', 'http://127.0.0.1:1', '--', '--lanes', '2'], /--lanes is of a broker of its own/],
    [['hot', '--', '--lanes', '0'], /--lanes: "0" is outside 1 to 64/],
    [['hot', '--metadata', 'nonsense:x'], /unknown metadata scheme 'nonsense:'/],
    [['hot', '--bogus'], /unknown option '--bogus'/],
    [['wide', '--batches', '1000000'], /records are more than one run can tell apart/],
  ];
  it('for every kind of it', async () => {
    for (const [args, message] of cases) {
      const child = spawn(process.execPath, [MAIN, 'load', ...args], {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { NODE_COMPILE_CACHE: COMPILE_CACHE, ...process.env },
      });
      let stderr = '';
      child.stderr.on('data', (chunk: Buffer) => (stderr += chunk));
      const [code] = await once(child, 'close');
      assert.match(stderr, message, args.join(' '));
      assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
      assert.equal(code, 2, args.join(' '));
    }
  });

  it('also for a report that cannot be written, before anything is run', async () => {
    const file = join(folder, 'no', 'such', 'folder.json');
    const child = spawn(process.execPath, [MAIN, 'load', 'hot', '--html', file], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk));
    const [code] = await once(child, 'close');
    assert.equal(code, 2);
    assert.match(stderr, /folder\.json cannot be written \(ENOENT\)\n$/);
  });

  it('and no broker at a URL is exit code 1, with one line', async () => {
    const { code, stderr } = await load('hot', '--url', 'http://127.0.0.1:1');
    assert.equal(code, 1);
    assert.match(stderr, /no connection to http:\/\/127\.0\.0\.1:1 \(ECONNREFUSED\)/);
  });
});
