/**
 * `verify` beside a real broker that is being written to, grown, deleted from, and killed: it must never find what
 * is not wrong, and must still find what is. Checkpoints are so small that pointers move and logs are trimmed all
 * the time.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { cli } from '../support/test-shell.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const ROUNDS = 6;

async function startBroker(data: string): Promise<{ url: string; child: ChildProcess }> {
  const flags = ['--flush-window', '5ms', '--checkpoint-log-bytes', '4KiB', '--log-level', 'silent'];
  const args = [MAIN, 'serve', '--listen', '127.0.0.1:0', '--data', data, '--lanes', '2', ...flags];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout!.setEncoding('utf8'), 'data')) as [string];
  return { child, url: line.trim().replace('ready ', '') };
}

async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await once(child, 'exit');
}

interface Report {
  findings: unknown[];
  counts: Record<string, number>;
  passingFindings: number;
}

async function verify(data: string, ...args: string[]): Promise<Report> {
  const { code, stdout, stderr } = await cli(['verify', '--json', '--data', data, ...args]);
  assert.equal(stderr, '');
  const report = JSON.parse(stdout) as Report;
  assert.deepEqual(report.findings, []);
  assert.equal(code, 0);
  return report;
}

it('beside a broker under load, and after it was killed, nothing is wrong', async (t) => {
  const data = mkdtempSync(join(tmpdir(), 'streamhouse-verify-e2e-'));
  t.after(() => rmSync(data, { recursive: true, force: true }));
  let broker = await startBroker(data);
  t.after(() => ended(broker.child, 'SIGKILL'));
  const on = async (args: string[], stdin = ''): Promise<string> => {
    const result = await cli([...args, '--url', broker.url], { stdin });
    assert.equal(result.stderr, '');
    return result.stdout;
  };
  await on(['topics', 'create', 'load', '--partitions', '200']);
  let running = true;
  let sent = 0;
  const load = async (more: string[]): Promise<void> => {
    for (let round = 0; running; round++) {
      const lines = Array.from({ length: 400 }, (_, i) => `{"k":${i},"r":${round}}\n`).join('');
      const keyed = ['--format', 'json', '--key-field', 'k', '--batch-records', '50', '--in-flight', '4'];
      await on(['produce', 'load', ...keyed, ...more], lines);
      sent += 400;
    }
  };
  const churn = async (): Promise<void> => {
    for (let i = 0; running; i++) {
      await on(['topics', 'create', `short-${i}`, '--partitions', '10']);
      await on(['produce', `short-${i}`], 'one\ntwo\nthree\n'.repeat(10));
      await on(['topics', 'grow', `short-${i}`, '12']);
      await on(['topics', 'delete', `short-${i}`]);
    }
  };
  const busy = Promise.all([load([]), load(['--idempotent']), churn()]);
  let before = 0;
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const { counts } = await verify(data, ...(round % 2 === 0 ? [] : ['--deep']));
      assert.ok(counts.records >= before);
      before = counts.records;
    }
  } finally {
    running = false;
    await busy;
  }
  assert.ok(before > 0);
  const whole = await verify(data, '--topic', 'load');
  assert.equal(whole.counts.records, sent);
  assert.equal(whole.passingFindings, 0);

  await ended(broker.child, 'SIGKILL');
  assert.equal((await verify(data, '--topic', 'load')).counts.records, sent);
  broker = await startBroker(data);
  await on(['produce', 'load'], 'after\n');
  await ended(broker.child, 'SIGTERM');
  const after = await verify(data, '--deep');
  assert.equal(after.counts.shardsUnknown, 0);
  assert.equal((await verify(data, '--topic', 'load')).counts.records, sent + 1);
});
