/**
 * `streamhouse load` with several brokers of its own, as users run it: one is killed and one added while records are
 * sent, and every acknowledged record is read back once; plans that did not come about; stores that nobody can share.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { ClusterReport, LoadReport } from '../../src/load/report-schema.ts';
import { checkLoadReport } from '../support/load-report-check.ts';
import { sharedPostgres } from '../support/shared-postgres.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const COMPILE_CACHE = fileURLToPath(new URL('../../node_modules/.cache/compile', import.meta.url));

const folder = mkdtempSync(join(tmpdir(), 'streamhouse-load-cluster-'));
after(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

async function load(args: readonly string[], temp = folder): Promise<Ended> {
  const env = { NODE_COMPILE_CACHE: COMPILE_CACHE, ...process.env, TMPDIR: temp };
  const child: ChildProcess = spawn(process.execPath, [MAIN, 'load', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env,
  });
  const out = { stdout: '', stderr: '' };
  child.stdout?.on('data', (chunk: Buffer) => (out.stdout += chunk));
  child.stderr?.on('data', (chunk: Buffer) => (out.stderr += chunk));
  const [code] = await once(child, 'close');
  return { code, ...out };
}

/** Of brokers that soon notice that one is dead. */
const SERVE = ['--', '--migrate', '--heartbeat', '300ms', '--dead-agent', '1s'];

async function shared(brokers: number): Promise<string[]> {
  return ['--brokers', `${brokers}`, '--metadata', (await sharedPostgres()).storeUrl()];
}

function sumOf(cluster: ClusterReport, of: (broker: ClusterReport['brokers'][number]) => number): number {
  return cluster.brokers.reduce((sum, broker) => sum + of(broker), 0);
}

describe('streamhouse load over three brokers', () => {
  it('reads every acknowledged record back once while one is killed and one added', async () => {
    const temp = mkdtempSync(join(folder, 'temp-'));
    const [json, html] = [join(folder, 'report.json'), join(folder, 'report.html')];
    const { code, stderr, stdout } = await load(
      [
        ...['pathological', '--partitions', '60', '--rate', '600', '--duration', '10s', '--verify'],
        ...['--kill-one-after', '2s', '--add-one-after', '5s', '--generators', '2', ...(await shared(3))],
        ...['--json', json, '--html', html, ...SERVE],
      ],
      temp,
    );
    assert.equal(code, 0, stderr);
    assert.deepEqual(readdirSync(temp), []);
    const report: LoadReport = checkLoadReport(JSON.parse(readFileSync(json, 'utf8')));
    const { records, verify, cluster, plan } = report;
    assert.ok(verify !== null && cluster !== null);
    assert.deepEqual([report.partial, plan.brokers, records.sent], [false, 3, 6000]);

    // What nobody knows of was on its way to the broker that was killed; nothing else failed.
    assert.equal(records.failed, records.unknown);
    assert.equal(records.acked + records.unknown, 6000);
    assert.ok(records.unknown < 2000, `${records.unknown} unknown`);
    const { took_s: _, examples, unknown_read, read, ...wrong } = verify;
    assert.deepEqual(examples, []);
    assert.deepEqual(
      Object.values(wrong).filter((count) => count > 0),
      [],
    );
    assert.equal(read, records.acked + unknown_read);
    assert.ok(unknown_read <= records.unknown);

    assertStory(report, cluster);
    const page = readFileSync(html, 'utf8');
    for (const text of ['What happened to the brokers', 'b2 killed', 'How long acknowledgements stopped']) {
      assert.ok(page.includes(text), text);
      assert.ok(text.startsWith('b2') ? stdout.includes(text) : true, text);
    }
  });

  it('is a partial report and exit code 1 when the load is over before what was to happen', async () => {
    const json = join(folder, 'short.json');
    const { code, stderr } = await load([
      ...['pathological', '--partitions', '10', '--batches', '5', '--kill-one-after', '1m', '--verify'],
      ...[...(await shared(2)), '--json', json, ...SERVE],
    ]);
    assert.equal(code, 1, stderr);
    assert.match(stderr, /this report is partial: the load was over before a broker was killed\n$/);
    assert.equal(checkLoadReport(JSON.parse(readFileSync(json, 'utf8'))).records.acked, 50);
  });
});

/** Seed 1: the second of three is killed. */
function assertStory({ series, records }: LoadReport, cluster: ClusterReport): void {
  const whenOf = (what: string): number => {
    const event = cluster.events.find((one) => one.what === what);
    assert.ok(event, `${what}: ${JSON.stringify(cluster.events)}`);
    return event.t_s;
  };
  const [killed, taken] = [whenOf('b2 killed'), whenOf('its shards are held by others')];
  const [started, ready] = [whenOf('b4 started'), whenOf('b4 ready')];
  assert.ok(killed >= 2 && taken > killed && started >= 5 && ready > started, JSON.stringify(cluster.events));
  assert.ok((series.at(-1)?.t_s ?? 0) > started);
  const byName = new Map(cluster.brokers.map((broker) => [broker.name, broker]));
  assert.deepEqual([...byName.keys()], ['b1', 'b2', 'b3', 'b4']);
  assert.deepEqual(
    cluster.brokers.map(({ killed_s }) => killed_s !== null),
    [false, true, false, false],
  );
  for (const { name, ready_ms, rss_max_mb, metadata_calls } of cluster.brokers) {
    assert.ok(ready_ms > 0 && (rss_max_mb ?? 0) > 30 && metadata_calls > 0, name);
  }
  assert.ok((byName.get('b2')?.records_committed ?? 0) > 0, 'the killed one did its part');
  const spans = new Map(cluster.spans.map((span) => [span.name, span]));
  for (const name of ['before', 'b2 killed', 'b4 added']) {
    const span = spans.get(name);
    assert.ok(span !== undefined && span.to_s > span.from_s, `${name}: ${JSON.stringify(cluster.spans)}`);
  }
  const acked = cluster.spans.reduce((sum, span) => sum + span.acked, 0);
  assert.equal(acked, records.acked);

  // Of three brokers each holds a third: two of three records go on to another one.
  assert.ok(
    (cluster.forwarded_share ?? 0) > 0.3 && (cluster.forwarded_share ?? 1) < 0.9,
    `${cluster.forwarded_share}`,
  );
  const [forwarded, received] = [
    sumOf(cluster, ({ forwarded_appends }) => forwarded_appends),
    sumOf(cluster, ({ received_appends }) => received_appends),
  ];
  assert.ok(received > 0 && received <= forwarded, `${received} of ${forwarded} forwarded`);

  const of = (event: string, which: string) =>
    cluster.stops.find((stop) => stop.event === event && stop.of === which);
  const [dead, others] = [of('b2 killed', 'led by b2'), of('b2 killed', 'all others')];
  assert.ok(dead !== undefined && others !== undefined);
  assert.equal(dead.partitions + others.partitions, 60);
  assert.ok(dead.partitions >= 10 && dead.partitions <= 30, `${dead.partitions} partitions`);
  assert.deepEqual([dead.not_again, others.not_again], [0, 0]);
  // They stood still for the dead-agent time, less what was unanswered, and none for good.
  assert.ok((dead.stopped_ms.p50 ?? 0) >= 500, `stopped for ${dead.stopped_ms.p50} ms`);
}

describe('wrong input is one clear line and exit code 2', () => {
  const three = ['pathological', '--brokers', '3'];
  const postgres = ['--metadata', 'postgres://u:secret@127.0.0.1:1/d'];
  const cases: [string[], RegExp][] = [
    [
      three,
      /--brokers 3: SQLite, the default, has one owner; --metadata must name a store that several brokers/,
    ],
    [[...three, '--metadata', 'sqlite:x.db'], /--brokers 3: sqlite: has one owner/],
    [[...three, '--metadata', 'memory:'], /--brokers 3: memory: has one owner/],
    [[...three, '--url', 'http://127.0.0.1:1'], /--brokers is of brokers of its own: not with --url/],
    [['pathological', '--kill-one-after', '1s'], /--kill-one-after needs --brokers 2 or more/],
    [
      ['pathological', '--brokers', '1', '--add-one-after', '1s'],
      /--add-one-after needs --brokers 2 or more/,
    ],
    [['pathological', '--brokers', '99'], /--brokers: "99" is not a whole number from 1 to 16/],
    [[...three, '--kill-one-after', 'soon'], /--kill-one-after: "soon" is not a duration/],
    [['cold', '--brokers', '3', ...postgres], /what starts its broker anew has one/],
    [[...three, ...postgres, '--restart'], /what starts its broker anew has one/],
    [
      [...three, ...postgres, '--rate', '10', '--duration', '5s', '--kill-one-after', '5s'],
      /--kill-one-after: the load is over after 5 s/,
    ],
  ];
  it('for every kind of it', async () => {
    for (const [args, message] of cases) {
      const { code, stderr } = await load(args);
      assert.match(stderr, message, args.join(' '));
      assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
      assert.equal(code, 2, args.join(' '));
      assert.ok(!stderr.includes('secret'));
    }
  });
});
