/**
 * `serve` as a process, with the client commands against it: signals, exit codes, a second broker on the same
 * data, data that is still there after a restart. What a broker promises under load is proven elsewhere.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, it } from 'node:test';
import { ROOT } from '../support/source-scan.ts';

const MAIN = join(ROOT, 'src/main.ts');
const directory = mkdtempSync(join(tmpdir(), 'streamhouse-serve-'));
const started: ChildProcess[] = [];
after(async () => {
  for (const child of started) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  rmSync(directory, { recursive: true, force: true });
});

interface Ended {
  code: number | null;
  stderr: string;
}

/** In `directory`, so that relative paths lie there. */
function start(...args: string[]): { child: ChildProcess; url: Promise<string>; ended: Promise<Ended> } {
  const child = spawn(process.execPath, [MAIN, 'serve', '--listen', '127.0.0.1:0', ...args], {
    cwd: directory,
  });
  started.push(child);
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk;
  });
  const ended = once(child, 'close').then(([code]) => ({ code, stderr }));
  const url = new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).on('line', (line) => resolve(line.replace(/^ready /, '')));
    ended.then((how) => reject(new Error(`ended with ${how.code}: ${how.stderr}`)));
  });
  url.catch(() => undefined);
  return { child, url, ended };
}

function cli(url: string, args: string, stdin = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const all = [MAIN, ...args.split(' '), '--url', url];
    const child = execFile(process.execPath, all, (error, stdout) =>
      error ? reject(error) : resolve(stdout),
    );
    child.stdin?.end(stdin);
  });
}

describe('serve', () => {
  it('keeps records over a restart and ends in order on SIGTERM and on Ctrl-C', async () => {
    // As `npm start` has it: relative, and not there yet.
    const data = './kept';
    const first = start('--data', data);
    const url = await first.url;
    assert.match(url, /^http:\/\/127\.0\.0\.1:[1-9]\d*$/);
    await cli(url, 'topics create t --partitions 2');
    assert.match(await cli(url, 'produce t --partition 1', 'one\ntwo\n'), /^2 acknowledged/);
    first.child.kill('SIGTERM');
    assert.equal((await first.ended).code, 0);

    const second = start('--data', data);
    const next = await second.url;
    assert.equal(await cli(next, 'consume t --partition 1'), 'one\ntwo\n');
    assert.match(await cli(next, 'produce t --partition 1 --idempotent', 'three\n'), /^1 acknowledged/);
    assert.equal(await cli(next, 'consume t --from beginning'), 'one\ntwo\nthree\n');
    second.child.kill('SIGINT');
    assert.equal((await second.ended).code, 0);
  });

  it('says in one line why it cannot start, on standard error', async () => {
    const data = join(directory, 'busy');
    const first = start('--data', data, '--log-level', 'silent');
    const url = await first.url;
    const cases: [string[], number, RegExp][] = [
      [['--data', data], 1, /^streamhouse: .+\n$/],
      [
        ['--listen', new URL(url).host, '--data', join(directory, 'other')],
        1,
        /^streamhouse: .*listen address .*: it is in use already\n$/,
      ],
      [['--data', join(directory, 'x'), '--metadata', 'nonsense:x'], 2, /^streamhouse: .*metadata.*\n$/],
      [
        ['--data', join(directory, 'y'), '--objects', 'nonsense:x'],
        2,
        /^streamhouse: setting objects: object URL .*\n$/,
      ],
      [['--data', MAIN], 2, /^streamhouse: .*main\.ts.*\n$/],
    ];
    for (const [args, code, pattern] of cases) {
      const ended = await start(...args, '--log-level', 'silent').ended;
      assert.match(ended.stderr, pattern);
      assert.equal(ended.stderr.trimEnd().split('\n').length, 1, ended.stderr);
      assert.equal(ended.code, code, args.join(' '));
    }
    assert.equal((await fetch(`${url}/health/live`)).status, 200);
    first.child.kill('SIGTERM');
    assert.equal((await first.ended).code, 0);
  });
});
