/**
 * What a generator may conclude from an answer, or from none: nothing is sent again that may have happened. Against
 * servers that answer, refuse, or are gone with requests in their hands.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import { systemClock } from '../../../src/core/clock.ts';
import { REFUSED_OFFSET, UNKNOWN_OFFSET } from '../../../src/load/ack-log.ts';
import { type Batch, type BatchResult, ProduceSender } from '../../../src/load/produce-sender.ts';

// Timers of the clock do not keep the process alive.
const hold = setInterval(() => undefined, 1000);
after(() => clearInterval(hold));

function senderTo(urls: readonly string[], perRequest = 1): ProduceSender {
  const shape = { valueBytes: 10, perRequest, seed: 1, generator: 0, generators: 1, readsOffsets: true };
  return new ProduceSender({
    urls,
    topic: 't',
    connections: urls.length,
    pipelining: 8,
    clock: systemClock,
    ...shape,
  });
}

function send(sender: ProduceSender, index: number, partitions = [0]): Promise<BatchResult> {
  const indexes = partitions.map((_, i) => index + i);
  const batch: Batch = { indexes, partitions, dueMs: 0, sentMs: 0 };
  return new Promise((resolve) => sender.send(batch, (_, result) => resolve(result)));
}

async function listening(onConnection: (socket: Socket) => void): Promise<{ server: Server; url: string }> {
  const server = createServer(onConnection);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

/** Answers every request so. */
function answering(status: string, body: string) {
  return listening((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (bytes: Buffer) => {
      const requests = bytes.toString('latin1').match(/POST /g)?.length ?? 0;
      for (let i = 0; i < requests; i++) {
        socket.write(
          `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
        );
      }
    });
  });
}

describe('a request whose broker is gone', () => {
  it('is unknown when it was written, though no connection is to be had any more', async () => {
    // Like SIGKILL: it has the requests, and then neither the connection nor the listener is there.
    let taken = 0;
    const { server, url } = await listening((socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (bytes: Buffer) => {
        taken += bytes.toString('latin1').match(/POST /g)?.length ?? 0;
        if (taken < 5) return;
        server.close();
        socket.resetAndDestroy();
      });
    });
    const sender = senderTo([url]);
    const results = await Promise.all([0, 1, 2, 3, 4].map((index) => send(sender, index)));
    for (const { offsets, again, acked, code, isDisconnected } of results) {
      assert.deepEqual([offsets, again, acked], [[UNKNOWN_OFFSET], [], 0]);
      assert.deepEqual([code, isDisconnected], ['connection-lost', true]);
    }
    assert.equal(taken, 5);
    await sender.close();
  });

  it('never happened when there was no connection, and others get the next ones for a while', async () => {
    const { server: gone, url: goneUrl } = await listening(() => undefined);
    gone.close();
    const { server, url } = await answering('200 OK', '{"offsets":[{"partition":0,"offset":7}]}');
    const sender = senderTo([goneUrl, url]);
    const first = await send(sender, 0);
    assert.deepEqual([first.offsets, first.again, first.code], [[REFUSED_OFFSET], [0], 'connection-failed']);
    for (let index = 1; index < 6; index++) assert.deepEqual((await send(sender, index)).offsets, [7]);
    await sender.close();
    server.close();
  });
});

describe('an answer', () => {
  const cases: [string, string, number, boolean][] = [
    [
      '503 Service Unavailable',
      '{"error_code":50392,"code":"not-leader","outcome":"none","retriable":true}',
      REFUSED_OFFSET,
      true,
    ],
    [
      '429 Too Many Requests',
      '{"error_code":42990,"code":"overloaded","outcome":"none","retriable":true}',
      REFUSED_OFFSET,
      true,
    ],
    ['503 Service Unavailable', 'of another server', REFUSED_OFFSET, true],
    [
      '504 Gateway Timeout',
      '{"error_code":50493,"code":"peer-lost","outcome":"unknown","retriable":true}',
      UNKNOWN_OFFSET,
      false,
    ],
    ['504 Gateway Timeout', 'of another server', UNKNOWN_OFFSET, false],
    ['500 Internal Server Error', '', UNKNOWN_OFFSET, false],
    [
      '404 Not Found',
      '{"error_code":40401,"code":"topic-not-found","outcome":"none","retriable":false}',
      REFUSED_OFFSET,
      false,
    ],
    ['200 OK', 'nonsense', UNKNOWN_OFFSET, false],
  ];
  for (const [status, body, offset, isAgain] of cases) {
    it(`${status} ${body.slice(0, 40)}: ${isAgain ? 'may be sent again' : 'is final'}`, async () => {
      const { server, url } = await answering(status, body);
      const sender = senderTo([url]);
      const { offsets, again, acked } = await send(sender, 0);
      assert.deepEqual([offsets, again, acked], [[offset], isAgain ? [0] : [], 0]);
      await sender.close();
      server.close();
    });
  }

  it('to several records tells them apart', async () => {
    const rows = [
      '{"partition":0,"offset":3}',
      '{"partition":1,"error_code":50392,"error":"no leader"}',
      '{"partition":2,"error_code":50493,"error":"lost"}',
      '{"partition":3,"error_code":40402,"error":"no such partition"}',
    ];
    const { server, url } = await answering('200 OK', `{"offsets":[${rows.join(',')}]}`);
    const sender = senderTo([url], 4);
    const { offsets, again, acked } = await send(sender, 0, [0, 1, 2, 3]);
    assert.deepEqual(offsets, [3, REFUSED_OFFSET, UNKNOWN_OFFSET, REFUSED_OFFSET]);
    assert.deepEqual([again, acked], [[1], 1]);
    await sender.close();
    server.close();
  });
});
