/** What a broker's /metrics say: differences, quantiles by interpolation, what is not there. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { brokerFigures } from '../../../src/load/broker-figures.ts';
import { MetricsChange, MetricsSnapshot } from '../../../src/load/metrics-snapshot.ts';

function histogram(name: string, counts: Record<string, number>): string {
  return Object.entries(counts)
    .map(([le, count]) => `${name}_bucket{le="${le}"} ${count}\n`)
    .join('');
}

function text(f: number): string {
  return (
    '# HELP x y\n# TYPE x counter\n' +
    `streamhouse_append_calls_total ${10 * f}\n` +
    `streamhouse_entries_committed_total ${80 * f}\n` +
    `streamhouse_entry_bytes_total ${5000 * f}\n` +
    `streamhouse_objects_put_total ${20 * f}\n` +
    `streamhouse_slices_total ${2000 * f}\n` +
    `streamhouse_upload_hedges_total ${f}\n` +
    `streamhouse_metadata_store_statements_total ${14 * f}\n` +
    `streamhouse_metadata_cache_hits_total{kind="topic"} ${99 * f}\n` +
    `streamhouse_metadata_cache_misses_total{kind="topic"} ${f}\n` +
    `streamhouse_metadata_cache_hits_total{kind="page"} 0\nstreamhouse_metadata_cache_misses_total{kind="page"} 0\n` +
    histogram('streamhouse_metadata_append_entries_seconds', {
      '0.001': 0,
      '0.002': 10 * f,
      '+Inf': 10 * f,
    }) +
    histogram('streamhouse_metadata_other_seconds', { '0.001': 3 * f, '0.002': 3 * f, '+Inf': 4 * f })
  );
}

const OWN = { unit: 'calls', source: 'the broker' } as const;

describe('metrics of a broker', () => {
  const change = new MetricsChange(new MetricsSnapshot(text(1)), new MetricsSnapshot(text(3)));

  it('give the figures of what happened between two looks', () => {
    const figures = brokerFigures(change, 1_000_000, 2000, { own: OWN, database: null });
    assert.deepEqual(figures.flush, { count: 20, statements: 1, rows: 18, bytes: 500 });
    assert.equal(figures.objects.uploaded, 40);
    assert.equal(figures.objects.puts, 42, 'an upload sent twice is two requests');
    assert.equal(figures.objects.puts_per_million_records, 42);
    assert.equal(figures.objects.slices_per_object, 100);
    assert.deepEqual(figures.cache.topics, { hit_rate: 0.99, hits: 198, misses: 2 });
    assert.equal(figures.cache.pages.hit_rate, null);
    assert.deepEqual(figures.cache.leases, { hit_rate: null, hits: null, misses: null });
    assert.equal(figures.metadata_calls.append_entries.count, 20);
    assert.equal(figures.database.statements_per_s, 14);
  });

  it("prefer the database's own count of statements", () => {
    const counted = { statements: 48, unit: 'transactions', source: 'pg_stat_database' } as const;
    const { flush, database } = brokerFigures(change, 1_000_000, 2000, { own: OWN, database: counted });
    assert.equal(flush.statements, 1, 'the broker is not alone there');
    assert.equal(database.statements_per_s, 24);
    assert.equal(database.by_broker, 28);
    assert.deepEqual([database.unit, database.source], ['transactions', 'pg_stat_database']);
  });

  it('say why the database did not count, and what counted instead', () => {
    const failed = { statements: null, unit: 'statements', source: 'it could not be asked: gone' } as const;
    const { database } = brokerFigures(change, 1_000_000, 2000, { own: OWN, database: failed });
    assert.equal(database.statements, 28);
    assert.equal(database.unit, 'calls');
    assert.equal(database.source, 'the broker (it could not be asked: gone)');
  });

  it('give quantiles within the buckets, and none without observations', () => {
    const of = (name: string) => change.histogram([`streamhouse_metadata_${name}_seconds`]);
    assert.equal(of('append_entries').quantile(0.5), 0.0015);
    assert.equal(of('append_entries').quantile(1), 0.002);
    assert.equal(of('other').quantile(0.5), (0.001 * 4) / 6);
    assert.equal(of('other').quantile(0.99), 0.002, 'beyond the last bound it is that bound');
    assert.equal(of('nothing').quantile(0.5), null);
  });

  it('of several brokers are sums; one that is gone has done what it did and holds nothing', () => {
    const broker = (count: number) =>
      new MetricsSnapshot(
        `# TYPE a_total counter\na_total ${count}\n# TYPE held gauge\nheld ${count}\n` +
          `# TYPE s histogram\ns_bucket{le="1"} ${count}\ns_bucket{le="+Inf"} ${count}\n`,
      );
    const all = MetricsSnapshot.together([broker(1), broker(10)], [broker(100)]);
    assert.deepEqual([all.value('a_total'), all.value('held')], [111, 11]);
    const grown = new MetricsChange(all, MetricsSnapshot.together([broker(2), broker(20)], [broker(100)]));
    assert.deepEqual([grown.of('a_total'), grown.histogram(['s']).count], [11, 11]);
  });

  it('give null, not 0, for what a broker does not count', () => {
    const none = new MetricsChange(
      new MetricsSnapshot(''),
      new MetricsSnapshot('streamhouse_append_calls_total 4\n'),
    );
    const figures = brokerFigures(none, 0, 1000, { own: OWN, database: null });
    assert.equal(figures.flush.statements, null);
    assert.equal(figures.database.statements, null);
    assert.equal(figures.objects.puts_per_million_records, null);
    assert.deepEqual(figures.metadata_ms, { p50: null, p99: null });
  });
});
