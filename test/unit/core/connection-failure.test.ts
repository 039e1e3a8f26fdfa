/** Errors as Node and undici make them, real ones where they can be had. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, it } from 'node:test';
import { errors, request } from 'undici';
import { connectionFailure } from '../../../src/core/connection-failure.ts';

async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('it did not fail');
}

function systemError(code: string, syscall: string): Error {
  return Object.assign(new Error(`${syscall} ${code}`), { code, syscall });
}

describe('a connection that failed', () => {
  it('was never made where nobody listens, or the name is unknown', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    server.close();
    const refused = connectionFailure(await failureOf(request(`http://127.0.0.1:${port}/`)));
    assert.deepEqual([refused.code, refused.wasNeverMade], ['ECONNREFUSED', true]);
    // `localhost` may have two addresses, which fail together.
    const both = connectionFailure(await failureOf(request(`http://localhost:${port}/`)));
    assert.deepEqual([both.code, both.wasNeverMade], ['ECONNREFUSED', true]);
    const unknown = connectionFailure(await failureOf(request('http://no-such-host.invalid/')));
    assert.equal(unknown.wasNeverMade, true);
    assert.equal(connectionFailure(new errors.ConnectTimeoutError('late')).wasNeverMade, true);
  });

  it('may have carried the request when it broke later, whatever the error is called', async () => {
    const server = createServer((socket) => socket.once('data', () => socket.destroy())).listen(
      0,
      '127.0.0.1',
    );
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const broken = connectionFailure(await failureOf(request(`http://127.0.0.1:${port}/`)));
    server.close();
    assert.equal(broken.wasNeverMade, false);
    for (const code of ['EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT', 'ECONNRESET', 'EPIPE']) {
      for (const syscall of ['read', 'write']) {
        assert.equal(connectionFailure(systemError(code, syscall)).wasNeverMade, false, `${syscall} ${code}`);
      }
    }
    assert.equal(connectionFailure(systemError('ECONNRESET', 'connect')).wasNeverMade, false);
    assert.equal(connectionFailure(new errors.SocketError('other side closed')).wasNeverMade, false);
    assert.equal(connectionFailure('nothing').wasNeverMade, false);
  });
});
