/**
 * Checks a report of `streamhouse load` against its schema, and the fixed keys against the list that was agreed with
 * whoever reads reports. Tests and benchmarks.
 */
import assert from 'node:assert/strict';
import { Compile } from 'typebox/compile';
import { type LoadReport, LoadReportSchema } from '../../src/load/report-schema.ts';

const validator = Compile(LoadReportSchema);

/** Keys that do not change, with those inside of them. */
const FIXED_KEYS: Record<string, readonly string[]> = {
  scenario: [],
  partitions: [],
  records: ['sent', 'acked', 'failed'],
  rate_per_s: [],
  produce_ms: ['p50', 'p95', 'p99', 'p999', 'max'],
  metadata_ms: ['p50', 'p99'],
  cached_ms: ['p50', 'p99'],
  cache: ['topics', 'leases', 'pages'],
  index_us: ['p50', 'p99'],
  objects: ['puts', 'puts_per_million_records'],
  flush: ['count', 'statements', 'rows', 'bytes'],
  database: ['statements', 'statements_per_s', 'source'],
  verify: [],
  broker: ['cpu_s', 'rss_max_mb'],
  machine: [],
  commit: [],
  command: [],
};
const VERIFY_KEYS = ['read', 'missing', 'duplicated', 'reordered', 'altered'];

export function checkLoadReport(value: unknown): LoadReport {
  // As a reader of the file gets it.
  const report = JSON.parse(JSON.stringify(value));
  const errors = validator.Errors(report);
  assert.deepEqual([...errors].slice(0, 5), []);
  for (const [key, inner] of Object.entries(FIXED_KEYS)) {
    assert.ok(Object.hasOwn(report, key), key);
    for (const name of inner) assert.ok(Object.hasOwn(report[key], name), `${key}.${name}`);
  }
  for (const name of ['topics', 'leases', 'pages'])
    assert.ok(Object.hasOwn(report.cache[name], 'hit_rate'), name);
  if (report.verify !== null)
    for (const name of VERIFY_KEYS) assert.ok(Object.hasOwn(report.verify, name), name);
  return report as LoadReport;
}
