/**
 * The published package: packed, installed into an empty folder and run from there, as `npx streamhouse` would.
 * Finds what the sources alone cannot: a file that the package forgets, a path that only holds in the sources.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { ROOT } from '../support/source-scan.ts';

const execute = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), 'streamhouse-package-'));
let broker: ChildProcess | null = null;
after(async () => {
  if (broker !== null && broker.exitCode === null && broker.signalCode === null) {
    broker.kill('SIGKILL');
    await once(broker, 'exit');
  }
  rmSync(folder, { recursive: true, force: true });
});

/** The installed command, by this Node: the one on the path may be older. */
const BIN = join(folder, 'node_modules', '.bin', 'streamhouse');

async function ready(child: ChildProcess): Promise<string> {
  const stderr: Buffer[] = [];
  child.stderr?.on('data', (chunk: Buffer) => stderr.push(chunk));
  assert.ok(child.stdout);
  for await (const line of createInterface(child.stdout)) {
    const url = /^ready (http:\S+)$/.exec(line)?.[1];
    if (url !== undefined) return url;
  }
  assert.fail(`the broker ended: ${Buffer.concat(stderr)}`);
}

describe('the packed package', () => {
  it('installs into an empty folder and serves, produces, consumes and bears load', {
    timeout: 120_000,
  }, async () => {
    await execute('npm', ['pack', '--silent', '--pack-destination', folder], { cwd: ROOT });
    const [tarball] = readdirSync(folder).filter((name) => name.endsWith('.tgz'));
    writeFileSync(join(folder, 'package.json'), '{"private":true}');
    const install = [
      'install',
      '--prefer-offline',
      '--no-audit',
      '--no-fund',
      '--silent',
      join(folder, tarball),
    ];
    await execute('npm', install, { cwd: folder });

    const files = readdirSync(join(folder, 'node_modules', 'streamhouse')).sort();
    assert.deepEqual(files, ['CHANGELOG.md', 'LICENSE', 'README.md', 'dist', 'package.json']);
    const run = (...args: string[]) => execute(process.execPath, [BIN, ...args], { cwd: folder });
    assert.match((await run('--version')).stdout, /^\d+\.\d+\.\d+\n$/);

    const args = [BIN, 'serve', '--listen', '127.0.0.1:0', '--data', join(folder, 'data')];
    broker = spawn(process.execPath, args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
    const url = await ready(broker);
    await run('topics', 'create', 'letters', '--partitions', '3', '--url', url);
    writeFileSync(join(folder, 'letters.txt'), 'a\nb\nc\nd\n');
    await run('produce', 'letters', join(folder, 'letters.txt'), '--url', url);
    const { stdout } = await run('consume', 'letters', '--url', url);
    assert.deepEqual(stdout.trimEnd().split('\n').sort(), ['a', 'b', 'c', 'd']);
    // Its processes are files that nothing imports.
    const small = ['--partitions', '5', '--rate', '100', '--duration', '1s', '--verify'];
    const load = await run('load', 'tail', ...small, '--html', join(folder, 'load.html'));
    assert.match(load.stdout, /read back\s+100: 0 missing, 0 duplicated, 0 reordered, 0 altered/);

    broker.kill('SIGTERM');
    const [code] = await once(broker, 'exit');
    assert.equal(code, 0);
  });
});
