/** `npm run demo`, small: it runs, it ends by itself without a terminal, and it leaves nothing behind. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { promisify } from 'node:util';
import { ROOT } from '../support/source-scan.ts';

it('the demo brings every record back, prints its tables and removes its data', async () => {
  const temporary = mkdtempSync(join(tmpdir(), 'streamhouse-demo-test-'));
  try {
    const env = { ...process.env, TMPDIR: temporary };
    const args = [join(ROOT, 'bench/demo.ts'), '--limit', '5000'];
    const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { env });
    assert.equal(stderr, '');
    for (const topic of ['flights', 'earthquakes']) assert.match(stdout, new RegExp(`^${topic}$`, 'm'));
    assert.equal(stdout.match(/^equal and in order {2}yes, every record$/gm)?.length, 2);
    assert.match(stdout, /^records {13}5,000, keyed by/m);
    assert.match(stdout, /^objects written {5}[1-9]\d*$/m);
    assert.match(stdout, /^fewer puts {10}\d+\.\d%$/m);
    assert.ok(!stdout.includes('not reported'), stdout);
    assert.deepEqual(readdirSync(temporary), []);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
});
