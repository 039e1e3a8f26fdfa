/** What `serve` does around a broker: the ready line, its settings, its ends. The broker here is a stand-in. */
import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { describe, it } from 'node:test';
import { serve } from '../../../src/cli/serve.ts';
import type { Shell } from '../../../src/cli/shell.ts';
import { systemClock } from '../../../src/core/clock.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import { readSettings, type Settings } from '../../../src/settings.ts';

const settings = readSettings({ flags: { listen: '127.0.0.1:0' }, env: {} });

function shell(stop: AbortSignal): { shell: Shell; printed: () => string } {
  const stdout = new PassThrough();
  const chunks: Buffer[] = [];
  stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  const streams = { stdin: new PassThrough(), stdout, stderr: new PassThrough() };
  return {
    shell: { ...streams, env: {}, clock: systemClock, stop },
    printed: () => Buffer.concat(chunks).toString(),
  };
}

function broker() {
  let fail: (error: Error) => void = () => undefined;
  const state = { closed: 0, given: null as Settings | null };
  const failed = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failed.catch(() => undefined);
  const start = async (given: Settings) => {
    state.given = given;
    return { url: 'http://127.0.0.1:1234', failed, close: async () => void state.closed++ };
  };
  return { state, start, fail: (error: Error) => fail(error) };
}

describe('serve', () => {
  it('says where it serves and closes in order when it is asked to stop', async () => {
    const stop = new AbortController();
    const { shell: one, printed } = shell(stop.signal);
    const { state, start } = broker();
    const done = serve(settings, start, one);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(printed(), 'ready http://127.0.0.1:1234\n');
    assert.equal(state.given, settings);
    assert.equal(state.closed, 0);
    stop.abort();
    await done;
    assert.equal(state.closed, 1);
  });

  it('fails with the broker, after closing what is left of it', async () => {
    const { shell: one } = shell(new AbortController().signal);
    const { state, start, fail } = broker();
    const done = serve(settings, start, one);
    fail(new StreamHouseError('store-went-back', 'shard 3 is below what was committed'));
    await assert.rejects(done, /shard 3 is below/);
    assert.equal(state.closed, 1);
  });

  it('closes at once what was still starting when it was asked to stop', async () => {
    const stop = new AbortController();
    stop.abort();
    const { shell: one, printed } = shell(stop.signal);
    const { state, start } = broker();
    await serve(settings, start, one);
    assert.equal(printed(), '');
    assert.equal(state.closed, 1);
  });
});
