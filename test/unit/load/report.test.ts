/** The report as a page and as a few lines, and its schema in docs/. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { systemClock } from '../../../src/core/clock.ts';
import { systemRandom } from '../../../src/core/random.ts';
import { defaultPrices } from '../../../src/load/cost.ts';
import { Latencies } from '../../../src/load/latency.ts';
import { makePlan } from '../../../src/load/load-plan.ts';
import { MetricsSnapshot } from '../../../src/load/metrics-snapshot.ts';
import { reportHtml } from '../../../src/load/report-html.ts';
import type { LoadReport } from '../../../src/load/report-schema.ts';
import { reportSummary } from '../../../src/load/report-summary.ts';
import { runReport } from '../../../src/load/run-report.ts';
import { SCENARIOS } from '../../../src/load/scenarios.ts';
import { plotSvg } from '../../../src/load/svg-plot.ts';
import { checkLoadReport } from '../../support/load-report-check.ts';
import { LOAD_SCHEMA_PAGE, loadSchemaPage } from '../../support/load-schema-page.ts';

function latencies(ms: readonly number[]): Latencies {
  const all = new Latencies();
  for (const one of ms) all.add(one);
  return all;
}

function totals(ms: readonly number[]) {
  const measured = { latencies: latencies(ms), acked: ms.length, tookMs: 1000 };
  const counts = {
    sent: ms.length + 1,
    acked: ms.length,
    failed: 1,
    unknown: 0,
    failures: { overloaded: 1 },
    retried: {},
    gaps: [],
  };
  return { ...counts, tookMs: 1000, measured, cpuS: 0.5, lateMsMax: 0 };
}

function sample(name: string, latenciesOf: (phase: number) => readonly number[]): LoadReport {
  const scenario = SCENARIOS.find((one) => one.name === name);
  assert.ok(scenario);
  const plan = makePlan(scenario, { partitions: 10 });
  const none = new MetricsSnapshot('');
  const own = {
    agentId: null,
    data: null,
    metadata: null,
    objects: null,
    objectDelayMs: null,
    objectPer: 'window',
    seed: 1,
    serveArgs: [],
    profileDirectory: null,
    env: {},
    clock: systemClock,
  } as const;
  const options = {
    plan,
    url: null,
    own,
    cluster: null,
    verify: false,
    restart: false,
    echo: false,
    database: { ownCount: { unit: 'calls' as const, source: 'the broker' }, counter: null },
    prices: defaultPrices(),
    command: 'streamhouse load <"& co>',
    clock: systemClock,
    random: systemRandom,
    signal: new AbortController().signal,
    progress: () => undefined,
  };
  const point = {
    t_s: 0,
    rate_per_s: 5,
    failed: 0,
    p50_ms: 4,
    p99_ms: 50,
    max_ms: 60,
    requests_outstanding: 3,
  };
  const blank = {
    puts_per_s: 1,
    appends_outstanding: 2,
    uploads_in_flight: 0,
    objects_in_flight: 0,
    open_batch_slices: 7,
    in_flight_mb: 1,
    rss_mb: 100,
    heap_mb: null,
    topics_hit_rate: 0.5,
    pages_hit_rate: null,
  };
  return runReport({
    options,
    partialReason: null,
    outcomes: plan.phases.map((phase, i) => ({
      phase,
      beganMs: i * 1000,
      totals: totals(latenciesOf(i)),
      readers: null,
      churn: null,
    })),
    before: none,
    after: none,
    watchedFrom: 0,
    beganMs: 0,
    tookMs: 1000,
    counted: null,
    series: [0, 1, 2].map((t_s) => ({ ...point, ...blank, t_s })),
    verify: null,
    cluster: null,
    echo: null,
    broker: { rss_max_mb: 100, start_ms: 1, restart_ms: null, create_topic_ms: 2 },
  });
}

describe('a report', () => {
  const hundred = Array.from({ length: 100 }, (_, i) => i + 1);
  const report = sample('pathological', () => hundred);

  it('has the keys and the figures that were measured', () => {
    checkLoadReport(report);
    assert.deepEqual(report.records, {
      sent: 101,
      acked: 100,
      failed: 1,
      unknown: 0,
      failures: { overloaded: 1 },
    });
    assert.equal(report.rate_per_s, 100);
    const { p50, p99, max } = report.produce_ms;
    assert.ok(p50 !== null && Math.abs(p50 - 50) < 0.1, String(p50));
    assert.ok(p99 !== null && Math.abs(p99 - 99) < 0.1, String(p99));
    assert.ok(max !== null && Math.abs(max - 100) < 0.1, String(max));
    assert.equal(report.p99_ratio, null);
  });

  it('compares producers beside readers with the same alone', () => {
    const outcomes = sample('backfill', (phase) => (phase === 2 ? hundred.map((ms) => ms * 3) : hundred));
    assert.equal(outcomes.records.acked, 300, 'all phases count');
    // The readers of a phase are part of the plan.
    assert.ok(outcomes.p99_ratio !== null && Math.abs(outcomes.p99_ratio - 3) < 0.01);
  });

  it('is a page that asks nothing of a network, runs nothing, and escapes what it shows', () => {
    const html = reportHtml(report);
    assert.ok(!/<script|<link|<img|@import|url\(|src=/i.test(html));
    assert.deepEqual(
      html.match(/https?:\/\/[^"' ]+/g)?.filter((url) => url !== 'http://www.w3.org/2000/svg') ?? [],
      [],
    );
    assert.ok(html.includes('streamhouse load &#60;&#34;&#38; co&#62;'));
    assert.ok(!html.includes('NaN') && !html.includes('undefined') && !html.includes('Infinity'));
    for (const title of ['over time', 'distribution', 'PUTs', 'not yet answered', 'Memory']) {
      assert.match(html, new RegExp(`<text[^>]*class="title">[^<]*${title}`), title);
    }
    const tags = [...html.matchAll(/<(\/?)(svg|div|table|tr)\b/g)].map(([, end, name]) =>
      end ? `/${name}` : name,
    );
    for (const name of ['svg', 'div', 'table', 'tr']) {
      assert.equal(
        tags.filter((tag) => tag === name).length,
        tags.filter((tag) => tag === `/${name}`).length,
        name,
      );
    }
  });

  it('says that it is partial where it is', () => {
    const partial = { ...report, partial: true, partial_reason: 'the broker ended (SIGKILL)' };
    assert.match(reportHtml(partial), /This report is partial: the broker ended \(SIGKILL\)/);
    assert.match(reportSummary(partial), /^pathological, 10 partitions \(partial\)\n/);
  });

  it('has its schema in docs/ (npm run docs writes it)', () => {
    assert.equal(readFileSync(LOAD_SCHEMA_PAGE, 'utf8'), loadSchemaPage());
  });
});

describe('plots', () => {
  it('leave out what cannot be drawn, and are nothing when nothing can', () => {
    const plot = (points: [number, number | null][], isLogY = false) =>
      plotSvg({ title: 't', xName: 'x', yName: 'y', isLogY, lines: [{ name: 'l', points }] });
    assert.equal(plot([]), '');
    assert.equal(plot([[0, null]]), '');
    assert.equal(plot([[0, 0]], true), '');
    for (const svg of [
      plot([[0, 0]]),
      plot([[0, 5]], true),
      plot([
        [1, 2],
        [2, null],
        [3, 9],
      ]),
      plot([[0, 1e9]]),
    ]) {
      assert.match(svg, /<path d="M[\d.]+ [\d.]+/);
      assert.ok(!svg.includes('NaN'), svg);
    }
    assert.equal(
      plot([
        [1, 2],
        [2, null],
        [3, 9],
      ]).match(/M[\d.]+ [\d.]+/g)?.length,
      2,
      'a gap begins a new line',
    );
  });
});

describe('latencies', () => {
  it('add up over processes, as text, and keep three digits at any size', () => {
    const one = latencies([1, 2, 3]);
    const other = Latencies.decode(latencies([1000, 60_000]).encode());
    one.merge(other);
    assert.equal(one.count, 5);
    for (const [part, ms] of [
      [0.2, 1],
      [0.6, 3],
      [0.8, 1000],
      [1, 60_000],
    ]) {
      assert.ok(Math.abs(one.quantileMs(part) / ms - 1) < 0.002, `${part}: ${one.quantileMs(part)}`);
    }
    assert.equal(new Latencies().figures(), null);
    const empty = Latencies.decode(new Latencies().encode());
    assert.equal(empty.count, 0);
  });
});
