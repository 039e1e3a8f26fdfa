/** The real process of the command line: an old Node, a reader that goes away, Ctrl-C, codes of exit. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { FakeRestServer } from '../../support/fake-rest-server.ts';

const MAIN = fileURLToPath(new URL('../../../src/main.ts', import.meta.url));
const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

let server: FakeRestServer;
before(async () => {
  server = await FakeRestServer.start();
  const records = server.addTopic('t', 1).partitions[0];
  for (let i = 0; i < 300; i++) records.push({ key: null, value: Buffer.alloc(2000, 97) });
});
after(() => server.close());

async function result(
  child: ChildProcess,
): Promise<{ code: number | null; signal: string | null; stderr: string }> {
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk;
  });
  const [code, signal] = await once(child, 'close');
  return { code, signal, stderr };
}

function start(args: string[]): ChildProcess {
  const env = { ...process.env, STREAMHOUSE_URL: server.url };
  return spawn(process.execPath, [MAIN, ...args], { env });
}

/** A Node older than 24 on this machine, if there is one outside the project. */
function olderNode(): string | null {
  for (const path of ['/usr/bin/node', '/usr/local/bin/node']) {
    if (!existsSync(path)) continue;
    const version = execFileSync(path, ['--version'], { encoding: 'utf8' });
    if (Number.parseInt(version.slice(1), 10) < 24) return path;
  }
  return null;
}

describe('process', () => {
  it('ends quietly when its reader goes away', async () => {
    const child = start(['consume', 't']);
    const done = result(child);
    child.stdout?.once('data', () => child.stdout?.destroy());
    const { code, stderr } = await done;
    assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
  });

  it('ends quietly on Ctrl-C', async () => {
    const child = start(['consume', 't', '--follow', '--from', 'end']);
    const done = result(child);
    const asked = server.requests.length;
    while (!server.requests.slice(asked).some(({ path }) => path.includes('/records'))) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    child.kill('SIGINT');
    const { code, stderr } = await done;
    assert.deepEqual({ code, stderr }, { code: 130, stderr: '' });
  });

  it('ends with its codes', async () => {
    const wrong = await result(start(['serve', '--lanes', '0']));
    assert.deepEqual(wrong, {
      code: 2,
      signal: null,
      stderr: 'streamhouse: --lanes: "0" is outside 1 to 64\n',
    });
    assert.equal((await result(start(['topics', 'describe', 'none']))).code, 1);
    assert.equal((await result(start(['--version']))).code, 0);
  });

  it('says in one line that a Node is too old, before it loads anything', async () => {
    // main.ts has no types, so it is what tsc makes of it; it runs alone in a folder, where any import would fail.
    const source = readFileSync(MAIN, 'utf8');
    assert.ok(!/^import /m.test(source), 'main.ts imports nothing statically');
    const directory = mkdtempSync(join(tmpdir(), 'streamhouse-node-'));
    try {
      mkdirSync(join(directory, 'src'));
      copyFileSync(join(ROOT, 'package.json'), join(directory, 'package.json'));
      const main = join(directory, 'src', 'main.js');
      const old = olderNode();
      // Without an older Node the same code is told that it runs on one.
      const pretend = "Object.defineProperty(process, 'version', { value: 'v20.20.2' });\n";
      const versions = "Object.defineProperty(process.versions, 'node', { value: '20.20.2' });\n";
      const setUp = `${pretend}Object.defineProperty(process, 'versions', { value: { ...process.versions } });\n${versions}`;
      writeFileSync(main, old === null ? source.replace('\n', `\n${setUp}`) : source);
      const { code, stderr } = await result(spawn(old ?? process.execPath, [main, 'serve']));
      assert.equal(code, 1);
      assert.match(stderr, /^streamhouse: Node 24 or newer is needed, this is v\d+\.\d+\.\d+ \(.*\)\n$/);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
